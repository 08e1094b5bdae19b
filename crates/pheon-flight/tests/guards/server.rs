//! A small server behind the real guards, and certificates for it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::{self, BoxStream, StreamExt as _};
use pheon_flight::auth::{Authenticator, Credentials, Principal, Secret, Signer};
use pheon_flight::connection::{Acceptor, CallLayer, Connections, Protocol, Tls, TlsFiles, serve};
use pheon_flight::limits::Limits;
use pheon_flight::metrics::Metrics;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status, Streaming};
use tower::Layer as _;

/// Nothing here takes so long, on any machine.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Metrics,
    pub(crate) connections: Connections,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(credentials: Option<Credentials>, tls: Option<&TlsFiles>, limits: Limits) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new();
        let connections = Connections::new(&limits, metrics.clone());
        let tls = tls.map(|files| Arc::new(Tls::load(files).unwrap()));
        let acceptor = Acceptor::new(listener, tls, Protocol::Http2, &limits, connections.clone());
        let signer = Signer::generate().unwrap();
        let authenticator = Arc::new(Authenticator::new(credentials, signer, limits.token_age_max));
        let service = Probe { authenticator: authenticator.clone() };
        let service = FlightServiceServer::new(service).max_decoding_message_size(limits.message_bytes_max);
        let (_, health) = tonic_health::server::health_reporter();
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = tonic::service::Routes::new(health).add_service(service).prepare();
        let service = (CallLayer, authenticator.layer()).layer(routes);
        let task = tokio::spawn(async move {
            serve(acceptor, &limits, service, async { drop(stopped.await) }).await;
        });
        Self { address, metrics, connections, stop: Some(stop), task }
    }

    /// Stops it and waits until every connection is gone.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.connections.end_all();
        tokio::time::timeout(WATCHDOG, &mut self.task).await.expect("the server stops").unwrap();
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.endpoint("http").connect().await.unwrap()
    }

    pub(crate) fn endpoint(&self, scheme: &str) -> Endpoint {
        Endpoint::from_shared(format!("{scheme}://localhost:{}", self.address.port())).unwrap()
    }

    /// Waits until the metrics have a line.
    pub(crate) async fn expect_metric(&self, line: &str) {
        self.until_metrics(line, |l| l == line).await;
    }

    /// Waits until something has happened at least once, by the name of its metric and its labels.
    pub(crate) async fn expect_some(&self, name: &str) {
        let counted = |l: &str| l.strip_prefix(name).and_then(|count| count.trim().parse::<f64>().ok());
        self.until_metrics(name, |l| counted(l).is_some_and(|count| count >= 1.0)).await;
    }

    async fn until_metrics(&self, what: &str, is_it: impl Fn(&str) -> bool) {
        let found = async {
            while !self.metrics.render().lines().any(&is_it) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(WATCHDOG, found).await;
        assert!(in_time.is_ok(), "no {what} in\n{}", self.metrics.render());
    }
}

/// Answers ListFlights with the caller's name, DoGet with data that never ends, DoPut with the sizes of what came.
struct Probe {
    authenticator: Arc<Authenticator>,
}

#[tonic::async_trait]
impl FlightService for Probe {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        let payload = request.into_inner().message().await?.unwrap_or_default().payload;
        let (_, token) = self.authenticator.login(&headers, &payload)?;
        let answer = HandshakeResponse { payload: token.clone().into_bytes().into(), ..HandshakeResponse::default() };
        let mut response = Response::new(stream::iter([Ok(answer)]).boxed());
        response.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        Ok(response)
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let principal = request.extensions().get::<Principal>().expect("the layer has put it there");
        let info = FlightInfo { app_metadata: principal.name().to_owned().into(), ..FlightInfo::default() };
        Ok(Response::new(stream::iter([Ok(info)]).boxed()))
    }

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let data = FlightData { data_body: vec![7; 1 << 20].into(), ..FlightData::default() };
        Ok(Response::new(stream::repeat_with(move || Ok(data.clone())).boxed()))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let sizes = request
            .into_inner()
            .map(|data| data.map(|d| PutResult { app_metadata: d.data_body.len().to_string().into() }));
        Ok(Response::new(sizes.boxed()))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Ok(Response::new(request.into_inner().boxed()))
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A CA, a server's certificate, and client certificates.
pub(crate) struct Certificates {
    pub(crate) folder: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a CA of this test");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let made = Self { folder: tempfile::tempdir().unwrap(), ca };
        let (certificate, key) = made.signed("localhost");
        made.write("server.pem", &certificate, 0o644);
        made.write("server.key", &key, 0o600);
        made.write("ca.pem", &made.ca.pem(), 0o644);
        made
    }

    pub(crate) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca: None,
            client_certificates: Default::default(),
        }
    }

    pub(crate) fn files_of_mutual_tls(&self) -> TlsFiles {
        TlsFiles { client_ca: Some(self.path("ca.pem")), ..self.files() }
    }

    /// Certificate and key, PEM.
    pub(crate) fn signed(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.ca).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn client(&self, name: Option<&str>) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca.pem()));
        match name.map(|name| self.signed(name)) {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        write(&self.path(name), text, mode)
    }
}

#[expect(clippy::disallowed_methods, reason = "a file of this test")]
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> PathBuf {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.to_owned()
}

/// An entry of a token file, and its secret.
pub(crate) fn token(name: &str) -> (String, Secret) {
    let secret = Secret::generate().unwrap();
    let read = ["*".to_owned()];
    (Credentials::entry(name, secret.hash(), None, [&read, &[], &[]]).unwrap(), secret)
}
