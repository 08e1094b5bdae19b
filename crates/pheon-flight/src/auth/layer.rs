//! The tower layer that stands before every service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use tower::{Layer, Service};

use super::authenticator::Authenticator;
use super::principal::Principal;
use crate::audit;
use crate::connection::Peer;
use crate::record::CallRecord;

/// Exchanges credentials for a token, so it needs none.
pub const HANDSHAKE_PATH: &str = "/arrow.flight.protocol.FlightService/Handshake";
/// Load balancers have no credentials, and it tells only whether the server serves.
const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// Makes [`AuthService`]s.
#[derive(Clone)]
pub struct AuthLayer {
    authenticator: Arc<Authenticator>,
}

impl AuthLayer {
    pub(super) fn new(authenticator: Arc<Authenticator>) -> Self {
        Self { authenticator }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService { authenticator: self.authenticator.clone(), inner }
    }
}

/// Puts a [`Principal`] into the extensions of a request, or answers `UNAUTHENTICATED`. Only the handshake and
/// `grpc.health.v1` pass without credentials, as [`Principal::nobody`]; reflection needs them like everything else.
#[derive(Clone)]
pub struct AuthService<S> {
    authenticator: Arc<Authenticator>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for AuthService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<R>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let principal = if path == HANDSHAKE_PATH || path.starts_with(HEALTH_PREFIX) {
            Principal::nobody()
        } else {
            let peer = request.extensions().get::<Peer>();
            match self.authenticator.authenticate(request.headers(), peer.and_then(Peer::certificate)) {
                Ok(principal) => {
                    if let Some(peer) = peer {
                        peer.trust();
                    }
                    principal
                }
                Err(status) => {
                    audit::refused(peer.map(Peer::address), path, status.message());
                    return Either::Right(ready(Ok(status.into_http())));
                }
            }
        };
        if path != HANDSHAKE_PATH {
            CallRecord::of(request.extensions()).principal(principal.name());
        }
        request.extensions_mut().insert(principal);
        Either::Left(self.inner.call(request))
    }
}

impl fmt::Debug for AuthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthLayer(..)")
    }
}

impl<S> fmt::Debug for AuthService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthService(..)")
    }
}
