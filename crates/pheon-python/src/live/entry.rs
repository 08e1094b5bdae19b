//! Entries as Python objects, and objects as entries.

use std::cell::Cell;

use pheon_live::{Entry, LiveMap};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::codec;
use crate::errors::{CorruptError, live_error};

/// In an entry's byte: the value begins with the key as it was given, because the key's own bytes are those of an equal
/// object, as 1 for True.
pub(super) const GIVEN_KEY: u8 = 1;

/// How objects of a map are written and read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec {
    /// Pickle what MessagePack does not hold.
    pub(super) pickle: bool,
    pub(super) allow_pickle: bool,
}

thread_local! {
    /// Memory for the bytes of one key and value. Taken while it is used: encoding may run Python code that comes here again.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Above this, scratch memory is given back.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// The bytes of one key, and of a value behind it.
pub(super) struct Encoded {
    bytes: Vec<u8>,
    key_len: usize,
    pub(super) meta: u8,
}

impl Encoded {
    #[inline]
    pub(super) fn key_of(key: &Bound<'_, PyAny>, codec: Codec) -> PyResult<Self> {
        let mut encoded = Self { bytes: SCRATCH.take(), key_len: 0, meta: 0 };
        encoded.bytes.clear();
        encoded.add_key(key, codec)?;
        Ok(encoded)
    }

    #[inline]
    pub(super) fn of(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, codec: Codec) -> PyResult<Self> {
        let mut encoded = Self::key_of(key, codec)?;
        encoded.add_value(value, codec)?;
        Ok(encoded)
    }

    #[inline]
    fn add_key(&mut self, key: &Bound<'_, PyAny>, codec: Codec) -> PyResult<()> {
        let given = codec::encode_key(key, codec.pickle, &mut self.bytes)?;
        self.key_len = self.bytes.len();
        if let Some(given) = given {
            self.meta = with_given(&given, &mut self.bytes);
        }
        Ok(())
    }

    /// Takes over the form that the key was first given in, if the map has it. The calling thread holds the lock.
    #[inline]
    pub(super) fn keep_given(&mut self, py: Python<'_>, map: &LiveMap, codec: Codec) -> PyResult<()> {
        if may_be_given(self.key(), self.meta, codec)
            && let Some(form) = given_key(py, map, self.key())?
            && let Some((meta, value)) = keep_given(form.as_deref(), self.meta, self.value())?
        {
            self.meta = meta;
            self.bytes.truncate(self.key_len);
            self.bytes.extend(value);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn add_value(&mut self, value: &Bound<'_, PyAny>, codec: Codec) -> PyResult<()> {
        codec::encode_value(value, codec.pickle, &mut self.bytes)
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        &self.bytes[self.key_len..]
    }
}

impl Drop for Encoded {
    #[inline]
    fn drop(&mut self) {
        if self.bytes.capacity() <= SCRATCH_BYTES_MAX {
            SCRATCH.set(std::mem::take(&mut self.bytes));
        }
    }
}

/// Puts the key as it was given before a value that is to follow; the entry's byte.
pub(super) fn with_given(given: &[u8], out: &mut Vec<u8>) -> u8 {
    out.extend((given.len() as u32).to_le_bytes());
    out.extend(given);
    GIVEN_KEY
}

/// Whether there may be keys that are equal to this one and have another form: not for strings and bytes, unless
/// derived classes of these are pickled.
#[inline]
pub(super) fn may_be_given(key: &[u8], meta: u8, codec: Codec) -> bool {
    codec.pickle || meta & GIVEN_KEY != 0 || !matches!(key.first(), Some(0xa0..=0xbf | 0xc4..=0xc6 | 0xd9..=0xdb))
}

/// The form in which a key of a map was given, where its own bytes are not that; `None` if the key is not there.
pub(super) fn given_key(py: Python<'_>, map: &LiveMap, key: &[u8]) -> PyResult<Option<Option<Vec<u8>>>> {
    let found = map.get_with(key, |entry| PyResult::Ok(parts(entry.meta(), entry.value())?.0.map(<[u8]>::to_vec)));
    found.map_err(|e| live_error(py, &e))?.transpose()
}

/// What to store, and its byte, so that a key has the given form; `None` if it has it already.
pub(super) fn keep_given(given: Option<&[u8]>, meta: u8, stored: &[u8]) -> PyResult<Option<(u8, Vec<u8>)>> {
    let (now, value) = parts(meta, stored)?;
    if now == given {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(4 + given.map_or(0, <[u8]>::len) + value.len());
    let meta = given.map_or(0, |given| with_given(given, &mut bytes));
    bytes.extend(value);
    Ok(Some((meta, bytes)))
}

/// An entry's value without the key that may stand before it, and that key.
#[inline]
pub(super) fn parts(meta: u8, stored: &[u8]) -> PyResult<(Option<&[u8]>, &[u8])> {
    if meta & GIVEN_KEY == 0 {
        return Ok((None, stored));
    }
    let split = stored.split_first_chunk::<4>().and_then(|(len, rest)| {
        let (given, value) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        Some((Some(given), value))
    });
    split.ok_or_else(|| CorruptError::new_err("an entry of a live map is damaged: the key as given does not fit"))
}

/// The key of an entry as it was given.
pub(super) fn key_object<'py>(py: Python<'py>, entry: Entry<'_>, codec: Codec) -> PyResult<Bound<'py, PyAny>> {
    let (given, _) = parts(entry.meta(), entry.value())?;
    codec::decode(py, given.unwrap_or(entry.key()), codec.allow_pickle)
}

/// The value of an entry: plain, and whether it is a list or dict or a tuple with one in it.
#[inline]
pub(super) fn value_object<'py>(
    py: Python<'py>,
    entry: Entry<'_>,
    codec: Codec,
) -> PyResult<(Bound<'py, PyAny>, bool)> {
    let (_, value) = parts(entry.meta(), entry.value())?;
    let plain = codec::decode(py, value, codec.allow_pickle)?;
    let nested = codec::is_container(value) || plain.cast_exact::<PyTuple>().is_ok_and(|tuple| holds_container(tuple));
    Ok((plain, nested))
}

/// Whether a list or dict is in a tuple, or in a tuple in it.
fn holds_container(tuple: &Bound<'_, PyTuple>) -> bool {
    tuple.iter_borrowed().any(|item| {
        item.is_exact_instance_of::<PyList>()
            || item.is_exact_instance_of::<PyDict>()
            || item.cast_exact::<PyTuple>().is_ok_and(|tuple| holds_container(&tuple))
    })
}
