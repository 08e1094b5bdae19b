//! Undoing what a killed writer, or a failed transaction, left: docs/live.md, "Killed writers".

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

use pheon_os::fs::FileSystem;

use crate::chunk::{Chunk, Record, chunk_path};
use crate::ctrl::{Block, Ctrl};
use crate::error::LiveError;
use crate::index::index_path;
use crate::layout::{Address, EMPTY, FILE_HEAD_BYTES, FREED, Mark, hash, tag_bits};
use crate::shared::Shared;
use crate::view::{View, view_path};

/// Whether the log ends where the last commit says.
#[inline]
pub(crate) fn is_whole(view: &View, block: &Block) -> bool {
    let (tail, end) = (view.tail(), block.end());
    let used = tail.used();
    if tail.number() == end.chunk() { used == end.offset() } else { used == FILE_HEAD_BYTES && whole_before(view, end) }
}

/// A chunk was added and nothing written to it: whether the one before is whole.
fn whole_before(view: &View, end: Address) -> bool {
    let after_end = view.chunks.iter().rev().take_while(|chunk| chunk.number() != end.chunk());
    after_end.clone().all(|chunk| chunk.used() == FILE_HEAD_BYTES)
        && view.chunk(end.chunk()).is_none_or(|chunk| chunk.used() == end.offset())
}

/// Clears what a writer wrote behind the used part of the last chunk that was killed before it published that. The next
/// transaction has the same number, so a power cut could mix the two: what is left must be gone from the disk before.
pub(crate) fn forget_unpublished(shared: &Shared, tail: &Chunk, used: usize) -> Result<(), LiveError> {
    // As long as it is not done, the next writer finds something there.
    tail.set_no_record(used);
    tail.clear_from(used + 8);
    if shared.ctrl.has_sync_failed() {
        // The kernel takes for clean what an earlier attempt cleared and could not write.
        tail.map().touch(tail.bytes());
    }
    crate::sync::contents(shared, tail)?;
    tail.map().store(used, 0);
    Ok(())
}

/// Takes back all records after `committed`, and commits that. The thread holds the map's lock.
pub(crate) fn repair(shared: &Shared, view: &View, committed: &Block) -> Result<Block, LiveError> {
    let records = uncommitted(shared, view, committed)?;
    for record in records.iter().rev() {
        if let Some(slot) = view.slot_of(record, hash(record.key())) {
            // Not EMPTY: keys of others may have been placed behind this slot when the index was rebuilt.
            let before = match record.before().bits() {
                EMPTY => FREED,
                address => address,
            };
            let tag = if before > FREED { tag_bits(view.index.load(slot)) } else { 0 };
            view.index.store(slot, tag | before);
        }
        if let Some(chunk) = view.chunk(record.address().chunk()) {
            chunk.mark(record.address().offset(), Mark::Aborted);
        }
    }
    if shared.ctrl.in_store() {
        // Before the next transaction can be on the disk. After a power cut one flag aborts all of its transaction.
        let from = view.chunks.iter().position(|chunk| chunk.number() == committed.end().chunk());
        for chunk in &view.chunks[from.unwrap_or(0)..] {
            crate::sync::contents(shared, chunk)?;
        }
    }
    let end = Address::new(view.tail().number(), view.tail().used());
    let block = Block { txn: committed.txn + 1, end: end.bits(), used_slots: view.index.used(), ..*committed };
    shared.ctrl.publish(&block);
    if shared.check_linked().is_ok() {
        remove_leftovers(&*shared.fs, &shared.dir, view);
    }
    Ok(block)
}

/// The records that no commit covers, first to last.
fn uncommitted<'a>(shared: &Shared, view: &'a View, committed: &Block) -> Result<Vec<Record<'a>>, LiveError> {
    let end = committed.end();
    let mut records = Vec::new();
    let from = view.chunks.iter().position(|chunk| chunk.number() == end.chunk());
    for (i, chunk) in view.chunks.iter().enumerate().skip(from.unwrap_or(0)) {
        let mut at = if Some(i) == from { end.offset() } else { FILE_HEAD_BYTES };
        while at < chunk.used() {
            let record = chunk.record(at).ok_or_else(|| {
                LiveError::corrupt(&chunk_path(&shared.dir, chunk.number()), format!("no record at byte {at}"))
            })?;
            at += record.bytes as usize;
            if !record.is_aborted() {
                records.push(record);
            }
        }
    }
    Ok(records)
}

/// Removes files that the current view does not name. The thread holds the lock, or nobody uses the map.
pub(crate) fn remove_leftovers(fs: &dyn FileSystem, dir: &Path, view: &View) {
    let mut named: HashSet<_> = view.chunks.iter().map(|chunk| chunk_path(dir, chunk.number())).collect();
    named.insert(view_path(dir, view.number));
    named.insert(index_path(dir, view.index.number()));
    named.insert(Ctrl::path_in(dir));
    for name in ["LOCK", "KEYLOCKS", "SYNC"] {
        named.insert(dir.join(name));
    }
    let Ok(entries) = fs.read_dir(dir) else { return };
    for entry in entries {
        let path = dir.join(OsStr::new(&entry.name));
        if !entry.is_dir && !named.contains(&path) {
            crate::files::remove(fs, &path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::Index;

    #[test]
    fn what_was_never_published_is_cleared_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let location = crate::Location::Store { path: folder.path().to_owned(), name: "m".into() };
        let map = crate::LiveMap::create(&location, &crate::LiveOptions::default()).unwrap();
        map.lock(None, &|| false).unwrap();
        map.put(b"a", 0, &[1; 40_000]).unwrap();
        let view = map.shared.view().unwrap();
        let tail = view.tail();
        let (used, bytes) = (tail.used(), tail.bytes());
        tail.map().write(used, &vec![7; bytes - used]);
        drop(crate::write::Txn::begin(&map.shared).unwrap());
        assert!(tail.map().bytes(used, bytes - used).unwrap().iter().all(|&byte| byte == 0));
        assert_eq!((tail.used(), map.get(b"a").unwrap()), (used, Some(vec![1; 40_000])));
        drop(view);
        map.unlock().unwrap();
    }

    #[test]
    fn a_log_is_whole_if_nothing_follows_the_last_commit() {
        const HEAD: usize = FILE_HEAD_BYTES;
        let cases: [(&[usize], (u32, usize), bool); 10] = [
            (&[200], (0, 200), true),
            (&[200], (0, 104), false),
            (&[200, 304], (1, 304), true),
            (&[200, 304], (1, 200), false),
            // Chunks were added after it.
            (&[200, HEAD], (0, 200), true),
            (&[200, HEAD], (0, 104), false),
            (&[200, 72], (0, 200), false),
            (&[200, HEAD, HEAD], (0, 200), true),
            (&[200, 72, HEAD], (0, 200), false),
            (&[200, HEAD, 72], (0, 200), false),
        ];
        for (used, (chunk, offset), whole) in cases {
            let fs = pheon_os::fs::real();
            let dir = tempfile::tempdir().unwrap();
            let made = used.iter().zip(0..).map(|(&used, number)| {
                let chunk = Chunk::create(&*fs, dir.path(), number, 4096, 0o600).unwrap();
                chunk.set_used(used);
                Arc::new(chunk)
            });
            let index = Index::create(&*fs, dir.path(), 0, 4, 0o600).unwrap();
            let view = View::new(1, Arc::new(index), made.collect());
            let block = Block { end: Address::new(chunk, offset).bits(), ..Block::default() };
            assert_eq!(is_whole(&view, &block), whole, "{used:?} {chunk} {offset}");
        }
    }
}
