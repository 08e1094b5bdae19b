//! The map at one commit, whatever is written afterwards.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::chunk::Record;
use crate::error::LiveError;
use crate::layout::{Address, EMPTY, FREED, hash, tag_bits};
use crate::map::Entry;
use crate::shared::Shared;
use crate::view::View;

/// How often slots are copied in vain, because a new view was published meanwhile.
const ATTEMPTS_MAX: u32 = 20;
const LOCK_WAIT_MAX: Duration = Duration::from_millis(20);

/// A consistent state of a map. Keeps the memory of the records that it shows, and so all of the log as it was, until it is
/// dropped.
#[derive(Debug)]
pub struct Snapshot {
    shared: Arc<Shared>,
    view: Arc<View>,
    commit: u64,
    slots: Box<[u64]>,
    /// Entries of a lower order were too old when the snapshot was taken.
    order_min: u64,
}

impl Snapshot {
    pub(crate) fn take(shared: &Arc<Shared>) -> Result<Self, LiveError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(snapshot) = Self::attempt(shared)? {
                return Ok(snapshot);
            }
        }
        // Writers add files faster than the slots are copied: they wait for this once. A writer that is stopped adds none.
        loop {
            let held = shared.writable && shared.acquire(Some(LOCK_WAIT_MAX), &|| false)?;
            let taken = Self::attempt(shared);
            if held {
                shared.release()?;
            }
            if let Some(snapshot) = taken? {
                return Ok(snapshot);
            }
        }
    }

    fn attempt(shared: &Arc<Shared>) -> Result<Option<Self>, LiveError> {
        let view = Arc::clone(&*shared.view()?);
        let commit = shared.ctrl.commit();
        let mut slots = Vec::new();
        // A view may be forged, with an index of holes.
        slots.try_reserve_exact(view.index.slots()).map_err(|_| {
            let source = io::Error::new(io::ErrorKind::OutOfMemory, format!("{} slots", view.index.slots()));
            LiveError::io("copy the index of", &shared.dir, source)
        })?;
        slots.extend((0..view.index.slots()).map(|slot| view.index.load(slot)));
        // After the last slot: a later view may lack what this commit has, and the slots may name records, or have been
        // freed of records, that only it has.
        if shared.ctrl.view() != view.number {
            return Ok(None);
        }
        let order_min = shared.options.order_min();
        Ok(Some(Self { shared: shared.clone(), view, commit, slots: slots.into(), order_min }))
    }

    /// The same, with entries that are too old but not yet evicted.
    pub(crate) fn with_old_ones(mut self) -> Self {
        self.order_min = 0;
        self
    }

    /// The number of the transaction that it shows.
    pub fn sequence(&self) -> u64 {
        self.commit
    }

    fn shown<'a>(&'a self, word: u64) -> Result<Option<Record<'a>>, LiveError> {
        let record = self.view.as_of(Address::of_word(word), self.commit).map_err(|lost| self.shared.lost(lost))?;
        Ok(record.filter(|record| !record.is_deleted() && record.order() >= self.order_min))
    }

    /// The entry of a key.
    ///
    /// # Errors
    /// When the map's files are damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<Entry<'_>>, LiveError> {
        let hash = hash(key);
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        for _ in 0..self.slots.len() {
            let word = self.slots[slot];
            if word == EMPTY {
                return Ok(None);
            }
            if word > FREED && tag_bits(word) == tag_bits(hash) {
                let newest = self.view.record(Address::of_word(word)).map_err(|lost| self.shared.lost(lost))?;
                if newest.key() == key {
                    return Ok(self.shown(word)?.map(Entry::of));
                }
            }
            slot = (slot + 1) & mask;
        }
        Ok(None)
    }

    /// How many entries it has: looks at each.
    ///
    /// # Errors
    /// When the map's files are damaged.
    pub fn len(&self) -> Result<u64, LiveError> {
        let mut len = 0;
        self.for_each(|_| len += 1)?;
        Ok(len)
    }

    /// Whether it has none.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool, LiveError> {
        Ok(self.len()? == 0)
    }

    /// All entries in the map's order: a copy of 16 bytes an entry, sorted.
    ///
    /// # Errors
    /// When the map's files are damaged.
    pub fn ordered(&self) -> Result<Ordered, LiveError> {
        let mut entries = Vec::new();
        self.for_each(|record| entries.push((record.order(), record.address())))?;
        entries.sort_unstable_by_key(|entry| entry.0);
        Ok(Ordered { view: self.view.clone(), addresses: entries.into_iter().map(|entry| entry.1).collect() })
    }

    fn for_each(&self, mut body: impl FnMut(Record<'_>)) -> Result<(), LiveError> {
        const AHEAD: usize = 16;
        let taken: Vec<u64> = self.slots.iter().copied().filter(|&word| word > FREED).collect();
        for (i, &word) in taken.iter().enumerate() {
            if let Some(&later) = taken.get(i + AHEAD) {
                let address = Address::of_word(later);
                if let Some(chunk) = self.view.chunk(address.chunk()) {
                    chunk.map().prefetch(address.offset());
                }
            }
            if let Some(record) = self.shown(word)? {
                body(record);
            }
        }
        Ok(())
    }
}

/// The entries of a snapshot in the map's order.
#[derive(Debug)]
pub struct Ordered {
    view: Arc<View>,
    addresses: Vec<Address>,
}

impl Ordered {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The entry at a place; `None` beyond the end.
    pub fn get(&self, at: usize) -> Option<Entry<'_>> {
        // Records of a snapshot were looked at when it was sorted, and do not change.
        self.view.record(*self.addresses.get(at)?).ok().map(Entry::of)
    }
}
