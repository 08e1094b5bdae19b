//! Maps: the dict face of a dataset whose key is unique.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array, make_array};
use arrow_schema::{Field, FieldRef, Schema};

use crate::error::ReadError;
use crate::key::{KeyRef, KeyType};
use crate::lookup::KeyBatch;
use crate::table::Table;
use crate::value::Value;
use crate::version::find::{parts_of, row_id};
use crate::version::gather::batch_of;
use crate::version::{Info, Version};

/// A read-only map on one version of a dataset. Cheap to clone, usable from any thread; lookups take no lock, and single ones make
/// no system call, unless the version does not fit into memory.
///
/// Where a call gives or takes a *row*, that is a 64-bit name of it within this version: in a version of one segment the
/// row's number in key order, else also which segment it is in. [`Map::row_at`] gives the row at a place in key order.
#[derive(Debug, Clone)]
pub struct Map {
    version: Arc<Version>,
    key_type: KeyType,
    key_columns: Arc<[usize]>,
    key_fields: Arc<[FieldRef]>,
    value_columns: Arc<[usize]>,
    value_fields: Arc<[FieldRef]>,
}

impl Map {
    pub(crate) fn new(version: Arc<Version>) -> Result<Self, ReadError> {
        let Some(key) = version.model().key.as_ref().filter(|_| version.is_unique()) else {
            return Err(version.wrong_shape("its key is not unique, so it is no map; open it with table()"));
        };
        let key_type = key.key_type;
        let key_columns: Arc<[usize]> = key.parts.iter().map(|part| part.column).collect();
        let fields = version.schema().fields();
        let value_columns: Arc<[usize]> = (0..fields.len()).filter(|i| !key_columns.contains(i)).collect();
        let of = |columns: &[usize]| columns.iter().map(|&i| fields[i].clone()).collect();
        let (key_fields, value_fields) = (of(&key_columns), of(&value_columns));
        Ok(Self { version, key_type, key_columns, key_fields, value_columns, value_fields })
    }

    /// The dataset's name.
    pub fn name(&self) -> &str {
        self.version.name()
    }

    /// The number of the version that this handle reads.
    pub fn version(&self) -> u64 {
        self.version.manifest.version
    }

    /// Entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.version.rows() as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key columns as stored, in the key's order: one, or several of which a key has a value each.
    pub fn key_fields(&self) -> &[FieldRef] {
        &self.key_fields
    }

    /// The value columns as stored, in the schema's order.
    pub fn value_fields(&self) -> &[FieldRef] {
        &self.value_fields
    }

    /// The physical key type; [`KeyType::Composite`] for a key of several columns.
    #[inline]
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The row of a key. Allocates nothing.
    ///
    /// # Errors
    /// [`ReadError::KeyType`] if the key's form does not fit, [`ReadError::Corrupt`] if the index names a row that is not there.
    #[inline(always)]
    pub fn find(&self, key: KeyRef<'_>) -> Result<Option<u64>, ReadError> {
        if !self.key_type.accepts(key) {
            self.version.check_key(key)?;
        }
        let value = match *self.value_columns {
            [column] => Some(column),
            _ => None,
        };
        self.version.find(key, value)
    }

    /// The value of a key in a map with one value column.
    ///
    /// # Errors
    /// As [`Map::find`]; [`ReadError::WrongShape`] if there is not exactly one value column.
    #[inline(always)]
    pub fn get<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<Option<Value<'_>>, ReadError> {
        self.single_value()?;
        match self.find(key.into())? {
            Some(row) => self.value_at(row, 0).map(Some),
            None => Ok(None),
        }
    }

    /// Whether a key is there.
    pub fn contains<'k>(&self, key: impl Into<KeyRef<'k>>) -> Result<bool, ReadError> {
        Ok(self.find(key.into())?.is_some())
    }

    /// The row at a place in key order, counted from 0.
    ///
    /// # Errors
    /// [`ReadError::WrongShape`] if there is none.
    pub fn row_at(&self, position: usize) -> Result<u64, ReadError> {
        if position >= self.len() {
            return Err(self.version.wrong_shape(format!("there is no entry {position} of {}", self.len())));
        }
        if self.version.single().is_some() {
            return Ok(position as u64);
        }
        let (part, row) = self.version.whole()?.locate(position as u64);
        Ok(row_id(part, row))
    }

    /// The key in a row, for a key of one column.
    ///
    /// # Errors
    /// [`ReadError::WrongShape`] if the key has several columns: see [`Map::key_part_at`].
    pub fn key_at(&self, row: u64) -> Result<Value<'_>, ReadError> {
        match *self.key_columns {
            [_] => self.key_part_at(row, 0),
            _ => Err(self.version.wrong_shape("its key has several columns; read it with key_part_at")),
        }
    }

    /// The value of one key column in a row; `part` counts [`Map::key_fields`] from 0.
    pub fn key_part_at(&self, row: u64, part: usize) -> Result<Value<'_>, ReadError> {
        match self.key_columns.get(part) {
            Some(&c) => self.stored_value(row, c),
            None => Err(self.version.wrong_shape(format!("there is no key column {part}"))),
        }
    }

    /// The key bytes of a key of several columns, for [`Map::find`] and the like as [`KeyRef::Bytes`]; as
    /// [`Table::composite_key`].
    pub fn composite_key(&self, parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> {
        self.version.composite_key(parts)
    }

    /// The value in a row; `column` counts the value columns from 0.
    #[inline]
    pub fn value_at(&self, row: u64, column: usize) -> Result<Value<'_>, ReadError> {
        match self.value_columns.get(column) {
            Some(&c) => self.stored_value(row, c),
            None => Err(self.version.wrong_shape(format!("there is no value column {column}"))),
        }
    }

    #[inline]
    fn stored_value(&self, row: u64, column: usize) -> Result<Value<'_>, ReadError> {
        let (part, row) = parts_of(row);
        match self.version.parts.get(part) {
            Some(part) => part.segment.columns[column].value(&part.segment.data, row as usize),
            None => Err(self.version.wrong_shape(format!("there is no row {row} in segment {part}"))),
        }
    }

    /// One row with all columns, sharing the mapping.
    pub fn row(&self, row: u64) -> Result<RecordBatch, ReadError> {
        let (part, row) = parts_of(row);
        match self.version.parts.get(part) {
            Some(part) => part.segment.batch(row as usize, 1),
            None => Err(self.version.wrong_shape(format!("there is no row {row} in segment {part}"))),
        }
    }

    /// The rows of many keys, aligned with them; null where missing.
    ///
    /// `keys` may have any type that converts to the key's without loss; for a key of several columns an array of structs,
    /// whose fields are taken by name, or by their order if none of the names is there. `threads`: how many may work; `None`: one.
    pub fn find_many(&self, keys: &dyn Array, threads: Option<usize>) -> Result<UInt64Array, ReadError> {
        self.version.find_array(&make_array(keys.to_data()), threads.unwrap_or(1))
    }

    /// The values of many keys, aligned with them; null where missing. For maps with one value column.
    pub fn get_many(&self, keys: &dyn Array) -> Result<ArrayRef, ReadError> {
        self.get_many_with(keys, None)
    }

    /// Like [`Map::get_many`] with several threads for large batches.
    pub fn get_many_with(&self, keys: &dyn Array, threads: Option<usize>) -> Result<ArrayRef, ReadError> {
        let column = self.single_value()?;
        let keys = make_array(keys.to_data());
        self.version.get_array(&keys, column, threads.unwrap_or(1))
    }

    /// One value column for many keys, aligned with them, null where missing; `None` if it would have more than `bytes_max`
    /// bytes without validity, as [`Map::bytes_of`] counts. Little more than that is ever copied.
    pub fn get_many_within(
        &self,
        keys: &dyn Array,
        column: usize,
        bytes_max: usize,
    ) -> Result<Option<ArrayRef>, ReadError> {
        let keys = make_array(keys.to_data());
        self.version.get_array_within(&keys, self.value_column(column)?, bytes_max)
    }

    /// Whether stored values of a column may be null. If not, a null in an answer says that its key is missing.
    pub fn may_have_null_values(&self, column: usize) -> Result<bool, ReadError> {
        let column = self.value_column(column)?;
        Ok(self.version.parts.iter().any(|part| part.segment.columns[column].may_have_nulls()))
    }

    fn value_column(&self, column: usize) -> Result<usize, ReadError> {
        let found = self.value_columns.get(column).copied();
        found.ok_or_else(|| self.version.wrong_shape(format!("there is no value column {column}")))
    }

    /// All value columns for many keys, aligned with them; null where missing.
    pub fn get_many_columns(&self, keys: &dyn Array) -> Result<RecordBatch, ReadError> {
        let rows = self.find_many(keys, None)?;
        let columns =
            self.value_columns.iter().map(|&c| self.version.take(c, &rows)).collect::<Result<Vec<_>, ReadError>>()?;
        let fields: Vec<Field> = self.value_fields.iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        batch_of(&Arc::new(Schema::new(fields)), columns, rows.len())
            .map_err(|e| ReadError::arrow("gather value columns", e))
    }

    /// The values of rows that [`Map::find_many`] found; `column` counts the value columns from 0.
    pub fn take(&self, rows: &UInt64Array, column: usize) -> Result<ArrayRef, ReadError> {
        self.version.take(self.value_column(column)?, rows)
    }

    /// Bytes that [`Map::take`] would make of rows that [`Map::find_many`] found, without validity; of a dictionary column
    /// only the keys. Keys that are missing take what a null does. Cheap: nothing is read but offsets.
    pub fn bytes_of(&self, rows: &UInt64Array, column: usize) -> Result<u64, ReadError> {
        self.version.row_bytes(self.value_column(column)?, rows)
    }

    /// Whether each of many keys is there, aligned with them; false for nulls.
    pub fn contains_many(&self, keys: &dyn Array) -> Result<BooleanArray, ReadError> {
        let rows = self.find_many(keys, None)?;
        Ok(BooleanArray::from_iter((0..rows.len()).map(|i| Some(rows.is_valid(i)))))
    }

    /// The lowest level of a batch lookup, for a version of one segment: appends a row for each key to `rows`, `u32::MAX`
    /// where missing.
    ///
    /// # Errors
    /// As [`Map::find`]; [`ReadError::WrongShape`] if the version has several segments. After an error `rows` may hold answers for some of the keys.
    pub fn lookup(&self, keys: &KeyBatch<'_>, rows: &mut Vec<u32>) -> Result<(), ReadError> {
        let probe = match keys {
            KeyBatch::Bytes(_) => Some(KeyRef::Bytes(&[])),
            KeyBatch::Fixed64(_) => Some(KeyRef::Fixed64(0)),
            KeyBatch::Any(keys) => {
                keys.iter().flatten().try_for_each(|&key| self.version.check_key(key))?;
                None
            }
        };
        probe.map_or(Ok(()), |key| self.version.check_key(key))?;
        match self.version.single() {
            Some(segment) => segment.find_batch(*keys, rows),
            None => Err(self.version.wrong_shape("it has several segments; use find_many, or compact it first")),
        }
    }

    /// The entries whose keys lie in `keys`, in key order, without a copy.
    pub fn range<'k>(&self, keys: impl RangeBounds<KeyRef<'k>>) -> Result<Table, ReadError> {
        self.table().range(keys)
    }

    /// The entries whose string or binary keys begin with `prefix`, in key order, without a copy.
    pub fn prefix(&self, prefix: &[u8]) -> Result<Table, ReadError> {
        self.table().prefix(prefix)
    }

    /// The row of the greatest key that is not greater than `key`.
    pub fn floor(&self, key: KeyRef<'_>) -> Result<Option<u64>, ReadError> {
        self.version.check_key(key)?;
        let below = self.range((Bound::Unbounded, Bound::Included(key)))?;
        below.num_rows().checked_sub(1).map(|position| self.row_at(position)).transpose()
    }

    /// The row of the least key that is not less than `key`.
    pub fn ceiling(&self, key: KeyRef<'_>) -> Result<Option<u64>, ReadError> {
        self.version.check_key(key)?;
        let above = self.range((Bound::Included(key), Bound::Unbounded))?;
        let position = self.len() - above.num_rows();
        (position < self.len()).then(|| self.row_at(position)).transpose()
    }

    /// All entries as a table.
    pub fn table(&self) -> Table {
        Table::whole(self.version.clone())
    }

    /// Moves to the newest version; true if there was a newer one. Slices taken before keep the old one.
    pub fn refresh(&mut self) -> Result<bool, ReadError> {
        match self.version.newer()? {
            Some(newer) => {
                *self = Self::new(newer)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Facts about the version.
    pub fn info(&self) -> Info {
        self.version.info()
    }

    #[cfg(test)]
    pub(crate) fn segments(&self) -> impl Iterator<Item = &crate::segment::Segment> {
        self.version.parts.iter().map(|part| part.segment.as_ref())
    }

    fn single_value(&self) -> Result<usize, ReadError> {
        match *self.value_columns {
            [column] => Ok(column),
            _ => Err(self.version.wrong_shape(format!(
                "it has {} value columns, not one; use find and value_at, or get_many_columns",
                self.value_columns.len()
            ))),
        }
    }
}
