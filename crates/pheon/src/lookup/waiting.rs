//! Single lookups in versions that do not fit into memory.
//!
//! A lookup that waits for the disk does so five times, one page after the other: bucket, place of the key, key, place of
//! the value, value. Once the row is known the pages of key and value can be asked for together, which leaves three waits.
//! Asking costs four system calls, so it is done only while lookups do wait, which the clock tells.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::batch::{self, BadRow};
use super::cold::{Paged, Wave, touch};
use super::stored::{Hashed, Stored};
use crate::access::Access;
use crate::index::fingerprint;
use crate::segment::column::Column;
use crate::segment::{Segment, SegmentKey};

/// No lookup takes so long whose pages are in memory, unless its thread is made to wait for a processor.
const WAITED: Duration = Duration::from_micros(20);
/// After a lookup that waited, so many ask for their pages.
const LOOKUPS_ASKING: u8 = 16;

/// Whether single lookups in a segment wait for the disk these days: how many more will ask for their pages. Threads that
/// write it at once lose a count.
#[derive(Debug, Default)]
pub(crate) struct Waits(AtomicU8);

#[cfg(test)]
impl crate::Map {
    /// As if lookups in it had waited just now.
    pub(super) fn expect_waits(&self) {
        self.segments().for_each(|segment| segment.waits.0.store(LOOKUPS_ASKING, Ordering::Relaxed));
    }
}

impl Segment {
    /// The row that holds `key`, whose hash is known; `value`: the column that will be read next.
    #[inline(always)]
    pub(super) fn look_up<'k, S: Stored + Paged>(
        &self,
        side: &SegmentKey,
        stored: &S,
        key: S::Key<'k>,
        value: Option<usize>,
    ) -> Result<Option<u32>, BadRow>
    where
        S::Key<'k>: Hashed,
    {
        let hash = key.hash(side.index.plan().seed);
        if self.data.access == Access::Random {
            return self.look_up_waiting(side, stored, hash, key, value);
        }
        batch::find(&side.index, stored, hash, key, &self.hints(value))
    }

    #[inline(never)]
    fn look_up_waiting<S: Stored + Paged>(
        &self,
        side: &SegmentKey,
        stored: &S,
        hash: u64,
        key: S::Key<'_>,
        value: Option<usize>,
    ) -> Result<Option<u32>, BadRow> {
        let began = Instant::now();
        let asking = self.waits.0.load(Ordering::Relaxed);
        if asking > 0 {
            self.ask_for(side, stored, hash, value.and_then(|i| self.columns.get(i)));
        }
        let found = batch::find(&side.index, stored, hash, key, &self.hints(value));
        if let (Ok(Some(row)), Some(column)) = (&found, value.and_then(|i| self.columns.get(i))) {
            // The caller reads it anyway: that it waits, too, is worth knowing.
            touch(column, *row);
        }
        let left = if began.elapsed() > WAITED { LOOKUPS_ASKING } else { asking.saturating_sub(1) };
        // Threads share the word with what every lookup reads.
        if left != asking {
            self.waits.0.store(left, Ordering::Relaxed);
        }
        found
    }

    /// Asks for the pages of the first row whose fingerprint agrees: first those of the places, then the others.
    fn ask_for(&self, side: &SegmentKey, stored: &dyn Paged, hash: u64, value: Option<&Column>) {
        let primary = side.index.primary(hash);
        let bucket = side.index.bucket(primary);
        let (mut matches, mut bucket_of_row) = (bucket.matches(fingerprint(hash)), bucket);
        if matches == 0 && bucket.overflowed(hash) {
            bucket_of_row = side.index.bucket(side.index.secondary(hash, primary));
            matches = bucket_of_row.matches(fingerprint(hash));
        }
        if matches == 0 {
            return;
        }
        let row = bucket_of_row.row(matches.trailing_zeros()) as usize;
        let value = value.map(|column| column.codes.as_deref().unwrap_or(column));
        let mut pages = Wave::of_few(&self.data.map);
        stored.want_place(row, &mut pages);
        value.iter().for_each(|column| column.raw.want_place(row, &mut pages));
        pages.ask();
        stored.want_key(row, &mut pages);
        value.iter().for_each(|column| column.raw.want_bytes(row, &mut pages));
        pages.ask();
    }
}
