//! Record batches as Flight messages whose bodies are the batches' own buffers: nothing is copied here but small pieces.

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_flight::FlightData;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions, StreamEncoder};
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::{ArrowError, Schema};
use bytes::Bytes;

/// Messages have at most so many bytes, where rows allow it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// The continuation marker and the length that stand before a message's metadata in an IPC stream.
const IPC_PREFIX_BYTES: usize = 8;

/// One Flight message: the metadata, and the pieces of its body in order.
#[derive(Debug, Clone, Default)]
pub struct Message {
    pub(crate) header: Bytes,
    pub(crate) app_metadata: Bytes,
    pub(crate) body: Vec<Bytes>,
    pub(crate) rows: usize,
}

impl Message {
    /// The message of a schema.
    pub fn schema(schema: &Schema) -> Self {
        let mut tracker = DictionaryTracker::new(false);
        let options = IpcWriteOptions::default();
        let encoded =
            IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options);
        Self { header: encoded.ipc_message.into(), ..Self::default() }
    }

    /// Bytes of its body.
    pub fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The message in the generated type, which copies its body.
    pub fn into_flight_data(self) -> FlightData {
        let mut body = Vec::with_capacity(self.body_bytes());
        self.body.iter().for_each(|piece| body.extend_from_slice(piece));
        FlightData {
            data_header: self.header,
            app_metadata: self.app_metadata,
            data_body: body.into(),
            ..FlightData::default()
        }
    }
}

/// An Arrow buffer that owns itself, which `Bytes` asks for.
struct Owner(Buffer);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Encodes the batches of one stream; dictionaries go ahead of the batch that needs them.
pub(crate) struct Encoder {
    stream: StreamEncoder,
}

impl Encoder {
    pub(crate) fn new(schema: &Schema) -> Result<Self, ArrowError> {
        Ok(Self { stream: StreamEncoder::try_new(schema)? })
    }

    /// The messages of a batch, without that of the schema; the last is the batch's own.
    pub(crate) fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Message>, ArrowError> {
        let mut messages = messages_of(self.stream.encode(batch)?)?;
        if let Some(last) = messages.last_mut() {
            last.rows = batch.num_rows();
        }
        Ok(messages)
    }
}

/// The messages of a batch, dictionaries first; a batch whose message is larger than `bytes` is halved until it is not.
pub(crate) fn encode_within(
    encoder: &mut Encoder,
    batch: &RecordBatch,
    bytes: usize,
    out: &mut Vec<Message>,
) -> Result<(), ArrowError> {
    let mut encoded = encoder.encode(batch)?;
    let Some(last) = encoded.pop() else { return Ok(()) };
    out.append(&mut encoded);
    let rows = batch.num_rows();
    if last.body_bytes() > bytes && rows > 1 {
        let half = rows / 2;
        encode_within(encoder, &batch.slice(0, half), bytes, out)?;
        return encode_within(encoder, &batch.slice(half, rows - half), bytes, out);
    }
    out.push(last);
    Ok(())
}

/// Takes the framing of an IPC stream off: what `StreamEncoder` gives is prefix, metadata, padding and body of each message,
/// and no buffer belongs to two of these.
fn messages_of(buffers: Vec<Buffer>) -> Result<Vec<Message>, ArrowError> {
    let unexpected = |what: &str| ArrowError::IpcError(format!("unexpected framing of an IPC stream: {what}"));
    let mut messages = Vec::new();
    let mut buffers = buffers.into_iter().filter(|buffer| !buffer.is_empty());
    while let Some(prefix) = buffers.next() {
        let length: [u8; 4] = match prefix.as_slice() {
            [0xFF, 0xFF, 0xFF, 0xFF, length @ ..] if prefix.len() == IPC_PREFIX_BYTES => {
                length.try_into().map_err(|_| unexpected("a prefix"))?
            }
            _ => return Err(unexpected("no prefix")),
        };
        let metadata = buffers.next().ok_or_else(|| unexpected("no metadata"))?;
        let padding = (u32::from_le_bytes(length) as usize).checked_sub(metadata.len());
        let mut padding = padding.ok_or_else(|| unexpected("metadata"))?;
        while padding > 0 {
            let piece = buffers.next().ok_or_else(|| unexpected("no padding"))?;
            padding = padding.checked_sub(piece.len()).ok_or_else(|| unexpected("padding"))?;
        }
        let (mut left, is_schema) = {
            let message = root_as_message(&metadata).map_err(|e| unexpected(&e.to_string()))?;
            (message.bodyLength() as usize, message.header_type() == MessageHeader::Schema)
        };
        let mut body = Vec::new();
        while left > 0 {
            let piece = buffers.next().ok_or_else(|| unexpected("no body"))?;
            left = left.checked_sub(piece.len()).ok_or_else(|| unexpected("a body"))?;
            body.push(Bytes::from_owner(Owner(piece)));
        }
        if !is_schema {
            messages.push(Message { header: Bytes::from_owner(Owner(metadata)), body, ..Message::default() });
        }
    }
    Ok(messages)
}
