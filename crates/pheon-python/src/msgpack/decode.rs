//! MessagePack to Python objects. The bytes come from a file, so nothing about them is believed.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyList, PyString, PyTuple};
use rmp::Marker;

use super::{DEPTH_MAX, TUPLE};
use crate::errors::CorruptError;

/// The extension types that a reader knows beside tuples.
pub(crate) trait Extensions: Copy {
    /// All of them, for messages.
    const KNOWN: &'static str;

    /// The object of an extension's payload, which is to be read to its end; `None` if the type is not known. `depth` is
    /// the extension's own.
    fn object<'py>(
        self,
        py: Python<'py>,
        kind: i8,
        payload: &mut Reader<'_, Self>,
        depth: u32,
    ) -> PyResult<Option<Bound<'py, PyAny>>>;
}

/// The values of stored maps, as docs/format.md has them.
#[derive(Clone, Copy)]
struct TuplesOnly;

impl Extensions for TuplesOnly {
    const KNOWN: &'static str = "1 (tuple)";

    fn object<'py>(
        self,
        _: Python<'py>,
        _: i8,
        _: &mut Reader<'_, Self>,
        _: u32,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(None)
    }
}

/// The one object that the bytes of a stored map's value hold.
pub(crate) fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    decode_with(py, bytes, TuplesOnly)
}

/// The one object that `bytes` hold.
pub(crate) fn decode_with<'py, X: Extensions>(
    py: Python<'py>,
    bytes: &[u8],
    extensions: X,
) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader { rest: bytes, len: bytes.len(), extensions };
    let object = reader.object(py, 0)?;
    reader.end()?;
    Ok(object)
}

/// A value, or an extension's payload, being read.
pub(crate) struct Reader<'a, X> {
    rest: &'a [u8],
    len: usize,
    extensions: X,
}

impl<'a, X: Extensions> Reader<'a, X> {
    /// The error for what is wrong at the byte that comes next.
    pub(crate) fn corrupt(&self, problem: &str) -> PyErr {
        CorruptError::new_err(format!(
            "a msgpack value of {} bytes is damaged at byte {}: {problem}",
            self.len,
            self.len - self.rest.len()
        ))
    }

    /// Fails if anything is left.
    fn end(&self) -> PyResult<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("bytes after its end")) }
    }

    /// All that is left.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn take(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.corrupt(&format!("{len} bytes expected, {} left", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// The next bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn len8(&mut self) -> PyResult<usize> {
        Ok(usize::from(u8::from_be_bytes(self.array()?)))
    }

    fn len16(&mut self) -> PyResult<usize> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn len32(&mut self) -> PyResult<usize> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    fn object<'py>(&mut self, py: Python<'py>, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        if depth > DEPTH_MAX {
            return Err(self.corrupt("nested too deep"));
        }
        let marker = Marker::from_u8(u8::from_be_bytes(self.array()?));
        Ok(match marker {
            Marker::Null => py.None().into_bound(py),
            Marker::True => PyBool::new(py, true).to_owned().into_any(),
            Marker::False => PyBool::new(py, false).to_owned().into_any(),
            Marker::FixPos(v) => v.into_pyobject(py)?.into_any(),
            Marker::FixNeg(v) => v.into_pyobject(py)?.into_any(),
            Marker::U8 => u8::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::U16 => u16::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::U32 => u32::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::U64 => u64::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::I8 => i8::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::I16 => i16::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::I32 => i32::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::I64 => i64::from_be_bytes(self.array()?).into_pyobject(py)?.into_any(),
            Marker::F32 => PyFloat::new(py, f64::from(f32::from_be_bytes(self.array()?))).into_any(),
            Marker::F64 => PyFloat::new(py, f64::from_be_bytes(self.array()?)).into_any(),
            Marker::FixStr(len) => self.text(py, usize::from(len))?,
            Marker::Str8 => {
                let len = self.len8()?;
                self.text(py, len)?
            }
            Marker::Str16 => {
                let len = self.len16()?;
                self.text(py, len)?
            }
            Marker::Str32 => {
                let len = self.len32()?;
                self.text(py, len)?
            }
            Marker::Bin8 => {
                let len = self.len8()?;
                PyBytes::new(py, self.take(len)?).into_any()
            }
            Marker::Bin16 => {
                let len = self.len16()?;
                PyBytes::new(py, self.take(len)?).into_any()
            }
            Marker::Bin32 => {
                let len = self.len32()?;
                PyBytes::new(py, self.take(len)?).into_any()
            }
            Marker::FixArray(len) => self.list(py, usize::from(len), depth)?,
            Marker::Array16 => {
                let len = self.len16()?;
                self.list(py, len, depth)?
            }
            Marker::Array32 => {
                let len = self.len32()?;
                self.list(py, len, depth)?
            }
            Marker::FixMap(len) => self.dict(py, usize::from(len), depth)?,
            Marker::Map16 => {
                let len = self.len16()?;
                self.dict(py, len, depth)?
            }
            Marker::Map32 => {
                let len = self.len32()?;
                self.dict(py, len, depth)?
            }
            Marker::FixExt1 => self.extension(py, 1, depth)?,
            Marker::FixExt2 => self.extension(py, 2, depth)?,
            Marker::FixExt4 => self.extension(py, 4, depth)?,
            Marker::FixExt8 => self.extension(py, 8, depth)?,
            Marker::FixExt16 => self.extension(py, 16, depth)?,
            Marker::Ext8 => {
                let len = self.len8()?;
                self.extension(py, len, depth)?
            }
            Marker::Ext16 => {
                let len = self.len16()?;
                self.extension(py, len, depth)?
            }
            Marker::Ext32 => {
                let len = self.len32()?;
                self.extension(py, len, depth)?
            }
            Marker::Reserved => return Err(self.corrupt("0xc1 begins no value")),
        })
    }

    fn text<'py>(&mut self, py: Python<'py>, len: usize) -> PyResult<Bound<'py, PyAny>> {
        let bytes = self.take(len)?;
        let text = PyString::from_bytes(py, bytes);
        Ok(text.map_err(|e| self.corrupt(&format!("a string is not UTF-8: {e}")))?.into_any())
    }

    /// Grows with what is really there: a damaged length allocates nothing.
    fn items<'py>(&mut self, py: Python<'py>, len: usize, depth: u32) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut items = Vec::with_capacity(len.min(self.rest.len()));
        for _ in 0..len {
            items.push(self.object(py, depth + 1)?);
        }
        Ok(items)
    }

    fn list<'py>(&mut self, py: Python<'py>, len: usize, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyList::new(py, self.items(py, len, depth)?)?.into_any())
    }

    fn dict<'py>(&mut self, py: Python<'py>, len: usize, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        let dict = PyDict::new(py);
        for _ in 0..len {
            let key = self.object(py, depth + 1)?;
            let value = self.object(py, depth + 1)?;
            if dict.set_item(key, value).is_err() {
                return Err(self.corrupt("a dict's key cannot be hashed"));
            }
        }
        Ok(dict.into_any())
    }

    /// The items of the MessagePack array that comes next. `depth` is that of the object that they make.
    pub(crate) fn array_items<'py>(&mut self, py: Python<'py>, depth: u32) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let marker = Marker::from_u8(u8::from_be_bytes(self.array()?));
        let count = match marker {
            Marker::FixArray(n) => usize::from(n),
            Marker::Array16 => self.len16()?,
            Marker::Array32 => self.len32()?,
            _ => return Err(self.corrupt("a payload is no array")),
        };
        self.items(py, count, depth)
    }

    fn extension<'py>(&mut self, py: Python<'py>, len: usize, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        let kind = i8::from_be_bytes(self.array()?);
        let payload = self.take(len)?;
        let mut payload = Reader { rest: payload, len, extensions: self.extensions };
        let object = if kind == TUPLE {
            let items = payload.array_items(py, depth)?;
            PyTuple::new(py, items)?.into_any()
        } else {
            let Some(object) = self.extensions.object(py, kind, &mut payload, depth)? else {
                let problem = format!("extension type {kind} is not known; this version knows {}", X::KNOWN);
                return Err(self.corrupt(&problem));
            };
            object
        };
        payload.end()?;
        Ok(object)
    }
}
