//! Connections: how many, how slow, for how long.
//!
//! [`Acceptor`] takes connections from a listener, shakes hands with each in a task of its own, and hands out those that
//! are ready, as a stream for tonic's `serve_with_incoming_shutdown`. [`Connections`] knows all that are open; a sweep ends
//! those that break a deadline, and one that nobody will miss makes room when all are taken. [`CallLayer`] tells it which
//! connections have calls and which calls wait for their client.

mod acceptor;
mod call;
mod gather;
mod link;
mod stream;
mod table;
mod tls;

pub use acceptor::{Acceptor, Protocol};
pub(crate) use call::track_page;
pub use call::{CallLayer, CallService, TrackedBody};
pub use link::Peer;
pub use stream::Connection;
pub use table::Connections;
pub use tls::{ClientCertificates, Tls, TlsError, TlsFiles};

use crate::limits::Limits;

/// Sets what HTTP/2 itself can enforce: streams, sizes of headers and frames, floods of resets, silent clients.
#[must_use]
pub fn limit_http2<L>(server: tonic::transport::Server<L>, limits: &Limits) -> tonic::transport::Server<L> {
    server
        .max_concurrent_streams(limits.streams_max)
        .http2_max_header_list_size(limits.metadata_bytes_max)
        .http2_max_pending_accept_reset_streams(Some(limits.resets_max))
        .http2_max_local_error_reset_streams(Some(limits.resets_max))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
}
