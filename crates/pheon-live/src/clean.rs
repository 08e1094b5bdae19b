//! Freeing old chunks, a little with each write: docs/live.md, "Cleaning".

use std::sync::Arc;

use crate::chunk::Chunk;
use crate::ctrl::Block;
use crate::error::LiveError;
use crate::layout::{Address, FILE_HEAD_BYTES, FREED, chunk_distance, hash};
use crate::shared::Shared;
use crate::view::View;
use crate::write::{Txn, publish_view};

/// What a log may have beyond its live records, whatever the map's size.
const RESERVE_BYTES_MIN: u64 = 4 << 20;
/// Larger maps keep this and an eighth of their live bytes instead of as much again.
const RESERVE_BYTES_LARGE: u64 = 128 << 20;
/// Old bytes looked through for each byte written. More than the share of live records in the log demands, so that cleaning
/// keeps up.
const SCANNED_PER_WRITTEN: u64 = 12;
const SCANNED_BYTES_MIN: u64 = 512;

/// Bytes that the chunks of a log may have before cleaning begins.
fn log_bytes_allowed(live_bytes: u64) -> u64 {
    live_bytes + live_bytes.min(RESERVE_BYTES_LARGE + live_bytes / 8).max(RESERVE_BYTES_MIN)
}

/// Up to where old records were looked through: a chunk's place in the view, and an offset in it.
fn looked_through(view: &View, block: &Block) -> (usize, usize) {
    let clean = Address::of_word(block.clean);
    let at = chunk_distance(clean.chunk(), view.oldest().number()) as usize;
    // Else it tells nothing: its chunk is gone, or it is no place of a record.
    if at < view.chunks.len() && clean.offset() >= FILE_HEAD_BYTES {
        (at, clean.offset())
    } else {
        (0, FILE_HEAD_BYTES)
    }
}

/// The place in the view of the first chunk that is not looked through: what this transaction wrote is not looked at, nor is
/// the chunk that it began in, nor the last one.
fn first_left_alone(view: &View, committed: &Block) -> usize {
    let began_in = chunk_distance(committed.end().chunk(), view.oldest().number()) as usize;
    began_in.min(view.chunks.len() - 1)
}

/// Records looked at together, so that their slots are on the way before they are needed.
const GROUP: usize = 8;

/// Looks through some of the oldest records and moves those that are live.
#[inline]
pub(crate) fn some(txn: &mut Txn<'_>) {
    if txn.view().log_bytes() > log_bytes_allowed(txn.block().live_bytes) {
        let view = Arc::clone(txn.view());
        look_through_chunks(txn, &view);
    }
}

/// Chunk by chunk, until enough is free or as much was looked through as this transaction should.
fn look_through_chunks(txn: &mut Txn<'_>, view: &View) {
    let (mut chunk, mut at) = looked_through(view, txn.block());
    let end = first_left_alone(view, txn.committed());
    let mut left = (txn.written_bytes() * SCANNED_PER_WRITTEN).max(SCANNED_BYTES_MIN);
    let mut freed: u64 = view.chunks[..chunk].iter().map(|chunk| chunk.bytes() as u64).sum();
    while chunk < end && left > 0 {
        let oldest = &view.chunks[chunk];
        at = look_through(txn, view, oldest, at, &mut left);
        if at < oldest.used() {
            break;
        }
        // A chunk that is through is told by a place in the next one.
        (chunk, at) = (chunk + 1, FILE_HEAD_BYTES);
        freed += oldest.bytes() as u64;
        // With what was moved.
        if txn.view().log_bytes().saturating_sub(freed) <= log_bytes_allowed(txn.block().live_bytes) {
            break;
        }
    }
    txn.block_mut().clean = Address::new(view.chunks[chunk].number(), at).bits();
}

/// Whether the last chunk was added after transaction `txn` was committed: its first record is of a later one. Then a snapshot
/// of an earlier commit, which may need a slot that `txn` left, is told of the freed slot by the view that moved since. A
/// chunk that `txn` itself added does not tell: its view may have been there when such a snapshot was begun.
fn began_after(view: &View, txn: u64) -> bool {
    let tail = view.tail();
    tail.used() > FILE_HEAD_BYTES && tail.record(FILE_HEAD_BYTES).is_some_and(|record| record.txn() > txn)
}

/// Looks through a chunk from an offset on; where it ended.
fn look_through(txn: &mut Txn<'_>, view: &View, oldest: &Chunk, mut at: usize, left: &mut u64) -> usize {
    let end = oldest.used();
    let mut group = Vec::with_capacity(GROUP);
    'all: while at < end && *left > 0 {
        group.clear();
        let mut next = at;
        while next < end && *left > 0 && group.len() < GROUP {
            // A damaged record ends the cleaning, not the write.
            let Some(record) = oldest.record(next) else { break 'all };
            *left = left.saturating_sub(u64::from(record.bytes));
            next += record.bytes as usize;
            let hash = hash(record.key());
            view.index.prefetch(view.index.home(hash));
            group.push((record, hash));
        }
        for (record, hash) in &group {
            if !record.is_aborted()
                && let Some(slot) = view.slot_of(record, *hash)
            {
                if record.is_deleted() {
                    if !began_after(txn.view(), record.txn()) {
                        break 'all;
                    }
                    // All that came before it is gone, so its key need not be remembered.
                    view.index.store(slot, FREED);
                } else if !txn.move_record(record, slot, *hash) {
                    break 'all;
                }
            }
            at += record.bytes as usize;
        }
    }
    at
}

/// Drops the chunks that were looked through to their end, after the commit that says so.
pub(crate) fn drop_oldest(shared: &Shared, view: &Arc<View>, block: &Block) -> Result<(), LiveError> {
    let through = looked_through(view, block).0;
    if through == 0 {
        return Ok(());
    }
    let next = Arc::new(View::new(view.number + 1, view.index.clone(), view.chunks[through..].to_vec()));
    if shared.ctrl.in_store() {
        // The last synced state needs this chunk until what was moved out of it is durable.
        crate::sync::all(shared, &next, block)?;
    }
    publish_view(shared, view, &next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Place;
    use crate::{LiveMap, LiveOptions, Location};

    fn map() -> (tempfile::TempDir, LiveMap) {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Store { path: folder.path().to_owned(), name: "m".into() };
        let map = LiveMap::create(&location, &LiveOptions::default()).unwrap();
        (folder, map)
    }

    /// A reader that took the view and the commit before `deleting` was committed, and looks at the slot of "a" later, finds
    /// the entry as long as it does not see the view move.
    #[test]
    fn a_slot_is_freed_only_after_a_view_later_than_its_deletion() {
        let (_folder, map) = map();
        let shared = &map.shared;
        map.lock(None, &|| false).unwrap();
        map.put(b"a", 0, b"1").unwrap();
        // Each needs a chunk of its own, in which nearly a page is left.
        let big = vec![3; (5 << 20) - 100];
        let mut deleting = Txn::begin(shared).unwrap();
        assert!(deleting.delete(b"a").unwrap());
        for _ in 0..3 {
            deleting.put(b"big", 0, &big).unwrap();
        }
        let (view, commit) = (Arc::clone(&*shared.view().unwrap()), shared.ctrl.commit());
        deleting.commit().unwrap();
        let mut looked = 0;
        for _ in 0..200 {
            map.put(b"c", 0, b"").unwrap();
            if shared.ctrl.view() != view.number {
                continue;
            }
            looked += 1;
            let Ok(Place::Taken { record, .. }) = view.place(hash(b"a"), b"a") else {
                panic!("the slot was freed after {looked} writes")
            };
            let before = view.as_of(record.address(), commit).unwrap().unwrap();
            assert_eq!(before.value(), b"1");
        }
        assert!(looked > 0);
        let now = shared.view().unwrap();
        assert!(now.oldest().number() > view.oldest().number(), "cleaning went on");
        assert!(matches!(now.place(hash(b"a"), b"a"), Ok(Place::Vacant { .. })));
        drop(now);
        map.unlock().unwrap();
    }

    #[test]
    fn cleaning_begins_anew_where_its_place_is_none() {
        let (_folder, map) = map();
        let view = map.shared.view().unwrap();
        let at = |chunk, offset| Block { clean: Address::new(chunk, offset).bits(), ..Block::default() };
        for (block, place) in [
            (at(0, 64), (0, 64)),
            (at(0, 800), (0, 800)),
            (at(0, 56), (0, 64)),
            (at(1, 64), (0, 64)),
            (at(1 << 19, 800), (0, 64)),
            (Block::default(), (0, 64)),
        ] {
            assert_eq!(looked_through(&view, &block), place, "{:#x}", block.clean);
        }
    }

    #[test]
    fn a_log_may_have_as_much_again_as_is_live_within_limits() {
        const MIB: u64 = 1 << 20;
        for (live, allowed) in [(0, 4), (1, 5), (4, 8), (5, 10), (128, 256), (146, 292), (1024, 1024 + 256)] {
            assert_eq!(log_bytes_allowed(live * MIB), allowed * MIB, "{live} MiB are live");
        }
    }

    /// What is moved keeps all that it had, an older snapshot goes on seeing what it saw, and cleaning looks at no chunk that
    /// the transaction wrote to, however large its entries are beside the chunks.
    #[test]
    fn what_is_moved_stays_what_it_was() {
        let (_folder, map) = map();
        let shared = &map.shared;
        map.lock(None, &|| false).unwrap();
        let quiet: Vec<Vec<u8>> = (0..50_u32).map(|i| format!("quiet {i}").into_bytes()).collect();
        for (i, key) in quiet.iter().enumerate() {
            map.put(key, i as u8 + 1, &vec![i as u8; 100 * i]).unwrap();
        }
        let snapshot = map.snapshot().unwrap();
        let (first, mut moves) = (shared.view().unwrap().oldest().number(), 0);
        let mut seed = 1_u64;
        for round in 0..500_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bytes = match (seed >> 33) % 8 {
                0 => 1 << 20,
                1..3 => 100_000,
                _ => 3_000,
            };
            let began_in = shared.ctrl.block().end().chunk();
            map.put(format!("loud {}", seed >> 60).as_bytes(), 0, &vec![round as u8; bytes]).unwrap();
            let block = shared.ctrl.block();
            let clean = Address::of_word(block.clean).chunk();
            let view = shared.view().unwrap();
            let oldest = view.oldest().number();
            assert!(chunk_distance(clean, oldest) <= chunk_distance(began_in, oldest), "round {round}");
            for key in &quiet {
                let Ok(Place::Taken { record, .. }) = view.place(hash(key), key) else {
                    panic!("{round}: a key is lost")
                };
                moves += usize::from(record.is_moved());
            }
        }
        assert!(moves > 500 && shared.view().unwrap().oldest().number() > first + 2, "much was moved: {moves}");
        for (i, key) in quiet.iter().enumerate() {
            let expected = (i as u8 + 1, vec![i as u8; 100 * i]);
            let entry = snapshot.get(key).unwrap().unwrap();
            assert_eq!((entry.meta(), entry.value().to_vec()), expected, "in the old snapshot");
            let now = map.snapshot().unwrap();
            let entry = now.get(key).unwrap().unwrap();
            assert_eq!((entry.meta(), entry.value().to_vec()), expected);
        }
        map.unlock().unwrap();
    }
}
