//! Looking up keys: one at a time, and many at once with every memory access announced before it is needed.
//!
//! A lookup is a chain of dependent reads: index line, place of the key, key bytes, value bytes. One after the other
//! they cost four or five memory latencies. The batch loop takes [`GROUP`] keys through the chain together, stage by stage:
//!
//! ```text
//! for each group:
//!     1  hash every key, ask for its primary bucket
//!     2  match fingerprints; ask for the row's offsets (or the secondary bucket)
//!     3  ask for the key's and the value's bytes
//!     4  compare; emit the value
//! ```
//!
//! so that up to GROUP lines are under way at any moment and the memory system's throughput is the limit, not its latency.
//! This is group prefetching: S. Chen, A. Ailamaki, P. Gibbons, T. Mowry, "Improving hash join performance through
//! prefetching", ICDE 2004.

use std::ops::Range;

use super::stored::{Asked, Hashed, Stored};
use crate::index::{Index, fingerprint};

/// Keys that go through the stages together.
const GROUP: usize = 32;
/// The row of a key that is not there. No segment has so many rows.
pub(crate) const MISSING: u32 = u32::MAX;

/// The index names a row that the key column does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRow(pub(crate) u32);

/// Where the rows found go, in the order of the keys.
pub(crate) trait Output {
    /// Asks for the lines that tell where a row's value is.
    fn hint_place(&self, row: usize);
    /// Asks for the value's lines; the place must be known by now.
    fn hint_value(&self, row: usize);
    /// Takes the next row, or [`MISSING`]. Fails if the value's buffers do not hold the row.
    fn emit(&mut self, row: u32) -> Result<(), BadRow>;
}

/// The row that holds `key`.
#[inline]
pub(crate) fn find<S: Stored>(index: &Index, stored: &S, hash: u64, key: S::Key<'_>) -> Result<Option<u32>, BadRow> {
    let fp = fingerprint(hash);
    let primary = index.primary(hash);
    let mut bucket = index.bucket(primary);
    if let Some(row) = find_in(bucket, fp, stored, key)? {
        return Ok(Some(row));
    }
    if bucket.overflowed(hash) {
        bucket = index.bucket(index.secondary(hash, primary));
        return find_in(bucket, fp, stored, key);
    }
    Ok(None)
}

#[inline(always)]
fn find_in<S: Stored>(
    bucket: crate::index::Bucket<'_>,
    fp: u16,
    stored: &S,
    key: S::Key<'_>,
) -> Result<Option<u32>, BadRow> {
    let mut matches = bucket.matches(fp);
    while matches != 0 {
        let row = bucket.row(matches.trailing_zeros());
        if stored.equals(row as usize, key).ok_or(BadRow(row))? {
            return Ok(Some(row));
        }
        matches &= matches - 1;
    }
    Ok(None)
}

/// Looks up `asked[range]` and emits a row or [`MISSING`] for each.
pub(crate) fn find_many<'k, S, A, O>(
    index: &Index,
    stored: &S,
    asked: &A,
    range: Range<usize>,
    out: &mut O,
) -> Result<(), BadRow>
where
    S: Stored,
    S::Key<'k>: Hashed,
    A: Asked<S::Key<'k>>,
    O: Output,
{
    let seed = index.plan().seed;
    let mut hashes = [0u64; GROUP];
    let mut primaries = [0u64; GROUP];
    let mut rows = [MISSING; GROUP];
    let mut base = range.start;
    while base < range.end {
        let count = GROUP.min(range.end - base);
        // Bit j: key j of the group may be in the dataset.
        let mut live = 0u64;
        for j in 0..count {
            if let Some(key) = asked.key(base + j) {
                let hash = key.hash(seed);
                let primary = index.primary(hash);
                index.prefetch(primary);
                hashes[j] = hash;
                primaries[j] = primary;
                live |= 1 << j;
            }
        }
        let mut second = 0u64;
        for j in 0..count {
            rows[j] = MISSING;
            if live >> j & 1 == 0 {
                continue;
            }
            let bucket = index.bucket(primaries[j]);
            let matches = bucket.matches(fingerprint(hashes[j]));
            if matches != 0 {
                let row = bucket.row(matches.trailing_zeros());
                stored.hint_place(row as usize);
                out.hint_place(row as usize);
                rows[j] = row;
            } else if bucket.overflowed(hashes[j]) {
                primaries[j] = index.secondary(hashes[j], primaries[j]);
                index.prefetch(primaries[j]);
                second |= 1 << j;
            }
        }
        while second != 0 {
            let j = second.trailing_zeros() as usize;
            let bucket = index.bucket(primaries[j]);
            let matches = bucket.matches(fingerprint(hashes[j]));
            if matches != 0 {
                let row = bucket.row(matches.trailing_zeros());
                stored.hint_place(row as usize);
                out.hint_place(row as usize);
                rows[j] = row;
            }
            second &= second - 1;
        }
        for &row in &rows[..count] {
            if row != MISSING {
                stored.hint_key(row as usize);
                out.hint_value(row as usize);
            }
        }
        for j in 0..count {
            let mut row = rows[j];
            if row != MISSING
                && let Some(key) = asked.key(base + j)
                && !stored.equals(row as usize, key).ok_or(BadRow(row))?
            {
                // A fingerprint agreed by chance (about 1 key in 7,000): look again, at every candidate.
                row = find(index, stored, hashes[j], key)?.unwrap_or(MISSING);
            }
            out.emit(row)?;
        }
        base += count;
    }
    Ok(())
}
