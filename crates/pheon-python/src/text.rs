//! Reading `str` objects as UTF-8 without leaving a copy of every one behind.
//!
//! The interpreter's own UTF-8 view of a `str` costs nothing for ASCII; for other text it is a copy that stays attached to the
//! object for its life. That is welcome for a key that is looked up, and a surprise for the millions of strings of a dict that
//! is being stored: there, after the first non-ASCII string, the next ones are encoded into temporary objects instead, so
//! that at most one string in [`ENCODE_RUN`] grows.

use std::sync::atomic::{AtomicU32, Ordering};

use arrow_array::builder::LargeStringBuilder;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

const ENCODE_RUN: u32 = 256;

/// Appends strings to a column.
#[derive(Default)]
pub(crate) struct TextReader {
    encode_next: u32,
}

impl TextReader {
    /// Appends one string; its length in UTF-8 bytes. Fails for lone surrogates.
    #[inline]
    pub(crate) fn append(&mut self, text: &Bound<'_, PyString>, out: &mut LargeStringBuilder) -> PyResult<usize> {
        if self.encode_next > 0 {
            self.encode_next -= 1;
            return append_encoded(&text.encode_utf8()?, out);
        }
        let text = text.to_str()?;
        if !text.is_ascii() {
            self.encode_next = ENCODE_RUN;
        }
        out.append_value(text);
        Ok(text.len())
    }
}

fn append_encoded(bytes: &Bound<'_, PyBytes>, out: &mut LargeStringBuilder) -> PyResult<usize> {
    let text = std::str::from_utf8(bytes.as_bytes()).map_err(|e| PyValueError::new_err(e.to_string()))?;
    out.append_value(text);
    Ok(text.len())
}

/// Reads one string as UTF-8, in the way of a [`TextReader`] that all callers share. Fails for lone surrogates.
#[inline]
pub(crate) fn with_utf8<T>(text: &Bound<'_, PyString>, read: impl FnOnce(&str) -> T) -> PyResult<T> {
    // Threads that count at once lose some counts, which costs a few copies more or less.
    static ENCODE_NEXT: AtomicU32 = AtomicU32::new(0);
    let next = ENCODE_NEXT.load(Ordering::Relaxed);
    if next > 0 {
        ENCODE_NEXT.store(next - 1, Ordering::Relaxed);
        let bytes = text.encode_utf8()?;
        let text = std::str::from_utf8(bytes.as_bytes()).map_err(|e| PyValueError::new_err(e.to_string()))?;
        return Ok(read(text));
    }
    let text = text.to_str()?;
    if !text.is_ascii() {
        ENCODE_NEXT.store(ENCODE_RUN, Ordering::Relaxed);
    }
    Ok(read(text))
}
