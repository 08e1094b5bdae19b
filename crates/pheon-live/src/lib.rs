//! Live maps of Pheon: a changing dictionary in shared memory, with several writers, lock-free readers and no daemon.
//!
//! ```
//! use pheon_live::{LiveMap, LiveOptions, Location};
//!
//! # fn main() -> Result<(), pheon_live::LiveError> {
//! # let name = format!("doc-{}", pheon_os::process::random_id());
//! let location = Location::Memory { name, group: None };
//! let map = LiveMap::open(&location, &LiveOptions::default())?; // any process, any number of them
//! map.lock(None, &|| false)?;
//! map.put(b"hits", 0, b"1")?;
//! map.unlock()?;
//! assert_eq!(map.get(b"hits")?.as_deref(), Some(&b"1"[..])); // no lock, no system call
//! # map.unlink()
//! # }
//! ```
//!
//! Keys and values are bytes; what they mean is the caller's affair (docs/live-values.md is Python's). The protocol and every
//! byte in the files are in docs/live.md; what a killed process leaves and who repairs it, too.
//!
//! # Limits
//! * Linux, one machine, one C library and architecture.
//! * An entry has at most 2 GiB.
//! * Processes that may write the files are trusted: see docs/safety.md.

mod changes;
mod chunk;
mod clean;
mod ctrl;
mod error;
mod files;
mod index;
mod keylock;
mod layout;
mod map;
mod options;
mod own;
mod place;
mod queue;
mod recover;
mod repair;
mod shared;
mod snapshot;
mod sync;
mod user;
mod view;
mod write;

pub use changes::{ChangedKey, Changes, Position};
pub use error::LiveError;
pub use map::{Change, Entry, LiveInfo, LiveMap};
pub use options::LiveOptions;
pub use place::{Location, Place};
pub use snapshot::{Ordered, Snapshot};
