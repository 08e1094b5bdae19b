//! Transactions of many changes, and what a map does besides when it commits one.

use crate::scratch::{Scratch, put, put_all};

fn keys(from: u32, to: u32) -> Vec<[u8; 4]> {
    (from..to).map(u32::to_le_bytes).collect()
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
