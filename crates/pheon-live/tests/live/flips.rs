//! Single flipped bits in the files of a map that are read after a boot: told, or of no consequence. Never another value, and
//! never a transaction less than what was synced.

use std::fs;
use std::path::{Path, PathBuf};

use pheon_live::{Change, LiveError, LiveMap, LiveOptions, Location};

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
const CHUNKS: [&str; 2] = ["log-0", "log-1"];

struct Case {
    store: tempfile::TempDir,
    from: Location,
    to: Location,
    /// After each transaction, from what was synced on.
    states: Vec<Entries>,
    /// Each chunk's name, where its records end, and where those end that were synced.
    chunks: [(&'static str, usize, usize); 2],
}

impl Case {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let store = if memory.is_dir() { tempfile::TempDir::new_in(memory) } else { tempfile::TempDir::new() }.unwrap();
        let [from, to] = ["one", "two"].map(|name| {
            fs::create_dir(store.path().join(name)).unwrap();
            Location::Store { path: store.path().join(name), name: "m".to_owned() }
        });
        let map = LiveMap::open(&from, &LiveOptions { max_bytes: 1 << 20, ..LiveOptions::default() }).unwrap();
        for key in ["a", "b", "c"] {
            put(&map, key.as_bytes(), format!("value of {key}").as_bytes()).unwrap();
        }
        let two = [b"g", b"h"].map(|key| Change::Put { key, meta: 0, value: b"in one" });
        locked(&map, || map.apply(two).unwrap());
        put(&map, b"a", b"again").unwrap();
        delete(&map, b"b");
        let changes: [(&[u8], &[u8]); 2] = [(b"e", b"no"), (b"f", &[0; 1 << 20])];
        let aborted = changes.map(|(key, value)| Change::Put { key, meta: 0, value });
        assert!(matches!(locked(&map, || map.apply(aborted)), Err(LiveError::Full { .. })));
        locked(&map, || map.sync().unwrap());
        let mut states = vec![all(&map)];
        let synced_ends = CHUNKS.map(|name| end_of(&map, name));
        for (key, value) in [("d", "later"), ("c", "later too")] {
            put(&map, key.as_bytes(), value.as_bytes()).unwrap();
            states.push(all(&map));
        }
        let [first, second] = CHUNKS.map(|name| end_of(&map, name));
        assert!(first == synced_ends[0] && second > synced_ends[1], "all that was not synced is in the second chunk");
        let chunks = [(CHUNKS[0], first, first), (CHUNKS[1], second, synced_ends[1])];
        Self { store, from, to, states, chunks }
    }

    /// What is there after a boot, if one bit of a file was flipped meanwhile.
    fn flipped(&self, name: &str, at: usize, bit: usize) -> Result<Entries, LiveError> {
        self.damaged(name, &format!("{name} {at} {bit}"), |bytes| bytes[at] ^= 1 << bit)
    }

    fn damaged(&self, name: &str, place: &str, damage: impl FnOnce(&mut Vec<u8>)) -> Result<Entries, LiveError> {
        after_a_boot(&self.from, &self.to);
        let path = self.path(name);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let map = LiveMap::attach(&self.to, true)?;
        let found = all(&map);
        put(&map, b"new", b"1").unwrap();
        assert_eq!(map.get(b"new")?.as_deref(), Some(&b"1"[..]), "{place}: it does not go on working");
        Ok(found)
    }

    fn path(&self, name: &str) -> PathBuf {
        let folder = if name == "CTRL" { self.to.dir().unwrap() } else { files_dir(&self.to) };
        folder.join(name)
    }
}

/// Where a chunk's records end: those of entries that are gone count, too.
fn end_of(map: &LiveMap, chunk: &str) -> usize {
    let log = fs::read(files_dir(map.location()).join(chunk)).unwrap();
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
    for (name, end, synced_end) in case.chunks {
        for at in 0..end {
            for bit in bits(at) {
                flips += 1;
                let place = format!("{name} {at} {bit}");
                match case.flipped(name, at, bit) {
                    Ok(found) => assert!(case.states.contains(&found), "{place}: {found:?}"),
                    Err(e) => assert!(matches!(e, LiveError::Corrupt { .. }) && at < synced_end, "{place}: {e:?}"),
                }
            }
        }
    }
    drop(case.store);
    flips
}

/// A durable write is in the log before it is acknowledged, but SYNC is not written for each. What it does not tell of is cut off
/// where it is damaged.
#[test]
fn damage_of_all_but_the_newest_durable_writes_is_told() {
    const WRITES: usize = 600;
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["one", "two"].map(|name| {
        fs::create_dir(dir.path().join(name)).unwrap();
        Location::Store { path: dir.path().join(name), name: "m".to_owned() }
    });
    let map = LiveMap::open(&from, &LiveOptions { durable: true, ..LiveOptions::default() }).unwrap();
    for i in 0..WRITES {
        put(&map, format!("{i:03}").as_bytes(), b"value").unwrap();
    }
    const RECORD: usize = 48 + 8;
    for (i, is_told) in [(0, true), (5, true), (WRITES - 258, true), (WRITES - 1, false)] {
        after_a_boot(&from, &to);
        let path = files_dir(&to).join("log-0");
        let mut bytes = fs::read(&path).unwrap();
        bytes[64 + i * RECORD + 48 + 4] ^= 1;
        fs::write(path, bytes).unwrap();
        match LiveMap::attach(&to, true) {
            Ok(map) => assert!(!is_told && all(&map).len() == i, "write {i}"),
            Err(error) => assert!(is_told && matches!(error, LiveError::Corrupt { .. }), "write {i}: {error:?}"),
        }
    }
}

/// Files cut at each `step`-th length as far as something is written, and at some beyond: all told.
fn check_cuts(step: usize) {
    let case = Case::new();
    let ends = [("CTRL", CTRL_BYTES), ("SYNC", SYNC_HALVES[1] + SYNC_BYTES)];
    for (name, end) in ends.into_iter().chain(case.chunks.map(|(name, end, _)| (name, end))) {
        after_a_boot(&case.from, &case.to);
        let length = usize::try_from(fs::metadata(case.path(name)).unwrap().len()).unwrap();
        let beyond = (end.next_multiple_of(step)..length).step_by(step.max(length / 50)).chain([length - 1]);
        for cut in (0..end).step_by(step).chain(beyond) {
            let place = format!("{name} cut to {cut} of {length} bytes");
            corrupt(case.damaged(name, &place, |bytes| bytes.truncate(cut)), &place);
        }
        assert_eq!(&case.damaged(name, name, |_| ()).unwrap(), case.states.last().unwrap());
    }
}

#[test]
fn files_cut_at_some_lengths() {
    check_cuts(17);
}

#[test]
#[ignore = "seconds: `make test-long`"]
fn files_cut_at_every_length() {
    check_cuts(1);
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
