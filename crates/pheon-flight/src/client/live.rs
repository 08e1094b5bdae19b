//! Live maps: operations that the server carries out together, in one transaction.

use rmp::Marker;
use rmp::decode::{read_array_len, read_bool, read_marker};
use rmp::encode::{write_array_len, write_bin, write_nil, write_str};

use super::Client;
use super::connection::protocol;
use super::error::ClientError;

const OPERATION: &str = "change a live map";

/// One operation on a live map. Keys and values are in their encoding, docs/live-values.md.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveOperation {
    /// Sets a key.
    Set(Vec<u8>, Vec<u8>),
    /// Takes a key out.
    Delete(Vec<u8>),
    /// Reads a key.
    Get(Vec<u8>),
    /// Sets a key that is not there.
    SetDefault(Vec<u8>, Vec<u8>),
    /// Sets a key to the second value if it has the first; `None`: no entry.
    CompareAndSet(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    /// Adds a number to the key's.
    Increment(Vec<u8>, Vec<u8>),
    /// Takes a key out, and tells its value.
    Pop(Vec<u8>),
    /// Takes all keys out.
    Clear,
    /// Counts the entries.
    Len,
}

/// What an operation found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveAnswer {
    /// How many entries there are.
    Count(u64),
    /// Whether the key was there (of `CompareAndSet`: whether it was set), and the value that there was or is.
    Entry(bool, Option<Vec<u8>>),
}

impl LiveOperation {
    fn encode(&self, out: &mut Vec<u8>) {
        let (name, arguments): (_, Vec<Option<&[u8]>>) = match self {
            Self::Set(k, v) => ("set", vec![Some(k), Some(v)]),
            Self::Delete(k) => ("delete", vec![Some(k)]),
            Self::Get(k) => ("get", vec![Some(k)]),
            Self::SetDefault(k, v) => ("setdefault", vec![Some(k), Some(v)]),
            Self::CompareAndSet(k, old, new) => ("cas", vec![Some(k), old.as_deref(), new.as_deref()]),
            Self::Increment(k, by) => ("increment", vec![Some(k), Some(by)]),
            Self::Pop(k) => ("pop", vec![Some(k)]),
            Self::Clear => ("clear", vec![]),
            Self::Len => ("len", vec![]),
        };
        // Writing to memory cannot fail.
        let _ = write_array_len(out, 1 + arguments.len() as u32);
        let _ = write_str(out, name);
        for argument in arguments {
            match argument {
                Some(bytes) => drop(write_bin(out, bytes)),
                None => drop(write_nil(out)),
            }
        }
    }
}

/// The action's body.
fn request(map: &str, operations: &[LiveOperation]) -> Vec<u8> {
    let mut out = Vec::new();
    let _ = write_array_len(&mut out, 2);
    let _ = write_str(&mut out, map);
    let _ = write_array_len(&mut out, operations.len() as u32);
    operations.iter().for_each(|operation| operation.encode(&mut out));
    out
}

/// One answer, taken from the front of `input`.
fn answer(input: &mut &[u8]) -> Option<LiveAnswer> {
    let mut ahead = *input;
    let is_entry = matches!(read_marker(&mut ahead).ok()?, Marker::FixArray(2));
    if !is_entry {
        return rmp::decode::read_int(input).ok().map(LiveAnswer::Count);
    }
    read_array_len(input).ok()?;
    let found = read_bool(input).ok()?;
    let len = match read_marker(input).ok()? {
        Marker::Null => return Some(LiveAnswer::Entry(found, None)),
        Marker::Bin8 => take(input, 1)?,
        Marker::Bin16 => take(input, 2)?,
        Marker::Bin32 => take(input, 4)?,
        _ => return None,
    };
    let len = len.iter().fold(0usize, |len, byte| len << 8 | usize::from(*byte));
    Some(LiveAnswer::Entry(found, Some(take(input, len)?.to_vec())))
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(taken)
}

impl Client {
    /// Carries operations on a live map out, all of them in one transaction; what each found.
    ///
    /// # Errors
    /// The connection broke, the deadline passed, or the server refused.
    pub async fn live(&self, map: &str, operations: &[LiveOperation]) -> Result<Vec<LiveAnswer>, ClientError> {
        let bodies = self.action("live", request(map, operations)).await?;
        let malformed = || protocol(OPERATION, "the answer is not what docs/flight.md says");
        let [body] = bodies.as_slice() else { return Err(malformed()) };
        let mut rest = body.as_ref();
        let count = read_array_len(&mut rest).map_err(|_| malformed())? as usize;
        if count != operations.len() {
            return Err(protocol(OPERATION, format!("{count} answers to {} operations", operations.len())));
        }
        (0..count).map(|_| answer(&mut rest).ok_or_else(malformed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let operations = [LiveOperation::Set(vec![1], vec![2]), LiveOperation::Len];
        let expected = [0x92, 0xa1, b'm', 0x92, 0x93, 0xa3, b's', b'e', b't', 0xc4, 1, 1, 0xc4, 1, 2, 0x91, 0xa3];
        let bytes = request("m", &operations);
        assert_eq!(&bytes[..expected.len()], expected);
        assert_eq!(&bytes[expected.len()..], b"len");
        let cas = request("m", &[LiveOperation::CompareAndSet(vec![], None, Some(vec![9]))]);
        assert_eq!(&cas[4..], [0x94, 0xa3, b'c', b'a', b's', 0xc4, 0, 0xc0, 0xc4, 1, 9]);
    }

    #[test]
    fn answers() {
        let mut bytes: &[u8] = &[0x92, 0xc3, 0xc4, 2, 7, 8, 0x92, 0xc2, 0xc0, 0xcd, 1, 0, 5];
        assert_eq!(answer(&mut bytes), Some(LiveAnswer::Entry(true, Some(vec![7, 8]))));
        assert_eq!(answer(&mut bytes), Some(LiveAnswer::Entry(false, None)));
        assert_eq!(answer(&mut bytes), Some(LiveAnswer::Count(256)));
        assert_eq!(answer(&mut bytes), Some(LiveAnswer::Count(5)));
        assert_eq!(answer(&mut bytes), None);
        for damaged in [&[0x92][..], &[0x92, 0xc3], &[0x92, 0xc3, 0xc4, 9, 1], &[0x92, 1, 0xc0], &[0xa1, b'x']] {
            assert_eq!(answer(&mut &*damaged), None, "{damaged:?}");
        }
    }
}
