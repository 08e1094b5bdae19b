//! What the kernel tells about one file-backed region of a process: `maps`, `smaps` and `pagemap` in `/proc`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::process::kib_field;

/// Bits of a `pagemap` entry that say that the page tables hold something: present, or swapped out.
const IN_TABLES: u64 = 1 << 63 | 1 << 62;
/// Entries of `pagemap` read at once: 64 KiB of them.
const ENTRIES_MAX: usize = 8 << 10;

/// Where the pages of a region come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dev: (u32, u32),
    pub(super) ino: u64,
    pub(super) path: String,
}

/// A file-backed region of a process.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) place: Place,
    /// First address.
    start: u64,
    /// Address after the last.
    end: u64,
    /// Place in the file of the first byte.
    pub(super) offset: u64,
    rss_bytes: u64,
    pub(super) pss_bytes: u64,
    pub(super) private_bytes: u64,
    pub(super) huge_bytes: u64,
}

/// The region that a header line of `maps` or `smaps` describes, such as
/// `7f1c0000-7f1c2000 r--s 00000000 fe:00 131 /store/data.arrow`; `None` for other lines and for anonymous memory.
pub(super) fn parse_header(line: &str) -> Option<Region> {
    let mut rest = line;
    let mut next = || {
        let (word, tail) = rest.split_once(' ')?;
        rest = tail.trim_start_matches(' ');
        Some(word)
    };
    let (range, _rights, offset, dev, ino) = (next()?, next()?, next()?, next()?, next()?);
    let (start, end) = range.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (major, minor) = dev.split_once(':')?;
    let dev = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let ino = ino.parse().ok().filter(|&ino| ino != 0)?;
    Some(Region {
        place: Place { dev, ino, path: rest.replace("\\012", "\n") },
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        rss_bytes: 0,
        pss_bytes: 0,
        private_bytes: 0,
        huge_bytes: 0,
    })
}

/// The file-backed regions of an `smaps` text, by ascending address.
pub(super) fn parse_smaps(text: &str) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    let mut in_file = false;
    for line in text.lines() {
        // Field lines begin with a capital letter, header lines with an address.
        if !line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let region = parse_header(line);
            in_file = region.is_some();
            regions.extend(region);
            continue;
        }
        let Some(region) = regions.last_mut().filter(|_| in_file) else { continue };
        let Some((name, value)) = line.split_once(':') else { continue };
        let bytes = || kib_field(value, "").unwrap_or(0);
        match name {
            "Rss" => region.rss_bytes += bytes(),
            "Pss" => region.pss_bytes += bytes(),
            "Private_Clean" | "Private_Dirty" => region.private_bytes += bytes(),
            "FilePmdMapped" | "ShmemPmdMapped" => region.huge_bytes += bytes(),
            _ => {}
        }
    }
    regions
}

/// Counts the page tables behind the regions of one process, which must be given by ascending address.
pub(super) struct PageTables {
    pagemap: File,
    page: u64,
    /// The number of the last table counted: a region that ends and its neighbour that begins in one share it.
    last: Option<u64>,
}

impl PageTables {
    /// # Errors
    /// What opening `/proc/<process>/pagemap` says: a kernel may be built without it.
    pub(super) fn of(process: &str) -> io::Result<Self> {
        let pagemap = File::open(format!("/proc/{process}/pagemap"))?;
        Ok(Self { pagemap, page: rustix::param::page_size() as u64, last: None })
    }

    /// Bytes of last-level page tables that hold a page of this region and none of a region counted before.
    ///
    /// A table is one page and holds an 8-byte entry for each page of an aligned span (2 MiB, with pages of 4 KiB). It is
    /// there if any entry is in use, unless a large page takes the place of the whole span. Not counted: the levels above
    /// (1/512 of this) and tables that became empty, which the kernel keeps until the region is unmapped.
    pub(super) fn bytes(&mut self, region: &Region) -> io::Result<u64> {
        let span = self.page * (self.page / 8);
        let (first, end) = (region.start / span, region.end.div_ceil(span));
        let large = region.huge_bytes / span;
        let mut tables = 0;
        if region.rss_bytes == region.end - region.start {
            let shared = self.last.is_some_and(|last| last >= first);
            tables = end - first - u64::from(shared);
            self.last = Some(end - 1);
        } else if region.rss_bytes > 0 {
            let mut entries = vec![0; ENTRIES_MAX * 8];
            let mut at = region.start / self.page;
            let to = region.end / self.page;
            while at < to {
                let count = (ENTRIES_MAX as u64).min(to - at);
                let read = self.pagemap.read_at(&mut entries[..count as usize * 8], at * 8)?;
                if read < 8 {
                    break; // the process is gone
                }
                for entry in entries[..read].as_chunks::<8>().0 {
                    let table = at * self.page / span;
                    if u64::from_ne_bytes(*entry) & IN_TABLES != 0 && self.last.is_none_or(|last| last < table) {
                        tables += 1;
                        self.last = Some(table);
                    }
                    at += 1;
                }
            }
        }
        Ok(tables.saturating_sub(large) * self.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_are_read_as_the_kernel_writes_them() {
        let text = "\
7f1c00000000-7f1c00400000 r--s 00000000 fe:0a 131    /store/my data.arrow
Size:               4096 kB
Rss:                2100 kB
Pss:                1050 kB
Pss_Dirty:            10 kB
Private_Clean:       100 kB
Private_Dirty:         4 kB
FilePmdMapped:      2048 kB
ShmemPmdMapped:        0 kB
VmFlags: rd mr me ms sd hg
7f1c00400000-7f1c00500000 rw-p 00000000 00:00 0
Pss:                 999 kB
7f1c00500000-7f1c00600000 r--s 00100000 00:1b 9      /dev/shm/x (deleted)
Pss:                   7 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0      [stack]
Pss:                  30 kB
";
        let regions = parse_smaps(text);
        assert_eq!(regions.len(), 2);
        let expected = Place { dev: (0xfe, 0x0a), ino: 131, path: "/store/my data.arrow".to_string() };
        assert_eq!(regions[0].place, expected);
        let first = &regions[0];
        assert_eq!((first.pss_bytes, first.private_bytes, first.huge_bytes), (1050 * 1024, 104 * 1024, 2048 * 1024));
        assert_eq!((first.end - first.start, first.rss_bytes, first.offset), (4 << 20, 2100 * 1024, 0));
        assert_eq!((regions[1].place.ino, regions[1].pss_bytes, regions[1].offset), (9, 7 * 1024, 1 << 20));
    }
}
