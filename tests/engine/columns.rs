//! Value columns of every Arrow type: what went in comes out, by every way out.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, RecordBatchIterator,
    StringArray, UInt64Array,
};
use arrow_schema::DataType;
use pheon::{ChangeOptions, Map, ReadError, Value};

use crate::random::Random;
use crate::scratch::{Scratch, entries};
use crate::values::{array, print, print_all, value_types};

/// Keys 0, 3, 6 ... in a shuffled order, and the position of each in it.
fn keys(n: usize) -> Vec<i32> {
    (0..n).map(|i| ((i * 7 + 2) % n * 3) as i32).collect()
}

/// Asserts that a single value is the `i`th of `column`, which is of any width of its type.
fn assert_value(found: Value<'_>, column: &dyn Array, i: usize) {
    let one = column.slice(i, 1);
    let cast = |t: DataType| arrow_cast::cast(&one, &t).unwrap();
    match found {
        Value::Null => assert_eq!(print(&one, 0), None),
        Value::Bool(v) => assert_eq!(v, one.as_boolean().value(0)),
        Value::Int(v) => assert_eq!(v, cast(DataType::Int64).as_primitive::<Int64Type>().value(0)),
        Value::UInt(v) => assert_eq!(v, cast(DataType::UInt64).as_primitive::<UInt64Type>().value(0)),
        Value::Float(v) => {
            let want = cast(DataType::Float64).as_primitive::<Float64Type>().value(0);
            assert!(v == want || v.is_nan() && want.is_nan(), "{v} {want}");
        }
        Value::Str(v) => assert_eq!(v, cast(DataType::LargeUtf8).as_string::<i64>().value(0)),
        Value::Bytes(v) => match one.as_fixed_size_binary_opt() {
            Some(fixed) => assert_eq!(v, fixed.value(0)),
            None => assert_eq!(v, cast(DataType::LargeBinary).as_binary::<i64>().value(0)),
        },
        Value::Array(v) => {
            assert_eq!(v.len(), 1);
            assert_eq!(print(&v, 0), print(&one, 0));
        }
        other => panic!("{other:?}"),
    }
}

/// All ways to the values, compared with what went in. `keys[i]` has the value `column[i]`.
fn check(map: &Map, keys: &[i32], column: &ArrayRef) {
    let n = keys.len();
    let row = |i: usize| keys[i] as usize / 3;
    let mut sorted: Vec<usize> = (0..n).collect();
    sorted.sort_by_key(|&i| keys[i]);
    let in_order: Vec<Option<String>> = sorted.iter().map(|&i| print(column, i)).collect();

    for (i, &key) in keys.iter().enumerate() {
        assert_value(map.get(key).unwrap().unwrap(), column, i);
        assert_value(map.value_at(row(i) as u64, 0).unwrap(), column, i);
        assert!(map.get(key + 1).unwrap().is_none());
    }
    let whole = map.table().column(1).unwrap();
    assert_eq!(print_all(&whole), in_order);
    whole.to_data().validate_full().unwrap();
    assert_eq!(whole.data_type(), map.value_fields()[0].data_type());
    for (from, len) in [(1, 3), (n / 2, n), (n, 1)] {
        let slice = map.table().slice(from, len);
        let column = slice.to_batch().unwrap().column(1).clone();
        assert_eq!(print_all(&column), in_order[from.min(n)..(from + len).min(n)]);
        slice.nbytes().unwrap();
    }
    // Hits, misses and nulls, in any order.
    let asked: Vec<Option<i32>> =
        (0..2 * n as i32 + 40).map(|i| (i % 9 != 4).then_some((i * 5) % (3 * n as i32 + 7))).collect();
    let value_of = |k: i32| keys.iter().position(|&key| key == k).and_then(|i| print(column, i));
    let want: Vec<Option<String>> = asked.iter().map(|k| k.and_then(value_of)).collect();
    let asked = Int32Array::from(asked);
    let got = map.get_many(&asked).unwrap();
    let within = map.get_many_within(&asked, 0, usize::MAX).unwrap().unwrap();
    assert_eq!(print_all(&within), print_all(&got));
    if !map.may_have_null_values(0).unwrap() {
        let rows = map.find_many(&asked, None).unwrap();
        let there = |i: usize| got.is_valid(i) == rows.is_valid(i);
        assert!((0..asked.len()).all(there) && in_order.iter().all(Option::is_some));
    }
    got.to_data().validate_full().unwrap();
    assert_eq!(got.data_type(), map.value_fields()[0].data_type());
    assert_eq!(print_all(&got), want);
    let columns = map.get_many_columns(&asked).unwrap();
    assert_eq!(print_all(columns.column(0)), want);
    assert!(columns.schema().field(0).is_nullable());
    let only_misses = map.get_many(&Int32Array::from(vec![-1, -2, -3])).unwrap();
    assert_eq!(print_all(&only_misses), vec![None; 3]);
}

fn check_type(data_type: &DataType) {
    let mut random = Random::new(77);
    for n in [0, 1, 8, 33, 130] {
        for nullable in [true, false] {
            let column = array(data_type, n, nullable, &mut random);
            let keys = keys(n);
            let batch = entries(Arc::new(Int32Array::from(keys.clone())), column.clone());
            println!("{n} rows of {data_type}, nullable: {nullable}"); // shown when the test fails
            let (scratch, map) = Scratch::with_map(&batch);
            check(&map, &keys, &column);
            let report = scratch.store.verify("m").unwrap();
            assert!(report.is_ok(), "{data_type} of {n}: {:?}", report.problems);
            assert_eq!((report.rows, report.keys), (n as u64, n as u64));
            check_segments(&scratch, &keys, &column);
            // A sliced input: offsets and bits that do not begin at 0.
            if n > 20 {
                scratch.put("sliced", &batch.slice(11, n - 13));
                check_slice_of(&scratch.store.map("sliced").unwrap(), &keys[11..n - 2], &column.slice(11, n - 13));
            }
        }
    }
}

/// The same column in two segments: its rows by key and as a whole, of both together.
fn check_segments(scratch: &Scratch, keys: &[i32], column: &ArrayRef) {
    let half = keys.len() / 2;
    let piece = |from: usize, len: usize| {
        entries(Arc::new(Int32Array::from(keys[from..from + len].to_vec())), column.slice(from, len))
    };
    scratch.put("halves", &piece(0, half));
    let more = piece(half, keys.len() - half);
    let options = ChangeOptions::default().compact(false);
    scratch.store.append("halves", RecordBatchIterator::new([Ok(more.clone())], more.schema()), options).unwrap();
    let map = scratch.store.map("halves").unwrap();
    assert_eq!(map.len(), keys.len());
    let asked = Int32Array::from_iter(keys.iter().rev().map(|&k| Some(k)).chain([Some(-1), None]));
    let got = map.get_many(&asked).unwrap();
    let want: Vec<_> = (0..keys.len()).rev().map(|i| print(column, i)).chain([None, None]).collect();
    assert_eq!(print_all(&got), want);
    assert_eq!(got.data_type(), map.value_fields()[0].data_type());
    got.to_data().validate_full().unwrap();
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&i| keys[i]);
    let whole = map.table().column(1).unwrap();
    assert_eq!(print_all(&whole), order.iter().map(|&i| print(column, i)).collect::<Vec<_>>());
    whole.to_data().validate_full().unwrap();
}

/// Two rows, and all bytes that an answer may have to four keys of which one is missing.
fn check_limit(values: ArrayRef, bytes: usize) {
    let (scratch, map) = Scratch::with_map(&entries(Arc::new(Int32Array::from(vec![0, 1])), values));
    let asked = Int32Array::from(vec![0, 7, 1, 1]);
    assert!(map.get_many_within(&asked, 0, bytes - 1).unwrap().is_none());
    let got = map.get_many_within(&asked, 0, bytes).unwrap().unwrap();
    assert_eq!(print_all(&got), print_all(&map.get_many(&asked).unwrap()));
    // Of several segments there is another way to the same answer.
    let more = entries(Arc::new(Int32Array::from(vec![5])), map.get_many(&Int32Array::from(vec![0])).unwrap());
    scratch
        .store
        .append(
            "m",
            RecordBatchIterator::new([Ok(more.clone())], more.schema()),
            ChangeOptions::default().compact(false),
        )
        .unwrap();
    let changed = scratch.store.map("m").unwrap();
    assert!(changed.get_many_within(&asked, 0, bytes / 2).unwrap().is_none());
    assert_eq!(print_all(&changed.get_many_within(&asked, 0, 8 * bytes).unwrap().unwrap()), print_all(&got));
}

#[test]
fn answers_have_a_limit() {
    let long = "x".repeat(100_000);
    check_limit(Arc::new(StringArray::from(vec!["ab", long.as_str()])), 4 * 8 + 2 + 2 * 100_000);
    check_limit(Arc::new(Int64Array::from(vec![1, 2])), 4 * 8);
    check_limit(Arc::new(BinaryArray::from(vec![b"abc".as_slice(), b"d"])), 4 * 8 + 5);
    // Columns whose rows Arrow copies.
    let narrow = FixedSizeBinaryArray::try_from_iter([b"abc", b"def"].into_iter());
    check_limit(Arc::new(narrow.unwrap()), 4 * 3);
}

fn check_slice_of(map: &Map, keys: &[i32], column: &ArrayRef) {
    assert_eq!(map.len(), keys.len());
    let found = map.get_many(&Int32Array::from(keys.to_vec())).unwrap();
    assert_eq!(print_all(&found), print_all(column));
}

fn check_types(which: impl Fn(&DataType) -> bool) -> usize {
    let types: Vec<DataType> = value_types().into_iter().filter(which).collect();
    for t in &types {
        check_type(t);
    }
    types.len()
}

#[test]
fn flat_values() {
    assert_eq!(check_types(|t| !t.is_nested() && !has_codes(t)), 40);
}

#[test]
fn nested_values() {
    assert_eq!(check_types(|t| t.is_nested() && !has_codes(t) && !has_union(t)), 13);
}

#[test]
fn union_values() {
    assert_eq!(check_types(has_union), 8);
}

#[test]
fn dictionary_and_run_end_values() {
    assert_eq!(check_types(has_codes), 7);
}

fn has_union(t: &DataType) -> bool {
    t.to_string().contains("Union")
}

fn has_codes(t: &DataType) -> bool {
    let name = t.to_string();
    name.contains("Dictionary") || name.contains("RunEndEncoded")
}

#[test]
fn every_value_type_is_in_one_group() {
    assert_eq!(value_types().len(), 40 + 13 + 8 + 7);
}

#[test]
fn several_value_columns_and_none() {
    let mut random = Random::new(5);
    let n = 50;
    let keys = keys(n);
    let types = value_types();
    let mut columns: Vec<(String, ArrayRef, bool)> =
        types.iter().enumerate().map(|(i, t)| (format!("c{i}"), array(t, n, true, &mut random), true)).collect();
    let printed: Vec<Vec<Option<String>>> = columns.iter().map(|(_, c, _)| print_all(c)).collect();
    // The key stands in the middle.
    columns.insert(20, ("k".to_owned(), Arc::new(Int32Array::from(keys.clone())), false));
    let (scratch, map) = Scratch::with_map(&RecordBatch::try_from_iter_with_nullable(columns).unwrap());
    assert_eq!(map.value_fields().len(), types.len());
    assert_eq!(map.key_fields()[0].name(), "k");
    assert!(matches!(map.get(0), Err(ReadError::WrongShape { .. })));
    assert!(matches!(map.get_many(&Int32Array::from(vec![0])), Err(ReadError::WrongShape { .. })));
    let asked = Int32Array::from_iter([Some(keys[4]), None, Some(-5), Some(keys[9])]);
    let found = map.get_many_columns(&asked).unwrap();
    for (c, printed) in printed.iter().enumerate() {
        let want = [printed[4].clone(), None, None, printed[9].clone()];
        assert_eq!(print_all(found.column(c)), want, "{}", types[c]);
        let taken = map.take(&UInt64Array::from(vec![Some(keys[4] as u64 / 3), None]), c).unwrap();
        assert_eq!(print_all(&taken), want[..2], "{}", types[c]);
    }
    assert!(scratch.store.verify("m").unwrap().is_ok());

    let only_keys = RecordBatch::try_from_iter([("k", Arc::new(Int32Array::from(vec![5, 1])) as ArrayRef)]).unwrap();
    let (_scratch, set) = Scratch::with_map(&only_keys);
    assert!(set.contains(5).unwrap() && !set.contains(2).unwrap());
    assert_eq!(set.get_many_columns(&Int32Array::from(vec![1, 2])).unwrap().num_rows(), 2);
    assert!(matches!(set.get(1), Err(ReadError::WrongShape { .. })));
}
