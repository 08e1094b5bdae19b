//! Threads that plan and run statements. They may be busy for long; those that answer clients may not.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::stream::{self, BoxStream, StreamExt};
use pheon_sql::{SendableRecordBatchStream, SqlError};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::sql_status::failed;

/// Of each thread: plans are trees, walked by recursion.
const STACK_BYTES: usize = 16 << 20;
/// Batches that are computed before the client has taken those before them.
const QUEUE_BATCHES_MAX: usize = 2;

/// Threads that are kept by work that does not end, at most so many times as many as there should be.
const STUCK_MAX: usize = 4;
/// How long work that is no longer wanted may take to notice, before its threads are replaced.
const STOP_TIME_MAX: Duration = Duration::from_secs(1);

/// The threads. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(super) struct Work {
    pool: Arc<Pool>,
    time_max: Duration,
}

struct Pool {
    count: usize,
    current: Mutex<Arc<Threads>>,
    /// How many of the pool's threads are kept by work that nobody waits for.
    stuck: AtomicUsize,
    /// Those that answer clients, and look after these.
    watch: Handle,
}

struct Threads(Option<Runtime>);

impl Threads {
    fn start(count: usize) -> io::Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(count)
            .thread_stack_size(STACK_BYTES)
            .thread_name("pheon-sql")
            .enable_time()
            .build()?;
        Ok(Arc::new(Self(Some(runtime))))
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
    fn current(&self) -> Arc<Threads> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts new threads in the place of those that work does not give back: nothing can stop it, only wait for it.
    async fn replace(self: Arc<Self>, kept: Arc<Threads>, ended: impl Future<Output = ()>) {
        let mut ended = std::pin::pin!(ended);
        if tokio::time::timeout(STOP_TIME_MAX, ended.as_mut()).await.is_ok() {
            return;
        }
        self.stuck.fetch_add(1, Ordering::Relaxed);
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&current, &kept)
                && let Ok(threads) = Threads::start(self.count)
            {
                *current = threads;
            }
        }
        ended.await;
        self.stuck.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Work that ends when nobody waits for it any more.
struct Wanted {
    pool: Arc<Pool>,
    threads: Arc<Threads>,
    abort: AbortHandle,
    /// Closed when the work is gone.
    ended: Option<oneshot::Receiver<()>>,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.abort.abort();
        let Some(ended) = self.ended.take() else { return };
        if !self.abort.is_finished() {
            let ended = async { drop(ended.await) };
            self.pool.watch.spawn(self.pool.clone().replace(self.threads.clone(), ended));
        }
    }
}

impl Work {
    /// `threads` of them; a statement may run for `time_max`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn new(threads: usize, time_max: Duration) -> io::Result<Self> {
        let count = threads.max(1);
        let (current, stuck) = (Mutex::new(Threads::start(count)?), AtomicUsize::new(0));
        let pool = Pool { count, current, stuck, watch: Handle::current() };
        Ok(Self { pool: Arc::new(pool), time_max })
    }

    /// When a statement that begins now has to be done.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.time_max
    }

    /// Starts something on the threads.
    fn start<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<(JoinHandle<T>, Wanted), Status> {
        if self.pool.stuck.load(Ordering::Relaxed) >= STUCK_MAX * self.pool.count {
            return Err(Status::resource_exhausted("statements whose time is over keep all threads; try again later"));
        }
        let threads = self.pool.current();
        let runtime = threads.0.as_ref().ok_or_else(|| Status::unavailable("the server ends"))?;
        let (alive, ended) = oneshot::channel::<()>();
        let task = runtime.spawn(async move {
            let _alive = alive;
            work.await
        });
        let (pool, abort) = (self.pool.clone(), task.abort_handle());
        Ok((task, Wanted { pool, threads, abort, ended: Some(ended) }))
    }

    /// Runs something to its end, or until its time is over.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        until: Instant,
        work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, Status> {
        let (task, _wanted) = self.start(work)?;
        match timeout_at(until, task).await {
            Ok(Ok(done)) => done.map_err(failed),
            Ok(Err(e)) => Err(failed(SqlError::Internal { problem: e.to_string() })),
            Err(_) => Err(self.too_long()),
        }
    }

    /// The rows of a query as they are computed. Ends with an error when their time is over.
    pub(super) fn rows(
        &self,
        until: Instant,
        mut rows: SendableRecordBatchStream,
    ) -> Result<BoxStream<'static, Result<RecordBatch, Status>>, Status> {
        let (send, receive) = mpsc::channel(QUEUE_BATCHES_MAX);
        let (_, wanted) = self.start(async move {
            while let Some(batch) = rows.next().await {
                if send.send(batch).await.is_err() {
                    return;
                }
            }
        })?;
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
