//! Threads that plan and run statements. They may be busy for long; those that answer clients may not.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::stream::{self, BoxStream, StreamExt};
use pheon_sql::{SendableRecordBatchStream, SqlError};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use super::sql_status::failed;

/// Of each thread: plans are trees, walked by recursion.
const STACK_BYTES: usize = 16 << 20;
/// Batches that are computed before the client has taken those before them.
const QUEUE_BATCHES_MAX: usize = 2;

/// How long the threads may take to begin with something. Work that does not yield for longer keeps them, and nothing can
/// stop it: others take their place.
const BEGIN_TIME_MAX: Duration = Duration::from_millis(500);
/// So many threads there are at most, those included that such work keeps.
const THREADS_MAX: usize = 256;

/// The threads. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Work {
    pool: Arc<Pool>,
    time_max: Duration,
}

struct Pool {
    count: usize,
    current: Mutex<Arc<Threads>>,
    /// Threads that there are.
    alive: Arc<AtomicUsize>,
}

struct Threads(Option<Runtime>);

impl Threads {
    fn start(count: usize, alive: &Arc<AtomicUsize>) -> io::Result<Arc<Self>> {
        let (started, stopped) = (alive.clone(), alive.clone());
        let runtime = Builder::new_multi_thread()
            .worker_threads(count)
            .thread_stack_size(STACK_BYTES)
            .thread_name("pheon-sql")
            .on_thread_start(move || {
                started.fetch_add(1, Ordering::Relaxed);
            })
            .on_thread_stop(move || {
                stopped.fetch_sub(1, Ordering::Relaxed);
            })
            .enable_time()
            .build()?;
        Ok(Arc::new(Self(Some(runtime))))
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<JoinHandle<T>, Status> {
        let runtime = self.0.as_ref().ok_or_else(|| Status::unavailable("the server ends"))?;
        Ok(runtime.spawn(work))
    }
}

impl Drop for Threads {
    /// Does not wait for work that is under way: this may be one of the threads that may not.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Pool {
    fn current(&self) -> MutexGuard<'_, Arc<Threads>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads that begin with what they are given.
    async fn ready(&self) -> Result<Arc<Threads>, Status> {
        let threads = self.current().clone();
        let begun = threads.spawn(async {})?;
        let is_ready = timeout(BEGIN_TIME_MAX, begun).await.is_ok();
        if is_ready || self.alive.load(Ordering::Relaxed) >= THREADS_MAX {
            return Ok(threads);
        }
        let mut current = self.current();
        if Arc::ptr_eq(&current, &threads)
            && let Ok(others) = Threads::start(self.count, &self.alive)
        {
            *current = others;
        }
        Ok(current.clone())
    }
}

/// Work that ends when nobody waits for it any more, and the threads that it needs until then.
struct Wanted {
    abort: AbortHandle,
    _threads: Arc<Threads>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Work {
    /// `threads` of them; a statement may run for `time_max`.
    pub(crate) fn new(threads: usize, time_max: Duration) -> io::Result<Self> {
        let (count, alive) = (threads.max(1), Arc::default());
        let current = Mutex::new(Threads::start(count, &alive)?);
        Ok(Self { pool: Arc::new(Pool { count, current, alive }), time_max })
    }

    /// When a statement that begins now has to be done.
    pub(crate) fn until(&self) -> Instant {
        Instant::now() + self.time_max
    }

    /// Starts something on the threads.
    async fn start<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<(JoinHandle<T>, Wanted), Status> {
        let threads = self.pool.ready().await?;
        let task = threads.spawn(work)?;
        let abort = task.abort_handle();
        Ok((task, Wanted { abort, _threads: threads }))
    }

    /// Runs something to its end, or until its time is over.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        until: Instant,
        work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, Status> {
        let (task, _wanted) = self.start(work).await?;
        match timeout_at(until, task).await {
            Ok(Ok(done)) => done.map_err(failed),
            Ok(Err(e)) => Err(failed(SqlError::Internal { problem: e.to_string() })),
            Err(_) => Err(self.too_long()),
        }
    }

    /// The rows of a query as they are computed. Ends with an error when their time is over.
    pub(crate) async fn rows(
        &self,
        until: Instant,
        mut rows: SendableRecordBatchStream,
    ) -> Result<BoxStream<'static, Result<RecordBatch, Status>>, Status> {
        let (send, receive) = mpsc::channel(QUEUE_BATCHES_MAX);
        let computing = async move {
            while let Some(batch) = rows.next().await {
                if send.send(batch).await.is_err() {
                    return;
                }
            }
        };
        let (_, wanted) = self.start(computing).await?;
        let state = Some((receive, wanted, self.clone()));
        let computed = stream::unfold(state, move |state| async move {
            let (mut receive, wanted, work) = state?;
            match timeout_at(until, receive.recv()).await {
                Ok(Some(Ok(batch))) => Some((Ok(batch), Some((receive, wanted, work)))),
                Ok(Some(Err(e))) => Some((Err(failed(e.into())), None)),
                Ok(None) => None,
                Err(_) => Some((Err(work.too_long()), None)),
            }
        });
        Ok(computed.boxed())
    }

    fn too_long(&self) -> Status {
        Status::deadline_exceeded(format!(
            "the statement took longer than {:?}, which the server allows (query_time_max)",
            self.time_max
        ))
    }
}
