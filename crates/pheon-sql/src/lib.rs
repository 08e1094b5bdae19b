//! SQL over Pheon stores, by DataFusion.
//!
//! ```text
//! Engine --session()--> Session --prepare(sql)--> Statement --query(parameters)--> stream of record batches
//!                                                           --update(parameters)--> rows changed
//! ```
//!
//! An [`Engine`] has a store and limits, a [`Session`] a caller's rights and, for a snapshot, the versions that it reads.
//! A [`Statement`] is planned once; it sees the newest versions each time that it is executed. The engine's store is read
//! through [`pheon::Table`]: filters on keys become searches of the index, rows are slices of the mapping. What SQL can
//! do and what it cannot is in docs/sql.md.
//!
//! Everything but [`Engine::execute`], which blocks, expects to run in a tokio runtime.

mod access;
mod analysis;
mod batched;
mod blocking;
mod catalog;
mod change;
mod concat_operator;
mod engine;
mod error;
mod extent;
mod functions;
mod ingest;
mod interval;
mod key_part;
mod memory;
mod opaque;
mod parameters;
mod predicate;
mod provider;
mod scan;
mod selection;
mod session;
mod statement;
mod syntax;
mod yielding;

pub use access::{Access, AllAccess};
pub use blocking::{Answer, BlockingRows};
pub use catalog::{CATALOG, SCHEMA};
pub use datafusion::common::DataFusionError;
pub use datafusion::execution::SendableRecordBatchStream;
pub use engine::{Engine, EngineOptions};
pub use error::SqlError;
pub use ingest::{IngestConflict, IngestMode, IngestOptions};
pub use session::{Session, TableFacts};
pub use statement::Statement;
