//! `Store.sql`: one statement; its rows as a `Batch`, or how many rows it changed.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::batch::PyBatch;
use crate::decode::ValueCodec;
use crate::errors::arrow_error;
use crate::ingest::plain_column_of_one;

#[cfg(feature = "sql")]
pub(crate) use with_engine::execute;
#[cfg(not(feature = "sql"))]
pub(crate) use without_engine::execute;

/// One row of parameters, with a column for each value. Without SQL too: a server may have it.
#[pyfunction]
pub(crate) fn parameter_row(values: Vec<Bound<'_, PyAny>>) -> PyResult<PyBatch> {
    let mut fields = Vec::with_capacity(values.len());
    let mut columns = Vec::with_capacity(values.len());
    for (value, number) in values.iter().zip(1..) {
        let Some(column) = plain_column_of_one(value)? else {
            let class = value.get_type();
            return Err(PyTypeError::new_err(format!(
                "parameter {number}, of type {}: expected None, bool, int of 64 bits, float, str, bytes, date, time, \
                 datetime, timedelta or Decimal; give others in Arrow data",
                class.name()?
            )));
        };
        fields.push(Field::new(format!("${number}"), column.data_type().clone(), true));
        columns.push(column);
    }
    let codecs = vec![ValueCodec::Plain; columns.len()];
    let row = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
    Ok(PyBatch::new(row.map_err(|e| arrow_error("collect parameters", &e))?, codecs))
}

#[cfg(feature = "sql")]
mod with_engine {
    use std::sync::{Arc, Mutex, PoisonError};

    use arrow_array::RecordBatch;
    use arrow_select::concat::concat_batches;
    use pheon::Store;
    use pheon_sql::{Answer, Engine, EngineOptions, SqlError};
    use pyo3::IntoPyObjectExt;
    use pyo3::exceptions::{PyMemoryError, PyPermissionError, PyValueError};
    use pyo3::prelude::*;

    use crate::batch::PyBatch;
    use crate::decode::ValueCodec;
    use crate::errors::{Error, NotFoundError, arrow_error, read_error, write_error};

    /// Executes a statement on threads that end with it.
    pub(crate) fn execute(
        py: Python<'_>,
        store: &Store,
        statement: &str,
        parameters: Option<RecordBatch>,
    ) -> PyResult<Py<PyAny>> {
        // What a signal's handler raised, Ctrl-C's say, ends the statement.
        let raised = Arc::new(Mutex::new(None::<PyErr>));
        let to = raised.clone();
        let stop = move || match Python::attach(|py| py.check_signals()) {
            Ok(()) => false,
            Err(e) => {
                *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                true
            }
        };
        let failed = |py: Python<'_>, e: SqlError| {
            let raised = raised.lock().unwrap_or_else(PoisonError::into_inner).take();
            raised.unwrap_or_else(|| sql_error(py, &e))
        };
        let run = || Engine::new(store.clone(), EngineOptions::default())?.execute_until(statement, parameters, stop);
        let mut rows = match py.detach(run).map_err(|e| failed(py, e))? {
            Answer::Changed(rows) => return rows.into_py_any(py),
            Answer::Rows(rows) => rows,
        };
        let schema = rows.schema();
        let mut batches = Vec::new();
        while let Some(batch) = py.detach(|| rows.next()) {
            batches.push(batch.map_err(|e| failed(py, e))?);
            py.check_signals()?;
        }
        let batch =
            py.detach(|| concat_batches(&schema, &batches)).map_err(|e| arrow_error("join the rows of a query", &e))?;
        let codecs = schema.fields().iter().map(|f| ValueCodec::of(f, false).readable()).collect();
        PyBatch::new(batch, codecs).into_py_any(py)
    }

    fn sql_error(py: Python<'_>, error: &SqlError) -> PyErr {
        let message = error.to_string();
        match error {
            SqlError::Read(e) => read_error(py, e),
            SqlError::Write(e) => write_error(py, e),
            SqlError::NotFound { .. } => NotFoundError::new_err(message),
            SqlError::Denied { .. } => PyPermissionError::new_err(message),
            SqlError::Limit { .. } => PyMemoryError::new_err(message),
            SqlError::Internal { .. } | SqlError::Source { .. } => Error::new_err(message),
            _ => PyValueError::new_err(message),
        }
    }
}

#[cfg(not(feature = "sql"))]
mod without_engine {
    use arrow_array::RecordBatch;
    use pheon::Store;
    use pyo3::prelude::*;

    use crate::errors::Error;

    /// Says how to get SQL.
    pub(crate) fn execute(_: Python<'_>, _: &Store, _: &str, _: Option<RecordBatch>) -> PyResult<Py<PyAny>> {
        Err(Error::new_err("this build of Pheon has no SQL; build it with the feature \"sql\""))
    }
}
