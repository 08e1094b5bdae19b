//! A transaction: docs/live.md, "Write".

use std::sync::Arc;

use pheon_os::thread_id;

use crate::chunk::{Chunk, Record};
use crate::clean;
use crate::ctrl::{Block, now_ns};
use crate::error::LiveError;
use crate::index::Index;
use crate::layout::{
    Address, CHUNK_BYTES_MAX, DELETED, EMPTY, FILE_HEAD_BYTES, FREED, Head, META_SHIFT, MOVED, Mark, hash, next_chunk,
    record_bytes, tag_bits,
};
use crate::queue::Queue;
use crate::repair;
use crate::shared::Shared;
use crate::view::{Place, View};

/// A new map's first chunk, and the smallest.
pub(crate) const CHUNK_BYTES_MIN: u64 = 64 << 10;
const CHUNK_BYTES_USUAL_MAX: u64 = 256 << 20;
/// While a map is small, chunks are no larger than this; then at least as large as a large page, which memory file systems
/// give to files of that length: lookups in a random order are 13 % faster.
const CHUNK_BYTES_SMALL_MAX: u64 = 512 << 10;
const CHUNK_BYTES_LARGE_MIN: u64 = 2 << 20;
/// So many bytes of entries are a map that is not small.
const LIVE_BYTES_LARGE_MIN: u64 = 16 << 20;

/// Entries that a transaction evicts for their age: so many, and so many for each record that it wrote. More than one, so
/// that they become fewer; bounded, so that a single write does not wait for the eviction of a map that nobody wrote for long.
const EVICTED_MIN: u64 = 64;
const EVICTED_PER_RECORD: u64 = 2;

/// A transaction under way. The thread holds the map's lock. Dropped without [`commit`](Self::commit) it is undone.
pub(crate) struct Txn<'a> {
    shared: &'a Shared,
    view: Arc<View>,
    /// As it will be committed.
    block: Block,
    committed: Block,
    writer: u32,
    used: usize,
    /// The last record written.
    last: Option<Address>,
    written_bytes: u64,
    records: u64,
    /// Keys whose newest record is a deletion by this transaction: their slots are needed until it is committed.
    deleted_keys: u64,
    ended: bool,
}

/// The slot of a key, or the one that will be; what the slot has in it; and the newest record of the key.
struct Found {
    slot: usize,
    before: u64,
    newest: Option<Newest>,
}

struct Newest {
    bytes: u64,
    order: u64,
    deleted: bool,
    /// Written by this transaction.
    own: bool,
}

impl<'a> Txn<'a> {
    /// Begins, after repairing what a killed writer left.
    ///
    /// # Errors
    /// [`LiveError::Unlinked`], or the map is damaged.
    pub(crate) fn begin(shared: &'a Shared) -> Result<Self, LiveError> {
        shared.check_linked()?;
        let view = Arc::clone(&*shared.view()?);
        let mut committed = shared.ctrl.block();
        if !repair::is_whole(&view, &committed) {
            committed = repair::repair(shared, &view, &committed)?;
        }
        let used = view.tail().used();
        if shared.ctrl.in_store() && view.tail().has_unpublished(used) {
            repair::forget_unpublished(shared, view.tail(), used)?;
        }
        let block = Block { txn: committed.txn + 1, ..committed };
        let (_, writer) = thread_id::current();
        Ok(Self {
            shared,
            view,
            block,
            committed,
            writer,
            used,
            last: None,
            written_bytes: 0,
            records: 0,
            deleted_keys: 0,
            ended: false,
        })
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`LiveError::Full`], [`LiveError::TooLarge`], or the map is damaged. The transaction is to be dropped then.
    pub(crate) fn put(&mut self, key: &[u8], meta: u8, value: &[u8]) -> Result<(), LiveError> {
        let too_large = LiveError::TooLarge { key_bytes: key.len(), value_bytes: value.len() };
        let bytes = record_bytes(key.len(), value.len()).ok_or(too_large)?;
        self.reserve_slot()?;
        self.reserve_log(bytes)?;
        let hash = hash(key);
        let found = self.find(hash, key)?;
        let order = match found.newest {
            Some(newest) if !newest.deleted => {
                self.block.live_bytes = self.block.live_bytes.saturating_sub(newest.bytes);
                if self.shared.options.is_cache() { self.next_order() } else { newest.order }
            }
            newest => {
                // Another process may have written what it likes into the map.
                let own = newest.is_some_and(|newest| newest.own);
                self.deleted_keys = self.deleted_keys.saturating_sub(u64::from(own));
                self.block.entries += 1;
                self.block.used_slots += u64::from(found.before == EMPTY);
                self.next_order()
            }
        };
        self.block.live_bytes += bytes as u64;
        // Of a cache others go first, at the commit.
        if !self.shared.options.is_cache() {
            self.check_bytes()?;
        }
        self.append(found.slot, hash, found.before | (u64::from(meta) << META_SHIFT), order, key, value, bytes);
        Ok(())
    }

    fn has_too_many_bytes(&self) -> bool {
        let most = self.shared.options.max_bytes;
        most > 0 && self.block.live_bytes > most
    }

    fn check_bytes(&self) -> Result<(), LiveError> {
        if !self.has_too_many_bytes() {
            return Ok(());
        }
        let problem = format!("its entries may have {} bytes", self.shared.options.max_bytes);
        Err(LiveError::Full { path: self.shared.dir.clone(), problem, source: None })
    }

    /// Takes a key out; whether it was there.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<bool, LiveError> {
        let too_large = LiveError::TooLarge { key_bytes: key.len(), value_bytes: 0 };
        let bytes = record_bytes(key.len(), 0).ok_or(too_large)?;
        let hash = hash(key);
        let found = self.find(hash, key)?;
        let Some(newest) = found.newest.filter(|newest| !newest.deleted) else { return Ok(false) };
        self.reserve_log(bytes)?;
        self.deleted_keys += 1;
        self.block.entries = self.block.entries.saturating_sub(1);
        self.block.live_bytes = self.block.live_bytes.saturating_sub(newest.bytes);
        self.append(found.slot, hash, found.before | DELETED, newest.order, key, b"", bytes);
        Ok(true)
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Result<Found, LiveError> {
        Ok(match self.view.place(hash, key).map_err(|lost| self.shared.lost(lost))? {
            Place::Taken { slot, record } => {
                let newest = Newest {
                    bytes: u64::from(record.bytes),
                    order: record.order(),
                    deleted: record.is_deleted(),
                    own: record.txn() == self.block.txn,
                };
                Found { slot, before: record.address().bits(), newest: Some(newest) }
            }
            Place::Vacant { slot, was } => Found { slot, before: was, newest: None },
        })
    }

    /// Entries as they will be.
    pub(crate) fn entries(&self) -> u64 {
        self.block.entries
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    fn next_order(&mut self) -> u64 {
        let mut order = self.block.next_order;
        if self.shared.options.is_cache() {
            order = order.max(now_ns());
        }
        self.block.next_order = order + 1;
        order
    }

    #[allow(clippy::too_many_arguments)] // the fields of a record
    fn append(&mut self, slot: usize, hash: u64, link: u64, order: u64, key: &[u8], value: &[u8], bytes: usize) {
        let tail = self.view.tail();
        let head = Head {
            bytes: bytes as u32,
            key_len: key.len() as u32,
            value_len: value.len() as u32,
            txn: self.block.txn,
            link,
            order,
            writer: self.writer,
        };
        let address = Address::new(tail.number(), self.used);
        tail.write(self.used, &head, key, value);
        tail.set_used(self.used + bytes);
        self.view.index.store(slot, tag_bits(hash) | address.bits());
        self.used += bytes;
        self.last = Some(address);
        self.written_bytes += bytes as u64;
        self.records += 1;
    }

    /// Room for one more slot; may rebuild the index.
    fn reserve_slot(&mut self) -> Result<(), LiveError> {
        let slots = self.view.index.slots() as u64;
        if self.block.used_slots < slots / 4 * 3 {
            return Ok(());
        }
        // Larger if it is really full, not of keys that were deleted before: then there is room for at least as many again
        // before the next time.
        let kept = self.block.entries + self.deleted_keys;
        let mut log2 = self.view.index.log2();
        while kept > (1 << log2) / 8 * 3 {
            log2 += 1;
        }
        self.rebuild_index(log2)
    }

    /// A new index without the slots of deleted keys, under a new view.
    fn rebuild_index(&mut self, log2: u32) -> Result<(), LiveError> {
        let shared = self.shared;
        let old = &self.view.index;
        shared.check_linked()?;
        let index = Index::create(&*shared.fs, &shared.dir, old.number() + 1, log2, shared.mode)?;
        let mut used = 0;
        // Slots are read in groups, so that their records are on the way before they are needed.
        const GROUP: usize = 16;
        for first in (0..old.slots()).step_by(GROUP) {
            let mut words = [EMPTY; GROUP];
            for (i, word) in words.iter_mut().enumerate() {
                *word = old.load(first + i);
                if *word > FREED
                    && let Some(chunk) = self.view.chunk(Address::of_word(*word).chunk())
                {
                    chunk.map().prefetch(Address::of_word(*word).offset());
                }
            }
            for word in words.into_iter().filter(|&word| word > FREED) {
                let record = self.view.record(Address::of_word(word)).map_err(|lost| self.shared.lost(lost))?;
                // What this transaction deletes is needed until it is committed: it may be undone.
                if record.is_deleted() && record.txn() <= self.committed.txn {
                    // Nothing finds this record any more, so nobody frees its slot when it is dropped.
                    continue;
                }
                let mut slot = index.home(hash(record.key()));
                while index.load(slot) != EMPTY {
                    slot = index.next(slot);
                }
                index.store(slot, word);
                used += 1;
            }
        }
        let chunks = self.view.chunks.clone();
        self.switch(View::new(self.view.number + 1, Arc::new(index), chunks))?;
        self.block.used_slots = used;
        Ok(())
    }

    /// Room for a record; may add a chunk.
    fn reserve_log(&mut self, bytes: usize) -> Result<(), LiveError> {
        if self.view.tail().bytes().min(CHUNK_BYTES_MAX as usize).saturating_sub(self.used) >= bytes {
            return Ok(());
        }
        let shared = self.shared;
        shared.check_linked()?;
        let number = next_chunk(self.view.tail().number());
        let needed = (bytes + FILE_HEAD_BYTES) as u64;
        let usual = usual_chunk_bytes(self.view.log_bytes(), self.block.live_bytes);
        let make = |bytes: u64| Chunk::create(&*shared.fs, &shared.dir, number, bytes, shared.mode);
        let chunk = match make(usual.max(needed.next_multiple_of(4096)).min(CHUNK_BYTES_MAX)) {
            Err(LiveError::Full { .. }) => make(needed.max(CHUNK_BYTES_MIN).next_multiple_of(4096))?,
            other => other?,
        };
        let mut chunks = self.view.chunks.clone();
        chunks.push(Arc::new(chunk));
        self.switch(View::new(self.view.number + 1, self.view.index.clone(), chunks))?;
        self.used = FILE_HEAD_BYTES;
        Ok(())
    }

    /// Publishes a view. If that fails, what only this view would have had is removed.
    fn switch(&mut self, view: View) -> Result<(), LiveError> {
        let view = Arc::new(view);
        publish_view(self.shared, &self.view, &view).inspect_err(|_| remove_others(self.shared, &view, &self.view))?;
        self.view = view;
        Ok(())
    }

    /// Moves a record to the end of the log; `false` if there is no room for a new chunk.
    pub(crate) fn move_record(&mut self, record: &Record<'_>, slot: usize, hash: u64) -> bool {
        let bytes = record.bytes as usize;
        if self.reserve_log(bytes).is_err() {
            return false;
        }
        let kept = record.link() & (0xff << META_SHIFT);
        let link = record.address().bits() | kept | MOVED;
        self.append(slot, hash, link, record.order(), record.key(), record.value(), bytes);
        true
    }

    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    pub(crate) fn block_mut(&mut self) -> &mut Block {
        &mut self.block
    }

    pub(crate) fn committed(&self) -> &Block {
        &self.committed
    }

    /// Evicts what the map's limits do not allow any more: all entries that are too many, which are no more than this
    /// transaction added, and some of those that are too old, as many as there must be room for.
    ///
    /// # Errors
    /// [`LiveError::Full`] if there are too many bytes still.
    fn evict(&mut self) -> Result<(), LiveError> {
        let options = &self.shared.options;
        if !options.is_cache() {
            return Ok(());
        }
        let most = if options.max_entries > 0 { options.max_entries } else { u64::MAX };
        let too_old = options.order_min();
        if self.block.entries <= most && too_old == 0 {
            return self.check_bytes();
        }
        let mut queue = Queue::take(self.shared, self)?;
        let mut left = EVICTED_MIN + EVICTED_PER_RECORD * self.records;
        while let Some((order, key)) = queue.first(self)? {
            let enough = left == 0 && !self.has_too_many_bytes();
            if self.block.entries <= most && (order >= too_old || enough) {
                break;
            }
            self.delete(&key)?;
            left = left.saturating_sub(1);
        }
        // A failure undoes the evictions, which the queue has followed already: it is made anew then.
        self.check_bytes()?;
        queue.give_back(self.shared);
        Ok(())
    }

    /// Commits. Without any change nothing happens.
    ///
    /// # Errors
    /// In a durable map, [`LiveError::NotDurable`]: then the transaction stays committed.
    pub(crate) fn commit(mut self) -> Result<(), LiveError> {
        if self.last.is_none() {
            self.ended = true;
            return Ok(());
        }
        self.evict()?;
        clean::some(&mut self);
        let Some(last) = self.last else { return Ok(()) };
        if let Some(chunk) = self.view.chunk(last.chunk()) {
            chunk.mark(last.offset(), Mark::Last);
        }
        self.block.end = Address::new(self.view.tail().number(), self.used).bits();
        self.shared.ctrl.publish(&self.block);
        self.ended = true;
        if self.shared.options.durable && self.shared.ctrl.in_store() {
            crate::sync::chunks(self.shared, &self.view, &self.committed, &self.block)
                .map_err(|cause| LiveError::NotDurable { cause: Box::new(cause) })?;
        }
        // Committed is committed: what cannot be freed now will be tried again.
        let _ = clean::drop_oldest(self.shared, &self.view, &self.block);
        Ok(())
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        if !self.ended && self.last.is_some() {
            // What cannot be undone now, the next writer finds and undoes.
            let _ = repair::repair(self.shared, &self.view, &self.committed);
        }
    }
}

/// Bytes of the next chunk of a map.
fn usual_chunk_bytes(log_bytes: u64, live_bytes: u64) -> u64 {
    let least = if live_bytes < LIVE_BYTES_LARGE_MIN { CHUNK_BYTES_SMALL_MAX } else { CHUNK_BYTES_LARGE_MIN };
    let of_live = (live_bytes / 64).next_power_of_two().clamp(least, CHUNK_BYTES_USUAL_MAX);
    (log_bytes / 4).next_power_of_two().clamp(CHUNK_BYTES_MIN, of_live)
}

/// Makes `view` the current one and removes what only the one before it names.
pub(crate) fn publish_view(shared: &Shared, before: &View, view: &Arc<View>) -> Result<(), LiveError> {
    shared.check_linked()?;
    view.write(&*shared.fs, &shared.dir, shared.mode)?;
    shared.ctrl.set_view(view.number);
    shared.set_view(view.clone());
    remove_others(shared, before, view);
    Ok(())
}

/// Removes the files that `view` names and `kept` does not. The view's own last: who finds it removes what it names, if this
/// process is killed before that.
fn remove_others(shared: &Shared, view: &View, kept: &View) {
    let (fs, dir) = (&*shared.fs, &shared.dir);
    if view.index.number() != kept.index.number() {
        crate::files::remove(fs, &crate::index::index_path(dir, view.index.number()));
    }
    for chunk in view.chunks.iter().filter(|chunk| kept.chunk(chunk.number()).is_none()) {
        crate::files::remove(fs, &crate::chunk::chunk_path(dir, chunk.number()));
    }
    crate::files::remove(fs, &crate::view::view_path(dir, view.number));
}
