//! Read-only shared mappings of whole files, and the kernel's advice about them.
//!
//! All calls of `mmap`, `madvise`, `mlock` and `mincore` are here.
#![allow(unsafe_code)] // system calls on address ranges have no safe form

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags};

/// The size of a large page, and the alignment that lets the kernel use them: 2 MiB on x86_64 and on 4 KiB aarch64.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Pages asked about in one `mincore` call: 64 Ki answers, one byte each.
const MINCORE_PAGES_MAX: usize = 64 << 10;

/// One `MADV_POPULATE_READ` or `mlock` call: large enough to be cheap, small enough that a disk of 20 MB/s does not keep
/// somebody waiting who wants to stop: the kernel does not end such a call for a signal, unless it kills.
const STEP_BYTES: usize = 16 << 20;

/// A whole file, mapped read-only and shared: the bytes are the page cache's own, one copy for all processes.
///
/// # Soundness contract
/// `&[u8]` promises that the bytes do not change while it lives. The kernel cannot promise that for a file, so the store
/// does: **a published file is never written, truncated or replaced in place**; it is created under a temporary name,
/// completed, synced, made read-only (0440), and afterwards only ever unlinked. An unlinked file's mapping stays valid.
/// Map published files only, or files that nobody else can know of.
///
/// Somebody with the rights to do so can break this from outside (as root, or after `chmod`):
/// * *truncating* a mapped file makes the next read beyond the new end raise `SIGBUS`, which kills the process by
///   default. So do an I/O error of the disk under the page and a network file system that goes away.
/// * *overwriting* a mapped file makes the bytes change under a live slice. Readers check bounds at each use and compare
///   keys, so wrong answers are what to expect, but the language gives no guarantee from there on.
///
/// Neither can be detected reliably or handled by a library without taking over the process's signal handlers; the
/// store's checksums (`verify`) find an overwritten file afterwards.
///
/// # Memory
/// Mapping costs address space only (it counts towards `RLIMIT_AS`), not committed memory, and so works with
/// `vm.overcommit_memory=2`. Files of 2 MiB or more are placed at a multiple of 2 MiB, so that they can have large pages;
/// whoever maps one says how it will be read ([`advise_huge`](ReadMap::advise_huge) or
/// [`advise_random`](ReadMap::advise_random)) before reading it.
/// After a `fork` the child has the mapping too, at the same address.
#[derive(Debug)]
pub struct ReadMap {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping is read-only and its owner is the only one who unmaps it, in `drop`; any thread may read or drop.
unsafe impl Send for ReadMap {}
// SAFETY: shared use only reads bytes and calls system calls that are thread-safe.
unsafe impl Sync for ReadMap {}

/// What came of asking for large pages now: see [`ReadMap::advise_collapse`].
#[derive(Debug, Default)]
pub struct CollapseReport {
    /// Bytes in whole, aligned 2 MiB pieces of the range: all that could become large pages.
    pub eligible_bytes: u64,
    /// Bytes that are in large pages now as far as the kernel told us.
    pub collapsed_bytes: u64,
    /// The first refusal, if any: `EINVAL` where this file system or kernel cannot do it at all.
    pub refusal: Option<io::Error>,
}

/// Maps the first `len` bytes of an open regular file, which are all of it.
pub(crate) fn map_file(file: &File, len: u64) -> io::Result<ReadMap> {
    let len_bytes = usize::try_from(len)
        .ok()
        .filter(|&len| isize::try_from(len).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "longer than the address space"))?;
    if len_bytes == 0 {
        #[repr(align(64))]
        struct Line;
        return Ok(ReadMap { start: NonNull::<Line>::dangling().cast(), len_bytes: 0 });
    }
    let start = if len_bytes >= HUGE_PAGE_BYTES {
        map_aligned(file, len_bytes, ProtFlags::READ)?
    } else {
        map_anywhere(file, len_bytes, ProtFlags::READ)?
    };
    Ok(ReadMap { start, len_bytes })
}

fn map_anywhere(file: &File, len_bytes: usize, rights: ProtFlags) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that Rust knows of.
    let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len_bytes, rights, MapFlags::SHARED, file, 0)? };
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped a file at address zero"))
}

/// Maps at a multiple of 2 MiB, which the kernel itself chooses for some file systems only: reserves 2 MiB more than
/// needed, puts the file at the aligned address inside, and gives the rest back.
pub(crate) fn map_aligned(file: &File, len_bytes: usize, rights: ProtFlags) -> io::Result<NonNull<u8>> {
    let page = rustix::param::page_size();
    let Some(reserved_bytes) = len_bytes.checked_next_multiple_of(page).and_then(|n| n.checked_add(HUGE_PAGE_BYTES))
    else {
        return map_anywhere(file, len_bytes, rights);
    };
    // SAFETY: a new inaccessible mapping at an address of the kernel's choice touches no memory that Rust knows of.
    let reserved =
        unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), reserved_bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
    let Ok(reserved) = reserved else {
        // A tight RLIMIT_AS: the file itself may still fit.
        return map_anywhere(file, len_bytes, rights);
    };
    let head_bytes = reserved.addr().next_multiple_of(HUGE_PAGE_BYTES) - reserved.addr();
    let start = reserved.wrapping_byte_add(head_bytes);
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: [start, start + len) lies inside the reservation made above (head_bytes < 2 MiB, and the reservation is
    // 2 MiB longer than the file rounded up to pages). Nobody else knows that reservation, so replacing part of it
    // touches no memory in use.
    let mapped = unsafe { rustix::mm::mmap(start, len_bytes, rights, flags, file, 0) };
    // Also after a failure the middle is left alone: a kernel may have taken it away before it failed, and then somebody
    // else's memory may be there by now. The loss is address space only, and the failure (too many mappings) is rare.
    let (keep_from, keep_to) = (head_bytes, head_bytes + len_bytes.next_multiple_of(page));
    for piece in [0..keep_from, keep_to..reserved_bytes] {
        if !piece.is_empty() {
            // SAFETY: both pieces lie inside the reservation, outside the file's pages, and nobody else knows them.
            // They begin at multiples of the page size, because the reservation, the aligned start and `keep_to` do.
            let _ = unsafe { rustix::mm::munmap(reserved.wrapping_byte_add(piece.start), piece.len()) };
        }
    }
    NonNull::new(mapped?.cast()).ok_or_else(|| io::Error::other("the kernel mapped a file at address zero"))
}

impl ReadMap {
    /// Tells the kernel that reads will jump about: a fault brings in one page and nothing around it. Good for lookups in
    /// files larger than memory, bad for scans. Large pages that are in the page cache already are mapped as such. Has no
    /// effect after [`advise_huge`](Self::advise_huge)`(true)`.
    pub fn advise_random(&self) {
        let _ = self.advise(0..self.len_bytes, Advice::Random);
    }

    /// Asks the kernel to read these bytes (end exclusive, clipped to the file) into the page cache in the background.
    pub fn advise_willneed(&self, range: Range<usize>) {
        let _ = self.advise(range, Advice::WillNeed);
    }

    /// Asks for 2 MiB pages *now*, piece by piece (`MADV_COLLAPSE`, kernel 6.1): the content is read and copied, about
    /// 0.3 s a GB, and stays so for later mappings by anybody. Works on `/dev/shm` and other memory file systems; disk
    /// file systems refuse it. Never changes what is read. Ends early once `cancel`, asked before each piece, is true.
    pub fn advise_collapse(&self, cancel: &dyn Fn() -> bool) -> CollapseReport {
        let mut report = CollapseReport::default();
        let first = self.start.addr().get().next_multiple_of(HUGE_PAGE_BYTES) - self.start.addr().get();
        if first >= self.len_bytes {
            return report;
        }
        let pieces = (self.len_bytes - first) / HUGE_PAGE_BYTES;
        report.eligible_bytes = (pieces * HUGE_PAGE_BYTES) as u64;
        for piece in 0..pieces {
            if cancel() {
                break;
            }
            let at = self.start.as_ptr().wrapping_add(first + piece * HUGE_PAGE_BYTES);
            // SAFETY: the piece lies inside this live mapping (first + pieces * 2 MiB <= len_bytes). MADV_COLLAPSE moves
            // pages without changing content or rights.
            let refused = unsafe { libc::madvise(at.cast(), HUGE_PAGE_BYTES, libc::MADV_COLLAPSE) } != 0;
            if !refused {
                report.collapsed_bytes += HUGE_PAGE_BYTES as u64;
                continue;
            }
            let error = io::Error::last_os_error();
            let hopeless = error.raw_os_error() == Some(libc::EINVAL);
            report.refusal.get_or_insert(error);
            if hopeless && report.collapsed_bytes == 0 {
                break;
            }
        }
        report
    }

    /// Says whether the kernel may use large pages for this mapping, wherever it can (`MADV_HUGEPAGE`) or never
    /// (`MADV_NOHUGEPAGE`). For pages that are brought in later: on ext4 it brings large pages back after the cache was
    /// dropped. A fault then reads 2 MiB from the disk and asks for 2 MiB more, whatever else was advised.
    ///
    /// # Errors
    /// `EINVAL` where the kernel was built without large pages.
    pub fn advise_huge(&self, wanted: bool) -> io::Result<()> {
        let advice = if wanted { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
        Ok(self.advise(0..self.len_bytes, advice)?)
    }

    /// Reads the whole file into the page cache and enters it into this process's page tables, so that no later read
    /// faults (`MADV_POPULATE_READ`; before kernel 5.14 only the read-ahead is started). Asks `cancel` before each 16 MiB
    /// and returns whether it got to the end.
    ///
    /// # Errors
    /// `EFAULT` when a page cannot be read: the file was truncated, or its disk fails. No signal is raised.
    pub fn populate(&self, cancel: &dyn Fn() -> bool) -> io::Result<bool> {
        let mut from = 0;
        while from < self.len_bytes {
            if cancel() {
                return Ok(false);
            }
            let to = self.len_bytes.min(from + STEP_BYTES);
            match self.advise(from..to, Advice::LinuxPopulateRead) {
                Ok(()) => from = to,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(rustix::io::Errno::INVAL) => {
                    self.advise_willneed(from..self.len_bytes);
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Keeps all pages of this mapping in memory until it is dropped (`mlock`), and so in the page cache for everybody.
    /// Counts against this process's `RLIMIT_MEMLOCK`; a child made by `fork` does not inherit it. Asks `cancel` before each
    /// 16 MiB and returns whether it got to the end; otherwise, and after an error, nothing of it is locked.
    ///
    /// # Errors
    /// `ENOMEM` beyond the limit, `EPERM` where the limit is 0, `EAGAIN` where some pages could not be locked.
    pub fn lock(&self, cancel: &dyn Fn() -> bool) -> io::Result<bool> {
        let mut from = 0;
        while from < self.len_bytes {
            let step = self.len_bytes.min(from + STEP_BYTES) - from;
            let at = self.start.as_ptr().wrapping_add(from).cast();
            let stopped = if cancel() {
                Ok(false)
            } else {
                // SAFETY: [at, at + step) lies inside this live mapping. Locking changes when pages leave memory, never what
                // they hold.
                match unsafe { rustix::mm::mlock(at, step) } {
                    Ok(()) => {
                        from += step;
                        continue;
                    }
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => Err(error.into()),
                }
            };
            self.unlock();
            return stopped;
        }
        Ok(true)
    }

    /// Gives up what [`lock`](Self::lock) locked.
    pub fn unlock(&self) {
        if self.len_bytes > 0 {
            // SAFETY: all of this live mapping, and nothing else. Unlocking never changes what pages hold.
            let _ = unsafe { rustix::mm::munlock(self.start.as_ptr().cast(), self.len_bytes) };
        }
    }

    /// How many of the file's bytes are in the page cache now, whoever read them, in whole pages but never more than the
    /// file has (`mincore`). The kernel answers truly only to somebody who owns the file or may write it; others are told
    /// that everything is resident.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let page = rustix::param::page_size();
        let mut answers = vec![0u8; MINCORE_PAGES_MAX.min(self.len_bytes.div_ceil(page))];
        let mut resident: u64 = 0;
        let mut from = 0;
        while from < self.len_bytes {
            let len = (answers.len() * page).min(self.len_bytes - from);
            let at = self.start.as_ptr().wrapping_add(from);
            // SAFETY: [at, at + len) lies inside this live mapping and `at` is page-aligned, since `from` is a multiple
            // of the page size; `answers` has a byte for each of its pages, and only those are written.
            if unsafe { libc::mincore(at.cast(), len, answers.as_mut_ptr().cast()) } != 0 {
                let error = io::Error::last_os_error();
                if error.raw_os_error() == Some(libc::EAGAIN) {
                    continue;
                }
                return Err(error);
            }
            for (i, answer) in answers[..len.div_ceil(page)].iter().enumerate() {
                if answer & 1 != 0 {
                    resident += page.min(len - i * page) as u64;
                }
            }
            from += len;
        }
        Ok(resident)
    }

    /// Gives advice that does not change content about the pages that hold `range`, clipped to the file.
    fn advise(&self, range: Range<usize>, advice: Advice) -> rustix::io::Result<()> {
        let end = range.end.min(self.len_bytes);
        let start = range.start - range.start % rustix::param::page_size();
        if start >= end {
            return Ok(());
        }
        // SAFETY: [start, end) lies inside this live mapping and begins at a page. The advice given in this module
        // (random, will-need, huge pages or none, populate for reading) changes when pages are brought in, never what they hold.
        unsafe { rustix::mm::madvise(self.start.as_ptr().wrapping_add(start).cast(), end - start, advice) }
    }
}

impl Deref for ReadMap {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` is non-null and, unless the length is 0, the beginning of a live readable mapping of
        // `len_bytes` <= isize::MAX bytes, which `drop` alone removes; u8 has no invalid values. That the bytes do not
        // change is the contract of the type.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len_bytes) }
    }
}

impl AsRef<[u8]> for ReadMap {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for ReadMap {
    fn drop(&mut self) {
        if self.len_bytes > 0 {
            // SAFETY: this is the mapping made in `map_file`, and no slice of it can outlive `self`. The kernel rounds the
            // length up to pages as it did when mapping.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len_bytes) };
        }
    }
}

/// How often this thread has waited for a page to come from a disk so far.
pub fn disk_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes one `rusage`, for which `usage` has room, and nothing else.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } != 0 {
        return 0;
    }
    // SAFETY: the call succeeded, and so has filled it in.
    u64::try_from(unsafe { usage.assume_init() }.ru_majflt).unwrap_or(0)
}

/// Asks the kernel to begin writing dirty pages of a file to its disk (`sync_file_range`); errors are ignored.
pub(crate) fn start_writeback(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: takes an open descriptor and numbers only; no memory is involved.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mapped(bytes: &[u8]) -> ReadMap {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, bytes).unwrap();
        crate::fs::real().map(&path).unwrap() // the file is unlinked at once; the mapping stays
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[7]).collect()
    }

    /// Address ranges of this process as `/proc/self/maps` lists them.
    fn address_ranges() -> Vec<Range<usize>> {
        let text = fs::read_to_string("/proc/self/maps").unwrap();
        let range = |line: &str| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        };
        text.lines().filter_map(range).collect()
    }

    #[test]
    fn maps_show_the_file_at_any_length() {
        let huge = HUGE_PAGE_BYTES;
        for len in [0, 1, 4095, 4096, 4097, huge - 1, huge, huge + 1, 2 * huge + 5000] {
            let bytes = pattern(len);
            let map = mapped(&bytes);
            assert!(map[..] == bytes[..], "{len}");
            if len >= huge {
                assert_eq!(map.as_ptr().addr() % huge, 0, "{len}");
            }
            map.advise_random();
            map.advise_willneed(0..usize::MAX);
            map.advise_willneed(len + 1..len + 2);
            assert!(map.populate(&|| false).unwrap());
            assert_eq!(map.resident_bytes().unwrap(), len as u64);
            assert!(map.as_ref() == &bytes[..]);
        }
    }

    #[test]
    fn pages_that_come_from_a_disk_are_counted() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap(); // not in memory
        let path = dir.path().join("file");
        fs::write(&path, pattern(1 << 20)).unwrap();
        let file = fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let map = crate::fs::real().map(&path).unwrap();
        map.advise_random();
        if map.resident_bytes().unwrap() != 0 {
            return; // a file system that keeps what it has
        }
        let before = disk_faults();
        let sum: u32 = (0..8).map(|i| u32::from(map[i * 65536])).sum();
        assert!((1..=8).contains(&(disk_faults() - before)), "{sum}");
        assert!(map.resident_bytes().unwrap() <= 8 * 4096); // nothing around them
        let before = disk_faults();
        assert_eq!((0..8).map(|i| u32::from(map[i * 65536])).sum::<u32>(), sum);
        assert_eq!(disk_faults(), before);
    }

    #[test]
    fn a_map_takes_its_own_pages_of_address_space_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, pattern(3 * HUGE_PAGE_BYTES + 1)).unwrap();
        // In a child, since nobody else maps anything there.
        let child = crate::forked_child::Child::fork(|| {
            let taken = || address_ranges().iter().map(ExactSizeIterator::len).sum::<usize>();
            let fs = crate::fs::real();
            taken(); // the allocator grows now
            let before = taken();
            let map = fs.map(&path).unwrap();
            let during = taken();
            drop(map);
            during == before + 3 * HUGE_PAGE_BYTES + rustix::param::page_size() && taken() == before
        });
        child.kill();
    }

    #[test]
    fn a_second_thread_reads_and_drops() {
        let bytes = pattern(10_000);
        let map = mapped(&bytes);
        let sum = std::thread::spawn(move || map.iter().map(|&b| u64::from(b)).sum::<u64>()).join().unwrap();
        assert_eq!(sum, bytes.iter().map(|&b| u64::from(b)).sum::<u64>());
    }

    #[test]
    fn mapping_a_folder_or_a_missing_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let fs = crate::fs::real();
        assert_eq!(fs.map(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs.map(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn populate_reports_a_truncated_file_instead_of_a_signal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, pattern(64 << 10)).unwrap();
        let map = crate::fs::real().map(&path).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
        assert_eq!(map.populate(&|| false).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert_eq!(map[..4096], pattern(4096)); // what is still there still reads
    }

    #[test]
    fn a_map_fits_where_only_the_file_itself_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        const LEN: usize = 512 << 20;
        fs::File::create(&path).unwrap().set_len(LEN as u64).unwrap();
        let child = crate::forked_child::Child::fork(|| {
            // Address space for the file and 1 MiB, which is less than aligning it by ourselves takes.
            let used: usize = address_ranges().iter().map(ExactSizeIterator::len).sum();
            let most = (used + LEN + (1 << 20)) as libc::rlim_t;
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: reads one `rlimit`, which lives across the call; only this child is limited.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
            let map = crate::fs::real().map(&path).unwrap();
            let refused = crate::fs::real().map(&path).unwrap_err().kind() == io::ErrorKind::OutOfMemory;
            map.len() == LEN && map[LEN - 1] == 0 && refused
        });
        child.kill();
    }

    #[test]
    fn collapse_reports_honest_numbers_and_changes_no_byte() {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
        let path = dir.path().join("file");
        let bytes = pattern(3 * HUGE_PAGE_BYTES + 777);
        fs::write(&path, &bytes).unwrap();
        let map = crate::fs::real().map(&path).unwrap();
        let report = map.advise_collapse(&|| false);
        assert_eq!(report.eligible_bytes, 3 * HUGE_PAGE_BYTES as u64);
        assert!(report.collapsed_bytes <= report.eligible_bytes);
        assert_eq!(report.collapsed_bytes == report.eligible_bytes, report.refusal.is_none(), "{report:?}");
        assert!(map[..] == bytes[..]);
        let small = mapped(&pattern(5000)).advise_collapse(&|| false);
        assert_eq!((small.eligible_bytes, small.collapsed_bytes), (0, 0));
    }

    fn status_bytes(name: &str) -> u64 {
        crate::process::kib_field(&fs::read_to_string("/proc/self/status").unwrap(), name).unwrap()
    }

    #[test]
    fn a_lock_lasts_until_the_map_is_dropped_and_a_refused_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let len = STEP_BYTES + (1 << 20);
        fs::write(&path, pattern(len)).unwrap();
        // In a child, since what is locked belongs to the process.
        let child = crate::forked_child::Child::fork(|| {
            let map = crate::fs::real().map(&path).unwrap();
            if map.lock(&|| false).is_err() {
                return status_bytes("VmLck:") == 0; // a user's limit is often less than this file
            }
            assert_eq!(status_bytes("VmLck:"), len as u64);
            drop(map);
            assert_eq!(status_bytes("VmLck:"), 0);
            let map = crate::fs::real().map(&path).unwrap();
            let asked = std::cell::Cell::new(0);
            let second = || asked.replace(asked.get() + 1) > 0;
            assert!(!map.lock(&second).unwrap());
            assert_eq!(status_bytes("VmLck:"), 0);
            true
        });
        child.kill();
    }

    #[test]
    fn who_asks_to_stop_is_heard_before_the_next_piece() {
        let map = mapped(&pattern(2 * STEP_BYTES));
        let asked = std::cell::Cell::new(0);
        let third = || asked.replace(asked.get() + 1) == 1;
        assert!(!map.populate(&third).unwrap());
        assert_eq!(asked.get(), 2);
        assert_eq!(map.advise_collapse(&|| true).collapsed_bytes, 0);
    }
}
