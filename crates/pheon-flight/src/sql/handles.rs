//! What clients hold between calls: statements and transactions, in bounded number, for a bounded time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use bytes::Bytes;
use pheon_sql::{Session, Statement};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tonic::Status;

use super::gate::{Caller, Gate};
use crate::flat::kept_bytes;

/// Tables that statements keep open while nothing executes them, so that the next execution need not plan again. Each takes
/// several mappings, of which a process may have 65 530.
const TABLES_OPEN_MAX: usize = 512;
/// How long a statement keeps its tables open without being used, and parameters that it was executed with. So long one that
/// was not prepared is there after its rows were fetched: for clients that fetch again.
const SPENT_IDLE_MAX: Duration = Duration::from_secs(60);
/// How often is looked what has been there for long enough.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// A statement that was parsed takes so many times the bytes of its text.
const BYTES_OF_TEXT: usize = 16;

/// The handle of a change that is executed already.
const DONE: &[u8] = b"done";

/// Bounds on what is kept and done for clients.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HandleLimits {
    /// Statements and transactions of all callers. Default: 10 000.
    pub count_max: usize,
    /// Statements and transactions of one caller. Default: 2500.
    pub caller_count_max: usize,
    /// Transactions of one caller; each keeps the versions that it has read. Default: 250.
    pub caller_transactions_max: usize,
    /// Bytes of statements and their parameters, of all callers. Default: 512 MiB.
    pub bytes_max: usize,
    /// Bytes of statements and their parameters, of one caller. Default: 128 MiB.
    pub caller_bytes_max: usize,
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
            caller_count_max: 2_500,
            caller_transactions_max: 250,
            bytes_max: 512 << 20,
            caller_bytes_max: 128 << 20,
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

impl Kept {
    fn bytes(&self) -> usize {
        let Self::Statement(held) = self else { return 0 };
        let of_bound = held.bound.as_ref().map_or(0, kept_bytes);
        let of_bound = usize::try_from(of_bound).unwrap_or(usize::MAX);
        held.text.len().saturating_mul(BYTES_OF_TEXT).saturating_add(of_bound)
    }

    fn is_transaction(&self) -> bool {
        matches!(self, Self::Transaction(_))
    }

    /// It is fetched at once, if ever, and never closed.
    fn is_plain(&self) -> bool {
        matches!(self, Self::Statement(held) if !held.prepared)
    }

    /// Its rows are still being sent, or its change is being made.
    fn is_running(&self) -> bool {
        matches!(self, Self::Statement(held) if held.cancel.receiver_count() > 0)
    }
}

struct Entry {
    kept: Kept,
    owner: String,
    used: Instant,
    /// Since it got its parameters.
    executed: bool,
    bytes: usize,
}

impl Entry {
    fn is_spent(&self) -> bool {
        self.executed && !self.kept.is_running()
    }

    fn has_expired(&self, limits: &HandleLimits) -> bool {
        let idle_max =
            if self.kept.is_plain() && self.executed { limits.idle_max.min(SPENT_IDLE_MAX) } else { limits.idle_max };
        self.used.elapsed() >= idle_max && !self.kept.is_running()
    }
}

/// What all entries take, or those of one caller.
#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    count: usize,
    transactions: usize,
    bytes: usize,
}

#[derive(Default)]
struct Entries {
    last: u64,
    by_number: HashMap<u64, Entry>,
    /// Statements whose tables may be open; the one that was used last at the end.
    open: VecDeque<u64>,
    all: Usage,
    by_owner: HashMap<String, Usage>,
}

impl Entries {
    fn account(&mut self, owner: &str, change: impl Fn(&mut Usage)) {
        change(&mut self.all);
        let usage = self.by_owner.entry(owner.to_owned()).or_default();
        change(usage);
        if usage.count == 0 {
            self.by_owner.remove(owner);
        }
    }

    fn insert(&mut self, owner: &str, kept: Kept) -> u64 {
        self.last += 1;
        let (bytes, transactions) = (kept.bytes(), usize::from(kept.is_transaction()));
        self.account(owner, |usage| {
            usage.count += 1;
            usage.transactions += transactions;
            usage.bytes += bytes;
        });
        let entry = Entry { kept, owner: owner.to_owned(), used: Instant::now(), executed: false, bytes };
        self.by_number.insert(self.last, entry);
        self.last
    }

    fn remove(&mut self, number: u64) {
        let Some(entry) = self.by_number.remove(&number) else { return };
        let (bytes, transactions) = (entry.bytes, usize::from(entry.kept.is_transaction()));
        self.account(&entry.owner, |usage| {
            usage.count -= 1;
            usage.transactions -= transactions;
            usage.bytes -= bytes;
        });
        self.open.retain(|&open| open != number);
    }

    /// Counts the bytes of an entry that has changed.
    fn recount(&mut self, number: u64) {
        let Some(entry) = self.by_number.get_mut(&number) else { return };
        let (before, now) = (entry.bytes, entry.kept.bytes());
        entry.bytes = now;
        let owner = entry.owner.clone();
        self.account(&owner, |usage| usage.bytes = usage.bytes + now - before);
    }

    /// A statement is about to be executed, or was planned just now: others close their tables for it.
    fn used(&mut self, number: u64) {
        self.open.retain(|&open| open != number);
        self.open.push_back(number);
        let tables = |number: &u64| match self.by_number.get(number).map(|entry| &entry.kept) {
            Some(Kept::Statement(held)) => held.statement.open_tables().max(1),
            _ => 0,
        };
        let mut count: usize = self.open.iter().map(tables).sum();
        while count > TABLES_OPEN_MAX && self.open.len() > 1 {
            let Some(oldest) = self.open.pop_front() else { break };
            if let Some(Kept::Statement(held)) = self.by_number.get(&oldest).map(|entry| &entry.kept) {
                count -= held.statement.open_tables().max(1);
                held.statement.release();
            }
        }
    }

    /// Lets go of what nobody is expected to ask for any more.
    fn sweep(&mut self, limits: &HandleLimits) {
        let expired: Vec<u64> = self.matching(|entry| entry.has_expired(limits));
        expired.into_iter().for_each(|number| self.remove(number));
        for number in self.matching(|entry| entry.used.elapsed() >= SPENT_IDLE_MAX) {
            let Some(entry) = self.by_number.get_mut(&number) else { continue };
            let is_spent = entry.is_spent();
            if let Kept::Statement(held) = &mut entry.kept {
                held.statement.release();
                if is_spent && held.bound.take().is_some() {
                    self.recount(number);
                }
            }
            self.open.retain(|&open| open != number);
        }
    }

    fn matching(&self, is_it: impl Fn(&Entry) -> bool) -> Vec<u64> {
        self.by_number.iter().filter(|(_, entry)| is_it(entry)).map(|(&number, _)| number).collect()
    }

    /// Makes room for so much more, by letting go first of parameters that were used, then of statements that were not
    /// prepared, the oldest first; `owner`: only of his.
    fn make_room(&mut self, more: Usage, max: Usage, owner: Option<&str>) -> Result<(), &'static str> {
        let whose = |entry: &Entry| owner.is_none_or(|owner| entry.owner == owner);
        let used = |entries: &Self| match owner {
            Some(owner) => entries.by_owner.get(owner).copied().unwrap_or_default(),
            None => entries.all,
        };
        if used(self).bytes.saturating_add(more.bytes) > max.bytes {
            for number in self.matching(|entry| whose(entry) && entry.is_spent()) {
                if let Some(Entry { kept: Kept::Statement(held), .. }) = self.by_number.get_mut(&number) {
                    held.bound = None;
                }
                self.recount(number);
            }
        }
        loop {
            let used = used(self);
            if used.transactions + more.transactions > max.transactions {
                return Err("transactions; end some");
            }
            let too_many = used.count + more.count > max.count;
            if !too_many && used.bytes.saturating_add(more.bytes) <= max.bytes {
                return Ok(());
            }
            let plain = self.by_number.iter().filter(|(_, e)| whose(e) && e.kept.is_plain());
            let oldest = plain.min_by_key(|(_, e)| e.used).map(|(&number, _)| number);
            match oldest {
                Some(oldest) => self.remove(oldest),
                None if too_many => return Err("open statements; close some"),
                None => return Err("bytes in open statements and their parameters; close some"),
            }
        }
    }
}

/// All of them, by number.
pub(super) struct Handles {
    entries: Mutex<Entries>,
    limits: HandleLimits,
    /// Numbers are those of one process: with a key that several share, or that outlives them, their handles would be the
    /// same.
    process: [u8; 16],
    sweeper: Mutex<Option<Thread>>,
}

impl Handles {
    /// With a thread that looks after them for as long as they are there.
    pub(super) fn new(limits: HandleLimits) -> io::Result<Arc<Self>> {
        let mut process = [0; 16];
        SystemRandom::new().fill(&mut process).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let handles = Arc::new(Self { entries: Mutex::default(), limits, process, sweeper: Mutex::default() });
        let swept = Arc::downgrade(&handles);
        let sweeper = std::thread::Builder::new().name("pheon-sql-sweep".to_owned()).spawn(move || sweep(&swept))?;
        *handles.sweeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(sweeper.thread().clone());
        Ok(handles)
    }

    pub(super) fn limits(&self) -> &HandleLimits {
        &self.limits
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of a change that is executed already.
    pub(super) fn done(&self, gate: &dyn Gate) -> Bytes {
        self.signed(gate, DONE)
    }

    pub(super) fn is_done(&self, gate: &dyn Gate, handle: &[u8]) -> bool {
        gate.open(handle).is_some_and(|payload| payload.strip_prefix(&self.process) == Some(DONE))
    }

    fn signed(&self, gate: &dyn Gate, what: &[u8]) -> Bytes {
        gate.sign(&[&self.process, what].concat()).into()
    }

    pub(super) fn keep_statement(&self, gate: &dyn Gate, caller: &Caller, held: Held) -> Result<Bytes, Status> {
        self.keep(gate, caller, Kept::Statement(held))
    }

    pub(super) fn keep_transaction(&self, gate: &dyn Gate, caller: &Caller, session: Session) -> Result<Bytes, Status> {
        self.keep(gate, caller, Kept::Transaction(session))
    }

    fn keep(&self, gate: &dyn Gate, caller: &Caller, kept: Kept) -> Result<Bytes, Status> {
        let mut entries = self.entries();
        let more = Usage { count: 1, transactions: usize::from(kept.is_transaction()), bytes: kept.bytes() };
        self.make_room(&mut entries, &caller.name, more)?;
        let is_statement = !kept.is_transaction();
        let number = entries.insert(&caller.name, kept);
        if is_statement {
            entries.used(number);
        }
        drop(entries);
        Ok(self.signed(gate, &number.to_be_bytes()))
    }

    fn make_room(&self, entries: &mut Entries, owner: &str, more: Usage) -> Result<(), Status> {
        let limits = &self.limits;
        let of_one = Usage {
            count: limits.caller_count_max,
            transactions: limits.caller_transactions_max,
            bytes: limits.caller_bytes_max,
        };
        let of_all = Usage { count: limits.count_max, transactions: usize::MAX, bytes: limits.bytes_max };
        let refused = |whose: &str, what: &str| Status::resource_exhausted(format!("{whose} too many {what}"));
        let made = entries.make_room(more, of_one, Some(owner));
        let made = made.or_else(|_| {
            entries.sweep(limits);
            entries.make_room(more, of_one, Some(owner))
        });
        made.map_err(|what| refused(&format!("{owner:?} holds"), what))?;
        let made = entries.make_room(more, of_all, None);
        let made = made.or_else(|_| {
            entries.sweep(limits);
            entries.make_room(more, of_all, None)
        });
        made.map_err(|what| refused("all callers together hold", what))
    }

    /// What `read` makes of an entry; an error if it is not there, no longer, or another caller's.
    fn with<T>(
        &self,
        gate: &dyn Gate,
        caller: &Caller,
        handle: &[u8],
        read: impl FnOnce(&mut Entry) -> Option<T>,
    ) -> Result<T, Status> {
        let number = self.number_of(gate, handle)?;
        let mut entries = self.entries();
        let entry = entries.by_number.get_mut(&number).filter(|e| e.owner == caller.name).ok_or_else(gone)?;
        if entry.has_expired(&self.limits) {
            entries.remove(number);
            return Err(Status::failed_precondition("the handle has expired; prepare the statement again"));
        }
        entry.used = Instant::now();
        read(entry).ok_or_else(gone)
    }

    /// The statement, with the caller's rights as they are now.
    pub(super) fn statement(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8]) -> Result<Held, Status> {
        let mut held = self.with(gate, caller, handle, |entry| match &entry.kept {
            Kept::Statement(held) => Some(held.clone()),
            Kept::Transaction(_) => None,
        })?;
        held.statement = held.statement.with_access(caller.access.clone());
        Ok(held)
    }

    /// A statement, and the parameters that it has, are about to be used.
    pub(super) fn executing(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8]) -> Result<(), Status> {
        self.with(gate, caller, handle, |entry| {
            entry.executed = true;
            Some(())
        })?;
        let number = self.number_of(gate, handle)?;
        self.entries().used(number);
        Ok(())
    }

    pub(super) fn transaction(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8]) -> Result<Session, Status> {
        self.with(gate, caller, handle, |entry| match &entry.kept {
            Kept::Transaction(session) => Some(session.clone()),
            Kept::Statement(_) => None,
        })
    }

    /// Replaces a statement by one with values.
    pub(super) fn bind(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8], held: Held) -> Result<(), Status> {
        let number = self.number_of(gate, handle)?;
        let kept = Kept::Statement(held);
        // Those that were bound before make room themselves.
        self.with(gate, caller, handle, |entry| match &mut entry.kept {
            Kept::Statement(there) => {
                there.bound = None;
                Some(())
            }
            Kept::Transaction(_) => None,
        })?;
        let mut entries = self.entries();
        entries.recount(number);
        let now = entries.by_number.get(&number).ok_or_else(gone)?.bytes;
        let more = Usage { count: 0, transactions: 0, bytes: kept.bytes().saturating_sub(now) };
        self.make_room(&mut entries, &caller.name, more)?;
        let entry = entries.by_number.get_mut(&number).ok_or_else(gone)?;
        (entry.kept, entry.executed) = (kept, false);
        entries.recount(number);
        entries.used(number);
        Ok(())
    }

    /// Forgets a handle; one that is not there is no error.
    pub(super) fn close(&self, gate: &dyn Gate, caller: &Caller, handle: &[u8]) -> Result<(), Status> {
        let number = match self.number_of(gate, handle) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            number => number?,
        };
        let mut entries = self.entries();
        if entries.by_number.get(&number).is_some_and(|e| e.owner == caller.name) {
            entries.remove(number);
        }
        Ok(())
    }

    fn number_of(&self, gate: &dyn Gate, handle: &[u8]) -> Result<u64, Status> {
        let payload =
            gate.open(handle).ok_or_else(|| Status::invalid_argument("the handle is not one of this server"))?;
        let number = payload.strip_prefix(&self.process).ok_or_else(gone)?;
        let number = number.try_into().map_err(|_| Status::invalid_argument("the handle is not one of a statement"))?;
        Ok(u64::from_be_bytes(number))
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            sweeper.unpark();
        }
    }
}

fn gone() -> Status {
    Status::not_found("no such handle: it was closed, has expired, or is one of another process of the server")
}

fn sweep(handles: &Weak<Handles>) {
    loop {
        std::thread::park_timeout(SWEEP_INTERVAL);
        let Some(handles) = handles.upgrade() else { return };
        handles.entries().sweep(&handles.limits);
    }
}
