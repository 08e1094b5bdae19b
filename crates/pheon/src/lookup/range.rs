//! Ranges of sorted keys, by binary search.

use std::cmp::Ordering;
use std::ops::Range;

use crate::access::Access;
use crate::error::ReadError;
use crate::key::KeyRef;
use crate::segment::Segment;

/// Rows after the start of a range among which its end is looked for first, in a file that is read at random.
const NEAR_ROWS: usize = 256;

/// One end of a key range.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyBound<'a> {
    /// From the first, or to the last row.
    Open,
    /// At this key; the row that holds it is inside.
    Included(KeyRef<'a>),
    /// At this key; the row that holds it is outside.
    Excluded(KeyRef<'a>),
}

/// A run of keys in their order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeySpan<'a> {
    /// From the first bound to the second.
    Between(KeyBound<'a>, KeyBound<'a>),
    /// The byte keys that begin so.
    Prefix(&'a [u8]),
}

impl Segment {
    /// The rows whose keys lie in `span`; empty if its bounds cross.
    pub(crate) fn rows_of(&self, span: KeySpan<'_>) -> Result<Range<usize>, ReadError> {
        match span {
            KeySpan::Between(from, to) => self.rows_between(from, to),
            KeySpan::Prefix(prefix) => self.rows_with_prefix(prefix),
        }
    }

    /// The number of leading rows whose key satisfies `before`, which must hold for a prefix of the rows: `from` of them at
    /// least.
    fn partition(&self, from: usize, before: impl Fn(KeyRef<'_>) -> bool) -> Result<usize, ReadError> {
        if self.key.is_none() {
            return Ok(0);
        }
        let (mut low, mut high) = (from.min(self.rows), self.rows);
        if self.data.access == Access::Random && from > 0 {
            // Most ranges are short, and each step of a search in the whole file waits for two pages of its own.
            let mut step = NEAR_ROWS;
            while high - low > step {
                if !self.with_key(low + step, &before).ok_or_else(|| self.lost_key(low + step))? {
                    high = low + step;
                    break;
                }
                low += step + 1;
                step *= 8;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.with_key(middle, &before).ok_or_else(|| self.lost_key(middle))? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Rows whose keys are less than `key` (or not greater, if `inclusive`), `from` of them at least.
    fn rows_before(&self, from: usize, key: KeyRef<'_>, inclusive: bool) -> Result<usize, ReadError> {
        let Some(side) = &self.key else { return Ok(0) };
        if self.data.access == Access::Random
            && from == 0
            && let Some(row) = self.find(key, None)?
        {
            // The index finds a key that is there with three pages; it is that of the first of its rows.
            let place = if inclusive { self.rows_of_key(row)?.end } else { self.start_of_key(row)? };
            return Ok(place as usize);
        }
        self.partition(from, |stored| match side.key_type.compare(stored, key) {
            Ordering::Less => true,
            Ordering::Equal => inclusive,
            Ordering::Greater => false,
        })
    }

    /// The rows between two bounds; empty if they cross.
    pub(crate) fn rows_between(&self, from: KeyBound<'_>, to: KeyBound<'_>) -> Result<Range<usize>, ReadError> {
        let start = match from {
            KeyBound::Open => 0,
            KeyBound::Included(key) => self.rows_before(0, key, false)?,
            KeyBound::Excluded(key) => self.rows_before(0, key, true)?,
        };
        let end = match to {
            KeyBound::Open => self.rows,
            KeyBound::Included(key) => self.rows_before(start, key, true)?,
            KeyBound::Excluded(key) => self.rows_before(start, key, false)?,
        };
        Ok(start..end.max(start))
    }

    /// The rows whose byte key begins with `prefix`.
    pub(crate) fn rows_with_prefix(&self, prefix: &[u8]) -> Result<Range<usize>, ReadError> {
        let start = self.rows_before(0, KeyRef::Bytes(prefix), false)?;
        let end = self.partition(start, |stored| match stored {
            KeyRef::Bytes(stored) => stored < prefix || stored.starts_with(prefix),
            _ => false,
        })?;
        Ok(start..end.max(start))
    }
}
