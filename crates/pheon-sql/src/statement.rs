//! A prepared statement.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::access::Access;
use crate::analysis::Action;
use crate::batched::{Answer, Batched, batched};
use crate::catalog::Pinned;
use crate::change;
use crate::error::SqlError;
use crate::opaque::Opaque;
use crate::parameters;
use crate::session::Session;
use crate::syntax::{Parsed, parse};
use crate::yielding::yielding;

/// A statement, planned. It may be executed many times, also at once; each time it sees the newest versions, unless it
/// belongs to a snapshot, and rights are asked anew. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Statement {
    session: Session,
    parsed: Opaque<Parsed>,
    facts: Arc<Facts>,
    /// `None` after [`Statement::release`], until it is executed again.
    planned: Opaque<Mutex<Option<Arc<Planned>>>>,
}

/// What was told of a statement, and stays so however often it is planned.
#[derive(Debug)]
struct Facts {
    is_query: bool,
    datasets: Vec<String>,
    rows_schema: SchemaRef,
    parameters: SchemaRef,
}

/// A statement planned over certain versions.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) action: Action,
    state: SessionState,
    pub(crate) pinned: Arc<Pinned>,
    /// Of the rows that a query or a change has.
    rows_schema: SchemaRef,
    parameters: SchemaRef,
    /// Its answer depends on the rights that it was planned with.
    tells_names: bool,
}

impl Statement {
    pub(crate) async fn prepare(session: Session, sql: &str) -> Result<Self, SqlError> {
        let parsed = Opaque::new(parse(sql, session.engine().options().statement_bytes_max)?);
        let planned = Planned::new(&session, &parsed, None).await?;
        Ok(Self::of(session, parsed, planned))
    }

    fn of(session: Session, parsed: Opaque<Parsed>, planned: Planned) -> Self {
        let facts = Arc::new(planned.facts());
        Self { session, parsed, facts, planned: Opaque::new(Mutex::new(Some(Arc::new(planned)))) }
    }

    /// The same statement, executed by a caller with these rights.
    #[must_use]
    pub fn with_access(self, access: Arc<dyn Access>) -> Self {
        Self { session: self.session.with_access(access), ..self }
    }

    /// Whether it has rows; otherwise it changes the store, by [`Statement::update`].
    pub fn is_query(&self) -> bool {
        self.facts.is_query
    }

    /// The datasets that it reads and changes, by name.
    pub fn datasets(&self) -> Vec<String> {
        self.current().map_or_else(|| self.facts.datasets.clone(), |planned| planned.datasets())
    }

    /// Closes its tables, whose files would be kept for it; executions that are under way keep theirs. The next one plans
    /// it again. All clones of a statement are planned once, and released at once.
    pub fn release(&self) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// How many tables it keeps open.
    pub fn open_tables(&self) -> usize {
        self.current().map_or(0, |planned| planned.pinned.count())
    }

    /// The schema of the rows, exactly that of the stream; of an update: empty.
    pub fn schema(&self) -> SchemaRef {
        if self.facts.is_query { self.facts.rows_schema.clone() } else { Arc::new(Schema::empty()) }
    }

    /// One field a placeholder, in order; Null where its type cannot be inferred. Such a statement takes the type of the
    /// first values that it is given ([`Statement::bound`]).
    pub fn parameter_schema(&self) -> SchemaRef {
        self.facts.parameters.clone()
    }

    /// The statement with the types of parameters that cannot be inferred taken from `given`.
    pub fn bound<'a>(&'a self, given: &'a Schema) -> BoxFuture<'a, Result<Self, SqlError>> {
        Box::pin(async move {
            if !parameters::is_open(&self.facts.parameters) {
                return Ok(self.clone());
            }
            let planned = Planned::new(&self.session, &self.parsed, Some(given)).await?;
            Ok(Self::of(self.session.clone(), self.parsed.clone(), planned))
        })
    }

    /// The rows. With several rows of parameters: those of the first, then those of the second and so on.
    ///
    /// # Errors
    /// [`SqlError::Changed`] if a dataset has other columns by now; [`SqlError::Parameters`].
    pub fn query(&self, given: Option<RecordBatch>) -> BoxFuture<'_, Result<SendableRecordBatchStream, SqlError>> {
        Box::pin(async move {
            let statement = self.for_values(given.as_ref()).await?;
            let planned = statement.refreshed().await?;
            let Action::Query(rows) = &planned.action else {
                let problem = "this statement changes the store and has no rows; execute it as an update".to_owned();
                return Err(SqlError::Unsupported { problem });
            };
            planned.clone().rows(rows, given.as_ref()).await
        })
    }

    /// Executes a change; returns how many rows were added, replaced or deleted. One new version is published, or none.
    pub fn update(&self, given: Option<RecordBatch>) -> BoxFuture<'_, Result<u64, SqlError>> {
        Box::pin(async move {
            let statement = self.for_values(given.as_ref()).await?;
            let planned = statement.refreshed().await?;
            change::execute(&self.session, planned, given).await
        })
    }

    fn current(&self) -> Option<Arc<Planned>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn for_values(&self, given: Option<&RecordBatch>) -> Result<Self, SqlError> {
        match given {
            Some(batch) => self.bound(batch.schema_ref()).await,
            None => Ok(self.clone()),
        }
    }

    /// The plan over the newest versions, for a caller who has the rights to it.
    async fn refreshed(&self) -> Result<Arc<Planned>, SqlError> {
        if let Some(current) = self.current().filter(|planned| !planned.tells_names) {
            let in_snapshot = self.session.snapshot().is_some_and(|pinned| Arc::ptr_eq(pinned, &current.pinned));
            if in_snapshot || !current.pinned.is_outdated() {
                current.action.check(self.session.access().as_ref(), &self.session, &current.pinned)?;
                return Ok(current);
            }
        }
        let facts = &self.facts;
        let newer = Arc::new(Planned::new(&self.session, &self.parsed, Some(&facts.parameters)).await?);
        if newer.rows_schema != facts.rows_schema || newer.parameters != facts.parameters {
            return Err(SqlError::Changed { dataset: facts.datasets.join(", ") });
        }
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some(newer.clone());
        Ok(newer)
    }
}

impl Planned {
    async fn new(session: &Session, parsed: &Parsed, types: Option<&Schema>) -> Result<Self, SqlError> {
        let pinned = session.pinned();
        pinned.forget_missing();
        let state = session.engine().state(session.access().clone(), pinned.clone());
        let planned = catch_panics(state.statement_to_plan(parsed.statement.clone())).await;
        let plan = planned.map_err(|e| match (SqlError::from(e), pinned.missing()) {
            (SqlError::Plan { .. }, Some(dataset)) => SqlError::NotFound { dataset },
            (e, _) => e,
        })?;
        let mut action = Action::of(plan, parsed.conflict.clone())?;
        action.check(session.access().as_ref(), session, &pinned)?;
        if let (Some(types), Some(rows)) = (types, action.rows_mut()) {
            *rows = parameters::with_types(rows.clone(), types)?;
        }
        let parameters = parameters::schema_of(action.rows(), parsed.parameters)?;
        let rows_schema = match action.rows() {
            Some(rows) => {
                let analysed = state.analyzer().execute_and_check(rows.clone(), state.config_options(), |_, _| {})?;
                Arc::new(analysed.schema().as_arrow().clone())
            }
            None => Arc::new(Schema::empty()),
        };
        let tells_names = action.tells_names()?;
        Ok(Self { action, state, pinned, rows_schema, parameters, tells_names })
    }

    fn facts(&self) -> Facts {
        Facts {
            is_query: matches!(self.action, Action::Query(_)),
            datasets: self.datasets(),
            rows_schema: self.rows_schema.clone(),
            parameters: self.parameters.clone(),
        }
    }

    /// By name, without capitals that a statement left out.
    fn datasets(&self) -> Vec<String> {
        let mut names: Vec<_> = self.pinned.tables().into_values().map(|t| t.table().name().to_owned()).collect();
        names.extend(self.action.target().map(|name| self.pinned.dataset_named(name)));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Counts what a statement keeps beside its operators as memory of the query.
    pub(crate) fn memory(&self, of: &str) -> MemoryReservation {
        MemoryConsumer::new(of).register(&self.state.runtime_env().memory_pool)
    }

    pub(crate) fn rows_schema(&self) -> &SchemaRef {
        &self.rows_schema
    }

    /// The rows of a plan for all rows of parameters, one after the other. `plan` is that of the statement, or one above it.
    pub(crate) async fn rows(
        self: Arc<Self>,
        plan: &LogicalPlan,
        given: Option<&RecordBatch>,
    ) -> Result<SendableRecordBatchStream, SqlError> {
        let schema = if self.action.rows().is_some_and(|own| std::ptr::eq(own, plan)) {
            self.rows_schema.clone()
        } else {
            let analysed =
                self.state.analyzer().execute_and_check(plan.clone(), self.state.config_options(), |_, _| {})?;
            Arc::new(analysed.schema().as_arrow().clone())
        };
        let Some(given) = given else {
            if !self.parameters.fields().is_empty() {
                let problem =
                    format!("the statement has {} parameters, none were given", self.parameters.fields().len());
                return Err(SqlError::Parameters { problem });
            }
            return self.run(plan.clone(), &schema, false).await;
        };
        let converted = self.memory("parameters");
        converted.try_grow(parameters::conformed_bytes(given, &self.parameters))?;
        let values = parameters::conform(given, &self.parameters)?;
        if values.num_columns() == 0 {
            return self.run(plan.clone(), &schema, false).await;
        }
        let memory = self.memory("rows of parameters");
        let rows_max = self.state.config_options().execution.batch_size.into();
        if let Some(first) = batched(plan, given, &values, rows_max, &memory)? {
            let (plan, given) = (plan.clone(), given.clone());
            let all = AllRows { planned: self, plan, given, values, schema, memory, _converted: converted };
            return Ok(all.stream(first, rows_max));
        }
        if values.num_rows() == 1 {
            let plan = bind(plan, &parameters::row(&values, 0)?)?;
            return self.run(plan, &schema, false).await;
        }
        let (plan, planned, of_rows) = (plan.clone(), self.clone(), schema.clone());
        let streams = futures::stream::iter(0..values.num_rows()).then(move |row| {
            let (plan, planned, schema) = (plan.clone(), planned.clone(), of_rows.clone());
            // Counted for as long as there may be another row.
            let _ = &converted;
            let values = parameters::row(&values, row);
            async move {
                let plan =
                    bind(&plan, &values.map_err(SqlError::into_datafusion)?).map_err(SqlError::into_datafusion)?;
                planned.run(plan, &schema, false).await.map_err(SqlError::into_datafusion)
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, streams.try_flatten())))
    }

    /// Executes a plan without placeholders. `in_order`: rows stay in the order of their source.
    async fn run(
        &self,
        plan: LogicalPlan,
        schema: &SchemaRef,
        in_order: bool,
    ) -> Result<SendableRecordBatchStream, SqlError> {
        let mut state = self.state.clone();
        state.mark_start_execution();
        if in_order {
            state.config_mut().options_mut().execution.target_partitions = 1;
        }
        let physical = yielding(catch_panics(state.create_physical_plan(&plan)).await?)?;
        let stream = execute_stream(physical, state.task_ctx())?;
        let of_rows = schema.clone();
        let stream = std::panic::AssertUnwindSafe(stream).catch_unwind().map(move |batch| match batch {
            Ok(batch) => relabel(&batch?, &of_rows),
            Err(panic) => Err(panicked(&panic)),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema.clone(), stream)))
    }
}

/// What answers all rows of parameters, some of them at a time.
struct AllRows {
    planned: Arc<Planned>,
    plan: LogicalPlan,
    given: RecordBatch,
    values: RecordBatch,
    schema: SchemaRef,
    memory: MemoryReservation,
    /// Of `values`.
    _converted: MemoryReservation,
}

impl AllRows {
    /// `first`: the answer to those at the beginning.
    fn stream(self, first: Batched, rows_max: usize) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let streams = futures::stream::try_unfold((self, Some(first), 0), move |(all, found, at)| async move {
            let found = match found {
                Some(found) => found,
                None if at >= all.given.num_rows() => return Ok(None),
                None => {
                    let left = all.given.num_rows() - at;
                    let (given, values) = (all.given.slice(at, left), all.values.slice(at, left));
                    let found = batched(&all.plan, &given, &values, rows_max, &all.memory)?;
                    found.ok_or_else(|| SqlError::Internal { problem: "a plan has changed".to_owned() })?
                }
            };
            let at = at + found.taken;
            let rows: SendableRecordBatchStream = match found.answer {
                Answer::Rows(rows) => {
                    let rows = relabel(&rows, &all.schema);
                    Box::pin(RecordBatchStreamAdapter::new(all.schema.clone(), futures::stream::iter([rows])))
                }
                Answer::Plan(plan) => all.planned.run(plan, &all.schema, true).await?,
            };
            Ok::<_, SqlError>(Some((rows, (all, None, at))))
        });
        let rows = streams.map_err(SqlError::into_datafusion).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

fn bind(plan: &LogicalPlan, values: &ParamValues) -> Result<LogicalPlan, SqlError> {
    Ok(plan.clone().replace_params_with_values(values)?)
}

/// A failure within DataFusion ends the statement, not the process.
async fn catch_panics<T>(work: impl Future<Output = Result<T, DataFusionError>>) -> Result<T, DataFusionError> {
    match std::panic::AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done,
        Err(panic) => Err(panicked(&panic)),
    }
}

fn panicked(panic: &Box<dyn std::any::Any + Send>) -> DataFusionError {
    let said =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    let problem = format!("it panicked: {}", said.unwrap_or_default());
    SqlError::Internal { problem }.into_datafusion()
}

/// A batch under exactly the schema that was announced.
fn relabel(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, DataFusionError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| parameters::cast(column, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
