//! A folder for the spill files of one build, where the caller has chosen a place for them: several builds may have the
//! same place, and what a killed process left there has to go.
//!
//! ```text
//! <the caller's folder>/
//!     .pheon-spill-<32 hex>/   one for each build
//!         LOCK                 held as long as the build lives
//!         ..
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pheon_os::fs::FileSystem;
use pheon_os::lock::{FileLock, LockError};
use pheon_os::process::random_id;

use crate::error::WriteError;

const PREFIX: &str = ".pheon-spill-";
const LOCK_NAME: &str = "LOCK";
/// The rows are in there: nobody else has business with it.
const MODE: u32 = 0o700;
/// How often another build may take a new folder for a leftover, before it is locked.
const ATTEMPTS_MAX: u32 = 16;

/// The folder; it vanishes with this value, with what is in it.
pub(crate) struct SpillDir {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    lock: FileLock,
}

impl SpillDir {
    /// Makes a folder in `parent`, and removes those there whose builds were killed.
    pub(crate) fn create(fs: &Arc<dyn FileSystem>, parent: &Path) -> Result<Self, WriteError> {
        remove_leftovers(fs.as_ref(), parent)?;
        for _ in 0..ATTEMPTS_MAX {
            let path = parent.join(format!("{PREFIX}{}", random_id()));
            fs.create_dir(&path, MODE).map_err(|e| WriteError::io("make the folder", &path, e))?;
            match FileLock::acquire(fs.as_ref(), &path.join(LOCK_NAME), Some(Duration::ZERO), &|| false) {
                Ok(lock) => return Ok(Self { fs: fs.clone(), path, lock }),
                // Another build has taken it for a leftover, between the two.
                Err(LockError::Timeout { .. } | LockError::Stopped) => {}
                Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(LockError::Io { operation, path: lock, source }) => {
                    let _ = fs.remove_dir_all(&path);
                    return Err(WriteError::io(operation, lock, source));
                }
            }
        }
        let cause = io::Error::new(io::ErrorKind::ResourceBusy, "other processes remove it each time");
        Err(WriteError::io("make a folder in", parent, cause))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        // A child that was forked from the builder has the value, too, and must not take the folder away.
        if self.lock.is_held() {
            // What cannot be removed now, the next build removes.
            let _ = self.fs.remove_dir_all(&self.path);
        }
    }
}

/// Removes the folders that nobody holds. Another user's may be closed to this one, and stay.
fn remove_leftovers(fs: &dyn FileSystem, parent: &Path) -> Result<(), WriteError> {
    let entries = fs.read_dir(parent).map_err(|e| WriteError::io("list", parent, e))?;
    for entry in entries.iter().filter(|e| e.is_dir && e.name.starts_with(PREFIX)) {
        let path = parent.join(&entry.name);
        // Renamed under the lock: whoever has just made it, and gets the lock next, finds that it is no longer there, and makes
        // another.
        if let Ok(_lock) = FileLock::acquire(fs, &path.join(LOCK_NAME), Some(Duration::ZERO), &|| false) {
            let gone = parent.join(format!("{PREFIX}{}", random_id()));
            if fs.rename(&path, &gone).is_ok() {
                let _ = fs.remove_dir_all(&gone);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at files behind the seam")]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        dir.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn only_folders_that_nobody_holds_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let fs = pheon_os::fs::real();
        let held = SpillDir::create(&fs, dir.path()).unwrap();
        std::fs::write(held.path().join("rows"), b"x").unwrap();
        // Of processes that were killed after they had locked it, and before.
        for (name, files) in [("1", vec![LOCK_NAME, "rows"]), ("2", vec![])] {
            let left = dir.path().join(format!("{PREFIX}{name}"));
            std::fs::create_dir(&left).unwrap();
            files.iter().for_each(|file| std::fs::write(left.join(file), b"").unwrap());
        }
        std::fs::write(dir.path().join("mine"), b"x").unwrap();
        let other = SpillDir::create(&fs, dir.path()).unwrap();
        assert_eq!(names(dir.path()).len(), 3, "{:?}", names(dir.path()));
        assert!(held.path().join("rows").exists());
        drop((held, other));
        assert_eq!(names(dir.path()), ["mine"]);
        let missing = SpillDir::create(&fs, &dir.path().join("nowhere"));
        assert!(matches!(missing, Err(WriteError::Io { .. })));
    }

    #[test]
    fn builds_that_begin_at_once_have_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let spill = SpillDir::create(&pheon_os::fs::real(), dir.path()).unwrap();
                        std::fs::write(spill.path().join("rows"), b"x").unwrap();
                        assert_eq!(std::fs::read(spill.path().join("rows")).unwrap(), b"x");
                    }
                });
            }
        });
        assert_eq!(names(dir.path()), [""; 0]);
    }
}
