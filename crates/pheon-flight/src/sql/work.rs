//! Threads that plan and run statements. They may be busy for long; those that answer clients may not.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::stream::{self, BoxStream, StreamExt};
use pheon_sql::{SendableRecordBatchStream, SqlError};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::sql_status::failed;

/// Of each thread: plans are trees, walked by recursion.
const STACK_BYTES: usize = 16 << 20;
/// Batches that are computed before the client has taken those before them.
const QUEUE_BATCHES_MAX: usize = 2;

/// The threads. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Work {
    threads: Arc<Threads>,
    time_max: Duration,
}

struct Threads(Option<Runtime>);

impl Drop for Threads {
    /// Does not wait for work that is under way: this may be one of the threads that may not.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Work that ends when nobody waits for it any more.
struct Wanted(AbortHandle);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Work {
    /// `threads` of them; a statement may run for `time_max`.
    pub(crate) fn new(threads: usize, time_max: Duration) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_stack_size(STACK_BYTES)
            .thread_name("pheon-sql")
            .enable_time()
            .build()?;
        Ok(Self { threads: Arc::new(Threads(Some(runtime))), time_max })
    }

    /// When a statement that begins now has to be done.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.time_max
    }

    fn runtime(&self) -> Result<&Runtime, Status> {
        self.threads.0.as_ref().ok_or_else(|| Status::unavailable("the server ends"))
    }

    /// Runs something to its end, or until its time is over.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        until: Instant,
        work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, Status> {
        let task = self.runtime()?.spawn(work);
        let _wanted = Wanted(task.abort_handle());
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
        let task = self.runtime()?.spawn(async move {
            while let Some(batch) = rows.next().await {
                if send.send(batch).await.is_err() {
                    return;
                }
            }
        });
        let (wanted, work) = (Wanted(task.abort_handle()), self.clone());
        let state = Some((receive, wanted, work));
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
