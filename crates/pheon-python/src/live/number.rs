//! Numbers beyond MessagePack's: large ints, decimals, complex numbers, UUIDs; and what a number is as a key.

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyComplex, PyComplexMethods, PyDict, PyFloat, PyInt, PyString};
use rmp::encode as rmp_encode;

use super::extension::{self, COMPLEX, DECIMAL, INT, Live, UUID, written};
use super::shape::uuid_class;
use crate::decimal;
use crate::errors::schema_error;
use crate::msgpack::Reader;

/// Digits before the point of a `Decimal` that is a key. As a key it is the int that it equals, and `Decimal("1E+999999999")`
/// equals one that no memory holds.
const KEY_DIGITS_MAX: i64 = 100_000;
/// A float that is no whole number has at most 767 significant digits; a longer `Decimal` equals none.
const FLOAT_DIGITS_MAX: usize = 767;
/// 2^63, which no `i64` reaches.
const BEYOND_I64: f64 = 9_223_372_036_854_775_808.0;

#[inline]
pub(super) fn write_float(value: f64, out: &mut Vec<u8>) -> PyResult<()> {
    written(rmp_encode::write_f64(out, value))
}

#[inline]
pub(super) fn write_int(int: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> PyResult<()> {
    match int.extract::<i64>() {
        Ok(v) => written(rmp_encode::write_sint(out, v)),
        Err(_) => write_wide_int(int, out),
    }
}

#[cold]
fn write_wide_int(int: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> PyResult<()> {
    if let Ok(v) = int.extract::<u64>() {
        return written(rmp_encode::write_uint(out, v));
    }
    let py = int.py();
    let bits: usize = int.call_method0(pyo3::intern!(py, "bit_length"))?.extract()?;
    // One bit more, for the sign.
    let bytes = int.call_method(pyo3::intern!(py, "to_bytes"), (bits / 8 + 1, "big"), Some(&signed(py)?))?;
    extension::write(INT, bytes.cast::<PyBytes>()?.as_bytes(), out)
}

fn signed(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    [("signed", true)].into_py_dict(py)
}

pub(super) fn read_int<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let bytes = PyBytes::new(py, payload.take_rest());
    py.get_type::<PyInt>().call_method(pyo3::intern!(py, "from_bytes"), (bytes, "big"), Some(&signed(py)?))
}

/// Appends a float as a key: a whole number is the int that it equals. Whether a float comes back.
pub(super) fn write_key_float(py: Python<'_>, value: f64, out: &mut Vec<u8>) -> PyResult<bool> {
    if !value.is_finite() || value.fract() != 0.0 {
        write_float(value, out)?;
        return Ok(true);
    }
    if (-BEYOND_I64..BEYOND_I64).contains(&value) {
        written(rmp_encode::write_sint(out, value as i64))?;
    } else {
        let int = PyFloat::new(py, value).call_method0(pyo3::intern!(py, "__int__"))?;
        write_int(int.cast::<PyInt>()?, out)?;
    }
    Ok(false)
}

pub(super) fn write_complex(complex: &Bound<'_, PyComplex>, out: &mut Vec<u8>) -> PyResult<()> {
    write_parts(complex.real(), complex.imag(), out)
}

fn write_parts(real: f64, imaginary: f64, out: &mut Vec<u8>) -> PyResult<()> {
    let mut payload = [0; 16];
    payload[..8].copy_from_slice(&real.to_be_bytes());
    payload[8..].copy_from_slice(&imaginary.to_be_bytes());
    extension::write(COMPLEX, &payload, out)
}

pub(super) fn read_complex<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let (real, imaginary) = (f64::from_be_bytes(payload.array()?), f64::from_be_bytes(payload.array()?));
    Ok(PyComplex::from_doubles(py, real, imaginary).into_any())
}

/// Appends a complex number as a key: one on the real line is that number. Whether it comes back as it is.
pub(super) fn write_key_complex(complex: &Bound<'_, PyComplex>, out: &mut Vec<u8>) -> PyResult<bool> {
    let (real, imaginary) = (complex.real(), complex.imag());
    if imaginary == 0.0 {
        write_key_float(complex.py(), real, out)?;
        return Ok(false);
    }
    // -0.0 + 0.0 is 0.0.
    write_parts(real + 0.0, imaginary, out)?;
    Ok(real.to_bits() == (real + 0.0).to_bits())
}

pub(super) fn write_uuid(uuid: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let bytes = uuid.getattr(pyo3::intern!(uuid.py(), "bytes"))?;
    extension::write(UUID, bytes.cast::<PyBytes>()?.as_bytes(), out)
}

pub(super) fn read_uuid<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let bytes: [u8; 16] = payload.array()?;
    uuid_class(py)?.call1((py.None(), PyBytes::new(py, &bytes)))
}

/// What `str` gives for a `Decimal`: exact, and `Decimal` reads it. With `E` also where the context has small letters.
fn decimal_text(decimal: &Bound<'_, PyAny>) -> PyResult<String> {
    // Not decimal.str(), which a derived class may have changed.
    let text = decimal::class(decimal.py())?.call_method1(pyo3::intern!(decimal.py(), "__str__"), (decimal,))?;
    Ok(text.cast::<PyString>()?.to_str()?.replace('e', "E"))
}

pub(super) fn write_decimal(decimal: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    extension::write(DECIMAL, decimal_text(decimal)?.as_bytes(), out)
}

pub(super) fn read_decimal<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let bytes = payload.take_rest();
    // Decimal would also take spaces, underscores and other scripts' digits.
    if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)) {
        return Err(payload.corrupt("a Decimal has characters that belong to none"));
    }
    let text = PyString::from_bytes(py, bytes)?;
    decimal::class(py)?.call1((text,)).map_err(|e| payload.corrupt(&format!("no Decimal: {e}")))
}

/// Appends a `Decimal` as a key: the int or float that it equals, or itself without zeros at its end. Whether it comes
/// back as it is.
pub(super) fn write_key_decimal(decimal: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    let py = decimal.py();
    let text = decimal_text(decimal)?;
    let Some(number) = Scientific::parse(&text) else {
        if text.ends_with("Infinity") {
            let infinity = if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
            write_float(infinity, out)?;
            return Ok(false);
        }
        // A signalling NaN has no hash.
        decimal.hash()?;
        extension::write(DECIMAL, text.as_bytes(), out)?;
        return Ok(true);
    };
    if number.digits.is_empty() {
        written(rmp_encode::write_sint(out, 0))?;
        return Ok(false);
    }
    if number.exponent >= 0 {
        if number.exponent.saturating_add(number.digits.len() as i64) > KEY_DIGITS_MAX {
            return Err(schema_error(format!(
                "a Decimal of more than {KEY_DIGITS_MAX} digits before the point cannot be a key"
            )));
        }
        let int = decimal.call_method0(pyo3::intern!(py, "__int__"))?;
        write_int(int.cast::<PyInt>()?, out)?;
        return Ok(false);
    }
    // Halves, quarters and so on have a 5 as their last digit.
    if number.digits.ends_with('5') && number.digits.len() <= FLOAT_DIGITS_MAX {
        let float: f64 = decimal.call_method0(pyo3::intern!(py, "__float__"))?.extract()?;
        if float.is_finite()
            && decimal::class(py)?.call_method1(pyo3::intern!(py, "from_float"), (float,))?.eq(decimal)?
        {
            write_float(float, out)?;
            return Ok(false);
        }
    }
    let Scientific { negative, digits, exponent, zeros } = number;
    let sign = if negative { "-" } else { "" };
    extension::write(DECIMAL, format!("{sign}{digits}E{exponent}").as_bytes(), out)?;
    Ok(zeros == 0)
}

/// A finite decimal as `digits * 10^exponent`, without zeros at either end of the digits; no digits: it is zero.
struct Scientific {
    negative: bool,
    digits: String,
    exponent: i64,
    /// How many zeros were taken from the end.
    zeros: usize,
}

impl Scientific {
    /// Reads what `str` gives for a `Decimal`; `None` for infinities and NaNs.
    fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |t| (true, t));
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (mantissa, exponent) = text.split_once('E').unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        let zeros = all.len() - digits.len();
        let exponent = exponent.parse::<i64>().ok()? - fraction.len() as i64 + zeros as i64;
        Some(Self { negative, digits: digits.trim_start_matches('0').to_owned(), exponent, zeros })
    }
}
