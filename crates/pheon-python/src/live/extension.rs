//! MessagePack's extension types as live maps use them: the headers, and what the payloads stand for.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyFrozenSet, PySet};
use rmp::encode as rmp_encode;

use super::{calendar, number};
use crate::decode::ValueCodec;
use crate::errors::{Error, schema_error};
use crate::msgpack::{Extensions, Reader, TUPLE};

pub(super) const INT: i8 = 2;
pub(super) const BYTEARRAY: i8 = 3;
pub(super) const SET: i8 = 4;
pub(super) const FROZENSET: i8 = 5;
pub(super) const DATE: i8 = 6;
pub(super) const TIME: i8 = 7;
pub(super) const DATETIME: i8 = 8;
pub(super) const TIMEDELTA: i8 = 9;
pub(super) const DECIMAL: i8 = 10;
pub(super) const COMPLEX: i8 = 11;
pub(super) const UUID: i8 = 12;
pub(super) const PICKLE: i8 = 13;

/// A MessagePack header is longest at an extension of 2^32 - 1 bytes.
const HEADER_MAX: usize = 6;

/// Appends an extension with this payload.
pub(super) fn write(kind: i8, payload: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
    written(rmp_encode::write_ext_meta(out, length(payload.len())?, kind))?;
    out.extend_from_slice(payload);
    Ok(())
}

/// Makes the payload that was appended to `out` after its first `start` bytes an extension.
pub(super) fn close(kind: i8, start: usize, out: &mut Vec<u8>) -> PyResult<()> {
    let end = out.len();
    let mut header = [0; HEADER_MAX];
    let mut rest = &mut header[..];
    written(rmp_encode::write_ext_meta(&mut rest, length(end - start)?, kind))?;
    let len = HEADER_MAX - rest.len();
    out.extend_from_slice(&header[..len]);
    out.copy_within(start..end, start + len);
    out[start..start + len].copy_from_slice(&header[..len]);
    Ok(())
}

/// A length as MessagePack has it.
pub(super) fn length(len: usize) -> PyResult<u32> {
    u32::try_from(len)
        .map_err(|_| schema_error(format!("{len} items or bytes in one object; msgpack allows 4294967295")))
}

/// Writing to memory cannot fail.
pub(super) fn written<T, E>(done: Result<T, E>) -> PyResult<()> {
    done.map(drop).map_err(|_| Error::new_err("msgpack could not be written"))
}

/// `TUPLE` for a tuple's items and so on: appends an array of what `items` writes, in an extension.
pub(super) fn write_array(
    kind: i8,
    len: usize,
    out: &mut Vec<u8>,
    items: impl FnOnce(&mut Vec<u8>) -> PyResult<()>,
) -> PyResult<()> {
    debug_assert!([TUPLE, SET, FROZENSET].contains(&kind));
    let start = out.len();
    written(rmp_encode::write_array_len(out, length(len)?))?;
    items(out)?;
    close(kind, start, out)
}

/// All extension types of live maps.
#[derive(Clone, Copy)]
pub(super) struct Live {
    pub(super) allow_pickle: bool,
}

impl Extensions for Live {
    const KNOWN: &'static str = "1 to 13";

    fn object<'py>(
        self,
        py: Python<'py>,
        kind: i8,
        payload: &mut Reader<'_, Self>,
        depth: u32,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Some(match kind {
            INT => number::read_int(py, payload)?,
            BYTEARRAY => PyByteArray::new(py, payload.take_rest()).into_any(),
            SET => {
                let items = payload.array_items(py, depth)?;
                PySet::new(py, items).map_err(|e| unhashable(payload, &e))?.into_any()
            }
            FROZENSET => {
                let items = payload.array_items(py, depth)?;
                PyFrozenSet::new(py, items).map_err(|e| unhashable(payload, &e))?.into_any()
            }
            DATE => calendar::read_date(py, payload)?,
            TIME => calendar::read_time(py, payload)?,
            DATETIME => calendar::read_datetime(py, payload)?,
            TIMEDELTA => calendar::read_delta(py, payload)?,
            DECIMAL => number::read_decimal(py, payload)?,
            COMPLEX => number::read_complex(py, payload)?,
            UUID => number::read_uuid(py, payload)?,
            PICKLE => ValueCodec::Pickle(self.allow_pickle).decode(py, payload.take_rest())?,
            _ => return Ok(None),
        }))
    }
}

fn unhashable(payload: &Reader<'_, Live>, error: &PyErr) -> PyErr {
    payload.corrupt(&format!("a set's element cannot be hashed: {error}"))
}

/// Appends an object's pickle.
pub(super) fn write_pickle(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    // The protocol is fixed: the default of a later Python could not be read by an earlier one.
    const PROTOCOL: u8 = 5;
    static DUMPS: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
    let py = object.py();
    let dumps = DUMPS.import(py, "pickle", "dumps")?;
    let bytes = dumps.call1((object, PROTOCOL))?;
    write(PICKLE, bytes.cast::<PyBytes>()?.as_bytes(), out)
}
