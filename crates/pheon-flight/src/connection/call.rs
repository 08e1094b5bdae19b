//! Which connections have calls, and which calls wait for their client.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{MapOk, TryFutureExt as _};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower::{Layer, Service};

use super::link::{CallWaits, Link, Peer};
use crate::auth::HANDSHAKE_PATH;

/// Its client may leave an exchange open for as long as it likes: it asks when it has something to ask.
const OPEN_ENDED: &str = "/arrow.flight.protocol.FlightService/DoExchange";

/// Who exchanges credentials for a token has shown none: he needs no room.
const HANDSHAKE_BYTES_MAX: usize = 64 << 10;

fn too_long() -> tonic::Status {
    tonic::Status::resource_exhausted(format!("a handshake has at most {HANDSHAKE_BYTES_MAX} bytes"))
}

/// Makes [`CallService`]s. The outermost layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallLayer;

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner }
    }
}

/// Counts a connection's calls, and notes when one waits for its client.
#[derive(Clone, Debug)]
pub struct CallService<S> {
    inner: S,
}

impl<S, R> Service<Request<tonic::body::Body>> for CallService<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>>,
{
    type Response = Response<TrackedBody<R>>;
    type Error = S::Error;
    type Future = MapOk<S::Future, Track<R>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let call = request.extensions().get::<Peer>().map(|peer| Call::begin(peer.0.clone()));
        let path = request.uri().path();
        let waits = call.as_ref().filter(|_| path != OPEN_ENDED).map(|call| (call.link.clone(), call.waits.clone()));
        let left = if path == HANDSHAKE_PATH { HANDSHAKE_BYTES_MAX } else { usize::MAX };
        let request = request.map(|body| tonic::body::Body::new(RequestBody { inner: body, waits, left }));
        self.inner.call(request).map_ok(track(call))
    }
}

type Track<R> = Box<dyn FnOnce(Response<R>) -> Response<TrackedBody<R>> + Send>;

fn track<R>(call: Option<Call>) -> Track<R> {
    Box::new(move |response| response.map(|inner| TrackedBody { inner, call }))
}

/// Notes a request of the page, and what it is answered, among the calls of its connection.
pub(crate) async fn track_page<R>(
    peer: Option<&Peer>,
    answer: impl Future<Output = Response<R>>,
) -> Response<TrackedBody<R>> {
    let call = peer.map(|peer| Call::begin(peer.0.clone()));
    answer.await.map(|inner| TrackedBody { inner, call })
}

/// A call that is running; ends when this is dropped.
struct Call {
    link: Arc<Link>,
    id: u64,
    waits: Arc<CallWaits>,
}

impl Call {
    fn begin(link: Arc<Link>) -> Self {
        let (id, waits) = link.call_begins();
        Self { link, id, waits }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.link.call_ends(self.id);
    }
}

fn set(wait: &AtomicU64, link: &Link, waiting: bool) {
    if !waiting {
        wait.store(0, Ordering::Relaxed);
    } else if wait.load(Ordering::Relaxed) == 0 {
        wait.store(link.now_ms(), Ordering::Relaxed);
    }
}

/// What a service answers. From one frame to the request for the next it waits for the client.
pub struct TrackedBody<R> {
    inner: R,
    call: Option<Call>,
}

impl<R: Body + Unpin> Body for TrackedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Some(call) = &self.call {
            set(&call.waits.to_read_ms, &call.link, false);
            set(&call.waits.to_read_ms, &call.link, matches!(frame, Poll::Ready(Some(Ok(_)))));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<R: Default> Default for TrackedBody<R> {
    fn default() -> Self {
        Self { inner: R::default(), call: None }
    }
}

impl<R> fmt::Debug for TrackedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrackedBody(..)")
    }
}

/// What a client sends. While a service wants more and there is none, the call waits for the client.
///
/// It ends only where the client has ended it. tonic takes a request that was reset with CANCEL for one that has ended, and
/// hyper one that was reset with NO_ERROR: what came so far would be published.
struct RequestBody {
    inner: tonic::body::Body,
    waits: Option<(Arc<Link>, Arc<CallWaits>)>,
    /// Bytes that may still come.
    left: usize,
}

/// What the end of a request is that its client has not ended. Not `CANCELLED`, which tonic takes for an end.
pub(crate) fn cut_off() -> tonic::Status {
    tonic::Status::aborted("the client gave up: its stream was cut off")
}

impl RequestBody {
    fn waits(&self, waiting: bool) {
        if let Some((link, waits)) = &self.waits {
            set(&waits.to_send_ms, link, waiting);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        self.waits(frame.is_pending());
        match frame {
            Poll::Ready(None) if !self.inner.is_end_stream() => Poll::Ready(Some(Err(cut_off()))),
            Poll::Ready(Some(Err(status))) if status.code() == tonic::Code::Cancelled => {
                Poll::Ready(Some(Err(cut_off())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                match self.left.checked_sub(bytes) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(Some(Err(too_long()))),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.waits(false);
    }
}
