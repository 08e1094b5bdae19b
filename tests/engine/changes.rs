//! Appending, upserting, deleting and compacting, against a plain list of rows.

use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchIterator, StringArray};
use pheon::{ChangeOptions, KeyRef, OnDuplicate, PutOptions, ReadError, Retention, Store, Table, Value, WriteError};
use pheon_os::fs::fault::{FaultFs, Op};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::scratch::{Scratch, assert_tidy, entries, numbered, put, tree};

fn reader(batch: &RecordBatch) -> RecordBatchIterator<[Result<RecordBatch, arrow_schema::ArrowError>; 1]> {
    RecordBatchIterator::new([Ok(batch.clone())], batch.schema())
}

fn append(store: &Store, batch: &RecordBatch, compact: bool) -> Result<u64, WriteError> {
    store.append("t", reader(batch), ChangeOptions::default().compact(compact))
}

fn upsert(store: &Store, batch: &RecordBatch, compact: bool) -> Result<u64, WriteError> {
    let options = ChangeOptions::default().compact(compact).on_duplicate(OnDuplicate::Last);
    store.upsert("t", reader(batch), options)
}

/// Keys of one of two types, so that both kinds of key column are merged.
fn keys(numbers: &[i64], text: bool) -> ArrayRef {
    if text {
        Arc::new(StringArray::from_iter_values(numbers.iter().map(|n| name(*n))))
    } else {
        Arc::new(Int64Array::from(numbers.to_vec()))
    }
}

fn name(n: i64) -> String {
    format!("key {:03}", n + 500)
}

fn rows(numbers: &[i64], values: &[i64], text: bool) -> RecordBatch {
    entries(keys(numbers, text), Arc::new(Int64Array::from(values.to_vec())))
}

fn values_of(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("v").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn values(table: &Table) -> Vec<i64> {
    values_of(&table.to_batch().unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<i64>),
    Upsert(Vec<i64>),
    Delete(Vec<i64>),
    Compact,
    Rollback(usize),
    Collect(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || vec(-20i64..20, 0..12);
    vec(
        prop_oneof![
            5 => keys().prop_map(Step::Append),
            4 => keys().prop_map(Step::Upsert),
            3 => keys().prop_map(Step::Delete),
            1 => Just(Step::Compact),
            1 => (0usize..4).prop_map(Step::Rollback),
            1 => (1u64..3).prop_map(Step::Collect),
        ],
        1..14,
    )
}

/// The rows that a version should show: key and value, in order.
type Model = Vec<(i64, i64)>;

fn in_order(mut rows: Model, keyed: bool) -> Model {
    if keyed {
        rows.sort_by_key(|(k, _)| *k);
    }
    rows
}

fn check(table: &Table, model: &Model, text: bool, asked: &[i64], cut: (usize, usize)) -> Result<(), TestCaseError> {
    let all: Vec<i64> = model.iter().map(|(_, v)| *v).collect();
    prop_assert_eq!(table.num_rows(), all.len());
    prop_assert_eq!(values(table), all.clone());
    prop_assert_eq!(table.info().rows, all.len() as u64);
    let chunks: Vec<i64> = table.to_batches().unwrap().iter().flat_map(values_of).collect();
    prop_assert_eq!(&chunks, &all);
    prop_assert_eq!(table.to_batches().unwrap().len(), table.num_chunks().unwrap());
    let only = table.select(&["v"]).unwrap();
    prop_assert_eq!(only.column(0).unwrap().as_primitive::<Int64Type>().values().to_vec(), all.clone());
    let start = cut.0.min(all.len());
    let end = (start + cut.1).min(all.len());
    let slice = table.slice(cut.0, cut.1);
    prop_assert_eq!(values(&slice), all[start..end].to_vec());
    for (i, want) in all[start..end].iter().enumerate() {
        prop_assert!(matches!(slice.value(i, 1).unwrap(), Value::Int(v) if v == *want));
    }
    let pieces = [start..end, 0..all.len().min(1), end..end + 2];
    let gathered: Vec<i64> =
        pieces.iter().flat_map(|p| all[p.start.min(all.len())..p.end.min(all.len())].to_vec()).collect();
    prop_assert_eq!(values_of(&table.gather(&pieces).unwrap()), gathered);
    if table.key().is_empty() {
        return Ok(());
    }
    let names: Vec<String> = asked.iter().map(|n| name(*n)).collect();
    let key = |i: usize| if text { KeyRef::from(&names[i]) } else { KeyRef::from(asked[i]) };
    for view in [table.clone(), slice] {
        let from = if view.num_rows() == table.num_rows() { 0 } else { start };
        let rows = &model[from..from + view.num_rows()];
        let of_key: Vec<i64> = rows.iter().filter(|(k, _)| *k == asked[0]).map(|(_, v)| *v).collect();
        let found = view.rows(key(0)).unwrap();
        prop_assert_eq!(values(&found), of_key.clone());
        if !of_key.is_empty() {
            // Where a slice says that it is, it is: that is how it is opened again elsewhere.
            let (first, len) = found.bounds();
            prop_assert_eq!(values(&table.slice(first, len)), of_key);
        }
        let range = view.range((Bound::Excluded(key(0)), Bound::Included(key(1)))).unwrap();
        let within: Vec<i64> = rows.iter().filter(|(k, _)| asked[0] < *k && *k <= asked[1]).map(|(_, v)| *v).collect();
        prop_assert_eq!(values(&range), within.clone());
        let half = range.slice(within.len() / 2, 3).range(key(0)..).unwrap();
        let half_end = (within.len() / 2 + 3).min(within.len());
        prop_assert_eq!(values(&half), within[within.len() / 2..half_end].to_vec());
        let (positions, batch) = view.lookup(&keys(asked, text), None).unwrap();
        let mut want = (Vec::new(), Vec::new());
        for (i, asked) in asked.iter().enumerate() {
            for (_, v) in rows.iter().filter(|(k, _)| k == asked) {
                want.0.push(i as u64);
                want.1.push(*v);
            }
        }
        prop_assert_eq!((positions.values().to_vec(), values_of(&batch)), want);
    }
    if text {
        let prefix: Vec<i64> = model.iter().filter(|(k, _)| name(*k).starts_with("key 50")).map(|(_, v)| *v).collect();
        prop_assert_eq!(values(&table.prefix(b"key 50").unwrap()), prefix);
    }
    Ok(())
}

fn check_map(store: &Store, model: &Model, text: bool, asked: &[i64]) -> Result<(), TestCaseError> {
    let map = store.map("t").unwrap();
    prop_assert_eq!(map.len(), model.len());
    let value = |k: &i64| model.iter().find(|(key, _)| key == k).map(|(_, v)| *v);
    let want: Vec<Option<i64>> = asked.iter().map(value).collect();
    let array = keys(asked, text);
    let got = map.get_many(&array).unwrap();
    prop_assert_eq!(got.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), want.clone());
    let rows = map.find_many(&array, None).unwrap();
    prop_assert_eq!(map.take(&rows, 0).unwrap().to_data(), got.to_data());
    prop_assert_eq!(map.get_many_within(&array, 0, usize::MAX).unwrap().unwrap().to_data(), got.to_data());
    for (k, want) in asked.iter().zip(&want) {
        let name = name(*k);
        let key = if text { KeyRef::from(&name) } else { KeyRef::from(*k) };
        let found = map.find(key).unwrap();
        prop_assert_eq!(found.is_some(), want.is_some());
        if let (Some(row), Some(want)) = (found, want) {
            prop_assert!(matches!(map.value_at(row, 0).unwrap(), Value::Int(v) if v == *want));
            prop_assert_eq!(values_of(&map.row(row).unwrap()), vec![*want]);
        }
        let floor = model.iter().rev().find(|(key, _)| key <= k).map(|(_, v)| *v);
        let ceiling = model.iter().find(|(key, _)| key >= k).map(|(_, v)| *v);
        for (row, want) in [(map.floor(key).unwrap(), floor), (map.ceiling(key).unwrap(), ceiling)] {
            let got = row.map(|row| map.value_at(row, 0).unwrap());
            prop_assert!(
                matches!((&got, want), (None, None))
                    || matches!((&got, want), (Some(Value::Int(v)), Some(w)) if *v == w)
            );
        }
    }
    for (position, (_, want)) in model.iter().enumerate() {
        let row = map.row_at(position).unwrap();
        prop_assert!(matches!(map.value_at(row, 0).unwrap(), Value::Int(v) if v == *want));
    }
    prop_assert!(map.row_at(model.len()).is_err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_series_of_changes_shows_the_rows_of_a_plain_list(
        first in vec(-20i64..20, 0..20), steps in steps(), asked in vec(-22i64..22, 2..6), cut in (0usize..40, 0usize..30),
        kind in 0u8..3, text in any::<bool>(), compact in any::<bool>(),
    ) {
        let (keyed, unique) = (kind > 0, kind > 1);
        let scratch = Scratch::new();
        let store = &scratch.store;
        let mut next = 0i64;
        let mut numbered = |keys: &[i64]| -> Model {
            keys.iter().map(|k| { next += 1; (*k, next) }).collect()
        };
        // Where keys are unique, the last of each counts.
        let settle = |rows: Model| -> Model {
            let last = |i: usize| rows[i + 1..].iter().all(|(k, _)| *k != rows[i].0);
            if unique { (0..rows.len()).filter(|&i| last(i)).map(|i| rows[i]).collect() } else { rows.clone() }
        };
        let batch = |rows: &Model| {
            let (k, v): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
            self::rows(&k, &v, text)
        };
        let mut model = settle(numbered(&first));
        let options = PutOptions::table(if keyed { vec!["k"] } else { vec![] }).unique(unique).threads(1);
        put(store, "t", &batch(&model), options).unwrap();
        let mut history = vec![model.clone()];
        let mut handle = store.table("t").unwrap();
        for step in &steps {
            let version = store.table("t").unwrap().version();
            match step {
                Step::Append(keys) => {
                    let rows = numbered(keys);
                    let known = rows.iter().any(|(k, _)| model.iter().any(|(key, _)| key == k));
                    let twice = settle(rows.clone()).len() < rows.len();
                    let done = append(store, &batch(&rows), compact);
                    if unique && twice {
                        prop_assert!(matches!(done, Err(WriteError::DuplicateKey { .. })), "{done:?}");
                    } else if unique && known {
                        prop_assert!(matches!(done, Err(WriteError::KeyExists { .. })), "{done:?}");
                    } else {
                        prop_assert!(done.unwrap() > version || rows.is_empty());
                        model.extend(rows);
                    }
                }
                Step::Upsert(keys) => {
                    let rows = numbered(keys);
                    let done = upsert(store, &batch(&rows), compact);
                    if keyed {
                        prop_assert!(done.unwrap() > version || rows.is_empty());
                        model.retain(|(k, _)| !keys.contains(k));
                        model.extend(settle(rows));
                    } else {
                        prop_assert!(matches!(done, Err(WriteError::Read(ReadError::WrongShape { .. }))), "{done:?}");
                    }
                }
                Step::Delete(keys) => {
                    let options = ChangeOptions::default().compact(compact);
                    let done = store.delete("t", &self::keys(keys, text), options);
                    if keyed {
                        let before = model.len();
                        model.retain(|(k, _)| !keys.contains(k));
                        prop_assert_eq!(done.unwrap().1, (before - model.len()) as u64);
                    } else {
                        prop_assert!(matches!(done, Err(WriteError::Read(ReadError::WrongShape { .. }))), "{done:?}");
                    }
                }
                Step::Compact => {
                    store.compact("t", ChangeOptions::default()).unwrap();
                    prop_assert_eq!(store.table("t").unwrap().info().segments, 1);
                    prop_assert_eq!(store.table("t").unwrap().info().hidden_rows, 0);
                }
                Step::Rollback(back) => {
                    let versions = store.versions("t").unwrap();
                    let to = versions[versions.len() - 1 - back.min(&(versions.len() - 1))].version;
                    store.rollback("t", to).unwrap();
                    model = history[to as usize - 1].clone();
                }
                Step::Collect(keep) => drop(store.gc("t", *keep).unwrap()),
            }
            // Compaction may have published one more with the same rows.
            while history.len() < store.table("t").unwrap().version() as usize {
                history.push(in_order(model.clone(), keyed));
            }
            model = in_order(model, keyed);
            let table = store.table("t").unwrap();
            check(&table, &model, text, &asked, cut)?;
            if unique {
                check_map(store, &model, text, &asked)?;
            }
            if let Some(newer) = handle.refreshed().unwrap() {
                handle = newer;
            }
            prop_assert_eq!(handle.version(), table.version());
            prop_assert_eq!(values(&handle), values(&table));
        }
        let report = store.verify("t").unwrap();
        prop_assert!(report.is_ok(), "{:?}", report.problems);
        store.gc("t", 1).unwrap();
        let info = store.table("t").unwrap().info();
        let names = tree(&scratch.path().join("t"));
        let hidden = names.iter().filter(|n| n.starts_with("hidden-")).count();
        prop_assert_eq!(names.iter().filter(|n| n.starts_with("seg-") && !n.contains('/')).count(), info.segments);
        prop_assert!(hidden <= info.segments);
        prop_assert_eq!(names.iter().filter(|n| n.starts_with("manifest-") || n.starts_with(".tmp")).count(), 1);
    }
}

#[test]
fn appends_in_key_order_stay_one_sequence_of_shared_slices() {
    let scratch = Scratch::new();
    let piece = |from: i64| {
        let numbers: Vec<i64> = (from..from + 5_000).collect();
        rows(&numbers, &numbers, false)
    };
    put(&scratch.store, "t", &piece(0), PutOptions::table(["k"])).unwrap();
    let first = scratch.store.table("t").unwrap();
    for from in [5_000, 10_000, 15_000] {
        append(&scratch.store, &piece(from), false).unwrap();
    }
    let table = first.refreshed().unwrap().unwrap();
    assert_eq!((table.num_rows(), table.num_chunks().unwrap(), table.info().segments), (20_000, 4, 4));
    assert!(values(&table).is_sorted());
    // The old segment was not written again, nor mapped again.
    let address = |t: &Table| t.column_chunks(1).unwrap()[0].to_data().buffers()[0].as_ptr();
    assert_eq!(address(&first), address(&table));
    assert_eq!(first.num_rows(), 5_000);
    let tail = table.range(KeyRef::from(14_990i64)..KeyRef::from(15_010i64)).unwrap();
    assert_eq!(values(&tail), (14_990..15_010).collect::<Vec<_>>());
    let long = table.range(KeyRef::from(4_000i64)..KeyRef::from(16_000i64)).unwrap();
    assert_eq!(
        long.to_batches().unwrap().iter().map(RecordBatch::num_rows).collect::<Vec<_>>(),
        [1_000, 5_000, 5_000, 1_000]
    );
    let inside = table.range(KeyRef::from(5_000i64)..KeyRef::from(10_000i64)).unwrap();
    assert_eq!(address(&inside), table.column_chunks(1).unwrap()[1].to_data().buffers()[0].as_ptr());
    assert_eq!(scratch.store.compact("t", ChangeOptions::default()).unwrap(), 5);
    let whole = scratch.store.table("t").unwrap();
    assert_eq!((whole.num_chunks().unwrap(), values(&whole)), (1, values(&table)));
}

#[test]
fn many_small_appends_leave_few_segments_and_readers_in_peace() {
    let scratch = Scratch::new();
    let piece = |from: i64| {
        let numbers: Vec<i64> = (from..from + 50).collect();
        rows(&numbers, &numbers, false)
    };
    put(&scratch.store, "t", &piece(0), PutOptions::table(["k"])).unwrap();
    let old = scratch.store.table("t").unwrap();
    let mut most = 0;
    for i in 1..150 {
        let options = ChangeOptions::default().retain(Retention::newest(3));
        scratch.store.append("t", reader(&piece(50 * i)), options).unwrap();
        let table = scratch.store.table("t").unwrap();
        most = most.max(table.info().segments);
        assert_eq!(table.num_rows() as i64, 50 * (i + 1));
        let tail = table.range(KeyRef::from(50 * i - 5)..).unwrap();
        assert_eq!(values(&tail), (50 * i - 5..50 * (i + 1)).collect::<Vec<_>>());
    }
    assert!(most <= 16, "{most} segments");
    assert_eq!(values(&old), (0..50).collect::<Vec<_>>());
    assert_eq!(scratch.store.versions("t").unwrap().len(), 3);
    assert!(scratch.store.verify("t").unwrap().is_ok());
}

#[test]
fn versions_stay_by_count_and_by_age() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(10, 0));
    for i in 1..6 {
        scratch.put("m", &numbered(10, i));
    }
    let day = Duration::from_secs(86_400);
    let kept = scratch.store.gc_with("m", Retention::newest(2).max_age(day)).unwrap();
    assert!(kept.versions_removed.is_empty(), "{kept:?}");
    std::thread::sleep(Duration::from_millis(30));
    let removed = scratch.store.gc_with("m", Retention::newest(2).max_age(Duration::from_millis(10))).unwrap();
    assert_eq!(removed.versions_removed, [1, 2, 3, 4]);
    assert_tidy(&scratch.path().join("m"), 2, 2);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let good = rows(&[1, 2], &[1, 2], false);
    let missing = append(store, &good, true);
    assert!(matches!(missing, Err(WriteError::Read(ReadError::NotFound { .. }))), "{missing:?}");
    put(store, "t", &good, PutOptions::map("k")).unwrap();
    let before = tree(&scratch.path().join("t"));
    let text = entries(Arc::new(StringArray::from(vec!["x"])), Arc::new(Int64Array::from(vec![3])));
    for batch in [text, good.project(&[0]).unwrap(), rows(&[3, 4, 3], &[1, 1, 1], false), good.clone()] {
        let failed = append(store, &batch, true).unwrap_err();
        assert!(!failed.to_string().is_empty());
        assert_eq!(tree(&scratch.path().join("t")), before, "{failed}");
    }
    let nulls = entries(Arc::new(Int64Array::from(vec![Some(5), None])), Arc::new(Int64Array::from(vec![1, 2])));
    assert!(append(store, &nulls, true).unwrap_err().to_string().contains("null"));
    assert_eq!(tree(&scratch.path().join("t")), before);
    let wrong_keys = store.delete("t", &StringArray::from(vec!["1"]), ChangeOptions::default());
    assert!(matches!(wrong_keys, Err(WriteError::Read(ReadError::KeyType { .. }))), "{wrong_keys:?}");
    let none = store.delete("t", &Int32Array::from(vec![77]), ChangeOptions::default()).unwrap();
    assert_eq!((none, store.versions("t").unwrap().len()), ((1, 0), 1));
    // Narrower integers are taken, in any order of columns.
    let narrow = RecordBatch::try_from_iter([
        ("v", Arc::new(Int32Array::from(vec![30])) as ArrayRef),
        ("k", Arc::new(Int32Array::from(vec![3])) as ArrayRef),
    ]);
    append(store, &narrow.unwrap(), true).unwrap();
    assert_eq!(values(&store.table("t").unwrap()), [1, 2, 30]);
}

#[test]
fn everything_can_be_deleted_and_put_back() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    put(store, "t", &rows(&[1, 2, 2], &[1, 2, 3], false), PutOptions::table(["k"])).unwrap();
    append(store, &rows(&[2, 5], &[4, 5], false), false).unwrap();
    let held = store.table("t").unwrap();
    let gone =
        store.delete("t", &Int64Array::from(vec![5, 1, 2, 2, 9]), ChangeOptions::default().compact(false)).unwrap();
    assert_eq!(gone, (3, 5));
    let empty = store.table("t").unwrap();
    assert_eq!((empty.num_rows(), values(&empty).len(), empty.to_batches().unwrap().len()), (0, 0, 1));
    assert!(values(&empty.rows(2i64.into()).unwrap()).is_empty());
    assert_eq!(values(&held), [1, 2, 3, 4, 5]);
    assert!(store.verify("t").unwrap().is_ok());
    append(store, &rows(&[7], &[7], false), false).unwrap();
    assert_eq!(values(&store.table("t").unwrap()), [7]);
    store.compact("t", ChangeOptions::default()).unwrap();
    assert_eq!(values(&store.table("t").unwrap()), [7]);
    assert_eq!(store.rollback("t", 2).unwrap(), 6);
    assert_eq!(values(&store.table("t").unwrap()), [1, 2, 3, 4, 5]);
}

/// A list of hidden rows that is damaged must not bring rows back.
#[test]
fn a_damaged_list_of_hidden_rows_is_an_error() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    put(store, "t", &rows(&[1, 2, 3], &[1, 2, 3], false), PutOptions::map("k")).unwrap();
    store.delete("t", &Int64Array::from(vec![2]), ChangeOptions::default().compact(false)).unwrap();
    let dir = scratch.path().join("t");
    let file = tree(&dir).into_iter().find(|n| n.starts_with("hidden-")).unwrap();
    let path = dir.join(file);
    let good = std::fs::read(&path).unwrap();
    let mut found = 0;
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bad).unwrap();
        let report = store.verify("t").unwrap();
        assert!(!report.is_ok(), "a flip in byte {byte} went unseen");
        match store.table("t") {
            // Padding between buffers does not matter to readers.
            Ok(table) => assert_eq!(values(&table), [1, 3]),
            Err(ReadError::Corrupt { .. }) => found += 1,
            Err(e) => panic!("byte {byte}: {e}"),
        }
    }
    assert!(found > 100, "{found}");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.table("t"), Err(ReadError::Corrupt { .. })));
}

#[test]
fn a_refresh_with_nothing_new_is_one_operation() {
    let scratch = Scratch::new();
    let published = Instant::now();
    put(&scratch.store, "t", &rows(&[1], &[1], false), PutOptions::table(["k"])).unwrap();
    let watched = FaultFs::new(pheon_os::fs::real());
    let table = Store::open_with(scratch.path(), Arc::new(watched.clone())).unwrap().table("t").unwrap();
    let operations = || {
        let before = watched.log().len();
        let newer = table.refreshed().unwrap();
        (watched.log()[before..].iter().map(|(op, _)| *op).collect::<Vec<_>>(), newer.is_some())
    };
    // A folder that has just been changed might change again within the same tick of the clock: it is listed.
    let (listed, newer) = operations();
    let was_at_once = published.elapsed() < Duration::from_millis(50);
    assert!(!newer && (listed.len() > 1 || !was_at_once), "{listed:?}");
    std::thread::sleep(Duration::from_millis(120));
    let (listed, newer) = operations();
    assert!(!newer && (listed.len() > 1 || !was_at_once), "{listed:?}");
    for _ in 0..3 {
        assert_eq!(operations(), (vec![Op::Metadata], false));
    }
    append(&scratch.store, &rows(&[2], &[2], false), true).unwrap();
    assert!(operations().1, "what was published just now is seen at once");
}
