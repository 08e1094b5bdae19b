//! Python tuples as keys of several columns.

use std::ops::Bound as End;
use std::sync::Arc;

use arrow_array::{ArrayRef, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, FieldRef, Fields};
use pheon::{KeyRef, ReadError};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::bound::Edge;
use crate::errors::{arrow_error, read_error};
use crate::ingest::type_name;
use crate::key::{KeyKind, key_array};
use crate::keyed_rows::KeyedRows;

/// What the key columns of a dataset take from Python.
#[derive(Debug, Clone)]
pub(crate) struct TupleKind {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    field: FieldRef,
    kind: KeyKind,
    /// How many bytes a value has, for fixed-size binaries.
    width: Option<usize>,
}

/// A place between two key bytes, or before or after all.
enum Place {
    /// Before the first key bytes that are not less.
    Before(Vec<u8>),
    /// After every key.
    End,
}

/// Turns leading values into key bytes: [`KeyedRows::composite_key`] or `Map`'s.
type Encode<'a> = dyn Fn(&[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> + 'a;

impl TupleKind {
    /// The kind of a key of these stored columns; `None` if one of them cannot be in a key.
    pub(crate) fn of(fields: &[FieldRef]) -> Option<Self> {
        let part = |field: &FieldRef| {
            let width = match field.data_type() {
                DataType::FixedSizeBinary(n) => usize::try_from(*n).ok(),
                _ => None,
            };
            Some(Part { field: field.clone(), kind: KeyKind::of(field.data_type())?, width })
        };
        Some(Self { parts: fields.iter().map(part).collect::<Option<_>>()? })
    }

    /// What Python calls such keys.
    pub(crate) fn name(&self) -> String {
        format!("({})", self.parts.iter().map(|p| p.kind.name()).collect::<Vec<_>>().join(", "))
    }

    /// Names of the key columns.
    pub(crate) fn column_names(&self) -> Vec<&str> {
        self.parts.iter().map(|p| p.field.name().as_str()).collect()
    }

    /// The key bytes of a whole key. `Ok(None)`: of the right types, but no stored key can equal it.
    ///
    /// # Errors
    /// `TypeError` unless `key` is a tuple of as many values as there are key columns, each of its column's type.
    pub(crate) fn read(&self, key: &Bound<'_, PyAny>, encode: &Encode<'_>) -> PyResult<Option<Vec<u8>>> {
        let items = self.items(key)?;
        if items.len() != self.parts.len() || !key.is_instance_of::<PyTuple>() {
            return Err(self.wrong_key(key));
        }
        self.encoded(key.py(), &items, encode)
    }

    /// The rows whose first columns have these values: those of a tuple, or a single first one.
    pub(crate) fn rows<R: KeyedRows>(&self, table: &R, key: &Bound<'_, PyAny>) -> PyResult<Result<R, R::Error>> {
        let items = self.items(key)?;
        Ok(match self.encoded(key.py(), &items, &|parts| table.composite_key(parts))? {
            // A whole key is in the index.
            Some(bytes) if items.len() == self.parts.len() => table.rows(KeyRef::Bytes(&bytes)),
            Some(bytes) => table.prefix(&bytes),
            None => Ok(table.slice(0, 0)),
        })
    }

    /// The rows with `start <= key < stop` in the order of tuples, of which a shorter one comes before all that it begins;
    /// if `closed` also those that begin with `stop`.
    pub(crate) fn range<R: KeyedRows>(
        &self,
        table: &R,
        start: &Bound<'_, PyAny>,
        stop: &Bound<'_, PyAny>,
        closed: bool,
    ) -> PyResult<Result<R, R::Error>> {
        let from = if start.is_none() { None } else { Some(self.place(table, start)?.0) };
        let to = match stop.is_none() {
            true => None,
            false => Some(match self.place(table, stop)? {
                (Place::Before(bytes), Some(_)) if closed => Place::after(bytes),
                (place, _) => place,
            }),
        };
        let from = match &from {
            None => End::Unbounded,
            Some(Place::Before(bytes)) => End::Included(KeyRef::Bytes(bytes)),
            Some(Place::End) => return Ok(Ok(table.slice(table.num_rows(), 0))),
        };
        let to = match &to {
            None | Some(Place::End) => End::Unbounded,
            Some(Place::Before(bytes)) => End::Excluded(KeyRef::Bytes(bytes)),
        };
        Ok(table.range((from, to)))
    }

    /// The row of the greatest key that is not greater (`greatest`) or of the least that is not less, in the order of tuples.
    pub(crate) fn nearest<R: KeyedRows>(
        &self,
        table: &R,
        key: &Bound<'_, PyAny>,
        greatest: bool,
    ) -> PyResult<Result<Option<usize>, R::Error>> {
        let (place, exact) = self.place(table, key)?;
        let exact = exact == Some(self.parts.len());
        let rows = table.num_rows();
        Ok(match (&place, greatest) {
            (Place::End, true) => Ok(rows.checked_sub(1)),
            (Place::End, false) => Ok(None),
            (Place::Before(bytes), true) => {
                let key = KeyRef::Bytes(bytes);
                let end = if exact { End::Included(key) } else { End::Excluded(key) };
                table.range((End::Unbounded, end)).map(|t| t.num_rows().checked_sub(1))
            }
            (Place::Before(bytes), false) => {
                let from = End::Included(KeyRef::Bytes(bytes));
                table.range((from, End::Unbounded)).map(|t| (t.num_rows() > 0).then(|| rows - t.num_rows()))
            }
        })
    }

    /// The rows whose key begins with the values of a tuple, the last of which is the beginning of a str or bytes.
    pub(crate) fn prefix<R: KeyedRows>(&self, table: &R, prefix: &Bound<'_, PyAny>) -> PyResult<Result<R, R::Error>> {
        let items = self.items(prefix)?;
        let Some((last, leading)) = items.split_last() else { return Ok(Ok(table.clone())) };
        let part = &self.parts[leading.len()];
        let encode = |parts: &[KeyRef<'_>]| table.composite_key(parts);
        let raw = match &part.kind {
            KeyKind::Str => last.cast::<PyString>().ok().map(|t| t.to_str().map(str::as_bytes)).transpose()?,
            KeyKind::Bytes => last.cast::<PyBytes>().ok().map(|b| b.as_bytes()),
            _ => None,
        };
        let Some(raw) = raw else {
            return Err(PyTypeError::new_err(format!(
                "key column {:?} holds {}; got a prefix of type {}",
                part.field.name(),
                part.kind.name(),
                type_name(last)
            )));
        };
        let Some(mut bytes) = self.encoded(prefix.py(), leading, &encode)? else {
            return Ok(Ok(table.slice(0, 0)));
        };
        if let Some(width) = part.width {
            if raw.len() > width {
                // No value begins so; the bytes beyond would be taken for the next column's.
                return Ok(Ok(table.slice(0, 0)));
            }
            bytes.extend_from_slice(raw);
        } else {
            let mut parts = self.read_parts(leading)?.unwrap_or_default();
            parts.push(KeyRef::Bytes(raw));
            bytes = encode(&parts).map_err(|e| read_error(prefix.py(), &e))?;
            // Without the end of the string, which is two bytes.
            bytes.truncate(bytes.len() - 2);
        }
        Ok(table.prefix(&bytes))
    }

    /// Many keys as an array of structs with the key columns' names. Null: a key that cannot be there, or None.
    pub(crate) fn array<'py>(&self, keys: impl ExactSizeIterator<Item = Bound<'py, PyAny>>) -> PyResult<ArrayRef> {
        let rows = keys.len();
        let mut columns: Vec<Vec<Bound<'py, PyAny>>> = self.parts.iter().map(|_| Vec::with_capacity(rows)).collect();
        let mut valid = Vec::with_capacity(rows);
        for key in keys {
            valid.push(!key.is_none());
            if key.is_none() {
                columns.iter_mut().for_each(|column| column.push(key.clone()));
                continue;
            }
            match key.cast::<PyTuple>() {
                Ok(tuple) if tuple.len() == columns.len() => {
                    columns.iter_mut().zip(tuple.iter()).for_each(|(column, item)| column.push(item));
                }
                _ => return Err(self.wrong_key(&key)),
            }
        }
        let arrays = std::iter::zip(&self.parts, columns).map(|(part, items)| {
            key_array(&part.kind, part.field.data_type(), items.into_iter()).map_err(|e| part.in_column(e))
        });
        let arrays = arrays.collect::<PyResult<Vec<_>>>()?;
        let fields: Fields = std::iter::zip(&self.parts, &arrays)
            .map(|(part, array)| Field::new(part.field.name(), array.data_type().clone(), true))
            .collect();
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
        let keys = StructArray::try_new_with_length(fields, arrays, nulls, rows);
        Ok(Arc::new(keys.map_err(|e| arrow_error("collect keys", &e))?))
    }

    /// The values of a tuple, or a value alone as the first.
    fn items<'py>(&self, key: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let items = key.cast::<PyTuple>().map_or_else(|_| vec![key.clone()], |tuple| tuple.iter().collect());
        if items.len() > self.parts.len() { Err(self.wrong_key(key)) } else { Ok(items) }
    }

    /// The engine's form of leading values; `None` if a column cannot hold its one.
    fn read_parts<'a>(&self, items: &'a [Bound<'_, PyAny>]) -> PyResult<Option<Vec<KeyRef<'a>>>> {
        let mut parts = Some(Vec::with_capacity(items.len()));
        for (part, item) in std::iter::zip(&self.parts, items) {
            // All are looked at: a wrong type is an error also behind a value that cannot be there.
            match (part.kind.read(item).map_err(|e| part.in_column(e))?, &mut parts) {
                (Some(KeyRef::Bytes(bytes)), _) if part.width.is_some_and(|w| w != bytes.len()) => parts = None,
                (Some(key), Some(parts)) => parts.push(key),
                (None, _) => parts = None,
                (Some(_), None) => {}
            }
        }
        Ok(parts)
    }

    fn encoded(&self, py: Python<'_>, items: &[Bound<'_, PyAny>], encode: &Encode<'_>) -> PyResult<Option<Vec<u8>>> {
        match self.read_parts(items)? {
            Some(parts) => encode(&parts).map(Some).map_err(|e| read_error(py, &e)),
            None => Ok(None),
        }
    }

    /// Where a tuple of any length lies among the keys and, if the columns can hold its values, how many they are.
    fn place(&self, table: &impl KeyedRows, key: &Bound<'_, PyAny>) -> PyResult<(Place, Option<usize>)> {
        let py = key.py();
        let items = self.items(key)?;
        let encode = |parts: &[KeyRef<'_>]| table.composite_key(parts).map_err(|e| read_error(py, &e));
        let mut parts = Vec::with_capacity(items.len());
        for (part, item) in std::iter::zip(&self.parts, &items) {
            match part.kind.edge(item).map_err(|e| part.in_column(e))? {
                Edge::Below => return Ok((Place::Before(encode(&parts)?), None)),
                Edge::Above => return Ok((Place::after(encode(&parts)?), None)),
                Edge::At(KeyRef::Bytes(bytes)) if part.width.is_some_and(|w| w != bytes.len()) => {
                    // A beginning of stored values comes before them; what goes on comes after the value that it begins with.
                    let width = part.width.unwrap_or_default();
                    let mut place = encode(&parts)?;
                    place.extend_from_slice(&bytes[..width.min(bytes.len())]);
                    let place = if bytes.len() < width { Place::Before(place) } else { Place::after(place) };
                    return Ok((place, None));
                }
                Edge::At(at) => {
                    parts.push(at);
                    // Else it is the next greater value that the column can hold, and the rest decides nothing.
                    if part.kind.read(item)?.is_none() {
                        return Ok((Place::Before(encode(&parts)?), None));
                    }
                }
            }
        }
        Ok((Place::Before(encode(&parts)?), Some(items.len())))
    }

    fn wrong_key(&self, key: &Bound<'_, PyAny>) -> PyErr {
        let found = key.repr().map_or_else(|_| "?".to_owned(), |r| r.to_string());
        let found: String = found.chars().take(80).collect();
        PyTypeError::new_err(format!(
            "keys are tuples {} of the columns {:?}, got {}: {found}",
            self.name(),
            self.column_names(),
            type_name(key)
        ))
    }
}

impl Part {
    /// The same error with the column's name.
    fn in_column(&self, error: PyErr) -> PyErr {
        Python::attach(|py| {
            if !error.is_instance_of::<PyTypeError>(py) {
                return error;
            }
            PyTypeError::new_err(format!("key column {:?}: {}", self.field.name(), error.value(py)))
        })
    }
}

impl Place {
    /// After everything that begins with `bytes`.
    fn after(mut bytes: Vec<u8>) -> Self {
        while let Some(last) = bytes.pop() {
            if last < u8::MAX {
                bytes.push(last + 1);
                return Self::Before(bytes);
            }
        }
        Self::End
    }
}
