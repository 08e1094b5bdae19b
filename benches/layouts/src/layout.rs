//! What every layout must answer, and the arithmetic that they share.

use pheon_os::prefetch;

/// No such key.
pub(crate) const MISSING: u32 = u32::MAX;

/// Queries in flight at once.
pub(crate) const GROUP: usize = 32;

/// Cache lines that lookups touched: of the index, and of the key column.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lines {
    pub(crate) index: u64,
    pub(crate) keys: u64,
}

/// A finished index over `keys`, where the key of row r is `keys[r]` and is its own hash.
pub(crate) trait Layout {
    fn size_bytes(&self) -> u64;

    /// The row of a key, one lookup alone.
    fn find(&self, keys: &[u64], h: u64) -> u32;

    /// The rows of a group of keys, with prefetches between the stages.
    fn find_group(&self, keys: &[u64], hashes: &[u64; GROUP], rows: &mut [u32; GROUP]);

    /// Like [`Layout::find`], counting lines.
    fn count(&self, keys: &[u64], h: u64, lines: &mut Lines) -> u32;
}

/// `h` scaled to 0..n.
#[inline]
pub(crate) fn reduce(h: u64, n: usize) -> usize {
    ((u128::from(h) * n as u128) >> 64) as usize
}

#[inline]
pub(crate) fn prefetch_key(keys: &[u64], row: u32) {
    prefetch::read_at(keys, row as usize);
}

/// Whether `row` holds the key; a row that came from a damaged index is no match.
#[inline]
pub(crate) fn is_key(keys: &[u64], row: u32, h: u64) -> bool {
    keys.get(row as usize) == Some(&h)
}

/// A bijection of u64 that looks random (splitmix64, Sebastiano Vigna).
#[inline]
pub(crate) fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The set bits of a mask, lowest first.
#[inline]
pub(crate) fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let bit = mask.trailing_zeros();
            mask &= mask - 1;
            bit
        })
    })
}
