//! `StoreHandle`: a directory of datasets. `pheon.Store` is its face in Python.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{Array, RecordBatch, RecordBatchIterator, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use pheon::input::{self, InputOptions};
use pheon::{Access, DatasetMemory, MemoryScope, ReadError, Resume, Store, WarmOptions, WriteError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_arrow::input::{AnyArray, AnyRecordBatch};

use crate::errors::{ClosedError, arrow_error, read_error, schema_error, write_error};
use crate::ingest::{Codec, Source, Target, put_pairs};
use crate::map::MapHandle;
use crate::options::{BuildOptions, Job, retention};
use crate::progress::Watch;
use crate::sink::Destination;
use crate::table::TableHandle;
use crate::writer::WriterHandle;

/// version, created_unix_ms, rows, bytes, segments, origin.
type VersionFacts = (u64, u64, u64, u64, usize, String);
pub(crate) type Reader = Box<dyn RecordBatchReader + Send>;

/// An open store.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct StoreHandle {
    store: Store,
    closed: AtomicBool,
}

impl StoreHandle {
    /// The store, unless it was closed.
    fn open_store(&self) -> PyResult<&Store> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(ClosedError::new_err(format!("the store {} was closed", self.store.path().display())));
        }
        Ok(&self.store)
    }

    fn read<T: Send>(&self, py: Python<'_>, read: impl FnOnce(&Store) -> Result<T, ReadError> + Send) -> PyResult<T> {
        let store = self.open_store()?;
        py.detach(|| read(store)).map_err(|e| read_error(py, &e))
    }

    fn write<T: Send>(
        &self,
        py: Python<'_>,
        write: impl FnOnce(&Store) -> Result<T, WriteError> + Send,
    ) -> PyResult<T> {
        let store = self.open_store()?;
        py.detach(|| write(store)).map_err(|e| write_error(py, &e))
    }

    /// Fails early for names that cannot be a dataset's.
    fn check_name(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        match self.open_store()?.versions(name) {
            Err(e @ ReadError::InvalidName { .. }) => Err(read_error(py, &e)),
            _ => Ok(()),
        }
    }

    fn put_reader(
        &self,
        py: Python<'_>,
        name: &str,
        reader: Reader,
        key: Vec<String>,
        value: Option<Vec<String>>,
        job: &Job,
    ) -> PyResult<u64> {
        let store = self.open_store()?;
        let reader = select(reader, &key, value)?;
        let writer = job.watch.run(py, || {
            let mut writer = job.writer(store, name, &reader.schema())?;
            for batch in reader {
                writer.write(&batch.map_err(input::write_error)?)?;
            }
            Ok(writer)
        })?;
        py.check_signals()?;
        job.watch.run(py, || writer.commit())
    }
}

// Each argument is a keyword argument of a Python method.
#[allow(clippy::too_many_arguments)]
#[pymethods]
impl StoreHandle {
    #[new]
    #[pyo3(signature = (path, read_only, access = "auto"))]
    fn new(py: Python<'_>, path: PathBuf, read_only: bool, access: &str) -> PyResult<Self> {
        let access: Access = access.parse().map_err(|problem| PyValueError::new_err(format!("access: {problem}")))?;
        let store = if read_only {
            py.detach(|| Store::open_read_only(&path)).map_err(|e| read_error(py, &e))?
        } else {
            py.detach(|| Store::open(&path)).map_err(|e| write_error(py, &e))?
        };
        Ok(Self { store: store.with_access(access), closed: AtomicBool::new(false) })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.store.path().to_owned()
    }

    #[getter]
    fn uuid(&self) -> &str {
        self.store.uuid()
    }

    #[getter]
    fn read_only(&self) -> bool {
        self.store.is_read_only()
    }

    #[getter]
    fn access(&self) -> String {
        self.store.access().to_string()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Raises `ClosedError` if the store was closed.
    fn check_open(&self) -> PyResult<()> {
        self.open_store().map(drop)
    }

    /// Ends the use of this object, and what `warm` locked. Maps and tables opened from it stay usable.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::Relaxed);
        py.detach(|| self.store.unlock());
    }

    fn datasets(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.read(py, Store::datasets)
    }

    fn contains(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        self.read(py, |s| s.contains(name))
    }

    #[pyo3(signature = (name, version, allow_pickle))]
    fn map(&self, py: Python<'_>, name: &str, version: Option<u64>, allow_pickle: bool) -> PyResult<MapHandle> {
        let map = self.read(py, |s| match version {
            Some(v) => s.map_at(name, v),
            None => s.map(name),
        })?;
        MapHandle::open(map, allow_pickle)
    }

    #[pyo3(signature = (name, version))]
    fn table(&self, py: Python<'_>, name: &str, version: Option<u64>) -> PyResult<TableHandle> {
        let table = self.read(py, |s| match version {
            Some(v) => s.table_at(name, v),
            None => s.table(name),
        })?;
        Ok(TableHandle::new(table))
    }

    /// Publishes a map of a dict, a mapping or an iterable of pairs; the version.
    #[pyo3(signature = (name, pairs, columns, codec, rows, options))]
    fn put_pairs(
        &self,
        py: Python<'_>,
        name: &str,
        pairs: &Bound<'_, PyAny>,
        columns: (String, String),
        codec: Option<&str>,
        rows: Option<u64>,
        options: BuildOptions,
    ) -> PyResult<u64> {
        self.check_name(py, name)?;
        let mut job = options.resolve(vec![columns.0.clone()], true)?;
        job.options.expected_rows = rows;
        let target = Target {
            destination: Destination::Local(self.open_store()?.clone()),
            name: name.to_owned(),
            job,
            columns,
            codec: Codec::parse(codec)?,
        };
        let source = Source::of(pairs)?;
        put_pairs(py, &target, &source)
    }

    /// Publishes a dataset of anything that speaks the Arrow PyCapsule protocol; the version.
    #[pyo3(signature = (name, data, key, value, unique, rows, options))]
    fn put_arrow(
        &self,
        py: Python<'_>,
        name: &str,
        data: AnyRecordBatch,
        key: Vec<String>,
        value: Option<Vec<String>>,
        unique: bool,
        rows: Option<u64>,
        options: BuildOptions,
    ) -> PyResult<u64> {
        self.check_name(py, name)?;
        let mut job = options.resolve(key.clone(), unique)?;
        job.options.expected_rows = rows;
        self.put_reader(py, name, foreign(data)?, key, value, &job)
    }

    /// Publishes a dataset of a table or slice; the version.
    #[pyo3(signature = (name, table, key, value, unique, options))]
    fn put_table(
        &self,
        py: Python<'_>,
        name: &str,
        table: &Bound<'_, TableHandle>,
        key: Vec<String>,
        value: Option<Vec<String>>,
        unique: bool,
        options: BuildOptions,
    ) -> PyResult<u64> {
        self.check_name(py, name)?;
        let job = options.resolve(key.clone(), unique)?;
        let reader = table.get().reader(py)?;
        self.put_reader(py, name, reader, key, value, &job)
    }

    /// Publishes a dataset of files; the version.
    #[pyo3(signature = (name, paths, key, value, unique, options))]
    fn put_files(
        &self,
        py: Python<'_>,
        name: &str,
        paths: Vec<PathBuf>,
        key: Vec<String>,
        value: Option<Vec<String>>,
        unique: bool,
        options: BuildOptions,
    ) -> PyResult<u64> {
        self.check_name(py, name)?;
        let mut job = options.resolve(key.clone(), unique)?;
        let opened =
            py.detach(|| input::open_all(&paths, &InputOptions::default())).map_err(|e| write_error(py, &e))?;
        job.options.expected_rows = opened.rows_estimate;
        self.put_reader(py, name, opened.reader, key, value, &job)
    }

    /// A writer of a map. `resume`: it takes up the parts that an interrupted one has finished.
    #[pyo3(signature = (name, columns, codec, resume, options))]
    fn map_writer(
        &self,
        py: Python<'_>,
        name: &str,
        columns: (String, String),
        codec: Option<&str>,
        resume: bool,
        options: BuildOptions,
    ) -> PyResult<WriterHandle> {
        self.check_name(py, name)?;
        let job = options.resolve(vec![columns.0.clone()], true)?;
        let store = self.open_store()?.clone();
        if store.is_read_only() {
            return Err(write_error(py, &WriteError::ReadOnly { path: store.path().to_owned() }));
        }
        let parsed = Codec::parse(codec)?;
        let destination = if resume {
            let facts = Resume::default().fact("codec", codec.unwrap_or("none")).fact("value", columns.1.as_str());
            Destination::Resumed(store, facts)
        } else {
            Destination::Local(store)
        };
        let target = Target { destination, name: name.to_owned(), job, columns, codec: parsed };
        Ok(WriterHandle::new(target))
    }

    /// Takes the rows with these keys out; (version, rows that went).
    fn delete(&self, py: Python<'_>, name: &str, keys: AnyArray, options: BuildOptions) -> PyResult<(u64, u64)> {
        let store = self.open_store()?;
        let job = options.resolve(Vec::new(), false)?;
        let mut chunks = Vec::new();
        for chunk in keys.into_reader()? {
            chunks.push(chunk.map_err(|e| arrow_error("read keys", &e))?);
        }
        if chunks.is_empty() {
            let table = store.table(name).map_err(|e| read_error(py, &e))?;
            return Ok((table.version(), 0));
        }
        job.watch.run(py, || {
            let parts: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
            let keys = arrow_select::concat::concat(&parts).map_err(input::write_error)?;
            store.delete(name, &keys, job.change())
        })
    }

    /// The facts of each version, ascending.
    fn versions(&self, py: Python<'_>, name: &str) -> PyResult<Vec<VersionFacts>> {
        let versions = self.read(py, |s| s.versions(name))?;
        Ok(versions
            .into_iter()
            .map(|v| (v.version, v.created_unix_ms, v.rows, v.bytes, v.segments, v.origin))
            .collect())
    }

    /// Executes one SQL statement; `parameters`: rows of values for its placeholders.
    fn sql(&self, py: Python<'_>, statement: &str, parameters: Option<AnyRecordBatch>) -> PyResult<Py<PyAny>> {
        let store = self.open_store()?;
        crate::sql::execute(py, store, statement, parameters.map(joined_rows).transpose()?)
    }

    fn rollback(&self, py: Python<'_>, name: &str, version: u64) -> PyResult<u64> {
        self.write(py, |s| s.rollback(name, version))
    }

    fn drop(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.write(py, |s| s.drop_dataset(name))
    }

    /// (versions_removed, segments_removed, leftovers_removed, bytes_freed).
    #[pyo3(signature = (name, keep, max_age))]
    fn gc(
        &self,
        py: Python<'_>,
        name: &str,
        keep: u64,
        max_age: Option<f64>,
    ) -> PyResult<(Vec<u64>, usize, usize, u64)> {
        let retention = retention(keep, max_age)?;
        let report = self.write(py, |s| s.gc_with(name, retention))?;
        Ok((report.versions_removed, report.segments_removed, report.leftovers_removed, report.bytes_freed))
    }

    /// Removes what first builds left that never finished.
    fn gc_unfinished(&self, py: Python<'_>, max_age: Option<f64>) -> PyResult<()> {
        let retention = retention(1, max_age)?;
        self.write(py, |s| s.gc_unfinished(retention))
    }

    fn compact(&self, py: Python<'_>, name: &str, options: BuildOptions) -> PyResult<u64> {
        let store = self.open_store()?;
        let job = options.resolve(Vec::new(), false)?;
        job.watch.run(py, || store.compact(name, job.change()))
    }

    /// (version, rows, keys, bytes, problems, problem_count).
    fn verify(&self, py: Python<'_>, name: &str) -> PyResult<(u64, u64, u64, u64, Vec<String>, usize)> {
        let report = self.read(py, |s| s.verify(name))?;
        Ok((report.version, report.rows, report.keys, report.bytes, report.problems, report.problem_count))
    }

    /// A dict of each dataset, with every field of the engine's report by name.
    fn memory<'py>(&self, py: Python<'py>, all_processes: bool) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let scope = if all_processes { MemoryScope::AllProcesses } else { MemoryScope::ThisProcess };
        let reports = self.read(py, |s| s.memory_of(&s.datasets()?, scope))?;
        let to_dict = |memory: DatasetMemory| {
            let facts = PyDict::new(py);
            facts.set_item("name", memory.name)?;
            facts.set_item("version", memory.version)?;
            facts.set_item("file_bytes", memory.file_bytes)?;
            facts.set_item("on_disk_bytes", memory.on_disk_bytes)?;
            facts.set_item("resident_bytes", memory.resident_bytes)?;
            facts.set_item("mapped_by_processes", memory.mapped_by_processes)?;
            facts.set_item("process_pss_bytes", memory.process_pss_bytes)?;
            facts.set_item("process_private_bytes", memory.process_private_bytes)?;
            facts.set_item("process_page_table_bytes", memory.process_page_table_bytes)?;
            facts.set_item("process_page_table_total_bytes", memory.process_page_table_total_bytes)?;
            facts.set_item("huge_bytes", memory.huge_bytes)?;
            facts.set_item("access", memory.access.to_string())?;
            facts.set_item("older_versions", memory.older_versions)?;
            facts.set_item("older_on_disk_bytes", memory.older_on_disk_bytes)?;
            Ok(facts)
        };
        reports.into_iter().map(to_dict).collect()
    }

    /// Every field of the engine's report, by name. Ctrl-C ends it.
    fn warm<'py>(&self, py: Python<'py>, name: &str, lock: bool, huge: bool) -> PyResult<Bound<'py, PyDict>> {
        let store = self.open_store()?;
        let watch = Watch::new(None);
        let cancel = watch.cancel();
        let options = WarmOptions::default().lock(lock).huge(huge).cancel(move || cancel());
        let warm = watch.run(py, || Ok(store.warm_with(name, &options)?))?;
        let facts = PyDict::new(py);
        facts.set_item("version", warm.version)?;
        facts.set_item("file_bytes", warm.file_bytes)?;
        facts.set_item("resident_before_bytes", warm.resident_before_bytes)?;
        facts.set_item("resident_bytes", warm.resident_bytes)?;
        facts.set_item("huge_bytes", warm.huge_bytes)?;
        facts.set_item("huge_refusal", warm.huge_refusal)?;
        facts.set_item("locked_bytes", warm.locked_bytes)?;
        facts.set_item("lock_refusal", warm.lock_refusal)?;
        facts.set_item("access", warm.access.to_string())?;
        facts.set_item("seconds", warm.elapsed.as_secs_f64())?;
        Ok(facts)
    }
}

/// Rows as one batch.
pub(crate) fn joined_rows(rows: AnyRecordBatch) -> PyResult<RecordBatch> {
    let reader = foreign(rows)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|e| arrow_error("read parameters", &e))?;
    arrow_select::concat::concat_batches(&schema, &batches).map_err(|e| arrow_error("join parameters", &e))
}

/// Batches of another library. arrow-rs takes some slices of nested arrays over with a panic: here that is an error.
struct Foreign(Reader);

impl Iterator for Foreign {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        catch_unwind(AssertUnwindSafe(|| self.0.next())).unwrap_or_else(|_| {
            let problem =
                "arrow-rs cannot take over a batch of this type that is a slice; copy it first (pyarrow: take)";
            Some(Err(ArrowError::CDataInterface(problem.to_owned())))
        })
    }
}

/// Reads what another library hands over.
pub(crate) fn foreign(data: AnyRecordBatch) -> PyResult<Reader> {
    Ok(Box::new(Foreign(data.into_reader()?)))
}

impl RecordBatchReader for Foreign {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }
}

/// The key columns and `value`, or every column.
pub(crate) fn select(reader: Reader, key: &[String], value: Option<Vec<String>>) -> PyResult<Reader> {
    let schema = reader.schema();
    let place = |name: &String| {
        schema.index_of(name).map_err(|_| {
            let found: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            schema_error(format!("there is no column {name:?}; the data has {found:?}"))
        })
    };
    let mut columns = key.iter().map(place).collect::<PyResult<Vec<_>>>()?;
    let Some(value) = value else { return Ok(reader) };
    for name in &value {
        let at = place(name)?;
        if columns.contains(&at) {
            return Err(schema_error(format!("column {name:?} is asked for twice, as key or value")));
        }
        columns.push(at);
    }
    let selected = schema.project(&columns).map_err(|e| schema_error(e.to_string()))?;
    let batches = reader.map(move |batch| batch.and_then(|b: RecordBatch| b.project(&columns)));
    Ok(Box::new(RecordBatchIterator::new(batches, std::sync::Arc::new(selected))))
}
