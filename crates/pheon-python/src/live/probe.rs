//! The codec of live maps as functions, for tests: an extension module cannot run Python in cargo's.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::codec;

/// An object as a value's bytes.
#[pyfunction]
#[pyo3(signature = (object, pickle))]
pub(crate) fn live_encode<'py>(object: &Bound<'py, PyAny>, pickle: bool) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    codec::encode_value(object, pickle, &mut out)?;
    Ok(PyBytes::new(object.py(), &out))
}

/// What `live_encode_key` returns.
type KeyBytes<'py> = (Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>);

/// An object as a key's bytes, and as a value's if these differ.
#[pyfunction]
#[pyo3(signature = (object, pickle))]
pub(crate) fn live_encode_key<'py>(object: &Bound<'py, PyAny>, pickle: bool) -> PyResult<KeyBytes<'py>> {
    let py = object.py();
    let mut out = Vec::new();
    let given = codec::encode_key(object, pickle, &mut out)?;
    Ok((PyBytes::new(py, &out), given.map(|bytes| PyBytes::new(py, &bytes))))
}

/// The object of a value's bytes.
#[pyfunction]
#[pyo3(signature = (data, allow_pickle))]
pub(crate) fn live_decode<'py>(py: Python<'py>, data: &[u8], allow_pickle: bool) -> PyResult<Bound<'py, PyAny>> {
    codec::decode(py, data, allow_pickle)
}

/// Whether a value's bytes are a list's or dict's.
#[pyfunction]
#[pyo3(signature = (data))]
pub(crate) fn live_is_container(data: &[u8]) -> bool {
    codec::is_container(data)
}
