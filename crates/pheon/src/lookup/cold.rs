//! Batches whose pages are not in memory: in phases, each in the order of the file, with many pages under way.
//!
//! [`batch`](super::batch) hides the latency of memory; a page that comes from a disk takes a thousand times as long, and a
//! thread that waits for one asks for no other. Here the pages of many keys are asked for before the first is read:
//!
//! ```text
//! hash all keys, sort them by bucket
//! for each wave of buckets:   ask for the next wave's pages; match fingerprints
//! sort the rows found
//! for each wave of rows:      ask for the places of wave w + 2, for the keys of wave w + 1; compare those of wave w
//! emit in the order of the keys
//! ```
//!
//! Values are gathered like keys, in the order of the rows, and then put into the caller's order. Pages that lie close
//! together are asked for as one piece: a disk reads some pages more in the time of one seek.

use std::ops::Range;

use arrow_array::{ArrayRef, UInt32Array};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use pheon_os::map::{ReadMap, disk_faults};

use super::batch::{self, BadRow, MISSING, Output};
use super::stored::{AnyKeys, Asked, CompositeKeys, FixedKeys, Hashed, Stored, VarKeys, WordKeys};
use super::{Gather, whole};
use crate::access::Access;
use crate::error::ReadError;
use crate::index::{Index, fingerprint};
use crate::segment::Segment;
use crate::segment::column::{Column, Raw, fixed_at, var_at};

/// Keys or rows whose pages are asked for at once.
const WAVE: usize = 1024;
/// Pages with fewer bytes between them are asked for as one piece.
const GAP_BYTES: usize = 16 << 10;
/// Keys that are sorted together; more take turns, so that sorting takes a bounded amount of memory. The answer is there twice while it is put
/// into order.
const KEYS_MAX: usize = 1 << 20;
/// Batches of fewer keys are not worth a look at what is in memory.
const KEYS_MIN: usize = 16;
/// One key in so many is looked up beforehand, to see whether it waits for the disk.
const SAMPLE_STEP: usize = 256;
const SAMPLE_MAX: usize = 64;
/// Waiting once in so many keys costs what asking for the pages of all of them does.
const KEYS_PER_FAULT: u64 = 32;

/// Whether most of a batch of `len` keys would wait for a disk, by trying a few of them. `look_up` reads all that a key
/// needs.
pub(super) fn is_cold(access: Access, len: usize, mut look_up: impl FnMut(usize)) -> bool {
    #[cfg(test)]
    if tests::forced() {
        return true;
    }
    if access != Access::Random || len < KEYS_MIN {
        return false;
    }
    let sample = (len / SAMPLE_STEP).clamp(1, SAMPLE_MAX);
    let before = disk_faults();
    (0..sample).for_each(|i| look_up(len / sample * i));
    disk_faults().saturating_sub(before) > sample as u64 / KEYS_PER_FAULT
}

/// Reads a value so that its pages are in memory or a fault is counted.
pub(super) fn touch(column: &Column, row: u32) {
    let column = column.codes.as_deref().unwrap_or(column);
    column.raw.each_span(row as usize, 1, &mut |bytes| {
        std::hint::black_box((bytes.first().copied(), bytes.last().copied()));
    });
}

/// Pages that will be asked for together.
pub(super) struct Wave<'a> {
    map: &'a ReadMap,
    spans: Vec<(usize, usize)>,
    bytes: usize,
}

/// Bytes that a wave asks for at most: of larger values the rest comes when it is read. Damaged offsets may name the whole file.
const WAVE_BYTES_MAX: usize = 8 << 20;

impl<'a> Wave<'a> {
    fn of(map: &'a ReadMap) -> Self {
        Self { map, spans: Vec::with_capacity(2 * WAVE), bytes: 0 }
    }

    /// For the pages of a single lookup.
    pub(super) fn of_few(map: &'a ReadMap) -> Self {
        Self { map, spans: Vec::with_capacity(4), bytes: 0 }
    }

    /// Notes bytes of the map.
    fn want(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(WAVE_BYTES_MAX - self.bytes)];
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            let from = bytes.as_ptr().addr().wrapping_sub(self.map.as_ptr().addr());
            self.spans.push((from, from.saturating_add(bytes.len())));
        }
    }

    /// Asks for what was noted.
    pub(super) fn ask(&mut self) {
        self.bytes = 0;
        self.spans.sort_unstable();
        let mut spans = self.spans.drain(..);
        let Some(mut piece) = spans.next() else { return };
        for (from, to) in spans {
            if from > piece.1.saturating_add(GAP_BYTES) {
                self.map.advise_willneed(piece.0..piece.1);
                piece = (from, to);
            }
            piece.1 = piece.1.max(to);
        }
        self.map.advise_willneed(piece.0..piece.1);
    }
}

/// A key column that tells where its bytes are.
pub(super) trait Paged {
    /// Notes the bytes that tell where a row's key is.
    fn want_place(&self, row: usize, wave: &mut Wave<'_>);
    /// Notes the bytes of the key itself; reads its place.
    fn want_key(&self, row: usize, wave: &mut Wave<'_>);
}

impl Raw {
    pub(super) fn want_place(&self, row: usize, wave: &mut Wave<'_>) {
        match self {
            Self::Var { offsets, .. } => want_offsets(offsets, row, wave),
            Self::Fixed { width, values } => wave.want(fixed_at(values, *width, row).unwrap_or_default()),
            Self::Bool { values } => wave.want(values.get(row / 8..=row / 8).unwrap_or_default()),
            Self::Struct { fields } => fields.iter().for_each(|field| field.raw.want_place(row, wave)),
            Self::Other => {}
        }
    }

    pub(super) fn want_bytes(&self, row: usize, wave: &mut Wave<'_>) {
        match self {
            Self::Var { offsets, values } => wave.want(var_at(offsets, values, row).unwrap_or_default()),
            Self::Struct { fields } => fields.iter().for_each(|field| field.raw.want_bytes(row, wave)),
            Self::Fixed { .. } | Self::Bool { .. } | Self::Other => {}
        }
    }
}

fn want_offsets(offsets: &[i64], row: usize, wave: &mut Wave<'_>) {
    if let Some(here) = offsets.get(row..).and_then(|o| o.get(..2)) {
        wave.want(arrow_buffer::ToByteSlice::to_byte_slice(here));
    }
}

impl Paged for VarKeys<'_> {
    fn want_place(&self, row: usize, wave: &mut Wave<'_>) {
        want_offsets(self.offsets, row, wave);
    }

    fn want_key(&self, row: usize, wave: &mut Wave<'_>) {
        wave.want(var_at(self.offsets, self.values, row).unwrap_or_default());
    }
}

impl Paged for FixedKeys<'_> {
    fn want_place(&self, row: usize, wave: &mut Wave<'_>) {
        wave.want(fixed_at(self.values, self.width, row).unwrap_or_default());
    }

    fn want_key(&self, _row: usize, _wave: &mut Wave<'_>) {}
}

impl Paged for WordKeys<'_> {
    fn want_place(&self, row: usize, wave: &mut Wave<'_>) {
        wave.want(self.0.get(row).map_or(&[], |word| word.as_slice()));
    }

    fn want_key(&self, _row: usize, _wave: &mut Wave<'_>) {}
}

impl Paged for AnyKeys<'_> {
    fn want_place(&self, row: usize, wave: &mut Wave<'_>) {
        self.column.raw.want_place(row, wave);
    }

    fn want_key(&self, row: usize, wave: &mut Wave<'_>) {
        self.column.raw.want_bytes(row, wave);
    }
}

impl Paged for CompositeKeys<'_> {
    fn want_place(&self, row: usize, wave: &mut Wave<'_>) {
        self.parts.iter().for_each(|part| self.columns[part.column].raw.want_place(row, wave));
    }

    fn want_key(&self, row: usize, wave: &mut Wave<'_>) {
        self.parts.iter().for_each(|part| self.columns[part.column].raw.want_bytes(row, wave));
    }
}

/// How a batch is looked up.
pub(super) enum How<'a> {
    /// Its pages are in memory: rows are emitted in the order of the keys, with the misses.
    Warm,
    /// They are not: only what is found is emitted, in the order of the rows; `order` gets for each the number of its key
    /// among those looked up.
    Cold { segment: &'a Segment, value: Option<&'a Column>, order: &'a mut Vec<u32> },
}

/// Looks up `asked[range]` and emits what is found; see [`How::Cold`].
pub(super) fn find_many<'k, S, A, O>(
    files: (&ReadMap, &ReadMap),
    index: &Index,
    (stored, value): (&S, Option<&Column>),
    asked: &A,
    range: Range<usize>,
    order: &mut Vec<u32>,
    out: &mut O,
) -> Result<(), BadRow>
where
    S: Stored + Paged,
    S::Key<'k>: Hashed,
    A: Asked<S::Key<'k>>,
    O: Output,
{
    let seed = index.plan().seed;
    let hash = |i| asked.key(i).map(|key| key.hash(seed));
    let mut compare = |i, candidate: &Candidate| {
        let Some(key) = asked.key(i) else { return Ok(()) };
        let row = candidate.row;
        // As in a warm batch: a fingerprint that agrees by chance is rare, and then all candidates are compared.
        let same = stored.equals(row as usize, key).ok_or(BadRow(row))?;
        let row = if same { Some(row) } else { batch::find_again(index, stored, candidate.hash, key)? };
        if let Some(row) = row {
            out.emit(row)?;
            order.push((i - range.start) as u32);
        }
        Ok(())
    };
    in_parts(files, index, (stored, value), range.clone(), &hash, &mut compare)
}

/// Calls `compare` with the number of each key of `keys` that has a candidate and the first one, in the order of their rows and
/// with their pages asked for. Compiled once for all forms of keys, as all of this file that a page's wait hides.
fn in_parts(
    (bucket_map, column_map): (&ReadMap, &ReadMap),
    index: &Index,
    (stored, value): (&dyn Paged, Option<&Column>),
    keys: Range<usize>,
    hash: &dyn Fn(usize) -> Option<u64>,
    compare: &mut dyn FnMut(usize, &Candidate) -> Result<(), BadRow>,
) -> Result<(), BadRow> {
    for base in keys.clone().step_by(KEYS_MAX) {
        in_waves(
            column_map,
            &candidates(bucket_map, index, hash, base..keys.end.min(base + KEYS_MAX)),
            &|candidate, wave| {
                stored.want_place(candidate.row as usize, wave);
                if let Some(value) = value {
                    value.raw.want_place(candidate.row as usize, wave);
                }
            },
            &|candidate, wave| {
                stored.want_key(candidate.row as usize, wave);
                if let Some(value) = value {
                    value.raw.want_bytes(candidate.row as usize, wave);
                }
            },
            &mut |candidate| compare(base + candidate.at as usize, candidate),
        )?;
    }
    Ok(())
}

/// A row whose fingerprint agrees with that of a key.
struct Candidate {
    row: u32,
    /// The key's number, counted from the first of its part.
    at: u32,
    hash: u64,
}

/// The first candidate of each key that has one, ascending by row.
fn candidates(map: &ReadMap, index: &Index, hash: &dyn Fn(usize) -> Option<u64>, keys: Range<usize>) -> Vec<Candidate> {
    let hashes = keys.zip(0..).filter_map(|(i, at)| Some((hash(i)?, at)));
    let mut ahead: Vec<(u64, u64, u32)> = hashes.map(|(hash, at)| (index.primary(hash), hash, at)).collect();
    let mut found = Vec::with_capacity(ahead.len());
    for is_primary in [true, false] {
        let mut overflowed = Vec::new();
        ahead.sort_unstable();
        let nothing = in_waves(
            map,
            &ahead,
            &|&(bucket, ..), wave| wave.want(index.bucket(bucket).bytes()),
            &|_, _| {},
            &mut |&(at_bucket, hash, at)| {
                let bucket = index.bucket(at_bucket);
                let matches = bucket.matches(fingerprint(hash));
                if matches != 0 {
                    found.push(Candidate { row: bucket.row(matches.trailing_zeros()), at, hash });
                } else if is_primary && bucket.overflowed(hash) {
                    overflowed.push((index.secondary(hash, at_bucket), hash, at));
                }
                Ok(())
            },
        );
        debug_assert!(nothing.is_ok());
        ahead = overflowed;
    }
    found.sort_unstable_by_key(|candidate| candidate.row);
    found
}

/// Calls `done` for each item in order, after its pages were asked for: what `place` notes two waves before, what `bytes`
/// notes one wave before.
fn in_waves<T>(
    map: &ReadMap,
    items: &[T],
    place: &dyn Fn(&T, &mut Wave<'_>),
    bytes: &dyn Fn(&T, &mut Wave<'_>),
    done: &mut dyn FnMut(&T) -> Result<(), BadRow>,
) -> Result<(), BadRow> {
    let waves: Vec<&[T]> = items.chunks(WAVE).collect();
    let mut pages = Wave::of(map);
    for i in 0..waves.len() + 2 {
        let wave = |behind: usize| i.checked_sub(behind).and_then(|i| waves.get(i)).copied().unwrap_or_default();
        wave(0).iter().for_each(|item| place(item, &mut pages));
        pages.ask();
        wave(1).iter().for_each(|item| bytes(item, &mut pages));
        pages.ask();
        wave(2).iter().try_for_each(&mut *done)?;
    }
    Ok(())
}

impl Segment {
    /// Values of one column for rows already found, most of which are not in memory; null where the row is null.
    pub(super) fn take_cold(&self, value: &Column, rows: &UInt32Array) -> Result<ArrayRef, ReadError> {
        let mut found: Vec<(u32, u32)> = rows.iter().zip(0..).filter_map(|(row, at)| Some((row?, at))).collect();
        found.sort_unstable();
        let order: Vec<u32> = found.iter().map(|&(_, at)| at).collect();
        let taken = self.gather_part(value, found.len(), usize::MAX, |out| match out {
            Gather::Var(out) => self.emit_cold(value, &found, out),
            Gather::W1(out) => self.emit_cold(value, &found, out),
            Gather::W2(out) => self.emit_cold(value, &found, out),
            Gather::W4(out) => self.emit_cold(value, &found, out),
            Gather::W8(out) => self.emit_cold(value, &found, out),
            Gather::W16(out) => self.emit_cold(value, &found, out),
        })?;
        put_back(&whole(taken)?, &order, rows.len())
    }

    fn emit_cold<O: Output>(&self, value: &Column, found: &[(u32, u32)], out: &mut O) -> Result<(), ReadError> {
        in_waves(
            &self.data.map,
            found,
            &|&(row, _), wave| value.raw.want_place(row as usize, wave),
            &|&(row, _), wave| value.raw.want_bytes(row as usize, wave),
            &mut |&(row, _)| out.emit(row),
        )
        .map_err(|bad| self.bad_value(bad))
    }
}

/// Puts rows that were found for the keys numbered in `order` into the order of all `len` keys, null where there is none.
pub(super) fn put_back(found: &ArrayRef, order: &[u32], len: usize) -> Result<ArrayRef, ReadError> {
    let mut places = vec![MISSING; len];
    for (&at, place) in order.iter().zip(0..) {
        places[at as usize] = place;
    }
    let nulls = NullBuffer::from_iter(places.iter().map(|&place| place != MISSING));
    let nulls = (nulls.null_count() > 0).then_some(nulls);
    let places = UInt32Array::new(ScalarBuffer::from(places), nulls);
    arrow_select::take::take(found, &places, None).map_err(|e| ReadError::arrow("put values into order", e))
}

/// [`put_back`] for row numbers, added to `rows`.
pub(super) fn put_rows_back(found: &[u32], order: &[u32], len: usize, rows: &mut Vec<u32>) {
    let base = rows.len();
    rows.resize(base + len, MISSING);
    for (&at, &row) in order.iter().zip(found) {
        rows[base + at as usize] = row;
    }
}

#[cfg(test)]
mod tests;
