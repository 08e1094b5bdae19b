//! A statement while it runs: seen in the log of queries, ended when somebody cancels it or its time is over.

use std::future::{pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use pheon_sql::{SendableRecordBatchStream, SqlError};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use super::sql_status::failed;
use crate::queries::{QueryGuard, QueryLog};
use crate::record::CallRecord;

/// One execution of a statement. It leaves the log when this is dropped.
pub(crate) struct Running {
    guard: QueryGuard,
    /// Of the handle that the client has.
    cancel: Option<watch::Receiver<bool>>,
    until: Option<(Instant, Duration)>,
    record: CallRecord,
}

impl Running {
    pub(crate) fn new(log: &QueryLog, principal: &str, text: &str, record: CallRecord) -> Self {
        Self { guard: log.begin(principal, text), cancel: None, until: None, record }
    }

    /// Ended by this too.
    pub(super) fn cancelled_by(self, cancel: watch::Receiver<bool>) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// Ended after so long.
    pub(crate) fn within(self, time_max: Duration) -> Self {
        Self { until: Instant::now().checked_add(time_max).map(|at| (at, time_max)), ..self }
    }

    /// Waits until it has to end; why.
    async fn stopped(&mut self) -> Status {
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
        let until = self.until;
        let overdue = async move {
            match until {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = by_handle => Status::cancelled("the statement was cancelled"),
            () = by_log => Status::cancelled("the statement was cancelled"),
            () = overdue => {
                let seconds = until.map_or(0.0, |(_, time_max)| time_max.as_secs_f64());
                Status::deadline_exceeded(format!("the query took longer than {seconds} s, the limit query_time_max"))
            }
        }
    }

    /// Does a part of it.
    pub(crate) async fn run<T>(&mut self, work: impl Future<Output = Result<T, SqlError>>) -> Result<T, Status> {
        tokio::select! {
            done = work => done.map_err(failed),
            why = self.stopped() => Err(why),
        }
    }

    /// Its rows, counted.
    pub(crate) fn rows(self, rows: SendableRecordBatchStream) -> BoxStream<'static, Result<RecordBatch, Status>> {
        let rows = rows.map_err(|e| failed(SqlError::from(e)));
        stream::unfold(Some((self, rows)), |state| async move {
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
        })
        .boxed()
    }

    /// Rows that it has sent or changed.
    pub(super) fn count(&self, rows: u64) {
        self.guard.rows(rows);
        self.record.rows(rows);
    }
}
