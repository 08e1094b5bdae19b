//! The keys of a segment's rows, of one column or of several.

use std::cell::Cell;
use std::cmp::Ordering;

use super::column::Column;
use super::file::ArrowFile;
use super::{Segment, SegmentKey};
use crate::error::ReadError;
use crate::index::{Index, IndexPlan};
use crate::key::composite::{Tuple, compare_parts};
use crate::key::{KeyRef, KeyType};

/// A buffer longer than this is not kept for the next key.
const BUFFER_KEPT_BYTES: usize = 1 << 16;

thread_local! {
    /// Where the key bytes of a row are put together. Taken while it is in use.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// One of the columns that make the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyPart {
    pub(crate) column: usize,
    pub(crate) key_type: KeyType,
}

impl SegmentKey {
    pub(super) fn new(
        data: &ArrowFile,
        columns: &[Column],
        names: &[String],
        index_file: ArrowFile,
    ) -> Result<Self, ReadError> {
        let mut parts: Vec<KeyPart> = Vec::with_capacity(names.len());
        for name in names {
            let column = data
                .schema
                .index_of(name)
                .map_err(|_| data.corrupt("its schema", format!("there is no key column {name:?}")))?;
            if parts.iter().any(|p| p.column == column) {
                return Err(data.corrupt("its manifest", format!("the key names column {name:?} twice")));
            }
            let key_type = KeyType::of(&columns[column].data_type)
                .ok_or_else(|| data.corrupt("its schema", format!("{} cannot be a key", columns[column].data_type)))?;
            parts.push(KeyPart { column, key_type });
        }
        let (column, key_type) = match parts.as_slice() {
            [] => return Err(data.corrupt("its manifest", "there is an index but no key")),
            [part] => (part.column, part.key_type),
            [first, ..] => (first.column, KeyType::Composite),
        };
        // The rows are sorted, and their keys indexed, by what the file itself says.
        if let Some(own) = data.metadata().get("pheon.key")
            && serde_json::from_str::<Vec<String>>(own).ok().as_deref() != Some(names)
        {
            return Err(data.corrupt("its metadata", format!("expected the key {names:?}, found {own}")));
        }
        let wrong = |problem: String| index_file.corrupt("its index", problem);
        let plan = IndexPlan::from_metadata(index_file.metadata()).map_err(&wrong)?;
        if plan.keys > data.rows {
            return Err(wrong(format!("it holds {} keys for {} rows", plan.keys, data.rows)));
        }
        let buckets = index_file.buffers.get(1).cloned().ok_or_else(|| wrong("it has no buckets".to_owned()))?;
        let index = Index::new(buckets, plan).map_err(&wrong)?;
        Ok(Self { column, key_type, parts, index, index_file })
    }

    /// Whether several columns make the key.
    #[inline]
    pub(crate) fn is_composite(&self) -> bool {
        self.key_type == KeyType::Composite
    }

    /// The types of the key columns, for people.
    pub(crate) fn type_name(&self, columns: &[Column]) -> String {
        let names: Vec<_> = self.parts.iter().map(|p| columns[p.column].data_type.to_string()).collect();
        if self.is_composite() { format!("({})", names.join(", ")) } else { names.concat() }
    }
}

impl Segment {
    /// Calls `take` with the key of a row; for a key of several columns with its key bytes. `None` if there is no key, no
    /// such row, or the buffers do not hold it.
    #[inline]
    pub(crate) fn with_key<T>(&self, row: usize, take: impl FnOnce(KeyRef<'_>) -> T) -> Option<T> {
        let side = self.key.as_ref()?;
        if !side.is_composite() {
            return self.columns[side.column].key(side.key_type, row).map(take);
        }
        let mut buffer = BUFFER.take();
        buffer.clear();
        let whole = self.encode_key(side, row, &mut buffer);
        let taken = whole.map(|()| take(KeyRef::Bytes(&buffer)));
        if buffer.capacity() <= BUFFER_KEPT_BYTES {
            BUFFER.set(buffer);
        }
        taken
    }

    /// Appends the key bytes of a row.
    fn encode_key(&self, side: &SegmentKey, row: usize, out: &mut Vec<u8>) -> Option<()> {
        side.parts.iter().try_for_each(|part| {
            let key = self.columns[part.column].key(part.key_type, row)?;
            part.key_type.encode(key, out).ok()
        })
    }

    /// The order of the key of `row` here and that of `other_row` in another segment of the same dataset, which may be
    /// this one.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if a row is not there, its buffers do not hold its key, or the two have other key types.
    pub(crate) fn compare_keys(&self, row: usize, other: &Self, other_row: usize) -> Result<Ordering, ReadError> {
        let (Some(a), Some(b)) = (&self.key, &other.key) else {
            return Err(self.data.corrupt("its key", "there is none to compare rows by"));
        };
        let same_types =
            a.parts.len() == b.parts.len() && std::iter::zip(&a.parts, &b.parts).all(|(a, b)| a.key_type == b.key_type);
        if !same_types {
            return Err(other.data.corrupt("its key", "it is of another type than that of another segment"));
        }
        let parts = std::iter::zip(&a.parts, &b.parts).map(|(a, b)| {
            let own = self.columns[a.column].key(a.key_type, row)?;
            Some((a.key_type, own, other.columns[b.column].key(b.key_type, other_row)?))
        });
        compare_parts(parts).ok_or_else(|| {
            // Which of the two it is.
            if self.with_key(row, |_| ()).is_none() { self.lost_key(row) } else { other.lost_key(other_row) }
        })
    }

    /// The key of a row for people to read.
    pub(crate) fn key_text(&self, row: usize) -> String {
        let text = self.key.as_ref().and_then(|side| {
            let key_types: Vec<_> = side.parts.iter().map(|p| p.key_type).collect();
            self.with_key(row, |key| match key {
                KeyRef::Bytes(bytes) if side.is_composite() => Tuple { key_types: &key_types, bytes }.to_string(),
                key => key.to_string(),
            })
        });
        text.unwrap_or_else(|| "that cannot be read".to_owned())
    }

    /// Whether a key column has no value in a row.
    pub(crate) fn key_is_null(&self, row: usize) -> bool {
        self.key.iter().flat_map(|side| &side.parts).any(|part| self.columns[part.column].is_null(row))
    }

    /// The error for a row whose key the buffers do not hold.
    pub(crate) fn lost_key(&self, row: usize) -> ReadError {
        let lost = self.key.iter().flat_map(|side| &side.parts).find_map(|part| {
            let column = &self.columns[part.column];
            column.key(part.key_type, row).is_none().then_some(column)
        });
        match lost {
            Some(column) => column.corrupt_at(&self.data, row, "its offsets lie outside the values"),
            None => self.data.corrupt(format!("row {row}"), "it has no key"),
        }
    }
}
