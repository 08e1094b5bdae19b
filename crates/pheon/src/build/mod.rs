//! Building a segment: rows in any order go in, `data.arrow` and `index.arrow` come out, in bounded memory.

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
mod pipeline;
mod progress;
mod run;
mod segment;
mod sink;
mod sort;
mod splitters;
mod stream;
mod tuning;

pub(crate) use block::Bounds;
pub(crate) use data_file::ArrowFile;
pub(crate) use normalise::{has_dictionary, stored_type};
pub(crate) use options::CancelFn;
pub use options::{OnDuplicate, PutOptions};
pub use progress::{Phase, Progress};
pub(crate) use segment::SegmentBuilder;

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at files behind the seam")]
mod tests;
