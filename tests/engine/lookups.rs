//! Lookups and ranges of every key type against a sorted map from the standard library.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_schema::DataType;
use pheon::{KeyBatch, KeyRef, KeyType, Map, ReadError, Table, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::keys::{Key, array, key_ref, key_types, strategy};
use crate::random::Random;
use crate::scratch::{Scratch, entries};

/// What the map should be: key to value, and by it to row.
struct Oracle {
    data_type: DataType,
    values: BTreeMap<Key, i64>,
}

impl Oracle {
    fn row(&self, key: &Key) -> Option<u64> {
        self.values.contains_key(key).then(|| self.values.range(..key).count() as u64)
    }
}

/// Builds a map of these keys, in this order, repeated ones left out.
fn build(data_type: &DataType, keys: &[Key]) -> (Scratch, Map, Oracle) {
    let mut values = BTreeMap::new();
    let mut unique = Vec::new();
    for key in keys {
        if !values.contains_key(key) {
            values.insert(key.clone(), unique.len() as i64 * 3 - 50);
            unique.push(Some(key.clone()));
        }
    }
    let stored: ArrayRef = Arc::new(Int64Array::from_iter_values(unique.iter().flatten().map(|k| values[k])));
    let (scratch, map) = Scratch::with_map(&entries(array(data_type, &unique), stored));
    (scratch, map, Oracle { data_type: data_type.clone(), values })
}

fn int(value: Option<Value<'_>>) -> Option<i64> {
    value.map(|v| match v {
        Value::Int(v) => v,
        other => panic!("{other:?}"),
    })
}

fn check_single(map: &Map, oracle: &Oracle, asked: &[Key]) {
    for key in asked.iter().chain(oracle.values.keys()) {
        let k = key_ref(key, &oracle.data_type);
        let row = oracle.row(key);
        assert_eq!(map.find(k).unwrap(), row, "{key:?}");
        assert_eq!(map.contains(k).unwrap(), row.is_some(), "{key:?}");
        assert_eq!(int(map.get(k).unwrap()), oracle.values.get(key).copied(), "{key:?}");
        let floor = oracle.values.range(..=key).count().checked_sub(1).map(|r| r as u64);
        assert_eq!(map.floor(k).unwrap(), floor, "floor of {key:?}");
        let below = oracle.values.range(..key).count();
        assert_eq!(map.ceiling(k).unwrap(), (below < map.len()).then_some(below as u64), "ceiling of {key:?}");
        assert_eq!(map.table().rows(k).unwrap().num_rows(), usize::from(row.is_some()));
    }
    for (row, (key, value)) in oracle.values.iter().enumerate() {
        assert_eq!(int(Some(map.value_at(row as u64, 0).unwrap())), Some(*value));
        let stored = map.table().slice(row, 1).column(0).unwrap();
        let expected = array(&oracle.data_type, &[Some(key.clone())]);
        let expected = arrow_cast::cast(&expected, stored.data_type()).unwrap();
        assert_eq!(&stored, &expected, "row {row}");
        assert_eq!(map.row(row as u64).unwrap().column(0), &expected);
        match (map.key_at(row as u64).unwrap(), key) {
            (Value::Bytes(found), Key::Bytes(key)) => assert_eq!(found, key),
            (Value::Str(found), Key::Bytes(key)) => assert_eq!(found.as_bytes(), key),
            (Value::Int(found), Key::Number(key)) => assert_eq!(i128::from(found), key.as_i128()),
            (Value::UInt(found), Key::Number(key)) => assert_eq!(i128::from(found), key.as_i128()),
            (Value::Bool(found), Key::Number(key)) => assert_eq!(i128::from(found), key.as_i128()),
            (Value::Array(found), Key::Number(_)) => assert_eq!(&found, &expected),
            (found, key) => panic!("{found:?} for {key:?}"),
        }
    }
}

fn check_batch(map: &Map, oracle: &Oracle, asked: &[Option<Key>]) {
    let keys = array(&oracle.data_type, asked);
    let expected: Vec<Option<u64>> = asked.iter().map(|k| k.as_ref().and_then(|k| oracle.row(k))).collect();
    let value = |k: &Option<Key>| k.as_ref().and_then(|k| oracle.values.get(k).copied());
    let values: Vec<Option<i64>> = asked.iter().map(value).collect();
    // The whole, and slices at odd offsets.
    for (from, len) in [(0, asked.len()), (1, asked.len().saturating_sub(3)), (7, 5)] {
        if from + len > asked.len() {
            continue;
        }
        let keys = keys.slice(from, len);
        let found: Vec<Option<u64>> = map.find_many(&keys, None).unwrap().iter().collect();
        assert_eq!(found, expected[from..from + len]);
        let got = map.get_many(&keys).unwrap();
        let want = &values[from..from + len];
        assert_eq!(got.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), want);
        assert_eq!(&map.get_many_with(&keys, Some(4)).unwrap(), &got);
        assert_eq!(map.get_many_columns(&keys).unwrap().column(0), &got);
        let there: Vec<Option<bool>> = map.contains_many(&keys).unwrap().iter().collect();
        assert_eq!(there, found.iter().map(|row| Some(row.is_some())).collect::<Vec<_>>());
        assert_eq!(&map.take(&map.find_many(&keys, Some(3)).unwrap(), 0).unwrap(), &got);
    }
    let or_missing: Vec<u32> = expected.iter().map(|row| row.map_or(u32::MAX, |row| row as u32)).collect();
    let refs: Vec<Option<KeyRef<'_>>> =
        asked.iter().map(|k| k.as_ref().map(|k| key_ref(k, &oracle.data_type))).collect();
    let mut rows = vec![77];
    map.lookup(&KeyBatch::Any(&refs), &mut rows).unwrap();
    assert_eq!(rows[0], 77, "rows are appended");
    assert_eq!(rows[1..], or_missing);
    check_plain_batches(map, &refs, &or_missing);
}

/// The two specialised forms of a key batch.
fn check_plain_batches(map: &Map, asked: &[Option<KeyRef<'_>>], expected: &[u32]) {
    let (mut bytes, mut words, mut want) = (Vec::new(), Vec::new(), Vec::new());
    for (key, row) in asked.iter().zip(expected) {
        match key {
            Some(KeyRef::Bytes(b)) => bytes.push(*b),
            Some(KeyRef::Fixed64(v)) => words.push(*v),
            _ => continue,
        }
        want.push(*row);
    }
    let is_bytes = matches!(map.key_type(), KeyType::Utf8 | KeyType::Binary | KeyType::FixedBinary(_));
    let is_words = matches!(map.key_type(), KeyType::Bool | KeyType::Signed(_) | KeyType::Unsigned(_));
    for (fits, batch) in [(is_bytes, KeyBatch::Bytes(&bytes)), (is_words, KeyBatch::Fixed64(&words))] {
        let mut rows = Vec::new();
        match map.lookup(&batch, &mut rows) {
            Ok(()) => assert!(fits && rows == want, "{rows:?} {want:?}"),
            Err(e) => assert!(!fits && matches!(e, ReadError::KeyType { .. }), "{e}"),
        }
    }
}

fn bound<'a>(kind: u8, key: &'a Key, data_type: &DataType) -> (Bound<&'a Key>, Bound<KeyRef<'a>>) {
    let k = key_ref(key, data_type);
    match kind {
        0 => (Bound::Unbounded, Bound::Unbounded),
        1 => (Bound::Included(key), Bound::Included(k)),
        _ => (Bound::Excluded(key), Bound::Excluded(k)),
    }
}

/// The rows that a standard map's range has; empty where that would panic because the bounds cross.
fn expected_range(oracle: &Oracle, from: Bound<&Key>, to: Bound<&Key>) -> (usize, usize) {
    let before = |key: &&Key| match from {
        Bound::Unbounded => false,
        Bound::Included(f) => *key < f,
        Bound::Excluded(f) => *key <= f,
    };
    let inside_end = |key: &&Key| match to {
        Bound::Unbounded => true,
        Bound::Included(t) => *key <= t,
        Bound::Excluded(t) => *key < t,
    };
    let start = oracle.values.keys().filter(before).count();
    (start, oracle.values.keys().filter(|k| !before(k) && inside_end(k)).count())
}

fn check_ranges(map: &Map, oracle: &Oracle, a: &Key, b: &Key, cut: (usize, usize)) {
    let whole = map.table();
    let part = whole.slice(cut.0, cut.1);
    let (part_start, part_len) = part.bounds();
    for kinds in 0..9 {
        let (from, from_ref) = bound(kinds % 3, a, &oracle.data_type);
        let (to, to_ref) = bound(kinds / 3, b, &oracle.data_type);
        let (start, len) = expected_range(oracle, from, to);
        let found = map.range((from_ref, to_ref)).unwrap();
        assert_eq!(found.num_rows(), len, "{from:?} {to:?}");
        if len > 0 {
            assert_eq!(found.bounds(), (start, len), "{from:?} {to:?}");
        }
        check_slice(&found, oracle);
        // The same range of a part is what both have in common.
        let common_start = start.max(part_start);
        let common_end = (start + len).min(part_start + part_len);
        let common = part.range((from_ref, to_ref)).unwrap();
        assert_eq!(common.num_rows(), common_end.saturating_sub(common_start), "{from:?} {to:?} in {cut:?}");
        if common.num_rows() > 0 {
            assert_eq!(common.bounds().0, common_start);
        }
        check_slice(&common, oracle);
    }
    if let Key::Bytes(prefix) = a {
        let has = |k: &&Key| matches!(k, Key::Bytes(k) if k.starts_with(prefix));
        let found = map.prefix(prefix).unwrap();
        assert_eq!(found.num_rows(), oracle.values.keys().filter(has).count(), "prefix {prefix:?}");
        check_slice(&found, oracle);
        let first = &prefix[..prefix.len().min(1)];
        assert!(part.prefix(first).unwrap().num_rows() <= map.prefix(first).unwrap().num_rows());
    } else {
        assert!(matches!(map.prefix(b"x"), Err(ReadError::KeyType { .. })));
    }
}

/// A slice shows exactly its rows, by column and as a batch, and so do slices of it.
fn check_slice(table: &Table, oracle: &Oracle) {
    let (start, len) = table.bounds();
    let want: Vec<i64> = oracle.values.values().skip(start).take(len).copied().collect();
    let batch = table.to_batch().unwrap();
    assert_eq!(batch.num_rows(), len);
    assert_eq!(batch.column(1).as_primitive::<Int64Type>().values(), &want[..]);
    let inner = table.slice(1, 2).slice(1, usize::MAX);
    let inner_want = want.get(2..3.min(len).max(2)).unwrap_or(&[]);
    assert_eq!(inner.column(1).unwrap().as_primitive::<Int64Type>().values(), inner_want);
    assert!(table.slice(usize::MAX, usize::MAX).num_rows() == 0);
}

fn check_type(data_type: &DataType, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let key = || strategy(data_type);
    let input = (
        vec(key(), 0..120),
        vec(prop_oneof![9 => key().prop_map(Some), 1 => Just(None)], 0..80),
        vec((key(), key()), 1..6),
        any::<(u8, u8)>(),
    );
    let result = TestRunner::new(config).run(&input, |(keys, asked, ranges, cut)| {
        let (_scratch, map, oracle) = build(data_type, &keys);
        assert_eq!((map.len(), map.is_empty()), (oracle.values.len(), oracle.values.is_empty()));
        check_single(&map, &oracle, &asked.iter().flatten().cloned().collect::<Vec<_>>());
        check_batch(&map, &oracle, &asked);
        // Hits in another order, each twice.
        let hits: Vec<Option<Key>> = keys.iter().rev().chain(&keys).cloned().map(Some).collect();
        check_batch(&map, &oracle, &hits);
        for (a, b) in &ranges {
            check_ranges(&map, &oracle, a, b, (cut.0.into(), cut.1.into()));
        }
        Ok(())
    });
    if let Err(e) = result {
        panic!("{data_type}: {e}");
    }
}

fn check_types(which: impl Fn(&DataType) -> bool, cases: u32) {
    let types: Vec<DataType> = key_types().into_iter().filter(which).collect();
    assert!(types.len() > 1);
    types.iter().for_each(|t| check_type(t, cases));
}

#[test]
fn text_keys() {
    check_types(|t| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View), 25);
}

#[test]
fn binary_keys() {
    use DataType as D;
    check_types(|t| matches!(t, D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_)), 15);
}

#[test]
fn integer_keys() {
    check_types(|t| t.is_integer() || *t == DataType::Boolean, 15);
}

#[test]
fn date_and_time_keys() {
    check_types(|t| t.is_temporal(), 8);
}

#[test]
fn decimal_keys() {
    check_types(|t| t.is_decimal(), 12);
}

#[test]
fn the_groups_above_hold_every_key_type() {
    let grouped = |t: &DataType| {
        use DataType as D;
        let text = matches!(t, D::Utf8 | D::LargeUtf8 | D::Utf8View);
        let binary = matches!(t, D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_));
        text || binary || t.is_integer() || *t == D::Boolean || t.is_temporal() || t.is_decimal()
    };
    assert_eq!(key_types().len(), 42);
    assert!(key_types().iter().all(grouped));
}

#[test]
fn threads_change_nothing() {
    // More than twice the smallest share of a thread, not a multiple of anything.
    const ASKED: usize = 70_001;
    for data_type in
        [DataType::Utf8, DataType::Int32, DataType::Boolean, DataType::FixedSizeBinary(2), DataType::Decimal64(9, 1)]
    {
        let mut random = Random::new(9);
        let mut draw = |low: i128| match &data_type {
            DataType::Utf8 => Key::Bytes(format!("{}", random.below(900)).into_bytes()),
            DataType::FixedSizeBinary(_) => Key::Bytes(vec![random.below(30) as u8, random.below(30) as u8]),
            DataType::Boolean => Key::Number(arrow_buffer::i256::from_i128(random.below(2) as i128)),
            _ => Key::Number(arrow_buffer::i256::from_i128(random.below(900) as i128 + low)),
        };
        let keys: Vec<Key> = (0..600).map(|_| draw(0)).collect();
        let asked: Vec<Option<Key>> = (0..ASKED).map(|i| (i % 17 != 5).then(|| draw(-300))).collect();
        let (_scratch, map, oracle) = build(&data_type, &keys);
        let array = array(&data_type, &asked);
        let one = map.find_many(&array, Some(1)).unwrap();
        for i in (0..ASKED).step_by(97) {
            let row = asked[i].as_ref().and_then(|k| oracle.row(k));
            assert_eq!(one.is_valid(i).then(|| one.value(i)), row, "{data_type} {i}");
        }
        let values = map.get_many_with(&array, None).unwrap();
        for threads in [2, 4, 64] {
            assert_eq!(map.find_many(&array, Some(threads)).unwrap(), one, "{data_type}");
            assert_eq!(&map.get_many_with(&array, Some(threads)).unwrap(), &values, "{data_type}");
        }
    }
}

#[test]
fn keys_of_another_form_are_refused() {
    let (_a, text, _) = build(&DataType::Utf8, &[Key::Bytes(b"a".to_vec())]);
    let (_b, numbers, _) = build(&DataType::Int8, &[Key::Number(arrow_buffer::i256::ONE)]);
    let (_c, decimals, _) = build(&DataType::Decimal256(50, 0), &[Key::Number(arrow_buffer::i256::ONE)]);
    for (map, wrong, form) in [
        (&text, KeyRef::from(5i32), "an integer"),
        (&text, KeyRef::from(5i128), "a decimal"),
        (&numbers, KeyRef::from("1"), "bytes"),
        (&numbers, KeyRef::from(1i128), "a decimal"),
        (&decimals, KeyRef::from(1i128), "a decimal"),
        (&decimals, KeyRef::from(1u8), "an integer"),
    ] {
        let refused = |e: ReadError| match e {
            ReadError::KeyType { found, .. } => assert_eq!(found, form),
            other => panic!("{other}"),
        };
        refused(map.find(wrong).unwrap_err());
        refused(map.get(wrong).unwrap_err());
        refused(map.floor(wrong).unwrap_err());
        refused(map.ceiling(wrong).unwrap_err());
        refused(map.range(wrong..).unwrap_err());
        refused(map.range(..=wrong).unwrap_err());
        refused(map.table().rows(wrong).unwrap_err());
        refused(map.lookup(&KeyBatch::Any(&[None, Some(wrong)]), &mut Vec::new()).unwrap_err());
    }
}

#[test]
fn rows_that_are_not_there_are_errors() {
    let (_scratch, map, _) = build(&DataType::Int8, &[Key::Number(arrow_buffer::i256::ONE)]);
    for row in [1, 2u64, u64::from(u32::MAX) - 1, u64::from(u32::MAX)] {
        assert!(map.value_at(row, 0).is_err());
        assert!(map.key_at(row).is_err());
        assert!(map.row(row).is_err());
        assert!(map.take(&vec![row].into(), 0).is_err());
        assert!(map.table().value(row as usize, 0).is_err());
    }
    assert!(matches!(map.value_at(0, 1), Err(ReadError::WrongShape { .. })));
    assert!(matches!(map.take(&vec![0].into(), 1), Err(ReadError::WrongShape { .. })));
    assert!(map.table().value(0, 2).is_err() && map.table().column(2).is_err());
}
