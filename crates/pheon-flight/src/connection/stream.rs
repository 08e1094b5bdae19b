//! The bytes of one connection.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::gather::Gather;
use super::link::{Link, Peer};
use super::table::Membership;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`: a connection that has sent less has said nothing yet.
pub(super) const HTTP2_PREFACE_BYTES: usize = 24;

enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that has shaken hands. Ends with an error when it breaks a deadline or makes room for another one.
pub struct Connection {
    bytes: Bytes,
    /// Bytes that have to come before the client has greeted.
    greeting_bytes_left: usize,
    write_blocked: bool,
    gather: Gather,
    link: Arc<Link>,
    /// Leaves the table of connections when it is dropped.
    _membership: Membership,
}

impl Connection {
    pub(super) fn plain(stream: TcpStream, link: Arc<Link>, membership: Membership, greeting_bytes: usize) -> Self {
        Self::new(Bytes::Plain(stream), link, membership, greeting_bytes)
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        link: Arc<Link>,
        membership: Membership,
        greeting_bytes: usize,
    ) -> Self {
        Self::new(Bytes::Tls(Box::new(stream)), link, membership, greeting_bytes)
    }

    fn new(bytes: Bytes, link: Arc<Link>, membership: Membership, greeting_bytes: usize) -> Self {
        Self {
            bytes,
            greeting_bytes_left: greeting_bytes,
            write_blocked: false,
            gather: Gather::default(),
            link,
            _membership: membership,
        }
    }

    /// The other end.
    pub fn peer(&self) -> Peer {
        Peer(self.link.clone())
    }

    fn write<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut (dyn AsyncWrite + Unpin)>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.link.has_ended() {
            return Poll::Ready(Err(ended()));
        }
        let result = match &mut self.bytes {
            Bytes::Plain(stream) => write(Pin::new(stream as &mut (dyn AsyncWrite + Unpin)), context),
            Bytes::Tls(stream) => write(Pin::new(stream.as_mut() as &mut (dyn AsyncWrite + Unpin)), context),
        };
        if result.is_pending() != self.write_blocked {
            self.write_blocked = result.is_pending();
            self.link.write_blocked(self.write_blocked);
        }
        if result.is_pending() && self.link.is_ended(context.waker()) {
            return Poll::Ready(Err(ended()));
        }
        result
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server has ended this connection")
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.link.has_ended() {
            return Poll::Ready(Err(ended()));
        }
        // Each run of the connection's task begins with a read. An error comes back with the next write.
        if self.gather.is_empty() {
            self.gather.release();
        } else if let Poll::Ready(Ok(())) = self.drain(context) {
            let _ = self.write(context, |stream, context| stream.poll_flush(context));
        }
        let before = buffer.filled().len();
        let result = match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Bytes::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        };
        if self.greeting_bytes_left > 0 {
            self.greeting_bytes_left = self.greeting_bytes_left.saturating_sub(buffer.filled().len() - before);
            if self.greeting_bytes_left == 0 {
                self.link.greeted();
            }
        }
        if result.is_pending() && self.link.is_ended(context.waker()) {
            return Poll::Ready(Err(ended()));
        }
        result
    }
}

impl Connection {
    /// Writes what was gathered.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gather.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut gather = std::mem::take(&mut self.gather);
        let drained = gather
            .poll_drain(|parts| self.write(context, |stream, context| stream.poll_write_vectored(context, parts)));
        self.gather = gather;
        drained
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        while self.gather.wants(total, slices.len()) {
            let Self { gather, link, .. } = &mut *self;
            if gather.take(slices, total, &link.lent) {
                return Poll::Ready(Ok(total));
            }
            ready!(self.drain(context))?;
        }
        self.write(context, |stream, context| stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.bytes {
            Bytes::Plain(stream) => stream.is_write_vectored(),
            Bytes::Tls(stream) => stream.is_write_vectored(),
        }
    }

    /// What was gathered waits while more of it is about to follow, but not longer than until the connection's task runs
    /// again, which this sees to: HTTP/2 flushes after each frame.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gather.may_wait() && !self.write_blocked {
            context.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.drain(context))?;
        self.write(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        self.write(context, |stream, context| stream.poll_shutdown(context))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.link.address).finish_non_exhaustive()
    }
}
