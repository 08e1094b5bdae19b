//! Writing to a dataset: the lock, the temporary folder, publication and everything that removes files.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use pheon_os::fs::FileSystem;
use pheon_os::lock::{FileLock, LockError};
use pheon_os::process::random_id;

use crate::build::{PutOptions, SegmentBuilder};
use crate::dataset::{Dataset, LOCK_NAME, SEGMENT_PREFIX, TEMPORARY_PREFIX, manifest_number};
use crate::error::WriteError;
use crate::manifest::{self, FORMAT_VERSION, Manifest, SegmentRecord};
use crate::segment::file::segment_dir;

const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const DIR_MODE: u32 = 0o777;
const FILE_MODE: u32 = 0o440;
/// How often a writer starts again because the dataset was dropped while it waited for the lock.
const ACQUIRE_ATTEMPTS_MAX: u32 = 16;

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
                make_dir(fs.as_ref(), dir)?;
            }
            let path = dir.join(LOCK_NAME);
            match FileLock::acquire(&path, Some(timeout.unwrap_or(LOCK_TIMEOUT_DEFAULT)), should_stop) {
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
    fn check_held(&self) -> Result<(), WriteError> {
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
    fn temporary_dir(&self) -> Result<PathBuf, WriteError> {
        let path = self.dataset.dir().join(format!("{TEMPORARY_PREFIX}{}", random_id()));
        self.dataset.fs().create_dir(&path, DIR_MODE).map_err(|e| WriteError::io("make the folder", &path, e))?;
        Ok(path)
    }

    /// Gives a finished temporary folder its final name, durably.
    fn adopt(&self, temporary: &Path, mut record: SegmentRecord) -> Result<SegmentRecord, WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir());
        record.id = random_id();
        let target = segment_dir(dir, &record.id);
        fs.sync_dir(temporary).map_err(|e| WriteError::io("sync the folder", temporary, e))?;
        fs.rename(temporary, &target).map_err(|e| WriteError::io("rename to", &target, e))?;
        fs.sync_dir(dir).map_err(|e| WriteError::io("sync the folder", dir, e))?;
        Ok(record)
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
        let newest = self.dataset.version_numbers()?.last().copied().unwrap_or(0);
        let version = newest.checked_add(1).ok_or_else(|| WriteError::Limit {
            problem: format!("{:?} has a version {newest}, and there is no greater number", self.dataset.name()),
        })?;
        let manifest = Manifest {
            pheon: "manifest".to_owned(),
            format_version: FORMAT_VERSION,
            version,
            created_unix_ms: now_unix_ms(),
            rows: segments.iter().map(|s| s.rows).sum(),
            key,
            unique,
            origin,
            segments,
        };
        publish_document(fs.as_ref(), dir, &self.dataset.manifest_path(version), &manifest::encode(&manifest))?;
        Ok(version)
    }

    /// Removes versions older than the newest `keep`, and what no version needs.
    pub(crate) fn collect(&self, keep: u64) -> Result<GcReport, WriteError> {
        let numbers = self.dataset.version_numbers()?;
        let mut report = GcReport::default();
        let excess = numbers.len().saturating_sub(usize::try_from(keep.max(1)).unwrap_or(usize::MAX));
        for &number in &numbers[..excess] {
            let path = self.dataset.manifest_path(number);
            report.bytes_freed += self.length_of(&path);
            self.dataset.fs().unlink(&path).map_err(|e| WriteError::io("unlink", &path, e))?;
            report.versions_removed.push(number);
        }
        let (segments, leftovers, bytes) = self.remove_leftovers()?;
        report.segments_removed = self.cleared.0 + segments;
        report.leftovers_removed = self.cleared.1 + leftovers;
        report.bytes_freed += self.cleared.2 + bytes;
        Ok(report)
    }

    /// Removes temporary names and segments that no manifest names: (segments, leftovers, bytes).
    fn remove_leftovers(&self) -> Result<(usize, usize, u64), WriteError> {
        let (fs, dir) = (self.dataset.fs(), self.dataset.dir());
        let entries = fs.read_dir(dir).map_err(|e| WriteError::io("list", dir, e))?;
        let is_segment = |name: &str| name.starts_with(SEGMENT_PREFIX);
        let mut needed = HashSet::new();
        if entries.iter().any(|entry| is_segment(&entry.name)) {
            for number in entries.iter().filter_map(|entry| manifest_number(&entry.name)) {
                match self.dataset.manifest(number) {
                    Ok(manifest) => {
                        let segments = manifest.into_iter().flat_map(|m| m.segments);
                        needed.extend(segments.map(|s| format!("{SEGMENT_PREFIX}{}", s.id)));
                    }
                    // It may name any segment: keep them all.
                    Err(_) => needed.extend(entries.iter().map(|entry| entry.name.clone())),
                }
            }
        }
        let (mut segments, mut leftovers, mut bytes) = (0, 0, 0);
        for entry in entries {
            let path = dir.join(&entry.name);
            let temporary = entry.name.starts_with(TEMPORARY_PREFIX);
            let orphan = is_segment(&entry.name) && !needed.contains(&entry.name);
            if !(temporary || orphan) {
                continue;
            }
            bytes += self.length_of(&path);
            let removed = if entry.is_dir { fs.remove_dir_all(&path) } else { fs.unlink(&path) };
            removed.map_err(|e| WriteError::io("remove", &path, e))?;
            *if temporary { &mut leftovers } else { &mut segments } += 1;
        }
        Ok((segments, leftovers, bytes))
    }

    /// The length of a file, or of the files in a folder; 0 where it cannot be told.
    fn length_of(&self, path: &Path) -> u64 {
        let fs = self.dataset.fs();
        match fs.metadata(path) {
            Ok(meta) if !meta.is_dir => meta.len_bytes,
            Ok(_) => fs
                .read_dir(path)
                .map(|entries| entries.iter().filter(|e| !e.is_dir).map(|e| self.length_of(&path.join(&e.name))).sum())
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
        fs.sync_dir(store_dir).map_err(|e| WriteError::io("sync the folder", store_dir, e))?;
        fs.remove_dir_all(&grave).map_err(|e| WriteError::io("remove", &grave, e))
    }
}

fn make_dir(fs: &dyn FileSystem, dir: &Path) -> Result<(), WriteError> {
    match fs.create_dir(dir, DIR_MODE) {
        Ok(()) => {
            let parent = dir.parent().unwrap_or(Path::new("."));
            fs.sync_dir(parent).map_err(|e| WriteError::io("sync the folder", parent, e))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(WriteError::io("make the folder", dir, e)),
    }
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

/// Writes a new version of a dataset. Nothing is visible until [`Writer::commit`]; dropped before that, it publishes nothing
/// and leaves nothing.
pub struct Writer {
    exclusive: Exclusive,
    temporary: PathBuf,
    builder: Option<SegmentBuilder>,
    options: PutOptions,
    rows: u64,
    done: bool,
}

impl Writer {
    pub(crate) fn new(dataset: &Dataset, schema: SchemaRef, options: PutOptions) -> Result<Self, WriteError> {
        check_names(&schema)?;
        let cancel = options.cancel.clone();
        let should_stop = move || cancel.as_ref().is_some_and(|c| c());
        let exclusive = Exclusive::acquire(dataset, true, options.lock_timeout, &should_stop)?;
        let temporary = match exclusive.temporary_dir() {
            Ok(temporary) => temporary,
            Err(e) => {
                exclusive.remove_if_empty();
                return Err(e);
            }
        };
        let fs = Arc::clone(dataset.fs());
        let builder = SegmentBuilder::new(fs, temporary.clone(), schema, &options);
        // From here on `drop` cleans up.
        let mut writer = Self { exclusive, temporary, builder: None, options, rows: 0, done: false };
        writer.builder = Some(builder?);
        Ok(writer)
    }

    /// Adds rows. The batch must have the schema given at the start.
    ///
    /// # Errors
    /// After an error the writer only fails; drop it.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        self.exclusive.check_held()?;
        let builder = self.builder.as_mut().ok_or_else(spent)?;
        match builder.write(batch) {
            Ok(()) => {
                self.rows += batch.num_rows() as u64;
                Ok(())
            }
            Err(e) => {
                self.builder = None;
                Err(self.named(e))
            }
        }
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Finishes the files and publishes them as the newest version; returns its number.
    ///
    /// # Errors
    /// Any failure publishes nothing and leaves nothing, except that a failing sync of the folder after the version became
    /// visible is reported although it may stay.
    pub fn commit(mut self) -> Result<u64, WriteError> {
        self.exclusive.check_held()?;
        let builder = self.builder.take().ok_or_else(spent)?;
        let record = builder.finish().map_err(|e| self.named(e))?;
        // The last look: what is published cannot be stopped any more.
        if self.options.cancel.as_ref().is_some_and(|cancel| cancel()) {
            return Err(WriteError::Cancelled);
        }
        let (key, unique) = (self.options.key.clone(), self.options.unique);
        let published = self
            .exclusive
            .adopt(&self.temporary, record)
            .and_then(|record| self.exclusive.publish(key, unique, "put".to_owned(), vec![record]));
        match published {
            Ok(version) => {
                self.done = true;
                Ok(version)
            }
            Err(e) => {
                // Removes the segment unless its manifest became visible after all.
                let _ = self.exclusive.remove_leftovers();
                Err(e)
            }
        }
    }

    /// Fills in the dataset's name, which the builder does not know.
    fn named(&self, error: WriteError) -> WriteError {
        match error {
            WriteError::DuplicateKey { key, rows, .. } => {
                WriteError::DuplicateKey { dataset: self.exclusive.dataset().name().to_owned(), key, rows }
            }
            other => other,
        }
    }
}

/// Two columns of one name could not be told apart by it.
fn check_names(schema: &SchemaRef) -> Result<(), WriteError> {
    let mut names = HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(twice) => Err(WriteError::schema(format!("two columns are named {:?}; rename one", twice.name()))),
        None => Ok(()),
    }
}

fn spent() -> WriteError {
    WriteError::Options { problem: "this writer has failed before; drop it and start again".to_owned() }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A forked child must leave its parent's files alone.
        if self.done || self.exclusive.check_held().is_err() {
            return;
        }
        // The builder closes its files first. What cannot be removed now, the next writer removes.
        self.builder = None;
        let _ = self.exclusive.dataset().fs().remove_dir_all(&self.temporary);
        self.exclusive.remove_if_empty();
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("dataset", &self.exclusive.dataset().name()).field("rows", &self.rows).finish()
    }
}
