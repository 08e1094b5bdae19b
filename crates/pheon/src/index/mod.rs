//! The hash index of a segment: one 64-byte bucket a cache line, ten entries a bucket (docs/format.md section 3.3).
//!
//! [`IndexPlan`] says where a hash belongs, [`IndexBuilder`] fills the buckets once, [`Index`] reads them. The index maps
//! the hash of each distinct key to the number of the key's first row; it never sees a key. Whoever looks up compares the
//! stored key of every row that a bucket proposes, so a damaged index can cause a miss but not a wrong answer.

mod builder;
mod entry;
mod layout;
mod place;
mod reader;
mod spill;

pub use builder::{IndexBuildError, IndexBuilder, IndexStats};
pub use layout::{BUCKET_BYTES, EMPTY_ROW, IndexPlan, KEYS_PER_BUCKET, SLOTS, fingerprint};
pub use reader::{Bucket, Index};

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // tests look into their own temporary folders
mod tests;
