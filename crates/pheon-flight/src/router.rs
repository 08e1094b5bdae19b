//! Which service a call goes to: plain Flight or Flight SQL.

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::action;
use crate::command::is_json;
use crate::service::PlainService;
use crate::wire::FlightDataStream;

const NO_SQL: &str = "this server was built without SQL: use a server built with the feature \"sql\"";

/// Plain Flight where a descriptor, ticket or action is ours; else no SQL.
#[derive(Debug, Clone)]
pub struct FlightRouter {
    plain: PlainService,
}

impl FlightRouter {
    /// Routes to this service.
    pub fn new(plain: PlainService) -> Self {
        Self { plain }
    }
}

/// Whether a descriptor is Flight SQL's.
fn is_sql(descriptor: &FlightDescriptor) -> bool {
    descriptor.r#type() == DescriptorType::Cmd && !is_json(&descriptor.cmd)
}

fn check(descriptor: &FlightDescriptor) -> Result<(), Status> {
    if is_sql(descriptor) { Err(Status::unimplemented(NO_SQL)) } else { Ok(()) }
}

#[async_trait]
impl FlightService for FlightRouter {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = FlightDataStream;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = FlightDataStream;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.plain.handshake(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.plain.list_flights(request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        check(request.get_ref())?;
        self.plain.get_flight_info(request).await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        check(request.get_ref())?;
        self.plain.poll_flight_info(request).await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        check(request.get_ref())?;
        self.plain.get_schema(request).await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.plain.do_get(request).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = self.plain.caller(&request)?;
        let mut rest = request.into_inner();
        let first = rest.message().await?.ok_or_else(|| Status::invalid_argument("the stream has no message"))?;
        if let Some(descriptor) = &first.flight_descriptor {
            check(descriptor)?;
        }
        self.plain.put(caller, first, rest).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.plain.do_exchange(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        if !action::is_known(&request.get_ref().r#type) {
            let kind = &request.get_ref().r#type;
            return Err(Status::unimplemented(format!("there is no action {kind:?}; {NO_SQL}")));
        }
        self.plain.do_action(request).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.plain.list_actions(request).await
    }
}
