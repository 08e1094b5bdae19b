//! A client's stream of batches to the server.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use arrow_schema::{ArrowError, SchemaRef};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::abort::Abort;
use crate::encode::{Encoder, Message, encode_within};

/// What servers take in one message, and some more.
pub(super) const MESSAGE_BYTES: usize = 2 << 20;
/// Each batch is one message, whatever its size.
pub(super) const UNCUT: usize = usize::MAX;

/// Why the stream was made to fail on this side.
pub(super) type Failure = Arc<Mutex<Option<FlightError>>>;

/// Where batches go in.
pub(super) struct Outgoing {
    pub(super) batches: mpsc::Sender<RecordBatch>,
    pub(super) abort: Abort,
    pub(super) failure: Failure,
}

impl Outgoing {
    /// A stream of what is put in, of at most so many batches ahead, beginning with descriptor and schema. A batch becomes
    /// messages of about `message_bytes` each.
    pub(super) fn new(
        descriptor: FlightDescriptor,
        schema: SchemaRef,
        ahead: usize,
        message_bytes: usize,
    ) -> (Self, impl Stream<Item = FlightData> + Send + 'static) {
        let (batches, received) = mpsc::channel(ahead);
        let (abort, failure) = (Abort::default(), Failure::default());
        // Not arrow-flight's own encoder: it announces large lists as lists (59.3), and servers then misread their offsets.
        let mut first = Message::schema(&schema).into_flight_data();
        first.flight_descriptor = Some(descriptor);
        let mut encoder = Encoder::new(&schema);
        let encoded = ReceiverStream::new(received).flat_map(move |batch: RecordBatch| {
            let encoded = match &mut encoder {
                Ok(encoder) => {
                    let mut messages = Vec::new();
                    encode_within(encoder, &batch, message_bytes, &mut messages).map(|()| messages)
                }
                Err(e) => Err(ArrowError::IpcError(e.to_string())),
            };
            futures::stream::iter(match encoded {
                Ok(messages) => messages.into_iter().map(|message| Ok(message.into_flight_data())).collect(),
                Err(e) => vec![Err(FlightError::Arrow(e))],
            })
        });
        let encoded = futures::stream::iter([Ok(first)]).chain(encoded);
        let (thrown, noted) = (abort.clone(), Arc::clone(&failure));
        let messages = encoded.filter_map(move |message| {
            let message = match message {
                Ok(message) => Some(message),
                // The stream must not end here, for its end means that this was all.
                Err(e) => {
                    *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    thrown.throw();
                    None
                }
            };
            futures::future::ready(message)
        });
        (Self { batches, abort, failure }, messages)
    }

    /// What went wrong on this side, if something did.
    pub(super) fn take_failure(&self) -> Option<FlightError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
