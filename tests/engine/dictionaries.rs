//! Dictionary columns of several segments: each has a dictionary of its own, and whoever reads them together sees one.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int8Array, Int64Array, ListArray, RecordBatch, RecordBatchIterator, StringArray,
    StructArray, UInt64Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, Field};
use pheon::{ChangeOptions, PutOptions, Store, Value, WriteError};

use crate::scratch::{Scratch, put};

/// Of key `k` the text that its row has; every seventh has none.
fn text(k: i64) -> Option<String> {
    (k % 7 != 0).then(|| format!("text {}", k % 5))
}

/// A column whose dictionary has its values in the order in which these keys bring them, and one that nobody uses.
fn coded(keys: &[i64]) -> ArrayRef {
    let mut values: Vec<String> = vec!["unused".to_owned()];
    let codes: Int8Array = keys
        .iter()
        .map(|&k| {
            text(k).map(|text| {
                let at = values.iter().position(|v| *v == text).unwrap_or_else(|| {
                    values.push(text);
                    values.len() - 1
                });
                at as i8
            })
        })
        .collect();
    Arc::new(DictionaryArray::<Int8Type>::try_new(codes, Arc::new(StringArray::from(values))).unwrap())
}

/// The dictionary by itself, in a struct and in lists of one element.
fn rows(keys: &[i64]) -> RecordBatch {
    let flat = coded(keys);
    let field = Arc::new(Field::new("x", flat.data_type().clone(), true));
    let inside: ArrayRef = Arc::new(StructArray::from(vec![(field.clone(), flat.clone())]));
    let ones = OffsetBuffer::from_lengths(std::iter::repeat_n(1, keys.len()));
    let listed: ArrayRef = Arc::new(ListArray::new(field, ones, flat.clone(), None));
    let numbers: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    RecordBatch::try_from_iter_with_nullable([
        ("k", numbers, false),
        ("flat", flat, true),
        ("inside", inside, true),
        ("listed", listed, true),
    ])
    .unwrap()
}

fn reader(batch: &RecordBatch) -> RecordBatchIterator<[Result<RecordBatch, ArrowError>; 1]> {
    RecordBatchIterator::new([Ok(batch.clone())], batch.schema())
}

/// What each row's code stands for.
fn texts(array: &dyn Array) -> Vec<Option<String>> {
    match array.data_type() {
        DataType::Struct(_) => texts(array.as_struct().column(0)),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            (0..lists.len()).flat_map(|i| texts(&lists.value(i))).collect()
        }
        _ => {
            if let Some(coded) = array.as_any_dictionary_opt() {
                // One dictionary, not those of several segments behind each other.
                let values = texts(coded.values());
                let different: HashSet<_> = values.iter().collect();
                assert_eq!(different.len(), values.len(), "{values:?}");
            }
            let plain = cast(array, &DataType::Utf8).unwrap();
            plain.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
        }
    }
}

fn check(batch: &RecordBatch, keys: &[i64]) {
    let found = batch.column_by_name("k").map(|k| k.as_primitive::<arrow_array::types::Int64Type>().values().to_vec());
    assert_eq!(found, Some(keys.to_vec()));
    let want: Vec<Option<String>> = keys.iter().map(|&k| text(k)).collect();
    for name in ["flat", "inside", "listed"] {
        assert_eq!(texts(batch.column_by_name(name).unwrap()), want, "{name}");
    }
}

fn check_all(store: &Store, keys: &[i64]) {
    let table = store.table("t").unwrap();
    check(&table.to_batch().unwrap(), keys);
    let mut from = 0;
    for batch in table.to_batches().unwrap() {
        check(&batch, &keys[from..from + batch.num_rows()]);
        from += batch.num_rows();
    }
    assert_eq!(from, keys.len());
    let cut = keys.len() / 3;
    check(&table.gather(&[cut..cut + 7, 0..3]).unwrap(), &[&keys[cut..cut + 7], &keys[..3]].concat());
    let want: Vec<Option<String>> = keys.iter().map(|&k| text(k)).collect();
    for column in 1..4 {
        assert_eq!(texts(&table.column(column).unwrap()), want, "column {column}");
    }
    for (row, text) in want.iter().enumerate() {
        match table.value(row, 1).unwrap() {
            Value::Str(found) => assert_eq!(Some(found), text.as_deref()),
            found => assert!(matches!(found, Value::Null) && text.is_none(), "row {row}: {found:?}"),
        }
    }

    let map = store.map("t").unwrap();
    // In no order, with some that are not there.
    let asked: Vec<i64> = (0..keys.len() as i64).map(|i| (i * 37) % (keys.len() as i64 + 5)).collect();
    let answered = map.get_many_columns(&Int64Array::from(asked.clone())).unwrap();
    let expected: Vec<Option<String>> = asked.iter().map(|k| if keys.contains(k) { text(*k) } else { None }).collect();
    assert_eq!(texts(answered.column_by_name("flat").unwrap()), expected);
    let there: Vec<i64> = asked.into_iter().filter(|k| keys.contains(k)).collect();
    let found: UInt64Array = map.find_many(&Int64Array::from(there.clone()), None).unwrap();
    let expected: Vec<Option<String>> = there.iter().map(|&k| text(k)).collect();
    for column in 0..3 {
        assert_eq!(texts(&map.take(&found, column).unwrap()), expected, "value column {column}");
    }
    assert!(store.verify("t").unwrap().is_ok());
}

#[test]
fn rows_of_segments_with_other_dictionaries_are_read_together() {
    let Scratch { ref store, .. } = Scratch::new();
    let every = |n: i64, from: i64| -> Vec<i64> { (0..60).filter(|k| k % n == from).collect() };
    put(store, "t", &rows(&every(3, 1)), PutOptions::map("k").threads(1)).unwrap();
    let options = || ChangeOptions::default().compact(false);
    // Downwards, so that the dictionaries are in other orders.
    let mut second = every(3, 2);
    second.reverse();
    store.append("t", reader(&rows(&second)), options()).unwrap();
    let mut keys: Vec<i64> = every(3, 1).into_iter().chain(every(3, 2)).collect();
    keys.sort_unstable();
    check_all(store, &keys);

    store.append("t", reader(&rows(&every(3, 0))), options()).unwrap();
    keys = (0..60).collect();
    check_all(store, &keys);
    store.upsert("t", reader(&rows(&[44, 3, 28])), options()).unwrap();
    check_all(store, &keys);
    store.compact("t", ChangeOptions::default()).unwrap();
    check_all(store, &keys);
}

/// A row for each key, with a text that no other row has.
fn rows_of_own_texts(keys: std::ops::Range<i64>) -> RecordBatch {
    let codes = Int8Array::from_iter_values((0..keys.end - keys.start).map(|code| code as i8));
    let texts = StringArray::from_iter_values(keys.clone().map(|k| format!("text {k}")));
    let column: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::try_new(codes, Arc::new(texts)).unwrap());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
    RecordBatch::try_from_iter_with_nullable([("k", numbers, false), ("v", column, true)]).unwrap()
}

/// 128 texts have numbers of eight bits, with a sign.
#[test]
fn dictionaries_may_have_as_many_values_in_all_as_their_numbers_allow() {
    let Scratch { ref store, .. } = Scratch::new();
    put(store, "t", &rows_of_own_texts(0..100), PutOptions::map("k").threads(1)).unwrap();
    let options = || ChangeOptions::default().compact(false);
    store.append("t", reader(&rows_of_own_texts(100..128)), options()).unwrap();
    let column = store.table("t").unwrap().column(1).unwrap();
    assert_eq!(texts(&column), (0..128).map(|k| Some(format!("text {k}"))).collect::<Vec<_>>());

    let error = store.append("t", reader(&rows_of_own_texts(128..129)), options()).unwrap_err();
    assert!(matches!(error, WriteError::Schema { .. }) && error.to_string().contains("129 values"), "{error}");
    let table = store.table("t").unwrap();
    assert_eq!((table.version(), table.to_batch().unwrap().num_rows()), (2, 128));
    store.compact("t", ChangeOptions::default()).unwrap();
    assert_eq!(texts(&store.table("t").unwrap().column(1).unwrap()), texts(&column));
}
