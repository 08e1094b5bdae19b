//! `TableHandle`: a version of a dataset or a slice of one. `pheon.Table` is its face in Python.

use pheon::Table;
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PySlice};
use pyo3_arrow::ffi::to_schema_pycapsule;

use crate::batch::{reader_of, stream_capsule};
use crate::column::{PyColumn, contiguous, position};
use crate::decode::{ValueCodec, value_object};
use crate::errors::{self, read_error};
use crate::info::info_dict;
use crate::key::KeyKind;

/// A version of a dataset or a contiguous slice of one. Immutable; cheap to copy.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct TableHandle {
    table: Table,
}

impl TableHandle {
    pub(crate) fn new(table: Table) -> Self {
        Self { table }
    }

    fn key_kind(&self) -> PyResult<KeyKind> {
        let schema = self.table.schema();
        let kind = match self.table.key() {
            [name, ..] => schema.field_with_name(name).ok().and_then(|f| KeyKind::of(f.data_type())),
            [] => None,
        };
        kind.ok_or_else(|| PyTypeError::new_err(format!("{:?} has no key to look rows up by", self.table.name())))
    }

    /// A reader over the rows, for building another dataset of them.
    pub(crate) fn reader(&self, py: Python<'_>) -> PyResult<Box<dyn arrow_array::RecordBatchReader + Send>> {
        let batch = py.detach(|| self.table.to_batch()).map_err(|e| read_error(py, &e))?;
        Ok(reader_of(batch))
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

    /// The rows with `start <= key < stop`; None: open.
    fn range(&self, py: Python<'_>, start: &Bound<'_, PyAny>, stop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let kind = self.key_kind()?;
        kind.range(&self.table, start, stop)?.map(Self::new).map_err(|e| read_error(py, &e))
    }

    /// The rows whose key begins with a str or bytes.
    fn prefix(&self, py: Python<'_>, prefix: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.key_kind()?.prefix(&self.table, prefix)?.map(Self::new).map_err(|e| read_error(py, &e))
    }

    /// The rows that hold a key.
    fn rows(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Self> {
        match self.key_kind()?.read(key)? {
            Some(key) => self.table.rows(key).map(Self::new).map_err(|e| read_error(py, &e)),
            None => Ok(self.slice(0, 0)),
        }
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
        let batch = py.detach(|| self.table.to_batch()).map_err(|e| errors::read_error(py, &e))?;
        stream_capsule(py, &batch, requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.table.schema().as_ref())?)
    }
}
