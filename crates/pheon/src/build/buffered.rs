//! Rows held in memory until they are written out or spilled, and their order.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array};
use arrow_schema::{ArrowError, DataType};
use arrow_select::concat::concat;

use super::block::{Block, bounds_of};
use super::cells::{Cells, FromColumn, with_cells};
use super::key::Key;
use super::merge::Keep;
use super::pipeline::{Chunk, Rows, Send};
use super::progress::Monitor;
use super::sort::{Order, Place, Ranked, SORT_BYTES_A_ROW, block_of, place, row_of, sort};
use crate::error::WriteError;

/// Smaller blocks are put together until they have so many rows.
const BLOCK_ROWS_MIN: usize = 1 << 13;

/// Rows in input order.
pub(crate) struct Buffered {
    blocks: Vec<Arc<Block>>,
    /// For each block, the number of its first row in the input.
    first_rows: Vec<u64>,
    /// The latest blocks, too small to stand alone, and how many rows they have.
    small: Vec<Block>,
    small_rows: usize,
    small_first: u64,
    rows: u64,
    bytes: u64,
    sorted: Sorted,
}

/// How the rows so far are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sorted {
    /// Every key is greater than the one before, or there is no key.
    Strictly,
    /// No key is less than the one before.
    WithRepeats,
    No,
}

/// Rows in final order, duplicates dealt with.
pub(crate) struct Ordered {
    blocks: Arc<[Arc<Block>]>,
    /// `None`: as they lie.
    order: Option<Order>,
    keep: Keep,
    /// How many rows stay.
    pub(crate) rows: u64,
    /// How many different keys these have.
    pub(crate) keys: u64,
}

impl Buffered {
    pub(crate) fn new() -> Self {
        Self {
            blocks: Vec::new(),
            first_rows: Vec::new(),
            small: Vec::new(),
            small_rows: 0,
            small_first: 0,
            rows: 0,
            bytes: 0,
            sorted: Sorted::Strictly,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Memory that these rows take, and that sorting them will take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a block whose first row has this number in the input.
    pub(crate) fn push(
        &mut self,
        block: Block,
        first_row: u64,
        shapes: &[DataType],
        key: Option<&Key>,
    ) -> Result<(), ArrowError> {
        let bounds = bounds_of(&block, shapes);
        self.bytes += bounds.iter().zip(shapes).map(|(b, s)| b.memory_bytes(s)).sum::<u64>();
        if let Some(key) = key {
            self.bytes += SORT_BYTES_A_ROW * block.rows as u64;
            if self.sorted != Sorted::No {
                let before = self.small.last().or_else(|| self.blocks.last().map(|b| &**b));
                self.sorted = with_cells!(key.key_type, C => still_sorted::<C>(self.sorted, before, &block, key));
            }
        }
        self.rows += block.rows as u64;
        if block.rows >= BLOCK_ROWS_MIN {
            self.settle()?;
            self.blocks.push(Arc::new(block));
            self.first_rows.push(first_row);
        } else {
            if self.small.is_empty() {
                self.small_first = first_row;
            }
            self.small_rows += block.rows;
            self.small.push(block);
            if self.small_rows >= BLOCK_ROWS_MIN {
                self.settle()?;
            }
        }
        Ok(())
    }

    /// Puts small blocks together.
    fn settle(&mut self) -> Result<(), ArrowError> {
        let small = std::mem::take(&mut self.small);
        let rows = std::mem::take(&mut self.small_rows);
        let block = match small.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => {
                let columns = (0..many[0].columns.len())
                    .map(|c| concat(&many.iter().map(|b| b.columns[c].as_ref()).collect::<Vec<_>>()));
                Block { rows, columns: columns.collect::<Result<_, _>>()? }
            }
        };
        self.blocks.push(Arc::new(block));
        self.first_rows.push(self.small_first);
        Ok(())
    }

    /// Sorts what is held. `number_rows`: append a column of input row numbers.
    pub(crate) fn order(
        mut self,
        key: Option<&Key>,
        keep: Keep,
        number_rows: bool,
        threads: usize,
        monitor: &Monitor,
    ) -> Result<Ordered, WriteError> {
        self.settle().map_err(|e| WriteError::schema(format!("putting batches together: {e}")))?;
        let order = match (key, self.sorted) {
            (None, _) | (_, Sorted::Strictly) => None,
            (Some(key), sorted) => with_cells!(key.key_type, C => {
                let column = |b: &Arc<Block>| C::from_column(&b.columns[key.column], key.key_type);
                let cells: Vec<C> = self.blocks.iter().map(column).collect();
                let rows: Vec<usize> = self.blocks.iter().map(|b| b.rows).collect();
                let order = match sorted {
                    Sorted::No => sort(&cells, &rows, threads, monitor)?,
                    _ => ranked_as_is(&cells, &rows),
                };
                if keep == Keep::Error && let Some((first, second)) = first_repeat(&order) {
                    let number = |p: Place| self.first_rows[block_of(p)] + row_of(p) as u64;
                    let key = key.text(cells[block_of(first)].key(row_of(first)));
                    let rows = (number(first), number(second));
                    return Err(WriteError::DuplicateKey { dataset: String::new(), key, rows, parts: (None, None) });
                }
                Some(order)
            }),
        };
        let repeats = order.iter().flatten().flatten().filter(|r| r.same_as_previous()).count() as u64;
        let rows = if keep == Keep::All { self.rows } else { self.rows - repeats };
        let blocks = if number_rows { numbered(&self.blocks, &self.first_rows) } else { self.blocks };
        Ok(Ordered { blocks: blocks.into(), order, keep, rows, keys: self.rows - repeats })
    }
}

/// The same blocks with a last column of row numbers.
fn numbered(blocks: &[Arc<Block>], first_rows: &[u64]) -> Vec<Arc<Block>> {
    let with_numbers = |(block, &first): (&Arc<Block>, &u64)| {
        let mut columns = block.columns.clone();
        let numbers = (0..block.rows as u64).map(|row| ((first + row) as u32).cast_signed());
        columns.push(Arc::new(Int32Array::from_iter_values(numbers)) as ArrayRef);
        Arc::new(Block { rows: block.rows, columns })
    };
    blocks.iter().zip(first_rows).map(with_numbers).collect()
}

fn still_sorted<C: FromColumn>(sorted: Sorted, before: Option<&Block>, block: &Block, key: &Key) -> Sorted {
    if block.rows == 0 {
        return sorted;
    }
    let cells = |b: &Block| C::from_column(&b.columns[key.column], key.key_type);
    let own = cells(block);
    let mut repeats = sorted == Sorted::WithRepeats;
    let mut step = |order: Ordering| {
        repeats |= order == Ordering::Equal;
        order != Ordering::Greater
    };
    let joins = before.is_none_or(|b| step(cells(b).compare(b.rows - 1, &own, 0, 0)));
    if joins && (1..block.rows).all(|row| step(own.compare(row - 1, &own, row, 0))) {
        if repeats { Sorted::WithRepeats } else { Sorted::Strictly }
    } else {
        Sorted::No
    }
}

/// The order of rows that are sorted already.
fn ranked_as_is<C: Cells>(cells: &[C], rows: &[usize]) -> Order {
    let mut before: Option<(usize, usize)> = None;
    let order = rows.iter().enumerate().map(|(block, &rows)| {
        let rank = |row: usize| {
            let same = before.is_some_and(|(b, r)| cells[b].compare(r, &cells[block], row, 0) == Ordering::Equal);
            before = Some((block, row));
            Ranked::new(place(block, row), same)
        };
        (0..rows).map(rank).collect()
    });
    order.collect()
}

fn first_repeat(order: &Order) -> Option<(Place, Place)> {
    let mut before = None;
    for ranked in order.iter().flatten() {
        if ranked.same_as_previous() {
            return before.map(|b| (b, ranked.place()));
        }
        before = Some(ranked.place());
    }
    None
}

impl Ordered {
    /// The first row, if there is one: its block and its number there.
    pub(crate) fn first(&self) -> Option<(&Block, usize)> {
        match &self.order {
            None => self.blocks.iter().find(|b| b.rows > 0).map(|b| (&**b, 0)),
            Some(order) => {
                let first = order.iter().flatten().next()?.place();
                Some((&self.blocks[block_of(first)], row_of(first)))
            }
        }
    }

    /// Sends all rows in order, in chunks of `chunk_rows`.
    pub(crate) fn produce(&self, chunk_rows: usize, monitor: &Monitor, send: &mut Send<'_>) -> Result<(), WriteError> {
        let Some(order) = &self.order else {
            for block in self.blocks.iter() {
                for from in (0..block.rows).step_by(chunk_rows) {
                    monitor.check()?;
                    let slice = Arc::new(block.slice(from, chunk_rows.min(block.rows - from)));
                    send(Chunk { blocks: Arc::from([slice]), rows: Rows::Whole, heads: None })?;
                }
            }
            return Ok(());
        };
        let mut places = Vec::with_capacity(chunk_rows);
        let mut heads = Vec::new();
        let mut send_places = |places: &mut Vec<Place>, heads: &mut Vec<u32>| {
            monitor.check()?;
            let rows = std::mem::replace(places, Vec::with_capacity(chunk_rows));
            let heads = std::mem::take(heads);
            let heads = (self.keep == Keep::All && heads.len() < rows.len()).then_some(heads);
            send(Chunk { blocks: self.blocks.clone(), rows: Rows::At(rows), heads })
        };
        // The part after this one begins with a new key, unless rows were ranked as they lay: then look at its first.
        let mut rows = order.iter().flatten().peekable();
        while let Some(row) = rows.next() {
            let stays = match self.keep {
                Keep::All => true,
                Keep::First | Keep::Error => !row.same_as_previous(),
                Keep::Last => rows.peek().is_none_or(|next| !next.same_as_previous()),
            };
            if !stays {
                continue;
            }
            if self.keep == Keep::All && !row.same_as_previous() {
                heads.push(places.len() as u32);
            }
            places.push(row.place());
            if places.len() == chunk_rows {
                send_places(&mut places, &mut heads)?;
            }
        }
        if places.is_empty() { Ok(()) } else { send_places(&mut places, &mut heads) }
    }
}
