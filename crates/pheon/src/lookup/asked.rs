//! Turning the keys of a caller's Arrow array into keys of the dataset's type.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BinaryArray, LargeBinaryArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer, i256};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, TimeUnit};

use crate::key::composite::{PartAt, encode_rows};
use crate::key::{KeyRef, KeyType};

/// A key column: its name, its key type and its type.
pub(crate) type AskedColumn<'a> = (&'a str, KeyType, &'a DataType);

/// Keys of a batch, in a form that the lookup loops take.
pub(crate) enum Keys {
    /// A binary array with 32- or 64-bit offsets, also for string keys; of keys of several columns always 64-bit.
    Bytes(ArrayRef),
    /// Values extended to 64 bits. Null: cannot be in the dataset.
    Words(ScalarBuffer<u64>, Option<NullBuffer>),
    /// Unscaled decimals.
    Wide(Vec<Option<KeyRef<'static>>>),
}

/// Why an array cannot be a batch of keys.
pub(crate) enum NotKeys {
    /// Its type does not fit.
    Type,
    /// A kernel failed.
    Arrow(ArrowError),
}

impl From<ArrowError> for NotKeys {
    fn from(e: ArrowError) -> Self {
        Self::Arrow(e)
    }
}

impl Keys {
    /// Converts `array` without loss: a value that the key type cannot hold becomes a null, which is never found.
    pub(crate) fn of(array: &ArrayRef, key_type: KeyType, column_type: &DataType) -> Result<Self, NotKeys> {
        use DataType as D;
        match array.data_type() {
            D::Dictionary(_, values) => return Self::of(&cast(array, values)?, key_type, column_type),
            D::RunEndEncoded(_, values) => return Self::of(&cast(array, values.data_type())?, key_type, column_type),
            D::Null => {
                let none = ScalarBuffer::from(vec![0; array.len()]);
                return Ok(match key_type {
                    KeyType::Utf8 | KeyType::Binary | KeyType::FixedBinary(_) | KeyType::Composite => {
                        Self::Bytes(cast(array, &D::LargeBinary)?)
                    }
                    KeyType::Decimal(_) | KeyType::Decimal256 => Self::Wide(vec![None; array.len()]),
                    _ => Self::Words(none, Some(NullBuffer::new_null(array.len()))),
                });
            }
            _ => {}
        }
        let found = array.data_type();
        match key_type {
            KeyType::Utf8 => match found {
                D::Utf8 => Ok(Self::Bytes(Arc::new(BinaryArray::from(array.as_string::<i32>().clone())))),
                D::LargeUtf8 => Ok(Self::Bytes(Arc::new(LargeBinaryArray::from(array.as_string::<i64>().clone())))),
                D::Utf8View => Self::of(&cast(array, &D::LargeUtf8)?, key_type, column_type),
                _ => Err(NotKeys::Type),
            },
            KeyType::Binary | KeyType::FixedBinary(_) => match found {
                D::Binary | D::LargeBinary => Ok(Self::Bytes(array.clone())),
                D::BinaryView | D::FixedSizeBinary(_) => Ok(Self::Bytes(cast(array, &D::LargeBinary)?)),
                _ => Err(NotKeys::Type),
            },
            KeyType::Decimal(_) | KeyType::Decimal256 => wide(array, key_type, column_type),
            KeyType::Bool if *found == D::Boolean => Ok(words_of_integers(&cast(array, &D::UInt8)?, false)),
            KeyType::Bool | KeyType::Composite => Err(NotKeys::Type),
            KeyType::Signed(_) | KeyType::Unsigned(_) => {
                let signed = matches!(key_type, KeyType::Signed(_));
                if column_type.is_integer() {
                    if found.is_integer() { Ok(words_of_integers(array, signed)) } else { Err(NotKeys::Type) }
                } else {
                    words_of_times(array, column_type)
                }
            }
        }
    }
}

impl Keys {
    /// The keys of several columns from an array of structs. Its fields are taken by name, others than the key's are left
    /// alone; if none of the names is there, by their order, and then there must be as many as key columns.
    pub(crate) fn of_struct(array: &ArrayRef, key: &[AskedColumn<'_>]) -> Result<Self, NotKeys> {
        match array.data_type() {
            DataType::Struct(_) => {}
            DataType::Null => return Ok(Self::Bytes(cast(array, &DataType::LargeBinary)?)),
            _ => return Err(NotKeys::Type),
        }
        let array = array.as_struct();
        let by_name: Vec<_> = key.iter().map(|(name, ..)| array.column_by_name(name)).collect();
        let columns: Vec<&ArrayRef> = match by_name.iter().flatten().count() {
            0 if array.num_columns() == key.len() => array.columns().iter().collect(),
            found if found == key.len() => by_name.into_iter().flatten().collect(),
            _ => return Err(NotKeys::Type),
        };
        let keys = std::iter::zip(&columns, key)
            .map(|(column, (_, key_type, data_type))| Self::of(column, *key_type, data_type))
            .collect::<Result<Vec<_>, _>>()?;
        let parts: Vec<(KeyType, Box<PartAt<'_>>)> =
            std::iter::zip(&keys, key).map(|(keys, (_, key_type, _))| (*key_type, keys.at())).collect();
        let (offsets, bytes, valid) = encode_rows(array.len(), &parts);
        let nulls = NullBuffer::union(Some(&NullBuffer::from(valid)), array.nulls());
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let encoded = LargeBinaryArray::try_new(offsets, Buffer::from_vec(bytes), nulls)?;
        Ok(Self::Bytes(Arc::new(encoded)))
    }

    /// The keys one by one.
    fn at(&self) -> Box<PartAt<'_>> {
        use DataType as D;
        match self {
            Self::Bytes(array) => match array.data_type() {
                D::Binary => Box::new(|i| array.is_valid(i).then(|| array.as_binary::<i32>().value(i).into())),
                _ => Box::new(|i| array.is_valid(i).then(|| array.as_binary::<i64>().value(i).into())),
            },
            Self::Words(values, nulls) => {
                Box::new(|i| (!nulls.as_ref().is_some_and(|n| n.is_null(i))).then(|| values[i].into()))
            }
            Self::Wide(keys) => Box::new(|i| keys[i]),
        }
    }
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: true, ..CastOptions::default() })
}

/// Integers (and what is stored as such) extended to 64 bits; those of the other signedness that do not fit become null.
fn words_of_integers(array: &ArrayRef, column_signed: bool) -> Keys {
    let (values, signed) = extend(array);
    let mut nulls = array.logical_nulls();
    if signed != column_signed && values.iter().any(|v| v >> 63 == 1) {
        let fits = NullBuffer::from_iter(values.iter().map(|v| v >> 63 == 0));
        nulls = NullBuffer::union(nulls.as_ref(), Some(&fits));
    }
    Keys::Words(values, nulls)
}

/// The numbers of an array as 64-bit words, without a copy where they are that already, and whether they are signed.
fn extend(array: &ArrayRef) -> (ScalarBuffer<u64>, bool) {
    let data = array.to_data();
    let width = data.data_type().primitive_width().expect("only called for primitive arrays");
    let signed = !data.data_type().is_unsigned_integer();
    if width == 8 {
        return (ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len()), signed);
    }
    let bytes = &data.buffers()[0].as_slice()[data.offset() * width..(data.offset() + data.len()) * width];
    (bytes.chunks_exact(width).map(|b| crate::segment::column::fixed64(b, signed)).collect(), signed)
}

/// The family of a date or time type, within which values convert, and the length of its tick in nanoseconds.
fn tick(data_type: &DataType) -> Option<(Family, i128)> {
    use DataType as D;
    let of = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    Some(match data_type {
        D::Date32 => (Family::Date, 86_400_000_000_000),
        D::Date64 => (Family::Date, 1_000_000),
        D::Time32(unit) | D::Time64(unit) => (Family::TimeOfDay, of(unit)),
        D::Timestamp(unit, None) => (Family::Local, of(unit)),
        D::Timestamp(unit, Some(_)) => (Family::Instant, of(unit)),
        D::Duration(unit) => (Family::Duration, of(unit)),
        _ => return None,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Date,
    TimeOfDay,
    /// Timestamps without a time zone.
    Local,
    /// Timestamps with one, whichever: the stored number does not depend on it.
    Instant,
    Duration,
}

/// Dates and times in the column's unit; values that it cannot express (a finer unit, out of range) become null.
///
/// Not by Arrow's cast kernels: they round, and some fail on the first value out of range.
fn words_of_times(array: &ArrayRef, column_type: &DataType) -> Result<Keys, NotKeys> {
    let (Some((from, from_ns)), Some((to, to_ns))) = (tick(array.data_type()), tick(column_type)) else {
        return Err(NotKeys::Type);
    };
    let related = from == to || matches!((from, to), (Family::Date, Family::Local) | (Family::Local, Family::Date));
    if !related {
        return Err(NotKeys::Type);
    }
    let (mut values, _) = extend(array);
    let mut nulls = array.logical_nulls();
    if from_ns != to_ns {
        let mut converted = values.to_vec();
        let narrow = column_type.primitive_width() == Some(4);
        let mut fits = Vec::with_capacity(values.len());
        for value in &mut converted {
            let nanoseconds = i128::from(value.cast_signed()) * from_ns;
            let there = i64::try_from(nanoseconds / to_ns).ok().filter(|_| nanoseconds % to_ns == 0);
            let there = there.filter(|&v| !narrow || i32::try_from(v).is_ok());
            fits.push(there.is_some());
            *value = there.unwrap_or(0).cast_unsigned();
        }
        values = converted.into();
        nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::from(fits)));
    }
    Ok(Keys::Words(values, nulls))
}

/// Integers and decimals as unscaled values of the column's scale; those that it cannot express become `None`.
fn wide(array: &ArrayRef, key_type: KeyType, column_type: &DataType) -> Result<Keys, NotKeys> {
    use DataType as D;
    fn all<T: ArrowPrimitiveType>(array: &ArrayRef, widen: impl Fn(T::Native) -> i256) -> Vec<Option<i256>> {
        array.as_primitive::<T>().iter().map(|v| v.map(&widen)).collect()
    }
    let signed = |v: i128| i256::from_i128(v);
    let values = match array.data_type() {
        D::Decimal32(..) => all::<Decimal32Type>(array, |v| signed(v.into())),
        D::Decimal64(..) => all::<Decimal64Type>(array, |v| signed(v.into())),
        D::Decimal128(..) => all::<Decimal128Type>(array, signed),
        D::Decimal256(..) => all::<Decimal256Type>(array, |v| v),
        found if found.is_integer() => {
            let (values, is_signed) = extend(array);
            let widen = |v: u64| signed(if is_signed { v.cast_signed().into() } else { v.into() });
            values.iter().enumerate().map(|(i, &v)| array.is_valid(i).then(|| widen(v))).collect()
        }
        _ => return Err(NotKeys::Type),
    };
    let shift = i32::from(scale(column_type)) - i32::from(scale(array.data_type()));
    // `None` if ten to that power has more than 256 bits; then nothing but zero converts.
    let factor = i256::from_i128(10).checked_pow(shift.unsigned_abs());
    let rescale = |v: i256| match factor {
        _ if shift == 0 || v == i256::ZERO => Some(v),
        Some(factor) if shift > 0 => v.checked_mul(factor),
        Some(factor) => (v.wrapping_rem(factor) == i256::ZERO).then(|| v.wrapping_div(factor)),
        None => None,
    };
    let key = |v: i256| match key_type {
        KeyType::Decimal256 => Some(KeyRef::I256(v.to_le_bytes())),
        // What does not fit a narrower column is not found there: stored keys are compared as 128-bit values.
        _ => v.to_i128().map(KeyRef::I128),
    };
    Ok(Keys::Wide(values.into_iter().map(|v| v.and_then(rescale).and_then(key)).collect()))
}

fn scale(data_type: &DataType) -> i8 {
    use DataType as D;
    match data_type {
        D::Decimal32(_, s) | D::Decimal64(_, s) | D::Decimal128(_, s) | D::Decimal256(_, s) => *s,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        Date32Array, Date64Array, Decimal128Array, Decimal256Array, Int64Array, Time32MillisecondArray,
        Time64NanosecondArray, TimestampSecondArray, UInt64Array,
    };

    use super::*;

    fn words(array: impl Array + 'static, column: &DataType) -> Vec<Option<i64>> {
        let array: ArrayRef = Arc::new(array);
        match Keys::of(&array, KeyType::of(column).unwrap(), column) {
            Ok(Keys::Words(values, nulls)) => {
                let is_null = |i: usize| nulls.as_ref().is_some_and(|n| n.is_null(i));
                values.iter().enumerate().map(|(i, v)| (!is_null(i)).then_some(v.cast_signed())).collect()
            }
            _ => panic!("no words for {column}"),
        }
    }

    fn wide(array: impl Array + 'static, column: &DataType) -> Vec<Option<KeyRef<'static>>> {
        let array: ArrayRef = Arc::new(array);
        match Keys::of(&array, KeyType::of(column).unwrap(), column) {
            Ok(Keys::Wide(values)) => values,
            _ => panic!("no wide keys for {column}"),
        }
    }

    #[test]
    fn times_convert_exactly_or_not_at_all() {
        let milliseconds = Time32MillisecondArray::from(vec![Some(1_500), Some(2_000), None, Some(i32::MIN)]);
        assert_eq!(words(milliseconds, &DataType::Time32(TimeUnit::Second)), [None, Some(2), None, None]);
        let nanoseconds = Time64NanosecondArray::from(vec![i64::MAX, 5_000_000_000, -1_000_000]);
        assert_eq!(words(nanoseconds, &DataType::Time32(TimeUnit::Millisecond)), [None, Some(5_000), Some(-1)]);
        // What overflows 64 bits on the way.
        let column = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let days = Date32Array::from(vec![i32::MAX, i32::MIN, -1]);
        assert_eq!(words(days, &column), [None, None, Some(-86_400_000_000_000)]);
        let seconds = TimestampSecondArray::from(vec![i64::MAX, i64::MIN, 0]);
        assert_eq!(words(seconds.clone(), &column), [None, None, Some(0)]);
        assert_eq!(words(seconds, &DataType::Date32), [None, None, Some(0)]);
        let noon = Date64Array::from(vec![43_200_000, 86_400_000]);
        assert_eq!(words(noon, &DataType::Date32), [None, Some(1)]);
    }

    #[test]
    fn integers_of_the_other_sign_are_nowhere() {
        let unsigned = UInt64Array::from(vec![u64::MAX, 1 << 63, (1 << 63) - 1, 0]);
        assert_eq!(words(unsigned, &DataType::Int64), [None, None, Some(i64::MAX), Some(0)]);
        let signed = Int64Array::from(vec![-1, i64::MIN, i64::MAX]);
        assert_eq!(words(signed.clone(), &DataType::UInt64), [None, None, Some(i64::MAX)]);
        assert_eq!(words(signed.slice(2, 1), &DataType::UInt64), [Some(i64::MAX)]);
    }

    #[test]
    fn decimals_change_their_scale_exactly_or_not_at_all() {
        let tenths = Decimal128Array::from(vec![Some(15), Some(-20), None, Some(i128::MAX)])
            .with_precision_and_scale(38, 1)
            .unwrap();
        let whole = DataType::Decimal128(38, 0);
        assert_eq!(wide(tenths.clone(), &whole), [None, Some(KeyRef::I128(-2)), None, None]);
        let hundredths = [Some(KeyRef::I128(150)), Some(KeyRef::I128(-200)), None, None];
        assert_eq!(wide(tenths, &DataType::Decimal128(38, 2)), hundredths);
        assert_eq!(wide(Int64Array::from(vec![i64::MIN]), &whole), [Some(KeyRef::I128(i64::MIN.into()))]);
        assert_eq!(wide(UInt64Array::from(vec![u64::MAX]), &whole), [Some(KeyRef::I128(u64::MAX.into()))]);
        // Ten to the 152nd has no place in 256 bits; zero is zero at any scale.
        let small =
            Decimal256Array::from(vec![i256::ZERO, i256::ONE, i256::MIN]).with_precision_and_scale(76, 76).unwrap();
        let zero = Some(KeyRef::I256([0; 32]));
        assert_eq!(wide(small, &DataType::Decimal256(76, -76)), [zero, None, None]);
        let large = Decimal256Array::from(vec![i256::ZERO, i256::MAX]).with_precision_and_scale(76, -76).unwrap();
        assert_eq!(wide(large, &DataType::Decimal256(76, 76)), [zero, None]);
    }
}
