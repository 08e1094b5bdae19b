//! Making and removing the files of a map.

use std::io;
use std::path::Path;

use pheon_os::fs::FileSystem;
use pheon_os::shared::SharedMap;

use crate::error::LiveError;

/// Makes a file of zeros and maps it. One of that name is a leftover of a killed writer, which no view names.
pub(crate) fn create(fs: &dyn FileSystem, path: &Path, bytes: u64, mode: u32) -> Result<SharedMap, LiveError> {
    let first = fs.create_shared(path, bytes, mode);
    let made = match first {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            remove(fs, path);
            fs.create_shared(path, bytes, mode)
        }
        other => other,
    };
    made.map_err(|e| LiveError::io("make", path, e))
}

/// Removes a file that is not needed. If that fails it is a leftover, which the next repair removes.
pub(crate) fn remove(fs: &dyn FileSystem, path: &Path) {
    let _ = fs.unlink(path);
}
