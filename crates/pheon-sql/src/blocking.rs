//! SQL for callers without a runtime: the command line and Python.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::DataFusionError;
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::engine::Engine;
use crate::error::SqlError;

/// Stack of the threads that plan and run: plans are trees, walked by recursion.
const STACK_BYTES: usize = 16 << 20;
/// Batches that are computed before they are asked for.
const QUEUE_BATCHES_MAX: usize = 2;
/// How often it is asked whether to go on.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// How long work that is no longer wanted may take to notice.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// The answer to a statement.
#[derive(Debug)]
pub enum Answer {
    /// Its rows.
    Rows(BlockingRows),
    /// How many rows it changed.
    Changed(u64),
}

/// Rows of a query, computed by threads that end with it.
pub struct BlockingRows {
    /// `None` after the last one.
    receive: Option<mpsc::Receiver<Result<RecordBatch, DataFusionError>>>,
    schema: SchemaRef,
    threads: Threads,
}

impl std::fmt::Debug for BlockingRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockingRows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl BlockingRows {
    /// Exactly that of the batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Iterator for BlockingRows {
    type Item = Result<RecordBatch, SqlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let receive = self.receive.as_mut()?;
        let next = self.threads.wait(receive.recv());
        if !matches!(next, Ok(Some(Ok(_)))) {
            self.receive = None;
        }
        match next {
            Ok(next) => next.map(|batch| batch.map_err(SqlError::from)),
            Err(stopped) => Some(Err(stopped)),
        }
    }
}

/// Threads of one statement, and who says when it is not wanted any more.
struct Threads {
    runtime: Option<Runtime>,
    stop: Box<dyn FnMut() -> bool + Send>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP_TIME_MAX);
        }
    }
}

impl Threads {
    fn start(count: usize, stop: Box<dyn FnMut() -> bool + Send>) -> Result<Self, SqlError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(count.max(1))
            .thread_stack_size(STACK_BYTES)
            .thread_name("pheon-sql")
            .enable_time()
            .build()
            .map_err(|e| SqlError::Internal { problem: format!("start threads: {e}") })?;
        Ok(Self { runtime: Some(runtime), stop })
    }

    /// Does work on a thread of its own, whose stack is known to suffice.
    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<JoinHandle<T>, SqlError> {
        let gone = || SqlError::Internal { problem: "the threads have ended".to_owned() };
        Ok(self.runtime.as_ref().ok_or_else(gone)?.spawn(work))
    }

    /// Waits, and asks every now and then whether to go on. By its own clock: all threads of the runtime may be busy.
    fn wait<T>(&mut self, work: impl Future<Output = T>) -> Result<T, SqlError> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut work = std::pin::pin!(work);
        let mut asked = Instant::now();
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
                return Ok(done);
            }
            std::thread::park_timeout(ASK_INTERVAL);
            if asked.elapsed() >= ASK_INTERVAL {
                asked = Instant::now();
                if (self.stop)() {
                    return Err(SqlError::Stopped);
                }
            }
        }
    }
}

/// Wakes the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Engine {
    /// Executes a statement in a runtime of its own.
    ///
    /// # Panics
    /// Within another tokio runtime: there use a [`crate::Session`].
    pub fn execute(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<Answer, SqlError> {
        self.execute_until(sql, parameters, || false)
    }

    /// The same, as long as `stop` says false. It is asked some times a second, by the thread that waits, also while rows
    /// are.
    ///
    /// # Errors
    /// [`SqlError::Stopped`] when it has said true. A change that was being published at that moment may be there.
    ///
    /// # Panics
    /// Within another tokio runtime: there use a [`crate::Session`].
    pub fn execute_until(
        &self,
        sql: &str,
        parameters: Option<RecordBatch>,
        stop: impl FnMut() -> bool + Send + 'static,
    ) -> Result<Answer, SqlError> {
        let mut threads = Threads::start(self.options().partitions, Box::new(stop))?;
        let (session, sql) = (self.session(), sql.to_owned());
        let work = threads.spawn(async move {
            let statement = session.prepare(&sql).await?;
            if statement.is_query() {
                Ok::<_, SqlError>((Some(statement.query(parameters).await?), 0))
            } else {
                Ok((None, statement.update(parameters).await?))
            }
        })?;
        let ended = work.abort_handle();
        let done = threads.wait(work).inspect_err(|_| ended.abort())?;
        match done.map_err(|e| SqlError::Internal { problem: e.to_string() })?? {
            (Some(mut stream), _) => {
                let schema = stream.schema();
                let (send, receive) = mpsc::channel(QUEUE_BATCHES_MAX);
                threads.spawn(async move {
                    while let Some(batch) = stream.next().await {
                        if send.send(batch).await.is_err() {
                            return;
                        }
                    }
                })?;
                Ok(Answer::Rows(BlockingRows { receive: Some(receive), schema, threads }))
            }
            (None, changed) => Ok(Answer::Changed(changed)),
        }
    }

    /// All rows of a query; no rows and no columns of an update.
    pub fn collect(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), SqlError> {
        match self.execute(sql, None)? {
            Answer::Rows(rows) => Ok((rows.schema(), rows.collect::<Result<Vec<_>, _>>()?)),
            Answer::Changed(_) => Ok((SchemaRef::new(arrow_schema::Schema::empty()), vec![])),
        }
    }
}
