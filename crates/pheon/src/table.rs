//! Tables: the rows of a version, or a contiguous run of them, without a copy.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::{FieldRef, Schema, SchemaRef};

use crate::build::has_dictionary;
use crate::error::ReadError;
use crate::key::{KeyRef, KeyType};
use crate::lookup::{KeyBound, KeySpan};
use crate::value::Value;
use crate::version::dictionaries::join;
use crate::version::gather::batch_of;
use crate::version::merge::{Run, RunList};
use crate::version::{Info, Version};

/// A version of a dataset or a contiguous slice of one, with all of its columns or some. Cloning and slicing copy no data.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) version: Arc<Version>,
    base: Base,
    /// Within `base`.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// `None`: all.
    projection: Option<Arc<Projection>>,
}

/// The rows that a table is a window of.
#[derive(Debug, Clone)]
enum Base {
    /// All rows of the version.
    Whole,
    /// These.
    Rows(Arc<RunList>),
}

#[derive(Debug)]
struct Projection {
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl Table {
    pub(crate) fn whole(version: Arc<Version>) -> Self {
        let len = version.rows();
        Self { version, base: Base::Whole, start: 0, len, projection: None }
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
        self.len as usize
    }

    /// The first row of this slice, counted within the version, and its length.
    pub fn bounds(&self) -> (usize, usize) {
        let first = match &self.base {
            Base::Whole => 0,
            Base::Rows(list) => list.first,
        };
        ((first + self.start) as usize, self.len as usize)
    }

    /// The columns as stored, or those chosen by [`Table::select`].
    pub fn schema(&self) -> SchemaRef {
        match &self.projection {
            Some(projection) => projection.schema.clone(),
            None => self.version.schema().clone(),
        }
    }

    /// Names of the key columns; empty: rows are in the order in which they were written. Also where [`Table::select`]
    /// left them out.
    pub fn key(&self) -> &[String] {
        &self.version.manifest.key
    }

    /// The physical key type, if there is a key; [`KeyType::Composite`] for a key of several columns.
    pub fn key_type(&self) -> Option<KeyType> {
        self.version.key_type()
    }

    /// The key columns as stored, in the key's order; also where [`Table::select`] left them out.
    pub fn key_fields(&self) -> Vec<FieldRef> {
        let fields = self.version.schema().fields();
        let parts = self.version.model().key.as_ref().map_or(&[][..], |side| &side.parts);
        parts.iter().map(|part| fields[part.column].clone()).collect()
    }

    /// In how many batches [`Table::to_batches`] gives the rows. O(runs of rows of different segments).
    pub fn num_chunks(&self) -> Result<usize, ReadError> {
        Ok(Version::count_groups(self.list()?.window(self.start, self.len)).max(1))
    }

    /// Whether each key occurs once: because it had to when the version was published, or because no segment has a key twice
    /// and none has keys between those of another.
    pub fn is_unique(&self) -> bool {
        self.version.is_unique()
    }

    /// The key bytes of a key of several columns, for [`Table::rows`], [`Table::range`] and the like as
    /// [`KeyRef::Bytes`]; `parts` are the columns' values in the key's order. Of fewer values than columns: what the bytes
    /// of every key with these values begin with, for [`Table::prefix`].
    ///
    /// # Errors
    /// [`ReadError::KeyType`] if a value does not fit its column, [`ReadError::WrongShape`] if there are more values than
    /// columns or the key has not several columns.
    pub fn composite_key(&self, parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> {
        self.version.composite_key(parts)
    }

    /// Bytes of the buffers that this table's columns refer to: a slice counts its share of each. Of several segments,
    /// rows between the first and the last of each that are hidden count too.
    pub fn nbytes(&self) -> Result<u64, ReadError> {
        let mut total = 0;
        for (part, rows) in self.version.parts.iter().zip(self.row_ranges()?) {
            let segment = &part.segment;
            for i in 0..self.num_columns() {
                let column = &segment.columns[self.stored_column(i)?];
                let slice = column.slice(&segment.data, rows.start as usize, rows.len())?.to_data();
                let bytes = slice.get_slice_memory_size();
                total += bytes.map_err(|e| ReadError::arrow("measure a column", e))? as u64;
            }
        }
        Ok(total)
    }

    /// Whether rows of several segments take turns here, so that [`Table::to_batches`] copies some.
    pub fn is_copied(&self) -> Result<bool, ReadError> {
        Ok(self.version.single().is_none() && Version::copies_some(self.list()?.window(self.start, self.len)))
    }

    /// The same rows with these columns, in this order.
    ///
    /// # Errors
    /// [`ReadError::WrongShape`] for a name that no column has, or that is given twice.
    pub fn select<S: AsRef<str>>(&self, names: &[S]) -> Result<Self, ReadError> {
        let schema = self.schema();
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let at = schema.index_of(name.as_ref()).map_err(|_| {
                let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                self.version.wrong_shape(format!("there is no column {:?}; the columns are {known:?}", name.as_ref()))
            })?;
            if columns.contains(&at) {
                return Err(self.version.wrong_shape(format!("column {:?} is asked for twice", name.as_ref())));
            }
            columns.push(at);
        }
        let fields: Vec<_> = columns.iter().map(|&c| schema.fields()[c].clone()).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let columns = columns.into_iter().map(|c| self.stored_column(c)).collect::<Result<_, _>>()?;
        Ok(Self { projection: Some(Arc::new(Projection { columns, schema })), ..self.clone() })
    }

    /// Whether [`Table::select`] chose its columns.
    pub fn is_projected(&self) -> bool {
        self.projection.is_some()
    }

    /// Column `i` of the schema as one array. Shares the mapping if the rows lie in one segment, else it is a copy;
    /// validated before it is handed out.
    ///
    /// # Errors
    /// [`ReadError::WrongShape`] if there is no such column, [`ReadError::Corrupt`] if the stored data is not valid Arrow.
    pub fn column(&self, i: usize) -> Result<ArrayRef, ReadError> {
        let chunks = self.column_chunks(i)?;
        if let [only] = chunks.as_slice() {
            return Ok(only.clone());
        }
        let failed = |e| ReadError::arrow("join the chunks of a column", e);
        if has_dictionary(chunks[0].data_type()) {
            let chunks = self.version.with_one_dictionary(self.stored_column(i)?, chunks)?;
            let pieces = chunks.iter().enumerate().map(|(at, chunk)| (at, 0, chunk.len()));
            return join(&chunks, pieces, self.num_rows()).map_err(failed);
        }
        let chunks: Vec<_> = chunks.iter().map(AsRef::as_ref).collect();
        arrow_select::concat::concat(&chunks).map_err(failed)
    }

    /// Column `i` of the schema in one array or more, at least one. Shares the mapping except where rows of several
    /// segments take turns.
    ///
    /// # Errors
    /// As [`Table::column`].
    pub fn column_chunks(&self, i: usize) -> Result<Vec<ArrayRef>, ReadError> {
        let column = self.stored_column(i)?;
        let list = self.list()?;
        let chunks = self.version.chunks(list.window(self.start, self.len), column)?;
        if chunks.is_empty() {
            let model = self.version.model();
            return Ok(vec![model.columns[column].slice(&model.data, 0, 0)?]);
        }
        Ok(chunks)
    }

    /// All columns as one batch: [`Table::to_batches`] joined.
    pub fn to_batch(&self) -> Result<RecordBatch, ReadError> {
        let mut batches = self.to_batches()?;
        if batches.len() == 1 {
            return Ok(batches.swap_remove(0));
        }
        let columns = (0..self.num_columns()).map(|i| self.column(i)).collect::<Result<Vec<_>, ReadError>>()?;
        batch_of(&self.schema(), columns, self.num_rows())
            .map_err(|e| ReadError::arrow("join the batches of a table", e))
    }

    /// All columns, in at least one batch. Shares the mapping except where rows of several segments take turns.
    pub fn to_batches(&self) -> Result<Vec<RecordBatch>, ReadError> {
        let schema = self.schema();
        let columns: Vec<usize> = match &self.projection {
            Some(projection) => projection.columns.clone(),
            None => (0..schema.fields().len()).collect(),
        };
        let list = self.list()?;
        let mut batches = self.version.batches(list.window(self.start, self.len), &columns, &schema)?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }

    /// Rows `offset .. offset + len` of this table; ends beyond the table are cut.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        let offset = (offset as u64).min(self.len);
        Self { start: self.start + offset, len: (len as u64).min(self.len - offset), ..self.clone() }
    }

    /// The value in `row` of this table, in column `column` of the schema.
    pub fn value(&self, row: usize, column: usize) -> Result<Value<'_>, ReadError> {
        let stored = self.stored_column(column)?;
        if row as u64 >= self.len {
            return Err(self.version.wrong_shape(format!("there is no row {row} of {}", self.len)));
        }
        let (part, row) = self.list()?.locate(self.start + row as u64);
        let segment = &self.version.parts[part].segment;
        segment.columns[stored].value(&segment.data, row as usize)
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
        self.spanned(KeySpan::Between(bound(keys.start_bound())?, bound(keys.end_bound())?))
    }

    /// The rows whose string or binary key, or the key bytes of several columns ([`Table::composite_key`]), begin with
    /// `prefix`, within this slice.
    ///
    /// # Errors
    /// [`ReadError::KeyType`] if keys are not byte strings.
    pub fn prefix(&self, prefix: &[u8]) -> Result<Self, ReadError> {
        self.version.check_key(KeyRef::Bytes(prefix))?;
        self.spanned(KeySpan::Prefix(prefix))
    }

    /// The rows that hold `key`, within this slice. Found by the index where the version has one segment.
    pub fn rows(&self, key: KeyRef<'_>) -> Result<Self, ReadError> {
        let (Some(segment), Base::Whole) = (self.version.single(), &self.base) else {
            return self.range((Bound::Included(key), Bound::Included(key)));
        };
        self.version.check_key(key)?;
        let rows = match segment.find(key, None)? {
            Some(row) => segment.rows_of_key(row)?,
            None => 0..0,
        };
        Ok(self.clipped(u64::from(rows.start)..u64::from(rows.end)))
    }

    /// The newest version of the whole dataset, with the same choice of columns, if there is a newer one. With nothing
    /// new it costs at most one system call.
    pub fn refreshed(&self) -> Result<Option<Self>, ReadError> {
        let Some(newer) = self.version.newer()? else { return Ok(None) };
        let newer = Self::whole(newer);
        Ok(Some(match &self.projection {
            Some(p) => newer.select(&p.schema.fields().iter().map(|f| f.name()).collect::<Vec<_>>())?,
            None => newer,
        }))
    }

    /// Facts about the version.
    pub fn info(&self) -> Info {
        self.version.info()
    }

    pub(crate) fn num_columns(&self) -> usize {
        self.projection.as_ref().map_or(self.version.model().columns.len(), |p| p.columns.len())
    }

    /// The stored column behind column `i` of the schema.
    pub(crate) fn stored_column(&self, i: usize) -> Result<usize, ReadError> {
        let stored = match &self.projection {
            Some(projection) => projection.columns.get(i).copied(),
            None => (i < self.version.model().columns.len()).then_some(i),
        };
        stored.ok_or_else(|| self.version.wrong_shape(format!("there is no column {i} of {}", self.num_columns())))
    }

    pub(crate) fn list(&self) -> Result<&RunList, ReadError> {
        match &self.base {
            Base::Whole => Ok(self.version.whole()?),
            Base::Rows(list) => Ok(list),
        }
    }

    /// What this table has of these rows of its base.
    fn clipped(&self, rows: Range<u64>) -> Self {
        let end = self.start + self.len;
        let start = rows.start.clamp(self.start, end);
        Self { start, len: rows.end.clamp(start, end) - start, ..self.clone() }
    }

    /// The rows of this table within `span`.
    fn spanned(&self, span: KeySpan<'_>) -> Result<Self, ReadError> {
        if let Some(segment) = self.version.single()
            && let Base::Whole = self.base
        {
            let rows = segment.rows_of(span)?;
            return Ok(self.clipped(rows.start as u64..rows.end as u64));
        }
        let parts = &self.version.parts;
        let own = self.row_ranges()?;
        let mut ranges = Vec::with_capacity(parts.len());
        let mut first = self.bounds().0 as u64;
        for (part, own) in parts.iter().zip(own) {
            let rows = part.segment.rows_of(span)?;
            let start = (rows.start as u32).clamp(own.start, own.end);
            first += part.live_before(start) - part.live_before(own.start);
            ranges.push(start..(rows.end as u32).clamp(start, own.end));
        }
        let list = RunList::merge(parts, &ranges, true, first)?;
        Ok(Self { start: 0, len: list.rows(), base: Base::Rows(Arc::new(list)), ..self.clone() })
    }

    /// Of each segment, the rows that this table shows, hidden ones among them: a window of rows in key order takes
    /// consecutive ones of each.
    pub(crate) fn row_ranges(&self) -> Result<Vec<Range<u32>>, ReadError> {
        let parts = &self.version.parts;
        if let (Base::Whole, 0, len) = (&self.base, self.start, self.len)
            && len == self.version.rows()
        {
            return Ok(parts.iter().map(crate::version::Part::all_rows).collect());
        }
        let mut ranges: Vec<Range<u32>> = vec![0..0; parts.len()];
        for Run { part, start, len } in self.list()?.window(self.start, self.len) {
            let range = &mut ranges[part as usize];
            *range = if range.start == range.end { start..start + len } else { range.start..start + len };
        }
        Ok(ranges)
    }
}
