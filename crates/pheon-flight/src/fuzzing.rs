//! What a client may send, handed in without a socket: for the targets in `fuzz/`, and no part of the interface.
//!
//! Each function does what the service does with the same bytes, and answers as it would.

use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_flight::{Action, FlightData, FlightDescriptor};
use arrow_schema::SchemaRef;
use futures::{TryStreamExt, executor, stream};
use pheon::Store;
use prost::Message;
use tonic::Status;

use crate::action;
use crate::auth::Signer;
use crate::command::{LookupCommand, PutCommand, ScanCommand};
use crate::encode::Encoder;
use crate::exchange;
use crate::flat::Flatten;
use crate::intake::{Intake, Taken};
use crate::live_action;
use crate::record::CallRecord;
use crate::scan::{self, Selection};
use crate::service::Caller;
use crate::ticket::ScanTicket;

/// The bytes of a descriptor as `DoPut`, `DoExchange` and `GetFlightInfo` read them.
pub fn descriptor(bytes: &[u8]) -> Result<ScanCommand, Status> {
    let descriptor = FlightDescriptor::decode(bytes).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let _ = (PutCommand::of_descriptor(&descriptor), LookupCommand::of_descriptor(&descriptor));
    ScanCommand::of_descriptor(&descriptor)
}

/// A ticket that somebody made up, and one with these contents that is signed.
pub fn ticket(bytes: &[u8]) -> Option<ScanCommand> {
    let signer = Signer::new(&[7; 32]);
    let forged = ScanTicket::open(bytes, &signer);
    assert!(forged.is_err(), "a ticket that nobody signed was accepted");
    ScanTicket::open(&signer.sign(bytes), &signer).ok().map(|ticket| ticket.scan)
}

/// The rows that a command selects, encoded; how many.
pub fn scan(store: &Store, command: &ScanCommand) -> Result<usize, Status> {
    command.check()?;
    let table = scan::open(store, command.dataset.as_deref().unwrap_or_default())?;
    let selection = Selection::new(table, command)?;
    let (schema, rows) = (selection.schema(), selection.rows());
    let mut encoder = Encoder::new(&schema).map_err(|e| Status::internal(e.to_string()))?;
    let (mut sent, mut messages) = (0, Vec::new());
    for batches in selection.batches()? {
        for batch in batches? {
            sent += batch.num_rows();
            scan::messages(&mut encoder, &batch, &mut messages)?;
        }
    }
    assert_eq!(sent, rows, "a scan sends as many rows as it says");
    Ok(sent)
}

/// What `DoExchange` answers to these keys.
pub fn lookup(store: &Store, command: &[u8], keys: &RecordBatch) -> Result<RecordBatch, Status> {
    let command = LookupCommand::of_descriptor(&FlightDescriptor::new_cmd(command.to_vec()))?;
    exchange::answer_once(store, &command, keys, 64 << 20)
}

/// An action, by anybody: what has a name like `live` goes to live maps.
pub fn action(store: &Store, name: &str, body: &[u8]) -> Result<usize, Status> {
    let caller = Caller::everyone();
    if name == "live" {
        return live_action::run(&caller, store, body, Duration::from_secs(1), 1 << 20)
            .map(|answer| answer.len())
            .map_err(Status::from);
    }
    let action = Action { r#type: name.to_owned(), body: body.to_vec().into() };
    action::run(&caller, store, false, 64 << 20, &action).map(|results| results.len())
}

/// A client's stream of messages, as `DoPut` and `DoExchange` take it in.
pub fn intake(messages: Vec<FlightData>, bytes_max: u64) -> Result<(Option<SchemaRef>, Vec<RecordBatch>), Status> {
    let messages = stream::iter(messages.into_iter().map(Ok));
    let taken = Intake::new(messages, bytes_max, Flatten::All, CallRecord::default());
    let taken: Vec<Taken> = executor::block_on(taken.try_collect())?;
    let mut schema = None;
    let mut batches = Vec::new();
    for next in taken {
        match next {
            Taken::Schema(found) => schema = Some(found),
            Taken::Rows { batch, .. } => batches.push(batch),
        }
    }
    Ok((schema, batches))
}
