//! Queries and updates by Flight SQL.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::{Action, FlightData, FlightDescriptor, IpcMessage};
use arrow_schema::Schema;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use prost::Message;

use super::Client;
use super::connection::{Stub, empty, protocol};
use super::error::ClientError;
use super::outgoing::{MESSAGE_BYTES, Outgoing};
use super::scan::ScanStream;

const OPERATION: &str = "run SQL";

/// The messages of Flight SQL that a client needs, as its protocol file has them.
mod messages {
    use prost::bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Any {
        #[prost(string, tag = "1")]
        pub(super) type_url: String,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) value: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct CommandStatement {
        #[prost(string, tag = "1")]
        pub(super) query: String,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) transaction_id: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Prepared {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) handle: Bytes,
    }

    /// The answer to a request for a prepared statement.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Created {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) handle: Bytes,
        /// Columns of its rows, as an IPC message.
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) schema: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct UpdateResult {
        #[prost(int64, tag = "1")]
        pub(super) record_count: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BindResult {
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub(super) handle: Option<Bytes>,
    }
}

/// What a statement gave.
#[derive(Debug)]
pub enum SqlAnswer {
    /// The rows of a query.
    Rows(ScanStream),
    /// How many rows a change was about.
    Changed(u64),
}

fn any(name: &str, message: &impl Message) -> Bytes {
    let type_url = format!("type.googleapis.com/arrow.flight.protocol.sql.{name}");
    messages::Any { type_url, value: message.encode_to_vec().into() }.encode_to_vec().into()
}

/// Whether a statement's first word says that it changes nothing. `WITH` does not: what follows may.
fn only_reads(sql: &str) -> bool {
    let mut rest = sql.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else if let Some(rest) = rest.strip_prefix('(') {
            rest
        } else {
            break;
        }
        .trim_start();
    }
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    ["select", "values", "table", "show", "describe", "desc"].iter().any(|word| rest[..end].eq_ignore_ascii_case(word))
}

/// How many rows the metadata of an answer says were changed.
fn changed(answer: Option<Bytes>) -> Result<u64, ClientError> {
    let answer = answer.ok_or_else(|| protocol(OPERATION, "the update has no result"))?;
    let result = messages::UpdateResult::decode(answer).map_err(|e| protocol(OPERATION, e))?;
    Ok(u64::try_from(result.record_count).unwrap_or(0))
}

impl Client {
    /// Runs a query. It is asked again after a broken connection only where its first word says that it changes nothing:
    /// servers run other statements too when they are asked so. `parameters` has a column for each placeholder; of several rows the answers come one after the other.
    ///
    /// # Errors
    /// The server refused, has no SQL, or the connection broke.
    pub async fn query(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<ScanStream, ClientError> {
        let statement = messages::CommandStatement { query: sql.to_owned(), transaction_id: None };
        let Some(parameters) = parameters else {
            let descriptor = FlightDescriptor::new_cmd(any("CommandStatementQuery", &statement));
            let again = only_reads(sql);
            let info = self.connection.info(OPERATION, &descriptor, again).await?;
            return self.connection.stream(OPERATION, info, again).await;
        };
        let (prepared, is_query) = self.prepare(&statement).await?;
        let answer = self.query_prepared(&prepared, Some(parameters), is_query && only_reads(sql)).await;
        self.close(&prepared).await;
        answer
    }

    /// Runs a statement that is a query or changes something, as the server finds.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn sql(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<SqlAnswer, ClientError> {
        let statement = messages::CommandStatement { query: sql.to_owned(), transaction_id: None };
        let (prepared, is_query) = self.prepare(&statement).await?;
        let answer = if is_query {
            self.query_prepared(&prepared, parameters, only_reads(sql)).await.map(SqlAnswer::Rows)
        } else {
            let none = || RecordBatch::new_empty(Arc::new(Schema::empty()));
            let parameters = parameters.unwrap_or_else(none);
            match self.bind("CommandPreparedStatementUpdate", &prepared, parameters).await {
                Ok(answer) => changed(answer).map(SqlAnswer::Changed),
                Err(e) => Err(e),
            }
        };
        self.close(&prepared).await;
        answer
    }

    async fn query_prepared(
        &self,
        prepared: &messages::Prepared,
        parameters: Option<RecordBatch>,
        again: bool,
    ) -> Result<ScanStream, ClientError> {
        let mut handle = prepared.handle.clone();
        if let Some(parameters) = parameters {
            let bound = self.bind("CommandPreparedStatementQuery", prepared, parameters).await?;
            let bound = bound.and_then(|bytes| messages::BindResult::decode(bytes).ok()).and_then(|bound| bound.handle);
            handle = bound.unwrap_or(handle);
        }
        let bound = messages::Prepared { handle };
        let descriptor = FlightDescriptor::new_cmd(any("CommandPreparedStatementQuery", &bound));
        let info = self.connection.info(OPERATION, &descriptor, again).await?;
        self.connection.stream(OPERATION, info, again).await
    }

    /// Runs a statement that changes something; how many rows it changed.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn execute(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<u64, ClientError> {
        let statement = messages::CommandStatement { query: sql.to_owned(), transaction_id: None };
        let answer = match parameters {
            None => {
                let descriptor = FlightDescriptor::new_cmd(any("CommandStatementUpdate", &statement));
                let message = FlightData { flight_descriptor: Some(descriptor), ..FlightData::default() };
                let attempt = |mut stub: Stub| {
                    let request = self.connection.timed(futures::stream::iter([message.clone()]));
                    async move { stub.do_put(request).await?.into_inner().try_next().await }
                };
                self.connection.call(OPERATION, false, attempt).await?.map(|result| result.app_metadata)
            }
            Some(parameters) => {
                let (prepared, _) = self.prepare(&statement).await?;
                let done = self.bind("CommandPreparedStatementUpdate", &prepared, parameters).await;
                self.close(&prepared).await;
                done?
            }
        };
        changed(answer)
    }

    /// A prepared statement, and whether it is a query.
    async fn prepare(&self, statement: &messages::CommandStatement) -> Result<(messages::Prepared, bool), ClientError> {
        let body = any("ActionCreatePreparedStatementRequest", statement);
        let attempt = |mut stub: Stub| {
            let action = Action { r#type: "CreatePreparedStatement".to_owned(), body: body.clone() };
            let request = self.connection.timed(action);
            async move { stub.do_action(request).await?.into_inner().try_next().await?.ok_or_else(|| empty(OPERATION)) }
        };
        let result = self.connection.call(OPERATION, true, attempt).await?;
        let result = messages::Any::decode(result.body).map_err(|e| protocol(OPERATION, e))?;
        let created = messages::Created::decode(result.value).map_err(|e| protocol(OPERATION, e))?;
        // What changes something has no columns, and some servers send no schema for it.
        let is_query = if created.schema.is_empty() {
            false
        } else {
            let schema = Schema::try_from(IpcMessage(created.schema)).map_err(|e| protocol(OPERATION, e))?;
            !schema.fields().is_empty()
        };
        Ok((messages::Prepared { handle: created.handle }, is_query))
    }

    /// Sends parameters; the metadata of the answer.
    async fn bind(
        &self,
        command: &str,
        prepared: &messages::Prepared,
        parameters: RecordBatch,
    ) -> Result<Option<Bytes>, ClientError> {
        let schema = parameters.schema();
        let attempt = |mut stub: Stub| {
            let descriptor = FlightDescriptor::new_cmd(any(command, prepared));
            let (outgoing, messages) = Outgoing::new(descriptor, schema.clone(), 1, MESSAGE_BYTES);
            let parameters = parameters.clone();
            async move {
                // There is room for one, so this does not wait.
                let _ = outgoing.batches.send(parameters).await;
                let Outgoing { batches, .. } = outgoing;
                drop(batches);
                let request = self.connection.timed(messages.boxed());
                stub.do_put(request).await?.into_inner().try_next().await
            }
        };
        Ok(self.connection.call(OPERATION, false, attempt).await?.map(|result| result.app_metadata))
    }

    /// Tells the server that a prepared statement is not needed any more; it forgets it anyhow.
    async fn close(&self, prepared: &messages::Prepared) {
        let body = any("ActionClosePreparedStatementRequest", prepared);
        let _ = self.action("ClosePreparedStatement", body).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_tells_what_only_reads() {
        for sql in
            ["select 1", " -- it's\n/* insert */ SELECT\n1", "(select 1) union values (2)", "values (1)", "show tables"]
        {
            assert!(only_reads(sql), "{sql}");
        }
        for sql in [
            "insert into t select 1",
            "with a as (select 1) insert into t select * from a",
            "explain analyze insert",
            "",
            "--",
        ] {
            assert!(!only_reads(sql), "{sql}");
        }
    }
}
