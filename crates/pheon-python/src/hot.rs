//! Objects of keys that are asked for again and again: such a key costs about what it costs in a dict.
//!
//! Sets of two ways, chosen by Python's own hash, which a `str` remembers. In a full set a key takes another's place only when
//! it is asked for the second time while no other key that is not there was between: keys that are asked for once push
//! nothing out. Where few keys repeat, none is kept, and most lookups do not even come here.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

const WAYS: usize = 2;
const SETS: usize = 2048;
/// Characters or bytes of a key and of a value: longer ones are not kept, so that all of them take 3 MiB at most, or, of text
/// that is not ASCII, up to some 13 MiB.
const LEN_MAX: usize = 256;

/// How much lookups must fail to find their key here before the next [`PAUSE`] lookups do not look.
const CREDIT: i32 = 16_384;
/// What a key that is found counts against keys that are not.
const HIT: i32 = 4;
const PAUSE: u32 = 65_536;
/// A map that is asked for few keys needs no memory for them.
const MISSES_MIN: i32 = 128;

/// Keys of one exact type among `str`, `bytes` and `int`, with values that run no Python code when they are freed.
#[derive(Debug, Default)]
pub(crate) struct Hot {
    sets: Vec<Set>,
    /// Misses more than hits.
    debit: i32,
    pause: u32,
}

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    ways: [Way; WAYS],
    /// The hash of the last key that was not there.
    asked: isize,
    /// Which way is given up next.
    next: bool,
}

#[derive(Debug, Default)]
struct Way {
    hash: isize,
    entry: Option<(Py<PyAny>, Py<PyAny>)>,
}

impl Hot {
    /// Whether to look here at all; one lookup has come nearer to the end of a pause.
    #[inline]
    pub(crate) fn is_open(&mut self) -> bool {
        if self.pause == 0 {
            return true;
        }
        self.pause -= 1;
        false
    }

    /// Whether no key is here, or few of those that are asked for.
    pub(crate) fn is_cold(&self) -> bool {
        self.sets.is_empty() || self.pause > 0
    }

    /// The value of a key with this hash.
    #[inline]
    pub(crate) fn get<'py>(&mut self, key: &Bound<'py, PyAny>, hash: isize) -> Option<Bound<'py, PyAny>> {
        let set = self.sets.get(index_of(hash))?;
        for way in &set.ways {
            if way.hash == hash
                && let Some((held, value)) = &way.entry
                && (held.is(key) || key.eq(held).unwrap_or(false))
            {
                self.debit = (self.debit - HIT).max(0);
                return Some(value.bind(key.py()).clone());
            }
        }
        None
    }

    /// Notes the value of a key that was not here.
    pub(crate) fn missed(&mut self, key: &Bound<'_, PyAny>, hash: isize, value: &Bound<'_, PyAny>) {
        self.debit += 1;
        if self.debit > CREDIT {
            // What is here is only memory now.
            *self = Self { pause: PAUSE, ..Self::default() };
            return;
        }
        if self.sets.is_empty() {
            if self.debit < MISSES_MIN {
                return;
            }
            self.sets.resize_with(SETS, Set::default);
        }
        let Some(set) = self.sets.get_mut(index_of(hash)) else { return };
        let empty = set.ways.iter().position(|way| way.entry.is_none());
        let again = std::mem::replace(&mut set.asked, hash) == hash;
        if !(again || empty.is_some()) || !is_small(key) || !is_small(value) {
            return;
        }
        let chosen = empty.unwrap_or(usize::from(set.next));
        set.next = chosen == 0;
        set.ways[chosen] = Way { hash, entry: Some((key.clone().unbind(), value.clone().unbind())) };
    }
}

/// Fibonacci hashing: small integers are their own hash in Python.
fn index_of(hash: isize) -> usize {
    (((hash as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize) % SETS
}

fn is_small(object: &Bound<'_, PyAny>) -> bool {
    let has_len = object.is_instance_of::<PyString>() || object.is_instance_of::<PyBytes>();
    !has_len || object.len().is_ok_and(|len| len <= LEN_MAX)
}
