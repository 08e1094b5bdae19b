//! Keys: which Arrow types can be one, how they are hashed, compared and read from a column without trusting it.
//!
//! The engine sees four kinds of key: byte strings of any length, and two's complement integers of 64, 128 and 256 bits.
//! Every key type maps onto one of them (docs/format.md section 3.2); a key of several columns is one byte string.

pub(crate) mod composite;

use std::cmp::Ordering;
use std::fmt;

use arrow_buffer::i256;
use arrow_schema::DataType;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The physical kind of a key column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyType {
    /// LargeUtf8: bytes that are valid UTF-8, 64-bit offsets.
    Utf8,
    /// LargeBinary: bytes, 64-bit offsets.
    Binary,
    /// FixedSizeBinary of so many bytes.
    FixedBinary(u32),
    /// One bit a row; `false` before `true`.
    Bool,
    /// A signed integer of so many bytes (1, 2, 4 or 8); dates, times, timestamps and durations too.
    Signed(u8),
    /// An unsigned integer of so many bytes (1, 2, 4 or 8).
    Unsigned(u8),
    /// A decimal's unscaled value of so many bytes (4, 8 or 16).
    Decimal(u8),
    /// A decimal's unscaled value of 32 bytes.
    Decimal256,
    /// Several columns: the key bytes that stand for their values (docs/format.md section 3.2). No column has this type.
    Composite,
}

/// A key to look up, borrowed from the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRef<'a> {
    /// For `Utf8`, `Binary`, `FixedBinary`, and for `Composite` the key bytes.
    Bytes(&'a [u8]),
    /// For `Bool`, `Signed`, `Unsigned`: the value extended to 64 bits, two's complement.
    Fixed64(u64),
    /// For `Decimal`: the unscaled value.
    I128(i128),
    /// For `Decimal256`: the unscaled value, little-endian two's complement.
    I256([u8; 32]),
}

impl KeyType {
    /// The key type of a column after normalisation, or `None` if such a column cannot be a key.
    pub fn of(data_type: &DataType) -> Option<Self> {
        use DataType as D;
        Some(match data_type {
            D::LargeUtf8 => Self::Utf8,
            D::LargeBinary => Self::Binary,
            D::FixedSizeBinary(n) => Self::FixedBinary(u32::try_from(*n).ok()?),
            D::Boolean => Self::Bool,
            D::Int8 => Self::Signed(1),
            D::Int16 => Self::Signed(2),
            D::Int32 | D::Date32 | D::Time32(_) => Self::Signed(4),
            D::Int64 | D::Date64 | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => Self::Signed(8),
            D::UInt8 => Self::Unsigned(1),
            D::UInt16 => Self::Unsigned(2),
            D::UInt32 => Self::Unsigned(4),
            D::UInt64 => Self::Unsigned(8),
            D::Decimal32(..) => Self::Decimal(4),
            D::Decimal64(..) => Self::Decimal(8),
            D::Decimal128(..) => Self::Decimal(16),
            D::Decimal256(..) => Self::Decimal256,
            _ => return None,
        })
    }

    /// Bytes a row in the column's values buffer; `None` for offsets-based and bit-packed columns.
    pub fn width_bytes(self) -> Option<usize> {
        match self {
            Self::Utf8 | Self::Binary | Self::Bool | Self::Composite => None,
            Self::FixedBinary(n) => Some(n as usize),
            Self::Signed(n) | Self::Unsigned(n) | Self::Decimal(n) => Some(usize::from(n)),
            Self::Decimal256 => Some(32),
        }
    }

    /// Whether a key of this form can occur in a column of this type.
    #[allow(clippy::match_like_matches_macro)] // one line a pair
    #[inline(always)]
    pub fn accepts(self, key: KeyRef<'_>) -> bool {
        match (self, key) {
            (Self::Utf8 | Self::Binary | Self::FixedBinary(_) | Self::Composite, KeyRef::Bytes(_)) => true,
            (Self::Bool | Self::Signed(_) | Self::Unsigned(_), KeyRef::Fixed64(_)) => true,
            (Self::Decimal(_), KeyRef::I128(_)) => true,
            (Self::Decimal256, KeyRef::I256(_)) => true,
            _ => false,
        }
    }

    /// The order of two keys that both fit this type.
    ///
    /// # Panics
    /// If one of them does not fit.
    #[inline]
    pub fn compare(self, a: KeyRef<'_>, b: KeyRef<'_>) -> Ordering {
        match (a, b) {
            (KeyRef::Bytes(a), KeyRef::Bytes(b)) => a.cmp(b),
            (KeyRef::Fixed64(a), KeyRef::Fixed64(b)) if matches!(self, Self::Signed(_)) => {
                a.cast_signed().cmp(&b.cast_signed())
            }
            (KeyRef::Fixed64(a), KeyRef::Fixed64(b)) => a.cmp(&b),
            (KeyRef::I128(a), KeyRef::I128(b)) => a.cmp(&b),
            (KeyRef::I256(a), KeyRef::I256(b)) => i256::from_le_bytes(a).cmp(&i256::from_le_bytes(b)),
            _ => unreachable!("keys of two kinds: {a:?} and {b:?}"),
        }
    }
}

impl KeyRef<'_> {
    /// The key's 64-bit hash under `seed` (docs/format.md section 3.2).
    #[inline]
    pub fn hash(self, seed: u64) -> u64 {
        match self {
            Self::Bytes(b) => xxh3_64_with_seed(b, seed),
            Self::Fixed64(v) => hash_fixed64(v, seed),
            Self::I128(v) => xxh3_64_with_seed(&v.to_le_bytes(), seed),
            Self::I256(v) => xxh3_64_with_seed(&v, seed),
        }
    }
}

/// The hash of a key of kind [`KeyRef::Fixed64`].
#[inline]
pub(crate) fn hash_fixed64(value: u64, seed: u64) -> u64 {
    xxh3_64_with_seed(&value.to_le_bytes(), seed)
}

impl fmt::Display for KeyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(b) => match std::str::from_utf8(b) {
                Ok(s) => write!(f, "{s:?}"),
                Err(_) => write!(f, "b\"{}\"", b.escape_ascii()),
            },
            Self::Fixed64(v) => write!(f, "{}", v.cast_signed()),
            Self::I128(v) => write!(f, "{v}"),
            Self::I256(v) => write!(f, "{}", i256::from_le_bytes(*v)),
        }
    }
}

impl<'a> From<&'a str> for KeyRef<'a> {
    fn from(v: &'a str) -> Self {
        Self::Bytes(v.as_bytes())
    }
}

impl<'a> From<&'a String> for KeyRef<'a> {
    fn from(v: &'a String) -> Self {
        Self::Bytes(v.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for KeyRef<'a> {
    fn from(v: &'a [u8]) -> Self {
        Self::Bytes(v)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for KeyRef<'a> {
    fn from(v: &'a [u8; N]) -> Self {
        Self::Bytes(v)
    }
}

macro_rules! from_integer {
    ($($signed:ty),*; $($unsigned:ty),*) => {
        $(impl From<$signed> for KeyRef<'_> {
            fn from(v: $signed) -> Self { Self::Fixed64(i64::from(v).cast_unsigned()) }
        })*
        $(impl From<$unsigned> for KeyRef<'_> {
            fn from(v: $unsigned) -> Self { Self::Fixed64(u64::from(v)) }
        })*
    };
}
from_integer!(i8, i16, i32, i64; bool, u8, u16, u32, u64);

impl From<i128> for KeyRef<'_> {
    fn from(v: i128) -> Self {
        Self::I128(v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_every_kind() {
        let s = KeyType::Signed(8);
        assert_eq!(s.compare((-1i64).into(), 1i64.into()), Ordering::Less);
        assert_eq!(KeyType::Unsigned(8).compare(u64::MAX.into(), 1u64.into()), Ordering::Greater);
        assert_eq!(KeyType::Utf8.compare("a".into(), "ab".into()), Ordering::Less);
        assert_eq!(KeyType::Decimal(16).compare((-5i128).into(), 5i128.into()), Ordering::Less);
        for (a, b) in [(-1i128, 0), (i128::MIN, i128::MAX), (5, 6), (-6, -5), (256, 255), (7, 7)] {
            let k = |v: i128| KeyRef::I256(i256::from_i128(v).to_le_bytes());
            assert_eq!(KeyType::Decimal256.compare(k(a), k(b)), a.cmp(&b), "{a} {b}");
        }
    }

    #[test]
    fn one_value_hashes_alike_in_every_width() {
        assert_eq!(KeyRef::from(5i8).hash(0), KeyRef::from(5u64).hash(0));
        assert_eq!(KeyRef::from(-5i16).hash(0), KeyRef::from(-5i64).hash(0));
        // The published test vector of XXH3-64 for the empty input, seed 0.
        assert_eq!(KeyRef::from("").hash(0), 0x2D06_8005_38D3_94C2);
    }
}
