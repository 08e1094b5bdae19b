//! What mapped files cost in memory, in numbers that a person understands.
//!
//! A page of a mapped file lives once in the page cache, however many processes map it. The kernel's *proportional set
//! size* (PSS) divides each page among the processes that have it in their page tables, so that the PSS of all processes
//! adds up to what is really used.

#![allow(
    clippy::disallowed_methods,
    reason = "files of the kernel, and facts (`stat`, canonical path) about the files that are measured"
)]

mod region;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use self::region::{PageTables, Place, parse_header, parse_smaps};
use crate::fs::real;
use crate::process::{effective_uid, kib_field};

/// Whose mappings are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// This process's.
    #[default]
    ThisProcess,
    /// Those of all processes whose maps we may read: our own user's, or everybody's for root. Each of them that maps a
    /// file is measured, which holds it up a little: the kernel walks its page tables, some milliseconds a GiB.
    AllProcesses,
}

/// What one file costs. All fields are of one moment, but not of exactly the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileMemory {
    /// Length of the file.
    pub len_bytes: u64,
    /// Blocks that its file system has given to it: less than its length where it has holes or is compressed.
    pub on_disk_bytes: u64,
    /// Bytes of it in the page cache, whoever brought them there. `None` for a file that we neither own nor may write:
    /// the kernel would say that all of it is resident.
    pub resident_bytes: Option<u64>,
    /// Proportional share of the pages that are in page tables.
    pub pss_bytes: u64,
    /// Bytes in pages that are in page tables once only. A process that maps a file twice shares with itself.
    pub private_bytes: u64,
    /// Bytes mapped by large (2 MiB) pages. The part of a file that one process maps twice so counts once.
    pub huge_bytes: u64,
    /// Page tables behind the mappings. An estimate: one table of 4 KiB for each aligned 2 MiB of address space that holds
    /// a page of the file by a small page, as `/proc/<pid>/pagemap` tells; the upper levels (1/512 of that) and empty
    /// tables are left out, and a table that also serves a neighbour counts in full. `None` where the kernel does not tell.
    pub page_table_bytes: Option<u64>,
    /// How many processes map this file, this one included if it does, of those whose maps we may read; `None` without
    /// `/proc`.
    pub mapped_by_processes: Option<u32>,
}

/// What [`of_files`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// A file each, in the order in which they were given.
    pub files: Vec<FileMemory>,
    /// All page tables of the measured processes, whatever they map (`VmPTE`): of this process, or of all that map one of
    /// the files.
    pub page_table_bytes: u64,
}

/// Measures files, whether anybody maps them or not. Walks this process's page tables, and reads the maps of every
/// process that it may: milliseconds, more with hundreds of processes and some for each GiB mapped.
///
/// # Errors
/// When a file or this process's `/proc/self/smaps` cannot be read.
pub fn of_files(paths: &[PathBuf], scope: Scope) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut targets = Targets::default();
    for path in paths {
        let meta = fs::metadata(path)?;
        targets.add(survey.files.len(), path, &meta)?;
        let resident_bytes = if may_ask(path, &meta) { Some(real().map(path)?.resident_bytes()?) } else { None };
        survey.files.push(FileMemory {
            len_bytes: meta.len(),
            on_disk_bytes: meta.blocks() * BLOCK_BYTES,
            resident_bytes,
            page_table_bytes: Some(0),
            ..FileMemory::default()
        });
    }
    let mappers = count_processes(&targets, &mut survey.files);
    match (scope, mappers) {
        (Scope::AllProcesses, Some(mappers)) => {
            for process in mappers {
                // One that ended meanwhile costs nothing any more.
                let _ = measure(&process, &targets, &mut survey);
            }
        }
        _ => measure("self", &targets, &mut survey)?,
    }
    Ok(survey)
}

/// Blocks that a file's or folder's file system has given to it, in bytes.
///
/// # Errors
/// `NotFound` when there is no such file.
pub fn on_disk_bytes(path: &Path) -> io::Result<u64> {
    Ok(fs::symlink_metadata(path)?.blocks() * BLOCK_BYTES)
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

/// The unit of `st_blocks`, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

fn field(text: &str, name: &str) -> io::Result<u64> {
    let missing = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc has no field {name}"));
    kib_field(text, name).ok_or_else(missing)
}

/// Whether the kernel tells us truly what is in the page cache: it does to the owner and to those who may write.
fn may_ask(path: &Path, meta: &fs::Metadata) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    meta.uid() == effective_uid() || accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// The files to look for in the maps of processes.
#[derive(Default)]
struct Targets {
    by_inode: HashMap<((u32, u32), u64), usize>,
    by_path: HashMap<String, usize>,
}

impl Targets {
    fn add(&mut self, number: usize, path: &Path, meta: &fs::Metadata) -> io::Result<()> {
        let dev = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        self.by_inode.insert((dev, meta.ino()), number);
        self.by_path.insert(fs::canonicalize(path)?.to_string_lossy().into_owned(), number);
        Ok(())
    }

    /// By device and inode or by path, since btrfs and overlayfs show another device in maps than in `stat`. The path of
    /// a file that was replaced does not match: the kernel adds ` (deleted)` to it.
    fn find(&self, place: &Place) -> Option<usize> {
        self.by_inode.get(&(place.dev, place.ino)).or_else(|| self.by_path.get(&place.path)).copied()
    }
}

/// Adds to `survey` what a process (`self`, or digits) maps of the targets.
fn measure(process: &str, targets: &Targets, survey: &mut Survey) -> io::Result<()> {
    let regions = parse_smaps(&fs::read_to_string(format!("/proc/{process}/smaps"))?);
    let mut tables = PageTables::of(process).ok();
    // Regions of one file that begin at the same byte of it show the same pages.
    let mut huge: HashMap<(usize, u64), u64> = HashMap::new();
    for (number, region) in regions.iter().filter_map(|region| Some((targets.find(&region.place)?, region))) {
        let file = &mut survey.files[number];
        file.pss_bytes += region.pss_bytes;
        file.private_bytes += region.private_bytes;
        let found = tables.as_mut().and_then(|tables| tables.bytes(region).ok());
        file.page_table_bytes = file.page_table_bytes.zip(found).map(|(sum, found)| sum + found);
        let most = huge.entry((number, region.offset)).or_default();
        *most = region.huge_bytes.max(*most);
    }
    for ((number, _), bytes) in huge {
        survey.files[number].huge_bytes += bytes;
    }
    survey.page_table_bytes += field(&fs::read_to_string(format!("/proc/{process}/status"))?, "VmPTE:")?;
    Ok(())
}

/// Counts the processes that map each file; gives those that map any.
fn count_processes(targets: &Targets, files: &mut [FileMemory]) -> Option<Vec<String>> {
    let mut counts = vec![0; files.len()];
    let mut mappers = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(process) = entry.file_name().into_string() else { continue };
        if !process.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // Another user's, or gone by now.
        let Ok(maps) = fs::read(entry.path().join("maps")) else { continue };
        let maps = String::from_utf8_lossy(&maps);
        let places = maps.lines().filter_map(parse_header).map(|region| region.place);
        let mut found: Vec<usize> = places.filter_map(|place| targets.find(&place)).collect();
        found.sort_unstable();
        found.dedup();
        for &number in &found {
            counts[number] += 1;
        }
        if !found.is_empty() {
            mappers.push(process);
        }
    }
    for (file, count) in files.iter_mut().zip(counts) {
        file.mapped_by_processes = Some(count);
    }
    Some(mappers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_child::Child;
    use crate::process;

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
        let answers = of_files(&[read.clone(), idle], Scope::ThisProcess).unwrap().files;
        for answer in &answers {
            assert_eq!(answer.len_bytes, LEN as u64);
            assert_eq!(answer.resident_bytes, Some(LEN as u64)); // just written
        }
        assert_eq!(answers[0].mapped_by_processes, Some(1));
        assert_eq!(answers[1].mapped_by_processes, Some(0));
        assert_eq!(answers[0].pss_bytes, LEN as u64);
        assert_eq!(answers[0].private_bytes, LEN as u64);
        assert_eq!((answers[1].pss_bytes, answers[1].private_bytes), (0, 0));
        drop(map);
        assert_eq!(of_files(&[read], Scope::ThisProcess).unwrap().files[0].pss_bytes, 0);
    }

    #[test]
    fn two_maps_of_one_process_are_one_process() {
        let _no_children = crate::forked_child::none();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![1u8; 4096]).unwrap();
        let maps = [real().map(&path).unwrap(), real().map(&path).unwrap()];
        assert_eq!(maps[0][0] + maps[1][4095], 2);
        let answer = of_files(&[path], Scope::ThisProcess).unwrap().files[0];
        assert_eq!((answer.mapped_by_processes, answer.pss_bytes), (Some(1), 4096));
    }

    #[test]
    fn a_second_process_shares_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![1u8; 8 * 4096]).unwrap();
        let map = real().map(&path).unwrap();
        assert!(map.populate(&|| false).unwrap());
        let child = Child::fork(|| map.iter().map(|&b| u64::from(b)).sum::<u64>() == 8 * 4096);
        let answer = of_files(&[path], Scope::ThisProcess).unwrap().files[0];
        // Tests beside this one may have forked too.
        assert!(answer.mapped_by_processes >= Some(2), "{answer:?}");
        assert!(answer.pss_bytes <= 4 * 4096, "{answer:?}");
        assert_eq!((answer.private_bytes, answer.resident_bytes), (0, Some(8 * 4096)));
        assert!(process_pss_bytes(child.pid()).unwrap() > 0);
    }

    #[test]
    fn all_processes_together_hold_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        const LEN: u64 = 8 * 4096;
        fs::write(&path, vec![1u8; LEN as usize]).unwrap();
        let body = || {
            let map = real().map(&path).unwrap();
            std::mem::forget(map.populate(&|| false).unwrap().then_some(map));
            true
        };
        let children = [Child::fork(body), Child::fork(body)];
        let all = of_files(std::slice::from_ref(&path), Scope::AllProcesses).unwrap();
        // The first child's mapping is its own; the second is forked from us, who have none.
        assert_eq!((all.files[0].pss_bytes, all.files[0].mapped_by_processes), (LEN, Some(2)));
        assert!(all.files[0].page_table_bytes >= Some(2 * 4096), "{all:?}");
        assert!(all.page_table_bytes > all.files[0].page_table_bytes.unwrap());
        let here = of_files(&[path], Scope::ThisProcess).unwrap().files[0];
        assert_eq!((here.pss_bytes, here.page_table_bytes), (0, Some(0)));
        drop(children);
    }

    /// The estimate beside the kernel's own count of all page tables, before and after.
    #[test]
    fn page_tables_are_what_the_kernel_made() {
        const SPAN: usize = 2 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = io::BufWriter::with_capacity(4096, fs::File::create(&path).unwrap());
        for _ in 0..40 * SPAN / 4096 {
            io::Write::write_all(&mut file, &[1; 4096]).unwrap(); // small writes make small pages
        }
        drop(file);
        // In a child: nobody else makes page tables there.
        Child::fork(|| {
            let kernel = || page_table_bytes(process::pid()).unwrap();
            let paths = [path.clone()];
            let ours = || of_files(&paths, Scope::ThisProcess).unwrap().files[0];
            ours(); // the allocator grows now
            let map = real().map(&path).unwrap();
            map.advise_huge(false).unwrap();
            let before = kernel();
            assert_eq!(ours().page_table_bytes, Some(0));
            assert_eq!(map[0] + map[3 * SPAN - 1] + map[17 * SPAN + 5], 3);
            assert_eq!(ours().huge_bytes, 0);
            assert_eq!(ours().page_table_bytes, Some(3 * 4096)); // by the entries: three spans are touched
            assert!(map.populate(&|| false).unwrap());
            assert_eq!(ours().page_table_bytes, Some(40 * 4096)); // whole: without reading the entries
            let made = kernel() - before;
            assert!((40 * 4096..=42 * 4096).contains(&made), "{made}");
            true
        })
        .kill();
    }

    #[test]
    fn a_hole_is_length_without_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let answer = of_files(&[path], Scope::ThisProcess).unwrap().files[0];
        assert_eq!((answer.len_bytes, answer.on_disk_bytes), (1 << 20, 0));
    }

    #[test]
    fn a_process_has_memory_and_an_absent_one_is_an_error() {
        let pid = process::pid();
        // First what is less: reading the file makes the process a little larger.
        let private = process_private_bytes(pid).unwrap();
        let pss = process_pss_bytes(pid).unwrap();
        assert!(pss > 100 << 10 && private <= pss, "{private} {pss}");
        assert!(page_table_bytes(pid).unwrap() > 0);
        assert_eq!(process_pss_bytes(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            of_files(&[PathBuf::from("/absent")], Scope::ThisProcess).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
