//! `TableHandle`: a version of a dataset or a slice of one. `pheon.Table` is its face in Python.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchIterator, UInt64Array};
use arrow_schema::{DataType, Field};
use arrow_select::concat::concat;
use pheon::Table;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PySlice};
use pyo3_arrow::ffi::to_schema_pycapsule;
use pyo3_arrow::input::AnyArray;

use crate::batch::{PyBatch, stream_capsule};
use crate::column::{PyColumn, contiguous, position};
use crate::decode::{ValueCodec, value_object};
use crate::errors::{arrow_error, read_error};
use crate::info::info_dict;
use crate::ingest::CODEC_KEY;
use crate::keys::Keys;

/// A version of a dataset or a contiguous slice of one. Immutable; cheap to copy.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct TableHandle {
    table: Table,
    /// Made at first use.
    keys: OnceLock<Keys>,
}

impl TableHandle {
    pub(crate) fn new(table: Table) -> Self {
        Self { table, keys: OnceLock::new() }
    }

    fn keys(&self) -> PyResult<&Keys> {
        match self.keys.get() {
            Some(keys) => Ok(keys),
            None => {
                let keys = Keys::of(self.table.name(), &self.table.key_fields())?;
                Ok(self.keys.get_or_init(|| keys))
            }
        }
    }

    /// A reader over the rows, for building another dataset of them.
    pub(crate) fn reader(&self, py: Python<'_>) -> PyResult<Box<dyn arrow_array::RecordBatchReader + Send>> {
        let batches = py.detach(|| self.table.to_batches()).map_err(|e| read_error(py, &e))?;
        Ok(Box::new(RecordBatchIterator::new(batches.into_iter().map(Ok), self.table.schema())))
    }
}

#[pymethods]
impl TableHandle {
    #[getter]
    fn name(&self) -> &str {
        self.table.name()
    }

    #[getter]
    fn version(&self) -> u64 {
        self.table.version()
    }

    #[getter]
    fn num_rows(&self) -> usize {
        self.table.num_rows()
    }

    /// First row within the version, and rows.
    #[getter]
    fn bounds(&self) -> (usize, usize) {
        self.table.bounds()
    }

    #[getter]
    fn key(&self) -> Vec<String> {
        self.table.key().to_vec()
    }

    #[getter]
    fn unique(&self) -> bool {
        self.table.is_unique()
    }

    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| self.table.nbytes()).map_err(|e| read_error(py, &e))
    }

    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.table.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    #[getter]
    fn column_types(&self) -> Vec<String> {
        self.table.schema().fields().iter().map(|f| f.data_type().to_string()).collect()
    }

    /// The codec of each column that has one.
    #[getter]
    fn codecs(&self) -> HashMap<String, String> {
        let schema = self.table.schema();
        let coded =
            schema.fields().iter().filter_map(|f| Some((f.name().clone(), f.metadata().get(CODEC_KEY)?.clone())));
        coded.collect()
    }

    /// The key column's Arrow type, printed; None if there is no key or several columns make it.
    #[getter]
    fn key_type(&self) -> Option<String> {
        match self.table.key_fields().as_slice() {
            [field] => Some(field.data_type().to_string()),
            _ => None,
        }
    }

    /// The columns, if some were chosen.
    #[getter]
    fn selected(&self) -> Option<Vec<String>> {
        self.table.is_projected().then(|| self.column_names())
    }

    /// Whether rows of several segments take turns, so that they are copied.
    fn is_copied(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.table.is_copied()).map_err(|e| read_error(py, &e))
    }

    /// In how many pieces the rows come.
    fn num_chunks(&self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| self.table.num_chunks()).map_err(|e| read_error(py, &e))
    }

    /// The same rows with these columns.
    fn select(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Self> {
        let schema = self.table.schema();
        if let Some(unknown) = names.iter().find(|name| schema.index_of(name).is_err()) {
            return Err(PyKeyError::new_err(unknown.clone()));
        }
        self.table.select(&names).map(Self::new).map_err(|e| read_error(py, &e))
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
        let mut chunks: Vec<ArrayRef> = Vec::new();
        for chunk in keys.into_reader()? {
            chunks.push(chunk.map_err(|e| arrow_error("read keys", &e))?);
        }
        let parts: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
        let (positions, batch) = if parts.is_empty() {
            let none = py.detach(|| self.table.slice(0, 0).to_batch()).map_err(|e| read_error(py, &e))?;
            (UInt64Array::from(Vec::<u64>::new()), none)
        } else {
            let keys = concat(&parts).map_err(|e| arrow_error("join the keys", &e))?;
            py.detach(|| self.table.lookup(&keys, threads)).map_err(|e| read_error(py, &e))?
        };
        let field = Field::new("position", DataType::UInt64, false);
        Ok((PyColumn::new(Arc::new(field), Arc::new(positions), ValueCodec::Plain), batch_with_codecs(batch)))
    }

    /// Rows of several places, each from a first row to one before a last, as a copy.
    fn gather(&self, py: Python<'_>, pieces: Vec<(usize, usize)>) -> PyResult<PyBatch> {
        let pieces: Vec<_> = pieces.into_iter().map(|(start, stop)| start..stop.max(start)).collect();
        let batch = py.detach(|| self.table.gather(&pieces)).map_err(|e| read_error(py, &e))?;
        Ok(batch_with_codecs(batch))
    }

    /// Rows `offset` to `offset + len`, cut at the end.
    fn slice(&self, offset: usize, len: usize) -> Self {
        Self::new(self.table.slice(offset, len))
    }

    /// The rows of a slice with step 1.
    fn slice_of(&self, slice: &Bound<'_, PySlice>) -> PyResult<Self> {
        let (start, len) = contiguous(slice, self.table.num_rows())?;
        Ok(self.slice(start, len))
    }

    /// One row as a dict.
    fn row<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let at = position(index, self.table.num_rows())?;
        let row = PyDict::new(py);
        for (i, field) in self.table.schema().fields().iter().enumerate() {
            let value = self.table.value(at, i).map_err(|e| read_error(py, &e))?;
            row.set_item(field.name(), value_object(py, value, ValueCodec::of(field, false).readable())?)?;
        }
        Ok(row)
    }

    /// One column by its name.
    fn column(&self, py: Python<'_>, name: &str) -> PyResult<PyColumn> {
        let schema = self.table.schema();
        let Some((i, field)) = schema.column_with_name(name) else {
            return Err(PyKeyError::new_err(name.to_owned()));
        };
        let array = py.detach(|| self.table.column(i)).map_err(|e| read_error(py, &e))?;
        Ok(PyColumn::new(schema.fields()[i].clone(), array, ValueCodec::of(field, false).readable()))
    }

    /// The rows with `start <= key < stop`, or `<= stop` if `closed`; None: open.
    #[pyo3(signature = (start, stop, closed=false))]
    fn range(&self, py: Python<'_>, start: &Bound<'_, PyAny>, stop: &Bound<'_, PyAny>, closed: bool) -> PyResult<Self> {
        self.keys()?.range(&self.table, start, stop, closed)?.map(Self::new).map_err(|e| read_error(py, &e))
    }

    /// The rows whose key begins with a str or bytes.
    fn prefix(&self, py: Python<'_>, prefix: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.keys()?.prefix(&self.table, prefix)?.map(Self::new).map_err(|e| read_error(py, &e))
    }

    /// The rows that hold a key, or whose key begins with these columns' values.
    fn rows(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.keys()?.rows(&self.table, key)?.map(Self::new).map_err(|e| read_error(py, &e))
    }

    /// The newest version, if it is newer than this one.
    fn refreshed(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        let newer = py.detach(|| self.table.refreshed()).map_err(|e| read_error(py, &e))?;
        Ok(newer.map(Self::new))
    }

    /// Facts about the version.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        info_dict(py, &self.table.info())
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let batches = py.detach(|| self.table.to_batches()).map_err(|e| read_error(py, &e))?;
        stream_capsule(py, &self.table.schema(), batches, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.table.schema().as_ref())?)
    }
}

fn batch_with_codecs(batch: RecordBatch) -> PyBatch {
    let codecs = batch.schema().fields().iter().map(|f| ValueCodec::of(f, false).readable()).collect();
    PyBatch::new(batch, codecs)
}
