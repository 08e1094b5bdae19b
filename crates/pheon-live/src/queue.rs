//! The live keys in their order, for what takes from an end: `popitem`, and eviction.
//!
//! Kept by each process that needs it, not shared: it can always be made again from the index, and followed along the log.
//! Entries are checked against the map when they are used, so a stale one costs a look and nothing else.

use std::collections::VecDeque;

use crate::error::LiveError;
use crate::layout::{Address, EMPTY, FILE_HEAD_BYTES, FREED, hash, tag_bits};
use crate::shared::Shared;
use crate::view::View;
use crate::write::Txn;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// (order, hash of the key), ascending by order. No address: records are moved, and chunks dropped, meanwhile.
    entries: VecDeque<(u64, u64)>,
    /// Up to where the log was followed.
    upto: Option<(u32, usize)>,
}

impl Queue {
    /// The process's queue, brought up to date. The thread holds the map's lock.
    pub(crate) fn take(shared: &Shared, txn: &Txn<'_>) -> Result<Self, LiveError> {
        // A forked child may have inherited the mutex locked; it makes its own queue then.
        let kept = shared.queue.try_lock().ok().and_then(|mut queue| queue.take());
        let view = txn.view();
        if let Some(mut queue) = kept
            && queue.follow(view)
            && queue.entries.len() as u64 <= 2 * txn.entries() + 1024
        {
            return Ok(queue);
        }
        Ok(Self::build(view))
    }

    pub(crate) fn give_back(self, shared: &Shared) {
        if let Ok(mut kept) = shared.queue.try_lock() {
            *kept = Some(self);
        }
    }

    /// From the index: all live keys, sorted.
    fn build(view: &View) -> Self {
        let mut entries = Vec::new();
        for slot in 0..view.index.slots() {
            let word = view.index.load(slot);
            if word > FREED
                && let Ok(record) = view.record(Address::of_word(word))
                && !record.is_deleted()
            {
                entries.push((record.order(), hash(record.key())));
            }
        }
        entries.sort_unstable_by_key(|entry| entry.0);
        let tail = view.tail();
        Self { entries: entries.into(), upto: Some((tail.number(), tail.used())) }
    }

    /// Adds what was written since; `false` if the log does not go back so far.
    fn follow(&mut self, view: &View) -> bool {
        let Some((number, mut at)) = self.upto else { return false };
        let Some(first) = view.chunks.iter().position(|chunk| chunk.number() == number) else { return false };
        for chunk in &view.chunks[first..] {
            while at < chunk.used() {
                let Some(record) = chunk.record(at) else { return false };
                at += record.bytes as usize;
                let newest = self.entries.back().map_or(0, |entry| entry.0);
                if !record.is_aborted() && !record.is_moved() && !record.is_deleted() && record.order() > newest {
                    self.entries.push_back((record.order(), hash(record.key())));
                }
            }
            self.upto = Some((chunk.number(), at));
            at = FILE_HEAD_BYTES;
        }
        true
    }

    /// The live key of least order.
    pub(crate) fn first(&mut self, txn: &Txn<'_>) -> Result<Option<(u64, Vec<u8>)>, LiveError> {
        while let Some(&(order, hash)) = self.entries.front() {
            match live_key(txn, order, hash) {
                Some(key) => return Ok(Some((order, key))),
                None => self.entries.pop_front(),
            };
        }
        Ok(None)
    }

    /// The live key of greatest order.
    pub(crate) fn last(&mut self, txn: &Txn<'_>) -> Result<Option<(u64, Vec<u8>)>, LiveError> {
        while let Some(&(order, hash)) = self.entries.back() {
            match live_key(txn, order, hash) {
                Some(key) => return Ok(Some((order, key))),
                None => self.entries.pop_back(),
            };
        }
        Ok(None)
    }
}

/// The live key with this order, which no two have, and this hash.
fn live_key(txn: &Txn<'_>, order: u64, hash: u64) -> Option<Vec<u8>> {
    let view = txn.view();
    let mut slot = view.index.home(hash);
    for _ in 0..view.index.slots() {
        let word = view.index.load(slot);
        if word == EMPTY {
            return None;
        }
        if word > FREED
            && tag_bits(word) == tag_bits(hash)
            && let Ok(record) = view.record(Address::of_word(word))
            && record.order() == order
            && !record.is_deleted()
        {
            return Some(record.key().to_vec());
        }
        slot = view.index.next(slot);
    }
    None
}
