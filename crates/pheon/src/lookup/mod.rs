//! Lookups in one segment, by key and by range.

mod asked;
mod batch;
mod cold;
mod output;
mod range;
mod stored;
mod waiting;

use std::borrow::Cow;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, GenericBinaryArray, OffsetSizeTrait, UInt32Array, downcast_integer, make_array,
    new_null_array,
};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_data::transform::MutableArrayData;
use arrow_schema::{ArrowError, DataType};

use self::asked::{AskedColumn, Keys, NotKeys};
pub(crate) use self::batch::MISSING;
use self::batch::{BadRow, Output};
use self::cold::{How, Paged, is_cold, put_back, put_rows_back, touch};
use self::output::{FixedValues, Rows, ValueOf, VarValues};
pub(crate) use self::range::{KeyBound, KeySpan};
use self::stored::{AnyKeys, Asked, CompositeKeys, FixedKeys, Hashed, Stored, VarKeys, WordKeys, Words};
pub(crate) use self::waiting::Waits;
use crate::error::ReadError;
use crate::key::{KeyRef, KeyType};
use crate::segment::column::{Column, Raw};
use crate::segment::{Segment, SegmentKey};

/// Keys for [`crate::Map::lookup`], in the caller's own memory.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum KeyBatch<'a> {
    /// For string and binary keys, and for the key bytes of several columns.
    Bytes(&'a [&'a [u8]]),
    /// For integer keys and what is stored as such, extended to 64 bits.
    Fixed64(&'a [u64]),
    /// For keys of any type. `None`: cannot be in the dataset.
    Any(&'a [Option<KeyRef<'a>>]),
}

/// What is done with a part of a batch.
type Work<'a, T> = dyn Fn(&AskedKeys<'_>, Range<usize>) -> Result<T, ReadError> + Sync + 'a;

/// The smallest share of a batch worth a thread of its own.
const KEYS_PER_THREAD_MIN: usize = 16_384;

impl Segment {
    /// The row that holds `key`, whose form must fit the key type. `value`: the column that the caller will read next.
    ///
    /// Inlined into the caller, who knows the key's form: a [`KeyRef`] that goes through memory costs more than its hash.
    #[inline(always)]
    pub(crate) fn find(&self, key: KeyRef<'_>, value: Option<usize>) -> Result<Option<u32>, ReadError> {
        match key {
            KeyRef::Bytes(key) => self.find_bytes(key, value),
            KeyRef::Fixed64(key) => self.find_word(key, value),
            key => self.find_any(key, value),
        }
    }

    fn find_bytes(&self, key: &[u8], value: Option<usize>) -> Result<Option<u32>, ReadError> {
        let Some(side) = &self.key else { return Ok(None) };
        let found = match &self.columns[side.column].raw {
            _ if side.is_composite() => self.look_up(side, &self.composite_keys(side), key, value),
            Raw::Var { offsets, values } => self.look_up(side, &VarKeys { offsets, values }, key, value),
            _ => return self.find_any(KeyRef::Bytes(key), value),
        };
        found.map_err(|bad| self.bad_row(side, bad))
    }

    fn find_word(&self, key: u64, value: Option<usize>) -> Result<Option<u32>, ReadError> {
        let Some(side) = &self.key else { return Ok(None) };
        let found = match &self.columns[side.column].raw {
            Raw::Fixed { width, values } => {
                let signed = matches!(side.key_type, KeyType::Signed(_));
                self.look_up(side, &FixedKeys { values, width: *width, signed }, key, value)
            }
            _ => return self.find_any(KeyRef::Fixed64(key), value),
        };
        found.map_err(|bad| self.bad_row(side, bad))
    }

    #[inline(never)]
    fn find_any(&self, key: KeyRef<'_>, value: Option<usize>) -> Result<Option<u32>, ReadError> {
        let Some(side) = &self.key else { return Ok(None) };
        let stored = AnyKeys { column: &self.columns[side.column], key_type: side.key_type };
        self.look_up(side, &stored, key, value).map_err(|bad| self.bad_row(side, bad))
    }

    #[inline(always)]
    fn hints(&self, value: Option<usize>) -> ValueOf<'_> {
        ValueOf::column(value.and_then(|i| self.columns.get(i)))
    }

    /// Looks keys up and gives rows, [`MISSING`] where there is none.
    pub(crate) fn find_batch(&self, keys: KeyBatch<'_>, rows: &mut Vec<u32>) -> Result<(), ReadError> {
        let Some(side) = &self.key else { return Ok(()) };
        let column = &self.columns[side.column];
        match (keys, &column.raw) {
            (KeyBatch::Bytes(asked), _) if side.is_composite() => {
                self.find_rows(side, &self.composite_keys(side), &asked, asked.len(), rows)
            }
            (KeyBatch::Any(any), _) if side.is_composite() => {
                let asked: Vec<Option<&[u8]>> = any.iter().map(|key| bytes_of(*key)).collect();
                self.find_rows(side, &self.composite_keys(side), &asked.as_slice(), asked.len(), rows)
            }
            (KeyBatch::Bytes(asked), Raw::Var { offsets, values }) => {
                self.find_rows(side, &VarKeys { offsets, values }, &asked, asked.len(), rows)
            }
            (KeyBatch::Fixed64(values), Raw::Fixed { .. }) => {
                let asked = Words { values, nulls: None };
                match column.raw.words() {
                    Some(keys) => self.find_rows(side, &WordKeys(keys), &asked, values.len(), rows),
                    None => self.find_rows(side, &fixed_keys(side, column), &asked, values.len(), rows),
                }
            }
            (keys, _) => {
                let any: Vec<Option<KeyRef<'_>>> = match keys {
                    KeyBatch::Bytes(keys) => keys.iter().map(|k| Some(KeyRef::Bytes(k))).collect(),
                    KeyBatch::Fixed64(keys) => keys.iter().map(|k| Some(KeyRef::Fixed64(*k))).collect(),
                    KeyBatch::Any(keys) => keys.to_vec(),
                };
                let asked = any.as_slice();
                self.find_rows(side, &AnyKeys { column, key_type: side.key_type }, &asked, asked.len(), rows)
            }
        }
        .map_err(|bad| self.bad_row(side, bad))
    }

    /// Rows of an Arrow array of keys; null where missing.
    pub(crate) fn find_array(&self, dataset: &str, keys: &ArrayRef, threads: usize) -> Result<UInt32Array, ReadError> {
        let parts = self.each_part(dataset, keys, None, threads, &|asked: &AskedKeys<'_>, range| {
            let mut rows = Vec::with_capacity(range.len());
            if asked.is_cold {
                let (len, mut found, mut order) = (range.len(), Vec::new(), Vec::new());
                let how = How::Cold { segment: self, value: None, order: &mut order };
                asked.run(self, range, how, &mut Rows(&mut found))?;
                put_rows_back(&found, &order, len, &mut rows);
            } else {
                asked.run(self, range, How::Warm, &mut Rows(&mut rows))?;
            }
            Ok(rows)
        })?;
        let rows = parts.concat();
        let nulls = NullBuffer::from_iter(rows.iter().map(|&row| row != MISSING));
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Ok(UInt32Array::new(ScalarBuffer::from(rows), nulls))
    }

    /// Values of one column for an Arrow array of keys, aligned with it; null where missing.
    pub(crate) fn get_array(
        &self,
        dataset: &str,
        keys: &ArrayRef,
        column: usize,
        threads: usize,
    ) -> Result<ArrayRef, ReadError> {
        let value = &self.columns[column];
        if let Some(codes) = &value.codes {
            let whole = value.slice(&self.data, 0, self.rows)?;
            return self.with_values(&whole, &self.get_column(dataset, keys, codes, threads)?);
        }
        if !is_gathered(value) {
            let rows = self.find_array(dataset, keys, threads)?;
            return self.take(column, &rows);
        }
        self.get_column(dataset, keys, value, threads)
    }

    fn get_column(
        &self,
        dataset: &str,
        keys: &ArrayRef,
        value: &Column,
        threads: usize,
    ) -> Result<ArrayRef, ReadError> {
        let parts = self.each_part(dataset, keys, Some(value), threads, &|asked: &AskedKeys<'_>, range| {
            self.get_part(value, asked, range, usize::MAX)
        })?;
        concat(parts.into_iter().map(whole).collect::<Result<_, _>>()?)
    }

    /// Codes with the values of the column that they come from.
    fn with_values(&self, whole: &ArrayRef, codes: &ArrayRef) -> Result<ArrayRef, ReadError> {
        macro_rules! join {
            ($codes:ty, $whole:expr, $array:expr) => {{
                let values = $whole.as_any_dictionary().values().clone();
                let codes = $array.as_primitive::<$codes>().clone();
                DictionaryArray::<$codes>::try_new(codes, values).map(|joined| make_array(joined.into_data()))
            }};
        }
        let joined = downcast_integer! {
            codes.data_type() => (join, whole, codes),
            other => Err(ArrowError::SchemaError(format!("a dictionary with codes of type {other}")))
        };
        joined.map_err(|e| ReadError::arrow("gather values", e))
    }

    /// [`Segment::get_array`] with a limit to the values' bytes: `None` where there would be more.
    pub(crate) fn get_array_within(
        &self,
        dataset: &str,
        keys: &ArrayRef,
        column: usize,
        bytes_max: usize,
    ) -> Result<Option<ArrayRef>, ReadError> {
        let value = &self.columns[column];
        if !is_gathered(value) {
            let rows = self.find_array(dataset, keys, 1)?;
            let mut bytes = value.null_bytes().saturating_mul(rows.null_count() as u64);
            for row in rows.iter().flatten() {
                bytes = bytes.saturating_add(value.row_bytes(&self.data, row..row + 1)?);
            }
            return if bytes > bytes_max as u64 { Ok(None) } else { self.take(column, &rows).map(Some) };
        }
        let work = |asked: &AskedKeys<'_>, range| self.get_part(value, asked, range, bytes_max);
        let mut parts = self.each_part(dataset, keys, Some(value), 1, &work)?;
        Ok(parts.pop().flatten())
    }

    fn get_part(
        &self,
        value: &Column,
        asked: &AskedKeys<'_>,
        range: Range<usize>,
        bytes_max: usize,
    ) -> Result<Option<ArrayRef>, ReadError> {
        let (len, mut order) = (range.len(), Vec::new());
        let how = match asked.is_cold {
            true => How::Cold { segment: self, value: Some(value), order: &mut order },
            false => How::Warm,
        };
        let found = self.gather_part(value, len, bytes_max, |out| match out {
            Gather::Var(out) => asked.run(self, range, how, out),
            Gather::W1(out) => asked.run(self, range, how, out),
            Gather::W2(out) => asked.run(self, range, how, out),
            Gather::W4(out) => asked.run(self, range, how, out),
            Gather::W8(out) => asked.run(self, range, how, out),
            Gather::W16(out) => asked.run(self, range, how, out),
        })?;
        match found {
            Some(found) if asked.is_cold => put_back(&found, &order, len).map(Some),
            found => Ok(found),
        }
    }

    /// Values of one column for rows already found; null where the row is null.
    pub(crate) fn take(&self, column: usize, rows: &UInt32Array) -> Result<ArrayRef, ReadError> {
        let value = &self.columns[column];
        if let Some(row) = rows.iter().flatten().find(|&row| row as usize >= self.rows) {
            return Err(value.corrupt_at(&self.data, row as usize, format!("there are {} rows", self.rows)));
        }
        if let Some(codes) = &value.codes {
            let whole = value.slice(&self.data, 0, self.rows)?;
            return self.with_values(&whole, &self.take_column(codes, rows)?);
        }
        self.take_any(value, rows)
    }

    fn take_any(&self, value: &Column, rows: &UInt32Array) -> Result<ArrayRef, ReadError> {
        if let Raw::Struct { fields } = &value.raw {
            if rows.null_count() == rows.len() {
                return Ok(new_null_array(&value.data_type, rows.len()));
            }
            let arrays = fields.iter().map(|field| self.take_any(field, rows)).collect::<Result<_, _>>()?;
            let nulls = if value.has_nulls() {
                let is_valid = |row: Option<u32>| row.is_some_and(|row| !value.is_null(row as usize));
                Some(NullBuffer::from_iter(rows.iter().map(is_valid))).filter(|nulls| nulls.null_count() > 0)
            } else {
                rows.nulls().cloned()
            };
            return value.struct_of(&self.data, arrays, nulls);
        }
        if !is_gathered(value) {
            let whole = value.slice(&self.data, 0, self.rows)?;
            let taken = if takes_wrongly(&value.data_type) {
                take_row_by_row(&whole, rows)
            } else {
                arrow_select::take::take(&whole, rows, None)
            };
            return taken.map_err(|e| ReadError::arrow("gather values", e));
        }
        self.take_column(value, rows)
    }

    fn take_column(&self, value: &Column, rows: &UInt32Array) -> Result<ArrayRef, ReadError> {
        if is_cold(self.data.access, rows.len(), |i| {
            if rows.is_valid(i) {
                touch(value, rows.value(i))
            }
        }) {
            return self.take_cold(value, rows);
        }
        let rows = &with_missing(rows);
        let taken = self.gather_part(value, rows.len(), usize::MAX, |out| match out {
            Gather::Var(out) => self.emit_rows(rows, out),
            Gather::W1(out) => self.emit_rows(rows, out),
            Gather::W2(out) => self.emit_rows(rows, out),
            Gather::W4(out) => self.emit_rows(rows, out),
            Gather::W8(out) => self.emit_rows(rows, out),
            Gather::W16(out) => self.emit_rows(rows, out),
        })?;
        whole(taken)
    }

    /// Emits known rows, with the lines of later rows already asked for.
    fn emit_rows<O: Output>(&self, rows: &[u32], out: &mut O) -> Result<(), ReadError> {
        const PLACE_AHEAD: usize = 32;
        const VALUE_AHEAD: usize = 16;
        for (i, &row) in rows.iter().enumerate() {
            if let Some(&row) = rows.get(i + PLACE_AHEAD).filter(|&&row| row != MISSING) {
                out.hint_place(row as usize);
            }
            if let Some(&row) = rows.get(i + VALUE_AHEAD).filter(|&&row| row != MISSING) {
                out.hint_value(row as usize);
            }
            match row {
                MISSING => out.emit_missing(),
                row => out.emit(row).map_err(|bad| self.bad_value(bad))?,
            }
        }
        Ok(())
    }

    /// Fills an answer; `None` if its values have more than `bytes_max` bytes, those of missing keys and offsets included.
    fn gather_part(
        &self,
        value: &Column,
        rows: usize,
        bytes_max: usize,
        fill: impl FnOnce(&mut Gather<'_>) -> Result<(), ReadError>,
    ) -> Result<Option<ArrayRef>, ReadError> {
        let width = match &value.raw {
            Raw::Var { .. } => size_of::<i64>(),
            Raw::Fixed { width, .. } => *width,
            Raw::Bool { .. } | Raw::Struct { .. } | Raw::Other => 0,
        };
        let Some(bytes_max) = bytes_max.checked_sub(rows.saturating_mul(width)) else { return Ok(None) };
        let mut gather = match &value.raw {
            Raw::Var { offsets, values } => Gather::Var(VarValues::new(value, offsets, values, rows, bytes_max)),
            Raw::Fixed { width: 1, values } => Gather::W1(FixedValues::new(value, values, rows)),
            Raw::Fixed { width: 2, values } => Gather::W2(FixedValues::new(value, values, rows)),
            Raw::Fixed { width: 4, values } => Gather::W4(FixedValues::new(value, values, rows)),
            Raw::Fixed { width: 8, values } => Gather::W8(FixedValues::new(value, values, rows)),
            Raw::Fixed { values, .. } => Gather::W16(FixedValues::new(value, values, rows)),
            Raw::Bool { .. } | Raw::Struct { .. } | Raw::Other => unreachable!("is_gathered was asked before"),
        };
        fill(&mut gather)?;
        let data_type = &value.data_type;
        match gather {
            Gather::Var(out) => out.finish(data_type),
            Gather::W1(out) => out.finish(data_type).map(Some),
            Gather::W2(out) => out.finish(data_type).map(Some),
            Gather::W4(out) => out.finish(data_type).map(Some),
            Gather::W8(out) => out.finish(data_type).map(Some),
            Gather::W16(out) => out.finish(data_type).map(Some),
        }
        .map_err(|e| self.data.corrupt(format!("a value of column {:?}", value.name), e.to_string()))
    }

    /// Splits a batch over scoped threads; the calling thread takes the first part. One that waits for a disk is not split:
    /// the disk gets more pages to read at once from one that knows all of them. `value`: the column that will be read.
    fn each_part<T: Send>(
        &self,
        dataset: &str,
        keys: &ArrayRef,
        value: Option<&Column>,
        threads: usize,
        work: &Work<'_, T>,
    ) -> Result<Vec<T>, ReadError> {
        let side = self.key.as_ref().ok_or_else(|| ReadError::WrongShape {
            dataset: dataset.to_owned(),
            problem: "it has no key to look up".to_owned(),
        })?;
        let converted = if side.is_composite() {
            let columns: Vec<AskedColumn<'_>> = side
                .parts
                .iter()
                .map(|part| (&self.columns[part.column], part.key_type))
                .map(|(column, key_type)| (column.name.as_str(), key_type, &column.data_type))
                .collect();
            Keys::of_struct(keys, &columns)
        } else {
            Keys::of(keys, side.key_type, &self.columns[side.column].data_type)
        };
        let converted = converted.map_err(|e| match e {
            NotKeys::Type => ReadError::KeyType {
                dataset: dataset.to_owned(),
                expected: side.type_name(&self.columns),
                found: keys.data_type().to_string(),
            },
            NotKeys::Arrow(e) => ReadError::arrow("convert the keys", e),
        })?;
        let len = keys.len();
        let mut asked = AskedKeys { side, keys: converted, is_cold: false };
        asked.is_cold = is_cold(self.data.access, len, |i| asked.look_up(self, i, value));
        let parts = if asked.is_cold { 1 } else { threads.min(len / KEYS_PER_THREAD_MIN).max(1) };
        if parts == 1 {
            return Ok(vec![work(&asked, 0..len)?]);
        }
        let part = |i: usize| len * i / parts..len * (i + 1) / parts;
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..parts)
                .map(|i| {
                    let asked = &asked;
                    scope.spawn(move || work(asked, part(i)))
                })
                .collect();
            let mut results = vec![work(&asked, part(0))?];
            for other in others {
                results.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(results)
        })
    }

    /// Adds the row of each key to `rows`.
    fn find_rows<'k, S, A>(
        &self,
        side: &SegmentKey,
        stored: &S,
        asked: &A,
        len: usize,
        rows: &mut Vec<u32>,
    ) -> Result<(), BadRow>
    where
        S: Stored + Paged,
        S::Key<'k>: Hashed,
        A: Asked<S::Key<'k>>,
    {
        let mut tried = Vec::new();
        let look_up = |i| {
            // An error comes again with the whole batch.
            let _ = run(side, stored, asked, i..i + 1, How::Warm, &mut Rows(&mut tried));
        };
        if !is_cold(self.data.access, len, look_up) {
            return run(side, stored, asked, 0..len, How::Warm, &mut Rows(rows));
        }
        let (mut found, mut order) = (Vec::new(), Vec::new());
        let how = How::Cold { segment: self, value: None, order: &mut order };
        run(side, stored, asked, 0..len, how, &mut Rows(&mut found))?;
        put_rows_back(&found, &order, len, rows);
        Ok(())
    }

    fn composite_keys<'a>(&'a self, side: &'a SegmentKey) -> CompositeKeys<'a> {
        CompositeKeys { columns: &self.columns, parts: &side.parts }
    }

    fn bad_row(&self, side: &SegmentKey, bad: BadRow) -> ReadError {
        side.index_file.corrupt(
            "its buckets",
            format!("an entry names row {}, which the key column of {} rows does not hold", bad.0, self.rows),
        )
    }

    fn bad_value(&self, bad: BadRow) -> ReadError {
        self.data.corrupt(format!("row {}", bad.0), "its value lies outside the buffers")
    }
}

/// Rows with [`MISSING`] for null.
fn with_missing(rows: &UInt32Array) -> Cow<'_, [u32]> {
    match rows.nulls() {
        None => Cow::Borrowed(rows.values()),
        Some(nulls) => {
            let row = |(row, is_valid)| if is_valid { row } else { MISSING };
            Cow::Owned(std::iter::zip(rows.values().iter().copied(), nulls).map(row).collect())
        }
    }
}

/// An answer that had no limit.
fn whole(answer: Option<ArrayRef>) -> Result<ArrayRef, ReadError> {
    answer.ok_or_else(|| ReadError::arrow("collect values", ArrowError::MemoryError("too many bytes".to_owned())))
}

/// The answers that are gathered while their lines arrive.
enum Gather<'a> {
    Var(VarValues<'a>),
    W1(FixedValues<'a, 1>),
    W2(FixedValues<'a, 2>),
    W4(FixedValues<'a, 4>),
    W8(FixedValues<'a, 8>),
    W16(FixedValues<'a, 16>),
}

fn is_gathered(column: &Column) -> bool {
    match &column.raw {
        Raw::Var { .. } => true,
        Raw::Fixed { width, .. } => matches!(width, 1 | 2 | 4 | 8 | 16),
        Raw::Bool { .. } | Raw::Struct { .. } | Raw::Other => false,
    }
}

/// Whether Arrow's `take` fails on such a column or answers wrongly: in a union, which has no validity of its own, a null
/// row gets some other row's value; of values without bytes, their number is lost.
fn takes_wrongly(data_type: &DataType) -> bool {
    use DataType as D;
    match data_type {
        D::Union(..) | D::FixedSizeBinary(0) => true,
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => takes_wrongly(f.data_type()),
        D::Struct(fields) => fields.iter().any(|f| takes_wrongly(f.data_type())),
        _ => false,
    }
}

/// Takes rows one after the other; a null row of a union becomes a null of its first type.
fn take_row_by_row(whole: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef, ArrowError> {
    let data = whole.to_data();
    let mut taken = MutableArrayData::new(vec![&data], true, rows.len());
    for row in rows {
        match row {
            Some(row) => taken.try_extend(0, row as usize, row as usize + 1)?,
            None => taken.try_extend_nulls(1)?,
        }
    }
    Ok(make_array(taken.freeze()))
}

/// The keys of a batch, converted to the dataset's key type.
struct AskedKeys<'a> {
    side: &'a SegmentKey,
    keys: Keys,
    /// Whether most of them would wait for a disk.
    is_cold: bool,
}

impl AskedKeys<'_> {
    /// Reads all that one key needs.
    fn look_up(&self, segment: &Segment, i: usize, value: Option<&Column>) {
        let mut rows = Vec::new();
        // An error comes again when the whole batch is looked up.
        if self.run(segment, i..i + 1, How::Warm, &mut Rows(&mut rows)).is_ok()
            && let (Some(value), Some(&row)) = (value, rows.first())
        {
            touch(value, row);
        }
    }

    fn run<O: Output>(
        &self,
        segment: &Segment,
        range: Range<usize>,
        how: How<'_>,
        out: &mut O,
    ) -> Result<(), ReadError> {
        let column = &segment.columns[self.side.column];
        match &self.keys {
            Keys::Bytes(array) if self.side.is_composite() => {
                let stored = segment.composite_keys(self.side);
                run(self.side, &stored, &array.as_binary::<i64>(), range, how, &mut (out as &mut dyn Output))
            }
            Keys::Bytes(array) => match array.as_binary_opt::<i32>() {
                Some(asked) => self.run_bytes(column, asked, range, how, out),
                None => self.run_bytes(column, array.as_binary::<i64>(), range, how, out),
            },
            Keys::Words(values, nulls) => {
                let asked = Words { values, nulls: nulls.as_ref() };
                if let Raw::Fixed { .. } = column.raw {
                    match column.raw.words() {
                        Some(keys) => run(self.side, &WordKeys(keys), &asked, range, how, out),
                        None => run(self.side, &fixed_keys(self.side, column), &asked, range, how, out),
                    }
                } else {
                    let any: Vec<Option<KeyRef<'_>>> = range.map(|i| asked.key(i).map(KeyRef::Fixed64)).collect();
                    self.run_any(column, &any, how, out)
                }
            }
            Keys::Wide(keys) => self.run_any(column, &keys[range], how, out),
        }
        .map_err(|bad| segment.bad_row(self.side, bad))
    }

    fn run_bytes<I: OffsetSizeTrait, O: Output>(
        &self,
        column: &Column,
        asked: &GenericBinaryArray<I>,
        range: Range<usize>,
        how: How<'_>,
        out: &mut O,
    ) -> Result<(), BadRow> {
        if let Raw::Var { offsets, values } = &column.raw {
            return run(self.side, &VarKeys { offsets, values }, &asked, range, how, out);
        }
        let any: Vec<Option<KeyRef<'_>>> = range.map(|i| asked.key(i).map(KeyRef::Bytes)).collect();
        self.run_any(column, &any, how, out)
    }

    fn run_any(
        &self,
        column: &Column,
        keys: &[Option<KeyRef<'_>>],
        how: How<'_>,
        mut out: &mut dyn Output,
    ) -> Result<(), BadRow> {
        let stored = AnyKeys { column, key_type: self.side.key_type };
        run(self.side, &stored, &keys, 0..keys.len(), how, &mut out)
    }
}

fn bytes_of(key: Option<KeyRef<'_>>) -> Option<&[u8]> {
    match key {
        Some(KeyRef::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

fn fixed_keys<'a>(side: &SegmentKey, column: &'a Column) -> FixedKeys<'a> {
    match &column.raw {
        Raw::Fixed { width, values } => {
            FixedKeys { values, width: *width, signed: matches!(side.key_type, KeyType::Signed(_)) }
        }
        _ => unreachable!("only asked for fixed-width columns"),
    }
}

fn run<'k, S, A, O>(
    side: &SegmentKey,
    stored: &S,
    asked: &A,
    range: Range<usize>,
    how: How<'_>,
    out: &mut O,
) -> Result<(), BadRow>
where
    S: Stored + Paged,
    S::Key<'k>: Hashed,
    A: Asked<S::Key<'k>>,
    O: Output,
{
    match how {
        How::Warm => batch::find_many(&side.index, stored, asked, range, out),
        How::Cold { segment, value, order } => {
            let files = (side.index_file.map.as_ref(), segment.data.map.as_ref());
            cold::find_many(files, &side.index, (stored, value), asked, range, order, out)
        }
    }
}

fn concat(mut parts: Vec<ArrayRef>) -> Result<ArrayRef, ReadError> {
    if parts.len() == 1 {
        return Ok(parts.swap_remove(0));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    arrow_select::concat::concat(&parts).map_err(|e| ReadError::arrow("join the parts of a batch", e))
}
