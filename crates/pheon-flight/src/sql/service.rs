//! The calls of Flight SQL.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::SqlInfoData;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionEndSavepointRequest, ActionEndTransactionRequest, Any, Command, CommandGetCatalogs, CommandGetCrossReference,
    CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor,
    FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, SchemaResult, Ticket,
};
use arrow_ipc::writer::{DictionaryHandling, IpcWriteOptions};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use pheon_sql::{Engine, Session, Statement};
use prost::Message as _;
use tonic::{Extensions, Request, Response, Status};

use super::catalogue::{self, FOREIGN_KEYS, PRIMARY_KEYS};
use super::gate::{Caller, Gate};
use super::handles::{HandleLimits, Handles, Held};
use super::ingest::{ingest, parameters};
use super::running::Running;
use super::session_options;
use super::sql_info::{TYPE_INFO, sql_info};
use super::work::Work;
use crate::encode::{Encoder, Message};
use crate::metrics::Metrics;
use crate::queries::QueryLog;
use crate::record::CallRecord;
use crate::scan::messages;

/// The action that cancels what a FlightInfo stands for.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
/// Results of CancelQuery as FlightSql.proto numbers them; arrow-flight does not export its own.
const CANCELLED: i32 = 1;
const NOT_CANCELLABLE: i32 = 3;

const NO_SAVEPOINTS: &str = "there are no savepoints: a transaction is a snapshot that takes no changes";

type DataStream = BoxStream<'static, Result<FlightData, Status>>;

/// Flight SQL over an engine.
#[derive(Clone)]
pub struct SqlService {
    engine: Engine,
    gate: Arc<dyn Gate>,
    handles: Arc<Handles>,
    work: Work,
    queries: QueryLog,
    info: Arc<SqlInfoData>,
}

impl std::fmt::Debug for SqlService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlService").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl SqlService {
    /// A service that learns from `gate` who asks. Statements run on threads of its own.
    ///
    /// # Errors
    /// What the operating system says if there can be no such threads.
    pub fn new(engine: Engine, gate: Arc<dyn Gate>, limits: HandleLimits) -> io::Result<Self> {
        let work = Work::new(engine.options().partitions, limits.time_max)?;
        let (read_only, bytes_max) = (engine.store().is_read_only(), engine.options().statement_bytes_max);
        let info = Arc::new(sql_info(read_only, limits.time_max, bytes_max));
        let queries = QueryLog::new(Duration::MAX, Metrics::new());
        Ok(Self { engine, gate, handles: Handles::new(limits)?, work, queries, info })
    }

    /// Tells this log of each statement.
    #[must_use]
    pub fn with_queries(self, queries: QueryLog) -> Self {
        Self { queries, ..self }
    }

    /// A statement of the web page begins.
    pub(crate) fn begin(&self, principal: &str, text: &str, record: CallRecord) -> Running {
        Running::new(&self.queries, principal, text, self.work.clone(), record)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// An execution begins.
    fn running(&self, caller: &Caller, held: &Held, extensions: &Extensions) -> Running {
        let record = CallRecord::of(extensions);
        for dataset in held.statement.datasets() {
            record.dataset(&dataset);
        }
        record.action(if held.statement.is_query() { "query" } else { "update" });
        let running = Running::new(&self.queries, &caller.name, &held.text, self.work.clone(), record);
        running.cancelled_by(held.cancel.subscribe())
    }

    async fn prepared(&self, session: Session, sql: String) -> Result<Statement, Status> {
        self.work.run(self.work.until(), async move { session.prepare(&sql).await }).await
    }

    /// Executes a change; how many rows.
    async fn updated(
        &self,
        caller: &Caller,
        held: Held,
        values: Option<RecordBatch>,
        extensions: &Extensions,
    ) -> Result<i64, Status> {
        let mut running = self.running(caller, &held, extensions);
        let statement = held.statement;
        let changed = running.run(async move { statement.update(values).await }).await?;
        running.count(changed);
        Ok(as_count(changed))
    }

    fn caller(&self, extensions: &Extensions) -> Result<Caller, Status> {
        self.gate.caller(extensions)
    }

    /// The caller's session: a transaction's snapshot, or one that sees the newest versions.
    fn session(&self, caller: &Caller, transaction: Option<&Bytes>) -> Result<Session, Status> {
        let session = match transaction.filter(|id| !id.is_empty()) {
            Some(id) => self.handles.transaction(self.gate.as_ref(), caller, id)?,
            None => self.engine.session(),
        };
        Ok(session.with_access(caller.access.clone()))
    }

    /// The schema of what a command streams. Runs nothing.
    pub(crate) async fn schema_of(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let malformed = |e: &dyn std::fmt::Display| Status::invalid_argument(format!("malformed command: {e}"));
        let any = Any::decode(&*request.get_ref().cmd).map_err(|e| malformed(&e))?;
        let caller = self.caller(request.extensions())?;
        let schema = if let Some(query) = any.unpack::<CommandStatementQuery>().map_err(|e| malformed(&e))? {
            let session = self.session(&caller, query.transaction_id.as_ref())?;
            ipc(&self.prepared(session, query.query).await?.schema())?
        } else if let Some(query) = any.unpack::<CommandPreparedStatementQuery>().map_err(|e| malformed(&e))? {
            ipc(&self.held(&caller, &query.prepared_statement_handle)?.statement.schema())?
        } else {
            FlightService::get_flight_info(self, request).await?.into_inner().schema
        };
        Ok(Response::new(SchemaResult { schema }))
    }

    fn held(&self, caller: &Caller, handle: &[u8]) -> Result<Held, Status> {
        self.handles.statement(self.gate.as_ref(), caller, handle)
    }

    /// The rows of a statement that a client holds.
    async fn rows(
        &self,
        caller: &Caller,
        handle: &[u8],
        extensions: &Extensions,
    ) -> Result<Response<DataStream>, Status> {
        if self.handles.is_done(self.gate.as_ref(), handle) {
            return Ok(empty(&SchemaRef::new(Schema::empty())));
        }
        let held = self.held(caller, handle)?;
        self.handles.executing(self.gate.as_ref(), caller, handle)?;
        let schema = held.statement.schema();
        if !held.statement.is_query() {
            let bound = held.bound.clone();
            self.updated(caller, held, bound, extensions).await?;
            return Ok(empty(&schema));
        }
        if held.prepared {
            held.cancel.send_replace(false);
        }
        let mut running = self.running(caller, &held, extensions);
        let (statement, bound) = (held.statement.clone(), held.bound);
        let rows = running.run(async move { statement.query(bound).await }).await;
        if !held.prepared {
            // It is fetched once, as a rule; its rows keep their tables.
            held.statement.release();
        }
        let rows = rows?;
        let rows = running.rows(rows).await?.map_err(|status| FlightError::Tonic(Box::new(status)));
        let record = CallRecord::of(extensions);
        Ok(encoded(schema, rows.boxed()).map(|messages| {
            let count = move |message: &FlightData| record.moved(0, message.data_body.len() as u64);
            messages.inspect_ok(count).boxed()
        }))
    }

    fn cancel(&self, caller: &Caller, info: &FlightInfo) -> Result<bool, Status> {
        let mut found = false;
        for ticket in info.endpoint.iter().filter_map(|e| e.ticket.as_ref()) {
            let any = Any::decode(&*ticket.ticket).map_err(|e| Status::invalid_argument(e.to_string()))?;
            let Some(handle) = handle_of(&any)? else { continue };
            if let Ok(held) = self.held(caller, &handle) {
                held.cancel.send_replace(true);
                found = true;
            }
        }
        Ok(found)
    }
}

fn handle_of(any: &Any) -> Result<Option<Bytes>, Status> {
    let unpacked = |e: ArrowError| Status::invalid_argument(e.to_string());
    if let Some(ticket) = any.unpack::<TicketStatementQuery>().map_err(unpacked)? {
        return Ok(Some(ticket.statement_handle));
    }
    let prepared = any.unpack::<CommandPreparedStatementQuery>().map_err(unpacked)?;
    Ok(prepared.map(|command| command.prepared_statement_handle))
}

/// Batches as messages, of exactly the schema that was announced. (arrow-flight's own encoder announces large lists as lists.)
fn encoded(schema: SchemaRef, rows: BoxStream<'static, Result<RecordBatch, FlightError>>) -> Response<DataStream> {
    let mut encoder = match Encoder::new(&schema) {
        Ok(encoder) => encoder,
        Err(e) => {
            let status = Status::internal(format!("encode a schema: {e}"));
            return Response::new(futures::stream::iter([Err(status)]).boxed());
        }
    };
    let batches = rows.map(move |batch| {
        let batch = batch.map_err(|e| match e {
            FlightError::Tonic(status) => *status,
            e => Status::internal(e.to_string()),
        })?;
        let mut out = Vec::new();
        messages(&mut encoder, &batch, &mut out)?;
        Ok::<_, Status>(futures::stream::iter(out.into_iter().map(Ok::<_, Status>)))
    });
    let first = futures::stream::iter([Ok(Message::schema(&schema))]);
    Response::new(first.chain(batches.try_flatten()).map_ok(Message::into_flight_data).boxed())
}

fn one_batch(batch: RecordBatch) -> Response<DataStream> {
    encoded(batch.schema(), futures::stream::iter([Ok(batch)]).boxed())
}

fn empty(schema: &SchemaRef) -> Response<DataStream> {
    encoded(schema.clone(), futures::stream::empty().boxed())
}

fn ipc(schema: &Schema) -> Result<Bytes, Status> {
    let options = IpcWriteOptions::default().with_dictionary_handling(DictionaryHandling::Resend);
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &options).try_into();
    message.map(|m| m.0).map_err(|e| Status::internal(e.to_string()))
}

/// One endpoint without a location, which is this server.
fn info(ticket: Bytes, schema: &Schema, descriptor: FlightDescriptor) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    let info = FlightInfo::new().try_with_schema(schema).map_err(|e| Status::internal(e.to_string()))?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

/// For commands whose ticket is the command itself.
fn command_info(
    command: &impl ProstMessageExt,
    schema: &Schema,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    info(command.as_any().encode_to_vec().into(), schema, request.into_inner())
}

/// With the number of rows that a change made, where clients look for that of an answer: it is what they report.
fn counted(response: Response<FlightInfo>, changed: Option<i64>) -> Response<FlightInfo> {
    response.map(|info| match changed {
        Some(rows) => FlightInfo { total_records: rows, ..info },
        None => info,
    })
}

#[tonic::async_trait]
impl FlightSqlService for SqlService {
    type FlightService = SqlService;

    async fn get_flight_info_fallback(
        &self,
        command: Command,
        _: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        Err(unknown("command", command.type_url()))
    }

    async fn do_get_fallback(&self, _: Request<Ticket>, message: Any) -> Result<Response<DataStream>, Status> {
        Err(unknown("ticket", &message.type_url))
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, query.transaction_id.as_ref())?;
        let statement = self.prepared(session, query.query.clone()).await?;
        let schema = statement.schema();
        let held = Held::new(statement, &query.query, false);
        let (handle, changed) = if held.statement.is_query() {
            (self.handles.keep_statement(self.gate.as_ref(), &caller, held)?, None)
        } else {
            // Now, and not when the client fetches the rows that there are not, which some do late or never.
            let changed = self.updated(&caller, held, None, request.extensions()).await?;
            (self.handles.done(self.gate.as_ref()), Some(changed))
        };
        let ticket = TicketStatementQuery { statement_handle: handle };
        Ok(counted(command_info(&ticket, &schema, request)?, changed))
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(request.extensions())?;
        let held = self.held(&caller, &query.prepared_statement_handle)?;
        if held.statement.is_query() {
            return command_info(&query, &held.statement.schema(), request);
        }
        self.handles.executing(self.gate.as_ref(), &caller, &query.prepared_statement_handle)?;
        let bound = held.bound.clone();
        let changed = self.updated(&caller, held, bound, request.extensions()).await?;
        let ticket = TicketStatementQuery { statement_handle: self.handles.done(self.gate.as_ref()) };
        Ok(counted(command_info(&ticket, &Schema::empty(), request)?, Some(changed)))
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        let caller = self.caller(request.extensions())?;
        self.rows(&caller, &ticket.statement_handle, request.extensions()).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        let caller = self.caller(request.extensions())?;
        self.rows(&caller, &query.prepared_statement_handle, request.extensions()).await
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, command.transaction_id.as_ref())?;
        let statement = self.prepared(session, command.query.clone()).await?;
        self.updated(&caller, Held::new(statement, &command.query, false), None, request.extensions()).await
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, command.transaction_id.as_ref())?;
        let record = CallRecord::of(request.extensions());
        record.action("ingest");
        record.dataset(&command.table);
        // How long the client takes to send its rows is not the statement's time.
        let text = format!("bulk ingest into {:?}", command.table);
        let mut running = Running::new(&self.queries, &caller.name, &text, self.work.clone(), CallRecord::default());
        let count = tokio::select! {
            count = ingest(&session, &command, request.into_inner(), self.handles.limits(), record) => count?,
            why = running.stopped() => return Err(why),
        };
        running.count(count);
        Ok(as_count(count))
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let caller = self.caller(request.extensions())?;
        let handle = query.prepared_statement_handle;
        let mut held = self.held(&caller, &handle)?;
        let record = CallRecord::of(request.extensions());
        record.action("bind");
        let values = parameters(request.into_inner(), self.handles.limits(), record).await?;
        if let Some(values) = &values {
            let (statement, schema) = (held.statement.clone(), values.schema());
            held.statement = self.work.run(self.work.until(), async move { statement.bound(&schema).await }).await?;
        }
        held.bound = values;
        self.handles.bind(self.gate.as_ref(), &caller, &handle, held)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let caller = self.caller(request.extensions())?;
        let held = self.held(&caller, &query.prepared_statement_handle)?;
        self.handles.executing(self.gate.as_ref(), &caller, &query.prepared_statement_handle)?;
        let (_, extensions, stream) = request.into_parts();
        let values = parameters(stream, self.handles.limits(), CallRecord::of(&extensions)).await?;
        // A statement without parameters comes with a batch without columns.
        let values = values.filter(|values| values.num_columns() > 0).or_else(|| held.bound.clone());
        self.updated(&caller, held, values, &extensions).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, query.transaction_id.as_ref())?;
        CallRecord::of(request.extensions()).action("prepare");
        let statement = self.prepared(session, query.query.clone()).await?;
        let dataset_schema = ipc(&statement.schema())?;
        let parameter_schema = ipc(&statement.parameter_schema())?;
        let handle =
            self.handles.keep_statement(self.gate.as_ref(), &caller, Held::new(statement, &query.query, true))?;
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle: handle, dataset_schema, parameter_schema })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        let caller = self.caller(request.extensions())?;
        self.handles.close(self.gate.as_ref(), &caller, &query.prepared_statement_handle)
    }

    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        let caller = self.caller(request.extensions())?;
        let snapshot = self.engine.snapshot();
        let transaction_id = self.handles.keep_transaction(self.gate.as_ref(), &caller, snapshot)?;
        Ok(ActionBeginTransactionResult { transaction_id })
    }

    async fn do_action_end_transaction(
        &self,
        query: ActionEndTransactionRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        // Commit or rollback is the same. Clients go on with statements that were prepared in it.
        let caller = self.caller(request.extensions())?;
        if let Ok(session) = self.handles.transaction(self.gate.as_ref(), &caller, &query.transaction_id) {
            session.end_snapshot();
        }
        self.handles.close(self.gate.as_ref(), &caller, &query.transaction_id)
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let caller = self.caller(request.extensions())?;
        let info = FlightInfo::decode(query.info).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let result = if self.cancel(&caller, &info)? { CANCELLED } else { NOT_CANCELLABLE };
        Ok(ActionCancelQueryResult { result })
    }

    async fn do_action_begin_savepoint(
        &self,
        _: ActionBeginSavepointRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(Status::unimplemented(NO_SAVEPOINTS))
    }

    async fn do_action_end_savepoint(&self, _: ActionEndSavepointRequest, _: Request<Action>) -> Result<(), Status> {
        Err(Status::unimplemented(NO_SAVEPOINTS))
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let caller = self.caller(request.extensions())?;
        let action = request.get_ref();
        let body = if action.r#type == CANCEL_FLIGHT_INFO {
            let asked = CancelFlightInfoRequest::decode(&*action.body);
            let asked = asked.map_err(|e| Status::invalid_argument(e.to_string()))?;
            let info = asked.info.ok_or_else(|| Status::invalid_argument("no FlightInfo to cancel"))?;
            let done = self.cancel(&caller, &info)?;
            let status = if done { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
            CancelFlightInfoResult::new(status).encode_to_vec().into()
        } else {
            let unknown = || Status::unimplemented(format!("there is no action {:?}: see ListActions", action.r#type));
            session_options::answer(&action.r#type, &action.body)?.ok_or_else(unknown)?
        };
        Ok(Response::new(futures::stream::iter([Ok(arrow_flight::Result { body })]).boxed()))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let cancel = (CANCEL_FLIGHT_INFO, "Cancels the statement of a FlightInfo");
        let of = |(kind, description): (&str, &str)| {
            Ok(ActionType { r#type: kind.to_owned(), description: description.to_owned() })
        };
        Some(std::iter::once(cancel).chain(session_options::ACTIONS).map(of).collect())
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, &query.into_builder().schema(), request)
    }

    async fn do_get_catalogs(
        &self,
        _: CommandGetCatalogs,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        catalogue::catalogs().map(one_batch)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query.clone(), &query.into_builder().schema(), request)
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        catalogue::db_schemas(query).map(one_batch)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query.clone(), &query.into_builder().schema(), request)
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        let session = self.session(&self.caller(request.extensions())?, None)?;
        catalogue::tables(&session, query).await.map(one_batch)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, &query.into_builder().schema(), request)
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        catalogue::table_types(query).map(one_batch)
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query.clone(), &query.into_builder(&self.info).schema(), request)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        let batch = query.into_builder(&self.info).build();
        batch.map(one_batch).map_err(|e| Status::invalid_argument(e.to_string()))
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, &PRIMARY_KEYS, request)
    }

    async fn do_get_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        let session = self.session(&self.caller(request.extensions())?, None)?;
        catalogue::primary_keys(&session, &query).await.map(one_batch)
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, &FOREIGN_KEYS, request)
    }

    async fn do_get_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        Ok(empty(&FOREIGN_KEYS))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, &FOREIGN_KEYS, request)
    }

    async fn do_get_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        Ok(empty(&FOREIGN_KEYS))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, &FOREIGN_KEYS, request)
    }

    async fn do_get_cross_reference(
        &self,
        _: CommandGetCrossReference,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        Ok(empty(&FOREIGN_KEYS))
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command_info(&query, &query.into_builder(&TYPE_INFO).schema(), request)
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        let batch = query.into_builder(&TYPE_INFO).build();
        batch.map(one_batch).map_err(|e| Status::invalid_argument(e.to_string()))
    }

    /// What the server says of itself is made in one place, once.
    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

fn unknown(what: &str, type_url: &str) -> Status {
    Status::invalid_argument(format!("neither a {what} of plain Flight nor one of Flight SQL (type {type_url:?})"))
}

fn as_count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
