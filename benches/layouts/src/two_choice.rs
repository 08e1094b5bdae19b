//! The lookup of every layout with a primary and a secondary bucket, over whatever a bucket looks like.

use crate::layout::{GROUP, Layout, Lines, MISSING, bits, is_key, prefetch_key};

/// Buckets of which a key has two.
pub(crate) trait TwoChoice {
    fn size_bytes(&self) -> u64;
    fn primary(&self, h: u64) -> u64;
    fn secondary(&self, h: u64, primary: u64) -> u64;
    fn prefetch(&self, b: u64);
    /// Slots of bucket `b` whose fingerprint agrees.
    fn matches(&self, b: u64, h: u64) -> u32;
    fn row(&self, b: u64, slot: u32) -> u32;
    fn overflowed(&self, b: u64, h: u64) -> bool;
}

impl<T: TwoChoice> Layout for T {
    fn size_bytes(&self) -> u64 {
        TwoChoice::size_bytes(self)
    }

    #[inline]
    fn find(&self, keys: &[u64], h: u64) -> u32 {
        let primary = self.primary(h);
        let row = verify(self, keys, primary, self.matches(primary, h), h);
        if row != MISSING || !self.overflowed(primary, h) {
            return row;
        }
        let secondary = self.secondary(h, primary);
        verify(self, keys, secondary, self.matches(secondary, h), h)
    }

    #[inline]
    fn find_group(&self, keys: &[u64], hashes: &[u64; GROUP], rows: &mut [u32; GROUP]) {
        let mut buckets = [0_u64; GROUP];
        let mut masks = [0_u32; GROUP];
        let mut pending = [0_u8; GROUP];
        let mut pending_len = 0;
        for (b, &h) in buckets.iter_mut().zip(hashes) {
            *b = self.primary(h);
            self.prefetch(*b);
        }
        for i in 0..GROUP {
            let (b, h) = (buckets[i], hashes[i]);
            masks[i] = self.matches(b, h);
            if masks[i] != 0 {
                prefetch_key(keys, self.row(b, masks[i].trailing_zeros()));
            } else if self.overflowed(b, h) {
                self.prefetch(self.secondary(h, b));
            }
        }
        for i in 0..GROUP {
            let (b, h) = (buckets[i], hashes[i]);
            rows[i] = verify(self, keys, b, masks[i], h);
            if rows[i] == MISSING && self.overflowed(b, h) {
                buckets[i] = self.secondary(h, b);
                pending[pending_len] = i as u8;
                pending_len += 1;
            }
        }
        for &i in &pending[..pending_len] {
            let (b, h) = (buckets[usize::from(i)], hashes[usize::from(i)]);
            let mask = self.matches(b, h);
            masks[usize::from(i)] = mask;
            if mask != 0 {
                prefetch_key(keys, self.row(b, mask.trailing_zeros()));
            }
        }
        for &i in &pending[..pending_len] {
            let i = usize::from(i);
            rows[i] = verify(self, keys, buckets[i], masks[i], hashes[i]);
        }
    }

    fn count(&self, keys: &[u64], h: u64, lines: &mut Lines) -> u32 {
        let primary = self.primary(h);
        lines.index += 1;
        let mut probe = |b| {
            bits(self.matches(b, h)).map(|slot| self.row(b, slot)).find(|&row| {
                lines.keys += 1;
                is_key(keys, row, h)
            })
        };
        if let Some(row) = probe(primary) {
            return row;
        }
        if !self.overflowed(primary, h) {
            return MISSING;
        }
        let found = probe(self.secondary(h, primary));
        lines.index += 1;
        found.unwrap_or(MISSING)
    }
}

#[inline]
fn verify<T: TwoChoice>(table: &T, keys: &[u64], b: u64, mask: u32, h: u64) -> u32 {
    bits(mask).map(|slot| table.row(b, slot)).find(|&row| is_key(keys, row, h)).unwrap_or(MISSING)
}
