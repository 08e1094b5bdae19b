//! The keys of a dataset as Python sees them: values of one column, or tuples.

use arrow_array::ArrayRef;
use arrow_schema::{DataType, FieldRef};
use pheon::{KeyRef, Map};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::errors::read_error;
use crate::key::{KeyKind, key_array};
use crate::keyed_rows::KeyedRows;
use crate::tuple_key::TupleKind;

/// What a dataset takes as keys.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// Values of one column of this type.
    One(KeyKind, DataType),
    /// Tuples of several columns' values.
    Several(TupleKind),
}

impl Keys {
    /// The keys of a dataset whose key columns are these.
    ///
    /// # Errors
    /// `TypeError` if there are none, or of a type that cannot be looked up.
    pub(crate) fn of(dataset: &str, fields: &[FieldRef]) -> PyResult<Self> {
        let keys = match fields {
            [] => return Err(PyTypeError::new_err(format!("{dataset:?} has no key to look rows up by"))),
            [field] => {
                let data_type = field.data_type();
                KeyKind::of(data_type).map(|kind| Self::One(kind, data_type.clone()))
            }
            several => TupleKind::of(several).map(Self::Several),
        };
        keys.ok_or_else(|| {
            let types: Vec<_> = fields.iter().map(|f| f.data_type().to_string()).collect();
            PyTypeError::new_err(format!("keys of type {} cannot be looked up", types.join(", ")))
        })
    }

    /// The row of a key.
    pub(crate) fn find(&self, py: Python<'_>, map: &Map, key: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let found = match self {
            Self::One(kind, _) => match kind.read(key)? {
                Some(key) => map.find(key),
                None => return Ok(None),
            },
            Self::Several(kind) => match kind.read(key, &|parts| map.composite_key(parts))? {
                Some(bytes) => map.find(KeyRef::Bytes(&bytes)),
                None => return Ok(None),
            },
        };
        found.map_err(|e| read_error(py, &e))
    }

    /// Many keys as an Arrow array for batch lookups; null for keys that cannot be there.
    pub(crate) fn array(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
        if let Ok(list) = keys.cast::<PyList>() {
            return self.array_of(list.iter());
        }
        match keys.cast::<PyTuple>() {
            Ok(tuple) => self.array_of(tuple.iter()),
            Err(_) => self.array_of(PyList::new(py, keys.try_iter()?.collect::<PyResult<Vec<_>>>()?)?.iter()),
        }
    }

    fn array_of<'py>(&self, keys: impl ExactSizeIterator<Item = Bound<'py, PyAny>>) -> PyResult<ArrayRef> {
        match self {
            Self::One(kind, data_type) => key_array(kind, data_type, keys),
            Self::Several(kind) => kind.array(keys),
        }
    }

    /// The rows with `start <= key < stop`, or `<= stop` if `closed`; None: open. The inner error is the engine's.
    pub(crate) fn range<R: KeyedRows>(
        &self,
        table: &R,
        start: &Bound<'_, PyAny>,
        stop: &Bound<'_, PyAny>,
        closed: bool,
    ) -> PyResult<Result<R, R::Error>> {
        match self {
            Self::One(kind, _) => kind.range(table, start, stop, closed),
            Self::Several(kind) => kind.range(table, start, stop, closed),
        }
    }

    /// The row of the greatest key that is not greater (`greatest`) or of the least that is not less.
    pub(crate) fn nearest<R: KeyedRows>(
        &self,
        table: &R,
        key: &Bound<'_, PyAny>,
        greatest: bool,
    ) -> PyResult<Result<Option<usize>, R::Error>> {
        match self {
            Self::One(kind, _) => kind.nearest(table, key, greatest),
            Self::Several(kind) => kind.nearest(table, key, greatest),
        }
    }

    /// The rows whose key begins with `prefix`.
    pub(crate) fn prefix<R: KeyedRows>(&self, table: &R, prefix: &Bound<'_, PyAny>) -> PyResult<Result<R, R::Error>> {
        match self {
            Self::One(kind, _) => kind.prefix(table, prefix),
            Self::Several(kind) => kind.prefix(table, prefix),
        }
    }

    /// The rows that hold a key, or whose key begins with these columns' values.
    pub(crate) fn rows<R: KeyedRows>(&self, table: &R, key: &Bound<'_, PyAny>) -> PyResult<Result<R, R::Error>> {
        match self {
            Self::One(kind, _) => Ok(match kind.read(key)? {
                Some(key) => table.rows(key),
                None => Ok(table.slice(0, 0)),
            }),
            Self::Several(kind) => kind.rows(table, key),
        }
    }
}
