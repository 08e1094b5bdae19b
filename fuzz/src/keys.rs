//! The bytes that stand for a key of several columns, and keys written as text.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use pheon::{KeyRef, KeyType, composite_key, parse_bytes, parse_key};

fn data_type(choice: u8) -> DataType {
    match choice % 16 {
        0 => DataType::LargeUtf8,
        1 => DataType::LargeBinary,
        2 => DataType::FixedSizeBinary(i32::from(choice >> 4)),
        3 => DataType::Boolean,
        4 => DataType::Int8,
        5 => DataType::Int16,
        6 => DataType::Int32,
        7 => DataType::Int64,
        8 => DataType::UInt8,
        9 => DataType::UInt16,
        10 => DataType::UInt64,
        11 => DataType::Decimal32(9, 2),
        12 => DataType::Decimal128(38, -3),
        13 => DataType::Decimal256(76, 10),
        14 => DataType::Timestamp(TimeUnit::Microsecond, None),
        _ => DataType::Date32,
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn next(&mut self) -> u8 {
        let (first, rest) = crate::choice(self.0);
        self.0 = rest;
        first
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let head = self.take(N);
        array[..head.len()].copy_from_slice(head);
        array
    }

    /// A value of a type, which need not fit it.
    fn key(&mut self, key_type: KeyType) -> KeyRef<'a> {
        match key_type {
            KeyType::Utf8 | KeyType::Binary => {
                let len = usize::from(self.next() % 8);
                KeyRef::Bytes(self.take(len))
            }
            KeyType::FixedBinary(width) => KeyRef::Bytes(self.take(width as usize)),
            KeyType::Bool => KeyRef::Fixed64(u64::from(self.next() % 3)),
            KeyType::Signed(width) => {
                let number = i64::from_le_bytes(self.array());
                KeyRef::Fixed64((number >> (64 - 8 * u32::from(width))).cast_unsigned())
            }
            KeyType::Unsigned(width) => {
                KeyRef::Fixed64(u64::from_le_bytes(self.array()) >> (64 - 8 * u32::from(width)))
            }
            KeyType::Decimal(width) => KeyRef::I128(i128::from_le_bytes(self.array()) >> (128 - 8 * u32::from(width))),
            _ => KeyRef::I256(self.array()),
        }
    }
}

/// Key bytes are in the order of the keys, equal only for equal ones, and begin with those of their leading values.
pub fn composite(input: &[u8]) {
    let mut bytes = Bytes(input);
    let types: Vec<DataType> = (0..bytes.next() % 4 + 1).map(|_| data_type(bytes.next())).collect();
    let key_types: Vec<KeyType> = types.iter().filter_map(KeyType::of).collect();
    if key_types.len() < types.len() {
        return;
    }
    let fields: Vec<_> = types.iter().map(|t| Arc::new(Field::new("c", t.clone(), false))).collect();
    let [a, b]: [Vec<KeyRef<'_>>; 2] = [(); 2].map(|()| key_types.iter().map(|t| bytes.key(*t)).collect());
    let encoded = [&a, &b].map(|key| composite_key("d", &fields, key));
    let fits = |part: &KeyRef<'_>, key_type: &KeyType| match (key_type, part) {
        (KeyType::FixedBinary(width), KeyRef::Bytes(bytes)) => bytes.len() == *width as usize,
        (KeyType::Bool, KeyRef::Fixed64(truth)) => *truth < 2,
        (KeyType::Utf8, KeyRef::Bytes(bytes)) => std::str::from_utf8(bytes).is_ok(),
        (key_type, part) => key_type.accepts(*part),
    };
    let accepted = |key: &[KeyRef<'_>]| std::iter::zip(key, &key_types).all(|(part, t)| fits(part, t));
    for (key, encoded) in [(&a, &encoded[0]), (&b, &encoded[1])] {
        assert!(!accepted(key) || encoded.is_ok(), "a key of the right types is refused: {encoded:?}");
        if let Ok(encoded) = encoded {
            for len in 1..key.len() {
                let leading = composite_key("d", &fields, &key[..len]).expect("a part of a key");
                assert!(encoded.starts_with(&leading), "the leading values do not begin the key bytes");
            }
        }
    }
    if let ([Ok(x), Ok(y)], true) = (&encoded, accepted(&a) && accepted(&b)) {
        let order = std::iter::zip(std::iter::zip(&a, &b), &key_types).map(|((a, b), t)| t.compare(*a, *b));
        let order = order.fold(Ordering::Equal, Ordering::then);
        assert_eq!(x.cmp(y), order, "{types:?}: {a:?} and {b:?}");
    }
    if let Ok(text) = std::str::from_utf8(bytes.0) {
        let _ = parse_bytes(text);
        for (t, key_type) in std::iter::zip(&types, &key_types) {
            if let Ok(key) = parse_key(text, t) {
                assert!(key_type.accepts(key.as_ref()), "a key of text {text:?} does not fit {t}");
            }
        }
    }
}
