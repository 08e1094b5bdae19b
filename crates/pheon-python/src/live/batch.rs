//! Many changes as bytes, for one transaction.

use std::collections::HashMap;

use pheon_live::{Change, LiveMap};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::codec;
use super::entry::{Codec, given_key, keep_given, may_be_given, with_given};
use crate::errors::live_error;

/// For fewer changes releasing the interpreter lock costs more than it gives.
const DETACH_MIN: usize = 2000;

/// Changes, behind each other.
pub(super) struct Batch {
    codec: Codec,
    bytes: Vec<u8>,
    places: Vec<At>,
    /// Whether a later change of a key may have to look at an earlier one to know how the key was given.
    mixed: bool,
}

/// By the number of a change: what takes the place of the value that is stored, and of its byte.
type Kept = HashMap<usize, (u8, Vec<u8>)>;

/// The changes that a new map begins with.
pub(super) struct First<'a> {
    batch: &'a Batch,
    kept: Kept,
}

impl First<'_> {
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> + Clone {
        self.batch.changes(&self.kept)
    }
}

/// Where a change ends, and what it is.
struct At {
    key_end: usize,
    end: usize,
    meta: u8,
    deletes: bool,
}

impl Batch {
    pub(super) fn new(codec: Codec) -> Self {
        Self { codec, bytes: Vec::new(), places: Vec::new(), mixed: false }
    }

    /// All entries of a dict, or all pairs of an iterable.
    pub(super) fn put_all(&mut self, pairs: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(dict) = pairs.cast_exact::<PyDict>() else {
            for (i, pair) in pairs.try_iter()?.enumerate() {
                let (key, value) = pair_of(&pair?, i)?;
                self.put(&key, &value)?;
            }
            return Ok(());
        };
        let len = dict.len();
        for (key, value) in dict.iter() {
            self.put(&key, &value)?;
            // Encoding may run code, and another thread. The iteration itself would panic.
            if dict.len() != len {
                return Err(PyRuntimeError::new_err("dictionary changed size during iteration"));
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn put(&mut self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let given = codec::encode_key(key, self.codec.pickle, &mut self.bytes)?;
        let key_end = self.bytes.len();
        let mut meta = 0;
        if let Some(given) = given {
            meta = with_given(&given, &mut self.bytes);
            self.mixed = true;
        }
        codec::encode_value(value, self.codec.pickle, &mut self.bytes)?;
        self.places.push(At { key_end, end: self.bytes.len(), meta, deletes: false });
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        codec::encode_key(key, self.codec.pickle, &mut self.bytes)?;
        let end = self.bytes.len();
        self.places.push(At { key_end: end, end, meta: 0, deletes: true });
        self.mixed = true;
        Ok(())
    }

    /// Makes the changes. The calling thread holds the map's lock.
    pub(super) fn commit(&self, py: Python<'_>, map: &LiveMap) -> PyResult<()> {
        let kept = self.kept(py, Some(map))?;
        let apply = || map.apply(self.changes(&kept));
        let done = if self.places.len() < DETACH_MIN { apply() } else { py.detach(apply) };
        done.map_err(|e| live_error(py, &e))
    }

    /// The changes of a map that is to be made with them, all at once.
    pub(super) fn first(&self, py: Python<'_>) -> PyResult<First<'_>> {
        Ok(First { batch: self, kept: self.kept(py, None)? })
    }

    /// What takes the place of the stored value, and its byte, where a key that was first given in another form keeps that.
    fn kept(&self, py: Python<'_>, map: Option<&LiveMap>) -> PyResult<Kept> {
        let mut kept = HashMap::new();
        // The form of each key that is there, in the course of the changes.
        let mut forms: HashMap<&[u8], Option<Option<Vec<u8>>>> = HashMap::new();
        if map.is_none_or(LiveMap::is_empty) && !self.mixed {
            return Ok(kept);
        }
        for (i, (key, stored, at)) in self.each().enumerate() {
            if at.deletes {
                forms.insert(key, None);
                continue;
            }
            if !may_be_given(key, at.meta, self.codec) {
                continue;
            }
            let before = match forms.get(key) {
                Some(form) => form.clone(),
                None => map.map_or(Ok(None), |map| given_key(py, map, key))?,
            };
            let form = match before {
                Some(form) => {
                    if let Some(other) = keep_given(form.as_deref(), at.meta, stored)? {
                        kept.insert(i, other);
                    }
                    form
                }
                None => super::entry::parts(at.meta, stored)?.0.map(<[u8]>::to_vec),
            };
            if self.mixed {
                forms.insert(key, Some(form));
            }
        }
        Ok(kept)
    }

    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8], &At)> + Clone {
        let mut start = 0;
        self.places.iter().map(move |at| {
            let key = &self.bytes[start..at.key_end];
            start = at.end;
            (key, &self.bytes[at.key_end..at.end], at)
        })
    }

    fn changes<'a>(&'a self, kept: &'a Kept) -> impl Iterator<Item = Change<'a>> + Clone {
        self.each().enumerate().map(move |(i, (key, value, at))| match kept.get(&i) {
            _ if at.deletes => Change::Delete { key },
            Some((meta, value)) => Change::Put { key, meta: *meta, value },
            None => Change::Put { key, meta: at.meta, value },
        })
    }
}

/// One element of what `update` iterates over, with `dict`'s own words for what is none.
fn pair_of<'py>(pair: &Bound<'py, PyAny>, i: usize) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    if let Ok(tuple) = pair.cast::<PyTuple>()
        && tuple.len() == 2
    {
        return Ok((tuple.get_item(0)?, tuple.get_item(1)?));
    }
    let Ok(items) = pair.try_iter() else {
        return Err(PyTypeError::new_err(format!(
            "cannot convert dictionary update sequence element #{i} to a sequence"
        )));
    };
    let items = items.collect::<PyResult<Vec<_>>>()?;
    match <[_; 2]>::try_from(items) {
        Ok([key, value]) => Ok((key, value)),
        Err(items) => Err(PyValueError::new_err(format!(
            "dictionary update sequence element #{i} has length {}; 2 is required",
            items.len()
        ))),
    }
}
