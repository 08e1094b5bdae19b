//! A caller's view of the store.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use futures::future::BoxFuture;

use crate::access::Access;
use crate::catalog::Pinned;
use crate::engine::Engine;
use crate::error::SqlError;
use crate::provider::sql_schema;
use crate::statement::Statement;

/// A caller's rights and, in a snapshot, the versions that it reads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Engine,
    access: Arc<dyn Access>,
    /// Of a snapshot.
    pinned: Option<Arc<Pinned>>,
}

/// What a catalogue says of a table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TableFacts {
    /// The dataset's name.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Names of the key columns, in the key's order.
    pub key: Vec<String>,
    /// Whether each key occurs once.
    pub unique: bool,
    /// Rows.
    pub rows: u64,
}

impl Session {
    pub(crate) fn new(engine: Engine, access: Arc<dyn Access>, pinned: Option<Arc<Pinned>>) -> Self {
        Self { engine, access, pinned }
    }

    /// The same session for a caller with these rights.
    #[must_use]
    pub fn with_access(self, access: Arc<dyn Access>) -> Self {
        Self { access, ..self }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn access(&self) -> &Arc<dyn Access> {
        &self.access
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        self.pinned.is_some() || self.engine.store().is_read_only()
    }

    pub(crate) fn is_snapshot(&self) -> bool {
        self.pinned.is_some()
    }

    /// Versions for one statement.
    pub(crate) fn pinned(&self) -> Arc<Pinned> {
        self.pinned.clone().unwrap_or_default()
    }

    /// Parses, binds and plans a statement.
    ///
    /// # Errors
    /// [`SqlError`]; a dataset that the caller has no right to is [`SqlError::Denied`], whether it exists or not.
    pub fn prepare<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Statement, SqlError>> {
        Box::pin(Statement::prepare(self.clone(), sql))
    }

    /// The tables that may be read, by name. One that is damaged is left out.
    pub fn tables(&self) -> Result<Vec<TableFacts>, SqlError> {
        let store = self.engine.store();
        let mut facts = Vec::new();
        for name in store.datasets()?.into_iter().filter(|name| self.access.may_read(name)) {
            let Ok(table) = store.table(&name) else { continue };
            facts.push(TableFacts {
                schema: sql_schema(&table),
                key: table.key().to_vec(),
                unique: !table.key().is_empty() && table.is_unique(),
                rows: table.num_rows() as u64,
                name,
            });
        }
        Ok(facts)
    }
}
