//! Several threads, each with its own mapping where it matters.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pheon_live::{Change, LiveError, LiveMap};

use crate::scratch::{Scratch, delete, locked, put};

#[test]
fn readers_see_whole_transactions_in_order() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    put(map, b"x", &0u64.to_le_bytes()).unwrap();
    put(map, b"y", &0u64.to_le_bytes()).unwrap();
    let stop = AtomicBool::new(false);
    let checked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writable in [true, false] {
            let (location, stop, checked) = (scratch.location(), &stop, &checked);
            scope.spawn(move || {
                let reader = LiveMap::attach(&location, writable).unwrap();
                let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let x = number(&reader.get(b"x").unwrap().unwrap());
                    let y = number(&reader.get(b"y").unwrap().unwrap());
                    assert!(x >= last && y >= x, "{last} {x} {y}");
                    last = y;
                    let snapshot = reader.snapshot().unwrap();
                    let [x, y] =
                        [b"x", b"y"].map(|key| number(snapshot.get(key).unwrap().expect("always there").value()));
                    assert!(x == y && x >= last, "half a transaction: {x} {y} after {last}");
                    checked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut i = 0u64;
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(3) || checked.load(Ordering::Relaxed) < 100 {
            i += 1;
            // Values of many lengths, so that chunks end at all places, and churn, so that the index is rebuilt.
            let mut value = i.to_le_bytes().to_vec();
            value.resize(8 + (i % 700) as usize, 1);
            let churn = i.to_be_bytes();
            let changes = [
                Change::Put { key: b"x", meta: 0, value: &value },
                Change::Put { key: &churn, meta: 0, value: b"" },
                Change::Put { key: b"y", meta: 0, value: &value },
            ];
            locked(map, || map.apply(changes).unwrap());
            if i > 50 {
                delete(map, &(i - 50).to_be_bytes());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn increments_under_the_lock_add_up() {
    let scratch = Scratch::new();
    put(&scratch.map, b"n", &0u64.to_le_bytes()).unwrap();
    const EACH: u64 = 5000;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let map = LiveMap::attach(&scratch.location(), true).unwrap();
            scope.spawn(move || {
                for _ in 0..EACH {
                    locked(&map, || {
                        let now = u64::from_le_bytes(map.get(b"n").unwrap().unwrap().try_into().unwrap());
                        map.put(b"n", 0, &(now + 1).to_le_bytes()).unwrap();
                    });
                }
            });
        }
    });
    let total = u64::from_le_bytes(scratch.map.get(b"n").unwrap().unwrap().try_into().unwrap());
    assert_eq!(total, 4 * EACH);
}

#[test]
fn the_lock_is_reentrant_by_thread_and_times_out_for_others() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    map.lock(None, &|| false).unwrap();
    map.lock(Some(Duration::ZERO), &|| false).unwrap();
    assert_eq!(map.lock_depth(), 2);
    // A second handle of this process is the same owner.
    let again = LiveMap::attach(&scratch.location(), true).unwrap();
    assert_eq!(again.lock_depth(), 2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(map.lock_depth(), 0);
            let timeout = Some(Duration::from_millis(20));
            assert!(matches!(map.lock(timeout, &|| false), Err(LiveError::LockTimeout { .. })));
            assert!(matches!(map.lock(None, &|| true), Err(LiveError::Stopped)));
            assert!(matches!(map.unlock(), Err(LiveError::NotHeld)));
            assert_eq!(map.get(b"nothing").unwrap(), None, "readers need no lock");
        });
    });
    map.unlock().unwrap();
    map.unlock().unwrap();
    assert!(map.unlock().is_err());
    std::thread::scope(|scope| scope.spawn(|| locked(map, || ())).join().unwrap());
}

#[test]
fn a_thread_that_ends_with_the_lock_leaves_it_free() {
    let scratch = Scratch::new();
    let map = scratch.map.clone();
    std::thread::spawn(move || map.lock(None, &|| false).unwrap()).join().unwrap();
    put(&scratch.map, b"a", b"1").unwrap();
    let map = scratch.map.clone();
    std::thread::spawn(move || map.lock_key(b"k", None, &|| false).unwrap()).join().unwrap();
    scratch.map.lock_key(b"k", Some(Duration::from_secs(5)), &|| false).unwrap();
    scratch.map.unlock_key(b"k").unwrap();
}

#[test]
fn locks_of_keys_exclude_each_other_by_key() {
    let scratch = Scratch::new();
    let map = &scratch.map;
    map.lock_key(b"a", None, &|| false).unwrap();
    map.lock_key(b"a", None, &|| false).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let timeout = Some(Duration::from_millis(10));
            assert!(matches!(map.lock_key(b"a", timeout, &|| false), Err(LiveError::LockTimeout { .. })));
            map.lock_key(b"b", timeout, &|| false).unwrap();
            map.unlock_key(b"b").unwrap();
            assert!(matches!(map.unlock_key(b"a"), Err(LiveError::NotHeld)));
            put(map, b"a", b"writes are not stopped").unwrap();
        });
    });
    map.unlock_key(b"a").unwrap();
    map.unlock_key(b"a").unwrap();
    assert!(matches!(map.unlock_key(b"a"), Err(LiveError::NotHeld)));
}

#[test]
fn a_waiter_is_woken_by_a_change() {
    let scratch = Scratch::new();
    let from = scratch.map.position();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let began = std::time::Instant::now();
            while scratch.map.position() == from {
                assert!(began.elapsed() < Duration::from_secs(60));
                scratch.map.sleep(from, Duration::from_secs(60)).unwrap();
            }
            scratch.map.changes_since(from, true).unwrap().0
        });
        std::thread::sleep(Duration::from_millis(30));
        put(&scratch.map, b"woken", b"").unwrap();
        assert_eq!(waiter.join().unwrap().keys[0].key, b"woken");
    });
}

/// Lines of this process's memory map that name a file of the map.
fn mapped(map: &pheon_live::Location) -> usize {
    let pheon_live::Location::Memory { name, .. } = map else { panic!("not in memory") };
    #[allow(clippy::disallowed_methods)] // not a file of the engine's
    let lines = std::fs::read_to_string("/proc/self/maps").unwrap();
    lines.lines().filter(|line| line.contains(name.as_str())).count()
}

#[test]
fn a_lock_outlives_the_last_handle() {
    let never = || false;
    let others = [Scratch::new(), Scratch::new()];
    let location = Scratch::new().location();
    let map = LiveMap::create(&location, &pheon_live::LiveOptions::default()).unwrap();
    put(&map, b"k", b"v").unwrap();
    map.lock(None, &never).unwrap();
    map.lock_key(b"k", None, &never).unwrap();
    drop(map);
    for other in &others {
        // Each is entered into the thread's list of mutexes, beside those above.
        put(&other.map, b"k", b"v").unwrap();
    }
    assert!(mapped(&location) > 0);
    let again = LiveMap::attach(&location, true).unwrap();
    assert_eq!(again.lock_depth(), 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let soon = Some(Duration::from_millis(10));
            assert!(matches!(again.lock(soon, &never), Err(LiveError::LockTimeout { .. })));
            assert!(matches!(again.lock_key(b"k", soon, &never), Err(LiveError::LockTimeout { .. })));
        });
    });
    assert_eq!(again.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
    again.unlock_key(b"k").unwrap();
    again.unlock().unwrap();
    assert!(matches!(again.unlock(), Err(LiveError::NotHeld)));
    again.unlink().unwrap();
    drop(again);
    assert_eq!(mapped(&location), 0, "and its memory is given back with the lock");
}

#[test]
fn a_lock_outlives_a_handle_that_was_closed_before_it_was_taken() {
    let (first, other) = (Scratch::new(), Scratch::new());
    let location = Scratch::new().location();
    let map = LiveMap::create(&location, &pheon_live::LiveOptions::default()).unwrap();
    map.close();
    map.lock(None, &|| false).unwrap();
    drop(map);
    // Each is entered into the thread's list of mutexes, beside the one above.
    put(&first.map, b"k", b"v").unwrap();
    put(&other.map, b"k", b"v").unwrap();
    let again = LiveMap::attach(&location, true).unwrap();
    assert_eq!(again.lock_depth(), 1);
    again.unlock().unwrap();
    again.unlink().unwrap();
}

#[test]
fn locks_of_a_thread_that_ends_are_free_though_it_dropped_a_handle_between() {
    let (first, second) = (Scratch::new(), Scratch::new().location());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            first.map.lock(None, &|| false).unwrap();
            let map = LiveMap::create(&second, &pheon_live::LiveOptions::default()).unwrap();
            map.lock(None, &|| false).unwrap();
        });
    });
    first.map.lock(Some(Duration::from_secs(5)), &|| false).unwrap();
    first.map.unlock().unwrap();
    let map = LiveMap::attach(&second, true).unwrap();
    map.lock(Some(Duration::from_secs(5)), &|| false).unwrap();
    map.unlock().unwrap();
    map.unlink().unwrap();
}
