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

/// Its client may leave an exchange open for as long as it likes: it asks when it has something to ask.
const OPEN_ENDED: &str = "/arrow.flight.protocol.FlightService/DoExchange";

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
        let request = match &call {
            Some(call) if request.uri().path() != OPEN_ENDED => {
                let (link, waits) = (call.link.clone(), call.waits.clone());
                request.map(|body| tonic::body::Body::new(RequestBody { inner: body, link, waits }))
            }
            _ => request,
        };
        self.inner.call(request).map_ok(track(call))
    }
}

type Track<R> = Box<dyn FnOnce(Response<R>) -> Response<TrackedBody<R>> + Send>;

fn track<R>(call: Option<Call>) -> Track<R> {
    Box::new(move |response| response.map(|inner| TrackedBody { inner, call }))
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
struct RequestBody {
    inner: tonic::body::Body,
    link: Arc<Link>,
    waits: Arc<CallWaits>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        set(&self.waits.to_send_ms, &self.link, frame.is_pending());
        frame
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
        set(&self.waits.to_send_ms, &self.link, false);
    }
}
