//! Decimals: `decimal.Decimal` to Arrow's unscaled integers and back.

use std::cmp::Ordering;

use arrow_buffer::i256;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};

/// Digits that Decimal128 can hold.
pub(crate) const DIGITS_MAX: u32 = 38;

/// `decimal.Decimal`.
pub(crate) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "decimal", "Decimal")
}

/// A finite decimal as `digits * 10^-scale`, as it was written (trailing zeros count).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unscaled {
    value: i128,
    scale: i32,
}

impl Unscaled {
    /// Reads a `Decimal`; `None` for infinities, NaN and more than 38 digits.
    pub(crate) fn of(decimal: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let parts = decimal.call_method0(pyo3::intern!(decimal.py(), "as_tuple"))?.cast_into::<PyTuple>()?;
        // The exponent of infinities and NaN is a letter.
        let Ok(exponent) = parts.get_item(2)?.extract::<i32>() else { return Ok(None) };
        let mut value: i128 = 0;
        for digit in parts.get_item(1)?.cast::<PyTuple>()?.iter() {
            let digit: i128 = digit.extract()?;
            match value.checked_mul(10).and_then(|v| v.checked_add(digit)) {
                Some(v) if v < 10i128.pow(DIGITS_MAX) => value = v,
                _ => return Ok(None),
            }
        }
        let negative: u8 = parts.get_item(0)?.extract()?;
        Ok(Some(Self { value: if negative == 1 { -value } else { value }, scale: -exponent }))
    }

    /// An integer.
    pub(crate) fn of_int(value: i128) -> Self {
        Self { value, scale: 0 }
    }

    /// Digits after the point that it needs as written; 0 for whole numbers.
    pub(crate) fn scale(self) -> i32 {
        self.scale.max(0)
    }

    /// The unscaled value at another scale, if that is exact and has at most `digits` digits.
    pub(crate) fn rescale(self, scale: i32, digits: u32) -> Option<i128> {
        let mut value = self.value;
        if value == 0 {
            return Some(0);
        }
        let mut from = self.scale;
        while from < scale {
            value = value.checked_mul(10)?;
            from += 1;
        }
        while from > scale {
            if value % 10 != 0 {
                return None;
            }
            value /= 10;
            from -= 1;
        }
        (value.unsigned_abs() < 10u128.pow(digits.min(DIGITS_MAX))).then_some(value)
    }

    /// The least unscaled value at another scale that is not less than this number; beyond `digits` digits, on which side.
    pub(crate) fn ceil(self, scale: i32, digits: u32) -> Result<i128, Ordering> {
        let (mut value, mut from) = (self.value, self.scale);
        let beyond = self.value.cmp(&0);
        while from < scale && value != 0 {
            value = value.checked_mul(10).ok_or(beyond)?;
            from += 1;
        }
        while from > scale && value != 0 {
            let rest = value % 10;
            value = value / 10 + i128::from(rest > 0);
            from -= 1;
        }
        if value.unsigned_abs() < 10u128.pow(digits.min(DIGITS_MAX)) { Ok(value) } else { Err(beyond) }
    }
}

/// A `Decimal` of an unscaled value printed in decimal digits.
fn decimal_of_digits<'py>(py: Python<'py>, digits: &str, scale: i32) -> PyResult<Bound<'py, PyAny>> {
    class(py)?.call1((PyString::new(py, &format!("{digits}E{}", -scale)),))
}

/// `value * 10^-scale` as a `Decimal`.
pub(crate) fn decimal_of_i128(py: Python<'_>, value: i128, scale: i32) -> PyResult<Bound<'_, PyAny>> {
    decimal_of_digits(py, &value.to_string(), scale)
}

/// `value * 10^-scale` as a `Decimal`.
pub(crate) fn decimal_of_i256(py: Python<'_>, value: i256, scale: i32) -> PyResult<Bound<'_, PyAny>> {
    decimal_of_digits(py, &value.to_string(), scale)
}
