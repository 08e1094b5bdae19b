//! Keys of several columns: one byte string stands for the tuple (docs/format.md section 3.2).
//!
//! The encoding is injective, and the unsigned order of the *key bytes* is the order of the tuples, so that a key of
//! several columns is sorted, hashed, compared and searched like a byte string. The bytes of the leading columns' values
//! are a prefix of the whole key's, and of no key with other values there: byte strings end in a terminator that no
//! other value's bytes begin with. (The escapes are those of FoundationDB's tuple layer and of other ordered stores.)

use std::cmp::Ordering;
use std::fmt;

use super::{KeyRef, KeyType};

/// How a byte string's zero is written, and its end: the end sorts before every byte that may go on.
const ESCAPED_ZERO: [u8; 2] = [0, 0xFF];
const END: [u8; 2] = [0, 0];

/// Why a value cannot be a part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPart {
    /// It has another form than the column's keys.
    Form,
    /// The column's type cannot hold it: too wide a number, a fixed-size binary of another length.
    Range,
}

impl KeyType {
    /// Appends the key bytes of one column's value.
    pub(crate) fn encode(self, part: KeyRef<'_>, out: &mut Vec<u8>) -> Result<(), NoPart> {
        match (self, part) {
            (Self::Utf8 | Self::Binary, KeyRef::Bytes(bytes)) => {
                encode_bytes(bytes, out);
                out.extend_from_slice(&END);
            }
            (Self::FixedBinary(n), KeyRef::Bytes(bytes)) => {
                if bytes.len() != n as usize {
                    return Err(NoPart::Range);
                }
                out.extend_from_slice(bytes);
            }
            (_, KeyRef::Bytes(_)) => return Err(NoPart::Form),
            _ => {
                let (bytes, width) = self.big_endian(part)?;
                out.extend_from_slice(&bytes[32 - width..]);
            }
        }
        Ok(())
    }

    /// A number as the last `width` bytes of 32: big-endian, the sign bit flipped for signed types.
    #[inline]
    fn big_endian(self, part: KeyRef<'_>) -> Result<([u8; 32], usize), NoPart> {
        let mut bytes = [0; 32];
        let width = match (self, part) {
            (Self::Bool, KeyRef::Fixed64(v)) => {
                if v > 1 {
                    return Err(NoPart::Range);
                }
                bytes[31] = v as u8;
                return Ok((bytes, 1));
            }
            (Self::Unsigned(n), KeyRef::Fixed64(v)) => {
                if n < 8 && v >> (8 * n) != 0 {
                    return Err(NoPart::Range);
                }
                bytes[24..].copy_from_slice(&v.to_be_bytes());
                return Ok((bytes, usize::from(n)));
            }
            (Self::Signed(n), KeyRef::Fixed64(v)) => {
                let spare = 64 - 8 * u32::from(n);
                if v.cast_signed() << spare >> spare != v.cast_signed() {
                    return Err(NoPart::Range);
                }
                bytes[24..].copy_from_slice(&v.to_be_bytes());
                usize::from(n)
            }
            (Self::Decimal(n), KeyRef::I128(v)) => {
                let spare = 128 - 8 * u32::from(n);
                if v << spare >> spare != v {
                    return Err(NoPart::Range);
                }
                bytes[16..].copy_from_slice(&v.to_be_bytes());
                usize::from(n)
            }
            (Self::Decimal256, KeyRef::I256(v)) => {
                bytes = v;
                bytes.reverse();
                32
            }
            _ => return Err(NoPart::Form),
        };
        bytes[32 - width] ^= 0x80;
        Ok((bytes, width))
    }

    /// Takes the key bytes of this stored value off the front of `asked`; `None` if it begins otherwise.
    #[inline]
    pub(crate) fn strip<'a>(self, stored: KeyRef<'_>, asked: &'a [u8]) -> Option<&'a [u8]> {
        match (self, stored) {
            (Self::Utf8 | Self::Binary, KeyRef::Bytes(mut bytes)) => {
                let mut asked = asked;
                while let Some(zero) = bytes.iter().position(|&b| b == 0) {
                    asked = asked.strip_prefix(&bytes[..zero])?.strip_prefix(&ESCAPED_ZERO)?;
                    bytes = &bytes[zero + 1..];
                }
                asked.strip_prefix(bytes)?.strip_prefix(&END)
            }
            (_, KeyRef::Bytes(bytes)) => asked.strip_prefix(bytes),
            _ => {
                let (bytes, width) = self.big_endian(stored).ok()?;
                asked.strip_prefix(&bytes[32 - width..])
            }
        }
    }
}

/// Appends a byte string without its end: a prefix of the key bytes of every string that begins so.
pub(crate) fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|&b| b == 0) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&ESCAPED_ZERO);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
}

/// One column's keys, by row; `None`: no key of that type.
pub(crate) type PartAt<'a> = dyn Fn(usize) -> Option<KeyRef<'a>> + 'a;

/// The key bytes of many rows side by side, with the ends of all rows behind a leading 0. A row that has a part that is no
/// key becomes an empty one, and `false` in the last list.
pub(crate) fn encode_rows(rows: usize, parts: &[(KeyType, Box<PartAt<'_>>)]) -> (Vec<i64>, Vec<u8>, Vec<bool>) {
    let mut offsets = Vec::with_capacity(rows + 1);
    let mut bytes = Vec::with_capacity(rows * 8 * parts.len());
    let mut valid = Vec::with_capacity(rows);
    offsets.push(0);
    for row in 0..rows {
        let start = bytes.len();
        let whole = parts.iter().all(|(key_type, at)| {
            let part = at(row);
            part.is_some_and(|part| key_type.encode(part, &mut bytes).is_ok())
        });
        if !whole {
            bytes.truncate(start);
        }
        valid.push(whole);
        offsets.push(bytes.len() as i64);
    }
    (offsets, bytes, valid)
}

/// Prints key bytes as the tuple that they stand for.
pub(crate) struct Tuple<'a> {
    pub(crate) key_types: &'a [KeyType],
    pub(crate) bytes: &'a [u8],
}

impl fmt::Display for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.bytes;
        for (i, key_type) in self.key_types.iter().enumerate() {
            f.write_str(if i == 0 { "(" } else { ", " })?;
            match *key_type {
                KeyType::Utf8 | KeyType::Binary => {
                    let mut value = Vec::new();
                    while let Some(zero) = rest.iter().position(|&b| b == 0) {
                        value.extend_from_slice(&rest[..zero]);
                        let more = rest[zero..].starts_with(&ESCAPED_ZERO);
                        rest = rest.get(zero + 2..).unwrap_or_default();
                        if !more {
                            break;
                        }
                        value.push(0);
                    }
                    write!(f, "{}", KeyRef::Bytes(&value))?;
                }
                fixed => {
                    let width = fixed.width_bytes().unwrap_or(1);
                    let (own, others) = rest.split_at(width.min(rest.len()));
                    rest = others;
                    write_fixed(fixed, own, f)?;
                }
            }
        }
        f.write_str(")")
    }
}

fn write_fixed(key_type: KeyType, own: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let KeyType::FixedBinary(_) = key_type {
        return write!(f, "{}", KeyRef::Bytes(own));
    }
    let unsigned = matches!(key_type, KeyType::Unsigned(_) | KeyType::Bool);
    // Sign-extended to 32 bytes: the flipped sign bit is 0 for negative numbers.
    let negative = !unsigned && own.first().is_some_and(|b| b >> 7 == 0);
    let mut bytes = [if negative { 0xFF } else { 0 }; 32];
    for (to, from) in bytes.iter_mut().zip(own.iter().rev()) {
        *to = *from;
    }
    if !unsigned && let Some(last) = own.len().checked_sub(1) {
        bytes[last] ^= 0x80;
    }
    write!(f, "{}", KeyRef::I256(bytes))
}

/// The order of two tuples by their parts.
pub(crate) fn compare_parts<'a>(
    parts: impl Iterator<Item = Option<(KeyType, KeyRef<'a>, KeyRef<'a>)>>,
) -> Option<Ordering> {
    for part in parts {
        let (key_type, a, b) = part?;
        match key_type.compare(a, b) {
            Ordering::Equal => {}
            other => return Some(other),
        }
    }
    Some(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_buffer::i256;

    fn wide(v: i128) -> KeyRef<'static> {
        KeyRef::I256(i256::from_i128(v).to_le_bytes())
    }

    /// Values of each type in ascending order.
    fn samples() -> Vec<(KeyType, Vec<KeyRef<'static>>)> {
        let strings: [&[u8]; 10] = [b"", b"\0", b"\0\0", b"\0a", b"\0\xff", b"a", b"a\0", b"a\0b", b"ab", b"\xff\xff"];
        vec![
            (KeyType::Utf8, strings.map(KeyRef::Bytes).to_vec()),
            (KeyType::Binary, strings.map(KeyRef::Bytes).to_vec()),
            (KeyType::FixedBinary(2), [b"\0\0", b"\0\xff", b"a\0"].map(KeyRef::from).to_vec()),
            (KeyType::Bool, vec![false.into(), true.into()]),
            (KeyType::Signed(1), vec![i8::MIN.into(), (-1i8).into(), 0i8.into(), i8::MAX.into()]),
            (KeyType::Signed(4), vec![i32::MIN.into(), (-256i32).into(), (-1i32).into(), 0i32.into(), 256i32.into()]),
            (KeyType::Signed(8), vec![i64::MIN.into(), (-1i64).into(), 0i64.into(), i64::MAX.into()]),
            (KeyType::Unsigned(2), vec![0u16.into(), 1u16.into(), 255u16.into(), 256u16.into(), u16::MAX.into()]),
            (KeyType::Unsigned(8), vec![0u64.into(), 1u64.into(), (1u64 << 63).into(), u64::MAX.into()]),
            (KeyType::Decimal(4), vec![i128::from(i32::MIN).into(), (-1i128).into(), 7i128.into()]),
            (KeyType::Decimal(16), vec![i128::MIN.into(), (-1i128).into(), 0i128.into(), i128::MAX.into()]),
            (KeyType::Decimal256, vec![KeyRef::I256(i256::MIN.to_le_bytes()), wide(-1), wide(0), wide(1 << 100)]),
        ]
    }

    fn bytes(parts: &[(KeyType, KeyRef<'_>)]) -> Vec<u8> {
        let mut out = Vec::new();
        parts.iter().for_each(|(t, k)| t.encode(*k, &mut out).unwrap());
        out
    }

    #[test]
    fn key_bytes_sort_as_tuples_and_prefixes_hold_whole_values() {
        let samples = samples();
        for (first, left) in &samples {
            for (second, right) in &samples {
                let pairs: Vec<_> = left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))).collect();
                let encoded: Vec<_> = pairs.iter().map(|(a, b)| bytes(&[(*first, *a), (*second, *b)])).collect();
                assert!(encoded.windows(2).all(|w| w[0] < w[1]), "{first:?} {second:?}: {encoded:?}");
                for a in left {
                    let prefix = bytes(&[(*first, *a)]);
                    for ((x, y), key) in pairs.iter().zip(&encoded) {
                        assert_eq!(key.starts_with(&prefix), x == a, "{first:?} {a} in {x}, {y}");
                        let rest = first.strip(*a, key);
                        assert_eq!(rest.is_some(), x == a);
                        if let Some(rest) = rest {
                            assert_eq!(second.strip(*y, rest), Some(&[][..]));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let key = [
            (KeyType::Utf8, KeyRef::from("a\0b")),
            (KeyType::Signed(2), (-2i16).into()),
            (KeyType::Bool, true.into()),
            (KeyType::FixedBinary(2), KeyRef::from(b"\0x")),
            (KeyType::Binary, KeyRef::from("")),
        ];
        let want = b"a\0\xffb\0\0\x7f\xfe\x01\0x\0\0";
        assert_eq!(bytes(&key), want);
        let key_types = key.map(|(t, _)| t);
        let printed = Tuple { key_types: &key_types, bytes: want }.to_string();
        assert_eq!(printed, "(\"a\\0b\", -2, 1, \"\\0x\", \"\")");
        for (t, all) in samples() {
            for k in all {
                let printed = Tuple { key_types: &[t], bytes: &bytes(&[(t, k)]) }.to_string();
                let number = match k {
                    KeyRef::Fixed64(v) if t == KeyType::Unsigned(8) => v.to_string(),
                    other => other.to_string(),
                };
                assert_eq!(printed, format!("({number})"), "{t:?}");
            }
        }
    }

    #[test]
    fn what_a_column_cannot_hold_is_no_part() {
        let mut out = Vec::new();
        let mut refused = |t: KeyType, k: KeyRef<'_>| t.encode(k, &mut out).unwrap_err();
        assert_eq!(refused(KeyType::Signed(1), 128i64.into()), NoPart::Range);
        assert_eq!(refused(KeyType::Signed(4), (i64::from(i32::MIN) - 1).into()), NoPart::Range);
        assert_eq!(refused(KeyType::Unsigned(1), 256u64.into()), NoPart::Range);
        assert_eq!(refused(KeyType::Bool, 2u64.into()), NoPart::Range);
        assert_eq!(refused(KeyType::Decimal(8), (1i128 << 63).into()), NoPart::Range);
        assert_eq!(refused(KeyType::FixedBinary(3), KeyRef::from("ab")), NoPart::Range);
        assert_eq!(refused(KeyType::Utf8, 1u64.into()), NoPart::Form);
        assert_eq!(refused(KeyType::Signed(8), KeyRef::from("a")), NoPart::Form);
        assert_eq!(refused(KeyType::Decimal(4), 1u64.into()), NoPart::Form);
    }

    #[test]
    fn rows_with_a_part_that_is_no_key_are_empty() {
        let first: Box<PartAt<'_>> = Box::new(|row| [Some(1u64), None, Some(256)][row].map(KeyRef::from));
        let second: Box<PartAt<'_>> = Box::new(|row| Some(KeyRef::from(["x", "y", "z"][row])));
        let (offsets, bytes, valid) = encode_rows(3, &[(KeyType::Unsigned(1), first), (KeyType::Utf8, second)]);
        assert_eq!((offsets, bytes.as_slice(), valid), (vec![0, 4, 4, 4], &b"\x01x\0\0"[..], vec![true, false, false]));
    }
}
