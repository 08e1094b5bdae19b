//! Building the answer of a batch lookup: row numbers, or the values themselves gathered while their lines arrive.

use std::sync::Arc;

use arrow_array::{ArrayRef, LargeBinaryArray, LargeStringArray, make_array};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType};
use pheon_os::prefetch;

use super::batch::{BadRow, MISSING, Output};
use super::stored::hint_span;
use crate::segment::column::{Column, var_at};

/// Collects row numbers.
pub(crate) struct Rows<'a>(pub(crate) &'a mut Vec<u32>);

impl Output for Rows<'_> {
    #[inline(always)]
    fn hint_place(&self, _row: usize) {}

    #[inline(always)]
    fn hint_value(&self, _row: usize) {}

    #[inline(always)]
    fn emit(&mut self, row: u32) -> Result<(), BadRow> {
        self.0.push(row);
        Ok(())
    }
}

/// The nulls of an answer: missing keys, and stored nulls.
struct Nulls<'a> {
    column: &'a Column,
    bits: BooleanBufferBuilder,
}

impl<'a> Nulls<'a> {
    fn new(column: &'a Column, rows: usize) -> Self {
        Self { column, bits: BooleanBufferBuilder::new(rows) }
    }

    /// Notes the next row; true if it has a value.
    #[inline(always)]
    fn note(&mut self, row: u32) -> bool {
        let valid = row != MISSING && !(self.column.has_nulls() && self.column.is_null(row as usize));
        self.bits.append(valid);
        valid
    }

    fn finish(mut self) -> Option<NullBuffer> {
        let nulls = NullBuffer::new(self.bits.finish());
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// Copies LargeUtf8 or LargeBinary values.
pub(crate) struct VarValues<'a> {
    offsets: &'a [i64],
    values: &'a [u8],
    nulls: Nulls<'a>,
    out_offsets: Vec<i64>,
    out_values: Vec<u8>,
}

impl<'a> VarValues<'a> {
    pub(crate) fn new(column: &'a Column, offsets: &'a [i64], values: &'a [u8], rows: usize) -> Self {
        // The mean length of all values, with some room, saves most growing.
        let mean = values.len() / offsets.len().max(1) + 1;
        let mut out_offsets = Vec::with_capacity(rows + 1);
        out_offsets.push(0);
        Self {
            offsets,
            values,
            nulls: Nulls::new(column, rows),
            out_offsets,
            out_values: Vec::with_capacity(rows.saturating_mul(mean + mean / 8).min(1 << 30)),
        }
    }

    /// The answer, checked to be valid UTF-8 if it is text.
    pub(crate) fn finish(self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.out_offsets));
        let (values, nulls) = (Buffer::from_vec(self.out_values), self.nulls.finish());
        Ok(if *data_type == DataType::LargeUtf8 {
            Arc::new(LargeStringArray::try_new(offsets, values, nulls)?)
        } else {
            Arc::new(LargeBinaryArray::try_new(offsets, values, nulls)?)
        })
    }
}

impl Output for VarValues<'_> {
    #[inline(always)]
    fn hint_place(&self, row: usize) {
        prefetch::read_at(self.offsets, row);
        prefetch::read_at(self.offsets, row + 1);
    }

    #[inline(always)]
    fn hint_value(&self, row: usize) {
        hint_span(self.offsets, self.values, row);
    }

    #[inline(always)]
    fn emit(&mut self, row: u32) -> Result<(), BadRow> {
        if self.nulls.note(row) {
            let value = var_at(self.offsets, self.values, row as usize).ok_or(BadRow(row))?;
            self.out_values.extend_from_slice(value);
        }
        self.out_offsets.push(self.out_values.len() as i64);
        Ok(())
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
            .add_buffer(Buffer::from(self.out.as_flattened()))
            .build()?;
        Ok(make_array(data))
    }
}

impl<const W: usize> Output for FixedValues<'_, W> {
    #[inline(always)]
    fn hint_place(&self, row: usize) {
        prefetch::read_at(self.values, row);
    }

    #[inline(always)]
    fn hint_value(&self, _row: usize) {}

    #[inline(always)]
    fn emit(&mut self, row: u32) -> Result<(), BadRow> {
        let value = if self.nulls.note(row) { *self.values.get(row as usize).ok_or(BadRow(row))? } else { [0; W] };
        self.out.push(value);
        Ok(())
    }
}
