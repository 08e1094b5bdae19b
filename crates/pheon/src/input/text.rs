//! Values from text, exactly or not at all. arrow's own parsers cut off what a type cannot hold: the time of a date, digits
//! behind the point, a zone; and they take more spellings than inference does, so that texts that differ would become equal.

use std::sync::Arc;

use arrow_array::types::{
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float64Type, Int64Type,
};
use arrow_array::{Array, ArrayRef, ArrowNativeTypeOp, PrimitiveArray, StringViewArray};
use arrow_buffer::ArrowNativeType;
use arrow_cast::parse::Parser;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, TimeUnit};

use super::csv_infer::{Guess, is_integer};

/// A text that is no value of its column's type.
#[derive(Debug)]
pub(super) struct Misfit {
    /// Its row in the array.
    pub(super) row: usize,
    /// Why, where the type alone does not say it; begins with a colon.
    pub(super) reason: String,
}

/// Values of this type from text; null stays null. `inferred`: the type was found in the text of other rows, and a text that
/// would have led to another type does not fit.
pub(super) fn convert(texts: &StringViewArray, data_type: &DataType, inferred: bool) -> Result<ArrayRef, Misfit> {
    use DataType as D;
    let misfit = |row| move |reason| Misfit { row, reason };
    match data_type {
        D::Int64 if inferred => primitive::<Int64Type>(texts, integer),
        D::Float64 if inferred => primitive::<Float64Type>(texts, float),
        D::Decimal32(precision, scale) => decimals::<Decimal32Type>(texts, *precision, *scale),
        D::Decimal64(precision, scale) => decimals::<Decimal64Type>(texts, *precision, *scale),
        D::Decimal128(precision, scale) => decimals::<Decimal128Type>(texts, *precision, *scale),
        D::Decimal256(precision, scale) => decimals::<Decimal256Type>(texts, *precision, *scale),
        D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_) | D::Timestamp(..) => {
            for (row, text) in texts.iter().enumerate() {
                let Some(text) = text else { continue };
                check(text, data_type).map_err(misfit(row))?;
                if inferred && !Guess::of_shape(text).fits(data_type) {
                    return Err(Misfit { row, reason: String::new() });
                }
            }
            cast(texts, data_type)
        }
        _ => cast(texts, data_type),
    }
}

/// Whether all of `text` would be in a date, time or timestamp of this type, if it is one.
fn check(text: &str, data_type: &DataType) -> Result<(), String> {
    use DataType as D;
    match data_type {
        D::Date32 | D::Date64 => {
            let has_time = matches!(text.trim_ascii().as_bytes().get(10), Some(b'T' | b't' | b' '));
            if has_time { Err(": it has a time, which a date cannot hold".to_owned()) } else { Ok(()) }
        }
        D::Time32(unit) | D::Time64(unit) => check_fraction(text, *unit),
        D::Timestamp(unit, zone) => {
            if zone.is_none() && super::csv_infer::has_zone(text.trim_ascii()) {
                let problem =
                    ": it has a time zone, and the column has none; choose a type with one, as timestamp[us,UTC]";
                return Err(problem.to_owned());
            }
            check_fraction(text, *unit)
        }
        _ => Ok(()),
    }
}

/// Refuses digits that the unit cannot hold.
fn check_fraction(text: &str, unit: TimeUnit) -> Result<(), String> {
    let (places, name) = match unit {
        TimeUnit::Second => (0, "seconds"),
        TimeUnit::Millisecond => (3, "milliseconds"),
        TimeUnit::Microsecond => (6, "microseconds"),
        TimeUnit::Nanosecond => (9, "nanoseconds"),
    };
    if fraction_digits(text) > places {
        return Err(format!(": the column holds whole {name}"));
    }
    Ok(())
}

/// How many digits stand behind the first point, without zeros at their end.
pub(super) fn fraction_digits(text: &str) -> usize {
    let Some(point) = text.bytes().position(|c| c == b'.') else { return 0 };
    let digits = text.as_bytes()[point + 1..].iter().take_while(|c| c.is_ascii_digit());
    digits.enumerate().filter(|(_, digit)| **digit != b'0').last().map_or(0, |(at, _)| at + 1)
}

/// Whether a float of 64 bits is this integer.
pub(super) fn is_exact(integer: i128) -> bool {
    (integer as f64) as i128 == integer
}

/// As [`Guess::see`] takes integers: no plus, no zeros in front, no blanks.
#[inline]
fn integer(text: &str) -> Result<i64, String> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let plain = match digits {
        [b'1'..=b'9', ..] => true,
        [b'0'] => !negative,
        _ => false,
    };
    if !plain {
        return Err(String::new());
    }
    if digits.len() > 18 {
        return text.parse().map_err(|_| String::new());
    }
    let mut value = 0i64;
    for c in digits {
        let digit = c.wrapping_sub(b'0');
        if digit > 9 {
            return Err(String::new());
        }
        value = value * 10 + i64::from(digit);
    }
    Ok(if negative { -value } else { value })
}

/// As [`Guess::see`] takes floats; an integer among them must be what the float is.
#[inline]
fn float(text: &str) -> Result<f64, String> {
    let plain = match text.as_bytes() {
        [b'-', rest @ ..] => rest,
        rest => rest,
    };
    // Blanks are cut off by the parser.
    let is_plain = matches!(plain, [b'1'..=b'9', .., b'0'..=b'9'] | [b'0', b'.', .., b'0'..=b'9']);
    if !is_plain && !Guess::of(text).fits(&DataType::Float64) {
        return Err(String::new());
    }
    let value = Float64Type::parse(text).ok_or_else(String::new)?;
    if value.abs() >= 9_007_199_254_740_992.0 && is_integer(text) && !text.parse().is_ok_and(is_exact) {
        return Err(": a float does not hold this integer exactly".to_owned());
    }
    Ok(value)
}

fn primitive<T: arrow_array::ArrowPrimitiveType>(
    texts: &StringViewArray,
    parse: impl Fn(&str) -> Result<T::Native, String>,
) -> Result<ArrayRef, Misfit> {
    let mut values = Vec::with_capacity(texts.len());
    if let Some(nulls) = texts.nulls() {
        for row in 0..texts.len() {
            let value = if nulls.is_null(row) { Ok(T::Native::default()) } else { parse(texts.value(row)) };
            values.push(value.map_err(|reason| Misfit { row, reason })?);
        }
    } else {
        for row in 0..texts.len() {
            values.push(parse(texts.value(row)).map_err(|reason| Misfit { row, reason })?);
        }
    }
    Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), texts.nulls().cloned())))
}

fn decimals<T: DecimalType>(texts: &StringViewArray, precision: u8, scale: i8) -> Result<ArrayRef, Misfit> {
    let array = primitive::<T>(texts, |text| decimal::<T>(text, precision, scale))?;
    let array = array.as_any().downcast_ref::<PrimitiveArray<T>>().expect("the type just made").clone();
    let array = array.with_precision_and_scale(precision, scale);
    // No value is at fault; such types are refused before a file is read.
    Ok(Arc::new(array.map_err(|e| Misfit { row: 0, reason: format!(": {e}") })?))
}

/// A decimal as `-12.50` or `1.25e3`, blanks around it allowed. `scale` is not negative.
fn decimal<T: DecimalType>(text: &str, precision: u8, scale: i8) -> Result<T::Native, String> {
    let trimmed = text.trim_ascii();
    let (number, exponent) = match trimmed.split_once(['e', 'E']) {
        // Whatever lies beyond these is beyond every column.
        Some((number, exponent)) => {
            (number, exponent.parse::<i64>().map_err(|_| String::new())?.clamp(-1 << 40, 1 << 40))
        }
        None => (trimmed, 0),
    };
    let unsigned = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(String::new());
    }
    let digits = || whole.bytes().chain(fraction.bytes()).skip_while(|c| *c == b'0');
    let (significant, zeros_at_end) =
        digits().fold((0i64, 0i64), |(all, zeros), c| (all + 1, if c == b'0' { zeros + 1 } else { 0 }));
    if significant == 0 {
        return Ok(T::Native::default());
    }
    // The value in the column's units is its digits times ten to this.
    let power = exponent - fraction.len() as i64 + i64::from(scale);
    if power < -zeros_at_end {
        return Err(format!(": the column holds {scale} digits behind the point"));
    }
    let kept = significant + power;
    if kept > i64::from(precision) {
        return Err(format!(": the column holds {precision} digits, {scale} of them behind the point"));
    }
    let ten = T::Native::usize_as(10);
    let value = digits().chain(std::iter::repeat(b'0')).take(kept as usize).fold(T::Native::default(), |value, c| {
        value.mul_wrapping(ten).add_wrapping(T::Native::usize_as(usize::from(c - b'0')))
    });
    Ok(if number.starts_with('-') { value.neg_wrapping() } else { value })
}

fn cast(texts: &StringViewArray, data_type: &DataType) -> Result<ArrayRef, Misfit> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let one =
        |array: &StringViewArray| -> Result<ArrayRef, ArrowError> { cast_with_options(array, data_type, &options) };
    one(texts).map_err(|error| {
        let row = (0..texts.len()).find(|row| one(&texts.slice(*row, 1)).is_err());
        match row {
            Some(row) => Misfit { row, reason: String::new() },
            None => Misfit { row: 0, reason: format!(": {error}") },
        }
    })
}
