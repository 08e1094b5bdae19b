//! The slow path and the fast one find the same, whatever the types: the fast one is the oracle.

use std::cell::Cell;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, ListBuilder, StringBuilder};
use arrow_array::types::Int8Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, DictionaryArray,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeStringArray, RecordBatch, RecordBatchIterator,
    StringArray, StructArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow_buffer::i256;
use arrow_schema::{Field, Schema};
use arrow_select::take::take;

use crate::{Access, KeyBatch, PutOptions, Store};

thread_local! {
    static FORCED: Cell<bool> = const { Cell::new(false) };
}

/// Whether every batch of this thread is looked up as if it were on a disk.
pub(super) fn forced() -> bool {
    FORCED.get()
}

fn cold<T>(look_up: impl FnOnce() -> T) -> T {
    FORCED.set(true);
    let found = look_up();
    FORCED.set(false);
    found
}

/// Enough for several waves.
const ROWS: usize = 5_000;

/// Numbers of keys in an order that is not theirs, a third of them absent, some twice.
fn asked() -> Vec<usize> {
    (0..ROWS * 3 / 2).map(|i| i * 7_919 % (ROWS + ROWS / 2)).chain(0..40).collect()
}

/// Makes a column of one value a number.
type Make = fn(&mut dyn Iterator<Item = usize>) -> ArrayRef;

const KEYS: [(&str, Make); 11] = [
    ("text", |n| Arc::new(LargeStringArray::from_iter_values(n.map(|i| format!("{}key {i}", "long ".repeat(i % 40)))))),
    ("binary", |n| Arc::new(BinaryArray::from_iter_values(n.map(|i| i.to_be_bytes())))),
    ("fixed binary", |n| {
        let mut out = FixedSizeBinaryBuilder::new(5);
        n.for_each(|i| out.append_value(&i.to_le_bytes()[..5]).unwrap());
        Arc::new(out.finish())
    }),
    ("i16", |n| Arc::new(Int16Array::from_iter_values(n.map(|i| i as i16 - 2_000)))),
    ("i32", |n| Arc::new(Int32Array::from_iter_values(n.map(|i| i as i32 - 2_000)))),
    ("i64", |n| Arc::new(Int64Array::from_iter_values(n.map(|i| i as i64 - 2_000)))),
    ("u64", |n| Arc::new(UInt64Array::from_iter_values(n.map(|i| u64::MAX - i as u64)))),
    ("date", |n| Arc::new(Date32Array::from_iter_values(n.map(|i| i as i32)))),
    ("timestamp", |n| Arc::new(TimestampMicrosecondArray::from_iter_values(n.map(|i| i as i64 * 1_000_003)))),
    ("decimal", |n| Arc::new(Decimal128Array::from_iter_values(n.map(|i| i as i128 - 9)))),
    ("wide decimal", |n| Arc::new(Decimal256Array::from_iter_values(n.map(|i| i256::from_i128(i as i128 - 9))))),
];

/// Of every kind of buffer that is gathered, and those that are not; with nulls.
const VALUES: [(&str, Make); 11] = [
    ("text", |n| Arc::new(StringArray::from_iter(n.map(|i| (i % 11 > 0).then(|| "value ".repeat(i % 50)))))),
    ("binary", |n| Arc::new(BinaryArray::from_iter_values(n.map(|i| i.to_le_bytes())))),
    ("1 byte", |n| Arc::new(Int8Array::from_iter(n.map(|i| (i % 5 > 0).then_some(i as i8))))),
    ("2 bytes", |n| Arc::new(Int16Array::from_iter_values(n.map(|i| i as i16)))),
    ("4 bytes", |n| Arc::new(Int32Array::from_iter(n.map(|i| (i % 3 > 0).then_some(i as i32))))),
    ("8 bytes", |n| Arc::new(Float64Array::from_iter_values(n.map(|i| i as f64 / 3.0)))),
    ("16 bytes", |n| Arc::new(Decimal128Array::from_iter(n.map(|i| (i % 7 > 0).then_some(i as i128))))),
    ("3 bytes", |n| {
        let mut out = FixedSizeBinaryBuilder::new(3);
        n.for_each(|i| out.append_value(&i.to_le_bytes()[..3]).unwrap());
        Arc::new(out.finish())
    }),
    ("bits", |n| Arc::new(BooleanArray::from_iter(n.map(|i| (i % 9 > 0).then_some(i % 2 == 0))))),
    ("lists", |n| {
        let mut out = ListBuilder::new(StringBuilder::new());
        n.for_each(|i| out.append_value((0..i % 4).map(|j| Some(format!("{i} {j}")))));
        Arc::new(out.finish())
    }),
    ("dictionary", |n| {
        let texts: Vec<_> = n.map(|i| format!("kind {}", i % 20)).collect();
        Arc::new(texts.iter().map(String::as_str).collect::<DictionaryArray<Int8Type>>())
    }),
];

fn store(columns: Vec<(&str, ArrayRef)>, key: &[&str]) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let fields: Vec<Field> =
        columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), c.null_count() > 0)).collect();
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, c)| c).collect()).unwrap();
    let options = PutOptions::table(key.iter().copied()).unique(true);
    store.put("m", RecordBatchIterator::new([Ok(rows)], schema), options).unwrap();
    (dir, store)
}

#[test]
fn every_key_type_finds_the_same_rows() {
    for (name, make) in KEYS {
        let (_dir, store) = store(vec![("k", make(&mut (0..ROWS))), ("v", VALUES[0].1(&mut (0..ROWS)))], &["k"]);
        let map = store.with_access(Access::Random).map("m").unwrap();
        let numbers = UInt32Array::from_iter(asked().iter().map(|&i| (i % 13 > 0).then_some(i as u32)));
        let keys = take(&make(&mut (0..ROWS * 2)), &numbers, None).unwrap();
        let rows = map.find_many(&keys, None).unwrap();
        assert_eq!(rows.null_count() > 2_000, rows.null_count() < 4_000, "{name}: {}", rows.null_count());
        assert_eq!(cold(|| map.find_many(&keys, Some(4))).unwrap(), rows, "{name}");
        let values = map.get_many(&keys).unwrap();
        assert_eq!(&cold(|| map.get_many(&keys)).unwrap(), &values, "{name}");
        assert_eq!(&cold(|| map.take(&rows, 0)).unwrap(), &values, "{name}");
        let none = keys.slice(0, 0);
        assert_eq!(cold(|| map.get_many(&none)).unwrap().len(), 0, "{name}");
    }
}

#[test]
fn every_value_type_comes_in_the_order_of_the_keys() {
    for (name, make) in VALUES {
        let (_dir, store) = store(vec![("k", KEYS[0].1(&mut (0..ROWS))), ("v", make(&mut (0..ROWS)))], &["k"]);
        let map = store.map("m").unwrap();
        let keys = KEYS[0].1(&mut asked().into_iter());
        let rows = map.find_many(&keys, None).unwrap();
        let values = map.get_many(&keys).unwrap();
        assert_eq!(&cold(|| map.get_many(&keys)).unwrap(), &values, "{name}");
        assert_eq!(&cold(|| map.take(&rows, 0)).unwrap(), &values, "{name}");
        let all = map.get_many_within(&keys, 0, usize::MAX).unwrap();
        assert_eq!(cold(|| map.get_many_within(&keys, 0, usize::MAX)).unwrap(), all, "{name}");
        assert_eq!(cold(|| map.get_many_within(&keys, 0, 10)).unwrap(), None, "{name}");
        let missing = KEYS[0].1(&mut (ROWS..ROWS + 50));
        assert_eq!(cold(|| map.get_many(&missing)).unwrap().null_count(), 50, "{name}");
    }
}

#[test]
fn keys_of_several_columns_and_batches_without_arrow_find_the_same() {
    let columns = |n: &mut dyn Iterator<Item = usize>| {
        let numbers: Vec<usize> = n.collect();
        let text = KEYS[0].1(&mut numbers.iter().map(|i| i / 3));
        (text, KEYS[4].1(&mut numbers.iter().copied()))
    };
    let (a, b) = columns(&mut (0..ROWS));
    let (_dir, store) = store(vec![("a", a), ("b", b), ("v", VALUES[5].1(&mut (0..ROWS)))], &["a", "b"]);
    let map = store.map("m").unwrap();
    let (a, b) = columns(&mut asked().into_iter());
    let keys = StructArray::try_from(vec![("a", a), ("b", b)]).unwrap();
    let values = map.get_many(&keys).unwrap();
    assert!((1_000..4_000).contains(&values.null_count()));
    assert_eq!(&cold(|| map.get_many(&keys)).unwrap(), &values);

    let (_dir, store) = self::store(vec![("k", KEYS[5].1(&mut (0..ROWS))), ("v", VALUES[0].1(&mut (0..ROWS)))], &["k"]);
    let map = store.map("m").unwrap();
    let keys: Vec<u64> = asked().iter().map(|&i| (i as i64 - 2_000).cast_unsigned()).collect();
    let (mut fast, mut slow) = (vec![7], vec![7]);
    map.lookup(&KeyBatch::Fixed64(&keys), &mut fast).unwrap();
    cold(|| map.lookup(&KeyBatch::Fixed64(&keys), &mut slow)).unwrap();
    assert_eq!(slow, fast);
    // Some keys are tried first, to see whether they wait.
    let (random, mut tried) = (store.with_access(Access::Random).map("m").unwrap(), vec![7]);
    random.lookup(&KeyBatch::Fixed64(&keys), &mut tried).unwrap();
    assert_eq!(tried, fast);
}

#[test]
fn rows_that_no_file_holds_are_errors() {
    let (_dir, store) = store(vec![("k", KEYS[0].1(&mut (0..100))), ("v", VALUES[0].1(&mut (0..100)))], &["k"]);
    let map = store.map("m").unwrap();
    let beyond = UInt64Array::from(vec![3, 100]);
    assert!(cold(|| map.take(&beyond, 0)).unwrap_err().to_string().contains("there are 100 rows"));
}

#[test]
fn single_lookups_that_wait_find_what_others_find() {
    let text = |i: usize| format!("{}key {i}", "long ".repeat(i % 40));
    for (name, make) in VALUES {
        let (_dir, store) = store(vec![("k", KEYS[0].1(&mut (0..ROWS))), ("v", make(&mut (0..ROWS)))], &["k"]);
        let (memory, random) = (store.map("m").unwrap(), store.with_access(Access::Random).map("m").unwrap());
        for i in asked().into_iter().step_by(7) {
            random.expect_waits();
            let (key, found) = (text(i), |value| format!("{value:?}"));
            assert_eq!(found(random.get(key.as_str())), found(memory.get(key.as_str())), "{name} {i}");
        }
    }
    let (_dir, store) = store(vec![("k", KEYS[5].1(&mut (0..ROWS))), ("v", VALUES[5].1(&mut (0..ROWS)))], &["k"]);
    let (memory, random) = (store.map("m").unwrap(), store.with_access(Access::Random).map("m").unwrap());
    for i in asked() {
        random.expect_waits();
        let key = i as i64 - 2_000;
        assert_eq!(random.find(key.into()).unwrap(), memory.find(key.into()).unwrap(), "{i}");
    }
}
