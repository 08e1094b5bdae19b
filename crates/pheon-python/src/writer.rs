//! `WriterHandle`: takes pairs and Arrow data in any order and amount, and publishes them as one version of a map.

use std::sync::{Mutex, PoisonError};

use pheon::Unfinished;
use pyo3::prelude::*;
use pyo3_arrow::input::AnyRecordBatch;

use crate::errors::ClosedError;
use crate::ingest::{PairWriter, PushError, Source, Target};
use crate::part::PartHandle;
use crate::store::{foreign, select};
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

    /// One whose destination is open already.
    pub(crate) fn open(py: Python<'_>, target: Target) -> PyResult<Self> {
        let handle = Self::new(target);
        handle.with(|writer| writer.open(py))?;
        Ok(handle)
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
        let reader = select(foreign(data)?, std::slice::from_ref(&self.key), value)?;
        let schema = reader.schema();
        self.with(|w| w.write_arrow(py, reader, &schema))
    }

    /// Takes the rows of a table or slice.
    fn write_table(&self, py: Python<'_>, table: &Bound<'_, TableHandle>, value: Option<Vec<String>>) -> PyResult<()> {
        let reader = select(table.get().reader(py)?, std::slice::from_ref(&self.key), value)?;
        let schema = reader.schema();
        self.with(|w| w.write_arrow(py, reader, &schema))
    }

    /// Hands out a part for another process.
    fn part(&self, py: Python<'_>, name: Option<&str>) -> PyResult<PartHandle> {
        self.with(|w| {
            let (part, target) = w.part(py, name)?;
            Ok(PartHandle::new(part, target.columns.clone(), target.codec))
        })
    }

    /// Fails if a part that was handed out is not finished; the writer stays usable.
    fn check_parts(&self, py: Python<'_>) -> PyResult<()> {
        self.with(|w| w.check_parts(py))
    }

    /// Publishes; the version. Of a part: finishes it; how many rows it has. `skip_unfinished`: parts that were handed
    /// out and never finished are left out instead of being an error.
    fn commit(&self, py: Python<'_>, skip_unfinished: bool) -> PyResult<u64> {
        let mut writer = self.take()?;
        let unfinished = if skip_unfinished { Unfinished::Skip } else { Unfinished::Error };
        let done = writer.commit(py, unfinished).map_err(PushError::into_exception);
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
