//! `MapHandle`: lookups in one version of a map. `pheon.Map` derives from it and adds the rest of `Mapping`, so that `m[k]`
//! goes straight from the interpreter's subscript slot to the code here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, Scalar, UInt64Array};
use arrow_schema::{DataType, Schema};
use pheon::{Map, ReadError, Value};
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3_arrow::input::AnyArray;

use crate::batch::PyBatch;
use crate::column::PyColumn;
use crate::decode::{ValueCodec, column_objects, value_object};
use crate::errors::{arrow_error, read_error};
use crate::hot::Hot;
use crate::info::info_dict;
use crate::ingest::column_of_one;
use crate::iter::{RowIter, Rows};
use crate::keys::Keys;
use crate::lossless::convert;
use crate::table::TableHandle;

/// Batches below this many keys keep the interpreter lock: releasing it costs more than it gives.
const DETACH_KEYS_MIN: usize = 256;

/// Of a list whose keys are looked for among the hot ones, so many may be missing, or half of them.
const LIST_MISSES_MIN: usize = 16;

/// One open version with what Python needs to know about its columns.
pub(crate) struct Opened {
    pub(crate) map: Map,
    pub(crate) keys: Keys,
    pub(crate) codecs: Vec<ValueCodec>,
    /// One value column whose objects are made without running any Python code.
    direct: bool,
}

impl Opened {
    fn new(map: Map, allow_pickle: bool) -> PyResult<Self> {
        let keys = Keys::of(map.name(), map.key_fields())?;
        let fields = map.value_fields();
        let codecs: Vec<_> = fields.iter().map(|f| ValueCodec::of(f, allow_pickle)).collect();
        let direct = match fields {
            [field] => codecs[0] == ValueCodec::Plain && is_direct(field.data_type()),
            _ => false,
        };
        Ok(Self { map, keys, codecs, direct })
    }

    /// The value of a key for which [`State::direct`] holds; the inner error is the engine's.
    #[inline]
    fn find_direct(&self, key: &Bound<'_, PyAny>) -> PyResult<Result<Option<Value<'_>>, ReadError>> {
        let Keys::One(kind, _) = &self.keys else { return Ok(Ok(None)) };
        Ok(match kind.find_plain(&self.map, key)? {
            Ok(Some(row)) => self.map.value_at(row, 0).map(Some),
            Ok(None) => Ok(None),
            Err(e) => Err(e),
        })
    }

    pub(crate) fn key_object<'py>(&self, py: Python<'py>, row: u64) -> PyResult<Bound<'py, PyAny>> {
        let object = |part: usize| {
            let value = self.map.key_part_at(row, part).map_err(|e| read_error(py, &e))?;
            value_object(py, value, ValueCodec::Plain)
        };
        match self.map.key_fields().len() {
            1 => object(0),
            several => Ok(PyTuple::new(py, (0..several).map(object).collect::<PyResult<Vec<_>>>()?)?.into_any()),
        }
    }

    /// The value of a row: the object itself, or a dict by column name if there is not exactly one value column.
    pub(crate) fn value_object<'py>(&self, py: Python<'py>, row: u64) -> PyResult<Bound<'py, PyAny>> {
        let object = |column: usize| {
            let value = self.map.value_at(row, column).map_err(|e| read_error(py, &e))?;
            value_object(py, value, self.codecs[column])
        };
        if self.codecs.len() == 1 {
            return object(0);
        }
        let all = PyDict::new(py);
        for (column, field) in self.map.value_fields().iter().enumerate() {
            all.set_item(field.name(), object(column)?)?;
        }
        Ok(all.into_any())
    }

    /// The entry at a place in key order.
    pub(crate) fn item<'py>(&self, py: Python<'py>, position: usize) -> PyResult<Bound<'py, PyTuple>> {
        let row = self.row_at(py, position)?;
        PyTuple::new(py, [self.key_object(py, row)?, self.value_object(py, row)?])
    }

    /// The row at a place in key order.
    pub(crate) fn row_at(&self, py: Python<'_>, position: usize) -> PyResult<u64> {
        self.map.row_at(position).map_err(|e| read_error(py, &e))
    }
}

fn is_direct(data_type: &DataType) -> bool {
    matches!(data_type, DataType::LargeUtf8 | DataType::LargeBinary | DataType::Boolean)
        || matches!(data_type, DataType::Dictionary(_, values) if **values == DataType::LargeUtf8)
        || data_type.is_integer()
        || data_type.is_floating()
}

/// Runs a lookup of so many keys, without the interpreter lock if they are many.
fn look_up<T: Send>(py: Python<'_>, keys: usize, look: impl FnOnce() -> Result<T, ReadError> + Send) -> PyResult<T> {
    let done = if keys < DETACH_KEYS_MIN { look() } else { py.detach(look) };
    done.map_err(|e| read_error(py, &e))
}

/// Reads one version of a map.
#[pyclass(frozen, subclass, mapping, module = "pheon._native")]
pub(crate) struct MapHandle {
    state: Mutex<State>,
    allow_pickle: bool,
}

/// While this is locked no Python code may run, and nothing be made that the garbage collector knows: either could let in a
/// finalizer or a thread that waits for the lock and holds the interpreter lock. So only hashes and comparisons of plain keys
/// are made, and objects kept that exist.
struct State {
    opened: Arc<Opened>,
    hot: Hot,
}

impl State {
    fn of(opened: Opened) -> Self {
        Self { opened: Arc::new(opened), hot: Hot::default() }
    }

    /// The kind of the keys, if this one can be looked up without running Python code, and its value made.
    #[inline]
    fn direct(&self, key: &Bound<'_, PyAny>) -> bool {
        self.opened.direct && matches!(&self.opened.keys, Keys::One(kind, _) if kind.is_plain(key))
    }

    /// The hash of a direct key, while looking for it among the hot ones is worth while.
    #[inline]
    fn hash(&mut self, key: &Bound<'_, PyAny>) -> PyResult<Option<isize>> {
        self.hot.is_open().then(|| key.hash()).transpose()
    }
}

impl MapHandle {
    pub(crate) fn open(map: Map, allow_pickle: bool) -> PyResult<Self> {
        Ok(Self { state: Mutex::new(State::of(Opened::new(map, allow_pickle)?)), allow_pickle })
    }

    #[inline]
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version as it is now; a `refresh` of the handle does not disturb who holds it.
    pub(crate) fn opened(&self) -> Arc<Opened> {
        Arc::clone(&self.state().opened)
    }

    /// The value of a key, or None if it is not there.
    #[inline]
    fn find<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut state = self.state();
        if !state.direct(key) {
            let opened = Arc::clone(&state.opened);
            drop(state);
            return match opened.keys.find(py, &opened.map, key)? {
                Some(row) => opened.value_object(py, row).map(Some),
                None => Ok(None),
            };
        }
        let hash = state.hash(key)?;
        if let Some(value) = hash.and_then(|hash| state.hot.get(key, hash)) {
            return Ok(Some(value));
        }
        let opened = Arc::clone(&state.opened);
        drop(state);
        let value = match opened.find_direct(key)?.map_err(|e| read_error(py, &e))? {
            Some(value) => value_object(py, value, ValueCodec::Plain)?,
            None => return Ok(None),
        };
        if let Some(hash) = hash {
            let mut state = self.state();
            if Arc::ptr_eq(&opened, &state.opened) {
                state.hot.missed(key, hash, &value);
            }
        }
        Ok(Some(value))
    }

    fn iterate(&self, what: Rows, backwards: bool) -> RowIter {
        RowIter::new(self.opened(), what, backwards)
    }
}

#[pymethods]
impl MapHandle {
    /// A second handle on the same version.
    #[new]
    fn copy(handle: &Bound<'_, Self>) -> PyResult<Self> {
        let handle = handle.get();
        Self::open(handle.opened().map.clone(), handle.allow_pickle)
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.find(py, key)? {
            Some(value) => Ok(value),
            None => Err(PyKeyError::new_err((key.clone().unbind(),))),
        }
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut state = self.state();
        if state.direct(key)
            && let Some(hash) = state.hash(key)?
            && state.hot.get(key, hash).is_some()
        {
            return Ok(true);
        }
        let opened = Arc::clone(&state.opened);
        drop(state);
        Ok(opened.keys.find(py, &opened.map, key)?.is_some())
    }

    fn __len__(&self) -> usize {
        self.state().opened.map.len()
    }

    fn __iter__(&self) -> RowIter {
        self.iterate(Rows::Keys, false)
    }

    fn __reversed__(&self) -> RowIter {
        self.iterate(Rows::Keys, true)
    }

    /// Values in key order, or in reverse.
    fn iter_values(&self, backwards: bool) -> RowIter {
        self.iterate(Rows::Values, backwards)
    }

    /// (key, value) tuples in key order, or in reverse.
    fn iter_items(&self, backwards: bool) -> RowIter {
        self.iterate(Rows::Items, backwards)
    }

    /// The value of a key, or `default` if it is not there.
    #[pyo3(signature = (key, default=None, /))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.find(py, key)?.or(default).unwrap_or_else(|| py.None().into_bound(py)))
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
        let opened = self.opened();
        if opened.direct
            && default.is_none()
            && let Ok(list) = keys.cast_exact::<PyList>()
        {
            return self.get_direct(&opened, &list.get_slice(0, list.len()), threads);
        }
        let keys = opened.keys.array(py, keys)?;
        let map = &opened.map;
        if opened.codecs.len() == 1 && default.is_none() {
            let values = look_up(py, keys.len(), || map.get_many_with(&keys, threads))?;
            return PyList::new(py, column_objects(py, &values, opened.codecs[0])?);
        }
        let rows = look_up(py, keys.len(), || map.find_many(&keys, threads))?;
        let mut columns = Vec::with_capacity(opened.codecs.len());
        for (i, codec) in opened.codecs.iter().enumerate() {
            let values = look_up(py, keys.len(), || map.take(&rows, i))?;
            columns.push(column_objects(py, &values, *codec)?);
        }
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        let fields = map.value_fields();
        let values = (0..rows.len()).map(|i| {
            if rows.is_null(i) {
                return Ok(default.clone());
            }
            if let [column] = columns.as_slice() {
                return Ok(column[i].clone());
            }
            let all = PyDict::new(py);
            for (field, column) in fields.iter().zip(&columns) {
                all.set_item(field.name(), &column[i])?;
            }
            Ok(all.into_any())
        });
        PyList::new(py, values.collect::<PyResult<Vec<_>>>()?)
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
        let opened = self.opened();
        let map = &opened.map;
        if let (None, [field]) = (&default, map.value_fields()) {
            let column = get_all(py, map, keys, threads)?;
            let field = Arc::new(field.as_ref().clone().with_nullable(true));
            return Ok(Bound::new(py, PyColumn::new(field, column, opened.codecs[0]))?.into_any());
        }
        let rows = find_all(py, map, keys, threads)?;
        let mut columns = Vec::with_capacity(opened.codecs.len());
        for (i, field) in map.value_fields().iter().enumerate() {
            let values = look_up(py, rows.len(), || map.take(&rows, i))?;
            columns.push(match &default {
                Some(default) => fill(&values, &rows, default, field)?,
                None => values,
            });
        }
        let fields = map.value_fields().iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true)));
        let mut fields: Vec<_> = fields.collect();
        if let ([_], [_]) = (columns.as_slice(), fields.as_slice()) {
            let (Some(field), Some(column)) = (fields.pop(), columns.pop()) else { unreachable!("both hold one") };
            return Ok(Bound::new(py, PyColumn::new(field, column, opened.codecs[0]))?.into_any());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
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
        let opened = self.opened();
        let keys = opened.keys.array(py, keys)?;
        let rows = look_up(py, keys.len(), || opened.map.find_many(&keys, threads))?;
        PyList::new(py, (0..rows.len()).map(|i| rows.is_valid(i)).collect::<Vec<_>>())
    }

    /// Whether each key of an Arrow array or stream is there: a `Column` of bool.
    #[pyo3(signature = (keys, threads))]
    fn contains_arrow(&self, py: Python<'_>, keys: AnyArray, threads: Option<usize>) -> PyResult<PyColumn> {
        let opened = self.opened();
        let rows = find_all(py, &opened.map, keys, threads)?;
        let found = arrow_array::BooleanArray::from_iter((0..rows.len()).map(|i| Some(rows.is_valid(i))));
        let field = arrow_schema::Field::new("found", DataType::Boolean, false);
        Ok(PyColumn::new(Arc::new(field), Arc::new(found), ValueCodec::Plain))
    }

    /// Python keys as a `Column` of the key's type; null for keys that no entry can have.
    fn key_column(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<PyColumn> {
        let opened = self.opened();
        let keys = opened.keys.array(py, keys)?;
        let field = arrow_schema::Field::new("key", keys.data_type().clone(), true);
        Ok(PyColumn::new(Arc::new(field), keys, ValueCodec::Plain))
    }

    /// The entry with the greatest key that is not greater than `key`, or None.
    fn floor<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.nearest(py, key, true)
    }

    /// The entry with the least key that is not less than `key`, or None.
    fn ceiling<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.nearest(py, key, false)
    }

    /// The entry with the least key, or None if the map is empty.
    fn first<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let opened = self.opened();
        if opened.map.is_empty() { Ok(None) } else { opened.item(py, 0).map(Some) }
    }

    /// The entry with the greatest key, or None if the map is empty.
    fn last<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let opened = self.opened();
        opened.map.len().checked_sub(1).map(|row| opened.item(py, row)).transpose()
    }

    /// All entries.
    fn table_handle(&self) -> TableHandle {
        TableHandle::new(self.opened().map.table())
    }

    /// Moves to the newest version; True if there was a newer one.
    fn refresh(&self, py: Python<'_>) -> PyResult<bool> {
        let mut map = self.opened().map.clone();
        let (map, newer) =
            py.detach(move || map.refresh().map(|newer| (map, newer))).map_err(|e| read_error(py, &e))?;
        if newer {
            let state = State::of(Opened::new(map, self.allow_pickle)?);
            // The old one is dropped when the lock is free again.
            let _old = std::mem::replace(&mut *self.state(), state);
        }
        Ok(newer)
    }

    /// Facts about the version.
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        info_dict(py, &self.opened().map.info())
    }

    #[getter]
    fn name(&self) -> String {
        self.opened().map.name().to_owned()
    }

    #[getter]
    fn version(&self) -> u64 {
        self.opened().map.version()
    }

    /// The key column's name; a list of names for a key of several columns.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let opened = self.opened();
        match opened.map.key_fields() {
            [field] => Ok(PyString::new(py, field.name()).into_any()),
            several => Ok(PyList::new(py, several.iter().map(|f| f.name()))?.into_any()),
        }
    }

    /// The key column's Arrow type, printed; for several columns all in parentheses.
    #[getter]
    fn key_type(&self) -> String {
        match self.opened().map.key_fields() {
            [field] => field.data_type().to_string(),
            several => {
                let types: Vec<_> = several.iter().map(|f| f.data_type().to_string()).collect();
                format!("({})", types.join(", "))
            }
        }
    }

    /// Names of the value columns.
    #[getter]
    fn value_names(&self) -> Vec<String> {
        self.opened().map.value_fields().iter().map(|f| f.name().clone()).collect()
    }

    /// Whether pickled values are decoded.
    #[getter]
    fn allow_pickle(&self) -> bool {
        self.allow_pickle
    }
}

impl MapHandle {
    /// The values of a list of keys that nobody else can change meanwhile, None where missing.
    fn get_direct<'py>(
        &self,
        opened: &Arc<Opened>,
        keys: &Bound<'py, PyList>,
        threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = keys.py();
        let look_up_all = |keys: &Bound<'py, PyList>| {
            let array = opened.keys.array(py, keys)?;
            let values = look_up(py, array.len(), || opened.map.get_many_with(&array, threads))?;
            let objects = column_objects(py, &values, ValueCodec::Plain)?;
            self.note_list(opened, keys, &objects)?;
            Ok::<_, PyErr>(objects)
        };
        let Some(mut values) = self.hot_values(opened, keys)? else { return PyList::new(py, look_up_all(keys)?) };
        let missing: Vec<_> = (0..values.len()).filter(|&i| values[i].is_none()).collect();
        if !missing.is_empty() {
            let rest = PyList::new(py, missing.iter().map(|&i| keys.get_item(i)).collect::<PyResult<Vec<_>>>()?)?;
            for (i, value) in missing.into_iter().zip(look_up_all(&rest)?) {
                values[i] = Some(value);
            }
        }
        PyList::new(py, values)
    }

    /// The values of the hot keys among these, if most are.
    fn hot_values<'py>(
        &self,
        opened: &Arc<Opened>,
        keys: &Bound<'py, PyList>,
    ) -> PyResult<Option<Vec<Option<Bound<'py, PyAny>>>>> {
        let mut state = self.state();
        if !Arc::ptr_eq(opened, &state.opened) || state.hot.is_cold() {
            return Ok(None);
        }
        let (mut values, mut misses) = (Vec::with_capacity(keys.len()), 0);
        for (i, key) in keys.iter().enumerate() {
            if misses > LIST_MISSES_MIN.max(i / 2) || !state.direct(&key) {
                return Ok(None);
            }
            let value = state.hot.get(&key, key.hash()?);
            misses += usize::from(value.is_none());
            values.push(value);
        }
        Ok(Some(values))
    }

    /// Notes the values of a list's keys, which were looked up together.
    fn note_list<'py>(
        &self,
        opened: &Arc<Opened>,
        keys: &Bound<'py, PyList>,
        values: &[Bound<'py, PyAny>],
    ) -> PyResult<()> {
        let mut state = self.state();
        if !Arc::ptr_eq(opened, &state.opened) {
            return Ok(());
        }
        for (key, value) in keys.iter().zip(values) {
            if !state.direct(&key) {
                return Ok(());
            }
            if !value.is_none()
                && let Some(hash) = state.hash(&key)?
            {
                state.hot.missed(&key, hash, value);
            }
        }
        Ok(())
    }

    fn nearest<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        greatest: bool,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let opened = self.opened();
        let row = opened.keys.nearest(&opened.map.table(), key, greatest)?.map_err(|e| read_error(py, &e))?;
        row.map(|row| opened.item(py, row)).transpose()
    }
}

/// Rows of all keys of an array or of a stream of arrays.
fn find_all(py: Python<'_>, map: &Map, keys: AnyArray, threads: Option<usize>) -> PyResult<UInt64Array> {
    let reader = keys.into_reader()?;
    let mut found: Vec<UInt64Array> = Vec::new();
    for chunk in reader {
        let chunk = chunk.map_err(|e| arrow_error("read keys", &e))?;
        found.push(look_up(py, chunk.len(), || map.find_many(&chunk, threads))?);
    }
    match found.len() {
        0 => Ok(UInt64Array::from(Vec::<u64>::new())),
        1 => Ok(found.swap_remove(0)),
        _ => Ok(found.iter().flat_map(|rows| rows.iter()).collect()),
    }
}

/// The only value column for all keys of an array or of a stream of arrays: found and gathered in one pass.
fn get_all(py: Python<'_>, map: &Map, keys: AnyArray, threads: Option<usize>) -> PyResult<ArrayRef> {
    let mut values: Vec<ArrayRef> = Vec::new();
    for chunk in keys.into_reader()? {
        let chunk = chunk.map_err(|e| arrow_error("read keys", &e))?;
        values.push(look_up(py, chunk.len(), || map.get_many_with(&chunk, threads))?);
    }
    if values.len() == 1 {
        return Ok(values.swap_remove(0));
    }
    if values.is_empty() {
        return look_up(py, 0, || map.take(&UInt64Array::from(Vec::<u64>::new()), 0));
    }
    let parts: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
    py.detach(|| arrow_select::concat::concat(&parts)).map_err(|e| arrow_error("collect values", &e))
}

/// `values` with `default` where no row was found. Values that are stored as null stay null.
///
/// # Errors
/// `TypeError` for a default that the type of the values does not hold exactly, also when no key is missing.
fn fill(
    values: &ArrayRef,
    rows: &UInt64Array,
    default: &Bound<'_, PyAny>,
    field: &arrow_schema::Field,
) -> PyResult<ArrayRef> {
    let one = column_of_one(default, ValueCodec::of(field, true))?;
    let one = convert(&one, field.data_type()).map_err(|e| {
        let type_name = field.data_type();
        PyTypeError::new_err(format!("the default {default} does not fit the values' type {type_name}: {e}"))
    })?;
    if rows.null_count() == 0 {
        return Ok(values.clone());
    }
    let found = arrow_array::BooleanArray::from_iter((0..rows.len()).map(|i| Some(rows.is_valid(i))));
    arrow_select::zip::zip(&found, values, &Scalar::new(one)).map_err(|e| arrow_error("fill in the default", &e))
}
