//! Making a map in a store durable: the log, and what SYNC says of it.

use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

use crate::chunk::chunk_path;
use crate::ctrl::Block;
use crate::error::LiveError;
use crate::layout::{Address, SYNC_MAGIC};
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

pub(crate) fn path(shared: &Shared) -> PathBuf {
    shared.dir.join("SYNC")
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
        let first = u32::try_from(first).ok()?;
        Some(Self { count, first, chunks, end: Address::of_word(end), txn, entries, next_order })
    }

    /// The newest state that the file tells.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let halves = bytes.chunks(HALF_BYTES).filter_map(Self::decode);
        halves.max_by_key(|synced| synced.count)
    }
}

/// Makes all of the log up to `block` durable, and says so in SYNC. The thread holds the lock, or nobody knows the map yet.
pub(crate) fn all(shared: &Shared, view: &View, block: &Block) -> Result<(), LiveError> {
    let path = path(shared);
    let fs = &*shared.fs;
    let map = match fs.map_shared(&path, true) {
        Ok(map) => map,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => crate::files::create(fs, &path, SYNC_BYTES, shared.mode)?,
        Err(e) => return Err(LiveError::io("open", &path, e)),
    };
    let before = map.bytes(0, map.len_bytes()).and_then(Synced::read);
    let first = view.oldest().number();
    if before.is_some_and(|synced| synced.txn >= block.txn && synced.first == first) {
        return Ok(());
    }
    // Chunks before the one that was synced last have not changed since, but for abort flags of repairs.
    let from = before.and_then(|synced| view.chunks.iter().position(|chunk| chunk.number() == synced.end.chunk()));
    for chunk in &view.chunks[from.unwrap_or(0)..] {
        let path = chunk_path(&shared.dir, chunk.number());
        fs.sync_shared(&path, chunk.map()).map_err(|e| LiveError::io("sync", &path, e))?;
    }
    fs.sync_dir(&shared.dir).map_err(|e| LiveError::io("sync", &shared.dir, e))?;
    let synced = Synced {
        count: before.map_or(0, |synced| synced.count) + 1,
        first,
        chunks: view.chunks.len() as u64,
        end: block.end(),
        txn: block.txn,
        entries: block.entries,
        next_order: block.next_order,
    };
    map.write(if synced.count.is_multiple_of(2) { 0 } else { HALF_BYTES }, &synced.encode());
    fs.sync_shared(&path, &map).map_err(|e| LiveError::io("sync", &path, e))
}

/// Makes the transactions after `committed` durable: enough for a replay of the log to find them.
pub(crate) fn chunks(shared: &Shared, view: &View, committed: &Block, block: &Block) -> Result<(), LiveError> {
    if committed.end().chunk() != block.end().chunk() {
        return all(shared, view, block);
    }
    let tail = view.tail();
    let path = chunk_path(&shared.dir, tail.number());
    shared.fs.sync_shared(&path, tail.map()).map_err(|e| LiveError::io("sync", &path, e))
}
