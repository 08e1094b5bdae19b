//! Random arrays of every Arrow type, and how a value of one is printed.

use std::sync::Arc;

use arrow_array::types::{Int8Type, Int32Type, UInt16Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, GenericListArray, GenericListViewArray,
    Int32Array, LargeStringArray, MapArray, NullArray, OffsetSizeTrait, PrimitiveArray, RunArray, StringArray,
    StringViewArray, StructArray, UnionArray, make_array,
};
use arrow_array::{BinaryArray, BinaryViewArray, FixedSizeBinaryArray, LargeBinaryArray};
use arrow_buffer::{MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit, UnionFields, UnionMode};

use crate::random::Random;

/// A value as text; `None`: null.
pub(crate) fn print(array: &dyn Array, i: usize) -> Option<String> {
    if array.logical_nulls().is_some_and(|n| n.is_null(i)) || matches!(array.data_type(), DataType::Null) {
        return None;
    }
    let options = FormatOptions::new().with_null("∅").with_display_error(true);
    let text = ArrayFormatter::try_new(array, &options).unwrap().value(i).to_string();
    // A union prints its branch; a null branch is what a missing union looks like.
    (!(matches!(array.data_type(), DataType::Union(..)) && text.ends_with("=∅}"))).then_some(text)
}

pub(crate) fn print_all(array: &dyn Array) -> Vec<Option<String>> {
    (0..array.len()).map(|i| print(array, i)).collect()
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

/// Every type that a value column can have, nested ones in some combinations.
pub(crate) fn value_types() -> Vec<DataType> {
    use DataType as D;
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let dictionary = |k: D, v: D| D::Dictionary(Box::new(k), Box::new(v));
    let runs = |v: D| {
        D::RunEndEncoded(Arc::new(Field::new("run_ends", D::Int32, false)), Arc::new(Field::new("values", v, true)))
    };
    let mut types = vec![D::Null, D::Boolean, D::Int8, D::Int16, D::Int32, D::Int64, D::UInt8, D::UInt16, D::UInt32];
    types.extend([D::UInt64, D::Float16, D::Float32, D::Float64, D::Utf8, D::LargeUtf8, D::Utf8View, D::Binary]);
    types.extend([D::LargeBinary, D::BinaryView, D::FixedSizeBinary(0), D::FixedSizeBinary(4), D::FixedSizeBinary(5)]);
    types.extend([D::FixedSizeBinary(16), D::FixedSizeBinary(40), D::Date32, D::Date64, D::Time32(Second)]);
    types.extend([D::Time32(Millisecond), D::Time64(Microsecond), D::Time64(Nanosecond), D::Timestamp(Second, None)]);
    types.extend([D::Timestamp(Nanosecond, Some("+02:00".into())), D::Duration(Millisecond), D::Decimal32(9, 2)]);
    types.extend([D::Decimal64(18, 3), D::Decimal128(38, 5), D::Decimal256(76, 7)]);
    types.extend([IntervalUnit::YearMonth, IntervalUnit::DayTime, IntervalUnit::MonthDayNano].map(D::Interval));
    types.extend([D::List(item(D::Int16)), D::LargeList(item(D::Utf8View)), D::ListView(item(D::Utf8))]);
    types.extend([D::LargeListView(item(D::Boolean)), D::FixedSizeList(item(D::Float32), 3)]);
    types.push(D::List(item(D::List(item(D::LargeUtf8)))));
    let pair = Fields::from(vec![Field::new("a", D::Utf8, true), Field::new("b", D::List(item(D::Int8)), true)]);
    types.push(D::Struct(pair.clone()));
    types.push(D::List(item(D::Struct(pair.clone()))));
    types.push(D::Struct(Fields::empty()));
    types.push(D::Struct(Fields::from(vec![Field::new("x", D::Int32, false), Field::new("y", D::Struct(pair), true)])));
    let plain =
        [("s", D::Utf8), ("b", D::Boolean), ("w", D::Decimal256(76, 7)), ("f", D::FixedSizeBinary(5)), ("z", D::Int16)];
    let mut plain: Vec<Field> = plain.into_iter().map(|(name, t)| Field::new(name, t, true)).collect();
    plain.push(Field::new("always", D::LargeBinary, false));
    let plain = Fields::from(plain);
    types.push(D::Struct(plain.clone()));
    let of_plain = vec![Field::new("x", D::Float64, false), Field::new("y", D::Struct(plain), true)];
    types.push(D::Struct(Fields::from(of_plain)));
    let entries = Fields::from(vec![Field::new("keys", D::Utf8, false), Field::new("values", D::Int32, true)]);
    types.push(D::Map(Arc::new(Field::new("entries", D::Struct(entries), false)), false));
    types.extend([dictionary(D::Int8, D::Utf8), dictionary(D::UInt16, D::Int64), dictionary(D::Int32, D::Utf8View)]);
    types.extend([runs(D::Utf8), runs(D::Int64)]);
    types.push(D::List(item(dictionary(D::Int8, D::LargeUtf8))));
    types.push(D::Struct(Fields::from(vec![Field::new("d", dictionary(D::Int32, D::Utf8), true)])));
    for mode in [UnionMode::Sparse, UnionMode::Dense] {
        let fields = [Field::new("n", D::Int32, true), Field::new("s", D::Utf8, true)];
        let union = D::Union(UnionFields::try_new([0, 7], fields.clone()).unwrap(), mode);
        types.push(D::Union(UnionFields::try_new([3, 5], fields).unwrap(), mode));
        types.push(D::List(item(union.clone())));
        types.push(D::Struct(Fields::from(vec![Field::new("u", union.clone(), true)])));
        types.push(union);
    }
    types
}

/// A random array; nulls in about a fifth of the places if `nullable`.
pub(crate) fn array(data_type: &DataType, len: usize, nullable: bool, random: &mut Random) -> ArrayRef {
    use DataType as D;
    let nulls = nullable.then(|| NullBuffer::from_iter((0..len).map(|_| !random.once_in(5))));
    let has = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
    match data_type {
        D::Null => Arc::new(NullArray::new(len)),
        D::Boolean => Arc::new((0..len).map(|i| has(i).then(|| random.once_in(2))).collect::<BooleanArray>()),
        D::Utf8 | D::LargeUtf8 | D::Utf8View => {
            let texts: Vec<Option<String>> = (0..len).map(|i| has(i).then(|| text(random))).collect();
            match data_type {
                D::Utf8 => Arc::new(StringArray::from_iter(texts)),
                D::LargeUtf8 => Arc::new(LargeStringArray::from_iter(texts)),
                _ => Arc::new(StringViewArray::from_iter(texts)),
            }
        }
        D::Binary | D::LargeBinary | D::BinaryView => {
            let bytes: Vec<Option<Vec<u8>>> =
                (0..len).map(|i| has(i).then(|| bytes(random.below(20), random))).collect();
            match data_type {
                D::Binary => Arc::new(BinaryArray::from_iter(bytes)),
                D::LargeBinary => Arc::new(LargeBinaryArray::from_iter(bytes)),
                _ => Arc::new(BinaryViewArray::from_iter(bytes)),
            }
        }
        D::FixedSizeBinary(n) => Arc::new(
            FixedSizeBinaryArray::try_new_with_len(*n, bytes(len * *n as usize, random).into(), nulls, len).unwrap(),
        ),
        D::List(f) => list::<i32>(f, len, nulls, random),
        D::LargeList(f) => list::<i64>(f, len, nulls, random),
        D::ListView(f) => list_view::<i32>(f, len, nulls, random),
        D::LargeListView(f) => list_view::<i64>(f, len, nulls, random),
        D::FixedSizeList(f, n) => {
            let child = array(f.data_type(), len * *n as usize, f.is_nullable(), random);
            Arc::new(FixedSizeListArray::try_new_with_length(f.clone(), *n, child, nulls, len).unwrap())
        }
        D::Struct(fields) if fields.is_empty() => Arc::new(StructArray::new_empty_fields(len, nulls)),
        D::Struct(fields) => Arc::new(structure(fields, len, nulls, random)),
        D::Map(f, sorted) => {
            let D::Struct(fields) = f.data_type() else { unreachable!() };
            let offsets = OffsetBuffer::from_lengths((0..len).map(|_| random.below(4)));
            let children = structure(fields, offsets[len] as usize, None, random);
            Arc::new(MapArray::try_new(f.clone(), offsets, children, nulls, *sorted).unwrap())
        }
        D::Dictionary(k, v) => {
            let values = array(v, 6, false, random);
            macro_rules! dictionary {
                ($t:ty) => {{
                    let keys: PrimitiveArray<$t> = (0..len).map(|i| has(i).then(|| random.below(6) as _)).collect();
                    Arc::new(DictionaryArray::<$t>::try_new(keys, values).unwrap())
                }};
            }
            match k.as_ref() {
                D::Int8 => dictionary!(Int8Type),
                D::UInt16 => dictionary!(UInt16Type),
                _ => dictionary!(Int32Type),
            }
        }
        D::RunEndEncoded(_, v) => {
            let mut ends = Vec::new();
            let mut end = 0;
            while end < len {
                end = len.min(end + 1 + random.below(3));
                ends.push(end as i32);
            }
            let values = array(v.data_type(), ends.len(), nullable, random);
            Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(ends), &values).unwrap())
        }
        D::Union(fields, mode) => union(fields, *mode, len, random),
        _ => {
            let width = data_type.primitive_width().unwrap();
            let mut values = MutableBuffer::new(len * width);
            for _ in 0..len {
                // Small enough for every decimal, date and time of day.
                let number = i128::from(random.next() % 80_000) - if data_type.is_decimal() { 40_000 } else { 0 };
                let mut value = [if number < 0 { 0xFF } else { 0 }; 32];
                value[..16].copy_from_slice(&number.to_le_bytes());
                values.extend_from_slice(&value[..width]);
            }
            let data = ArrayData::builder(data_type.clone()).len(len).nulls(nulls).add_buffer(values.into());
            make_array(data.build().unwrap())
        }
    }
}

fn text(random: &mut Random) -> String {
    const PIECES: [&str; 6] = ["a", "pheon", "é", "😀", "a longer piece of text", ""];
    (0..random.below(4)).map(|_| PIECES[random.below(PIECES.len())]).collect()
}

fn bytes(len: usize, random: &mut Random) -> Vec<u8> {
    (0..len).map(|_| random.next() as u8).collect()
}

fn list<O: OffsetSizeTrait>(field: &FieldRef, len: usize, nulls: Option<NullBuffer>, random: &mut Random) -> ArrayRef {
    let offsets = OffsetBuffer::<O>::from_lengths((0..len).map(|_| random.below(4)));
    let child = array(field.data_type(), offsets[len].as_usize(), field.is_nullable(), random);
    Arc::new(GenericListArray::<O>::try_new(field.clone(), offsets, child, nulls).unwrap())
}

/// Views out of order and overlapping.
fn list_view<O: OffsetSizeTrait>(
    field: &FieldRef,
    len: usize,
    nulls: Option<NullBuffer>,
    random: &mut Random,
) -> ArrayRef {
    const ITEMS: usize = 30;
    let child = array(field.data_type(), ITEMS, field.is_nullable(), random);
    let places: Vec<(usize, usize)> = (0..len).map(|_| (random.below(ITEMS - 4), random.below(4))).collect();
    let offsets = ScalarBuffer::from_iter(places.iter().map(|p| O::usize_as(p.0)));
    let sizes = ScalarBuffer::from_iter(places.iter().map(|p| O::usize_as(p.1)));
    Arc::new(GenericListViewArray::<O>::try_new(field.clone(), offsets, sizes, child, nulls).unwrap())
}

fn structure(fields: &Fields, len: usize, nulls: Option<NullBuffer>, random: &mut Random) -> StructArray {
    let children = fields.iter().map(|f| array(f.data_type(), len, f.is_nullable(), random)).collect();
    StructArray::try_new(fields.clone(), children, nulls).unwrap()
}

fn union(fields: &UnionFields, mode: UnionMode, len: usize, random: &mut Random) -> ArrayRef {
    let ids: Vec<i8> = fields.iter().map(|(id, _)| id).collect();
    let chosen: Vec<usize> = (0..len).map(|_| random.below(ids.len())).collect();
    let type_ids = chosen.iter().map(|&c| ids[c]).collect::<ScalarBuffer<i8>>();
    let mut counts = vec![0; ids.len()];
    let offsets: Vec<i32> = chosen
        .iter()
        .map(|&c| {
            counts[c] += 1;
            counts[c] - 1
        })
        .collect();
    let dense = mode == UnionMode::Dense;
    let children = fields
        .iter()
        .zip(&counts)
        .map(|((_, f), &count)| array(f.data_type(), if dense { count as usize } else { len }, true, random))
        .collect();
    let offsets = dense.then(|| ScalarBuffer::from(offsets));
    Arc::new(UnionArray::try_new(fields.clone(), type_ids, offsets, children).unwrap())
}
