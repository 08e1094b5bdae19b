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
    /// Opens the file, or makes it: called by the holder of the map's lock.
    pub(crate) fn open(fs: &dyn FileSystem, dir: &Path, mode: u32) -> Result<Self, LiveError> {
        let path = dir.join("KEYLOCKS");
        let map = match fs.map_shared(&path, true) {
            Ok(map) => map,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(fs, dir, &path, mode)?,
            Err(e) => return Err(LiveError::io("open", &path, e)),
        };
        if map.len_bytes() != LOCKS * LOCK_BYTES {
            return Err(LiveError::corrupt(&path, format!("{} bytes", map.len_bytes())));
        }
        Ok(Self { map, owners: (0..LOCKS).map(|_| Owner::default()).collect() })
    }

    /// Complete before it has its name.
    pub(crate) fn create(fs: &dyn FileSystem, dir: &Path, path: &Path, mode: u32) -> Result<SharedMap, LiveError> {
        let temporary = dir.join("KEYLOCKS.new");
        let map = crate::files::create(fs, &temporary, (LOCKS * LOCK_BYTES) as u64, mode)?;
        for lock in 0..LOCKS {
            RobustMutex::at(&map, lock * LOCK_BYTES).init().map_err(|e| LiveError::io("make locks in", path, e))?;
        }
        fs.rename(&temporary, path).map_err(|e| LiveError::io("rename", &temporary, e))?;
        Ok(map)
    }

    /// Which lock is a key's.
    pub(crate) fn number(key: &[u8]) -> usize {
        // Not the bits that choose slots, so that neighbours in the table do not share a lock.
        (hash(key) >> 32) as usize % LOCKS
    }

    pub(crate) fn of(&self, number: usize) -> (RobustMutex<'_>, &Owner) {
        (RobustMutex::at(&self.map, number * LOCK_BYTES), &self.owners[number])
    }
}
