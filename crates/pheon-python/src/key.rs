//! Python keys as the engine's keys, for one key column.

use std::sync::Arc;

use arrow_array::builder::{LargeBinaryBuilder, LargeStringBuilder};
use arrow_array::{ArrayRef, BooleanArray, make_array};
use arrow_buffer::{Buffer, NullBuffer, i256};
use arrow_data::ArrayData;
use arrow_schema::{DataType, TimeUnit};
use pheon::{KeyRef, Map, ReadError};
use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDate, PyDateTime, PyDelta, PyInt, PyString, PyTime};

use crate::clock;
use crate::decimal::{self, Unscaled};
use crate::ingest::{plain, type_name};
use crate::text::TextReader;

/// What a key column takes from Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Str,
    Bytes,
    Bool,
    /// Smallest and greatest integer of the column's type.
    Int(i128, i128),
    Date32,
    Date64,
    Time(TimeUnit),
    /// True: with a time zone.
    Timestamp(TimeUnit, bool),
    Duration(TimeUnit),
    /// Digits in all, digits after the point; true: 256 bits wide.
    Decimal(u8, i8, bool),
}

impl KeyKind {
    /// The kind of a stored key column; `None` for types that cannot be keys.
    pub(crate) fn of(data_type: &DataType) -> Option<Self> {
        use DataType as D;
        let signed = |bits: u32| Self::Int(-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1);
        let unsigned = |bits: u32| Self::Int(0, (1i128 << bits) - 1);
        Some(match data_type {
            D::Utf8 | D::LargeUtf8 | D::Utf8View => Self::Str,
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => Self::Bytes,
            D::Boolean => Self::Bool,
            D::Int8 => signed(8),
            D::Int16 => signed(16),
            D::Int32 => signed(32),
            D::Int64 => signed(64),
            D::UInt8 => unsigned(8),
            D::UInt16 => unsigned(16),
            D::UInt32 => unsigned(32),
            D::UInt64 => unsigned(64),
            D::Date32 => Self::Date32,
            D::Date64 => Self::Date64,
            D::Time32(unit) | D::Time64(unit) => Self::Time(*unit),
            D::Timestamp(unit, zone) => Self::Timestamp(*unit, zone.is_some()),
            D::Duration(unit) => Self::Duration(*unit),
            D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) => Self::Decimal(*p, *s, false),
            D::Decimal256(p, s) => Self::Decimal(*p, *s, true),
            _ => return None,
        })
    }

    /// What Python calls such keys.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Bytes => "bytes",
            Self::Bool => "bool",
            Self::Int(..) => "int",
            Self::Date32 | Self::Date64 => "date",
            Self::Time(_) => "time",
            Self::Timestamp(_, false) => "datetime without time zone",
            Self::Timestamp(_, true) => "datetime with time zone",
            Self::Duration(_) => "timedelta",
            Self::Decimal(..) => "Decimal",
        }
    }

    /// Whether [`KeyKind::read`] of this key is sure to run no Python code.
    #[inline]
    pub(crate) fn is_plain(&self, key: &Bound<'_, PyAny>) -> bool {
        match self {
            Self::Str => key.is_exact_instance_of::<PyString>(),
            Self::Bytes => key.is_exact_instance_of::<PyBytes>(),
            Self::Int(..) => key.is_exact_instance_of::<PyInt>(),
            _ => false,
        }
    }

    /// The row of a key for which [`KeyKind::is_plain`] holds, as [`KeyKind::read`] would read it; the inner error is the
    /// engine's. Inlined, so that the engine's form of a key need not go through memory.
    #[inline(always)]
    pub(crate) fn find_plain(&self, map: &Map, key: &Bound<'_, PyAny>) -> PyResult<Result<Option<u64>, ReadError>> {
        Ok(match self {
            Self::Str => match text_of(key.cast::<PyString>()?)? {
                Some(text) => map.find(KeyRef::Bytes(text.as_bytes())),
                None => Ok(None),
            },
            Self::Bytes => map.find(KeyRef::Bytes(key.cast::<PyBytes>()?.as_bytes())),
            Self::Int(min, max) => match int_of(key.cast::<PyInt>()?).filter(|v| (min..=max).contains(&v)) {
                Some(v) => map.find(KeyRef::Fixed64(v as u64)),
                None => Ok(None),
            },
            _ => match self.read(key)? {
                Some(key) => map.find(key),
                None => Ok(None),
            },
        })
    }

    /// The engine's form of a key. `Ok(None)`: of the right type, but no key of this column can equal it.
    ///
    /// # Errors
    /// `TypeError` for a key of another type.
    #[inline]
    pub(crate) fn read<'a>(&self, key: &'a Bound<'_, PyAny>) -> PyResult<Option<KeyRef<'a>>> {
        if *self == Self::Str
            && let Ok(text) = key.cast::<PyString>()
        {
            return text_of(text).map(|t| t.map(KeyRef::from));
        }
        if *self == Self::Bytes {
            return match key.cast::<PyBytes>() {
                Ok(bytes) => Ok(Some(KeyRef::Bytes(bytes.as_bytes()))),
                Err(_) => Err(self.wrong_type(key)),
            };
        }
        match self.read_fixed(key)? {
            Some(found) => Ok(found.0),
            // A NumPy scalar is looked up as the Python object that it stands for.
            None => match plain(key)? {
                Some(inner) if *self != Self::Str => match self.read_fixed(&inner)? {
                    Some(found) => Ok(found.0),
                    None => Err(self.wrong_type(key)),
                },
                _ => Err(self.wrong_type(key)),
            },
        }
    }

    /// A key that borrows nothing; `None`: of another type.
    fn read_fixed(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Found>> {
        Ok(match self {
            Self::Str | Self::Bytes => None,
            Self::Bool => key.cast::<PyBool>().ok().map(|b| Found(Some(b.is_true().into()))),
            Self::Int(min, max) => match key.cast::<PyInt>() {
                Ok(int) => {
                    Some(Found(int_of(int).filter(|v| (min..=max).contains(&v)).map(|v| KeyRef::Fixed64(v as u64))))
                }
                Err(_) => None,
            },
            Self::Date32 | Self::Date64 => match key.cast::<PyDate>() {
                Ok(date) if !key.is_instance_of::<PyDateTime>() => {
                    let days = i64::from(clock::days_of_date(date)?);
                    Some(Found(Some(if *self == Self::Date32 { days } else { days * 86_400_000 }.into())))
                }
                _ => None,
            },
            Self::Time(unit) => match key.cast::<PyTime>() {
                Ok(time) => {
                    let ticks = |micros| clock::micros_to_ticks(micros, *unit).map(KeyRef::from);
                    clock::micros_of_time(time).map(|micros| Found(ticks(micros)))
                }
                Err(_) => None,
            },
            Self::Timestamp(unit, zoned) => match key.cast::<PyDateTime>() {
                Ok(time) if clock::is_aware(time)? == *zoned => {
                    let (micros, nanos) = (clock::micros_of_datetime(time)?, clock::nanoseconds(key)?);
                    Some(Found(clock::nanos_to_ticks(micros, nanos, *unit).map(KeyRef::from)))
                }
                _ => None,
            },
            Self::Duration(unit) => match key.cast::<PyDelta>() {
                Ok(delta) => {
                    let nanos = clock::nanoseconds(key)?;
                    let ticks = clock::micros_of_delta(delta).and_then(|m| clock::nanos_to_ticks(m, nanos, *unit));
                    Some(Found(ticks.map(KeyRef::from)))
                }
                Err(_) => None,
            },
            Self::Decimal(digits, scale, wide) => {
                let value = match key.cast::<PyInt>() {
                    Ok(_) if key.is_exact_instance_of::<PyBool>() => return Ok(None),
                    Ok(int) => int_of(int).map(Unscaled::of_int),
                    Err(_) if key.is_instance(decimal::class(key.py())?)? => Unscaled::of(key)?,
                    Err(_) => return Ok(None),
                };
                let value = value.and_then(|v| v.rescale(i32::from(*scale), u32::from(*digits)));
                Some(Found(
                    value.map(|v| if *wide { KeyRef::I256(i256::from_i128(v).to_le_bytes()) } else { KeyRef::I128(v) }),
                ))
            }
        })
    }

    fn wrong_type(&self, key: &Bound<'_, PyAny>) -> PyErr {
        let found = key.repr().map_or_else(|_| "?".to_owned(), |r| r.to_string());
        let found: String = found.chars().take(80).collect();
        PyTypeError::new_err(format!("keys are {}, got {}: {found}", self.name(), type_name(key)))
    }
}

/// A key read, or the knowledge that no stored key equals it.
struct Found(Option<KeyRef<'static>>);

/// The UTF-8 of a string; `None` for lone surrogates, which no stored key has.
#[inline]
fn text_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Option<&'a str>> {
    match text.to_str() {
        Ok(t) => Ok(Some(t)),
        Err(e) if e.is_instance_of::<PyUnicodeEncodeError>(text.py()) => Ok(None),
        Err(e) => Err(e),
    }
}

/// An int of at most 65 bits with its sign; `None` beyond.
#[inline]
fn int_of(int: &Bound<'_, PyInt>) -> Option<i128> {
    match int.extract::<i64>() {
        Ok(v) => Some(i128::from(v)),
        Err(_) => int.extract::<u64>().ok().map(i128::from),
    }
}

/// Many Python keys as one Arrow array of the key column's type. Null: a key that cannot be there.
pub(crate) fn key_array<'py>(
    kind: &KeyKind,
    data_type: &DataType,
    keys: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
) -> PyResult<ArrayRef> {
    match kind {
        KeyKind::Str => text_array(kind, keys),
        KeyKind::Bytes => {
            let mut builder = LargeBinaryBuilder::with_capacity(keys.len(), 0);
            for key in keys {
                match read_or_none(kind, &key)? {
                    Some(KeyRef::Bytes(bytes)) => builder.append_value(bytes),
                    _ => builder.append_null(),
                }
            }
            Ok(Arc::new(builder.finish()))
        }
        KeyKind::Bool => {
            let flags = keys.map(|key| {
                Ok(match read_or_none(kind, &key)? {
                    Some(KeyRef::Fixed64(v)) => Some(v != 0),
                    _ => None,
                })
            });
            Ok(Arc::new(flags.collect::<PyResult<BooleanArray>>()?))
        }
        _ => fixed_array(kind, data_type, keys),
    }
}

/// In a batch None is a null, and a null is never found.
fn read_or_none<'a>(kind: &KeyKind, key: &'a Bound<'_, PyAny>) -> PyResult<Option<KeyRef<'a>>> {
    if key.is_none() { Ok(None) } else { kind.read(key) }
}

fn text_array<'py>(kind: &KeyKind, keys: impl ExactSizeIterator<Item = Bound<'py, PyAny>>) -> PyResult<ArrayRef> {
    let mut builder = LargeStringBuilder::with_capacity(keys.len(), 0);
    let mut reader = TextReader::default();
    for key in keys {
        let Ok(text) = key.cast::<PyString>() else {
            if key.is_none() {
                builder.append_null();
                continue;
            }
            return Err(kind.wrong_type(&key));
        };
        match reader.append(text, &mut builder) {
            Ok(_) => {}
            Err(e) if e.is_instance_of::<PyUnicodeEncodeError>(key.py()) => builder.append_null(),
            Err(e) => return Err(e),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn fixed_array<'py>(
    kind: &KeyKind,
    data_type: &DataType,
    keys: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
) -> PyResult<ArrayRef> {
    let width = data_type.primitive_width().unwrap_or(8);
    let rows = keys.len();
    let mut values = Vec::with_capacity(rows * width);
    let mut valid = Vec::with_capacity(rows);
    for key in keys {
        let key = read_or_none(kind, &key)?;
        valid.push(key.is_some());
        match key {
            Some(KeyRef::Fixed64(v)) => values.extend_from_slice(&v.to_le_bytes()[..width]),
            Some(KeyRef::I128(v)) => values.extend_from_slice(&v.to_le_bytes()[..width]),
            Some(KeyRef::I256(v)) => values.extend_from_slice(&v),
            _ => values.resize(values.len() + width, 0),
        }
    }
    let rows = valid.len();
    let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
    let data = ArrayData::builder(data_type.clone())
        .len(rows)
        .nulls(nulls)
        .add_buffer(Buffer::from_vec(values))
        // No keys at all have no memory, whose address is then no multiple of anything.
        .align_buffers(true)
        .build();
    data.map(make_array).map_err(|e| crate::errors::arrow_error("collect keys", &e))
}
