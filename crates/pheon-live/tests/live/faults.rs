//! Every file operation fails once: nothing is lost, and nothing half done is seen.

use std::sync::Arc;

use pheon_live::{Change, LiveError, LiveMap, LiveOptions, Location};
use pheon_os::fs::fault::{FaultFs, Lasts, Op};
use pheon_os::fs::real;

use crate::disk::Disk;
use crate::scratch::{all, files_dir, locked, put};

const NO_SPACE: i32 = 28;
const IO_FAILURE: i32 = 5;

#[test]
fn a_failing_call_fails_the_transaction_and_the_next_one_works() {
    for errno in [NO_SPACE, IO_FAILURE] {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Store { path: dir.path().to_owned(), name: "m".to_owned() };
        let faulty = FaultFs::new(real());
        let map = LiveMap::create_with(Arc::new(faulty.clone()), &location, &LiveOptions::default()).unwrap();
        let mut expected = Vec::new();
        let mut failures = 0;
        for round in 0u32..400 {
            // Batches that need new chunks and larger indexes.
            let keys: Vec<_> = (0..20u32).map(|i| (round * 20 + i).to_le_bytes()).collect();
            let value = vec![round as u8; 1500];
            faulty.fail_nth(u64::from(round % 7) + 1, None, errno, Lasts::ForEver);
            let changes = keys.iter().map(|key| Change::Put { key, meta: 0, value: &value });
            let done = locked(&map, || map.apply(changes));
            faulty.heal();
            match done {
                Ok(()) => expected.extend(keys.iter().map(|key| (key.to_vec(), value.clone()))),
                Err(LiveError::Full { source: Some(_), .. }) if errno == NO_SPACE => failures += 1,
                Err(LiveError::Io { .. }) if errno == IO_FAILURE => failures += 1,
                Err(error) => panic!("{error}"),
            }
            assert_eq!(map.len(), expected.len() as u64, "round {round}");
        }
        assert!(failures > 10, "{failures}");
        assert_eq!(all(&map), expected);
        put(&map, b"last", b"1").unwrap();
        drop(map);
        assert_eq!(LiveMap::attach(&location, true).unwrap().len(), expected.len() as u64 + 1);
    }
}

#[test]
fn making_a_map_fails_whole() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Store { path: dir.path().to_owned(), name: "m".to_owned() };
    for nth in 1.. {
        let faulty = FaultFs::new(real());
        faulty.fail_nth(nth, None, NO_SPACE, Lasts::Once);
        let made = LiveMap::create_with(Arc::new(faulty.clone()), &location, &LiveOptions::default());
        faulty.heal();
        let exists = location.dir().unwrap().exists();
        match made {
            Ok(map) => {
                // Beyond the last call, or one whose failure does not matter.
                put(&map, b"a", b"1").unwrap();
                map.unlink().unwrap();
                if faulty.calls() < nth {
                    assert!(nth > 10);
                    break;
                }
            }
            // Failures after the rename leave a whole map.
            Err(_) if exists => LiveMap::attach(&location, true).unwrap().unlink().unwrap(),
            Err(_) => {}
        }
        let left: Vec<_> = std::fs::read_dir(dir.path().join(".live")).map(|dir| dir.collect()).unwrap_or_default();
        assert!(left.is_empty(), "call {nth} left {left:?}");
    }
}

#[test]
fn every_durable_write_that_is_acknowledged_is_on_the_disk_whatever_failed_before() {
    let options = LiveOptions { durable: true, ..LiveOptions::default() };
    let value = vec![1; 3000];
    for only in [None, Some(Op::CreateShared), Some(Op::MapShared), Some(Op::SyncShared), Some(Op::SyncDir)] {
        for nth in 1..12 {
            let dir = tempfile::tempdir().unwrap();
            let location = Location::Store { path: dir.path().to_owned(), name: "m".to_owned() };
            drop(LiveMap::create(&location, &options).unwrap());
            let faulty = FaultFs::new(real());
            let disk = Disk::of(Arc::new(faulty.clone()), &location, nth);
            let map = LiveMap::attach_with(Arc::new(disk.clone()), &location, true).unwrap();
            // Several chunks, most often with a failure when one is added.
            let mut acknowledged = Vec::new();
            for i in 0u32..60 {
                if i % 3 != 2 {
                    faulty.fail_nth(nth, only, IO_FAILURE, Lasts::Once);
                }
                if put(&map, &i.to_le_bytes(), &value).is_ok() {
                    acknowledged.push(i);
                }
                if i % 3 == 1 {
                    faulty.heal();
                }
            }
            drop(map);
            disk.boot();
            let map = LiveMap::attach(&location, true).unwrap();
            for i in acknowledged {
                assert!(map.contains(&i.to_le_bytes()).unwrap(), "{i}, with call {nth} of {only:?} failing");
            }
        }
    }
}

/// A writer that is killed after publishing a view does not remove what only the view before names.
#[test]
fn files_that_were_not_removed_are_removed_later() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Store { path: dir.path().to_owned(), name: "m".to_owned() };
    let faulty = FaultFs::new(real());
    let map = LiveMap::create_with(Arc::new(faulty.clone()), &location, &LiveOptions::default()).unwrap();
    for i in 0..400u32 {
        if i % 40 == 20 {
            faulty.fail_nth(1, Some(Op::Unlink), IO_FAILURE, Lasts::ForEver);
        }
        if i % 40 == 25 {
            faulty.heal();
        }
        // New chunks, larger indexes, and dropped chunks.
        put(&map, b"hot", &[1; 100_000]).unwrap();
        let keys: Vec<_> = (0..50u32).map(|key| (i % 100 * 50 + key).to_le_bytes()).collect();
        locked(&map, || map.apply(keys.iter().map(|key| Change::Put { key, meta: 0, value: b"" })).unwrap());
    }
    let info = map.info().unwrap();
    assert!(faulty.calls_of(Op::Unlink) > 200 && info.chunks < 50, "{info:?}");
    let mut names: Vec<_> = std::fs::read_dir(files_dir(&location))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("log-"))
        .collect();
    names.sort();
    assert!(
        matches!(&names[..], [sync, index, view] if sync == "SYNC" && index.starts_with("index-") && view.starts_with("view-")),
        "{names:?}"
    );
    assert_eq!(std::fs::read_dir(files_dir(&location)).unwrap().count(), names.len() + info.chunks);
}

#[test]
fn a_writer_that_was_stopped_leaves_the_next_map_of_that_name_alone() {
    let location = Location::Memory { name: format!("test-{}", pheon_os::process::random_id()), group: None };
    for nth in 1.. {
        drop(LiveMap::create(&location, &LiveOptions::default()).unwrap());
        let disk = Disk::of(real(), &location, nth);
        let map = LiveMap::attach_with(Arc::new(disk.clone()), &location, true).unwrap();
        let (unlinking, at) = (map.clone(), location.clone());
        disk.stop_at(nth, move || {
            unlinking.unlink().unwrap();
            put(&LiveMap::create(&at, &LiveOptions::default()).unwrap(), b"k", b"1").unwrap();
        });
        // Needs a chunk and a view.
        let done = put(&map, b"k", &[2; 70_000]);
        if !map.info().unwrap().unlinked {
            assert!(done.is_ok() && nth > 3, "{nth}");
            disk.stop_at(u64::MAX, || {});
            map.unlink().unwrap();
            break;
        }
        assert!(matches!(put(&map, b"k", b"3"), Err(LiveError::Unlinked { .. })), "stopped at call {nth}: {done:?}");
        drop(map);
        let next = LiveMap::attach(&location, true).unwrap();
        assert_eq!(next.get(b"k").unwrap().as_deref(), Some(&b"1"[..]), "stopped at call {nth}");
        next.unlink().unwrap();
    }
}
