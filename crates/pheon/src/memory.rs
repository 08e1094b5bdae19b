//! What datasets cost on disk and in memory, and how to bring one into memory before it is asked for.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pheon_os::map::ReadMap;
use pheon_os::memory::{self, FileMemory, Survey};
use pheon_os::process;

use crate::access::Access;
use crate::build::CancelFn;
use crate::dataset::Dataset;
use crate::error::ReadError;
use crate::segment::file::segment_dir;
use crate::version::Version;
use crate::version::hidden::hidden_path;

pub use pheon_os::memory::Scope as MemoryScope;

/// How often a dataset is looked at again because `gc` or `drop` removed files while they were being measured.
const ATTEMPTS_MAX: u32 = 16;

/// What a dataset costs, as the kernel counts it: the files of its newest version, and what older versions hold beside
/// them. What is said of processes is of those in the [`MemoryScope`] asked for: of this one, or the sum over all that map
/// the files and whose maps we may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetMemory {
    /// The dataset's name.
    pub name: String,
    /// The newest version.
    pub version: u64,
    /// Length of its files in bytes.
    pub file_bytes: u64,
    /// Blocks on disk in bytes; less where a file has holes.
    pub on_disk_bytes: u64,
    /// Bytes in the page cache, whoever brought them there. `None` if we neither own the files nor may write them: the
    /// kernel does not tell then.
    pub resident_bytes: Option<u64>,
    /// How many processes map the files, this one included if it does, of those whose maps we may read.
    pub mapped_by_processes: Option<u32>,
    /// Proportional share: each page divided among the mappings that hold it. What the files add to a process's PSS.
    pub process_pss_bytes: u64,
    /// Bytes of those pages that nobody else has mapped.
    pub process_private_bytes: u64,
    /// Page tables behind the mappings of these files: an estimate, one table of 4 KiB for each aligned 2 MiB of address
    /// space in which a page is mapped by a small page. `None` where the kernel does not tell.
    pub process_page_table_bytes: Option<u64>,
    /// All page tables of the process or processes, whatever they map; the kernel's own count.
    pub process_page_table_total_bytes: u64,
    /// Bytes mapped by 2 MiB pages.
    pub huge_bytes: u64,
    /// How this process would read the newest version if it opened it now: [`Access::Memory`] or [`Access::Random`].
    pub access: Access,
    /// How many older versions are published.
    pub older_versions: u64,
    /// Blocks on disk in bytes that only older versions need: files shared with the newest are not counted, files shared
    /// among older ones once.
    pub older_on_disk_bytes: u64,
}

/// How [`crate::Store::warm_with`] works.
#[derive(Clone)]
#[non_exhaustive]
pub struct WarmOptions {
    /// Keep the files in memory (`mlock`) for as long as the store, or a clone of it, lives. At first: no.
    pub lock: bool,
    /// Ask for 2 MiB pages, where the kernel has them for this file system. At first: yes.
    pub huge: bool,
    /// Asked before each 16 MiB; once it answers true, the work ends early.
    pub cancel: Option<CancelFn>,
}

impl Default for WarmOptions {
    fn default() -> Self {
        Self { lock: false, huge: true, cancel: None }
    }
}

impl WarmOptions {
    /// Sets whether to keep the files in memory.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// Sets whether to ask for 2 MiB pages.
    #[must_use]
    pub fn huge(mut self, huge: bool) -> Self {
        self.huge = huge;
        self
    }

    /// Sets the callback that can end the work early.
    #[must_use]
    pub fn cancel(mut self, cancel: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cancel = Some(Arc::new(cancel));
        self
    }
}

impl std::fmt::Debug for WarmOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WarmOptions").field("lock", &self.lock).field("huge", &self.huge).finish_non_exhaustive()
    }
}

/// What [`crate::Store::warm`] achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmReport {
    /// The version, the newest.
    pub version: u64,
    /// Length of its files in bytes.
    pub file_bytes: u64,
    /// Bytes in the page cache before. `None` if we neither own the files nor may write them: the kernel does not tell then.
    pub resident_before_bytes: Option<u64>,
    /// Bytes in the page cache afterwards; `None` as before.
    pub resident_bytes: Option<u64>,
    /// Bytes that this process maps by 2 MiB pages afterwards.
    pub huge_bytes: u64,
    /// Why there are not more, if they were asked for and any could be.
    pub huge_refusal: Option<String>,
    /// Bytes kept in memory until the store is closed: of all files or, where it was refused, of none.
    pub locked_bytes: u64,
    /// Why nothing is locked although it was asked for.
    pub lock_refusal: Option<String>,
    /// How this process reads the version if it opens it now: [`Access::Memory`], or [`Access::Random`] where there is not
    /// enough memory to keep what was read.
    pub access: Access,
    /// Whether `cancel` ended it early.
    pub interrupted: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// Versions that a store keeps in memory, by the name of their dataset.
#[derive(Debug, Default)]
pub(crate) struct Locked(Mutex<HashMap<String, Arc<Version>>>);

impl Locked {
    /// Held for moments only, never while the kernel works: a child forked meanwhile would wait for ever.
    fn versions(&self) -> MutexGuard<'_, HashMap<String, Arc<Version>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives all locks up.
    pub(crate) fn clear(&self) {
        let versions = std::mem::take(&mut *self.versions());
        drop(versions);
    }
}

/// Measures datasets in one pass over the processes; those that do not exist (any more) are left out.
pub(crate) fn of_datasets(datasets: &[Dataset], scope: MemoryScope) -> Result<Vec<DatasetMemory>, ReadError> {
    let mut last_failure = None;
    for _ in 0..ATTEMPTS_MAX {
        let mut found = Vec::new();
        for dataset in datasets {
            match Files::of(dataset) {
                Ok(files) => found.push((dataset, files)),
                Err(ReadError::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        let paths: Vec<PathBuf> = found.iter().flat_map(|(_, files)| files.newest.iter().cloned()).collect();
        match memory::of_files(&paths, scope) {
            Ok(survey) => return report(&found, &survey),
            // Collected meanwhile: look again.
            Err(e) if e.kind() == io::ErrorKind::NotFound => last_failure = Some(e),
            Err(e) => return Err(measure_error(datasets, e)),
        }
    }
    Err(measure_error(datasets, last_failure.unwrap_or_else(|| io::ErrorKind::NotFound.into())))
}

fn measure_error(datasets: &[Dataset], error: io::Error) -> ReadError {
    let place = match datasets {
        [one] => one.dir(),
        _ => datasets.first().and_then(|d| d.dir().parent()).unwrap_or(Path::new(".")),
    };
    ReadError::io("measure the files in", place, error)
}

fn report(found: &[(&Dataset, Files)], survey: &Survey) -> Result<Vec<DatasetMemory>, ReadError> {
    let mut rest = survey.files.as_slice();
    let mut reports = Vec::with_capacity(found.len());
    for (dataset, files) in found {
        let (parts, others) = rest.split_at(files.newest.len());
        rest = others;
        let sum = |part: fn(&FileMemory) -> u64| parts.iter().map(part).sum();
        let mut older_on_disk_bytes = 0;
        for path in &files.older {
            match memory::on_disk_bytes(path) {
                Ok(bytes) => older_on_disk_bytes += bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // collected meanwhile
                Err(e) => return Err(ReadError::io("measure", path, e)),
            }
        }
        reports.push(DatasetMemory {
            name: dataset.name().to_owned(),
            version: files.version,
            file_bytes: sum(|p| p.len_bytes),
            on_disk_bytes: sum(|p| p.on_disk_bytes),
            resident_bytes: parts.iter().map(|p| p.resident_bytes).sum(),
            mapped_by_processes: parts.iter().filter_map(|p| p.mapped_by_processes).max(),
            process_pss_bytes: sum(|p| p.pss_bytes),
            process_private_bytes: sum(|p| p.private_bytes),
            process_page_table_bytes: parts.iter().map(|p| p.page_table_bytes).sum(),
            process_page_table_total_bytes: survey.page_table_bytes,
            huge_bytes: sum(|p| p.huge_bytes),
            access: files.access,
            older_versions: files.older_versions,
            older_on_disk_bytes,
        });
    }
    Ok(reports)
}

/// The files of a dataset's published versions.
struct Files {
    version: u64,
    access: Access,
    newest: Vec<PathBuf>,
    older_versions: u64,
    older: Vec<PathBuf>,
}

impl Files {
    /// Opens the newest version and closes it again, so that what is measured is not what measuring maps.
    fn of(dataset: &Dataset) -> Result<Self, ReadError> {
        let version = dataset.open(None)?;
        let newest: Vec<PathBuf> = version.files().into_iter().map(ToOwned::to_owned).collect();
        let number = version.manifest.version;
        let access = version.info().access;
        drop(version);
        let mut older_versions = 0;
        let mut ids = BTreeSet::new();
        let mut older = Vec::new();
        for earlier in dataset.version_numbers()?.into_iter().filter(|&n| n < number) {
            if let Some(manifest) = dataset.manifest(earlier)? {
                older_versions += 1;
                for segment in manifest.segments {
                    older.extend(segment.hidden.map(|hidden| hidden_path(dataset.dir(), &hidden.id)));
                    ids.insert(segment.id);
                }
            }
        }
        for id in ids {
            let dir = segment_dir(dataset.dir(), &id);
            match dataset.fs().read_dir(&dir) {
                Ok(entries) => older.extend(entries.into_iter().map(|e| dir.join(e.name))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // collected meanwhile
                Err(e) => return Err(ReadError::io("list", dir, e)),
            }
        }
        older.retain(|path| !newest.contains(path));
        // Versions may share lists of hidden rows, too.
        older.sort_unstable();
        older.dedup();
        Ok(Self { version: number, access, newest, older_versions, older })
    }
}

/// The mappings of a version, each with its file; those that every lookup needs come first.
fn maps(version: &Version) -> Vec<(&Path, &ReadMap)> {
    let files = version.parts.iter().flat_map(crate::version::Part::files);
    files.map(|file| (file.path.as_path(), file.map.as_ref())).collect()
}

/// Brings the newest version of a dataset into memory. One that is locked is kept in `locked`, in the place of an older one.
pub(crate) fn warm(dataset: &Dataset, options: &WarmOptions, locked: &Locked) -> Result<WarmReport, ReadError> {
    let start = Instant::now();
    // Whoever warms it wants it in memory, whether it can stay there or not.
    let opened = dataset.clone().with_access(Access::Memory).open(None)?;
    let held = locked.versions().get(dataset.name()).filter(|held| held.manifest == opened.manifest).cloned();
    let is_locked = held.is_some();
    if options.lock && !is_locked {
        // Before the newer one is locked: the limit may have room for one only.
        let older = locked.versions().remove(dataset.name());
        drop(older);
    }
    let version = held.unwrap_or(opened);
    let mut report = Warming { version: &version, options, is_locked }.run()?;
    if report.locked_bytes > 0 {
        locked.versions().insert(dataset.name().to_owned(), version);
    }
    report.access = dataset.access().decide(report.file_bytes, dataset.dir());
    report.elapsed = start.elapsed();
    Ok(report)
}

/// One version on its way into memory.
struct Warming<'a> {
    version: &'a Version,
    options: &'a WarmOptions,
    /// From an earlier call.
    is_locked: bool,
}

impl Warming<'_> {
    fn run(&self) -> Result<WarmReport, ReadError> {
        let maps = maps(self.version);
        let mut report = WarmReport {
            version: self.version.manifest.version,
            file_bytes: maps.iter().map(|(_, map)| map.len() as u64).sum(),
            ..WarmReport::default()
        };
        report.resident_before_bytes = self.survey()?.files.iter().map(|file| file.resident_bytes).sum();
        report.interrupted = !self.populate(&maps)?;
        if self.options.huge && !report.interrupted {
            report.huge_refusal = self.collapse(&maps);
        }
        if self.is_locked {
            report.locked_bytes = report.file_bytes;
        } else if self.options.lock && !self.cancelled() {
            match self.lock(&maps) {
                Ok(true) => report.locked_bytes = report.file_bytes,
                Ok(false) => {}
                Err(refusal) => report.lock_refusal = Some(refusal),
            }
        }
        report.interrupted |= self.cancelled();
        let after = self.survey()?;
        report.resident_bytes = after.files.iter().map(|file| file.resident_bytes).sum();
        report.huge_bytes = after.files.iter().map(|file| file.huge_bytes).sum();
        Ok(report)
    }

    fn cancelled(&self) -> bool {
        self.options.cancel.as_ref().is_some_and(|cancel| cancel())
    }

    fn survey(&self) -> Result<Survey, ReadError> {
        let files: Vec<PathBuf> = self.version.files().into_iter().map(ToOwned::to_owned).collect();
        memory::of_files(&files, MemoryScope::ThisProcess)
            .map_err(|e| measure_error(std::slice::from_ref(&self.version.dataset), e))
    }

    /// Whether it got to the end.
    fn populate(&self, maps: &[(&Path, &ReadMap)]) -> Result<bool, ReadError> {
        for (path, map) in maps {
            // A kernel without large pages refuses both, and means the same by it.
            let _ = map.advise_huge(self.options.huge);
            if !map.populate(&|| self.cancelled()).map_err(|e| ReadError::io("read into memory", *path, e))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first refusal.
    fn collapse(&self, maps: &[(&Path, &ReadMap)]) -> Option<String> {
        let mut refusal = None;
        for (path, map) in maps {
            let report = map.advise_collapse(&|| self.cancelled());
            if let Some(error) = report.refusal {
                refusal.get_or_insert_with(|| format!("2 MiB pages for {}: {error}", path.display()));
            }
        }
        refusal
    }

    /// Whether all is locked; a refusal in words. All or nothing: half of a version in memory helps nobody and takes room
    /// that something else may lock.
    fn lock(&self, maps: &[(&Path, &ReadMap)]) -> Result<bool, String> {
        for (i, (path, map)) in maps.iter().enumerate() {
            let done = map.lock(&|| self.cancelled());
            if !matches!(done, Ok(true)) {
                maps[..i].iter().for_each(|(_, map)| map.unlock());
                return done.map_err(|error| {
                    let limit = process::lock_limit_bytes();
                    let limit = limit.map_or_else(|| "no limit".to_owned(), |bytes| format!("{bytes} bytes"));
                    format!(
                        "lock {}, {} bytes: {error}; RLIMIT_MEMLOCK is {limit} for all that this process locks",
                        path.display(),
                        map.len()
                    )
                });
            }
        }
        Ok(true)
    }
}
