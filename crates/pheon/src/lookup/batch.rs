//! Looking up keys: one at a time, and many at once with every memory access announced before it is needed.
//!
//! A lookup is a chain of dependent reads: index line, place of the key, key bytes, value bytes. One after the other
//! they cost four or five memory latencies. The batch loop keeps [`IN_FLIGHT`] keys under way, each at another stage:
//!
//! ```text
//! for i in 0.. :
//!     key i       1  hash it, ask for its primary bucket
//!     key i - D   2  match fingerprints; ask for the row's offsets (or the secondary bucket)
//!     key i - 2D  3  ask for the key's and the value's bytes
//!     key i - 3D  4  compare; emit the value
//! ```
//!
//! so that computing and fetching overlap evenly and the memory system's throughput is the limit, not its latency.
//! This is software-pipelined prefetching: S. Chen, A. Ailamaki, P. Gibbons, T. Mowry, "Improving hash join performance
//! through prefetching", ICDE 2004.

use std::ops::Range;

use super::output::ValueOf;
use super::stored::{Asked, Hashed, Stored};
use crate::index::{Index, fingerprint};

/// Keys between two stages.
const DISTANCE: usize = 12;
/// Keys under way at once.
const IN_FLIGHT: usize = 3 * DISTANCE;
/// Slots of the ring that remembers them: a power of two, so that a mask finds the slot.
const RING: usize = (IN_FLIGHT + 1).next_power_of_two();
/// The row of a key that is not there. No segment has so many rows.
pub(crate) const MISSING: u32 = u32::MAX;

/// The index names a row that the key column does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRow(pub(crate) u32);

/// The values of rows that a lookup is about to find.
pub(crate) trait Hints {
    /// Asks for the lines that tell where a row's value is.
    fn hint_place(&self, row: usize);
    /// Asks for the value's lines; the place must be known by now.
    fn hint_value(&self, row: usize);
}

/// Where the rows found go, in the order of the keys.
pub(crate) trait Output: Hints {
    /// Takes the row of the next key. Fails if the value's buffers do not hold the row.
    fn emit(&mut self, row: u32) -> Result<(), BadRow>;
    /// Notes that the next key is not there.
    fn emit_missing(&mut self);
}

/// The row that holds `key`. Its value's lines are asked for while the key is still being compared, so that they come
/// together with the key's.
#[inline]
pub(crate) fn find<S: Stored, H: Hints>(
    index: &Index,
    stored: &S,
    hash: u64,
    key: S::Key<'_>,
    hints: &H,
) -> Result<Option<u32>, BadRow> {
    let fp = fingerprint(hash);
    let primary = index.primary(hash);
    let mut bucket = index.bucket(primary);
    if let Some(row) = find_in(bucket, fp, stored, key, hints)? {
        return Ok(Some(row));
    }
    if bucket.overflowed(hash) {
        bucket = index.bucket(index.secondary(hash, primary));
        return find_in(bucket, fp, stored, key, hints);
    }
    Ok(None)
}

/// [`find`] after the first candidate had another key, which one in 7,000 has by chance: all candidates are compared.
#[cold]
#[inline(never)]
pub(super) fn find_again<S: Stored>(
    index: &Index,
    stored: &S,
    hash: u64,
    key: S::Key<'_>,
) -> Result<Option<u32>, BadRow> {
    find(index, stored, hash, key, &ValueOf::Nothing)
}

#[inline(always)]
fn find_in<S: Stored, H: Hints>(
    bucket: crate::index::Bucket<'_>,
    fp: u16,
    stored: &S,
    key: S::Key<'_>,
    hints: &H,
) -> Result<Option<u32>, BadRow> {
    let mut matches = bucket.matches(fp);
    while matches != 0 {
        let row = bucket.row(matches.trailing_zeros());
        hints.hint_place(row as usize);
        stored.hint_key(row as usize);
        hints.hint_value(row as usize);
        if stored.equals(row as usize, key).ok_or(BadRow(row))? {
            return Ok(Some(row));
        }
        matches &= matches - 1;
    }
    Ok(None)
}

/// For forms of keys whose own work hides that of a call.
impl Hints for &mut dyn Output {
    fn hint_place(&self, row: usize) {
        (**self).hint_place(row);
    }

    fn hint_value(&self, row: usize) {
        (**self).hint_value(row);
    }
}

impl Output for &mut dyn Output {
    fn emit(&mut self, row: u32) -> Result<(), BadRow> {
        (**self).emit(row)
    }

    fn emit_missing(&mut self) {
        (**self).emit_missing();
    }
}

/// Looks up `asked[range]` and emits a row or a miss for each.
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
    let pipeline = Pipeline { index, stored, asked, base: range.start, seed: index.plan().seed };
    let mut ring = [Flight { hash: 0, bucket: NO_BUCKET, row: MISSING }; RING];
    let count = range.len();
    let filled = count.min(IN_FLIGHT);
    (0..filled).try_for_each(|i| pipeline.step(&mut ring, i, count, out))?;
    for i in filled..count {
        pipeline.begin(&mut ring, i);
        pipeline.probe(&mut ring, i - DISTANCE, out);
        pipeline.fetch(&mut ring, i - 2 * DISTANCE, out);
        pipeline.finish(&ring, i - 3 * DISTANCE, out)?;
    }
    // No more keys begin: the rest goes through what it has before it.
    (count..count + IN_FLIGHT).try_for_each(|i| pipeline.step(&mut ring, i, count, out))
}

/// A key under way.
#[derive(Clone, Copy)]
struct Flight {
    hash: u64,
    /// The bucket that was asked for and is still to be looked at, or [`NO_BUCKET`].
    bucket: u32,
    /// The row whose fingerprint agrees, or [`MISSING`].
    row: u32,
}

/// No index has so many buckets.
const NO_BUCKET: u32 = u32::MAX;

/// A row of a bucket with a fingerprint is never none, unless the index is damaged: then it is one whose key differs, or that
/// no segment holds, and the key is looked for again with an eye on that.
#[inline(always)]
fn candidate(row: u32) -> u32 {
    row.min(MISSING - 1)
}

/// Handed on by value, so that the loop above keeps its parts in registers.
struct Pipeline<'a, S, A> {
    index: &'a Index,
    stored: &'a S,
    asked: &'a A,
    base: usize,
    seed: u64,
}

impl<S, A> Clone for Pipeline<'_, S, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S, A> Copy for Pipeline<'_, S, A> {}

type Ring = [Flight; RING];

impl<S: Stored, A> Pipeline<'_, S, A> {
    /// All stages at the ends of a batch, where some have no key. Not inlined: the loop that has all of them is what must be
    /// fast, and each inlined copy costs compile time for every form of keys and values.
    #[inline(never)]
    fn step<'k, O: Output>(self, ring: &mut Ring, i: usize, count: usize, out: &mut O) -> Result<(), BadRow>
    where
        S::Key<'k>: Hashed,
        A: Asked<S::Key<'k>>,
    {
        let behind = |distance: usize| i.checked_sub(distance).filter(|&i| i < count);
        if i < count {
            self.begin(ring, i);
        }
        if let Some(i) = behind(DISTANCE) {
            self.probe(ring, i, out);
        }
        if let Some(i) = behind(2 * DISTANCE) {
            self.fetch(ring, i, out);
        }
        match behind(3 * DISTANCE) {
            Some(i) => self.finish(ring, i, out),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn begin<'k>(self, ring: &mut Ring, i: usize)
    where
        S::Key<'k>: Hashed,
        A: Asked<S::Key<'k>>,
    {
        let mut flight = Flight { hash: 0, bucket: NO_BUCKET, row: MISSING };
        if let Some(key) = self.asked.key(self.base + i) {
            flight.hash = key.hash(self.seed);
            let bucket = self.index.primary(flight.hash);
            self.index.prefetch(bucket);
            flight.bucket = bucket as u32;
        }
        ring[i % RING] = flight;
    }

    #[inline(always)]
    fn probe<O: Output>(self, ring: &mut Ring, i: usize, out: &O) {
        let flight = &mut ring[i % RING];
        if flight.bucket == NO_BUCKET {
            return;
        }
        let primary = u64::from(flight.bucket);
        let bucket = self.index.bucket(primary);
        let matches = bucket.matches(fingerprint(flight.hash));
        if matches != 0 {
            flight.bucket = NO_BUCKET;
            flight.row = candidate(bucket.row(matches.trailing_zeros()));
            self.stored.hint_place(flight.row as usize);
            out.hint_place(flight.row as usize);
        } else if bucket.overflowed(flight.hash) {
            let secondary = self.index.secondary(flight.hash, primary);
            self.index.prefetch(secondary);
            flight.bucket = secondary as u32;
        } else {
            flight.bucket = NO_BUCKET;
        }
    }

    #[inline(always)]
    fn fetch<O: Output>(self, ring: &mut Ring, i: usize, out: &O) {
        let flight = &mut ring[i % RING];
        if flight.bucket != NO_BUCKET {
            // One key in ten or less: its offsets are read without having been asked for.
            let bucket = self.index.bucket(u64::from(flight.bucket));
            let matches = bucket.matches(fingerprint(flight.hash));
            if matches != 0 {
                flight.row = candidate(bucket.row(matches.trailing_zeros()));
            }
        }
        if flight.row != MISSING {
            self.stored.hint_key(flight.row as usize);
            out.hint_value(flight.row as usize);
        }
    }

    #[inline(always)]
    fn finish<'k, O: Output>(self, ring: &Ring, i: usize, out: &mut O) -> Result<(), BadRow>
    where
        A: Asked<S::Key<'k>>,
    {
        let flight = ring[i % RING];
        if flight.row != MISSING
            && let Some(key) = self.asked.key(self.base + i)
        {
            let same = self.stored.equals(flight.row as usize, key).ok_or(BadRow(flight.row))?;
            let row = if same { Some(flight.row) } else { find_again(self.index, self.stored, flight.hash, key)? };
            if let Some(row) = row {
                return out.emit(row);
            }
        }
        out.emit_missing();
        Ok(())
    }
}
