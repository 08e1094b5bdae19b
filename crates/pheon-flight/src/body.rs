//! Flight messages as the body of a gRPC response: the pieces of a message become HTTP/2 DATA frames as they are.
//!
//! The generated server would have prost write each message into one buffer, and the encoder before it each batch into
//! another: two copies of everything. Here the bytes go from the mapping to the socket.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use http::HeaderMap;
use http_body::Frame;
use prost::encoding::{encode_varint, encoded_len_varint};
use tonic::Status;

use crate::connection::Loan;
use crate::encode::Message;

/// Pieces that are smaller are copied together: each frame costs a system call.
const PIECE_BYTES_MIN: usize = 16 << 10;
/// The compression flag and the length that stand before a gRPC message.
const GRPC_PREFIX_BYTES: usize = 5;
/// Field numbers and wire type 2 of `FlightData`'s members.
const DATA_HEADER_KEY: u64 = 2 << 3 | 2;
const APP_METADATA_KEY: u64 = 3 << 3 | 2;
const DATA_BODY_KEY: u64 = 1000 << 3 | 2;

fn field_bytes(key: u64, len: usize) -> usize {
    if len == 0 { 0 } else { encoded_len_varint(key) + encoded_len_varint(len as u64) + len }
}

fn put_key(key: u64, len: usize, out: &mut BytesMut) {
    encode_varint(key, out);
    encode_varint(len as u64, out);
}

/// A message as it stands on the wire, in pieces.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` for one of 4 GiB or more, which gRPC cannot carry.
pub(crate) fn pieces(message: Message, out: &mut VecDeque<Bytes>) -> Result<(), Status> {
    let body_len = message.body_bytes();
    let len = field_bytes(DATA_HEADER_KEY, message.header.len())
        + field_bytes(APP_METADATA_KEY, message.app_metadata.len())
        + field_bytes(DATA_BODY_KEY, body_len);
    let Ok(grpc_len) = u32::try_from(len) else {
        return Err(Status::resource_exhausted(format!("a message of {len} bytes: gRPC carries less than 4 GiB")));
    };
    let mut small = BytesMut::with_capacity(GRPC_PREFIX_BYTES + len - body_len);
    small.put_u8(0);
    small.put_u32(grpc_len);
    for (key, bytes) in [(DATA_HEADER_KEY, &message.header), (APP_METADATA_KEY, &message.app_metadata)] {
        if !bytes.is_empty() {
            put_key(key, bytes.len(), &mut small);
            small.put_slice(bytes);
        }
    }
    if body_len > 0 {
        put_key(DATA_BODY_KEY, body_len, &mut small);
    }
    for piece in message.body {
        if piece.len() < PIECE_BYTES_MIN {
            small.put_slice(&piece);
            continue;
        }
        if !small.is_empty() {
            out.push_back(small.split().freeze());
        }
        out.push_back(piece);
    }
    if !small.is_empty() {
        out.push_back(small.freeze());
    }
    Ok(())
}

/// The body of a response that streams messages.
pub(crate) struct MessageBody<S> {
    messages: Option<S>,
    pieces: VecDeque<Bytes>,
    loan: Option<Loan>,
}

impl<S> MessageBody<S> {
    /// `loan`: the connection that the pieces go to.
    pub(crate) fn new(messages: S, loan: Option<Loan>) -> Self {
        Self { messages: Some(messages), pieces: VecDeque::new(), loan }
    }
}

impl<S> http_body::Body for MessageBody<S>
where
    S: Stream<Item = Result<Message, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(piece) = this.pieces.pop_front() {
                if piece.len() >= PIECE_BYTES_MIN
                    && let Some(loan) = &this.loan
                {
                    loan.lend(piece.clone());
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(messages) = &mut this.messages else { return Poll::Ready(None) };
            let status = match ready!(Pin::new(messages).poll_next(cx)) {
                Some(Ok(message)) => match pieces(message, &mut this.pieces) {
                    Ok(()) => continue,
                    Err(status) => status,
                },
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            this.messages = None;
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::FlightData;
    use prost::Message as _;

    use super::*;

    fn wire(message: Message) -> Vec<Bytes> {
        let mut out = VecDeque::new();
        pieces(message, &mut out).unwrap();
        out.into()
    }

    #[test]
    fn the_wire_is_protobufs() {
        let large = Bytes::from(vec![7; PIECE_BYTES_MIN]);
        let body = vec![Bytes::from_static(b"abc"), large.clone(), Bytes::from_static(b"x"), large.clone()];
        let message =
            Message { header: Bytes::from_static(b"header"), app_metadata: Bytes::from_static(b"meta"), body, rows: 0 };
        let expected = message.clone().into_flight_data();
        let wire = wire(message);
        assert_eq!(wire.len(), 4, "large pieces stay as they are");
        assert_eq!(wire[1].as_ptr(), large.as_ptr());
        let all = wire.concat();
        assert_eq!(all[..5], [0, 0, 0, 0x80, 0x17]);
        assert_eq!(all.len() - 5, u32::from_be_bytes(all[1..5].try_into().unwrap()) as usize);
        assert_eq!(FlightData::decode(&all[5..]).unwrap(), expected);
        assert_eq!(expected.encoded_len(), all.len() - 5);
    }

    #[test]
    fn empty_members_are_left_out() {
        let all = wire(Message { app_metadata: Bytes::from_static(b"m"), ..Message::default() }).concat();
        assert_eq!(all, [0, 0, 0, 0, 3, 0x1A, 1, b'm']);
        assert_eq!(wire(Message::default()).concat(), [0, 0, 0, 0, 0]);
    }
}
