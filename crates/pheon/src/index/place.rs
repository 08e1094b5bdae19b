//! Fills one block: which of its two buckets every key gets.
//!
//! ```text
//! for every key, in row order:      put it into its primary if a slot is free, else remember it
//! for every remembered key:         put it into its secondary if a slot is free
//!     else a key at home in the primary moves to its own secondary and makes room
//!     else a key at home in the secondary does
//!     else the same with one more key in between
//!     else the block cannot be built with this plan
//! ```
//!
//! A key is moved only from its primary to its secondary, never back. Two-choice hashing with buckets of ten places all
//! keys far beyond 90 % load; giving everyone the primary first keeps nine of ten keys in the line that a lookup reads
//! first (random cuckoo kicks doubled the number of keys in their secondary).

use super::entry::Entry;
use super::layout::{BUCKET_BYTES, OVERFLOW_OFFSET, ROWS_OFFSET, SLOTS, overflow_bit, secondary_in_block};

/// A bucket as the file holds it.
pub(super) type Line = [u8; BUCKET_BYTES];

const EMPTY_LINE: Line = {
    let mut line = [0xFF; BUCKET_BYTES];
    let mut i = 0;
    while i < ROWS_OFFSET {
        line[i] = 0;
        i += 1;
    }
    line
};

/// How a block's keys were placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlockStats {
    /// Keys in their secondary bucket.
    pub(super) secondary: u64,
    /// Keys that were moved after they had been placed.
    pub(super) moved: u64,
    /// Overflow bits set.
    pub(super) overflow_bits: u64,
}

/// Some key found no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoSlot;

/// The working state of one block, used again for the next one.
#[derive(Debug, Default)]
pub(super) struct BlockTable {
    /// The result.
    pub(super) lines: Vec<Line>,
    /// Slots in use, a bucket.
    used: Vec<u8>,
    /// Bit i set: slot i holds a key whose primary is another bucket.
    foreign: Vec<u16>,
    /// The spread of the key in every slot, which says where it could move.
    spreads: Vec<[u16; SLOTS]>,
    overflowed: Vec<Entry>,
    stats: BlockStats,
}

impl BlockTable {
    /// Places `entries`, whose primaries are `first_bucket` to `first_bucket + buckets - 1`, into `self.lines`.
    pub(super) fn build(&mut self, entries: &[Entry], first_bucket: u32, buckets: u32) -> Result<BlockStats, NoSlot> {
        self.reset(buckets as usize);
        for entry in entries {
            let p = entry.bucket - first_bucket;
            if self.has_room(p) {
                self.push(p, entry.fingerprint(), entry.spread(), entry.row, false);
            } else {
                self.overflowed.push(*entry);
            }
        }
        let overflowed = std::mem::take(&mut self.overflowed);
        let placed = overflowed.iter().try_for_each(|entry| self.place_overflowed(entry, entry.bucket - first_bucket));
        self.overflowed = overflowed;
        placed?;
        self.stats.overflow_bits = self.lines.iter().map(|line| u64::from(overflow_word(line).count_ones())).sum();
        Ok(self.stats)
    }

    fn reset(&mut self, buckets: usize) {
        self.lines.clear();
        self.lines.resize(buckets, EMPTY_LINE);
        self.used.clear();
        self.used.resize(buckets, 0);
        self.foreign.clear();
        self.foreign.resize(buckets, 0);
        // The rest is written before it is read.
        self.spreads.resize(buckets, [0; SLOTS]);
        self.overflowed.clear();
        self.stats = BlockStats::default();
    }

    fn place_overflowed(&mut self, entry: &Entry, home: u32) -> Result<(), NoSlot> {
        let (fp, spread, row) = (entry.fingerprint(), entry.spread(), entry.row);
        let other = self.secondary(home, spread);
        if self.has_room(other) {
            self.push(other, fp, spread, row, true);
            self.mark_overflow(home, spread);
        } else if self.make_room(home) {
            self.push(home, fp, spread, row, false);
        } else if self.make_room(other) || self.make_room_deep(home) || self.make_room_deep(other) {
            // The deep search may have made room in either bucket.
            if self.has_room(home) {
                self.push(home, fp, spread, row, false);
            } else {
                self.push(other, fp, spread, row, true);
                self.mark_overflow(home, spread);
            }
        } else {
            return Err(NoSlot);
        }
        Ok(())
    }

    /// Moves one key that is at home in the full bucket `b` to its secondary, if one of them has room.
    fn make_room(&mut self, b: u32) -> bool {
        let found = (0..SLOTS).find(|&slot| self.alternative(b, slot).is_some_and(|to| self.has_room(to)));
        if let Some(slot) = found {
            self.move_to_secondary(b, slot);
        }
        found.is_some()
    }

    /// Like [`Self::make_room`] where all those secondaries are full: makes room in one of them first. Looks at
    /// `SLOTS * SLOTS` keys at most.
    fn make_room_deep(&mut self, b: u32) -> bool {
        for slot in 0..SLOTS {
            // Nothing is at home in `b` and `to` at once, so making room in `to` leaves the slots of `b` as they are.
            if let Some(to) = self.alternative(b, slot)
                && to != b
                && self.make_room(to)
            {
                self.move_to_secondary(b, slot);
                return true;
            }
        }
        false
    }

    /// The bucket to which the key in a slot could still move: none if it is already in its secondary.
    fn alternative(&self, b: u32, slot: usize) -> Option<u32> {
        let at_home = self.foreign[b as usize] & (1 << slot) == 0;
        at_home.then(|| self.secondary(b, self.spreads[b as usize][slot]))
    }

    /// Moves the key in `slot` of `b`, its primary, to its secondary, which has room.
    fn move_to_secondary(&mut self, b: u32, slot: usize) {
        let spread = self.spreads[b as usize][slot];
        let line = &self.lines[b as usize];
        let fp = u16::from_le_bytes([line[2 * slot], line[2 * slot + 1]]);
        let row = row_of(line, slot);
        self.remove(b, slot);
        let to = self.secondary(b, spread);
        self.push(to, fp, spread, row, true);
        self.mark_overflow(b, spread);
        self.stats.moved += 1;
    }

    /// Empties a slot by moving the last key of the bucket into it, so that slots stay filled from 0.
    fn remove(&mut self, b: u32, slot: usize) {
        let b = b as usize;
        let last = usize::from(self.used[b]) - 1;
        let line = &mut self.lines[b];
        line.copy_within(2 * last..2 * last + 2, 2 * slot);
        line.copy_within(ROWS_OFFSET + 4 * last..ROWS_OFFSET + 4 * last + 4, ROWS_OFFSET + 4 * slot);
        line[2 * last..2 * last + 2].fill(0);
        line[ROWS_OFFSET + 4 * last..ROWS_OFFSET + 4 * last + 4].fill(0xFF);
        self.spreads[b][slot] = self.spreads[b][last];
        let last_is_foreign = (self.foreign[b] >> last) & 1;
        self.foreign[b] &= !(1 << slot | 1 << last);
        if slot != last {
            self.foreign[b] |= last_is_foreign << slot;
        }
        self.used[b] -= 1;
    }

    #[inline]
    fn push(&mut self, b: u32, fp: u16, spread: u16, row: u32, foreign: bool) {
        let b = b as usize;
        let slot = usize::from(self.used[b]);
        let line = &mut self.lines[b];
        line[2 * slot..2 * slot + 2].copy_from_slice(&fp.to_le_bytes());
        line[ROWS_OFFSET + 4 * slot..ROWS_OFFSET + 4 * slot + 4].copy_from_slice(&row.to_le_bytes());
        self.spreads[b][slot] = spread;
        self.used[b] += 1;
        if foreign {
            self.foreign[b] |= 1 << slot;
            self.stats.secondary += 1;
        }
    }

    fn mark_overflow(&mut self, b: u32, spread: u16) {
        let line = &mut self.lines[b as usize];
        let word = overflow_word(line) | overflow_bit(spread);
        line[OVERFLOW_OFFSET..ROWS_OFFSET].copy_from_slice(&word.to_le_bytes());
    }

    #[inline]
    fn has_room(&self, b: u32) -> bool {
        usize::from(self.used[b as usize]) < SLOTS
    }

    #[inline]
    fn secondary(&self, p: u32, spread: u16) -> u32 {
        secondary_in_block(p, spread, self.lines.len() as u32)
    }
}

#[inline]
fn overflow_word(line: &Line) -> u32 {
    u32::from_le_bytes([
        line[OVERFLOW_OFFSET],
        line[OVERFLOW_OFFSET + 1],
        line[OVERFLOW_OFFSET + 2],
        line[OVERFLOW_OFFSET + 3],
    ])
}

fn row_of(line: &Line, slot: usize) -> u32 {
    let at = ROWS_OFFSET + 4 * slot;
    u32::from_le_bytes([line[at], line[at + 1], line[at + 2], line[at + 3]])
}
