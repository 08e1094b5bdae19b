//! (c) A minimal perfect hash (PtrHash: Groot Koerkamp, arXiv 2502.15539) and a table from its number to the row, with an
//! 8-bit fingerprint beside each row or without.

use pheon_os::prefetch;
use ptr_hash::{DefaultPtrHash, PtrHashParams, hash::NoHash};

use crate::layout::{GROUP, Layout, Lines, MISSING, is_key, prefetch_key};

/// An entry of the row table.
pub(crate) trait Entry: Copy + Default {
    fn new(h: u64, row: u32) -> Self;
    fn row(self) -> u32;
    /// False if the key of this entry is certainly not the one with hash `h`.
    fn may_be(self, h: u64) -> bool;
}

impl Entry for u32 {
    fn new(_: u64, row: u32) -> Self {
        row
    }
    #[inline]
    fn row(self) -> u32 {
        self
    }
    #[inline]
    fn may_be(self, _: u64) -> bool {
        true
    }
}

/// Row and fingerprint in five bytes; one entry in thirteen lies on two lines.
impl Entry for [u8; 5] {
    fn new(h: u64, row: u32) -> Self {
        let [a, b, c, d] = row.to_le_bytes();
        [a, b, c, d, h as u8]
    }
    #[inline]
    fn row(self) -> u32 {
        u32::from_le_bytes([self[0], self[1], self[2], self[3]])
    }
    #[inline]
    fn may_be(self, h: u64) -> bool {
        self[4] == h as u8
    }
}

pub(crate) struct Perfect<E> {
    hash: DefaultPtrHash<NoHash>,
    rows: Vec<E>,
}

impl<E: Entry> Perfect<E> {
    pub(crate) fn build(keys: &[u64]) -> Self {
        let hash = <DefaultPtrHash<NoHash>>::new(keys, PtrHashParams::default());
        let mut rows = vec![E::default(); keys.len()];
        // The stream of PtrHash has no `next`; `for_each` goes through its `fold`.
        hash.index_stream::<32, _>(keys).enumerate().for_each(|(row, slot)| rows[slot] = E::new(keys[row], row as u32));
        Self { hash, rows }
    }
}

impl<E: Entry> Layout for Perfect<E> {
    fn size_bytes(&self) -> u64 {
        let (pilots, remap) = self.hash.bits_per_element();
        (self.rows.len() as f64 * (pilots + remap) / 8.0) as u64 + (self.rows.len() * size_of::<E>()) as u64
    }

    #[inline]
    fn find(&self, keys: &[u64], h: u64) -> u32 {
        let entry = self.rows[self.hash.index(&h)];
        if entry.may_be(h) && is_key(keys, entry.row(), h) { entry.row() } else { MISSING }
    }

    #[inline]
    fn find_group(&self, keys: &[u64], hashes: &[u64; GROUP], rows: &mut [u32; GROUP]) {
        let slots = self.hash.index_batch(*hashes);
        for &slot in &slots {
            prefetch::read_at(&self.rows, slot);
        }
        for i in 0..GROUP {
            let entry = self.rows[slots[i]];
            rows[i] = if entry.may_be(hashes[i]) { entry.row() } else { MISSING };
            prefetch_key(keys, rows[i]);
        }
        for (row, &h) in rows.iter_mut().zip(hashes) {
            if !is_key(keys, *row, h) {
                *row = MISSING;
            }
        }
    }

    fn count(&self, keys: &[u64], h: u64, lines: &mut Lines) -> u32 {
        // The pilot's line, the row's and, for the share of numbers beyond the last row, one of the remapping.
        let slot = self.hash.index_no_remap(&h);
        let at = self.hash.index(&h);
        let size = size_of::<E>();
        let entry_lines = (at * size + size - 1) / 64 - at * size / 64 + 1;
        lines.index += 1 + u64::from(slot != at) + entry_lines as u64;
        let entry = self.rows[at];
        if !entry.may_be(h) {
            return MISSING;
        }
        lines.keys += 1;
        if is_key(keys, entry.row(), h) { entry.row() } else { MISSING }
    }
}
