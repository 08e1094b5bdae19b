//! What a server refused, and what happened on the way to it, as the exceptions that a mapped store raises.

use pheon_flight::client::{ClientError, Refusal};
use pyo3::exceptions::{PyFileExistsError, PyKeyboardInterrupt, PyMemoryError, PyTypeError, PyValueError};
use pyo3::import_exception;
use pyo3::prelude::*;

use super::link::take_raised;
use crate::errors::{CorruptError, DuplicateKeyError, Error, LockTimeout, NotFoundError, SchemaError, StoreFullError};

import_exception!(pheon._errors, RemoteError);
import_exception!(pheon._errors, RemoteConnectionError);
import_exception!(pheon._errors, RemotePermissionError);
import_exception!(pheon._errors, RemoteTimeoutError);

/// `ENOSPC` on every Linux.
const NO_SPACE: i32 = 28;

/// The Python exception for a failed call.
pub(crate) fn client_error(error: &ClientError) -> PyErr {
    let message = error.to_string();
    match error {
        ClientError::Options { .. } => PyValueError::new_err(message),
        ClientError::Connection { .. } => RemoteConnectionError::new_err(message),
        ClientError::Deadline { .. } => RemoteTimeoutError::new_err(message),
        ClientError::Interrupted { .. } => take_raised().unwrap_or_else(|| PyKeyboardInterrupt::new_err(message)),
        ClientError::Refused { reason, detail, message, operation } => {
            match detail.as_deref().and_then(|detail| named(detail, message)) {
                Some(exception) => exception,
                None => refused(*reason, operation, message),
            }
        }
        _ => RemoteError::new_err(message),
    }
}

/// The exception for the server's own name of an error: docs/flight.md, Errors. `None`: one that says no more than its status.
fn named(detail: &str, message: &str) -> Option<PyErr> {
    let message = message.to_owned();
    Some(match detail {
        "not-found" => NotFoundError::new_err(message),
        "corrupt" => CorruptError::new_err(message),
        "duplicate-key" => DuplicateKeyError::new_err(message),
        "schema" | "limit" | "too-large" => SchemaError::new_err(message),
        "key-type" | "wrong-shape" => PyTypeError::new_err(message),
        "invalid-name" | "options" | "read-only" => PyValueError::new_err(message),
        "store-full" => StoreFullError::new_err((NO_SPACE, message)),
        "lock-timeout" => LockTimeout::new_err(message),
        "exists" => PyFileExistsError::new_err(message),
        "input" | "source" | "arrow" | "io" => Error::new_err(message),
        "sql-syntax" | "sql-plan" | "sql-parameters" | "sql-value" | "sql-unsupported" | "sql-changed" => {
            PyValueError::new_err(message)
        }
        "sql-limit" => PyMemoryError::new_err(message),
        _ => return None,
    })
}

fn refused(reason: Refusal, operation: &str, message: &str) -> PyErr {
    let told = || format!("{operation}: {message}");
    match reason {
        Refusal::Unauthenticated | Refusal::Denied => RemotePermissionError::new_err(told()),
        Refusal::NotFound => NotFoundError::new_err(message.to_owned()),
        Refusal::Exists => DuplicateKeyError::new_err(message.to_owned()),
        Refusal::Invalid => PyValueError::new_err(told()),
        Refusal::Corrupt => CorruptError::new_err(message.to_owned()),
        Refusal::Busy => RemoteConnectionError::new_err(told()),
        _ => RemoteError::new_err(told()),
    }
}
