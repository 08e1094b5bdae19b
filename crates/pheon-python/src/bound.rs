//! Ends of key ranges: a Python key need not be one that the column could hold.

use std::cmp::Ordering;
use std::ops::Bound as End;

use arrow_buffer::i256;
use pheon::KeyRef;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDateTime, PyDelta, PyInt, PyString, PyTime};

use crate::clock;
use crate::decimal::Unscaled;
use crate::ingest::{plain, type_name};
use crate::key::KeyKind;
use crate::keyed_rows::KeyedRows;

/// Where a Python key lies among a column's keys.
pub(crate) enum Edge<'a> {
    /// Before every key that the column can hold.
    Below,
    /// At this key, the least that is not less.
    At(KeyRef<'a>),
    /// After every key that the column can hold.
    Above,
}

impl Edge<'_> {
    fn beyond(side: Ordering) -> Self {
        if side == Ordering::Less { Self::Below } else { Self::Above }
    }

    fn ticks(ticks: Result<i64, Ordering>) -> Self {
        ticks.map_or_else(Self::beyond, |t| Self::At(KeyRef::from(t)))
    }
}

impl KeyKind {
    /// Where a Python key lies among the keys that the column can hold.
    pub(crate) fn edge<'a>(&self, key: &'a Bound<'_, PyAny>) -> PyResult<Edge<'a>> {
        if let Some(found) = self.read(key)? {
            return Ok(Edge::At(found));
        }
        // Of the right type, but between, before or after what the column can hold.
        let inner = if *self == Self::Str { None } else { plain(key)? };
        let key = inner.as_ref().unwrap_or(key);
        Ok(match self {
            Self::Int(..) => Edge::beyond(if key.lt(0)? { Ordering::Less } else { Ordering::Greater }),
            Self::Time(unit) => {
                let micros = clock::micros_of_time(key.cast::<PyTime>()?).unwrap_or(0);
                Edge::ticks(clock::micros_to_ticks_ceil(micros, 0, *unit))
            }
            Self::Timestamp(unit, _) => {
                let micros = clock::micros_of_datetime(key.cast::<PyDateTime>()?)?;
                Edge::ticks(clock::micros_to_ticks_ceil(micros, clock::nanoseconds(key)?, *unit))
            }
            Self::Duration(unit) => match clock::micros_of_delta(key.cast::<PyDelta>()?) {
                Some(micros) => Edge::ticks(clock::micros_to_ticks_ceil(micros, clock::nanoseconds(key)?, *unit)),
                None => Edge::beyond(if key.cast::<PyDelta>()?.lt(clock::delta_of_micros(key.py(), 0)?)? {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }),
            },
            Self::Decimal(digits, scale, wide) => {
                let value = if key.is_instance_of::<PyInt>() {
                    key.extract().ok().map(Unscaled::of_int)
                } else {
                    Unscaled::of(key)?
                };
                let Some(value) = value else {
                    return Err(PyValueError::new_err(
                        "a range cannot end at this number: it is not finite or has too many digits",
                    ));
                };
                match value.ceil(i32::from(*scale), u32::from(*digits)) {
                    Ok(v) if *wide => Edge::At(KeyRef::I256(i256::from_i128(v).to_le_bytes())),
                    Ok(v) => Edge::At(KeyRef::I128(v)),
                    Err(side) => Edge::beyond(side),
                }
            }
            _ => return Err(PyValueError::new_err("a range cannot end at a string with lone surrogates")),
        })
    }

    /// The rows with `start <= key < stop`, or `<= stop` if `closed`; None: open. The inner error is the engine's.
    pub(crate) fn range<R: KeyedRows>(
        &self,
        table: &R,
        start: &Bound<'_, PyAny>,
        stop: &Bound<'_, PyAny>,
        closed: bool,
    ) -> PyResult<Result<R, R::Error>> {
        let from = if start.is_none() { Edge::Below } else { self.edge(start)? };
        let to = if stop.is_none() { Edge::Above } else { self.edge(stop)? };
        let from = match from {
            Edge::Below => End::Unbounded,
            Edge::At(key) => End::Included(key),
            Edge::Above => return Ok(Ok(table.slice(table.num_rows(), 0))),
        };
        let to = match to {
            Edge::Below => return Ok(Ok(table.slice(0, 0))),
            // The edge is the key itself if the column can hold it, else the next greater one.
            Edge::At(key) if closed && self.read(stop)?.is_some() => End::Included(key),
            Edge::At(key) => End::Excluded(key),
            Edge::Above => End::Unbounded,
        };
        Ok(table.range((from, to)))
    }

    /// The row of the greatest key that is not greater (`greatest`) or of the least that is not less.
    pub(crate) fn nearest<R: KeyedRows>(
        &self,
        table: &R,
        key: &Bound<'_, PyAny>,
        greatest: bool,
    ) -> PyResult<Result<Option<usize>, R::Error>> {
        let end = match (self.edge(key)?, greatest) {
            (Edge::Below, _) => End::Unbounded,
            (Edge::Above, _) => return Ok(Ok(table.num_rows().checked_sub(1).filter(|_| greatest))),
            // The edge is the key itself if the column can hold it, else the next greater one.
            (Edge::At(at), true) => match self.read(key)? {
                Some(_) => End::Included(at),
                None => End::Excluded(at),
            },
            (Edge::At(at), false) => End::Included(at),
        };
        if greatest {
            if matches!(end, End::Unbounded) {
                return Ok(Ok(None));
            }
            return Ok(table.range((End::Unbounded, end)).map(|t| t.num_rows().checked_sub(1)));
        }
        Ok(table.range((end, End::Unbounded)).map(|t| (t.num_rows() > 0).then(|| table.num_rows() - t.num_rows())))
    }

    /// The rows whose key begins with `prefix`.
    pub(crate) fn prefix<R: KeyedRows>(&self, table: &R, prefix: &Bound<'_, PyAny>) -> PyResult<Result<R, R::Error>> {
        match self {
            Self::Str => match prefix.cast::<PyString>() {
                Ok(text) => Ok(table.prefix(text.to_str()?.as_bytes())),
                Err(_) => Err(self.wrong_prefix(prefix)),
            },
            Self::Bytes => match prefix.cast::<PyBytes>() {
                Ok(bytes) => Ok(table.prefix(bytes.as_bytes())),
                Err(_) => Err(self.wrong_prefix(prefix)),
            },
            _ => Err(self.wrong_prefix(prefix)),
        }
    }

    fn wrong_prefix(&self, prefix: &Bound<'_, PyAny>) -> PyErr {
        PyTypeError::new_err(format!("keys are {}; got a prefix of type {}", self.name(), type_name(prefix)))
    }
}
