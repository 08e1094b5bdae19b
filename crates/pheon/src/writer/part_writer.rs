//! `PartWriter`: takes the rows of one part, in whichever process.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use pheon_os::lock::{FileLock, LockError};
use pheon_os::process::random_id;

use super::conform::Conform;
use super::parts::{PART_NAME, Part};
use super::{check_names, spent};
use crate::build::{CancelFn, PartContent, Progress, ProgressFn, PutOptions, SegmentBuilder};
use crate::error::WriteError;

const DIR_MODE: u32 = 0o777;
/// A commit that looks whether somebody writes the part holds its lock for a moment; nobody else gives it back so soon.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
const FILE_MODE: u32 = 0o640;

/// How a part is written. What is not given follows from the writer that handed the part out.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct PartOptions {
    /// How much memory may be used, in bytes; at least 64 MiB. `None`: the writer's limit divided by the number of CPUs.
    pub memory_limit_bytes: Option<u64>,
    /// How many threads work; `None`: one, because parts are written side by side.
    pub threads: Option<usize>,
    /// Whether no other part is written meanwhile: memory and threads that are not given are all that the writer has.
    pub alone: bool,
    /// As [`PutOptions::progress`].
    pub progress: Option<ProgressFn>,
    /// As [`PutOptions::cancel`].
    pub cancel: Option<CancelFn>,
    /// As [`PutOptions::expected_rows`].
    pub expected_rows: Option<u64>,
}

impl PartOptions {
    /// Sets how much memory may be used, in bytes; at least 64 MiB.
    #[must_use]
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    /// Sets how many threads work; at least 1.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Says that no other part is written meanwhile.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Sets the callback that watches the work.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Sets the callback that can stop the work.
    #[must_use]
    pub fn cancel(mut self, cancel: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cancel = Some(Arc::new(cancel));
        self
    }
}

impl fmt::Debug for PartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartOptions")
            .field("memory_limit_bytes", &self.memory_limit_bytes)
            .field("threads", &self.threads)
            .field("alone", &self.alone)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel.is_some())
            .field("expected_rows", &self.expected_rows)
            .finish()
    }
}

/// Writes one part of a build; made by [`Part::writer`]. Its rows are in no version before the build's commit. Dropped
/// before [`PartWriter::finish`] it leaves no finished part.
pub struct PartWriter {
    part: Part,
    lock: FileLock,
    dir: PathBuf,
    options: PutOptions,
    /// How rows become the columns that the part was handed out with, and the columns that this is for.
    conform: Option<(SchemaRef, Conform)>,
    builder: Option<SegmentBuilder>,
    rows: u64,
    failed: bool,
    done: bool,
}

impl PartWriter {
    pub(super) fn begin(part: Part, options: PartOptions) -> Result<Self, WriteError> {
        let options = part.put_options(&options)?;
        options.resolved_memory_bytes()?;
        options.resolved_threads()?;
        let fs = Arc::clone(part.fs());
        let lock = match FileLock::acquire(fs.as_ref(), &part.lock_path(), Some(LOCK_TIMEOUT), &|| false) {
            Ok(lock) => lock,
            Err(LockError::Timeout { holder_pid, .. }) => {
                let by = match holder_pid {
                    Some(pid) if pid == pheon_os::process::pid() => format!("this process ({pid})"),
                    Some(pid) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
                return Err(part.error(format!("is being written by {by}; one writer at a time")));
            }
            Err(LockError::Stopped) => return Err(WriteError::Cancelled),
            Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(part.gone()),
            Err(LockError::Io { operation, path, source }) => return Err(WriteError::io(operation, path, source)),
        };
        part.check_build()?;
        if part.finished()?.is_some() {
            return Err(part.error("is finished already; leave it as it is, or hand out one of another name"));
        }
        // What a killed writer of this part left: the lock says that it is nobody's.
        let folder = part.folder();
        let entries = fs.read_dir(folder).map_err(|e| WriteError::io("list", folder, e))?;
        for entry in entries.iter().filter(|e| e.name.starts_with(&part.temporary_prefix())) {
            let left = folder.join(&entry.name);
            fs.remove_dir_all(&left).map_err(|e| WriteError::io("remove", &left, e))?;
        }
        let dir = folder.join(format!("{}{}", part.temporary_prefix(), random_id()));
        fs.create_dir(&dir, DIR_MODE).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => part.gone(),
            _ => WriteError::io("make the folder", &dir, e),
        })?;
        Ok(Self { part, lock, dir, options, conform: None, builder: None, rows: 0, failed: false, done: false })
    }

    /// The part that is written.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Rows written so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows. The first batch sets the columns, unless the part was handed out with some: rows are converted to these
    /// where that changes no value.
    ///
    /// # Errors
    /// After an error this writer only fails; drop it and write the part again.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        self.check_usable()?;
        // A build that is over is noticed before everything has been sorted for nothing.
        if self.part.fs().metadata(&self.dir).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            self.failed = true;
            return Err(self.part.gone());
        }
        self.failed = true;
        self.take(batch).map_err(|e| self.named(e))?;
        self.failed = false;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => self.new_builder(&batch.schema())?,
        };
        if let (Some(stored), Some((schema, _))) = (self.part.schema(), &self.conform)
            && schema.fields() != batch.schema_ref().fields()
        {
            self.conform = Some((batch.schema(), Conform::new(self.part.dataset(), batch.schema_ref(), stored)?));
        }
        match &self.conform {
            Some((_, conform)) => builder.write(&conform.batch(batch, self.rows)?)?,
            None => builder.write(batch)?,
        }
        self.builder = Some(builder);
        Ok(())
    }

    fn new_builder(&mut self, schema: &SchemaRef) -> Result<SegmentBuilder, WriteError> {
        check_names(schema)?;
        let stored = match self.part.schema() {
            Some(stored) => {
                self.conform = Some((schema.clone(), Conform::new(self.part.dataset(), schema, stored)?));
                stored
            }
            None => schema,
        };
        let fs = Arc::clone(self.part.fs());
        let mut builder = SegmentBuilder::new(fs, self.dir.clone(), Arc::clone(stored), &self.options)?;
        builder.limit_blocks(self.part.block_bytes());
        Ok(builder)
    }

    /// Finishes the part; returns how many rows it took in. From here on it waits for its build's commit.
    ///
    /// # Errors
    /// [`WriteError::Part`] if the build is over. After any error there is no finished part, but for one: when syncing the
    /// folder at the very end fails, it is finished, and a power cut may take it back.
    pub fn finish(mut self) -> Result<u64, WriteError> {
        self.check_usable()?;
        self.failed = true;
        let durable = self.part.is_durable();
        let content = match self.builder.take() {
            Some(builder) => builder.finish_part(durable).map_err(|e| self.named(e))?,
            None => PartContent {
                rows: 0,
                schema: Arc::new(Schema::empty()),
                bounds: Vec::new(),
                dictionaries: Vec::new(),
                runs: Vec::new(),
            },
        };
        let fs = Arc::clone(self.part.fs());
        let path = self.dir.join(PART_NAME);
        let written = (|| {
            let file = fs.create_new(&path, FILE_MODE)?;
            file.write_at(0, &self.part.document(content))?;
            if durable { file.sync().and_then(|()| fs.sync_dir(&self.dir)) } else { Ok(()) }
        })();
        written.map_err(|e| self.named(WriteError::io("write", &path, e)))?;
        let should_stop = || self.options.cancel.as_ref().is_some_and(|cancel| cancel());
        // A commit that is under way holds the gate until it is done: then this part comes too late, or the commit has
        // failed and the part counts for the next one.
        let gate = FileLock::acquire(fs.as_ref(), &self.part.gate_path(), None, &should_stop).map_err(|e| match e {
            LockError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => self.part.gone(),
            LockError::Io { operation, path, source } => WriteError::io(operation, path, source),
            LockError::Stopped | LockError::Timeout { .. } => WriteError::Cancelled,
        })?;
        self.part.check_build()?;
        if self.part.is_closed() {
            return Err(self.part.gone());
        }
        let (folder, target) = (self.part.folder(), self.part.final_dir());
        fs.rename(&self.dir, &target).map_err(|e| self.named(WriteError::io("rename to", &target, e)))?;
        self.done = true;
        if durable {
            fs.sync_dir(folder).map_err(|e| WriteError::io("sync the folder", folder, e))?;
        }
        drop(gate);
        Ok(self.rows)
    }

    fn check_usable(&self) -> Result<(), WriteError> {
        if !self.lock.is_held() {
            return Err(self.part.error("is written by the process that was forked; begin it in this one"));
        }
        if self.failed { Err(spent()) } else { Ok(()) }
    }

    /// Says which part an error is about, and that it is gone where that is why.
    fn named(&self, error: WriteError) -> WriteError {
        match error {
            WriteError::Io { ref source, .. }
                if source.kind() == io::ErrorKind::NotFound && self.part.fs().metadata(&self.dir).is_err() =>
            {
                self.part.gone()
            }
            WriteError::DuplicateKey { key, rows, .. } => {
                let name = Some(self.part.name().to_owned());
                let dataset = self.part.dataset().to_owned();
                WriteError::DuplicateKey { dataset, key, rows, parts: (name.clone(), name) }
            }
            WriteError::Schema { problem } => {
                WriteError::schema(format!("part {:?} of {:?}: {problem}", self.part.name(), self.part.dataset()))
            }
            other => other,
        }
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        // A forked child must leave its parent's files alone.
        if self.done || !self.lock.is_held() {
            return;
        }
        self.builder = None;
        // What cannot be removed now, the next writer of the part removes, or the end of the build.
        let _ = self.part.fs().remove_dir_all(&self.dir);
    }
}

impl fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartWriter").field("part", &self.part.name()).field("rows", &self.rows).finish()
    }
}
