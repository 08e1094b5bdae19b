//! The real file system: thin, and the only caller of `std::fs` on the engine's behalf.

#![allow(clippy::disallowed_methods, reason = "everybody else goes through this")]

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{DirEntry, FileMeta, FileSystem, ReadFile, WriteFile};
use crate::map::{self, ReadMap};
use crate::shared::SharedMap;

/// Permissions of a lock file that did not exist: whoever may only read must not be able to open it, since a read lock
/// would keep writers out.
const LOCK_MODE: u32 = 0o660;

#[derive(Debug)]
pub(super) struct RealFs;

/// Does something as a whole again if a signal interrupted it.
fn uninterrupted<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Opens a regular file for reading. `O_NONBLOCK` has no effect on one, and keeps a FIFO of that name from blocking us.
fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok((file, meta.len()))
}

impl FileSystem for RealFs {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(path)
    }

    fn create_group_dir(&self, path: &Path, group: u32) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        let opened = std::os::unix::fs::chown(path, None, Some(group))
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o2770)));
        if opened.is_err() {
            let _ = fs::remove_dir(path);
        }
        opened
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(LOCK_MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        uninterrupted(|| {
            let mut entries = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let is_dir = match entry.file_type() {
                    Ok(kind) => kind.is_dir(),
                    // Removed since it was listed (some file systems need a stat for the type).
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                entries.push(DirEntry { name, is_dir });
            }
            Ok(entries)
        })
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        let meta = fs::symlink_metadata(path)?;
        Ok(FileMeta {
            len_bytes: meta.len(),
            is_dir: meta.is_dir(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            dev: meta.dev(),
            ino: meta.ino(),
            modified_unix_ns: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
        })
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let too_long = |len: u64| {
            let text = format!("the file has {len} bytes or more; at most {max_bytes} are read");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        };
        let (file, len) = open_regular(path)?;
        if len > max_bytes {
            return too_long(len);
        }
        let mut bytes = Vec::with_capacity(len as usize);
        // One byte more than allowed, so that a file that grows meanwhile is still refused.
        let read = io::Read::read_to_end(&mut io::Read::take(file, max_bytes.saturating_add(1)), &mut bytes)?;
        if read as u64 > max_bytes {
            return too_long(read as u64);
        }
        Ok(bytes)
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(RealFile(open_regular(path)?.0)))
    }

    fn map(&self, path: &Path) -> io::Result<ReadMap> {
        let (file, len) = open_regular(path)?;
        map::map_file(&file, len)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        uninterrupted(|| fs::remove_dir_all(path))
    }

    fn create_shared(&self, path: &Path, len: u64, mode: u32) -> io::Result<SharedMap> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
        let made = reserve(&file, len)
            .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
            .and_then(|()| SharedMap::of_file(&file, len, true, true))
            .inspect(SharedMap::collapse);
        if made.is_err() {
            let _ = fs::remove_file(path);
        }
        made
    }

    fn map_shared(&self, path: &Path, writable: bool) -> io::Result<SharedMap> {
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        SharedMap::of_file(&file, meta.len(), writable, false)
    }

    fn sync_shared(&self, _path: &Path, map: &SharedMap) -> io::Result<()> {
        map.sync()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?.sync_all()
    }
}

/// Gives a new file its length and the space for it.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    const PIECE_BYTES_MIN: u64 = 1 << 20;
    let (mut at, mut piece) = (0, len);
    while at < len {
        let bytes = piece.min(len - at);
        match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), at, bytes) {
            Ok(()) => at += bytes,
            // A memory file system before Linux 6.12 gives all of it back then. Asked for less at once it gets on, however often
            // a timer's signals come.
            Err(rustix::io::Errno::INTR) => piece = (piece / 2).max(PIECE_BYTES_MIN),
            Err(rustix::io::Errno::OPNOTSUPP) => break,
            Err(error) => return Err(error.into()),
        }
    }
    while at < len {
        let piece = ZEROS.len().min((len - at) as usize);
        file.write_all_at(&ZEROS[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

/// An open file; `std` opens every file with `O_CLOEXEC`.
struct RealFile(File);

impl WriteFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // Retries after EINTR and goes on after a short write.
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.0.set_permissions(Permissions::from_mode(mode))
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        map::start_writeback(&self.0, offset, len);
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl ReadFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn drop_cache(&self, offset: u64, len: u64) {
        let _ = rustix::fs::fadvise(&self.0, offset, NonZeroU64::new(len), rustix::fs::Advice::DontNeed);
    }
}
