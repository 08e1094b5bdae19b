//! Which service a call goes to: plain Flight or Flight SQL.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use crate::action;
use crate::audit;
use crate::auth::{Authenticator, HANDSHAKE_PATH};
use crate::command::is_json;
use crate::connection::Peer;
use crate::record::CallRecord;
use crate::service::PlainService;
use crate::wire::FlightDataStream;

#[cfg(not(feature = "sql"))]
const NO_SQL: &str = "this server was built without SQL: use a server built with the feature \"sql\"";

/// Plain Flight where a descriptor, ticket or action is ours, else Flight SQL.
#[derive(Clone)]
pub struct FlightRouter {
    plain: PlainService,
    #[cfg(feature = "sql")]
    sql: SqlPart,
    authenticator: Arc<Authenticator>,
    handshake_timeout: Duration,
}

#[cfg(feature = "sql")]
#[derive(Clone)]
struct SqlPart {
    service: crate::sql::SqlService,
    message_bytes_max: usize,
}

impl FlightRouter {
    /// Routes to this service, and where the crate has it to Flight SQL.
    pub fn new(
        plain: PlainService,
        #[cfg(feature = "sql")] sql: crate::sql::SqlService,
        authenticator: Arc<Authenticator>,
        limits: &crate::Limits,
    ) -> Self {
        Self {
            plain,
            handshake_timeout: limits.handshake_timeout,
            #[cfg(feature = "sql")]
            sql: SqlPart { service: sql, message_bytes_max: limits.message_bytes_max },
            authenticator,
        }
    }
}

impl std::fmt::Debug for FlightRouter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlightRouter").field("plain", &self.plain).finish_non_exhaustive()
    }
}

/// Whether a descriptor is Flight SQL's.
fn is_sql(descriptor: &FlightDescriptor) -> bool {
    descriptor.r#type() == DescriptorType::Cmd && !is_json(&descriptor.cmd)
}

/// Whether a descriptor of Flight SQL announces the rows of a bulk ingest.
#[cfg(feature = "sql")]
fn is_ingest(descriptor: &FlightDescriptor) -> bool {
    use prost::Message as _;

    prost_types::Any::decode(&*descriptor.cmd).is_ok_and(|any| any.type_url.ends_with(".CommandStatementIngest"))
}

/// The stream as it was before its first message was taken from it.
#[cfg(feature = "sql")]
fn whole(first: FlightData, rest: Streaming<FlightData>, message_bytes_max: usize) -> Streaming<FlightData> {
    use prost::Message as _;
    use tonic::codec::Codec as _;

    let frame = |message: FlightData| {
        let mut bytes = vec![0];
        bytes.extend((message.encoded_len() as u32).to_be_bytes());
        bytes.extend(message.encode_to_vec());
        bytes::Bytes::from(bytes)
    };
    let frames = stream::iter([Ok(first)]).chain(rest).map(move |message| message.map(frame));
    let decoder = tonic_prost::ProstCodec::<FlightData, FlightData>::default().decoder();
    Streaming::new_request(decoder, axum::body::Body::from_stream(frames), None, Some(message_bytes_max))
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
        let record = CallRecord::of(request.extensions());
        let peer = request.extensions().get::<Peer>().map(Peer::address);
        let headers = request.metadata().clone().into_headers();
        // Who has shown no credentials does not keep a call open.
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(self.handshake_timeout, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the handshake took too long"))?;
        let payload = first?.unwrap_or_default().payload;
        let (name, token) = self.authenticator.login(&headers, &payload).inspect_err(|status| {
            audit::refused(peer, HANDSHAKE_PATH, status.message());
        })?;
        record.principal(&name);
        let answer = HandshakeResponse { payload: token.clone().into_bytes().into(), ..HandshakeResponse::default() };
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        let bearer = format!("Bearer {token}").parse().map_err(|_| Status::internal("a token that is no header"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.plain.list_flights(request).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        if !is_sql(request.get_ref()) {
            return self.plain.get_flight_info(request).await;
        }
        #[cfg(feature = "sql")]
        return FlightService::get_flight_info(&self.sql.service, request).await;
        #[cfg(not(feature = "sql"))]
        Err(Status::unimplemented(NO_SQL))
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        if !is_sql(request.get_ref()) {
            return self.plain.poll_flight_info(request).await;
        }
        let info = self.get_flight_info(request).await?;
        Ok(info.map(|info| PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        if !is_sql(request.get_ref()) {
            return self.plain.get_schema(request).await;
        }
        #[cfg(feature = "sql")]
        return self.sql.service.schema_of(request).await;
        #[cfg(not(feature = "sql"))]
        Err(Status::unimplemented(NO_SQL))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        if is_json(&request.get_ref().ticket) {
            return self.plain.do_get(request).await;
        }
        #[cfg(feature = "sql")]
        return FlightService::do_get(&self.sql.service, request).await;
        #[cfg(not(feature = "sql"))]
        Err(Status::unimplemented(NO_SQL))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let (metadata, extensions, mut rest) = request.into_parts();
        let first = rest.message().await?.ok_or_else(|| Status::invalid_argument("the stream has no message"))?;
        if !first.flight_descriptor.as_ref().is_some_and(is_sql) {
            let caller = self.plain.caller_of(&extensions)?;
            return self.plain.put(caller, first, rest).await;
        }
        #[cfg(feature = "sql")]
        {
            // Rows of a bulk ingest go to a writer, which keeps a thread.
            let is_ingest = first.flight_descriptor.as_ref().is_some_and(is_ingest);
            let _place = if is_ingest { Some(self.plain.places().writer()?) } else { None };
            let whole = whole(first, rest, self.sql.message_bytes_max);
            FlightService::do_put(&self.sql.service, Request::from_parts(metadata, extensions, whole)).await
        }
        #[cfg(not(feature = "sql"))]
        {
            drop(metadata);
            Err(Status::unimplemented(NO_SQL))
        }
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.plain.do_exchange(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let kind = &request.get_ref().r#type;
        // Scans are read as their client takes them; only statements can be cancelled.
        let is_plain = action::known(kind).is_some() && !(cfg!(feature = "sql") && kind == action::CANCEL);
        if is_plain {
            return self.plain.do_action(request).await;
        }
        #[cfg(feature = "sql")]
        return FlightService::do_action(&self.sql.service, request).await;
        #[cfg(not(feature = "sql"))]
        Err(Status::unimplemented(format!("there is no action {:?}; {NO_SQL}", request.get_ref().r#type)))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        #[cfg(feature = "sql")]
        {
            let of_sql = FlightService::list_actions(&self.sql.service, Request::new(Empty {})).await?.into_inner();
            let plain = self.plain.list_actions(request).await?.into_inner();
            let plain = plain.filter(|a| std::future::ready(!matches!(a, Ok(a) if a.r#type == action::CANCEL)));
            Ok(Response::new(plain.chain(of_sql).boxed()))
        }
        #[cfg(not(feature = "sql"))]
        self.plain.list_actions(request).await
    }
}
