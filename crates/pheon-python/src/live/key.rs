//! Keys of live maps: the same bytes for keys that are equal in Python.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};
use rmp::encode as rmp_encode;

use super::codec::{check_depth, encode_value, refused, write_bytes, write_none, write_surrogates, write_utf8};
use super::extension::{self, FROZENSET, written};
use super::shape::Shape;
use super::{calendar, number};
use crate::ingest::plain;
use crate::msgpack::TUPLE;

/// Appends a key's canonical bytes: two keys have the same ones if they are one key in a dict (docs/live-values.md names
/// the exceptions). Where these do not decode to the key as it was given, such as `True` or `1.0`, returns its encoding as a
/// value too.
///
/// Raises `TypeError` for what cannot be hashed, and `SchemaError` for what is no key without `pickle`. After an error
/// nothing is appended.
#[inline]
pub(crate) fn encode_key(object: &Bound<'_, PyAny>, pickle: bool, out: &mut Vec<u8>) -> PyResult<Option<Vec<u8>>> {
    let start = out.len();
    let done = write_key(object, pickle, out, 0).and_then(|exact| {
        if exact {
            return Ok(None);
        }
        let mut given = Vec::new();
        encode_value(object, pickle, &mut given)?;
        Ok(Some(given))
    });
    if done.is_err() {
        out.truncate(start);
    }
    done
}

/// Appends a key that is `depth` levels inside the whole one. Whether it comes back as it was given.
#[inline]
fn write_key(object: &Bound<'_, PyAny>, pickle: bool, out: &mut Vec<u8>, depth: u32) -> PyResult<bool> {
    check_depth(depth)?;
    if let Ok(text) = object.cast_exact::<PyString>() {
        return write_key_text(text, pickle, out);
    }
    if let Ok(int) = object.cast_exact::<PyInt>() {
        number::write_int(int, out)?;
        return Ok(true);
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        write_bytes(bytes.as_bytes(), out)?;
        return Ok(true);
    }
    write_other_key(object, pickle, out, depth)
}

#[inline]
fn write_key_text(text: &Bound<'_, PyString>, pickle: bool, out: &mut Vec<u8>) -> PyResult<bool> {
    // A key is looked up again: the copy that stays with one that is not ASCII pays (see the module `text`).
    match text.to_str() {
        Ok(text) => write_utf8(text, out)?,
        Err(e) => write_surrogates(text, &e, pickle, out)?,
    }
    Ok(true)
}

fn write_other_key(object: &Bound<'_, PyAny>, pickle: bool, out: &mut Vec<u8>, depth: u32) -> PyResult<bool> {
    if let Some(exact) = write_key_shape(object, Shape::exact(object)?, pickle, out, depth)? {
        return Ok(exact);
    }
    // Raises what a dict would.
    object.hash()?;
    // Also with `pickle`: a derived class that does not say otherwise is equal to its base, as IntEnum's members are to ints.
    if let Some(exact) = write_key_shape(object, Shape::base(object)?, pickle, out, depth)? {
        return Ok(exact && !pickle);
    }
    if let Some(plain) = plain(object)? {
        return Ok(write_key(&plain, pickle, out, depth + 1)? && !pickle);
    }
    if !pickle {
        return Err(refused(object, "a key"));
    }
    extension::write_pickle(object, out)?;
    Ok(true)
}

/// Appends a key of this shape; whether it comes back as it was given. `None` if the shape is no key.
fn write_key_shape(
    object: &Bound<'_, PyAny>,
    shape: Shape<'_, '_>,
    pickle: bool,
    out: &mut Vec<u8>,
    depth: u32,
) -> PyResult<Option<bool>> {
    Ok(Some(match shape {
        Shape::None => {
            write_none(out)?;
            true
        }
        Shape::Bool(flag) => {
            written(rmp_encode::write_sint(out, i64::from(flag)))?;
            false
        }
        Shape::Int(int) => {
            number::write_int(int, out)?;
            true
        }
        Shape::Float(value) => number::write_key_float(object.py(), value, out)?,
        Shape::Str(text) => write_key_text(text, pickle, out)?,
        Shape::Bytes(bytes) => {
            write_bytes(bytes.as_bytes(), out)?;
            true
        }
        Shape::Tuple(tuple) => {
            let mut exact = true;
            extension::write_array(TUPLE, tuple.len(), out, |out| {
                for item in tuple.iter() {
                    exact &= write_key(&item, pickle, out, depth + 1)?;
                }
                Ok(())
            })?;
            exact
        }
        Shape::FrozenSet(set) => {
            let mut exact = true;
            let mut items = Vec::new();
            for item in set.try_iter()? {
                let mut bytes = Vec::new();
                exact &= write_key(&item?, pickle, &mut bytes, depth + 1)?;
                items.push(bytes);
            }
            // Its order of iteration is no property of a set.
            items.sort_unstable();
            extension::write_array(FROZENSET, items.len(), out, |out| {
                items.iter().for_each(|item| out.extend_from_slice(item));
                Ok(())
            })?;
            exact
        }
        Shape::Complex(complex) => number::write_key_complex(complex, out)?,
        Shape::Datetime(time) => calendar::write_key_datetime(time, out)?,
        Shape::Date(date) => {
            calendar::write_date(date, out)?;
            true
        }
        Shape::Time(time) => calendar::write_key_time(time, out)?,
        Shape::Delta(delta) => {
            calendar::write_delta(delta, out)?;
            true
        }
        Shape::Decimal(decimal) => number::write_key_decimal(decimal, out)?,
        Shape::Uuid(uuid) => {
            number::write_uuid(uuid, out)?;
            true
        }
        Shape::List(_) | Shape::Dict(_) | Shape::Set(_) | Shape::ByteArray(_) | Shape::Other => return Ok(None),
    }))
}
