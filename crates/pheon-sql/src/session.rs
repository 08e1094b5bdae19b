//! A caller's view of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    snapshot: Option<Arc<Snapshot>>,
}

/// Versions that stay as they are until it ends.
#[derive(Debug, Default)]
struct Snapshot {
    pinned: Arc<Pinned>,
    ended: AtomicBool,
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
    pub(crate) fn new(engine: Engine, access: Arc<dyn Access>, is_snapshot: bool) -> Self {
        Self { engine, access, snapshot: is_snapshot.then(Arc::default) }
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
        self.snapshot.is_some() || self.engine.store().is_read_only()
    }

    /// Ends a snapshot: statements that were prepared in it see the newest versions from now on, and still take no changes.
    pub fn end_snapshot(&self) {
        if let Some(snapshot) = &self.snapshot {
            snapshot.ended.store(true, Ordering::Release);
        }
    }

    /// The versions of a snapshot that has not ended.
    pub(crate) fn snapshot(&self) -> Option<&Arc<Pinned>> {
        let snapshot = self.snapshot.as_ref().filter(|snapshot| !snapshot.ended.load(Ordering::Acquire));
        snapshot.map(|snapshot| &snapshot.pinned)
    }

    /// Versions for one statement.
    pub(crate) fn pinned(&self) -> Arc<Pinned> {
        self.snapshot().cloned().unwrap_or_default()
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
