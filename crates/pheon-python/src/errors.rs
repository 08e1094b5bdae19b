//! Every engine error as the Python exception that callers expect, decided by variant, never by text.
//! The classes are defined in Python (`pheon._errors`), because several derive from two bases.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use pheon::{ReadError, WriteError};
use pheon_live::LiveError;
use pyo3::exceptions::{
    PyFileExistsError, PyFileNotFoundError, PyKeyboardInterrupt, PyOSError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::import_exception;
use pyo3::prelude::*;

import_exception!(pheon._errors, Error);
import_exception!(pheon._errors, NotFoundError);
import_exception!(pheon._errors, DuplicateKeyError);
import_exception!(pheon._errors, SchemaError);
import_exception!(pheon._errors, CorruptError);
import_exception!(pheon._errors, LockTimeout);
import_exception!(pheon._errors, ClosedError);
import_exception!(pheon._errors, StoreFullError);

/// `ENOENT` on every Linux.
const NO_SUCH_FILE: i32 = 2;
/// `EEXIST` on every Linux.
const FILE_EXISTS: i32 = 17;
/// `ENOSPC` on every Linux; used where the kernel gave no number.
const NO_SPACE: i32 = 28;
/// `EIO`; used where the kernel gave no number.
const IO_FAILURE: i32 = 5;

/// The Python exception for a failed read.
pub(crate) fn read_error(py: Python<'_>, error: &ReadError) -> PyErr {
    let message = error.to_string();
    match error {
        ReadError::StoreNotFound { path } => {
            let message = "no store here (there is no pheon.json); pheon.open without read_only creates one";
            PyFileNotFoundError::new_err((NO_SUCH_FILE, message, path.display().to_string()))
        }
        ReadError::NotFound { .. } => NotFoundError::new_err(message),
        ReadError::InvalidName { .. } => PyValueError::new_err(message),
        ReadError::Corrupt { .. } => CorruptError::new_err(message),
        ReadError::KeyType { .. } | ReadError::WrongShape { .. } => PyTypeError::new_err(message),
        ReadError::Io { operation, path, source } => with_cause(py, os_error(operation, path, source), error),
        _ => with_cause(py, Error::new_err(message), error),
    }
}

/// The Python exception for a failed build, publish or administration call.
pub(crate) fn write_error(py: Python<'_>, error: &WriteError) -> PyErr {
    let message = error.to_string();
    match error {
        WriteError::Read(e) => read_error(py, e),
        WriteError::DuplicateKey { .. } | WriteError::KeyExists { .. } => DuplicateKeyError::new_err(message),
        WriteError::Schema { .. } | WriteError::Limit { .. } => SchemaError::new_err(message),
        WriteError::StoreFull { source, .. } => {
            let errno = source.raw_os_error().unwrap_or(NO_SPACE);
            with_cause(py, StoreFullError::new_err((errno, message)), error)
        }
        WriteError::LockTimeout { .. } => LockTimeout::new_err(message),
        WriteError::Cancelled => PyKeyboardInterrupt::new_err(message),
        WriteError::ReadOnly { .. } | WriteError::Options { .. } => PyValueError::new_err(message),
        WriteError::Io { operation, path, source } => with_cause(py, os_error(operation, path, source), error),
        // Input, Source, and variants that a later engine adds.
        _ => with_cause(py, Error::new_err(message), error),
    }
}

/// The Python exception for a failed operation of a live map.
#[cold]
pub(crate) fn live_error(py: Python<'_>, error: &LiveError) -> PyErr {
    let message = error.to_string();
    match error {
        LiveError::NotFound { .. } => NotFoundError::new_err(message),
        LiveError::Exists { path } => {
            let what = "there is a live map of this name already; create=None attaches to it";
            PyFileExistsError::new_err((FILE_EXISTS, what, path.display().to_string()))
        }
        LiveError::Options { .. } | LiveError::ReadOnly { .. } => PyValueError::new_err(message),
        LiveError::Corrupt { .. } => CorruptError::new_err(message),
        LiveError::TooLarge { .. } => SchemaError::new_err(message),
        LiveError::Full { source, .. } => {
            let errno = source.as_ref().and_then(io::Error::raw_os_error).unwrap_or(NO_SPACE);
            with_cause(py, StoreFullError::new_err((errno, message)), error)
        }
        LiveError::LockTimeout { .. } => LockTimeout::new_err(message),
        LiveError::Stopped => PyKeyboardInterrupt::new_err(message),
        LiveError::NotHeld => PyRuntimeError::new_err(message),
        LiveError::Unlinked { .. } => ClosedError::new_err(message),
        LiveError::Io { operation, path, source } => with_cause(py, os_error(operation, path, source), error),
        LiveError::NotDurable { cause } => match &**cause {
            LiveError::Io { source, .. } | LiveError::Full { source: Some(source), .. } => {
                let number = source.raw_os_error();
                with_cause(py, PyOSError::new_err((number, message)), error)
            }
            _ => with_cause(py, Error::new_err(message), error),
        },
        _ => with_cause(py, Error::new_err(message), error),
    }
}

/// The data of a map does not fit; `SchemaError` is a `TypeError` too.
pub(crate) fn schema_error(message: impl Into<String>) -> PyErr {
    SchemaError::new_err(message.into())
}

/// An Arrow kernel refused input that came from Python.
pub(crate) fn arrow_error(operation: &str, error: &arrow_schema::ArrowError) -> PyErr {
    Error::new_err(format!("{operation}: {error}"))
}

/// OSError picks FileNotFoundError, PermissionError... by the number. Where there is none it was no system call
/// that failed: what the caller asked for cannot be.
fn os_error(operation: &str, path: &Path, source: &io::Error) -> PyErr {
    let path = path.display().to_string();
    match source.raw_os_error() {
        None if source.kind() == io::ErrorKind::InvalidInput => PyValueError::new_err(source.to_string()),
        errno => {
            let errno = errno.unwrap_or_else(|| errno_of(source.kind()));
            PyOSError::new_err((errno, format!("{operation}: {source}"), path))
        }
    }
}

/// The number that Linux has for a kind of error that Pheon itself found, such as a memory store that is open to others.
fn errno_of(kind: io::ErrorKind) -> i32 {
    match kind {
        io::ErrorKind::NotFound => NO_SUCH_FILE,
        io::ErrorKind::PermissionDenied => 13,
        io::ErrorKind::NotADirectory => 20,
        _ => IO_FAILURE,
    }
}

/// Chains the Rust cause, if there is one, as `__cause__`.
fn with_cause(py: Python<'_>, exception: PyErr, error: &(dyn StdError + 'static)) -> PyErr {
    if let Some(cause) = error.source() {
        let cause = match cause.downcast_ref::<io::Error>() {
            Some(e) => PyOSError::new_err((e.raw_os_error().unwrap_or(IO_FAILURE), e.to_string())),
            None => Error::new_err(cause.to_string()),
        };
        exception.set_cause(py, Some(cause));
    }
    exception
}
