//! The columns of a key, and their values as SQL writes them.

use arrow_schema::{DataType, TimeUnit};
use datafusion::scalar::ScalarValue;
use pheon::{KeyRef, KeyType, Table};

use crate::interval::{Cut, Intervals, KeyValue};

/// A column of a key.
#[derive(Debug, Clone)]
pub(crate) struct KeyPart {
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    pub(crate) key_type: KeyType,
}

/// What a literal is to a key column.
pub(crate) enum Literal {
    Null,
    Value(KeyValue),
    /// Of a type whose comparison with the column this module does not know.
    Foreign,
}

impl KeyPart {
    /// The key columns of a table, in the key's order; empty if one of them is of a kind that nothing is pushed into.
    pub(crate) fn of(table: &Table) -> Vec<Self> {
        let parts = table.key_fields().into_iter().map(|field| {
            let key_type = KeyType::of(field.data_type()).filter(|k| *k != KeyType::Decimal256)?;
            Some(Self { name: field.name().clone(), data_type: field.data_type().clone(), key_type })
        });
        parts.collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    /// The values that the column's type can hold.
    pub(crate) fn domain(&self) -> Intervals {
        let between = |min: i128, max: i128| {
            Intervals::between(Cut::At(KeyValue::Number(min), false), Cut::At(KeyValue::Number(max), true))
        };
        match self.key_type {
            KeyType::Bool => between(0, 1),
            KeyType::Signed(bytes) => {
                let max = i128::from(i64::MAX >> (64 - 8 * u32::from(bytes)));
                between(-max - 1, max)
            }
            KeyType::Unsigned(bytes) => between(0, i128::from(u64::MAX >> (64 - 8 * u32::from(bytes)))),
            KeyType::Decimal(4) => between(i32::MIN.into(), i32::MAX.into()),
            KeyType::Decimal(8) => between(i64::MIN.into(), i64::MAX.into()),
            KeyType::Decimal(_) => between(i128::MIN, i128::MAX),
            _ => Intervals::all(),
        }
    }

    /// A value within [`KeyPart::domain`] as the engine takes it.
    pub(crate) fn key_ref<'a>(&self, value: &'a KeyValue) -> KeyRef<'a> {
        match (value, self.key_type) {
            (KeyValue::Bytes(bytes), _) => KeyRef::Bytes(bytes),
            (KeyValue::Number(n), KeyType::Decimal(_)) => KeyRef::I128(*n),
            (KeyValue::Number(n), _) => KeyRef::Fixed64(*n as u64),
        }
    }

    /// Whether the column, cast to `to`, keeps the order and identity of all its values, so that a comparison of the cast
    /// says the same of the column.
    pub(crate) fn casts_without_loss(&self, to: &DataType) -> bool {
        use DataType as D;
        if *to == self.data_type {
            return true;
        }
        match (&self.data_type, to) {
            (D::LargeUtf8, D::Utf8 | D::Utf8View)
            | (D::LargeBinary | D::FixedSizeBinary(_), D::Binary | D::LargeBinary | D::BinaryView) => true,
            (from, to) if from.is_integer() && to.is_integer() => {
                let bits = |t: &D| (t.primitive_width().unwrap_or(8) * 8) as u32;
                match (from.is_signed_integer(), to.is_signed_integer()) {
                    (a, b) if a == b => bits(to) >= bits(from),
                    (false, true) => bits(to) > bits(from),
                    _ => false,
                }
            }
            (from, D::Decimal128(precision, 0)) if from.is_integer() => *precision >= 20,
            _ => false,
        }
    }

    /// A literal that the column, or a cast of it without loss, is compared with.
    pub(crate) fn literal(&self, scalar: &ScalarValue) -> Literal {
        use ScalarValue as S;
        if scalar.is_null() {
            return Literal::Null;
        }
        let scalar = match scalar {
            S::Dictionary(_, inner) => inner.as_ref(),
            other => other,
        };
        let value = match (&self.data_type, scalar) {
            (DataType::LargeUtf8, S::Utf8(Some(s)) | S::LargeUtf8(Some(s)) | S::Utf8View(Some(s))) => {
                Some(KeyValue::Bytes(s.clone().into_bytes()))
            }
            (
                DataType::LargeBinary | DataType::FixedSizeBinary(_),
                S::Binary(Some(b)) | S::LargeBinary(Some(b)) | S::BinaryView(Some(b)) | S::FixedSizeBinary(_, Some(b)),
            ) => {
                let fits = !matches!(self.data_type, DataType::FixedSizeBinary(n) if b.len() != n as usize);
                fits.then(|| KeyValue::Bytes(b.clone()))
            }
            (DataType::Boolean, S::Boolean(Some(b))) => Some(KeyValue::Number(i128::from(*b))),
            (t, s) if t.is_integer() => integer(s).map(KeyValue::Number),
            (DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale), s) => {
                decimal(s).and_then(|(n, found)| (found == *scale).then_some(KeyValue::Number(n)))
            }
            (t, s) => ticks(s, t).map(KeyValue::Number),
        };
        value.map_or(Literal::Foreign, Literal::Value)
    }
}

fn integer(scalar: &ScalarValue) -> Option<i128> {
    use ScalarValue as S;
    Some(match scalar {
        S::Int8(Some(v)) => i128::from(*v),
        S::Int16(Some(v)) => i128::from(*v),
        S::Int32(Some(v)) => i128::from(*v),
        S::Int64(Some(v)) => i128::from(*v),
        S::UInt8(Some(v)) => i128::from(*v),
        S::UInt16(Some(v)) => i128::from(*v),
        S::UInt32(Some(v)) => i128::from(*v),
        S::UInt64(Some(v)) => i128::from(*v),
        S::Decimal128(Some(v), _, 0) => *v,
        _ => return None,
    })
}

fn decimal(scalar: &ScalarValue) -> Option<(i128, i8)> {
    use ScalarValue as S;
    Some(match scalar {
        S::Decimal32(Some(v), _, scale) => (i128::from(*v), *scale),
        S::Decimal64(Some(v), _, scale) => (i128::from(*v), *scale),
        S::Decimal128(Some(v), _, scale) => (*v, *scale),
        _ => return None,
    })
}

/// Dates and times of exactly the column's unit; time zones do not change the number.
fn ticks(scalar: &ScalarValue, column: &DataType) -> Option<i128> {
    use {DataType as D, ScalarValue as S, TimeUnit as U};
    let v = match (column, scalar) {
        (D::Date32, S::Date32(Some(v))) | (D::Time32(U::Second), S::Time32Second(Some(v))) => i64::from(*v),
        (D::Time32(U::Millisecond), S::Time32Millisecond(Some(v))) => i64::from(*v),
        (D::Date64, S::Date64(Some(v)))
        | (D::Time64(U::Microsecond), S::Time64Microsecond(Some(v)))
        | (D::Time64(U::Nanosecond), S::Time64Nanosecond(Some(v)))
        | (D::Duration(U::Second), S::DurationSecond(Some(v)))
        | (D::Duration(U::Millisecond), S::DurationMillisecond(Some(v)))
        | (D::Duration(U::Microsecond), S::DurationMicrosecond(Some(v)))
        | (D::Duration(U::Nanosecond), S::DurationNanosecond(Some(v))) => *v,
        (D::Timestamp(U::Second, a), S::TimestampSecond(Some(v), b))
        | (D::Timestamp(U::Millisecond, a), S::TimestampMillisecond(Some(v), b))
        | (D::Timestamp(U::Microsecond, a), S::TimestampMicrosecond(Some(v), b))
        | (D::Timestamp(U::Nanosecond, a), S::TimestampNanosecond(Some(v), b))
            if a.is_some() == b.is_some() =>
        {
            *v
        }
        _ => return None,
    };
    Some(i128::from(v))
}
