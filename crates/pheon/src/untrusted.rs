//! Decoding what another program may have written. A checksum says that bytes are as they were written, not that they make
//! sense; arrow-ipc and parquet answer some nonsense with a panic, which here is an error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::types::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType};
use arrow_ipc::convert::fb_to_schema;
use arrow_schema::{ArrowError, DataType, SchemaRef};

/// Runs a decoder; a panic in it becomes an error that has its text.
pub(crate) fn guard<T>(decode: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(ArrowError::ParseError(text.unwrap_or("its parts contradict each other").to_owned()))
    })
}

/// A schema as Arrow IPC has it, if values can be of its types.
pub(crate) fn schema(encoded: arrow_ipc::Schema<'_>) -> Result<SchemaRef, ArrowError> {
    if encoded.fields().is_none() {
        return Err(ArrowError::ParseError("a schema without fields".to_owned()));
    }
    let schema = guard(|| Ok(fb_to_schema(encoded)))?;
    schema.fields().iter().try_for_each(|field| check(field.data_type()))?;
    Ok(Arc::new(schema))
}

/// Refuses types that no value has: those who compute with a type's numbers rely on it. Nesting is bounded by the reader of
/// the encoded schema.
pub(crate) fn check(data_type: &DataType) -> Result<(), ArrowError> {
    use DataType as D;
    // Other libraries make decimals with more digits after the point than there are digits.
    fn decimal<T: DecimalType>(precision: u8, scale: i8) -> Result<(), ArrowError> {
        match (1..=T::MAX_PRECISION).contains(&precision) && scale.unsigned_abs() <= T::MAX_SCALE.unsigned_abs() {
            true => Ok(()),
            false => {
                Err(ArrowError::ParseError(format!("decimals of {precision} digits, {scale} of them after the point")))
            }
        }
    }
    match data_type {
        D::FixedSizeBinary(size) | D::FixedSizeList(_, size) if *size < 0 => {
            return Err(ArrowError::ParseError(format!("a value of {size} bytes or items")));
        }
        D::Map(entries, _) if !matches!(entries.data_type(), D::Struct(fields) if fields.len() == 2) => {
            return Err(ArrowError::ParseError("a map whose entries are no pairs".to_owned()));
        }
        D::RunEndEncoded(ends, _) if !matches!(ends.data_type(), D::Int16 | D::Int32 | D::Int64) => {
            return Err(ArrowError::ParseError("runs whose ends are no numbers".to_owned()));
        }
        _ => {}
    }
    match data_type {
        D::Decimal32(precision, scale) => decimal::<Decimal32Type>(*precision, *scale),
        D::Decimal64(precision, scale) => decimal::<Decimal64Type>(*precision, *scale),
        D::Decimal128(precision, scale) => decimal::<Decimal128Type>(*precision, *scale),
        D::Decimal256(precision, scale) => decimal::<Decimal256Type>(*precision, *scale),
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::ListView(f) | D::LargeListView(f) | D::Map(f, _) => {
            check(f.data_type())
        }
        D::Struct(fields) => fields.iter().try_for_each(|f| check(f.data_type())),
        D::Union(fields, _) => fields.iter().try_for_each(|(_, f)| check(f.data_type())),
        D::RunEndEncoded(_, values) => check(values.data_type()),
        D::Dictionary(_, values) => check(values),
        _ => Ok(()),
    }
}
