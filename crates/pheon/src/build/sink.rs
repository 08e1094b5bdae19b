//! Where columns end: every part of an array becomes the end of a file buffer that is written in order.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, OffsetSizeTrait, UnionArray};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, NullBuffer};
use arrow_ipc::FieldNode;
use arrow_schema::{DataType, UnionMode};
use arrow_select::interleave::interleave;

use super::block::{Bounds, child_shapes};
use super::cells::fixed_bytes;
use super::stream::{Planner, Stream};
use crate::error::WriteError;
use crate::manifest::BufferRecord;

/// Nodes and buffers that an array of this shape has in a record batch.
pub(crate) fn count_parts(shape: &DataType) -> (usize, usize) {
    use DataType as D;
    let own = match shape {
        D::Null => 0,
        D::Struct(_) | D::FixedSizeList(..) | D::Union(_, UnionMode::Sparse) => 1,
        D::LargeBinary => 3,
        _ => 2,
    };
    child_shapes(shape).into_iter().map(count_parts).fold((1, own), |a, b| (a.0 + b.0, a.1 + b.1))
}

/// Takes one column's arrays in order.
pub(crate) enum Sink {
    Null { rows: u64 },
    Bool { validity: Validity, values: Bits },
    Fixed { validity: Validity, values: Stream },
    Strings { validity: Validity, offsets: Offsets, bytes: Stream },
    List { validity: Validity, offsets: Offsets, child: Box<Sink> },
    FixedList { validity: Validity, child: Box<Sink> },
    Struct { validity: Validity, children: Vec<Sink> },
    Union { rows: u64, ids: Stream, offsets: Option<Stream>, children: Vec<Sink> },
}

/// The validity bits: nothing is written before the first null.
pub(crate) struct Validity {
    rows: u64,
    nulls: u64,
    bits: Bits,
}

/// Bits, least significant first.
pub(crate) struct Bits {
    tail: BooleanBufferBuilder,
    stream: Stream,
}

/// Offsets of strings or lists; the first is written with the first array.
pub(crate) struct Offsets {
    large: bool,
    end: u64,
    begun: bool,
    stream: Stream,
}

impl Sink {
    /// Plans the buffers of a column of at most `bounds`, in the order of a record batch.
    pub(crate) fn plan(shape: &DataType, bounds: &Bounds, planner: &mut Planner) -> Self {
        use DataType as D;
        let rows = bounds.rows;
        let mut children = bounds.children.iter().zip(child_shapes(shape));
        let mut next = |planner: &mut Planner| {
            let (bounds, shape) = children.next().expect("bounds were made for this shape");
            Self::plan(shape, bounds, planner)
        };
        match shape {
            D::Null => Self::Null { rows: 0 },
            D::Boolean => {
                let validity = Validity::plan(bounds, planner);
                Self::Bool { validity, values: Bits::plan(rows, planner) }
            }
            D::LargeBinary => {
                let validity = Validity::plan(bounds, planner);
                let offsets = Offsets::plan(true, rows, planner);
                Self::Strings { validity, offsets, bytes: planner.stream(bounds.bytes) }
            }
            D::List(_) | D::LargeList(_) => {
                let validity = Validity::plan(bounds, planner);
                let offsets = Offsets::plan(matches!(shape, D::LargeList(_)), rows, planner);
                Self::List { validity, offsets, child: Box::new(next(planner)) }
            }
            D::FixedSizeList(..) => {
                let validity = Validity::plan(bounds, planner);
                Self::FixedList { validity, child: Box::new(next(planner)) }
            }
            D::Struct(fields) => {
                let validity = Validity::plan(bounds, planner);
                Self::Struct { validity, children: fields.iter().map(|_| next(planner)).collect() }
            }
            D::Union(fields, mode) => {
                let ids = planner.stream(rows);
                let offsets = matches!(mode, UnionMode::Dense).then(|| planner.stream(rows.saturating_mul(4)));
                Self::Union { rows: 0, ids, offsets, children: fields.iter().map(|_| next(planner)).collect() }
            }
            fixed => {
                let width = match fixed {
                    D::FixedSizeBinary(n) => *n as u64,
                    other => other.primitive_width().unwrap_or_else(|| unreachable!("{other} is no shape")) as u64,
                };
                let validity = Validity::plan(bounds, planner);
                Self::Fixed { validity, values: planner.stream(rows.saturating_mul(width)) }
            }
        }
    }

    /// Appends an array's rows.
    pub(crate) fn append(&mut self, array: &ArrayRef) -> Result<(), WriteError> {
        match self {
            Self::Null { rows } => {
                *rows += array.len() as u64;
                Ok(())
            }
            Self::Bool { validity, values } => {
                validity.append(array.len(), array.nulls())?;
                values.append(array.as_boolean().values())
            }
            Self::Fixed { validity, values } => {
                validity.append(array.len(), array.nulls())?;
                values.write(&fixed_bytes(array).0)
            }
            Self::Strings { validity, offsets, bytes } => {
                validity.append(array.len(), array.nulls())?;
                let array = array.as_binary::<i64>();
                let own = array.value_offsets();
                offsets.append(own)?;
                bytes.write(&array.value_data()[own[0] as usize..own[array.len()] as usize])
            }
            Self::List { validity, offsets, child } => {
                validity.append(array.len(), array.nulls())?;
                let (values, from, to) = if offsets.large {
                    let list = array.as_list::<i64>();
                    offsets.append(list.value_offsets())?;
                    (list.values(), list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize)
                } else {
                    let list = array.as_list::<i32>();
                    offsets.append(list.value_offsets())?;
                    (list.values(), list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize)
                };
                child.append(&values.slice(from, to - from))
            }
            Self::FixedList { validity, child } => {
                validity.append(array.len(), array.nulls())?;
                child.append(array.as_fixed_size_list().values())
            }
            Self::Struct { validity, children } => {
                validity.append(array.len(), array.nulls())?;
                children.iter_mut().zip(array.as_struct().columns()).try_for_each(|(sink, child)| sink.append(child))
            }
            Self::Union { .. } => self.append_union(array),
        }
    }

    fn append_union(&mut self, array: &ArrayRef) -> Result<(), WriteError> {
        let Self::Union { rows, ids, offsets, children } = self else { unreachable!("the caller matched a union") };
        let array = compact(array)?;
        let union = array.as_union();
        let DataType::Union(fields, _) = union.data_type() else { unreachable!("a union array has a union type") };
        *rows += union.len() as u64;
        ids.write(as_bytes(union.type_ids()))?;
        if let (Some(stream), Some(own)) = (offsets, union.offsets()) {
            let mut base = [0u64; 128];
            for ((id, _), sink) in fields.iter().zip(children.iter()) {
                base[id as usize] = sink.rows();
            }
            let mut bytes = Vec::with_capacity(4 * own.len());
            for (&id, &offset) in union.type_ids().iter().zip(own.iter()) {
                let offset = base[id as usize] + offset as u64;
                bytes.extend_from_slice(&i32::try_from(offset).map_err(|_| too_long("dense union"))?.to_le_bytes());
            }
            stream.write(&bytes)?;
        }
        fields.iter().zip(children).try_for_each(|((id, _), sink)| sink.append(union.child(id)))
    }

    fn rows(&self) -> u64 {
        match self {
            Self::Null { rows } | Self::Union { rows, .. } => *rows,
            Self::Bool { validity, .. }
            | Self::Fixed { validity, .. }
            | Self::Strings { validity, .. }
            | Self::List { validity, .. }
            | Self::FixedList { validity, .. }
            | Self::Struct { validity, .. } => validity.rows,
        }
    }

    /// Appends rows of a fixed-width column without nulls as they lie in memory.
    pub(crate) fn append_raw(&mut self, rows: usize, bytes: &[u8]) -> Result<(), WriteError> {
        let Self::Fixed { validity, values } = self else { unreachable!("only fixed-width columns are written raw") };
        validity.append(rows, None)?;
        values.write(bytes)
    }

    /// Writes what is left and appends this column's nodes and buffers in the order of a record batch.
    pub(crate) fn finish(self, nodes: &mut Vec<FieldNode>, buffers: &mut Vec<BufferRecord>) -> Result<(), WriteError> {
        match self {
            Self::Null { rows } => nodes.push(FieldNode::new(rows as i64, rows as i64)),
            Self::Bool { validity, values } => {
                validity.finish(nodes, buffers)?;
                buffers.push(values.finish()?);
            }
            Self::Fixed { validity, values } => {
                validity.finish(nodes, buffers)?;
                buffers.push(values.finish()?);
            }
            Self::Strings { validity, offsets, bytes } => {
                validity.finish(nodes, buffers)?;
                buffers.push(offsets.finish()?);
                buffers.push(bytes.finish()?);
            }
            Self::List { validity, offsets, child } => {
                validity.finish(nodes, buffers)?;
                buffers.push(offsets.finish()?);
                child.finish(nodes, buffers)?;
            }
            Self::FixedList { validity, child } => {
                validity.finish(nodes, buffers)?;
                child.finish(nodes, buffers)?;
            }
            Self::Struct { validity, children } => {
                validity.finish(nodes, buffers)?;
                children.into_iter().try_for_each(|c| c.finish(nodes, buffers))?;
            }
            Self::Union { rows, ids, offsets, children } => {
                nodes.push(FieldNode::new(rows as i64, 0));
                buffers.push(ids.finish()?);
                if let Some(offsets) = offsets {
                    buffers.push(offsets.finish()?);
                }
                children.into_iter().try_for_each(|c| c.finish(nodes, buffers))?;
            }
        }
        Ok(())
    }
}

impl Validity {
    fn plan(bounds: &Bounds, planner: &mut Planner) -> Self {
        let bits = Bits::plan(if bounds.nulls { bounds.rows } else { 0 }, planner);
        Self { rows: 0, nulls: 0, bits }
    }

    fn append(&mut self, rows: usize, nulls: Option<&NullBuffer>) -> Result<(), WriteError> {
        let nulls = nulls.filter(|n| n.null_count() > 0);
        match nulls {
            Some(nulls) => {
                if self.nulls == 0 {
                    self.bits.append_ones(self.rows)?;
                }
                self.nulls += nulls.null_count() as u64;
                self.bits.append(nulls.inner())?;
            }
            None if self.nulls > 0 => self.bits.append_ones(rows as u64)?,
            None => {}
        }
        self.rows += rows as u64;
        Ok(())
    }

    fn finish(self, nodes: &mut Vec<FieldNode>, buffers: &mut Vec<BufferRecord>) -> Result<(), WriteError> {
        nodes.push(FieldNode::new(self.rows as i64, self.nulls as i64));
        buffers.push(self.bits.finish()?);
        Ok(())
    }
}

impl Bits {
    fn plan(rows: u64, planner: &mut Planner) -> Self {
        Self { tail: BooleanBufferBuilder::new(0), stream: planner.stream(rows.div_ceil(8)) }
    }

    fn append(&mut self, bits: &BooleanBuffer) -> Result<(), WriteError> {
        self.tail.append_buffer(bits);
        self.flush_bytes()
    }

    fn append_ones(&mut self, mut count: u64) -> Result<(), WriteError> {
        while count > 0 {
            let now = count.min(1 << 16);
            self.tail.append_n(now as usize, true);
            self.flush_bytes()?;
            count -= now;
        }
        Ok(())
    }

    /// Hands whole bytes on, once there are some.
    fn flush_bytes(&mut self) -> Result<(), WriteError> {
        let whole = self.tail.len() / 8;
        if whole < 512 {
            return Ok(());
        }
        self.stream.write(&self.tail.as_slice()[..whole])?;
        let rest: Vec<bool> = (8 * whole..self.tail.len()).map(|i| self.tail.get_bit(i)).collect();
        self.tail.truncate(0);
        self.tail.append_slice(&rest);
        Ok(())
    }

    fn finish(mut self) -> Result<BufferRecord, WriteError> {
        self.stream.write(&self.tail.as_slice()[..self.tail.len().div_ceil(8)])?;
        self.stream.finish()
    }
}

impl Offsets {
    fn plan(large: bool, rows: u64, planner: &mut Planner) -> Self {
        let width = if large { 8 } else { 4 };
        Self { large, end: 0, begun: false, stream: planner.stream(rows.saturating_add(1).saturating_mul(width)) }
    }

    /// `own` begins wherever its array does.
    fn append<O: OffsetSizeTrait>(&mut self, own: &[O]) -> Result<(), WriteError> {
        let skip = usize::from(self.begun);
        self.begun = true;
        let base = self.end.wrapping_sub(own[0].as_usize() as u64);
        let last = base.wrapping_add(own[own.len() - 1].as_usize() as u64);
        let width = if self.large { 8 } else { 4 };
        if !self.large && i32::try_from(last).is_err() {
            return Err(too_long("list"));
        }
        let mut bytes = Vec::with_capacity((own.len() - skip) * width);
        for offset in &own[skip..] {
            let offset = base.wrapping_add(offset.as_usize() as u64).to_le_bytes();
            bytes.extend_from_slice(&offset[..width]);
        }
        self.end = last;
        self.stream.write(&bytes)
    }

    fn finish(mut self) -> Result<BufferRecord, WriteError> {
        if !self.begun {
            self.stream.write(&[0; 8][..if self.large { 8 } else { 4 }])?;
        }
        self.stream.finish()
    }
}

fn as_bytes(ids: &[i8]) -> &[u8] {
    // i8 and u8 have one representation, but only a copy says so without unsafe code: a bytemuck-free cast of slices.
    arrow_buffer::ToByteSlice::to_byte_slice(ids)
}

/// A dense union whose children hold more than its rows refer to (it is a slice) is put together anew.
fn compact(array: &ArrayRef) -> Result<Cow<'_, ArrayRef>, WriteError> {
    let union: &UnionArray = array.as_union();
    let DataType::Union(fields, UnionMode::Dense) = union.data_type() else { return Ok(Cow::Borrowed(array)) };
    if fields.iter().map(|(id, _)| union.child(id).len()).sum::<usize>() == union.len() {
        return Ok(Cow::Borrowed(array));
    }
    let rows: Vec<(usize, usize)> = (0..union.len()).map(|row| (0, row)).collect();
    let compacted = interleave(&[array.as_ref()], &rows)
        .map_err(|e| WriteError::schema(format!("putting together the values of a union column: {e}")))?;
    Ok(Cow::Owned(compacted))
}

fn too_long(what: &str) -> WriteError {
    WriteError::Limit {
        problem: format!(
            "a {what} column holds more than {} values in all, which its 32-bit offsets cannot count; cast lists to LargeList",
            i32::MAX
        ),
    }
}
