//! One buffer of a file that is being written: its place is planned, its bytes come in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pheon_os::fs::{FileSystem, WriteFile};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{ReadError, WriteError};
use crate::manifest::BufferRecord;

/// Buffers that may be as large as this begin at its multiples in the file (docs/format.md section 3).
pub(crate) const LARGE_BUFFER_BYTES: u64 = 2 << 20;
/// All other buffers begin at multiples of this.
pub(crate) const ALIGNMENT_BYTES: u64 = 64;
/// Bytes of one write: at least 2 MiB, aligned to 2 MiB of the file, so that the page cache takes them as huge pages.
const WRITE_BYTES_MAX: usize = 4 << 20;
const WRITE_BYTES_MIN: usize = 64 << 10;
/// No file is so long: offsets are signed to the kernel.
const OFFSET_MAX: u64 = 1 << 62;

/// A file that is being written.
pub(crate) struct Target {
    file: Box<dyn WriteFile>,
    path: PathBuf,
}

impl Target {
    /// Creates the file; it must not exist.
    pub(crate) fn create(fs: &dyn FileSystem, path: &Path) -> Result<Self, WriteError> {
        let file = fs.create_new(path, 0o640).map_err(|e| WriteError::io("creating", path, e))?;
        Ok(Self { file, path: path.into() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_at(offset, bytes).map_err(|e| WriteError::io("writing", &self.path, e))
    }

    /// Makes the file read-only and durable.
    pub(crate) fn seal(&self) -> Result<(), WriteError> {
        self.file.set_mode(0o440).map_err(|e| WriteError::io("changing the mode of", &self.path, e))?;
        self.file.sync().map_err(|e| WriteError::io("syncing", &self.path, e))
    }
}

/// Hands out places in a file, in ascending order.
pub(crate) struct Planner {
    target: Arc<Target>,
    next: u64,
    write_bytes: usize,
}

impl Planner {
    /// Places begin at `start`; all streams together stage about `memory_bytes`, if there are `streams` of them.
    pub(crate) fn new(target: Arc<Target>, start: u64, streams: usize, memory_bytes: u64) -> Self {
        let share = (memory_bytes / streams.max(1) as u64).min(WRITE_BYTES_MAX as u64) as usize;
        let write_bytes = if share >= WRITE_BYTES_MAX { WRITE_BYTES_MAX } else { (share + 1).next_power_of_two() / 2 };
        Self { target, next: start, write_bytes: write_bytes.max(WRITE_BYTES_MIN) }
    }

    /// A stream of at most `capacity_bytes`.
    pub(crate) fn stream(&mut self, capacity_bytes: u64) -> Stream {
        let alignment = if capacity_bytes >= LARGE_BUFFER_BYTES { LARGE_BUFFER_BYTES } else { ALIGNMENT_BYTES };
        // Beyond all files: bounds of very many parts may say so, and writing there fails.
        let offset = self.next.checked_next_multiple_of(alignment).unwrap_or(OFFSET_MAX).min(OFFSET_MAX);
        self.next = offset.saturating_add(capacity_bytes);
        Stream {
            target: self.target.clone(),
            offset,
            capacity_bytes,
            written: 0,
            staged: Vec::new(),
            write_bytes: self.write_bytes,
            hash: Box::new(Xxh3::new()),
        }
    }
}

/// Takes a buffer's bytes in order; writes them in large pieces and sums them up.
pub(crate) struct Stream {
    target: Arc<Target>,
    offset: u64,
    capacity_bytes: u64,
    written: u64,
    staged: Vec<u8>,
    write_bytes: usize,
    hash: Box<Xxh3>,
}

impl Stream {
    /// Appends bytes.
    ///
    /// # Errors
    /// If they exceed what was planned: the next buffer would be overwritten. Only rows of a part whose document is wrong
    /// about them do.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        let end = self.written + (self.staged.len() + bytes.len()) as u64;
        if end > self.capacity_bytes {
            let problem = format!("{end} bytes where the bounds of all parts allow {}", self.capacity_bytes);
            return Err(WriteError::Read(ReadError::corrupt(self.target.path(), "a buffer", problem)));
        }
        while self.staged.len() + bytes.len() >= self.write_bytes {
            if self.staged.is_empty() {
                let (now, later) = bytes.split_at(self.write_bytes);
                self.put(now)?;
                bytes = later;
            } else {
                let (now, later) = bytes.split_at(self.write_bytes - self.staged.len());
                self.staged.extend_from_slice(now);
                self.flush()?;
                bytes = later;
            }
        }
        if self.staged.capacity() == 0 && !bytes.is_empty() {
            let rest = self.capacity_bytes - self.written;
            self.staged.reserve_exact(self.write_bytes.min(usize::try_from(rest).unwrap_or(usize::MAX)));
        }
        self.staged.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let staged = std::mem::take(&mut self.staged);
        self.put(&staged)?;
        self.staged = staged;
        self.staged.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.hash.update(bytes);
        let at = self.offset + self.written;
        self.target.write_at(at, bytes)?;
        // The disk begins while rows are still coming, so that the final sync is short.
        self.target.file.start_writeback(at, bytes.len() as u64);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes what is staged.
    pub(crate) fn finish(mut self) -> Result<BufferRecord, WriteError> {
        if !self.staged.is_empty() {
            self.flush()?;
        }
        Ok(BufferRecord { offset: self.offset, length: self.written, xxh3_64: self.hash.digest() })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at files behind the seam")]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn bytes_land_where_planned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let target = Arc::new(Target::create(&*pheon_os::fs::real(), &path).unwrap());
        let mut planner = Planner::new(target.clone(), 100, 3, 0);
        let pattern: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut small = planner.stream(1000);
        let mut large = planner.stream(3_000_000);
        let mut empty = planner.stream(50);
        small.write(&pattern[..10]).unwrap();
        for piece in pattern.chunks(70_001) {
            large.write(piece).unwrap();
        }
        small.write(&pattern[10..500]).unwrap();
        empty.write(&[]).unwrap();
        let records = [small, large, empty].map(|s| s.finish().unwrap());
        assert_eq!(records.map(|r| r.offset), [128, 2 << 20, (2u64 << 20).next_multiple_of(64) + 3_000_000]);
        assert_eq!(records.map(|r| r.length), [500, 3_000_000, 0]);
        let file = std::fs::read(&path).unwrap();
        for record in records {
            let at = record.offset as usize;
            let bytes = file.get(at..at + record.length as usize).unwrap_or_default();
            assert_eq!(bytes, &pattern[..bytes.len()]);
            assert_eq!(record.xxh3_64, xxh3_64(bytes));
        }
        target.seal().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o440);
    }

    #[test]
    fn writes_are_powers_of_two_between_the_limits() {
        let dir = tempfile::tempdir().unwrap();
        let target = Arc::new(Target::create(&*pheon_os::fs::real(), &dir.path().join("f")).unwrap());
        let size = |streams, memory| Planner::new(target.clone(), 0, streams, memory).write_bytes;
        assert_eq!(size(4, 1 << 30), WRITE_BYTES_MAX);
        assert_eq!(size(4, 8 << 20), 2 << 20);
        assert_eq!(size(3, 8 << 20), 2 << 20);
        assert_eq!(size(1000, 8 << 20), WRITE_BYTES_MIN);
    }
}
