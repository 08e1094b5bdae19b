//! Building a segment: rows in any order go in, `data.arrow` and `index.arrow` come out, in bounded memory.

mod options;
mod progress;
mod segment;

pub use options::{OnDuplicate, PutOptions};
pub use progress::{Phase, Progress};
pub(crate) use segment::SegmentBuilder;
