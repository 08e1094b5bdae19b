//! `RemoteClient`: a store at a server, with the methods of `StoreHandle`. `pheon.RemoteStore` is its face in Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use pheon::Unfinished;
use pheon::input::{self, InputOptions};
use pheon_flight::client::blocking::Answer;
use pheon_flight::client::{ClientError, ClientOptions, Put, Scan, StoreFacts};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use pyo3_arrow::input::{AnyArray, AnyRecordBatch};
use serde_json::{Value, json};

use super::dataset::Dataset;
use super::errors::{RemoteError, client_error};
use super::iter::{RemoteBatchIter, batch_with_codecs};
use super::link::{Link, collect};
use super::live;
use super::map::RemoteMapHandle;
use super::rows::{RemoteRows, joined};
use super::table::RemoteTableHandle;
use crate::errors::{arrow_error, write_error};
use crate::ingest::{Codec, Source, Target, put_pairs};
use crate::options::{BuildOptions, Job};
use crate::sink::Destination;
use crate::store::{Reader, foreign, joined_rows, select};
use crate::writer::WriterHandle;

/// Keys of the options dict; the names of `pheon.connect`'s keyword arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct ConnectOptions {
    token: Option<String>,
    user: Option<String>,
    password: Option<String>,
    /// Certificates in PEM.
    tls_ca: Option<Vec<u8>>,
    tls_cert: Option<Vec<u8>>,
    tls_key: Option<Vec<u8>>,
    tls_server_name: Option<String>,
    /// Seconds.
    timeout: Option<f64>,
    connect_timeout: Option<f64>,
}

impl ConnectOptions {
    fn resolve(self) -> PyResult<ClientOptions> {
        let mut options = ClientOptions::default();
        match (self.token, self.user) {
            (Some(_), Some(_)) => return Err(PyValueError::new_err("token and user exclude each other: give one")),
            (Some(token), None) => options = options.token(token),
            (None, Some(user)) => options = options.login(user, self.password.unwrap_or_default()),
            (None, None) => {}
        }
        if let Some(roots) = self.tls_ca {
            options = options.tls_roots(roots);
        }
        match (self.tls_cert, self.tls_key) {
            (Some(certificate), Some(key)) => options = options.tls_identity(certificate, key),
            (None, None) => {}
            _ => return Err(PyValueError::new_err("tls_cert and tls_key belong together: give both")),
        }
        if let Some(name) = self.tls_server_name {
            options = options.tls_server_name(name);
        }
        if let Some(timeout) = seconds("timeout", self.timeout)? {
            options = options.timeout(timeout);
        }
        if let Some(timeout) = seconds("connect_timeout", self.connect_timeout)? {
            options = options.connect_timeout(timeout);
        }
        Ok(options)
    }
}

fn seconds(option: &str, value: Option<f64>) -> PyResult<Option<Duration>> {
    let convert = |value: f64| {
        let found = Duration::try_from_secs_f64(value).ok().filter(|duration| !duration.is_zero());
        found.ok_or_else(|| PyValueError::new_err(format!("{option} is {value}; expected seconds, more than 0")))
    };
    value.map(convert).transpose()
}

/// A connection to a server.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct RemoteClient {
    link: Arc<Link>,
}

impl RemoteClient {
    fn put_reader(&self, py: Python<'_>, name: &str, reader: Reader, job: &Job) -> PyResult<u64> {
        let mut reader = reader;
        let destination = Destination::Remote(self.link.clone());
        let mut sink = destination.writer(py, name, job, &reader.schema())?;
        while let Some(batch) = py.detach(|| reader.next()) {
            let batch = batch.map_err(|e| write_error(py, &input::write_error(e)))?;
            sink.write(py, job, &batch)?;
        }
        py.check_signals()?;
        sink.commit(py, job, Unfinished::Error)
    }

    /// Fails early for names that cannot be a dataset's.
    fn check_name(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let body = json!({ "dataset": name }).to_string();
        let told = self.link.call(py, |client| Ok(client.action("versions", body)))?;
        match told {
            Err(e @ ClientError::Refused { .. }) if e.detail() == Some("invalid-name") => Err(client_error(&e)),
            _ => Ok(()),
        }
    }

    /// What a build is to be like, as far as that is not the server's affair.
    fn job(&self, options: BuildOptions, key: Vec<String>, unique: bool, rows: Option<u64>) -> PyResult<Job> {
        self.link.check_open()?;
        options.check_remote()?;
        let mut job = options.resolve(key, unique)?;
        job.options.expected_rows = rows;
        Ok(job)
    }

    fn target(
        &self,
        name: &str,
        columns: (String, String),
        codec: Option<&str>,
        rows: Option<u64>,
        options: BuildOptions,
    ) -> PyResult<Target> {
        let job = self.job(options, vec![columns.0.clone()], true, rows)?;
        let destination = Destination::Remote(self.link.clone());
        Ok(Target { destination, name: name.to_owned(), job, columns, codec: Codec::parse(codec)? })
    }
}

// Each argument is a keyword argument of a Python method.
#[allow(clippy::too_many_arguments)]
#[pymethods]
impl RemoteClient {
    #[new]
    fn new(py: Python<'_>, uri: &str, options: ConnectOptions) -> PyResult<Self> {
        Ok(Self { link: Link::connect(py, uri, options.resolve()?)? })
    }

    #[getter]
    fn uri(&self) -> &str {
        self.link.uri()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Raises `ClosedError` if the connection was closed.
    fn check_open(&self) -> PyResult<()> {
        self.link.check_open()
    }

    /// Ends the use of this object, and of what was opened through it.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.link.close());
    }

    /// What the server says about its store.
    fn store<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let StoreFacts { uuid, path, host, version, sql, .. } = self.link.call(py, |client| client.store())?;
        let facts = PyDict::new(py);
        facts.set_item("uuid", uuid)?;
        facts.set_item("path", path)?;
        facts.set_item("host", host)?;
        facts.set_item("version", version)?;
        facts.set_item("sql", sql)?;
        Ok(facts)
    }

    /// Runs an action; the bodies of its results.
    fn action<'py>(&self, py: Python<'py>, name: &str, body: Vec<u8>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let results = self.link.call(py, |client| client.action(name, body))?;
        Ok(results.iter().map(|result| PyBytes::new(py, result)).collect())
    }

    fn datasets(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let all = self.link.action(py, "datasets", &json!({}))?;
        let mut names: Vec<_> =
            all.iter().filter_map(|facts| facts.get("name").and_then(Value::as_str)).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Names of the live maps, ascending.
    fn live_names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.link.call(py, |client| client.live_names())
    }

    #[pyo3(signature = (name, version, allow_pickle))]
    fn map(&self, py: Python<'_>, name: &str, version: Option<u64>, allow_pickle: bool) -> PyResult<RemoteMapHandle> {
        RemoteMapHandle::open(py, Dataset::open(py, &self.link, name, version)?, allow_pickle)
    }

    #[pyo3(signature = (name, version))]
    fn table(&self, py: Python<'_>, name: &str, version: Option<u64>) -> PyResult<RemoteTableHandle> {
        let dataset = Dataset::open(py, &self.link, name, version)?;
        Ok(RemoteTableHandle::new(RemoteRows::whole(dataset)))
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
        let target = self.target(name, columns, codec, rows, options)?;
        put_pairs(py, &target, &Source::of(pairs)?)
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
        let job = self.job(options, key.clone(), unique, rows)?;
        let reader = select(foreign(data)?, &key, value)?;
        self.put_reader(py, name, reader, &job)
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
        let mut job = self.job(options, key.clone(), unique, None)?;
        let opened =
            py.detach(|| input::open_all(&paths, &InputOptions::default())).map_err(|e| write_error(py, &e))?;
        job.options.expected_rows = opened.rows_estimate;
        let reader = select(opened.reader, &key, value)?;
        self.put_reader(py, name, reader, &job)
    }

    /// A writer of a map.
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
        if resume {
            let problem = "resume takes up parts, which are written on the store's own host; open the store there";
            return Err(PyValueError::new_err(format!("{name:?}: {problem}")));
        }
        let target = self.target(name, columns, codec, None, options)?;
        self.check_name(py, name)?;
        Ok(WriterHandle::new(target))
    }

    /// Raises `ValueError` for what steers a build on this machine.
    fn check_build(&self, options: BuildOptions) -> PyResult<()> {
        options.check_remote()
    }

    /// Takes the rows with these keys out; (version, rows that went).
    fn delete(&self, py: Python<'_>, name: &str, keys: AnyArray, options: BuildOptions) -> PyResult<(u64, u64)> {
        options.check_remote()?;
        let put = Put::delete(name).compact(options.compact);
        let mut chunks = Vec::new();
        for chunk in keys.into_reader()? {
            chunks.push(chunk.map_err(|e| arrow_error("read keys", &e))?);
        }
        let Some(first) = chunks.first() else {
            return Ok((Dataset::open(py, &self.link, name, None)?.version, 0));
        };
        let schema = Arc::new(Schema::new(vec![Field::new("key", first.data_type().clone(), true)]));
        let batches = chunks.iter().map(|chunk| RecordBatch::try_new(schema.clone(), vec![chunk.clone()]));
        let batches = batches.collect::<Result<Vec<_>, _>>().map_err(|e| arrow_error("collect keys", &e))?;
        let published = self.link.call(py, |client| {
            let mut writer = client.put(&put, schema)?;
            for batch in batches {
                writer.write(batch)?;
            }
            writer.commit()
        })?;
        Ok((published.version, published.rows))
    }

    /// Does operations on a live map in one transaction, see the module `live`; what each found.
    fn live<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        operations: &Bound<'py, PyList>,
        pickle: bool,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let body = live::body(name, operations, pickle)?;
        if body.len() > live::BODY_BYTES_MAX {
            return Err(RemoteError::new_err(format!(
                "change a live map: {} operations in {} bytes; a server takes at most {} at once: send fewer",
                operations.len(),
                body.len(),
                live::BODY_BYTES_MAX
            )));
        }
        let answers = self.link.call(py, |client| client.action("live", body))?;
        live::results(py, answers.first().map_or(&[][..], AsRef::as_ref), operations.len())
    }

    /// The entries of a live map at one moment, in their encoding, as batches.
    fn live_scan(&self, py: Python<'_>, name: &str) -> PyResult<RemoteBatchIter> {
        Ok(RemoteBatchIter::new(Some(self.link.scan(py, &Scan::live(name))?)))
    }

    /// Executes one SQL statement; `parameters`: rows of values for its placeholders.
    fn sql(&self, py: Python<'_>, statement: &str, parameters: Option<AnyRecordBatch>) -> PyResult<Py<PyAny>> {
        let parameters = parameters.map(joined_rows).transpose()?;
        match self.link.call(py, |client| client.sql(statement, parameters))? {
            Answer::Changed(rows) => rows.into_py_any(py),
            Answer::Rows(rows) => {
                let schema = rows.schema().clone();
                let batch = joined(py, &schema, collect(py, rows)?)?;
                batch_with_codecs(batch).into_py_any(py)
            }
        }
    }
}
