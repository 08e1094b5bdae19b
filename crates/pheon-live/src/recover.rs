//! Rebuilding a map from its log: docs/live.md, "After a boot".

use std::path::Path;
use std::sync::Arc;

use pheon_os::fs::FileSystem;

use crate::chunk::{Chunk, chunk_path};
use crate::ctrl::{Block, Ctrl};
use crate::error::LiveError;
use crate::index::{Index, SLOTS_MIN_LOG2};
use crate::layout::{Address, CHUNK_NUMBERS, EMPTY, FILE_HEAD_BYTES, chunk_distance, hash, next_chunk, tag_bits};
use crate::sync::{SYNC_BYTES, Synced};
use crate::view::{Place, View};

/// Rebuilds index, view, mutexes and commit block. The caller holds the map's `LOCK`, and the map has no boot's id that
/// counts, so nobody uses it.
pub(crate) fn recover(
    fs: &dyn FileSystem,
    dir: &Path,
    ctrl: &Ctrl,
    mode: u32,
    boot: [u8; 16],
) -> Result<(), LiveError> {
    let path = dir.join("SYNC");
    let bytes = fs.read(&path, SYNC_BYTES).map_err(|e| LiveError::io("read", &path, e))?;
    let synced = Synced::read(&bytes).ok_or_else(|| LiveError::corrupt(&path, "neither half is a state of the log"))?;
    ctrl.set_boot([0; 16]);

    let chunks = open_chunks(fs, dir, &synced)?;
    let log = Log::examine(dir, chunks, &synced)?;
    let (number, index_number) = (ctrl.view() + 1, leftover_index(fs, dir) + 1);
    let log2 = (log.records * 2).next_power_of_two().trailing_zeros().max(SLOTS_MIN_LOG2);
    let index = Index::create(fs, dir, index_number, log2, mode)?;
    let view = View::new(number, Arc::new(index), log.chunks.clone());
    let mut block = Block {
        txn: log.txn,
        end: log.end.bits(),
        clean: Address::new(view.oldest().number(), FILE_HEAD_BYTES).bits(),
        next_order: synced.next_order,
        ..Block::default()
    };
    for chunk in &view.chunks {
        let mut at = FILE_HEAD_BYTES;
        while at < chunk.used() {
            let lost = || LiveError::corrupt(&chunk_path(dir, chunk.number()), format!("no record at byte {at}"));
            let record = chunk.record(at).ok_or_else(lost)?;
            if !record.is_aborted() {
                let hash = hash(record.key());
                let slot = match view.place(hash, record.key()).map_err(|_| lost())? {
                    Place::Taken { slot, record: before } => {
                        if !before.is_deleted() {
                            block.entries -= 1;
                            block.live_bytes -= u64::from(before.bytes);
                        }
                        slot
                    }
                    Place::Vacant { slot, was } => {
                        block.used_slots += u64::from(was == EMPTY);
                        slot
                    }
                };
                view.index.store(slot, tag_bits(hash) | record.address().bits());
                if !record.is_deleted() {
                    block.entries += 1;
                    block.live_bytes += u64::from(record.bytes);
                }
                block.next_order = block.next_order.max(record.order() + 1);
            }
            at += record.bytes as usize;
        }
    }
    view.write(fs, dir, mode)?;
    ctrl.mutex().init().map_err(|e| LiveError::io("make the lock of", ctrl.path(), e))?;
    let _ = fs.unlink(&dir.join("KEYLOCKS"));
    ctrl.set_view(number);
    ctrl.publish(&block);
    fs.sync_shared(ctrl.path(), ctrl.map()).map_err(|e| LiveError::io("sync", ctrl.path(), e))?;
    ctrl.set_boot(boot);
    Ok(())
}

/// The highest number of an index that is there.
fn leftover_index(fs: &dyn FileSystem, dir: &Path) -> u64 {
    let entries = fs.read_dir(dir).unwrap_or_default();
    entries.iter().filter_map(|entry| entry.name.strip_prefix("index-")?.parse().ok()).max().unwrap_or(0)
}

/// The chunks of the synced state, and those that follow.
fn open_chunks(fs: &dyn FileSystem, dir: &Path, synced: &Synced) -> Result<Vec<Arc<Chunk>>, LiveError> {
    let mut chunks = Vec::new();
    let mut number = synced.first;
    while chunks.len() < CHUNK_NUMBERS as usize {
        let path = chunk_path(dir, number);
        let must_be = (chunks.len() as u64) < synced.chunks;
        let opened = fs
            .metadata(&path)
            .map_err(|e| LiveError::io("examine", &path, e))
            .and_then(|meta| Chunk::open(fs, dir, number, meta.len_bytes, true));
        match opened {
            Ok(chunk) => chunks.push(Arc::new(chunk)),
            Err(error) if must_be => return Err(error),
            Err(_) => break,
        }
        number = next_chunk(number);
    }
    Ok(chunks)
}

/// The part of a log that counts.
struct Log {
    chunks: Vec<Arc<Chunk>>,
    end: Address,
    txn: u64,
    records: u64,
}

impl Log {
    /// Checks every record. Up to the synced end a wrong one is damage; beyond it whole transactions count as long as each
    /// record is right and the numbers ascend.
    fn examine(dir: &Path, chunks: Vec<Arc<Chunk>>, synced: &Synced) -> Result<Self, LiveError> {
        let first = synced.first;
        let synced_end = (chunk_distance(synced.end.chunk(), first), synced.end.offset());
        let (mut end, mut txn, mut records) = (synced.end, synced.txn, 0);
        'log: for (i, chunk) in chunks.iter().enumerate() {
            let mut at = FILE_HEAD_BYTES;
            loop {
                let is_synced = (i as u32, at) < synced_end;
                if is_synced && (i as u32) < synced_end.0 && at >= chunk.used() {
                    break;
                }
                let record = chunk.record(at).filter(|record| record.is_intact());
                let follows = |record: &crate::chunk::Record<'_>| {
                    is_synced || (record.txn() == txn || record.txn() == txn + 1) && record.txn() > synced.txn
                };
                let Some(record) = record.filter(follows) else {
                    if is_synced {
                        let problem = format!("the record at byte {at} is not as it was synced");
                        return Err(LiveError::corrupt(&chunk_path(dir, chunk.number()), problem));
                    }
                    // The next chunk may go on with the transaction.
                    let more = chunks.get(i + 1).and_then(|next| next.record(FILE_HEAD_BYTES));
                    if more.is_some_and(|next| next.is_intact() && (next.txn() == txn || next.txn() == txn + 1)) {
                        break;
                    }
                    break 'log;
                };
                at += record.bytes as usize;
                records += 1;
                if !is_synced {
                    txn = record.txn();
                    if record.is_last() || record.is_aborted() {
                        end = Address::new(chunk.number(), at);
                    }
                }
                if at >= chunk.bytes() {
                    break;
                }
            }
        }
        Self::cut(chunks, first, end, txn, records)
    }

    /// Forgets what is behind the end.
    fn cut(mut chunks: Vec<Arc<Chunk>>, first: u32, end: Address, txn: u64, records: u64) -> Result<Self, LiveError> {
        chunks.truncate(chunk_distance(end.chunk(), first) as usize + 1);
        if let Some(tail) = chunks.last() {
            tail.set_used(end.offset());
        }
        for chunk in &chunks {
            // Beyond the synced end `used` need not have reached the disk.
            let mut at = FILE_HEAD_BYTES;
            let tail = chunk.number() == end.chunk();
            while let Some(record) = chunk.record(at).filter(|record| record.is_intact()) {
                if tail && at >= end.offset() {
                    break;
                }
                at += record.bytes as usize;
            }
            chunk.set_used(at);
        }
        Ok(Self { chunks, end, txn, records })
    }
}
