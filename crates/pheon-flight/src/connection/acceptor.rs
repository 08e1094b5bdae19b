//! From a listener to connections that have shaken hands.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::Stream;
use futures::future::{Either, select};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::link::Link;
use super::stream::{Connection, HTTP2_PREFACE_BYTES};
use super::table::{Connections, Membership};
use super::tls::Tls;
use crate::limits::Limits;

/// Connections that are ready and wait for their task.
const READY_MAX: usize = 64;
/// When the system has no room for another connection: how long until it is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What is spoken on a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Http2,
    /// The web page.
    Http1,
}

/// Takes connections from a listener. One that is slow to shake hands keeps nobody waiting.
pub struct Acceptor {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    protocol: Protocol,
    handshake_timeout: Duration,
    connections: Connections,
}

impl Acceptor {
    /// Of this listener, with or without TLS.
    pub fn new(
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        protocol: Protocol,
        limits: &Limits,
        connections: Connections,
    ) -> Self {
        Self { listener, tls, protocol, handshake_timeout: limits.handshake_timeout, connections }
    }

    /// The address of the listener.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The connections, as they get ready. Dropping the stream closes the listener; connections go on. Must be called
    /// within a tokio runtime.
    pub fn incoming(self) -> impl Stream<Item = Result<Connection, Infallible>> + Send + Unpin + 'static {
        let (sender, receiver) = mpsc::channel(READY_MAX);
        tokio::spawn(self.connections.sweep());
        tokio::spawn(self.accept(sender));
        ReceiverStream::new(receiver).map(Ok)
    }

    async fn accept(self, sender: mpsc::Sender<Connection>) {
        loop {
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address, &sender),
                Err(e) => {
                    // Out of files, mostly; a connection that was gone before it was taken is no reason to wait.
                    if !matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                        tracing::warn!(target: "pheon::connection", error = %e, "accept");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, sender: &mpsc::Sender<Connection>) {
        let Some((link, membership)) = self.connections.admit(address) else { return };
        // An answer must not wait for the acknowledgement of the one before it.
        let _ = stream.set_nodelay(true);
        let greeting_bytes = match self.protocol {
            Protocol::Http2 => HTTP2_PREFACE_BYTES,
            Protocol::Http1 => 1,
        };
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config(self.protocol)));
        let (sender, timeout) = (sender.clone(), self.handshake_timeout);
        tokio::spawn(async move {
            let Some(connection) = shake_hands(stream, acceptor, link, membership, greeting_bytes, timeout).await
            else {
                return;
            };
            let _ = sender.send(connection).await;
        });
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    link: Arc<Link>,
    membership: Membership,
    greeting_bytes: usize,
    timeout: Duration,
) -> Option<Connection> {
    let Some(acceptor) = acceptor else {
        link.ready(None);
        return Some(Connection::plain(stream, link, membership, greeting_bytes));
    };
    let handshake = std::pin::pin!(tokio::time::timeout(timeout, acceptor.accept(stream)));
    let ended = poll_fn(|context| if link.is_ended(context.waker()) { Poll::Ready(()) } else { Poll::Pending });
    match select(handshake, ended).await {
        Either::Left((Ok(Ok(stream)), _)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.to_vec());
            link.ready(certificate);
            Some(Connection::tls(stream, link, membership, greeting_bytes))
        }
        Either::Left((Ok(Err(e)), _)) => {
            tracing::debug!(target: "pheon::connection", peer = %link.address, error = %e, "TLS handshake");
            None
        }
        Either::Left((Err(_), _)) | Either::Right(_) => None,
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("listener", &self.listener)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
