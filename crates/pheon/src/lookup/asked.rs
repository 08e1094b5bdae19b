//! Turning the keys of a caller's Arrow array into keys of the dataset's type.

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, make_array};
use arrow_buffer::NullBuffer;
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType};

use crate::key::{KeyRef, KeyType};

/// Keys of a batch, in a form that the lookup loops take.
pub(crate) enum Keys {
    /// A string or binary array, for byte keys.
    Bytes(ArrayRef),
    /// Values extended to 64 bits. Null: cannot be in the dataset.
    Words(Vec<u64>, Option<NullBuffer>),
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
        let array = match array.data_type() {
            D::Dictionary(_, values) => &cast(array, values)?,
            D::RunEndEncoded(_, values) => &cast(array, values.data_type())?,
            D::Null => {
                let none = vec![0; array.len()];
                return Ok(match key_type {
                    KeyType::Utf8 | KeyType::Binary | KeyType::FixedBinary(_) => Self::Bytes(cast(array, &D::LargeBinary)?),
                    KeyType::Decimal(_) | KeyType::Decimal256 => Self::Wide(vec![None; array.len()]),
                    _ => Self::Words(none, Some(NullBuffer::new_null(array.len()))),
                });
            }
            _ => array,
        };
        let found = array.data_type();
        match key_type {
            KeyType::Utf8 => match found {
                D::Utf8 | D::LargeUtf8 => Ok(Self::Bytes(array.clone())),
                D::Utf8View => Ok(Self::Bytes(cast(array, &D::LargeUtf8)?)),
                _ => Err(NotKeys::Type),
            },
            KeyType::Binary | KeyType::FixedBinary(_) => match found {
                D::Binary | D::LargeBinary => Ok(Self::Bytes(array.clone())),
                D::BinaryView | D::FixedSizeBinary(_) => Ok(Self::Bytes(cast(array, &D::LargeBinary)?)),
                _ => Err(NotKeys::Type),
            },
            KeyType::Decimal(_) | KeyType::Decimal256 => wide(array, column_type),
            KeyType::Bool if *found == D::Boolean => Ok(words_of_integers(&cast(array, &D::UInt8)?, false)),
            KeyType::Bool => Err(NotKeys::Type),
            KeyType::Signed(_) | KeyType::Unsigned(_) => {
                let signed = matches!(key_type, KeyType::Signed(_));
                if column_type.is_integer() {
                    if found.is_integer() { Ok(words_of_integers(array, signed)) } else { Err(NotKeys::Type) }
                } else {
                    Ok(words_of_integers(&lossless(array, column_type)?, true))
                }
            }
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

fn extend(array: &ArrayRef) -> (Vec<u64>, bool) {
    let data = array.to_data();
    let width = data.data_type().primitive_width().expect("only called for primitive arrays");
    let bytes = &data.buffers()[0].as_slice()[data.offset() * width..(data.offset() + data.len()) * width];
    let signed = !data.data_type().is_unsigned_integer();
    (bytes.chunks_exact(width).map(|b| crate::segment::column::fixed64(b, signed)).collect(), signed)
}

/// Casts dates and times to the column's type; values that change by it (a finer unit, another day) become null.
fn lossless(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, NotKeys> {
    use DataType as D;
    let from = array.data_type();
    if from == to {
        return Ok(array.clone());
    }
    let family = |t: &D| match t {
        D::Date32 | D::Date64 => 1,
        D::Time32(_) | D::Time64(_) => 2,
        D::Timestamp(_, None) => 3,
        D::Timestamp(_, Some(_)) => 4,
        D::Duration(_) => 5,
        _ => 0,
    };
    let related = family(from) == family(to) || (family(from) == 1 && family(to) == 3) || (family(from) == 3 && family(to) == 1);
    if family(from) == 0 || !related {
        return Err(NotKeys::Type);
    }
    let there = cast(array, to)?;
    let back = cast(&there, from)?;
    let (a, b) = (extend(array).0, extend(&back).0);
    let same = NullBuffer::from_iter(a.iter().zip(&b).map(|(a, b)| a == b));
    let nulls = NullBuffer::union(there.logical_nulls().as_ref(), Some(&same));
    Ok(make_array(there.to_data().into_builder().nulls(nulls).build()?))
}

fn wide(array: &ArrayRef, column_type: &DataType) -> Result<Keys, NotKeys> {
    use DataType as D;
    if !array.data_type().is_decimal() && !array.data_type().is_integer() {
        return Err(NotKeys::Type);
    }
    let there = cast(array, column_type)?;
    let back = cast(&there, array.data_type())?;
    let same = |i: usize| there.is_valid(i) && back.is_valid(i) && back.slice(i, 1).to_data() == array.slice(i, 1).to_data();
    let exact: Vec<bool> = if array.data_type() == column_type {
        (0..array.len()).map(|i| array.is_valid(i)).collect()
    } else {
        (0..array.len()).map(same).collect()
    };
    fn small<T: ArrowPrimitiveType>(array: &ArrayRef, exact: &[bool]) -> Keys
    where
        T::Native: Into<i128>,
    {
        let array: &PrimitiveArray<T> = array.as_primitive();
        Keys::Wide(exact.iter().enumerate().map(|(i, &ok)| ok.then(|| KeyRef::I128(array.value(i).into()))).collect())
    }
    Ok(match column_type {
        D::Decimal32(..) => small::<Decimal32Type>(&there, &exact),
        D::Decimal64(..) => small::<Decimal64Type>(&there, &exact),
        D::Decimal128(..) => small::<Decimal128Type>(&there, &exact),
        _ => {
            let array = there.as_primitive::<Decimal256Type>();
            let key = |i: usize| KeyRef::I256(array.value(i).to_le_bytes());
            Keys::Wide(exact.iter().enumerate().map(|(i, &ok)| ok.then(|| key(i))).collect())
        }
    })
}
