//! Single flipped bits in the files of a map that are read after a boot: told, or of no consequence. Never another value, and
//! never a transaction less than what was synced.

use std::fs;
use std::path::Path;

use pheon_live::{LiveError, LiveMap, LiveOptions, Location};

use crate::boots::after_a_boot;
use crate::scratch::{all, delete, files_dir, locked, put};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Bytes of CTRL before the mutex, whose bytes are made anew.
const CTRL_BYTES: usize = 448;
/// What is written once: magic, format, uuid; limits, flags and their checksum. Between them is the boot's id.
const CTRL_FIXED: [std::ops::Range<usize>; 2] = [0..32, 48..96];
/// Both states of SYNC.
const SYNC_HALVES: [usize; 2] = [0, 4096];
const SYNC_BYTES: usize = 72;

struct Case {
    store: tempfile::TempDir,
    from: Location,
    to: Location,
    /// After each transaction, from what was synced on.
    states: Vec<Entries>,
    log_end: usize,
    synced_end: usize,
}

impl Case {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let store = if memory.is_dir() { tempfile::TempDir::new_in(memory) } else { tempfile::TempDir::new() }.unwrap();
        let [from, to] = ["one", "two"].map(|name| {
            fs::create_dir(store.path().join(name)).unwrap();
            Location::Store { path: store.path().join(name), name: "m".to_owned() }
        });
        let map = LiveMap::open(&from, &LiveOptions::default()).unwrap();
        for key in ["a", "b", "c"] {
            put(&map, key.as_bytes(), format!("value of {key}").as_bytes()).unwrap();
        }
        put(&map, b"a", b"again").unwrap();
        delete(&map, b"b");
        locked(&map, || map.sync().unwrap());
        let mut states = vec![all(&map)];
        let synced_end = end_of(&map);
        for (key, value) in [("d", "later"), ("c", "later too")] {
            put(&map, key.as_bytes(), value.as_bytes()).unwrap();
            states.push(all(&map));
        }
        let log_end = end_of(&map);
        Self { store, from, to, states, log_end, synced_end }
    }

    /// What is there after a boot, if one bit of a file was flipped meanwhile.
    fn flipped(&self, name: &str, at: usize, bit: usize) -> Result<Entries, LiveError> {
        after_a_boot(&self.from, &self.to);
        let folder = if name == "CTRL" { self.to.dir().unwrap() } else { files_dir(&self.to) };
        let path = folder.join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let map = LiveMap::attach(&self.to, true)?;
        let found = all(&map);
        put(&map, b"new", b"1").unwrap();
        assert_eq!(map.get(b"new")?.as_deref(), Some(&b"1"[..]), "{name} {at} {bit}: it does not go on working");
        Ok(found)
    }
}

/// Where the log ends: records of entries that are gone count, too.
fn end_of(map: &LiveMap) -> usize {
    let log = fs::read(files_dir(map.location()).join("log-0")).unwrap();
    usize::try_from(u64::from_le_bytes(log[24..32].try_into().unwrap())).unwrap()
}

#[track_caller]
fn corrupt(found: Result<Entries, LiveError>, place: &str) {
    assert!(matches!(found, Err(LiveError::Corrupt { .. })), "{place}: {found:?}");
}

/// `bits` of a byte at an offset.
fn check(bits: impl Fn(usize) -> Vec<usize>) -> u32 {
    let case = Case::new();
    assert_eq!(case.states.len(), 3);
    let newest = case.states.last().unwrap();
    let mut flips = 0;
    for at in 0..CTRL_BYTES {
        for bit in bits(at) {
            let (found, place) = (case.flipped("CTRL", at, bit), format!("CTRL {at} {bit}"));
            flips += 1;
            if CTRL_FIXED.iter().any(|fixed| fixed.contains(&at)) {
                corrupt(found, &place);
            } else {
                assert_eq!(&found.unwrap(), newest, "{place}");
            }
        }
    }
    for at in SYNC_HALVES.into_iter().flat_map(|half| half..half + SYNC_BYTES) {
        for bit in bits(at) {
            flips += 1;
            // The other half is an older state, from which the log leads to the same.
            match case.flipped("SYNC", at, bit) {
                Ok(found) => assert_eq!(&found, newest, "SYNC {at} {bit}"),
                Err(e) => assert!(matches!(e, LiveError::Corrupt { .. }), "SYNC {at} {bit}: {e:?}"),
            }
        }
    }
    let mut record = 64;
    for at in 0..case.log_end {
        let log = fs::read(files_dir(&case.from).join("log-0")).unwrap();
        if at == record + u32::from_le_bytes(log[record..record + 4].try_into().unwrap()) as usize {
            record = at;
        }
        for bit in bits(at) {
            // docs/live.md: the flags "aborted" and "last" are set after the checksum is made.
            if at == record + 22 && [2, 3].contains(&bit) {
                continue;
            }
            flips += 1;
            let place = format!("log {at} {bit} of the record at {record}");
            match case.flipped("log-0", at, bit) {
                Ok(found) => assert!(case.states.contains(&found), "{place}: {found:?}"),
                Err(e) => assert!(matches!(e, LiveError::Corrupt { .. }) && at < case.synced_end, "{place}: {e:?}"),
            }
        }
    }
    drop(case.store);
    flips
}

#[test]
fn a_flipped_bit_in_each_byte() {
    assert!(check(|at| vec![at * 5 % 8]) > 900);
}

#[test]
#[ignore = "half a minute: `make test-long`"]
fn every_flipped_bit() {
    assert!(check(|_| (0..8).collect()) > 8 * 900);
}
