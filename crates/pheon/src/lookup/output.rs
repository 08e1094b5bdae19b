//! Building the answer of a batch lookup: row numbers, or the values themselves gathered while their lines arrive.

use std::sync::Arc;

use arrow_array::{ArrayRef, LargeBinaryArray, LargeStringArray, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};
use pheon_os::prefetch;

use super::batch::{BadRow, Hints, MISSING, Output};
use super::stored::hint_span;
use crate::segment::column::{Column, Raw};

/// The value column of a single lookup, or nothing to ask for.
pub(crate) enum ValueOf<'a> {
    Var { offsets: &'a [i64], values: &'a [u8] },
    Fixed { values: &'a [u8], width: usize },
    Nothing,
}

impl<'a> ValueOf<'a> {
    pub(crate) fn column(column: Option<&'a Column>) -> Self {
        match column.map(|c| &c.raw) {
            Some(Raw::Var { offsets, values }) => Self::Var { offsets, values },
            Some(Raw::Fixed { width, values }) => Self::Fixed { values, width: *width },
            Some(Raw::Bool { .. } | Raw::Struct { .. } | Raw::Other) | None => Self::Nothing,
        }
    }
}

impl Hints for ValueOf<'_> {
    #[inline(always)]
    fn hint_place(&self, row: usize) {
        match self {
            Self::Var { offsets, .. } => prefetch::read_at(offsets, row),
            Self::Fixed { values, width } => prefetch::read(values, row.wrapping_mul(*width)),
            Self::Nothing => {}
        }
    }

    #[inline(always)]
    fn hint_value(&self, row: usize) {
        if let Self::Var { offsets, values } = self {
            hint_span(offsets, values, row);
        }
    }
}

/// Collects row numbers.
pub(crate) struct Rows<'a>(pub(crate) &'a mut Vec<u32>);

impl Hints for Rows<'_> {
    #[inline(always)]
    fn hint_place(&self, _row: usize) {}

    #[inline(always)]
    fn hint_value(&self, _row: usize) {}
}

impl Output for Rows<'_> {
    #[inline(always)]
    fn emit(&mut self, row: u32) -> Result<(), BadRow> {
        self.0.push(row);
        Ok(())
    }

    #[inline(always)]
    fn emit_missing(&mut self) {
        self.0.push(MISSING);
    }
}

/// The nulls of an answer: missing keys, and stored nulls.
struct Nulls<'a> {
    column: &'a Column,
    words: Vec<u64>,
    /// The bits of the last rows, less than 64.
    word: u64,
    rows: usize,
}

impl<'a> Nulls<'a> {
    fn new(column: &'a Column, rows: usize) -> Self {
        Self { column, words: Vec::with_capacity(rows / 64 + 1), word: 0, rows: 0 }
    }

    /// Notes whether the next row has a value.
    #[inline(always)]
    fn note(&mut self, valid: bool) {
        self.word |= u64::from(valid) << (self.rows % 64);
        self.rows += 1;
        if self.rows.is_multiple_of(64) {
            self.words.push(self.word);
            self.word = 0;
        }
    }

    /// Whether a stored row has a value.
    #[inline(always)]
    fn is_valid(&self, row: u32) -> bool {
        !(self.column.has_nulls() && self.column.is_null(row as usize))
    }

    fn finish(mut self) -> Option<NullBuffer> {
        self.words.push(self.word);
        // Bit i of a little-endian word is bit i % 8 of byte i / 8, as Arrow wants it.
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bytes), 0, self.rows));
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// Values up to this length are copied by a few moves instead of a call.
const BLOCK: usize = 64;
/// Bytes that an answer reserves at most before it holds any.
const RESERVE_BYTES_MAX: usize = 64 << 20;
/// Bytes by which the answer grows: little enough to be zeroed in the cache, large enough to be rare.
const GROW_BYTES: usize = 64 << 10;

/// Copies LargeUtf8 or LargeBinary values.
pub(crate) struct VarValues<'a> {
    offsets: &'a [i64],
    values: &'a [u8],
    nulls: Nulls<'a>,
    out_offsets: Vec<i64>,
    /// The answer's bytes, and room behind them.
    out_values: Vec<u8>,
    used: usize,
    /// The answer grows to about so many bytes, and no further.
    bytes_max: usize,
    /// It would have been longer.
    is_cut: bool,
}

impl<'a> VarValues<'a> {
    pub(crate) fn new(column: &'a Column, offsets: &'a [i64], values: &'a [u8], rows: usize, bytes_max: usize) -> Self {
        // The mean length of all values, with some room, saves most growing.
        let mean = values.len() / offsets.len().max(1) + 1;
        let mut out_offsets = Vec::with_capacity(rows + 1);
        out_offsets.push(0);
        // Skewed lengths must not reserve what a batch of misses never uses.
        let expected = rows.saturating_mul(mean + mean / 8).min(RESERVE_BYTES_MAX).min(bytes_max);
        Self {
            offsets,
            values,
            nulls: Nulls::new(column, rows),
            out_offsets,
            out_values: Vec::with_capacity(expected + GROW_BYTES),
            used: 0,
            bytes_max,
            is_cut: false,
        }
    }

    /// The answer, checked to be valid UTF-8 if it is text; `None` if it would have been too long.
    pub(crate) fn finish(mut self, data_type: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        // Short values are counted only where the answer grows.
        if self.is_cut || self.used > self.bytes_max {
            return Ok(None);
        }
        self.out_values.truncate(self.used);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.out_offsets));
        let (values, nulls) = (Buffer::from_vec(self.out_values), self.nulls.finish());
        Ok(Some(if *data_type == DataType::LargeUtf8 {
            Arc::new(LargeStringArray::try_new(offsets, values, nulls)?)
        } else {
            Arc::new(LargeBinaryArray::try_new(offsets, values, nulls)?)
        }))
    }

    /// Appends `values[start .. end]`; `None` if that is not a part of the values.
    #[inline(always)]
    fn append(&mut self, start: usize, end: usize) -> Option<()> {
        let value = self.values.get(start..end)?;
        if value.len() <= BLOCK
            && let Some(to) = self.out_values.get_mut(self.used..).and_then(|v| v.first_chunk_mut::<BLOCK>())
        {
            copy_short(value, to);
            self.used += value.len();
        } else {
            self.append_any(value);
        }
        Some(())
    }

    #[inline(never)]
    fn append_any(&mut self, value: &[u8]) {
        let needed = self.used + value.len();
        if needed > self.bytes_max {
            self.is_cut = true;
            return;
        }
        if needed + BLOCK > self.out_values.len() {
            self.out_values.resize(needed + GROW_BYTES, 0);
        }
        self.out_values[self.used..needed].copy_from_slice(value);
        self.used = needed;
    }
}

/// Copies at most [`BLOCK`] bytes by moves that overlap, and so reads no byte beyond: it would often be in a line that
/// nobody has asked for.
#[inline(always)]
fn copy_short(from: &[u8], to: &mut [u8; BLOCK]) {
    #[inline(always)]
    fn ends<const N: usize>(from: &[u8], to: &mut [u8]) -> bool {
        let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else { return false };
        to[..N].copy_from_slice(first);
        to[from.len() - N..from.len()].copy_from_slice(last);
        true
    }
    let len = from.len();
    if len > 32 {
        to[16..32].copy_from_slice(&from[16..32]);
        to[len - 32..len - 16].copy_from_slice(&from[len - 32..len - 16]);
    }
    if !ends::<16>(from, to) && !ends::<8>(from, to) && !ends::<4>(from, to) && !ends::<2>(from, to) {
        to[..len].copy_from_slice(from);
    }
}

impl Hints for VarValues<'_> {
    #[inline(always)]
    fn hint_place(&self, row: usize) {
        prefetch::read_at(self.offsets, row);
        prefetch::read_at(self.offsets, row + 1);
    }

    #[inline(always)]
    fn hint_value(&self, row: usize) {
        hint_span(self.offsets, self.values, row);
    }
}

impl Output for VarValues<'_> {
    #[inline(always)]
    fn emit(&mut self, row: u32) -> Result<(), BadRow> {
        let valid = self.nulls.is_valid(row);
        if valid {
            let &[start, end] =
                self.offsets.get(row as usize..).and_then(|o| o.first_chunk::<2>()).ok_or(BadRow(row))?;
            self.append(start as usize, end as usize).ok_or(BadRow(row))?;
        }
        self.nulls.note(valid);
        self.out_offsets.push(self.used as i64);
        Ok(())
    }

    #[inline(always)]
    fn emit_missing(&mut self) {
        self.nulls.note(false);
        self.out_offsets.push(self.used as i64);
    }
}

/// Copies fixed-width values of `W` bytes.
pub(crate) struct FixedValues<'a, const W: usize> {
    values: &'a [[u8; W]],
    nulls: Nulls<'a>,
    out: Vec<[u8; W]>,
}

impl<'a, const W: usize> FixedValues<'a, W> {
    pub(crate) fn new(column: &'a Column, values: &'a [u8], rows: usize) -> Self {
        Self { values: values.as_chunks().0, nulls: Nulls::new(column, rows), out: Vec::with_capacity(rows) }
    }

    pub(crate) fn finish(self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let (rows, nulls) = (self.out.len(), self.nulls.finish());
        let data = ArrayData::builder(data_type.clone())
            .len(rows)
            .nulls(nulls)
            .add_buffer(Buffer::from_vec(self.out.into_flattened()))
            // Allocators align large blocks enough; where one does not, this copies.
            .align_buffers(true)
            .build()?;
        Ok(make_array(data))
    }
}

impl<const W: usize> Hints for FixedValues<'_, W> {
    #[inline(always)]
    fn hint_place(&self, row: usize) {
        prefetch::read_at(self.values, row);
    }

    #[inline(always)]
    fn hint_value(&self, _row: usize) {}
}

impl<const W: usize> Output for FixedValues<'_, W> {
    #[inline(always)]
    fn emit(&mut self, row: u32) -> Result<(), BadRow> {
        let valid = self.nulls.is_valid(row);
        let value = if valid { *self.values.get(row as usize).ok_or(BadRow(row))? } else { [0; W] };
        self.nulls.note(valid);
        self.out.push(value);
        Ok(())
    }

    #[inline(always)]
    fn emit_missing(&mut self) {
        self.nulls.note(false);
        self.out.push([0; W]);
    }
}
