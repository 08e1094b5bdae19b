//! The action `locate`: where the rows of a range of keys lie, so that a client may ask for them by number.

use std::ops::Bound;

use pheon::{KeyRef, KeyType, Table};
use serde::Deserialize;
use tonic::Status;

use crate::status;

/// A range of keys: docs/flight.md, Actions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Span {
    from: Option<End>,
    to: Option<End>,
    key: Option<Key>,
    prefix: Option<Key>,
}

/// Where a range ends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    Included(Key),
    Excluded(Key),
}

/// A key's bytes in hexadecimal digits.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Key(String);

impl Key {
    fn bytes(&self) -> Result<Vec<u8>, Status> {
        let pairs = self.0.as_bytes().chunks(2);
        let byte = |pair: &[u8]| match pair {
            [_, _] => std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()),
            _ => None,
        };
        pairs.map(byte).collect::<Option<_>>().ok_or_else(|| {
            Status::invalid_argument(format!("key {:?}: expected hexadecimal digits, two a byte", self.0))
        })
    }
}

/// The key that these bytes are; what does not fit the type is told by the engine.
fn key_of(bytes: &[u8], key_type: Option<KeyType>) -> Result<KeyRef<'_>, Status> {
    let wrong = |bits: usize| {
        Status::invalid_argument(format!("a key of {} bytes: a number has {bits} bits here", bytes.len()))
    };
    match key_type {
        Some(KeyType::Bool | KeyType::Signed(_) | KeyType::Unsigned(_)) => {
            bytes.try_into().map(|bytes| KeyRef::Fixed64(u64::from_le_bytes(bytes))).map_err(|_| wrong(64))
        }
        Some(KeyType::Decimal(_)) => {
            bytes.try_into().map(|bytes| KeyRef::I128(i128::from_le_bytes(bytes))).map_err(|_| wrong(128))
        }
        Some(KeyType::Decimal256) => bytes.try_into().map(KeyRef::I256).map_err(|_| wrong(256)),
        _ => Ok(KeyRef::Bytes(bytes)),
    }
}

impl Span {
    /// The first of its rows, counted within the version, and how many there are.
    pub(crate) fn locate(&self, table: &Table) -> Result<(usize, usize), Status> {
        let of_read = |e| status::of_read(&e);
        let found = match (&self.key, &self.prefix) {
            (Some(key), None) if self.from.is_none() && self.to.is_none() => {
                table.rows(key_of(&key.bytes()?, table.key_type())?).map_err(of_read)?
            }
            (None, Some(prefix)) if self.from.is_none() && self.to.is_none() => {
                table.prefix(&prefix.bytes()?).map_err(of_read)?
            }
            (None, None) => {
                let bytes = |end: &Option<End>| match end {
                    None => Ok(Vec::new()),
                    Some(End::Included(key) | End::Excluded(key)) => key.bytes(),
                };
                let bound = |end: &Option<End>, bytes| {
                    Ok::<_, Status>(match end {
                        None => Bound::Unbounded,
                        Some(End::Included(_)) => Bound::Included(key_of(bytes, table.key_type())?),
                        Some(End::Excluded(_)) => Bound::Excluded(key_of(bytes, table.key_type())?),
                    })
                };
                let (from, to) = (bytes(&self.from)?, bytes(&self.to)?);
                table.range((bound(&self.from, &from)?, bound(&self.to, &to)?)).map_err(of_read)?
            }
            _ => {
                let problem = "a span has \"key\", or \"prefix\", or \"from\" and \"to\"";
                return Err(Status::invalid_argument(problem));
            }
        };
        Ok(found.bounds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let bytes = |text: &str| Key(text.to_owned()).bytes();
        assert_eq!(bytes("").unwrap(), [0u8; 0]);
        assert_eq!(bytes("00ff7A").unwrap(), [0, 255, 0x7A]);
        for wrong in ["0", "zz", "0x00", "ää"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(key_of(&[5, 0, 0, 0, 0, 0, 0, 0], Some(KeyType::Signed(4))).unwrap(), KeyRef::Fixed64(5));
        assert!(key_of(&[5], Some(KeyType::Signed(4))).is_err());
        assert_eq!(key_of(b"a", Some(KeyType::Utf8)).unwrap(), KeyRef::Bytes(b"a"));
    }

    #[test]
    fn spans() {
        let span: Span = serde_json::from_str(r#"{"from": {"included": "61"}, "to": {"excluded": "62"}}"#).unwrap();
        assert!(matches!((span.from, span.to), (Some(End::Included(_)), Some(End::Excluded(_)))));
        assert!(serde_json::from_str::<Span>(r#"{"form": null}"#).is_err());
    }
}
