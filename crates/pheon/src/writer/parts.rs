//! Parts of a build: rows that other processes sort, each in a folder of its own, until one commit merges them all
//! (docs/format.md section 5).
//!
//! ```text
//! parts/  GATE               held while a part gets its final name, and during the commit
//!         build.json         what a build that resumes must have in common with the interrupted one
//!         part-<h>.lock      held by the process that writes the part
//!         part-<h>.tmp-<id>  rows so far
//!         part-<h>           the finished part; there at once or not at all
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use pheon_os::fs::FileSystem;
use pheon_os::lock::{FileLock, LockError};
use pheon_os::process::random_id;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::exclusive::{Exclusive, publish_document};
use super::part_writer::{PartOptions, PartWriter};
use crate::build::{FinishedPart, OnDuplicate, PartContent, PutOptions, SegmentBuilder, hex_schema};
use crate::dataset::{Dataset, RESUME_NAME, TEMPORARY_PREFIX};
use crate::error::{ReadError, WriteError};
use crate::manifest;

const FOLDER_MODE: u32 = 0o777;
const FILE_MODE: u32 = 0o640;
const GATE_NAME: &str = "GATE";
const BUILD_NAME: &str = "build.json";
/// Says that the build publishes without the parts that are not finished.
const CLOSED_NAME: &str = "CLOSED";
const BUILD_BYTES_MAX: u64 = 16 << 20;
pub(super) const PART_NAME: &str = "part.json";
/// A part of a terabyte in the smallest blocks has some hundred MiB of them.
const PART_BYTES_MAX: u64 = 4 << 30;
const FORMAT_VERSION: u32 = 1;
/// A name may be a path.
const NAME_BYTES_MAX: usize = 8192;
/// The end of the name of the folder of parts that are not kept.
pub(super) const PARTS_SUFFIX: &str = "-parts";

/// What to do at a commit about parts that were handed out and never finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Unfinished {
    /// Fail with [`WriteError::Part`] and publish nothing.
    #[default]
    Error,
    /// Publish without their rows. A process that still writes one learns it when it finishes.
    Skip,
}

/// That a build takes up what an interrupted one has finished: [`crate::Store::writer_of_parts`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resume {
    /// What else decides about the rows of parts, such as how their files are read. The build that resumes must have the
    /// same facts as the interrupted one.
    pub facts: BTreeMap<String, String>,
}

impl Resume {
    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.facts.insert(name.into(), value.into());
        self
    }
}

/// A part of a build, handed out by [`crate::Writer::part`]: where it is and how it is built, not its rows. It goes to
/// another process as [`Part::to_text`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    #[serde(skip, default = "pheon_os::fs::real")]
    fs: Arc<dyn FileSystem>,
    dataset: String,
    name: String,
    /// The folder of all parts.
    dir: PathBuf,
    /// The build's id: the folder of builds that can be resumed may be another one's by now.
    build: String,
    key: Vec<String>,
    unique: bool,
    on_duplicate: String,
    /// Whether a finished part must survive a power cut.
    durable: bool,
    memory_limit_bytes: u64,
    /// What the writer has, for a part that is written alone.
    writer_memory_limit_bytes: u64,
    writer_threads: usize,
    /// Blocks of runs are at most so long, about, such that the commit stays within its memory.
    block_bytes: u64,
    schema: Option<PlainSchema>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PlainSchema(#[serde(with = "hex_schema")] SchemaRef);

/// A finished part's document.
#[derive(Serialize, Deserialize)]
struct PartDocument {
    pheon: String,
    format_version: u32,
    name: String,
    build: String,
    #[serde(flatten)]
    content: PartContent,
}

/// What a part has come to.
enum State {
    Finished(Box<FinishedPart>),
    /// A process has it open, this one if the kernel does not tell.
    Writing(Option<u32>),
    /// Its process ended without finishing it.
    Left,
    /// A writer of it failed or gave up.
    GivenUp,
    Untouched,
}

impl Part {
    /// One that an interrupted build left in this folder: to look at, not to write.
    pub(super) fn kept(dataset: &Dataset, dir: &Path, build: &BuildDocument, name: String) -> Self {
        Self {
            fs: Arc::clone(dataset.fs()),
            dataset: dataset.name().to_owned(),
            name,
            dir: dir.to_owned(),
            build: build.id.clone(),
            key: build.key.clone(),
            unique: build.unique,
            on_duplicate: build.on_duplicate.clone(),
            durable: true,
            memory_limit_bytes: 0,
            writer_memory_limit_bytes: 0,
            writer_threads: 1,
            block_bytes: 0,
            schema: None,
        }
    }

    /// Its name: unique within its build.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the dataset that is built.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The columns that rows are converted to, if rows were written before the part was handed out.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.schema.as_ref().map(|schema| &schema.0)
    }

    /// How many rows it took in, if it is finished and its build is not committed or given up.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if its document is damaged.
    pub fn finished_rows(&self) -> Result<Option<u64>, ReadError> {
        Ok(self.finished()?.map(|part| part.content.rows))
    }

    /// Begins to write it. One writer at a time, whatever its process.
    ///
    /// # Errors
    /// [`WriteError::Part`] if it is finished, if another writer has it, or if its build is gone.
    pub fn writer(&self, options: PartOptions) -> Result<PartWriter, WriteError> {
        PartWriter::begin(self.clone(), options)
    }

    /// How to reopen it in another process.
    ///
    /// # Errors
    /// [`WriteError::Options`] if the store's path is not UTF-8.
    pub fn to_text(&self) -> Result<String, WriteError> {
        serde_json::to_string(self)
            .map_err(|e| WriteError::Options { problem: format!("part {:?} cannot be written down: {e}", self.name) })
    }

    /// The part that [`Part::to_text`] wrote down.
    ///
    /// # Errors
    /// [`WriteError::Options`] for any other text.
    pub fn from_text(text: &str) -> Result<Self, WriteError> {
        serde_json::from_str(text)
            .map_err(|e| WriteError::Options { problem: format!("this text is no part of a build: {e}") })
    }

    pub(super) fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// The folder of all parts.
    pub(super) fn folder(&self) -> &Path {
        &self.dir
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(super) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// The name may hold any character, so files are named by its hash.
    fn file_name(&self) -> String {
        format!("part-{:032x}", xxh3_128(self.name.as_bytes()))
    }

    pub(super) fn final_dir(&self) -> PathBuf {
        self.dir.join(self.file_name())
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.dir.join(format!("{}.lock", self.file_name()))
    }

    pub(super) fn gate_path(&self) -> PathBuf {
        self.dir.join(GATE_NAME)
    }

    /// What the names of its unfinished folders begin with.
    pub(super) fn temporary_prefix(&self) -> String {
        format!("{}.tmp-", self.file_name())
    }

    /// How its rows are built.
    pub(super) fn put_options(&self, options: &PartOptions) -> Result<PutOptions, WriteError> {
        let on_duplicate = duplicate_of(&self.on_duplicate).ok_or_else(|| WriteError::Options {
            problem: format!("part {:?}: on_duplicate is {:?}", self.name, self.on_duplicate),
        })?;
        let mut put = PutOptions::table(self.key.iter().cloned()).unique(self.unique).on_duplicate(on_duplicate);
        let (memory_limit_bytes, threads) = match options.alone {
            true => (self.writer_memory_limit_bytes, self.writer_threads),
            false => (self.memory_limit_bytes, 1),
        };
        put.memory_limit_bytes = Some(options.memory_limit_bytes.unwrap_or(memory_limit_bytes));
        put.threads = Some(options.threads.unwrap_or(threads));
        put.progress.clone_from(&options.progress);
        put.cancel.clone_from(&options.cancel);
        put.expected_rows = options.expected_rows;
        Ok(put)
    }

    pub(super) fn document(&self, content: PartContent) -> Vec<u8> {
        manifest::encode(&PartDocument {
            pheon: "part".to_owned(),
            format_version: FORMAT_VERSION,
            name: self.name.clone(),
            build: self.build.clone(),
            content,
        })
    }

    /// Fails if the folder is of another build by now.
    pub(super) fn check_build(&self) -> Result<(), WriteError> {
        // A folder that is not kept has the id in its name.
        if self.durable && read_build(self.fs.as_ref(), &self.dir)?.is_none_or(|build| build.id != self.build) {
            return Err(self.gone());
        }
        Ok(())
    }

    /// Whether its build has been published without it, or is about to be. For a process that holds the gate.
    pub(super) fn is_closed(&self) -> bool {
        self.fs.metadata(&self.dir.join(CLOSED_NAME)).is_ok()
    }

    /// It, if it is finished.
    pub(super) fn finished(&self) -> Result<Option<FinishedPart>, ReadError> {
        let dir = self.final_dir();
        let path = dir.join(PART_NAME);
        let wrong = |place: &str, problem: String| {
            let place = format!("{place} of part {:?}", self.name);
            let advice = format!("{problem}; remove {} to write this part again", dir.display());
            Err(ReadError::corrupt(&path, place, advice))
        };
        let mut looked_again = false;
        let bytes = loop {
            match self.fs.read(&path, PART_BYTES_MAX) {
                Ok(bytes) => break bytes,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    if self.fs.metadata(&dir).is_err() {
                        return Ok(None);
                    }
                    // It may have got its name just then; a folder without a document is none that we renamed into place.
                    if std::mem::replace(&mut looked_again, true) {
                        return wrong("the document", "it is missing".to_owned());
                    }
                }
                Err(e) => return Err(ReadError::io("read", path, e)),
            }
        };
        let document: PartDocument = match manifest::decode(&bytes) {
            Ok(document) => document,
            Err(problem) => return wrong("the document", problem),
        };
        if document.pheon != "part" || document.format_version > FORMAT_VERSION {
            let (kind, version) = (&document.pheon, document.format_version);
            return wrong("the document", format!("expected a part of version 1, found {kind:?} of version {version}"));
        }
        if document.name != self.name {
            return wrong("member \"name\"", format!("found {:?}", document.name));
        }
        if document.build != self.build {
            return wrong("member \"build\"", format!("expected {:?}, found {:?}", self.build, document.build));
        }
        let part = FinishedPart { name: document.name, dir: dir.clone(), content: document.content };
        let keeps_all = !self.unique || duplicate_of(&self.on_duplicate) == Some(OnDuplicate::Error);
        if let Err(problem) = part.check(self.key.len() > 1, keeps_all) {
            return wrong("the document", problem);
        }
        for (file, bytes) in part.files() {
            match self.fs.metadata(&dir.join(file)) {
                Ok(meta) if meta.len_bytes >= bytes => {}
                Ok(meta) => {
                    return wrong("a run", format!("{file} has {} bytes of at least {bytes}", meta.len_bytes));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => return wrong("a run", format!("{file} is missing")),
                Err(e) => return Err(ReadError::io("examine", dir.join(file), e)),
            }
        }
        Ok(Some(part))
    }

    fn state(&self) -> Result<State, WriteError> {
        if let Some(finished) = self.finished()? {
            return Ok(State::Finished(Box::new(finished)));
        }
        let lock = self.lock_path();
        if self.fs.metadata(&lock).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            return Ok(State::Untouched);
        }
        let _lock = match FileLock::acquire(self.fs.as_ref(), &lock, Some(Duration::ZERO), &|| false) {
            Ok(lock) => lock,
            Err(LockError::Timeout { holder_pid, .. }) => return Ok(State::Writing(holder_pid)),
            Err(LockError::Stopped) => return Err(WriteError::Cancelled),
            Err(LockError::Io { operation, path, source }) => return Err(WriteError::io(operation, path, source)),
        };
        // It may have been finished before its lock was free.
        if let Some(finished) = self.finished()? {
            return Ok(State::Finished(Box::new(finished)));
        }
        let entries = self.fs.read_dir(&self.dir).map_err(|e| WriteError::io("list", &self.dir, e))?;
        let prefix = self.temporary_prefix();
        Ok(if entries.iter().any(|e| e.name.starts_with(&prefix)) { State::Left } else { State::GivenUp })
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> WriteError {
        WriteError::Part { dataset: self.dataset.clone(), part: self.name.clone(), problem: problem.into() }
    }

    /// The error of a part whose folder is not there any more.
    pub(super) fn gone(&self) -> WriteError {
        self.error("is of a build that is over: it was committed or given up, or its process ended; begin a new one")
    }
}

/// The build of the parts, as it is written down for one that resumes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BuildDocument {
    pheon: String,
    format_version: u32,
    /// 32 hexadecimal digits; the id of the segment that the build publishes ends with the first 16 of them.
    id: String,
    key: Vec<String>,
    unique: bool,
    on_duplicate: String,
    facts: BTreeMap<String, String>,
}

/// The parts of a writer.
pub(super) struct Parts {
    fs: Arc<dyn FileSystem>,
    dataset: String,
    dir: PathBuf,
    id: String,
    /// Whether finished parts outlive a writer that does not commit.
    pub(super) resumable: bool,
    handed_out: Vec<Part>,
}

impl Parts {
    /// An empty folder for parts that go with their writer.
    pub(super) fn create(exclusive: &Exclusive) -> Result<Self, WriteError> {
        let id = random_id();
        let dir = exclusive.dataset().dir().join(format!("{TEMPORARY_PREFIX}{id}{PARTS_SUFFIX}"));
        let parts = Self::at(exclusive, dir, id, false);
        parts.fs.create_dir(&parts.dir, FOLDER_MODE).map_err(|e| WriteError::io("make the folder", &parts.dir, e))?;
        Ok(parts)
    }

    /// The folder that an interrupted build left, or a new one that will be left.
    ///
    /// # Errors
    /// [`WriteError::Options`] if the interrupted build had other options or facts.
    pub(super) fn resume(exclusive: &Exclusive, options: &PutOptions, resume: &Resume) -> Result<Self, WriteError> {
        let dataset_dir = exclusive.dataset().dir();
        let dir = dataset_dir.join(RESUME_NAME);
        let fs = Arc::clone(exclusive.dataset().fs());
        let wanted = BuildDocument {
            pheon: "build".to_owned(),
            format_version: FORMAT_VERSION,
            id: random_id(),
            key: options.key.clone(),
            unique: options.unique,
            on_duplicate: duplicate_name(options.on_duplicate).to_owned(),
            facts: resume.facts.clone(),
        };
        if let Some(found) = read_build(fs.as_ref(), &dir)? {
            if let Some((what, before, now)) = difference(&found, &wanted) {
                let problem = format!(
                    "{:?}: the interrupted build had {what} {before}, this one has {now}; give the same, or start again without resume",
                    exclusive.dataset().name()
                );
                return Err(WriteError::Options { problem });
            }
            let parts = Self::at(exclusive, dir, found.id, true);
            // Leftovers are cleared away by now: its segment is there only where a manifest could not be read, which may name it.
            let suffix = parts.segment_suffix().unwrap_or_default();
            if exclusive.has_segment_of(suffix)? {
                let problem = format!(
                    "{:?}: whether the interrupted build was published cannot be told, because a manifest cannot be read; verify the dataset, or start again without resume",
                    parts.dataset
                );
                return Err(WriteError::Options { problem });
            }
            // Of a writer that was killed before it published, or before it synced these names.
            for dir in [&parts.dir, dataset_dir] {
                fs.sync_dir(dir).map_err(|e| WriteError::io("sync the folder", dir, e))?;
            }
            parts.set_closed(false)?;
            return Ok(parts);
        }
        // Interrupted before its document was there: it holds no part.
        remove_folder(fs.as_ref(), &dir)?;
        fs.create_dir(&dir, FOLDER_MODE).map_err(|e| WriteError::io("make the folder", &dir, e))?;
        if let Err(e) = publish_document(fs.as_ref(), &dir, &dir.join(BUILD_NAME), &manifest::encode(&wanted)) {
            // What cannot be removed now, the next build that can be resumed removes.
            let _ = remove_folder(fs.as_ref(), &dir);
            return Err(e);
        }
        fs.sync_dir(dataset_dir).map_err(|e| WriteError::io("sync the folder", dataset_dir, e))?;
        Ok(Self::at(exclusive, dir, wanted.id, true))
    }

    fn at(exclusive: &Exclusive, dir: PathBuf, id: String, resumable: bool) -> Self {
        let dataset = exclusive.dataset();
        let (fs, dataset) = (Arc::clone(dataset.fs()), dataset.name().to_owned());
        Self { fs, dataset, dir, id, resumable, handed_out: Vec::new() }
    }

    /// What the id of the segment must end with, so that a build that was committed can be told from an interrupted one.
    pub(super) fn segment_suffix(&self) -> Option<&str> {
        if self.resumable { self.id.get(..SUFFIX_DIGITS) } else { None }
    }

    /// The next part. `schema`: what its rows must be converted to, if that is known.
    pub(super) fn hand_out(
        &mut self,
        name: Option<&str>,
        schema: Option<SchemaRef>,
        options: &PutOptions,
    ) -> Result<Part, WriteError> {
        let refuse = |problem: String| Err(WriteError::Options { problem: format!("{:?}: {problem}", self.dataset) });
        let name = match name {
            Some(name) => name.to_owned(),
            None if self.resumable => {
                return refuse(
                    "a build that can be resumed needs a name for each part, by which it is found again".into(),
                );
            }
            None => (self.handed_out.len() + 1).to_string(),
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return refuse(format!("a part's name has 1 to {NAME_BYTES_MAX} bytes, found {}", name.len()));
        }
        if self.handed_out.iter().any(|part| part.name == name) {
            return refuse(format!("there is a part {name:?} already; give each its own name"));
        }
        let cpus = pheon_os::process::online_cpus().max(1) as u64;
        let memory_limit_bytes = (options.resolved_memory_bytes()? / cpus).max(crate::build::MEMORY_LIMIT_MIN_BYTES);
        let part = Part {
            fs: Arc::clone(&self.fs),
            dataset: self.dataset.clone(),
            name,
            dir: self.dir.clone(),
            build: self.id.clone(),
            key: options.key.clone(),
            unique: options.unique,
            on_duplicate: duplicate_name(options.on_duplicate).to_owned(),
            durable: self.resumable,
            memory_limit_bytes,
            writer_memory_limit_bytes: options.resolved_memory_bytes()?,
            writer_threads: options.resolved_threads()?,
            block_bytes: SegmentBuilder::block_bytes(options)?,
            schema: schema.map(PlainSchema),
        };
        // What is damaged is said before hours are spent on the others.
        part.finished()?;
        self.handed_out.push(part.clone());
        Ok(part)
    }

    /// The parts that are finished, in the order in which they were handed out.
    pub(super) fn finished(&self, unfinished: Unfinished) -> Result<Vec<FinishedPart>, WriteError> {
        let mut finished = Vec::with_capacity(self.handed_out.len());
        for part in &self.handed_out {
            let problem = match part.state()? {
                State::Finished(part) => {
                    finished.push(*part);
                    continue;
                }
                _ if unfinished == Unfinished::Skip => continue,
                State::Writing(Some(pid)) if pid == pheon_os::process::pid() => {
                    format!("is still being written, by this process ({pid})")
                }
                State::Writing(Some(pid)) => format!("is still being written, by process {pid}"),
                State::Writing(None) => "is still being written".to_owned(),
                State::Left => "was never finished: the process that wrote it ended before".to_owned(),
                State::GivenUp => "was never finished: writing it failed or was given up".to_owned(),
                State::Untouched => "was never begun".to_owned(),
            };
            return Err(part.error(format!(
                "{problem}; nothing was published. Finish it before the commit, or leave it out explicitly"
            )));
        }
        Ok(finished)
    }

    /// Keeps parts from getting their final name while this lives.
    pub(super) fn close(&self, options: &PutOptions) -> Result<FileLock, WriteError> {
        let should_stop = || options.cancel.as_ref().is_some_and(|cancel| cancel());
        match FileLock::acquire(self.fs.as_ref(), &self.dir.join(GATE_NAME), None, &should_stop) {
            Ok(lock) => Ok(lock),
            Err(LockError::Io { operation, path, source }) => Err(WriteError::io(operation, path, source)),
            Err(LockError::Stopped | LockError::Timeout { .. }) => Err(WriteError::Cancelled),
        }
    }

    /// Tells processes that still write a part that it is not in the version that is published now, should this writer be
    /// killed before the folder is gone; `false` takes it back. For the holder of the gate.
    pub(super) fn set_closed(&self, closed: bool) -> Result<(), WriteError> {
        let path = self.dir.join(CLOSED_NAME);
        let done = match closed {
            true => self.fs.create_new(&path, FILE_MODE).map(drop),
            false => self.fs.unlink(&path),
        };
        match done {
            Err(e) if !matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                Err(WriteError::io("mark as closed:", &path, e))
            }
            _ => Ok(()),
        }
    }

    /// How many parts were handed out.
    pub(super) fn handed_out(&self) -> usize {
        self.handed_out.len()
    }

    /// Removes the folder with all parts.
    pub(super) fn remove(&self) -> Result<(), WriteError> {
        remove_folder(self.fs.as_ref(), &self.dir)
    }

    /// What becomes of the folder of a writer that did not commit: nothing that is worth keeping is removed.
    pub(super) fn give_up(&self) {
        let keeps = |name: &str| {
            name != GATE_NAME && name != CLOSED_NAME && !name.ends_with(".json") && !name.ends_with(".lock")
        };
        // A folder that cannot be listed, as where no descriptor is free, may hold finished parts.
        let is_needed = self.resumable
            && self.fs.read_dir(&self.dir).map_or(true, |entries| entries.iter().any(|e| keeps(&e.name)));
        if !is_needed {
            // What cannot be removed now, the next writer removes, or the one that resumes.
            let _ = self.remove();
        }
    }
}

const SUFFIX_DIGITS: usize = 16;
const ID_DIGITS: usize = 32;

/// What the id of a segment ends with that a build that can be resumed has published; `None` if there is no such build.
/// A document that cannot be read counts as none: whoever resumes the build is told.
pub(super) fn resumable_suffix(fs: &dyn FileSystem, dir: &Path) -> Option<String> {
    let build = read_build(fs, dir).ok().flatten()?;
    build.id.get(..SUFFIX_DIGITS).map(str::to_owned)
}

/// Whether any process has a part in this folder open.
pub(super) fn is_being_written(fs: &dyn FileSystem, dir: &Path) -> bool {
    // What cannot be told counts as being written.
    let Ok(entries) = fs.read_dir(dir) else { return true };
    entries.iter().filter(|e| e.name.ends_with(".lock")).any(|e| {
        match FileLock::acquire(fs, &dir.join(&e.name), Some(Duration::ZERO), &|| false) {
            Err(LockError::Io { source, .. }) => source.kind() != io::ErrorKind::NotFound,
            lock => lock.is_err(),
        }
    })
}

/// Removes a folder of parts. Renamed first, so that a process which still writes a part there fails to find it instead of
/// adding files while the folder is being emptied.
pub(super) fn remove_folder(fs: &dyn FileSystem, dir: &Path) -> Result<(), WriteError> {
    /// A file that is being made just then gets in the way once.
    const ATTEMPTS_MAX: u32 = 4;
    let grave = dir.with_file_name(format!("{TEMPORARY_PREFIX}{}", random_id()));
    match fs.rename(dir, &grave) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.map_err(|e| WriteError::io("rename to", &grave, e))?,
    }
    if dir.ends_with(RESUME_NAME) {
        // Else a power cut could bring back the name, and a build would take up what is left in it.
        let parent = dir.parent().unwrap_or(Path::new("."));
        fs.sync_dir(parent).map_err(|e| WriteError::io("sync the folder", parent, e))?;
    }
    let mut attempts_left = ATTEMPTS_MAX;
    loop {
        attempts_left -= 1;
        match fs.remove_dir_all(&grave) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty && attempts_left > 0 => {}
            removed => return removed.map_err(|e| WriteError::io("remove", &grave, e)),
        }
    }
}

pub(super) fn read_build(fs: &dyn FileSystem, dir: &Path) -> Result<Option<BuildDocument>, WriteError> {
    let path = dir.join(BUILD_NAME);
    let bytes = match fs.read(&path, BUILD_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(WriteError::io("read", path, e)),
    };
    let wrong = |problem: String| {
        let problem = format!("{problem}; start again without resume");
        WriteError::Read(ReadError::corrupt(&path, "its text", problem))
    };
    let document: BuildDocument = manifest::decode(&bytes).map_err(wrong)?;
    if document.pheon != "build" || document.format_version > FORMAT_VERSION {
        let (kind, version) = (&document.pheon, document.format_version);
        return Err(wrong(format!("expected a build of version 1, found {kind:?} of version {version}")));
    }
    // The id of the segment ends with it, and names files.
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if document.id.len() != ID_DIGITS || !document.id.bytes().all(is_digit) {
        return Err(wrong(format!("member \"id\": expected {ID_DIGITS} hexadecimal digits, found {:?}", document.id)));
    }
    Ok(Some(document))
}

/// The name of the part that a document is of.
pub(super) fn part_name(fs: &dyn FileSystem, path: &Path) -> Result<String, ReadError> {
    let bytes = fs.read(path, PART_BYTES_MAX).map_err(|e| ReadError::io("read", path, e))?;
    let document = manifest::decode::<PartDocument>(&bytes);
    document.map(|document| document.name).map_err(|problem| ReadError::corrupt(path, "the document", problem))
}

/// What two builds differ in, and how it is in each.
fn difference(before: &BuildDocument, now: &BuildDocument) -> Option<(String, String, String)> {
    let pair = |what: &str, before: String, now: String| (before != now).then(|| (what.to_owned(), before, now));
    let facts = || {
        let names = before.facts.keys().chain(now.facts.keys());
        let value =
            |build: &BuildDocument, name: &String| build.facts.get(name).map_or("none", String::as_str).to_owned();
        names.into_iter().find_map(|name| pair(name, value(before, name), value(now, name)))
    };
    pair("the key", format!("{:?}", before.key), format!("{:?}", now.key))
        .or_else(|| pair("unique", before.unique.to_string(), now.unique.to_string()))
        .or_else(|| pair("on_duplicate", format!("{:?}", before.on_duplicate), format!("{:?}", now.on_duplicate)))
        .or_else(facts)
}

fn duplicate_name(on_duplicate: OnDuplicate) -> &'static str {
    match on_duplicate {
        OnDuplicate::Error => "error",
        OnDuplicate::First => "first",
        OnDuplicate::Last => "last",
    }
}

fn duplicate_of(name: &str) -> Option<OnDuplicate> {
    [OnDuplicate::Error, OnDuplicate::First, OnDuplicate::Last].into_iter().find(|d| duplicate_name(*d) == name)
}
