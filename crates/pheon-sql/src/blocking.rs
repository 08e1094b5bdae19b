//! SQL for callers without a runtime: the command line and Python.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::runtime::Runtime;

use crate::engine::Engine;
use crate::error::SqlError;

/// Stack of the threads that plan and run: plans are trees, walked by recursion.
const STACK_BYTES: usize = 16 << 20;

/// The answer to a statement.
#[derive(Debug)]
pub enum Answer {
    /// Its rows.
    Rows(BlockingRows),
    /// How many rows it changed.
    Changed(u64),
}

/// Rows of a query, computed as they are asked for, by threads that end with it.
pub struct BlockingRows {
    stream: Option<SendableRecordBatchStream>,
    schema: SchemaRef,
    runtime: Runtime,
}

impl std::fmt::Debug for BlockingRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockingRows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl BlockingRows {
    /// Exactly that of the batches.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Iterator for BlockingRows {
    type Item = Result<RecordBatch, SqlError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stream = self.stream.as_mut()?;
        let next = self.runtime.block_on(stream.next());
        if !matches!(next, Some(Ok(_))) {
            self.stream = None;
        }
        next.map(|batch| batch.map_err(SqlError::from))
    }
}

impl Drop for BlockingRows {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.stream = None;
    }
}

impl Engine {
    /// Executes a statement in a runtime of its own.
    ///
    /// # Panics
    /// Within another tokio runtime: there use a [`crate::Session`].
    pub fn execute(&self, sql: &str, parameters: Option<RecordBatch>) -> Result<Answer, SqlError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.options().partitions.max(1))
            .thread_stack_size(STACK_BYTES)
            .thread_name("pheon-sql")
            .enable_time()
            .build()
            .map_err(|e| SqlError::Internal { problem: format!("start threads: {e}") })?;
        let (session, sql) = (self.session(), sql.to_owned());
        // On a thread of the runtime, whose stack is known to suffice.
        let done = runtime.block_on(runtime.spawn(async move {
            let statement = session.prepare(&sql).await?;
            if statement.is_query() {
                Ok::<_, SqlError>((Some(statement.query(parameters).await?), 0))
            } else {
                Ok((None, statement.update(parameters).await?))
            }
        }));
        match done.map_err(|e| SqlError::Internal { problem: e.to_string() })?? {
            (Some(stream), _) => {
                let schema = stream.schema();
                Ok(Answer::Rows(BlockingRows { stream: Some(stream), schema, runtime }))
            }
            (None, changed) => Ok(Answer::Changed(changed)),
        }
    }

    /// All rows of a query; no rows and no columns of an update.
    pub fn collect(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), SqlError> {
        match self.execute(sql, None)? {
            Answer::Rows(rows) => Ok((rows.schema(), rows.collect::<Result<Vec<_>, _>>()?)),
            Answer::Changed(_) => Ok((SchemaRef::new(arrow_schema::Schema::empty()), vec![])),
        }
    }
}
