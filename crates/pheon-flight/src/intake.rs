//! What clients send: checked before it is decoded, decoded without harm, counted.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow_array::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::{Code, Status};

use crate::flat::{Flatten, flat_bytes};
use crate::ipc::{IpcBodyError, unpacked_bytes};
use crate::record::CallRecord;

/// A message that means something.
#[derive(Debug)]
pub(crate) enum Taken {
    Schema(SchemaRef),
    Rows { batch: RecordBatch, app_metadata: Bytes },
}

/// The decoded messages of one stream.
pub(crate) struct Intake {
    decoder: FlightDataDecoder,
    flatten: Flatten,
    bytes_max: u64,
    record: CallRecord,
    failed: bool,
}

impl Intake {
    /// Of this stream. `bytes_max`: what the buffers of one message may unpack to, and the dictionaries of the whole stream
    /// together; also what columns may become that refer to their values.
    pub(crate) fn new(
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
        bytes_max: u64,
        flatten: Flatten,
        record: CallRecord,
    ) -> Self {
        let mut dictionaries = HashMap::new();
        let counted = record.clone();
        let checked = messages.map(move |message| {
            let message = message.map_err(of_stream)?;
            check(&message, bytes_max, &mut dictionaries)?;
            counted.moved(0, message.data_body.len() as u64);
            Ok(message)
        });
        // A message that has only a descriptor or metadata is no part of the stream of data.
        let with_data = checked.try_filter(|data| std::future::ready(!data.data_header.is_empty()));
        let decoder = FlightDataDecoder::new(with_data.map_err(|status: Status| FlightError::from(status)));
        Self { decoder, flatten, bytes_max, record, failed: false }
    }

    /// The next batch of rows; schemas are passed over.
    #[cfg(feature = "sql")]
    pub(crate) async fn rows(&mut self) -> Option<Result<RecordBatch, Status>> {
        loop {
            match self.next().await? {
                Ok(Taken::Rows { batch, .. }) => return Some(Ok(batch)),
                Ok(Taken::Schema(_)) => {}
                Err(status) => return Some(Err(status)),
            }
        }
    }

    /// The schema, once it has come.
    #[cfg(feature = "sql")]
    pub(crate) fn schema(&self) -> Option<&SchemaRef> {
        self.decoder.schema()
    }

    fn taken(&self, payload: DecodedPayload, app_metadata: Bytes) -> Result<Option<Taken>, Status> {
        match payload {
            DecodedPayload::None => Ok(None),
            DecodedPayload::Schema(schema) => Ok(Some(Taken::Schema(schema))),
            DecodedPayload::RecordBatch(batch) => {
                let bytes = flat_bytes(&batch, self.flatten);
                if bytes > self.bytes_max {
                    return Err(IpcBodyError::TooLarge { bytes, bytes_max: self.bytes_max }.into());
                }
                self.record.rows(batch.num_rows() as u64);
                Ok(Some(Taken::Rows { batch, app_metadata }))
            }
        }
    }
}

/// A stream that was cut off was cancelled. Only from here on it may be called so.
fn of_stream(status: Status) -> Status {
    if status.code() == Code::Aborted { Status::cancelled(status.message()) } else { status }
}

fn check(message: &FlightData, bytes_max: u64, dictionaries: &mut HashMap<i64, u64>) -> Result<(), Status> {
    let (bytes, dictionary) = unpacked_bytes(message, bytes_max)?;
    if let Some(id) = dictionary {
        // One that comes again replaces the one before it, or is added to it: then it counts for more than it is.
        let known = dictionaries.entry(id).or_insert(0);
        *known = if is_delta(message) { known.saturating_add(bytes) } else { bytes };
        let bytes = dictionaries.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        if bytes > bytes_max {
            return Err(IpcBodyError::TooLarge { bytes, bytes_max }.into());
        }
    }
    Ok(())
}

fn is_delta(message: &FlightData) -> bool {
    let header = arrow_ipc::root_as_message(&message.data_header).ok();
    header.and_then(|header| header.header_as_dictionary_batch()).is_some_and(|dictionary| dictionary.isDelta())
}

/// What a failed stream of a client's data is.
fn of_flight(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::invalid_argument(format!("the stream is malformed: {other}")),
    }
}

impl Stream for Intake {
    type Item = Result<Taken, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.failed {
                return Poll::Ready(None);
            }
            // A message that the decoder has not foreseen ends its stream, and nothing else.
            let next = catch_unwind(AssertUnwindSafe(|| this.decoder.poll_next_unpin(context)));
            let next = match next {
                Ok(next) => ready!(next),
                Err(_) => {
                    this.failed = true;
                    return Poll::Ready(Some(Err(Status::invalid_argument("the stream is malformed"))));
                }
            };
            let taken = match next {
                None => return Poll::Ready(None),
                Some(Ok(data)) => {
                    let app_metadata = data.app_metadata();
                    this.taken(data.payload, app_metadata)
                }
                Some(Err(e)) => Err(of_flight(e)),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(taken)) => return Poll::Ready(Some(Ok(taken))),
                Err(status) => {
                    this.failed = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}
