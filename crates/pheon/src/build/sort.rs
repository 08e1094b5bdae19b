//! Sorting rows in memory by their keys: a parallel sample sort into parts, each finished by a multikey sort on 8-byte
//! windows.
//!
//! ```text
//! splitters = some keys, sorted
//! parts     = for each row in input order: between which two splitters is it       (sequential reads, all threads)
//! each part, depth = bytes that its two splitters share:                           (all threads, one part each)
//!   copy the keys side by side, without those bytes
//!   sort (window at depth, row); for every run of equal windows of more than one row: again at depth + 8
//!   few rows: compare their remaining bytes instead
//! ```
//! An item is one `u128`: the window above, the row's place (block << 32 | row in block) below. Comparing items as
//! numbers therefore keeps rows with equal keys in input order. Sample sort with shared prefixes skipped is from
//! Bingmann and Sanders, "Parallel String Sample Sort" (2013); multikey sort from Bentley and Sedgewick (1997).

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::sync::{Mutex, PoisonError};

use super::cells::Cells;
use super::progress::Monitor;
use super::splitters::Splitters;
use crate::error::WriteError;

/// Set in an item whose key equals that of the item before it.
const SAME: u128 = 1 << 64;
/// Bytes that sorting needs for each row at most: the item in its piece, and in its part while that is put together.
/// Copies of keys are made for one part a thread at a time.
pub(crate) const SORT_BYTES_A_ROW: u64 = 40;

/// Rows of a part: its keys should fit in a second-level cache. Many parts also even out uneven ones.
const PART_ROWS: usize = 1 << 14;
const PARTS_MAX: usize = 512;
/// Rows of one piece of classification.
const PIECE_ROWS: usize = 1 << 17;
/// Groups up to this size are sorted by comparing.
const GROUP_COMPARED: usize = 24;
/// How many items ahead places and bytes are asked for.
const AHEAD_PLACE: usize = 24;
const AHEAD_BYTES: usize = 12;

/// Where a row is: number of its block << 32 | row in that block.
pub(crate) type Place = u64;

pub(crate) fn place(block: usize, row: usize) -> Place {
    (block as u64) << 32 | row as u64
}

pub(crate) fn block_of(place: Place) -> usize {
    (place >> 32) as usize
}

pub(crate) fn row_of(place: Place) -> usize {
    place as u32 as usize
}

/// A row in sorted order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranked(u128);

impl Ranked {
    /// `same_as_previous`: the row before it has the same key.
    pub(crate) fn new(place: Place, same_as_previous: bool) -> Self {
        Self(u128::from(place) | if same_as_previous { SAME } else { 0 })
    }

    pub(crate) fn place(self) -> Place {
        self.0 as u64
    }

    /// Whether the row before it has the same key.
    pub(crate) fn same_as_previous(self) -> bool {
        self.0 & SAME != 0
    }
}

/// All rows in sorted order, in consecutive parts.
pub(crate) type Order = Vec<Vec<Ranked>>;

/// Sorts the rows of blocks by key; rows with equal keys keep their order. `rows[i]` is the number of rows in `cells[i]`.
pub(crate) fn sort<C: Cells>(
    cells: &[C],
    rows: &[usize],
    threads: usize,
    monitor: &Monitor,
) -> Result<Order, WriteError> {
    let total: usize = rows.iter().sum();
    let parts = (total / PART_ROWS).clamp(1, PARTS_MAX);
    let splitters = Splitters::new(cells, rows, total, parts);
    let pieces = pieces(rows);
    let classified = in_parallel(threads, &pieces, &|piece| {
        monitor.check()?;
        Ok(classify(cells, &splitters, *piece))
    })?;
    // Turn pieces of parts into parts of pieces.
    let mut jobs: Vec<Mutex<Vec<Vec<u128>>>> = (0..splitters.parts()).map(|_| Mutex::default()).collect();
    for piece in classified {
        for (job, items) in jobs.iter_mut().zip(piece) {
            job.get_mut().unwrap_or_else(PoisonError::into_inner).push(items);
        }
    }
    let numbers: Vec<usize> = (0..jobs.len()).collect();
    in_parallel(threads, &numbers, &|&part| {
        let pieces = std::mem::take(&mut *jobs[part].lock().unwrap_or_else(PoisonError::into_inner));
        let mut items = pieces.concat();
        drop(pieces);
        sort_part(&mut items, cells, splitters.depth(part), monitor)?;
        Ok(items.into_iter().map(Ranked).collect())
    })
}

/// Sorts a part. Keys of any length are copied first: every one is then fetched from far memory once, not once a window.
fn sort_part<C: Cells>(items: &mut [u128], cells: &[C], depth: usize, monitor: &Monitor) -> Result<(), WriteError> {
    if items.len() <= GROUP_COMPARED {
        return refine(items, cells, depth, monitor);
    }
    let places: Vec<Place> = items.iter().map(|&i| i as u64).collect();
    let Some(near) = C::copied(cells, &places, depth) else { return refine(items, cells, depth, monitor) };
    // Numbered in input order, so that equal keys keep it.
    for (number, item) in items.iter_mut().enumerate() {
        *item = self::item(window(*item), number as u64);
    }
    refine(items, &[near], 0, monitor)?;
    for item in items {
        *item = *item & SAME | u128::from(places[*item as u64 as usize]);
    }
    Ok(())
}

/// Runs `work` on every item, on so many threads; results in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: &(dyn Fn(&T) -> Result<R, WriteError> + Sync),
) -> Result<Vec<R>, WriteError> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Atomic::Relaxed);
            let Some(item) = items.get(at) else { return Ok(done) };
            match work(item) {
                Ok(result) => done.push((at, result)),
                Err(e) => {
                    next.store(items.len(), Atomic::Relaxed);
                    return Err(e);
                }
            }
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut all = worker();
        for other in others {
            let results = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all = match (all, results) {
                (Ok(mut all), Ok(results)) => {
                    all.extend(results);
                    Ok(all)
                }
                (Err(e), _) | (_, Err(e)) => Err(e),
            };
        }
        all
    })?;
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// A range of rows of one block.
#[derive(Clone, Copy)]
struct Piece {
    block: usize,
    from: usize,
    to: usize,
}

fn pieces(rows: &[usize]) -> Vec<Piece> {
    let cut = |(block, &rows): (usize, &usize)| {
        (0..rows).step_by(PIECE_ROWS).map(move |from| Piece { block, from, to: rows.min(from + PIECE_ROWS) })
    };
    rows.iter().enumerate().flat_map(cut).collect()
}

/// The items of a piece, by part, in input order.
fn classify<C: Cells>(cells: &[C], splitters: &Splitters<'_, C>, piece: Piece) -> Vec<Vec<u128>> {
    let own = &cells[piece.block];
    let rows = piece.to - piece.from;
    let expected = rows / splitters.parts() * 5 / 4 + 8;
    let mut parts: Vec<Vec<u128>> = (0..splitters.parts()).map(|_| Vec::with_capacity(expected.min(rows))).collect();
    for row in piece.from..piece.to {
        let part = splitters.part_of(own, row);
        parts[part].push(item(own.window(row, splitters.depth(part)), place(piece.block, row)));
    }
    parts
}

fn item(window: u64, place: Place) -> u128 {
    u128::from(window) << 64 | u128::from(place)
}

fn window(item: u128) -> u64 {
    (item >> 64) as u64
}

/// Sorts items whose keys share `depth` bytes and whose windows are those at `depth`; then puts [`SAME`] in place of the
/// windows. The stack of groups to do is explicit, because keys may share any number of bytes.
fn refine<C: Cells>(items: &mut [u128], cells: &[C], depth: usize, monitor: &Monitor) -> Result<(), WriteError> {
    let mut groups = vec![(0, items.len(), depth)];
    let mut since_check = 0;
    while let Some((from, to, depth)) = groups.pop() {
        let group = &mut items[from..to];
        since_check += group.len();
        if since_check > 1 << 16 {
            monitor.check()?;
            since_check = 0;
        }
        if group.len() <= GROUP_COMPARED {
            sort_by_comparing(group, cells, depth);
            continue;
        }
        group.sort_unstable();
        let mut at = 0;
        while at < group.len() {
            let same = window(group[at]);
            let mut end = at + 1;
            while end < group.len() && window(group[end]) == same {
                end += 1;
            }
            fetch_ahead(group, at..end, cells, depth);
            match end - at {
                1 => group[at] = u128::from(group[at] as u64),
                2..=GROUP_COMPARED => sort_by_comparing(&mut group[at..end], cells, depth),
                _ => {
                    if let Some((continues, next)) = go_deeper(&mut group[at..end], cells, depth) {
                        groups.push((from + at + continues, from + end, next));
                    }
                }
            }
            at = end;
        }
    }
    Ok(())
}

/// Asks for the keys that the walk over sorted `items` will need after those in `now`: keys that share their window
/// with a neighbour.
#[inline]
fn fetch_ahead<C: Cells>(items: &[u128], now: Range<usize>, cells: &[C], depth: usize) {
    let shared = |at: usize| {
        let own = window(items[at]);
        own == window(items[at - 1]) || items.get(at + 1).is_some_and(|&next| window(next) == own)
    };
    for at in now {
        if at + AHEAD_PLACE < items.len() && shared(at + AHEAD_PLACE) {
            let ahead = items[at + AHEAD_PLACE] as u64;
            cells[block_of(ahead)].prefetch_place(row_of(ahead));
        }
        if at + AHEAD_BYTES < items.len() && shared(at + AHEAD_BYTES) {
            let ahead = items[at + AHEAD_BYTES] as u64;
            cells[block_of(ahead)].prefetch_bytes(row_of(ahead), depth);
        }
    }
}

/// For many keys with equal windows at `depth`: loads their windows at the next depth. Keys that end before it are
/// finished and go first. Returns where the others begin, and their depth.
fn go_deeper<C: Cells>(group: &mut [u128], cells: &[C], depth: usize) -> Option<(usize, usize)> {
    if load_windows(group, cells, depth + 8) { Some((0, depth + 8)) } else { split_ended(group, cells, depth) }
}

/// For keys with equal windows at `depth`: those that end there come first, the shorter before the longer (their windows
/// were padded with zeros), and are finished. Returns where the others begin, with their windows at the next depth.
///
/// The group's order is that of the input; its windows may be those at any depth.
fn split_ended<C: Cells>(group: &mut [u128], cells: &[C], depth: usize) -> Option<(usize, usize)> {
    const GOES_ON: usize = 9;
    let rest = |item: u128| {
        let len = cells[block_of(item as u64)].len_bytes(row_of(item as u64));
        len.saturating_sub(depth).min(GOES_ON)
    };
    let goes_on = group.iter().filter(|&&i| rest(i) == GOES_ON).count();
    if goes_on < group.len() {
        // Stable, so that equal keys stay in input order.
        group.sort_by_key(|&i| rest(i));
        let ended = group.len() - goes_on;
        let mut before = None;
        for item in &mut group[..ended] {
            let len = rest(*item);
            *item = u128::from(*item as u64) | if before == Some(len) { SAME } else { 0 };
            before = Some(len);
        }
    }
    let start = group.len() - goes_on;
    match &mut group[start..] {
        [] => None,
        [one] => {
            *one = u128::from(*one as u64);
            None
        }
        many => {
            let loaded = load_windows(many, cells, depth + 8);
            debug_assert!(loaded, "these keys go on");
            Some((start, depth + 8))
        }
    }
}

/// Reads every item's window at `depth`, many cache misses at a time. Stops and answers false at a key that has no byte
/// there.
fn load_windows<C: Cells>(items: &mut [u128], cells: &[C], depth: usize) -> bool {
    for at in 0..items.len() {
        if let Some(&ahead) = items.get(at + AHEAD_PLACE) {
            cells[block_of(ahead as u64)].prefetch_place(row_of(ahead as u64));
        }
        if let Some(&ahead) = items.get(at + AHEAD_BYTES) {
            cells[block_of(ahead as u64)].prefetch_bytes(row_of(ahead as u64), depth);
        }
        let here = items[at] as u64;
        let own = &cells[block_of(here)];
        if own.len_bytes(row_of(here)) <= depth {
            return false;
        }
        items[at] = item(own.window(row_of(here), depth), here);
    }
    true
}

/// Sorts a few items by their windows, then by their remaining bytes, then by place.
fn sort_by_comparing<C: Cells>(group: &mut [u128], cells: &[C], depth: usize) {
    let by_key = |a: u128, b: u128| {
        window(a).cmp(&window(b)).then_with(|| {
            let (a, b) = (a as u64, b as u64);
            cells[block_of(a)].compare(row_of(a), &cells[block_of(b)], row_of(b), depth)
        })
    };
    group.sort_unstable_by(|&a, &b| by_key(a, b).then_with(|| (a as u64).cmp(&(b as u64))));
    let mut before = None;
    for item in group {
        let own = *item;
        let same = before.is_some_and(|before| by_key(before, own) == Ordering::Equal);
        *item = u128::from(own as u64) | if same { SAME } else { 0 };
        before = Some(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cells::{FromColumn, IntegerCells, StringCells};
    use crate::build::options::PutOptions;
    use crate::key::KeyType;
    use arrow_array::{ArrayRef, Int64Array, LargeBinaryArray};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn compare<C: Cells>(cells: &[C], a: Place, b: Place) -> Ordering {
        cells[block_of(a)].compare(row_of(a), &cells[block_of(b)], row_of(b), 0)
    }

    fn check<C: FromColumn>(blocks: &[ArrayRef], key: KeyType, threads: usize) {
        let cells: Vec<C> = blocks.iter().map(|b| C::from_column(b, key)).collect();
        let rows: Vec<usize> = blocks.iter().map(|b| b.len()).collect();
        let monitor = Monitor::new(&PutOptions::map("k"));
        let got: Vec<Ranked> = sort(&cells, &rows, threads, &monitor).unwrap().concat();
        let mut want: Vec<Place> =
            rows.iter().enumerate().flat_map(|(b, &n)| (0..n).map(move |r| place(b, r))).collect();
        want.sort_by(|&a, &b| compare(&cells, a, b));
        assert_eq!(got.iter().map(|r| r.place()).collect::<Vec<_>>(), want);
        for (i, r) in got.iter().enumerate() {
            let same = i > 0 && compare(&cells, want[i - 1], want[i]) == Ordering::Equal;
            assert_eq!(r.same_as_previous(), same, "row {i}");
        }
    }

    fn strings(keys: &[Vec<u8>], cut: usize) -> Vec<ArrayRef> {
        keys.chunks(cut.max(1)).map(|c| Arc::new(LargeBinaryArray::from_iter_values(c)) as ArrayRef).collect()
    }

    proptest! {
        #[test]
        fn strings_sort_stably(
            keys in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..40), 0..400),
            cut in 1usize..200, threads in 1usize..4,
        ) {
            check::<StringCells>(&strings(&keys, cut), KeyType::Utf8, threads);
        }
    }

    #[test]
    fn many_rows_use_many_parts() {
        let mut state = 1u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let keys: Vec<Vec<u8>> =
            (0..40_000).map(|_| format!("usr/share/{}/{}", random() % 50, random() % 3000).into_bytes()).collect();
        check::<StringCells>(&strings(&keys, 7000), KeyType::Utf8, 3);
        let numbers: Vec<i64> = (0..60_000).map(|_| random() as i64 % 20_000 - 10_000).collect();
        let blocks: Vec<ArrayRef> = numbers.chunks(9000).map(|c| Arc::new(Int64Array::from(c.to_vec())) as _).collect();
        check::<IntegerCells>(&blocks, KeyType::Signed(8), 2);
        let one_key = vec![vec![b'x'; 100]; 20_000];
        check::<StringCells>(&strings(&one_key, 20_000), KeyType::Utf8, 2);
    }

    #[test]
    fn very_long_shared_prefixes_need_no_deep_stack() {
        let keys: Vec<Vec<u8>> = (0..200usize).map(|i| vec![b'a'; 20_000 - (i * 37) % 97 * 100]).collect();
        check::<StringCells>(&strings(&keys, 64), KeyType::Utf8, 1);
    }
}
