//! Writing to a dataset: a new version of everything, or of what is there and some rows more.

mod compact;
mod conform;
mod exclusive;
mod hide;
mod kept;
mod part_writer;
mod parts;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch, make_array};
use arrow_schema::SchemaRef;

use self::conform::Conform;
pub(crate) use self::exclusive::{Exclusive, publish_document};
pub use self::exclusive::{GcReport, Retention};
pub(crate) use self::kept::verify_kept;
pub use self::part_writer::{PartOptions, PartWriter};
use self::parts::Parts;
pub use self::parts::{Part, Resume, Unfinished};
use crate::build::{FinishedPart, OnDuplicate, PutOptions, SegmentBuilder, agreed_schema, has_dictionary};
use crate::dataset::Dataset;
use crate::error::WriteError;
use crate::manifest::SegmentRecord;
use crate::segment::Segment;
use crate::version::Version;

/// How rows are added to a dataset, or taken from it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChangeOptions {
    /// Memory, threads, progress and the like; the dataset itself decides about `key` and `unique`. `on_duplicate` is
    /// about keys that occur twice among the rows that come in.
    pub build: PutOptions,
    /// Whether small segments are merged afterwards, as soon as there are many of them.
    pub compact: bool,
    /// Which versions stay; `None`: all.
    pub retain: Option<Retention>,
    /// Whether to change only a version in which each key occurs once ([`crate::Table::is_unique`]), also where the dataset
    /// does not ask for that: looked at under the writers' lock, so that it is so for the version that is changed. Else
    /// [`ReadError::WrongShape`](crate::ReadError::WrongShape). Of rows that come in each key then stays once, by
    /// `on_duplicate`.
    pub distinct_keys: bool,
}

impl Default for ChangeOptions {
    fn default() -> Self {
        Self { build: PutOptions::table(Vec::<String>::new()), compact: true, retain: None, distinct_keys: false }
    }
}

impl ChangeOptions {
    /// Sets what to do about a key that occurs twice among the rows that come in.
    #[must_use]
    pub fn on_duplicate(mut self, on_duplicate: OnDuplicate) -> Self {
        self.build.on_duplicate = on_duplicate;
        self
    }

    /// Sets whether small segments are merged afterwards.
    #[must_use]
    pub fn compact(mut self, compact: bool) -> Self {
        self.compact = compact;
        self
    }

    /// Sets which versions stay.
    #[must_use]
    pub fn retain(mut self, retention: Retention) -> Self {
        self.retain = Some(retention);
        self
    }

    /// Sets whether each key must occur once.
    #[must_use]
    pub fn distinct_keys(mut self, distinct: bool) -> Self {
        self.distinct_keys = distinct;
        self
    }

    fn check(&self, base: &Version) -> Result<(), WriteError> {
        if !self.distinct_keys || base.is_unique() {
            return Ok(());
        }
        Err(base.wrong_shape("a key may have several rows; this change needs each to occur once").into())
    }
}

/// What becomes of rows that are already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// All stay. Where keys are unique, a key that is there already is an error.
    Append,
    /// Those with a key that comes in are replaced.
    Upsert,
}

/// A version that is being added to.
struct Addition {
    change: Change,
    base: Arc<Version>,
    conform: Conform,
    compact: bool,
    retain: Option<Retention>,
}

/// Writes a new version of a dataset. Nothing is visible until [`Writer::commit`]; dropped before that, it publishes nothing
/// and leaves nothing, except the finished parts of a build that can be resumed.
pub struct Writer {
    exclusive: Exclusive,
    temporary: PathBuf,
    /// `None`: no columns are known yet.
    builder: Option<SegmentBuilder>,
    options: PutOptions,
    /// `None`: the rows that come in are all that the version will have.
    addition: Option<Addition>,
    parts: Option<Parts>,
    rows: u64,
    failed: bool,
    done: bool,
}

impl Writer {
    pub(crate) fn new(dataset: &Dataset, schema: SchemaRef, options: PutOptions) -> Result<Self, WriteError> {
        check_names(&schema)?;
        let exclusive = acquire(dataset, true, &options)?;
        Self::begin(exclusive, Some(schema), options, None)
    }

    /// A writer whose columns are set by the first rows, its own or those of its parts.
    pub(crate) fn of_parts(
        dataset: &Dataset,
        options: PutOptions,
        resume: Option<&Resume>,
    ) -> Result<Self, WriteError> {
        let exclusive = acquire(dataset, true, &options)?;
        let mut writer = Self::begin(exclusive, None, options, None)?;
        match resume {
            Some(resume) => writer.parts = Some(Parts::resume(&writer.exclusive, &writer.options, resume)?),
            None => writer.exclusive.discard_resumable()?,
        }
        Ok(writer)
    }

    /// A writer of rows that are added to the newest version.
    pub(crate) fn adding(
        dataset: &Dataset,
        schema: &SchemaRef,
        change: Change,
        options: ChangeOptions,
    ) -> Result<Self, WriteError> {
        check_names(schema)?;
        let exclusive = acquire(dataset, false, &options.build)?;
        let base = dataset.open(None)?;
        if change == Change::Upsert && base.key_type().is_none() {
            return Err(base.wrong_shape("it has no key to tell which rows are replaced; append to it").into());
        }
        options.check(&base)?;
        let distinct = options.distinct_keys;
        let conform = Conform::new(base.name(), schema, base.schema())?;
        let mut build = options.build;
        build.key.clone_from(&base.manifest.key);
        // Upsert leaves each key as often as it comes in; only where keys are unique must that be once.
        build.unique = base.manifest.unique;
        let schema = Arc::clone(base.schema());
        let addition = Addition { change, base, conform, compact: options.compact, retain: options.retain };
        let mut writer = Self::begin(exclusive, Some(schema), build, Some(addition))?;
        if let Some(builder) = writer.builder.as_mut().filter(|_| distinct) {
            builder.set_distinct(writer.options.on_duplicate);
        }
        Ok(writer)
    }

    fn begin(
        exclusive: Exclusive,
        schema: Option<SchemaRef>,
        options: PutOptions,
        addition: Option<Addition>,
    ) -> Result<Self, WriteError> {
        let temporary = match exclusive.temporary_dir() {
            Ok(temporary) => temporary,
            Err(e) => {
                exclusive.remove_if_empty();
                return Err(e);
            }
        };
        // From here on `drop` cleans up.
        let mut writer = Self {
            exclusive,
            temporary,
            builder: None,
            options,
            addition,
            parts: None,
            rows: 0,
            failed: false,
            done: false,
        };
        match schema {
            Some(schema) => writer.builder = Some(writer.new_builder(schema)?),
            // Options that a builder would refuse are refused now.
            None => SegmentBuilder::block_bytes(&writer.options).and(writer.options.resolved_threads()).map(drop)?,
        }
        Ok(writer)
    }

    fn new_builder(&self, schema: SchemaRef) -> Result<SegmentBuilder, WriteError> {
        let fs = Arc::clone(self.exclusive.dataset().fs());
        SegmentBuilder::new(fs, self.temporary.clone(), schema, &self.options)
    }

    /// Adds rows. The batch must have the schema given at the start, or that of the first batch if none was given.
    ///
    /// # Errors
    /// After an error the writer only fails; drop it.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        self.check_usable()?;
        self.failed = true;
        let mut builder = match self.builder.take() {
            Some(builder) => builder,
            None => {
                check_names(&batch.schema())?;
                self.new_builder(batch.schema())?
            }
        };
        let written = match &self.addition {
            Some(addition) => addition.conform.each(batch, self.rows, |piece| builder.write(piece)),
            None => builder.write(batch),
        };
        written.map_err(|e| self.named(e))?;
        self.rows += batch.num_rows() as u64;
        self.builder = Some(builder);
        self.failed = false;
        Ok(())
    }

    /// Rows written so far, those of parts not counted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Hands out a part: rows that any process may write ([`Part::writer`]) and that the commit puts behind this writer's
    /// own rows, parts in the order in which they were handed out. A part without a `name` is called by its number, from
    /// 1; one of a build that can be resumed needs a name.
    ///
    /// Rows written here before set the columns of the part. Otherwise each part has those of its first rows, and all must
    /// agree in the types under which they are stored.
    ///
    /// # Errors
    /// [`WriteError::Options`] for a name that is taken, or for a writer that adds to a version;
    /// [`ReadError::Corrupt`](crate::ReadError::Corrupt) if an interrupted build left this part damaged.
    pub fn part(&mut self, name: Option<&str>) -> Result<Part, WriteError> {
        self.check_usable()?;
        if self.addition.is_some() {
            let problem = format!(
                "{:?}: parts make a new version; append and upsert take the rows themselves",
                self.exclusive.dataset().name()
            );
            return Err(WriteError::Options { problem });
        }
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(Parts::create(&self.exclusive)?),
        };
        let schema = self.builder.as_ref().map(|builder| Arc::clone(builder.stored()));
        parts.hand_out(name, schema, &self.options)
    }

    /// Fails as [`Writer::commit`] would if a part that was handed out is not finished now.
    ///
    /// # Errors
    /// [`WriteError::Part`]; this writer stays usable.
    pub fn check_parts(&self) -> Result<(), WriteError> {
        self.check_usable()?;
        self.parts.as_ref().map_or(Ok(()), |parts| parts.finished(Unfinished::Error).map(drop))
    }

    /// The columns so far: those of rows written here, else those that the finished parts with rows agree on; `None` if
    /// there are none.
    ///
    /// # Errors
    /// [`WriteError::Schema`] if parts disagree.
    pub fn schema(&self) -> Result<Option<SchemaRef>, WriteError> {
        self.check_usable()?;
        let own = self.builder.as_ref().map(SegmentBuilder::stored);
        match &self.parts {
            Some(parts) if own.is_none() => {
                let mut finished = parts.finished(Unfinished::Skip)?;
                finished.retain(|part| part.content.rows > 0);
                agreed_schema(None, &finished)
            }
            _ => Ok(own.cloned()),
        }
    }

    fn check_usable(&self) -> Result<(), WriteError> {
        self.exclusive.check_held()?;
        if self.failed { Err(spent()) } else { Ok(()) }
    }

    /// Finishes the files and publishes them as the newest version; returns its number. Adding no rows publishes nothing
    /// and returns the number of the version that is there.
    ///
    /// # Errors
    /// Any failure publishes nothing and leaves nothing, except that a failing sync of the folder after the version became
    /// visible is reported although it may stay.
    pub fn commit(self) -> Result<u64, WriteError> {
        self.commit_with(Unfinished::Error)
    }

    /// [`Writer::commit`] with a choice about parts that were handed out and never finished.
    pub fn commit_with(mut self, unfinished: Unfinished) -> Result<u64, WriteError> {
        self.check_usable()?;
        // Held until the parts are merged and gone: none becomes finished meanwhile.
        let mut gate = None;
        let mut finished = Vec::new();
        if let Some(parts) = &self.parts {
            gate = Some(parts.close(&self.options)?);
            finished = parts.finished(unfinished)?;
        }
        let own = self.builder.take();
        let schema = agreed_schema(own.as_ref().map(SegmentBuilder::stored), &finished)?;
        let builder = match (own, schema) {
            (Some(own), _) => own,
            (None, Some(schema)) => self.new_builder(schema)?,
            (None, None) => {
                let problem = format!("{:?}: there are no rows, and no columns", self.exclusive.dataset().name());
                return Err(WriteError::Options { problem });
            }
        };
        if let Some(addition) = self.addition.as_ref().filter(|_| self.rows == 0) {
            return Ok(addition.base.manifest.version);
        }
        let record = finish(builder, &finished).map_err(|e| self.named(e))?;
        check_wanted(&self.options)?;
        if self.parts.is_none() && self.addition.is_none() {
            // What an interrupted build has finished is of no use beside this version, which nothing but a disk can stop now.
            self.exclusive.discard_resumable()?;
        }
        let before = self.exclusive.dataset().version_numbers()?;
        let leaves_out = self.parts.as_ref().filter(|parts| parts.handed_out() > finished.len());
        leaves_out.map_or(Ok(()), |parts| parts.set_closed(true))?;
        let suffix = self.parts.as_ref().and_then(Parts::segment_suffix);
        let published = self.exclusive.adopt(&self.temporary, record, suffix).and_then(|record| match &self.addition {
            Some(addition) => self.publish_added(addition, record),
            None => {
                let (key, unique) = (self.options.key.clone(), self.options.unique);
                self.exclusive.publish(key, unique, "put".to_owned(), vec![record])
            }
        });
        let version = match published {
            Ok(version) => version,
            Err(e) => {
                // Removes the new files unless their manifest became visible after all.
                let _ = self.exclusive.remove_leftovers();
                let is_hidden = self.exclusive.dataset().version_numbers().is_ok_and(|now| now == before);
                let _ = leaves_out.filter(|_| is_hidden).map(|parts| parts.set_closed(false));
                return Err(e);
            }
        };
        self.done = true;
        if let Some(parts) = &self.parts {
            // What cannot be removed now, the next writer removes: the segment's id tells that the build is over.
            let _ = parts.remove();
        }
        drop(gate);
        match self.addition.take() {
            Some(addition) => Ok(tidy_up(&self.exclusive, version, addition.compact, addition.retain, &self.options)),
            None => Ok(version),
        }
    }

    fn publish_added(&self, addition: &Addition, record: SegmentRecord) -> Result<u64, WriteError> {
        let (dataset, base) = (self.exclusive.dataset(), &addition.base);
        let mut segments = base.manifest.segments.clone();
        let unique = base.manifest.unique;
        let has_dictionary = base.schema().fields().iter().any(|field| has_dictionary(field.data_type()));
        if unique || has_dictionary || addition.change == Change::Upsert {
            let access = dataset.access().decide(record.file_bytes(), dataset.dir());
            let new = Segment::open(dataset.fs().as_ref(), dataset.dir(), &record, &base.manifest.key, access)?;
            base.check_dictionaries(&new)?;
            match addition.change {
                Change::Append if unique => base.check_new_keys(&new)?,
                Change::Append => {}
                Change::Upsert => {
                    let rows = base.rows_with_keys_of(&new)?;
                    segments = self.exclusive.hide(base, rows)?;
                }
            }
        }
        segments.push(record);
        check_wanted(&self.options)?;
        let origin = match addition.change {
            Change::Append => "append",
            Change::Upsert => "upsert",
        };
        self.exclusive.publish(base.manifest.key.clone(), unique, origin.to_owned(), segments)
    }

    fn named(&self, error: WriteError) -> WriteError {
        named(self.exclusive.dataset(), error)
    }
}

/// Merges the rows of finished parts with those that the builder has.
fn finish(mut builder: SegmentBuilder, parts: &[FinishedPart]) -> Result<SegmentRecord, WriteError> {
    parts.iter().try_for_each(|part| builder.attach(part))?;
    builder.finish()
}

/// The last look: what is published cannot be stopped any more.
fn check_wanted(options: &PutOptions) -> Result<(), WriteError> {
    if options.cancel.as_ref().is_some_and(|cancel| cancel()) { Err(WriteError::Cancelled) } else { Ok(()) }
}

/// Fills in the dataset's name, which the builder does not know.
fn named(dataset: &Dataset, error: WriteError) -> WriteError {
    match error {
        WriteError::DuplicateKey { key, rows, parts, .. } => {
            WriteError::DuplicateKey { dataset: dataset.name().to_owned(), key, rows, parts }
        }
        other => other,
    }
}

fn acquire(dataset: &Dataset, create: bool, options: &PutOptions) -> Result<Exclusive, WriteError> {
    let should_stop = || options.cancel.as_ref().is_some_and(|cancel| cancel());
    Exclusive::acquire(dataset, create, options.lock_timeout, &should_stop)
}

/// What follows a change that is already published: merging small segments and removing old versions. Returns the newest
/// version's number, if it is another one than `version`. Where it fails nothing is lost, and the next change tries again.
fn tidy_up(exclusive: &Exclusive, version: u64, compact: bool, retain: Option<Retention>, options: &PutOptions) -> u64 {
    // First, because what goes makes room for what is merged.
    let collect = || retain.map(|retention| exclusive.collect(retention));
    let _ = collect();
    if !compact {
        return version;
    }
    let merged = exclusive.dataset().open(None).map_err(WriteError::from).and_then(|base| match compact::due(&base) {
        Some(range) => compact::compact(exclusive, &base, range, options).map(Some),
        None => Ok(None),
    });
    match merged {
        Ok(Some(merged)) => {
            let _ = collect();
            merged
        }
        _ => version,
    }
}

/// Takes the rows of some keys out of the newest version; returns the new version's number and how many rows went. Keys
/// that are not there are ignored; without any that is, nothing is published.
pub(crate) fn delete(dataset: &Dataset, keys: &dyn Array, options: &ChangeOptions) -> Result<(u64, u64), WriteError> {
    let exclusive = acquire(dataset, false, &options.build)?;
    let base = dataset.open(None)?;
    options.check(&base)?;
    let rows = base.rows_with_keys(&make_array(keys.to_data()))?;
    let gone = rows.iter().map(|rows| rows.len() as u64).sum();
    if gone == 0 {
        return Ok((base.manifest.version, 0));
    }
    let published = exclusive.hide(&base, rows).and_then(|segments| {
        check_wanted(&options.build)?;
        exclusive.publish(base.manifest.key.clone(), base.manifest.unique, "delete".to_owned(), segments)
    });
    let version = published.inspect_err(|_| {
        let _ = exclusive.remove_leftovers();
    })?;
    Ok((tidy_up(&exclusive, version, options.compact, options.retain, &options.build), gone))
}

/// Merges all segments of the newest version into one without hidden rows; returns the number of the version that has it.
pub(crate) fn compact(dataset: &Dataset, options: &ChangeOptions) -> Result<u64, WriteError> {
    let exclusive = acquire(dataset, false, &options.build)?;
    let base = dataset.open(None)?;
    let version = if base.single().is_some() {
        base.manifest.version
    } else {
        compact::compact(&exclusive, &base, 0..base.parts.len(), &options.build)?
    };
    if let Some(retention) = options.retain {
        exclusive.collect(retention)?;
    }
    Ok(version)
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
        if let Some(parts) = &self.parts {
            parts.give_up();
        }
        self.exclusive.remove_if_empty();
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("dataset", &self.exclusive.dataset().name()).field("rows", &self.rows).finish()
    }
}
