//! One process, compared with a plain dictionary.

use std::collections::HashMap;
use std::time::Duration;

use pheon_live::{Change, LiveError, LiveMap, LiveOptions, Location, Place};
use pheon_os::process;

use crate::scratch::{Scratch, all, delete, files_dir, locked, put, put_all};

/// A small generator with a seed that a failure prints.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A dictionary that remembers the order of insertion, slowly.
#[derive(Default)]
struct Oracle {
    order: Vec<Vec<u8>>,
    values: HashMap<Vec<u8>, Vec<u8>>,
}

impl Oracle {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        if self.values.insert(key.to_vec(), value.to_vec()).is_none() {
            self.order.push(key.to_vec());
        }
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        self.order.retain(|other| other != key);
        self.values.remove(key).is_some()
    }

    fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.order.iter().map(|key| (key.clone(), self.values[key].clone())).collect()
    }
}

fn run_random(seed: u64, steps: u64, keys: u64, value_bytes: u64) {
    let scratch = Scratch::new();
    let map = &scratch.map;
    let mut oracle = Oracle::default();
    let mut random = Random(seed);
    for step in 0..steps {
        let key = format!("key {}", random.below(keys)).into_bytes();
        let value = vec![step as u8; random.below(value_bytes) as usize];
        match random.below(20) {
            0..10 => {
                put(map, &key, &value).unwrap();
                oracle.put(&key, &value);
            }
            10..14 => assert_eq!(delete(map, &key), oracle.delete(&key), "seed {seed} step {step}"),
            14 => {
                let other = format!("key {}", random.below(keys)).into_bytes();
                let changes = [
                    Change::Put { key: &key, meta: 0, value: b"first" },
                    Change::Delete { key: &other },
                    Change::Put { key: &key, meta: 0, value: &value },
                    Change::Put { key: &other, meta: 0, value: b"again" },
                ];
                locked(map, || map.apply(changes).unwrap());
                oracle.put(&key, b"first");
                oracle.delete(&other);
                oracle.put(&key, &value);
                oracle.put(&other, b"again");
            }
            15 => {
                let last = locked(map, || {
                    let last = map.last_key().unwrap();
                    assert!(last.as_ref().is_none_or(|key| map.delete(key).unwrap()));
                    last
                });
                assert_eq!(last, oracle.order.last().cloned(), "seed {seed} step {step}");
                last.map(|key| oracle.delete(&key));
            }
            _ => assert_eq!(map.get(&key).unwrap(), oracle.values.get(&key).cloned(), "seed {seed} step {step}"),
        }
        assert_eq!(map.len(), oracle.values.len() as u64);
    }
    assert_eq!(all(map), oracle.all(), "seed {seed}");
}

#[test]
fn a_map_behaves_as_a_dictionary() {
    for seed in 1..=6 {
        run_random(seed * 7919, 3000, 40, 30);
    }
}

#[test]
fn so_does_one_whose_index_grows_and_whose_log_is_cleaned() {
    // About 30 MB written to a map of at most 1 MB: the log is cleaned many times.
    run_random(99, 60_000, 3000, 1000);
    // Values larger than the usual chunk.
    run_random(5, 300, 6, 300_000);
}

#[test]
fn cleaning_bounds_the_files() {
    let scratch = Scratch::new();
    let value = [7; 200];
    for round in 0..200u32 {
        put_all(&scratch.map, (0..1000u32).map(|_| (&b"one"[..], &value[..])));
        put(&scratch.map, &round.to_le_bytes(), &value).unwrap();
    }
    let info = scratch.map.info().unwrap();
    assert_eq!(info.entries, 201);
    assert!(info.file_bytes < 8 << 20, "{info:?}");
    assert_eq!(scratch.map.get(&3u32.to_le_bytes()).unwrap().as_deref(), Some(&value[..]));
}

#[test]
fn what_a_large_value_took_is_free_when_its_chunk_is_no_longer_the_last() {
    const LARGE: usize = 6 << 20;
    let scratch = Scratch::new();
    put(&scratch.map, b"kept", b"first").unwrap();
    put(&scratch.map, b"large", &vec![1; LARGE]).unwrap();
    assert!(delete(&scratch.map, b"large"));
    // From here on the log is longer than it may be, but nothing before the last chunk is left to be looked through.
    let mut largest = 0;
    for i in 0..300u32 {
        put(&scratch.map, &i.to_le_bytes(), &[i as u8; 200]).unwrap();
        largest = largest.max(scratch.map.info().unwrap().file_bytes);
    }
    let info = scratch.map.info().unwrap();
    assert!(largest > LARGE as u64 && info.file_bytes < LARGE as u64, "{largest}, {info:?}");
    assert_eq!(info.entries, 301);
    assert_eq!(scratch.map.get(b"kept").unwrap().as_deref(), Some(&b"first"[..]));
    assert_eq!(scratch.map.get(&299u32.to_le_bytes()).unwrap(), Some(vec![299u32 as u8; 200]));
}

#[test]
fn many_keys_at_once_are_each_found() {
    let scratch = Scratch::new();
    let numbers: Vec<[u8; 4]> = (0..5000u32).map(u32::to_le_bytes).collect();
    put_all(&scratch.map, numbers.iter().filter(|n| n[0] % 3 > 0).map(|n| (&n[..], &n[..1])));
    let keys: Vec<&[u8]> = numbers.iter().map(|n| &n[..]).collect();
    let mut found = Vec::new();
    scratch
        .map
        .get_many_with(&keys, |entry| {
            found.push(entry.map(|entry| entry.value().to_vec()));
            Ok::<_, LiveError>(())
        })
        .unwrap();
    let expected: Vec<_> = numbers.iter().map(|n| (n[0] % 3 > 0).then(|| vec![n[0]])).collect();
    assert_eq!(found, expected);
    let stopped = scratch.map.get_many_with(&keys, |_| Err(LiveError::Stopped));
    assert!(matches!(stopped, Err(LiveError::Stopped)));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    for i in 0..500u32 {
        put(map, &i.to_le_bytes(), b"old").unwrap();
    }
    let before = map.snapshot().unwrap();
    let value = [1; 2000];
    for round in 0..20 {
        for i in 0..600u32 {
            if (i + round) % 3 == 0 {
                delete(map, &i.to_le_bytes());
            } else {
                put(map, &i.to_le_bytes(), &value).unwrap();
            }
        }
    }
    for i in 0..600u32 {
        let entry = before.get(&i.to_le_bytes()).unwrap();
        assert_eq!(entry.map(|e| e.value()), (i < 500).then_some(&b"old"[..]), "{i}");
    }
    let ordered = before.ordered().unwrap();
    let keys: Vec<_> = (0..ordered.len()).map(|at| ordered.get(at).unwrap().key().to_vec()).collect();
    assert_eq!(keys, (0..500u32).map(|i| i.to_le_bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn clear_takes_everything_out_and_order_begins_again() {
    let scratch = Scratch::new();
    for i in 0..100u8 {
        put(&scratch.map, &[i], &[i]).unwrap();
    }
    locked(&scratch.map, || scratch.map.clear().unwrap());
    assert!(scratch.map.is_empty() && all(&scratch.map).is_empty());
    put(&scratch.map, &[9], b"x").unwrap();
    put(&scratch.map, &[3], b"y").unwrap();
    assert_eq!(all(&scratch.map), [(vec![9], b"x".to_vec()), (vec![3], b"y".to_vec())]);
}

#[test]
fn the_least_recently_written_entries_go_first() {
    let scratch = Scratch::with(&LiveOptions { max_entries: 3, ..LiveOptions::default() });
    for key in [b"a", b"b", b"c", b"a", b"d"] {
        put(&scratch.map, key, key).unwrap();
    }
    let keys = || all(&scratch.map).into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<String>();
    assert_eq!(keys(), "cad");
    assert_eq!(scratch.map.len(), 3);
    put_all(&scratch.map, [b"e", b"f", b"g", b"h"].map(|key| (&key[..], &key[..])));
    assert_eq!(keys(), "fgh");
    // Many more than fit, so that the log is cleaned and the queue is made again.
    for i in 0..50_000u32 {
        put(&scratch.map, &i.to_le_bytes(), &[0; 200]).unwrap();
    }
    assert_eq!(scratch.map.len(), 3);
    let last: Vec<_> = all(&scratch.map).into_iter().map(|(key, _)| key).collect();
    assert_eq!(last, [49_997u32, 49_998, 49_999].map(|i| i.to_le_bytes().to_vec()));
}

#[test]
fn entries_that_are_too_old_are_not_there() {
    let age = Duration::from_millis(150);
    let scratch = Scratch::with(&LiveOptions { max_age: age, ..LiveOptions::default() });
    // A machine may be so slow that it is too old already.
    let is_there = (0..1000).any(|_| {
        put(&scratch.map, b"a", b"1").unwrap();
        scratch.map.contains(b"a").unwrap()
    });
    assert!(is_there);
    std::thread::sleep(age + Duration::from_millis(50));
    assert!(!scratch.map.contains(b"a").unwrap());
    assert!(scratch.map.snapshot().unwrap().get(b"a").unwrap().is_none() && all(&scratch.map).is_empty());
    put(&scratch.map, b"b", b"2").unwrap();
    assert_eq!(scratch.map.len(), 1, "a write evicts what is too old");
}

#[test]
fn a_full_map_refuses_and_goes_on() {
    let scratch = Scratch::with(&LiveOptions { max_bytes: 10_000, ..LiveOptions::default() });
    let map = &scratch.map;
    let mut stored = 0u32;
    let error = loop {
        match put(map, &stored.to_le_bytes(), &[0; 100]) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LiveError::Full { source: None, .. }), "{error}");
    assert_eq!(map.len(), u64::from(stored));
    assert!(stored > 50 && map.get(&0u32.to_le_bytes()).unwrap().is_some());
    // A batch that does not fit changes nothing.
    let error = locked(map, || {
        map.apply([
            Change::Delete { key: &0u32.to_le_bytes() },
            Change::Put { key: b"big", meta: 0, value: &[0; 9000] },
        ])
    });
    assert!(matches!(error, Err(LiveError::Full { .. })));
    assert!(map.contains(&0u32.to_le_bytes()).unwrap() && map.len() == u64::from(stored));
    assert!(delete(map, &0u32.to_le_bytes()));
    put(map, b"fits", &[0; 100]).unwrap();
    assert_eq!(all(map).len(), stored as usize);
}

#[test]
fn changes_name_each_key_once_and_nothing_that_was_only_moved() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    put(map, b"before", b"x").unwrap();
    let from = map.position();
    assert!(map.changes_since(from, false).unwrap().0.keys.is_empty());
    put(map, b"a", b"1").unwrap();
    put(map, b"b", b"1").unwrap();
    put(map, b"a", b"2").unwrap();
    delete(map, b"before");
    let (changes, now) = map.changes_since(from, false).unwrap();
    let keys: Vec<_> = changes.keys.iter().map(|changed| changed.key.as_slice()).collect();
    assert_eq!(keys, [&b"a"[..], b"b", b"before"]);
    assert!(!changes.truncated && map.changes_since(now, false).unwrap().0.keys.is_empty());
    assert!(map.changes_since(from, true).unwrap().0.keys.is_empty(), "this thread's own changes are left out");
    // So much that the log no longer goes back.
    for _ in 0..20_000 {
        put(map, b"c", &[0; 1000]).unwrap();
    }
    assert!(map.changes_since(from, false).unwrap().0.truncated);
}

#[test]
fn names_are_made_listed_and_unlinked() {
    let scratch = Scratch::new();
    let (map, location) = (&scratch.map, scratch.location());
    assert!(matches!(LiveMap::create(&location, &LiveOptions::default()), Err(LiveError::Exists { .. })));
    assert!(Place::Memory { group: None }.list().unwrap().contains(&location));
    put(map, b"a", b"1").unwrap();
    let other = LiveMap::attach(&location, true).unwrap();
    assert_eq!(other.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    other.unlink().unwrap();
    assert!(matches!(map.unlink(), Err(LiveError::NotFound { .. })));
    assert!(matches!(LiveMap::attach(&location, true), Err(LiveError::NotFound { .. })));
    assert!(!location.dir().unwrap().exists());
    assert_eq!(map.get(b"a").unwrap().as_deref(), Some(&b"1"[..]), "what is mapped can be read");
    assert!(matches!(put(map, b"b", b"2"), Err(LiveError::Unlinked { .. })));
    let again = LiveMap::open(&location, &LiveOptions::default()).unwrap();
    assert!(again.is_empty());
    again.unlink().unwrap();
    for name in ["", "../x", ".hidden", "a/b"] {
        let location = Location::Memory { name: name.to_owned(), group: None };
        assert!(
            matches!(LiveMap::open(&location, &LiveOptions::default()), Err(LiveError::Options { .. })),
            "{name:?}"
        );
    }
}

#[test]
fn who_has_not_seen_the_last_files_of_an_unlinked_map_is_told() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    put(map, b"early", b"1").unwrap();
    let reader = LiveMap::attach(&scratch.location(), false).unwrap();
    let from = reader.position();
    for i in 0..60u32 {
        put(map, &i.to_le_bytes(), &[0; 5000]).unwrap();
    }
    map.unlink().unwrap();
    assert!(matches!(reader.get(b"early"), Err(LiveError::Unlinked { .. })), "it may have been changed");
    assert!(matches!(reader.get(&59u32.to_le_bytes()), Err(LiveError::Unlinked { .. })));
    assert!(matches!(reader.snapshot(), Err(LiveError::Unlinked { .. })));
    assert!(matches!(reader.changes_since(from, false), Err(LiveError::Unlinked { .. })));
    assert_eq!(reader.len(), 61);
}

#[test]
fn a_read_only_handle_reads_and_does_not_write() {
    let scratch = Scratch::new();
    put(&scratch.map, b"a", b"1").unwrap();
    let reader = LiveMap::attach(&scratch.location(), false).unwrap();
    assert_eq!(reader.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(matches!(reader.lock(None, &|| false), Err(LiveError::ReadOnly { .. })));
    assert!(matches!(reader.put(b"a", 0, b"2"), Err(LiveError::NotHeld)));
    assert!(matches!(reader.unlink(), Err(LiveError::ReadOnly { .. })));
    for i in 0..20_000u32 {
        put(&scratch.map, &i.to_le_bytes(), &[1; 50]).unwrap();
    }
    assert_eq!(reader.len(), 20_001, "it follows new files");
    assert_eq!(reader.get(&19_999u32.to_le_bytes()).unwrap().as_deref(), Some(&[1; 50][..]));
}

#[test]
fn a_write_needs_the_lock() {
    let scratch = Scratch::new();
    assert!(matches!(scratch.map.put(b"a", 0, b"1"), Err(LiveError::NotHeld)));
    assert!(matches!(scratch.map.unlock(), Err(LiveError::NotHeld)));
    assert!(scratch.map.is_empty());
}

#[test]
fn damage_is_an_error() {
    let scratch = Scratch::new();
    let (dir, files) = (scratch.location().dir().unwrap(), files_dir(&scratch.location()));
    let name = format!("damaged-{}", process::random_id());
    let location = Location::Memory { name, group: None };
    let other = location.dir().unwrap();
    pheon_os::shm::create_live_dir(&*pheon_os::fs::real(), &other, None).unwrap();
    let other_files = other.join(files.file_name().unwrap());
    std::fs::create_dir(&other_files).unwrap();
    for (file, at) in [("CTRL", 0), ("CTRL", 8), ("view-1", 0), ("view-1", 20), ("index-0", 8), ("log-0", 16)] {
        for copied in ["CTRL", "view-1", "index-0", "log-0"] {
            let (from, to) = if copied == "CTRL" { (&dir, &other) } else { (&files, &other_files) };
            let mut bytes = std::fs::read(from.join(copied)).unwrap();
            if copied == file {
                bytes[at] ^= 0x40;
            }
            std::fs::write(to.join(copied), bytes).unwrap();
        }
        let opened = LiveMap::attach(&location, true);
        assert!(matches!(opened, Err(LiveError::Corrupt { .. })), "{file} {at}: {opened:?}");
    }
    std::fs::write(other.join("CTRL"), b"short").unwrap();
    assert!(matches!(LiveMap::attach(&location, true), Err(LiveError::Corrupt { .. })));
    LiveMap::remove(&location).unwrap();
    assert!(!other.exists());
}

#[test]
fn entries_that_are_evicted_make_room_for_bytes() {
    let value = [1; 900];
    let key = |i: u32| i.to_be_bytes();
    let record_bytes = 952;
    let options = LiveOptions { max_age: Duration::from_secs(5), max_bytes: 200_000, ..LiveOptions::default() };
    let scratch = Scratch::with(&options);
    let full = (0..).find(|&i| put(&scratch.map, &key(i), &value).is_err()).unwrap();
    assert_eq!(full, 200_000 / record_bytes);
    std::thread::sleep(Duration::from_millis(5100));
    // One record needs one place, a batch as many as it has records; none is refused for what is too old.
    put(&scratch.map, &key(1000), &value).unwrap();
    locked(&scratch.map, || {
        let many: Vec<_> = (2000..2200u32).map(key).collect();
        scratch.map.apply(many.iter().map(|key| Change::Put { key, meta: 0, value: &value })).unwrap();
    });
    assert_eq!(scratch.map.len_living().unwrap(), 201);
    // What does not fit at all changes nothing, and evicts nothing for good.
    let before = all(&scratch.map);
    assert!(matches!(put(&scratch.map, b"large", &[1; 250_000]), Err(LiveError::Full { .. })));
    assert_eq!(all(&scratch.map), before);

    let options = LiveOptions { max_entries: 10, max_bytes: 10 * u64::from(record_bytes), ..LiveOptions::default() };
    let scratch = Scratch::with(&options);
    for i in 0..50 {
        put(&scratch.map, &key(i), &value).unwrap();
    }
    let kept: Vec<_> = all(&scratch.map).into_iter().map(|(key, _)| key).collect();
    assert_eq!(kept, (40..50).map(|i| key(i).to_vec()).collect::<Vec<_>>());
    assert!(matches!(put(&scratch.map, b"large", &[1; 20_000]), Err(LiveError::Full { .. })));
    put(&scratch.map, &key(50), &value).unwrap();
    assert_eq!(all(&scratch.map).len(), 10, "the order of eviction is known still");
    assert!(scratch.map.get(&key(40)).unwrap().is_none());
}
