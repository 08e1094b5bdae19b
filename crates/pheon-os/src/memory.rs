//! What mapped files cost in memory, in numbers that a person understands.
//!
//! A page of a mapped file lives once in the page cache, however many processes map it. The kernel's *proportional set
//! size* (PSS) divides each page among the processes that have it in their page tables, so that the PSS of all processes
//! adds up to what is really used.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fs::real;
use crate::process::kib_field;

/// What one file costs. All fields are of one moment, but not of exactly the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileMemory {
    /// Length of the file.
    pub len_bytes: u64,
    /// Blocks that its file system has given to it: less than its length where it has holes or is compressed.
    pub on_disk_bytes: u64,
    /// Bytes of it in the page cache, whoever brought them there. True only for the file's owner and those who may write
    /// it; the kernel tells everybody else that all is resident.
    pub resident_bytes: u64,
    /// This process's proportional share of the pages that it has in its page tables.
    pub process_pss_bytes: u64,
    /// Bytes in pages that are in page tables once only, here. A process that maps a file twice shares with itself.
    pub process_private_bytes: u64,
    /// Bytes that this process maps by large (2 MiB) pages, added up over its mappings of the file.
    pub huge_bytes: u64,
    /// How many processes map this file, this one included, of those whose maps we may read; `None` without `/proc`.
    pub mapped_by_processes: Option<u32>,
}

/// Measures files, whether this process maps them or not. Walks this process's page tables once, and reads the maps of
/// every process that it may: milliseconds, more with hundreds of processes.
///
/// # Errors
/// When a file or this process's `/proc/self/smaps` cannot be read.
pub fn of_files(paths: &[PathBuf]) -> io::Result<Vec<FileMemory>> {
    let targets: Vec<Target> = paths.iter().map(|path| Target::new(path)).collect::<io::Result<_>>()?;
    let mut answers = Vec::with_capacity(paths.len());
    for (path, target) in paths.iter().zip(&targets) {
        let resident_bytes = real().map(path)?.resident_bytes()?;
        answers.push(FileMemory {
            len_bytes: target.len_bytes,
            on_disk_bytes: target.on_disk_bytes,
            resident_bytes,
            ..FileMemory::default()
        });
    }
    for region in parse_smaps(&fs::read_to_string("/proc/self/smaps")?) {
        for (answer, _) in answers.iter_mut().zip(&targets).filter(|(_, target)| target.is_mapped_by(&region.place)) {
            answer.process_pss_bytes += region.pss_bytes;
            answer.process_private_bytes += region.private_bytes;
            answer.huge_bytes += region.huge_bytes;
        }
    }
    if let Some(counts) = count_processes(&targets) {
        for (answer, count) in answers.iter_mut().zip(counts) {
            answer.mapped_by_processes = Some(count);
        }
    }
    Ok(answers)
}

/// The proportional set size of a whole process: its private memory and its share of what it shares.
///
/// # Errors
/// `NotFound` when there is no such process, `PermissionDenied` when it is another user's.
pub fn process_pss_bytes(pid: u32) -> io::Result<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?, "Pss:")
}

/// Memory that a process shares with nobody, file pages included that it alone has in its page tables.
///
/// # Errors
/// As [`process_pss_bytes`].
pub fn process_private_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(field(&text, "Private_Clean:")? + field(&text, "Private_Dirty:")?)
}

/// Memory of a process's page tables, which no set size includes: 8 bytes for each page of 4 KiB it has touched.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn page_table_bytes(pid: u32) -> io::Result<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmPTE:")
}

fn field(text: &str, name: &str) -> io::Result<u64> {
    let missing = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc has no field {name}"));
    kib_field(text, name).ok_or_else(missing)
}

/// A file to look for in the maps of processes.
struct Target {
    len_bytes: u64,
    on_disk_bytes: u64,
    place: Place,
}

/// What a line of `/proc/<pid>/maps` says about where its pages come from.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    dev: (u32, u32),
    ino: u64,
    path: String,
}

impl Target {
    fn new(path: &Path) -> io::Result<Target> {
        let meta = fs::metadata(path)?;
        let dev = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        let path = fs::canonicalize(path)?.to_string_lossy().into_owned();
        let place = Place { dev, ino: meta.ino(), path };
        Ok(Target { len_bytes: meta.len(), on_disk_bytes: meta.blocks() * 512, place })
    }

    /// By device and inode or by path, since btrfs and overlayfs show another device in maps than in `stat`. The path of
    /// a file that was replaced does not match: the kernel adds ` (deleted)` to it.
    fn is_mapped_by(&self, region: &Place) -> bool {
        (region.ino == self.place.ino && region.dev == self.place.dev) || region.path == self.place.path
    }
}

/// The place in a header line of `maps` or `smaps`, such as
/// `7f1c0000-7f1c2000 r--s 00000000 fe:00 131 /store/data.arrow`; `None` for other lines and for anonymous memory.
fn parse_place(line: &str) -> Option<Place> {
    let mut rest = line;
    let mut next = || {
        let (word, tail) = rest.split_once(' ')?;
        rest = tail.trim_start_matches(' ');
        Some(word)
    };
    let (range, _rights, _offset, dev, ino) = (next()?, next()?, next()?, next()?, next()?);
    let (from, to) = range.split_once('-')?;
    u64::from_str_radix(from, 16).and(u64::from_str_radix(to, 16)).ok()?;
    let (major, minor) = dev.split_once(':')?;
    let dev = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let ino = ino.parse().ok().filter(|&ino| ino != 0)?;
    Some(Place { dev, ino, path: rest.replace("\\012", "\n") })
}

/// A file-backed region of this process.
struct Region {
    place: Place,
    pss_bytes: u64,
    private_bytes: u64,
    huge_bytes: u64,
}

fn parse_smaps(text: &str) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    let mut in_file = false;
    for line in text.lines() {
        // Field lines begin with a capital letter, header lines with an address.
        if !line.starts_with(|c: char| c.is_ascii_uppercase()) {
            let place = parse_place(line);
            in_file = place.is_some();
            regions.extend(place.map(|place| Region { place, pss_bytes: 0, private_bytes: 0, huge_bytes: 0 }));
            continue;
        }
        let Some(region) = regions.last_mut().filter(|_| in_file) else { continue };
        let Some((name, value)) = line.split_once(':') else { continue };
        let bytes = || kib_field(value, "").unwrap_or(0);
        match name {
            "Pss" => region.pss_bytes += bytes(),
            "Private_Clean" | "Private_Dirty" => region.private_bytes += bytes(),
            "FilePmdMapped" | "ShmemPmdMapped" => region.huge_bytes += bytes(),
            _ => {}
        }
    }
    regions
}

/// For each target, how many processes map it.
fn count_processes(targets: &[Target]) -> Option<Vec<u32>> {
    let mut counts = vec![0; targets.len()];
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // Another user's, or gone by now.
        let Ok(maps) = fs::read(entry.path().join("maps")) else { continue };
        let maps = String::from_utf8_lossy(&maps);
        let places: Vec<Place> = maps.lines().filter_map(parse_place).collect();
        for (count, target) in counts.iter_mut().zip(targets) {
            *count += u32::from(places.iter().any(|place| target.is_mapped_by(place)));
        }
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_child::Child;
    use crate::process;

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
        let first = (regions[0].pss_bytes, regions[0].private_bytes, regions[0].huge_bytes);
        assert_eq!(first, (1050 * 1024, 104 * 1024, 2048 * 1024));
        assert_eq!((regions[1].place.ino, regions[1].pss_bytes), (9, 7 * 1024));
    }

    #[test]
    fn a_mapped_and_read_file_is_counted_and_an_unmapped_one_is_not() {
        let _no_children = crate::forked_child::none();
        const LEN: usize = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let (read, idle) = (dir.path().join("read it"), dir.path().join("idle"));
        fs::write(&read, vec![1u8; LEN]).unwrap();
        fs::write(&idle, vec![1u8; LEN]).unwrap();
        let map = real().map(&read).unwrap();
        assert_eq!(map.iter().map(|&b| b as usize).sum::<usize>(), LEN);
        let answers = of_files(&[read.clone(), idle]).unwrap();
        for answer in &answers {
            assert_eq!(answer.len_bytes, LEN as u64);
            assert_eq!(answer.resident_bytes, LEN as u64); // just written
        }
        assert_eq!(answers[0].mapped_by_processes, Some(1));
        assert_eq!(answers[1].mapped_by_processes, Some(0));
        assert_eq!(answers[0].process_pss_bytes, LEN as u64);
        assert_eq!(answers[0].process_private_bytes, LEN as u64);
        assert_eq!((answers[1].process_pss_bytes, answers[1].process_private_bytes), (0, 0));
        drop(map);
        assert_eq!(of_files(&[read]).unwrap()[0].process_pss_bytes, 0);
    }

    #[test]
    fn two_maps_of_one_process_are_one_process() {
        let _no_children = crate::forked_child::none();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![1u8; 4096]).unwrap();
        let maps = [real().map(&path).unwrap(), real().map(&path).unwrap()];
        assert_eq!(maps[0][0] + maps[1][4095], 2);
        let answer = of_files(&[path]).unwrap()[0];
        assert_eq!((answer.mapped_by_processes, answer.process_pss_bytes), (Some(1), 4096));
    }

    #[test]
    fn a_second_process_shares_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![1u8; 8 * 4096]).unwrap();
        let map = real().map(&path).unwrap();
        map.populate().unwrap();
        let child = Child::fork(|| map.iter().map(|&b| u64::from(b)).sum::<u64>() == 8 * 4096);
        let answer = of_files(&[path]).unwrap()[0];
        // Tests beside this one may have forked too.
        assert!(answer.mapped_by_processes >= Some(2), "{answer:?}");
        assert!(answer.process_pss_bytes <= 4 * 4096, "{answer:?}");
        assert_eq!((answer.process_private_bytes, answer.resident_bytes), (0, 8 * 4096));
        assert!(process_pss_bytes(child.pid()).unwrap() > 0);
    }

    #[test]
    fn a_hole_is_length_without_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let answer = of_files(&[path]).unwrap()[0];
        assert_eq!((answer.len_bytes, answer.on_disk_bytes), (1 << 20, 0));
    }

    #[test]
    fn a_process_has_memory_and_an_absent_one_is_an_error() {
        let pid = process::pid();
        let pss = process_pss_bytes(pid).unwrap();
        assert!(pss > 100 << 10, "{pss}");
        assert!(process_private_bytes(pid).unwrap() <= pss);
        assert!(page_table_bytes(pid).unwrap() > 0);
        assert_eq!(process_pss_bytes(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(of_files(&[PathBuf::from("/absent")]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
