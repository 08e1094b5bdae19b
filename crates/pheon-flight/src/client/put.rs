//! Writing: a stream of rows that becomes one version, or nothing.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::{FlightDescriptor, PutResult};
use arrow_schema::SchemaRef;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::connection::{Connection, empty, protocol};
use super::error::ClientError;
use super::outgoing::{MESSAGE_BYTES, Outgoing};

const OPERATION: &str = "write rows";
/// Batches that wait to be sent.
const BATCHES_AHEAD: usize = 2;

/// What becomes of the rows that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PutMode {
    /// A version of only the new rows.
    #[default]
    Publish,
    /// Both.
    Append,
    /// Those whose keys come again are replaced.
    Upsert,
    /// Those that have these keys go.
    Delete,
}

/// What to write where: a command of docs/flight.md.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Put {
    put: String,
    mode: PutMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_duplicate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compact: Option<bool>,
}

impl Put {
    /// A new version of a dataset.
    #[must_use]
    pub fn publish(dataset: &str) -> Self {
        Self { put: dataset.to_owned(), ..Self::default() }
    }

    /// More rows for a dataset.
    #[must_use]
    pub fn append(dataset: &str) -> Self {
        Self { mode: PutMode::Append, ..Self::publish(dataset) }
    }

    /// Rows that replace those with the same keys.
    #[must_use]
    pub fn upsert(dataset: &str) -> Self {
        Self { mode: PutMode::Upsert, ..Self::publish(dataset) }
    }

    /// Keys whose rows go.
    #[must_use]
    pub fn delete(dataset: &str) -> Self {
        Self { mode: PutMode::Delete, ..Self::publish(dataset) }
    }

    /// The key columns.
    #[must_use]
    pub fn key<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.key = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Whether each key may occur once only.
    #[must_use]
    pub fn map(mut self, map: bool) -> Self {
        self.map = Some(map);
        self
    }

    /// The value columns of a map.
    #[must_use]
    pub fn value<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.value = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// What to do with a key that comes twice: `error`, `first` or `last`.
    #[must_use]
    pub fn on_duplicate(mut self, which: impl Into<String>) -> Self {
        self.on_duplicate = Some(which.into());
        self
    }

    /// Whether small segments are merged after a change, as soon as there are many. Default: yes.
    #[must_use]
    pub fn compact(mut self, compact: bool) -> Self {
        self.compact = Some(compact);
        self
    }
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Published {
    /// The dataset.
    pub dataset: String,
    /// Its new version.
    pub version: u64,
    /// Rows that came in; of a deletion those that went.
    pub rows: u64,
}

/// Takes rows. What is not committed is not published.
pub struct PutWriter {
    outgoing: Option<Outgoing>,
    reply: JoinHandle<Result<Published, ClientError>>,
}

impl PutWriter {
    pub(super) fn begin(connection: Arc<Connection>, put: &Put, schema: SchemaRef) -> Result<Self, ClientError> {
        let command = serde_json::to_vec(put).map_err(|e| protocol(OPERATION, e))?;
        let (outgoing, messages) =
            Outgoing::new(FlightDescriptor::new_cmd(command), schema, BATCHES_AHEAD, MESSAGE_BYTES);
        let abort = outgoing.abort.clone();
        let reply = tokio::spawn(async move {
            connection.renew_login(OPERATION).await?;
            let request = connection.abortable(messages, &abort);
            let mut stub = connection.stub();
            let answer = async {
                let mut results = stub.do_put(request).await?.into_inner();
                let mut last: Option<PutResult> = None;
                while let Some(result) = results.try_next().await? {
                    last = Some(result);
                }
                last.ok_or_else(|| empty(OPERATION))
            };
            // No deadline here: how long rows take to come is the caller's affair.
            let result = answer.await.map_err(|s| ClientError::from_status(OPERATION, &connection.uri, &s))?;
            serde_json::from_slice(&result.app_metadata).map_err(|e| protocol(OPERATION, e))
        });
        Ok(Self { outgoing: Some(outgoing), reply })
    }

    /// Takes rows, of the schema that the writer was made for.
    ///
    /// # Errors
    /// The connection broke, or the server has refused.
    pub async fn write(&mut self, rows: RecordBatch) -> Result<(), ClientError> {
        let Some(outgoing) = &self.outgoing else { return Err(protocol(OPERATION, "the writer has failed before")) };
        if outgoing.batches.send(rows).await.is_ok() {
            return Ok(());
        }
        let failure = outgoing.take_failure();
        self.outgoing = None;
        Err(match (failure, (&mut self.reply).await) {
            (Some(failure), _) => protocol(OPERATION, failure),
            (None, Ok(Err(e))) => e,
            (None, _) => protocol(OPERATION, "the server answered before it had all rows"),
        })
    }

    /// Ends the stream, so that the server publishes, and waits for it.
    ///
    /// # Errors
    /// The server refused, and has published nothing; or the connection broke, and it may have.
    pub async fn commit(mut self) -> Result<Published, ClientError> {
        let Some(outgoing) = self.outgoing.take() else {
            return Err(protocol(OPERATION, "the writer has failed before"));
        };
        let (failure, abort) = (Arc::clone(&outgoing.failure), outgoing.abort.clone());
        drop(outgoing.batches);
        // Given up while it waits, it shall not publish either, if it still can be stopped.
        let mut guard = AbortOnDrop(Some(abort));
        let done = (&mut self.reply).await;
        guard.0 = None;
        if let Some(failure) = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            return Err(protocol(OPERATION, failure));
        }
        done.map_err(|e| protocol(OPERATION, e))?
    }
}

struct AbortOnDrop(Option<super::abort::Abort>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(abort) = &self.0 {
            abort.throw();
        }
    }
}

impl Drop for PutWriter {
    fn drop(&mut self) {
        if let Some(outgoing) = &self.outgoing {
            outgoing.abort.throw();
        }
    }
}

impl std::fmt::Debug for PutWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutWriter").field("open", &self.outgoing.is_some()).finish_non_exhaustive()
    }
}
