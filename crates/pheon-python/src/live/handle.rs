//! `LiveHandle`: a live map. `pheon.LiveMap` derives from it, so that `d[k]` and `d[k] = v` go straight from the
//! interpreter's slots to the code here.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pheon_live::{LiveError, LiveMap, LiveOptions, Location, Place, Position};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet};

use super::batch::Batch;
use super::entry::{Codec, Encoded, key_object, parts, value_object};
use super::snapshot::{LiveIter, SnapshotHandle, What};
use super::{codec, nested};
use crate::errors::{ClosedError, live_error};

/// How long a wait lasts before signals are looked at.
const SLICE: Duration = Duration::from_millis(100);
/// Keys that are encoded before they are looked up.
const KEYS_AT_ONCE: usize = 256;
/// A read-only handle cannot ask to be woken, so it looks this often.
const READ_ONLY_SLICE: Duration = Duration::from_millis(2);

/// An open live map.
#[pyclass(frozen, subclass, mapping, module = "pheon._native")]
pub(crate) struct LiveHandle {
    map: LiveMap,
    /// The map's folder. Whose maps a name means depends on the user, who may be another later.
    dir: PathBuf,
    codec: Codec,
    closed: AtomicBool,
    /// Whether this handle made the map.
    made: bool,
    /// Up to where `wait` has told of changes.
    told: Mutex<Position>,
}

/// Why many keys could not be read.
enum ReadFailed {
    Map(LiveError),
    Python(PyErr),
}

impl From<LiveError> for ReadFailed {
    fn from(error: LiveError) -> Self {
        Self::Map(error)
    }
}

impl From<PyErr> for ReadFailed {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// The lock, held. Dropped it is free again.
struct Held<'a>(&'a LiveMap);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn location(name: String, group: Option<u32>, store: Option<PathBuf>) -> Location {
    match store {
        Some(path) => Location::Store { path, name },
        None => Location::Memory { name, group },
    }
}

fn seconds(timeout: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout)
        .map_err(|_| PyValueError::new_err(format!("a timeout is a number of seconds from 0 on, found {timeout}")))
}

impl LiveHandle {
    #[inline]
    pub(super) fn map(&self) -> PyResult<&LiveMap> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(ClosedError::new_err(format!("the live map {:?} was closed", self.map.location().name())));
        }
        Ok(&self.map)
    }

    /// Takes the lock. The interpreter lock is released if it is not free within some microseconds.
    #[inline]
    fn hold(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        let map = self.map()?;
        if map.try_lock().map_err(|e| live_error(py, &e))? || wait_for(py, None, |slice| map.lock(slice, &|| false))? {
            Ok(Held(map))
        } else {
            unreachable!("without a timeout it is waited for ever")
        }
    }

    /// A key's value, as Python sees it.
    #[inline]
    fn find<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, this) = (slf.py(), slf.get());
        let encoded = Encoded::key_of(key, this.codec)?;
        let found = this
            .map()?
            .get_with(encoded.key(), |entry| PyResult::Ok((value_object(py, entry, this.codec)?, entry.sequence())));
        match found.map_err(|e| live_error(py, &e))?.transpose()? {
            Some(((plain, true), written)) => nested::nest(slf.as_any(), key, plain, written).map(Some),
            other => Ok(other.map(|((plain, _), _)| plain)),
        }
    }

    #[inline]
    fn find_plain<'py>(&self, py: Python<'py>, key: &Encoded) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = self.map()?.get_with(key.key(), |entry| Ok(value_object(py, entry, self.codec)?.0));
        found.map_err(|e| live_error(py, &e))?.transpose()
    }

    fn sequence_of(&self, py: Python<'_>, key: &Encoded) -> PyResult<Option<u64>> {
        self.map()?.get_with(key.key(), |entry| entry.sequence()).map_err(|e| live_error(py, &e))
    }
}

/// Waits in slices, between which Ctrl-C is looked for. `attempt` waits for a slice. Whether it was successful in time.
fn wait_for(
    py: Python<'_>,
    timeout: Option<Duration>,
    attempt: impl Fn(Option<Duration>) -> Result<(), LiveError> + Sync,
) -> PyResult<bool> {
    let began = Instant::now();
    loop {
        let left = timeout.map_or(SLICE, |timeout| timeout.saturating_sub(began.elapsed()));
        match py.detach(|| attempt(Some(left.min(SLICE)))) {
            Ok(()) => return Ok(true),
            Err(LiveError::LockTimeout { .. }) if left > SLICE || timeout.is_none() => py.check_signals()?,
            Err(LiveError::LockTimeout { .. }) => return Ok(false),
            Err(error) => return Err(live_error(py, &error)),
        }
    }
}

// Each argument is a keyword argument of a Python method.
#[allow(clippy::too_many_arguments)]
#[pymethods]
impl LiveHandle {
    /// `create`: None attaches or makes, True makes, False attaches. `pairs`, as for `put_many`, are encoded first; a new map
    /// has them from the moment that others can find it.
    #[new]
    #[pyo3(signature = (
        name, group, store, create, writable, pickle, allow_pickle, max_entries, max_age, max_bytes, durable, pairs=None
    ))]
    fn new(
        py: Python<'_>,
        name: String,
        group: Option<u32>,
        store: Option<PathBuf>,
        create: Option<bool>,
        writable: bool,
        pickle: bool,
        allow_pickle: bool,
        max_entries: Option<u64>,
        max_age: Option<f64>,
        max_bytes: Option<u64>,
        durable: bool,
        pairs: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let location = location(name, group, store);
        let options = LiveOptions {
            max_entries: max_entries.unwrap_or(0),
            max_age: max_age.map_or(Ok(Duration::ZERO), seconds)?,
            max_bytes: max_bytes.unwrap_or(0),
            durable,
        };
        let codec = Codec { pickle, allow_pickle };
        let mut batch = Batch::new(codec);
        if let Some(pairs) = &pairs {
            batch.put_all(pairs)?;
        }
        let first = batch.first(py)?;
        let opened = py.detach(|| match create {
            _ if !writable => LiveMap::attach(&location, false).map(|map| (map, false)),
            None => LiveMap::open_filled(&location, &options, first.changes()),
            Some(true) => LiveMap::create_filled(&location, &options, first.changes()).map(|map| (map, true)),
            Some(false) => LiveMap::attach(&location, true).map(|map| (map, false)),
        });
        let (map, made) = opened.map_err(|e| live_error(py, &e))?;
        let told = Mutex::new(map.position());
        let dir = location.dir().map_err(|e| live_error(py, &e))?;
        let handle = Self { map, dir, codec, closed: AtomicBool::new(false), made, told };
        if pairs.is_some() && !made {
            handle.commit(py, &batch)?;
        }
        Ok(handle)
    }

    /// Names of the maps in memory, or in a store.
    #[staticmethod]
    #[pyo3(signature = (group, store))]
    fn names(py: Python<'_>, group: Option<u32>, store: Option<PathBuf>) -> PyResult<Vec<String>> {
        let place = match store {
            Some(path) => Place::Store { path },
            None => Place::Memory { group },
        };
        let found = place.list().map_err(|e| live_error(py, &e))?;
        Ok(found.iter().map(|location| location.name().to_owned()).collect())
    }

    /// Unlinks a map, also one that cannot be opened.
    #[staticmethod]
    #[pyo3(signature = (name, group, store))]
    fn remove(py: Python<'_>, name: String, group: Option<u32>, store: Option<PathBuf>) -> PyResult<()> {
        let location = location(name, group, store);
        py.detach(|| LiveMap::remove(&location)).map_err(|e| live_error(py, &e))
    }

    // One key -----------------------------------------------------------------------------------------------------------

    fn __getitem__<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match Self::find(slf, key)? {
            Some(value) => Ok(value),
            None => Err(PyKeyError::new_err((key.clone().unbind(),))),
        }
    }

    #[pyo3(signature = (key, default=None, /))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(Self::find(slf, key)?.or(default).unwrap_or_else(|| slf.py().None().into_bound(slf.py())))
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let encoded = Encoded::key_of(key, self.codec)?;
        self.map()?.contains(encoded.key()).map_err(|e| live_error(py, &e))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let map = self.map()?;
        Ok(map.len_living().map_err(|e| live_error(py, &e))? as usize)
    }

    fn __setitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if nested::is_nested(value)? && nested::stands_at(value, slf.as_any(), key)? {
            return Ok(());
        }
        let mut encoded = Encoded::of(key, value, this.codec)?;
        let held = this.hold(py)?;
        this.put(py, held.0, &mut encoded)
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let encoded = Encoded::key_of(key, self.codec)?;
        let held = self.hold(py)?;
        let there = held.0.contains(encoded.key()).map_err(|e| live_error(py, &e))?;
        if there && held.0.delete(encoded.key()).map_err(|e| live_error(py, &e))? {
            return Ok(());
        }
        Err(PyKeyError::new_err((key.clone().unbind(),)))
    }

    /// The value without nested views, or None; and the number of the transaction that wrote it.
    fn plain<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyAny>, u64)>> {
        let encoded = Encoded::key_of(key, self.codec)?;
        let found = self.map()?.get_with(encoded.key(), |entry| {
            let (_, value) = parts(entry.meta(), entry.value())?;
            PyResult::Ok((codec::decode(py, value, self.codec.allow_pickle)?, entry.sequence()))
        });
        found.map_err(|e| live_error(py, &e))?.transpose()
    }

    /// The number of the transaction that wrote a key, or None.
    fn written(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        self.sequence_of(py, &Encoded::key_of(key, self.codec)?)
    }

    /// Takes a key out; (its value,) or None. The value is plain.
    fn take<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyAny>,)>> {
        let encoded = Encoded::key_of(key, self.codec)?;
        let held = self.hold(py)?;
        let Some(value) = self.find_plain(py, &encoded)? else { return Ok(None) };
        held.0.delete(encoded.key()).map_err(|e| live_error(py, &e))?;
        Ok(Some((value,)))
    }

    /// Takes the last entry out; None if there is none.
    fn take_last<'py>(&self, py: Python<'py>) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        let held = self.hold(py)?;
        let map = held.0;
        loop {
            let Some(key) = map.last_key().map_err(|e| live_error(py, &e))? else { return Ok(None) };
            let found = map.get_with(&key, |entry| {
                PyResult::Ok((key_object(py, entry, self.codec)?, value_object(py, entry, self.codec)?.0))
            });
            let pair = found.map_err(|e| live_error(py, &e))?.transpose()?;
            map.delete(&key).map_err(|e| live_error(py, &e))?;
            // Without one it was too old.
            if pair.is_some() {
                return Ok(pair);
            }
        }
    }

    #[pyo3(signature = (key, default=None, /))]
    fn setdefault<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(value) = Self::find(slf, key)? {
            return Ok(value);
        }
        let (py, this) = (slf.py(), slf.get());
        let default = default.unwrap_or_else(|| py.None().into_bound(py));
        let encoded = Encoded::of(key, &default, this.codec)?;
        let held = this.hold(py)?;
        let there = held.0.contains(encoded.key()).map_err(|e| live_error(py, &e))?;
        if !there {
            held.0.put(encoded.key(), encoded.meta, encoded.value()).map_err(|e| live_error(py, &e))?;
        }
        drop(held);
        drop(encoded);
        match Self::find(slf, key)? {
            Some(value) => Ok(value),
            // Taken out again by somebody else.
            None => Ok(default),
        }
    }

    /// Adds to the number of a key, which is `start` if it is missing; the sum.
    fn add<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        by: &Bound<'py, PyAny>,
        start: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let held = self.hold(py)?;
        let mut encoded = Encoded::key_of(key, self.codec)?;
        let now = self.find_plain(py, &encoded)?.unwrap_or_else(|| start.clone());
        let sum = now.add(by)?;
        encoded.add_value(&sum, self.codec)?;
        self.put(py, held.0, &mut encoded)?;
        Ok(sum)
    }

    /// Sets a key if its value equals `old`; whether it did. None stands for a missing entry, a tuple of one for a value.
    fn replace(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        old: Option<(Bound<'_, PyAny>,)>,
        new: Option<(Bound<'_, PyAny>,)>,
    ) -> PyResult<bool> {
        let held = self.hold(py)?;
        let mut encoded = Encoded::key_of(key, self.codec)?;
        let equal = match (self.find_plain(py, &encoded)?, old) {
            (None, None) => true,
            (Some(now), Some((old,))) => now.eq(&old)? || self.is_stored_alike(&now, &old),
            _ => false,
        };
        if equal {
            match new {
                Some((value,)) => {
                    encoded.add_value(&value, self.codec)?;
                    self.put(py, held.0, &mut encoded)?;
                }
                None => held.0.delete(encoded.key()).map(drop).map_err(|e| live_error(py, &e))?,
            }
        }
        Ok(equal)
    }

    // Many keys ---------------------------------------------------------------------------------------------------------

    /// Sets many keys in one transaction: a dict, or an iterable of pairs.
    fn put_many(&self, py: Python<'_>, pairs: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut batch = Batch::new(self.codec);
        batch.put_all(pairs)?;
        self.commit(py, &batch)
    }

    /// Makes changes in one transaction: (key, (value,)) sets, (key, None) deletes.
    fn apply(&self, py: Python<'_>, changes: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut batch = Batch::new(self.codec);
        for change in changes.try_iter()? {
            let (key, value): (Bound<'_, PyAny>, Option<(Bound<'_, PyAny>,)>) = change?.extract()?;
            match value {
                Some((value,)) => batch.put(&key, &value)?,
                None => batch.delete(&key)?,
            }
        }
        self.commit(py, &batch)
    }

    /// Values of many keys as a list, of one moment each; `default` where missing. Nested ones are plain.
    fn get_list<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let values = PyList::empty(py);
        let mut keys = keys.try_iter()?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(KEYS_AT_ONCE));
        loop {
            bytes.clear();
            ends.clear();
            for key in keys.by_ref().take(KEYS_AT_ONCE) {
                codec::encode_key(&key?, self.codec.pickle, &mut bytes)?;
                ends.push(bytes.len());
            }
            if ends.is_empty() {
                return Ok(values);
            }
            let starts = std::iter::once(&0).chain(&ends);
            let group: Vec<&[u8]> = starts.zip(&ends).map(|(&start, &end)| &bytes[start..end]).collect();
            let read = self.map()?.get_many_with(&group, |entry| match entry {
                Some(entry) => Ok::<_, ReadFailed>(values.append(value_object(py, entry, self.codec)?.0)?),
                None => Ok(values.append(default)?),
            });
            match read {
                Ok(()) => {}
                Err(ReadFailed::Map(error)) => return Err(live_error(py, &error)),
                Err(ReadFailed::Python(error)) => return Err(error),
            }
        }
    }

    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let held = self.hold(py)?;
        held.0.clear().map_err(|e| live_error(py, &e))
    }

    // Iteration ---------------------------------------------------------------------------------------------------------

    fn snapshot_handle(&self, py: Python<'_>) -> PyResult<SnapshotHandle> {
        let map = self.map()?;
        let snapshot = py.detach(|| map.snapshot()).map_err(|e| live_error(py, &e))?;
        Ok(SnapshotHandle::new(snapshot, self.codec))
    }

    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<LiveIter> {
        Self::iterate(slf, What::Keys, false)
    }

    fn __reversed__(slf: &Bound<'_, Self>) -> PyResult<LiveIter> {
        Self::iterate(slf, What::Keys, true)
    }

    fn iter_values(slf: &Bound<'_, Self>, backwards: bool) -> PyResult<LiveIter> {
        Self::iterate(slf, What::Values, backwards)
    }

    fn iter_items(slf: &Bound<'_, Self>, backwards: bool) -> PyResult<LiveIter> {
        Self::iterate(slf, What::Items, backwards)
    }

    // Locks -------------------------------------------------------------------------------------------------------------

    /// Takes the lock; whether it was free in time. None: waits for ever.
    #[pyo3(signature = (timeout))]
    fn lock_acquire(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let map = self.map()?;
        if map.try_lock().map_err(|e| live_error(py, &e))? {
            return Ok(true);
        }
        let timeout = timeout.map(seconds).transpose()?;
        wait_for(py, timeout, |slice| map.lock(slice, &|| false))
    }

    fn lock_release(&self, py: Python<'_>) -> PyResult<()> {
        self.map.unlock().map_err(|e| live_error(py, &e))
    }

    /// How often the calling thread holds the lock.
    fn lock_depth(&self) -> u32 {
        self.map.lock_depth()
    }

    #[pyo3(signature = (key, timeout))]
    fn key_acquire(&self, py: Python<'_>, key: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<bool> {
        let encoded = Encoded::key_of(key, self.codec)?;
        let map = self.map()?;
        let timeout = timeout.map(seconds).transpose()?;
        wait_for(py, timeout, |slice| map.lock_key(encoded.key(), slice, &|| false))
    }

    fn key_release(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let encoded = Encoded::key_of(key, self.codec)?;
        self.map.unlock_key(encoded.key()).map_err(|e| live_error(py, &e))
    }

    // Waiting -----------------------------------------------------------------------------------------------------------

    /// Waits for changes by others; (keys, whether there may be more). Empty after the timeout; None: waits for ever.
    #[pyo3(signature = (timeout))]
    fn wait_changes<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<(Bound<'py, PySet>, bool)> {
        let map = self.map()?;
        let timeout = timeout.map(seconds).transpose()?;
        let began = Instant::now();
        loop {
            let from = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let (changes, now) = py.detach(|| map.changes_since(from, true)).map_err(|e| live_error(py, &e))?;
            *self.told.lock().unwrap_or_else(PoisonError::into_inner) = now;
            if !changes.keys.is_empty() || changes.truncated {
                let keys = PySet::empty(py)?;
                for changed in &changes.keys {
                    let (given, _) = parts(changed.meta, &changed.value)?;
                    keys.add(codec::decode(py, given.unwrap_or(&changed.key), self.codec.allow_pickle)?)?;
                }
                return Ok((keys, changes.truncated));
            }
            if map.info().map_err(|e| live_error(py, &e))?.unlinked {
                return Err(live_error(py, &LiveError::Unlinked { path: self.dir.clone() }));
            }
            let left = timeout.map_or(SLICE, |timeout| timeout.saturating_sub(began.elapsed()));
            if left.is_zero() {
                return Ok((PySet::empty(py)?, false));
            }
            let slice = left.min(if map.is_writable() { SLICE } else { READ_ONLY_SLICE });
            py.detach(|| map.sleep(now, slice)).map_err(|e| live_error(py, &e))?;
            py.check_signals()?;
        }
    }

    // Facts and care ----------------------------------------------------------------------------------------------------

    #[getter]
    fn name(&self) -> &str {
        self.map.location().name()
    }

    /// The map's folder.
    #[getter]
    fn path(&self) -> &OsStr {
        self.dir.as_os_str()
    }

    #[getter]
    fn sequence(&self) -> PyResult<u64> {
        Ok(self.map()?.sequence())
    }

    #[getter]
    fn writable(&self) -> bool {
        self.map.is_writable()
    }

    /// Whether this handle made the map.
    #[getter]
    fn made(&self) -> bool {
        self.made
    }

    #[getter]
    fn pickles(&self) -> (bool, bool) {
        (self.codec.pickle, self.codec.allow_pickle)
    }

    #[getter]
    fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.map()?.info().map_err(|e| live_error(py, &e))?;
        let facts = PyDict::new(py);
        facts.set_item("name", self.name())?;
        facts.set_item("path", self.path())?;
        facts.set_item("entries", info.entries)?;
        facts.set_item("entry_bytes", info.entry_bytes)?;
        facts.set_item("file_bytes", info.file_bytes)?;
        facts.set_item("chunks", info.chunks)?;
        facts.set_item("slots", info.slots)?;
        facts.set_item("sequence", info.sequence)?;
        facts.set_item("uuid", info.uuid.iter().map(|byte| format!("{byte:02x}")).collect::<String>())?;
        facts.set_item("created_unix_ms", info.created_unix_ms)?;
        facts.set_item("unlinked", info.unlinked)?;
        let limit = |n: u64| (n > 0).then_some(n);
        facts.set_item("max_entries", limit(info.options.max_entries))?;
        let age = info.options.max_age.as_secs_f64();
        facts.set_item("max_age", (age > 0.0).then_some(age))?;
        facts.set_item("max_bytes", limit(info.options.max_bytes))?;
        facts.set_item("durable", info.options.durable)?;
        Ok(facts)
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        let held = self.hold(py)?;
        let map = held.0;
        py.detach(|| map.sync()).map_err(|e| live_error(py, &e))
    }

    fn unlink(&self, py: Python<'_>) -> PyResult<()> {
        let map = &self.map;
        py.detach(|| map.unlink()).map_err(|e| live_error(py, &e))
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.map.close();
    }
}

impl LiveHandle {
    fn iterate(slf: &Bound<'_, Self>, what: What, backwards: bool) -> PyResult<LiveIter> {
        let (py, this) = (slf.py(), slf.get());
        let map = this.map()?;
        let ordered = py.detach(|| map.snapshot()?.ordered()).map_err(|e| live_error(py, &e))?;
        Ok(LiveIter::new(ordered, this.codec, what, backwards, Some(slf.as_any().clone().unbind())))
    }

    /// Whether two values have the same bytes, as those with a NaN in them have, which is unequal to itself.
    fn is_stored_alike(&self, one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> bool {
        let encoded = |value| {
            let mut bytes = Vec::new();
            codec::encode_value(value, self.codec.pickle, &mut bytes).map(|()| bytes)
        };
        // What cannot be stored is not there.
        matches!((encoded(one), encoded(other)), (Ok(one), Ok(other)) if one == other)
    }

    fn commit(&self, py: Python<'_>, batch: &Batch) -> PyResult<()> {
        let held = self.hold(py)?;
        batch.commit(py, held.0)
    }

    /// Sets a key, which keeps the form that it was first given in. The calling thread holds the lock.
    #[inline]
    fn put(&self, py: Python<'_>, map: &LiveMap, encoded: &mut Encoded) -> PyResult<()> {
        encoded.keep_given(py, map, self.codec)?;
        map.put(encoded.key(), encoded.meta, encoded.value()).map_err(|e| live_error(py, &e))
    }
}
