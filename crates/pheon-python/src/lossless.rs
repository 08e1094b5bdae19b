//! Conversions between Arrow types that change no value: what a column begun with one type takes of another.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::DataType;

/// Types whose values mean the same kind of thing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Null,
    Bool,
    Text,
    Bytes,
    Integer,
    Float,
    Decimal,
    Date,
    Time,
    /// True: with a time zone. Two zones are two ways to write the same instant.
    Timestamp(bool),
    Duration,
}

fn class(data_type: &DataType) -> Option<Class> {
    use DataType as D;
    Some(match data_type {
        D::Null => Class::Null,
        D::Boolean => Class::Bool,
        D::Utf8 | D::LargeUtf8 | D::Utf8View => Class::Text,
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => Class::Bytes,
        t if t.is_integer() => Class::Integer,
        t if t.is_floating() => Class::Float,
        t if t.is_decimal() => Class::Decimal,
        D::Date32 | D::Date64 => Class::Date,
        D::Time32(_) | D::Time64(_) => Class::Time,
        D::Timestamp(_, zone) => Class::Timestamp(zone.is_some()),
        D::Duration(_) => Class::Duration,
        _ => return None,
    })
}

/// Whether values of `from` are of the kind that `to` holds; each of them may still be too large or too fine.
fn is_alike(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    match (from, to) {
        (D::Dictionary(_, value), _) => is_alike(value, to),
        (_, D::Dictionary(_, value)) => is_alike(from, value),
        (
            D::List(a) | D::LargeList(a) | D::FixedSizeList(a, _),
            D::List(b) | D::LargeList(b) | D::FixedSizeList(b, _),
        ) => is_alike(a.data_type(), b.data_type()),
        (D::Struct(a), D::Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && is_alike(a.data_type(), b.data_type()))
        }
        _ => match (class(from), class(to)) {
            (Some(Class::Null), _) => true,
            (Some(Class::Integer), Some(Class::Float | Class::Decimal)) => true,
            (Some(a), Some(b)) => a == b,
            _ => from == to,
        },
    }
}

/// `array` as `to`, or why that would change a value.
///
/// Text, binary data, integers, floats, decimals, dates, times, timestamps and durations become another type of their
/// class, and integers become floats and decimals, if each value comes back the same.
pub(crate) fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    if !is_alike(array.data_type(), to) {
        return Err(format!("{} values are not stored as {to}", array.data_type()));
    }
    if array.data_type() == &DataType::Null {
        return Ok(new_null_array(to, array.len()));
    }
    // A value that the type cannot hold is an error, not a null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |array: &ArrayRef, to: &DataType| cast_with_options(array, to, &options).map_err(|e| e.to_string());
    let plain = match array.data_type() {
        DataType::Dictionary(_, value) => cast(array, value)?,
        _ => Arc::clone(array),
    };
    let converted = cast(&plain, to)?;
    let back = cast(&converted, plain.data_type()).map_err(|e| format!("a value does not fit {to}: {e}"))?;
    if back.null_count() != plain.null_count() || back.to_data() != plain.to_data() {
        return Err(format!("a value does not fit {to} without loss"));
    }
    Ok(converted)
}
