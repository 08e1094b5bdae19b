//! Keys that cut rows into parts of about the same size, and which part a key belongs to.
//!
//! Finding the part compares 8 bytes at a time down a tree (Bingmann and Sanders, "Parallel String Sample Sort", 2013):
//! a node knows the windows at its depth of all splitters that agree before it. Binary search over whole keys took a
//! third of a build's processor time, most of it for prefixes such as `usr/share/` that all keys have.

use std::cmp::Ordering;

use super::cells::Cells;
use super::sort::{Place, block_of, place, row_of};

/// Keys looked at for each splitter.
const SAMPLES_A_PART: usize = 16;

/// Splitters s0 < s1 < ...: part i holds the keys from s(i-1), inclusive, to s(i), exclusive.
pub(crate) struct Splitters<'a, C> {
    cells: &'a [C],
    keys: Vec<Place>,
    /// For each part, how many leading bytes all its keys share.
    depths: Vec<usize>,
    /// The first is the root.
    nodes: Vec<Node>,
}

/// Splitters that agree in their first `depth` bytes.
struct Node {
    depth: usize,
    /// Their windows at `depth`, ascending, each once.
    windows: Vec<u64>,
    /// The first splitter that has this window; one more than windows.
    first: Vec<usize>,
    /// For each window the node of the splitters that have it, if there are several and all go on after it.
    children: Vec<Option<usize>>,
}

impl<'a, C: Cells> Splitters<'a, C> {
    /// Samples keys for about so many parts; `rows[i]` is the number of rows in `cells[i]`, `total` their sum.
    pub(crate) fn new(cells: &'a [C], rows: &[usize], total: usize, parts: usize) -> Self {
        let mut keys: Vec<Place> = Vec::new();
        if parts > 1 {
            let mut sample = sample(rows, total, parts * SAMPLES_A_PART);
            sample.sort_unstable_by(|&a, &b| compare(cells, a, b));
            keys = sample.into_iter().skip(SAMPLES_A_PART).step_by(SAMPLES_A_PART).collect();
            keys.dedup_by(|a, b| compare(cells, *a, *b) == Ordering::Equal);
        }
        let mut depths = vec![0; keys.len() + 1];
        for (depth, pair) in depths[1..].iter_mut().zip(keys.windows(2)) {
            let (low, high) = (pair[0], pair[1]);
            *depth = cells[block_of(low)].shared_bytes(row_of(low), &cells[block_of(high)], row_of(high));
        }
        let mut new = Self { cells, keys, depths, nodes: Vec::new() };
        new.grow();
        new
    }

    /// Makes the tree. Depth is bounded by the length of keys, so a list of nodes to do takes the place of recursion.
    fn grow(&mut self) {
        let mut todo = vec![(0..self.keys.len(), 0, None)];
        while let Some((range, depth, parent)) = todo.pop() {
            let own = self.nodes.len();
            if let Some((node, child)) = parent {
                let node: &mut Node = &mut self.nodes[node];
                node.children[child] = Some(own);
            }
            let mut node = Node { depth, windows: Vec::new(), first: Vec::new(), children: Vec::new() };
            let mut at = range.start;
            while at < range.end {
                let window = self.window(at, depth);
                let end = (at..range.end).find(|&i| self.window(i, depth) != window).unwrap_or(range.end);
                if end - at > 1 && (at..end).all(|i| self.len_bytes(i) > depth + 8) {
                    todo.push((at..end, depth + 8, Some((own, node.windows.len()))));
                }
                node.windows.push(window);
                node.first.push(at);
                node.children.push(None);
                at = end;
            }
            node.first.push(range.end);
            self.nodes.push(node);
        }
    }

    fn window(&self, splitter: usize, depth: usize) -> u64 {
        let key = self.keys[splitter];
        self.cells[block_of(key)].window(row_of(key), depth)
    }

    fn len_bytes(&self, splitter: usize) -> usize {
        let key = self.keys[splitter];
        self.cells[block_of(key)].len_bytes(row_of(key))
    }

    /// How many parts.
    pub(crate) fn parts(&self) -> usize {
        self.depths.len()
    }

    /// How many leading bytes all keys of a part share.
    pub(crate) fn depth(&self, part: usize) -> usize {
        self.depths[part]
    }

    /// The part of a key: how many splitters are not greater.
    #[inline]
    pub(crate) fn part_of(&self, own: &C, row: usize) -> usize {
        let mut node = &self.nodes[0];
        loop {
            let window = own.window(row, node.depth);
            let at = node.windows.partition_point(|&w| w < window);
            if node.windows.get(at) != Some(&window) {
                return node.first[at];
            }
            match node.children[at] {
                Some(child) if own.len_bytes(row) > node.depth + 8 => node = &self.nodes[child],
                // One splitter, or keys that end here: windows are padded with zeros and say too little.
                _ => {
                    let (from, to) = (node.first[at], node.first[at + 1]);
                    let not_greater = |&key: &Place| {
                        self.cells[block_of(key)].compare(row_of(key), own, row, node.depth) != Ordering::Greater
                    };
                    return from + self.keys[from..to].partition_point(not_greater);
                }
            }
        }
    }
}

fn compare<C: Cells>(cells: &[C], a: Place, b: Place) -> Ordering {
    cells[block_of(a)].compare(row_of(a), &cells[block_of(b)], row_of(b), 0)
}

/// Places spread evenly over all rows, in golden-ratio steps: not in step with any pattern of the input.
fn sample(rows: &[usize], total: usize, wanted: usize) -> Vec<Place> {
    let mut state = 0u64;
    let mut at: Vec<usize> = (0..wanted)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            ((u128::from(state) * total as u128) >> 64) as usize
        })
        .collect();
    at.sort_unstable();
    let (mut block, mut before) = (0, 0);
    let mut places = Vec::with_capacity(wanted);
    for at in at {
        while at >= before + rows[block] {
            before += rows[block];
            block += 1;
        }
        places.push(place(block, at - before));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cells::{FromColumn, IntegerCells, StringCells};
    use crate::key::KeyType;
    use arrow_array::{ArrayRef, Int64Array, LargeBinaryArray};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn check<C: FromColumn>(column: &ArrayRef, key: KeyType, parts: usize) {
        let cells = [C::from_column(column, key)];
        let splitters = Splitters::new(&cells, &[column.len()], column.len(), parts);
        for row in 0..column.len() {
            let not_greater = |&key: &Place| cells[0].compare(row_of(key), &cells[0], row, 0).is_le();
            let part = splitters.keys.iter().filter(|k| not_greater(k)).count();
            assert_eq!(splitters.part_of(&cells[0], row), part, "row {row}");
            let depth = splitters.depth(part);
            if let Some(&low) = part.checked_sub(1).and_then(|p| splitters.keys.get(p)) {
                assert!(depth == 0 || cells[0].shared_bytes(row, &cells[0], row_of(low)) >= depth);
            }
        }
    }

    proptest! {
        #[test]
        fn strings_find_their_part(
            keys in proptest::collection::vec(proptest::collection::vec(0u8..2, 0..40), 1..300), parts in 1usize..40,
        ) {
            check::<StringCells>(&(Arc::new(LargeBinaryArray::from_iter_values(keys)) as ArrayRef), KeyType::Utf8, parts);
        }

        #[test]
        fn numbers_find_their_part(keys in proptest::collection::vec(-50i64..50, 1..300), parts in 1usize..40) {
            check::<IntegerCells>(&(Arc::new(Int64Array::from(keys)) as ArrayRef), KeyType::Signed(8), parts);
        }
    }
}
