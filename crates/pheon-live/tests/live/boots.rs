//! Maps in a store after a boot of the machine: the boot's id in CTRL is changed, which is all that tells.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use pheon_live::{LiveError, LiveMap, LiveOptions, Location};

use crate::behaviour::Random;
use crate::scratch::{all, delete, locked, put};

const BOOT_OFFSET: u64 = 32;

fn location(store: &Path) -> Location {
    Location::Store { path: store.to_owned(), name: "m".to_owned() }
}

/// Copies the map's files, as they are on the disk, into another store, as of an earlier boot.
fn after_a_boot(from: &Location, to: &Location) {
    let (from, to) = (from.dir().unwrap(), to.dir().unwrap());
    let _ = fs::remove_dir_all(&to);
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    fs::OpenOptions::new().write(true).open(to.join("CTRL")).unwrap().write_all_at(&[9; 16], BOOT_OFFSET).unwrap();
    // What an index has after a power cut is anything.
    for entry in fs::read_dir(&to).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("index-") {
            let bytes = fs::metadata(entry.path()).unwrap().len() as usize;
            fs::write(entry.path(), vec![0xa5; bytes]).unwrap();
        }
    }
}

fn random_changes(map: &LiveMap, random: &mut Random, count: u64) {
    for _ in 0..count {
        let key = format!("key {}", random.below(200)).into_bytes();
        if random.below(4) == 0 {
            delete(map, &key);
        } else {
            put(map, &key, &vec![random.below(256) as u8; random.below(3000) as usize]).unwrap();
        }
    }
}

#[test]
fn a_map_is_rebuilt_from_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (location(&dir.path().join("one")), location(&dir.path().join("two")));
    for store in ["one", "two"] {
        fs::create_dir(dir.path().join(store)).unwrap();
    }
    let map = LiveMap::open(&one, &LiveOptions::default()).unwrap();
    let mut random = Random(4711);
    for round in 0..8 {
        // Enough to drop chunks, in some rounds.
        random_changes(&map, &mut random, 1500 * (round % 3 + 1));
        after_a_boot(&one, &two);
        assert!(
            matches!(LiveMap::attach(&two, false), Err(LiveError::Corrupt { .. })),
            "it must be opened for writing"
        );
        let again = LiveMap::attach(&two, true).unwrap();
        assert_eq!(all(&again), all(&map), "round {round}");
        assert_eq!(again.len(), map.len());
        // It goes on working.
        put(&again, b"new", b"1").unwrap();
        delete(&again, b"key 7");
        random_changes(&again, &mut random, 500);
        let expected = all(&again);
        locked(&again, || again.sync().unwrap());
        drop(again);
        after_a_boot(&two, &one_more(dir.path()));
        assert_eq!(all(&LiveMap::attach(&one_more(dir.path()), true).unwrap()), expected, "round {round}");
    }
}

fn one_more(dir: &Path) -> Location {
    location(&dir.join("three"))
}

#[test]
fn what_was_not_synced_may_be_torn_and_what_was_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (location(&dir.path().join("one")), location(&dir.path().join("two")));
    fs::create_dir(dir.path().join("one")).unwrap();
    let map = LiveMap::open(&one, &LiveOptions::default()).unwrap();
    put(&map, b"synced", b"1").unwrap();
    locked(&map, || map.sync().unwrap());
    put(&map, b"later", b"2").unwrap();
    put(&map, b"last", b"3").unwrap();
    let log = two.dir().unwrap().join("log-0");
    let used = usize::try_from(map.info().unwrap().entry_bytes).unwrap() + 64;
    for torn in (64 + 56..used).step_by(8) {
        after_a_boot(&one, &two);
        // From here on nothing reached the disk.
        let mut bytes = fs::read(&log).unwrap();
        bytes[torn..].fill(0);
        fs::write(&log, bytes).unwrap();
        let entries = all(&LiveMap::attach(&two, true).unwrap());
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.as_slice()).collect();
        let expected: &[&[u8]] = match torn {
            120..176 => &[b"synced"],
            _ => &[b"synced", b"later"],
        };
        assert_eq!(keys, expected, "torn at {torn}");
    }
    // Damage before the synced end is told.
    after_a_boot(&one, &two);
    let mut bytes = fs::read(&log).unwrap();
    bytes[64 + 48] ^= 1;
    fs::write(&log, bytes).unwrap();
    assert!(matches!(LiveMap::attach(&two, true), Err(LiveError::Corrupt { .. })));
}

#[test]
fn a_transaction_without_its_end_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (location(&dir.path().join("one")), location(&dir.path().join("two")));
    fs::create_dir(dir.path().join("one")).unwrap();
    let map = LiveMap::open(&one, &LiveOptions::default()).unwrap();
    put(&map, b"a", b"1").unwrap();
    let changes = [b"a", b"b", b"c"].map(|key| pheon_live::Change::Put { key, meta: 0, value: b"2" });
    locked(&map, || map.apply(changes).unwrap());
    after_a_boot(&one, &two);
    let log = two.dir().unwrap().join("log-0");
    let mut bytes = fs::read(&log).unwrap();
    // Four records of 56 bytes: the last one of the transaction is missing.
    bytes[64 + 3 * 56..].fill(0);
    fs::write(&log, bytes).unwrap();
    assert_eq!(all(&LiveMap::attach(&two, true).unwrap()), [(b"a".to_vec(), b"1".to_vec())]);
}

#[test]
fn durable_writes_need_no_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (location(&dir.path().join("one")), location(&dir.path().join("two")));
    fs::create_dir(dir.path().join("one")).unwrap();
    let options = LiveOptions { durable: true, ..LiveOptions::default() };
    let map = LiveMap::open(&one, &options).unwrap();
    random_changes(&map, &mut Random(3), 300);
    after_a_boot(&one, &two);
    let again = LiveMap::attach(&two, true).unwrap();
    assert_eq!(all(&again), all(&map));
    assert!(again.info().unwrap().options.durable);
    let memory = Location::Memory { name: "never-made".to_owned(), group: None };
    assert!(matches!(LiveMap::create(&memory, &options), Err(LiveError::Options { .. })));
}
