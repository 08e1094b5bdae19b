//! Manifests and the store marker: checked JSON documents (docs/format.md section 2).

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// The newest format version that this build reads. It writes the oldest that a reader needs to know.
pub const FORMAT_VERSION: u32 = 2;
/// The format version of a store's marker.
pub(crate) const MARKER_FORMAT_VERSION: u32 = 1;

const CHECKSUM_KEY: &[u8] = b",\"checksum\":\"";
const CHECKSUM_HEX_LEN: usize = 32;
const TAIL_LEN: usize = CHECKSUM_KEY.len() + CHECKSUM_HEX_LEN + 3;

/// The store marker, `pheon.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) pheon: String,
    pub(crate) format_version: u32,
    pub(crate) uuid: String,
}

/// One immutable version of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) pheon: String,
    pub(crate) format_version: u32,
    pub(crate) version: u64,
    pub(crate) created_unix_ms: u64,
    pub(crate) rows: u64,
    pub(crate) key: Vec<String>,
    pub(crate) unique: bool,
    pub(crate) origin: String,
    pub(crate) segments: Vec<SegmentRecord>,
}

/// A segment as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    pub(crate) id: String,
    pub(crate) rows: u64,
    pub(crate) data: FileRecord,
    pub(crate) index: Option<FileRecord>,
    /// Rows that this version does not show; absent: it shows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hidden: Option<HiddenRecord>,
}

/// The file that lists a segment's hidden rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HiddenRecord {
    pub(crate) id: String,
    pub(crate) rows: u64,
    pub(crate) file: FileRecord,
}

impl SegmentRecord {
    /// Rows that the version shows.
    pub(crate) fn live_rows(&self) -> u64 {
        self.rows.saturating_sub(self.hidden.as_ref().map_or(0, |h| h.rows))
    }

    /// The records of its files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileRecord> {
        [Some(&self.data), self.index.as_ref(), self.hidden.as_ref().map(|h| &h.file)].into_iter().flatten()
    }
}

/// An Arrow file of a segment, with the checksums of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) size_bytes: u64,
    pub(crate) body_offset: u64,
    pub(crate) body_bytes: u64,
    #[serde(with = "hex128")]
    pub(crate) metadata_xxh3_128: u128,
    pub(crate) buffers: Vec<BufferRecord>,
}

/// One buffer of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BufferRecord {
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) length: u64,
    #[serde(with = "hex64")]
    pub(crate) xxh3_64: u64,
}

impl SegmentRecord {
    /// Bytes of its files.
    pub(crate) fn file_bytes(&self) -> u64 {
        // As the file says, which may be damaged.
        self.files().fold(0, |sum, file| sum.saturating_add(file.size_bytes))
    }
}

impl Manifest {
    /// Bytes of the version's files.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.file_bytes()))
    }

    /// The format version that a reader of such a version needs: 2 for a key of several columns, several segments or
    /// hidden rows, else 1.
    pub(crate) fn format_version_for(key: &[String], segments: &[SegmentRecord]) -> u32 {
        if key.len() > 1 || segments.len() != 1 || segments.iter().any(|s| s.hidden.is_some()) { 2 } else { 1 }
    }
}

/// Writes a document with its checksum as the last member.
pub(crate) fn encode<T: Serialize>(document: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(document).expect("plain structs always serialise");
    assert_eq!(bytes.pop(), Some(b'}'), "a document is a JSON object");
    let sum = xxh3_128(&bytes);
    bytes.extend_from_slice(CHECKSUM_KEY);
    bytes.extend_from_slice(format!("{sum:032x}\"}}\n").as_bytes());
    bytes
}

/// Reads a document after checking its checksum. The error says what is wrong.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    let body_len = bytes
        .len()
        .checked_sub(TAIL_LEN)
        .ok_or_else(|| format!("expected at least {TAIL_LEN} bytes, found {}", bytes.len()))?;
    let (body, tail) = bytes.split_at(body_len);
    let hex = tail
        .strip_prefix(CHECKSUM_KEY)
        .and_then(|t| t.strip_suffix(b"\"}\n"))
        .ok_or("it does not end in a checksum")?;
    let found = format!("{:032x}", xxh3_128(body));
    if found.as_bytes() != hex {
        return Err(format!("checksum {} does not match its bytes ({found})", String::from_utf8_lossy(hex)));
    }
    serde_json::from_slice(bytes).map_err(|e| format!("not the expected JSON: {e}"))
}

pub(crate) mod hex64 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(v: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{v:016x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        u64::from_str_radix(&String::deserialize(d)?, 16).map_err(serde::de::Error::custom)
    }
}

mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(v: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{v:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(d)?, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker { pheon: "store".into(), format_version: 1, uuid: "ab".repeat(16) }
    }

    #[test]
    fn documents_round_trip() {
        let bytes = encode(&marker());
        assert_eq!(TAIL_LEN, 48);
        assert_eq!(decode::<Marker>(&bytes).unwrap(), marker());
        serde_json::from_slice::<serde_json::Value>(&bytes).expect("any JSON reader takes it");
    }

    #[test]
    fn every_bit_flip_is_seen() {
        let good = encode(&marker());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Marker>(&bad).is_err(), "flip of bit {bit} went unseen");
        }
        for len in 0..good.len() {
            assert!(decode::<Marker>(&good[..len]).is_err(), "truncation to {len} went unseen");
        }
    }
}
