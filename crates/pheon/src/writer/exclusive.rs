//! The right to write to a dataset: the lock, the temporary folder, publication and everything that removes files.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pheon_os::fs::FileSystem;
use pheon_os::lock::{FileLock, LockError};
use pheon_os::process::random_id;

use super::parts;
use crate::dataset::{Dataset, LOCK_NAME, RESUME_NAME, SEGMENT_PREFIX, TEMPORARY_PREFIX, manifest_number};
use crate::error::WriteError;
use crate::manifest::{self, Manifest, SegmentRecord};
use crate::segment::file::segment_dir;
use crate::version::hidden::HIDDEN_PREFIX;

const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const DIR_MODE: u32 = 0o777;
const FILE_MODE: u32 = 0o440;
/// How often a writer starts again because the dataset was dropped while it waited for the lock.
const ACQUIRE_ATTEMPTS_MAX: u32 = 16;
const ID_RANDOM_DIGITS: usize = 16;
/// How long the finished parts of an interrupted build stay where [`Retention::max_age`] is not given.
const RESUMABLE_AGE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Which versions [`crate::Store::gc`] leaves: the newest ones, and those that were current not long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// How many of the newest versions stay, the current one among them; at least 1.
    pub keep: u64,
    /// A version that was still current less than this long ago stays too, and so does what an interrupted build has
    /// finished within that time; `None`: no version, and 7 days for such a build.
    pub max_age: Option<Duration>,
}

impl Retention {
    /// Keeps the newest `keep` versions; 0 counts as 1.
    pub fn newest(keep: u64) -> Self {
        Self { keep: keep.max(1), max_age: None }
    }

    /// Also keeps what was current less than this long ago.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }
}

/// What [`crate::Store::gc`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Numbers of the versions that are gone, ascending.
    pub versions_removed: Vec<u64>,
    /// Segments that no remaining version names.
    pub segments_removed: usize,
    /// Temporary files and folders that killed writers left.
    pub leftovers_removed: usize,
    /// Length of all files removed, in bytes.
    pub bytes_freed: u64,
}

/// The right to write to a dataset, held as long as this value lives.
#[derive(Debug)]
pub(crate) struct Exclusive {
    dataset: Dataset,
    lock: FileLock,
    /// What was removed when the lock was taken: (segments, leftovers, bytes).
    cleared: (usize, usize, u64),
}

impl Exclusive {
    /// Takes the dataset's lock and removes what killed writers left. Makes the folder if `create`.
    pub(crate) fn acquire(
        dataset: &Dataset,
        create: bool,
        timeout: Option<Duration>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Self, WriteError> {
        let (fs, dir) = (dataset.fs(), dataset.dir());
        for _ in 0..ACQUIRE_ATTEMPTS_MAX {
            if create {
                make_dir(dataset)?;
            }
            let path = dir.join(LOCK_NAME);
            match FileLock::acquire(fs.as_ref(), &path, Some(timeout.unwrap_or(LOCK_TIMEOUT_DEFAULT)), should_stop) {
                Ok(lock) => {
                    let mut exclusive = Self { dataset: dataset.clone(), lock, cleared: (0, 0, 0) };
                    exclusive.cleared = exclusive.remove_leftovers()?;
                    return Ok(exclusive);
                }
                Err(LockError::Timeout { holder_pid, waited_ms, .. }) => {
                    return Err(WriteError::LockTimeout { dataset: dataset.name().to_owned(), holder_pid, waited_ms });
                }
                Err(LockError::Stopped) => return Err(WriteError::Cancelled),
                // The dataset was dropped meanwhile.
                Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(LockError::Io { operation, path, source }) => return Err(WriteError::io(operation, path, source)),
            }
        }
        Err(dataset.not_found(None).into())
    }

    pub(crate) fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Fails in a forked child, which has a copy of this value but not the lock.
    pub(super) fn check_held(&self) -> Result<(), WriteError> {
        if self.lock.is_held() {
            return Ok(());
        }
        let problem = format!(
            "{:?}: this writer belongs to the process that was forked; start one in this process",
            self.dataset.name()
        );
        Err(WriteError::Options { problem })
    }

    /// Makes an empty folder that no reader looks at.
    pub(super) fn temporary_dir(&self) -> Result<PathBuf, WriteError> {
        let path = self.dataset.dir().join(format!("{TEMPORARY_PREFIX}{}", random_id()));
        self.dataset.fs().create_dir(&path, DIR_MODE).map_err(|e| WriteError::io("make the folder", &path, e))?;
        Ok(path)
    }

    /// Gives a finished temporary folder its final name, durably.
    /// `suffix`: what its id ends with instead of random digits.
    pub(super) fn adopt(
        &self,
        temporary: &Path,
        mut record: SegmentRecord,
        suffix: Option<&str>,
    ) -> Result<SegmentRecord, WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir());
        record.id = self.new_id()?;
        if let Some(suffix) = suffix {
            record.id.replace_range(record.id.len() - suffix.len().., suffix);
        }
        let target = segment_dir(dir, &record.id);
        fs.sync_dir(temporary).map_err(|e| WriteError::io("sync the folder", temporary, e))?;
        fs.rename(temporary, &target).map_err(|e| WriteError::io("rename to", &target, e))?;
        fs.sync_dir(dir).map_err(|e| WriteError::io("sync the folder", dir, e))?;
        Ok(record)
    }

    /// A name for a new file of the next version: its first half is that version's number, so that a file that a killed
    /// writer left can be told from its name alone (docs/format.md section 1).
    pub(super) fn new_id(&self) -> Result<String, WriteError> {
        let next = self.newest()?.saturating_add(1);
        Ok(format!("{next:016x}{}", &random_id()[..ID_RANDOM_DIGITS]))
    }

    fn newest(&self) -> Result<u64, WriteError> {
        Ok(self.dataset.version_numbers()?.last().copied().unwrap_or(0))
    }

    /// Publishes a version with these segments; returns its number.
    pub(crate) fn publish(
        &self,
        key: Vec<String>,
        unique: bool,
        origin: String,
        segments: Vec<SegmentRecord>,
    ) -> Result<u64, WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir());
        let newest = self.newest()?;
        let version = newest.checked_add(1).ok_or_else(|| WriteError::Limit {
            problem: format!("{:?} has a version {newest}, and there is no greater number", self.dataset.name()),
        })?;
        let manifest = Manifest {
            pheon: "manifest".to_owned(),
            format_version: Manifest::format_version_for(&key, &segments),
            version,
            created_unix_ms: now_unix_ms(),
            rows: segments.iter().map(SegmentRecord::live_rows).sum(),
            key,
            unique,
            origin,
            segments,
        };
        publish_document(fs.as_ref(), dir, &self.dataset.manifest_path(version), &manifest::encode(&manifest))?;
        Ok(version)
    }

    /// Removes the versions that `retention` does not keep, and what no version needs.
    ///
    /// # Errors
    /// Nothing is removed if the newest manifest cannot be read: the versions before it may be all that is left.
    pub(crate) fn collect(&self, retention: Retention) -> Result<GcReport, WriteError> {
        let numbers = self.dataset.version_numbers()?;
        if let Some(&newest) = numbers.last() {
            self.dataset.manifest(newest)?;
        }
        let mut report = GcReport::default();
        let excess = numbers.len().saturating_sub(usize::try_from(retention.keep.max(1)).unwrap_or(usize::MAX));
        let now = now_unix_ms();
        let mut first = true;
        for pair in numbers.windows(2).take(excess) {
            let &[number, successor] = pair else { continue };
            if let Some(age) = retention.max_age {
                let superseded = self.dataset.manifest(successor)?.map_or(0, |m| m.created_unix_ms);
                // Younger ones follow.
                if u128::from(now.saturating_sub(superseded)) < age.as_millis() {
                    break;
                }
            }
            // The newest manifest may be of a writer that was killed before it synced its name; without this one a power
            // cut could leave neither.
            if std::mem::take(&mut first) {
                self.sync_names()?;
            }
            let path = self.dataset.manifest_path(number);
            report.bytes_freed += self.length_of(&path);
            self.dataset.fs().unlink(&path).map_err(|e| WriteError::io("unlink", &path, e))?;
            report.versions_removed.push(number);
        }
        let (segments, leftovers, bytes) = self.remove_unneeded(true)?;
        report.segments_removed = self.cleared.0 + segments;
        report.leftovers_removed = self.cleared.1 + leftovers;
        report.bytes_freed += self.cleared.2 + bytes;
        Ok(report)
    }

    /// Removes what a killed writer left: (segments, leftovers, bytes).
    pub(super) fn remove_leftovers(&self) -> Result<(usize, usize, u64), WriteError> {
        self.remove_unneeded(false)
    }

    /// Removes temporary names, and segments and lists of hidden rows that no manifest names: all, or those that the
    /// next version was to have. Manifests are read only if there is such a file.
    fn remove_unneeded(&self, all: bool) -> Result<(usize, usize, u64), WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir());
        let entries = fs.read_dir(dir).map_err(|e| WriteError::io("list", dir, e))?;
        let newest = entries.iter().filter_map(|entry| manifest_number(&entry.name)).max().unwrap_or(0);
        let is_suspect = |name: &str| file_id(name).is_some_and(|id| all || published_with(id) > newest);
        let mut needed = HashSet::new();
        let mut unreadable = false;
        if entries.iter().any(|entry| is_suspect(&entry.name)) {
            for number in entries.iter().filter_map(|entry| manifest_number(&entry.name)) {
                match self.dataset.manifest(number) {
                    Ok(manifest) => {
                        for segment in manifest.into_iter().flat_map(|m| m.segments) {
                            needed.extend(segment.hidden.map(|h| h.id));
                            needed.insert(segment.id);
                        }
                    }
                    // It may name any file: keep them all.
                    Err(_) => {
                        unreadable = true;
                        needed.extend(entries.iter().filter_map(|entry| file_id(&entry.name)).map(str::to_owned));
                    }
                }
            }
        }
        let (mut segments, mut leftovers, mut bytes) = (0, 0, 0);
        let mut first = true;
        for entry in &entries {
            let path = dir.join(&entry.name);
            let temporary = entry.name.starts_with(TEMPORARY_PREFIX);
            let orphan = is_suspect(&entry.name) && file_id(&entry.name).is_some_and(|id| !needed.contains(id));
            if !(temporary || orphan) {
                continue;
            }
            // That nothing names it must be on the disk before it goes, or a power cut could bring back the name alone: that
            // of a manifest, or the one that a folder had before it was renamed.
            if std::mem::take(&mut first) {
                self.sync_names()?;
            }
            bytes += self.length_of(&path);
            if entry.name.ends_with(parts::PARTS_SUFFIX) {
                // Processes that wrote for a killed writer may be at it still.
                parts::remove_folder(fs.as_ref(), &path)?;
            } else {
                let removed = if entry.is_dir { fs.remove_dir_all(&path) } else { fs.unlink(&path) };
                removed.map_err(|e| WriteError::io("remove", &path, e))?;
            }
            *if temporary { &mut leftovers } else { &mut segments } += usize::from(temporary || entry.is_dir);
        }
        // A build that can be resumed and was committed, by a writer that was killed right after: the segment says so.
        // Segments that no manifest names are gone by now, unless one cannot be read: then nothing is told by a segment.
        let resumable = dir.join(RESUME_NAME);
        if !unreadable
            && entries.iter().any(|e| e.is_dir && e.name == RESUME_NAME)
            && let Some(suffix) = parts::resumable_suffix(fs.as_ref(), &resumable)
            && entries.iter().any(|e| {
                e.name.starts_with(SEGMENT_PREFIX)
                    && e.name.ends_with(&suffix)
                    && fs.metadata(&dir.join(&e.name)).is_ok()
            })
        {
            bytes += self.length_of(&resumable);
            parts::remove_folder(fs.as_ref(), &resumable)?;
            leftovers += 1;
        }
        Ok((segments, leftovers, bytes))
    }

    fn sync_names(&self) -> Result<(), WriteError> {
        let dir = self.dataset.dir();
        self.dataset.fs().sync_dir(dir).map_err(|e| WriteError::io("sync the folder", dir, e))
    }

    /// Whether there is a segment whose id ends so.
    pub(super) fn has_segment_of(&self, suffix: &str) -> Result<bool, WriteError> {
        let dir = self.dataset.dir();
        let entries = self.dataset.fs().read_dir(dir).map_err(|e| WriteError::io("list", dir, e))?;
        Ok(entries.iter().any(|e| e.name.starts_with(SEGMENT_PREFIX) && e.name.ends_with(suffix)))
    }

    /// Removes what an interrupted build has finished.
    pub(super) fn discard_resumable(&self) -> Result<(), WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir().join(RESUME_NAME));
        match fs.metadata(&dir) {
            Ok(_) => parts::remove_folder(fs.as_ref(), &dir),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(WriteError::io("examine", dir, e)),
        }
    }

    /// Removes what an interrupted build has finished longer ago than parts are kept; the bytes that this freed, if there
    /// was such a build. One whose parts are being written stays.
    pub(crate) fn remove_old_resumable(&self, retention: Retention) -> Result<Option<u64>, WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir().join(RESUME_NAME));
        let Ok(meta) = fs.metadata(&dir) else { return Ok(None) };
        // A part that comes or goes changes the folder.
        let changed_ms = u64::try_from(meta.modified_unix_ns / 1_000_000).unwrap_or(0);
        let age_max = retention.max_age.unwrap_or(RESUMABLE_AGE_DEFAULT);
        let is_young = u128::from(now_unix_ms().saturating_sub(changed_ms)) < age_max.as_millis();
        if is_young || parts::is_being_written(fs.as_ref(), &dir) {
            return Ok(None);
        }
        let bytes = self.length_of(&dir);
        parts::remove_folder(fs.as_ref(), &dir)?;
        Ok(Some(bytes))
    }

    /// The length of a file, or of all files in a folder; 0 where it cannot be told.
    fn length_of(&self, path: &Path) -> u64 {
        let fs = self.dataset.fs();
        match fs.metadata(path) {
            Ok(meta) if !meta.is_dir => meta.len_bytes,
            Ok(_) => fs
                .read_dir(path)
                .map(|entries| entries.iter().map(|e| self.length_of(&path.join(&e.name))).sum())
                .unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Removes a dataset's folder that holds no version, so that a failed first write leaves nothing.
    pub(crate) fn remove_if_empty(&self) {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir());
        let only_lock = fs.read_dir(dir).is_ok_and(|entries| entries.iter().all(|e| e.name == LOCK_NAME));
        if only_lock {
            // Best effort: an empty folder is not a dataset, and the next writer takes it over.
            let _ = fs.remove_dir_all(dir);
        }
    }

    /// Removes the whole dataset. Its folder is renamed first, so that no reader sees half of it.
    pub(crate) fn drop_all(self, store_dir: &Path) -> Result<(), WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir());
        let grave = store_dir.join(format!("{TEMPORARY_PREFIX}{}", random_id()));
        fs.rename(dir, &grave).map_err(|e| WriteError::io("rename to", &grave, e))?;
        if let Err(error) = fs.sync_dir(store_dir) {
            // An error says that the dataset is there. It stays away if somebody has made another of its name meanwhile.
            let _ = fs.rename(&grave, dir);
            return Err(WriteError::io("sync the folder", store_dir, error));
        }
        // What stays is a leftover, which the next one who drops or collects removes.
        let _ = fs.remove_dir_all(&grave);
        Ok(())
    }
}

/// The id in the name of a segment's folder or of a list of hidden rows.
fn file_id(name: &str) -> Option<&str> {
    let id = match name.strip_prefix(SEGMENT_PREFIX) {
        Some(id) => id,
        None => name.strip_prefix(HIDDEN_PREFIX)?.strip_suffix(".arrow")?,
    };
    Some(id)
}

/// The version that a file was written for. Ids of format version 1 are random: most seem to be of some late version,
/// and are looked up in the manifests then.
fn published_with(id: &str) -> u64 {
    id.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(u64::MAX)
}

fn make_dir(dataset: &Dataset) -> Result<(), WriteError> {
    let (fs, dir) = (dataset.fs(), dataset.dir());
    match fs.create_dir(dir, DIR_MODE) {
        Ok(()) => {}
        // Without a version it is of a writer that may have been killed before it synced the name.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            if !dataset.version_numbers()?.is_empty() {
                return Ok(());
            }
        }
        Err(e) => return Err(WriteError::io("make the folder", dir, e)),
    }
    let parent = dir.parent().unwrap_or(Path::new("."));
    fs.sync_dir(parent).map_err(|e| WriteError::io("sync the folder", parent, e))
}

/// Writes a document under a temporary name and links it to its final one, which must not exist.
pub(crate) fn publish_document(fs: &dyn FileSystem, dir: &Path, target: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let temporary = dir.join(format!("{TEMPORARY_PREFIX}{}.json", random_id()));
    let written = (|| {
        let file = fs.create_new(&temporary, FILE_MODE | 0o200).map_err(|e| ("create", e))?;
        file.write_at(0, bytes).map_err(|e| ("write", e))?;
        file.set_mode(FILE_MODE).map_err(|e| ("set the mode of", e))?;
        file.sync().map_err(|e| ("sync", e))
    })()
    .map_err(|(operation, e)| WriteError::io(operation, &temporary, e))
    .and_then(|()| fs.link(&temporary, target).map_err(|e| WriteError::io("publish as", target, e)));
    let unlinked = fs.unlink(&temporary);
    written?;
    // The link is there: from here on the version is visible. A failing sync leaves in doubt whether it survives a power
    // cut, and the caller must hear that.
    fs.sync_dir(dir).map_err(|e| WriteError::io("sync the folder", dir, e))?;
    // A temporary name that stays behind is harmless; the next writer removes it.
    drop(unlinked);
    Ok(())
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
