//! Which column a Python object needs, and which column a whole dict needs.

use arrow_schema::DataType;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDate, PyDateTime, PyDelta, PyDict, PyFloat, PyInt, PyList, PyString, PyTime,
    PyTuple, PyType,
};

use crate::decimal::{self, DIGITS_MAX, Unscaled};
use crate::{clock, errors};

/// The type of one Python object, as far as columns care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Null,
    Bool,
    /// An int; true: it is beyond `i64` and fits `u64`.
    Int {
        beyond_i64: bool,
        negative: bool,
    },
    Float,
    Str,
    Bytes,
    Date,
    Time,
    /// With its zone's name.
    Datetime(Option<String>),
    Timedelta,
    /// With its digits after the point.
    Decimal(i32),
    /// A list, tuple or dict.
    Nested,
    /// Anything else; its type's name, and what to say about it.
    Other(String),
}

impl Seen {
    /// Looks at an object. NumPy scalars count as what their `item()` is.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if object.is_exact_instance_of::<PyString>() {
            return Ok(Self::Str);
        }
        if object.is_none() {
            return Ok(Self::Null);
        }
        if object.is_exact_instance_of::<PyBool>() {
            return Ok(Self::Bool);
        }
        if object.is_instance_of::<PyInt>() {
            return Self::of_int(object);
        }
        if object.is_instance_of::<PyFloat>() {
            return Ok(Self::Float);
        }
        if object.is_instance_of::<PyBytes>() || object.is_instance_of::<PyByteArray>() {
            return Ok(Self::Bytes);
        }
        if object.is_instance_of::<PyString>() {
            return Ok(Self::Str);
        }
        if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() || object.is_instance_of::<PyDict>()
        {
            return Ok(Self::Nested);
        }
        // A datetime is a date too.
        if let Ok(time) = object.cast::<PyDateTime>() {
            return Ok(Self::Datetime(clock::zone_name(time)?));
        }
        if object.is_instance_of::<PyDate>() {
            return Ok(Self::Date);
        }
        if let Ok(time) = object.cast::<PyTime>() {
            return Ok(match clock::micros_of_time(time) {
                Some(_) => Self::Time,
                None => Self::Other("time with a time zone".into()),
            });
        }
        if object.is_instance_of::<PyDelta>() {
            return Ok(Self::Timedelta);
        }
        if object.is_instance(decimal::class(object.py())?)? {
            return Ok(match Unscaled::of(object)? {
                Some(d) => Self::Decimal(d.scale()),
                None => Self::Other(format!("Decimal that is not finite or has more than {DIGITS_MAX} digits")),
            });
        }
        match plain(object)? {
            Some(object) => Self::of(&object),
            None => Ok(Self::Other(type_name(object))),
        }
    }

    fn of_int(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(v) = object.extract::<i64>() {
            return Ok(Self::Int { beyond_i64: false, negative: v < 0 });
        }
        Ok(match object.extract::<u64>() {
            Ok(_) => Self::Int { beyond_i64: true, negative: false },
            Err(_) => Self::Other("int of more than 64 bits".into()),
        })
    }
}

/// A NumPy scalar as the Python object that it stands for; `None` for anything else.
pub(crate) fn plain<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let class = object.get_type();
    if !class.module().is_ok_and(|m| m == "numpy") || !object.hasattr("dtype")? {
        return Ok(None);
    }
    static GENERIC: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    // An array of several values has a dtype too, and stands for no single object.
    if !object.is_instance(GENERIC.import(object.py(), "numpy", "generic")?)? {
        return Ok(None);
    }
    // item() of a datetime64 in nanoseconds is an int; through microseconds it is a datetime, if nothing is lost.
    let plain = if class.name()? == "datetime64" || class.name()? == "timedelta64" {
        let micros = object.call_method1("astype", (format!("{}[us]", class.name()?),))?;
        if !micros.eq(object)? {
            return Ok(None);
        }
        micros.call_method0("item")?
    } else {
        object.call_method0("item")?
    };
    Ok((!plain.get_type().is(&class)).then_some(plain))
}

/// The name of an object's type, for messages.
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "object".to_owned(), |n| n.to_string())
}

/// What a column stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing but None so far.
    Null,
    Bool,
    Int64,
    UInt64,
    Float,
    Str,
    Bytes,
    Date,
    Time,
    Datetime(Option<String>),
    Timedelta,
    /// Digits after the point.
    Decimal(i32),
    Msgpack,
    Pickle,
}

impl Kind {
    /// The kind whose objects fill a column of this type; `None` if there is none.
    pub(crate) fn of_type(data_type: &DataType, codec: Option<&str>) -> Option<Self> {
        use DataType as D;
        match codec {
            Some("msgpack") => return Some(Self::Msgpack),
            Some("pickle") => return Some(Self::Pickle),
            _ => {}
        }
        Some(match data_type {
            D::Null => Self::Null,
            D::Boolean => Self::Bool,
            D::UInt64 => Self::UInt64,
            t if t.is_integer() => Self::Int64,
            t if t.is_floating() => Self::Float,
            D::Utf8 | D::LargeUtf8 | D::Utf8View => Self::Str,
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => Self::Bytes,
            D::Date32 | D::Date64 => Self::Date,
            D::Time32(_) | D::Time64(_) => Self::Time,
            D::Timestamp(_, zone) => Self::Datetime(zone.as_deref().map(str::to_owned)),
            D::Duration(_) => Self::Timedelta,
            t if t.is_decimal() => match t {
                D::Decimal32(_, s) | D::Decimal64(_, s) | D::Decimal128(_, s) | D::Decimal256(_, s) => {
                    Self::Decimal(i32::from(*s))
                }
                _ => return None,
            },
            _ => return None,
        })
    }

    /// What Python calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Null => "None",
            Self::Bool => "bool",
            Self::Int64 | Self::UInt64 => "int",
            Self::Float => "float",
            Self::Str => "str",
            Self::Bytes => "bytes",
            Self::Date => "date",
            Self::Time => "time",
            Self::Datetime(_) => "datetime",
            Self::Timedelta => "timedelta",
            Self::Decimal(_) => "Decimal",
            Self::Msgpack => "list, dict or mixed values",
            Self::Pickle => "pickled values",
        }
    }
}

/// Finds the kind that holds everything it is shown.
#[derive(Debug, Default)]
pub(crate) struct KindScan {
    /// Without integer widths and decimal scales, which are in the fields below.
    base: Option<Kind>,
    /// Another type that came after `base`, by name.
    mixed: Option<String>,
    nested: bool,
    negative: bool,
    beyond_i64: bool,
    scale: i32,
    /// The first object that no default codec holds: row and type.
    other: Option<(u64, String)>,
    /// Two time zones in one column.
    zones: Option<(String, String)>,
}

impl KindScan {
    /// Takes one more object into account; `row` counts from 0.
    #[inline]
    pub(crate) fn look(&mut self, object: &Bound<'_, PyAny>, row: u64) -> PyResult<()> {
        // The common case, without building a `Seen`.
        if self.base == Some(Kind::Str) && object.is_exact_instance_of::<PyString>() {
            return Ok(());
        }
        let found = match Seen::of(object)? {
            Seen::Null => return Ok(()),
            Seen::Nested => {
                self.nested = true;
                return Ok(());
            }
            Seen::Other(name) => {
                self.other.get_or_insert((row, name));
                return Ok(());
            }
            Seen::Int { beyond_i64, negative } => {
                self.beyond_i64 |= beyond_i64;
                self.negative |= negative;
                Kind::Int64
            }
            Seen::Decimal(scale) => {
                self.scale = self.scale.max(scale);
                Kind::Decimal(0)
            }
            Seen::Bool => Kind::Bool,
            Seen::Float => Kind::Float,
            Seen::Str => Kind::Str,
            Seen::Bytes => Kind::Bytes,
            Seen::Date => Kind::Date,
            Seen::Time => Kind::Time,
            Seen::Datetime(zone) => Kind::Datetime(zone),
            Seen::Timedelta => Kind::Timedelta,
        };
        match &self.base {
            None => self.base = Some(found),
            Some(base) if *base == found => {}
            Some(Kind::Datetime(a)) if matches!(found, Kind::Datetime(_)) => {
                let Kind::Datetime(b) = found else { return Ok(()) };
                let name = |z: &Option<String>| z.clone().unwrap_or_else(|| "no time zone".into());
                self.zones.get_or_insert((name(a), name(&b)));
            }
            Some(_) => {
                self.mixed.get_or_insert(found.name().to_owned());
            }
        }
        Ok(())
    }

    /// The kind of a key column. A map without entries has `str` keys.
    pub(crate) fn key_kind(&self) -> PyResult<Kind> {
        if let Some((row, name)) = &self.other {
            return Err(errors::schema_error(format!(
                "row {row}: a key of type {name} cannot be stored; keys are str, bytes, int (64 bits), bool, date, time, datetime or Decimal"
            )));
        }
        if self.nested {
            return Err(errors::schema_error("keys cannot be tuples, lists or dicts"));
        }
        if let (Some(base), Some(mixed)) = (&self.base, &self.mixed) {
            return Err(errors::schema_error(format!(
                "keys are of several types, {} and {mixed}; a map has keys of one type",
                base.name()
            )));
        }
        match self.exact()? {
            None => Ok(Kind::Str),
            Some(Kind::Float) => {
                Err(errors::schema_error("keys cannot be float: equal-looking floats differ in their last bits"))
            }
            Some(kind) => Ok(kind),
        }
    }

    /// The kind of a value column: mixed types go to msgpack.
    pub(crate) fn value_kind(&self) -> PyResult<Kind> {
        if let Some((row, name)) = &self.other {
            return Err(errors::schema_error(format!(
                "row {row}: a value of type {name} has no column type; codec=\"pickle\" stores any Python object \
                 (and asks for allow_pickle=True when opening)"
            )));
        }
        if self.nested || self.mixed.is_some() {
            return Ok(Kind::Msgpack);
        }
        Ok(match self.exact() {
            Ok(kind) => kind.unwrap_or(Kind::Null),
            // Negative and huge integers in one column: msgpack holds both.
            Err(_) if self.base == Some(Kind::Int64) => Kind::Msgpack,
            Err(e) => return Err(e),
        })
    }

    fn exact(&self) -> PyResult<Option<Kind>> {
        if let Some((a, b)) = &self.zones {
            return Err(errors::schema_error(format!(
                "datetimes of several time zones in one column, {a} and {b}; convert them to one zone"
            )));
        }
        Ok(match &self.base {
            Some(Kind::Int64) if self.beyond_i64 && self.negative => {
                return Err(errors::schema_error(
                    "integers below zero and above 2**63 in one column; neither int64 nor uint64 holds both",
                ));
            }
            Some(Kind::Int64) if self.beyond_i64 => Some(Kind::UInt64),
            Some(Kind::Decimal(_)) => Some(Kind::Decimal(self.scale)),
            other => other.clone(),
        })
    }
}
