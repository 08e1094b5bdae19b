//! Arrow values to Python objects: whole arrays at a time, so that types are matched once.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowDictionaryKeyType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType,
    IntervalYearMonthType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, GenericListArray, OffsetSizeTrait};
use arrow_cast::cast;
use arrow_schema::{DataType, Field, IntervalUnit, TimeUnit};
use pheon::Value;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyString, PyTuple};

use crate::decimal::{decimal_of_i128, decimal_of_i256};
use crate::errors::{self, Error};
use crate::ingest::CODEC_KEY;
use crate::{clock, msgpack};

type Object<'py> = Bound<'py, PyAny>;

/// How a column's stored values become Python objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueCodec {
    Plain,
    Msgpack,
    /// True: the caller opted in.
    Pickle(bool),
}

impl ValueCodec {
    pub(crate) fn of(field: &Field, allow_pickle: bool) -> Self {
        match field.metadata().get(CODEC_KEY).map(String::as_str) {
            Some("msgpack") => Self::Msgpack,
            Some("pickle") => Self::Pickle(allow_pickle),
            _ => Self::Plain,
        }
    }

    /// For tables: msgpack is decoded, pickled values stay bytes.
    pub(crate) fn readable(self) -> Self {
        match self {
            Self::Pickle(_) => Self::Plain,
            other => other,
        }
    }

    /// Decodes one encoded value.
    pub(crate) fn decode<'py>(self, py: Python<'py>, bytes: &[u8]) -> PyResult<Object<'py>> {
        match self {
            Self::Plain => Ok(PyBytes::new(py, bytes).into_any()),
            Self::Msgpack => msgpack::decode(py, bytes),
            Self::Pickle(true) => {
                static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                let loads = LOADS.get_or_try_init(py, || py.import("pickle")?.getattr("loads").map(Bound::unbind))?;
                loads.bind(py).call1((PyBytes::new(py, bytes),))
            }
            Self::Pickle(false) => Err(Error::new_err(
                "the values are pickled Python objects, and unpickling runs code that the data chooses; \
                 if you trust whoever wrote them, open the map with allow_pickle=True",
            )),
        }
    }
}

/// One value as the engine hands it out.
#[inline]
pub(crate) fn value_object<'py>(py: Python<'py>, value: Value<'_>, codec: ValueCodec) -> PyResult<Object<'py>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Str(text) => PyString::new(py, text).into_any(),
        Value::Int(v) => v.into_pyobject(py)?.into_any(),
        Value::UInt(v) => v.into_pyobject(py)?.into_any(),
        Value::Float(v) => PyFloat::new(py, v).into_any(),
        Value::Bool(v) => PyBool::new(py, v).to_owned().into_any(),
        Value::Bytes(bytes) => return codec.decode(py, bytes),
        Value::Array(array) => {
            let mut objects = objects(py, &array)?;
            objects.pop().unwrap_or_else(|| py.None().into_bound(py))
        }
        _ => return Err(PyTypeError::new_err("a value of a kind that this version does not know")),
    })
}

/// All values of a column.
pub(crate) fn column_objects<'py>(py: Python<'py>, array: &ArrayRef, codec: ValueCodec) -> PyResult<Vec<Object<'py>>> {
    if codec == ValueCodec::Plain {
        return objects(py, array);
    }
    let Some(encoded) = array.as_binary_opt::<i64>() else {
        return Err(errors::CorruptError::new_err(format!(
            "encoded values must be LargeBinary, found {}",
            array.data_type()
        )));
    };
    encoded.iter().map(|bytes| bytes.map_or_else(|| Ok(py.None().into_bound(py)), |b| codec.decode(py, b))).collect()
}

/// All values of an array; None for nulls.
pub(crate) fn objects<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Vec<Object<'py>>> {
    use DataType as D;
    match array.data_type() {
        D::Null => Ok((0..array.len()).map(|_| py.None().into_bound(py)).collect()),
        D::Boolean => {
            let array = array.as_boolean();
            each(py, array, |i| Ok(PyBool::new(py, array.value(i)).to_owned().into_any()))
        }
        D::Int8 => primitive::<Int8Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::Int16 => primitive::<Int16Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::Int32 => primitive::<Int32Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::Int64 => primitive::<Int64Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::UInt8 => primitive::<UInt8Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::UInt16 => primitive::<UInt16Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::UInt32 => primitive::<UInt32Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::UInt64 => primitive::<UInt64Type>(py, array, |v| Ok(v.into_pyobject(py)?.into_any())),
        D::Float16 => primitive::<Float16Type>(py, array, |v| Ok(PyFloat::new(py, v.to_f64()).into_any())),
        D::Float32 => primitive::<Float32Type>(py, array, |v| Ok(PyFloat::new(py, f64::from(v)).into_any())),
        D::Float64 => primitive::<Float64Type>(py, array, |v| Ok(PyFloat::new(py, v).into_any())),
        D::LargeUtf8 => {
            let array = array.as_string::<i64>();
            each(py, array, |i| Ok(PyString::new(py, array.value(i)).into_any()))
        }
        D::Utf8 => {
            let array = array.as_string::<i32>();
            each(py, array, |i| Ok(PyString::new(py, array.value(i)).into_any()))
        }
        D::Utf8View => {
            let array = array.as_string_view();
            each(py, array, |i| Ok(PyString::new(py, array.value(i)).into_any()))
        }
        D::LargeBinary => {
            let array = array.as_binary::<i64>();
            each(py, array, |i| Ok(PyBytes::new(py, array.value(i)).into_any()))
        }
        D::Binary => {
            let array = array.as_binary::<i32>();
            each(py, array, |i| Ok(PyBytes::new(py, array.value(i)).into_any()))
        }
        D::BinaryView => {
            let array = array.as_binary_view();
            each(py, array, |i| Ok(PyBytes::new(py, array.value(i)).into_any()))
        }
        D::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            each(py, array, |i| Ok(PyBytes::new(py, array.value(i)).into_any()))
        }
        D::Date32 => primitive::<Date32Type>(py, array, |v| clock::date_of_days(py, i64::from(v))),
        D::Date64 => primitive::<Date64Type>(py, array, |v| clock::date_of_days(py, v.div_euclid(86_400_000))),
        D::Time32(_) | D::Time64(_) => times(py, array),
        D::Timestamp(unit, zone) => timestamps(py, array, *unit, zone.as_deref()),
        D::Duration(unit) => durations(py, array, *unit),
        D::Interval(unit) => intervals(py, array, *unit),
        D::Decimal32(_, s) => primitive::<Decimal32Type>(py, array, |v| decimal_of_i128(py, v.into(), i32::from(*s))),
        D::Decimal64(_, s) => primitive::<Decimal64Type>(py, array, |v| decimal_of_i128(py, v.into(), i32::from(*s))),
        D::Decimal128(_, s) => primitive::<Decimal128Type>(py, array, |v| decimal_of_i128(py, v, i32::from(*s))),
        D::Decimal256(_, s) => primitive::<Decimal256Type>(py, array, |v| decimal_of_i256(py, v, i32::from(*s))),
        D::List(_) => lists(py, array.as_list::<i32>()),
        D::LargeList(_) => lists(py, array.as_list::<i64>()),
        D::FixedSizeList(..) => {
            let array = array.as_fixed_size_list();
            each(py, array, |i| Ok(objects(py, &array.value(i))?.into_pyobject(py)?.into_any()))
        }
        D::Struct(_) => structs(py, array),
        D::Map(..) => {
            let array = array.as_map();
            each(py, array, |i| {
                let entries = array.value(i);
                let (keys, values) = (objects(py, entries.column(0))?, objects(py, entries.column(1))?);
                let pairs = keys
                    .into_iter()
                    .zip(values)
                    .map(|(k, v)| PyTuple::new(py, [k, v]))
                    .collect::<PyResult<Vec<_>>>()?;
                Ok(pairs.into_pyobject(py)?.into_any())
            })
        }
        D::Dictionary(key, _) => match key.as_ref() {
            D::Int8 => dictionary::<Int8Type>(py, array),
            D::Int16 => dictionary::<Int16Type>(py, array),
            D::Int32 => dictionary::<Int32Type>(py, array),
            D::Int64 => dictionary::<Int64Type>(py, array),
            D::UInt8 => dictionary::<UInt8Type>(py, array),
            D::UInt16 => dictionary::<UInt16Type>(py, array),
            D::UInt32 => dictionary::<UInt32Type>(py, array),
            _ => dictionary::<UInt64Type>(py, array),
        },
        D::Union(..) => {
            let array = array.as_union();
            (0..array.len())
                .map(|i| Ok(objects(py, &array.value(i))?.pop().unwrap_or_else(|| py.None().into_bound(py))))
                .collect()
        }
        D::RunEndEncoded(_, values) => {
            let array = cast(array, values.data_type()).map_err(|e| errors::arrow_error("expand runs", &e))?;
            objects(py, &array)
        }
        other => {
            Err(PyTypeError::new_err(format!("a column of type {other} has no Python objects; read it through Arrow")))
        }
    }
}

/// Of the array's own type, and in a loop: a `dyn Array`, or a chain of iterators, of each type is much to compile.
fn each<'py>(
    py: Python<'py>,
    array: &impl Array,
    mut object: impl FnMut(usize) -> PyResult<Object<'py>>,
) -> PyResult<Vec<Object<'py>>> {
    let nulls = array.nulls();
    let mut objects = Vec::with_capacity(array.len());
    for i in 0..array.len() {
        objects.push(if nulls.is_some_and(|n| n.is_null(i)) { py.None().into_bound(py) } else { object(i)? });
    }
    Ok(objects)
}

fn primitive<'py, T: ArrowPrimitiveType>(
    py: Python<'py>,
    array: &dyn Array,
    mut object: impl FnMut(T::Native) -> PyResult<Object<'py>>,
) -> PyResult<Vec<Object<'py>>> {
    let array = array.as_primitive::<T>();
    each(py, array, |i| object(array.value(i)))
}

fn times<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Vec<Object<'py>>> {
    let object = |ticks: i64, unit| clock::time_of_micros(py, clock::ticks_to_micros(ticks, unit)?);
    match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            primitive::<Time32SecondType>(py, array, |v| object(i64::from(v), TimeUnit::Second))
        }
        DataType::Time32(_) => {
            primitive::<Time32MillisecondType>(py, array, |v| object(i64::from(v), TimeUnit::Millisecond))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            primitive::<Time64MicrosecondType>(py, array, |v| object(v, TimeUnit::Microsecond))
        }
        _ => primitive::<Time64NanosecondType>(py, array, |v| object(v, TimeUnit::Nanosecond)),
    }
}

fn timestamps<'py>(
    py: Python<'py>,
    array: &dyn Array,
    unit: TimeUnit,
    zone: Option<&str>,
) -> PyResult<Vec<Object<'py>>> {
    let zone = zone.map(|name| clock::zone_of_name(py, name)).transpose()?;
    let object = |ticks: i64| clock::datetime_of_micros(py, clock::ticks_to_micros(ticks, unit)?, zone.as_ref());
    match unit {
        TimeUnit::Second => primitive::<TimestampSecondType>(py, array, object),
        TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(py, array, object),
        TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(py, array, object),
        TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(py, array, object),
    }
}

fn durations<'py>(py: Python<'py>, array: &dyn Array, unit: TimeUnit) -> PyResult<Vec<Object<'py>>> {
    let object = |ticks: i64| Ok(clock::delta_of_micros(py, clock::ticks_to_micros(ticks, unit)?)?.into_any());
    match unit {
        TimeUnit::Second => primitive::<DurationSecondType>(py, array, object),
        TimeUnit::Millisecond => primitive::<DurationMillisecondType>(py, array, object),
        TimeUnit::Microsecond => primitive::<DurationMicrosecondType>(py, array, object),
        TimeUnit::Nanosecond => primitive::<DurationNanosecondType>(py, array, object),
    }
}

/// An interval is a tuple (months, days, nanoseconds), as pyarrow names its parts.
fn intervals<'py>(py: Python<'py>, array: &dyn Array, unit: IntervalUnit) -> PyResult<Vec<Object<'py>>> {
    let object = |months: i32, days: i32, nanos: i64| Ok((months, days, nanos).into_pyobject(py)?.into_any());
    match unit {
        IntervalUnit::YearMonth => primitive::<IntervalYearMonthType>(py, array, |v| object(v, 0, 0)),
        IntervalUnit::DayTime => {
            primitive::<IntervalDayTimeType>(py, array, |v| object(0, v.days, i64::from(v.milliseconds) * 1_000_000))
        }
        IntervalUnit::MonthDayNano => {
            primitive::<IntervalMonthDayNanoType>(py, array, |v| object(v.months, v.days, v.nanoseconds))
        }
    }
}

fn lists<'py, O: OffsetSizeTrait>(py: Python<'py>, array: &GenericListArray<O>) -> PyResult<Vec<Object<'py>>> {
    each(py, array, |i| Ok(objects(py, &array.value(i))?.into_pyobject(py)?.into_any()))
}

fn structs<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Vec<Object<'py>>> {
    let array = array.as_struct();
    let names: Vec<_> = array.fields().iter().map(|f| PyString::new(py, f.name())).collect();
    let columns = array.columns().iter().map(|c| objects(py, c)).collect::<PyResult<Vec<_>>>()?;
    each(py, array, |i| {
        let row = PyDict::new(py);
        for (name, column) in names.iter().zip(&columns) {
            row.set_item(name, &column[i])?;
        }
        Ok(row.into_any())
    })
}

fn dictionary<'py, K: ArrowDictionaryKeyType>(py: Python<'py>, array: &dyn Array) -> PyResult<Vec<Object<'py>>> {
    let array = array.as_dictionary::<K>();
    // Values that no row of a small array needs are not decoded.
    let values = array.values();
    if values.len() > array.len() {
        return each(py, array, |i| {
            let slot = array.key(i).unwrap_or(0);
            Ok(objects(py, &values.slice(slot, 1))?.pop().unwrap_or_else(|| py.None().into_bound(py)))
        });
    }
    let values = objects(py, values)?;
    each(py, array, |i| Ok(array.key(i).map_or_else(|| py.None().into_bound(py), |slot| values[slot].clone())))
}
