//! The operating-system layer of Pheon (Linux). It knows files, mappings, locks and memory; it knows no Arrow, no keys
//! and no datasets.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`fs`] | the one seam through which the engine touches files, the real file system, and a fault-injecting one |
//! | [`map`] | read-only shared mappings of published files |
//! | [`prefetch`] | cache-line prefetch hints |
//! | [`lanes`] | the fingerprints of an index bucket, compared at once |
//! | [`interrupt`] | Ctrl-C as a flag |
//! | [`bus_error`] | a last message for who reads a file that was cut |
//! | [`lock`] | the kernel-owned writers' lock |
//! | [`process`] | CPUs, memory, identity of this process |
//! | [`shm`] | private store folders in `/dev/shm` |
//! | [`memory`] | what mapped files really cost in memory |
//! | [`shared`] | shared mappings that processes write and read at once |
//! | [`robust`] | mutexes in shared memory that the kernel frees |
//! | [`futex`] | sleeping until a shared word changes |
//! | [`thread_id`] | numbers of threads that forked children do not inherit |
//!
//! # Limits
//! * Linux only: `/proc`, `/dev/shm`, POSIX record locks and `madvise` advice are used directly.
//! * A mapping is a promise that its file never changes; see [`map::ReadMap`] for the contract and for what happens when
//!   somebody breaks it.
//! * A POSIX record lock is lost when *any* descriptor of the file is closed by its process: nobody in a process may open
//!   a lock file except through [`lock::FileLock`].

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests look at files behind the seam"))]

use std::io;

pub mod bus_error;
#[cfg(test)]
mod forked_child;
pub mod fs;
pub mod futex;
pub mod interrupt;
pub mod lanes;
pub mod lock;
pub mod map;
pub mod memory;
pub mod prefetch;
pub mod process;
pub mod robust;
pub mod shared;
pub mod shm;
pub mod thread_id;

/// Whether an error says that there is no room: disk full (`ENOSPC`), quota used up (`EDQUOT`), or a file larger than the
/// file system or the process's `RLIMIT_FSIZE` allows (`EFBIG`).
///
/// ```
/// assert!(pheon_os::is_full(&std::io::Error::from_raw_os_error(28))); // ENOSPC
/// assert!(!pheon_os::is_full(&std::io::Error::from_raw_os_error(5))); // EIO
/// ```
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}
