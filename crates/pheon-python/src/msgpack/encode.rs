//! Python objects to MessagePack.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use rmp::encode as rmp_encode;

use super::{DEPTH_MAX, TUPLE};
use crate::ingest::{Refused, plain, type_name};

/// Appends the encoding of an object.
pub(crate) fn encode(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Result<(), Refused> {
    encode_at(object, out, 0)
}

fn encode_at(object: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: u32) -> Result<(), Refused> {
    if depth > DEPTH_MAX {
        return Err(Refused::Value(format!(
            "the value nests lists, tuples or dicts deeper than {DEPTH_MAX} levels (or contains itself); codec=\"pickle\" stores it"
        )));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return encode_text(text, out);
    }
    if object.is_none() {
        return written(rmp_encode::write_nil(out).map_err(drop));
    }
    if let Ok(flag) = object.cast::<PyBool>() {
        return written(rmp_encode::write_bool(out, flag.is_true()).map_err(drop));
    }
    if let Ok(int) = object.cast::<PyInt>() {
        return encode_int(int, out);
    }
    if let Ok(float) = object.cast::<PyFloat>() {
        return written(rmp_encode::write_f64(out, float.value()).map_err(drop));
    }
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return written(rmp_encode::write_bin(out, bytes.as_bytes()).map_err(drop));
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return written(rmp_encode::write_bin(out, &bytes.to_vec()).map_err(drop));
    }
    if let Ok(list) = object.cast::<PyList>() {
        written(rmp_encode::write_array_len(out, length(list.len())?).map_err(drop))?;
        for item in list.iter() {
            encode_at(&item, out, depth + 1)?;
        }
        return Ok(());
    }
    if let Ok(tuple) = object.cast::<PyTuple>() {
        // The extension's header holds the payload's length, so the payload is written first.
        let mut payload = Vec::new();
        written(rmp_encode::write_array_len(&mut payload, length(tuple.len())?).map_err(drop))?;
        for item in tuple.iter() {
            encode_at(&item, &mut payload, depth + 1)?;
        }
        written(rmp_encode::write_ext_meta(out, length(payload.len())?, TUPLE).map_err(drop))?;
        out.extend_from_slice(&payload);
        return Ok(());
    }
    if let Ok(dict) = object.cast::<PyDict>() {
        // items() is a list, so nothing that the entries' code does can disturb the iteration.
        let items = dict.items();
        written(rmp_encode::write_map_len(out, length(items.len())?).map_err(drop))?;
        for item in items.iter() {
            let item = item.cast::<PyTuple>()?.clone();
            encode_at(&item.get_item(0)?, out, depth + 1)?;
            encode_at(&item.get_item(1)?, out, depth + 1)?;
        }
        return Ok(());
    }
    match plain(object)? {
        Some(object) => encode_at(&object, out, depth + 1),
        None => Err(Refused::Value(format!(
            "msgpack holds None, bool, int, float, str, bytes, lists, tuples and dicts, found {}; codec=\"pickle\" stores it",
            type_name(object)
        ))),
    }
}

fn encode_text(text: &Bound<'_, PyString>, out: &mut Vec<u8>) -> Result<(), Refused> {
    // Not to_str(): that would leave a UTF-8 copy of every non-ASCII string behind (see the module `text`).
    let bytes = text.encode_utf8().map_err(|e| Refused::Value(format!("a string is not valid Unicode: {e}")))?;
    let text = std::str::from_utf8(bytes.as_bytes()).map_err(|e| Refused::Value(e.to_string()))?;
    length(text.len())?;
    written(rmp_encode::write_str(out, text).map_err(drop))
}

fn encode_int(int: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> Result<(), Refused> {
    if let Ok(v) = int.extract::<i64>() {
        return written(rmp_encode::write_sint(out, v).map_err(drop));
    }
    match int.extract::<u64>() {
        Ok(v) => written(rmp_encode::write_uint(out, v).map_err(drop)),
        Err(_) => {
            Err(Refused::Value("an int of more than 64 bits does not fit msgpack; codec=\"pickle\" stores it".into()))
        }
    }
}

fn length(len: usize) -> Result<u32, Refused> {
    u32::try_from(len)
        .map_err(|_| Refused::Value(format!("{len} items or bytes in one value; msgpack allows 4294967295")))
}

/// Writing to a `Vec` cannot fail.
fn written<T>(done: Result<T, ()>) -> Result<(), Refused> {
    done.map(drop).map_err(|()| Refused::Value("msgpack could not be written".into()))
}
