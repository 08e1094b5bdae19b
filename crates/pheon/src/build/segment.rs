//! The way in: batches go to [`SegmentBuilder::write`], two finished files come out of [`SegmentBuilder::finish`].
//!
//! ```text
//! write:   shape -> buffered rows ----(half the memory is full)----> sorted, as a run in a spill file
//! finish:  buffered rows, sorted -> chunks  \
//!          or: runs, merged      -> chunks   > gather, hash (threads) -> columns of data.arrow, index builder (in order)
//! ```
//!
//! Or the runs themselves come out, of [`SegmentBuilder::finish_part`]: another builder takes them in
//! ([`SegmentBuilder::attach`]) and merges them with its own.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use pheon_os::fs::FileSystem;

use super::block::{Block, Bounds, bounds_of};
use super::buffered::{Buffered, Ordered};
use super::cells::{FromColumn, with_cells};
use super::data_file::{ArrowFile, WrittenFile};
use super::dictionary::{Dictionaries, Unifier, unifiers};
use super::index_stage::{IndexStage, StoredPart};
use super::key::{Key, plain_values, with_plain_keys};
use super::merge::{Keep, copy, copy_sorted, merge};
use super::normalise::{shape_is_free, shape_of, stored_schema, to_shape};
use super::options::{OnDuplicate, PutOptions};
use super::part::{FinishedPart, PartContent, write_dictionary};
use super::pipeline::{self, Hashing, Ready, Send, prepare};
use super::progress::{Monitor, Phase};
use super::run::{Run, spill_schema};
use super::spill_dir::SpillDir;
use super::tuning::Tuning;
use crate::error::WriteError;
use crate::index::{IndexBuilder, IndexPlan};
use crate::manifest::SegmentRecord;

/// Rows of a segment at most; row numbers are 32 bits wide, and one value is taken.
const ROWS_MAX: u64 = u32::MAX as u64;

/// Builds one segment in bounded memory.
pub(crate) struct SegmentBuilder {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    spill_dir: PathBuf,
    input: SchemaRef,
    stored: SchemaRef,
    /// Of the stored columns, and of the key bytes behind them if the key has several columns.
    shapes: Vec<DataType>,
    unifiers: Vec<Unifier>,
    key: Option<Key>,
    keep: Keep,
    unique: bool,
    threads: usize,
    tuning: Tuning,
    monitor: Monitor,
    rows_in: u64,
    buffered: Buffered,
    /// Of all rows that came in.
    bounds: Vec<Bounds>,
    runs: Vec<Run>,
    runs_made: u64,
    /// Parts that were taken in: the number of the first row of each, and its name.
    parts: Vec<(u64, String)>,
    /// The longest block of any part's runs, in bytes.
    part_block_bytes: u64,
    /// Where `spill_dir` is, if the options name a place; goes after all that has files there.
    _own_spill_dir: Option<SpillDir>,
}

impl SegmentBuilder {
    /// `dir`: an existing empty temporary folder; `data.arrow`, `index.arrow` and, unless the options name another
    /// folder for a folder of their own, spill files go there. `schema`: that of every batch to come.
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        schema: SchemaRef,
        options: &PutOptions,
    ) -> Result<Self, WriteError> {
        let tuning = Tuning::new(options.resolved_memory_bytes()?);
        let threads = options.resolved_threads()?;
        let stored = with_plain_keys(&stored_schema(&schema)?, &options.key);
        let key = Key::of(&stored, &options.key)?;
        if options.unique && key.is_none() {
            return Err(WriteError::Options { problem: "unique needs a key column; none was named".into() });
        }
        let keep = if options.unique { keep_one(options.on_duplicate) } else { Keep::All };
        let mut metadata = stored.metadata().clone();
        let names = serde_json::to_string(&options.key).expect("names always serialise");
        metadata.insert("pheon.key".into(), names);
        metadata.insert("pheon.unique".into(), options.unique.to_string());
        let stored: SchemaRef = Arc::new(Schema::new_with_metadata(stored.fields().clone(), metadata));
        let mut shapes: Vec<DataType> = stored.fields().iter().map(|f| shape_of(f.data_type())).collect();
        if key.as_ref().is_some_and(Key::has_key_bytes) {
            shapes.push(DataType::LargeBinary);
        }
        let own_spill_dir = options.spill_dir.as_ref().map(|dir| SpillDir::create(&fs, dir)).transpose()?;
        Ok(Self {
            fs,
            spill_dir: own_spill_dir.as_ref().map_or(&*dir, SpillDir::path).to_owned(),
            dir,
            unifiers: unifiers(&stored),
            bounds: shapes.iter().map(Bounds::new).collect(),
            input: schema,
            stored,
            shapes,
            key,
            keep,
            unique: options.unique,
            threads,
            tuning,
            monitor: Monitor::new(options),
            rows_in: 0,
            buffered: Buffered::new(),
            runs: Vec::new(),
            runs_made: 0,
            parts: Vec::new(),
            part_block_bytes: 0,
            _own_spill_dir: own_spill_dir,
        })
    }

    /// Lets each key stay once although the dataset does not ask for it, which the files go on to say. Before any row is
    /// written.
    pub(crate) fn set_distinct(&mut self, on_duplicate: OnDuplicate) {
        (self.keep, self.unique) = (keep_one(on_duplicate), true);
    }

    #[cfg(test)]
    pub(super) fn tuning_mut(&mut self) -> &mut Tuning {
        &mut self.tuning
    }

    #[cfg(test)]
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// The stored columns.
    pub(crate) fn stored(&self) -> &SchemaRef {
        &self.stored
    }

    /// Makes blocks of runs at most so long, about: a build that merges many of them has one of each in memory.
    pub(crate) fn limit_blocks(&mut self, bytes: u64) {
        self.tuning.spill_block_bytes = self.tuning.spill_block_bytes.min(bytes.max(1));
    }

    /// The length of a run's blocks, about, in bytes.
    pub(crate) fn block_bytes(options: &PutOptions) -> Result<u64, WriteError> {
        Ok(Tuning::new(options.resolved_memory_bytes()?).spill_block_bytes)
    }

    /// Takes rows in. May sort and spill what came before.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        self.check_schema(batch)?;
        let bytes: usize = batch.columns().iter().map(slice_bytes).sum();
        let row_bytes = (bytes / batch.num_rows().max(1)).max(1) as u64;
        let piece_rows = (self.tuning.piece_bytes / row_bytes).clamp(1, self.tuning.piece_rows as u64) as usize;
        for from in (0..batch.num_rows()).step_by(piece_rows) {
            self.monitor.check()?;
            let piece = batch.slice(from, piece_rows.min(batch.num_rows() - from));
            self.take(&piece)?;
            self.monitor.rows(piece.num_rows() as u64);
        }
        Ok(())
    }

    fn take(&mut self, piece: &RecordBatch) -> Result<(), WriteError> {
        for part in self.key.iter().flat_map(|key| &key.parts) {
            let column = piece.column(part.column);
            if let Some(row) = column.logical_nulls().and_then(|nulls| nulls.iter().position(|valid| !valid)) {
                let name = self.input.field(part.column).name();
                let row = self.rows_in + row as u64;
                return Err(WriteError::schema(format!("key column {name:?} is null in input row {row}")));
            }
        }
        let mut dictionaries = Dictionaries::new(&mut self.unifiers);
        let mut columns = Vec::with_capacity(self.shapes.len());
        for (at, (field, column)) in self.input.fields().iter().zip(piece.columns()).enumerate() {
            let shaped = if self.key.as_ref().is_some_and(|key| key.contains(at)) {
                plain_values(column).and_then(|plain| to_shape(&plain, &mut dictionaries))
            } else {
                to_shape(column, &mut dictionaries)
            };
            let shaped = shaped.map_err(|e| {
                let rows = self.rows_in..self.rows_in + piece.num_rows() as u64;
                WriteError::schema(format!(
                    "column {:?} of type {}, input rows {rows:?}: {e}",
                    field.name(),
                    field.data_type()
                ))
            })?;
            // Runs have none that the batch could count.
            if !field.is_nullable() && shaped.null_count() > 0 {
                return Err(has_nulls(field, self.rows_in));
            }
            columns.push(shaped);
        }
        if let Some(key) = self.key.as_ref().filter(|key| key.has_key_bytes()) {
            let parts: Vec<&ArrayRef> = key.parts.iter().map(|part| &columns[part.column]).collect();
            columns.push(key.key_bytes(&parts).map_err(|e| joining(&e))?);
        }
        let block = Block { rows: piece.num_rows(), columns };
        for (all, own) in self.bounds.iter_mut().zip(bounds_of(&block, &self.shapes)) {
            all.merge(&own);
        }
        let first_row = self.rows_in;
        self.rows_in += block.rows as u64;
        if self.rows_in > ROWS_MAX && matches!(self.keep, Keep::All | Keep::Error) {
            return Err(too_many_rows());
        }
        self.buffered.push(block, first_row, &self.shapes, self.key.as_ref()).map_err(|e| joining(&e))?;
        let dictionaries: u64 = self.unifiers.iter().map(Unifier::bytes).sum();
        if self.buffered.bytes() + dictionaries > self.tuning.buffer_bytes {
            self.spill()?;
        }
        Ok(())
    }

    fn check_schema(&self, batch: &RecordBatch) -> Result<(), WriteError> {
        let found = batch.schema_ref();
        if Arc::ptr_eq(found, &self.input) {
            return Ok(());
        }
        let (expected, found) = (self.input.fields(), found.fields());
        if expected.len() != found.len() {
            return Err(WriteError::schema(format!(
                "the batch at input row {} has {} columns; expected {}",
                self.rows_in,
                found.len(),
                expected.len()
            )));
        }
        for ((expected, found), column) in expected.iter().zip(found).zip(batch.columns()) {
            let same = expected.name() == found.name() && expected.data_type().equals_datatype(found.data_type());
            if !same {
                return Err(WriteError::schema(format!(
                    "the batch at input row {} has a column {:?} of type {} where {:?} of type {} is expected",
                    self.rows_in,
                    found.name(),
                    found.data_type(),
                    expected.name(),
                    expected.data_type()
                )));
            }
            if !expected.is_nullable() && column.null_count() > 0 {
                return Err(has_nulls(expected, self.rows_in));
            }
        }
        Ok(())
    }

    /// Rows of a chunk of so many bytes.
    fn rows_of(&self, bytes: u64) -> usize {
        let all: u64 = self.bounds.iter().zip(&self.shapes).map(|(b, s)| b.memory_bytes(s)).sum();
        let row_bytes = (all / self.rows_in.max(1)).max(1);
        (bytes / row_bytes).clamp(1, self.tuning.chunk_rows as u64) as usize
    }

    /// Sorts what is buffered and writes it out: after the last run if it continues it, else as a new run.
    fn spill(&mut self) -> Result<(), WriteError> {
        if self.buffered.is_empty() {
            return Ok(());
        }
        let buffered = std::mem::replace(&mut self.buffered, Buffered::new());
        let ordered =
            buffered.order(self.key.as_ref(), self.keep, self.keep == Keep::Error, self.threads, &self.monitor)?;
        if !self.continues_last_run(&ordered) {
            let run = self.new_run()?;
            self.runs.push(run);
        }
        let block_rows = self.rows_of(self.tuning.spill_block_bytes);
        let columns = self.shapes.len() + usize::from(self.keep == Keep::Error);
        let run = self.runs.last_mut().expect("a run was just made");
        pipeline::run(
            self.threads,
            |send| ordered.produce(block_rows, &self.monitor, send),
            |chunk| prepare(chunk, columns, None),
            |ready| run.append(&ready.block),
        )
    }

    fn new_run(&mut self) -> Result<Run, WriteError> {
        let path = self.spill_dir.join(format!(".pheon-run-{}-{}", pheon_os::process::random_id(), self.runs_made));
        self.runs_made += 1;
        let mut shapes = self.shapes.clone();
        if self.keep == Keep::Error {
            shapes.push(DataType::Int32);
        }
        Run::create(&self.fs, &path, spill_schema(&shapes))
    }

    fn continues_last_run(&self, ordered: &Ordered) -> bool {
        let Some(last) = self.runs.last().and_then(Run::last) else { return false };
        let (Some(key), Some((first, row))) = (&self.key, ordered.first()) else { return true };
        let order = with_cells!(key.key_type, C => {
            let cells = |block: &Block| C::from_column(&block.columns[key.column], key.key_type);
            super::cells::Cells::compare(&cells(last), 0, &cells(first), row, 0)
        });
        order.is_lt() || order.is_eq() && self.keep == Keep::All
    }

    /// How many runs are merged at once.
    fn fan_in(&self) -> usize {
        let block_bytes = self.part_block_bytes.max(1);
        let fitting = usize::try_from(self.tuning.buffer_bytes / block_bytes / 3).unwrap_or(usize::MAX);
        fitting.clamp(2, self.tuning.fan_in.max(2))
    }

    /// Merges neighbouring runs until few enough are left to be merged at once; no more than it takes, the shortest first.
    fn reduce_runs(&mut self) -> Result<(), WriteError> {
        let fan_in = self.fan_in();
        while self.runs.len() > fan_in {
            let width = (self.runs.len() - fan_in + 1).min(fan_in);
            let rows_of = |group: &[Run]| group.iter().map(Run::rows).sum::<u64>();
            let from = self.runs.windows(width).enumerate().min_by_key(|(_, group)| rows_of(group));
            let from = from.map_or(0, |(from, _)| from);
            let mut target = self.new_run()?;
            let block_rows = self.rows_of(self.tuning.spill_block_bytes);
            let columns = self.shapes.len() + usize::from(self.keep == Keep::Error);
            let group = &self.runs[from..from + width];
            pipeline::run(
                self.threads,
                |send| self.merged(group, block_rows, send),
                |chunk| prepare(chunk, columns, None),
                |ready| target.append(&ready.block),
            )?;
            drop(self.runs.splice(from..from + width, [target]));
        }
        Ok(())
    }

    /// Takes in the rows of a finished part, after all that came before; no further rows can be written.
    pub(crate) fn attach(&mut self, part: &FinishedPart) -> Result<(), WriteError> {
        self.spill()?;
        let content = &part.content;
        let first_row = self.rows_in;
        self.parts.push((first_row, part.name.clone()));
        if content.rows == 0 {
            return Ok(());
        }
        self.rows_in = self.rows_in.saturating_add(content.rows);
        if self.rows_in > ROWS_MAX && matches!(self.keep, Keep::All | Keep::Error) {
            return Err(too_many_rows());
        }
        let has_key_bytes = self.key.as_ref().is_some_and(Key::has_key_bytes);
        let numbered = (self.keep == Keep::Error).then_some(first_row as u32);
        let (runs, bounds) = part.open(&self.fs, &self.stored, &mut self.unifiers, has_key_bytes, numbered)?;
        for (all, own) in self.bounds.iter_mut().zip(&bounds) {
            all.merge(own);
        }
        let longest = content.runs.iter().map(|run| run.longest_block_bytes()).max().unwrap_or(0);
        self.part_block_bytes = self.part_block_bytes.max(longest);
        self.runs.extend(runs);
        Ok(())
    }

    /// Ends the build as a part of another: its rows as few sorted runs in `dir`, on disk if `durable`.
    pub(crate) fn finish_part(mut self, durable: bool) -> Result<PartContent, WriteError> {
        self.monitor.check()?;
        self.spill()?;
        self.reduce_runs()?;
        self.monitor.phase(Phase::Sync, Some(self.rows_in));
        let dictionaries = self.unifiers.iter().enumerate();
        let dictionaries = dictionaries.map(|(i, unifier)| write_dictionary(&self.fs, &self.dir, i, unifier, durable));
        let dictionaries = dictionaries.collect::<Result<Vec<_>, _>>()?;
        let runs = self.runs.drain(..).map(|run| run.keep(durable)).collect::<Result<Vec<_>, _>>()?;
        Ok(PartContent { rows: self.rows_in, schema: self.stored, bounds: self.bounds, dictionaries, runs })
    }

    /// A repeated key by the rows of the parts that have it.
    fn placed(parts: &[(u64, String)], error: WriteError) -> WriteError {
        let WriteError::DuplicateKey { dataset, key, rows, .. } = error else { return error };
        let place = |row: u64| match parts.iter().rfind(|(first, _)| *first <= row) {
            Some((first, name)) => (row - first, Some(name.clone())),
            None => (row, None),
        };
        let (first, second) = (place(rows.0), place(rows.1));
        WriteError::DuplicateKey { dataset, key, rows: (first.0, second.0), parts: (first.1, second.1) }
    }

    fn merged(&self, runs: &[Run], chunk_rows: usize, send: &mut Send<'_>) -> Result<(), WriteError> {
        match &self.key {
            None => copy(runs, &self.monitor, send),
            // A single run has no repeats left to deal with.
            Some(key) if runs.len() == 1 && self.keep != Keep::All => with_cells!(key.key_type, C => {
                copy_sorted::<C>(&runs[0], key, self.keep, &self.monitor, send)
            }),
            Some(key) => with_cells!(key.key_type, C => {
                merge::<C>(runs, key, self.keep, chunk_rows, &self.monitor, send)
            }),
        }
    }

    /// Writes `data.arrow` and `index.arrow`; both are on disk and of mode 0440 when this returns, spill files are gone.
    /// The caller sets the record's `id`.
    pub(crate) fn finish(mut self) -> Result<SegmentRecord, WriteError> {
        let parts = std::mem::take(&mut self.parts);
        self.finish_rows().map_err(|e| Self::placed(&parts, e))
    }

    fn finish_rows(mut self) -> Result<SegmentRecord, WriteError> {
        self.monitor.check()?;
        if !self.runs.is_empty() {
            self.spill()?;
            self.reduce_runs()?;
            let rows = self.runs.iter().map(Run::rows).sum();
            self.monitor.phase(Phase::Merge, Some(rows));
            let runs = std::mem::take(&mut self.runs);
            // Each key once: known beforehand only where a repeat is an error.
            let keys = (self.keep == Keep::Error || self.unique && runs.len() == 1).then_some(rows);
            let chunk_rows = self.rows_of(self.tuning.chunk_bytes);
            let produce = |this: &Self, send: &mut Send<'_>| this.merged(&runs, chunk_rows, send);
            let (data, index) = self.write_data(rows, keys, produce)?;
            drop(runs);
            return self.finish_files(data, keys, index);
        }
        let buffered = std::mem::replace(&mut self.buffered, Buffered::new());
        let ordered = buffered.order(self.key.as_ref(), self.keep, false, self.threads, &self.monitor)?;
        self.monitor.phase(Phase::Merge, Some(ordered.rows));
        let keys = Some(ordered.keys);
        let chunk_rows = self.rows_of(self.tuning.chunk_bytes);
        let produce = |this: &Self, send: &mut Send<'_>| ordered.produce(chunk_rows, &this.monitor, send);
        let (data, index) = self.write_data(ordered.rows, keys, produce)?;
        drop(ordered);
        self.finish_files(data, keys, index)
    }

    /// Writes the data file from what `produce` sends, at most `rows_max` rows. Fills an index builder on the way if the
    /// number of keys is known.
    fn write_data(
        &self,
        rows_max: u64,
        keys: Option<u64>,
        produce: impl Fn(&Self, &mut Send<'_>) -> Result<(), WriteError> + Sync,
    ) -> Result<(Data, Option<IndexBuilder>), WriteError> {
        let path = self.dir.join("data.arrow");
        let mut file = ArrowFile::create(&*self.fs, &path, self.stored.clone())?;
        for (id, unifier) in self.unifiers.iter().enumerate() {
            file.write_dictionary(id as i64, &unifier.values().map_err(|e| joining(&e))?)?;
        }
        let mut bounds = self.bounds.clone();
        bounds.iter_mut().for_each(|b| b.rows = b.rows.min(rows_max));
        // Key bytes are no column of the file: they only come along to be hashed.
        let stored = self.stored.fields().len();
        let mut batch = file.begin(&self.shapes[..stored], &bounds[..stored], self.tuning.staging_bytes);
        let plan = self.key.as_ref().and(keys).filter(|&k| k <= ROWS_MAX).map(|k| IndexPlan::for_keys(k, 0));
        let hashing = self.key.as_ref().zip(plan).map(|(key, plan)| Hashing {
            column: key.column,
            key_type: key.key_type,
            seed: plan.seed,
        });
        let mut index = plan.map(|plan| {
            IndexBuilder::new(self.fs.clone(), &self.spill_dir, plan, self.tuning.index_bytes, self.threads)
        });
        let consume = |ready: Ready| {
            self.monitor.check()?;
            let first = batch.rows();
            if first + ready.block.rows as u64 > ROWS_MAX {
                return Err(too_many_rows());
            }
            batch.append(&ready.block)?;
            if let Some(index) = &mut index {
                push(index, first as u32, &ready)
                    .map_err(|e| WriteError::io("building the index in", &self.spill_dir, e))?;
            }
            self.monitor.rows(ready.block.rows as u64);
            Ok(())
        };
        let columns = if hashing.is_some() { self.shapes.len() } else { stored };
        let work = |chunk| {
            prepare(chunk, columns, hashing).map(|mut ready| {
                ready.block.columns.truncate(stored);
                ready
            })
        };
        pipeline::run(self.threads, |send| produce(self, send), work, consume)?;
        let rows = batch.rows();
        Ok((Data { file: batch.finish(&*self.fs)?, rows, path }, index))
    }

    /// Puts the data file on disk and builds the index meanwhile.
    fn finish_files(
        &self,
        data: Data,
        keys: Option<u64>,
        hot: Option<IndexBuilder>,
    ) -> Result<SegmentRecord, WriteError> {
        let Some(key) = &self.key else {
            self.monitor.phase(Phase::Sync, Some(data.rows));
            data.file.target.seal()?;
            let record = data.file.record;
            return Ok(SegmentRecord { id: String::new(), rows: data.rows, data: record, index: None, hidden: None });
        };
        self.monitor.phase(Phase::Index, Some(data.rows));
        let stage = IndexStage {
            fs: &self.fs,
            dir: &self.dir,
            spill_dir: &self.spill_dir,
            data_path: data.path,
            data: &data.file.record,
            rows: data.rows,
            key,
            parts: key.parts.iter().map(|part| StoredPart::new(&self.shapes, part.column)).collect(),
            unique: self.unique,
            memory_bytes: self.tuning.index_bytes,
            threads: self.threads,
            monitor: &self.monitor,
        };
        let index = std::thread::scope(|scope| {
            let sealed = scope.spawn(|| data.file.target.seal());
            let index = keys.map_or_else(|| stage.count_keys(), Ok).and_then(|keys| stage.build(keys, hot));
            let index = index.and_then(|index| {
                self.monitor.phase(Phase::Sync, Some(data.rows));
                index.target.seal().map(|()| index)
            });
            sealed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            index
        })?;
        let (data_record, index_record) = (data.file.record, index.record);
        Ok(SegmentRecord {
            id: String::new(),
            rows: data.rows,
            data: data_record,
            index: Some(index_record),
            hidden: None,
        })
    }
}

/// Of the rows of a key.
fn keep_one(on_duplicate: OnDuplicate) -> Keep {
    match on_duplicate {
        OnDuplicate::Error => Keep::Error,
        OnDuplicate::First => Keep::First,
        OnDuplicate::Last => Keep::Last,
    }
}

/// A data file that is written.
struct Data {
    file: WrittenFile,
    rows: u64,
    path: PathBuf,
}

fn push(index: &mut IndexBuilder, first_row: u32, ready: &Ready) -> std::io::Result<()> {
    match &ready.heads {
        None => index.push_many(&ready.hashes, first_row),
        Some(heads) => ready.hashes.iter().zip(heads).try_for_each(|(&hash, &row)| index.push(hash, first_row + row)),
    }
}

/// Bytes that an array's rows refer to, about.
fn slice_bytes(array: &Arc<dyn Array>) -> usize {
    // Some nested types cannot tell for a slice.
    let whole = array.get_array_memory_size();
    if shape_is_free(array.data_type()) || !array.data_type().is_nested() {
        array.to_data().get_slice_memory_size().unwrap_or(whole)
    } else {
        whole
    }
}

fn joining(e: &ArrowError) -> WriteError {
    WriteError::schema(format!("putting batches together: {e}"))
}

fn too_many_rows() -> WriteError {
    WriteError::Limit {
        problem: format!("more than {ROWS_MAX} rows; a dataset of this format version cannot hold more"),
    }
}

fn has_nulls(field: &Field, rows_in: u64) -> WriteError {
    WriteError::schema(format!(
        "column {:?} is declared without nulls, but the batch at input row {rows_in} has some",
        field.name()
    ))
}
