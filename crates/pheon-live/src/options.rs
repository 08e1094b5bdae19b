//! What a map is told when it is made.

use std::time::Duration;

use crate::ctrl::now_ns;

/// Limits and durability of a new map. They belong to the map: who attaches later gets the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveOptions {
    /// Most entries; 0: any number. The least recently written ones go first.
    pub max_entries: u64,
    /// How long an entry is there after it was written; zero: for ever. At most 2^64 - 1 nanoseconds, which are 584 years:
    /// what is longer is taken for that.
    pub max_age: Duration,
    /// Most bytes of entries: keys, values and 48 bytes each, rounded up to 8; 0: any number. A write beyond it fails with
    /// [`LiveError::Full`](crate::LiveError::Full). The files take more: see docs/live.md, Cleaning.
    pub max_bytes: u64,
    /// Whether each write is on the disk before it is acknowledged. For maps in a store on a disk.
    pub durable: bool,
}

impl LiveOptions {
    /// Whether entries go away by themselves: then each write gives its key a new place in the order.
    pub(crate) fn is_cache(&self) -> bool {
        self.max_entries > 0 || !self.max_age.is_zero()
    }

    /// The greatest age in nanoseconds, 0: any.
    pub(crate) fn max_age_ns(&self) -> u64 {
        u64::try_from(self.max_age.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Entries of a lower order are too old now: orders are times of writing where there is a greatest age.
    #[inline]
    pub(crate) fn order_min(&self) -> u64 {
        // First what every lookup in a map without one costs.
        if self.max_age.is_zero() { 0 } else { now_ns().saturating_sub(self.max_age_ns()) }
    }
}
