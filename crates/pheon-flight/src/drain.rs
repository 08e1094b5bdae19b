//! How streams that may stay open for ever learn that the server stops.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{BoxFuture, MapOk, TryFutureExt as _};
use http_body::{Body, Frame};
use tokio::sync::watch;
use tonic::Status;
use tower::{Layer, Service};

/// Begins the end: whoever waits for it is told.
#[derive(Debug)]
pub(crate) struct DrainStart(watch::Sender<bool>);

impl DrainStart {
    pub(crate) fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Drain(Some(receiver)))
    }

    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }
}

/// Whether the server has been told to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Drain(Option<watch::Receiver<bool>>);

impl Drain {
    /// Of a server that is never told.
    pub fn never() -> Self {
        Self(None)
    }

    /// Waits until it has been told.
    pub(crate) async fn begun(self) {
        if let Some(mut receiver) = self.0
            && receiver.wait_for(|begun| *begun).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Makes [`EndAtDrain`]s.
#[derive(Clone, Debug)]
pub(crate) struct DrainLayer(pub(crate) Drain);

impl<S> Layer<S> for DrainLayer {
    type Service = EndAtDrain<S>;

    fn layer(&self, inner: S) -> EndAtDrain<S> {
        EndAtDrain { inner, drain: self.0.clone() }
    }
}

/// Ends streams that may stay open for ever, and have nothing more to say, when the server stops.
#[derive(Clone, Debug)]
pub(crate) struct EndAtDrain<S> {
    inner: S,
    drain: Drain,
}

impl<S: tonic::server::NamedService> tonic::server::NamedService for EndAtDrain<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, R> Service<http::Request<R>> for EndAtDrain<S>
where
    S: Service<http::Request<R>, Response = http::Response<tonic::body::Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MapOk<S::Future, Wrap>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<R>) -> Self::Future {
        let drain = self.drain.clone();
        self.inner.call(request).map_ok(Box::new(move |response| {
            response.map(|inner| {
                tonic::body::Body::new(DrainedBody { inner, drain: Box::pin(drain.begun()), ended: false })
            })
        }))
    }
}

type Wrap = Box<dyn FnOnce(http::Response<tonic::body::Body>) -> http::Response<tonic::body::Body> + Send>;

struct DrainedBody {
    inner: tonic::body::Body,
    drain: BoxFuture<'static, ()>,
    ended: bool,
}

impl Body for DrainedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if frame.is_ready() || self.drain.as_mut().poll(cx).is_pending() {
            return frame;
        }
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        let status = Status::unavailable("the server stops");
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}
