//! Rebuilding a map from its log: docs/live.md, "After a boot".

use std::io;
use std::path::Path;
use std::sync::Arc;

use pheon_os::fs::FileSystem;

use crate::chunk::{Chunk, Record, chunk_path};
use crate::ctrl::{Block, Ctrl};
use crate::error::LiveError;
use crate::index::{Index, SLOTS_MIN_LOG2};
use crate::layout::{Address, CHUNK_NUMBERS, EMPTY, FILE_HEAD_BYTES, Mark, chunk_distance, hash, next_chunk, tag_bits};
use crate::repair::remove_leftovers;
use crate::sync::{self, Synced};
use crate::view::{Place, View};

/// Rebuilds index, view, mutexes and commit block. The caller holds the map's `LOCK`, and the map has no boot's id that
/// counts, so nobody uses it. May be cut short anywhere, by a power cut too, and done again.
pub(crate) fn recover(
    fs: &dyn FileSystem,
    dir: &Path,
    ctrl: &Ctrl,
    mode: u32,
    boot: [u8; 16],
) -> Result<(), LiveError> {
    let path = ctrl.sync_path();
    let file = ctrl.sync_file(fs, mode)?;
    let synced = Synced::of(file).ok_or_else(|| LiveError::corrupt(&path, "neither half is a state of the log"))?;
    ctrl.set_boot([0; 16]);

    let log = Log::examine(dir, open_chunks(fs, dir, &synced)?, &synced, ctrl.has_seals())?;
    let wrong = |what: &str| LiveError::corrupt(ctrl.path(), format!("no number comes after that of its {what}"));
    // Each write takes one more of both; nobody writes so often.
    for (number, what) in [(log.next_order, "order"), (log.txn, "transaction")] {
        if number > u64::MAX / 2 {
            return Err(wrong(what));
        }
    }
    log.cut(fs, dir, synced.first)?;
    let number = ctrl.view().checked_add(1).ok_or_else(|| wrong("view"))?;
    let index_number = leftover_index(fs, dir).checked_add(1).ok_or_else(|| wrong("index"))?;
    let log2 = (log.records * 2).next_power_of_two().trailing_zeros().max(SLOTS_MIN_LOG2);
    let index = Index::create(fs, dir, index_number, log2, mode)?;
    let view = View::new(number, Arc::new(index), log.chunks.clone());
    let mut block = Block {
        txn: log.txn,
        end: log.end.bits(),
        clean: Address::new(view.oldest().number(), FILE_HEAD_BYTES).bits(),
        next_order: log.next_order,
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
            }
            at += record.bytes as usize;
        }
    }
    view.write(fs, dir, mode)?;
    Synced::after(Some(&synced), &view, &block).write(fs, &path, file)?;
    ctrl.set_sync_failed(false);
    ctrl.mutex().init().map_err(|e| LiveError::io("make the lock of", ctrl.path(), e))?;
    let _ = fs.unlink(&dir.join("KEYLOCKS"));
    ctrl.set_view(number);
    ctrl.publish(&block);
    remove_leftovers(fs, dir, &view);
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
        let must_be = chunks.len() as u32 <= chunk_distance(synced.end.chunk(), synced.first);
        let opened = fs
            .metadata(&path)
            .map_err(|e| LiveError::io("examine", &path, e))
            .and_then(|meta| Chunk::open(fs, dir, number, meta.len_bytes, true));
        match opened {
            Ok(chunk) => chunks.push(Arc::new(chunk)),
            Err(LiveError::Io { source, .. }) if must_be && source.kind() == io::ErrorKind::NotFound => {
                return Err(LiveError::corrupt(&path, "it is not there"));
            }
            Err(error) if must_be => return Err(error),
            // Not there, or not all of it reached the disk. Any other error might hide records that count.
            Err(LiveError::Corrupt { .. }) => break,
            Err(LiveError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
        number = next_chunk(number);
    }
    Ok(chunks)
}

/// The part of a log that counts.
struct Log {
    chunks: Vec<Arc<Chunk>>,
    /// After the last record, in the last chunk.
    end: Address,
    /// The last whole transaction, be it an aborted one.
    txn: u64,
    records: u64,
    /// More than that of each record, aborted ones too.
    next_order: u64,
    has_seals: bool,
}

/// The records of a transaction that were found so far.
struct Found {
    txn: u64,
    records: Vec<Address>,
    /// After them.
    end: Address,
    aborted: bool,
    next_order: u64,
}

impl Found {
    fn begin(txn: u64) -> Self {
        Self { txn, records: Vec::new(), end: Address::of_word(EMPTY), aborted: false, next_order: 0 }
    }

    fn add(&mut self, record: &Record<'_>) {
        let address = record.address();
        self.records.push(address);
        self.end = Address::new(address.chunk(), address.offset() + record.bytes as usize);
        self.aborted |= record.is_aborted();
        self.next_order = self.next_order.max(record.order().saturating_add(1));
    }
}

impl Log {
    /// Checks every record. Up to the synced end a wrong one is damage; beyond it whole transactions count as long as each
    /// record is right, none is missing and the numbers ascend.
    fn examine(dir: &Path, chunks: Vec<Arc<Chunk>>, synced: &Synced, has_seals: bool) -> Result<Self, LiveError> {
        let mut log =
            Self { chunks, end: synced.end, txn: synced.txn, records: 0, next_order: synced.next_order, has_seals };
        log.take_synced(dir, chunk_distance(synced.end.chunk(), synced.first) as usize)?;
        log.take_more(chunk_distance(synced.end.chunk(), synced.first) as usize);
        log.chunks.truncate(chunk_distance(log.end.chunk(), synced.first) as usize + 1);
        Ok(log)
    }

    /// Up to the synced end, which is in the chunk at `tail`.
    fn take_synced(&mut self, dir: &Path, tail: usize) -> Result<(), LiveError> {
        let mut found = Found::begin(0);
        for i in 0..=tail {
            let chunk = self.chunks[i].clone();
            let end = if i == tail { self.end.offset() } else { chunk.used() };
            // One of the two may be damaged: `used` is under no checksum.
            if i < tail && self.chunks[i + 1].before() != end {
                let problem =
                    format!("it ends at byte {end}, but at {} as the next one has it", self.chunks[i + 1].before());
                return Err(LiveError::corrupt(&chunk_path(dir, chunk.number()), problem));
            }
            let mut at = FILE_HEAD_BYTES;
            while at < end {
                let is_sound = |record: &Record<'_>| record.is_intact() && (!self.has_seals || record.is_as_sealed());
                let record = chunk.record(at).filter(is_sound).ok_or_else(|| {
                    let problem = format!("the record at byte {at} is not as it was synced");
                    LiveError::corrupt(&chunk_path(dir, chunk.number()), problem)
                })?;
                // Numbers ascend, up to the one that SYNC tells.
                if !(found.txn..=self.txn).contains(&record.txn()) {
                    let problem = format!(
                        "the record at byte {at} is of transaction {}, expected {} to {}",
                        record.txn(),
                        found.txn,
                        self.txn
                    );
                    return Err(LiveError::corrupt(&chunk_path(dir, chunk.number()), problem));
                }
                if record.txn() != found.txn {
                    self.take(&found);
                    found = Found::begin(record.txn());
                }
                found.add(&record);
                at += record.bytes as usize;
            }
            if at != end {
                let problem = format!("its records end at byte {at}, not {end}");
                return Err(LiveError::corrupt(&chunk_path(dir, chunk.number()), problem));
            }
        }
        self.take(&found);
        Ok(())
    }

    /// What follows the synced end, which is in the chunk at `i`.
    fn take_more(&mut self, mut i: usize) {
        let mut at = self.end.offset();
        let mut unfinished: Option<Found> = None;
        loop {
            // A later chunk with a record in it says where this one ends. What else is missing here would be missed.
            let later =
                self.chunks.get(i + 1).filter(|later| later.record(FILE_HEAD_BYTES).is_some_and(|r| r.is_intact()));
            if later.is_some_and(|later| later.before() == at) {
                self.chunks[i].set_used(at);
                (i, at) = (i + 1, FILE_HEAD_BYTES);
            }
            let chunk = self.chunks[i].clone();
            let Some(record) = chunk.record(at).filter(Record::is_intact) else { return };
            if self.has_seals {
                // Of seal and flag one may be on the disk without the other.
                let Some(mark) = record.sealed() else { return };
                chunk.set_flags(at, mark);
            }
            if let Some(found) = unfinished.take_if(|found| found.txn != record.txn()) {
                // Of an aborted transaction no record is flagged as the last one; the next one's first tells that it was all.
                if !found.aborted {
                    return;
                }
                (self.end, self.txn) = (found.end, found.txn);
                self.take(&found);
            }
            if unfinished.is_none() && Some(record.txn()) != self.txn.checked_add(1) {
                return;
            }
            let found = unfinished.get_or_insert_with(|| Found::begin(record.txn()));
            found.add(&record);
            at += record.bytes as usize;
            if record.is_last()
                && let Some(found) = unfinished.take()
            {
                (self.end, self.txn) = (found.end, found.txn);
                self.take(&found);
            }
        }
    }

    /// Counts a whole transaction. If one of its records is aborted, all are: not every flag need have reached the disk.
    fn take(&mut self, found: &Found) {
        self.records += found.records.len() as u64;
        self.next_order = self.next_order.max(found.next_order);
        for address in found.records.iter().filter(|_| found.aborted) {
            let first = self.chunks[0].number();
            self.chunks[chunk_distance(address.chunk(), first) as usize].mark(address.offset(), Mark::Aborted);
        }
    }

    /// Makes what is behind the end go for good, and what counts durable. Else the next boot would take what is there now for
    /// what follows the records that are written from now on.
    fn cut(&self, fs: &dyn FileSystem, dir: &Path, first: u32) -> Result<(), LiveError> {
        if let Some(tail) = self.chunks.last() {
            tail.set_used(self.end.offset());
            tail.clear_from(self.end.offset());
        }
        let entries = fs.read_dir(dir).map_err(|e| LiveError::io("list", dir, e))?;
        for number in entries.iter().filter_map(|entry| entry.name.strip_prefix("log-")?.parse().ok()) {
            let path = chunk_path(dir, number);
            if chunk_distance(number, first) as usize >= self.chunks.len() {
                match fs.unlink(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(LiveError::io("remove", &path, e)),
                    _ => {}
                }
            }
        }
        sync::files(fs, dir, &self.chunks)
    }
}
