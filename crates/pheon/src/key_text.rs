//! Keys as people and JSON write them: text.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date64Type, Decimal128Type, Decimal256Type};
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, TimeUnit};

use crate::key::{KeyRef, KeyType};

/// A key that owns its bytes; [`OwnedKey::as_ref`] gives the [`KeyRef`] of the same form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnedKey {
    /// As [`KeyRef::Bytes`].
    Bytes(Vec<u8>),
    /// As [`KeyRef::Fixed64`].
    Fixed64(u64),
    /// As [`KeyRef::I128`].
    I128(i128),
    /// As [`KeyRef::I256`].
    I256([u8; 32]),
}

/// Text that is no key of the type asked for: which text, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTextError {
    problem: String,
}

impl std::fmt::Display for KeyTextError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for KeyTextError {}

impl OwnedKey {
    /// The key, borrowed.
    #[allow(clippy::should_implement_trait)] // a KeyRef is no reference
    pub fn as_ref(&self) -> KeyRef<'_> {
        match self {
            Self::Bytes(b) => KeyRef::Bytes(b),
            Self::Fixed64(v) => KeyRef::Fixed64(*v),
            Self::I128(v) => KeyRef::I128(*v),
            Self::I256(v) => KeyRef::I256(*v),
        }
    }
}

/// Reads a key of this column type: strings as they are, bytes as text or as `0x` and hexadecimal digits, numbers, `true`
/// and `false`, ISO 8601 dates, times and timestamps, decimals. Nothing is rounded: what does not fit is an error.
///
/// # Errors
/// [`KeyTextError`] says what was expected.
pub fn parse_key(text: &str, data_type: &DataType) -> Result<OwnedKey, KeyTextError> {
    use DataType as D;
    let error = |expected: &str| KeyTextError { problem: format!("key {text:?} does not fit: expected {expected}") };
    Ok(match data_type {
        D::LargeUtf8 => OwnedKey::Bytes(text.as_bytes().to_vec()),
        D::LargeBinary => OwnedKey::Bytes(parse_bytes(text)?),
        D::FixedSizeBinary(n) => {
            let bytes = parse_bytes(text)?;
            if bytes.len() != *n as usize {
                return Err(error(&format!(
                    "{n} bytes, found {}; write 0x and hexadecimal digits for any bytes",
                    bytes.len()
                )));
            }
            OwnedKey::Bytes(bytes)
        }
        D::Boolean if text.eq_ignore_ascii_case("true") => OwnedKey::Fixed64(1),
        D::Boolean if text.eq_ignore_ascii_case("false") => OwnedKey::Fixed64(0),
        D::Boolean => return Err(error("true or false")),
        D::Int8 | D::Int16 | D::Int32 | D::Int64 => {
            let bits = data_type.primitive_width().unwrap_or(8) as u32 * 8;
            let (min, max) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
            let number = text.trim().parse::<i64>().ok().filter(|n| (min..=max).contains(n));
            OwnedKey::Fixed64(number.ok_or_else(|| error(&format!("an integer from {min} to {max}")))?.cast_unsigned())
        }
        D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => {
            let max = u64::MAX >> (64 - data_type.primitive_width().unwrap_or(8) as u32 * 8);
            let number = text.trim().parse::<u64>().ok().filter(|n| *n <= max);
            OwnedKey::Fixed64(number.ok_or_else(|| error(&format!("an integer from 0 to {max}")))?)
        }
        D::Duration(unit) => {
            let number = text.trim().parse::<i64>();
            OwnedKey::Fixed64(
                number
                    .map_err(|_| error(&format!("a duration as a whole number of {}", unit_name(*unit))))?
                    .cast_unsigned(),
            )
        }
        D::Date32 | D::Date64 => {
            if text.contains([':', 'T']) {
                return Err(error("a date such as 2024-01-31"));
            }
            fixed(&convert(text, data_type).ok_or_else(|| error("a date such as 2024-01-31"))?)
        }
        D::Time32(unit) | D::Time64(unit) => {
            check_fraction(text, *unit)?;
            fixed(&convert(text, data_type).ok_or_else(|| error("a time such as 12:30:00.5"))?)
        }
        D::Timestamp(unit, _) => {
            check_fraction(text, *unit)?;
            fixed(
                &convert(text, data_type)
                    .ok_or_else(|| error("a timestamp such as 2024-01-31T12:30:00.5 or with +02:00 or Z"))?,
            )
        }
        D::Decimal32(_, scale) | D::Decimal64(_, scale) | D::Decimal128(_, scale) | D::Decimal256(_, scale) => {
            let expected = format!("a number with at most {} digits behind the point", (*scale).max(0));
            let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
            let digits = |t: &str| t.bytes().all(|c| c.is_ascii_digit());
            let signless = whole.strip_prefix(['-', '+']).unwrap_or(whole);
            let places = fraction.trim_end_matches('0').len() as i64;
            let known = digits(signless) && digits(fraction) && !(signless.is_empty() && fraction.is_empty());
            if !known || places > i64::from((*scale).max(0)) || *scale < 0 {
                return Err(error(&expected));
            }
            decimal(&convert(text.trim(), data_type).ok_or_else(|| error(&format!("{expected}, within {data_type}")))?)
        }
        other => return Err(KeyTextError { problem: format!("keys of type {other} cannot be written as text") }),
    })
}

/// Bytes as text, or as `0x` and hexadecimal digits.
///
/// # Errors
/// [`KeyTextError`] if what follows `0x` are no such digits.
pub fn parse_bytes(text: &str) -> Result<Vec<u8>, KeyTextError> {
    let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) else {
        return Ok(text.as_bytes().to_vec());
    };
    let error = || KeyTextError {
        problem: format!("key {text:?} does not fit: expected an even number of hexadecimal digits after 0x"),
    };
    if hex.len() % 2 != 0 || !hex.is_ascii() {
        return Err(error());
    }
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).map_err(|_| error())).collect()
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

/// Refuses digits that the unit cannot hold.
fn check_fraction(text: &str, unit: TimeUnit) -> Result<(), KeyTextError> {
    let places = match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits: String = fraction.chars().take_while(char::is_ascii_digit).collect();
    if digits.trim_end_matches('0').len() > places {
        let problem = format!("key {text:?} does not fit: keys are stored in whole {}", unit_name(unit));
        return Err(KeyTextError { problem });
    }
    Ok(())
}

fn convert(text: &str, data_type: &DataType) -> Option<ArrayRef> {
    let array: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&array, data_type, &options).ok().filter(|a| a.is_valid(0))
}

/// The stored integer of a date, time or timestamp.
fn fixed(array: &ArrayRef) -> OwnedKey {
    let value = match array.data_type() {
        DataType::Date64 => array.as_primitive::<Date64Type>().value(0),
        data_type => {
            let bytes = array.to_data().buffers()[0].as_slice().to_vec();
            match data_type.primitive_width() {
                Some(4) => i64::from(i32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))),
                _ => i64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")),
            }
        }
    };
    OwnedKey::Fixed64(value.cast_unsigned())
}

fn decimal(array: &ArrayRef) -> OwnedKey {
    match KeyType::of(array.data_type()) {
        Some(KeyType::Decimal256) => OwnedKey::I256(array.as_primitive::<Decimal256Type>().value(0).to_le_bytes()),
        Some(KeyType::Decimal(16)) => OwnedKey::I128(array.as_primitive::<Decimal128Type>().value(0)),
        width => {
            let bytes = array.to_data().buffers()[0].as_slice().to_vec();
            OwnedKey::I128(match width {
                Some(KeyType::Decimal(4)) => i128::from(i32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))),
                _ => i128::from(i64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(v: i64) -> Result<OwnedKey, KeyTextError> {
        Ok(OwnedKey::Fixed64(v.cast_unsigned()))
    }

    fn bytes(b: &[u8]) -> Result<OwnedKey, KeyTextError> {
        Ok(OwnedKey::Bytes(b.to_vec()))
    }

    #[test]
    fn every_key_type() {
        use DataType as D;
        let us = D::Timestamp(TimeUnit::Microsecond, None);
        for (text, data_type, expected) in [
            ("0x61", D::LargeUtf8, bytes(b"0x61")),
            ("0x00fF", D::LargeBinary, bytes(&[0, 0xFF])),
            ("text", D::LargeBinary, bytes(b"text")),
            ("0x0102", D::FixedSizeBinary(2), bytes(&[1, 2])),
            ("True", D::Boolean, int(1)),
            ("false", D::Boolean, int(0)),
            ("-128", D::Int8, int(-128)),
            ("-9223372036854775808", D::Int64, int(i64::MIN)),
            ("18446744073709551615", D::UInt64, Ok(OwnedKey::Fixed64(u64::MAX))),
            ("1969-12-31", D::Date32, int(-1)),
            ("1970-01-02", D::Date64, int(86_400_000)),
            ("00:00:01.5", D::Time32(TimeUnit::Millisecond), int(1500)),
            ("00:00:01.5", D::Time64(TimeUnit::Nanosecond), int(1_500_000_000)),
            ("1970-01-01T00:00:01.000002", us.clone(), int(1_000_002)),
            ("1970-01-01 02:00:00+02:00", D::Timestamp(TimeUnit::Second, Some("UTC".into())), int(0)),
            ("-5", D::Duration(TimeUnit::Second), int(-5)),
            ("-1.50", D::Decimal32(5, 2), Ok(OwnedKey::I128(-150))),
            ("7", D::Decimal64(10, 1), Ok(OwnedKey::I128(70))),
            (".5", D::Decimal128(38, 10), Ok(OwnedKey::I128(5_000_000_000))),
        ] {
            assert_eq!(parse_key(text, &data_type), expected, "{text} as {data_type}");
        }
        let minus_one = parse_key("-1", &D::Decimal256(50, 0));
        assert_eq!(minus_one, Ok(OwnedKey::I256([0xFF; 32])));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        use DataType as D;
        for (text, data_type, hint) in [
            ("0x0", D::LargeBinary, "hexadecimal"),
            ("0xzz", D::LargeBinary, "hexadecimal"),
            ("0xä", D::LargeBinary, "hexadecimal"),
            ("abc", D::FixedSizeBinary(2), "2 bytes"),
            ("yes", D::Boolean, "true or false"),
            ("128", D::Int8, "-128 to 127"),
            ("-1", D::UInt16, "0 to 65535"),
            ("1.0", D::Int64, "an integer"),
            ("2024-02-30", D::Date32, "2024-01-31"),
            ("2024-02-03T01:00", D::Date32, "a date"),
            ("noon", D::Timestamp(TimeUnit::Second, None), "a timestamp"),
            ("1970-01-01T00:00:00.5", D::Timestamp(TimeUnit::Second, None), "whole seconds"),
            ("1.005", D::Decimal128(10, 2), "at most 2 digits"),
            ("1e3", D::Decimal128(10, 2), "a number"),
            ("", D::Decimal128(10, 2), "a number"),
            ("123456", D::Decimal32(5, 2), "within"),
            ("1", D::Float64, "cannot be written"),
        ] {
            let error = parse_key(text, &data_type).expect_err(text).to_string();
            assert!(error.contains(hint), "{text} as {data_type}: {error}");
        }
    }
}
