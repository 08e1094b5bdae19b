//! The rows of many keys at once, repeated keys included.

use std::cmp::Ordering;
use std::ops::Range;

use arrow_array::{Array, RecordBatch, UInt64Array, make_array};

use crate::error::ReadError;
use crate::segment::Segment;
use crate::table::Table;
use crate::version::find::row_id;
use crate::version::gather::batch_of;

/// The rows of a key within a segment.
#[derive(Debug)]
struct Found {
    /// Which of the keys asked for.
    position: u64,
    part: u32,
    start: u32,
    end: u32,
}

impl Table {
    /// All rows of each of many keys, within this slice: for each row the number of its key in `keys`, and the rows. In
    /// the order of `keys`; rows of one key in table order; nothing for a key without rows. A copy.
    ///
    /// `keys` may have any type that converts to the key's without loss. `threads`: how many may work; `None`: one.
    ///
    /// # Errors
    /// [`ReadError::KeyType`] if the keys do not fit, [`ReadError::WrongShape`] if there is no key.
    pub fn lookup(&self, keys: &dyn Array, threads: Option<usize>) -> Result<(UInt64Array, RecordBatch), ReadError> {
        self.find_rows(keys, threads)?.gather()
    }

    /// How many rows [`Table::lookup`] finds for each key.
    ///
    /// # Errors
    /// As there.
    pub fn lookup_counts(&self, keys: &dyn Array) -> Result<Vec<usize>, ReadError> {
        let mut counts = vec![0; keys.len()];
        for f in self.find_rows(keys, None)?.found {
            counts[f.position as usize] += (f.end - f.start) as usize;
        }
        Ok(counts)
    }

    /// [`Table::lookup`] before anything is copied: how much it would be can be asked for.
    ///
    /// # Errors
    /// As [`Table::lookup`].
    pub fn find_rows(&self, keys: &dyn Array, threads: Option<usize>) -> Result<FoundRows<'_>, ReadError> {
        let keys = make_array(keys.to_data());
        let ranges = self.row_ranges()?;
        let mut found: Vec<Found> = Vec::new();
        for (number, (part, range)) in self.version.parts.iter().zip(&ranges).enumerate() {
            let segment = &part.segment;
            let rows = segment.find_array(self.name(), &keys, threads.unwrap_or(1))?;
            for (position, row) in rows.iter().enumerate() {
                // A change hides all rows that a key has in a segment, or none.
                let Some(row) = row.filter(|&row| !part.is_hidden(row)) else { continue };
                let same = segment.rows_of_key(row)?;
                let (start, end) = (same.start.max(range.start), same.end.min(range.end));
                if start < end {
                    found.push(Found { position: position as u64, part: number as u32, start, end });
                }
            }
        }
        if self.version.parts.len() > 1 {
            found.sort_unstable_by_key(|f| (f.position, f.part));
        }
        Ok(FoundRows { table: self, found })
    }

    /// Rows of several places of this table, one after the other, as a copy: for many short pieces, which would be a
    /// batch each as slices. Ends beyond the table are cut.
    pub fn gather(&self, pieces: &[Range<usize>]) -> Result<RecordBatch, ReadError> {
        let list = self.list()?;
        let mut rows = Vec::new();
        for piece in pieces {
            let window = self.slice(piece.start, piece.len());
            for run in list.window(window.start, window.len) {
                rows.extend((run.start..run.start + run.len).map(|row| row_id(run.part as usize, row)));
            }
        }
        self.batch_of_rows(&UInt64Array::from(rows))
    }

    /// Bytes that a copy of these rows has, without validity; of dictionary columns only the keys. Cheap: nothing is read
    /// but offsets. Ends beyond the table are cut.
    pub fn bytes_of(&self, rows: Range<usize>) -> Result<u64, ReadError> {
        let window = self.slice(rows.start, rows.len());
        let mut bytes = 0u64;
        for run in self.list()?.window(window.start, window.len) {
            bytes = bytes.saturating_add(self.bytes_in(run.part as usize, run.start..run.start + run.len)?);
        }
        Ok(bytes)
    }

    /// Of rows of one segment.
    fn bytes_in(&self, part: usize, rows: Range<u32>) -> Result<u64, ReadError> {
        let segment = &self.version.parts[part].segment;
        let mut bytes = 0u64;
        for i in 0..self.num_columns() {
            let column = &segment.columns[self.stored_column(i)?];
            bytes = bytes.saturating_add(column.row_bytes(&segment.data, rows.clone())?);
        }
        Ok(bytes)
    }

    fn batch_of_rows(&self, rows: &UInt64Array) -> Result<RecordBatch, ReadError> {
        let schema = self.schema();
        let columns = (0..schema.fields().len())
            .map(|i| self.version.take(self.stored_column(i)?, rows))
            .collect::<Result<Vec<_>, ReadError>>()?;
        batch_of(&schema, columns, rows.len()).map_err(|e| ReadError::arrow("gather rows", e))
    }
}

/// The rows that [`Table::find_rows`] has found.
#[derive(Debug)]
pub struct FoundRows<'a> {
    table: &'a Table,
    found: Vec<Found>,
}

impl FoundRows<'_> {
    /// How many.
    pub fn len(&self) -> u64 {
        self.found.iter().map(|f| u64::from(f.end - f.start)).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Bytes that their copy has, as [`Table::bytes_of`] counts.
    pub fn nbytes(&self) -> Result<u64, ReadError> {
        let mut bytes = 0u64;
        for f in &self.found {
            bytes = bytes.saturating_add(self.table.bytes_in(f.part as usize, f.start..f.end)?);
        }
        Ok(bytes)
    }

    /// Copies them: for each row the number of its key, and the rows.
    pub fn gather(&self) -> Result<(UInt64Array, RecordBatch), ReadError> {
        let Self { table, found } = self;
        let total = found.iter().map(|f| (f.end - f.start) as usize).sum();
        let (mut positions, mut rows) = (Vec::with_capacity(total), Vec::with_capacity(total));
        for f in found {
            for row in f.start..f.end {
                positions.push(f.position);
                rows.push(row_id(f.part as usize, row));
            }
        }
        Ok((UInt64Array::from(positions), table.batch_of_rows(&UInt64Array::from(rows))?))
    }
}

/// Of so many rows of a key each is compared. It costs about as much as copying them; the search among more has a share of
/// it that nobody notices.
const COMPARED_ROWS: u32 = 1024;

impl Segment {
    /// All rows that have the key of `first`, which is the row that the index names.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if it is not the first of them.
    pub(crate) fn rows_of_key(&self, first: u32) -> Result<Range<u32>, ReadError> {
        let end = if self.has_repeats() { self.end_of_key(first)? } else { first + 1 };
        Ok(self.start_of_key(first)?..end)
    }

    /// The row that the index names for its key.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if it is not the first that has the key.
    pub(crate) fn start_of_key(&self, row: u32) -> Result<u32, ReadError> {
        let Some(side) = self.key.as_ref().filter(|_| self.has_repeats() && row > 0) else { return Ok(row) };
        if self.compare_keys(row as usize - 1, self, row as usize)? == Ordering::Equal {
            let problem = format!("an entry names row {row}, which is not the first of its key");
            return Err(side.index_file.corrupt("its buckets", problem));
        }
        Ok(row)
    }

    /// Whether some key has several rows.
    fn has_repeats(&self) -> bool {
        self.key.as_ref().is_some_and(|side| side.index.plan().keys < self.rows as u64)
    }

    /// The row after the last that has the key of `row`.
    fn end_of_key(&self, row: u32) -> Result<u32, ReadError> {
        let rows = self.rows as u32;
        let same = |other: u32| Ok(self.compare_keys(row as usize, self, other as usize)? == Ordering::Equal);
        // Each of the first rows is compared, so that a damaged key behind them hands out no row of another key.
        let (mut low, mut step, mut high) = (row + 1, 1u32, rows);
        while low < high && low - row < COMPARED_ROWS {
            if !same(low)? {
                return Ok(low);
            }
            low += 1;
        }
        // Keys with more rows: look ahead in growing steps, then halve.
        while low < high {
            let probe = low.saturating_add(step - 1).min(high - 1);
            if !same(probe)? {
                high = probe;
                break;
            }
            low = probe + 1;
            step = step.saturating_mul(2);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if same(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}
