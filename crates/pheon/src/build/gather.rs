//! Putting rows in order: columns of many blocks in, one column in the wanted order out.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, PrimitiveArray, make_array,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType};
use arrow_select::interleave::interleave;
use pheon_os::prefetch;

use super::block::Block;
use super::cells::fixed_bytes;
use super::normalise::{relabelled, shape_of, stored_type};
use super::sort::{Place, block_of, row_of};

/// How many rows ahead the line that says where a value is, and the value's line, are asked for.
const AHEAD_PLACE: usize = 32;
const AHEAD_BYTES: usize = 16;

/// The rows at `places` of `blocks`, in that order: their first `columns` columns.
pub(crate) fn gather(blocks: &[Arc<Block>], places: &[Place], columns: usize) -> Result<Block, ArrowError> {
    let columns = (0..columns).map(|column| {
        let sources: Vec<&ArrayRef> = blocks.iter().map(|b| &b.columns[column]).collect();
        gather_column(&sources, places)
    });
    Ok(Block { rows: places.len(), columns: columns.collect::<Result<_, _>>()? })
}

/// The rows at `places` of arrays of one stored type without dictionaries; `sources` is not empty.
pub(crate) fn gather_stored(sources: &[ArrayRef], places: &[Place]) -> Result<ArrayRef, ArrowError> {
    let stored = sources[0].data_type();
    let gather = |shapes: Vec<ArrayRef>| gather_column(&shapes.iter().collect::<Vec<_>>(), places);
    // A file may name types that no writer stores.
    if stored.is_nested() || stored_type(stored).as_ref() != Ok(stored) {
        return gather(sources.to_vec());
    }
    if stored == &DataType::LargeUtf8 {
        let bytes = |s: &ArrayRef| Arc::new(LargeBinaryArray::from(s.as_string::<i64>().clone())) as ArrayRef;
        let gathered = gather(sources.iter().map(bytes).collect())?;
        return Ok(Arc::new(LargeStringArray::try_from_binary(gathered.as_binary().clone())?));
    }
    let shape = shape_of(stored);
    let shapes = sources.iter().map(|s| relabelled(s, shape.clone())).collect::<Result<_, _>>()?;
    relabelled(&gather(shapes)?, stored.clone())
}

/// One column of [`gather`]; `sources` is not empty.
pub(crate) fn gather_column(sources: &[&ArrayRef], places: &[Place]) -> Result<ArrayRef, ArrowError> {
    match sources[0].data_type() {
        DataType::LargeBinary => gather_strings(sources, places),
        DataType::Int8 => gather_primitive::<Int8Type>(sources, places),
        DataType::Int16 => gather_primitive::<Int16Type>(sources, places),
        DataType::Int32 => gather_primitive::<Int32Type>(sources, places),
        DataType::Int64 => gather_primitive::<Int64Type>(sources, places),
        DataType::FixedSizeBinary(n) => gather_fixed(sources, *n, places),
        _ => gather_any(sources, places),
    }
}

fn gather_nulls(sources: &[&ArrayRef], places: &[Place]) -> Option<NullBuffer> {
    if sources.iter().all(|s| s.null_count() == 0) {
        return None;
    }
    let nulls: Vec<Option<&NullBuffer>> = sources.iter().map(|s| s.nulls()).collect();
    let mut valid = BooleanBufferBuilder::new(places.len());
    for &place in places {
        valid.append(nulls[block_of(place)].is_none_or(|n| n.is_valid(row_of(place))));
    }
    Some(NullBuffer::new(valid.finish()))
}

fn gather_primitive<T: ArrowPrimitiveType>(sources: &[&ArrayRef], places: &[Place]) -> Result<ArrayRef, ArrowError> {
    let values: Vec<&[T::Native]> = sources.iter().map(|s| s.as_primitive::<T>().values().as_ref()).collect();
    let mut out = Vec::with_capacity(places.len());
    for (i, &place) in places.iter().enumerate() {
        if let Some(&ahead) = places.get(i + AHEAD_PLACE) {
            prefetch::read_at(values[block_of(ahead)], row_of(ahead));
        }
        out.push(values[block_of(place)][row_of(place)]);
    }
    let nulls = gather_nulls(sources, places);
    // Not as a `dyn Array` of its own, which would be compiled here once more for each type.
    Ok(make_array(PrimitiveArray::<T>::try_new(ScalarBuffer::from(out), nulls)?.into_data()))
}

fn gather_fixed(sources: &[&ArrayRef], n: i32, places: &[Place]) -> Result<ArrayRef, ArrowError> {
    let width = n as usize;
    if width == 0 {
        return gather_any(sources, places);
    }
    let values: Vec<Buffer> = sources.iter().map(|s| fixed_bytes(s).0).collect();
    // Aligned for whatever type the bytes are of.
    let mut out = MutableBuffer::with_capacity(places.len() * width);
    for (i, &place) in places.iter().enumerate() {
        if let Some(&ahead) = places.get(i + AHEAD_PLACE) {
            prefetch::read(values[block_of(ahead)].as_slice(), row_of(ahead) * width);
        }
        out.extend_from_slice(&values[block_of(place)].as_slice()[row_of(place) * width..][..width]);
    }
    let nulls = gather_nulls(sources, places);
    Ok(Arc::new(FixedSizeBinaryArray::try_new(n, out.into(), nulls)?))
}

fn gather_strings(sources: &[&ArrayRef], places: &[Place]) -> Result<ArrayRef, ArrowError> {
    let parts: Vec<(&[i64], &[u8])> = sources
        .iter()
        .map(|s| {
            let array = s.as_binary::<i64>();
            (array.value_offsets(), array.value_data())
        })
        .collect();
    // Where each value is: block and range, while the lines of its offsets come in many at a time.
    let mut offsets = Vec::with_capacity(places.len() + 1);
    let mut starts = Vec::with_capacity(places.len());
    offsets.push(0i64);
    let mut total = 0i64;
    for (i, &place) in places.iter().enumerate() {
        if let Some(&ahead) = places.get(i + AHEAD_PLACE) {
            prefetch::read_at(parts[block_of(ahead)].0, row_of(ahead));
        }
        let own = parts[block_of(place)].0;
        let row = row_of(place);
        starts.push(own[row] as usize);
        total += own[row + 1] - own[row];
        offsets.push(total);
    }
    let mut bytes = Vec::with_capacity(total as usize);
    for (i, &place) in places.iter().enumerate() {
        if let Some(&ahead) = places.get(i + AHEAD_BYTES) {
            let data = parts[block_of(ahead)].1;
            let start = starts[i + AHEAD_BYTES];
            prefetch::read(data, start);
            prefetch::read(data, start + 64);
        }
        let len = (offsets[i + 1] - offsets[i]) as usize;
        bytes.extend_from_slice(&parts[block_of(place)].1[starts[i]..][..len]);
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let nulls = gather_nulls(sources, places);
    Ok(Arc::new(LargeBinaryArray::try_new(offsets, Buffer::from_vec(bytes), nulls)?))
}

/// Every other shape. Only the blocks that occur are handed on.
fn gather_any(sources: &[&ArrayRef], places: &[Place]) -> Result<ArrayRef, ArrowError> {
    let mut number = vec![usize::MAX; sources.len()];
    let mut used: Vec<&dyn Array> = Vec::new();
    let pairs: Vec<(usize, usize)> = places
        .iter()
        .map(|&place| {
            let number = &mut number[block_of(place)];
            if *number == usize::MAX {
                *number = used.len();
                used.push(sources[block_of(place)].as_ref());
            }
            (*number, row_of(place))
        })
        .collect();
    if used.is_empty() {
        return Ok(sources[0].slice(0, 0));
    }
    interleave(&used, &pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::sort::place;
    use arrow_array::{
        BooleanArray, Int16Array, Int64Array, IntervalDayTimeArray, IntervalMonthDayNanoArray, StringArray,
        StructArray, new_null_array,
    };
    use arrow_buffer::{IntervalDayTime, IntervalMonthDayNano};
    use arrow_schema::{Field, IntervalUnit, TimeUnit};

    /// Many rows, so that the loops look ahead, of two slices and of one null, which is how missing rows are asked for.
    #[test]
    fn stored_columns_agree_with_interleave() {
        let rows = 50;
        let numbers: ArrayRef =
            Arc::new(Int64Array::from_iter((0..rows).map(|i| (i % 7 != 3).then_some(i * 37 - 400))));
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter((0..rows).map(|i| (i % 5 != 1).then(|| "é".repeat(i as usize % 4)))));
        let fixed: ArrayRef = Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                (0..rows as u8).map(|i| (i % 4 != 2).then_some([i, 1, 2])),
                3,
            )
            .unwrap(),
        );
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        let mut arrays: Vec<ArrayRef> = [
            vec![DataType::Boolean, DataType::Int8, DataType::Int16, DataType::Int32, DataType::Int64],
            vec![DataType::UInt8, DataType::UInt16, DataType::UInt32, DataType::UInt64],
            vec![DataType::Float16, DataType::Float32, DataType::Float64, DataType::Date32, DataType::Date64],
            vec![DataType::Decimal32(9, 2), DataType::Decimal64(18, -2)],
            vec![DataType::Decimal128(38, 4), DataType::Decimal256(76, 4)],
            vec![DataType::Time32(units[0]), DataType::Time32(units[1])],
            vec![DataType::Time64(units[2]), DataType::Time64(units[3])],
            units.iter().map(|&u| DataType::Timestamp(u, Some("Europe/Oslo".into()))).collect(),
            units.iter().map(|&u| DataType::Duration(u)).collect(),
            vec![DataType::Interval(IntervalUnit::YearMonth), DataType::Interval(IntervalUnit::DayTime)],
            vec![DataType::Interval(IntervalUnit::MonthDayNano)],
        ]
        .concat()
        .iter()
        // Some are made of 32 bits only. No number becomes an interval of several.
        .map(|t| match t {
            DataType::Interval(IntervalUnit::DayTime) => {
                let spans = (0..rows as i32).map(|i| (i % 7 != 3).then(|| IntervalDayTime::new(i, -i)));
                Arc::new(IntervalDayTimeArray::from_iter(spans)) as ArrayRef
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let spans = (0..rows as i32).map(|i| (i % 7 != 3).then(|| IntervalMonthDayNano::new(i, -i, 5)));
                Arc::new(IntervalMonthDayNanoArray::from_iter(spans)) as ArrayRef
            }
            DataType::Time32(_) | DataType::Date32 | DataType::Interval(_) => {
                arrow_cast::cast(&arrow_cast::cast(&numbers, &DataType::Int32).unwrap(), t).unwrap()
            }
            _ => arrow_cast::cast(&numbers, t).unwrap(),
        })
        .collect();
        let others = [DataType::LargeUtf8, DataType::LargeBinary, DataType::Utf8, DataType::BinaryView];
        arrays.extend(others.iter().map(|t| arrow_cast::cast(&texts, t).unwrap()));
        let runs = DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(Field::new("values", DataType::Int64, true)),
        );
        arrays.push(arrow_cast::cast(&numbers, &runs).unwrap());
        let field = Arc::new(Field::new("x", DataType::Utf8, true));
        arrays.push(Arc::new(StructArray::from(vec![(field, texts)])));
        arrays.extend([fixed, new_null_array(&DataType::Null, 50), new_null_array(&DataType::FixedSizeBinary(0), 50)]);
        for array in arrays {
            let sources =
                [array.slice(1, 31), array.slice(9, 0), array.slice(3, 40), new_null_array(array.data_type(), 1)];
            let lens = [31, 0, 40, 1];
            let picks: Vec<(usize, usize)> =
                (0..100).map(|i| [0, 2, 3][i * 5 % 3]).enumerate().map(|(i, b)| (b, i * 11 % lens[b])).collect();
            let places: Vec<Place> = picks.iter().map(|&(b, r)| place(b, r)).collect();
            let got = gather_stored(&sources, &places).unwrap();
            let parts: Vec<&dyn Array> = sources.iter().map(AsRef::as_ref).collect();
            assert_eq!(&got, &interleave(&parts, &picks).unwrap(), "{}", array.data_type());
            got.to_data().validate_full().unwrap();
            assert_eq!(&gather_stored(&sources, &[]).unwrap(), &array.slice(0, 0));
        }
    }

    #[test]
    fn every_path_agrees_with_interleave() {
        let strings = |v: &[Option<&str>]| -> ArrayRef { Arc::new(v.iter().collect::<LargeBinaryArray>()) };
        let fixed = |v: Vec<Option<&[u8]>>| -> ArrayRef {
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(v.into_iter(), 3).unwrap())
        };
        let cases: Vec<[ArrayRef; 2]> = vec![
            [strings(&[Some("x"), Some("abc"), None, Some("")]).slice(1, 3), strings(&[Some("long value"); 3])],
            [Arc::new(Int16Array::from(vec![Some(1), None, Some(3)])), Arc::new(Int16Array::from(vec![7, 8, 9]))],
            [fixed(vec![Some(b"abc"), None, Some(b"def"), None]).slice(1, 3), fixed(vec![Some(b"xyz"); 3])],
            [Arc::new(BooleanArray::from(vec![true, false, true])), Arc::new(BooleanArray::from(vec![None; 3]))],
        ];
        let picks = [(1, 2), (0, 0), (0, 2), (1, 0), (0, 1)];
        for [a, b] in cases {
            let places: Vec<Place> = picks.iter().map(|&(b, r)| place(b, r)).collect();
            let got = gather_column(&[&a, &b], &places).unwrap();
            let want = interleave(&[a.as_ref(), b.as_ref()], &picks).unwrap();
            assert_eq!(&got, &want);
            assert_eq!(gather_column(&[&a, &b], &[]).unwrap().len(), 0);
        }
    }
}
