//! The seam: every file operation of the engine is a call on a [`FileSystem`], so that a test can fail any of them.
//!
//! Errors are plain [`io::Error`]s with the operating system's number; the caller knows the path and says what it was
//! doing. Paths are used as given (relative ones are relative to the current folder of the process).

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::map::ReadMap;
use crate::shared::SharedMap;

pub mod fault;
mod real;
pub mod record;
#[cfg(test)]
mod tests;

/// The file system of this machine.
pub fn real() -> Arc<dyn FileSystem> {
    Arc::new(real::RealFs)
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name without its folder.
    pub name: String,
    /// Whether it is a folder; `false` for a symbolic link to one.
    pub is_dir: bool,
}

/// What `lstat` says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// Length in bytes.
    pub len_bytes: u64,
    /// Whether it is a folder; `false` for a symbolic link to one.
    pub is_dir: bool,
    /// Permission bits only: `mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number; unique within `dev` while the file exists or is open.
    pub ino: u64,
    /// Last modification, nanoseconds since 1970-01-01T00:00:00Z; negative before.
    pub modified_unix_ns: i64,
}

/// Everything that the engine does with names and files.
pub trait FileSystem: Send + Sync + Debug {
    /// Makes one folder with these permissions (the process's umask is taken away from them).
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, by whatever; `NotFound` when the parent folder is missing.
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Makes one folder, at once, for the members of a group: mode 2770, so that what they make in it is the group's.
    ///
    /// # Errors
    /// As [`create_dir`](Self::create_dir); `PermissionDenied` when this user is not in the group, and then no folder either.
    fn create_group_dir(&self, path: &Path, group: u32) -> io::Result<()>;

    /// Opens a lock file, which is made if only it is missing. For [`FileLock`](crate::lock::FileLock), which alone knows when
    /// it may be closed; what it has is no matter.
    ///
    /// # Errors
    /// `NotFound` when the folder is missing; a symbolic link is not followed.
    fn open_lock(&self, path: &Path) -> io::Result<File>;

    /// The entries of a folder in no particular order, without `.` and `..`. Names that are not UTF-8 are left out: the
    /// engine makes no such names.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Facts about a path; a symbolic link is not followed.
    fn metadata(&self, path: &Path) -> io::Result<FileMeta>;

    /// The whole content of a regular file.
    ///
    /// # Errors
    /// `InvalidData` when it is longer than `max_bytes` or not a regular file.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>>;

    /// Makes a new file, open for reading and writing and not inherited by programs that this process starts.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, also by a dangling symbolic link.
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a regular file for positioned reads.
    ///
    /// # Errors
    /// `InvalidData` when it is not a regular file.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Maps a whole regular file read-only and shared; read the contract of [`ReadMap`] first. Costs no page of memory
    /// until bytes are read.
    ///
    /// # Errors
    /// `InvalidData` when it is not a regular file.
    fn map(&self, path: &Path) -> io::Result<ReadMap>;

    /// Gives a file a second name, atomically.
    ///
    /// # Errors
    /// `AlreadyExists` when `to` is taken: this is the exclusive step of publishing.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames, atomically; an existing `to` is replaced (a folder only if it is empty).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes one name of a file. Mappings of it stay valid.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it; symbolic links are removed, not followed.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes a new file of `len` zero bytes with these permissions (whatever the umask) and maps it for writing. The space is
    /// really there: no later write to the mapping can fail for want of it.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; `ENOSPC` when there is no room, and then no file either.
    fn create_shared(&self, path: &Path, len: u64, mode: u32) -> io::Result<SharedMap>;

    /// Maps a whole regular file shared; read the contract of [`SharedMap`] first.
    ///
    /// # Errors
    /// `InvalidData` when it is empty or not a regular file, `PermissionDenied` when `writable` is not allowed.
    fn map_shared(&self, path: &Path, writable: bool) -> io::Result<SharedMap>;

    /// Makes what was written to a shared mapping of this file durable.
    fn sync_shared(&self, path: &Path, map: &SharedMap) -> io::Result<()>;

    /// Makes the names in a folder durable (`fsync` of the folder).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file being written. Shared by threads: all writes say where.
pub trait WriteFile: Send + Sync {
    /// Writes all of `bytes` at `offset` or fails, in which case any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Sets the length in bytes; new bytes are zeros without disk space.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Sets the permission bits, whatever the umask.
    fn set_mode(&self, mode: u32) -> io::Result<()>;

    /// Asks the kernel to begin writing `len` bytes from `offset` to the disk, so that a later [`sync`](Self::sync) has
    /// less to do. A hint: nothing is promised and errors are ignored.
    fn start_writeback(&self, offset: u64, len: u64);

    /// Makes content and length durable (`fsync`). After an error the file's content is unknown: throw it away, never
    /// retry, because the kernel reports a failed page once only.
    fn sync(&self) -> io::Result<()>;
}

/// A file being read at given offsets. Shared by threads.
#[allow(clippy::len_without_is_empty)] // a length of a file is an I/O question, not a collection's property
pub trait ReadFile: Send + Sync {
    /// Fills `buf` with the bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before `offset + buf.len()`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Tells the kernel that these `len` bytes from `offset` (0: to the end) will not be read again, so that they leave
    /// the page cache. A hint: errors are ignored.
    fn drop_cache(&self, offset: u64, len: u64);
}
