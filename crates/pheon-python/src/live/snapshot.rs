//! Live maps at one moment: snapshots, and iteration over them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pheon_live::{Ordered, Snapshot};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::entry::{Codec, Encoded, key_object, value_object};
use super::nested::nest;
use crate::errors::live_error;

/// What an iteration yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Keys,
    Values,
    Items,
}

/// An iterator over the entries that there were when it was made.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct LiveIter {
    ordered: Ordered,
    codec: Codec,
    what: What,
    backwards: bool,
    done: AtomicUsize,
    /// The map that nested values write to; None: they are plain.
    map: Option<Py<PyAny>>,
}

impl LiveIter {
    pub(super) fn new(ordered: Ordered, codec: Codec, what: What, backwards: bool, map: Option<Py<PyAny>>) -> Self {
        Self { ordered, codec, what, backwards, done: AtomicUsize::new(0), map }
    }
}

#[pymethods]
impl LiveIter {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (done, len) = (self.done.fetch_add(1, Ordering::Relaxed), self.ordered.len());
        if done >= len {
            // Stays at the end, however often it is asked.
            self.done.store(len, Ordering::Relaxed);
            return Ok(None);
        }
        let Some(entry) = self.ordered.get(if self.backwards { len - 1 - done } else { done }) else { return Ok(None) };
        let value = || {
            let (plain, nested) = value_object(py, entry, self.codec)?;
            match &self.map {
                Some(map) if nested => nest(map.bind(py), &key_object(py, entry, self.codec)?, plain, entry.sequence()),
                _ => Ok(plain),
            }
        };
        Ok(Some(match self.what {
            What::Keys => key_object(py, entry, self.codec)?,
            What::Values => value()?,
            What::Items => PyTuple::new(py, [key_object(py, entry, self.codec)?, value()?])?.into_any(),
        }))
    }

    fn __length_hint__(&self) -> usize {
        self.ordered.len().saturating_sub(self.done.load(Ordering::Relaxed))
    }
}

/// A consistent state of a map. `pheon.LiveSnapshot` derives from it.
#[pyclass(frozen, subclass, mapping, module = "pheon._native")]
pub(crate) struct SnapshotHandle {
    snapshot: std::sync::Arc<Snapshot>,
    codec: Codec,
    len: OnceLock<usize>,
}

impl SnapshotHandle {
    pub(super) fn new(snapshot: Snapshot, codec: Codec) -> Self {
        Self { snapshot: std::sync::Arc::new(snapshot), codec, len: OnceLock::new() }
    }

    fn find<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let encoded = Encoded::key_of(key, self.codec)?;
        let found = self.snapshot.get(encoded.key()).map_err(|e| live_error(py, &e))?;
        found.map(|entry| Ok(value_object(py, entry, self.codec)?.0)).transpose()
    }

    fn iterate(&self, py: Python<'_>, what: What, backwards: bool) -> PyResult<LiveIter> {
        let ordered = py.detach(|| self.snapshot.ordered()).map_err(|e| live_error(py, &e))?;
        let _ = self.len.set(ordered.len());
        Ok(LiveIter::new(ordered, self.codec, what, backwards, None))
    }
}

#[pymethods]
impl SnapshotHandle {
    /// A second handle on the same state.
    #[new]
    fn copy(handle: &Bound<'_, Self>) -> Self {
        let handle = handle.get();
        Self { snapshot: handle.snapshot.clone(), codec: handle.codec, len: OnceLock::new() }
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.find(py, key)?.ok_or_else(|| PyKeyError::new_err((key.clone().unbind(),)))
    }

    #[pyo3(signature = (key, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.find(py, key)?.or(default).unwrap_or_else(|| py.None().into_bound(py)))
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let encoded = Encoded::key_of(key, self.codec)?;
        Ok(self.snapshot.get(encoded.key()).map_err(|e| live_error(py, &e))?.is_some())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        if let Some(len) = self.len.get() {
            return Ok(*len);
        }
        let len = py.detach(|| self.snapshot.ordered()).map_err(|e| live_error(py, &e))?.len();
        Ok(*self.len.get_or_init(|| len))
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<LiveIter> {
        self.iterate(py, What::Keys, false)
    }

    fn __reversed__(&self, py: Python<'_>) -> PyResult<LiveIter> {
        self.iterate(py, What::Keys, true)
    }

    fn iter_values(&self, py: Python<'_>, backwards: bool) -> PyResult<LiveIter> {
        self.iterate(py, What::Values, backwards)
    }

    fn iter_items(&self, py: Python<'_>, backwards: bool) -> PyResult<LiveIter> {
        self.iterate(py, What::Items, backwards)
    }

    /// The number of the transaction that it shows.
    #[getter]
    fn sequence(&self) -> u64 {
        self.snapshot.sequence()
    }
}
