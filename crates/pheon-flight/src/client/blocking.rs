//! The client for callers without a runtime.
//!
//! All clients of a process share one runtime, which the threads that wait for answers drive. After a fork the child makes its own, and each client connects
//! anew there at its next call; what the parent had is left alone. Idle lookups are kept for the next one of their kind.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::error::ClientError;
use super::{ClientOptions, LiveAnswer, LiveOperation, Lookup, LookupOptions, PutWriter, ScanStream};
use super::{Published, Put, Scan, ScanInfo, SqlAnswer, StoreFacts};

/// How often a waiting call asks whether it was interrupted.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// How often, and for how long, connections are tended that nobody waits for.
const TEND_EVERY: Duration = Duration::from_millis(500);
const TEND_TIME: Duration = Duration::from_millis(1);
/// Idle lookups that are kept, of one kind and of all kinds.
const IDLE_MAX: usize = 4;
const IDLE_KINDS_MAX: usize = 16;
/// How long they are kept, at most twice: a server that is to end waits for those who look keys up.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// Asked while a call waits, on the thread that called; true ends the call with [`ClientError::Interrupted`].
pub type Interrupt = Arc<dyn Fn() -> bool + Send + Sync>;

/// What belongs to one process. In a forked child it is neither used nor dropped: the threads behind it are not there.
struct OfProcess<T> {
    pid: u32,
    value: Option<T>,
}

impl<T> OfProcess<T> {
    fn new(value: T) -> Self {
        Self { pid: std::process::id(), value: Some(value) }
    }

    fn get(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.pid == std::process::id())
    }

    fn get_mut(&mut self) -> Option<&mut T> {
        if self.pid == std::process::id() { self.value.as_mut() } else { None }
    }

    fn take(&mut self) -> Option<T> {
        if self.pid == std::process::id() { self.value.take() } else { None }
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}

/// The runtime of this process, made at first use. Lock-free: a lock might be held by another thread when a process forks.
static RUNTIME: ArcSwapOption<OfProcess<Runtime>> = ArcSwapOption::const_empty();

fn runtime() -> Result<Arc<OfProcess<Runtime>>, ClientError> {
    let now = RUNTIME.load_full();
    if let Some(runtime) = &now
        && runtime.get().is_some()
    {
        return Ok(Arc::clone(runtime));
    }
    let failed = |e| ClientError::Options { problem: format!("the client's threads could not be started: {e}") };
    // Whoever waits drives the connections meanwhile: an answer wakes its thread and no other.
    let made = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let made = Arc::new(OfProcess::new(made));
    let before = RUNTIME.compare_and_swap(&now, Some(Arc::clone(&made)));
    match &*before {
        // Another thread was faster.
        Some(other) if other.get().is_some() => Ok(Arc::clone(other)),
        _ => {
            let held = Arc::clone(&made);
            std::thread::Builder::new().name("pheon-client".into()).spawn(move || tend(&held)).map_err(failed)?;
            Ok(made)
        }
    }
}

/// Has connections answer the server's pings while nobody waits for anything, and idle lookups end.
fn tend(runtime: &OfProcess<Runtime>) {
    while let Some(runtime) = runtime.get() {
        std::thread::sleep(TEND_EVERY);
        runtime.block_on(async { tokio::time::sleep(TEND_TIME).await });
    }
}

/// What waits, and how it is interrupted.
#[derive(Clone)]
struct Waiter {
    interrupt: Option<Interrupt>,
}

impl Waiter {
    /// Runs a future to its end on this thread.
    fn wait<T>(
        &self,
        operation: &'static str,
        future: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let mut answer = None;
        {
            let mut answered = std::pin::pin!(async { answer = Some(future.await) });
            self.drive(operation, answered.as_mut())?;
        }
        answer.unwrap_or(Err(ClientError::Interrupted { operation }))
    }

    /// [`Waiter::wait`], for futures of one type: tokio's loops would be compiled for each other one again.
    fn drive(&self, operation: &'static str, mut future: Pin<&mut dyn Future<Output = ()>>) -> Result<(), ClientError> {
        let runtime = runtime()?;
        let Some(tokio) = runtime.get() else { return Err(ClientError::Interrupted { operation }) };
        let Some(interrupt) = &self.interrupt else {
            tokio.block_on(future);
            return Ok(());
        };
        tokio.block_on(async {
            loop {
                match tokio::time::timeout(POLL_EVERY, &mut future).await {
                    Ok(()) => return Ok(()),
                    Err(_) if interrupt() => return Err(ClientError::Interrupted { operation }),
                    Err(_) => {}
                }
            }
        })
    }
}

/// A kind of lookup: what in, and with which keys.
type Kind = (LookupOptions, SchemaRef);

/// What a client has in one process.
struct Session {
    client: super::Client,
    idle: Mutex<HashMap<Kind, Vec<(Instant, Lookup)>>>,
}

/// Lets go of lookups that lay idle for long, as long as there is the session.
async fn sweep(session: Weak<OfProcess<Session>>) {
    loop {
        tokio::time::sleep(IDLE_TIME).await;
        let Some(held) = session.upgrade() else { return };
        let Some(session) = held.get() else { return };
        let mut all = session.idle.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, same| {
            same.retain(|(since, _)| since.elapsed() < IDLE_TIME);
            !same.is_empty()
        });
    }
}

/// A client whose calls wait. It may be used by any number of threads, and in forked children.
pub struct Client {
    uri: String,
    options: ClientOptions,
    waiter: Waiter,
    session: ArcSwapOption<OfProcess<Session>>,
}

impl Client {
    /// Connects; see [`Client::connect`](super::Client::connect).
    ///
    /// # Errors
    /// The URI or an option does not fit, nobody listens there, or the credentials are refused.
    pub fn connect(uri: &str, options: ClientOptions, interrupt: Option<Interrupt>) -> Result<Self, ClientError> {
        let client = Self::lazy(uri, options, interrupt);
        client.session()?;
        Ok(client)
    }

    /// A client that connects at its first call.
    #[must_use]
    pub fn lazy(uri: &str, options: ClientOptions, interrupt: Option<Interrupt>) -> Self {
        let waiter = Waiter { interrupt };
        Self { uri: uri.to_owned(), options, waiter, session: ArcSwapOption::const_empty() }
    }

    /// Where it connects to.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// This process's connection.
    fn session(&self) -> Result<Arc<OfProcess<Session>>, ClientError> {
        let now = self.session.load_full();
        if let Some(session) = &now
            && session.get().is_some()
        {
            return Ok(Arc::clone(session));
        }
        let client = self.waiter.wait("connect", super::Client::connect(&self.uri, self.options.clone()))?;
        let made = Arc::new(OfProcess::new(Session { client, idle: Mutex::default() }));
        self.session.store(Some(Arc::clone(&made)));
        if let Some(tokio) = runtime()?.get() {
            tokio.spawn(sweep(Arc::downgrade(&made)));
        }
        Ok(made)
    }

    fn call<'a, T, F>(
        &'a self,
        operation: &'static str,
        call: impl FnOnce(super::Client) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>> + 'a,
    {
        let session = self.session()?;
        let Some(open) = session.get() else { return Err(ClientError::Interrupted { operation }) };
        self.waiter.wait(operation, call(open.client.clone()))
    }

    /// Ends the connection; the next call makes another.
    pub fn disconnect(&self) {
        self.session.store(None);
    }

    /// See [`Client::store`](super::Client::store).
    ///
    /// # Errors
    /// As there.
    pub fn store(&self) -> Result<StoreFacts, ClientError> {
        self.call("ask about the store", |client| async move { client.store().await })
    }

    /// See [`Client::action`](super::Client::action).
    ///
    /// # Errors
    /// As there.
    pub fn action(&self, name: &str, body: impl Into<Bytes>) -> Result<Vec<Bytes>, ClientError> {
        let body = body.into();
        self.call("run an action", |client| async move { client.action(name, body).await })
    }

    /// See [`Client::live_names`](super::Client::live_names).
    ///
    /// # Errors
    /// As there.
    pub fn live_names(&self) -> Result<Vec<String>, ClientError> {
        self.call("list live maps", |client| async move { client.live_names().await })
    }

    /// See [`Client::schema`](super::Client::schema).
    ///
    /// # Errors
    /// As there.
    pub fn schema(&self, dataset: &str) -> Result<SchemaRef, ClientError> {
        self.call("read a schema", |client| async move { client.schema(dataset).await })
    }

    /// See [`Client::scan_schema`](super::Client::scan_schema).
    ///
    /// # Errors
    /// As there.
    pub fn scan_schema(&self, scan: &Scan) -> Result<SchemaRef, ClientError> {
        self.call("read a schema", |client| async move { client.scan_schema(scan).await })
    }

    /// See [`Client::scan_info`](super::Client::scan_info).
    ///
    /// # Errors
    /// As there.
    pub fn scan_info(&self, scan: &Scan) -> Result<ScanInfo, ClientError> {
        self.call("ask about rows", |client| async move { client.scan_info(scan).await })
    }

    /// See [`Client::scan`](super::Client::scan).
    ///
    /// # Errors
    /// As there.
    pub fn scan(&self, scan: &Scan) -> Result<Rows, ClientError> {
        let stream = self.call("read rows", |client| async move { client.scan(scan).await })?;
        Ok(Rows::of(stream, &self.waiter))
    }

    /// See [`Client::live`](super::Client::live).
    ///
    /// # Errors
    /// As there.
    pub fn live(&self, map: &str, operations: &[LiveOperation]) -> Result<Vec<LiveAnswer>, ClientError> {
        self.call("change a live map", |client| async move { client.live(map, operations).await })
    }

    /// See [`Client::query`](super::Client::query).
    ///
    /// # Errors
    /// As there.
    pub fn query(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<Rows, ClientError> {
        let stream = self.call("run SQL", |client| async move { client.query(sql, parameters).await })?;
        Ok(Rows::of(stream, &self.waiter))
    }

    /// See [`Client::sql`](super::Client::sql).
    ///
    /// # Errors
    /// As there.
    pub fn sql(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<Answer, ClientError> {
        let answer = self.call("run SQL", |client| async move { client.sql(sql, parameters).await })?;
        Ok(match answer {
            SqlAnswer::Rows(stream) => Answer::Rows(Rows::of(stream, &self.waiter)),
            SqlAnswer::Changed(rows) => Answer::Changed(rows),
        })
    }

    /// See [`Client::execute`](super::Client::execute).
    ///
    /// # Errors
    /// As there.
    pub fn execute(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<u64, ClientError> {
        self.call("run SQL", |client| async move { client.execute(sql, parameters).await })
    }

    /// See [`Client::put`](super::Client::put).
    ///
    /// # Errors
    /// As there.
    pub fn put(&self, put: &Put, schema: SchemaRef) -> Result<Writer, ClientError> {
        let writer = self.call("write rows", |client| async move { client.put(put, schema) })?;
        Ok(Writer { writer: OfProcess::new(writer), waiter: self.waiter.clone() })
    }

    /// The values of many keys, aligned with them when put behind each other: one batch at least. An idle lookup of the same
    /// kind is used, else one begins; a broken connection is tried again once.
    ///
    /// # Errors
    /// The server refused, or the connection broke.
    pub fn lookup(
        &self,
        options: &LookupOptions,
        keys: &RecordBatch,
    ) -> Result<(SchemaRef, Vec<RecordBatch>), ClientError> {
        const OPERATION: &str = "look keys up";
        let held = self.session()?;
        let Some(session) = held.get() else { return Err(ClientError::Interrupted { operation: OPERATION }) };
        let kind = (options.clone(), keys.schema());
        let idle = {
            let mut all = session.idle.lock().unwrap_or_else(PoisonError::into_inner);
            all.get_mut(&kind).and_then(Vec::pop)
        };
        let from_idle = match idle {
            Some((_, mut lookup)) => {
                let done = self.waiter.wait(OPERATION, lookup.get_many(keys));
                Some((lookup, done))
            }
            None => None,
        };
        let (lookup, done) = match from_idle {
            Some((lookup, Ok(answers))) => (lookup, answers),
            Some((_, Err(e @ (ClientError::Interrupted { .. } | ClientError::Deadline { .. })))) => return Err(e),
            // What failed may be the connection, or the server may have ended what lay idle; a new one tells.
            Some((_, Err(_))) | None => self.waiter.wait(OPERATION, async {
                let mut lookup = session.client.lookup(options, keys.schema()).await?;
                let answers = match lookup.get_many(keys).await {
                    Err(e) if e.is_connection() => {
                        lookup = session.client.lookup(options, keys.schema()).await?;
                        lookup.get_many(keys).await?
                    }
                    done => done?,
                };
                Ok((lookup, answers))
            })?,
        };
        let schema = Arc::clone(lookup.schema());
        let mut all = session.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= IDLE_KINDS_MAX && !all.contains_key(&kind) {
            all.clear();
        }
        let same = all.entry(kind).or_default();
        if same.len() < IDLE_MAX {
            same.push((Instant::now(), lookup));
        }
        Ok((schema, done))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("uri", &self.uri).field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a statement gave.
#[derive(Debug)]
pub enum Answer {
    /// The rows of a query.
    Rows(Rows),
    /// How many rows a change was about.
    Changed(u64),
}

/// Rows as they arrive. Dropped, the stream ends at the server too.
pub struct Rows {
    schema: SchemaRef,
    rows: Option<u64>,
    stream: OfProcess<ScanStream>,
    waiter: Waiter,
}

impl Rows {
    fn of(stream: ScanStream, waiter: &Waiter) -> Self {
        let (schema, rows) = (Arc::clone(stream.schema()), stream.rows());
        Self { schema, rows, stream: OfProcess::new(stream), waiter: waiter.clone() }
    }

    /// How many rows come in all, if the server knows.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, the server found something, or the deadline passed.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        const OPERATION: &str = "read rows";
        match self.stream.get_mut() {
            Some(stream) => self.waiter.wait(OPERATION, stream.next_batch()),
            None => Err(of_another_process(OPERATION)),
        }
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().map_err(|e| ArrowError::ExternalError(Box::new(e))).transpose()
    }
}

impl RecordBatchReader for Rows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Takes rows. What is not committed is not published.
#[derive(Debug)]
pub struct Writer {
    writer: OfProcess<PutWriter>,
    waiter: Waiter,
}

impl Writer {
    /// See [`PutWriter::write`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&mut self, rows: RecordBatch) -> Result<(), ClientError> {
        const OPERATION: &str = "write rows";
        match self.writer.get_mut() {
            Some(writer) => self.waiter.wait(OPERATION, writer.write(rows)),
            None => Err(of_another_process(OPERATION)),
        }
    }

    /// See [`PutWriter::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn commit(mut self) -> Result<Published, ClientError> {
        const OPERATION: &str = "write rows";
        match self.writer.take() {
            Some(writer) => self.waiter.wait(OPERATION, writer.commit()),
            None => Err(of_another_process(OPERATION)),
        }
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("interrupt", &self.interrupt.is_some()).finish()
    }
}

impl<T> std::fmt::Debug for OfProcess<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfProcess").field("pid", &self.pid).finish_non_exhaustive()
    }
}

fn of_another_process(operation: &'static str) -> ClientError {
    let source = io::Error::new(io::ErrorKind::NotConnected, "it was begun before this process was forked");
    ClientError::Connection { operation, uri: String::new(), source: Arc::new(source) }
}
