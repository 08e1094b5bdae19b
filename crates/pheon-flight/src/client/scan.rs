//! Reading rows: what is asked for, what is known before, and the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo, Ticket};
use arrow_schema::{Schema, SchemaRef};
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::connection::{Connection, protocol};
use super::error::ClientError;

/// Batches that are decoded ahead of who reads them.
const BATCHES_AHEAD: usize = 4;

/// A key: a string, number or boolean, or a list of them where several columns make the key. Text stands for what JSON has
/// not, as docs/flight.md says.
pub type Key = serde_json::Value;

/// Which rows and columns to read: a command of docs/flight.md.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Scan {
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Key>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<(u64, u64)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
}

impl Scan {
    /// All rows of a dataset, of its newest version.
    #[must_use]
    pub fn dataset(name: &str) -> Self {
        Self { dataset: Some(name.to_owned()), ..Self::default() }
    }

    /// All rows of one version of a dataset.
    #[must_use]
    pub fn version(name: &str, version: u64) -> Self {
        Self::dataset(&format!("{name}@{version}"))
    }

    /// All entries of a live map, as of one moment.
    #[must_use]
    pub fn live(name: &str) -> Self {
        Self { live: Some(name.to_owned()), ..Self::default() }
    }

    /// These columns, in this order.
    #[must_use]
    pub fn columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// From this key on.
    #[must_use]
    pub fn from_key(mut self, key: impl Into<Key>) -> Self {
        self.from = Some(key.into());
        self
    }

    /// Up to this key, which is not among them.
    #[must_use]
    pub fn to_key(mut self, key: impl Into<Key>) -> Self {
        self.to = Some(key.into());
        self
    }

    /// Keys that begin so.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Key>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// The rows of these keys, in this order.
    #[must_use]
    pub fn keys<K: Into<Key>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.keys = Some(keys.into_iter().map(Into::into).collect());
        self
    }

    /// Runs of rows, each by the number of its first within the version and how many there are, in this order.
    #[must_use]
    pub fn rows(mut self, runs: impl IntoIterator<Item = (u64, u64)>) -> Self {
        self.rows = Some(runs.into_iter().collect());
        self
    }

    /// Not the first of them.
    #[must_use]
    pub fn offset(mut self, rows: u64) -> Self {
        self.offset = Some(rows);
        self
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, rows: u64) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Only of the version that was published then, in milliseconds since 1970: of a dataset that is dropped and made anew
    /// versions begin with 1 again.
    #[must_use]
    pub fn created(mut self, unix_ms: u64) -> Self {
        self.created = Some(unix_ms);
        self
    }

    pub(super) fn descriptor(&self) -> Result<FlightDescriptor, ClientError> {
        let command = serde_json::to_vec(self).map_err(|e| protocol("describe a scan", e))?;
        Ok(FlightDescriptor::new_cmd(command))
    }
}

/// What is known of rows before they are read.
#[derive(Debug, Clone)]
pub struct ScanInfo {
    /// The columns.
    pub schema: SchemaRef,
    /// How many rows there are, if the server knows.
    pub rows: Option<u64>,
    /// How many bytes, roughly, if the server knows.
    pub bytes: Option<u64>,
    pub(super) tickets: Vec<Ticket>,
}

impl ScanInfo {
    pub(super) fn of(operation: &'static str, info: FlightInfo) -> Result<Self, ClientError> {
        let known = |count: i64| u64::try_from(count).ok();
        let (rows, bytes) = (known(info.total_records), known(info.total_bytes));
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.clone()).collect();
        let schema = Schema::try_from(info).map_err(|e| protocol(operation, format!("the schema: {e}")))?;
        Ok(Self { schema: Arc::new(schema), rows, bytes, tickets })
    }
}

impl Connection {
    /// `again`: whether it may be asked twice, because asking changes nothing.
    pub(super) async fn info(
        &self,
        operation: &'static str,
        descriptor: &FlightDescriptor,
        again: bool,
    ) -> Result<ScanInfo, ClientError> {
        let attempt = |mut stub: super::connection::Stub| async move {
            Ok(stub.get_flight_info(self.timed(descriptor.clone())).await?.into_inner())
        };
        ScanInfo::of(operation, self.call(operation, again, attempt).await?)
    }

    /// The streams of all endpoints, one after the other. `again`: as of [`Connection::info`].
    pub(super) async fn stream(
        self: &Arc<Self>,
        operation: &'static str,
        info: ScanInfo,
        again: bool,
    ) -> Result<ScanStream, ClientError> {
        let mut streams = Vec::with_capacity(info.tickets.len());
        for ticket in &info.tickets {
            let attempt = |mut stub: super::connection::Stub| {
                let request = self.request(ticket.clone());
                async move { Ok(stub.do_get(request).await?.into_inner()) }
            };
            let messages = self.call(operation, again, attempt).await?;
            let incoming = Incoming::begin(Arc::clone(self), operation, messages).await?;
            if incoming.schema != info.schema {
                return Err(protocol(operation, "the stream's schema is not the one that was announced"));
            }
            streams.push(incoming);
        }
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let pump = tokio::spawn(async move {
            for mut incoming in streams {
                loop {
                    let item = match incoming.next().await {
                        Ok(Some(batch)) => Ok(batch),
                        Ok(None) => break,
                        Err(e) => Err(e),
                    };
                    let failed = item.is_err();
                    if sender.send(item).await.is_err() || failed {
                        return;
                    }
                }
            }
        });
        Ok(ScanStream { schema: info.schema, rows: info.rows, batches, pump })
    }
}

/// Rows as they arrive. Dropped, it ends the stream at the server too.
pub struct ScanStream {
    schema: SchemaRef,
    rows: Option<u64>,
    batches: mpsc::Receiver<Result<RecordBatch, ClientError>>,
    pump: JoinHandle<()>,
}

impl ScanStream {
    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows come in all, if the server knows.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, the server found something, or the deadline passed.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        self.batches.recv().await.transpose()
    }
}

impl Stream for ScanStream {
    type Item = Result<RecordBatch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(cx)
    }
}

impl Drop for ScanStream {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl std::fmt::Debug for ScanStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// A server's stream of batches, after its schema.
pub(super) struct Incoming {
    connection: Arc<Connection>,
    operation: &'static str,
    pub(super) schema: SchemaRef,
    decoder: FlightDataDecoder,
}

impl Incoming {
    /// Waits for the schema.
    pub(super) async fn begin(
        connection: Arc<Connection>,
        operation: &'static str,
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<Self, ClientError> {
        let mut decoder = FlightDataDecoder::new(messages.map(|m| m.map_err(|s| FlightError::Tonic(Box::new(s)))));
        let schema = loop {
            match decoded(&connection, operation, &mut decoder).await? {
                Some(DecodedPayload::Schema(schema)) => break schema,
                Some(DecodedPayload::None) => {}
                Some(DecodedPayload::RecordBatch(_)) => return Err(protocol(operation, "rows before their schema")),
                None => return Err(protocol(operation, "the stream has no schema")),
            }
        };
        Ok(Self { connection, operation, schema, decoder })
    }

    /// The next batch; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, ClientError> {
        loop {
            match decoded(&self.connection, self.operation, &mut self.decoder).await? {
                Some(DecodedPayload::RecordBatch(batch)) => return Ok(Some(batch)),
                Some(DecodedPayload::None) => {}
                Some(DecodedPayload::Schema(_)) => return Err(protocol(self.operation, "a second schema")),
                None => return Ok(None),
            }
        }
    }
}

async fn decoded(
    connection: &Connection,
    operation: &'static str,
    decoder: &mut FlightDataDecoder,
) -> Result<Option<DecodedPayload>, ClientError> {
    let mut failed = None;
    let next = async {
        match decoder.next().await {
            None => Ok(None),
            Some(Ok(data)) => Ok(Some(data.payload)),
            Some(Err(FlightError::Tonic(status))) => Err(*status),
            Some(Err(e)) => {
                failed = Some(protocol(operation, e));
                Err(Status::new(Code::DataLoss, "undecodable"))
            }
        }
    };
    let done = connection.within(operation, next).await;
    match failed {
        Some(e) => Err(e),
        None => done,
    }
}
