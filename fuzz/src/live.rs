//! Live maps: a hostile file among sound ones, in the boot that it was made in and after another.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use pheon_live::{Change, LiveMap, LiveOptions, Location};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::folder::Folder;

const BOOT: std::ops::Range<usize> = 32..48;
/// Where the mutex begins: what the C library makes of its bytes is not ours to test.
const MUTEX: usize = 448;
/// The words that have a checksum, and where that is.
const FIXED: [usize; 8] = [8, 16, 24, 48, 56, 64, AGE_MAX, 80];
const AGE_MAX: usize = 72;
const SUM: usize = 88;
const HEAD_BYTES: usize = 64;
const RECORD_BYTES: usize = 48;
/// A chunk as a new map has it.
const CHUNK_BYTES: usize = 64 << 10;
/// In a record's link word, and the words that say the same after a boot.
const ABORTED: u64 = 4 << 48;
const LAST: u64 = 8 << 48;
const SYNC_HALF_BYTES: usize = 4096;

/// A map in a store, with entries and deleted ones, in two chunks. The first is full, but what fills it is zeros, which an
/// input need not bring along.
static MAP: LazyLock<Folder> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let map = LiveMap::create(&location(dir.path()), &LiveOptions::default()).expect("make a map");
    map.lock(None, &|| false).expect("lock it");
    let mut room = CHUNK_BYTES - HEAD_BYTES - RECORD_BYTES - 8;
    for i in 0..40u32 {
        let (key, value) = (format!("key {}", i % 25), vec![i as u8; i as usize]);
        map.put(key.as_bytes(), 0, &value).expect("put");
        room -= (RECORD_BYTES + key.len() + value.len()).next_multiple_of(8);
    }
    map.put(b"zeros", 0, &vec![0; room]).expect("fill the chunk");
    for i in 10..20u32 {
        map.put(format!("key {i}").as_bytes(), 0, b"in the second chunk").expect("put");
    }
    map.delete(b"key 3").expect("delete");
    map.apply([b"a", b"b"].map(|key| Change::Put { key, meta: 1, value: b"both" })).expect("a batch");
    map.sync().expect("sync");
    map.put(b"later", 0, b"not synced").expect("put");
    map.unlock().expect("unlock");
    Folder::copy_of(dir.path(), &[".live"])
});

fn location(store: &Path) -> Location {
    Location::Store { path: store.to_owned(), name: "m".to_owned() }
}

/// Which file is hostile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum File {
    Control,
    View,
    Log,
    Index,
    Sync,
}

/// A map one of whose files has these bytes, with the checksums that they must have. The first byte decides whether the
/// machine was booted since, which chunk it is, and whether its records are sealed as their flags have it. Whether all entries
/// are there.
pub fn file(which: File, input: &[u8]) -> bool {
    let folder = &*MAP;
    let (choice, input) = crate::choice(input);
    let control = folder.find("m/CTRL");
    let mut page = folder.sound(&control).to_vec();
    let name = match which {
        File::Control => control.clone(),
        File::View => folder.find("/view-2"),
        File::Log => folder.find(if choice & 2 == 0 { "/log-0" } else { "/log-1" }),
        File::Index => folder.find("/index-0"),
        File::Sync => folder.find("/SYNC"),
    };
    match which {
        File::Control => {
            // Format, C library and folder stay: with others the map is another one.
            for (at, byte) in input.iter().enumerate().take(MUTEX) {
                if !(8..BOOT.end).contains(&at) {
                    page[at] = *byte;
                }
            }
            let fixed: Vec<u8> = FIXED.iter().flat_map(|&at| page[at..at + 8].to_vec()).collect();
            page[SUM..SUM + 8].copy_from_slice(&(xxh3_64(&fixed) | 1).to_le_bytes());
        }
        File::View => {
            let mut view = input.to_vec();
            view.extend(xxh3_64(input).to_le_bytes());
            folder.write(&name, &view);
        }
        File::Log => folder.write(&name, &with_sums(input, folder.sound(&name).len(), choice & 4 == 0)),
        File::Index => folder.write(&name, &padded(input, folder.sound(&name).len())),
        File::Sync => {
            let mut halves = vec![0; 2 * SYNC_HALF_BYTES];
            for (half, words) in input.chunks(64).take(2).enumerate() {
                let mut words = words.to_vec();
                words.resize(64, 0);
                let at = half * SYNC_HALF_BYTES;
                halves[at..at + 64].copy_from_slice(&words);
                halves[at + 64..at + 72].copy_from_slice(&xxh3_64(&words).to_le_bytes());
            }
            folder.write(&name, &halves);
        }
    }
    let booted = choice % 2 == 1;
    if booted {
        page[BOOT].fill(9);
    }
    folder.write(&control, &page);
    let location = location(folder.root());
    let writes = booted || choice & 8 != 0;
    let mut is_whole = false;
    if let Ok(map) = LiveMap::attach(&location, writes) {
        is_whole = (0..25).all(|i| map.contains(format!("key {i}").as_bytes()).is_ok_and(|found| found == (i != 3)));
        let forgets = page[AGE_MAX..AGE_MAX + 8].iter().any(|&byte| byte != 0);
        use_it(&map, writes, booted, forgets);
    }
    if writes {
        folder.restore();
    } else {
        folder.write(&name, folder.sound(&name));
        folder.write(&control, folder.sound(&control));
    }
    is_whole
}

fn padded(input: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    bytes.resize(len.max(input.len().min(2 * len)), 0);
    bytes
}

/// A log whose records have the checksums of their bytes, and the seals of their flags, as far as they follow each other.
fn with_sums(input: &[u8], len: usize, sealed: bool) -> Vec<u8> {
    let mut log = padded(input, len);
    let mut at = HEAD_BYTES;
    while at + RECORD_BYTES <= log.len() {
        let word = |offset: usize| u64::from_le_bytes(log[at + offset..at + offset + 8].try_into().expect("eight"));
        let small = |offset: usize| u32::from_le_bytes(log[at + offset..at + offset + 4].try_into().expect("four"));
        let (bytes, key_len, txn, link, order, value_len, writer) =
            (small(0), small(4), word(8), word(16), word(24), small(32), small(40));
        let key_end = (at + RECORD_BYTES).saturating_add(key_len as usize);
        let value_end = key_end.saturating_add(value_len as usize);
        if bytes < RECORD_BYTES as u32 || value_end > log.len() {
            break;
        }
        let stable = link & !((1 << 48) - 1 | ABORTED | LAST);
        let seed = txn.rotate_left(32) ^ order ^ stable ^ u64::from(bytes) ^ u64::from(writer) << 32;
        let of_key = xxh3_64_with_seed(&log[at + RECORD_BYTES..key_end], seed ^ u64::from(key_len));
        let sum = xxh3_64_with_seed(&log[key_end..value_end], of_key ^ u64::from(value_len)) as u32;
        log[at + 36..at + 40].copy_from_slice(&sum.to_le_bytes());
        if sealed {
            let seal = match (link & ABORTED != 0, link & LAST != 0) {
                (true, _) => *b"ABRT",
                (false, true) => *b"LAST",
                (false, false) => [0; 4],
            };
            log[at + 44..at + 48].copy_from_slice(&seal);
        }
        at += bytes as usize;
    }
    log
}

/// `rebuilt`: from its log, so that it must be whole; `forgets`: entries may be too old as soon as they are written.
fn use_it(map: &LiveMap, writes: bool, rebuilt: bool, forgets: bool) {
    let keys: Vec<Vec<u8>> =
        (0..25).map(|i| format!("key {i}").into_bytes()).chain([b"a".to_vec(), b"none".to_vec()]).collect();
    for key in &keys {
        let _ = (map.get(key), map.contains(key));
    }
    let _ = (map.info(), map.len_living(), map.last_key(), map.changes_since(map.position(), false));
    if let Ok(snapshot) = map.snapshot() {
        let _ = snapshot.len();
        for key in &keys {
            let _ = snapshot.get(key).map(|entry| entry.map(|entry| entry.value().len()));
        }
        if let Ok(ordered) = snapshot.ordered() {
            for at in 0..ordered.len().min(100) {
                let _ = ordered.get(at).map(|entry| (entry.key().len(), entry.value().len()));
            }
        }
    }
    if !writes || map.lock(Some(Duration::from_secs(5)), &|| false).is_err() {
        return;
    }
    // After a boot everything but the log was made anew, so from here on the map must work. Else it may say that it is damaged.
    for (i, key) in keys.iter().enumerate() {
        let value = vec![i as u8; 100];
        if map.put(key, 0, &value).is_ok() {
            let found = map.get(key);
            if !rebuilt {
                continue;
            }
            let found = found.expect("it was put");
            assert!(found == Some(value) || (forgets && found.is_none()), "what was put is there");
        }
    }
    let _ = (map.delete(b"key 4"), map.sync(), map.clear(), map.unlock());
}

/// Before the first input: PHEON_FUZZ_SEED names a file that gets the sound bytes, to begin a corpus with.
pub fn init(which: File) {
    crate::init();
    // Else no input comes further than to its checksum.
    for choice in 0..16 {
        if choice & 2 == 0 {
            assert!(file(which, &[&[choice], sound(which).as_slice()].concat()), "a sound file is refused ({choice})");
        }
    }
    if let Some(path) = std::env::var_os("PHEON_FUZZ_SEED") {
        std::fs::write(path, [&[1], sound(which).as_slice()].concat()).expect("write a seed");
    }
}

fn sound(which: File) -> Vec<u8> {
    let folder = &*MAP;
    let find = |ending: &str| -> PathBuf { folder.find(ending) };
    let bytes = |name: PathBuf| folder.sound(&name).to_vec();
    let mut seed = match which {
        File::Control => bytes(find("m/CTRL"))[..MUTEX].to_vec(),
        File::View => {
            let mut view = bytes(find("/view-2"));
            view.truncate(view.len() - 8);
            view
        }
        File::Log => bytes(find("/log-0")),
        File::Index => bytes(find("/index-0")),
        File::Sync => [0, SYNC_HALF_BYTES].map(|at| bytes(find("/SYNC"))[at..at + 64].to_vec()).concat(),
    };
    // What follows is zeros, which reading fills up; but a view has a length.
    while which != File::View && seed.last() == Some(&0) {
        seed.pop();
    }
    seed
}
