//! Maps in a store after a boot of the machine: the boot's id in CTRL is changed, which is all that tells.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use pheon_live::{Change, LiveError, LiveMap, LiveOptions, Location};
use pheon_os::fs::fault::{FaultFs, Lasts};
use pheon_os::fs::real;
use xxhash_rust::xxh3::xxh3_64;

use crate::behaviour::Random;
use crate::disk::{Disk, scrambled};
use crate::scratch::{all, delete, files_dir, locked, put, put_all};

const BOOT_OFFSET: u64 = 32;
/// In a record: the flags, and what they are told by after a boot.
const FLAGS: usize = 16 + 6;
const SEAL: std::ops::Range<usize> = 44..48;

fn location(store: &Path) -> Location {
    Location::Store { path: store.to_owned(), name: "m".to_owned() }
}

/// Copies the map's files, as they are on the disk, into another store, as of an earlier boot.
pub(crate) fn after_a_boot(from: &Location, to: &Location) {
    let target = to.dir().unwrap();
    let _ = fs::remove_dir_all(&target);
    let files = target.join(files_dir(from).file_name().unwrap());
    fs::create_dir_all(&files).unwrap();
    for (from, to) in [(from.dir().unwrap(), &target), (files_dir(from), &files)] {
        for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    fs::OpenOptions::new().write(true).open(target.join("CTRL")).unwrap().write_all_at(&[9; 16], BOOT_OFFSET).unwrap();
    // What an index has after a power cut is anything.
    for entry in fs::read_dir(&files).unwrap() {
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
        assert_eq!(again.info().unwrap().entry_bytes, map.info().unwrap().entry_bytes);
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

#[test]
fn a_map_of_many_entries_is_rebuilt() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (location(one.path()), location(other.path()));
    let map = LiveMap::create(&from, &LiveOptions::default()).unwrap();
    let keys: Vec<[u8; 4]> = (0..6000u32).map(u32::to_le_bytes).collect();
    put_all(&map, keys[..3000].iter().map(|key| (&key[..], &key[..1])));
    locked(&map, || map.sync()).unwrap();
    fs::create_dir(other.path().join(".live")).unwrap();
    after_a_boot(&from, &to);
    let map = LiveMap::attach(&to, true).unwrap();
    put_all(&map, keys[3000..].iter().map(|key| (&key[..], &key[..1])));
    assert_eq!(map.len(), 6000);
    for key in &keys {
        assert_eq!(map.get(key).unwrap().as_deref(), Some(&key[..1]));
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
    let used = usize::try_from(map.info().unwrap().entry_bytes).unwrap() + 64;
    for torn in (64 + 56..used).step_by(8) {
        after_a_boot(&one, &two);
        let log = files_dir(&two).join("log-0");
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
    let log = files_dir(&two).join("log-0");
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
    let changes = [b"a", b"b", b"c"].map(|key| Change::Put { key, meta: 0, value: b"2" });
    locked(&map, || map.apply(changes).unwrap());
    after_a_boot(&one, &two);
    let log = files_dir(&two).join("log-0");
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

/// Two stores' maps, the first one made.
fn two_places(dir: &Path, options: &LiveOptions) -> (LiveMap, Location, Location) {
    let (one, two) = (location(&dir.join("one")), location(&dir.join("two")));
    fs::create_dir(dir.join("one")).unwrap();
    (LiveMap::create(&one, options).unwrap(), one, two)
}

/// Changes the bytes of a map's first chunk from an offset on.
fn change_log(of: &Location, from: usize, change: impl FnOnce(&mut [u8])) {
    let log = files_dir(of).join("log-0");
    let mut bytes = fs::read(&log).unwrap();
    change(&mut bytes[from..]);
    fs::write(&log, bytes).unwrap();
}

/// Small entries have records of this size.
const RECORD: usize = 56;

#[test]
fn what_is_written_after_a_transaction_was_cut_off_is_there_after_the_next_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions { durable: true, ..LiveOptions::default() });
    put(&map, b"a", b"1").unwrap();
    locked(&map, || map.apply([b"b", b"c"].map(|key| Change::Put { key, meta: 0, value: b"2" })).unwrap());
    after_a_boot(&one, &two);
    change_log(&two, 64 + 2 * RECORD, |bytes| bytes.fill(0));
    let again = LiveMap::attach(&two, true).unwrap();
    assert_eq!(all(&again), [(b"a".to_vec(), b"1".to_vec())]);
    for i in 0..50 {
        put(&again, format!("{i}").as_bytes(), b"3").unwrap();
    }
    let expected = all(&again);
    after_a_boot(&two, &one_more(dir.path()));
    assert_eq!(all(&LiveMap::attach(&one_more(dir.path()), true).unwrap()), expected);
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    put(&map, b"k", b"0").unwrap();
    locked(&map, || map.sync().unwrap());
    put(&map, b"x", b"1").unwrap();
    put(&map, b"k", b"2").unwrap();
    for value in 0..100 {
        put(&map, b"k", &[value; 1000]).unwrap();
    }
    assert!(map.info().unwrap().chunks > 1);
    after_a_boot(&one, &two);
    // The record of "x" did not reach the disk, what follows it did.
    change_log(&two, 64 + RECORD, |bytes| bytes[..RECORD].fill(0));
    let again = LiveMap::attach(&two, true).unwrap();
    assert_eq!(all(&again), [(b"k".to_vec(), b"0".to_vec())]);
    let logs = |of: &Location| files(of).into_iter().filter(|name| name.starts_with("log-")).count();
    assert_eq!(logs(&two), 1);
    put(&again, b"k", b"3").unwrap();
    locked(&again, || again.sync().unwrap());
    after_a_boot(&two, &one_more(dir.path()));
    let entries = all(&LiveMap::attach(&one_more(dir.path()), true).unwrap());
    assert_eq!(entries, [(b"k".to_vec(), b"3".to_vec())]);
}

/// The older half of SYNC names a chunk that was dropped since.
#[test]
fn a_chunk_that_is_gone_is_damage_and_no_missing_map() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    put(&map, b"a", b"1").unwrap();
    locked(&map, || map.sync().unwrap());
    after_a_boot(&one, &two);
    fs::remove_file(files_dir(&two).join("log-0")).unwrap();
    assert!(matches!(LiveMap::attach(&two, true), Err(LiveError::Corrupt { path, .. }) if path.ends_with("log-0")));
}

/// A length is under no checksum; the next chunk has it, too.
#[test]
fn a_chunk_that_hides_its_last_record_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    put(&map, b"a", &[1; 40_000]).unwrap();
    put(&map, b"b", &[2; 16]).unwrap();
    put(&map, b"c", &[3; 40_000]).unwrap();
    locked(&map, || map.sync().unwrap());
    assert_eq!(map.info().unwrap().chunks, 2);
    after_a_boot(&one, &two);
    const USED: usize = 24;
    const LAST_RECORD: u64 = 72;
    let log = files_dir(&two).join("log-0");
    let mut bytes = fs::read(&log).unwrap();
    let used = u64::from_le_bytes(bytes[USED..USED + 8].try_into().unwrap());
    bytes[USED..USED + 8].copy_from_slice(&(used - LAST_RECORD).to_le_bytes());
    fs::write(&log, bytes).unwrap();
    assert!(matches!(LiveMap::attach(&two, true), Err(LiveError::Corrupt { path, .. }) if path.ends_with("log-0")));
}

/// An index that did not know how full it is would have no slot in the end.
#[test]
fn a_map_grows_after_a_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    let fill = |map: &LiveMap, numbers: std::ops::Range<u32>| {
        let keys: Vec<_> = numbers.map(u32::to_le_bytes).collect();
        locked(map, || map.apply(keys.iter().map(|key| Change::Put { key, meta: 0, value: b"" })).unwrap());
    };
    fill(&map, 0..3000);
    locked(&map, || map.sync().unwrap());
    after_a_boot(&one, &two);
    let map = LiveMap::attach(&two, true).unwrap();
    fill(&map, 3000..9000);
    assert_eq!(map.info().unwrap().entries, 9000);
    assert!((0..9000u32).all(|number| map.contains(&number.to_le_bytes()).unwrap()));
}

/// SYNC with another number at a byte of both its states, under checksums that are right.
fn forge_sync(of: &Location, sync: &[u8], at: usize, number: u64) {
    let mut sync = sync.to_vec();
    for half in sync.chunks_mut(4096).filter(|half| half[0] != 0) {
        half[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let sum = xxh3_64(&half[..64]);
        half[64..72].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(files_dir(of).join("SYNC"), sync).unwrap();
}

/// The next writer would take a record of a transaction that is yet to come for its own.
#[test]
fn a_record_of_a_later_transaction_than_sync_tells_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    put(&map, b"a", b"1").unwrap();
    locked(&map, || map.delete(b"a").unwrap());
    locked(&map, || map.sync().unwrap());
    let sync = fs::read(files_dir(&one).join("SYNC")).unwrap();
    for (number, is_sound) in [(0, false), (2, false), (3, true), (4, true)] {
        after_a_boot(&one, &two);
        forge_sync(&two, &sync, 40, number);
        match LiveMap::attach(&two, true) {
            Ok(map) => {
                assert!(is_sound, "{number}");
                put(&map, b"a", b"2").unwrap();
                assert_eq!(all(&map), [(b"a".to_vec(), b"2".to_vec())]);
            }
            Err(LiveError::Corrupt { problem, .. }) => {
                assert!(!is_sound && problem.contains("transaction"), "{problem}")
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Checksums that are right prove nothing: whoever forges a file makes them.
#[test]
fn numbers_that_no_map_comes_to_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    put(&map, b"a", b"1").unwrap();
    locked(&map, || map.sync().unwrap());
    let sync = fs::read(files_dir(&one).join("SYNC")).unwrap();
    let numbers = [(7_u64, true), (u64::MAX / 2, true), (u64::MAX / 2 + 1, false), (u64::MAX, false)];
    let fields = [(40, "transaction"), (56, "order")];
    for ((number, is_sound), (at, what)) in numbers.into_iter().flat_map(|n| fields.map(|field| (n, field))) {
        after_a_boot(&one, &two);
        forge_sync(&two, &sync, at, number);
        match LiveMap::attach(&two, true) {
            Ok(map) => {
                assert!(is_sound, "{what} {number}");
                put(&map, b"b", b"2").unwrap();
            }
            Err(LiveError::Corrupt { problem, .. }) => assert!(!is_sound && problem.contains(what), "{problem}"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn only_a_map_of_the_format_before_may_lack_a_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, _) = two_places(dir.path(), &LiveOptions::default());
    drop(map);
    let ctrl = one.dir().unwrap().join("CTRL");
    let mut bytes = fs::read(&ctrl).unwrap();
    bytes[88..96].fill(0);
    for (format, opens) in [(3, false), (2, true)] {
        bytes[8] = format;
        fs::write(&ctrl, &bytes).unwrap();
        assert_eq!(LiveMap::attach(&one, true).is_ok(), opens, "format {format}");
    }
}

/// Beyond the synced end the seal of a transaction's last record decides whether it counts, whatever its flag says; then both agree.
#[test]
fn the_seal_says_after_a_boot_which_record_was_the_last() {
    const LAST: u8 = 8;
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    put(&map, b"a", b"1").unwrap();
    locked(&map, || map.sync().unwrap());
    locked(&map, || map.apply([b"b", b"c"].map(|key| Change::Put { key, meta: 0, value: b"2" })).unwrap());
    let (first, last) = (0..RECORD, RECORD..2 * RECORD);
    let cases = [("flag", last.clone(), true), ("seal", last.clone(), false), ("another's flag", first, true)];
    for (what, record, counts) in cases {
        after_a_boot(&one, &two);
        change_log(&two, 64 + RECORD, |bytes| {
            assert_eq!((bytes[last.clone()][FLAGS], &bytes[last.clone()][SEAL]), (LAST, &b"LAST"[..]));
            assert_eq!((bytes[FLAGS], &bytes[SEAL]), (0, &[0; 4][..]));
            match what {
                "seal" => bytes[record][SEAL].fill(0),
                _ => bytes[record][FLAGS] ^= LAST,
            }
        });
        let again = LiveMap::attach(&two, true).unwrap();
        let expected: &[&[u8]] = if counts { &[b"a", b"b", b"c"] } else { &[b"a"] };
        let keys = |map: &LiveMap| all(map).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&again), expected, "{what}");
        locked(&again, || again.sync().unwrap());
        drop(again);
        after_a_boot(&two, &one_more(dir.path()));
        assert_eq!(
            keys(&LiveMap::attach(&one_more(dir.path()), true).unwrap()),
            expected,
            "{what}, after another boot"
        );
    }
}

/// A map of the format before: no seals, other flags than they say are no damage.
fn without_seals(map: &Location) {
    let ctrl = map.dir().unwrap().join("CTRL");
    let mut bytes = fs::read(&ctrl).unwrap();
    assert_eq!(bytes[8], 3);
    bytes[8] = 2;
    bytes[88..96].fill(0);
    fs::write(ctrl, bytes).unwrap();
    let log = files_dir(map).join("log-0");
    let mut bytes = fs::read(&log).unwrap();
    let mut at = 64;
    while let len @ 1.. = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize {
        bytes[at..][SEAL].fill(0);
        at += len;
    }
    fs::write(log, bytes).unwrap();
}

#[test]
fn a_map_of_the_format_before_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions { max_bytes: 10_000, ..LiveOptions::default() });
    put(&map, b"a", b"1").unwrap();
    let too_large = [0; 20_000];
    let values: [&[u8]; 2] = [b"2", &too_large];
    let changes = [b"b", b"c"].into_iter().zip(values).map(|(key, value)| Change::Put { key, meta: 0, value });
    assert!(matches!(locked(&map, || map.apply(changes)), Err(LiveError::Full { .. })));
    locked(&map, || map.sync().unwrap());
    put(&map, b"d", b"3").unwrap();
    let mut expected = all(&map);
    assert_eq!(expected.len(), 2);
    drop(map);
    after_a_boot(&one, &two);
    without_seals(&two);
    for round in 0..3 {
        let map = LiveMap::attach(&two, true).unwrap();
        assert_eq!(all(&map), expected, "round {round}");
        put(&map, format!("round {round}").as_bytes(), b"4").unwrap();
        locked(&map, || map.sync().unwrap());
        expected = all(&map);
        drop(map);
        after_a_boot(&two, &one_more(dir.path()));
        after_a_boot(&one_more(dir.path()), &two);
    }
}

#[test]
fn an_aborted_transaction_is_aborted_whatever_flags_reached_the_disk() {
    const ABORTED: u8 = 4;
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions { max_bytes: 1000, ..LiveOptions::default() });
    put(&map, b"a", b"1").unwrap();
    let sync = files_dir(&one).join("SYNC");
    let synced = fs::read(&sync).unwrap();
    let too_large = [0; 2000];
    let values: [&[u8]; 3] = [b"2", b"2", &too_large];
    let changes = [b"b", b"c", b"d"].into_iter().zip(values).map(|(key, value)| Change::Put { key, meta: 0, value });
    assert!(matches!(locked(&map, || map.apply(changes)), Err(LiveError::Full { .. })));
    for more in [false, true] {
        if more {
            put(&map, b"e", b"3").unwrap();
        }
        for (lost, flag_too, seal_too) in [0, 1].into_iter().flat_map(|lost| {
            [(true, true), (true, false), (false, true)].map(|(flag_too, seal_too)| (lost, flag_too, seal_too))
        }) {
            after_a_boot(&one, &two);
            fs::write(files_dir(&two).join("SYNC"), &synced).unwrap();
            change_log(&two, 64 + RECORD, |bytes| {
                for record in bytes.chunks_mut(RECORD).take(2) {
                    assert_eq!((record[FLAGS], &record[SEAL]), (ABORTED, &b"ABRT"[..]));
                }
                let record = &mut bytes[lost * RECORD..][..RECORD];
                if flag_too {
                    record[FLAGS] = 0;
                }
                if seal_too {
                    record[SEAL].fill(0);
                }
            });
            for _ in 0..2 {
                let entries = all(&LiveMap::attach(&two, true).unwrap());
                let keys: Vec<_> = entries.iter().map(|(key, _)| key.as_slice()).collect();
                assert_eq!(
                    keys,
                    if more { vec![b"a", b"e"] } else { vec![b"a"] },
                    "record {lost}: flag missing {flag_too}, seal missing {seal_too}"
                );
                after_a_boot(&two, &one_more(dir.path()));
                after_a_boot(&one_more(dir.path()), &two);
            }
        }
    }
}

#[test]
fn a_transaction_in_two_chunks_needs_both_its_halves() {
    let dir = tempfile::tempdir().unwrap();
    let (map, one, two) = two_places(dir.path(), &LiveOptions::default());
    put(&map, b"a", b"1").unwrap();
    // The first chunk has 64 KiB: it takes "b", and "c" goes to the second one.
    let changes = [(b"b", 1), (b"c", 65_400)].map(|(key, bytes)| (key, vec![2; bytes]));
    locked(&map, || {
        map.apply(changes.iter().map(|(key, value)| Change::Put { key: *key, meta: 0, value })).unwrap();
    });
    assert_eq!(map.info().unwrap().chunks, 2);
    after_a_boot(&one, &two);
    assert_eq!(all(&LiveMap::attach(&two, true).unwrap()).len(), 3);
    after_a_boot(&one, &two);
    // "b" did not reach the disk.
    change_log(&two, 64 + RECORD, |bytes| bytes.fill(0));
    assert_eq!(all(&LiveMap::attach(&two, true).unwrap()), [(b"a".to_vec(), b"1".to_vec())]);
}

fn files(of: &Location) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(files_dir(of)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn boots_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let (map, mut one, mut two) = two_places(dir.path(), &LiveOptions::default());
    random_changes(&map, &mut Random(5), 300);
    for _ in 0..5 {
        after_a_boot(&one, &two);
        (one, two) = (two, one);
        put(&LiveMap::attach(&one, true).unwrap(), b"a", b"1").unwrap();
        let of = |prefix: &str| files(&one).iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!((of("index-"), of("view-")), (1, 1), "{:?}", files(&one));
    }
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

const MOST_BYTES: u64 = 1 << 20;
/// The longest value; a fourth, a half and three fourths of it occur.
const LARGEST: [u64; 4] = [200, 600, 2000, 60_000];
/// Kinds of calls, from this one on.
const BATCH: u64 = 5;
const BATCH_THAT_FAILS: u64 = 7;

/// One random transaction, sometimes one that fails, or a sync; whether it was one.
fn random_call(map: &LiveMap, random: &mut Random, kind: u64, largest: u64) -> Result<bool, LiveError> {
    let key = |random: &mut Random| format!("key {}", random.below(30)).into_bytes();
    // Few lengths: so records begin again where others began that were lost.
    let value = |random: &mut Random| vec![random.below(256) as u8; (random.below(4) * largest / 4) as usize];
    match kind {
        0 => locked(map, || map.delete(&key(random)).map(|_| false)),
        1..=3 => put(map, &key(random), &value(random)).map(|()| false),
        4 => locked(map, || map.sync().map(|()| true)),
        _ => {
            let mut batch: Vec<_> = (0..=random.below(6)).map(|_| (key(random), value(random))).collect();
            if kind == BATCH_THAT_FAILS {
                batch.push((b"too large".to_vec(), vec![0; MOST_BYTES as usize]));
            }
            let changes = batch.iter().map(|(key, value)| Change::Put { key, meta: 0, value });
            locked(map, || map.apply(changes)).map(|()| false)
        }
    }
}

/// Writes, the power goes at any moment, the map is opened again, and so on: it must be as it was after some transaction,
/// and not before the last one that was made durable.
fn boots(seed: u64, durable: bool, largest: u64, faults: bool) {
    let dir = tempfile::tempdir().unwrap();
    let location = location(dir.path());
    let options = LiveOptions { durable, max_bytes: MOST_BYTES, ..LiveOptions::default() };
    drop(LiveMap::create(&location, &options).unwrap());
    let mut random = Random(scrambled(seed));
    let mut allowed = vec![Entries::new()];
    for boot in 0..6 {
        let faulty = FaultFs::new(real());
        let disk = Disk::of(Arc::new(faulty.clone()), &location, seed * 100 + boot);
        let attach = || LiveMap::attach_with(Arc::new(disk.clone()), &location, true);
        match random.below(4) {
            0 => disk.cut_at(random.below(40) + 1),
            1 if faults => faulty.fail_nth(random.below(40) + 1, None, 5, Lasts::Once),
            _ => {}
        }
        let mut map = attach();
        faulty.heal();
        if disk.is_cut() {
            // In the midst of the recovery: nothing was lost by it.
            drop(map);
            disk.boot();
            continue;
        }
        if map.is_err() && faults {
            map = attach();
        }
        let map = map.unwrap_or_else(|e| panic!("seed {seed}, boot {boot}: {e}"));
        let now = all(&map);
        assert!(allowed.contains(&now), "seed {seed}, boot {boot}: {:?}", names(&now));
        allowed = vec![now];
        let last = random.below(40) + 1;
        for i in 0..last {
            let mut kind = random.below(8);
            if i + 1 == last {
                kind = kind.max(BATCH);
                disk.cut_at(random.below(2) + 1);
            }
            if faults && random.below(2) == 0 {
                let lasts = if random.below(2) == 0 { Lasts::Once } else { Lasts::ForEver };
                faulty.fail_nth(random.below(8) + 1, None, 5, lasts);
            }
            let before = map.sequence();
            let done = random_call(&map, &mut random, kind, largest);
            faulty.heal();
            let now = all(&map);
            assert!(done.is_ok() || durable || allowed.last() == Some(&now), "seed {seed}, boot {boot}: {done:?}");
            allowed.push(now);
            // A call that changes nothing says nothing of the disk, unless it is a sync.
            if done.is_ok_and(|is_sync| is_sync || durable && map.sequence() != before) && !disk.is_cut() {
                allowed.drain(..allowed.len() - 1);
            }
        }
        drop(map);
        disk.boot();
    }
}

fn names(entries: &Entries) -> Vec<String> {
    entries.iter().map(|(key, value)| format!("{}: {}", String::from_utf8_lossy(key), value.len())).collect()
}

#[test]
fn after_power_cuts_a_map_is_as_after_a_transaction_that_is_not_too_old() {
    for seed in 0..40 {
        boots(seed, false, LARGEST[seed as usize % LARGEST.len()], false);
    }
}

#[test]
fn after_power_cuts_a_durable_map_has_all_that_was_acknowledged() {
    for seed in 0..40 {
        boots(seed, true, LARGEST[seed as usize % LARGEST.len()], false);
    }
}

#[test]
fn after_power_cuts_and_failed_calls_it_has_too() {
    for seed in 0..40 {
        boots(seed, seed % 4 != 0, LARGEST[seed as usize % LARGEST.len()], true);
    }
}
