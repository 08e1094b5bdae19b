//! Keys of every type as the oracle sees them, their generators, and arrays of them in any Arrow type.

use std::sync::Arc;

use arrow_array::types::{Int32Type, UInt16Type};
use arrow_array::{
    ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Int32Array,
    LargeBinaryArray, LargeStringArray, RunArray, StringArray, StringViewArray, UInt16Array, make_array,
};
use arrow_buffer::{MutableBuffer, NullBuffer, i256};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, TimeUnit};
use pheon::KeyRef;
use proptest::collection::vec;
use proptest::prelude::*;

/// A key by its meaning; the order is the order in which Pheon stores keys of one type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Bytes(Vec<u8>),
    /// Integers, and the stored numbers of times and decimals.
    Number(i256),
}

/// A key by its value, whatever the type: times in nanoseconds, numbers in units of 1e-20.
pub(crate) fn meaning(key: &Key, data_type: &DataType) -> Key {
    match key {
        Key::Number(n) => Key::Number(n.checked_mul(unit(data_type)).unwrap()),
        bytes => bytes.clone(),
    }
}

fn power_of_ten(exponent: i32) -> i256 {
    i256::from_i128(10).checked_pow(exponent as u32).unwrap()
}

fn unit(data_type: &DataType) -> i256 {
    use DataType as D;
    let nanoseconds = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    match data_type {
        D::Date32 => i256::from_i128(86_400_000_000_000),
        D::Date64 => i256::from_i128(1_000_000),
        D::Time32(u) | D::Time64(u) | D::Timestamp(u, _) | D::Duration(u) => i256::from_i128(nanoseconds(u)),
        D::Decimal32(_, s) | D::Decimal64(_, s) | D::Decimal128(_, s) | D::Decimal256(_, s) => {
            power_of_ten(20 - i32::from(*s))
        }
        D::Dictionary(_, v) => unit(v),
        D::RunEndEncoded(_, v) => unit(v.data_type()),
        _ => power_of_ten(20),
    }
}

/// The key in another type, if that type has it.
pub(crate) fn converted(key: &Key, from: &DataType, to: &DataType) -> Option<Key> {
    let there = match meaning(key, from) {
        Key::Number(n) => {
            let unit = unit(to);
            (n.wrapping_rem(unit) == i256::ZERO).then(|| Key::Number(n.wrapping_div(unit)))?
        }
        bytes => bytes,
    };
    fits(&there, to).then_some(there)
}

pub(crate) fn fits(key: &Key, data_type: &DataType) -> bool {
    use DataType as D;
    match (key, data_type) {
        (_, D::Dictionary(_, v)) => fits(key, v),
        (_, D::RunEndEncoded(_, v)) => fits(key, v.data_type()),
        (Key::Bytes(b), D::FixedSizeBinary(n)) => b.len() == *n as usize,
        (Key::Bytes(b), D::Utf8 | D::LargeUtf8 | D::Utf8View) => std::str::from_utf8(b).is_ok(),
        (Key::Bytes(_), _) => true,
        (Key::Number(n), _) => {
            let (low, high) = bounds(data_type);
            low <= *n && *n <= high
        }
    }
}

/// The least and the greatest stored number of a type.
pub(crate) fn bounds(data_type: &DataType) -> (i256, i256) {
    use DataType as D;
    let both = |low: i128, high: i128| (i256::from_i128(low), i256::from_i128(high));
    let digits = |p: u8| {
        let high = power_of_ten(i32::from(p)).wrapping_sub(i256::ONE);
        (high.wrapping_neg(), high)
    };
    match data_type {
        D::Boolean => both(0, 1),
        D::Int8 => both(i8::MIN.into(), i8::MAX.into()),
        D::Int16 => both(i16::MIN.into(), i16::MAX.into()),
        D::Int32 | D::Date32 | D::Time32(_) => both(i32::MIN.into(), i32::MAX.into()),
        D::Int64 | D::Date64 | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => {
            both(i64::MIN.into(), i64::MAX.into())
        }
        D::UInt8 => both(0, u8::MAX.into()),
        D::UInt16 => both(0, u16::MAX.into()),
        D::UInt32 => both(0, u32::MAX.into()),
        D::UInt64 => both(0, u64::MAX.into()),
        D::Decimal32(p, _) | D::Decimal64(p, _) | D::Decimal128(p, _) => digits(*p),
        // Less than all of its digits, so that `meaning` does not overflow.
        D::Decimal256(p, _) => digits(*p.min(&55)),
        D::Dictionary(_, v) => bounds(v),
        D::RunEndEncoded(_, v) => bounds(v.data_type()),
        other => unreachable!("{other} holds no numbers"),
    }
}

/// The same key as the engine's borrowed form, for a column of `data_type`.
pub(crate) fn key_ref<'a>(key: &'a Key, data_type: &DataType) -> KeyRef<'a> {
    use DataType as D;
    match (key, data_type) {
        (Key::Bytes(b), _) => KeyRef::Bytes(b),
        (Key::Number(n), D::Decimal256(..)) => KeyRef::I256(n.to_le_bytes()),
        (Key::Number(n), D::Decimal32(..) | D::Decimal64(..) | D::Decimal128(..)) => KeyRef::I128(n.as_i128()),
        (Key::Number(n), _) => KeyRef::Fixed64(n.as_i128() as u64),
    }
}

/// An array of `data_type`; every key must fit it.
pub(crate) fn array(data_type: &DataType, keys: &[Option<Key>]) -> ArrayRef {
    use DataType as D;
    let bytes = || {
        keys.iter().map(|k| match k {
            Some(Key::Bytes(b)) => Some(b.as_slice()),
            Some(other) => unreachable!("{other:?} is no {data_type}"),
            None => None,
        })
    };
    let text = || bytes().map(|b| b.map(|b| std::str::from_utf8(b).unwrap()));
    match data_type {
        D::Utf8 => Arc::new(StringArray::from_iter(text())),
        D::LargeUtf8 => Arc::new(LargeStringArray::from_iter(text())),
        D::Utf8View => Arc::new(StringViewArray::from_iter(text())),
        D::Binary => Arc::new(BinaryArray::from_iter(bytes())),
        D::LargeBinary => Arc::new(LargeBinaryArray::from_iter(bytes())),
        D::BinaryView => Arc::new(BinaryViewArray::from_iter(bytes())),
        D::FixedSizeBinary(n) => {
            let nulls = NullBuffer::from_iter(keys.iter().map(Option::is_some));
            let values = bytes().flat_map(|b| b.map_or(vec![0xAA; *n as usize], <[u8]>::to_vec)).collect::<Vec<u8>>();
            Arc::new(FixedSizeBinaryArray::try_new_with_len(*n, values.into(), Some(nulls), keys.len()).unwrap())
        }
        D::Boolean => {
            Arc::new(BooleanArray::from_iter(keys.iter().map(|k| k.as_ref().map(|k| *k != Key::Number(i256::ZERO)))))
        }
        D::Dictionary(index, values) => {
            let values = array(values, &keys.iter().flatten().cloned().map(Some).collect::<Vec<_>>());
            let mut next = 0;
            let places: Vec<Option<i32>> = keys
                .iter()
                .map(|k| {
                    next += i32::from(k.is_some());
                    k.as_ref().map(|_| next - 1)
                })
                .collect();
            match index.as_ref() {
                D::Int32 => Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from(places), values).unwrap()),
                D::UInt16 => {
                    let places = UInt16Array::from_iter(places.iter().map(|p| p.map(|p| p as u16)));
                    Arc::new(DictionaryArray::<UInt16Type>::try_new(places, values).unwrap())
                }
                other => unreachable!("{other}"),
            }
        }
        D::RunEndEncoded(_, values) => {
            let ends = Int32Array::from_iter_values(1..=keys.len() as i32);
            Arc::new(RunArray::<Int32Type>::try_new(&ends, &array(values.data_type(), keys)).unwrap())
        }
        _ => {
            let width = data_type.primitive_width().unwrap();
            let mut buffer = MutableBuffer::new(keys.len() * width);
            for key in keys {
                match key {
                    Some(Key::Number(n)) => buffer.extend_from_slice(&n.to_le_bytes()[..width]),
                    Some(other) => unreachable!("{other:?} is no {data_type}"),
                    // What lies under a null must not matter.
                    None => buffer.extend_from_slice(&[0xFFu8; 32][..width]),
                }
            }
            let data = ArrayData::builder(data_type.clone())
                .len(keys.len())
                .nulls(Some(NullBuffer::from_iter(keys.iter().map(Option::is_some))))
                .add_buffer(buffer.into());
            make_array(data.build().unwrap())
        }
    }
}

/// Every type that a key column can have, normalised ones and others.
pub(crate) fn key_types() -> Vec<DataType> {
    use DataType as D;
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let mut types = vec![D::Utf8, D::LargeUtf8, D::Utf8View, D::Binary, D::LargeBinary, D::BinaryView];
    types.extend([D::FixedSizeBinary(0), D::FixedSizeBinary(1), D::FixedSizeBinary(3), D::FixedSizeBinary(16)]);
    types.extend([D::Boolean, D::Int8, D::Int16, D::Int32, D::Int64, D::UInt8, D::UInt16, D::UInt32, D::UInt64]);
    types.extend([D::Date32, D::Date64, D::Time32(Second), D::Time32(Millisecond)]);
    types.extend([D::Time64(Microsecond), D::Time64(Nanosecond)]);
    for unit in [Second, Millisecond, Microsecond, Nanosecond] {
        types.extend([D::Timestamp(unit, None), D::Duration(unit)]);
    }
    types.push(D::Timestamp(Microsecond, Some("Europe/Berlin".into())));
    types.extend([D::Decimal32(9, 2), D::Decimal32(5, 0), D::Decimal64(18, 4), D::Decimal64(10, -2)]);
    types.extend([D::Decimal128(38, 10), D::Decimal128(20, 0), D::Decimal256(76, 20), D::Decimal256(40, 0)]);
    types
}

/// Types in which keys may be asked for in a column of `data_type`; the first is the column's own.
pub(crate) fn askable_types(data_type: &DataType) -> Vec<DataType> {
    use DataType as D;
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let units = [Second, Millisecond, Microsecond, Nanosecond];
    let dictionary = |v: DataType| D::Dictionary(Box::new(D::Int32), Box::new(v));
    let runs = |v: DataType| {
        D::RunEndEncoded(Arc::new(Field::new("run_ends", D::Int32, false)), Arc::new(Field::new("values", v, true)))
    };
    let integers = [D::Int8, D::Int16, D::Int32, D::Int64, D::UInt8, D::UInt16, D::UInt32, D::UInt64];
    let mut types = vec![data_type.clone()];
    match data_type {
        D::Utf8 | D::LargeUtf8 | D::Utf8View => {
            types.extend([D::Utf8, D::LargeUtf8, D::Utf8View, dictionary(D::Utf8), runs(D::LargeUtf8)]);
            types.extend([D::Dictionary(Box::new(D::UInt16), Box::new(D::LargeUtf8)), dictionary(D::Utf8View)]);
        }
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => {
            types.extend([D::Binary, D::LargeBinary, D::BinaryView, dictionary(D::Binary), runs(D::Binary)]);
            types.extend([D::FixedSizeBinary(3), D::FixedSizeBinary(0), D::FixedSizeBinary(1)]);
        }
        D::Boolean => {}
        t if t.is_integer() => {
            types.extend(integers);
            types.extend([dictionary(D::Int64), runs(D::UInt32)]);
        }
        D::Date32 | D::Date64 => {
            types.extend([D::Date32, D::Date64, runs(D::Date32)]);
            types.extend(units.map(|u| D::Timestamp(u, None)));
        }
        D::Time32(_) | D::Time64(_) => {
            types.extend([D::Time32(Second), D::Time32(Millisecond), D::Time64(Microsecond), D::Time64(Nanosecond)]);
        }
        D::Timestamp(_, None) => {
            types.extend([D::Date32, D::Date64]);
            types.extend(units.map(|u| D::Timestamp(u, None)));
        }
        D::Timestamp(_, Some(_)) => {
            types.extend(units.map(|u| D::Timestamp(u, Some("UTC".into()))));
            types.push(D::Timestamp(Second, Some("+02:00".into())));
        }
        D::Duration(_) => types.extend(units.map(D::Duration)),
        _ => {
            types.extend(integers);
            types.extend([D::Decimal32(9, 0), D::Decimal32(9, 9), D::Decimal64(18, 4), D::Decimal128(38, 20)]);
            types.extend([D::Decimal128(10, -3), D::Decimal256(76, 0), D::Decimal256(76, 20), dictionary(D::Int64)]);
        }
    }
    types
}

/// Keys of a type: a small domain, so that some repeat and are found, and the edges of the whole one.
pub(crate) fn strategy(data_type: &DataType) -> BoxedStrategy<Key> {
    use DataType as D;
    let text = |s: String| Key::Bytes(s.into_bytes());
    match data_type {
        D::Utf8 | D::LargeUtf8 | D::Utf8View => prop_oneof![
            3 => "[ab]{0,4}".prop_map(text),
            3 => "(usr|bin|é|€|😀|\u{0}|/){0,6}".prop_map(text),
            1 => ".{0,40}".prop_map(text),
            1 => (0usize..300).prop_map(|n| Key::Bytes(vec![b'x'; n])),
        ]
        .boxed(),
        D::Binary | D::LargeBinary | D::BinaryView => prop_oneof![
            3 => vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..5).prop_map(Key::Bytes),
            1 => vec(any::<u8>(), 0..70).prop_map(Key::Bytes),
        ]
        .boxed(),
        D::FixedSizeBinary(n) => {
            let n = *n as usize;
            vec(prop_oneof![3 => Just(0u8), 3 => Just(255), 1 => any::<u8>()], n).prop_map(Key::Bytes).boxed()
        }
        _ => {
            let (low, high) = bounds(data_type);
            let clamp = move |n: i256| Key::Number(n.clamp(low, high));
            prop_oneof![
                4 => (-20i128..40).prop_map(move |n| clamp(i256::from_i128(n))),
                2 => (-3i128..3).prop_map(move |n| clamp(if n < 0 { high.wrapping_add(i256::from_i128(n + 1)) }
                    else { low.wrapping_add(i256::from_i128(n)) })),
                2 => any::<i64>().prop_map(move |n| clamp(i256::from_i128(n.into()))),
                1 => any::<(i16, u8)>().prop_map(move |(n, e)| {
                    clamp(i256::from_i128(n.into()).wrapping_mul(power_of_ten(i32::from(e % 51))))
                }),
            ]
            .boxed()
        }
    }
}
