//! Tables as polars frames, from published files.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchIterator, StringArray};
use pheon::{ChangeOptions, PutOptions, Table};

use crate::scratch::{Scratch, put};

const ROWS: i64 = 6_000;

fn rows(from: i64) -> RecordBatch {
    let keys = Int64Array::from_iter_values(from..from + ROWS);
    let halves = Float64Array::from_iter((from..from + ROWS).map(|i| (i % 7 != 0).then_some(i as f64 / 2.0)));
    let names = StringArray::from_iter_values((from..from + ROWS).map(|i| format!("the name of row number {i}")));
    RecordBatch::try_from_iter([
        ("k", Arc::new(keys) as ArrayRef),
        ("half", Arc::new(halves) as ArrayRef),
        ("name", Arc::new(names) as ArrayRef),
    ])
    .unwrap()
}

/// Whether an address lies in a mapping of a published data file.
fn is_mapped(address: usize) -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.ends_with("data.arrow")).any(
        |line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&address)
        },
    )
}

fn check(table: &Table, first: i64, count: i64) {
    let frame = table.to_polars().unwrap();
    assert_eq!(frame.shape(), (count as usize, 3));
    let keys: Vec<i64> = frame.column("k").unwrap().i64().unwrap().into_no_null_iter().collect();
    assert_eq!(keys, (first..first + count).collect::<Vec<_>>());
    let halves: Vec<Option<f64>> = frame.column("half").unwrap().f64().unwrap().iter().collect();
    assert!(halves.iter().zip(&keys).all(|(half, key)| *half == (key % 7 != 0).then_some(*key as f64 / 2.0)));
    let names: Vec<String> = frame.column("name").unwrap().str().unwrap().iter().flatten().map(str::to_owned).collect();
    assert!(names.iter().zip(&keys).all(|(name, key)| *name == format!("the name of row number {key}")));
    assert_eq!(names.len() as i64, count);
}

#[test]
fn a_table_is_a_frame_in_the_same_memory() {
    let scratch = Scratch::new();
    put(&scratch.store, "t", &rows(0), PutOptions::table(["k"])).unwrap();
    let table = scratch.store.table("t").unwrap();
    check(&table, 0, ROWS);
    check(&table.slice(1_000, 17), 1_000, 17);
    check(&table.slice(0, 0), 0, 0);
    let frame = table.to_polars().unwrap();
    let address = frame.column("k").unwrap().i64().unwrap().cont_slice().unwrap().as_ptr() as usize;
    assert!(is_mapped(address) && is_mapped(address + 8 * ROWS as usize - 1));
    // The frame outlives the handle and the files' names.
    drop(table);
    scratch.store.drop_dataset("t").unwrap();
    assert_eq!(frame.column("k").unwrap().i64().unwrap().get(4_711), Some(4_711));
}

#[test]
fn segments_become_chunks() {
    let scratch = Scratch::new();
    put(&scratch.store, "t", &rows(0), PutOptions::table(["k"])).unwrap();
    let more = rows(ROWS);
    let reader = RecordBatchIterator::new([Ok(more.clone())], more.schema());
    scratch.store.append("t", reader, ChangeOptions::default().compact(false)).unwrap();
    let table = scratch.store.table("t").unwrap();
    check(&table, 0, 2 * ROWS);
    let frame = table.to_polars().unwrap();
    let keys = frame.column("k").unwrap().i64().unwrap();
    assert_eq!(keys.chunks().len(), 2);
    assert!(keys.downcast_iter().all(|chunk| is_mapped(chunk.values().as_slice().as_ptr() as usize)));
}
