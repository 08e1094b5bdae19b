//! A sealed, sorted piece of a version: `data.arrow` and its `index.arrow`, mapped read-only.

mod bytes;
pub(crate) mod column;
pub(crate) mod file;
pub(crate) mod keys;
mod slice;

use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use pheon_os::fs::FileSystem;

pub(crate) use self::bytes::null_bytes;
use self::column::Column;
use self::file::{ArrowFile, segment_dir};
use self::keys::KeyPart;
use crate::access::Access;
use crate::error::ReadError;
use crate::index::Index;
use crate::key::KeyType;
use crate::lookup::Waits;
use crate::manifest::SegmentRecord;

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) data: ArrowFile,
    pub(crate) columns: Vec<Column>,
    pub(crate) key: Option<SegmentKey>,
    pub(crate) rows: usize,
    pub(crate) waits: Waits,
}

/// The key columns of a segment and the index over them.
#[derive(Debug)]
pub(crate) struct SegmentKey {
    /// The only key column; the first of several.
    pub(crate) column: usize,
    /// The type of the only key column; [`KeyType::Composite`] for several.
    pub(crate) key_type: KeyType,
    /// All key columns in the key's order; never empty.
    pub(crate) parts: Vec<KeyPart>,
    pub(crate) index: Index,
    pub(crate) index_file: ArrowFile,
}

impl Segment {
    /// Opens a segment in O(columns).
    pub(crate) fn open(
        fs: &dyn FileSystem,
        dataset_dir: &Path,
        record: &SegmentRecord,
        key: &[String],
        access: Access,
    ) -> Result<Self, ReadError> {
        let dir = segment_dir(dataset_dir, &record.id);
        let mut data = ArrowFile::open(fs, dir.join("data.arrow"), &record.data, access)?;
        data.map_in_order(fs)?;
        if data.rows != record.rows {
            return Err(data.corrupt("its record batch", format!("expected {} rows, found {}", record.rows, data.rows)));
        }
        if data.rows >= u64::from(u32::MAX) {
            return Err(data.corrupt("its record batch", format!("{} rows are more than a segment holds", data.rows)));
        }
        let columns = Column::of_file(&data)?;
        let key = match (key, &record.index) {
            ([], None) => None,
            ([_, ..], Some(index)) => {
                let index = ArrowFile::open(fs, dir.join("index.arrow"), index, access)?;
                Some(SegmentKey::new(&data, &columns, key, index)?)
            }
            _ => return Err(data.corrupt("its manifest", "the key columns and the index do not fit this version")),
        };
        Ok(Self { rows: data.rows as usize, data, columns, key, waits: Waits::default() })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.data.schema
    }

    /// Rows `start .. start + len` of all columns, sharing the mapping.
    pub(crate) fn batch(&self, start: usize, len: usize) -> Result<RecordBatch, ReadError> {
        let columns =
            self.columns.iter().map(|c| c.slice(&self.data, start, len)).collect::<Result<Vec<_>, ReadError>>()?;
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(len));
        RecordBatch::try_new_with_options(self.schema().clone(), columns, &options)
            .map_err(|e| self.data.corrupt("its schema", e.to_string()))
    }
}
