//! Statements that change the store: each publishes one version, or none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchIterator, RecordBatchOptions, StructArray};
use arrow_schema::{Schema, SchemaRef};
use arrow_select::concat::concat;
use arrow_select::filter::filter_record_batch;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use futures::{Stream, StreamExt};
use pheon::{ChangeOptions, OnDuplicate, PutOptions, ReadError, Store, Table, WriteError, Writer};
use tokio::sync::mpsc;

use crate::analysis::{Action, Present};
use crate::catalog::resolve;
use crate::engine::Engine;
use crate::error::SqlError;
use crate::memory::bytes_of;
use crate::session::Session;
use crate::statement::Planned;
use crate::syntax::Conflict;

/// Batches that wait for the writer.
const QUEUE_BATCHES_MAX: usize = 2;

/// Executes a statement that is no query; returns the number of rows.
pub(crate) async fn execute(
    session: &Session,
    planned: Arc<Planned>,
    given: Option<RecordBatch>,
) -> Result<u64, SqlError> {
    let engine = session.engine().clone();
    match &planned.action {
        Action::Query(_) => {
            let problem = "this statement is a query and changes nothing; execute it as a query".to_owned();
            Err(SqlError::Unsupported { problem })
        }
        Action::Insert { name, rows, present, conflict } => {
            let table = table_of(&planned, name)?;
            if let Some(conflict) = conflict {
                check_conflict(&table, conflict)?;
            }
            let stream = planned.clone().rows(rows, given.as_ref()).await?;
            add_rows(&engine, &table, *present, table.schema(), in_sql(stream)).await
        }
        Action::Update { name, rows } => {
            let table = table_of(&planned, name)?;
            check_key_unassigned(&table, rows)?;
            let stream = planned.clone().rows(rows, given.as_ref()).await?;
            add_rows(&engine, &table, Present::Change, table.schema(), in_sql(stream)).await
        }
        Action::Delete { name, rows: None } => {
            let table = table_of(&planned, name)?;
            unless_dropped(move |stop| empty(engine.store(), &engine, &table, stop)).await
        }
        Action::Delete { name, rows: Some(rows) } => {
            let table = table_of(&planned, name)?;
            let keys = delete_keys(&planned, &table, rows, given.as_ref()).await?;
            let Some(Keys { keys, distinct, memory }) = keys else { return Ok(0) };
            let name = table.name().to_owned();
            unless_dropped(move |stop| {
                let _memory = memory;
                let options = changes(&engine, stop).distinct_keys(distinct);
                Ok(engine.store().delete(&name, &keys, options).map_err(|e| refused(e, &name, distinct))?.1)
            })
            .await
        }
        Action::Create { name, rows, if_not_exists, replace, key } => {
            let there = engine.store().contains(name)?;
            match (there, *if_not_exists, *replace) {
                (true, true, _) => return Ok(0),
                (true, false, false) => return Err(SqlError::Exists { dataset: name.clone() }),
                _ => {}
            }
            let schema = planned.rows_schema().clone();
            let stream = planned.clone().rows(rows, given.as_ref()).await?;
            let options = PutOptions::table(key.clone()).unique(!key.is_empty());
            create(&engine, name.clone(), schema, options, *replace, in_sql(stream)).await
        }
        Action::Drop { name, if_exists } => {
            let access = session.access().clone();
            let dataset = match resolve(engine.store(), access.as_ref(), name)? {
                Some(dataset) => dataset,
                None if *if_exists => return Ok(0),
                None => return Err(SqlError::NotFound { dataset: name.clone() }),
            };
            // It may be another one than when the statement was checked.
            if !access.may_admin(&dataset) {
                return Err(SqlError::Denied { action: "drop", dataset });
            }
            unless_dropped(move |stop| {
                if stop.is_set() {
                    return Err(WriteError::Cancelled.into());
                }
                Ok(engine.store().drop_dataset(&dataset).map(|()| 0)?)
            })
            .await
        }
    }
}

/// Publishes a stream as a dataset.
pub(crate) async fn create(
    engine: &Engine,
    name: String,
    schema: SchemaRef,
    options: PutOptions,
    replace: bool,
    rows: impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin,
) -> Result<u64, SqlError> {
    let (engine, to) = (engine.clone(), schema.clone());
    let options = options.memory_limit_bytes(engine.options().write_memory_bytes);
    let start = move |stop: Stop| {
        let writer = engine.store().writer(&name, to, options.cancel(move || stop.is_set()))?;
        // Only who holds the writers' lock knows whether somebody else made it meanwhile.
        if !replace && engine.store().contains(&name)? {
            return Err(SqlError::Exists { dataset: name });
        }
        Ok(writer.into())
    };
    write(start, schema, rows).await
}

/// Adds a stream's rows to a dataset.
pub(crate) async fn add_rows(
    engine: &Engine,
    table: &Table,
    present: Present,
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin,
) -> Result<u64, SqlError> {
    // What is so only by chance is looked at again by who holds the writers' lock.
    let distinct = !table.key().is_empty() && table.is_unique();
    let keyed = match present {
        Present::Error => true,
        Present::Replace => !table.key().is_empty(),
        Present::Keep | Present::Change => distinct,
    };
    if !keyed && present == Present::Change {
        let name = table.name();
        let problem = format!("UPDATE of {name:?}, in which a key may have several rows or there is none");
        return Err(SqlError::Unsupported { problem });
    }
    if !keyed {
        let which =
            if present == Present::Keep { "stay, as each key would have to occur once" } else { "are replaced" };
        let problem = format!("{:?} has no key to tell which rows {which}; use INSERT INTO", table.name());
        return Err(SqlError::Unsupported { problem });
    }
    let (engine, name, to) = (engine.clone(), table.name().to_owned(), schema.clone());
    let start = move |stop| {
        let (store, options) = (engine.store(), changes(&engine, stop));
        let refused = |e| refused(e, &name, true);
        match present {
            Present::Error => Ok(Sink::from(store.appender(&name, &to, options)?)),
            Present::Replace => Ok(store.upserter(&name, &to, options.on_duplicate(OnDuplicate::Last))?.into()),
            Present::Change => {
                let options = options.on_duplicate(OnDuplicate::Last).distinct_keys(true);
                Ok(store.upserter(&name, &to, options).map_err(refused)?.into())
            }
            Present::Keep => {
                let options = options.on_duplicate(OnDuplicate::First).distinct_keys(true);
                let writer = store.appender(&name, &to, options).map_err(refused)?;
                // Who holds the writers' lock sees what its rows are added to.
                let kept = Kept { there: store.table(&name)?, store: store.clone() };
                Ok(Sink { writer, kept: Some(kept) })
            }
        }
    };
    write(start, schema, rows).await
}

/// Why a change was refused. `distinct`: it needs each key to occur once, as it did when the statement was planned; planned
/// anew it would be refused the same way.
fn refused(e: WriteError, name: &str, distinct: bool) -> SqlError {
    match e {
        WriteError::Read(ReadError::WrongShape { .. }) if distinct => {
            let problem = format!(
                "a key of {name:?} may have several rows by now: another writer has added some meanwhile; nothing was changed"
            );
            SqlError::Unsupported { problem }
        }
        e => e.into(),
    }
}

/// Where rows go.
struct Sink {
    writer: Writer,
    kept: Option<Kept>,
}

/// A dataset whose rows stay as they are.
struct Kept {
    store: Store,
    there: Table,
}

impl From<Writer> for Sink {
    fn from(writer: Writer) -> Self {
        Self { writer, kept: None }
    }
}

impl Sink {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        match &self.kept {
            Some(kept) => self.writer.write(&kept.without_present(batch)?)?,
            None => self.writer.write(batch)?,
        }
        Ok(())
    }

    /// Publishes; returns how many rows came in.
    fn commit(self) -> Result<u64, SqlError> {
        let rows = self.writer.rows();
        let version = self.writer.commit()?;
        let Some(kept) = self.kept else { return Ok(rows) };
        // Keys that came in twice count once.
        let now = kept.store.table_at(kept.there.name(), version)?;
        Ok(now.num_rows().saturating_sub(kept.there.num_rows()) as u64)
    }
}

impl Kept {
    fn without_present(&self, batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
        let key = self.there.key();
        let columns = key.iter().map(|name| Ok(batch.schema_ref().index_of(name)?));
        let keys = batch.project(&columns.collect::<Result<Vec<_>, SqlError>>()?)?;
        let keys: ArrayRef = match keys.columns() {
            [only] => only.clone(),
            _ => Arc::new(StructArray::from(keys)),
        };
        let (found, _) = self.there.select(&key[..1])?.lookup(&keys, None)?;
        let mut new = vec![true; batch.num_rows()];
        for &position in found.values() {
            new[position as usize] = false;
        }
        Ok(filter_record_batch(batch, &BooleanArray::from(new))?)
    }
}

fn in_sql(rows: SendableRecordBatchStream) -> impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin {
    rows.map(|batch| batch.map_err(SqlError::from))
}

enum Message {
    Rows(RecordBatch),
    Commit,
}

/// Says to work that blocks whether whoever waited for it has gone.
#[derive(Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets it, if the wait does not come to its end.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Feeds a writer, which blocks, from a stream. Dropped before its end, nothing is published, unless the writer's last look
/// whether it is still wanted was before that.
async fn write(
    start: impl FnOnce(Stop) -> Result<Sink, SqlError> + Send + 'static,
    schema: SchemaRef,
    mut rows: impl Stream<Item = Result<RecordBatch, SqlError>> + Unpin,
) -> Result<u64, SqlError> {
    let (send, mut receive) = mpsc::channel(QUEUE_BATCHES_MAX);
    let stop = Stop::default();
    let _stop_on_drop = StopOnDrop(stop.clone());
    let writing = tokio::task::spawn_blocking(move || -> Result<u64, SqlError> {
        let mut sink = start(stop)?;
        loop {
            match receive.blocking_recv() {
                Some(Message::Rows(batch)) => sink.write(&batch)?,
                Some(Message::Commit) => return sink.commit(),
                None => return Err(WriteError::Cancelled.into()),
            }
        }
    });
    while let Some(batch) = rows.next().await {
        let batch = stored(&batch?, &schema)?;
        if send.send(Message::Rows(batch)).await.is_err() {
            // The writer has failed and says why below.
            break;
        }
    }
    let _ = send.send(Message::Commit).await;
    joined(writing.await)
}

/// The columns of a batch under the dataset's schema.
fn stored(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
}

/// Work that blocks, and asks before it publishes whether somebody still waits for it.
async fn unless_dropped<T: Send + 'static>(
    work: impl FnOnce(Stop) -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    let stop = Stop::default();
    let _stop_on_drop = StopOnDrop(stop.clone());
    joined(tokio::task::spawn_blocking(move || work(stop)).await)
}

fn joined<T>(done: Result<Result<T, SqlError>, tokio::task::JoinError>) -> Result<T, SqlError> {
    done.unwrap_or_else(|e| Err(SqlError::Internal { problem: e.to_string() }))
}

fn changes(engine: &Engine, stop: Stop) -> ChangeOptions {
    let mut options = ChangeOptions::default();
    options.build = options.build.memory_limit_bytes(engine.options().write_memory_bytes);
    options.build = options.build.cancel(move || stop.is_set());
    options
}

fn table_of(planned: &Planned, name: &str) -> Result<Table, SqlError> {
    let tables = planned.pinned.tables();
    let table = tables.get(name).ok_or_else(|| SqlError::NotFound { dataset: name.to_owned() })?;
    Ok(table.table().clone())
}

/// Rows are replaced as a whole, so `DO UPDATE` has to set every column.
fn check_conflict(table: &Table, conflict: &Conflict) -> Result<(), SqlError> {
    let Conflict { columns, assigned, keep } = conflict;
    let same = columns.len() == table.key().len() && columns.iter().all(|c| table.key().contains(c));
    if !columns.is_empty() && !same {
        let problem = format!("ON CONFLICT names {columns:?}, the key of {:?} is {:?}", table.name(), table.key());
        return Err(SqlError::Plan { problem });
    }
    if *keep {
        return Ok(());
    }
    let schema = table.schema();
    if let Some(unknown) = assigned.iter().find(|name| schema.index_of(name).is_err()) {
        return Err(SqlError::Plan { problem: format!("{:?} has no column {unknown:?}", table.name()) });
    }
    let mut left = schema.fields().iter().map(|field| field.name());
    match left.find(|name| !table.key().contains(name) && !assigned.contains(name)) {
        Some(left) => {
            let problem = format!("ON CONFLICT DO UPDATE that leaves column {left:?} as it was; set every column");
            Err(SqlError::Unsupported { problem })
        }
        None => Ok(()),
    }
}

/// The plan of an UPDATE has all columns, those not assigned as they are.
fn check_key_unassigned(table: &Table, rows: &LogicalPlan) -> Result<(), SqlError> {
    let LogicalPlan::Projection(projection) = rows else {
        return Err(SqlError::Internal { problem: "an update without its columns".to_owned() });
    };
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let mut kept = expr;
        while let Expr::Alias(alias) = kept {
            kept = &alias.expr;
        }
        let same = matches!(kept, Expr::Column(column) if column.name == *field.name());
        if table.key().contains(field.name()) && !same {
            let problem = format!("UPDATE of the key column {:?}; delete the row and insert it anew", field.name());
            return Err(SqlError::Unsupported { problem });
        }
    }
    Ok(())
}

/// Publishes a version without rows; returns how many there were.
fn empty(store: &Store, engine: &Engine, table: &Table, stop: Stop) -> Result<u64, SqlError> {
    let info = table.info();
    if info.rows == 0 {
        return Ok(0);
    }
    let options = PutOptions::table(info.key.clone()).unique(info.unique && !info.key.is_empty());
    let options = options.memory_limit_bytes(engine.options().write_memory_bytes).cancel(move || stop.is_set());
    let rows = RecordBatchIterator::new([], info.schema.clone());
    store.put(table.name(), rows, options)?;
    Ok(info.rows)
}

struct Keys {
    keys: ArrayRef,
    /// Whether only some rows of a key might be meant, so that it must not have several.
    distinct: bool,
    /// What they take, as long as they do.
    memory: MemoryReservation,
}

/// The keys of the rows that go; `None`: no row goes.
async fn delete_keys(
    planned: &Arc<Planned>,
    table: &Table,
    rows: &LogicalPlan,
    given: Option<&RecordBatch>,
) -> Result<Option<Keys>, SqlError> {
    if table.key().is_empty() {
        let problem =
            format!("DELETE of some rows of {:?}, which has no key; put the rows that stay anew", table.name());
        return Err(SqlError::Unsupported { problem });
    }
    let LogicalPlan::Filter(filter) = rows else {
        return Err(SqlError::Unsupported { problem: "DELETE with LIMIT".to_owned() });
    };
    let distinct = !names_only(&filter.predicate, table.key())?;
    if distinct && !table.is_unique() {
        let problem = format!(
            "DELETE by columns other than the key of {:?}, in which a key may have several rows, of which all would go",
            table.name()
        );
        return Err(SqlError::Unsupported { problem });
    }
    let schema = rows.schema();
    let columns = table.key().iter().map(|name| {
        let at = schema.index_of_column_by_name(None, name);
        at.map(|at| Expr::Column(schema.qualified_field(at).into()))
    });
    let columns = columns.collect::<Option<Vec<_>>>();
    let columns = columns.ok_or_else(|| SqlError::Internal { problem: "a key column is gone".to_owned() })?;
    let plan = LogicalPlanBuilder::from(rows.clone()).project(columns)?.build()?;
    let mut stream = planned.clone().rows(&plan, given).await?;
    let memory = planned.memory("keys to delete");
    let mut keys: Vec<ArrayRef> = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if batch.num_rows() > 0 {
            // Twice, as they are joined in the end.
            memory.try_grow(bytes_of(&batch).saturating_mul(2))?;
            keys.push(match batch.columns() {
                [only] => only.clone(),
                _ => Arc::new(StructArray::from(batch)),
            });
        }
    }
    if keys.is_empty() {
        return Ok(None);
    }
    let keys: Vec<&dyn Array> = keys.iter().map(AsRef::as_ref).collect();
    Ok(Some(Keys { keys: concat(&keys)?, distinct, memory }))
}

fn names_only(predicate: &Expr, key: &[String]) -> Result<bool, SqlError> {
    let mut only = true;
    predicate.apply(|e| {
        only &= match e {
            Expr::Column(column) => key.contains(&column.name),
            Expr::Exists(_) | Expr::ScalarSubquery(_) => false,
            _ => true,
        };
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(only)
}

/// A schema whose columns may all be null, as a dataset's that is made from rows of unknown origin.
pub(crate) fn all_nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
