//! Transactions of many changes, and what a map does besides when it commits one.

use std::time::Duration;

use pheon_live::{Change, LiveError, LiveMap, LiveOptions};

use crate::scratch::{Scratch, all, locked, put, put_all};

fn keys(from: u32, to: u32) -> Vec<[u8; 4]> {
    (from..to).map(u32::to_le_bytes).collect()
}

/// Takes `old` out and puts `new` in, in one transaction.
fn replace(map: &LiveMap, old: &[[u8; 4]], new: &[[u8; 4]], value: &[u8]) -> Result<(), LiveError> {
    let deleted = old.iter().map(|key| Change::Delete { key });
    let changes = deleted.chain(new.iter().map(|key| Change::Put { key, meta: 0, value }));
    locked(map, || map.apply(changes))
}

#[test]
fn updates_of_many_chunks_keep_the_files_bounded() {
    let scratch = Scratch::new();
    let keys = keys(0, 10_000);
    let mut value = [0; 600];
    for round in 0..40 {
        value[0] = round;
        put_all(&scratch.map, keys.iter().map(|key| (&key[..], &value[..])));
        let info = scratch.map.info().unwrap();
        // As much again as the entries, and the update itself, which can be cleaned by the next one only.
        assert!(info.file_bytes < 3 * info.entry_bytes + (2 << 20), "round {round}: {info:?}");
    }
    for key in &keys {
        assert_eq!(scratch.map.get(key).unwrap().as_deref(), Some(&value[..]));
    }
    for _ in 0..100 {
        put(&scratch.map, b"small", b"x").unwrap();
    }
    let info = scratch.map.info().unwrap();
    assert!(info.file_bytes < 2 * info.entry_bytes + (2 << 20), "{info:?}");
}

#[test]
fn a_batch_may_replace_all_keys_by_others() {
    // As many as 1,024 slots take before they are made anew, and many times that.
    for (count, added) in [(767, 400), (767, 2000), (20_000, 5000)] {
        let scratch = Scratch::new();
        let (old, new) = (keys(0, count), keys(1_000_000, 1_000_000 + added));
        put_all(&scratch.map, old.iter().map(|key| (&key[..], &b"x"[..])));
        replace(&scratch.map, &old, &new, b"y").unwrap();
        let expected: Vec<_> = new.iter().map(|key| (key.to_vec(), b"y".to_vec())).collect();
        assert_eq!(all(&scratch.map), expected, "{count} {added}");
        let slots = scratch.map.info().unwrap().slots as u64;
        assert!(slots <= 4 * u64::from(count + added).next_power_of_two(), "{slots} slots for {count} and {added}");
    }
}

#[test]
fn so_may_one_that_is_taken_back() {
    let scratch = Scratch::with(&LiveOptions { max_bytes: 180_000, ..LiveOptions::default() });
    let (old, new) = (keys(0, 767), keys(1_000_000, 1_000_400));
    put_all(&scratch.map, old.iter().map(|key| (&key[..], &b"x"[..])));
    let before = all(&scratch.map);
    let error = replace(&scratch.map, &old, &new, &[0; 500]);
    assert!(matches!(error, Err(LiveError::Full { .. })), "{error:?}");
    assert_eq!(all(&scratch.map), before);
}

#[test]
fn taking_one_key_out_and_in_again_does_not_grow_the_index() {
    let scratch = Scratch::new();
    let changes = [Change::Put { key: b"a", meta: 0, value: b"1" }, Change::Delete { key: b"a" }];
    let others = keys(0, 1000);
    let others = others.iter().map(|key| Change::Put { key, meta: 0, value: b"" });
    locked(&scratch.map, || scratch.map.apply(changes.into_iter().cycle().take(20_000).chain(others)).unwrap());
    assert_eq!((scratch.map.len(), scratch.map.info().unwrap().slots), (1000, 2048));
}

#[test]
fn the_iterator_of_a_batch_may_write_to_the_map() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    let names = keys(0, 20);
    let changes = names.iter().enumerate().map(|(i, key)| {
        if i == 17 {
            map.put(b"inner", 0, b"inner").unwrap();
        }
        Change::Put { key, meta: 0, value: b"v" }
    });
    locked(map, || map.apply(changes).unwrap());
    put(map, b"next", b"1").unwrap();
    let shown: Vec<_> = all(map).into_iter().map(|(key, _)| key).collect();
    let expected = [b"inner".to_vec()].into_iter().chain(names.iter().map(|key| key.to_vec()));
    assert_eq!(shown, expected.chain([b"next".to_vec()]).collect::<Vec<_>>());
    assert_eq!(map.len(), 22);
}

/// Dropped chunks of the map that this process has mapped.
fn dropped_but_mapped(map: &LiveMap) -> usize {
    let dir = map.location().dir().unwrap();
    let prefix = format!("{}/log-", dir.display());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(&prefix) && line.ends_with("(deleted)")).count()
}

#[test]
fn taking_from_the_end_does_not_keep_dropped_chunks() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    for key in 0..60u32 {
        put(map, &key.to_le_bytes(), b"x").unwrap();
        put_all(map, (0..600).map(|_| (&b"hot"[..], &[7; 1000][..])));
        put(map, b"job", b"x").unwrap();
        let last = locked(map, || {
            let last = map.last_key().unwrap();
            map.delete(last.as_ref().unwrap()).unwrap();
            last
        });
        assert_eq!(last.as_deref(), Some(&b"job"[..]));
    }
    assert!(map.info().unwrap().file_bytes < 8 << 20);
    assert_eq!(dropped_but_mapped(map), 0);
    // Also of those whose records were moved since they were noted.
    for key in (1..60u32).rev() {
        assert_eq!(locked(map, || map.last_key().unwrap()).as_deref(), Some(&key.to_le_bytes()[..]));
        locked(map, || assert!(map.delete(&key.to_le_bytes()).unwrap()));
    }
}

#[test]
fn one_write_evicts_some_of_what_is_too_old_and_none_of_it_is_shown() {
    let age = Duration::from_secs(4);
    let scratch = Scratch::with(&LiveOptions { max_age: age, ..LiveOptions::default() });
    let map = &scratch.map;
    let names = keys(0, 5000);
    put_all(map, names.iter().map(|key| (&key[..], &b"x"[..])));
    std::thread::sleep(age + Duration::from_millis(50));
    put(map, b"new", b"1").unwrap();
    assert!((4000..5000).contains(&map.len()), "{}", map.len());
    assert!(!map.contains(&names[4999]).unwrap() && map.snapshot().unwrap().get(&names[4999]).unwrap().is_none());
    locked(map, || assert!(map.delete(b"new").unwrap()));
    assert_eq!(locked(map, || map.last_key().unwrap()), None, "what is left is too old");
    assert!(all(map).is_empty());
    for _ in 0..200 {
        put(map, b"new", b"1").unwrap();
    }
    assert!(map.len() <= 1, "{}", map.len());
}

#[test]
fn an_age_that_does_not_fit_is_for_ever() {
    // One nanosecond more than 64 bits have.
    let age = Duration::new(18_446_744_073, 709_551_617);
    let scratch = Scratch::with(&LiveOptions { max_age: age, ..LiveOptions::default() });
    put(&scratch.map, b"a", b"1").unwrap();
    std::thread::sleep(Duration::from_millis(2));
    assert!(scratch.map.contains(b"a").unwrap());
    assert_eq!(scratch.map.info().unwrap().options.max_age, Duration::from_nanos(u64::MAX));
    assert_eq!(scratch.map.len_living().unwrap(), 1);
}

#[test]
fn changes_have_the_newest_value() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    let from = map.position();
    locked(map, || {
        map.put(b"k", 1, b"old").unwrap();
        map.put(b"gone", 1, b"x").unwrap();
        map.put(b"k", 2, b"new").unwrap();
        map.delete(b"gone").unwrap();
        map.put(b"zero", 0, b"value").unwrap();
    });
    let changes = map.changes_since(from, false).unwrap().0.keys;
    let changes: Vec<_> = changes.iter().map(|c| (c.key.as_slice(), c.meta, c.value.as_slice())).collect();
    assert_eq!(changes, [(&b"k"[..], 2, &b"new"[..]), (b"gone", 0, b""), (b"zero", 0, b"value")]);
}

#[test]
#[ignore = "needs 5 GiB of memory"]
fn the_largest_entry_is_stored_and_one_more_byte_refused() {
    if pheon_os::process::total_memory_bytes() < 6 << 30 {
        println!("skipped: here are less than 6 GiB of memory");
        return;
    }
    let scratch = Scratch::new();
    let map = &scratch.map;
    put(map, b"precious", b"1").unwrap();
    // A file of 2 GiB less 4096, its head and that of the record, the key.
    let largest = (1usize << 31) - 4096 - 64 - 48 - 8;
    let mut value = vec![7u8; largest + 1];
    let error = put(map, b"big-key!", &value);
    assert!(matches!(error, Err(LiveError::TooLarge { .. })), "{error:?}");
    value.truncate(largest);
    put(map, b"big-key!", &value).unwrap();
    put(map, b"next", b"1").unwrap();
    assert_eq!(map.get_with(b"big-key!", |entry| entry.value() == value).unwrap(), Some(true));
    assert_eq!((map.get(b"precious").unwrap(), map.len()), (Some(b"1".to_vec()), 3));
    assert_eq!(map.snapshot().unwrap().ordered().unwrap().len(), 3);
}
