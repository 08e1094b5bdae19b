//! Pheon: one physical copy of a huge dictionary or data frame, on ordinary Arrow files, read by every process of a
//! machine at memory speed.
//!
//! ```
//! use std::sync::Arc;
//! use arrow_array::{RecordBatch, RecordBatchIterator, StringArray};
//! use pheon::{PutOptions, Store, Value};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("store");
//! let store = Store::open(&path)?;
//! let batch = RecordBatch::try_from_iter([
//!     ("word", Arc::new(StringArray::from(vec!["quick", "lazy"])) as _),
//!     ("synonym", Arc::new(StringArray::from(vec!["fast", "idle"])) as _),
//! ])?;
//! let schema = batch.schema();
//! store.put("synonyms", RecordBatchIterator::new([Ok(batch)], schema), PutOptions::map("word"))?;
//!
//! let map = store.map("synonyms")?; // any process, any number of them: one copy in memory
//! assert!(matches!(map.get("lazy")?, Some(Value::Str("idle"))));
//! let many = map.get_many(&StringArray::from(vec!["quick", "brown"]))?;
//! assert_eq!(many.null_count(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! What it guarantees and what it does not is in docs/safety.md, the files' bytes in docs/format.md, the code map in
//! docs/architecture.md. The engine is synchronous and has no thread that outlives a call.

mod access;
mod build;
mod dataset;
mod error;
#[doc(hidden)]
pub mod index;
pub mod input;
mod key;
mod key_text;
mod lookup;
mod manifest;
mod map;
mod memory;
#[cfg(feature = "polars")]
mod polars;
mod probe;
mod segment;
mod store;
mod table;
mod table_lookup;
mod untrusted;
mod value;
mod verify;
mod version;
mod writer;

pub use access::Access;
pub use build::{OnDuplicate, Phase, Progress, PutOptions};
pub use dataset::VersionInfo;
pub use error::{ReadError, WriteError};
pub use key::{KeyRef, KeyType};
pub use key_text::{KeyTextError, OwnedKey, parse_bytes, parse_key};
pub use lookup::KeyBatch;
pub use manifest::FORMAT_VERSION;
pub use map::Map;
pub use memory::{DatasetMemory, MemoryScope, WarmOptions, WarmReport};
pub use probe::Probe;
pub use store::Store;
pub use table::Table;
pub use table_lookup::FoundRows;
pub use value::Value;
pub use verify::VerifyReport;
pub use version::{Info, composite_key};
pub use writer::{ChangeOptions, GcReport, Part, PartOptions, PartWriter, Resume, Retention, Unfinished, Writer};
