//! The plain Flight service: docs/flight.md, Calls.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, IpcMessage, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use pheon::Store;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::auth::{Principal, Signer};
use crate::command::{ScanCommand, dataset_and_version};
use crate::drain::Drain;
use crate::encode::Message;
use crate::exchange::LookupLimits;
use crate::limits::Limits;
use crate::places::Places;
use crate::put::PutLimits;
use crate::record::CallRecord;
use crate::scan::Selection;
use crate::ticket::ScanTicket;
use crate::wire::{FlightDataStream, response};
use crate::{action, exchange, live, live_action, put, scan, status};

/// Runs work that may block on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Status::internal(format!("the work ended early: {e}"))),
    }
}

/// Who calls, and whether this server writes at all.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    principal: Principal,
    read_only: bool,
    record: CallRecord,
}

impl Caller {
    /// Somebody with all rights, whose call nobody counts.
    pub(crate) fn everyone() -> Self {
        Self { principal: Principal::everyone(), read_only: false, record: CallRecord::default() }
    }

    fn refuse(&self, what: &str, dataset: &str) -> Status {
        Status::permission_denied(format!("{} may not {what} {dataset:?}", self.principal.name()))
    }

    pub(crate) fn may_read(&self, dataset: &str) -> bool {
        self.principal.may_read(dataset)
    }

    /// What is known of the call.
    pub(crate) fn record(&self) -> &CallRecord {
        &self.record
    }

    pub(crate) fn check_read(&self, dataset: &str) -> Result<(), Status> {
        // `name@version` is of the dataset.
        let dataset = dataset_and_version(dataset).0;
        self.record.dataset(dataset);
        if self.may_read(dataset) { Ok(()) } else { Err(self.refuse("read", dataset)) }
    }

    pub(crate) fn check_write(&self, dataset: &str) -> Result<(), Status> {
        self.record.dataset(dataset);
        if !self.principal.may_write(dataset) {
            return Err(self.refuse("write", dataset));
        }
        self.check_writable()
    }

    pub(crate) fn check_admin(&self, dataset: &str) -> Result<(), Status> {
        self.check_admin_right(dataset)?;
        self.check_writable()
    }

    /// For what changes nothing: also on a server that is read-only.
    pub(crate) fn check_admin_right(&self, dataset: &str) -> Result<(), Status> {
        self.record.dataset(dataset);
        if self.principal.may_admin(dataset) { Ok(()) } else { Err(self.refuse("administrate", dataset)) }
    }

    fn check_writable(&self) -> Result<(), Status> {
        if !self.read_only {
            return Ok(());
        }
        Err(status::with_detail(Status::failed_precondition("this server is read-only"), "read-only"))
    }
}

/// Serves a store by plain Flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PlainService {
    store: Store,
    read_only: bool,
    sql: bool,
    signer: Arc<Signer>,
    ticket_age_max: Duration,
    lookups: LookupLimits,
    puts: PutLimits,
    drain: Drain,
}

impl PlainService {
    /// Serves a store; `sql`: whether Flight SQL is served beside it. Exchanges that are open end when `drain` begins.
    pub fn new(store: Store, read_only: bool, sql: bool, signer: Arc<Signer>, limits: &Limits, drain: Drain) -> Self {
        let Limits { ticket_age_max, decompressed_bytes_max, answer_bytes_max, .. } = *limits;
        let lookups = LookupLimits { decompressed_bytes_max, answer_bytes_max };
        let puts = PutLimits {
            decompressed_bytes_max,
            delete_bytes_max: limits.delete_bytes_max,
            write_memory_bytes_max: limits.write_memory_bytes_max,
            places: Places::new(limits),
        };
        Self { store, read_only, sql, signer, ticket_age_max, lookups, puts, drain }
    }

    /// For work that keeps a thread.
    pub(crate) fn places(&self) -> &Places {
        &self.puts.places
    }

    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        self.caller_of(request.extensions())
    }

    pub(crate) fn caller_of(&self, extensions: &Extensions) -> Result<Caller, Status> {
        let principal = extensions.get::<Principal>().cloned();
        let principal = principal.ok_or_else(|| Status::unauthenticated("nobody said who calls"))?;
        Ok(Caller { principal, read_only: self.read_only, record: CallRecord::of(extensions) })
    }

    /// The schema that a command's stream has.
    fn schema(&self, caller: &Caller, command: &ScanCommand) -> Result<SchemaRef, Status> {
        Ok(match &command.live {
            Some(name) => {
                caller.check_read(&live::right(name))?;
                live::attach(&self.store, name)?;
                live::projection(command.columns.as_deref())?.1
            }
            None => self.select(caller, command)?.schema(),
        })
    }

    fn select(&self, caller: &Caller, command: &ScanCommand) -> Result<Selection, Status> {
        let text = command.dataset.as_deref().unwrap_or_default();
        caller.check_read(text)?;
        let table = scan::open(&self.store, text)?;
        scan::check_created(command.created, || table.info())?;
        Selection::new(table, command)
    }

    fn info(&self, caller: &Caller, command: ScanCommand, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let (schema, rows, bytes, pinned) = match &command.live {
            Some(name) => {
                caller.check_read(&live::right(name))?;
                let info = live::attach(&self.store, name)?.info().map_err(|e| status::of_live(&e))?;
                let schema = live::projection(command.columns.as_deref())?.1;
                // It may change until the scan, and a part of it has an unknown size.
                (schema, None, Some(info.entry_bytes), command)
            }
            None => {
                let selection = self.select(caller, &command)?;
                let table = selection.table();
                let dataset = Some(format!("{}@{}", table.name(), table.version()));
                let created = Some(table.info().created_unix_ms);
                let (rows, bytes) = (selection.rows() as u64, selection.bytes()?);
                (selection.schema(), Some(rows), Some(bytes), ScanCommand { dataset, created, ..command })
            }
        };
        let known = |number: Option<u64>| number.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
        let ticket = ScanTicket::new(pinned, self.ticket_age_max).sign(&self.signer)?;
        let info = FlightInfo::new()
            .try_with_schema(&schema)
            .map_err(|e| Status::internal(format!("encode a schema: {e}")))?;
        Ok(info
            .with_descriptor(descriptor)
            .with_endpoint(FlightEndpoint::new().with_ticket(Ticket::new(ticket)))
            .with_total_records(known(rows))
            .with_total_bytes(known(bytes))
            .with_ordered(true))
    }

    fn list(&self, caller: &Caller, prefix: &str) -> Result<Vec<FlightInfo>, Status> {
        let mut infos = Vec::new();
        let mut add = |command: ScanCommand, path: Vec<String>| match self.info(
            caller,
            command,
            FlightDescriptor::new_path(path),
        ) {
            Ok(info) => {
                infos.push(info);
                Ok(())
            }
            // It went away since it was listed, or is damaged: the others are still there.
            Err(status) if matches!(status.code(), tonic::Code::NotFound | tonic::Code::DataLoss) => Ok(()),
            Err(status) => Err(status),
        };
        for name in self.store.datasets().map_err(|e| status::of_read(&e))? {
            if name.starts_with(prefix) && caller.may_read(&name) {
                add(ScanCommand { dataset: Some(name.clone()), ..ScanCommand::default() }, vec![name])?;
            }
        }
        for name in live::names(&self.store)? {
            if name.starts_with(prefix) && caller.may_read(&live::right(&name)) {
                add(ScanCommand { live: Some(name.clone()), ..ScanCommand::default() }, vec!["live".into(), name])?;
            }
        }
        Ok(infos)
    }

    /// `DoPut` whose first message was read already.
    pub(crate) async fn put(
        &self,
        caller: Caller,
        first: FlightData,
        rest: Streaming<FlightData>,
    ) -> Result<Response<BoxStream<'static, Result<PutResult, Status>>>, Status> {
        let result = put::put(caller, self.store.clone(), first, rest, &self.puts).await?;
        Ok(Response::new(stream::iter([Ok(result)]).boxed()))
    }
}

/// Messages on their way to a caller, counted as they leave.
fn counted<S: Stream<Item = Result<Message, Status>>>(
    caller: &Caller,
    messages: S,
) -> impl Stream<Item = Result<Message, Status>> + use<S> {
    let record = caller.record().clone();
    messages.inspect_ok(move |message| record.moved(message.rows as u64, message.body_bytes() as u64))
}

fn schema_result(schema: &Schema) -> Result<SchemaResult, Status> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options));
    let message = message.map_err(|e| Status::internal(format!("encode a schema: {e}")))?;
    Ok(SchemaResult { schema: message.0 })
}

#[async_trait]
impl FlightService for PlainService {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = FlightDataStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = FlightDataStream;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::unimplemented("no credentials are configured: there is nothing to log in to"))
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let caller = self.caller(&request)?;
        let prefix = String::from_utf8(request.into_inner().expression.to_vec())
            .map_err(|_| Status::invalid_argument("criteria: expected a prefix of names"))?;
        let this = self.clone();
        let infos = blocking(move || this.list(&caller, &prefix)).await?;
        Ok(Response::new(stream::iter(infos.into_iter().map(Ok)).boxed()))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = self.caller(&request)?;
        let descriptor = request.into_inner();
        let command = ScanCommand::of_descriptor(&descriptor)?;
        let this = self.clone();
        Ok(Response::new(blocking(move || this.info(&caller, command, descriptor)).await?))
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let info = self.get_flight_info(request).await?.into_inner();
        Ok(Response::new(PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = self.caller(&request)?;
        let command = ScanCommand::of_descriptor(request.get_ref())?;
        let this = self.clone();
        let schema = blocking(move || this.schema(&caller, &command)).await?;
        Ok(Response::new(schema_result(&schema)?))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let caller = self.caller(&request)?;
        let command = ScanTicket::open(&request.get_ref().ticket, &self.signer)?.scan;
        command.check()?;
        let this = self.clone();
        if let Some(name) = command.live.clone() {
            caller.check_read(&live::right(&name))?;
            let (batches, schema) = blocking(move || {
                let map = live::attach(&this.store, &name)?;
                let (offset, limit) = (command.offset.unwrap_or(0), command.limit);
                live::LiveBatches::new(&map, command.columns.as_deref(), offset, limit)
            })
            .await?;
            return Ok(response(counted(&caller, scan::stream(&schema, batches)?)));
        }
        let by = caller.clone();
        let (schema, batches) = blocking(move || {
            let selection = this.select(&caller, &command)?;
            Ok((selection.schema(), selection.batches()?))
        })
        .await?;
        Ok(response(counted(&by, scan::stream(&schema, batches)?)))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.caller(&request)?;
        let mut rest = request.into_inner();
        let first = rest.message().await?.ok_or_else(|| Status::invalid_argument("the stream has no message"))?;
        self.put(caller, first, rest).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        let caller = self.caller(&request)?;
        caller.record().action("lookup");
        exchange::lookup(caller, self.store.clone(), request.into_inner(), self.lookups, self.drain.clone()).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = self.caller(&request)?;
        let (store, sql, action) = (self.store.clone(), self.sql, request.into_inner());
        let Some(known) = action::known(&action.r#type) else {
            let problem = format!("there is no action {:?}: see ListActions", action.r#type);
            return Err(Status::invalid_argument(problem));
        };
        caller.record().action(known);
        let results = if known == action::LIVE {
            let bytes_max = self.lookups.answer_bytes_max;
            vec![live_action::serve(caller, store, action.body, bytes_max, self.places()).await?.into()]
        } else {
            let memory_bytes = self.puts.write_memory_bytes_max;
            let place = if action::takes_long(known) { Some(self.places().action()?) } else { None };
            blocking(move || {
                let _place = place;
                action::run(&caller, &store, sql, memory_bytes, &action)
            })
            .await?
        };
        Ok(Response::new(stream::iter(results.into_iter().map(|body| Ok(arrow_flight::Result { body }))).boxed()))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.caller(&request)?;
        Ok(Response::new(stream::iter(action::list().into_iter().map(Ok)).boxed()))
    }
}
