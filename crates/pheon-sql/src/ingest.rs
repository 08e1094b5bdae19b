//! Bulk ingest: a stream of rows becomes, or is added to, a dataset.

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use futures::Stream;
use futures::future::BoxFuture;
use pheon::{PutOptions, Table};

use crate::analysis::Present;
use crate::change::{add_rows, all_nullable, create};
use crate::error::SqlError;
use crate::session::Session;

/// What becomes of a dataset that is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// It must not be there.
    Create,
    /// It must be there.
    Append,
    /// It is made, or its rows are replaced.
    Replace,
    /// It is made, or added to.
    CreateAppend,
}

/// What becomes of rows of a bulk ingest whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IngestConflict {
    /// Where each key occurs once: an error. Elsewhere they are added.
    #[default]
    Error,
    /// They replace those that are there.
    Replace,
    /// They are left out.
    Nothing,
}

/// How a bulk ingest is done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IngestOptions {
    /// What becomes of a dataset that is there, or is not.
    pub mode: IngestMode,
    /// Key columns of a dataset that is made, each of whose keys occurs once; none: no key. `None`: those of the dataset
    /// that is replaced, if the rows have its columns.
    pub key: Option<Vec<String>>,
    /// What becomes of keys that are there, of a dataset that is added to.
    pub conflict: IngestConflict,
}

impl IngestOptions {
    /// Without a key, and keys that are there are errors.
    pub fn new(mode: IngestMode) -> Self {
        Self { mode, key: None, conflict: IngestConflict::Error }
    }

    /// Sets the key columns of a dataset that is made.
    #[must_use]
    pub fn key(mut self, key: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.key = Some(key.into_iter().map(Into::into).collect());
        self
    }

    /// Sets what becomes of keys that are there.
    #[must_use]
    pub fn conflict(mut self, conflict: IngestConflict) -> Self {
        self.conflict = conflict;
        self
    }
}

impl Session {
    /// Publishes a stream of rows in one step; returns how many.
    ///
    /// # Errors
    /// [`SqlError`]; nothing is published then, nor when the future is dropped.
    pub fn ingest<'a>(
        &'a self,
        name: &'a str,
        schema: SchemaRef,
        options: IngestOptions,
        rows: impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin + Send + 'a,
    ) -> BoxFuture<'a, Result<u64, SqlError>> {
        Box::pin(self.ingest_rows(name, schema, options, rows))
    }

    async fn ingest_rows(
        &self,
        name: &str,
        schema: SchemaRef,
        options: IngestOptions,
        rows: impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin,
    ) -> Result<u64, SqlError> {
        let IngestOptions { mode, key, conflict } = options;
        if !self.access().may_write(name) {
            return Err(SqlError::Denied { action: "write", dataset: name.to_owned() });
        }
        if self.is_read_only() {
            return Err(SqlError::ReadOnly);
        }
        let engine = self.engine();
        let there = engine.store().contains(name)?;
        match mode {
            IngestMode::Create if there => Err(SqlError::Exists { dataset: name.to_owned() }),
            IngestMode::Append if !there => Err(SqlError::NotFound { dataset: name.to_owned() }),
            IngestMode::Append | IngestMode::CreateAppend if there => {
                let table = engine.store().table(name)?;
                if key.as_ref().is_some_and(|key| key != table.key()) {
                    let problem =
                        format!("the key of {name:?} is {:?}, not {:?}", table.key(), key.unwrap_or_default());
                    return Err(SqlError::Plan { problem });
                }
                let present = match conflict {
                    IngestConflict::Error => Present::Error,
                    IngestConflict::Replace => Present::Replace,
                    IngestConflict::Nothing => Present::Keep,
                };
                add_rows(engine, &table, present, schema, rows).await
            }
            _ => {
                let (key, unique) = match key {
                    Some(key) => (key, true),
                    None if there => key_of_replaced(&engine.store().table(name)?, &schema),
                    None => (Vec::new(), false),
                };
                let options = PutOptions::table(key.clone()).unique(unique && !key.is_empty());
                let replace = mode == IngestMode::Replace;
                create(engine, name.to_owned(), all_nullable(&schema), options, replace, rows).await
            }
        }
    }
}

/// The key that a dataset keeps when all its rows are replaced, and whether each occurs once.
fn key_of_replaced(table: &Table, schema: &Schema) -> (Vec<String>, bool) {
    let kept = table.key().iter().all(|name| schema.index_of(name).is_ok());
    if kept { (table.key().to_vec(), table.is_unique()) } else { (Vec::new(), false) }
}
