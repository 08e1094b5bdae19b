//! Keys asked for in another Arrow type than the column's: found exactly if the value is the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int32Array, NullArray, StructArray, new_empty_array};
use arrow_buffer::i256;
use arrow_schema::{DataType, TimeUnit};
use pheon::{Map, ReadError};
use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};

use crate::keys::{Key, array, askable_types, bounds, converted, fits, key_types, meaning, strategy};
use crate::scratch::{Scratch, entries};

fn build(data_type: &DataType, keys: &[Key]) -> (Scratch, Map, BTreeMap<Key, u64>) {
    let unique: Vec<Option<Key>> =
        keys.iter().cloned().collect::<std::collections::BTreeSet<_>>().into_iter().map(Some).collect();
    let numbers = Int32Array::from_iter_values(0..unique.len() as i32);
    let (scratch, map) = Scratch::with_map(&entries(array(data_type, &unique), Arc::new(numbers)));
    let rows = unique.iter().flatten().enumerate().map(|(row, key)| (meaning(key, data_type), row as u64)).collect();
    (scratch, map, rows)
}

/// Keys of `asked` type: those stored, their neighbours, and the ends of the type.
fn candidates(stored: &DataType, keys: &[Key], asked: &DataType) -> Vec<Option<Key>> {
    let mut out: Vec<Key> = Vec::new();
    for key in keys {
        let Some(there) = converted(key, stored, asked) else { continue };
        if let Key::Number(n) = &there {
            out.push(Key::Number(n.wrapping_add(i256::ONE)));
            out.push(Key::Number(n.wrapping_neg()));
        }
        out.push(there);
    }
    if !matches!(keys.first(), Some(Key::Bytes(_)) | None) {
        let (low, high) = bounds(asked);
        out.extend([Key::Number(low), Key::Number(high)]);
    }
    let mut out: Vec<Option<Key>> = out.into_iter().filter(|k| fits(k, asked)).map(Some).collect();
    for i in (0..out.len()).rev().step_by(5) {
        out.insert(i, None);
    }
    out
}

fn check_type(data_type: &DataType, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&vec(strategy(data_type), 0..60), |keys| {
        let (_scratch, map, rows) = build(data_type, &keys);
        for asked_type in askable_types(data_type) {
            let asked = candidates(data_type, &keys, &asked_type);
            let want: Vec<Option<u64>> =
                asked.iter().map(|k| k.as_ref().and_then(|k| rows.get(&meaning(k, &asked_type)).copied())).collect();
            let array = array(&asked_type, &asked);
            let found = map.find_many(&array, None).unwrap_or_else(|e| panic!("{asked_type} in {data_type}: {e}"));
            for (i, key) in asked.iter().enumerate() {
                let row = found.is_valid(i).then(|| found.value(i));
                assert_eq!(row, want[i], "{key:?} as {asked_type} in {data_type}");
            }
            if array.len() > 4 {
                let part: Vec<Option<u64>> = map.find_many(&array.slice(2, 3), None).unwrap().iter().collect();
                assert_eq!(part, want[2..5], "a slice of {asked_type} in {data_type}");
            }
        }
        Ok(())
    });
    if let Err(e) = result {
        panic!("{data_type}: {e}");
    }
}

#[test]
fn text_and_binary_keys_in_other_layouts() {
    use DataType as D;
    let mut checked = 0;
    for t in key_types() {
        if matches!(
            t,
            D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_)
        ) {
            check_type(&t, 6);
            checked += 1;
        }
    }
    assert_eq!(checked, 10);
}

#[test]
fn integer_keys_of_other_widths_and_signs() {
    let mut checked = 0;
    for t in key_types().iter().filter(|t| t.is_integer()) {
        check_type(t, 10);
        checked += 1;
    }
    assert_eq!(checked, 8);
}

#[test]
fn times_in_other_units() {
    let mut checked = 0;
    for t in key_types().iter().filter(|t| t.is_temporal()) {
        check_type(t, 8);
        checked += 1;
    }
    assert_eq!(checked, 15);
}

#[test]
fn decimals_of_other_scales_and_integers() {
    let mut checked = 0;
    for t in key_types().iter().filter(|t| t.is_decimal()) {
        check_type(t, 10);
        checked += 1;
    }
    assert_eq!(checked, 8);
}

#[test]
fn nothing_and_nulls_are_found_nowhere() {
    for data_type in key_types() {
        // Zeros: what a null stands on must not be mistaken for a key.
        let zero = match &data_type {
            DataType::FixedSizeBinary(n) => Key::Bytes(vec![0; *n as usize]),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Key::Bytes(Vec::new()),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Key::Bytes(Vec::new()),
            _ => Key::Number(i256::ZERO),
        };
        let (_scratch, map, _) = build(&data_type, std::slice::from_ref(&zero));
        let nulls = NullArray::new(40);
        assert_eq!(map.find_many(&nulls, None).unwrap().null_count(), 40, "{data_type}");
        assert_eq!(map.get_many(&nulls).unwrap().null_count(), 40, "{data_type}");
        for asked in askable_types(&data_type) {
            let none = map.get_many(&new_empty_array(&asked)).unwrap();
            assert_eq!((none.len(), none.data_type()), (0, &DataType::Int32), "{asked} in {data_type}");
            let missing = array(&asked, &[None, None, None]);
            assert_eq!(map.get_many(&missing).unwrap().null_count(), 3, "{asked} in {data_type}");
        }
        let own = array(&data_type, &[Some(zero), None]);
        assert_eq!(map.find_many(&own, None).unwrap().iter().collect::<Vec<_>>(), [Some(0), None], "{data_type}");
    }
}

#[test]
fn unrelated_types_are_refused() {
    use DataType as D;
    let date = D::Date32;
    let time = D::Time32(TimeUnit::Second);
    let local = D::Timestamp(TimeUnit::Second, None);
    let instant = D::Timestamp(TimeUnit::Second, Some("UTC".into()));
    let span = D::Duration(TimeUnit::Second);
    let decimal = D::Decimal128(10, 2);
    let types = [D::Utf8, D::Binary, D::Boolean, D::Int64, date, time, local, instant, span, decimal];
    let related = |a: &DataType, b: &DataType| {
        a == b
            || matches!((a, b), (D::Date32, D::Timestamp(_, None)) | (D::Timestamp(_, None), D::Date32))
            || matches!((a, b), (D::Int64, D::Decimal128(..))) // integers may be asked for among decimals, not the reverse
    };
    for stored in &types {
        let (_scratch, map, _) = build(stored, &[]);
        for asked in &types {
            let keys = array(asked, &[None]);
            match map.find_many(&keys, None) {
                Ok(_) => assert!(related(asked, stored), "{asked} in {stored}"),
                Err(ReadError::KeyType { dataset, .. }) => {
                    assert!(!related(asked, stored) && dataset == "m", "{asked} in {stored}");
                }
                Err(e) => panic!("{asked} in {stored}: {e}"),
            }
        }
        let nested: ArrayRef = Arc::new(StructArray::new_empty_fields(2, None));
        assert!(matches!(map.get_many(&nested), Err(ReadError::KeyType { .. })), "{stored}");
        let floats = arrow_array::Float64Array::from(vec![0.0]);
        assert!(matches!(map.contains_many(&floats), Err(ReadError::KeyType { .. })), "{stored}");
    }
}

#[test]
fn minus_one_is_not_the_greatest_unsigned() {
    let (_scratch, map, _) = build(&DataType::UInt64, &[Key::Number(i256::from_i128(u64::MAX.into()))]);
    let asked = arrow_array::Int64Array::from(vec![-1]);
    assert_eq!(map.find_many(&asked, None).unwrap().null_count(), 1);
    let (_scratch, map, _) = build(&DataType::Int64, &[Key::Number(i256::MINUS_ONE)]);
    let asked = arrow_array::UInt64Array::from(vec![u64::MAX]);
    assert_eq!(map.find_many(&asked, None).unwrap().null_count(), 1);
}
