//! The rows of several segments in key order, without touching all of them.
//!
//! ```text
//! cursors, one a segment, ordered by the key that each stands on
//! repeat: take the cursor with the least key; the next cursor's key is the limit;
//!         skip ahead in steps of 1, 2, 4... to the first row beyond the limit; what was passed is one run
//! ```
//!
//! Segments that do not overlap give one run each, and a few changed rows in a large table a few runs more: the cost is
//! O(runs x log rows), not O(rows). Skipping ahead is the galloping search of J. Bentley, A. Yao, "An almost optimal
//! algorithm for unbounded searching", Information Processing Letters 5(3), 1976. Rows of equal keys come in the order in
//! which their segments were published.

use std::cmp::Ordering;
use std::ops::Range;

use super::Part;
use crate::error::ReadError;

/// Consecutive rows of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) part: u32,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// Rows of a version in their final order.
#[derive(Debug)]
pub(crate) struct RunList {
    runs: Vec<Run>,
    /// Where each run begins; one more: the number of rows.
    starts: Vec<u64>,
    /// How many rows of the version come before the first of these.
    pub(crate) first: u64,
}

impl RunList {
    /// The rows of `ranges`, one a part, merged. `first`: how many rows of the version come before them.
    pub(crate) fn merge(parts: &[Part], ranges: &[Range<u32>], by_key: bool, first: u64) -> Result<Self, ReadError> {
        let mut list = Self { runs: Vec::new(), starts: vec![0], first };
        let mut merger = Merger::new(parts, ranges, by_key)?;
        while let Some(run) = merger.next()? {
            list.push(run);
        }
        Ok(list)
    }

    fn push(&mut self, run: Run) {
        let end = self.rows() + u64::from(run.len);
        if let (Some(last), Some(stop)) = (self.runs.last_mut(), self.starts.last_mut())
            && last.part == run.part
            && last.start + last.len == run.start
        {
            last.len += run.len;
            *stop = end;
            return;
        }
        self.runs.push(run);
        self.starts.push(end);
    }

    /// How many rows these are.
    pub(crate) fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Part and row at a position below [`RunList::rows`].
    pub(crate) fn locate(&self, position: u64) -> (usize, u32) {
        let at = self.starts.partition_point(|&start| start <= position) - 1;
        let run = self.runs[at];
        (run.part as usize, run.start + (position - self.starts[at]) as u32)
    }

    /// The runs that make up the positions `start .. start + len`.
    pub(crate) fn window(&self, start: u64, len: u64) -> impl Iterator<Item = Run> + '_ {
        let end = start + len;
        let from = self.starts.partition_point(|&s| s <= start).saturating_sub(1);
        let starts = &self.starts[from..];
        self.runs[from..].iter().zip(starts).take_while(move |(_, begin)| **begin < end).filter_map(
            move |(run, &begin)| {
                let skip = start.saturating_sub(begin) as u32;
                let stop = u64::from(run.len).min(end - begin) as u32;
                (stop > skip).then(|| Run { start: run.start + skip, len: stop - skip, ..*run })
            },
        )
    }
}

struct Cursor {
    part: usize,
    at: u32,
    end: u32,
}

/// Yields runs in final order, hidden rows left out.
pub(crate) struct Merger<'a> {
    parts: &'a [Part],
    /// The one to be taken next is the last.
    cursors: Vec<Cursor>,
    by_key: bool,
    /// Rows decided on, hidden ones still among them.
    pending: Option<Run>,
}

impl<'a> Merger<'a> {
    pub(crate) fn new(parts: &'a [Part], ranges: &[Range<u32>], by_key: bool) -> Result<Self, ReadError> {
        let mut this = Self { parts, cursors: Vec::with_capacity(ranges.len()), by_key, pending: None };
        for (part, range) in ranges.iter().enumerate() {
            if range.start < range.end {
                this.insert(Cursor { part, at: range.start, end: range.end })?;
            }
        }
        Ok(this)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Run>, ReadError> {
        loop {
            if let Some(run) = self.pending.take() {
                if let Some(visible) = self.visible(run) {
                    return Ok(Some(visible));
                }
                continue;
            }
            let Some(mut cursor) = self.cursors.pop() else { return Ok(None) };
            let stop = match self.cursors.last() {
                Some(limit) if self.by_key => self.gallop(&cursor, limit)?,
                _ => cursor.end,
            };
            self.pending = Some(Run { part: cursor.part as u32, start: cursor.at, len: stop - cursor.at });
            cursor.at = stop;
            if cursor.at < cursor.end {
                self.insert(cursor)?;
            }
        }
    }

    /// The first rows of `run` that are not hidden; what comes after them stays pending.
    fn visible(&mut self, run: Run) -> Option<Run> {
        let Some(hidden) = &self.parts[run.part as usize].hidden else { return Some(run) };
        let (mut start, end) = (run.start, run.start + run.len);
        let mut rest = &hidden.rows()[hidden.count_before(start)..];
        while let [first, after @ ..] = rest
            && *first == start
            && start < end
        {
            start += 1;
            rest = after;
        }
        let stop = rest.first().map_or(end, |&next| next.clamp(start, end));
        if stop < end {
            self.pending = Some(Run { start: stop, len: end - stop, ..run });
        }
        (start < stop).then_some(Run { start, len: stop - start, ..run })
    }

    /// The first row of `cursor` that comes after the row that `limit` stands on.
    fn gallop(&self, cursor: &Cursor, limit: &Cursor) -> Result<u32, ReadError> {
        let goes_first = |row: u32| -> Result<bool, ReadError> {
            let order = self.compare((cursor.part, row), (limit.part, limit.at))?;
            Ok(order.is_lt())
        };
        // The row that the cursor stands on goes first.
        let (mut low, mut step) = (cursor.at + 1, 1u32);
        let mut high = cursor.end;
        while low < high {
            let probe = low.saturating_add(step - 1).min(high - 1);
            if goes_first(probe)? {
                low = probe + 1;
                step = step.saturating_mul(2);
            } else {
                high = probe;
                break;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if goes_first(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The order of two rows: by key, then by age.
    fn compare(&self, a: (usize, u32), b: (usize, u32)) -> Result<Ordering, ReadError> {
        if !self.by_key {
            return Ok(a.cmp(&b));
        }
        let (left, right) = (&self.parts[a.0].segment, &self.parts[b.0].segment);
        Ok(left.compare_keys(a.1 as usize, right, b.1 as usize)?.then(a.0.cmp(&b.0)))
    }

    fn insert(&mut self, cursor: Cursor) -> Result<(), ReadError> {
        let (mut low, mut high) = (0, self.cursors.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let other = &self.cursors[middle];
            if self.compare((other.part, other.at), (cursor.part, cursor.at))?.is_gt() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.cursors.insert(low, cursor);
        Ok(())
    }
}
