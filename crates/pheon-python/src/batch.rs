//! `pheon.Batch`: several aligned Arrow arrays, the answer of a batch lookup in a map with several value columns.

use std::sync::Arc;

use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::{Field, Schema};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyTuple};
use pyo3_arrow::ffi::{ArrayIterator, to_array_pycapsules, to_schema_pycapsule, to_stream_pycapsule};

use crate::column::PyColumn;
use crate::decode::{ValueCodec, column_objects};
use crate::errors::arrow_error;

/// Aligned columns. Exports ``__arrow_c_array__`` and ``__arrow_c_stream__``.
#[pyclass(frozen, module = "pheon", name = "Batch")]
pub(crate) struct PyBatch {
    batch: RecordBatch,
    codecs: Vec<ValueCodec>,
}

impl PyBatch {
    pub(crate) fn new(batch: RecordBatch, codecs: Vec<ValueCodec>) -> Self {
        Self { batch, codecs }
    }
}

/// The batch as an object of another library, made by its adapter in Python.
fn adapted<'py>(batch: &Bound<'py, PyBatch>, function: &str) -> PyResult<Bound<'py, PyAny>> {
    batch.py().import("pheon._adapters.batch")?.call_method1(function, (batch,))
}

/// Record batches of one schema as a stream.
pub(crate) fn stream_capsule<'py>(
    py: Python<'py>,
    schema: &Schema,
    batches: Vec<RecordBatch>,
    requested_schema: Option<Bound<'py, PyCapsule>>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let field = Arc::new(struct_field(schema));
    let arrays = batches.into_iter().map(|batch| Ok(Arc::new(StructArray::from(batch)) as Arc<dyn Array>));
    Ok(to_stream_pycapsule(py, Box::new(ArrayIterator::new(arrays, field)), requested_schema)?)
}

/// A schema as the field of a struct, which is how the C data interface carries it.
pub(crate) fn struct_field(schema: &Schema) -> Field {
    Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone())
}

#[pymethods]
impl PyBatch {
    /// Rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Names of the columns.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.batch.schema().fields().iter().map(|f| f.name().clone()).collect()
    }

    fn __len__(&self) -> usize {
        self.batch.num_rows()
    }

    /// One column by its name.
    fn column(&self, name: &str) -> PyResult<PyColumn> {
        let schema = self.batch.schema();
        let (i, _) = schema.column_with_name(name).ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
        Ok(PyColumn::new(schema.fields()[i].clone(), self.batch.column(i).clone(), self.codecs[i]))
    }

    fn __getitem__(&self, name: &str) -> PyResult<PyColumn> {
        self.column(name)
    }

    /// The same rows with these columns.
    fn select(&self, names: Vec<String>) -> PyResult<Self> {
        let schema = self.batch.schema();
        let place = |name: &String| schema.index_of(name).map_err(|_| PyKeyError::new_err(name.clone()));
        let columns = names.iter().map(place).collect::<PyResult<Vec<_>>>()?;
        let batch = self.batch.project(&columns).map_err(|e| arrow_error("choose columns", &e))?;
        Ok(Self { batch, codecs: columns.iter().map(|&c| self.codecs[c]).collect() })
    }

    /// The same rows with one more column before the others.
    fn with_first(&self, name: &str, column: &Bound<'_, PyColumn>) -> PyResult<Self> {
        let (field, array, codec) = column.get().parts();
        let schema = self.batch.schema();
        let field = Arc::new(field.as_ref().clone().with_name(name));
        let fields: Vec<_> = std::iter::once(&field).chain(schema.fields()).cloned().collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let columns = std::iter::once(array).chain(self.batch.columns()).cloned().collect();
        let batch = RecordBatch::try_new(schema, columns).map_err(|e| arrow_error("add a column", &e))?;
        Ok(Self { batch, codecs: std::iter::once(codec).chain(self.codecs.iter().copied()).collect() })
    }

    /// A pyarrow Table that shares the memory.
    fn to_pyarrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        adapted(slf, "to_pyarrow")
    }

    /// A pandas DataFrame.
    fn to_pandas<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        adapted(slf, "to_pandas")
    }

    /// A polars DataFrame.
    fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        adapted(slf, "to_polars")
    }

    /// All rows as dicts.
    fn to_pylist<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let rows: Vec<_> = (0..self.batch.num_rows()).map(|_| PyDict::new(py)).collect();
        for (i, field) in self.batch.schema().fields().iter().enumerate() {
            for (row, value) in rows.iter().zip(column_objects(py, self.batch.column(i), self.codecs[i])?) {
                row.set_item(field.name(), value)?;
            }
        }
        Ok(rows)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let field = Arc::new(struct_field(self.batch.schema_ref()));
        Ok(to_array_pycapsules(py, field, &StructArray::from(self.batch.clone()), requested_schema)?)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        stream_capsule(py, self.batch.schema_ref(), vec![self.batch.clone()], requested_schema)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.batch.schema_ref().as_ref())?)
    }

    fn __repr__(&self) -> String {
        format!("<pheon.Batch {:?}, {} rows>", self.column_names(), self.batch.num_rows())
    }
}
