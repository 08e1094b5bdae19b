//! Iteration over what a server has: batches as they come, in key order, or from the end in growing steps.

use std::sync::{Arc, Mutex, TryLockError};

use arrow_array::RecordBatch;
use pheon_flight::client::blocking::Rows;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::errors::client_error;
use super::map::Opened;
use super::rows::RemoteRows;
use crate::batch::PyBatch;
use crate::decode::ValueCodec;
use crate::keyed_rows::KeyedRows;

/// Rows that become objects at a time.
const OBJECTS_AHEAD: usize = 1024;
/// Rows of the first and the largest step backwards.
const STEP_AT_FIRST: usize = 1024;
const STEP_MAX: usize = 1 << 18;

/// What an iteration yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Keys,
    Values,
    Items,
}

/// Where batches come from.
enum Source {
    /// A stream of all, in order.
    Forward(Rows),
    /// Slices from the end: the rows before those that were read, and how many to read next.
    Backward { rows: RemoteRows, step: usize },
}

struct State {
    /// `None`: it has ended.
    source: Option<Source>,
    batch: Option<RecordBatch>,
    /// Rows of the batch that were taken.
    taken: usize,
    /// The next objects, the next one last.
    objects: Vec<Py<PyAny>>,
    left: usize,
}

/// An iterator over the version that its map was on when it began.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct RemoteRowIter {
    opened: Arc<Opened>,
    what: What,
    backwards: bool,
    state: Mutex<State>,
}

impl RemoteRowIter {
    pub(super) fn new(py: Python<'_>, opened: Arc<Opened>, what: What, backwards: bool) -> PyResult<Self> {
        let mut rows = RemoteRows::whole(opened.dataset.clone());
        let left = rows.num_rows();
        let columns = match what {
            What::Keys => Some(opened.dataset.key.clone()),
            What::Values => Some(opened.value_names()).filter(|names| !names.is_empty()),
            What::Items => None,
        };
        if let Some(columns) = columns {
            rows = rows.select(&columns)?;
        }
        let source = if left == 0 {
            None
        } else if backwards {
            Some(Source::Backward { rows, step: STEP_AT_FIRST })
        } else {
            Some(Source::Forward(rows.stream(py)?))
        };
        let state = State { source, batch: None, taken: 0, objects: Vec::new(), left };
        Ok(Self { opened, what, backwards, state: Mutex::new(state) })
    }

    /// Makes the next objects; there are none at the end.
    fn fill(&self, py: Python<'_>, state: &mut State) -> PyResult<()> {
        loop {
            if let Some(batch) = state.batch.as_ref().filter(|batch| state.taken < batch.num_rows()) {
                let rows = batch.num_rows();
                let len = OBJECTS_AHEAD.min(rows - state.taken);
                let first = if self.backwards { rows - state.taken - len } else { state.taken };
                let mut objects = self.objects(py, &batch.slice(first, len))?;
                if !self.backwards {
                    objects.reverse();
                }
                state.objects = objects.into_iter().map(Bound::unbind).collect();
                state.taken += len;
                return Ok(());
            }
            state.batch = self.next_batch(py, &mut state.source)?;
            state.taken = 0;
            if state.batch.is_none() {
                state.source = None;
                return Ok(());
            }
        }
    }

    fn next_batch(&self, py: Python<'_>, source: &mut Option<Source>) -> PyResult<Option<RecordBatch>> {
        match source {
            None => Ok(None),
            Some(Source::Forward(stream)) => {
                let next = py.detach(|| stream.next_batch()).map_err(|e| client_error(&e));
                if next.is_err() {
                    *source = None;
                }
                next
            }
            Some(Source::Backward { rows, step }) => {
                let len = rows.num_rows().min(*step);
                if len == 0 {
                    return Ok(None);
                }
                let rest = rows.num_rows() - len;
                let batch = rows.slice(rest, len).batch(py)?;
                *rows = rows.slice(0, rest);
                *step = (*step * 4).min(STEP_MAX);
                Ok(Some(batch))
            }
        }
    }

    fn objects<'py>(&self, py: Python<'py>, batch: &RecordBatch) -> PyResult<Vec<Bound<'py, PyAny>>> {
        match self.what {
            What::Keys => self.opened.key_objects(py, batch.columns()),
            // Without value columns the keys were asked for, to know how many there are.
            What::Values => self.opened.value_objects(py, &self.opened.split(batch).1, batch.num_rows()),
            What::Items => self.opened.items(py, batch),
        }
    }
}

#[pymethods]
impl RemoteRowIter {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // It waits for the network without the interpreter lock, which this thread must not wait for with it.
            Err(TryLockError::WouldBlock) => {
                return Err(PyValueError::new_err("another thread is taking from this iterator"));
            }
        };
        if state.objects.is_empty() {
            self.fill(py, &mut state)?;
        }
        let next = state.objects.pop();
        state.left -= usize::from(next.is_some() && state.left > 0);
        Ok(next)
    }

    fn __length_hint__(&self) -> usize {
        self.state.try_lock().map_or(0, |state| state.left)
    }
}

/// An iterator over the batches of a stream.
#[pyclass(frozen, module = "pheon._native")]
pub(crate) struct RemoteBatchIter {
    rows: Mutex<Option<Rows>>,
}

impl RemoteBatchIter {
    pub(super) fn new(rows: Option<Rows>) -> Self {
        Self { rows: Mutex::new(rows) }
    }
}

#[pymethods]
impl RemoteBatchIter {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyBatch>> {
        let mut rows = match self.rows.try_lock() {
            Ok(rows) => rows,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(PyValueError::new_err("another thread is taking from this iterator"));
            }
        };
        let Some(stream) = rows.as_mut() else { return Ok(None) };
        let next = py.detach(|| stream.next_batch()).map_err(|e| client_error(&e));
        if !matches!(next, Ok(Some(_))) {
            *rows = None;
        }
        Ok(next?.map(batch_with_codecs))
    }
}

/// A batch whose encoded columns are decoded for Python, as a table's are.
pub(super) fn batch_with_codecs(batch: RecordBatch) -> PyBatch {
    let codecs = batch.schema().fields().iter().map(|field| ValueCodec::of(field, false).readable()).collect();
    PyBatch::new(batch, codecs)
}
