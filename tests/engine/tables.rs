//! Tables: keys that repeat, no key at all, slices of slices.

use std::ops::Bound;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, RecordBatchIterator, StringArray};
use pheon::{Access, ChangeOptions, KeyRef, OnDuplicate, PutOptions, ReadError, Store, Table, Value, WriteError};
use proptest::prelude::*;

use crate::scratch::{Scratch, entries, put};

/// Column `v` of a table.
fn values(table: &Table) -> Vec<i64> {
    table.to_batch().unwrap().column(1).as_primitive::<Int64Type>().values().to_vec()
}

fn numbered_rows(keys: &[i64]) -> RecordBatch {
    let values = Int64Array::from_iter_values(0..keys.len() as i64);
    entries(Arc::new(Int64Array::from(keys.to_vec())), Arc::new(values))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn repeated_keys_keep_their_order(
        keys in proptest::collection::vec(-6i64..6, 0..80),
        asked in -8i64..8, to in -8i64..8, cut in (0usize..90, 0usize..90),
    ) {
        let scratch = Scratch::new();
        put(&scratch.store, "t", &numbered_rows(&keys), PutOptions::table(["k"]).threads(1)).unwrap();
        let table = scratch.store.table("t").unwrap();
        let mut sorted: Vec<(i64, i64)> = keys.iter().copied().zip(0..).collect();
        sorted.sort(); // by key, then by input row
        let in_order: Vec<i64> = sorted.iter().map(|(_, v)| *v).collect();
        prop_assert_eq!(values(&table), in_order.clone());
        let of_key: Vec<i64> = sorted.iter().filter(|(k, _)| *k == asked).map(|(_, v)| *v).collect();
        prop_assert_eq!(values(&table.rows(asked.into()).unwrap()), of_key);
        let range = table.range((Bound::Excluded(KeyRef::from(asked)), Bound::Included(KeyRef::from(to)))).unwrap();
        let within: Vec<i64> = sorted.iter().filter(|(k, _)| asked < *k && *k <= to).map(|(_, v)| *v).collect();
        prop_assert_eq!(values(&range), within);

        let slice = table.slice(cut.0, cut.1);
        let start = cut.0.min(keys.len());
        let end = (start + cut.1).min(keys.len());
        prop_assert_eq!(values(&slice), in_order[start..end].to_vec());
        let of_slice: Vec<i64> = sorted[start..end].iter().filter(|(k, _)| *k == asked).map(|(_, v)| *v).collect();
        prop_assert_eq!(values(&slice.rows(asked.into()).unwrap()), of_slice);
        let inner = slice.slice(cut.1 / 2, 5);
        let inner_start = start + (cut.1 / 2).min(end - start);
        prop_assert_eq!(values(&inner), in_order[inner_start..(inner_start + 5).min(end)].to_vec());
        for row in 0..inner.num_rows() {
            let want = in_order[inner_start + row];
            prop_assert!(matches!(inner.value(row, 1).unwrap(), Value::Int(v) if v == want));
        }
        prop_assert!(inner.value(inner.num_rows(), 1).is_err());
        prop_assert!(scratch.store.verify("t").unwrap().is_ok());
        // Keys that do not repeat make a map, whether that was promised or not.
        let distinct = sorted.windows(2).all(|w| w[0].0 != w[1].0);
        prop_assert_eq!(table.is_unique(), distinct);
        let no_map = matches!(scratch.store.map("t"), Err(ReadError::WrongShape { .. }));
        prop_assert_eq!(no_map, !distinct);
    }

    #[test]
    fn duplicates_in_maps(keys in proptest::collection::vec(0i64..12, 1..40)) {
        let scratch = Scratch::new();
        let batch = numbered_rows(&keys);
        let with = |on| put(&scratch.store, "m", &batch, PutOptions::map("k").threads(1).on_duplicate(on));
        let second = (0..keys.len()).find(|&i| keys[..i].contains(&keys[i]));
        match (second, with(OnDuplicate::Error)) {
            (None, published) => prop_assert_eq!(published.unwrap(), 1),
            (Some(_), Err(WriteError::DuplicateKey { key, rows, .. })) => {
                let (a, b) = (rows.0 as usize, rows.1 as usize);
                prop_assert!(a < b && keys[a] == keys[b] && key == keys[a].to_string(), "{} {:?}", key, rows);
            }
            (_, other) => prop_assert!(false, "{:?}", other),
        }
        for on in [OnDuplicate::First, OnDuplicate::Last] {
            with(on).unwrap();
            let map = scratch.store.map("m").unwrap();
            let mut distinct = keys.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(map.len(), distinct.len());
            for key in distinct {
                let want = match on {
                    OnDuplicate::First => keys.iter().position(|k| *k == key),
                    _ => keys.iter().rposition(|k| *k == key),
                };
                let found = map.get(key).unwrap();
                prop_assert!(matches!(found, Some(Value::Int(v)) if v as usize == want.unwrap()), "{} {:?}", key, found);
            }
        }
    }
}

/// Where pages are read one by one, a range's first row comes from the index, and its end is searched from there on.
#[test]
fn ranges_are_the_same_however_they_are_searched() {
    const ROWS: usize = 6_000;
    // Keys of one row, of some, and of many, which a search of the end must jump over.
    let number = |i: usize| match i % 3 {
        0 => i as i64 * 2,
        1 => (i / 40) as i64 * 80 + 1,
        _ => (i / 1_500) as i64 * 3_000 + 7,
    };
    let mut numbers: Vec<i64> = (0..ROWS).map(number).collect();
    numbers.sort_unstable();
    let scratch = Scratch::new();
    put(&scratch.store, "n", &numbered_rows(&numbers), PutOptions::table(["k"]).threads(1)).unwrap();
    let texts: Vec<String> = numbers.iter().map(|n| format!("{n:06}")).collect();
    let keys: ArrayRef = Arc::new(StringArray::from(texts.clone()));
    let rows = entries(keys, Arc::new(Int64Array::from_iter_values(0..ROWS as i64)));
    put(&scratch.store, "t", &rows, PutOptions::table(["k"]).threads(1)).unwrap();
    let opened = [Access::Memory, Access::Random].map(|access| {
        let store = Store::open(scratch.path()).unwrap().with_access(access);
        (store.table("n").unwrap(), store.table("t").unwrap())
    });

    let span = |table: &Table| {
        let found = values(table);
        assert!(found.is_sorted_by(|a, b| a + 1 == *b), "a range is consecutive");
        found.first().map(|&first| (first as usize, found.len()))
    };
    let bounds = [-1, 0, 1, 2, 7, 8, 600, 601, 3_006, 3_007, 3_008, 5_999, 6_000, 8_881, 9_007, 11_994, 11_997, 20_000];
    for (from, to) in bounds.iter().flat_map(|&from| bounds.iter().map(move |&to| (from, to))) {
        let (lower, upper) = (format!("{from:06}"), format!("{to:06}"));
        for (after, through) in [(false, false), (false, true), (true, false), (true, true)] {
            let start = numbers.partition_point(|&n| n < from || after && n == from);
            let end = numbers.partition_point(|&n| n < to || through && n == to).max(start);
            let expected = (start < end).then_some((start, end - start));
            for (table, text_table) in &opened {
                let lower_of = |key| if after { Bound::Excluded(key) } else { Bound::Included(key) };
                let upper_of = |key| if through { Bound::Included(key) } else { Bound::Excluded(key) };
                let found = table.range((lower_of(KeyRef::from(from)), upper_of(KeyRef::from(to)))).unwrap();
                assert_eq!(span(&found), expected, "{from} {after} {to} {through}");
                let (lower, upper) = (KeyRef::from(lower.as_str()), KeyRef::from(upper.as_str()));
                if from >= 0 {
                    let found = text_table.range((lower_of(lower), upper_of(upper))).unwrap();
                    assert_eq!(span(&found), expected, "{from} {after} {to} {through}, as texts");
                }
            }
        }
    }
    for prefix in [
        "", "0", "00", "000", "0000", "00000", "000007", "003", "0030", "003007", "0030070", "01", "0119", "012", "1",
        "x",
    ] {
        let start = texts.partition_point(|text| text.as_str() < prefix);
        let len = texts[start..].iter().take_while(|text| text.starts_with(prefix)).count();
        for (_, table) in &opened {
            let found = table.prefix(prefix.as_bytes()).unwrap();
            assert_eq!(span(&found), (len > 0).then_some((start, len)), "{prefix:?}");
        }
    }
}

/// A table `t` with these keys in a segment each.
fn two_segments(first: &[i64], second: &[i64]) -> Scratch {
    let scratch = Scratch::new();
    put(&scratch.store, "t", &numbered_rows(first), PutOptions::table(["k"]).threads(1)).unwrap();
    let rows = numbered_rows(second);
    let reader = RecordBatchIterator::new([Ok(rows.clone())], rows.schema());
    scratch.store.append("t", reader, ChangeOptions::default().compact(false)).unwrap();
    scratch
}

#[test]
fn rows_that_take_turns_are_copied() {
    const ROWS: i64 = 5_000;
    for (first, second, copied) in [
        ((0..ROWS).collect::<Vec<_>>(), (ROWS..2 * ROWS).collect::<Vec<_>>(), false),
        ((0..ROWS).map(|k| 2 * k).collect(), (0..ROWS).map(|k| 2 * k + 1).collect(), true),
        ((0..ROWS).collect(), vec![], false),
    ] {
        let scratch = two_segments(&first, &second);
        let table = scratch.store.table("t").unwrap();
        assert_eq!(table.is_copied().unwrap(), copied);
        assert!(!table.slice(0, 1).is_copied().unwrap(), "one row");
    }
}

/// Of several segments: each by itself, and none has keys between those of another.
#[test]
fn keys_are_unique_if_no_two_segments_have_one() {
    for (first, second, unique) in [
        (vec![1, 3], vec![5, 7], true),
        (vec![5, 7], vec![1, 3], true),
        (vec![1, 3], vec![3, 5], false),
        (vec![3, 5], vec![1, 3], false),
        (vec![1, 9], vec![3, 5], false),
        (vec![1, 3], vec![5, 5], false),
        (vec![1, 1], vec![5, 7], false),
        (vec![], vec![5, 7], true),
        (vec![1, 3], vec![], true),
    ] {
        let scratch = two_segments(&first, &second);
        let table = scratch.store.table("t").unwrap();
        assert_eq!(table.is_unique(), unique, "{first:?} {second:?}");
        assert_eq!(scratch.store.map("t").is_ok(), unique, "{first:?} {second:?}");
    }
}

#[test]
fn a_table_without_a_key_keeps_its_order_and_has_no_lookups() {
    let scratch = Scratch::new();
    let batch = numbered_rows(&[5, 1, 3, 1]);
    put(&scratch.store, "t", &batch, PutOptions::table(Vec::<String>::new())).unwrap();
    let table = scratch.store.table("t").unwrap();
    assert_eq!(values(&table), [0, 1, 2, 3]);
    assert!(table.key().is_empty() && table.key_type().is_none() && !table.is_unique());
    let wrong = |e: ReadError| assert!(matches!(e, ReadError::WrongShape { .. }), "{e}");
    wrong(table.rows(5i64.into()).unwrap_err());
    wrong(table.range(..).unwrap_err());
    wrong(table.prefix(b"").unwrap_err());
    wrong(scratch.store.map("t").unwrap_err());
    assert!(scratch.store.verify("t").unwrap().is_ok());
    assert_eq!(table.info().index_bytes, 0);
    assert!(table.nbytes().unwrap() >= 64);
    assert!(!scratch.path().join("t").read_dir().unwrap().flatten().any(|e| e.path().join("index.arrow").exists()));
}

#[test]
fn sorted_input_in_many_batches_and_empty_ones() {
    let scratch = Scratch::new();
    let schema = numbered_rows(&[]).schema();
    let mut writer = scratch.store.writer("m", schema, PutOptions::map("k").threads(1)).unwrap();
    for start in 0..50i64 {
        writer.write(&numbered_rows(&[])).unwrap();
        writer.write(&numbered_rows(&[start * 2, start * 2 + 1])).unwrap();
    }
    assert_eq!(writer.rows(), 100);
    writer.commit().unwrap();
    let map = scratch.store.map("m").unwrap();
    assert!((0..100i64).all(|k| map.find(k.into()).unwrap() == Some(k as u64)));
}

#[test]
fn null_keys_and_missing_columns_are_named() {
    let scratch = Scratch::new();
    let keys: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    let batch = entries(keys.clone(), Arc::new(Int64Array::from(vec![1, 2, 3])));
    match put(&scratch.store, "m", &batch, PutOptions::map("k")).unwrap_err() {
        WriteError::Schema { problem } => assert!(problem.contains("\"k\"") && problem.contains('2'), "{problem}"),
        e => panic!("{e}"),
    }
    match put(&scratch.store, "m", &batch, PutOptions::map("nope")).unwrap_err() {
        WriteError::Schema { problem } => assert!(problem.contains("\"nope\""), "{problem}"),
        e => panic!("{e}"),
    }
    let floats = entries(Arc::new(arrow_array::Float64Array::from(vec![1.0])), keys.slice(0, 1));
    match put(&scratch.store, "m", &floats, PutOptions::map("k")).unwrap_err() {
        WriteError::Schema { problem } => assert!(problem.contains("Float64"), "{problem}"),
        e => panic!("{e}"),
    }
    let field = Arc::new(arrow_schema::Field::new("item", arrow_schema::DataType::Int8, true));
    let empty_lists = arrow_array::new_null_array(&arrow_schema::DataType::FixedSizeList(field, 0), 1);
    match put(&scratch.store, "m", &entries(keys.slice(0, 1), empty_lists), PutOptions::map("k")).unwrap_err() {
        WriteError::Schema { problem } => {
            assert!(problem.contains("\"v\"") && problem.contains("fixed size 0"), "{problem}")
        }
        e => panic!("{e}"),
    }
    assert_eq!(crate::scratch::tree(&scratch.path()), ["pheon.json"]);
}
