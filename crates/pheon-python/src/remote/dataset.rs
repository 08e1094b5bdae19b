//! One version of a dataset at a server: its name, columns and facts, fetched once.

use std::sync::Arc;

use arrow_schema::{FieldRef, SchemaRef};
use pheon::ReadError;
use pheon_flight::client::{LookupOptions, Scan};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value, json};

use super::errors::RemoteError;
use super::link::Link;
use crate::errors::read_error;

/// An open version. The server reads it anew at each call: it is gone when the server removes it.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) link: Arc<Link>,
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) schema: SchemaRef,
    pub(super) key: Vec<String>,
    /// The key columns, in the key's order.
    pub(super) key_fields: Vec<FieldRef>,
    pub(super) rows: usize,
    /// Whether each key occurs once.
    pub(super) distinct: bool,
    /// When the version was published, which tells it from one of the same number of a dataset that was made anew. A server
    /// that does not tell it is not asked for it.
    created: Option<u64>,
    facts: Map<String, Value>,
}

impl Dataset {
    /// Opens a version; `None`: the newest.
    pub(super) fn open(py: Python<'_>, link: &Arc<Link>, name: &str, version: Option<u64>) -> PyResult<Arc<Self>> {
        let asked = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
        let Value::Object(facts) = link.action_one(py, "info", &json!({ "dataset": asked }))? else {
            return Err(unexpected("the facts are no object"));
        };
        if facts.get("name").and_then(Value::as_str) != Some(name) {
            // The server took the name's end for a version.
            return Err(read_error(py, &ReadError::NotFound { dataset: name.to_owned(), version: None }));
        }
        let number = |member: &str| facts.get(member).and_then(Value::as_u64);
        let (Some(version), Some(rows)) = (number("version"), number("rows")) else {
            return Err(unexpected("the facts have no version or no rows"));
        };
        let created = number("created_unix_ms");
        let schema = link.call(py, |client| client.scan_schema(&scan_of(name, version, created)))?;
        let names = facts.get("key").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let key: Vec<String> = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let field = |column: &String| {
            let found = schema.index_of(column).map(|at| schema.fields()[at].clone());
            found.map_err(|_| unexpected(&format!("the key column {column:?} is not among the columns")))
        };
        let key_fields = key.iter().map(field).collect::<PyResult<Vec<_>>>()?;
        let is_map = facts.get("kind").and_then(Value::as_str) == Some("map");
        let distinct = facts.get("distinct_keys").and_then(Value::as_bool).unwrap_or(is_map);
        let (name, rows) = (name.to_owned(), usize::try_from(rows).unwrap_or(usize::MAX));
        Ok(Arc::new(Self {
            link: link.clone(),
            name,
            version,
            schema,
            key,
            key_fields,
            rows,
            distinct,
            created,
            facts,
        }))
    }

    /// The newest version, if it is not this one: a newer one, or one of a dataset that was made anew.
    pub(super) fn newer(&self, py: Python<'_>) -> PyResult<Option<Arc<Self>>> {
        let newest = self.link.action_one(py, "refresh", &json!({ "dataset": self.name }))?;
        let number = |member: &str| newest.get(member).and_then(Value::as_u64);
        let version = number("version").ok_or_else(|| unexpected("no version"))?;
        let created = number("created_unix_ms").or(self.created);
        if (version, created) == (self.version, self.created) {
            return Ok(None);
        }
        Self::open(py, &self.link, &self.name, Some(version)).map(Some)
    }

    pub(super) fn scan(&self) -> Scan {
        scan_of(&self.name, self.version, self.created)
    }

    pub(super) fn lookup(&self) -> LookupOptions {
        let lookup = LookupOptions::dataset(&self.name).version(self.version);
        match self.created {
            Some(created) => lookup.created(created),
            None => lookup,
        }
    }

    /// The body of the action `locate`.
    pub(super) fn locate(&self, spans: &[Value]) -> Value {
        let mut body = json!({ "dataset": format!("{}@{}", self.name, self.version), "spans": spans });
        if let Some(created) = self.created {
            body["created"] = json!(created);
        }
        body
    }

    /// Facts as [`crate::info::info_dict`] has them.
    pub(super) fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let facts = PyDict::new(py);
        let number = |member: &str| self.facts.get(member).and_then(Value::as_u64).unwrap_or(0);
        let text = |member: &str| self.facts.get(member).and_then(Value::as_str).unwrap_or_default();
        let columns = PyDict::new(py);
        for field in self.schema.fields() {
            columns.set_item(field.name(), field.data_type().to_string())?;
        }
        facts.set_item("name", &self.name)?;
        facts.set_item("version", self.version)?;
        facts.set_item("path", text("path"))?;
        facts.set_item("created_unix_ms", number("created_unix_ms"))?;
        facts.set_item("origin", text("origin"))?;
        facts.set_item("rows", self.rows)?;
        facts.set_item("key", &self.key)?;
        facts.set_item("unique", text("kind") == "map")?;
        facts.set_item("columns", columns)?;
        for member in ["segments", "hidden_rows", "data_bytes", "index_bytes", "index_keys"] {
            facts.set_item(member, number(member))?;
        }
        facts.set_item("access", text("access"))?;
        Ok(facts)
    }
}

fn scan_of(name: &str, version: u64, created: Option<u64>) -> Scan {
    let scan = Scan::version(name, version);
    match created {
        Some(created) => scan.created(created),
        None => scan,
    }
}

fn unexpected(problem: &str) -> PyErr {
    RemoteError::new_err(format!("open a dataset: unexpected answer: {problem}"))
}
