//! Sizes at which something begins or ends: no rows, one, around the keys of a batch that are under way together, around
//! full buckets and blocks.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use pheon::{PutOptions, Value};

use crate::random::Random;
use crate::scratch::{Scratch, assert_numbered, entries, numbered, put};

#[test]
fn maps_of_few_rows() {
    let scratch = Scratch::new();
    for n in (0..=70).chain([89, 90, 91, 99, 100, 101, 127, 128, 129, 255, 256, 257, 1000]) {
        scratch.put("m", &numbered(n, 5));
        let map = scratch.store.map("m").unwrap();
        assert_numbered(&map, n, 5);
        let report = scratch.store.verify("m").unwrap();
        assert!(report.is_ok() && report.keys == n as u64, "{n}: {:?}", report.problems);
        scratch.store.gc("m", 1).unwrap();
    }
}

#[test]
fn batches_of_every_size_around_a_group() {
    let (_scratch, map) = Scratch::with_map(&numbered(64, 0));
    for n in (0..=140).chain([200, 1000]) {
        let keys: Vec<String> = (0..n).map(|i| format!("key-{}", i % 80)).collect();
        let found = map.get_many(&StringArray::from(keys)).unwrap();
        let want = Int64Array::from_iter((0..n as i64).map(|i| (i % 80 < 64).then_some(i % 80)));
        assert_eq!(found.as_ref(), &want as &dyn Array, "{n}");
    }
}

#[test]
fn an_empty_map_answers_everything() {
    let (scratch, map) = Scratch::with_map(&numbered(0, 0));
    assert!(map.is_empty());
    assert!(map.get("").unwrap().is_none() && map.get("key-0").unwrap().is_none());
    assert_eq!(map.get_many(&StringArray::from(vec!["a", "b"])).unwrap().null_count(), 2);
    assert_eq!(map.floor("x".into()).unwrap(), None);
    assert_eq!(map.ceiling("".into()).unwrap(), None);
    assert_eq!(map.range(..).unwrap().num_rows(), 0);
    assert_eq!(map.prefix(b"").unwrap().num_rows(), 0);
    let batch = map.table().to_batch().unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (0, 2));
    assert!(map.table().nbytes().unwrap() <= 64);
    assert!(scratch.store.verify("m").unwrap().is_ok());
    let memory = scratch.store.memory("m").unwrap();
    assert!(memory.file_bytes > 0 && memory.name == "m" && memory.version == 1);
    assert_eq!(scratch.store.warm("m").unwrap().file_bytes, memory.file_bytes);
    // A stream without a single batch.
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int8, true)]));
    let none = arrow_array::RecordBatchIterator::new(Vec::<Result<RecordBatch, _>>::new(), schema);
    scratch.store.put("none", none, PutOptions::map("k")).unwrap();
    assert!(scratch.store.map("none").unwrap().find(1.into()).unwrap().is_none());
}

/// More than one block of buckets, many keys in their secondary bucket, a value column beyond 2 MiB.
#[test]
fn a_map_of_several_blocks() {
    const ROWS: usize = 400_000;
    let mut random = Random::new(3);
    let keys: Vec<u64> = (0..ROWS).map(|i| random.next() & !0xFFFFF | i as u64).collect();
    let texts: LargeStringArray = keys.iter().map(|k| (k % 7 != 0).then(|| format!("value of {k}"))).collect();
    let batch = entries(Arc::new(UInt64Array::from(keys.clone())), Arc::new(texts));
    let scratch = Scratch::new();
    put(&scratch.store, "m", &batch, PutOptions::map("k").threads(2)).unwrap();
    let map = scratch.store.map("m").unwrap();
    // A large buffer begins at 2 MiB of its file.
    assert!(map.info().index_bytes < 8 * ROWS as u64 + (2 << 20));
    let asked: Vec<u64> = keys.iter().map(|k| k ^ (k & 1) << 62).collect();
    let stored: std::collections::HashSet<u64> = keys.iter().copied().collect();
    let rows = map.find_many(&UInt64Array::from(asked.clone()), Some(2)).unwrap();
    let values = map.get_many(&UInt64Array::from(asked.clone())).unwrap();
    let values: &LargeStringArray = values.as_any().downcast_ref().unwrap();
    for (i, key) in asked.iter().enumerate() {
        assert_eq!(rows.is_valid(i), stored.contains(key));
        let want = (stored.contains(key) && key % 7 != 0).then(|| format!("value of {key}"));
        assert_eq!(values.is_valid(i).then(|| values.value(i)), want.as_deref());
        if i % 1001 == 0 {
            let single = match map.get(*key).unwrap() {
                Some(Value::Str(s)) => Some(s),
                Some(Value::Null) | None => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(single, want.as_deref());
        }
    }
    assert!(scratch.store.verify("m").unwrap().is_ok());
}

#[test]
fn long_keys_and_values() {
    let long = |c: char, n: usize| c.to_string().repeat(n);
    let keys: Vec<String> = (0..20).map(|i| long('k', 100_000) + &long('x', i)).collect();
    let values: Vec<String> = (0..20).map(|i| long('v', i * 60_000)).collect();
    let to_array = |v: &Vec<String>| Arc::new(StringArray::from(v.clone())) as ArrayRef;
    let (scratch, map) = Scratch::with_map(&entries(to_array(&keys), to_array(&values)));
    for (k, v) in keys.iter().zip(&values) {
        assert!(matches!(map.get(k).unwrap(), Some(Value::Str(found)) if found == v));
    }
    assert_eq!(map.prefix(&keys[5].as_bytes()[..100_005]).unwrap().num_rows(), 15);
    assert_eq!(map.get_many(&StringArray::from(keys)).unwrap().len(), 20);
    assert!(scratch.store.verify("m").unwrap().is_ok());
}
