//! Bodies of Arrow IPC that would unpack to more than a server has room for, or that say impossible things of themselves.

use std::fmt;
use std::io::Read;

use arrow_flight::FlightData;
use arrow_ipc::{CompressionType, MessageHeader};
use lz4_flex::frame::FrameDecoder;

/// What is wrong with a message that a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpcBodyError {
    /// The header is no Arrow IPC message.
    Header,
    /// A buffer lies outside of the body, or is too short to say how long it is.
    Bounds {
        /// Its number in the message.
        buffer: usize,
    },
    /// A compressed buffer is damaged, or does not unpack to as many bytes as it says.
    Length {
        /// Its number in the message.
        buffer: usize,
    },
    /// A number of rows, values or nulls that is negative, or larger than what the body can hold.
    Rows {
        /// As the message has it.
        found: i64,
    },
    /// The buffers would unpack to more than the limit.
    TooLarge {
        /// To how many bytes at least.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
}

/// Rows that a message may have whose buffers hold nothing: of nulls alone, say. Beyond them each needs a bit of some buffer.
const EMPTY_ROWS_MAX: u64 = 1 << 20;

impl fmt::Display for IpcBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the message's header is no Arrow IPC message"),
            Self::Bounds { buffer } => write!(f, "buffer {buffer} of the message lies outside of its body"),
            Self::Length { buffer } => {
                write!(f, "buffer {buffer} of the message does not unpack to as many bytes as it says")
            }
            Self::Rows { found } => write!(f, "the message says that it has {found} rows, which its body cannot hold"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "the message's buffers unpack to {bytes} bytes or more, at most {bytes_max} are allowed")
            }
        }
    }
}

impl std::error::Error for IpcBodyError {}

impl From<IpcBodyError> for tonic::Status {
    fn from(e: IpcBodyError) -> Self {
        match e {
            IpcBodyError::TooLarge { .. } => Self::resource_exhausted(e.to_string()),
            IpcBodyError::Header
            | IpcBodyError::Bounds { .. }
            | IpcBodyError::Length { .. }
            | IpcBodyError::Rows { .. } => Self::invalid_argument(e.to_string()),
        }
    }
}

/// A compressed buffer begins with the length that it unpacks to; -1: it is not compressed after all.
const LENGTH_BYTES: usize = 8;

/// Adds up what the buffers of a message unpack to, by what they say themselves, before anything is unpacked. The decoder
/// allocates by the same lengths; of LZ4 it does not, so there it is tried whether they are true, within a fixed amount of
/// memory. A message without a record batch or dictionary has none.
///
/// # Errors
/// [`IpcBodyError`]; as a `Status`: `RESOURCE_EXHAUSTED` or `INVALID_ARGUMENT`.
pub fn check_ipc_body(data: &FlightData, bytes_max: u64) -> Result<(), IpcBodyError> {
    unpacked_bytes(data, bytes_max).map(drop)
}

/// The sum of [`check_ipc_body`], and for a dictionary its number.
pub(crate) fn unpacked_bytes(data: &FlightData, bytes_max: u64) -> Result<(u64, Option<i64>), IpcBodyError> {
    if data.data_header.is_empty() {
        return Ok((0, None));
    }
    let message = arrow_ipc::root_as_message(&data.data_header).map_err(|_| IpcBodyError::Header)?;
    let dictionary = message.header_as_dictionary_batch();
    let batch = match message.header_type() {
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => dictionary.and_then(|d| d.data()),
        MessageHeader::Schema => return Ok((0, None)),
        _ => None,
    };
    let batch = batch.ok_or(IpcBodyError::Header)?;
    let is_compressed = batch.compression().is_some();
    let is_lz4 = batch.compression().is_some_and(|compression| compression.codec() == CompressionType::LZ4_FRAME);
    let mut packed = Vec::new();
    let mut total = 0u64;
    for (number, buffer) in batch.buffers().iter().flatten().enumerate() {
        let bounds = || IpcBodyError::Bounds { buffer: number };
        let start = usize::try_from(buffer.offset()).map_err(|_| bounds())?;
        let len = usize::try_from(buffer.length()).map_err(|_| bounds())?;
        let bytes = start.checked_add(len).and_then(|end| data.data_body.get(start..end)).ok_or_else(bounds)?;
        let unpacked = match (is_compressed, bytes.first_chunk::<LENGTH_BYTES>()) {
            (false, _) => len as u64,
            (true, None) if len == 0 => 0,
            (true, None) => return Err(bounds()),
            (true, Some(length)) => match i64::from_le_bytes(*length) {
                -1 => (len - LENGTH_BYTES) as u64,
                length => {
                    let length = u64::try_from(length).map_err(|_| bounds())?;
                    packed.push((number, &bytes[LENGTH_BYTES..], length));
                    length
                }
            },
        };
        total = total.saturating_add(unpacked);
        if total > bytes_max {
            return Err(IpcBodyError::TooLarge { bytes: total, bytes_max });
        }
    }
    if is_lz4 {
        for (buffer, bytes, length) in packed {
            if length > 0 && !unpacks_to(bytes, length) {
                return Err(IpcBodyError::Length { buffer });
            }
        }
    }
    let rows_max = total.saturating_mul(8).saturating_add(EMPTY_ROWS_MAX);
    let check = |found: i64| match u64::try_from(found) {
        Ok(rows) if rows <= rows_max => Ok(()),
        _ => Err(IpcBodyError::Rows { found }),
    };
    check(batch.length())?;
    for node in batch.nodes().iter().flatten() {
        check(node.length())?;
        check(node.null_count())?;
        if node.null_count() > node.length() {
            return Err(IpcBodyError::Rows { found: node.null_count() });
        }
    }
    Ok((total, dictionary.map(|d| d.id())))
}

/// Whether an LZ4 frame unpacks to so many bytes, and no more. Nothing is kept but a block of it.
fn unpacks_to(frame: &[u8], length: u64) -> bool {
    let unpacked = std::io::copy(&mut FrameDecoder::new(frame).take(length.saturating_add(1)), &mut std::io::sink());
    unpacked.is_ok_and(|found| found == length)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, RecordBatch};
    use arrow_flight::utils::batches_to_flight_data;

    use super::*;

    fn message() -> FlightData {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![7; 1000])) as _)]).unwrap();
        let schema = batch.schema();
        let mut messages = batches_to_flight_data(&schema, vec![batch]).unwrap();
        assert_eq!(check_ipc_body(&messages[0], 0), Ok(()), "a schema unpacks to nothing");
        messages.pop().unwrap()
    }

    #[test]
    fn counts_what_buffers_hold() {
        let message = message();
        assert_eq!(check_ipc_body(&message, 10_000), Ok(()));
        assert!(matches!(check_ipc_body(&message, 7999), Err(IpcBodyError::TooLarge { bytes: 8000.., .. })));
        let status = tonic::Status::from(check_ipc_body(&message, 1).unwrap_err());
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn buffers_outside_of_the_body_and_damaged_headers() {
        let mut short = message();
        short.data_body = short.data_body.slice(..100);
        assert!(matches!(check_ipc_body(&short, u64::MAX), Err(IpcBodyError::Bounds { .. })));
        let whole = message();
        for i in 0..whole.data_header.len() {
            let mut damaged = whole.clone();
            let mut header = damaged.data_header.to_vec();
            header[i] ^= 0xFF;
            damaged.data_header = header.into();
            let _ = check_ipc_body(&damaged, 1 << 20);
        }
        let nonsense = FlightData { data_header: vec![1; 40].into(), ..FlightData::default() };
        assert_eq!(check_ipc_body(&nonsense, u64::MAX), Err(IpcBodyError::Header));
    }
}
