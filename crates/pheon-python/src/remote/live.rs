//! Operations on a live map at a server: Python objects to the body of the action `live`, and its results back.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use rmp::Marker;
use rmp::decode::{read_array_len, read_bool, read_int, read_marker};
use rmp::encode::{write_array_len, write_bin, write_nil, write_str};

use super::errors::RemoteError;
use crate::live::{encode_key, encode_value};

/// Bytes of a body: what a server takes in one message, less what is around it there.
pub(super) const BODY_BYTES_MAX: usize = (64 << 20) - 1024;

/// The body for operations, each a tuple of its name, its key if it has one, and values: `None` for no value, else a
/// tuple of one, or bytes for a value in its encoding.
pub(super) fn body(map: &str, operations: &Bound<'_, PyList>, pickle: bool) -> PyResult<Vec<u8>> {
    let mut out = Vec::new();
    array(2, &mut out)?;
    written(write_str(&mut out, map))?;
    array(operations.len(), &mut out)?;
    let mut scratch = Vec::new();
    for operation in operations.iter() {
        let operation = operation.cast_into::<PyTuple>()?;
        array(operation.len(), &mut out)?;
        for (at, member) in operation.iter().enumerate() {
            scratch.clear();
            match at {
                0 => written(write_str(&mut out, member.extract::<&str>()?))?,
                1 => match encode_key(&member, pickle, &mut scratch)? {
                    None => bin(&scratch, &mut out)?,
                    Some(given) => {
                        array(2, &mut out)?;
                        bin(&scratch, &mut out)?;
                        bin(&given, &mut out)?;
                    }
                },
                _ if member.is_none() => written(write_nil(&mut out))?,
                _ => match member.cast::<PyBytes>() {
                    Ok(encoded) => bin(encoded.as_bytes(), &mut out)?,
                    Err(_) => {
                        encode_value(&member.get_item(0)?, pickle, &mut scratch)?;
                        bin(&scratch, &mut out)?;
                    }
                },
            }
        }
    }
    Ok(out)
}

fn written<T, E: std::fmt::Display>(done: Result<T, E>) -> PyResult<()> {
    done.map(drop).map_err(|e| PyValueError::new_err(format!("write operations: {e}")))
}

fn array(len: usize, out: &mut Vec<u8>) -> PyResult<()> {
    let len = u32::try_from(len).map_err(|_| PyValueError::new_err(format!("{len} operations: at most 2**32 - 1")))?;
    written(write_array_len(out, len))
}

fn bin(bytes: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(PyValueError::new_err(format!("an entry of {} bytes: at most 2**32 - 1", bytes.len())));
    }
    written(write_bin(out, bytes))
}

/// The results of so many operations: a number, or whether the entry was there and its value in its encoding.
pub(super) fn results<'py>(py: Python<'py>, body: &[u8], count: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let malformed = || RemoteError::new_err("change a live map: unexpected answer: not what docs/flight.md says");
    let mut rest = body;
    if read_array_len(&mut rest).map_err(|_| malformed())? as usize != count {
        return Err(malformed());
    }
    (0..count).map(|_| result(py, &mut rest).ok_or_else(malformed)?).collect()
}

/// One result, taken from the front of `input`; `None` if it is none.
fn result<'py>(py: Python<'py>, input: &mut &[u8]) -> Option<PyResult<Bound<'py, PyAny>>> {
    let mut ahead = *input;
    if !matches!(read_marker(&mut ahead).ok()?, Marker::FixArray(2)) {
        let number: u64 = read_int(input).ok()?;
        return Some(number.into_pyobject(py).map(Bound::into_any).map_err(Into::into));
    }
    *input = ahead;
    let found = read_bool(input).ok()?;
    let len = match read_marker(input).ok()? {
        Marker::Null => None,
        Marker::Bin8 => Some(take(input, 1)?),
        Marker::Bin16 => Some(take(input, 2)?),
        Marker::Bin32 => Some(take(input, 4)?),
        _ => return None,
    };
    let value = match len {
        None => None,
        Some(len) => {
            let len = len.iter().fold(0usize, |len, byte| len << 8 | usize::from(*byte));
            Some(PyBytes::new(py, take(input, len)?))
        }
    };
    Some((found, value).into_pyobject(py).map(Bound::into_any))
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}
