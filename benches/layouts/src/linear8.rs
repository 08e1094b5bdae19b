//! (b) Eight 64-bit entries a line (32 bits of hash, 32 bits of row); a key that finds its line full goes to the next.

use pheon_os::prefetch;

use crate::layout::{GROUP, Layout, Lines, MISSING, bits, is_key, prefetch_key, reduce};

const SLOTS: usize = 8;
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; SLOTS]);

pub(crate) struct Linear8(Vec<Line>);

impl Linear8 {
    pub(crate) fn build(keys: &[u64], load: f64) -> Self {
        let lines = ((keys.len() as f64 / (load * SLOTS as f64)).ceil() as usize).max(1);
        let mut table = Self(vec![Line([u64::MAX; SLOTS]); lines]);
        for (i, (&h, row)) in keys.iter().zip(0_u32..).enumerate() {
            if let Some(&ahead) = keys.get(i + 16) {
                prefetch::read_at(&table.0, reduce(ahead, lines));
            }
            let mut b = reduce(h, lines);
            loop {
                // At any load below one a free slot comes.
                let free = table.0[b].0.iter().position(|&entry| entry as u32 == EMPTY);
                if let Some(slot) = free {
                    table.0[b].0[slot] = (h << 32) | u64::from(row);
                    break;
                }
                b = table.next(b);
            }
        }
        table
    }

    #[inline]
    fn next(&self, b: usize) -> usize {
        if b + 1 == self.0.len() { 0 } else { b + 1 }
    }

    #[inline]
    fn matches(&self, b: usize, h: u64) -> u32 {
        let mut mask = 0;
        for (slot, &entry) in self.0[b].0.iter().enumerate() {
            mask |= u32::from((entry >> 32) as u32 == h as u32) << slot;
        }
        mask
    }

    #[inline]
    fn is_full(&self, b: usize) -> bool {
        self.0[b].0[SLOTS - 1] as u32 != EMPTY
    }

    #[inline]
    fn row(&self, b: usize, slot: u32) -> u32 {
        self.0[b].0[slot as usize] as u32
    }

    #[inline]
    fn verify(&self, keys: &[u64], b: usize, mask: u32, h: u64) -> u32 {
        bits(mask).map(|slot| self.row(b, slot)).find(|&row| is_key(keys, row, h)).unwrap_or(MISSING)
    }

    #[inline]
    fn find_from(&self, keys: &[u64], mut b: usize, h: u64) -> u32 {
        loop {
            let row = self.verify(keys, b, self.matches(b, h), h);
            if row != MISSING || !self.is_full(b) {
                return row;
            }
            b = self.next(b);
        }
    }
}

impl Layout for Linear8 {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64 * 64
    }

    #[inline]
    fn find(&self, keys: &[u64], h: u64) -> u32 {
        self.find_from(keys, reduce(h, self.0.len()), h)
    }

    #[inline]
    fn find_group(&self, keys: &[u64], hashes: &[u64; GROUP], rows: &mut [u32; GROUP]) {
        let mut lines = [0_usize; GROUP];
        let mut masks = [0_u32; GROUP];
        let mut pending = [0_u8; GROUP];
        let mut pending_len = 0;
        for (b, &h) in lines.iter_mut().zip(hashes) {
            *b = reduce(h, self.0.len());
            prefetch::read_at(&self.0, *b);
        }
        for i in 0..GROUP {
            let b = lines[i];
            masks[i] = self.matches(b, hashes[i]);
            if masks[i] != 0 {
                prefetch_key(keys, self.row(b, masks[i].trailing_zeros()));
            } else if self.is_full(b) {
                prefetch::read_at(&self.0, self.next(b));
            }
        }
        for i in 0..GROUP {
            rows[i] = self.verify(keys, lines[i], masks[i], hashes[i]);
            if rows[i] == MISSING && self.is_full(lines[i]) {
                lines[i] = self.next(lines[i]);
                pending[pending_len] = i as u8;
                pending_len += 1;
            }
        }
        // Each round takes the pending keys one line further.
        while pending_len > 0 {
            for &i in &pending[..pending_len] {
                let i = usize::from(i);
                masks[i] = self.matches(lines[i], hashes[i]);
                if masks[i] != 0 {
                    prefetch_key(keys, self.row(lines[i], masks[i].trailing_zeros()));
                } else if self.is_full(lines[i]) {
                    prefetch::read_at(&self.0, self.next(lines[i]));
                }
            }
            let mut left = 0;
            for at in 0..pending_len {
                let i = usize::from(pending[at]);
                rows[i] = self.verify(keys, lines[i], masks[i], hashes[i]);
                if rows[i] == MISSING && self.is_full(lines[i]) {
                    lines[i] = self.next(lines[i]);
                    pending[left] = i as u8;
                    left += 1;
                }
            }
            pending_len = left;
        }
    }

    fn count(&self, keys: &[u64], h: u64, lines: &mut Lines) -> u32 {
        let mut b = reduce(h, self.0.len());
        loop {
            lines.index += 1;
            for slot in bits(self.matches(b, h)) {
                lines.keys += 1;
                if is_key(keys, self.row(b, slot), h) {
                    return self.row(b, slot);
                }
            }
            if !self.is_full(b) {
                return MISSING;
            }
            b = self.next(b);
        }
    }
}
