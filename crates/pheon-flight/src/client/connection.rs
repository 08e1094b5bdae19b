//! One connection: where it goes, TLS, credentials, deadlines.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Empty, HandshakeRequest};
use base64::Engine;
use bytes::Bytes;
use futures::TryStreamExt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::abort::{Abort, Abortable};
use super::error::ClientError;
use super::options::{ClientOptions, Credentials};

/// What calls are made with.
pub(super) type Stub = FlightServiceClient<Abortable>;

/// The port where `pheon serve` listens unless told otherwise.
const PORT: u16 = 8815;
/// The largest HTTP/2 frame that the server may send: each costs both ends a system call.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A peer that does not answer pings for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A connection that comes back by itself after it broke.
pub(super) struct Connection {
    pub(super) uri: String,
    pub(super) options: ClientOptions,
    channel: Channel,
    /// `authorization` of each call.
    authorization: RwLock<Option<MetadataValue<Ascii>>>,
}

/// Where a URI leads.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// As tonic writes it.
    endpoint: String,
    tls: bool,
}

impl Target {
    fn of(uri: &str) -> Result<Self, ClientError> {
        let problem = |problem: &str| ClientError::Options {
            problem: format!("the URI is {uri:?}: {problem}; expected for example grpc://host:{PORT}"),
        };
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| problem("it has no scheme"))?;
        let tls = match scheme {
            "grpc" | "grpc+tcp" | "http" => false,
            "grpc+tls" | "grpcs" | "https" => true,
            "grpc+unix" if rest.starts_with('/') => {
                return Ok(Self { endpoint: format!("unix://{rest}"), tls: false });
            }
            "grpc+unix" => return Err(problem("a socket's path is absolute")),
            _ => return Err(problem("its scheme is none of grpc, grpc+tls and grpc+unix")),
        };
        let host = rest.strip_suffix('/').unwrap_or(rest);
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return Err(problem("after the scheme it has a host and a port, and nothing else"));
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|c| c.is_ascii_digit()))
            && !(host.starts_with('[') && host.ends_with(']'));
        let port = if has_port { String::new() } else { format!(":{PORT}") };
        Ok(Self { endpoint: format!("{}://{host}{port}", if tls { "https" } else { "http" }), tls })
    }
}

impl Connection {
    /// Connects, and logs in where the options say so.
    pub(super) async fn open(uri: &str, options: ClientOptions) -> Result<Arc<Self>, ClientError> {
        const OPERATION: &str = "connect";
        let target = Target::of(uri)?;
        let authorization = match &options.credentials {
            Credentials::Token(token) => Some(bearer(token)?),
            _ => None,
        };
        let unusable =
            |e: tonic::transport::Error| ClientError::Options { problem: format!("the URI is {uri:?}: {}", cause(&e)) };
        let mut endpoint = Endpoint::from_shared(target.endpoint)
            .map_err(unusable)?
            .user_agent(concat!("pheon/", env!("CARGO_PKG_VERSION")))
            .map_err(unusable)?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEP_ALIVE))
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .max_frame_size(FRAME_BYTES_MAX)
            .initial_stream_window_size(options.window_bytes)
            .initial_connection_window_size(options.window_bytes.saturating_mul(4).min(i32::MAX.cast_unsigned()));
        if target.tls {
            endpoint = endpoint.tls_config(tls(&options)).map_err(|e| ClientError::Options {
                problem: format!("the certificates cannot be used: {}", cause(&e)),
            })?;
        } else if options.roots_pem.is_some() || options.identity_pem.is_some() {
            return Err(ClientError::Options {
                problem: format!("certificates are for grpc+tls://, and the URI is {uri:?}"),
            });
        }
        let timeout = options.connect_timeout;
        let channel = match tokio::time::timeout(timeout, endpoint.connect()).await {
            Ok(channel) => channel.map_err(|e| ClientError::Connection {
                operation: OPERATION,
                uri: uri.to_owned(),
                source: Arc::new(e),
            })?,
            Err(_) => {
                let (operation, uri) = (OPERATION, uri.to_owned());
                return Err(ClientError::Deadline { operation, uri, timeout: Some(timeout) });
            }
        };
        let authorization = RwLock::new(authorization);
        let connection = Arc::new(Self { uri: uri.to_owned(), options, channel, authorization });
        connection.login().await?;
        Ok(connection)
    }

    /// A fresh stub; cheap.
    pub(super) fn stub(&self) -> Stub {
        FlightServiceClient::new(Abortable(self.channel.clone()))
            .max_decoding_message_size(self.options.message_bytes_max)
    }

    /// A request with credentials.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let authorization = self.authorization.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = authorization.as_ref() {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }

    /// A request with credentials whose body the switch makes fail.
    pub(super) fn abortable<T>(&self, message: T, abort: &Abort) -> Request<T> {
        let mut request = self.request(message);
        request.extensions_mut().insert(abort.clone());
        request
    }

    /// A request with credentials, and the deadline for the server to know.
    pub(super) fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = self.request(message);
        if let Some(timeout) = self.options.timeout {
            request.set_timeout(timeout);
        }
        request
    }

    /// Waits at most as long as the options say.
    pub(super) async fn within<T>(
        &self,
        operation: &'static str,
        future: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ClientError> {
        let done = match self.options.timeout {
            None => future.await,
            Some(timeout) => match tokio::time::timeout(timeout, future).await {
                Ok(done) => done,
                Err(_) => {
                    return Err(ClientError::Deadline { operation, uri: self.uri.clone(), timeout: Some(timeout) });
                }
            },
        };
        done.map_err(|status| ClientError::from_status(operation, &self.uri, &status))
    }

    /// Makes a call. It is made again, once, when the login had expired, or, if `again` allows it, when the connection broke.
    pub(super) async fn call<T, F>(
        &self,
        operation: &'static str,
        again: bool,
        attempt: impl Fn(Stub) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let done = self.within(operation, attempt(self.stub())).await;
        match done {
            Err(ClientError::Connection { .. }) if again => self.within(operation, attempt(self.stub())).await,
            Err(ClientError::Refused { reason: super::Refusal::Unauthenticated, .. })
                if matches!(self.options.credentials, Credentials::Login { .. }) =>
            {
                self.login().await?;
                self.within(operation, attempt(self.stub())).await
            }
            done => done,
        }
    }

    /// Makes sure that the login is good, by a call that costs little: rows cannot be sent twice. Nothing without a login.
    pub(super) async fn renew_login(&self, operation: &'static str) -> Result<(), ClientError> {
        if !matches!(self.options.credentials, Credentials::Login { .. }) {
            return Ok(());
        }
        let attempt = |mut stub: Stub| {
            let request = self.timed(Empty {});
            async move { stub.list_actions(request).await.map(drop) }
        };
        self.call(operation, true, attempt).await
    }

    /// Exchanges user and password for a token.
    async fn login(&self) -> Result<(), ClientError> {
        const OPERATION: &str = "log in";
        let Credentials::Login { user, password } = &self.options.credentials else { return Ok(()) };
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let basic: MetadataValue<Ascii> = format!("Basic {basic}")
            .parse()
            .map_err(|_| ClientError::Options { problem: "user and password do not fit in a header".into() })?;
        let shake = async {
            let message = HandshakeRequest { protocol_version: 0, payload: Bytes::new() };
            let mut request = Request::new(futures::stream::iter([message]));
            request.metadata_mut().insert("authorization", basic);
            let response = self.stub().handshake(request).await?;
            let header = response.metadata().get("authorization").cloned();
            let payload = response.into_inner().try_next().await?.map(|answer| answer.payload);
            Ok((header, payload))
        };
        let (header, payload) = self.within(OPERATION, shake).await?;
        // Some servers answer with a header, some with the payload, Pheon with both.
        let value = match (header, payload) {
            (Some(header), _) => header,
            (None, Some(payload)) if !payload.is_empty() => {
                let token = std::str::from_utf8(&payload).map_err(|e| protocol(OPERATION, e))?;
                bearer(token)?
            }
            _ => return Err(protocol(OPERATION, "the answer has no token")),
        };
        *self.authorization.write().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }
}

/// An answer that is not what the contract says.
pub(super) fn protocol(operation: &'static str, problem: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol { operation, problem: problem.to_string() }
}

/// A status for what this side finds wrong in the middle of a call.
pub(super) fn empty(operation: &'static str) -> Status {
    Status::new(Code::DataLoss, format!("{operation}: the server sent no answer"))
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, ClientError> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| ClientError::Options { problem: "the token has characters that no header may have".into() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(options: &ClientOptions) -> ClientTlsConfig {
    let mut config = ClientTlsConfig::new();
    if let Some(pem) = &options.roots_pem {
        config = config.ca_certificate(Certificate::from_pem(pem));
    }
    if let Some((certificate, key)) = &options.identity_pem {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &options.server_name {
        config = config.domain_name(name);
    }
    config
}

/// The innermost cause: those around it say "transport error".
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(next) = error.source() {
        error = next;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        for (uri, endpoint, tls) in [
            ("grpc://host", "http://host:8815", false),
            ("grpc://host:1/", "http://host:1", false),
            ("grpc+tcp://127.0.0.1:1", "http://127.0.0.1:1", false),
            ("grpc://[::1]", "http://[::1]:8815", false),
            ("grpc://[::1]:2", "http://[::1]:2", false),
            ("grpc+tls://host:1", "https://host:1", true),
            ("grpc+unix:///run/pheon", "unix:///run/pheon", false),
        ] {
            assert_eq!(Target::of(uri).unwrap(), Target { endpoint: endpoint.into(), tls }, "{uri}");
        }
        for uri in ["host:1", "grpc://", "grpc://a/b", "ftp://host", "grpc+unix://relative", "grpc://user@host"] {
            assert!(matches!(Target::of(uri), Err(ClientError::Options { .. })), "{uri}");
        }
    }
}
