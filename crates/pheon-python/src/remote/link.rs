//! The connection to a server, shared by all that was opened through it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use pheon_flight::client::blocking::{Client, Rows};
use pheon_flight::client::{ClientError, ClientOptions, LookupOptions, Scan};
use pyo3::prelude::*;
use serde_json::Value;

use super::errors::{RemoteError, client_error};
use crate::errors::ClosedError;

thread_local! {
    /// What a signal handler raised while this thread waited.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// The exception that ended the wait of this thread, if a signal handler did.
pub(super) fn take_raised() -> Option<PyErr> {
    RAISED.with_borrow_mut(Option::take)
}

/// Asked while a call waits. Python delivers signals to the main thread only; elsewhere the answer is always no.
fn is_interrupted() -> bool {
    match Python::attach(|py| py.check_signals()) {
        Ok(()) => false,
        Err(raised) => {
            RAISED.with_borrow_mut(|slot| slot.replace(raised));
            true
        }
    }
}

/// A connection that its owner may close.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    closed: AtomicBool,
}

impl Link {
    /// Connects, and logs in where the options say so.
    pub(super) fn connect(py: Python<'_>, uri: &str, options: ClientOptions) -> PyResult<Arc<Self>> {
        let connect = || Client::connect(uri, options, Some(Arc::new(is_interrupted)));
        let client = py.detach(connect).map_err(|e| client_error(&e))?;
        Ok(Arc::new(Self { client, closed: AtomicBool::new(false) }))
    }

    pub(super) fn uri(&self) -> &str {
        self.client.uri()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.client.disconnect();
    }

    pub(super) fn check_open(&self) -> PyResult<()> {
        if self.is_closed() {
            return Err(ClosedError::new_err(format!("the connection to {} was closed", self.uri())));
        }
        Ok(())
    }

    /// Makes a call without the interpreter lock.
    pub(crate) fn call<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&Client) -> Result<T, ClientError> + Send,
    ) -> PyResult<T> {
        self.check_open()?;
        py.detach(|| call(&self.client)).map_err(|e| client_error(&e))
    }

    /// The results of an action whose body and results are JSON.
    pub(super) fn action(&self, py: Python<'_>, name: &str, body: &Value) -> PyResult<Vec<Value>> {
        let results = self.call(py, |client| client.action(name, body.to_string()))?;
        let parse = |result: &[u8]| {
            serde_json::from_slice(result)
                .map_err(|e| RemoteError::new_err(format!("the action {name:?}: unexpected answer: {e}")))
        };
        results.iter().map(|result| parse(result)).collect()
    }

    /// The only result of an action.
    pub(super) fn action_one(&self, py: Python<'_>, name: &str, body: &Value) -> PyResult<Value> {
        let results = self.action(py, name, body)?;
        let one = results.into_iter().next();
        one.ok_or_else(|| RemoteError::new_err(format!("the action {name:?}: unexpected answer: no result")))
    }

    pub(super) fn lookup(
        &self,
        py: Python<'_>,
        options: &LookupOptions,
        keys: &RecordBatch,
    ) -> PyResult<(SchemaRef, Vec<RecordBatch>)> {
        self.call(py, |client| client.lookup(options, keys))
    }

    pub(super) fn scan(&self, py: Python<'_>, scan: &Scan) -> PyResult<Rows> {
        self.call(py, |client| client.scan(scan))
    }
}

/// All batches of a stream; Ctrl-C ends it.
pub(super) fn collect(py: Python<'_>, mut rows: Rows) -> PyResult<Vec<RecordBatch>> {
    let collected = py.detach(|| {
        let mut batches = Vec::new();
        while let Some(batch) = rows.next_batch()? {
            batches.push(batch);
        }
        Ok(batches)
    });
    let batches = collected.map_err(|e: ClientError| client_error(&e))?;
    py.check_signals()?;
    Ok(batches)
}
