//! Entries that do not fit in memory: one file, in which every partition owns a list of extents.
//!
//! A partition is a run of consecutive blocks whose entries fit in memory together. Writing fills one buffer a partition
//! and appends full ones to the file; reading back one partition after the other visits its extents in order, so entries
//! come back in the order in which they were pushed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pheon_os::fs::{FileSystem, WriteFile};

use super::entry::{ENTRY_BYTES, Entry};

/// Sizes of the write buffer of one partition: multiples of an entry, of about 4 KiB to 4 MiB.
const BUFFER_ENTRIES_MIN: usize = 341;
const BUFFER_ENTRIES_MAX: usize = 349_525;

/// Mode of the spill file: it holds only hashes and row numbers, but nobody else has business with it.
const MODE: u32 = 0o600;

/// The file and what lies where in it. The file vanishes with this value.
pub(super) struct SpillFile {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    file: Option<Box<dyn WriteFile>>,
    len_bytes: u64,
    partitions: Vec<Partition>,
    buffer_bytes: usize,
}

#[derive(Debug, Default)]
struct Partition {
    buffer: Vec<u8>,
    extents: Vec<Extent>,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    offset: u64,
    len_bytes: usize,
}

impl SpillFile {
    /// For `partitions` partitions, whose write buffers take about `memory_bytes` together. The file `path`, which must
    /// not exist, is made when the first buffer is full.
    pub(super) fn new(fs: Arc<dyn FileSystem>, path: &Path, partitions: usize, memory_bytes: u64) -> Self {
        let share = memory_bytes / partitions.max(1) as u64 / ENTRY_BYTES as u64;
        let entries = (share as usize).clamp(BUFFER_ENTRIES_MIN, BUFFER_ENTRIES_MAX);
        let partitions = std::iter::repeat_with(Partition::default).take(partitions).collect();
        Self { fs, path: path.to_owned(), file: None, len_bytes: 0, partitions, buffer_bytes: entries * ENTRY_BYTES }
    }

    /// Appends an entry to a partition.
    #[inline]
    pub(super) fn push(&mut self, partition: usize, entry: Entry) -> io::Result<()> {
        if self.partitions[partition].buffer.len() >= self.buffer_bytes {
            self.flush(partition)?;
        }
        let buffer = &mut self.partitions[partition].buffer;
        if buffer.is_empty() {
            buffer.reserve_exact(self.buffer_bytes);
        }
        buffer.extend_from_slice(&entry.to_bytes());
        Ok(())
    }

    fn flush(&mut self, partition: usize) -> io::Result<()> {
        let partition = &mut self.partitions[partition];
        if partition.buffer.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.fs.create_new(&self.path, MODE)?),
        };
        file.write_at(self.len_bytes, &partition.buffer)?;
        partition.extents.push(Extent { offset: self.len_bytes, len_bytes: partition.buffer.len() });
        self.len_bytes += partition.buffer.len() as u64;
        partition.buffer.clear();
        Ok(())
    }

    /// Bytes written so far.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Ends writing and frees the write buffers.
    pub(super) fn flush_all(&mut self) -> io::Result<()> {
        for partition in 0..self.partitions.len() {
            self.flush(partition)?;
            self.partitions[partition].buffer = Vec::new();
        }
        Ok(())
    }

    /// Hands every entry of a partition to `take`, in the order of [`SpillFile::push`]. After [`SpillFile::flush_all`].
    pub(super) fn read(&self, partition: usize, mut take: impl FnMut(Entry)) -> io::Result<()> {
        let extents = &self.partitions[partition].extents;
        if extents.is_empty() {
            return Ok(());
        }
        let file = self.fs.open_read(&self.path)?;
        let mut bytes = Vec::new();
        for extent in extents {
            bytes.resize(extent.len_bytes, 0);
            file.read_at(extent.offset, &mut bytes)?;
            for entry in bytes.as_chunks::<ENTRY_BYTES>().0 {
                take(Entry::from_bytes(entry));
            }
            file.drop_cache(extent.offset, extent.len_bytes as u64);
        }
        Ok(())
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Whoever owns the folder removes it whole if this fails.
            let _ = self.fs.unlink(&self.path);
        }
    }
}
