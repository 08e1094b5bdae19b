//! Freeing old chunks, a little with each write: docs/live.md, "Cleaning".

use std::sync::Arc;

use crate::ctrl::Block;
use crate::error::LiveError;
use crate::layout::{Address, FILE_HEAD_BYTES, FREED, hash};
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

/// Where to go on looking, if there is anything to clean.
fn position(view: &View, block: &Block, committed: &Block) -> Option<usize> {
    if view.log_bytes() <= log_bytes_allowed(block.live_bytes) {
        return None;
    }
    let oldest = view.oldest().number();
    // What this transaction wrote is not looked at, nor is the chunk that it began in.
    if oldest == committed.end().chunk() || oldest == view.tail().number() {
        return None;
    }
    let at = Address::of_word(block.clean);
    Some(if at.chunk() == oldest && at.offset() >= FILE_HEAD_BYTES { at.offset() } else { FILE_HEAD_BYTES })
}

/// Records looked at together, so that their slots are on the way before they are needed.
const GROUP: usize = 8;

/// Looks through some of the oldest records and moves those that are live.
#[inline]
pub(crate) fn some(txn: &mut Txn<'_>) {
    let (view, block, committed) = (txn.view(), txn.block(), txn.committed());
    if let Some(at) = position(view, block, committed) {
        let view = Arc::clone(view);
        look_through(txn, &view, at);
    }
}

fn look_through(txn: &mut Txn<'_>, view: &View, mut at: usize) {
    let oldest = view.oldest();
    let end = oldest.used();
    let mut left = (txn.written_bytes() * SCANNED_PER_WRITTEN).max(SCANNED_BYTES_MIN);
    let mut group = Vec::with_capacity(GROUP);
    'all: while at < end && left > 0 {
        group.clear();
        let mut next = at;
        while next < end && left > 0 && group.len() < GROUP {
            // A damaged record ends the cleaning, not the write.
            let Some(record) = oldest.record(next) else { break 'all };
            left = left.saturating_sub(u64::from(record.bytes));
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
                    // All that came before it is gone, so its key need not be remembered.
                    view.index.store(slot, FREED);
                } else if !txn.move_record(record, slot, *hash) {
                    break 'all;
                }
            }
            at += record.bytes as usize;
        }
    }
    txn.block_mut().clean = Address::new(oldest.number(), at).bits();
}

/// Drops the oldest chunk if all of it was looked through, after the commit that says so.
pub(crate) fn drop_oldest(shared: &Shared, view: &Arc<View>, block: &Block) -> Result<(), LiveError> {
    let oldest = view.oldest();
    let done = Address::of_word(block.clean);
    if done.chunk() != oldest.number()
        || done.offset() < oldest.used()
        || oldest.number() == view.tail().number()
        || oldest.number() == block.end().chunk()
    {
        return Ok(());
    }
    let next = Arc::new(View::new(view.number + 1, view.index.clone(), view.chunks[1..].to_vec()));
    if shared.ctrl.in_store() {
        // The last synced state needs this chunk until what was moved out of it is durable.
        crate::sync::all(shared, &next, block)?;
    }
    publish_view(shared, view, &next)
}
