//! A single value, borrowed from the mapping where its type allows.

use arrow_array::ArrayRef;
use arrow_schema::DataType;

use crate::segment::column::fixed64;

/// One value of a column.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Null. Of lists, maps, unions and structs that hold one of these or a dictionary: an `Array` of one null instead.
    Null,
    /// Boolean.
    Bool(bool),
    /// Int8 to Int64.
    Int(i64),
    /// UInt8 to UInt64.
    UInt(u64),
    /// Float16 to Float64.
    Float(f64),
    /// LargeUtf8, checked.
    Str(&'a str),
    /// LargeBinary and FixedSizeBinary.
    Bytes(&'a [u8]),
    /// Any other type: the one-row slice of its column.
    Array(ArrayRef),
}

impl Value<'_> {
    /// Reads a fixed-width value; `None` for types that are handed out as arrays.
    pub(crate) fn of_fixed<'a>(data_type: &DataType, bytes: &'a [u8]) -> Option<Value<'a>> {
        use DataType as D;
        Some(match data_type {
            D::Int8 | D::Int16 | D::Int32 | D::Int64 => Value::Int(fixed64(bytes, true).cast_signed()),
            D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => Value::UInt(fixed64(bytes, false)),
            D::Float16 => Value::Float(arrow_float16(bytes)),
            D::Float32 => Value::Float(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
            D::Float64 => Value::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            D::FixedSizeBinary(_) => Value::Bytes(bytes),
            _ => return None,
        })
    }
}

/// IEEE 754 binary16, exactly.
fn arrow_float16(bytes: &[u8]) -> f64 {
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1F), f64::from(bits & 0x3FF));
    let magnitude = match exponent {
        0 => fraction * f64::powi(2.0, -24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * f64::powi(2.0, exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats() {
        let read = |bits: u16| arrow_float16(&bits.to_le_bytes());
        assert_eq!(read(0x3C00), 1.0);
        assert_eq!(read(0xC000), -2.0);
        assert_eq!(read(0x0001), 5.960_464_477_539_063e-8);
        assert_eq!(read(0x7C00), f64::INFINITY);
        assert!(read(0x7E00).is_nan());
    }
}
