//! `RemoteMapHandle`: lookups in one version of a map at a server, with the methods of `MapHandle`.

use std::sync::{Arc, PoisonError, RwLock};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, Scalar};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use pheon::KeyRef;
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3_arrow::input::AnyArray;

use super::dataset::Dataset;
use super::errors::RemoteError;
use super::iter::{RemoteRowIter, What};
use super::rows::{RemoteRows, joined};
use super::table::RemoteTableHandle;
use crate::batch::PyBatch;
use crate::column::PyColumn;
use crate::decode::{ValueCodec, column_objects};
use crate::errors::arrow_error;
use crate::ingest::column_of_one;
use crate::keyed_rows::KeyedRows;
use crate::keys::Keys;
use crate::lossless::convert;

/// One open version with what Python needs to know about its columns.
pub(super) struct Opened {
    pub(super) dataset: Arc<Dataset>,
    keys: Keys,
    /// The columns that are no key.
    value_fields: Vec<FieldRef>,
    codecs: Vec<ValueCodec>,
}

impl Opened {
    fn new(py: Python<'_>, dataset: Arc<Dataset>, allow_pickle: bool) -> PyResult<Self> {
        let keys = Keys::of(&dataset.name, &dataset.key_fields)?;
        let fields = dataset.schema.fields().iter();
        let value_fields: Vec<_> = fields.filter(|field| !dataset.key.contains(field.name())).cloned().collect();
        let codecs = value_fields.iter().map(|field| ValueCodec::of(field, allow_pickle)).collect();
        let opened = Self { dataset, keys, value_fields, codecs };
        // The server says whether it is a map.
        let none = opened.keys.array(py, &PyList::empty(py))?;
        opened.look_up(py, none)?;
        Ok(opened)
    }

    /// The value columns of keys, aligned with them, and whether each is there.
    fn look_up(&self, py: Python<'_>, keys: ArrayRef) -> PyResult<(Vec<ArrayRef>, BooleanArray)> {
        let field = Field::new("key", keys.data_type().clone(), true);
        let keys = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![keys])
            .map_err(|e| arrow_error("collect keys", &e))?;
        let options = self.dataset.lookup().found(true);
        let (schema, batches) = self.dataset.link.lookup(py, &options, &keys)?;
        let answer = joined(py, &schema, batches)?;
        let mut columns = answer.columns().to_vec();
        let found = columns.pop().filter(|_| columns.len() == self.value_fields.len());
        let found = found.and_then(|found| found.as_any().downcast_ref::<BooleanArray>().cloned());
        let found = found.ok_or_else(|| RemoteError::new_err("look keys up: unexpected answer: other columns"))?;
        Ok((columns, found))
    }

    /// The value of a key, or None if it is not there.
    fn find<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(keys) = self.one_key(py, key)? else { return Ok(None) };
        let (columns, found) = self.look_up(py, keys)?;
        if !found.value(0) {
            return Ok(None);
        }
        let mut objects = self.value_objects(py, &columns, 1)?;
        Ok(objects.pop())
    }

    fn contains(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self.one_key(py, key)? {
            Some(keys) => Ok(self.look_up(py, keys)?.1.value(0)),
            None => Ok(false),
        }
    }

    /// A key as an array of one. `None`: no entry can have it.
    fn one_key(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<ArrayRef>> {
        // An array would take None for a missing key; alone it is of a wrong type.
        match &self.keys {
            Keys::One(kind, _) if key.is_none() => drop(kind.read(key)?),
            Keys::Several(kind) => {
                let encode = |parts: &[KeyRef<'_>]| RemoteRows::whole(self.dataset.clone()).composite_key(parts);
                if kind.read(key, &encode)?.is_none() {
                    return Ok(None);
                }
            }
            Keys::One(..) => {}
        }
        let keys = self.keys.array(py, PyTuple::new(py, [key])?.as_any())?;
        Ok(if keys.is_null(0) { None } else { Some(keys) })
    }

    /// The objects of value columns with so many rows: of the only one, or a dict by column name.
    pub(super) fn value_objects<'py>(
        &self,
        py: Python<'py>,
        columns: &[ArrayRef],
        rows: usize,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        if let ([column], [codec]) = (columns, self.codecs.as_slice()) {
            return column_objects(py, column, *codec);
        }
        let rows: Vec<_> = (0..rows).map(|_| PyDict::new(py)).collect();
        for ((field, codec), column) in self.value_fields.iter().zip(&self.codecs).zip(columns) {
            for (row, value) in rows.iter().zip(column_objects(py, column, *codec)?) {
                row.set_item(field.name(), value)?;
            }
        }
        Ok(rows.into_iter().map(Bound::into_any).collect())
    }

    /// The objects of key columns: values of the only one, or tuples.
    pub(super) fn key_objects<'py>(&self, py: Python<'py>, columns: &[ArrayRef]) -> PyResult<Vec<Bound<'py, PyAny>>> {
        if let [column] = columns {
            return column_objects(py, column, ValueCodec::Plain);
        }
        let parts = columns.iter().map(|column| column_objects(py, column, ValueCodec::Plain));
        let parts = parts.collect::<PyResult<Vec<_>>>()?;
        let rows = columns.first().map_or(0, Array::len);
        (0..rows).map(|row| Ok(PyTuple::new(py, parts.iter().map(|part| &part[row]))?.into_any())).collect()
    }

    /// The key columns and the value columns of a batch of all columns.
    pub(super) fn split(&self, batch: &RecordBatch) -> (Vec<ArrayRef>, Vec<ArrayRef>) {
        let columns = |names: &mut dyn Iterator<Item = &String>| {
            names.filter_map(|name| batch.column_by_name(name).cloned()).collect::<Vec<_>>()
        };
        let keys = columns(&mut self.dataset.key.iter());
        (keys, columns(&mut self.value_fields.iter().map(|field| field.name())))
    }

    /// The entries of a batch of all columns.
    pub(super) fn items<'py>(&self, py: Python<'py>, batch: &RecordBatch) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let (keys, values) = self.split(batch);
        let keys = self.key_objects(py, &keys)?;
        let values = self.value_objects(py, &values, batch.num_rows())?;
        let pairs = keys.into_iter().zip(values).map(|(key, value)| Ok(PyTuple::new(py, [key, value])?.into_any()));
        pairs.collect()
    }

    /// Names of the value columns.
    pub(super) fn value_names(&self) -> Vec<String> {
        self.value_fields.iter().map(|field| field.name().clone()).collect()
    }
}

/// Reads one version of a map at a server.
#[pyclass(frozen, subclass, mapping, module = "pheon._native")]
pub(crate) struct RemoteMapHandle {
    opened: RwLock<Arc<Opened>>,
    allow_pickle: bool,
}

impl RemoteMapHandle {
    pub(super) fn open(py: Python<'_>, dataset: Arc<Dataset>, allow_pickle: bool) -> PyResult<Self> {
        Ok(Self { opened: RwLock::new(Arc::new(Opened::new(py, dataset, allow_pickle)?)), allow_pickle })
    }

    fn opened(&self) -> Arc<Opened> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn rows(&self) -> RemoteRows {
        RemoteRows::whole(self.opened().dataset.clone())
    }

    fn nearest<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        greatest: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let opened = self.opened();
        let row = opened.keys.nearest(&RemoteRows::whole(opened.dataset.clone()), key, greatest)??;
        row.map(|row| self.item(py, row)).transpose()
    }

    /// The entry at a place in key order.
    fn item<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyAny>> {
        let opened = self.opened();
        let batch = RemoteRows::whole(opened.dataset.clone()).slice(position, 1).batch(py)?;
        let mut items = opened.items(py, &batch)?;
        items.pop().ok_or_else(|| RemoteError::new_err("read an entry: unexpected answer: no row"))
    }

    /// Keys of an array or of a stream of arrays, as one array; `None`: there is no chunk.
    fn joined_keys(py: Python<'_>, keys: AnyArray) -> PyResult<Option<ArrayRef>> {
        let mut chunks = Vec::new();
        for chunk in keys.into_reader()? {
            chunks.push(chunk.map_err(|e| arrow_error("read keys", &e))?);
        }
        let parts: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
        match parts.len() {
            0 => Ok(None),
            1 => Ok(chunks.pop()),
            _ => {
                let joined = py.detach(|| arrow_select::concat::concat(&parts));
                joined.map(Some).map_err(|e| arrow_error("join the keys", &e))
            }
        }
    }

    fn look_up_arrow(py: Python<'_>, opened: &Opened, keys: AnyArray) -> PyResult<(Vec<ArrayRef>, BooleanArray)> {
        let keys = match Self::joined_keys(py, keys)? {
            Some(keys) => keys,
            None => opened.keys.array(py, &PyList::empty(py))?,
        };
        opened.look_up(py, keys)
    }
}

#[pymethods]
impl RemoteMapHandle {
    /// A second handle on the same version.
    #[new]
    fn copy(handle: &Bound<'_, Self>) -> Self {
        let handle = handle.get();
        Self { opened: RwLock::new(handle.opened()), allow_pickle: handle.allow_pickle }
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.opened().find(py, key)? {
            Some(value) => Ok(value),
            None => Err(PyKeyError::new_err((key.clone().unbind(),))),
        }
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.opened().contains(py, key)
    }

    fn __len__(&self) -> usize {
        self.opened().dataset.rows
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<RemoteRowIter> {
        RemoteRowIter::new(py, self.opened(), What::Keys, false)
    }

    fn __reversed__(&self, py: Python<'_>) -> PyResult<RemoteRowIter> {
        RemoteRowIter::new(py, self.opened(), What::Keys, true)
    }

    /// Values in key order, or in reverse.
    fn iter_values(&self, py: Python<'_>, backwards: bool) -> PyResult<RemoteRowIter> {
        RemoteRowIter::new(py, self.opened(), What::Values, backwards)
    }

    /// (key, value) tuples in key order, or in reverse.
    fn iter_items(&self, py: Python<'_>, backwards: bool) -> PyResult<RemoteRowIter> {
        RemoteRowIter::new(py, self.opened(), What::Items, backwards)
    }

    /// The value of a key, or `default` if it is not there.
    #[pyo3(signature = (key, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.opened().find(py, key)?.or(default).unwrap_or_else(|| py.None().into_bound(py)))
    }

    /// Values of the keys of a list, tuple or iterable, as a list; `default` where missing.
    #[pyo3(signature = (keys, default, threads))]
    fn get_list<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let _ = threads; // the server's affair
        let opened = self.opened();
        let keys = opened.keys.array(py, keys)?;
        let (columns, found) = opened.look_up(py, keys)?;
        let mut values = opened.value_objects(py, &columns, found.len())?;
        let several = opened.codecs.len() != 1;
        if several || default.is_some() {
            let default = default.unwrap_or_else(|| py.None().into_bound(py));
            for (value, there) in values.iter_mut().zip(found.iter()) {
                if there != Some(true) {
                    *value = default.clone();
                }
            }
        }
        PyList::new(py, values)
    }

    /// Values of the keys of an Arrow array or stream: a `Column`, or a `Batch` if there is not exactly one value column.
    #[pyo3(signature = (keys, default, threads))]
    fn get_arrow<'py>(
        &self,
        py: Python<'py>,
        keys: AnyArray,
        default: Option<Bound<'py, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = threads; // the server's affair
        let opened = self.opened();
        let (mut columns, found) = Self::look_up_arrow(py, &opened, keys)?;
        if let Some(default) = &default {
            for (column, field) in columns.iter_mut().zip(&opened.value_fields) {
                *column = fill(column, &found, default, field)?;
            }
        }
        let fields: Vec<_> =
            opened.value_fields.iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        if let ([field], [column]) = (fields.as_slice(), columns.as_slice()) {
            let column = PyColumn::new(field.clone(), column.clone(), opened.codecs[0]);
            return Ok(Bound::new(py, column)?.into_any());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.len()));
        let batch = RecordBatch::try_new_with_options(SchemaRef::new(Schema::new(fields)), columns, &options)
            .map_err(|e| arrow_error("collect value columns", &e))?;
        Ok(Bound::new(py, PyBatch::new(batch, opened.codecs.clone()))?.into_any())
    }

    /// Whether each key of a list, tuple or iterable is there.
    #[pyo3(signature = (keys, threads))]
    fn contains_list<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let _ = threads; // the server's affair
        let opened = self.opened();
        let (_, found) = opened.look_up(py, opened.keys.array(py, keys)?)?;
        PyList::new(py, found.iter().map(|there| there == Some(true)).collect::<Vec<_>>())
    }

    /// Whether each key of an Arrow array or stream is there: a `Column` of bool.
    #[pyo3(signature = (keys, threads))]
    fn contains_arrow(&self, py: Python<'_>, keys: AnyArray, threads: Option<usize>) -> PyResult<PyColumn> {
        let _ = threads; // the server's affair
        let (_, found) = Self::look_up_arrow(py, &self.opened(), keys)?;
        let field = Field::new("found", DataType::Boolean, false);
        Ok(PyColumn::new(Arc::new(field), Arc::new(found), ValueCodec::Plain))
    }

    /// Python keys as a `Column` of the key's type; null for keys that no entry can have.
    fn key_column(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<PyColumn> {
        let keys = self.opened().keys.array(py, keys)?;
        let field = Field::new("key", keys.data_type().clone(), true);
        Ok(PyColumn::new(Arc::new(field), keys, ValueCodec::Plain))
    }

    /// The entry with the greatest key that is not greater than `key`, or None.
    fn floor<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.nearest(py, key, true)
    }

    /// The entry with the least key that is not less than `key`, or None.
    fn ceiling<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.nearest(py, key, false)
    }

    /// The entry with the least key, or None if the map is empty.
    fn first<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.__len__() == 0 { Ok(None) } else { self.item(py, 0).map(Some) }
    }

    /// The entry with the greatest key, or None if the map is empty.
    fn last<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.__len__().checked_sub(1).map(|row| self.item(py, row)).transpose()
    }

    /// The first entries, at most so many.
    fn head<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let opened = self.opened();
        let batch = RemoteRows::whole(opened.dataset.clone()).slice(0, count).batch(py)?;
        opened.items(py, &batch)
    }

    /// All entries.
    fn table_handle(&self) -> RemoteTableHandle {
        RemoteTableHandle::new(self.rows())
    }

    /// Moves to the newest version; True if there was a newer one.
    fn refresh(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(newer) = self.opened().dataset.newer(py)? else { return Ok(false) };
        let opened = Arc::new(Opened::new(py, newer, self.allow_pickle)?);
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = opened;
        Ok(true)
    }

    /// Facts about the version.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.opened().dataset.facts(py)
    }

    #[getter]
    fn name(&self) -> String {
        self.opened().dataset.name.clone()
    }

    #[getter]
    fn version(&self) -> u64 {
        self.opened().dataset.version
    }

    /// The key column's name; a list of names for a key of several columns.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.opened().dataset.key.as_slice() {
            [name] => Ok(PyString::new(py, name).into_any()),
            several => Ok(PyList::new(py, several)?.into_any()),
        }
    }

    /// The key column's Arrow type, printed; for several columns all in parentheses.
    #[getter]
    fn key_type(&self) -> String {
        match self.opened().dataset.key_fields.as_slice() {
            [field] => field.data_type().to_string(),
            several => {
                let types: Vec<_> = several.iter().map(|field| field.data_type().to_string()).collect();
                format!("({})", types.join(", "))
            }
        }
    }

    /// Names of the value columns.
    #[getter]
    fn value_names(&self) -> Vec<String> {
        self.opened().value_names()
    }

    /// Whether pickled values are decoded.
    #[getter]
    fn allow_pickle(&self) -> bool {
        self.allow_pickle
    }
}

/// `values` with `default` where there is no entry. Values that are stored as null stay null.
fn fill(values: &ArrayRef, found: &BooleanArray, default: &Bound<'_, PyAny>, field: &Field) -> PyResult<ArrayRef> {
    let one = column_of_one(default, ValueCodec::of(field, true))?;
    let one = convert(&one, field.data_type()).map_err(|e| {
        let type_name = field.data_type();
        PyTypeError::new_err(format!("the default {default} does not fit the values' type {type_name}: {e}"))
    })?;
    arrow_select::zip::zip(found, values, &Scalar::new(one)).map_err(|e| arrow_error("fill in the default", &e))
}
