//! `WriterHandle`: takes pairs and Arrow data in any order and amount, and publishes them as one version of a map.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3_arrow::input::AnyRecordBatch;

use crate::errors::ClosedError;
use crate::ingest::{PairWriter, PushError, Source, Target};
use crate::store::select;
use crate::table::TableHandle;

/// The native side of `pheon.MapWriter`.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct WriterHandle {
    /// Taken out while in use: Python code that runs meanwhile finds no writer instead of a deadlock.
    writer: Mutex<Option<PairWriter>>,
    key: String,
}

impl WriterHandle {
    pub(crate) fn new(target: Target) -> Self {
        let key = target.columns.0.clone();
        Self { writer: Mutex::new(Some(PairWriter::new(target))), key }
    }

    fn take(&self) -> PyResult<PairWriter> {
        let taken = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| ClosedError::new_err("this map writer is finished, or in use by another thread"))
    }

    fn with<T>(&self, work: impl FnOnce(&mut PairWriter) -> PyResult<T>) -> PyResult<T> {
        let mut writer = self.take()?;
        let done = work(&mut writer);
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        done
    }
}

#[pymethods]
impl WriterHandle {
    /// Pairs and rows taken so far.
    #[getter]
    fn rows(&self) -> PyResult<u64> {
        self.with(|w| Ok(w.rows()))
    }

    fn put(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.with(|w| w.push(py, key, value).map_err(PushError::into_exception))
    }

    /// Takes a dict, a mapping or an iterable of pairs.
    fn update(&self, py: Python<'_>, pairs: &Bound<'_, PyAny>) -> PyResult<()> {
        let source = Source::of(pairs)?;
        self.with(|w| source.each(|key, value| w.push(py, key, value)).map_err(PushError::into_exception))
    }

    /// Takes Arrow data with the key column and any value columns.
    fn write_arrow(&self, py: Python<'_>, data: AnyRecordBatch, value: Option<Vec<String>>) -> PyResult<()> {
        let reader = select(data.into_reader()?, std::slice::from_ref(&self.key), value)?;
        let schema = reader.schema();
        self.with(|w| w.write_arrow(py, reader, &schema))
    }

    /// Takes the rows of a table or slice.
    fn write_table(&self, py: Python<'_>, table: &Bound<'_, TableHandle>, value: Option<Vec<String>>) -> PyResult<()> {
        let reader = select(table.get().reader(py)?, std::slice::from_ref(&self.key), value)?;
        let schema = reader.schema();
        self.with(|w| w.write_arrow(py, reader, &schema))
    }

    /// Publishes; the version.
    fn commit(&self, py: Python<'_>) -> PyResult<u64> {
        let mut writer = self.take()?;
        let done = writer.commit(py).map_err(PushError::into_exception);
        if done.is_err() {
            writer.abort(py);
        }
        done
    }

    /// Publishes nothing and leaves nothing. Does nothing after `commit`.
    fn abort(&self, py: Python<'_>) {
        if let Ok(writer) = self.take() {
            writer.abort(py);
        }
    }
}
