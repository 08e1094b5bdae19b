//! Versions: publishing, refreshing, rolling back, collecting under open handles, dropping, and readers that race it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array, StringArray};
use pheon::{ChangeOptions, PutOptions, ReadError, Retention, Store, WriteError};
use pheon_os::fs::fault::{FaultFs, Lasts, Op};

use crate::names::{parse, replace, with_checksum};
use crate::scratch::{Scratch, assert_numbered, assert_tidy, entries, numbered, put, temporary_dir, tree};

#[test]
fn a_handle_stays_on_its_version_until_it_is_refreshed() {
    let scratch = Scratch::new();
    assert_eq!(scratch.put("m", &numbered(40, 0)), 1);
    let mut map = scratch.store.map("m").unwrap();
    let old = map.clone();
    let table = scratch.store.table("m").unwrap();
    assert!(!map.refresh().unwrap() && table.refreshed().unwrap().is_none());
    assert_eq!(scratch.put("m", &numbered(90, 1000)), 2);
    assert_numbered(&map, 40, 0);
    assert!(map.refresh().unwrap());
    assert!(!map.refresh().unwrap());
    assert_eq!((map.version(), old.version(), map.name()), (2, 1, "m"));
    assert_numbered(&map, 90, 1000);
    assert_numbered(&old, 40, 0);
    let newer = table.refreshed().unwrap().unwrap();
    assert_eq!((table.version(), table.num_rows(), newer.version(), newer.num_rows()), (1, 40, 2, 90));
    assert_numbered(&scratch.store.map_at("m", 1).unwrap(), 40, 0);
    assert_eq!(scratch.store.table_at("m", 2).unwrap().num_rows(), 90);
    for missing in [0, 3, u64::MAX] {
        let e = scratch.store.map_at("m", missing).unwrap_err();
        assert!(matches!(e, ReadError::NotFound { version: Some(v), .. } if v == missing), "{e}");
    }
}

#[test]
fn versions_tell_where_they_come_from() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(40, 0));
    scratch.put("m", &numbered(90, 1000));
    assert_eq!(scratch.store.rollback("m", 1).unwrap(), 3);
    let map = scratch.store.map("m").unwrap();
    assert_numbered(&map, 40, 0);
    let info = map.info();
    assert_eq!((info.version, info.rows, info.origin.as_str(), info.index_keys), (3, 40, "rollback:1", 40));
    assert_eq!((info.key, info.unique, info.segments), (vec!["k".to_owned()], true, 1));
    let versions = scratch.store.versions("m").unwrap();
    let facts: Vec<_> = versions.iter().map(|v| (v.version, v.rows, v.origin.as_str())).collect();
    assert_eq!(facts, [(1, 40, "put"), (2, 90, "put"), (3, 40, "rollback:1")]);
    assert_eq!(versions[0].bytes, versions[2].bytes);
    assert_eq!(versions[0].bytes, info.data_bytes + info.index_bytes);
    assert!(versions.is_sorted_by_key(|v| v.created_unix_ms) && versions[0].created_unix_ms > 1_700_000_000_000);
    // Both versions share the segment: collecting the older one must not take it away.
    assert_tidy(&scratch.path().join("m"), 3, 2);
    let report = scratch.store.gc("m", 1).unwrap();
    assert_eq!((report.versions_removed, report.segments_removed, report.leftovers_removed), (vec![1, 2], 1, 0));
    assert!(report.bytes_freed > versions[1].bytes);
    assert_tidy(&scratch.path().join("m"), 1, 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 40, 0);
    let e = scratch.store.rollback("m", 2).unwrap_err();
    assert!(matches!(e, WriteError::Read(ReadError::NotFound { version: Some(2), .. })), "{e}");
    assert_eq!(scratch.put("m", &numbered(5, 0)), 4, "numbers are not used again");
    // gc keeps at least one version, whatever it is told.
    assert_eq!(scratch.store.gc("m", 0).unwrap().versions_removed, [3]);
    assert_numbered(&scratch.store.map("m").unwrap(), 5, 0);
    assert_eq!(scratch.store.gc("m", 99).unwrap(), Default::default());
}

#[test]
fn mappings_outlive_files_store_and_directory() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(300, 0));
    let map = scratch.store.map("m").unwrap();
    let table = scratch.store.table("m").unwrap();
    let column = table.slice(10, 100).column(1).unwrap();
    let before = column.as_primitive::<Int64Type>().values().to_vec();
    scratch.put("m", &numbered(10, 7));
    scratch.store.gc("m", 1).unwrap();
    assert_numbered(&map, 300, 0);
    scratch.store.drop_dataset("m").unwrap();
    assert!(!scratch.store.contains("m").unwrap());
    assert_numbered(&map, 300, 0);
    let mut refreshed = map.clone();
    assert!(matches!(refreshed.refresh(), Err(ReadError::NotFound { .. })));
    assert_numbered(&refreshed, 300, 0);
    drop(scratch);
    assert_numbered(&map, 300, 0);
    let keys = StringArray::from(vec!["key-299", "no"]);
    assert_eq!(map.get_many(&keys).unwrap().as_ref(), &Int64Array::from(vec![Some(299), None]) as &dyn Array);
    drop((map, refreshed, table));
    assert_eq!(column.as_primitive::<Int64Type>().values()[..], before[..], "an array keeps the mapping alone");
}

#[test]
fn drop_and_make_again_counts_from_one_and_is_noticed() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(10, 0));
    let mut map = scratch.store.map("m").unwrap();
    let table = map.table();
    scratch.store.drop_dataset("m").unwrap();
    assert!(scratch.store.datasets().unwrap().is_empty());
    let again = scratch.store.drop_dataset("m").unwrap_err();
    assert!(matches!(again, WriteError::Read(ReadError::NotFound { .. })), "{again}");
    assert_eq!(scratch.put("m", &numbered(20, 5)), 1);
    assert_numbered(&map, 10, 0);
    assert!(map.refresh().unwrap(), "another dataset has the same name and version number");
    assert_numbered(&map, 20, 5);
    assert_eq!(table.refreshed().unwrap().unwrap().num_rows(), 20);
    assert_eq!(scratch.store.datasets().unwrap(), ["m"]);
}

#[test]
fn the_key_and_its_type_may_change_between_versions() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(10, 0));
    let mut map = scratch.store.map("m").unwrap();
    scratch
        .put("m", &entries(Arc::new(Int64Array::from(vec![4, 2])), Arc::new(StringArray::from(vec!["four", "two"]))));
    assert!(map.refresh().unwrap());
    assert!(matches!(map.get(2i64).unwrap(), Some(pheon::Value::Str("two"))));
    assert!(matches!(map.get("key-1"), Err(ReadError::KeyType { .. })));
    // A version that is no map: the handle says so and stays where it is.
    let batch =
        entries(Arc::new(StringArray::from(vec!["a", "b", "a"])), Arc::new(StringArray::from(vec!["1", "2", "3"])));
    put(&scratch.store, "m", &batch, PutOptions::table(["k"])).unwrap();
    assert!(matches!(map.refresh(), Err(ReadError::WrongShape { .. })));
    assert!(map.contains(4i64).unwrap());
    assert!(matches!(scratch.store.map("m"), Err(ReadError::WrongShape { .. })));
    assert_eq!(scratch.store.table("m").unwrap().num_rows(), 3);
}

#[test]
fn a_writer_that_is_dropped_or_fails_publishes_nothing_and_leaves_nothing() {
    let scratch = Scratch::new();
    let batch = numbered(10, 0);
    let options = || PutOptions::map("k").threads(1);
    let mut writer = scratch.store.writer("m", batch.schema(), options()).unwrap();
    writer.write(&batch).unwrap();
    assert_eq!(writer.rows(), 10);
    assert!(!scratch.store.contains("m").unwrap());
    drop(writer);
    assert_eq!(crate::scratch::tree(&scratch.path()), ["pheon.json"]);
    let twice = arrow_select::concat::concat_batches(&batch.schema(), [&batch, &batch]).unwrap();
    match put(&scratch.store, "m", &twice, options()).unwrap_err() {
        WriteError::DuplicateKey { dataset, .. } => assert_eq!(dataset, "m"),
        e => panic!("{e}"),
    }
    assert_eq!(crate::scratch::tree(&scratch.path()), ["pheon.json"]);
    scratch.put("m", &batch);
    put(&scratch.store, "m", &twice, options()).unwrap_err();
    assert_tidy(&scratch.path().join("m"), 1, 1);
    let cancelled = put(&scratch.store, "m", &batch, options().cancel(|| true)).unwrap_err();
    assert!(matches!(cancelled, WriteError::Cancelled), "{cancelled}");
    let failing = [Ok(batch.clone()), Err(arrow_schema::ArrowError::ComputeError("the source broke".to_owned()))];
    let reader = arrow_array::RecordBatchIterator::new(failing, batch.schema());
    match scratch.store.put("m", reader, options()).unwrap_err() {
        WriteError::Source { problem } => assert!(problem.contains("the source broke")),
        e => panic!("{e}"),
    }
    assert_tidy(&scratch.path().join("m"), 1, 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 10, 0);
}

#[test]
fn a_read_only_store_reads_and_refuses_to_write() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(10, 0));
    let store = Store::open_read_only(scratch.path()).unwrap();
    assert!(store.is_read_only() && !scratch.store.is_read_only());
    assert_eq!((store.uuid(), store.path()), (scratch.store.uuid(), scratch.store.path()));
    assert_numbered(&store.map("m").unwrap(), 10, 0);
    assert!(store.verify("m").unwrap().is_ok());
    let batch = numbered(1, 0);
    let refused = |r: Result<u64, WriteError>| assert!(matches!(r, Err(WriteError::ReadOnly { .. })), "{r:?}");
    refused(put(&store, "m", &batch, PutOptions::map("k")));
    refused(store.rollback("m", 1));
    refused(store.gc("m", 1).map(|_| 0));
    refused(store.drop_dataset("m").map(|()| 0));
    refused(store.compact("m", ChangeOptions::default()));
    assert_eq!(scratch.store.compact("m", ChangeOptions::default()).unwrap(), 1);
}

/// Readers open, refresh and look up while a writer publishes, collects, drops and makes again: each sees one whole version.
#[test]
fn readers_that_race_publication_and_collection_see_whole_versions() {
    const ROWS: usize = 60;
    let scratch = Scratch::new();
    scratch.put("m", &numbered(ROWS, 0));
    let stop = Arc::new(AtomicBool::new(false));
    let opened = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (stop, opened, store) = (stop.clone(), opened.clone(), scratch.store.clone());
            std::thread::spawn(move || {
                let mut kept = store.map("m").unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let fresh = match store.map("m") {
                        Ok(map) => map,
                        // Between a drop and the next put there is nothing.
                        Err(ReadError::NotFound { version: None, .. }) => continue,
                        Err(e) => panic!("reader {reader}: {e}"),
                    };
                    let Some(pheon::Value::Int(base)) = fresh.get("key-0").unwrap() else { panic!("no key-0") };
                    assert_numbered(&fresh, ROWS, base);
                    match kept.refresh() {
                        Ok(_) | Err(ReadError::NotFound { .. }) => {}
                        Err(e) => panic!("reader {reader} refreshing: {e}"),
                    }
                    assert_eq!(kept.len(), ROWS);
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 1..=120i64 {
        scratch.put("m", &numbered(ROWS, round * 1000));
        match round % 4 {
            0 => scratch.store.drop_dataset("m").unwrap(),
            1 => {
                let versions = scratch.store.versions("m").unwrap();
                scratch.store.rollback("m", versions[0].version).unwrap();
            }
            _ => drop(scratch.store.gc("m", 1).unwrap()),
        }
    }
    scratch.put("m", &numbered(ROWS, 0));
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
    assert!(opened.load(Ordering::Relaxed) > 0);
}

#[test]
fn writers_in_threads_take_turns() {
    let scratch = Scratch::new();
    let numbers: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|i| {
                let store = scratch.store.clone();
                scope.spawn(move || {
                    (0..5)
                        .map(|round| {
                            let options = PutOptions::map("k").threads(1);
                            put(&store, "m", &numbered(20, i * 100 + round), options).unwrap()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    let mut sorted = numbers;
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=20).collect::<Vec<_>>());
    assert_tidy(&scratch.path().join("m"), 20, 20);
}

/// The versions before it may be all that is left.
#[test]
fn nothing_is_collected_while_the_newest_manifest_is_damaged() {
    let scratch = Scratch::new();
    for base in 1..=5 {
        scratch.put("m", &numbered(40, base));
    }
    let newest = scratch.path().join("m/manifest-000005.json");
    let good = parse(&newest);
    let mut flipped = std::fs::read(&newest).unwrap();
    flipped[20] ^= 4;
    let mut later = good.clone();
    later["format_version"] = (pheon::FORMAT_VERSION + 1).into();
    for bad in [flipped, with_checksum(&later), Vec::new()] {
        replace(&newest, &bad);
        for keep in [1, 3, 9] {
            let told = scratch.store.gc("m", keep).unwrap_err();
            assert!(matches!(told, WriteError::Read(ReadError::Corrupt { .. })), "{told:?}");
        }
        assert_tidy(&scratch.path().join("m"), 5, 5);
    }
    assert_eq!(scratch.store.rollback("m", 4).unwrap(), 6);
    assert_numbered(&scratch.store.map("m").unwrap(), 40, 4);
    assert_eq!(scratch.store.gc("m", 1).unwrap().versions_removed, [1, 2, 3, 4, 5]);
    assert_numbered(&scratch.store.map("m").unwrap(), 40, 4);
}

/// What a process leaves that is killed while it makes the store.
#[test]
fn a_marker_that_was_never_published_is_a_leftover() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(40, 0));
    let left = scratch.path().join(format!(".tmp-{}.json", "0123456789abcdef".repeat(2)));
    let leave = || std::fs::write(&left, b"{}").unwrap();
    leave();
    scratch.store.gc("m", 1).unwrap();
    assert!(!left.exists());
    leave();
    scratch.store.drop_dataset("m").unwrap();
    assert_eq!(tree(&scratch.path()), ["pheon.json"]);
}

#[test]
fn a_store_may_be_made_while_its_leftovers_are_removed() {
    for _ in 0..60 {
        let dir = temporary_dir();
        let path = dir.path().join("store");
        let uuids: Vec<String> = std::thread::scope(|scope| {
            let open = || {
                let store = Store::open(&path).unwrap();
                store.gc_unfinished(Retention::newest(1)).unwrap();
                store.uuid().to_owned()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(uuids.iter().all(|uuid| *uuid == uuids[0]));
        assert_eq!(tree(&path), ["pheon.json"]);
    }
    // Made by another process after this one had looked, which has removed this one's file before it was linked.
    let scratch = Scratch::new();
    let fs = Arc::new(FaultFs::new(pheon_os::fs::real()));
    fs.fail_nth(1, Some(Op::Read), 2, Lasts::Once);
    fs.fail_nth(1, Some(Op::Link), 2, Lasts::Once);
    let store = Store::open_with(scratch.path(), fs.clone()).unwrap();
    assert_eq!((store.uuid(), fs.failed()), (scratch.store.uuid(), vec![Op::Read, Op::Link]));
    // A file that is gone where there is no store is an error.
    let (dir, fs) = (temporary_dir(), Arc::new(FaultFs::new(pheon_os::fs::real())));
    fs.fail_nth(1, Some(Op::Link), 2, Lasts::Once);
    let told = Store::open_with(dir.path().join("store"), fs).unwrap_err();
    assert!(matches!(told, WriteError::Io { .. }), "{told:?}");
}
