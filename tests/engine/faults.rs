//! Every file operation of a write fails in turn, once or for ever: the store stays whole and the next writer tidies up.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, RecordBatchIterator, StringArray};
use pheon::{ChangeOptions, PutOptions, ReadError, Retention, Store, WriteError};
use pheon_os::fs::fault::{self, FaultFs, Lasts, Op};

use crate::scratch::{Scratch, assert_numbered, assert_tidy, entries, numbered, put, temporary_dir, tree};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// More file operations than any call here makes.
const OPERATIONS_MAX: u64 = 5_000;

/// A store on a file system that can be told to fail, and the same store on the real one.
fn stores(scratch: &Scratch) -> (FaultFs, Store) {
    let faulty = FaultFs::new(pheon_os::fs::real());
    let store = Store::open_with(scratch.path(), Arc::new(faulty.clone())).unwrap();
    (faulty, store)
}

/// Kinds of failure, and how far one call that fails is from the next that does.
pub(crate) fn kinds_of_failure() -> impl Iterator<Item = (i32, Lasts, u64)> {
    fault::kinds([1, 3, 4, 5, 4, 5, 6, 7, 9])
}

/// Runs `attempt` on fresh stores, failing its first operation, its second... until one run is through without a failure.
/// `attempt` gets the number of the operation that fails; it answers whether the fault was met.
fn each_operation(mut attempt: impl FnMut(u64, i32, Lasts) -> bool) {
    for (errno, lasts, step) in kinds_of_failure() {
        let mut nth = 1;
        while attempt(nth, errno, lasts) {
            nth += step;
            assert!(nth < OPERATIONS_MAX);
        }
        assert!(nth > 3, "only {nth} operations: the faults do not reach the engine");
    }
}

/// Whether a call may succeed although this one of its operations failed: one that removes a temporary name, one that looks
/// for leftovers, one that was interrupted and made again.
fn is_harmless(op: Op, errno: i32) -> bool {
    matches!(op, Op::Unlink | Op::Read) || errno == EINTR && op.is_restarted()
}

/// The error is of the kind that the fault calls for.
pub(crate) fn assert_fits(e: &WriteError, errno: i32, op: Op) {
    let takes_space = matches!(
        op,
        Op::CreateDir
            | Op::CreateNew
            | Op::Link
            | Op::Rename
            | Op::SyncDir
            | Op::WriteAt
            | Op::SetLen
            | Op::Sync
            | Op::SetMode
            | Op::OpenLock
    );
    let is_full = matches!(errno, ENOSPC | EDQUOT);
    match e {
        WriteError::StoreFull { source, .. } => {
            assert_eq!((is_full, source.raw_os_error()), (true, Some(errno)), "{op:?}")
        }
        WriteError::Io { source, .. } | WriteError::Read(ReadError::Io { source, .. }) => {
            assert_eq!(source.raw_os_error(), Some(errno), "{op:?}: {e}");
            assert!(!is_full || !takes_space, "{op:?}: a full disk is told as {e:?}");
        }
        e => panic!("{op:?} failed with {errno}: {e:?}"),
    }
}

fn options() -> PutOptions {
    PutOptions::map("k").threads(1)
}

#[test]
fn a_failing_put_keeps_the_old_version() {
    each_operation(|nth, errno, lasts| {
        let scratch = Scratch::new();
        scratch.put("m", &numbered(40, 0));
        let (faulty, store) = stores(&scratch);
        let begun = faulty.log().len();
        faulty.fail_nth(nth, None, errno, lasts);
        let result = put(&store, "m", &numbered(50, 1000), options());
        faulty.heal();
        let failed = faulty.failed();
        let dataset = scratch.path().join("m");

        let reopened = Store::open(scratch.path()).unwrap();
        let map = reopened.map("m").unwrap();
        assert!(reopened.verify("m").unwrap().is_ok());
        let version = map.version();
        match &result {
            Ok(published) => {
                assert_eq!((version, *published), (2, 2));
                // Only what does not matter may fail unheard: removing a temporary name, and learning what is left over.
                assert!(failed.iter().all(|op| is_harmless(*op, errno)), "{failed:?}");
            }
            Err(e) => {
                assert_fits(e, errno, failed[0]);
                if version == 2 {
                    // Visible, and reported all the same: only if the sync after the link failed.
                    assert!(
                        faulty.log()[begun..].iter().any(|(op, _)| *op == Op::Link) && failed.contains(&Op::SyncDir)
                    );
                }
                if lasts == Lasts::Once {
                    // The failed writer could tidy up itself.
                    assert_tidy(&dataset, version as usize, version as usize);
                }
            }
        }
        if version == 2 {
            assert_numbered(&map, 50, 1000)
        } else {
            assert_numbered(&map, 40, 0)
        }

        let next = scratch.put("m", &numbered(60, 2000));
        assert_eq!(next, version + 1);
        assert_numbered(&scratch.store.map("m").unwrap(), 60, 2000);
        assert_tidy(&dataset, next as usize, next as usize);
        !failed.is_empty()
    });
}

#[test]
fn a_failing_first_put_leaves_no_dataset() {
    each_operation(|nth, errno, lasts| {
        let scratch = Scratch::new();
        let (faulty, store) = stores(&scratch);
        faulty.fail_nth(nth, None, errno, lasts);
        let result = put(&store, "m", &numbered(20, 0), options());
        faulty.heal();
        let failed = faulty.failed();
        let there = scratch.store.contains("m").unwrap();
        match &result {
            Ok(_) => assert!(there && failed.iter().all(|op| is_harmless(*op, errno)), "{failed:?}"),
            Err(e) => {
                assert_fits(e, errno, failed[0]);
                assert!(!there || failed.contains(&Op::SyncDir), "{failed:?}");
            }
        }
        let before = u64::from(there);
        assert_eq!(scratch.put("m", &numbered(30, 5)), before + 1);
        assert_numbered(&scratch.store.map("m").unwrap(), 30, 5);
        assert_tidy(&scratch.path().join("m"), before as usize + 1, before as usize + 1);
        !failed.is_empty()
    });
}

#[test]
fn a_failing_rollback_keeps_the_newest_version() {
    each_operation(|nth, errno, lasts| {
        let scratch = Scratch::new();
        scratch.put("m", &numbered(10, 0));
        scratch.put("m", &numbered(20, 100));
        let (faulty, store) = stores(&scratch);
        faulty.fail_nth(nth, None, errno, lasts);
        let result = store.rollback("m", 1);
        faulty.heal();
        let failed = faulty.failed();
        let map = scratch.store.map("m").unwrap();
        match map.version() {
            2 => assert_numbered(&map, 20, 100),
            3 => assert_numbered(&map, 10, 0),
            v => panic!("version {v}"),
        }
        if let Err(e) = &result {
            assert_fits(e, errno, failed[0]);
            assert!(map.version() == 2 || failed.contains(&Op::SyncDir), "{failed:?}");
        } else {
            assert_eq!(map.version(), 3);
        }
        scratch.put("m", &numbered(5, 0));
        assert_tidy(&scratch.path().join("m"), map.version() as usize + 1, 3);
        !failed.is_empty()
    });
}

#[test]
fn a_failing_gc_removes_no_more_than_it_should() {
    each_operation(|nth, errno, lasts| {
        let scratch = Scratch::new();
        for version in 1..=3 {
            scratch.put("m", &numbered(10, version));
        }
        let (faulty, store) = stores(&scratch);
        faulty.fail_nth(nth, None, errno, lasts);
        let result = store.gc("m", 1);
        faulty.heal();
        let failed = faulty.failed();
        if let Err(e) = &result {
            assert_fits(e, errno, failed[0]);
        } else {
            let left: Vec<u64> = scratch.store.versions("m").unwrap().iter().map(|v| v.version).collect();
            assert_eq!(left, [3], "it says that it is done");
        }
        for version in scratch.store.versions("m").unwrap() {
            let map = scratch.store.map_at("m", version.version).unwrap();
            assert_numbered(&map, 10, version.version as i64);
        }
        assert_numbered(&scratch.store.map("m").unwrap(), 10, 3);
        scratch.store.gc("m", 1).unwrap();
        assert_tidy(&scratch.path().join("m"), 1, 1);
        !failed.is_empty()
    });
}

#[test]
fn a_failing_drop_removes_all_or_nothing() {
    each_operation(|nth, errno, lasts| {
        let scratch = Scratch::new();
        scratch.put("m", &numbered(10, 0));
        scratch.put("other", &numbered(1, 0));
        let (faulty, store) = stores(&scratch);
        faulty.fail_nth(nth, None, errno, lasts);
        let result = store.drop_dataset("m");
        faulty.heal();
        let failed = faulty.failed();
        if scratch.store.contains("m").unwrap() {
            assert_fits(&result.unwrap_err(), errno, failed[0]);
            assert_numbered(&scratch.store.map("m").unwrap(), 10, 0);
            scratch.store.drop_dataset("m").unwrap();
        } else {
            // An error says that it is there, unless nothing works any more.
            assert!(result.is_ok() || lasts == Lasts::ForEver, "call {nth}: {result:?}");
            assert!(!scratch.path().join("m").exists());
            scratch.store.gc("other", 1).unwrap();
        }
        let left: Vec<String> = tree(&scratch.path()).into_iter().filter(|n| !n.starts_with("other")).collect();
        assert_eq!(left, ["pheon.json"]);
        !failed.is_empty()
    });
}

#[test]
fn a_failing_creation_leaves_no_half_store() {
    each_operation(|nth, errno, lasts| {
        let dir = temporary_dir();
        let path = dir.path().join("new/store");
        let faulty = FaultFs::new(pheon_os::fs::real());
        faulty.fail_nth(nth, None, errno, lasts);
        let result = Store::open_with(&path, Arc::new(faulty.clone()));
        let failed = faulty.failed();
        faulty.heal();
        match result {
            Ok(_) => assert!(failed.iter().all(|op| is_harmless(*op, errno)), "{failed:?}"),
            Err(e) => assert_fits(&e, errno, failed[0]),
        }
        let store = Store::open(&path).unwrap();
        put(&store, "m", &numbered(3, 0), options()).unwrap();
        assert_numbered(&store.map("m").unwrap(), 3, 0);
        !failed.is_empty()
    });
}

#[test]
fn reading_reports_the_system_error_and_calls_nothing_corrupt() {
    each_operation(|nth, errno, lasts| {
        let scratch = Scratch::new();
        scratch.put("m", &numbered(10, 0));
        let (faulty, store) = stores(&scratch);
        faulty.fail_nth(nth, None, errno, lasts);
        let result = store.map("m").and_then(|map| map.get_many(&arrow_array::StringArray::from(vec!["key-1"])));
        let warmed = store.warm("m").map(drop);
        let failed = faulty.failed();
        match result.map(drop).and(warmed) {
            Ok(()) => assert!(failed.iter().all(|op| errno == EINTR && op.is_restarted()), "{failed:?}"),
            Err(ReadError::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(errno)),
            Err(e) => panic!("{failed:?}: {e}"),
        }
        !failed.is_empty()
    });
}

#[test]
fn lookups_make_no_file_operation() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(100, 0));
    let (faulty, store) = stores(&scratch);
    let map = store.map("m").unwrap();
    faulty.fail_nth(1, None, EIO, Lasts::ForEver);
    let before = faulty.calls();
    assert_numbered(&map, 100, 0);
    map.prefix(b"key-1").unwrap().to_batch().unwrap();
    assert_eq!(faulty.calls(), before);
}

/// The order that docs/format.md section 4 prescribes, as the file system saw it.
#[test]
fn publication_syncs_in_the_prescribed_order() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(40, 0));
    let (faulty, store) = stores(&scratch);
    let begun = faulty.log().len();
    put(&store, "m", &numbered(50, 0), options()).unwrap();
    let dataset = scratch.path().join("m");
    let name = |path: &Path| {
        let relative = path.strip_prefix(&dataset).unwrap_or(path).to_str().unwrap().to_owned();
        match relative.rsplit_once('/') {
            _ if relative.is_empty() => "dataset",
            Some((_, "data.arrow")) => "data",
            Some((_, "index.arrow")) => "index",
            _ if relative.ends_with(".json") => "manifest",
            _ => "folder",
        }
    };
    let log: Vec<(Op, &str)> = faulty.log()[begun..]
        .iter()
        .filter(|(op, _)| matches!(op, Op::Sync | Op::SyncDir | Op::Rename | Op::Link))
        .map(|(op, path)| (*op, name(path)))
        .collect();
    let files = log.iter().position(|(op, _)| *op == Op::SyncDir).unwrap();
    let mut synced: Vec<&str> = log[..files].iter().map(|(_, n)| *n).collect();
    synced.sort_unstable();
    assert_eq!(synced, ["data", "index"]);
    let rest = [
        (Op::SyncDir, "folder"),
        (Op::Rename, "folder"),
        (Op::SyncDir, "dataset"),
        (Op::Sync, "manifest"),
        (Op::Link, "manifest"),
        (Op::SyncDir, "dataset"),
    ];
    assert_eq!(log[files..], rest);
}

/// What is done to a map of twenty entries that were put and ten that were appended.
#[derive(Debug, Clone, Copy)]
enum Change {
    Append,
    Upsert,
    Delete,
    Compact,
}

/// Whatever fails in a change: the version before it or the one after it is there, whole, and the next change tidies up.
#[test]
fn a_failing_change_keeps_the_old_rows_or_shows_the_new() {
    let reader = |batch: RecordBatch| RecordBatchIterator::new([Ok(batch.clone())], batch.schema());
    let entry = |i: usize, value: i64| {
        let keys = StringArray::from(vec![format!("key-{i}")]);
        entries(Arc::new(keys), Arc::new(Int64Array::from(vec![value])))
    };
    let change = |store: &Store, change: Change, options: ChangeOptions| match change {
        Change::Append => store.append("m", reader(entry(30, 30)), options).map(drop),
        Change::Upsert => store.upsert("m", reader(entry(7, -7)), options).map(drop),
        Change::Delete => store.delete("m", &StringArray::from(vec!["key-7"]), options).map(drop),
        Change::Compact => store.compact("m", options).map(drop),
    };
    for what in [Change::Append, Change::Upsert, Change::Delete, Change::Compact] {
        each_operation(|nth, errno, lasts| {
            let scratch = Scratch::new();
            scratch.put("m", &numbered(20, 0));
            let (faulty, store) = stores(&scratch);
            for i in 20..30 {
                let options = ChangeOptions::default().compact(false);
                scratch.store.append("m", reader(entry(i, i as i64)), options).unwrap();
            }
            let before = scratch.store.map("m").unwrap();
            faulty.fail_nth(nth, None, errno, lasts);
            // Merging small segments afterwards fails as well, and then must not matter.
            let result = change(&store, what, ChangeOptions::default());
            faulty.heal();
            let failed = faulty.failed();
            assert!(scratch.store.verify("m").unwrap().is_ok());
            let map = scratch.store.map("m").unwrap();
            let seven = map.get("key-7").unwrap().map(|v| format!("{v:?}"));
            let (changed, rows) = match what {
                Change::Append => (map.contains("key-30").unwrap(), 31),
                Change::Upsert => (seven.as_deref() == Some("Int(-7)"), 30),
                Change::Delete => (seven.is_none(), 29),
                Change::Compact => (map.info().segments == 1, 30),
            };
            assert_eq!(map.len(), if changed { rows } else { 30 }, "{what:?}");
            assert_numbered_but(&map, 30, &["key-7"]);
            assert_numbered(&before, 30, 0);
            match &result {
                Ok(()) => assert!(changed, "{what:?}: {failed:?}"),
                Err(e) => {
                    assert_fits(e, errno, failed[0]);
                    assert!(!changed || failed.contains(&Op::SyncDir), "{what:?}: {failed:?}");
                }
            }
            // The next writer finds what is left over, and what it finds it clears.
            change(&scratch.store, Change::Compact, ChangeOptions::default().retain(Retention::newest(1))).unwrap();
            assert_tidy(&scratch.path().join("m"), 1, 1);
            assert_eq!(scratch.store.map("m").unwrap().len(), if changed { rows } else { 30 });
            !failed.is_empty()
        });
    }
}

/// Asserts the entries that [`numbered`] made from base 0, leaving some out.
#[track_caller]
fn assert_numbered_but(map: &pheon::Map, n: usize, but: &[&str]) {
    for i in 0..n {
        let key = format!("key-{i}");
        if !but.contains(&key.as_str()) {
            let found = map.get(key.as_str()).unwrap();
            assert!(matches!(found, Some(pheon::Value::Int(v)) if v == i as i64), "{key}: {found:?}");
        }
    }
}
