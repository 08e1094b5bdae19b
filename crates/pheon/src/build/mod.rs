//! Building a segment: rows in any order go in, `data.arrow` and `index.arrow` come out, in bounded memory.

mod adapt;
mod block;
mod buffered;
mod cells;
mod data_file;
mod dictionary;
mod gather;
mod index_stage;
mod key;
mod merge;
mod normalise;
mod options;
mod part;
mod pipeline;
mod progress;
mod run;
mod segment;
mod sink;
mod sort;
mod spill_dir;
mod splitters;
mod stream;
mod tuning;

pub(crate) use block::Bounds;
pub(crate) use data_file::ArrowFile;
pub(crate) use gather::gather_stored;
pub(crate) use normalise::{has_dictionary, stored_type};
pub(crate) use options::{CancelFn, MEMORY_LIMIT_MIN_BYTES, ProgressFn};
pub use options::{OnDuplicate, PutOptions};
pub(crate) use part::{FinishedPart, PartContent, agreed_schema, hex_schema};
pub use progress::{Phase, Progress};
pub(crate) use segment::SegmentBuilder;
pub(crate) use sort::{Place, block_of, place, row_of};

/// The metadata of a field whose values a codec has encoded (docs/format.md section 3.1).
pub(crate) const CODEC_KEY: &str = "pheon.codec";

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at files behind the seam")]
mod tests;
