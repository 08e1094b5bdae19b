//! Every file operation fails once: nothing is lost, and nothing half done is seen.

use std::sync::Arc;

use pheon_live::{Change, LiveError, LiveMap, LiveOptions, Location};
use pheon_os::fs::fault::{self, FaultFs, Lasts, Op};
use pheon_os::fs::real;

use crate::disk::Disk;
use crate::scratch::{all, files_dir, locked, put};

const IO_FAILURE: i32 = 5;
const NO_SPACE: i32 = 28;
const NO_QUOTA: i32 = 122;

/// Kinds of failure, and how far one call that fails is from the next that does.
fn kinds_of_failure() -> impl Iterator<Item = (i32, Lasts, u64)> {
    fault::kinds([1, 2, 2, 3, 3, 3, 4, 4, 5])
}

#[track_caller]
fn assert_fits(error: &LiveError, errno: i32) {
    let cause = match error {
        LiveError::NotDurable { cause } => cause,
        other => other,
    };
    let (is_full, source) = match cause {
        LiveError::Full { source: Some(source), .. } => (true, source),
        LiveError::Io { source, .. } => (false, source),
        other => panic!("{errno}: {other:?}"),
    };
    assert_eq!((is_full, source.raw_os_error()), (matches!(errno, NO_SPACE | NO_QUOTA), Some(errno)), "{error:?}");
}

type Call = fn(&LiveMap) -> Result<(), LiveError>;
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

const LARGE: Call = large;

/// What a call is called, whether the map is durable, what is done before, and the calls whose operations fail.
const CASES: &[(&str, bool, &[Call], &[Call])] = &[
    ("durable writes", true, &[], &[small, small]),
    ("a larger log", false, &[small], &[large, large]),
    ("a larger log, durable", true, &[small], &[large, large]),
    ("a larger index", false, &[small], &[many]),
    ("dropping chunks", false, &[LARGE; 12], &[LARGE; 6]),
    ("dropping chunks, durable", true, &[LARGE; 12], &[LARGE; 3]),
    ("sync", false, &[small, large, large], &[LiveMap::sync]),
    ("unlink", false, &[small, large], &[LiveMap::unlink]),
];

fn small(map: &LiveMap) -> Result<(), LiveError> {
    map.put(format!("small {}", map.sequence()).as_bytes(), 0, &[7; 100])
}

fn large(map: &LiveMap) -> Result<(), LiveError> {
    map.put(b"large", 0, &vec![map.sequence() as u8; 60_000])
}

fn many(map: &LiveMap) -> Result<(), LiveError> {
    let keys: Vec<_> = (0..1500u32).map(u32::to_le_bytes).collect();
    map.apply(keys.iter().map(|key| Change::Put { key, meta: 0, value: b"" }))
}

/// A map that was made and changed without failures.
fn prepared(dir: &std::path::Path, durable: bool, before: &[Call]) -> Location {
    let location = Location::Store { path: dir.to_owned(), name: "m".to_owned() };
    let map = LiveMap::create(&location, &LiveOptions { durable, ..LiveOptions::default() }).unwrap();
    put(&map, b"first", b"1").unwrap();
    before.iter().for_each(|call| locked(&map, || call(&map)).unwrap());
    location
}

/// The entries, unless the map is gone.
fn entries(location: &Location) -> Option<Entries> {
    match LiveMap::attach(location, true) {
        Ok(map) => Some(all(&map)),
        Err(LiveError::NotFound { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Unlinks a map, if it is there; nothing is left.
fn clear(location: &Location, dir: &std::path::Path) {
    match LiveMap::attach(location, true) {
        Ok(map) => map.unlink().unwrap(),
        Err(LiveError::NotFound { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    // Whoever makes a map removes what others left.
    LiveMap::create(location, &LiveOptions::default()).unwrap().unlink().unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.join(".live")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_file_operation_of_every_call_fails_in_turn() {
    for (what, durable, before, calls) in CASES {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let location = prepared(dir.path(), *durable, before);
        let map = LiveMap::attach(&location, true).unwrap();
        let mut states = vec![Some(all(&map))];
        for call in *calls {
            map.lock(None, &|| false).unwrap();
            call(&map).unwrap();
            let _ = map.unlock();
            states.push(entries(&location));
        }
        drop(map);
        let mut operations = 0;
        for (errno, lasts, step) in kinds_of_failure() {
            for nth in (1..).step_by(step as usize) {
                let dir = tempfile::tempdir_in("/dev/shm").unwrap();
                let location = prepared(dir.path(), *durable, before);
                let faulty = FaultFs::new(real());
                let map = LiveMap::attach_with(Arc::new(faulty.clone()), &location, true).unwrap();
                faulty.fail_nth(nth, None, errno, lasts);
                let (mut done, mut made) = (0, false);
                for call in *calls {
                    map.lock(None, &|| false).unwrap();
                    let result = call(&map);
                    let _ = map.unlock();
                    match result {
                        Ok(()) => done += 1,
                        Err(error) => {
                            assert_fits(&error, errno);
                            made = matches!(error, LiveError::NotDurable { .. });
                            break;
                        }
                    }
                }
                faulty.heal();
                let failed = faulty.failed();
                let now = entries(&location);
                let allowed = &states[done + usize::from(made)..states.len().min(done + 2)];
                assert!(allowed.contains(&now), "{what}, call {nth} failed with {errno} {lasts:?}: {failed:?}");
                if *durable && done < calls.len() {
                    // An error says whether the change is made.
                    assert_eq!(now == states[done + 1], made, "{what}, call {nth} failed with {errno}: {failed:?}");
                }
                if let Some(mut now) = now {
                    // The next one goes on.
                    put(&map, b"next", b"1").unwrap_or_else(|error| panic!("{what}, {nth}, {errno}: {error}"));
                    locked(&map, || map.sync()).unwrap();
                    now.push((b"next".to_vec(), b"1".to_vec()));
                    assert_eq!(entries(&location), Some(now));
                    // What could not be removed then stays for whoever repairs or unlinks the map.
                    if !failed.contains(&Op::Unlink) {
                        assert_no_leftovers(&map, &location);
                    }
                }
                drop(map);
                clear(&location, dir.path());
                operations += failed.len().min(1);
                if failed.is_empty() {
                    break;
                }
            }
        }
        assert!(operations > 5, "{what}: only {operations} operations: the faults do not reach the map");
    }
}

#[test]
fn every_file_operation_of_opening_and_rebuilding_fails_in_turn() {
    // Durable or not; of the latter nothing but the files tells what came after the last sync.
    for (is_after_boot, durable) in [(false, true), (true, true), (true, false)] {
        for (errno, lasts, step) in kinds_of_failure() {
            for nth in (1..).step_by(step as usize) {
                let dir = tempfile::tempdir_in("/dev/shm").unwrap();
                let store = dir.path().join("store");
                std::fs::create_dir(&store).unwrap();
                let location = prepared(&store, durable, &[small, large, large, small]);
                let expected = entries(&location);
                // Behind the end of the log: what a power cut brought back.
                let stray = files_dir(&location).join("log-9");
                if is_after_boot {
                    assert!(crate::power_cuts::boot(dir.path()));
                    std::fs::write(&stray, b"").unwrap();
                }
                let faulty = FaultFs::new(real());
                faulty.fail_nth(nth, None, errno, lasts);
                let attached = LiveMap::attach_with(Arc::new(faulty.clone()), &location, true);
                faulty.heal();
                let failed = faulty.failed();
                match attached {
                    Ok(map) => {
                        assert_eq!(Some(all(&map)), expected, "{failed:?}");
                        assert!(!stray.exists(), "{failed:?}");
                    }
                    Err(error) => assert_fits(&error, errno),
                }
                assert_eq!(entries(&location), expected, "call {nth} failed with {errno}: {failed:?}");
                clear(&location, &store);
                if failed.is_empty() {
                    assert!(nth > if is_after_boot { 20 } else { 3 }, "only {nth} operations");
                    break;
                }
            }
        }
    }
}

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
    for (errno, lasts, step) in kinds_of_failure() {
        make_with_failures(dir.path(), &location, errno, lasts, step as usize);
    }
}

fn make_with_failures(dir: &std::path::Path, location: &Location, errno: i32, lasts: Lasts, step: usize) {
    for nth in (1..).step_by(step) {
        let faulty = FaultFs::new(real());
        faulty.fail_nth(nth, None, errno, lasts);
        let made = LiveMap::create_with(Arc::new(faulty.clone()), location, &LiveOptions::default());
        faulty.heal();
        let exists = location.dir().unwrap().exists();
        match made {
            Ok(map) => {
                // Beyond the last call, or one whose failure does not matter.
                put(&map, b"a", b"1").unwrap();
                map.unlink().unwrap();
                if faulty.failed().is_empty() {
                    assert!(nth > 10);
                    break;
                }
            }
            // Failures after the rename leave a whole map.
            Err(error) => {
                assert_fits(&error, errno);
                if exists {
                    LiveMap::attach(location, true).unwrap().unlink().unwrap();
                }
            }
        }
        if lasts == Lasts::ForEver {
            // What could not be removed then, the next one removes.
            LiveMap::create(location, &LiveOptions::default()).unwrap().unlink().unwrap();
        }
        let left: Vec<_> = std::fs::read_dir(dir.join(".live")).map(|dir| dir.collect()).unwrap_or_default();
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

/// By name, of a map that can be opened, of one that cannot, and of one whose boot is over.
#[test]
fn a_failing_removal_by_name_removes_all_or_nothing() {
    const BOOT: std::ops::Range<usize> = 32..48;
    for (errno, lasts, step) in kinds_of_failure() {
        for (what, damaged) in [("whole", 0..0), ("no map", 0..8), ("of another boot", BOOT)] {
            for nth in (1..).step_by(step as usize) {
                let dir = tempfile::tempdir_in("/dev/shm").unwrap();
                let location = prepared(dir.path(), false, &[small]);
                let ctrl = location.dir().unwrap().join("CTRL");
                let mut bytes = std::fs::read(&ctrl).unwrap();
                bytes[damaged.clone()].fill(1);
                std::fs::write(&ctrl, bytes).unwrap();
                let faulty = FaultFs::new(real());
                faulty.fail_nth(nth, None, errno, lasts);
                let done = LiveMap::remove_with(Arc::new(faulty.clone()), &location);
                faulty.heal();
                let failed = faulty.failed();
                let place = format!("{what}, call {nth} with {errno} {lasts:?}: {failed:?}");
                match &done {
                    Ok(()) => assert!(!location.exists().unwrap(), "{place}"),
                    Err(error) => {
                        assert_fits(error, errno);
                        assert!(location.exists().unwrap() || lasts == Lasts::ForEver, "{place}: gone, and {error}");
                    }
                }
                if location.exists().unwrap() {
                    if what != "no map" {
                        assert_eq!(entries(&location).unwrap().len(), 2, "{place}");
                    }
                    LiveMap::remove(&location).unwrap_or_else(|error| panic!("{place}: {error}"));
                }
                clear(&location, dir.path());
                if failed.is_empty() {
                    assert!(nth > 8, "{what}: only {nth} calls");
                    break;
                }
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
            // Killed before the first file of a view, or after it, or later.
            faulty.fail_nth(u64::from(i / 40 % 3) + 1, Some(Op::Unlink), IO_FAILURE, Lasts::ForEver);
        }
        if i % 40 == 25 {
            faulty.heal();
        }
        // New chunks, larger indexes, and dropped chunks.
        put(&map, b"hot", &[1; 100_000]).unwrap();
        let keys: Vec<_> = (0..50u32).map(|key| (i % 100 * 50 + key).to_le_bytes()).collect();
        locked(&map, || map.apply(keys.iter().map(|key| Change::Put { key, meta: 0, value: b"" })).unwrap());
    }
    assert!(faulty.calls_of(Op::Unlink) > 200 && map.info().unwrap().chunks < 50, "{:?}", map.info());
    assert_no_leftovers(&map, &location);
}

/// The map's folder has the files of its view and no others.
#[track_caller]
fn assert_no_leftovers(map: &LiveMap, location: &Location) {
    let entries = std::fs::read_dir(files_dir(location)).unwrap();
    let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    let counts = ["log-", "index-", "view-", "SYNC"].map(count);
    assert_eq!(counts, [map.info().unwrap().chunks, 1, 1, 1], "{names:?}");
    assert_eq!(counts.iter().sum::<usize>(), names.len(), "{names:?}");
}

/// The kernel takes for clean what it could not write, and tells of that once: to sync again without more would write nothing.
#[test]
fn what_a_failed_sync_did_not_write_the_next_one_does() {
    for durable in [false, true] {
        check_synced_again(durable);
    }
}

fn check_synced_again(durable: bool) {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Store { path: dir.path().to_owned(), name: "m".to_owned() };
    drop(LiveMap::create(&location, &LiveOptions { durable, ..LiveOptions::default() }).unwrap());
    let faulty = FaultFs::new(real());
    let disk = Disk::of(Arc::new(faulty.clone()), &location, 1);
    let map = LiveMap::attach_with(Arc::new(disk.clone()), &location, true).unwrap();
    let put_and_sync = |key: &[u8], value: &[u8]| {
        let done = put(&map, key, value);
        if durable { done } else { done.and_then(|_| locked(&map, || map.sync())) }
    };
    put_and_sync(b"key", &[7; 20_000]).unwrap();
    let log = files_dir(&location).join("log-0").canonicalize().unwrap();
    let dirty = move || dirty_kib(&log);
    // As the kernel would after an error.
    let clean = {
        let (log, dirty) = (files_dir(&location).join("log-0"), dirty.clone());
        move || {
            std::fs::File::open(&log).unwrap().sync_all().unwrap();
            dirty()
        }
    };
    if clean() > 0 {
        println!("skipped: here a file system in memory has what should be a disk");
        return;
    }
    let seen = Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX));
    let look = |seen: &Arc<std::sync::atomic::AtomicU64>| {
        let (seen, dirty) = (seen.clone(), dirty.clone());
        move || seen.store(dirty(), std::sync::atomic::Ordering::Relaxed)
    };
    faulty.fail_nth(1, Some(Op::SyncShared), IO_FAILURE, Lasts::Once);
    assert!(put_and_sync(b"key", &[8; 20_000]).is_err());
    faulty.heal();
    if dirty() < 20 {
        println!("skipped: here the kernel does not tell what is dirty");
        return;
    }
    assert_eq!(clean(), 0);
    disk.stop_at(1, look(&seen));
    put_and_sync(b"next", b"1").unwrap();
    assert!((40..u64::MAX).contains(&seen.load(std::sync::atomic::Ordering::Relaxed)), "{durable}: {seen:?} KiB");
    // Once is enough.
    disk.stop_at(1, look(&seen));
    put_and_sync(b"other", b"1").unwrap();
    assert!(seen.load(std::sync::atomic::Ordering::Relaxed) <= 8, "{durable}: {seen:?} KiB");
}

/// Where SYNC tells of all that there is, it alone is synced: who wrote it may have been killed before. Not after a failure.
#[test]
fn a_sync_with_nothing_new_is_short_unless_one_failed() {
    let dir = tempfile::tempdir().unwrap();
    let location = Location::Store { path: dir.path().to_owned(), name: "m".to_owned() };
    let faulty = FaultFs::new(real());
    let map = LiveMap::create_with(Arc::new(faulty.clone()), &location, &LiveOptions::default()).unwrap();
    put(&map, b"key", b"1").unwrap();
    let synced = || {
        let before = faulty.calls_of(Op::SyncShared);
        let done = locked(&map, || map.sync());
        (done.is_ok(), faulty.calls_of(Op::SyncShared) - before)
    };
    // The chunk and SYNC, then SYNC.
    assert_eq!([synced(), synced()], [(true, 2), (true, 1)]);
    faulty.fail_nth(1, Some(Op::SyncShared), IO_FAILURE, Lasts::Once);
    assert_eq!(synced(), (false, 1));
    faulty.heal();
    assert_eq!([synced(), synced()], [(true, 2), (true, 1)]);
}

/// KiB of this process's mappings of a file that are not on the disk yet.
fn dirty_kib(path: &std::path::Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut wanted, mut sum) = (false, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !first.ends_with(':') {
            wanted = line.ends_with(path.to_str().unwrap());
        } else if wanted && (first == "Shared_Dirty:" || first == "Private_Dirty:") {
            sum += words.next().unwrap().parse::<u64>().unwrap();
        }
    }
    sum
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
