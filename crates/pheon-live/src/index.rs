//! The hash table: a slot of 8 bytes a key.

use std::path::{Path, PathBuf};

use pheon_os::fs::FileSystem;
use pheon_os::shared::SharedMap;

use crate::error::LiveError;
use crate::layout::{EMPTY, FILE_HEAD_BYTES, INDEX_MAGIC};

/// Slots of a new map: 8 KiB.
pub(crate) const SLOTS_MIN_LOG2: u32 = 10;
/// 8 TiB of slots; a bound for what is read from a view.
pub(crate) const SLOTS_MAX_LOG2: u32 = 40;

#[derive(Debug)]
pub(crate) struct Index {
    map: SharedMap,
    number: u64,
    mask: usize,
}

pub(crate) fn index_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("index-{number}"))
}

fn file_bytes(log2: u32) -> u64 {
    FILE_HEAD_BYTES as u64 + (8 << log2)
}

impl Index {
    pub(crate) fn create(
        fs: &dyn FileSystem,
        dir: &Path,
        number: u64,
        log2: u32,
        mode: u32,
    ) -> Result<Self, LiveError> {
        let map = crate::files::create(fs, &index_path(dir, number), file_bytes(log2), mode)?;
        map.store(0, INDEX_MAGIC);
        map.store(8, number);
        map.store(16, 1 << log2);
        Ok(Self { map, number, mask: (1 << log2) - 1 })
    }

    pub(crate) fn open(
        fs: &dyn FileSystem,
        dir: &Path,
        number: u64,
        log2: u32,
        writable: bool,
    ) -> Result<Self, LiveError> {
        let path = index_path(dir, number);
        let map = fs.map_shared(&path, writable).map_err(|e| LiveError::io("open", &path, e))?;
        let (expected, found) = (file_bytes(log2), map.len_bytes() as u64);
        if expected != found {
            return Err(LiveError::corrupt(&path, format!("expected {expected} bytes, found {found}")));
        }
        if [0, 8, 16].map(|at| map.load_relaxed(at)) != [INDEX_MAGIC, number, 1 << log2] {
            return Err(LiveError::corrupt(&path, "its head is not that of this index"));
        }
        Ok(Self { map, number, mask: (1 << log2) - 1 })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn map(&self) -> &SharedMap {
        &self.map
    }

    pub(crate) fn slots(&self) -> usize {
        self.mask + 1
    }

    pub(crate) fn log2(&self) -> u32 {
        self.slots().trailing_zeros()
    }

    /// The slot where the search for a key begins.
    #[inline]
    pub(crate) fn home(&self, hash: u64) -> usize {
        hash as usize & self.mask
    }

    #[inline]
    pub(crate) fn next(&self, slot: usize) -> usize {
        (slot + 1) & self.mask
    }

    #[inline]
    pub(crate) fn load(&self, slot: usize) -> u64 {
        self.map.load(FILE_HEAD_BYTES + slot * 8)
    }

    #[inline]
    pub(crate) fn store(&self, slot: usize, word: u64) {
        self.map.store(FILE_HEAD_BYTES + slot * 8, word);
    }

    pub(crate) fn prefetch(&self, slot: usize) {
        self.map.prefetch(FILE_HEAD_BYTES + slot * 8);
    }

    /// Slots that are not empty.
    pub(crate) fn used(&self) -> u64 {
        (0..self.slots()).filter(|&slot| self.load(slot) != EMPTY).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_slots_are_those_that_name_a_record_or_did() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::create(&*pheon_os::fs::real(), dir.path(), 3, 4, 0o600).unwrap();
        assert_eq!((index.slots(), index.used()), (16, 0));
        for (used, slot) in [0, 7, 15].into_iter().enumerate() {
            index.store(slot, if slot == 7 { crate::layout::FREED } else { 1 << 20 });
            assert_eq!(index.used(), used as u64 + 1);
        }
        index.store(0, EMPTY);
        assert_eq!(index.used(), 2);
    }
}
