//! Making a map in a store durable: the log, and what SYNC says of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pheon_os::fs::FileSystem;
use pheon_os::shared::SharedMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::chunk::{Chunk, chunk_path};
use crate::ctrl::Block;
use crate::error::LiveError;
use crate::layout::{Address, CHUNK_NUMBERS, SYNC_MAGIC};
use crate::shared::Shared;
use crate::view::View;

const HALF_BYTES: usize = 4096;
pub(crate) const SYNC_BYTES: u64 = 2 * HALF_BYTES as u64;
const WORDS: usize = 9;

/// A state of the log that is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    count: u64,
    pub(crate) first: u32,
    pub(crate) chunks: u64,
    pub(crate) end: Address,
    pub(crate) txn: u64,
    pub(crate) entries: u64,
    pub(crate) next_order: u64,
}

impl Synced {
    fn encode(&self) -> [u8; WORDS * 8] {
        let words = [
            SYNC_MAGIC,
            self.count,
            u64::from(self.first),
            self.chunks,
            self.end.bits(),
            self.txn,
            self.entries,
            self.next_order,
        ];
        let mut bytes = [0; WORDS * 8];
        for (i, word) in words.into_iter().enumerate() {
            bytes[i * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        let sum = xxh3_64(&bytes[..(WORDS - 1) * 8]);
        bytes[(WORDS - 1) * 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(half: &[u8]) -> Option<Self> {
        let words: Vec<u64> =
            half.get(..WORDS * 8)?.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let &[magic, count, first, chunks, end, txn, entries, next_order, sum] = words.as_slice() else { return None };
        if magic != SYNC_MAGIC || sum != xxh3_64(&half[..(WORDS - 1) * 8]) {
            return None;
        }
        let first = u32::try_from(first).ok().filter(|first| *first < CHUNK_NUMBERS)?;
        Some(Self { count, first, chunks, end: Address::of_word(end), txn, entries, next_order })
    }

    /// The newest state that the file tells.
    fn read(bytes: &[u8]) -> Option<Self> {
        let halves = bytes.chunks(HALF_BYTES).filter_map(Self::decode);
        halves.max_by_key(|synced| synced.count)
    }
}

impl Synced {
    /// The state of a log that was `before`, and now is this one.
    pub(crate) fn after(before: Option<&Self>, view: &View, block: &Block) -> Self {
        Self {
            count: before.map_or(0, |synced| synced.count).saturating_add(1),
            first: view.oldest().number(),
            chunks: view.chunks.len() as u64,
            end: block.end(),
            txn: block.txn,
            entries: block.entries,
            next_order: block.next_order,
        }
    }

    /// What a mapped SYNC tells.
    pub(crate) fn of(file: &SharedMap) -> Option<Self> {
        file.bytes(0, file.len_bytes()).and_then(Self::read)
    }

    /// Makes it the newest state that SYNC tells. What it says must be on the disk.
    pub(crate) fn write(&self, fs: &dyn FileSystem, path: &Path, file: &SharedMap) -> Result<(), LiveError> {
        let half = if self.count.is_multiple_of(2) { 0 } else { HALF_BYTES };
        file.write(half, &self.encode());
        fs.sync_shared(path, file).map_err(|e| {
            // Else who comes next takes it for being on the disk.
            file.write(half, &[0; WORDS * 8]);
            LiveError::io("sync", path, e)
        })
    }
}

/// Makes chunks, and all names in the map's folder, durable.
pub(crate) fn files(fs: &dyn FileSystem, dir: &Path, chunks: &[Arc<Chunk>]) -> Result<(), LiveError> {
    for chunk in chunks {
        contents_of(fs, dir, chunk)?;
    }
    fs.sync_dir(dir).map_err(|e| LiveError::io("sync", dir, e))
}

/// Makes a chunk durable, if its name is.
pub(crate) fn contents(shared: &Shared, chunk: &Chunk) -> Result<(), LiveError> {
    contents_of(&*shared.fs, &shared.dir, chunk).inspect_err(|_| shared.ctrl.set_sync_failed(true))
}

fn contents_of(fs: &dyn FileSystem, dir: &Path, chunk: &Chunk) -> Result<(), LiveError> {
    let path = chunk_path(dir, chunk.number());
    fs.sync_shared(&path, chunk.map()).map_err(|e| LiveError::io("sync", &path, e))
}

/// Makes the names of the folders durable that the map is in. Once a process: who made the map, or the folder of all maps,
/// may have been killed before.
fn folders(shared: &Shared) -> Result<(), LiveError> {
    if !shared.names_synced.load(Relaxed) {
        for folder in shared.dir.ancestors().skip(1).take(2) {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            shared.fs.sync_dir(folder).map_err(|e| LiveError::io("sync", folder, e))?;
        }
        shared.names_synced.store(true, Relaxed);
    }
    Ok(())
}

/// Makes all of the log up to `block` durable, and says so in SYNC. The thread holds the lock, or nobody knows the map yet.
pub(crate) fn all(shared: &Shared, view: &View, block: &Block) -> Result<(), LiveError> {
    folders(shared)?;
    let (fs, path) = (&*shared.fs, shared.ctrl.sync_path());
    let file = shared.ctrl.sync_file(fs, shared.mode)?;
    let before = Synced::of(file);
    let failed = shared.ctrl.has_sync_failed();
    if !failed && before.is_some_and(|synced| synced.txn >= block.txn && synced.first == view.oldest().number()) {
        // Who wrote that may have been killed before it was on the disk.
        let done = fs.sync_shared(&path, file).map_err(|e| LiveError::io("sync", &path, e));
        return done.inspect_err(|_| shared.ctrl.set_sync_failed(true));
    }
    // Chunks before the one that was synced last have not changed since.
    let from = before.and_then(|synced| view.chunks.iter().position(|chunk| chunk.number() == synced.end.chunk()));
    let chunks = &view.chunks[from.unwrap_or(0)..];
    if failed {
        // The kernel takes for clean what it could not write, and tells of it once: all of it is to be written again.
        chunks.iter().for_each(|chunk| chunk.map().touch(chunk.used()));
    }
    let done = files(fs, &shared.dir, chunks)
        .and_then(|()| Synced::after(before.as_ref(), view, block).write(fs, &path, file));
    if done.is_err() || failed {
        shared.ctrl.set_sync_failed(done.is_err());
    }
    done
}

/// Of so many durable transactions SYNC need not tell. Damage of what it tells is noticed after a boot; of what it does not, it
/// looks as if the power had been cut there.
const TRANSACTIONS_UNTOLD_MAX: u64 = 256;

/// Makes the transactions after `committed` durable: enough for a replay of the log to find them.
pub(crate) fn chunks(shared: &Shared, view: &View, committed: &Block, block: &Block) -> Result<(), LiveError> {
    folders(shared)?;
    let tail = view.tail();
    // Where SYNC names the last chunk, that chunk's name and all before it are on the disk. It does not if a sync failed
    // since, of whatever process.
    let is_told = |synced: Synced| {
        synced.end.chunk() == tail.number() && block.txn.saturating_sub(synced.txn) <= TRANSACTIONS_UNTOLD_MAX
    };
    let synced = Synced::of(shared.ctrl.sync_file(&*shared.fs, shared.mode)?);
    if !shared.ctrl.has_sync_failed() && committed.end().chunk() == tail.number() && synced.is_some_and(is_told) {
        return contents(shared, tail);
    }
    all(shared, view, block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_or_not_at_all() {
        let end = Address::new(3, 72);
        let state = |count, first| Synced { count, first, chunks: 2, end, txn: 5, entries: 6, next_order: 7 };
        let newest = state(9, CHUNK_NUMBERS - 1);
        let bytes = newest.encode();
        assert_eq!(Synced::decode(&bytes), Some(newest));
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Synced::decode(&damaged), None, "bit {bit}");
        }
        // No chunk has that number, though the checksum is right.
        assert_eq!(Synced::decode(&state(9, CHUNK_NUMBERS).encode()), None);
        for (halves, expected) in [([0, 9], 9), ([9, 0], 9), ([0, 0], 0)] {
            let mut file = vec![0; 2 * HALF_BYTES];
            for (half, count) in file.chunks_mut(HALF_BYTES).zip(halves) {
                half[..bytes.len()].copy_from_slice(&state(count, 1).encode());
            }
            assert_eq!(Synced::read(&file), Some(state(expected, 1)));
        }
    }
}
