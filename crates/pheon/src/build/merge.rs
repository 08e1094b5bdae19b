//! Merging sorted runs: a tree of losers picks the run with the least key, a block of each run is in memory.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;

use super::block::Block;
use super::cells::{Cells, FromColumn};
use super::key::Key;
use super::pipeline::{Chunk, Rows, Send};
use super::progress::Monitor;
use super::run::{Run, RunReader};
use super::sort::{Place, block_of, place, row_of};
use crate::error::WriteError;

/// What happens to rows whose key occurred before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All stay.
    All,
    First,
    Last,
    /// They are an error; the last column of a spilled block is then the row's number in the input.
    Error,
}

/// A row's number in the input, as spilled by [`Keep::Error`].
pub(crate) fn input_row(block: &Block, row: usize) -> u64 {
    let column = block.columns.last().expect("spilled blocks have a column of row numbers");
    u64::from(column.as_primitive::<Int32Type>().value(row).cast_unsigned())
}

struct Cursor<'a, C> {
    reader: RunReader<'a>,
    /// The block in memory, `None` at the run's end.
    block: Option<(Arc<Block>, C)>,
    row: usize,
}

impl<C: FromColumn> Cursor<'_, C> {
    fn load(&mut self, key: &Key, keep: Keep) -> Result<(), WriteError> {
        self.row = 0;
        let before = self.block.take();
        self.block = self.reader.next()?.map(|block| {
            let cells = C::from_column(&block.columns[key.column], key.key_type);
            (Arc::new(block), cells)
        });
        self.check_order(before.as_ref(), keep)
    }

    /// Fails unless the rows of a part's run ascend. Whoever wrote them says so, and what is merged or copied is as sorted
    /// as they are. `before`: the block before.
    fn check_order(&self, before: Option<&(Arc<Block>, C)>, keep: Keep) -> Result<(), WriteError> {
        let run = self.reader.run();
        let Some((block, cells)) = self.block.as_ref().filter(|_| run.is_of_part()) else { return Ok(()) };
        let ascend = |order: Ordering| order.is_lt() || order.is_eq() && keep == Keep::All;
        let first = before.is_none_or(|(b, last)| ascend(last.compare(b.rows - 1, cells, 0, 0)));
        if first && (1..block.rows).all(|row| ascend(cells.compare(row - 1, cells, row, 0))) {
            return Ok(());
        }
        Err(run.damaged(self.reader.blocks_read() - 1, "its keys do not ascend".to_owned()))
    }
}

/// Sends the rows of all runs in order, in chunks of `chunk_rows`. Rows with equal keys come in the order of their runs.
pub(crate) fn merge<C: FromColumn>(
    runs: &[Run],
    key: &Key,
    keep: Keep,
    chunk_rows: usize,
    monitor: &Monitor,
    send: &mut Send<'_>,
) -> Result<(), WriteError> {
    let mut cursors = Vec::with_capacity(runs.len());
    for run in runs {
        let mut cursor: Cursor<'_, C> = Cursor { reader: run.read()?, block: None, row: 0 };
        cursor.load(key, keep)?;
        cursors.push(cursor);
    }
    let mut tree = LoserTree::new(cursors.len(), |a, b| before(&cursors, a, b));
    let mut pending = Pending::new(runs.len(), key, keep, chunk_rows);
    loop {
        let winner = tree.winner();
        let cursor = &mut cursors[winner];
        let Some((block, cells)) = &cursor.block else { break };
        pending.push(winner, block, cells, cursor.row)?;
        cursor.row += 1;
        if cursor.row == block.rows {
            cursor.load(key, keep)?;
            pending.forget(winner);
        }
        if pending.is_full() {
            monitor.check()?;
            send(pending.take())?;
        }
        tree.replay(winner, |a, b| before(&cursors, a, b));
    }
    pending.end();
    if pending.is_empty() { Ok(()) } else { send(pending.take()) }
}

/// Sends the blocks of runs as they are, one run after the other.
pub(crate) fn copy(runs: &[Run], monitor: &Monitor, send: &mut Send<'_>) -> Result<(), WriteError> {
    for run in runs {
        let mut reader = run.read()?;
        while let Some(block) = reader.next()? {
            monitor.check()?;
            send(Chunk { blocks: Arc::from([Arc::new(block)]), rows: Rows::Whole, heads: None })?;
        }
    }
    Ok(())
}

/// Sends the blocks of a run in which each key is once.
pub(crate) fn copy_sorted<C: FromColumn>(
    run: &Run,
    key: &Key,
    keep: Keep,
    monitor: &Monitor,
    send: &mut Send<'_>,
) -> Result<(), WriteError> {
    let mut cursor: Cursor<'_, C> = Cursor { reader: run.read()?, block: None, row: 0 };
    loop {
        cursor.load(key, keep)?;
        let Some((block, _)) = &cursor.block else { return Ok(()) };
        monitor.check()?;
        send(Chunk { blocks: Arc::from([block.clone()]), rows: Rows::Whole, heads: None })?;
    }
}

/// Whether cursor `a` goes before cursor `b`; ended ones come last.
#[inline]
fn before<C: Cells>(cursors: &[Cursor<'_, C>], a: usize, b: usize) -> bool {
    let (ca, cb) = (&cursors[a], &cursors[b]);
    match (&ca.block, &cb.block) {
        (Some((_, x)), Some((_, y))) => match x.compare(ca.row, y, cb.row, 0) {
            Ordering::Less => true,
            Ordering::Equal => a < b,
            Ordering::Greater => false,
        },
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => a < b,
    }
}

/// A tournament that remembers losers: the next winner costs one comparison a level (Knuth, TAOCP 3, 5.4.1).
struct LoserTree {
    /// `losers[0]` is the winner; the parent of node i is i / 2; leaf k is node `len + k`.
    losers: Vec<usize>,
}

impl LoserTree {
    fn new(len: usize, before: impl Fn(usize, usize) -> bool) -> Self {
        let mut winners = vec![0; 2 * len];
        let mut losers = vec![0; len.max(1)];
        (0..len).for_each(|leaf| winners[len + leaf] = leaf);
        for node in (1..len).rev() {
            let (a, b) = (winners[2 * node], winners[2 * node + 1]);
            (winners[node], losers[node]) = if before(a, b) { (a, b) } else { (b, a) };
        }
        losers[0] = if len > 1 { winners[1] } else { 0 };
        Self { losers }
    }

    #[inline]
    fn winner(&self) -> usize {
        self.losers[0]
    }

    /// Finds the next winner after the last one's key has changed.
    #[inline]
    fn replay(&mut self, changed: usize, before: impl Fn(usize, usize) -> bool) {
        let mut winner = changed;
        let mut node = (self.losers.len() + changed) / 2;
        while node > 0 {
            if before(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        self.losers[0] = winner;
    }
}

/// The chunk that is being filled.
struct Pending<'a, C> {
    key: &'a Key,
    keep: Keep,
    chunk_rows: usize,
    blocks: Vec<Arc<Block>>,
    cells: Vec<C>,
    /// Where each cursor's current block is in `blocks`.
    slots: Vec<Option<usize>>,
    places: Vec<Place>,
    heads: Vec<u32>,
    /// The last row that was taken. With [`Keep::Last`] it is not in `places` yet.
    last: Option<Place>,
}

impl<'a, C: Cells> Pending<'a, C> {
    fn new(cursors: usize, key: &'a Key, keep: Keep, chunk_rows: usize) -> Self {
        Self {
            key,
            keep,
            chunk_rows,
            blocks: Vec::new(),
            cells: Vec::new(),
            slots: vec![None; cursors],
            places: Vec::with_capacity(chunk_rows),
            heads: Vec::new(),
            last: None,
        }
    }

    #[inline]
    fn push(&mut self, cursor: usize, block: &Arc<Block>, cells: &C, row: usize) -> Result<(), WriteError> {
        let same = self
            .last
            .is_some_and(|last| cells.compare(row, &self.cells[block_of(last)], row_of(last), 0) == Ordering::Equal);
        if same && self.keep == Keep::First {
            return Ok(());
        }
        let slot = match self.slots[cursor] {
            Some(slot) => slot,
            None => {
                self.blocks.push(block.clone());
                self.cells.push(cells.clone());
                *self.slots[cursor].insert(self.blocks.len() - 1)
            }
        };
        let here = place(slot, row);
        match (self.keep, self.last) {
            (Keep::Error, Some(last)) if same => return Err(self.duplicate(last, here)),
            (Keep::Last, Some(last)) if !same => self.places.push(last),
            (Keep::Last, _) => {}
            (Keep::All, _) => {
                if !same {
                    self.heads.push(self.places.len() as u32);
                }
                self.places.push(here);
            }
            (Keep::First | Keep::Error, _) => self.places.push(here),
        }
        self.last = Some(here);
        Ok(())
    }

    fn duplicate(&self, first: Place, second: Place) -> WriteError {
        let number = |at: Place| input_row(&self.blocks[block_of(at)], row_of(at));
        let key = self.key.text(self.cells[block_of(first)].key(row_of(first)));
        WriteError::DuplicateKey {
            dataset: String::new(),
            key,
            rows: (number(first), number(second)),
            parts: (None, None),
        }
    }

    /// The cursor has another block from now on.
    fn forget(&mut self, cursor: usize) {
        self.slots[cursor] = None;
    }

    fn is_full(&self) -> bool {
        self.places.len() >= self.chunk_rows
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// No more rows will come.
    fn end(&mut self) {
        if let (Keep::Last, Some(last)) = (self.keep, self.last) {
            self.places.push(last);
        }
    }

    /// The chunk; the block of the last row is carried over, because the next rows are compared with it.
    fn take(&mut self) -> Chunk {
        let blocks = std::mem::take(&mut self.blocks);
        let cells = std::mem::take(&mut self.cells);
        self.slots.fill(None);
        if let Some(last) = self.last {
            self.blocks.push(blocks[block_of(last)].clone());
            self.cells.push(cells[block_of(last)].clone());
            self.last = Some(place(0, row_of(last)));
        }
        let places = std::mem::replace(&mut self.places, Vec::with_capacity(self.chunk_rows));
        let heads = std::mem::take(&mut self.heads);
        let heads = (self.keep == Keep::All && heads.len() < places.len()).then_some(heads);
        Chunk { blocks: blocks.into(), rows: Rows::At(places), heads }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_losers_sorts() {
        for len in 1..9usize {
            let lists: Vec<Vec<u32>> =
                (0..len as u32).map(|l| (0..5).map(|i| (i * 13 + l * 7) % 40).collect()).collect();
            let lists: Vec<Vec<u32>> = lists
                .into_iter()
                .map(|mut l| {
                    l.sort_unstable();
                    l
                })
                .collect();
            let at = std::cell::RefCell::new(vec![0; len]);
            let head = |i: usize| lists[i].get(at.borrow()[i]).copied().unwrap_or(u32::MAX);
            let before = |a: usize, b: usize| (head(a), a) < (head(b), b);
            let mut tree = LoserTree::new(len, before);
            let mut got = Vec::new();
            while head(tree.winner()) != u32::MAX {
                let winner = tree.winner();
                got.push(head(winner));
                at.borrow_mut()[winner] += 1;
                tree.replay(winner, before);
            }
            let mut want = lists.concat();
            want.sort_unstable();
            assert_eq!(got, want, "{len} lists");
        }
    }
}
