//! How a response made of [`Message`]s reaches the client without a copy.
//!
//! The generated server only knows streams of `FlightData`, which prost writes out. [`response`] gives it such a stream and
//! leaves the messages themselves in the response's extensions, from where [`ZeroCopy`], a layer outside of the generated server,
//! takes them and puts a [`MessageBody`] in place of the body. Everything else about the call stays tonic's affair.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use arrow_flight::FlightData;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tonic::{Response, Status};
use tower::{Layer, Service};

use crate::body::MessageBody;
use crate::connection::{Loan, Peer};
use crate::encode::Message;

/// Messages of a response, in order.
type Messages = BoxStream<'static, Result<Message, Status>>;

/// Messages of a response, until somebody takes them.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<Messages>>>);

impl Slot {
    fn take(&self) -> Option<Messages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The stream that the generated server sees. It copies, where no [`ZeroCopy`] took the messages away.
struct Fallback {
    slot: Slot,
    messages: Option<Messages>,
}

impl Stream for Fallback {
    type Item = Result<FlightData, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.messages.is_none() {
            self.messages = self.slot.take();
        }
        match &mut self.messages {
            Some(messages) => {
                messages.poll_next_unpin(cx).map(|next| next.map(|next| next.map(Message::into_flight_data)))
            }
            None => Poll::Ready(None),
        }
    }
}

/// What `DoGet` and `DoExchange` of a Flight service return.
pub type FlightDataStream = BoxStream<'static, Result<FlightData, Status>>;

/// A response that streams these messages, without a copy behind a [`ZeroCopy`] layer.
pub fn response(messages: impl Stream<Item = Result<Message, Status>> + Send + 'static) -> Response<FlightDataStream> {
    let slot = Slot(Arc::new(Mutex::new(Some(messages.boxed()))));
    let mut response = Response::new(Fallback { slot: slot.clone(), messages: None }.boxed());
    response.extensions_mut().insert(slot);
    response
}

/// The layer that sends messages of [`response`] as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroCopyLayer;

impl<S> Layer<S> for ZeroCopyLayer {
    type Service = ZeroCopy<S>;

    fn layer(&self, inner: S) -> ZeroCopy<S> {
        ZeroCopy { inner }
    }
}

/// The service of [`ZeroCopyLayer`].
#[derive(Debug, Clone)]
pub struct ZeroCopy<S> {
    inner: S,
}

impl<S, R> Service<http::Request<R>> for ZeroCopy<S>
where
    S: Service<http::Request<R>, Response = http::Response<tonic::body::Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<R>) -> Self::Future {
        let peer = request.extensions().get::<Peer>().cloned();
        let call = self.inner.call(request);
        Box::pin(async move {
            let mut response = call.await?;
            if let Some(slot) = response.extensions_mut().remove::<Slot>()
                // tonic would have compressed the body.
                && !response.headers().contains_key("grpc-encoding")
                && let Some(messages) = slot.take()
            {
                return Ok(
                    response.map(|_| tonic::body::Body::new(MessageBody::new(messages, peer.as_ref().map(Loan::new))))
                );
            }
            Ok(response)
        })
    }
}

impl<S: tonic::server::NamedService> tonic::server::NamedService for ZeroCopy<S> {
    const NAME: &'static str = S::NAME;
}
