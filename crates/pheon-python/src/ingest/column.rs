//! Filling one column from Python objects.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, DurationMicrosecondBuilder, Float64Builder, Int64Builder,
    LargeBinaryBuilder, LargeStringBuilder, Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow_array::{Array, ArrayRef, NullArray};
use arrow_schema::{DataType, Field, TimeUnit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDate, PyDateTime, PyDelta, PyFloat, PyInt, PyString, PyTime};

use super::kind::{Kind, KindScan, plain};
use crate::decimal::{self, DIGITS_MAX, Unscaled};
use crate::decode::ValueCodec;
use crate::errors::schema_error;
use crate::text::TextReader;
use crate::{clock, msgpack};

/// The field metadata that names the codec of a column (docs/format.md section 3.1).
pub(crate) const CODEC_KEY: &str = "pheon.codec";

/// Why an object did not go into its column.
pub(crate) enum Refused {
    /// It is of another type than the column.
    Mismatch,
    /// It is of the column's type and cannot be stored; what is wrong.
    Value(String),
    /// Python raised.
    Raised(PyErr),
}

impl From<PyErr> for Refused {
    fn from(e: PyErr) -> Self {
        Self::Raised(e)
    }
}

impl<'a, 'py> From<pyo3::CastError<'a, 'py>> for Refused {
    fn from(_: pyo3::CastError<'a, 'py>) -> Self {
        Self::Mismatch
    }
}

/// A column being filled.
pub(crate) enum Column {
    /// So many.
    Null(usize),
    Bool(BooleanBuilder),
    Int64(Int64Builder),
    UInt64(UInt64Builder),
    Float(Float64Builder),
    Str(LargeStringBuilder, TextReader),
    Bytes(LargeBinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Datetime(TimestampMicrosecondBuilder, Option<String>),
    Timedelta(DurationMicrosecondBuilder),
    Decimal(Decimal128Builder, i32),
    Msgpack(LargeBinaryBuilder, Vec<u8>),
    Pickle(LargeBinaryBuilder),
}

impl Column {
    pub(crate) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Null => Self::Null(0),
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Int64 => Self::Int64(Int64Builder::new()),
            Kind::UInt64 => Self::UInt64(UInt64Builder::new()),
            Kind::Float => Self::Float(Float64Builder::new()),
            Kind::Str => Self::Str(LargeStringBuilder::new(), TextReader::default()),
            Kind::Bytes => Self::Bytes(LargeBinaryBuilder::new()),
            Kind::Date => Self::Date(Date32Builder::new()),
            Kind::Time => Self::Time(Time64MicrosecondBuilder::new()),
            Kind::Datetime(zone) => {
                let builder = TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone());
                Self::Datetime(builder, zone.clone())
            }
            Kind::Timedelta => Self::Timedelta(DurationMicrosecondBuilder::new()),
            Kind::Decimal(scale) => {
                let builder = Decimal128Builder::new().with_data_type(decimal_type(*scale));
                Self::Decimal(builder, *scale)
            }
            Kind::Msgpack => Self::Msgpack(LargeBinaryBuilder::new(), Vec::new()),
            Kind::Pickle => Self::Pickle(LargeBinaryBuilder::new()),
        }
    }

    /// The field of such a column.
    pub(crate) fn field(kind: &Kind, name: &str, nullable: bool) -> Field {
        let (data_type, codec) = match kind {
            Kind::Null => (DataType::Null, None),
            Kind::Bool => (DataType::Boolean, None),
            Kind::Int64 => (DataType::Int64, None),
            Kind::UInt64 => (DataType::UInt64, None),
            Kind::Float => (DataType::Float64, None),
            Kind::Str => (DataType::LargeUtf8, None),
            Kind::Bytes => (DataType::LargeBinary, None),
            Kind::Date => (DataType::Date32, None),
            Kind::Time => (DataType::Time64(TimeUnit::Microsecond), None),
            Kind::Datetime(zone) => (DataType::Timestamp(TimeUnit::Microsecond, zone.as_deref().map(Arc::from)), None),
            Kind::Timedelta => (DataType::Duration(TimeUnit::Microsecond), None),
            Kind::Decimal(scale) => (decimal_type(*scale), None),
            Kind::Msgpack => (DataType::LargeBinary, Some("msgpack")),
            Kind::Pickle => (DataType::LargeBinary, Some("pickle")),
        };
        let field = Field::new(name, data_type, nullable);
        match codec {
            Some(codec) => field.with_metadata(HashMap::from([(CODEC_KEY.to_owned(), codec.to_owned())])),
            None => field,
        }
    }

    /// Appends one object; how many bytes that took, roughly.
    #[inline]
    pub(crate) fn append(&mut self, object: &Bound<'_, PyAny>) -> Result<usize, Refused> {
        if let Self::Str(builder, reader) = self
            && let Ok(text) = object.cast_exact::<PyString>()
        {
            return reader.append(text, builder).map_err(not_unicode);
        }
        self.append_any(object, true)
    }

    fn append_any(&mut self, object: &Bound<'_, PyAny>, unwrap: bool) -> Result<usize, Refused> {
        if object.is_none() {
            self.append_null();
            return Ok(1);
        }
        match self.append_value(object) {
            Err(Refused::Mismatch) if unwrap => match plain(object)? {
                Some(object) => self.append_any(&object, false),
                None => Err(Refused::Mismatch),
            },
            done => done,
        }
    }

    fn append_value(&mut self, object: &Bound<'_, PyAny>) -> Result<usize, Refused> {
        match self {
            Self::Null(_) => return Err(Refused::Mismatch),
            Self::Bool(b) => b.append_value(object.cast::<PyBool>()?.is_true()),
            Self::Int64(b) => {
                if object.is_exact_instance_of::<PyBool>() {
                    return Err(Refused::Mismatch);
                }
                b.append_value(object.cast::<PyInt>()?.extract().map_err(|_| Refused::Mismatch)?);
            }
            Self::UInt64(b) => {
                if object.is_exact_instance_of::<PyBool>() {
                    return Err(Refused::Mismatch);
                }
                b.append_value(object.cast::<PyInt>()?.extract().map_err(|_| Refused::Mismatch)?);
            }
            Self::Float(b) => b.append_value(object.cast::<PyFloat>()?.value()),
            Self::Str(b, reader) => return reader.append(object.cast::<PyString>()?, b).map_err(not_unicode),
            Self::Bytes(b) => {
                if let Ok(bytes) = object.cast::<PyBytes>() {
                    b.append_value(bytes.as_bytes());
                    return Ok(bytes.as_bytes().len());
                }
                let bytes = object.cast::<PyByteArray>()?.to_vec();
                b.append_value(&bytes);
                return Ok(bytes.len());
            }
            Self::Date(b) => {
                if object.is_instance_of::<PyDateTime>() {
                    return Err(Refused::Mismatch);
                }
                b.append_value(clock::days_of_date(object.cast::<PyDate>()?)?);
            }
            Self::Time(b) => {
                let micros = clock::micros_of_time(object.cast::<PyTime>()?);
                b.append_value(
                    micros.ok_or_else(|| Refused::Value("a time with a time zone cannot be stored".into()))?,
                );
            }
            Self::Datetime(b, zone) => {
                let time = object.cast::<PyDateTime>()?;
                if clock::zone_name(time)? != *zone {
                    return Err(Refused::Mismatch);
                }
                if clock::nanoseconds(object)? != 0 {
                    return Err(finer_than_micros(object));
                }
                b.append_value(clock::micros_of_datetime(time)?);
            }
            Self::Timedelta(b) => {
                let micros = clock::micros_of_delta(object.cast::<PyDelta>()?);
                if clock::nanoseconds(object)? != 0 {
                    return Err(finer_than_micros(object));
                }
                b.append_value(
                    micros.ok_or_else(|| Refused::Value("the timedelta is beyond 64 bits of microseconds".into()))?,
                );
            }
            Self::Decimal(b, scale) => {
                if !object.is_instance(decimal::class(object.py())?)? {
                    return Err(Refused::Mismatch);
                }
                let value = Unscaled::of(object)?.and_then(|d| d.rescale(*scale, DIGITS_MAX));
                b.append_value(value.ok_or(Refused::Mismatch)?);
            }
            Self::Msgpack(b, scratch) => {
                scratch.clear();
                msgpack::encode(object, scratch)?;
                b.append_value(&scratch);
                return Ok(scratch.len());
            }
            Self::Pickle(b) => {
                let bytes = pickle(object)?;
                b.append_value(bytes.as_bytes());
                return Ok(bytes.as_bytes().len());
            }
        }
        Ok(std::mem::size_of::<i64>())
    }

    fn append_null(&mut self) {
        match self {
            Self::Null(rows) => *rows += 1,
            Self::Bool(b) => b.append_null(),
            Self::Int64(b) => b.append_null(),
            Self::UInt64(b) => b.append_null(),
            Self::Float(b) => b.append_null(),
            Self::Str(b, _) => b.append_null(),
            Self::Bytes(b) | Self::Msgpack(b, _) | Self::Pickle(b) => b.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
            Self::Datetime(b, _) => b.append_null(),
            Self::Timedelta(b) => b.append_null(),
            Self::Decimal(b, _) => b.append_null(),
        }
    }

    /// What was appended since the last call, as an array.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::UInt64(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
            Self::Str(b, _) => Arc::new(b.finish()),
            Self::Bytes(b) | Self::Msgpack(b, _) | Self::Pickle(b) => Arc::new(b.finish()),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            // Builders forget their time zone and precision when they finish.
            Self::Datetime(b, zone) => Arc::new(b.finish().with_timezone_opt(zone.clone())),
            Self::Timedelta(b) => Arc::new(b.finish()),
            Self::Decimal(b, scale) => {
                let array = b.finish();
                debug_assert_eq!(array.data_type(), &decimal_type(*scale));
                Arc::new(array)
            }
        }
    }
}

fn finer_than_micros(object: &Bound<'_, PyAny>) -> Refused {
    Refused::Value(format!(
        "{object} has nanoseconds, columns of Python objects end at microseconds; round it, or give Arrow data"
    ))
}

fn decimal_type(scale: i32) -> DataType {
    DataType::Decimal128(DIGITS_MAX as u8, scale.clamp(0, DIGITS_MAX as i32) as i8)
}

fn not_unicode(error: PyErr) -> Refused {
    Refused::Value(format!("the string is not valid Unicode: {error}"))
}

fn pickle<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let dumps = DUMPS.get_or_try_init(py, || py.import("pickle")?.getattr("dumps").map(Bound::unbind))?;
    Ok(dumps.bind(py).call1((object,))?.cast_into()?)
}

/// A column of one object that stands for itself: `None` for those that only a codec stores.
pub(crate) fn plain_column_of_one(object: &Bound<'_, PyAny>) -> PyResult<Option<ArrayRef>> {
    let mut scan = KindScan::default();
    scan.look(object, 0)?;
    match scan.value_kind() {
        Ok(kind) if kind != Kind::Msgpack => column_of_one(object, ValueCodec::Plain).map(Some),
        _ => Ok(None),
    }
}

/// A column of one object, in the kind that it needs by itself.
pub(crate) fn column_of_one(object: &Bound<'_, PyAny>, codec: ValueCodec) -> PyResult<ArrayRef> {
    let mut scan = KindScan::default();
    scan.look(object, 0)?;
    let kind = match codec {
        ValueCodec::Plain => scan.value_kind()?,
        ValueCodec::Msgpack => Kind::Msgpack,
        ValueCodec::Pickle(_) => Kind::Pickle,
    };
    let mut column = Column::new(&kind);
    match column.append(object) {
        Ok(_) => Ok(column.finish()),
        Err(Refused::Raised(e)) => Err(e),
        Err(Refused::Value(problem)) => Err(schema_error(problem)),
        Err(Refused::Mismatch) => Err(schema_error(format!("{} was expected", kind.name()))),
    }
}
