//! Names of column types as people write them.

use std::sync::Arc;

use arrow_schema::{DataType, TimeUnit};

/// The type of this name: `str bytes bool int8..int64 uint8..uint64 float32 float64 date time timestamp`,
/// `timestamp[s|ms|us|ns]`, `timestamp[us,ZONE]`, `decimal(PRECISION,SCALE)`, or Arrow's own notation.
///
/// # Errors
/// Another name; the text lists what is known.
pub fn parse_type(name: &str) -> Result<DataType, String> {
    use DataType as D;
    let name = name.trim();
    Ok(match name {
        "str" | "string" | "utf8" => D::LargeUtf8,
        "bytes" | "binary" => D::LargeBinary,
        "bool" => D::Boolean,
        "int8" => D::Int8,
        "int16" => D::Int16,
        "int32" => D::Int32,
        "int" | "int64" => D::Int64,
        "uint8" => D::UInt8,
        "uint16" => D::UInt16,
        "uint32" => D::UInt32,
        "uint64" => D::UInt64,
        "float32" => D::Float32,
        "float" | "float64" => D::Float64,
        "date" => D::Date32,
        "time" => D::Time64(TimeUnit::Microsecond),
        "timestamp" | "datetime" => D::Timestamp(TimeUnit::Microsecond, None),
        _ => {
            return parse_parameters(name).or_else(|| name.parse().ok()).ok_or_else(|| {
                format!(
                    "{name:?} is not a type; expected str, bytes, bool, int8 to int64, uint8 to uint64, float32, float64, date, \
                     time, timestamp, timestamp[s|ms|us|ns], timestamp[us,UTC] or decimal(38,10)"
                )
            });
        }
    })
}

fn parse_parameters(name: &str) -> Option<DataType> {
    if let Some(inner) = name.strip_prefix("timestamp[").and_then(|n| n.strip_suffix(']')) {
        let (unit, zone) = match inner.split_once(',') {
            Some((unit, zone)) => (unit, Some(Arc::from(zone.trim()))),
            None => (inner, None),
        };
        let unit = match unit.trim() {
            "s" => TimeUnit::Second,
            "ms" => TimeUnit::Millisecond,
            "us" => TimeUnit::Microsecond,
            "ns" => TimeUnit::Nanosecond,
            _ => return None,
        };
        return Some(DataType::Timestamp(unit, zone));
    }
    let inner = name.strip_prefix("decimal(")?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',')?;
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    match precision {
        1..=38 => Some(DataType::Decimal128(precision, scale)),
        39..=76 => Some(DataType::Decimal256(precision, scale)),
        _ => None,
    }
}
