//! Key/value pairs from Python into a build, in bounded memory.
//!
//! The first [`SCAN_ROWS`] pairs wait until they have told the column types; from then on pairs go straight into Arrow
//! builders, which are handed to the engine batch by batch with the interpreter lock released.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use pheon::{Part, Unfinished, WriteError};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::column::{CODEC_KEY, Column, Refused};
use super::kind::{Kind, KindScan, type_name};
use crate::errors::{Error, schema_error};
use crate::lossless::convert;
use crate::options::Job;
use crate::sink::{Destination, Sink};

/// So many pairs are looked at before column types are fixed.
const SCAN_ROWS: usize = 65_536;
/// A batch goes to the engine at so many rows...
const BATCH_ROWS: usize = 65_536;
/// ...or so many bytes, whichever comes first.
const BATCH_BYTES: usize = 8 << 20;

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// A column type where there is one, msgpack for lists, dicts and mixed values.
    Auto,
    Msgpack,
    Pickle,
}

impl Codec {
    pub(crate) fn parse(name: Option<&str>) -> PyResult<Self> {
        match name {
            None => Ok(Self::Auto),
            Some("msgpack") => Ok(Self::Msgpack),
            Some("pickle") => Ok(Self::Pickle),
            Some(other) => {
                Err(PyValueError::new_err(format!("codec is {other:?}; expected None, \"msgpack\" or \"pickle\"")))
            }
        }
    }

    /// What [`Codec::parse`] reads.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Msgpack => Some("msgpack"),
            Self::Pickle => Some("pickle"),
        }
    }

    /// The kinds of both columns after a scan of keys and values.
    fn kinds(self, scans: &(KindScan, KindScan)) -> PyResult<(Kind, Kind)> {
        let value = match self {
            Self::Auto => scans.1.value_kind()?,
            Self::Msgpack => Kind::Msgpack,
            Self::Pickle => Kind::Pickle,
        };
        Ok((scans.0.key_kind()?, value))
    }
}

/// Which dataset is built, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) destination: Destination,
    pub(crate) name: String,
    pub(crate) job: Job,
    /// Names of the key column and of the value column.
    pub(crate) columns: (String, String),
    pub(crate) codec: Codec,
}

/// Why a pair was not taken.
pub(crate) enum PushError {
    /// It needs another column type than the pairs before it.
    Mismatch { row: u64, column: &'static str, expected: &'static str, found: String },
    /// Python raised, or the engine failed.
    Raised(PyErr),
}

impl From<PyErr> for PushError {
    fn from(e: PyErr) -> Self {
        Self::Raised(e)
    }
}

impl PushError {
    /// The exception, for callers that cannot begin again.
    pub(crate) fn into_exception(self) -> PyErr {
        match self {
            Self::Raised(e) => e,
            Self::Mismatch { row, column: "key", expected, found } => schema_error(format!(
                "row {row}: the key is {found}, keys before it are {expected}; a map has keys of one type"
            )),
            Self::Mismatch { row, column, expected, found } => schema_error(format!(
                "row {row}: the {column} is {found}, the column was begun as {expected}; codec=\"msgpack\" stores mixed values"
            )),
        }
    }
}

struct Columns {
    kinds: (Kind, Kind),
    key: Column,
    value: Column,
    rows: usize,
    bytes: usize,
}

/// Takes pairs and Arrow data and publishes them as one version, or finishes them as a part of one.
pub(crate) struct PairWriter {
    target: Target,
    pending: Vec<(Py<PyAny>, Py<PyAny>)>,
    columns: Option<Columns>,
    sink: Option<Sink>,
    /// What batches are brought into: the columns of the first one, or those that a part was handed out with.
    schema: Option<SchemaRef>,
    rows: u64,
    failed: bool,
}

impl PairWriter {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, pending: Vec::new(), columns: None, sink: None, schema: None, rows: 0, failed: false }
    }

    /// Opens the destination before rows come: a part is one process's from then on.
    pub(crate) fn open(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.sink.is_none() {
            let Target { destination, name, job, .. } = &self.target;
            let sink = destination.open(py, name, job)?;
            self.schema = sink.schema(py)?;
            self.sink = Some(sink);
        }
        Ok(())
    }

    /// Hands out a part. Once rows have set the columns, it has these.
    pub(crate) fn part(&mut self, py: Python<'_>, name: Option<&str>) -> PyResult<(Part, &Target)> {
        self.check_usable()?;
        if self.columns.as_ref().is_some_and(|c| c.rows > 0) {
            self.flush(py).inspect_err(|_| self.failed = true)?;
        }
        self.open(py)?;
        let Target { name: dataset, job, .. } = &self.target;
        let Some(sink) = &mut self.sink else { return Err(PyRuntimeError::new_err("no writer was opened")) };
        Ok((sink.part(py, job, dataset, name)?, &self.target))
    }

    /// Fails if a part that was handed out is not finished.
    pub(crate) fn check_parts(&self, py: Python<'_>) -> PyResult<()> {
        self.sink.as_ref().map_or(Ok(()), |sink| sink.check_parts(py))
    }

    /// Pairs and rows taken so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    fn check_usable(&self) -> PyResult<()> {
        if self.failed {
            return Err(Error::new_err(format!(
                "this writer of {:?} failed at row {} and publishes nothing; begin a new one",
                self.target.name, self.rows
            )));
        }
        Ok(())
    }

    /// Takes one pair. After an error the writer takes no more.
    #[inline]
    pub(crate) fn push(
        &mut self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> Result<(), PushError> {
        self.check_usable()?;
        let done = self.push_unchecked(py, key, value);
        if done.is_err() {
            self.failed = true;
        } else {
            self.rows += 1;
        }
        done
    }

    #[inline]
    fn push_unchecked(
        &mut self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> Result<(), PushError> {
        let Some(columns) = &mut self.columns else {
            if key.is_none() {
                return Err(PushError::Raised(null_key(self.rows)));
            }
            self.pending.push((key.clone().unbind(), value.clone().unbind()));
            return if self.pending.len() >= SCAN_ROWS { self.settle(py, self.rows + 1) } else { Ok(()) };
        };
        columns.append(key, value, self.rows)?;
        if columns.rows >= BATCH_ROWS || columns.bytes >= BATCH_BYTES { Ok(self.flush(py)?) } else { Ok(()) }
    }

    /// Fixes the column types by the pairs that wait, the last of which is row `end_row - 1`, and takes those in.
    fn settle(&mut self, py: Python<'_>, end_row: u64) -> Result<(), PushError> {
        let pending = std::mem::take(&mut self.pending);
        let first_row = end_row - pending.len() as u64;
        if self.columns.is_none() {
            let kinds = match &self.schema {
                Some(schema) => {
                    let (kinds, value) = self.kinds_of_schema(schema)?;
                    self.target.columns.1 = value;
                    kinds
                }
                None => {
                    let mut scans = (KindScan::default(), KindScan::default());
                    for (i, (key, value)) in pending.iter().enumerate() {
                        scans.0.look(key.bind(py), first_row + i as u64)?;
                        scans.1.look(value.bind(py), first_row + i as u64)?;
                    }
                    self.target.codec.kinds(&scans)?
                }
            };
            self.begin(kinds);
        }
        for (i, (key, value)) in pending.into_iter().enumerate() {
            let Some(columns) = &mut self.columns else { break };
            columns.append(key.bind(py), value.bind(py), first_row + i as u64)?;
            if columns.rows >= BATCH_ROWS || columns.bytes >= BATCH_BYTES {
                self.flush(py)?;
            }
        }
        Ok(())
    }

    /// Fixes the column types.
    pub(crate) fn begin(&mut self, kinds: (Kind, Kind)) {
        let (key, value) = (Column::new(&kinds.0), Column::new(&kinds.1));
        self.columns = Some(Columns { kinds, key, value, rows: 0, bytes: 0 });
    }

    /// The kinds in which pairs are collected once Arrow data has set the schema, and the value column's name.
    fn kinds_of_schema(&self, schema: &Schema) -> PyResult<((Kind, Kind), String)> {
        let key = &self.target.job.options.key[0];
        let values: Vec<_> = schema.fields().iter().filter(|f| f.name() != key).collect();
        let [value] = values.as_slice() else {
            return Err(schema_error(format!(
                "the dataset has {} value columns; put() and update() fill exactly one, use write()",
                values.len()
            )));
        };
        let kind = |field: &arrow_schema::Field| {
            Kind::of_type(field.data_type(), field.metadata().get(CODEC_KEY).map(String::as_str)).ok_or_else(|| {
                schema_error(format!(
                    "put() and update() cannot fill column {:?} of type {}; use write()",
                    field.name(),
                    field.data_type()
                ))
            })
        };
        let key = kind(schema.field_with_name(key).map_err(|e| schema_error(e.to_string()))?)?;
        Ok(((key, kind(value)?), value.name().clone()))
    }

    fn flush(&mut self, py: Python<'_>) -> PyResult<()> {
        py.check_signals()?;
        let Some(columns) = &mut self.columns else { return Ok(()) };
        let names = &self.target.columns;
        let fields =
            vec![Column::field(&columns.kinds.0, &names.0, false), Column::field(&columns.kinds.1, &names.1, true)];
        let arrays = columns.finish();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
            .map_err(|e| crate::errors::arrow_error("collect pairs", &e))?;
        self.write_batch(py, &batch)
    }

    /// Takes Arrow data, after the pairs that came before it.
    pub(crate) fn write_arrow(
        &mut self,
        py: Python<'_>,
        reader: impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>> + Send,
        schema: &SchemaRef,
    ) -> PyResult<()> {
        self.check_usable()?;
        let done = self.write_arrow_unchecked(py, reader, schema);
        self.failed |= done.is_err();
        done
    }

    fn write_arrow_unchecked(
        &mut self,
        py: Python<'_>,
        mut reader: impl Iterator<Item = Result<RecordBatch, arrow_schema::ArrowError>> + Send,
        schema: &SchemaRef,
    ) -> PyResult<()> {
        if !self.pending.is_empty() {
            self.settle(py, self.rows).map_err(PushError::into_exception)?;
        }
        if self.columns.as_ref().is_some_and(|c| c.rows > 0) {
            self.flush(py)?;
        }
        self.open_writer(py, schema)?;
        while let Some(batch) = py.detach(|| reader.next()) {
            py.check_signals()?;
            let batch = batch.map_err(|e| source_error(py, e))?;
            self.rows += batch.num_rows() as u64;
            self.write_batch(py, &batch)?;
        }
        Ok(())
    }

    fn open_writer(&mut self, py: Python<'_>, schema: &SchemaRef) -> PyResult<()> {
        if self.sink.is_none() {
            let Target { destination, name, job, .. } = &self.target;
            self.sink = Some(destination.writer(py, name, job, schema)?);
        }
        self.schema.get_or_insert_with(|| schema.clone());
        Ok(())
    }

    fn write_batch(&mut self, py: Python<'_>, batch: &RecordBatch) -> PyResult<()> {
        self.open_writer(py, batch.schema_ref())?;
        let (Some(sink), Some(schema)) = (&mut self.sink, &self.schema) else { return Ok(()) };
        let batch = conform(batch, schema)?;
        sink.write(py, &self.target.job, &batch)
    }

    /// Publishes everything taken; the new version's number. After an error only [`PairWriter::abort`] is of use.
    pub(crate) fn commit(&mut self, py: Python<'_>, unfinished: Unfinished) -> Result<u64, PushError> {
        self.check_usable()?;
        if self.columns.is_none()
            && self.schema.is_none()
            && let Some(sink) = &self.sink
        {
            // The writer's own few pairs have not set the columns: those of its parts count, unless these know no type yet.
            let is_known = |s: &SchemaRef| s.fields().iter().all(|f| *f.data_type() != arrow_schema::DataType::Null);
            self.schema = sink.schema(py)?.filter(|s| self.pending.is_empty() || is_known(s));
        }
        if self.columns.is_none() && (self.schema.is_none() || !self.pending.is_empty()) {
            self.settle(py, self.rows)?;
        }
        if self.columns.as_ref().is_some_and(|c| c.rows > 0) || self.schema.is_none() {
            self.flush(py)?;
        }
        let Some(sink) = self.sink.take() else {
            return Err(PushError::Raised(PyRuntimeError::new_err("nothing to commit")));
        };
        py.check_signals()?;
        Ok(sink.commit(py, &self.target.job, unfinished)?)
    }

    /// Gives up: removes what was written; the store is as it was.
    pub(crate) fn abort(mut self, py: Python<'_>) {
        let sink = self.sink.take();
        py.detach(|| drop(sink));
    }
}

impl Columns {
    #[inline]
    fn append(&mut self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, row: u64) -> Result<(), PushError> {
        if key.is_none() {
            return Err(PushError::Raised(null_key(row)));
        }
        self.bytes += self.key.append(key).map_err(|e| refused(e, "key", &self.kinds.0, key, row))?;
        self.bytes += self.value.append(value).map_err(|e| refused(e, "value", &self.kinds.1, value, row))?;
        self.rows += 1;
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        (self.rows, self.bytes) = (0, 0);
        vec![self.key.finish(), self.value.finish()]
    }
}

fn null_key(row: u64) -> PyErr {
    schema_error(format!("row {row}: the key is None; keys cannot be null"))
}

fn refused(error: Refused, column: &'static str, kind: &Kind, object: &Bound<'_, PyAny>, row: u64) -> PushError {
    match error {
        Refused::Mismatch => PushError::Mismatch { row, column, expected: kind.name(), found: type_name(object) },
        Refused::Value(problem) => PushError::Raised(schema_error(format!("row {row}, {column}: {problem}"))),
        Refused::Raised(e) => PushError::Raised(e),
    }
}

/// The stream that Python gave failed: with a Python exception if it carries one.
fn source_error(py: Python<'_>, error: arrow_schema::ArrowError) -> PyErr {
    crate::errors::write_error(py, &WriteError::Source { problem: error.to_string() })
}

/// A batch with the schema's columns in the schema's order and types: values change their type, never what they are.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> PyResult<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let given = batch.schema();
    if let Some(missing) = schema.fields().iter().find(|f| given.field_with_name(f.name()).is_err()) {
        let found: Vec<_> = given.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(schema_error(format!("column {:?} is missing; found {found:?}", missing.name())));
    }
    if let Some(extra) = given.fields().iter().find(|f| schema.field_with_name(f.name()).is_err()) {
        let expected: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(schema_error(format!(
            "column {:?} was not in the earlier data, which had {expected:?}; choose columns with value=",
            extra.name()
        )));
    }
    let columns = schema.fields().iter().map(|field| {
        let at = given.index_of(field.name()).map_err(|e| schema_error(e.to_string()))?;
        let (column, found) = (batch.column(at), given.field(at));
        let codec = |f: &arrow_schema::Field| f.metadata().get(CODEC_KEY).cloned();
        if codec(found) != codec(field) {
            let name = |codec: Option<String>| codec.unwrap_or_else(|| "none".into());
            return Err(schema_error(format!(
                "column {:?} is encoded by codec {}, earlier data by {}",
                field.name(),
                name(codec(found)),
                name(codec(field))
            )));
        }
        convert(column, field.data_type()).map_err(|e| {
            schema_error(format!(
                "column {:?} is {}, earlier data had {}: {e}",
                field.name(),
                column.data_type(),
                field.data_type()
            ))
        })
    });
    let columns = columns.collect::<PyResult<Vec<_>>>()?;
    RecordBatch::try_new(schema.clone(), columns)
        .map_err(|e| schema_error(format!("the data does not fit the earlier data: {e}")))
}

/// Calls `each` for every entry; fails as a Python loop does if the dict changes meanwhile.
pub(crate) fn each_entry<'py>(
    dict: &Bound<'py, PyDict>,
    mut each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> Result<(), PushError>,
) -> Result<(), PushError> {
    let len = dict.len();
    let mut entries = dict.iter();
    for _ in 0..len {
        // The iterator would panic: its `next` must not be called on a dict of another size.
        if dict.len() != len {
            return Err(PushError::Raised(PyRuntimeError::new_err("the dict changed its size while it was stored")));
        }
        let Some((key, value)) = entries.next() else {
            return Err(PushError::Raised(PyRuntimeError::new_err("the dict's keys changed while it was stored")));
        };
        each(&key, &value)?;
    }
    Ok(())
}

/// Calls `each` for every pair of an iterable.
pub(crate) fn each_pair<'py>(
    pairs: &Bound<'py, PyAny>,
    mut each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> Result<(), PushError>,
) -> Result<(), PushError> {
    for (row, item) in pairs.try_iter()?.enumerate() {
        let item = item?;
        if let Ok(pair) = item.cast::<PyTuple>()
            && pair.len() == 2
        {
            each(&pair.get_item(0)?, &pair.get_item(1)?)?;
        } else if let Ok(pair) = item.cast::<PyList>()
            && pair.len() == 2
        {
            each(&pair.get_item(0)?, &pair.get_item(1)?)?;
        } else {
            return Err(PushError::Raised(schema_error(format!(
                "row {row}: expected a (key, value) tuple, found {}",
                type_name(&item)
            ))));
        }
    }
    Ok(())
}

/// Where pairs come from.
pub(crate) enum Source<'py> {
    Dict(Bound<'py, PyDict>),
    /// Something whose `items()` can be asked for again.
    Mapping(Bound<'py, PyAny>),
    /// Something that can be read once.
    Once(Bound<'py, PyAny>),
}

impl<'py> Source<'py> {
    /// Where the pairs of what Python gave come from.
    pub(crate) fn of(pairs: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(match pairs.cast_exact::<PyDict>() {
            Ok(dict) => Self::Dict(dict.clone()),
            Err(_) if pairs.hasattr("items")? => Self::Mapping(pairs.clone()),
            Err(_) => Self::Once(pairs.clone()),
        })
    }

    pub(crate) fn each(
        &self,
        each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        match self {
            Self::Dict(dict) => each_entry(dict, each),
            Self::Mapping(mapping) => each_pair(&mapping.call_method0("items")?, each),
            Self::Once(pairs) => each_pair(pairs, each),
        }
    }
}

/// Builds a map from pairs. A dict whose first entries promised other column types than later ones need is read again.
pub(crate) fn put_pairs(py: Python<'_>, target: &Target, source: &Source<'_>) -> PyResult<u64> {
    let mut writer = PairWriter::new(target.clone());
    let taken = source.each(|key, value| writer.push(py, key, value));
    match taken.and_then(|()| writer.commit(py, Unfinished::Error)) {
        Ok(version) => return Ok(version),
        Err(PushError::Mismatch { .. }) if !matches!(source, Source::Once(_)) => {}
        Err(e) => {
            writer.abort(py);
            return Err(e.into_exception());
        }
    }
    writer.abort(py);
    let mut scans = (KindScan::default(), KindScan::default());
    let mut row = 0;
    let looked = source.each(|key, value| {
        scans.0.look(key, row)?;
        scans.1.look(value, row)?;
        row += 1;
        if row % BATCH_ROWS as u64 == 0 {
            py.check_signals()?;
        }
        Ok(())
    });
    looked.map_err(PushError::into_exception)?;
    let mut writer = PairWriter::new(target.clone());
    writer.begin(target.codec.kinds(&scans)?);
    let taken = source.each(|key, value| writer.push(py, key, value));
    match taken.and_then(|()| writer.commit(py, Unfinished::Error)) {
        Ok(version) => Ok(version),
        Err(e) => {
            writer.abort(py);
            Err(e.into_exception())
        }
    }
}
