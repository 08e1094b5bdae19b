//! What the builder keeps of a key until its block is built: 12 bytes.

use super::layout;

/// The parts of a hash that still matter once its primary bucket is known, and the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The primary bucket among all buckets; a plan has fewer than 2^32.
    pub(super) bucket: u32,
    /// The low half of the hash: fingerprint and spread.
    pub(super) low: u32,
    pub(super) row: u32,
}

/// Bytes of an entry, in memory and in a spill file.
pub(super) const ENTRY_BYTES: usize = 12;
const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES);

impl Entry {
    #[inline]
    pub(super) fn new(h: u64, row: u32, total_buckets: u64) -> Self {
        Self { bucket: layout::primary(h, total_buckets) as u32, low: h as u32, row }
    }

    #[inline]
    pub(super) fn fingerprint(self) -> u16 {
        self.low as u16
    }

    #[inline]
    pub(super) fn spread(self) -> u16 {
        (self.low >> 16) as u16
    }

    /// As a spill file holds it: three little-endian words.
    #[inline]
    pub(super) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..4].copy_from_slice(&self.bucket.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.low.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.row.to_le_bytes());
        bytes
    }

    #[inline]
    pub(super) fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
        Self {
            bucket: u32::from_le_bytes([a, b, c, d]),
            low: u32::from_le_bytes([e, f, g, h]),
            row: u32::from_le_bytes([i, j, k, l]),
        }
    }
}
