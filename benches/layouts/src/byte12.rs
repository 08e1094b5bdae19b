//! (d) A variant of (a): twelve entries a line with 8-bit fingerprints. Smaller, but one miss in 25 reads a key for nothing.

use pheon_os::prefetch;

use crate::layout::reduce;
use crate::two_choice::TwoChoice;

const SLOTS: usize = 12;
const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    fps: [u8; SLOTS],
    overflow: u32,
    rows: [u32; SLOTS],
}

pub(crate) struct Byte12(Vec<Line>);

impl Byte12 {
    /// The placement rule of (a) without its blocks. The builder is not tuned: its time says nothing.
    pub(crate) fn build(keys: &[u64], load: f64) -> Result<Self, String> {
        let buckets = ((keys.len() as f64 / (load * SLOTS as f64)).ceil() as usize).max(2);
        let mut table = Self(vec![Line { fps: [0; SLOTS], overflow: 0, rows: [EMPTY; SLOTS] }; buckets]);
        let mut overflowed = Vec::new();
        for (i, (&h, row)) in keys.iter().zip(0..).enumerate() {
            if let Some(&ahead) = keys.get(i + 16) {
                table.prefetch(table.primary(ahead));
            }
            if !table.put(table.primary(h), h, row) {
                overflowed.push(row);
            }
        }
        for row in overflowed {
            let h = keys[row as usize];
            let home = table.primary(h);
            let other = table.secondary(h, home);
            if !table.put(other, h, row) {
                if table.make_room(keys, home, 0) || table.make_room(keys, home, 1) {
                    table.put(home, h, row);
                    continue;
                }
                if !table.make_room(keys, other, 0) && !table.make_room(keys, other, 1) {
                    return Err(format!("byte12 at load {load}: no slot for row {row}"));
                }
                table.put(other, h, row);
            }
            table.0[home as usize].overflow |= bit(h);
        }
        Ok(table)
    }

    fn put(&mut self, b: u64, h: u64, row: u32) -> bool {
        let line = &mut self.0[b as usize];
        let Some(slot) = line.rows.iter().position(|&r| r == EMPTY) else { return false };
        line.fps[slot] = h as u8;
        line.rows[slot] = row;
        true
    }

    /// Moves a key that is at home in the full bucket `b` to its secondary, making room there first if `depth` is not 0.
    fn make_room(&mut self, keys: &[u64], b: u64, depth: u32) -> bool {
        for slot in 0..SLOTS {
            let row = self.0[b as usize].rows[slot];
            let h = keys[row as usize];
            if self.primary(h) != b {
                continue;
            }
            let to = self.secondary(h, b);
            if self.put(to, h, row) || (depth > 0 && self.make_room(keys, to, depth - 1) && self.put(to, h, row)) {
                let line = &mut self.0[b as usize];
                line.overflow |= bit(h);
                line.rows[slot] = EMPTY;
                return true;
            }
        }
        false
    }
}

#[inline]
fn bit(h: u64) -> u32 {
    1 << ((h >> 16) & 31)
}

impl TwoChoice for Byte12 {
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64 * 64
    }
    #[inline]
    fn primary(&self, h: u64) -> u64 {
        reduce(h, self.0.len()) as u64
    }
    #[inline]
    fn secondary(&self, h: u64, primary: u64) -> u64 {
        let n = self.0.len() as u64;
        let other = primary + 1 + ((((h >> 8) & 0xFFFF) * (n - 1).min(32_767)) >> 16);
        if other >= n { other - n } else { other }
    }
    #[inline]
    fn prefetch(&self, b: u64) {
        prefetch::read_at(&self.0, b as usize);
    }
    #[inline]
    fn matches(&self, b: u64, h: u64) -> u32 {
        let line = &self.0[b as usize];
        let mut mask = 0;
        for slot in 0..SLOTS {
            mask |= u32::from(line.fps[slot] == h as u8) << slot;
        }
        // An empty slot holds fingerprint 0 and a row that no key has, so it costs a comparison and never answers.
        mask
    }
    #[inline]
    fn row(&self, b: u64, slot: u32) -> u32 {
        self.0[b as usize].rows[slot as usize]
    }
    #[inline]
    fn overflowed(&self, b: u64, h: u64) -> bool {
        self.0[b as usize].overflow & bit(h) != 0
    }
}
