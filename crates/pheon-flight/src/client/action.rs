//! Actions: facts about the store and its datasets, and their care.

use arrow_flight::{Action, Criteria, SchemaResult};
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::Client;
use super::connection::{Stub, protocol};
use super::error::ClientError;
use super::scan::Scan;

/// What a server says about its store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct StoreFacts {
    /// The store's identity, 32 hexadecimal digits.
    pub uuid: String,
    /// Where it is on the server's host; empty where the server does not tell.
    #[serde(default)]
    pub path: String,
    /// The boot id of the server's host; empty where the server does not tell.
    #[serde(default)]
    pub host: String,
    /// The server's version of Pheon.
    #[serde(default)]
    pub version: String,
    /// Whether it answers SQL.
    #[serde(default)]
    pub sql: bool,
}

/// Facts about one version of a dataset.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct DatasetFacts {
    /// The dataset's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// Rows.
    pub rows: u64,
    /// Names of the key columns.
    pub key: Vec<String>,
    /// `map` where each key occurs once, else `table`.
    pub kind: String,
    /// Everything else that the server tells, as `pheon info --json` has it.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

impl Client {
    /// Runs an action; the bodies of its results.
    ///
    /// # Errors
    /// The connection broke, the deadline passed, or the server refused.
    pub async fn action(&self, name: &str, body: impl Into<Bytes>) -> Result<Vec<Bytes>, ClientError> {
        // What changes something is not done twice.
        let again = matches!(
            name,
            "store" | "datasets" | "info" | "versions" | "refresh" | "locate" | "verify" | "memory" | "warm"
        );
        let action = Action { r#type: name.to_owned(), body: body.into() };
        let attempt = |mut stub: Stub| {
            let request = self.connection.timed(action.clone());
            async move {
                let results = stub.do_action(request).await?.into_inner();
                results.map_ok(|result| result.body).try_collect::<Vec<_>>().await
            }
        };
        self.connection.call("run an action", again, attempt).await
    }

    /// Runs an action whose results are JSON.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn action_json(&self, name: &str, body: &Value) -> Result<Vec<Value>, ClientError> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let results = self.action(name, body).await?;
        results.iter().map(|r| serde_json::from_slice(r).map_err(|e| protocol("run an action", e))).collect()
    }

    async fn one<T: for<'a> Deserialize<'a>>(&self, name: &str, body: &Value) -> Result<T, ClientError> {
        let first = self.action_json(name, body).await?.into_iter().next();
        let first = first.ok_or_else(|| protocol("run an action", format!("{name} has no result")))?;
        serde_json::from_value(first).map_err(|e| protocol("run an action", format!("{name}: {e}")))
    }

    /// What the server says about its store.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn store(&self) -> Result<StoreFacts, ClientError> {
        self.one("store", &Value::Null).await
    }

    /// All datasets that the caller may read.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn datasets(&self) -> Result<Vec<DatasetFacts>, ClientError> {
        let all = self.action_json("datasets", &Value::Null).await?;
        all.into_iter().map(|v| serde_json::from_value(v).map_err(|e| protocol("list datasets", e))).collect()
    }

    /// Facts about a dataset: `name`, or `name@version`.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn info(&self, dataset: &str) -> Result<DatasetFacts, ClientError> {
        self.one("info", &json!({ "dataset": dataset })).await
    }

    /// Publishes the content of an old version again; the new version's number.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn rollback(&self, dataset: &str, version: u64) -> Result<u64, ClientError> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let done: Version = self.one("rollback", &json!({ "dataset": dataset, "version": version })).await?;
        Ok(done.version)
    }

    /// Removes a dataset with all its versions.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn drop_dataset(&self, dataset: &str) -> Result<(), ClientError> {
        self.action_json("drop", &json!({ "dataset": dataset })).await.map(drop)
    }

    /// Names of the live maps that the caller may read, ascending.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn live_names(&self) -> Result<Vec<String>, ClientError> {
        let attempt = |mut stub: Stub| {
            let request = self.connection.timed(Criteria { expression: Bytes::new() });
            async move { stub.list_flights(request).await?.into_inner().try_collect::<Vec<_>>().await }
        };
        let flights = self.connection.call("list live maps", true, attempt).await?;
        let mut names: Vec<_> = flights
            .into_iter()
            .filter_map(|flight| match flight.flight_descriptor?.path.as_slice() {
                [live, name] if live == "live" => Some(name.clone()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The columns of a dataset: `name`, or `name@version`.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn schema(&self, dataset: &str) -> Result<SchemaRef, ClientError> {
        self.scan_schema(&Scan::dataset(dataset)).await
    }

    /// The columns that a scan has.
    ///
    /// # Errors
    /// As [`Client::action`].
    pub async fn scan_schema(&self, scan: &Scan) -> Result<SchemaRef, ClientError> {
        const OPERATION: &str = "read a schema";
        let descriptor = scan.descriptor()?;
        let attempt = |mut stub: Stub| {
            let request = self.connection.timed(descriptor.clone());
            async move { Ok(stub.get_schema(request).await?.into_inner()) }
        };
        let answer: SchemaResult = self.connection.call(OPERATION, true, attempt).await?;
        let schema = Schema::try_from(&answer).map_err(|e| protocol(OPERATION, e))?;
        Ok(Arc::new(schema))
    }
}
