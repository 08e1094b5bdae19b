//! Values of live maps: Python objects to bytes and back.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyMapping, PyString, PyTuple};
use rmp::encode as rmp_encode;

use super::extension::{self, BYTEARRAY, FROZENSET, Live, SET, length, written};
use super::shape::Shape;
use super::{calendar, nested, number};
use crate::errors::schema_error;
use crate::ingest::{plain, type_name};
use crate::msgpack::{DEPTH_MAX, TUPLE, decode_with};
use crate::text::with_utf8;

pub(crate) use super::key::encode_key;

/// Appends the encoding of an object. With `pickle`, what has no encoding of its own, and instances of derived classes,
/// are pickled; without it, the latter become their base type, as NumPy's scalars do, and the former are refused with
/// `SchemaError`. After an error nothing is appended.
#[inline]
pub(crate) fn encode_value(object: &Bound<'_, PyAny>, pickle: bool, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    let done = write_at(object, pickle, out, 0);
    if done.is_err() {
        out.truncate(start);
    }
    done
}

/// Appends an object that is `depth` levels inside the value.
#[inline]
pub(super) fn write_at(object: &Bound<'_, PyAny>, pickle: bool, out: &mut Vec<u8>, depth: u32) -> PyResult<()> {
    check_depth(depth)?;
    if let Ok(text) = object.cast_exact::<PyString>() {
        return write_text(text, pickle, out);
    }
    if let Ok(int) = object.cast_exact::<PyInt>() {
        return number::write_int(int, out);
    }
    if let Ok(float) = object.cast_exact::<PyFloat>() {
        return number::write_float(float.value(), out);
    }
    if object.is_none() {
        return write_none(out);
    }
    if let Ok(flag) = object.cast_exact::<PyBool>() {
        return write_bool(flag.is_true(), out);
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return write_bytes(bytes.as_bytes(), out);
    }
    write_other(object, pickle, out, depth)
}

/// Fails for what is nested too deep, on the way to a decoder that would refuse it.
#[inline]
pub(super) fn check_depth(depth: u32) -> PyResult<()> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    Err(schema_error(format!("the object nests others deeper than {DEPTH_MAX} levels, or contains itself")))
}

#[inline]
pub(super) fn write_none(out: &mut Vec<u8>) -> PyResult<()> {
    written(rmp_encode::write_nil(out))
}

#[inline]
pub(super) fn write_bool(flag: bool, out: &mut Vec<u8>) -> PyResult<()> {
    written(rmp_encode::write_bool(out, flag))
}

#[inline]
pub(super) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
    length(bytes.len())?;
    written(rmp_encode::write_bin(out, bytes))
}

#[inline]
pub(super) fn write_utf8(text: &str, out: &mut Vec<u8>) -> PyResult<()> {
    length(text.len())?;
    written(rmp_encode::write_str(out, text))
}

#[inline]
fn write_text(text: &Bound<'_, PyString>, pickle: bool, out: &mut Vec<u8>) -> PyResult<()> {
    match with_utf8(text, |text| write_utf8(text, out)) {
        Ok(done) => done,
        Err(e) => write_surrogates(text, &e, pickle, out),
    }
}

/// A string with lone surrogates has no UTF-8; pickle has its own way.
#[cold]
pub(super) fn write_surrogates(
    text: &Bound<'_, PyString>,
    error: &PyErr,
    pickle: bool,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    if pickle {
        return extension::write_pickle(text, out);
    }
    Err(schema_error(format!("a string is not valid Unicode: {error}")))
}

/// Everything that is not one of the six types that [`write_at`] knows.
fn write_other(object: &Bound<'_, PyAny>, pickle: bool, out: &mut Vec<u8>, depth: u32) -> PyResult<()> {
    let start = out.len();
    if write_shape(Shape::exact(object)?, pickle, out, depth)? {
        return Ok(());
    }
    out.truncate(start);
    // Also with `pickle`; and what it holds is not what the map has now.
    if nested::is_nested(object)? {
        return write_at(&nested::plain_of(object)?, pickle, out, depth);
    }
    if pickle {
        return extension::write_pickle(object, out);
    }
    if write_shape(Shape::base(object)?, pickle, out, depth)? {
        return Ok(());
    }
    match plain(object)? {
        Some(object) => write_at(&object, pickle, out, depth + 1),
        None => Err(refused(object, "a value")),
    }
}

/// The error for an object that has no encoding.
pub(super) fn refused(object: &Bound<'_, PyAny>, what: &str) -> PyErr {
    let zone = object.getattr("tzinfo").ok().filter(|zone| !zone.is_none());
    let zone = zone.map_or_else(String::new, |zone| format!(" with a tzinfo of type {}", type_name(&zone)));
    schema_error(format!(
        "{what} of type {}{zone} has no encoding of its own; codec=\"pickle\" stores any Python object \
         (and asks for allow_pickle=True when opening)",
        type_name(object)
    ))
}

/// Appends a shape; false if it has no encoding.
fn write_shape(shape: Shape<'_, '_>, pickle: bool, out: &mut Vec<u8>, depth: u32) -> PyResult<bool> {
    match shape {
        Shape::None => write_none(out)?,
        Shape::Bool(flag) => write_bool(flag, out)?,
        Shape::Int(int) => number::write_int(int, out)?,
        Shape::Float(value) => number::write_float(value, out)?,
        Shape::Str(text) => write_text(text, pickle, out)?,
        Shape::Bytes(bytes) => write_bytes(bytes.as_bytes(), out)?,
        Shape::ByteArray(bytes) => extension::write(BYTEARRAY, &bytes.to_vec(), out)?,
        Shape::List(list) => {
            let len = list.len();
            written(rmp_encode::write_array_len(out, length(len)?))?;
            let mut items = 0;
            for item in list.iter() {
                write_at(&item, pickle, out, depth + 1)?;
                items += 1;
            }
            check_count(items, len)?;
        }
        Shape::Tuple(tuple) => extension::write_array(TUPLE, tuple.len(), out, |out| {
            tuple.iter().try_for_each(|item| write_at(&item, pickle, out, depth + 1))
        })?,
        Shape::Dict(dict) => {
            // A list, so nothing that the entries' code does can disturb the iteration; by the method of the object, for
            // an OrderedDict has its own order.
            let items = dict.as_any().cast::<PyMapping>()?.items()?;
            written(rmp_encode::write_map_len(out, length(items.len())?))?;
            for item in items.iter() {
                let item = item.cast::<PyTuple>()?;
                write_at(&item.get_item(0)?, pickle, out, depth + 1)?;
                write_at(&item.get_item(1)?, pickle, out, depth + 1)?;
            }
        }
        Shape::Set(set) => write_set(SET, set, pickle, out, depth)?,
        Shape::FrozenSet(set) => write_set(FROZENSET, set, pickle, out, depth)?,
        Shape::Complex(complex) => number::write_complex(complex, out)?,
        Shape::Datetime(time) => return calendar::write_datetime(time, out),
        Shape::Date(date) => calendar::write_date(date, out)?,
        Shape::Time(time) => return calendar::write_time(time, out),
        Shape::Delta(delta) => calendar::write_delta(delta, out)?,
        Shape::Decimal(decimal) => number::write_decimal(decimal, out)?,
        Shape::Uuid(uuid) => number::write_uuid(uuid, out)?,
        Shape::Other => return Ok(false),
    }
    Ok(true)
}

fn write_set(kind: i8, set: &Bound<'_, PyAny>, pickle: bool, out: &mut Vec<u8>, depth: u32) -> PyResult<()> {
    let len = set.len()?;
    extension::write_array(kind, len, out, |out| {
        let mut items = 0;
        // Raises when the set changes meanwhile, which pyo3's own iterator of sets makes a panic.
        for item in set.try_iter()? {
            write_at(&item?, pickle, out, depth + 1)?;
            items += 1;
        }
        check_count(items, len)
    })
}

/// Pickling runs code, which may change the object that it is in.
fn check_count(items: usize, len: usize) -> PyResult<()> {
    if items == len { Ok(()) } else { Err(PyRuntimeError::new_err("a list or set changed while it was stored")) }
}

/// The one object that `bytes` hold. Fails with `CorruptError` for anything else than what [`encode_value`] writes, and with
/// `Error` for a pickle without `allow_pickle`.
#[inline]
pub(crate) fn decode<'py>(py: Python<'py>, bytes: &[u8], allow_pickle: bool) -> PyResult<Bound<'py, PyAny>> {
    match decode_scalar(py, bytes) {
        Some(object) => Ok(object),
        None => decode_with(py, bytes, Live { allow_pickle }),
    }
}

/// The common scalars without a reader; `None` for anything else, damage included.
#[inline]
fn decode_scalar<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyAny>> {
    /// The bytes of a number, if there are exactly as many.
    macro_rules! number {
        ($int:ty, $rest:expr) => {
            Some(<$int>::from_be_bytes($rest.try_into().ok()?).into_pyobject(py).ok()?.into_any())
        };
    }
    let (&first, rest) = bytes.split_first()?;
    match first {
        0x00..=0x7f | 0xe0..=0xff if rest.is_empty() => Some((first as i8).into_pyobject(py).ok()?.into_any()),
        0xa0..=0xbf => text_object(py, usize::from(first & 0x1f), rest),
        0xd9 => {
            let (&len, rest) = rest.split_first()?;
            text_object(py, usize::from(len), rest)
        }
        0xc4 => {
            let (&len, rest) = rest.split_first()?;
            (usize::from(len) == rest.len()).then(|| PyBytes::new(py, rest).into_any())
        }
        0xcb => Some(PyFloat::new(py, f64::from_be_bytes(rest.try_into().ok()?)).into_any()),
        0xcc => number!(u8, rest),
        0xcd => number!(u16, rest),
        0xce => number!(u32, rest),
        0xcf => number!(u64, rest),
        0xd0 => number!(i8, rest),
        0xd1 => number!(i16, rest),
        0xd2 => number!(i32, rest),
        0xd3 => number!(i64, rest),
        0xc0 if rest.is_empty() => Some(py.None().into_bound(py)),
        0xc2 if rest.is_empty() => Some(PyBool::new(py, false).to_owned().into_any()),
        0xc3 if rest.is_empty() => Some(PyBool::new(py, true).to_owned().into_any()),
        _ => None,
    }
}

/// A string, if the text has this length and is UTF-8.
#[inline]
fn text_object<'py>(py: Python<'py>, len: usize, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    (len == text.len()).then(|| PyString::from_bytes(py, text).ok().map(Bound::into_any)).flatten()
}

/// Whether the encoded value is a list or dict, which the map hands out as a copy that its owner may change.
#[inline]
pub(crate) fn is_container(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x80..=0x9f | 0xdc..=0xdf))
}
