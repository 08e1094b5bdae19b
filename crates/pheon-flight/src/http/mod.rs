//! The web page, `/metrics`, `/healthz` and `/readyz`, on a listener of their own.
//!
//! Requests carry the same bearer tokens as Flight calls and have the same rights. There are no cookies, so no other page
//! can act for who has this one open. A request for a host name that is neither an address nor `localhost` is refused
//! where TLS does not prove the name: other pages cannot rebind a name of theirs to this server.

mod api;
mod rows;
#[cfg(feature = "sql")]
mod sql;
mod verdicts;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tonic::Code;
use tower::ServiceExt as _;

use crate::auth::{Authenticator, Principal};
use crate::connection::{Acceptor, Peer, track_page};
use crate::drain::Drain;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::queries::QueryLog;
use crate::record::{CallRecord, RunningCall};

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");
const BODY_BYTES_MAX: usize = 64 << 10;

/// Nothing from elsewhere, nothing inline, no frames, no forms that send anywhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page shows.
#[derive(Clone, Debug)]
pub struct Page {
    /// The store.
    pub store: pheon::Store,
    /// Who may see what.
    pub authenticator: Arc<Authenticator>,
    /// For `/metrics`.
    pub metrics: Metrics,
    /// Queries that are running, and slow ones.
    pub queries: QueryLog,
    /// For the box for SQL.
    #[cfg(feature = "sql")]
    pub sql: crate::sql::SqlService,
    /// Of times.
    pub limits: Limits,
    /// Where Flight listens, as clients would write it: `grpc://host:port`.
    pub location: String,
    /// Whether the server takes calls: `/readyz`.
    pub ready: Arc<AtomicBool>,
    /// Whether the listener speaks TLS.
    pub tls: bool,
}

impl Page {
    /// Serves the connections of a listener (`Protocol::Http1`) until `stop` begins, and then what was asked before.
    pub async fn serve(self, acceptor: Acceptor, stop: Drain) {
        let timeout = self.limits.handshake_timeout;
        let router = self.router();
        let mut incoming = acceptor.incoming();
        let mut stopping = Box::pin(stop.clone().begun());
        let mut connections = JoinSet::new();
        loop {
            let connection = tokio::select! {
                () = &mut stopping => break,
                Some(_) = connections.join_next() => continue,
                next = incoming.next() => match next {
                    Some(Ok(connection)) => connection,
                    _ => break,
                },
            };
            let peer = connection.peer();
            let service = router.clone().map_request(move |request: hyper::Request<hyper::body::Incoming>| {
                let mut request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(peer.clone());
                request
            });
            let stop = stop.clone();
            connections.spawn(async move {
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(timeout).max_headers(64);
                let served = server.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
                let mut served = std::pin::pin!(served);
                let done = tokio::select! {
                    done = served.as_mut() => done,
                    () = stop.begun() => {
                        served.as_mut().graceful_shutdown();
                        served.await
                    }
                };
                if let Err(e) = done {
                    tracing::debug!(target: "pheon::http", error = %e, "connection");
                }
            });
        }
        drop(incoming);
        while connections.join_next().await.is_some() {}
    }

    fn router(self) -> Router {
        let state = Arc::new(self);
        Router::new()
            .route("/", get(|| asset("text/html; charset=utf-8", PAGE)))
            .route("/page.js", get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
            .route("/page.css", get(|| asset("text/css; charset=utf-8", STYLE)))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .nest("/api", api::routes())
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(middleware::from_fn_with_state(state.clone(), guard))
            .with_state(state)
    }
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

async fn readyz(State(page): State<Arc<Page>>) -> Response {
    if page.ready.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn metrics(State(page): State<Arc<Page>>, _caller: Caller) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], page.metrics.render()).into_response()
}

/// Refuses foreign host names, counts what the page asks, and sets the headers that every answer has.
async fn guard(State(page): State<Arc<Page>>, request: Request, next: Next) -> Result<Response, Infallible> {
    let peer = request.extensions().get::<Peer>().cloned();
    let answer = async { guarded(&page, request, next).await };
    Ok(track_page(peer.as_ref(), answer).await.map(axum::body::Body::new))
}

async fn guarded(page: &Page, mut request: Request, next: Next) -> Response {
    let mut response = if page.tls || is_our_host(request.headers()) {
        let call = request.uri().path().starts_with("/api/").then(|| {
            let peer = request.extensions().get::<Peer>().map(Peer::address);
            let call = RunningCall::of_page(&page.metrics, peer);
            request.extensions_mut().insert(call.record().clone());
            call
        });
        let response = next.run(request).await;
        if let Some(call) = call {
            call.end(code_of(response.status()));
        }
        response
    } else {
        (StatusCode::MISDIRECTED_REQUEST, "use an address or localhost as the host, or TLS\n").into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The status of gRPC that one of HTTP is counted as.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        200..=399 => Code::Ok,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Cancelled,
        413 => Code::ResourceExhausted,
        400..=499 => Code::InvalidArgument,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

fn is_our_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|h| h.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

/// Who sends a request; a request without good credentials is answered 401.
struct Caller {
    principal: Principal,
    record: CallRecord,
}

impl Caller {
    /// The request goes into the audit log. Those that the page sends by itself, every few seconds, do not.
    fn audited(&self, action: &'static str) {
        self.record.principal(self.principal.name());
        self.record.action(action);
    }
}

impl axum::extract::FromRequestParts<Arc<Page>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, page: &Arc<Page>) -> Result<Self, Response> {
        let peer = parts.extensions.get::<Peer>();
        match page.authenticator.authenticate(&parts.headers, peer.and_then(Peer::certificate)) {
            Ok(principal) => {
                if let Some(peer) = peer {
                    peer.trust();
                }
                Ok(Self { principal, record: CallRecord::of(&parts.extensions) })
            }
            Err(status) => {
                crate::audit::refused(peer.map(Peer::address), parts.uri.path(), status.message());
                Err(api::problem(StatusCode::UNAUTHORIZED, status.message()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let ours =
            |host: &str| is_our_host(&HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(host).unwrap())]));
        for host in ["127.0.0.1:8816", "localhost:8816", "localhost", "[::1]:8816", "192.0.2.1"] {
            assert!(ours(host), "{host}");
        }
        for host in ["evil.invalid", "evil.invalid:8816", "127.0.0.1.evil.invalid", "", "localhost.evil"] {
            assert!(!ours(host), "{host}");
        }
        assert!(!is_our_host(&HeaderMap::new()));
    }
}
