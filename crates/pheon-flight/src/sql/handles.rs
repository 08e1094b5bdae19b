//! What clients hold between calls: statements and transactions, in bounded number, for a bounded time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use bytes::Bytes;
use pheon_sql::{Session, Statement};
use tokio::sync::watch;
use tonic::Status;

use super::gate::{Caller, Gate};

/// Bounds on what is kept and done for clients.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HandleLimits {
    /// Statements and transactions of all callers. Default: 10 000.
    pub count_max: usize,
    /// How long one is kept without being used. Default: 15 minutes.
    pub idle_max: Duration,
    /// Bytes of parameters that one call may bind. Default: 64 MiB.
    pub parameter_bytes_max: usize,
    /// Bytes that the buffers of one message of parameters or rows may unpack to. Default: 256 MiB.
    pub decompressed_bytes_max: u64,
    /// How long a statement may run. Default: 10 minutes.
    pub time_max: Duration,
}

impl Default for HandleLimits {
    fn default() -> Self {
        Self {
            count_max: 10_000,
            idle_max: Duration::from_secs(15 * 60),
            parameter_bytes_max: 64 << 20,
            decompressed_bytes_max: 256 << 20,
            time_max: Duration::from_secs(10 * 60),
        }
    }
}

/// A statement that a client has a handle of.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) statement: Statement,
    /// As the client wrote it.
    pub(super) text: Arc<str>,
    pub(super) bound: Option<RecordBatch>,
    /// It may be executed many times.
    pub(super) prepared: bool,
    /// Says true when it is cancelled.
    pub(super) cancel: Arc<watch::Sender<bool>>,
}

impl Held {
    pub(super) fn new(statement: Statement, text: &str, prepared: bool) -> Self {
        Self { statement, text: text.into(), bound: None, prepared, cancel: Arc::new(watch::Sender::new(false)) }
    }
}

enum Kept {
    Statement(Held),
    Transaction(Session),
}

struct Entry {
    kept: Kept,
    owner: String,
    used: Instant,
}

/// All of them, by number.
pub(super) struct Handles {
    entries: Mutex<(u64, HashMap<u64, Entry>)>,
    limits: HandleLimits,
}

impl Handles {
    pub(super) fn new(limits: HandleLimits) -> Self {
        Self { entries: Mutex::default(), limits }
    }

    pub(super) fn limits(&self) -> &HandleLimits {
        &self.limits
    }

    pub(super) fn keep_statement(&self, gate: &dyn Gate, caller: &Caller, held: Held) -> Result<Bytes, Status> {
        self.keep(gate, caller, Kept::Statement(held))
    }

    pub(super) fn keep_transaction(&self, gate: &dyn Gate, caller: &Caller, session: Session) -> Result<Bytes, Status> {
        self.keep(gate, caller, Kept::Transaction(session))
    }

    fn keep(&self, gate: &dyn Gate, caller: &Caller, kept: Kept) -> Result<Bytes, Status> {
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, entries) = &mut *guard;
        if entries.len() >= self.limits.count_max {
            entries.retain(|_, entry| entry.used.elapsed() < self.limits.idle_max);
        }
        if entries.len() >= self.limits.count_max {
            // A statement that was not prepared is fetched at once, if ever, and never closed.
            let plain = entries.iter().filter(|(_, e)| matches!(&e.kept, Kept::Statement(held) if !held.prepared));
            let oldest = plain.min_by_key(|(_, e)| e.used).map(|(&number, _)| number);
            let oldest = oldest.ok_or_else(|| Status::resource_exhausted("too many open statements; close some"))?;
            entries.remove(&oldest);
        }
        *next += 1;
        entries.insert(*next, Entry { kept, owner: caller.name.clone(), used: Instant::now() });
        Ok(gate.sign(&next.to_be_bytes()).into())
    }

    /// What `read` makes of an entry; an error if it is not there, no longer, or another caller's.
    fn with<T>(
        &self,
        gate: &dyn Gate,
        caller: &Caller,
        handle: &[u8],
        read: impl FnOnce(&mut Kept) -> Option<T>,
    ) -> Result<T, Status> {
        let number = number_of(gate, handle)?;
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || Status::not_found("no such handle: it was closed, has expired, or the server was started anew");
        let entry = guard.1.get_mut(&number).filter(|e| e.owner == caller.name).ok_or_else(gone)?;
        if entry.used.elapsed() >= self.limits.idle_max {
            guard.1.remove(&number);
            return Err(Status::failed_precondition("the handle has expired; prepare the statement again"));
        }
        entry.used = Instant::now();
        read(&mut entry.kept).ok_or_else(gone)
    }

    pub(super) fn statement(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8]) -> Result<Held, Status> {
        self.with(gate, caller, handle, |kept| match kept {
            Kept::Statement(held) => Some(held.clone()),
            Kept::Transaction(_) => None,
        })
    }

    pub(super) fn transaction(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8]) -> Result<Session, Status> {
        self.with(gate, caller, handle, |kept| match kept {
            Kept::Transaction(session) => Some(session.clone()),
            Kept::Statement(_) => None,
        })
    }

    /// Replaces a statement by one with values.
    pub(super) fn bind(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8], held: Held) -> Result<(), Status> {
        self.with(gate, caller, handle, |kept| match kept {
            Kept::Statement(there) => {
                *there = held;
                Some(())
            }
            Kept::Transaction(_) => None,
        })
    }

    /// Forgets a handle; one that is not there is no error.
    pub(super) fn close(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8]) -> Result<(), Status> {
        let number = number_of(gate, handle)?;
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.1.get(&number).is_some_and(|e| e.owner == caller.name) {
            guard.1.remove(&number);
        }
        Ok(())
    }
}

fn number_of(gate: &dyn Gate, handle: &[u8]) -> Result<u64, Status> {
    let payload = gate.open(handle).ok_or_else(|| Status::invalid_argument("the handle is not one of this server"))?;
    let number = payload.try_into().map_err(|_| Status::invalid_argument("the handle is not one of a statement"))?;
    Ok(u64::from_be_bytes(number))
}
