//! The calls of Flight SQL.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionEndTransactionRequest, Any, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas,
    CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandPreparedStatementUpdate,
    CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult,
    ProstMessageExt, SqlInfo, TicketStatementQuery,
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
use pheon_sql::{Engine, SendableRecordBatchStream, Session, SqlError};
use prost::Message as _;
use tonic::{Extensions, Request, Response, Status};

use super::catalogue::{self, FOREIGN_KEYS, PRIMARY_KEYS};
use super::gate::{Caller, Gate};
use super::handles::{HandleLimits, Handles, Held};
use super::ingest::{ingest, parameters};
use super::sql_info::{SQL_INFO, TYPE_INFO};
use super::sql_status::failed;
use crate::encode::{Encoder, Message};
use crate::scan::messages;
use crate::wire::response;

/// The action that cancels what a FlightInfo stands for.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
/// Results of CancelQuery as FlightSql.proto numbers them; arrow-flight does not export its own.
const CANCELLED: i32 = 1;
const NOT_CANCELLABLE: i32 = 3;

/// The handle of a change that is executed already.
const DONE: &[u8] = b"done";

type DataStream = BoxStream<'static, Result<FlightData, Status>>;

/// Flight SQL over an engine.
#[derive(Clone)]
pub struct SqlService {
    engine: Engine,
    gate: Arc<dyn Gate>,
    handles: Arc<Handles>,
}

impl SqlService {
    /// A service that learns from `gate` who asks.
    pub fn new(engine: Engine, gate: Arc<dyn Gate>, limits: HandleLimits) -> Self {
        Self { engine, gate, handles: Arc::new(Handles::new(limits)) }
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
            ipc(&*session.prepare(&query.query).await.map_err(failed)?.schema())?
        } else if let Some(query) = any.unpack::<CommandPreparedStatementQuery>().map_err(|e| malformed(&e))? {
            ipc(&*self.held(&caller, &query.prepared_statement_handle)?.statement.schema())?
        } else {
            FlightService::get_flight_info(self, request).await?.into_inner().schema
        };
        Ok(Response::new(SchemaResult { schema }))
    }

    fn held(&self, caller: &Caller, handle: &[u8]) -> Result<Held, Status> {
        self.handles.statement(self.gate.as_ref(), caller, handle)
    }

    /// The rows of a statement that a client holds.
    async fn rows(&self, caller: &Caller, handle: &[u8]) -> Result<Response<DataStream>, Status> {
        if self.gate.open(handle).is_some_and(|payload| payload == DONE) {
            return Ok(empty(&SchemaRef::new(Schema::empty())));
        }
        let held = self.held(caller, handle)?;
        let schema = held.statement.schema();
        if !held.statement.is_query() {
            held.statement.update(held.bound).await.map_err(failed)?;
            return Ok(encoded(schema, futures::stream::empty().boxed()));
        }
        if held.prepared {
            held.cancel.send_replace(false);
        }
        let mut cancelled = held.cancel.subscribe();
        let rows: SendableRecordBatchStream = tokio::select! {
            rows = held.statement.query(held.bound.clone()) => rows.map_err(failed)?,
            _ = cancelled.wait_for(|c| *c) => return Err(Status::cancelled("the statement was cancelled")),
        };
        let keep = held.cancel;
        let stop = async move {
            // Ends when it is cancelled, and only then: this keeps the sender.
            if cancelled.wait_for(|c| *c).await.is_err() {
                futures::future::pending::<()>().await;
            }
        };
        let rows = rows.map_err(|e| Box::new(failed(SqlError::from(e)))).take_until(stop);
        let said = futures::stream::once(async move {
            let cancelled = *keep.borrow();
            cancelled.then(|| Err(Box::new(Status::cancelled("the statement was cancelled"))))
        });
        let rows = rows.chain(said.filter_map(std::future::ready)).map_err(|status| FlightError::Tonic(status));
        Ok(encoded(schema, rows.boxed()))
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
    response(first.chain(batches.try_flatten()))
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

#[tonic::async_trait]
impl FlightSqlService for SqlService {
    type FlightService = SqlService;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, query.transaction_id.as_ref())?;
        let statement = session.prepare(&query.query).await.map_err(failed)?;
        let schema = statement.schema();
        let handle = if statement.is_query() {
            self.handles.keep_statement(self.gate.as_ref(), &caller, Held::new(statement, false))?
        } else {
            // Now, and not when the client fetches the rows that there are not, which some do late or never.
            statement.update(None).await.map_err(failed)?;
            self.gate.sign(DONE).into()
        };
        let ticket = TicketStatementQuery { statement_handle: handle };
        command_info(&ticket, &schema, request)
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
        held.statement.update(held.bound).await.map_err(failed)?;
        let ticket = TicketStatementQuery { statement_handle: self.gate.sign(DONE).into() };
        command_info(&ticket, &Schema::empty(), request)
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        let caller = self.caller(request.extensions())?;
        self.rows(&caller, &ticket.statement_handle).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        let caller = self.caller(request.extensions())?;
        self.rows(&caller, &query.prepared_statement_handle).await
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, command.transaction_id.as_ref())?;
        let statement = session.prepare(&command.query).await.map_err(failed)?;
        count(statement.update(None).await)
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, command.transaction_id.as_ref())?;
        ingest(&session, &command, request.into_inner()).await
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let caller = self.caller(request.extensions())?;
        let handle = query.prepared_statement_handle;
        let mut held = self.held(&caller, &handle)?;
        let values = parameters(request.into_inner(), self.handles.limits().parameter_bytes_max).await?;
        if let Some(values) = &values {
            held.statement = held.statement.bound(values.schema_ref()).await.map_err(failed)?;
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
        let values = parameters(request.into_inner(), self.handles.limits().parameter_bytes_max).await?;
        // A statement without parameters comes with a batch without columns.
        let values = values.filter(|values| values.num_columns() > 0).or(held.bound);
        count(held.statement.update(values).await)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let caller = self.caller(request.extensions())?;
        let session = self.session(&caller, query.transaction_id.as_ref())?;
        let statement = session.prepare(&query.query).await.map_err(failed)?;
        let dataset_schema = ipc(&statement.schema())?;
        let parameter_schema = ipc(&statement.parameter_schema())?;
        let handle = self.handles.keep_statement(self.gate.as_ref(), &caller, Held::new(statement, true))?;
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
        // Commit or rollback: there is nothing to do either way.
        let caller = self.caller(request.extensions())?;
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

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        if request.get_ref().r#type != CANCEL_FLIGHT_INFO {
            return Err(Status::unimplemented(format!("there is no action {:?}", request.get_ref().r#type)));
        }
        let caller = self.caller(request.extensions())?;
        let asked = CancelFlightInfoRequest::decode(&*request.get_ref().body);
        let asked = asked.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let info = asked.info.ok_or_else(|| Status::invalid_argument("no FlightInfo to cancel"))?;
        let status = if self.cancel(&caller, &info)? { CancelStatus::Cancelled } else { CancelStatus::NotCancellable };
        let body = CancelFlightInfoResult::new(status).encode_to_vec().into();
        Ok(Response::new(futures::stream::iter([Ok(arrow_flight::Result { body })]).boxed()))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let description = "Cancels the statement of a FlightInfo".to_owned();
        Some(vec![Ok(ActionType { r#type: CANCEL_FLIGHT_INFO.to_owned(), description })])
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
        command_info(&query.clone(), &query.into_builder(&SQL_INFO).schema(), request)
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<Ticket>,
    ) -> Result<Response<DataStream>, Status> {
        self.caller(request.extensions())?;
        let batch = query.into_builder(&SQL_INFO).build();
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

fn count(done: Result<u64, SqlError>) -> Result<i64, Status> {
    Ok(i64::try_from(done.map_err(failed)?).unwrap_or(i64::MAX))
}
