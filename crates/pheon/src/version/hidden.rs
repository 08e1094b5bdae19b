//! Rows of a segment that a later `upsert` or `delete` took out of a version.
//!
//! A segment never changes; what a version no longer shows of it stands in a small Arrow file of row numbers beside it
//! (docs/format.md section 3.4). Its checksum is checked when it is opened: a row that came back because of a damaged
//! list would be a wrong answer, not an error.

use std::path::{Path, PathBuf};

use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, Schema};
use pheon_os::fs::FileSystem;
use xxhash_rust::xxh3::xxh3_64;

use crate::access::Access;
use crate::error::ReadError;
use crate::manifest::HiddenRecord;
use crate::segment::file::ArrowFile;

/// Names of such files begin with this.
pub(crate) const HIDDEN_PREFIX: &str = "hidden-";
const COLUMN: &str = "row";

/// The hidden rows of a segment in one version.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub(crate) file: ArrowFile,
    /// Ascending.
    rows: ScalarBuffer<u32>,
}

/// The schema of such a file.
pub(crate) fn schema() -> Schema {
    Schema::new(vec![Field::new(COLUMN, DataType::UInt32, false)])
}

/// The path of such a file.
pub(crate) fn hidden_path(dataset_dir: &Path, id: &str) -> PathBuf {
    dataset_dir.join(format!("{HIDDEN_PREFIX}{id}.arrow"))
}

impl Hidden {
    /// Maps the list and checks its checksum: O(hidden rows).
    pub(crate) fn open(fs: &dyn FileSystem, dataset_dir: &Path, record: &HiddenRecord) -> Result<Self, ReadError> {
        let file = ArrowFile::open(fs, hidden_path(dataset_dir, &record.id), &record.file, Access::Memory)?;
        if file.schema.fields() != schema().fields() || file.rows != record.rows {
            let problem = format!("expected {} rows of one column {COLUMN:?} of UInt32", record.rows);
            return Err(file.corrupt("its schema", problem));
        }
        let rows = record.rows as usize;
        let (Some(buffer), Some(expected)) = (file.buffers.get(1), record.file.buffers.get(1)) else {
            return Err(file.corrupt("its record batch", "its values are missing"));
        };
        if rows.checked_mul(4).is_none_or(|bytes| buffer.len() < bytes) {
            return Err(file.corrupt("its record batch", format!("{} bytes for {rows} rows", buffer.len())));
        }
        // Where an empty buffer lies is not checked with the others.
        if !buffer.as_ptr().cast::<u32>().is_aligned() {
            return Err(file.corrupt("its record batch", "its values are not aligned"));
        }
        let found = xxh3_64(buffer);
        if found != expected.xxh3_64 {
            let problem = format!("expected XXH3-64 {:016x}, found {found:016x}", expected.xxh3_64);
            return Err(file.corrupt("its rows", problem));
        }
        let rows: ScalarBuffer<u32> = ScalarBuffer::new(buffer.clone(), 0, rows);
        if !rows.is_sorted_by(|a, b| a < b) {
            return Err(file.corrupt("its rows", "they do not ascend"));
        }
        Ok(Self { file, rows })
    }

    /// The row numbers, ascending.
    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    #[inline]
    pub(crate) fn contains(&self, row: u32) -> bool {
        self.rows.binary_search(&row).is_ok()
    }

    /// How many of the rows below `row` are hidden.
    pub(crate) fn count_before(&self, row: u32) -> usize {
        self.rows.partition_point(|&hidden| hidden < row)
    }
}
