//! Lookups: batches of keys out, aligned batches of values back, several under way at once.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, RecordBatch};
use arrow_flight::FlightDescriptor;
use arrow_schema::SchemaRef;
use serde::Serialize;

use super::connection::{Connection, protocol};
use super::error::ClientError;
use super::outgoing::{MESSAGE_BYTES, Outgoing, UNCUT};
use super::scan::Incoming;

const OPERATION: &str = "look keys up";
/// What servers call an answer that they do not put together: docs/flight.md, Errors.
const ANSWER_TOO_LARGE: &str = "answer-too-large";
/// Keys of the first batches, before it is known how large answers are.
const KEYS_AT_FIRST: usize = 4096;
/// Keys of one batch at most.
const KEYS_MAX: usize = 1 << 18;

/// What keys are looked up in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct LookupOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup_live: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_false")]
    found: bool,
    #[serde(skip_serializing_if = "is_false")]
    rows: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl LookupOptions {
    /// In a dataset whose keys are unique, as it is when the lookup begins.
    #[must_use]
    pub fn dataset(name: &str) -> Self {
        Self { lookup: Some(name.to_owned()), ..Self::default() }
    }

    /// In a live map.
    #[must_use]
    pub fn live(name: &str) -> Self {
        Self { lookup_live: Some(name.to_owned()), ..Self::default() }
    }

    /// In this version.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// These value columns, in this order.
    #[must_use]
    pub fn columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Answers have one more column, `found`: whether the key is there.
    #[must_use]
    pub fn found(mut self, found: bool) -> Self {
        self.found = found;
        self
    }

    /// Answers are not aligned with the keys but have all rows of each: first the column `position`, the number of the row's
    /// key in its batch, then the dataset's columns. Keys may repeat in the dataset.
    #[must_use]
    pub fn rows(mut self, rows: bool) -> Self {
        self.rows = rows;
        self
    }

    /// Only in the version that was published then, in milliseconds since 1970: of a dataset that is dropped and made anew
    /// versions begin with 1 again.
    #[must_use]
    pub fn created(mut self, unix_ms: u64) -> Self {
        self.created = Some(unix_ms);
        self
    }

    /// With [`LookupOptions::rows`]: only `len` rows of the version from number `first` on.
    #[must_use]
    pub fn within(mut self, first: u64, len: u64) -> Self {
        self.within = Some((first, len));
        self
    }
}

/// An open exchange of keys for values. It stays on the version that it began with.
pub struct Lookup {
    connection: Arc<Connection>,
    keys: SchemaRef,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Keys of each batch under way.
    under_way: VecDeque<usize>,
    /// How many keys the next batch has.
    batch_keys: usize,
    options: LookupOptions,
}

impl Lookup {
    pub(super) async fn begin(
        connection: Arc<Connection>,
        options: &LookupOptions,
        keys: SchemaRef,
    ) -> Result<Self, ClientError> {
        let command = serde_json::to_vec(options).map_err(|e| protocol(OPERATION, e))?;
        let attempt = |mut stub: super::connection::Stub| {
            let descriptor = FlightDescriptor::new_cmd(command.clone());
            // One more than are ever under way, so that sending never waits for the answer to what is sent.
            let ahead = connection.options.batches_in_flight + 1;
            let (outgoing, messages) = Outgoing::new(descriptor, Arc::clone(&keys), ahead, UNCUT);
            let request = connection.abortable(messages, &outgoing.abort);
            async move { Ok((outgoing, stub.do_exchange(request).await?.into_inner())) }
        };
        let (outgoing, messages) = connection.call(OPERATION, true, attempt).await?;
        let incoming = Incoming::begin(Arc::clone(&connection), OPERATION, messages).await?;
        Ok(Self {
            connection,
            keys,
            outgoing,
            incoming,
            under_way: VecDeque::new(),
            batch_keys: KEYS_AT_FIRST,
            options: options.clone(),
        })
    }

    /// The columns of answers.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.incoming.schema
    }

    /// The columns of keys.
    #[must_use]
    pub fn key_schema(&self) -> &SchemaRef {
        &self.keys
    }

    /// Sends a batch of keys; its answer comes with [`Lookup::receive`], after those of the batches before it.
    ///
    /// # Errors
    /// The connection broke, or the server refused.
    pub async fn send(&mut self, keys: RecordBatch) -> Result<(), ClientError> {
        let rows = keys.num_rows();
        if self.outgoing.batches.send(keys).await.is_err() {
            // The call has ended; its status says why.
            return Err(self.why().await);
        }
        self.under_way.push_back(rows);
        Ok(())
    }

    /// The answer to the first batch of those under way.
    ///
    /// # Errors
    /// The connection broke, the server refused, or the answer does not fit the keys.
    pub async fn receive(&mut self) -> Result<RecordBatch, ClientError> {
        let Some(rows) = self.under_way.pop_front() else { return Err(protocol(OPERATION, "no keys are under way")) };
        let answer = match self.incoming.next().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(protocol(OPERATION, "the server ended the lookup")),
            Err(e) => return Err(self.outgoing.take_failure().map_or(e, |failure| protocol(OPERATION, failure))),
        };
        if !self.options.rows && answer.num_rows() != rows {
            return Err(protocol(OPERATION, format!("{} answers to {rows} keys", answer.num_rows())));
        }
        if rows > 0 {
            let bytes = slice_bytes(&answer).max(1);
            let wanted = self.connection.options.answer_bytes as u128 * rows as u128 / bytes as u128;
            // By degrees, for one batch may be unlike the next.
            self.batch_keys = (wanted as usize).clamp(self.batch_keys / 8, self.batch_keys * 8).clamp(1, KEYS_MAX);
        }
        Ok(answer)
    }

    /// The values of many keys, aligned with them when put behind each other. Keys are sent in batches whose answers are
    /// about as large as the options say, several at once.
    ///
    /// With [`LookupOptions::rows`] positions count from the first of all keys.
    ///
    /// # Errors
    /// As those of [`Lookup::send`] and [`Lookup::receive`].
    pub async fn get_many(&mut self, keys: &RecordBatch) -> Result<Vec<RecordBatch>, ClientError> {
        let (mut sent, mut received) = (0, 0);
        let mut answers = Vec::new();
        while received < keys.num_rows() {
            while sent < keys.num_rows() && self.under_way.len() < self.connection.options.batches_in_flight {
                let mut batch = keys.slice(sent, self.batch_keys.min(keys.num_rows() - sent));
                // A batch is one message: one key at least, and no more than servers take.
                while batch.num_rows() > 1 && slice_bytes(&batch) > MESSAGE_BYTES {
                    batch = batch.slice(0, batch.num_rows() / 2);
                }
                sent += batch.num_rows();
                self.send(batch).await?;
            }
            let of_keys = self.under_way.front().copied().unwrap_or(0);
            let answer = match self.receive().await {
                Err(e) if e.detail() == Some(ANSWER_TOO_LARGE) && of_keys > 1 && self.may_begin_anew(received) => {
                    // The server has ended this lookup: the rest is asked for in another one, less at a time.
                    *self = Self::begin(Arc::clone(&self.connection), &self.options, Arc::clone(&self.keys)).await?;
                    self.batch_keys = (of_keys / 8).max(1);
                    sent = received;
                    continue;
                }
                done => done?,
            };
            answers.push(if self.options.rows { moved(&answer, received as u64)? } else { answer });
            received += of_keys;
        }
        Ok(answers)
    }

    /// Whether another lookup answers from the same version.
    fn may_begin_anew(&self, received: usize) -> bool {
        received == 0 || self.options.version.is_some() || self.options.lookup_live.is_some()
    }

    /// The error that ended the call.
    async fn why(&mut self) -> ClientError {
        if let Some(failure) = self.outgoing.take_failure() {
            return protocol(OPERATION, failure);
        }
        loop {
            match self.incoming.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return protocol(OPERATION, "the server ended the lookup"),
                Err(e) => return e,
            }
        }
    }
}

/// An answer whose positions count from another key.
fn moved(answer: &RecordBatch, first: u64) -> Result<RecordBatch, ClientError> {
    let positions = answer.columns().first().and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let positions = positions.ok_or_else(|| protocol(OPERATION, "the answer has no positions"))?;
    let mut columns = answer.columns().to_vec();
    columns[0] = Arc::new(positions.unary::<_, UInt64Type>(|position| position + first));
    RecordBatch::try_new(answer.schema(), columns).map_err(|e| protocol(OPERATION, e))
}

/// Bytes of the rows of a batch, not of what it is a slice of.
fn slice_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.outgoing.abort.throw();
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").field("keys", &self.keys).field("under_way", &self.under_way).finish_non_exhaustive()
    }
}
