//! Shared, writable mappings: memory that several processes change while others read it.
//!
//! All access to such memory goes through [`SharedMap`]: words that change are atomics, everything else is written once
//! before a word publishes it.
#![allow(unsafe_code)] // memory that other processes see has no safe form

use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

use crate::map::{HUGE_PAGE_BYTES, map_aligned};

/// A whole file, mapped shared. Writing to one that was mapped read-only panics.
///
/// # Soundness contract
/// What is handed out as `&[u8]` by [`bytes`](Self::bytes) must not change any more, in any process: the protocol that
/// uses this type writes such bytes once, before it publishes them with [`store`](Self::store), and never again. Words that
/// do change are touched as atomics only. [`write`](Self::write) is for bytes that nobody else looks at yet, and
/// [`touch`](Self::touch) exchanges words of published bytes for themselves: no byte of them changes.
/// A process with the rights to write the file can break this; see docs/safety.md.
///
/// # Panics
/// All accessors panic on offsets beyond the mapping or not a multiple of the word's size: callers check what comes from
/// the file before they use it as an offset.
#[derive(Debug)]
pub struct SharedMap {
    start: NonNull<u8>,
    len_bytes: usize,
    writable: bool,
}

// SAFETY: the mapping lives as long as the value, which alone unmaps it, in `drop`.
unsafe impl Send for SharedMap {}
// SAFETY: words are atomics; other bytes are written once before they are published (the contract above).
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps the first `len` bytes of an open file, which are all of it; `fresh`: it was made just now.
    pub(crate) fn of_file(file: &File, len: u64, writable: bool, fresh: bool) -> io::Result<Self> {
        let len_bytes = usize::try_from(len)
            .ok()
            .filter(|&len| len > 0 && isize::try_from(len).is_ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "empty, or longer than the address space"))?;
        let rights = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        if len_bytes >= HUGE_PAGE_BYTES {
            return Ok(Self { start: map_aligned(file, len_bytes, rights)?, len_bytes, writable });
        }
        // New files are written from end to end: their pages are entered into the page tables at once, not one by one.
        let flags = if fresh { MapFlags::SHARED | MapFlags::POPULATE } else { MapFlags::SHARED };
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that Rust knows of.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len_bytes, rights, flags, file, 0)? };
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped a file at address zero"))?;
        Ok(Self { start, len_bytes, writable })
    }

    /// Asks for 2 MiB pages where the file has none yet (`MADV_COLLAPSE`, kernel 6.1). Memory file systems give them, for all
    /// mappings of the file; others refuse, and nothing has changed.
    pub(crate) fn collapse(&self) {
        for at in (0..self.len_bytes / HUGE_PAGE_BYTES).map(|piece| piece * HUGE_PAGE_BYTES) {
            let at = self.start.as_ptr().wrapping_add(at);
            // SAFETY: the piece lies inside this live mapping. MADV_COLLAPSE moves pages without changing content or rights,
            // and gives holes pages of zeros.
            if unsafe { libc::madvise(at.cast(), HUGE_PAGE_BYTES, libc::MADV_COLLAPSE) } != 0 {
                break;
            }
        }
    }

    /// Length in bytes.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    #[inline]
    fn word(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset.is_multiple_of(bytes) && offset < self.len_bytes && self.len_bytes - offset >= bytes);
        self.start.as_ptr().wrapping_add(offset)
    }

    #[inline]
    fn u64_at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside the mapping and aligned, by the assertion in `word`; the mapping lives as long as `self`, and
        // everybody touches this word as an atomic, unless it is one of bytes that do not change any more (the contract).
        unsafe { AtomicU64::from_ptr(self.word(offset, 8).cast()) }
    }

    /// The value of a word, without order.
    #[inline]
    pub fn load_relaxed(&self, offset: usize) -> u64 {
        self.u64_at(offset).load(Ordering::Relaxed)
    }

    /// The value of a word; what its writer did before it [`store`](Self::store)d it is seen afterwards. A relaxed load and
    /// a fence, since only those are defined on a read-only mapping.
    #[inline]
    pub fn load(&self, offset: usize) -> u64 {
        let value = self.u64_at(offset).load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }

    /// Publishes a word: who [`load`](Self::load)s it sees everything that this thread did before.
    #[inline]
    pub fn store(&self, offset: usize, value: u64) {
        assert!(self.writable, "a write to a read-only mapping");
        self.u64_at(offset).store(value, Ordering::Release);
    }

    /// A word of 32 bits, for [`futex`](crate::futex).
    #[inline]
    pub fn u32_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `u64_at`.
        unsafe { AtomicU32::from_ptr(self.word(offset, 4).cast()) }
    }

    /// Bytes that were published and so do not change any more; `None` if they are not all inside.
    #[inline]
    pub fn bytes(&self, offset: usize, len: usize) -> Option<&[u8]> {
        if offset > self.len_bytes || self.len_bytes - offset < len {
            return None;
        }
        // SAFETY: inside the mapping, which lives as long as `self`; nobody changes published bytes (the contract).
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().wrapping_add(offset), len) })
    }

    /// Writes bytes that nobody else looks at yet.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(self.writable, "a write to a read-only mapping");
        assert!(offset <= self.len_bytes && self.len_bytes - offset >= bytes.len());
        // SAFETY: the target is inside the writable mapping, and `bytes` is a live slice elsewhere or in published bytes,
        // which do not overlap with unpublished ones.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().wrapping_add(offset), bytes.len()) }
    }

    /// Makes the kernel write all pages of the first `len` bytes again at the next sync, though nothing changes.
    pub fn touch(&self, len: usize) {
        assert!(self.writable, "a write to a read-only mapping");
        for offset in (0..len.min(self.len_bytes & !7)).step_by(4096) {
            let word = self.u64_at(offset);
            // Not an `or` with 0, which a compiler may take for a mere read.
            let value = word.load(Ordering::Relaxed);
            let _ = word.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Asks for the cache line with this byte; offsets beyond the end are ignored.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if let Some(byte) = self.bytes(offset, 1) {
            crate::prefetch::read(byte, 0);
        }
    }

    /// Address of a byte, for locks that live in this memory.
    pub(crate) fn address(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            self.writable && offset.is_multiple_of(8) && offset <= self.len_bytes && self.len_bytes - offset >= len
        );
        self.start.as_ptr().wrapping_add(offset)
    }

    /// Makes what was written durable (`msync`).
    pub(crate) fn sync(&self) -> io::Result<()> {
        loop {
            // SAFETY: all of this live mapping, whose content does not change by it.
            match unsafe { rustix::mm::msync(self.start.as_ptr().cast(), self.len_bytes, MsyncFlags::SYNC) } {
                Err(rustix::io::Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping and nothing borrowed from it is left.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a memory file system, where the kernel gives large pages at all.
    fn file(len: u64) -> File {
        let path = format!("/dev/shm/pheon-shared-test-{}-{len}", crate::process::random_id());
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn large_files_begin_at_a_large_page() {
        let page = HUGE_PAGE_BYTES as u64;
        for (len, aligned) in [(page, true), (2 * page + 4096, true), (page - 4096, false)] {
            let file = file(len);
            let map = SharedMap::of_file(&file, len, true, true).unwrap();
            let again = SharedMap::of_file(&file, len, false, false).unwrap();
            for map in [&map, &again] {
                assert_eq!(map.len_bytes() as u64, len);
                assert!(!aligned || map.start.addr().get().is_multiple_of(HUGE_PAGE_BYTES), "{:?}", map.start);
            }
        }
    }

    #[test]
    fn collapsing_changes_no_content() {
        let len = 2 * HUGE_PAGE_BYTES as u64 + 4096;
        let file = file(len);
        let map = SharedMap::of_file(&file, len, true, true).unwrap();
        let reader = SharedMap::of_file(&file, len, false, false).unwrap();
        let offsets: Vec<usize> = (0..len as usize).step_by(4096 * 7).collect();
        for &at in &offsets {
            map.store(at, at as u64 + 1);
        }
        map.collapse();
        for &at in &offsets {
            assert_eq!(reader.load(at), at as u64 + 1);
            assert_eq!(reader.load(at + 8), 0);
            map.store(at + 8, at as u64 + 2);
            assert_eq!(reader.load(at + 8), at as u64 + 2);
        }
    }
}
