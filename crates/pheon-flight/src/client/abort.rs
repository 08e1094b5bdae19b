//! Ending a call without ending its stream of requests: a server takes the end of a stream for "that was all", so a client
//! that gives up must make the request's body fail instead, which resets the HTTP/2 stream.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tonic::transport::Channel;
use tower::Service;

/// Makes the body of one request fail. Clones are the same switch.
#[derive(Clone, Default)]
pub(super) struct Abort(Arc<Switch>);

#[derive(Default)]
struct Switch {
    thrown: AtomicBool,
    waker: AtomicWaker,
}

impl Abort {
    /// Resets the stream, if it has not ended.
    pub(super) fn throw(&self) {
        self.0.thrown.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// A channel whose requests can be aborted: with an [`Abort`] among their extensions.
#[derive(Clone)]
pub(super) struct Abortable(pub(super) Channel);

impl Service<http::Request<tonic::body::Body>> for Abortable {
    type Response = http::Response<tonic::body::Body>;
    type Error = tonic::transport::Error;
    type Future = tonic::transport::channel::ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        match request.extensions_mut().remove::<Abort>() {
            Some(abort) => self.0.call(request.map(|body| tonic::body::Body::new(AbortableBody { body, abort }))),
            None => self.0.call(request),
        }
    }
}

struct AbortableBody {
    body: tonic::body::Body,
    abort: Abort,
}

impl Body for AbortableBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.abort.0.waker.register(cx.waker());
        if self.abort.0.thrown.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(Status::cancelled("the client gave up"))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
