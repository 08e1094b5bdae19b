//! Locks of keys: many robust mutexes in one file, chosen by the key's hash.

use std::io;
use std::path::Path;

use pheon_os::fs::FileSystem;
use pheon_os::robust::RobustMutex;
use pheon_os::shared::SharedMap;

use crate::error::LiveError;
use crate::layout::hash;
use crate::shared::Owner;

/// Mutexes in the file. Two keys may share one.
const LOCKS: usize = 1024;
const LOCK_BYTES: usize = 64;

#[derive(Debug)]
pub(crate) struct KeyLocks {
    map: SharedMap,
    owners: Box<[Owner]>,
}

impl KeyLocks {
    /// Opens the file; `None` if it is not there.
    pub(crate) fn open(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Self>, LiveError> {
        let path = dir.join("KEYLOCKS");
        match fs.map_shared(&path, true) {
            Ok(map) => Self::of(map, &path).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(LiveError::io("open", &path, e)),
        }
    }

    fn of(map: SharedMap, path: &Path) -> Result<Self, LiveError> {
        if map.len_bytes() != LOCKS * LOCK_BYTES {
            return Err(LiveError::corrupt(path, format!("{} bytes", map.len_bytes())));
        }
        Ok(Self { map, owners: (0..LOCKS).map(|_| Owner::default()).collect() })
    }

    /// Makes the file, complete before it has its name: called by the holder of the map's lock.
    pub(crate) fn create(fs: &dyn FileSystem, dir: &Path, mode: u32) -> Result<Self, LiveError> {
        let path = &dir.join("KEYLOCKS");
        let temporary = dir.join("KEYLOCKS.new");
        let map = crate::files::create(fs, &temporary, (LOCKS * LOCK_BYTES) as u64, mode)?;
        for lock in 0..LOCKS {
            RobustMutex::at(&map, lock * LOCK_BYTES).init().map_err(|e| LiveError::io("make locks in", path, e))?;
        }
        fs.rename(&temporary, path).map_err(|e| LiveError::io("rename", &temporary, e))?;
        Self::of(map, path)
    }

    /// Which lock is a key's.
    pub(crate) fn number(key: &[u8]) -> usize {
        // Not the bits that choose slots, so that neighbours in the table do not share a lock.
        (hash(key) >> 32) as usize % LOCKS
    }

    /// Whether some thread of this process has one.
    pub(crate) fn any_held(&self) -> bool {
        self.owners.iter().any(Owner::is_somebody)
    }

    pub(crate) fn lock(&self, number: usize) -> (RobustMutex<'_>, &Owner) {
        (RobustMutex::at(&self.map, number * LOCK_BYTES), &self.owners[number])
    }
}
