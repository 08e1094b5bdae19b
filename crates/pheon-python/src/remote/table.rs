//! `RemoteTableHandle`: a version of a dataset at a server or a slice of one, with the methods of `TableHandle`.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PySlice};
use pyo3_arrow::ffi::to_schema_pycapsule;
use pyo3_arrow::input::AnyArray;

use super::errors::RemoteError;
use super::iter::{RemoteBatchIter, batch_with_codecs};
use super::rows::{RemoteRows, joined};
use crate::batch::{PyBatch, stream_capsule};
use crate::column::{PyColumn, contiguous, position};
use crate::decode::{ValueCodec, column_objects};
use crate::errors::arrow_error;
use crate::ingest::CODEC_KEY;
use crate::keyed_rows::KeyedRows;
use crate::keys::Keys;

/// A version of a dataset at a server or a contiguous slice of one. Immutable; cheap to copy. It holds no rows: each call
/// fetches those that it needs.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct RemoteTableHandle {
    rows: RemoteRows,
    /// Made at first use.
    keys: OnceLock<Keys>,
}

impl RemoteTableHandle {
    pub(super) fn new(rows: RemoteRows) -> Self {
        Self { rows, keys: OnceLock::new() }
    }

    fn keys(&self) -> PyResult<&Keys> {
        match self.keys.get() {
            Some(keys) => Ok(keys),
            None => {
                let keys = Keys::of(&self.rows.dataset.name, &self.rows.dataset.key_fields)?;
                Ok(self.keys.get_or_init(|| keys))
            }
        }
    }

    /// All rows of each key in `keys`, with the number of the key.
    fn find(&self, py: Python<'_>, keys: ArrayRef) -> PyResult<(UInt64Array, RecordBatch)> {
        let dataset = &self.rows.dataset;
        let mut options = dataset.lookup().rows(true);
        if self.rows.is_selected() {
            options = options.columns(self.rows.names());
        }
        let (first, len) = self.rows.bounds();
        if (first, len) != (0, dataset.rows) {
            options = options.within(first as u64, len as u64);
        }
        let field = Field::new("key", keys.data_type().clone(), true);
        let keys = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![keys])
            .map_err(|e| arrow_error("collect keys", &e))?;
        let (schema, batches) = dataset.link.lookup(py, &options, &keys)?;
        let answer = joined(py, &schema, batches)?;
        let positions = answer.columns().first().and_then(|c| c.as_any().downcast_ref::<UInt64Array>().cloned());
        let positions = positions.filter(|_| answer.num_columns() == self.rows.schema().fields().len() + 1);
        let positions =
            positions.ok_or_else(|| RemoteError::new_err("look keys up: unexpected answer: other columns"))?;
        let batch = RecordBatch::try_new(self.rows.schema().clone(), answer.columns()[1..].to_vec())
            .map_err(|e| arrow_error("look keys up", &e))?;
        Ok((positions, batch))
    }
}

#[pymethods]
impl RemoteTableHandle {
    #[getter]
    fn name(&self) -> &str {
        &self.rows.dataset.name
    }

    #[getter]
    fn version(&self) -> u64 {
        self.rows.dataset.version
    }

    #[getter]
    fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// First row within the version, and rows.
    #[getter]
    fn bounds(&self) -> (usize, usize) {
        self.rows.bounds()
    }

    #[getter]
    fn key(&self) -> Vec<String> {
        self.rows.dataset.key.clone()
    }

    #[getter]
    fn unique(&self) -> bool {
        self.rows.dataset.distinct
    }

    /// Asks the server.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        let scan = self.rows.scan();
        let info = self.rows.dataset.link.call(py, |client| client.scan_info(&scan))?;
        Ok(info.bytes.unwrap_or(0))
    }

    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.rows.names()
    }

    #[getter]
    fn column_types(&self) -> Vec<String> {
        self.rows.schema().fields().iter().map(|field| field.data_type().to_string()).collect()
    }

    /// The codec of each column that has one.
    #[getter]
    fn codecs(&self) -> HashMap<String, String> {
        let fields = self.rows.schema().fields().iter();
        fields.filter_map(|field| Some((field.name().clone(), field.metadata().get(CODEC_KEY)?.clone()))).collect()
    }

    /// The key column's Arrow type, printed; None if there is no key or several columns make it.
    #[getter]
    fn key_type(&self) -> Option<String> {
        match self.rows.dataset.key_fields.as_slice() {
            [field] => Some(field.data_type().to_string()),
            _ => None,
        }
    }

    /// The columns, if some were chosen.
    #[getter]
    fn selected(&self) -> Option<Vec<String>> {
        self.rows.is_selected().then(|| self.rows.names())
    }

    /// The same rows with these columns.
    fn select(&self, names: Vec<String>) -> PyResult<Self> {
        self.rows.select(&names).map(Self::new)
    }

    /// Python keys as a `Column` of the key's type; null for keys that no row can have.
    fn key_column(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<PyColumn> {
        let array = self.keys()?.array(py, keys)?;
        let field = Field::new("key", array.data_type().clone(), true);
        Ok(PyColumn::new(Arc::new(field), array, ValueCodec::Plain))
    }

    /// The rows of many keys: for each the number of its key, and the rows.
    #[pyo3(signature = (keys, threads))]
    fn lookup(&self, py: Python<'_>, keys: AnyArray, threads: Option<usize>) -> PyResult<(PyColumn, PyBatch)> {
        let _ = threads; // the server's affair
        let mut chunks: Vec<ArrayRef> = Vec::new();
        for chunk in keys.into_reader()? {
            chunks.push(chunk.map_err(|e| arrow_error("read keys", &e))?);
        }
        let parts: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
        let (positions, batch) = if parts.is_empty() {
            (UInt64Array::from(Vec::<u64>::new()), RecordBatch::new_empty(self.rows.schema().clone()))
        } else {
            self.find(py, concat(&parts).map_err(|e| arrow_error("join the keys", &e))?)?
        };
        let field = Field::new("position", DataType::UInt64, false);
        Ok((PyColumn::new(Arc::new(field), Arc::new(positions), ValueCodec::Plain), batch_with_codecs(batch)))
    }

    /// Rows of several places, each from a first row to one before a last.
    fn gather(&self, py: Python<'_>, pieces: Vec<(usize, usize)>) -> PyResult<PyBatch> {
        self.rows.gather(py, &pieces).map(batch_with_codecs)
    }

    /// Rows `offset` to `offset + len`, cut at the end.
    fn slice(&self, offset: usize, len: usize) -> Self {
        Self::new(self.rows.slice(offset, len))
    }

    /// The rows of a slice with step 1.
    fn slice_of(&self, slice: &Bound<'_, PySlice>) -> PyResult<Self> {
        let (start, len) = contiguous(slice, self.rows.num_rows())?;
        Ok(self.slice(start, len))
    }

    /// One row as a dict.
    fn row<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let at = position(index, self.rows.num_rows())?;
        let batch = self.rows.slice(at, 1).batch(py)?;
        let row = PyDict::new(py);
        for (field, column) in self.rows.schema().fields().iter().zip(batch.columns()) {
            let mut objects = column_objects(py, column, ValueCodec::of(field, false).readable())?;
            row.set_item(field.name(), objects.pop())?;
        }
        Ok(row)
    }

    /// One column by its name.
    fn column(&self, py: Python<'_>, name: &str) -> PyResult<PyColumn> {
        if self.rows.schema().index_of(name).is_err() {
            return Err(PyKeyError::new_err(name.to_owned()));
        }
        let batch = self.rows.select(&[name.to_owned()])?.batch(py)?;
        let field = batch.schema().fields()[0].clone();
        let codec = ValueCodec::of(&field, false).readable();
        Ok(PyColumn::new(field, batch.column(0).clone(), codec))
    }

    /// The rows with `start <= key < stop`, or `<= stop` if `closed`; None: open.
    #[pyo3(signature = (start, stop, closed=false))]
    fn range(&self, start: &Bound<'_, PyAny>, stop: &Bound<'_, PyAny>, closed: bool) -> PyResult<Self> {
        self.keys()?.range(&self.rows, start, stop, closed)?.map(Self::new)
    }

    /// First row within the version, and rows, of each of many ranges, asked for at once.
    fn ranges<'py>(&self, pairs: Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)>) -> PyResult<Vec<(usize, usize)>> {
        self.rows.ranges(self.keys()?, &pairs)
    }

    /// The rows whose key begins with a str or bytes.
    fn prefix(&self, prefix: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.keys()?.prefix(&self.rows, prefix)?.map(Self::new)
    }

    /// The rows that hold a key, or whose key begins with these columns' values.
    fn rows(&self, key: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.keys()?.rows(&self.rows, key)?.map(Self::new)
    }

    /// The newest version, if it is newer than this one.
    fn refreshed(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        Ok(self.rows.refreshed(py)?.map(Self::new))
    }

    /// Facts about the version.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.rows.dataset.facts(py)
    }

    /// The rows as batches, as they come.
    fn batches(&self, py: Python<'_>) -> PyResult<RemoteBatchIter> {
        let rows = if self.rows.num_rows() == 0 { None } else { Some(self.rows.stream(py)?) };
        Ok(RemoteBatchIter::new(rows))
    }

    /// All rows are fetched here, so that what fails does so as an exception of ours.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let batches = self.rows.batches(py)?;
        stream_capsule(py, self.rows.schema(), batches, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.rows.schema().as_ref())?)
    }
}
