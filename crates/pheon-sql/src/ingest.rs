//! Bulk ingest: a stream of rows becomes, or is added to, a dataset.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use futures::Stream;
use pheon::PutOptions;

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

impl Session {
    /// Publishes a stream of rows in one step; returns how many. A dataset that is made has no key.
    pub async fn ingest(
        &self,
        name: &str,
        schema: SchemaRef,
        mode: IngestMode,
        rows: impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin,
    ) -> Result<u64, SqlError> {
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
                add_rows(engine, &table, false, schema, rows).await
            }
            _ => {
                let options = PutOptions::table(Vec::<String>::new());
                let replace = mode == IngestMode::Replace;
                create(engine, name.to_owned(), all_nullable(&schema), options, replace, rows).await
            }
        }
    }
}
