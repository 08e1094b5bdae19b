//! A file system that fails when told to: for tests of what the engine leaves behind after an error.
//!
//! ```
//! use pheon_os::fs::{self, FileSystem, fault::{FaultFs, Lasts, Op}};
//! let faulty = FaultFs::new(fs::real());
//! faulty.fail_nth(2, Some(Op::CreateDir), 28 /* ENOSPC */, Lasts::Once);
//! let dir = std::env::temp_dir().join(pheon_os::process::random_id());
//! faulty.create_dir(&dir, 0o700).unwrap();
//! assert!(pheon_os::is_full(&faulty.create_dir(&dir.join("a"), 0o700).unwrap_err()));
//! faulty.create_dir(&dir.join("a"), 0o700).unwrap();
//! assert_eq!(faulty.calls_of(Op::CreateDir), 3);
//! faulty.remove_dir_all(&dir).unwrap();
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirEntry, FileMeta, FileSystem, ReadFile, WriteFile};
use crate::map::ReadMap;
use crate::shared::SharedMap;

/// The calls that can fail: the methods of the same names, and those of open files. Hints ([`WriteFile::start_writeback`],
/// [`ReadFile::drop_cache`]) are neither counted nor failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is the method of the same name
pub enum Op {
    CreateDir,
    CreateGroupDir,
    OpenLock,
    ReadDir,
    Metadata,
    Read,
    CreateNew,
    OpenRead,
    Map,
    Link,
    Rename,
    Unlink,
    RemoveDirAll,
    SyncDir,
    CreateShared,
    MapShared,
    SyncShared,
    WriteAt,
    SetLen,
    SetMode,
    Sync,
    ReadAt,
    Len,
}

impl Op {
    /// Whether the call takes a free file descriptor, if only for a moment: those are the ones that fail with `EMFILE`.
    pub fn needs_descriptor(self) -> bool {
        use Op as O;
        matches!(
            self,
            O::OpenLock
                | O::ReadDir
                | O::Read
                | O::CreateNew
                | O::OpenRead
                | O::Map
                | O::RemoveDirAll
                | O::SyncDir
                | O::CreateShared
                | O::MapShared
        )
    }

    /// Whether the real file system makes the call again when a signal interrupts it (`EINTR`): all that POSIX says can be
    /// interrupted, what lists a folder and `msync`. `tests/test_interrupted_calls.py` interrupts the real calls.
    pub fn is_restarted(self) -> bool {
        use Op as O;
        self.needs_descriptor()
            || matches!(self, O::SyncShared | O::WriteAt | O::SetLen | O::SetMode | O::Sync | O::ReadAt)
    }
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// One call fails; later ones work again.
    Once,
    /// That call and every later matching one fail, as if the machine had died there.
    ForEver,
}

/// The kinds of failure that a test tries, error number and length, each with how far one call that fails is from the next
/// that does: one of `steps`, or every call where `PHEON_LONG` is set.
pub fn kinds(steps: [u64; 9]) -> impl Iterator<Item = (i32, Lasts, u64)> {
    const EINTR: i32 = 4;
    const EIO: i32 = 5;
    const EMFILE: i32 = 24;
    const ENOSPC: i32 = 28;
    const EDQUOT: i32 = 122;
    let all = [
        (ENOSPC, Lasts::Once),
        (EIO, Lasts::ForEver),
        (EIO, Lasts::Once),
        (ENOSPC, Lasts::ForEver),
        (EMFILE, Lasts::ForEver),
        (EINTR, Lasts::Once),
        (EDQUOT, Lasts::Once),
        (EMFILE, Lasts::Once),
        (EDQUOT, Lasts::ForEver),
    ];
    let is_long = std::env::var_os("PHEON_LONG").is_some();
    all.into_iter().zip(steps).map(move |((errno, lasts), step)| (errno, lasts, if is_long { 1 } else { step }))
}

#[derive(Debug)]
struct Fault {
    only: Option<Op>,
    calls_left: u64,
    errno: i32,
    lasts: Lasts,
}

#[derive(Debug, Default)]
struct State {
    log: Vec<(Op, Arc<Path>)>,
    failed: Vec<Op>,
    faults: Vec<Fault>,
}

/// Wraps another file system, counts and lists the calls on it and on the files that it opened, and fails chosen ones.
/// A failed call does nothing, except that a failed write first writes half of its bytes. Clones share one state.
#[derive(Clone, Debug)]
pub struct FaultFs {
    inner: Arc<dyn FileSystem>,
    state: Arc<Mutex<State>>,
}

impl FaultFs {
    /// Passes all calls on to `inner` until a fault is ordered.
    pub fn new(inner: Arc<dyn FileSystem>) -> FaultFs {
        FaultFs { inner, state: Arc::default() }
    }

    /// Orders a failure with this error number of the `nth` call from now (1: the next one), counting calls of `only` or
    /// else all calls. Several faults may be waiting; the first ordered one that is due decides. `EMFILE` waits for a call that
    /// [takes a descriptor](Op::needs_descriptor); after `EINTR` a call that is [restarted](Op::is_restarted) is made again.
    ///
    /// # Panics
    /// For `EINTR` that lasts: no signal interrupts for ever.
    pub fn fail_nth(&self, nth: u64, only: Option<Op>, errno: i32, lasts: Lasts) {
        assert!(nth > 0, "calls are counted from 1");
        assert!(errno != libc::EINTR || lasts == Lasts::Once, "no signal interrupts for ever");
        self.state().faults.push(Fault { only, calls_left: nth - 1, errno, lasts });
    }

    /// Takes back all faults; counts and the list stay.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Calls so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.state().log.len() as u64
    }

    /// Calls of one kind so far, failed ones included.
    pub fn calls_of(&self, op: Op) -> u64 {
        self.state().log.iter().filter(|(logged, _)| *logged == op).count() as u64
    }

    /// All calls so far in order, failed ones included, with their (first) path.
    pub fn log(&self) -> Vec<(Op, PathBuf)> {
        self.state().log.iter().map(|(op, path)| (*op, path.to_path_buf())).collect()
    }

    /// The calls that were failed so far, in order; interrupted ones too that were made again.
    pub fn failed(&self) -> Vec<Op> {
        self.state().failed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and says whether it fails.
    fn enter(&self, op: Op, path: impl Into<Arc<Path>>) -> io::Result<()> {
        let mut state = self.state();
        let path = path.into();
        loop {
            state.log.push((op, path.clone()));
            let mut errno = None;
            state.faults.retain_mut(|fault| {
                if fault.only.is_some_and(|only| only != op) {
                    return true;
                }
                if fault.calls_left > 0 {
                    fault.calls_left -= 1;
                    return true;
                }
                if fault.errno == libc::EMFILE && !op.needs_descriptor() {
                    return true;
                }
                errno.get_or_insert(fault.errno);
                fault.lasts == Lasts::ForEver
            });
            let Some(errno) = errno else { return Ok(()) };
            state.failed.push(op);
            if errno != libc::EINTR || !op.is_restarted() {
                return Err(io::Error::from_raw_os_error(errno));
            }
        }
    }
}

impl FileSystem for FaultFs {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.enter(Op::CreateDir, path)?;
        self.inner.create_dir(path, mode)
    }

    fn create_group_dir(&self, path: &Path, group: u32) -> io::Result<()> {
        self.enter(Op::CreateGroupDir, path)?;
        self.inner.create_group_dir(path, group)
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.enter(Op::OpenLock, path)?;
        self.inner.open_lock(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.enter(Op::ReadDir, path)?;
        self.inner.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        self.enter(Op::Metadata, path)?;
        self.inner.metadata(path)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.enter(Op::Read, path)?;
        self.inner.read(path, max_bytes)
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        self.enter(Op::CreateNew, path)?;
        let inner = self.inner.create_new(path, mode)?;
        Ok(Box::new(FaultFile { inner, path: path.into(), fs: self.clone() }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.enter(Op::OpenRead, path)?;
        let inner = self.inner.open_read(path)?;
        Ok(Box::new(FaultFile { inner, path: path.into(), fs: self.clone() }))
    }

    fn map(&self, path: &Path) -> io::Result<ReadMap> {
        self.enter(Op::Map, path)?;
        self.inner.map(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter(Op::Link, from)?;
        self.inner.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter(Op::Rename, from)?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.enter(Op::Unlink, path)?;
        self.inner.unlink(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.enter(Op::RemoveDirAll, path)?;
        self.inner.remove_dir_all(path)
    }

    fn create_shared(&self, path: &Path, len: u64, mode: u32) -> io::Result<SharedMap> {
        self.enter(Op::CreateShared, path)?;
        self.inner.create_shared(path, len, mode)
    }

    fn map_shared(&self, path: &Path, writable: bool) -> io::Result<SharedMap> {
        self.enter(Op::MapShared, path)?;
        self.inner.map_shared(path, writable)
    }

    fn sync_shared(&self, path: &Path, map: &SharedMap) -> io::Result<()> {
        self.enter(Op::SyncShared, path)?;
        self.inner.sync_shared(path, map)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(Op::SyncDir, path)?;
        self.inner.sync_dir(path)
    }
}

struct FaultFile<F: ?Sized> {
    path: Arc<Path>,
    fs: FaultFs,
    inner: Box<F>,
}

impl WriteFile for FaultFile<dyn WriteFile> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Err(fault) = self.fs.enter(Op::WriteAt, self.path.clone()) {
            self.inner.write_at(offset, &bytes[..bytes.len() / 2])?;
            return Err(fault);
        }
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fs.enter(Op::SetLen, self.path.clone())?;
        self.inner.set_len(len)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.fs.enter(Op::SetMode, self.path.clone())?;
        self.inner.set_mode(mode)
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.inner.start_writeback(offset, len);
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.enter(Op::Sync, self.path.clone())?;
        self.inner.sync()
    }
}

impl ReadFile for FaultFile<dyn ReadFile> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.fs.enter(Op::ReadAt, self.path.clone())?;
        self.inner.read_at(offset, buf)
    }

    fn len(&self) -> io::Result<u64> {
        self.fs.enter(Op::Len, self.path.clone())?;
        self.inner.len()
    }

    fn drop_cache(&self, offset: u64, len: u64) {
        self.inner.drop_cache(offset, len);
    }
}
