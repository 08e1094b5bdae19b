//! The writers' lock: kernel-owned, so that it vanishes with its process however that ends.
//!
//! It is a POSIX record lock (`fcntl(F_SETLK)`, exclusive, whole file). Three of its properties need care:
//! * It belongs to a process, not to a descriptor: a second attempt by the same process succeeds. So a registry in this
//!   process keeps threads apart.
//! * *Closing any descriptor of the file* drops it. So the registry also makes sure that a file that is held is not
//!   opened again, and that a descriptor that turned out to be one of a held file stays open as long as the lock.
//! * A forked child does not inherit it. So the registry and each lock remember their process; what a child finds from
//!   its parent it neither believes in nor closes (closing would drop a lock that the child took itself meanwhile).
//!
//! A copy of this library inside the same process with its own registry is not protected against; the kernel then sees
//! one process and lets both in.
#![allow(unsafe_code)] // `F_GETLK` with its pid, and a registry that must survive a fork without a stuck mutex

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::fs::FileSystem;
use crate::process;

#[cfg(test)]
mod tests;

/// The first pause between two attempts; each next one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// An exclusive lock held by this process. Dropping it releases it; so does the end of the process.
///
/// It may be sent to and dropped by another thread. After a `fork` the child's copy is not held: see
/// [`is_held`](Self::is_held).
#[derive(Debug)]
pub struct FileLock {
    /// Taken out in `drop` only.
    file: Option<File>,
    id: FileId,
    path: PathBuf,
    owner_pid: u32,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody held it all the time.
    Timeout {
        /// The lock file.
        path: PathBuf,
        /// Who held it at the last attempt: this process's own id if one of its threads did; `None` if the kernel does
        /// not say (another pid name space) or it was released just then.
        holder_pid: Option<u32>,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// `should_stop` said so.
    Stopped,
    /// The lock file cannot be used.
    Io {
        /// What was being done.
        operation: &'static str,
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Timeout { path, holder_pid, waited_ms } => {
                write!(f, "waited {waited_ms} ms for the lock {}: held by ", path.display())?;
                match holder_pid {
                    Some(pid) if *pid == process::pid() => write!(f, "another writer of this process (pid {pid})")?,
                    Some(pid) => write!(f, "process {pid}")?,
                    None => write!(f, "a process whose id is not known here")?,
                }
                write!(f, "; wait until it has finished, or give a longer timeout")
            }
            LockError::Stopped => write!(f, "stopped while waiting for a lock"),
            LockError::Io { operation, path, .. } => write!(f, "cannot {operation} the lock file {}", path.display()),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Io { source, .. } => Some(source),
            LockError::Timeout { .. } | LockError::Stopped => None,
        }
    }
}

/// Which file: device and inode. Not used again for another file while a descriptor of this one is open.
type FileId = (u64, u64);

/// The locks that this process holds. The mutex is taken around every attempt and every release, with the opening and
/// closing of descriptors, and never while waiting.
struct Registry {
    pid: u32,
    /// For each held file, further descriptors of it that must not be closed before it is released.
    held: Mutex<HashMap<FileId, Vec<File>>>,
}

/// A forked child makes its own registry: its copy of the parent's may be locked for ever by a thread that it does not
/// have, and lists locks that it does not hold.
static CURRENT: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

fn registry() -> &'static Registry {
    let pid = process::pid();
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: a non-null value of CURRENT came from `Box::into_raw` below and was published with Release; a published
    // registry is never freed.
    if let Some(registry) = unsafe { current.as_ref() }
        && registry.pid == pid
    {
        return registry;
    }
    replace(current, pid)
}

/// Publishes a new registry in the place of that one, unless another thread has done so.
fn replace(current: *mut Registry, pid: u32) -> &'static Registry {
    let fresh = Box::into_raw(Box::new(Registry { pid, held: Mutex::default() }));
    match CURRENT.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `fresh` is published now and never freed.
        Ok(_) => unsafe { &*fresh },
        Err(other) => {
            // SAFETY: `fresh` was not published, so this is its only pointer; `other` is a registry that another thread
            // of this process published just now, as above.
            unsafe {
                drop(Box::from_raw(fresh));
                &*other
            }
        }
    }
}

#[derive(Debug)]
enum Attempt {
    Taken(FileLock),
    HeldBy(Option<u32>),
    /// The path got another file meanwhile.
    Replaced,
}

impl FileLock {
    /// Takes the lock on the file at `path`, which is made if only it is missing, and waits while somebody else holds it:
    /// not at all with a timeout of zero, for ever with `None`. `should_stop` is called between attempts, which are at
    /// most 20 ms apart. Not reentrant: the holder itself waits like everybody else. There is no queue.
    ///
    /// When this returns, `path` still names the file that is locked; if it was replaced meanwhile (dropped and made
    /// again), the new one is waited for.
    ///
    /// # Errors
    /// See [`LockError`]. A missing folder is `Io` with `NotFound`.
    pub fn acquire(
        fs: &dyn FileSystem,
        path: &Path,
        timeout: Option<Duration>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<FileLock, LockError> {
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let holder_pid = match attempt(fs, registry(), path)? {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::HeldBy(pid) => pid,
                Attempt::Replaced => None,
            };
            if should_stop() {
                return Err(LockError::Stopped);
            }
            let waited = began.elapsed();
            let left = timeout.map(|timeout| timeout.saturating_sub(waited));
            if left == Some(Duration::ZERO) {
                let waited_ms = waited.as_millis() as u64;
                return Err(LockError::Timeout { path: path.to_path_buf(), holder_pid, waited_ms });
            }
            thread::sleep(left.map_or(pause, |left| pause.min(left)));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The lock file's path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this process is the one that took the lock: `false` in a forked child, which must not write then.
    pub fn is_held(&self) -> bool {
        self.owner_pid == process::pid()
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let file = self.file.take();
        if !self.is_held() {
            // Closing the inherited descriptor would drop a lock on the same file that this child took itself.
            std::mem::forget(file);
            return;
        }
        let mut held = registry().held.lock().unwrap_or_else(PoisonError::into_inner);
        drop(file); // releases
        held.remove(&self.id);
    }
}

/// One attempt that does not wait.
fn attempt(fs: &dyn FileSystem, registry: &Registry, path: &Path) -> Result<Attempt, LockError> {
    let mut held = registry.held.lock().unwrap_or_else(PoisonError::into_inner);
    // Before opening: a descriptor of a held file could not be closed.
    let named = id_at(fs, path).map_err(|error| failed("examine", path, error))?;
    if named.is_some_and(|id| held.contains_key(&id)) {
        return Ok(Attempt::HeldBy(Some(registry.pid)));
    }
    let file = fs.open_lock(path).map_err(|error| failed("open", path, error))?;
    lock_opened(fs, &mut held, registry.pid, path, file)
}

/// The second half of an attempt: `path` named `file` when it was opened, and may have got another one since.
fn lock_opened(
    fs: &dyn FileSystem,
    held: &mut HashMap<FileId, Vec<File>>,
    pid: u32,
    path: &Path,
    file: File,
) -> Result<Attempt, LockError> {
    let meta = file.metadata().map_err(|error| failed("examine", path, error))?;
    let id = (meta.dev(), meta.ino());
    if let Some(descriptors) = held.get_mut(&id) {
        // The path was changed after it was examined, to name a file that is held here.
        descriptors.push(file);
        return Ok(Attempt::HeldBy(Some(pid)));
    }
    // From here on this process has no lock on this file, so closing `file` is harmless.
    if !meta.is_file() {
        return Err(failed("lock", path, io::Error::new(io::ErrorKind::InvalidData, "not a regular file")));
    }
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => return Ok(Attempt::HeldBy(holder(&file))),
        Err(error) => return Err(failed("lock", path, error.into())),
    }
    if id_at(fs, path).map_err(|error| failed("examine", path, error))? != Some(id) {
        return Ok(Attempt::Replaced);
    }
    held.insert(id, Vec::new());
    Ok(Attempt::Taken(FileLock { file: Some(file), id, path: path.to_path_buf(), owner_pid: pid }))
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> LockError {
    LockError::Io { operation, path: path.to_path_buf(), source }
}

/// Which file a path names, if any.
fn id_at(fs: &dyn FileSystem, path: &Path) -> io::Result<Option<FileId>> {
    match fs.metadata(path) {
        Ok(meta) => Ok(Some((meta.dev, meta.ino))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which other process has a lock on the file, if the kernel says so.
fn holder(file: &File) -> Option<u32> {
    // SAFETY: `flock` is plain integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: F_GETLK reads and writes one `flock`, which lives across the call.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    // A pid of 0 is one of another name space, -1 a lock of an open file description.
    (answer == 0 && lock.l_type != libc::F_UNLCK as libc::c_short && lock.l_pid > 0).then_some(lock.l_pid as u32)
}
