//! Stores: directories that hold datasets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Array, RecordBatchReader};
use arrow_schema::SchemaRef;
use pheon_os::fs::FileSystem;
use pheon_os::lock::{FileLock, LockError};
use pheon_os::{process, shm};

use crate::access::Access;
use crate::build::PutOptions;
use crate::dataset::{Dataset, LOCK_NAME, TEMPORARY_PREFIX, VersionInfo, is_name};
use crate::error::{ReadError, WriteError};
use crate::manifest::{self, MARKER_FORMAT_VERSION, Marker};
use crate::map::Map;
use crate::memory::{DatasetMemory, Locked, MemoryScope, WarmOptions, WarmReport};
use crate::table::Table;
use crate::verify::VerifyReport;
use crate::writer::{self, Change, ChangeOptions, Exclusive, GcReport, Resume, Retention, Writer, publish_document};

const MARKER_NAME: &str = "pheon.json";
const MARKER_BYTES_MAX: u64 = 64 << 10;
const STORE_DIR_MODE: u32 = 0o777;

/// A directory of datasets. Cheap to clone, usable from any thread and after fork; holds no file open.
#[derive(Debug, Clone)]
pub struct Store {
    fs: Arc<dyn FileSystem>,
    path: Arc<Path>,
    uuid: Arc<str>,
    read_only: bool,
    locked: Arc<Locked>,
    access: Access,
}

impl Store {
    /// Opens a store, creating the directory and its marker if needed. `shm://name` is a private directory in memory.
    ///
    /// # Errors
    /// [`WriteError::Options`] if the directory holds something else, [`ReadError::Corrupt`] if its marker is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WriteError> {
        Self::open_with(path, pheon_os::fs::real())
    }

    /// [`Store::open`] on another file system: one that injects faults, in tests.
    #[doc(hidden)]
    pub fn open_with(path: impl AsRef<Path>, fs: Arc<dyn FileSystem>) -> Result<Self, WriteError> {
        let given = path.as_ref();
        let path = match shm::name_in(given) {
            Some(name) => shm::create_store_dir(fs.as_ref(), name)
                .map_err(|e| WriteError::io("open the memory store", given, e))?,
            None => given.to_owned(),
        };
        match Self::existing(path.clone(), fs.clone(), false) {
            Err(ReadError::StoreNotFound { .. }) => Self::create(path, fs),
            other => Ok(other?),
        }
    }

    /// Opens an existing store; every method that would change it fails with [`WriteError::ReadOnly`].
    ///
    /// # Errors
    /// [`ReadError::StoreNotFound`] if there is none.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let given = path.as_ref();
        let path = match shm::name_in(given) {
            Some(name) => shm::open_store_dir(pheon_os::fs::real().as_ref(), name).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => ReadError::StoreNotFound { path: given.to_owned() },
                _ => ReadError::io("open the memory store", given, e),
            })?,
            None => given.to_owned(),
        };
        Self::existing(path, pheon_os::fs::real(), true)
    }

    fn existing(path: PathBuf, fs: Arc<dyn FileSystem>, read_only: bool) -> Result<Self, ReadError> {
        let marker_path = path.join(MARKER_NAME);
        let bytes = match fs.read(&marker_path, MARKER_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(ReadError::StoreNotFound { path });
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Err(ReadError::corrupt(marker_path, "its length", e.to_string()));
            }
            Err(e) => return Err(ReadError::io("read", marker_path, e)),
        };
        let marker: Marker =
            manifest::decode(&bytes).map_err(|problem| ReadError::corrupt(&marker_path, "its text", problem))?;
        if marker.pheon != "store" {
            let problem = format!("expected \"store\", found {:?}", marker.pheon);
            return Err(ReadError::corrupt(marker_path, "member \"pheon\"", problem));
        }
        if marker.format_version > MARKER_FORMAT_VERSION {
            let problem = format!(
                "this Pheon reads up to {MARKER_FORMAT_VERSION}, found {}; use a newer one",
                marker.format_version
            );
            return Err(ReadError::corrupt(marker_path, "member \"format_version\"", problem));
        }
        let path = std::path::absolute(&path).map_err(|e| ReadError::io("find", &path, e))?;
        Ok(Self {
            fs,
            path: path.into(),
            uuid: marker.uuid.into(),
            read_only,
            locked: Arc::default(),
            access: Access::Auto,
        })
    }

    fn create(path: PathBuf, fs: Arc<dyn FileSystem>) -> Result<Self, WriteError> {
        create_dirs(fs.as_ref(), &path)?;
        let entries = fs.read_dir(&path).map_err(|e| WriteError::io("list", &path, e))?;
        if let Some(foreign) = entries.iter().find(|e| !e.name.starts_with(TEMPORARY_PREFIX) && e.name != MARKER_NAME) {
            return Err(WriteError::Options {
                problem: format!(
                    "{} is no store: it has no {MARKER_NAME} but holds {:?}; give an empty or a new directory",
                    path.display(),
                    foreign.name
                ),
            });
        }
        let marker =
            Marker { pheon: "store".to_owned(), format_version: MARKER_FORMAT_VERSION, uuid: process::random_id() };
        match publish_document(fs.as_ref(), &path, &path.join(MARKER_NAME), &manifest::encode(&marker)) {
            // Another process was first: its marker counts.
            Err(WriteError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            // It was, and has taken this one's temporary file for a leftover.
            Err(WriteError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && fs.metadata(&path.join(MARKER_NAME)).is_ok() => {}
            other => other?,
        }
        Ok(Self::existing(path, fs, false)?)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's identity: 32 hexadecimal digits.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Whether it was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// How versions are read that are opened from now on, by maps and tables and what they refresh to; at first
    /// [`Access::Auto`]. Of a segment that is open already, a newer version keeps the way it has.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// As [`Store::with_access`] said.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Names of the datasets that have a published version, ascending.
    pub fn datasets(&self) -> Result<Vec<String>, ReadError> {
        let entries = self.fs.read_dir(&self.path).map_err(|e| ReadError::io("list", self.path.as_ref(), e))?;
        let mut names = Vec::new();
        for entry in entries {
            if entry.is_dir && is_name(&entry.name) && self.contains(&entry.name)? {
                names.push(entry.name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Whether a dataset has a published version. A name that cannot be a dataset's is not there.
    pub fn contains(&self, name: &str) -> Result<bool, ReadError> {
        match self.dataset(name) {
            Ok(dataset) => Ok(!dataset.version_numbers()?.is_empty()),
            Err(ReadError::InvalidName { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Opens the newest version of a map.
    pub fn map(&self, name: &str) -> Result<Map, ReadError> {
        Map::new(self.dataset(name)?.open(None)?)
    }

    /// Opens one version of a map.
    pub fn map_at(&self, name: &str, version: u64) -> Result<Map, ReadError> {
        Map::new(self.dataset(name)?.open(Some(version))?)
    }

    /// Opens the newest version of a table. Every map is also a table.
    pub fn table(&self, name: &str) -> Result<Table, ReadError> {
        Ok(Table::whole(self.dataset(name)?.open(None)?))
    }

    /// Opens one version of a table.
    pub fn table_at(&self, name: &str, version: u64) -> Result<Table, ReadError> {
        Ok(Table::whole(self.dataset(name)?.open(Some(version))?))
    }

    /// Publishes everything that `reader` delivers as a new version; returns its number.
    ///
    /// # Errors
    /// [`WriteError`]; the store is then as it was.
    pub fn put(&self, name: &str, reader: impl RecordBatchReader, options: PutOptions) -> Result<u64, WriteError> {
        fill(self.writer(name, reader.schema(), options)?, reader)
    }

    /// Starts a new version. Waits for the dataset's writers' lock and holds it until the writer is gone.
    pub fn writer(&self, name: &str, schema: SchemaRef, options: PutOptions) -> Result<Writer, WriteError> {
        self.check_writable()?;
        Writer::new(&self.dataset(name)?, schema, options)
    }

    /// Starts a new version that other processes help to write: see [`Writer::part`]. The columns are those of the first
    /// rows. Holds the dataset's writers' lock until the writer is gone; writers of parts do not take it.
    ///
    /// With `resume`, parts that are finished stay until a commit, whatever becomes of this writer and its process, and
    /// those that an earlier such writer has left are finished already ([`Part::finished_rows`](crate::Part)). They go
    /// when a put is about to publish a version, when a build in parts begins without `resume`, with [`Store::gc`] when
    /// they are old, and with [`Store::drop_dataset`]. Rows that were written to the earlier writer itself must be written again.
    ///
    /// # Errors
    /// [`WriteError::Options`] if the interrupted build had other options or facts.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    /// use pheon::{OnDuplicate, Part, PartOptions, PutOptions, Store, Value};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let store = Store::open(dir.path().join("store"))?;
    /// let squares = |range: std::ops::Range<i64>| {
    ///     let n: ArrayRef = Arc::new(Int64Array::from_iter_values(range.clone()));
    ///     let square: ArrayRef = Arc::new(Int64Array::from_iter_values(range.map(|n| n * n)));
    ///     RecordBatch::try_from_iter([("n", n), ("square", square)])
    /// };
    /// let mut writer = store.writer_of_parts("squares", PutOptions::map("n").on_duplicate(OnDuplicate::Last), None)?;
    /// let parts = [writer.part(None)?.to_text()?, writer.part(None)?.to_text()?];
    ///
    /// for (text, range) in parts.iter().zip([0..500, 400..900]) {
    ///     // In any process:
    ///     let mut part = Part::from_text(text)?.writer(PartOptions::default())?;
    ///     part.write(&squares(range)?)?;
    ///     part.finish()?;
    /// }
    /// writer.commit()?;
    /// let map = store.map("squares")?;
    /// assert_eq!(map.len(), 900);
    /// assert!(matches!(map.get(401)?, Some(Value::Int(160_801))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn writer_of_parts(
        &self,
        name: &str,
        options: PutOptions,
        resume: Option<Resume>,
    ) -> Result<Writer, WriteError> {
        self.check_writable()?;
        Writer::of_parts(&self.dataset(name)?, options, resume.as_ref())
    }

    /// All published versions of a dataset, ascending.
    pub fn versions(&self, name: &str) -> Result<Vec<VersionInfo>, ReadError> {
        self.dataset(name)?.versions()
    }

    /// Publishes a new version with the content of an old one; returns its number.
    pub fn rollback(&self, name: &str, version: u64) -> Result<u64, WriteError> {
        let exclusive = self.exclusive(name)?;
        let dataset = exclusive.dataset();
        let old = dataset.manifest(version)?.ok_or_else(|| dataset.not_found(Some(version)))?;
        // A version whose files are damaged or gone must not become the newest.
        dataset.open(Some(version))?;
        exclusive.publish(old.key, old.unique, format!("rollback:{version}"), old.segments)
    }

    /// Adds rows to the newest version and publishes the result; returns its number. What is there is not written again:
    /// rows whose keys come after all others continue the sequence, others lie in a segment of their own until they are
    /// merged ([`ChangeOptions::compact`]).
    ///
    /// # Errors
    /// [`ReadError::NotFound`] if there is no such dataset, [`WriteError::Schema`] if columns do not fit,
    /// [`WriteError::KeyExists`] for a key that is there already where keys are unique.
    pub fn append(
        &self,
        name: &str,
        reader: impl RecordBatchReader,
        options: ChangeOptions,
    ) -> Result<u64, WriteError> {
        fill(self.appender(name, &reader.schema(), options)?, reader)
    }

    /// Like [`Store::append`], but rows that are there with a key that comes in are replaced.
    ///
    /// # Errors
    /// As [`Store::append`]; [`ReadError::WrongShape`] if the dataset has no key.
    pub fn upsert(
        &self,
        name: &str,
        reader: impl RecordBatchReader,
        options: ChangeOptions,
    ) -> Result<u64, WriteError> {
        fill(self.upserter(name, &reader.schema(), options)?, reader)
    }

    /// A writer of rows to [`append`](Store::append). Holds the dataset's writers' lock until it is gone.
    pub fn appender(&self, name: &str, schema: &SchemaRef, options: ChangeOptions) -> Result<Writer, WriteError> {
        self.check_writable()?;
        Writer::adding(&self.existing_dataset(name)?, schema, Change::Append, options)
    }

    /// A writer of rows to [`upsert`](Store::upsert). Holds the dataset's writers' lock until it is gone.
    pub fn upserter(&self, name: &str, schema: &SchemaRef, options: ChangeOptions) -> Result<Writer, WriteError> {
        self.check_writable()?;
        Writer::adding(&self.existing_dataset(name)?, schema, Change::Upsert, options)
    }

    /// Takes all rows with these keys out of the newest version; returns the new version's number and how many rows went.
    /// Keys that are not there are ignored; if none is there nothing is published.
    ///
    /// `keys` may have any type that converts to the key's without loss.
    pub fn delete(&self, name: &str, keys: &dyn Array, options: ChangeOptions) -> Result<(u64, u64), WriteError> {
        self.check_writable()?;
        writer::delete(&self.existing_dataset(name)?, keys, &options)
    }

    /// Removes a dataset with all its versions. Open handles stay usable.
    pub fn drop_dataset(&self, name: &str) -> Result<(), WriteError> {
        let exclusive = self.exclusive(name)?;
        exclusive.drop_all(&self.path)?;
        // It is gone, whatever stays of others.
        let _ = self.remove_graves();
        Ok(())
    }

    /// Removes all but the newest `keep` versions (at least one stays) and what killed writers left, here and in datasets
    /// whose first build never finished. What a build that can be resumed has finished goes when it is 7 days old.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if the newest manifest is damaged or of a later format; then no version is removed.
    pub fn gc(&self, name: &str, keep: u64) -> Result<GcReport, WriteError> {
        self.gc_with(name, Retention::newest(keep))
    }

    /// [`Store::gc`] with a choice by age too.
    pub fn gc_with(&self, name: &str, retention: Retention) -> Result<GcReport, WriteError> {
        let exclusive = self.exclusive(name)?;
        let mut report = exclusive.collect(retention)?;
        if let Some(bytes) = exclusive.remove_old_resumable(retention)? {
            report.leftovers_removed += 1;
            report.bytes_freed += bytes;
        }
        exclusive.remove_if_empty();
        drop(exclusive);
        self.gc_unfinished(retention)?;
        Ok(report)
    }

    /// What [`Store::gc_with`] does beside its dataset: removes what first builds left that never finished, unless one is
    /// under way or can be resumed and is younger than `retention` says.
    pub fn gc_unfinished(&self, retention: Retention) -> Result<(), WriteError> {
        self.check_writable()?;
        self.remove_graves()?;
        self.remove_unfinished(retention)
    }

    /// Merges a dataset's segments into one without hidden rows; returns the number of the version that has it, which is
    /// the newest one if there was nothing to do.
    pub fn compact(&self, name: &str, options: ChangeOptions) -> Result<u64, WriteError> {
        self.check_writable()?;
        writer::compact(&self.existing_dataset(name)?, &options)
    }

    /// Reads every byte of the newest version and checks it against checksums, order, index and the Arrow format. Of older
    /// versions, and of finished parts that an interrupted build left, every byte is checked against checksums.
    ///
    /// What is wrong is in the report; an error means that the check could not be made.
    pub fn verify(&self, name: &str) -> Result<VerifyReport, ReadError> {
        crate::verify::verify(&self.dataset(name)?)
    }

    /// What a dataset costs on disk and this process in memory.
    pub fn memory(&self, name: &str) -> Result<DatasetMemory, ReadError> {
        let dataset = self.dataset(name)?;
        let reports = crate::memory::of_datasets(std::slice::from_ref(&dataset), MemoryScope::ThisProcess)?;
        reports.into_iter().next().ok_or_else(|| dataset.not_found(None))
    }

    /// What these datasets cost, in one pass over the processes; those that do not exist are left out.
    pub fn memory_of(&self, names: &[String], scope: MemoryScope) -> Result<Vec<DatasetMemory>, ReadError> {
        let datasets = names.iter().map(|name| self.dataset(name)).collect::<Result<Vec<_>, ReadError>>()?;
        crate::memory::of_datasets(&datasets, scope)
    }

    /// Brings the newest version of a dataset into the page cache, in large pages where the kernel grants them.
    pub fn warm(&self, name: &str) -> Result<WarmReport, ReadError> {
        self.warm_with(name, &WarmOptions::default())
    }

    /// [`Store::warm`] with a choice. What is locked stays in memory until [`Store::unlock`], until a newer version of the
    /// dataset is locked in its place, or until the last clone of this store is gone.
    ///
    /// What the kernel refuses is in the report, not an error.
    pub fn warm_with(&self, name: &str, options: &WarmOptions) -> Result<WarmReport, ReadError> {
        crate::memory::warm(&self.dataset(name)?, options, &self.locked)
    }

    /// Gives up what [`Store::warm_with`] locked, through this or another clone. It stays in the page cache until the kernel
    /// needs the room.
    pub fn unlock(&self) {
        self.locked.clear();
    }

    fn dataset(&self, name: &str) -> Result<Dataset, ReadError> {
        Ok(Dataset::new(self.fs.clone(), &self.path, name)?.with_access(self.access))
    }

    /// A dataset that has a published version.
    fn existing_dataset(&self, name: &str) -> Result<Dataset, ReadError> {
        let dataset = self.dataset(name)?;
        if dataset.version_numbers()?.is_empty() { Err(dataset.not_found(None)) } else { Ok(dataset) }
    }

    fn check_writable(&self) -> Result<(), WriteError> {
        if self.read_only { Err(WriteError::ReadOnly { path: self.path.to_path_buf() }) } else { Ok(()) }
    }

    /// The writers' lock of a dataset that has a folder, with or without a version.
    fn exclusive(&self, name: &str) -> Result<Exclusive, WriteError> {
        self.check_writable()?;
        let dataset = self.dataset(name)?;
        if dataset.version_numbers()?.is_empty() && !self.fs.metadata(dataset.dir()).is_ok_and(|meta| meta.is_dir) {
            return Err(dataset.not_found(None).into());
        }
        Exclusive::acquire(&dataset, false, None, &|| false)
    }

    /// Clears the folders of datasets whose first writer was killed. One that is being written is left alone.
    fn remove_unfinished(&self, retention: Retention) -> Result<(), WriteError> {
        let entries = self.fs.read_dir(&self.path).map_err(|e| WriteError::io("list", self.path.as_ref(), e))?;
        for entry in entries.iter().filter(|e| e.is_dir && is_name(&e.name)) {
            let dataset = self.dataset(&entry.name)?;
            if dataset.version_numbers()?.is_empty()
                && let Ok(exclusive) = Exclusive::acquire(&dataset, false, Some(Duration::ZERO), &|| false)
            {
                exclusive.remove_old_resumable(retention)?;
                exclusive.remove_if_empty();
            }
        }
        Ok(())
    }

    /// Removes datasets that a killed `drop_dataset` had renamed, and markers that were never published: who is about to
    /// publish one finds that there is one already ([`Store::create`]).
    fn remove_graves(&self) -> Result<(), WriteError> {
        let entries = self.fs.read_dir(&self.path).map_err(|e| WriteError::io("list", self.path.as_ref(), e))?;
        let mut first = true;
        for entry in entries.iter().filter(|e| e.name.starts_with(TEMPORARY_PREFIX)) {
            // Who renamed it may have been killed before that was on the disk: a power cut could bring its name back.
            if std::mem::take(&mut first) {
                self.fs.sync_dir(&self.path).map_err(|e| WriteError::io("sync the folder", self.path.as_ref(), e))?;
            }
            let grave = self.path.join(&entry.name);
            if !entry.is_dir {
                // Somebody else may be removing it too.
                let _ = self.fs.unlink(&grave);
                continue;
            }
            // Who dropped it holds its lock until nothing more can fail: till then it may be given its name back. Where
            // there is no lock file, there may be no room for one either. The lock need not be kept: who drops takes it
            // once, before the renaming.
            let lock = FileLock::acquire(self.fs.as_ref(), &grave.join(LOCK_NAME), Some(Duration::ZERO), &|| false);
            let is_free = match lock.map(drop) {
                Ok(()) => true,
                Err(LockError::Io { source, .. }) => matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ),
                Err(_) => false,
            };
            if is_free {
                // Somebody else may be removing it too.
                let _ = self.fs.remove_dir_all(&grave);
            }
        }
        Ok(())
    }
}

fn fill(mut writer: Writer, reader: impl RecordBatchReader) -> Result<u64, WriteError> {
    for batch in reader {
        writer.write(&batch.map_err(crate::input::write_error)?)?;
    }
    writer.commit()
}

/// Makes a directory and those above it, durably.
fn create_dirs(fs: &dyn FileSystem, path: &Path) -> Result<(), WriteError> {
    match fs.create_dir(path, STORE_DIR_MODE) {
        Ok(()) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs.sync_dir(parent).map_err(|e| WriteError::io("sync the folder", parent, e))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            // Who made it may have been killed before its name was synced. The folder above may be closed to us.
            let parent = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
            let _ = parent.map(|parent| fs.sync_dir(parent));
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                create_dirs(fs, parent)?;
                create_dirs(fs, path)
            }
            _ => Err(WriteError::io("make the folder", path, e)),
        },
        Err(e) => Err(WriteError::io("make the folder", path, e)),
    }
}
