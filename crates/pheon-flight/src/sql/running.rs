//! A statement while it runs: seen in the log of queries, ended when somebody cancels it or its time is over.

use std::future::{pending, poll_fn};
use std::task::Poll;

use arrow_array::RecordBatch;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use pheon_sql::{SendableRecordBatchStream, SqlError};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::work::Work;
use crate::queries::{QueryGuard, QueryLog};
use crate::record::CallRecord;

/// One execution of a statement. It leaves the log when this is dropped.
pub(crate) struct Running {
    guard: QueryGuard,
    /// Of the handle that the client has.
    cancel: Option<watch::Receiver<bool>>,
    work: Work,
    until: Instant,
    record: CallRecord,
}

impl Running {
    pub(super) fn new(log: &QueryLog, principal: &str, text: &str, work: Work, record: CallRecord) -> Self {
        let until = work.until();
        Self { guard: log.begin(principal, text), cancel: None, work, until, record }
    }

    /// Ended by this too.
    pub(super) fn cancelled_by(self, cancel: watch::Receiver<bool>) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// Waits until somebody cancels it.
    pub(super) async fn stopped(&mut self) -> Status {
        let cancel = &mut self.cancel;
        let by_handle = async move {
            if let Some(cancel) = cancel
                && cancel.wait_for(|cancelled| *cancelled).await.is_ok()
            {
                return;
            }
            // Nobody can any more.
            pending().await
        };
        let guard = &self.guard;
        let by_log = poll_fn(|context| if guard.poll_cancelled(context) { Poll::Ready(()) } else { Poll::Pending });
        tokio::select! {
            () = by_handle => {}
            () = by_log => {}
        }
        Status::cancelled("the statement was cancelled")
    }

    /// Does a part of it.
    pub(crate) async fn run<T: Send + 'static>(
        &mut self,
        part: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, Status> {
        let (work, until) = (self.work.clone(), self.until);
        tokio::select! {
            done = work.run(until, part) => done,
            why = self.stopped() => Err(why),
        }
    }

    /// Its rows, counted.
    pub(crate) async fn rows(
        self,
        rows: SendableRecordBatchStream,
    ) -> Result<BoxStream<'static, Result<RecordBatch, Status>>, Status> {
        let rows = self.work.rows(self.until, rows).await?;
        let counted = stream::unfold(Some((self, rows)), |state| async move {
            let (mut running, mut rows) = state?;
            let next = tokio::select! {
                biased;
                why = running.stopped() => Err(why),
                next = rows.next() => next?,
            };
            match next {
                Ok(batch) => {
                    running.count(batch.num_rows() as u64);
                    Some((Ok(batch), Some((running, rows))))
                }
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(counted.boxed())
    }

    /// Rows that it has sent or changed.
    pub(super) fn count(&self, rows: u64) {
        self.guard.rows(rows);
        self.record.rows(rows);
    }
}
