//! Which of the types that the encoding knows an object has.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyFloat,
    PyFrozenSet, PyInt, PyList, PySet, PyString, PyTime, PyTuple, PyType,
};

use crate::{clock, decimal};

/// An object by its type.
pub(super) enum Shape<'a, 'py> {
    None,
    Bool(bool),
    Int(&'a Bound<'py, PyInt>),
    Float(f64),
    Str(&'a Bound<'py, PyString>),
    Bytes(&'a Bound<'py, PyBytes>),
    ByteArray(&'a Bound<'py, PyByteArray>),
    List(&'a Bound<'py, PyList>),
    Tuple(&'a Bound<'py, PyTuple>),
    Dict(&'a Bound<'py, PyDict>),
    Set(&'a Bound<'py, PyAny>),
    FrozenSet(&'a Bound<'py, PyAny>),
    Complex(&'a Bound<'py, PyComplex>),
    Datetime(&'a Bound<'py, PyDateTime>),
    Date(&'a Bound<'py, PyDate>),
    Time(&'a Bound<'py, PyTime>),
    Delta(&'a Bound<'py, PyDelta>),
    Decimal(&'a Bound<'py, PyAny>),
    Uuid(&'a Bound<'py, PyAny>),
    Other,
}

impl<'a, 'py> Shape<'a, 'py> {
    /// The shape of an object that is of a known type itself; instances of derived classes are `Other`.
    pub(super) fn exact(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        Self::of(object, true)
    }

    /// The shape of an object that is of a known type or of a class derived from one, if the known type holds all of
    /// it: a pandas `Timestamp` with nanoseconds and `NaT` are `Other`.
    pub(super) fn base(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let shape = Self::of(object, false)?;
        let whole = match &shape {
            Self::Datetime(time) => is_whole(object, "year", time.get_year())?,
            Self::Delta(delta) => is_whole(object, "days", delta.get_days())?,
            _ => true,
        };
        Ok(if whole { shape } else { Self::Other })
    }

    fn of(object: &'a Bound<'py, PyAny>, exact: bool) -> PyResult<Self> {
        fn cast<'a, 'py, T: PyTypeInfo>(object: &'a Bound<'py, PyAny>, exact: bool) -> Option<&'a Bound<'py, T>> {
            if exact { object.cast_exact().ok() } else { object.cast().ok() }
        }
        let is = |class: &Bound<'py, PyType>| {
            if exact { Ok(object.get_type().is(class)) } else { object.is_instance(class) }
        };
        macro_rules! try_shapes {
            ($($shape:ident),*) => {
                $(if let Some(object) = cast(object, exact) {
                    return Ok(Self::$shape(object));
                })*
            };
        }
        try_shapes!(Dict, List, Tuple, Str);
        if object.is_none() {
            return Ok(Self::None);
        }
        // A bool is an int too.
        if let Some(flag) = cast::<PyBool>(object, exact) {
            return Ok(Self::Bool(flag.is_true()));
        }
        if let Some(float) = cast::<PyFloat>(object, exact) {
            return Ok(Self::Float(float.value()));
        }
        if cast::<PySet>(object, exact).is_some() {
            return Ok(Self::Set(object));
        }
        if cast::<PyFrozenSet>(object, exact).is_some() {
            return Ok(Self::FrozenSet(object));
        }
        // A datetime is a date too.
        try_shapes!(Int, Bytes, ByteArray, Complex, Datetime, Date, Time, Delta);
        let py = object.py();
        if is(decimal::class(py)?)? {
            return Ok(Self::Decimal(object));
        }
        if is(uuid_class(py)?)? {
            return Ok(Self::Uuid(object));
        }
        Ok(Self::Other)
    }
}

/// Whether the classes of `datetime` hold an instance of a class derived from them: it has no nanoseconds, and one of
/// its attributes is what the base class says, which is not so where pandas goes beyond year 9999.
fn is_whole(object: &Bound<'_, PyAny>, attribute: &str, value: i32) -> PyResult<bool> {
    Ok(clock::nanoseconds(object)? == 0 && object.getattr(attribute)?.extract::<i32>().is_ok_and(|v| v == value))
}

/// `uuid.UUID`.
pub(super) fn uuid_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "uuid", "UUID")
}
