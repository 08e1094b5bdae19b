//! SQL over Pheon stores, by DataFusion.
//!
//! The interface that pheon-flight, the command line and Python are written against:
//!
//! ```text
//! Engine::new(store: pheon::Store, options: EngineOptions) -> Result<Engine, SqlError>      cheap to clone, Send + Sync
//! engine.session() -> Session                                  each statement sees the newest versions
//! engine.snapshot() -> Session                                 versions stay as the first statement to name them found them; no writes
//! session.with_access(Arc<dyn Access>) -> Session              what this caller may read and write; default: everything
//! session.prepare(sql: &str) -> Result<Statement, SqlError>    async; parses, binds and plans
//! statement.is_query() -> bool
//! statement.schema() -> SchemaRef                              of the rows; always that of the stream. Of an update: empty
//! statement.parameter_schema() -> SchemaRef                    one field a placeholder ($1, $2, ...; ? too), in order; Null where a type cannot be inferred
//! statement.query(parameters: Option<RecordBatch>) -> Result<SendableRecordBatchStream, SqlError>     async; N rows of parameters: the
//!                                                              results one after the other; `where key = ?` is one index probe for all N
//! statement.update(parameters: Option<RecordBatch>) -> Result<u64, SqlError>                          async; rows changed
//! session.tables() -> Result<Vec<TableFacts>, SqlError>        of those that may be read: name, schema, key, unique, rows
//! session.ingest(name, schema, mode, stream) -> Result<u64>    async; bulk ingest: create, append, replace, fail if it exists ...
//! engine.collect(sql) -> Result<(SchemaRef, Vec<RecordBatch>), SqlError>      blocking, with a runtime of its own: for Python and the command line
//! trait Access: Debug + Send + Sync { fn may_read(&self, dataset: &str) -> bool; fn may_write(&self, dataset: &str) -> bool; fn may_admin(&self, dataset: &str) -> bool; }
//! ```
