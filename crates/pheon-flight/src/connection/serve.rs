//! Serves gRPC on the connections of an acceptor: hyper's HTTP/2, with settings that tonic's own server does not have.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{Either, select};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use super::acceptor::Acceptor;
use super::in_place::{InPlace, InPlaceExecutor};
use super::stream::Connection;
use crate::limits::Limits;

/// Flow-control windows: what may be on its way to us before we have read it.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// The largest HTTP/2 frame that clients may send.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// What a stream may have handed over and its connection not yet sent. Less means more turns of both.
const SEND_BUFFER_BYTES: usize = 2 << 20;

/// hyper with what HTTP/2 itself can enforce: streams, sizes of headers and frames, floods of resets, silent clients.
fn http2(limits: &Limits) -> http2::Builder<InPlaceExecutor> {
    let mut server = http2::Builder::new(InPlaceExecutor);
    server
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.metadata_bytes_max)
        .max_pending_accept_reset_streams(limits.resets_max)
        .max_local_error_reset_streams(limits.resets_max)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    server
}

/// Serves connections until `shutdown` is ready; then takes no more, and ends when the calls on those that are open have
/// ended.
pub async fn serve<S, B>(acceptor: Acceptor, limits: &Limits, service: S, shutdown: impl Future<Output = ()>)
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let server = http2(limits);
    let (stop, stopped) = tokio::sync::watch::channel(());
    {
        let mut incoming = acceptor.incoming();
        let mut shutdown = pin!(shutdown);
        while let Either::Left((Some(Ok(connection)), _)) = select(incoming.next(), &mut shutdown).await {
            let (server, service, stopped) = (server.clone(), service.clone(), stopped.clone());
            tokio::spawn(InPlace::new(serve_connection(server, connection, service, stopped)));
        }
    }
    let _ = stop.send(());
    drop(stopped);
    stop.closed().await;
}

async fn serve_connection<S, B>(
    server: http2::Builder<InPlaceExecutor>,
    connection: Connection,
    service: S,
    mut stopped: tokio::sync::watch::Receiver<()>,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let peer = connection.peer();
    let service = service.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request
    });
    let mut serving = pin!(server.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service)));
    let done = match select(&mut serving, pin!(stopped.changed())).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(e) = done {
        tracing::debug!(target: "pheon::connection", error = %e, "connection");
    }
}
