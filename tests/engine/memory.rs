//! Warming, locking and what datasets cost.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use pheon::{MemoryScope, PutOptions, WarmOptions};

use crate::scratch::{Scratch, numbered, put};

/// What this process has locked, in bytes.
fn locked_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// All in one test: what is locked belongs to the process.
#[test]
fn a_lock_lasts_as_long_as_it_should() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    put(store, "m", &numbered(5_000, 0), PutOptions::map("k")).unwrap();
    let options = WarmOptions::default().lock(true);
    let report = store.warm_with("m", &options).unwrap();
    if report.lock_refusal.is_some() {
        assert_eq!((report.locked_bytes, locked_bytes()), (0, 0), "{report:?}"); // a machine that allows nothing
        return;
    }
    assert_eq!((report.locked_bytes, report.version), (report.file_bytes, 1), "{report:?}");
    let first = locked_bytes();
    assert!((report.file_bytes..report.file_bytes + 2 * 4096).contains(&first), "{first}");
    // Again, and without a lock: it stays, once.
    for options in [options.clone(), WarmOptions::default()] {
        let again = store.clone().warm_with("m", &options).unwrap();
        assert_eq!((again.locked_bytes, locked_bytes()), (report.file_bytes, first));
    }
    // Another version takes its place.
    put(store, "m", &numbered(50, 0), PutOptions::map("k")).unwrap();
    assert_eq!(store.warm("m").unwrap().locked_bytes, 0);
    assert_eq!(locked_bytes(), first);
    let newer = store.warm_with("m", &options).unwrap();
    assert_eq!((newer.version, newer.locked_bytes), (2, newer.file_bytes));
    assert!(locked_bytes() < first);
    // A second dataset beside it; giving up is for both, and for all clones.
    put(store, "n", &numbered(50, 0), PutOptions::map("k")).unwrap();
    assert!(store.warm_with("n", &options).unwrap().locked_bytes > 0);
    store.clone().unlock();
    assert_eq!(locked_bytes(), 0);
    // The last clone takes it along.
    let other = pheon::Store::open_read_only(store.path()).unwrap();
    let clone = other.clone();
    other.warm_with("m", &options).unwrap();
    drop(other);
    assert!(locked_bytes() > 0);
    drop(clone);
    assert_eq!(locked_bytes(), 0);
}

#[test]
fn warming_stops_when_asked() {
    let (scratch, _map) = Scratch::with_map(&numbered(5_000, 0));
    let report = scratch.store.warm_with("m", &WarmOptions::default().lock(true).cancel(|| true)).unwrap();
    assert!(report.interrupted && report.locked_bytes == 0, "{report:?}");
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let options = WarmOptions::default().lock(true).huge(false).cancel(|| ASKED.fetch_add(1, Ordering::Relaxed) > 3);
    let report = scratch.store.warm_with("m", &options).unwrap();
    assert!(report.interrupted && report.locked_bytes == 0, "{report:?}"); // amid locking: nothing stays
    let report = scratch.store.warm("m").unwrap();
    assert!(!report.interrupted);
    assert_eq!(report.resident_bytes, Some(report.file_bytes));
}

#[test]
fn older_versions_are_counted_once() {
    let scratch = Scratch::new();
    let store = &scratch.store;
    let memory = || store.memory("m").unwrap();
    let sizes = RefCell::new(Vec::new());
    for n in [100, 20_000, 3_000] {
        put(store, "m", &numbered(n, 0), PutOptions::map("k")).unwrap();
        let now = memory();
        assert_eq!(now.older_versions, sizes.borrow().len() as u64);
        assert_eq!(now.older_on_disk_bytes, sizes.borrow().iter().sum::<u64>());
        sizes.borrow_mut().push(now.on_disk_bytes);
    }
    let sizes = sizes.into_inner();
    store.rollback("m", 2).unwrap(); // 4 shares with 2
    assert_eq!((memory().on_disk_bytes, memory().older_on_disk_bytes), (sizes[1], sizes[0] + sizes[2]));
    store.rollback("m", 1).unwrap(); // 5 shares with 1, 4 with 2
    assert_eq!((memory().older_versions, memory().older_on_disk_bytes), (4, sizes[1] + sizes[2]));
    store.gc("m", 1).unwrap();
    assert_eq!((memory().older_versions, memory().older_on_disk_bytes), (0, 0));
}

#[test]
fn measuring_is_not_mapping() {
    let scratch = Scratch::new();
    put(&scratch.store, "m", &numbered(5_000, 0), PutOptions::map("k")).unwrap();
    let before = scratch.store.memory("m").unwrap();
    assert_eq!((before.mapped_by_processes, before.process_pss_bytes), (Some(0), 0));
    let map = scratch.store.map("m").unwrap();
    assert!(map.table().to_batch().unwrap().num_rows() == 5_000);
    let now = scratch.store.memory("m").unwrap();
    assert_eq!(now.mapped_by_processes, Some(1));
    assert!(now.process_pss_bytes > 0 && now.process_page_table_bytes > Some(0), "{now:?}");
    assert!(now.process_page_table_bytes < Some(now.process_page_table_total_bytes), "{now:?}");
    let names = ["gone".to_owned(), "m".to_owned()];
    let all = scratch.store.memory_of(&names, MemoryScope::AllProcesses).unwrap();
    assert_eq!((all.len(), all[0].process_pss_bytes), (1, now.process_pss_bytes));
}
