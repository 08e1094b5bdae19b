//! Tables: the rows of a version, or a contiguous run of them, without a copy.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;

use crate::error::ReadError;
use crate::key::{KeyRef, KeyType};
use crate::lookup::KeyBound;
use crate::value::Value;
use crate::version::{Info, Version};

/// A version of a dataset or a contiguous slice of one. Cloning and slicing copy no data.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) version: Arc<Version>,
    start: usize,
    len: usize,
}

impl Table {
    pub(crate) fn whole(version: Arc<Version>) -> Self {
        let len = version.segment.rows;
        Self { version, start: 0, len }
    }

    /// The dataset's name.
    pub fn name(&self) -> &str {
        self.version.name()
    }

    /// The number of the version that this table reads.
    pub fn version(&self) -> u64 {
        self.version.manifest.version
    }

    /// Rows of this table or slice.
    pub fn num_rows(&self) -> usize {
        self.len
    }

    /// The first row of this slice, counted within the version, and its length.
    pub fn bounds(&self) -> (usize, usize) {
        (self.start, self.len)
    }

    /// The columns as stored.
    pub fn schema(&self) -> SchemaRef {
        self.version.segment.schema().clone()
    }

    /// Names of the key columns; empty: rows are in the order in which they were written.
    pub fn key(&self) -> &[String] {
        &self.version.manifest.key
    }

    /// The physical key type, if there is a key.
    pub fn key_type(&self) -> Option<KeyType> {
        self.version.key_type()
    }

    /// Whether each key occurs once.
    pub fn is_unique(&self) -> bool {
        self.version.manifest.unique
    }

    /// Bytes of the buffers that this table's columns refer to: a slice counts its share of each.
    pub fn nbytes(&self) -> Result<u64, ReadError> {
        let mut total = 0;
        for column in 0..self.version.segment.columns.len() {
            let data = self.column(column)?.to_data();
            total += data.get_slice_memory_size().map_err(|e| ReadError::arrow("measure a column", e))? as u64;
        }
        Ok(total)
    }

    /// Column `i` of the schema. Shares the mapping, validated before it is handed out.
    ///
    /// # Errors
    /// [`ReadError::WrongShape`] if there is no such column, [`ReadError::Corrupt`] if the stored data is not valid Arrow.
    pub fn column(&self, i: usize) -> Result<ArrayRef, ReadError> {
        let segment = &self.version.segment;
        let column = segment
            .columns
            .get(i)
            .ok_or_else(|| self.version.wrong_shape(format!("there is no column {i} of {}", segment.columns.len())))?;
        column.slice(&segment.data, self.start, self.len)
    }

    /// All columns. Shares the mapping.
    pub fn to_batch(&self) -> Result<RecordBatch, ReadError> {
        self.version.segment.batch(self.start, self.len)
    }

    /// Rows `offset .. offset + len` of this table; ends beyond the table are cut.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        let offset = offset.min(self.len);
        Self { version: self.version.clone(), start: self.start + offset, len: len.min(self.len - offset) }
    }

    /// The value in `row` of this table, in column `column` of the schema.
    pub fn value(&self, row: usize, column: usize) -> Result<Value<'_>, ReadError> {
        let segment = &self.version.segment;
        match segment.columns.get(column) {
            Some(c) if row < self.len => c.value(&segment.data, self.start + row),
            _ => Err(self.version.wrong_shape(format!("there is no row {row}, column {column}"))),
        }
    }

    /// The rows whose keys lie in `keys`, within this slice.
    ///
    /// # Errors
    /// [`ReadError::KeyType`] if a bound does not fit the key, [`ReadError::WrongShape`] if there is no key.
    pub fn range<'k>(&self, keys: impl RangeBounds<KeyRef<'k>>) -> Result<Self, ReadError> {
        let bound = |b: Bound<&KeyRef<'k>>| {
            Ok(match b {
                Bound::Unbounded => KeyBound::Open,
                Bound::Included(&key) => {
                    self.version.check_key(key)?;
                    KeyBound::Included(key)
                }
                Bound::Excluded(&key) => {
                    self.version.check_key(key)?;
                    KeyBound::Excluded(key)
                }
            })
        };
        if self.version.key_type().is_none() {
            return Err(self.version.wrong_shape("it has no key to select a range by"));
        }
        let rows = self.version.segment.rows_between(bound(keys.start_bound())?, bound(keys.end_bound())?)?;
        Ok(self.intersect(rows))
    }

    /// The rows whose string or binary key begins with `prefix`, within this slice.
    ///
    /// # Errors
    /// [`ReadError::KeyType`] if keys are not byte strings.
    pub fn prefix(&self, prefix: &[u8]) -> Result<Self, ReadError> {
        self.version.check_key(KeyRef::Bytes(prefix))?;
        Ok(self.intersect(self.version.segment.rows_with_prefix(prefix)?))
    }

    /// The rows that hold `key`, within this slice.
    pub fn rows(&self, key: KeyRef<'_>) -> Result<Self, ReadError> {
        self.range((Bound::Included(key), Bound::Included(key)))
    }

    /// The newest version of the whole dataset, if there is a newer one.
    pub fn refreshed(&self) -> Result<Option<Self>, ReadError> {
        Ok(self.version.newer()?.map(Self::whole))
    }

    /// Facts about the version.
    pub fn info(&self) -> Info {
        self.version.info()
    }

    fn intersect(&self, rows: Range<usize>) -> Self {
        let start = rows.start.clamp(self.start, self.start + self.len);
        let end = rows.end.clamp(start, self.start + self.len);
        Self { version: self.version.clone(), start, len: end - start }
    }
}
