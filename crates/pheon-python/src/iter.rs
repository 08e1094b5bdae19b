//! Iteration over a map in key order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

use crate::map::Opened;

/// What an iteration yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Keys,
    Values,
    Items,
}

/// An iterator over the version that its map was on when it began.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct RowIter {
    opened: Arc<Opened>,
    what: Rows,
    backwards: bool,
    done: AtomicU64,
}

impl RowIter {
    pub(crate) fn new(opened: Arc<Opened>, what: Rows, backwards: bool) -> Self {
        Self { opened, what, backwards, done: AtomicU64::new(0) }
    }

    fn len(&self) -> u64 {
        self.opened.map.len() as u64
    }
}

#[pymethods]
impl RowIter {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (done, len) = (self.done.fetch_add(1, Ordering::Relaxed), self.len());
        if done >= len {
            // Stays at the end, however often it is asked.
            self.done.store(len, Ordering::Relaxed);
            return Ok(None);
        }
        let opened = &self.opened;
        let position = (if self.backwards { len - 1 - done } else { done }) as usize;
        Ok(Some(match self.what {
            Rows::Keys => opened.key_object(py, opened.row_at(py, position)?)?,
            Rows::Values => opened.value_object(py, opened.row_at(py, position)?)?,
            Rows::Items => opened.item(py, position)?.into_any(),
        }))
    }

    fn __length_hint__(&self) -> usize {
        self.len().saturating_sub(self.done.load(Ordering::Relaxed)) as usize
    }
}
