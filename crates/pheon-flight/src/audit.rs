//! Who did what: events of the target `pheon::audit`. Never a token, a secret, a key or a row.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{info, warn};

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Who called.
    pub principal: &'a str,
    /// From where.
    pub peer: Option<SocketAddr>,
    /// Flight's method.
    pub method: &'a str,
    /// What it did, where the method alone does not say; or nothing.
    pub action: &'a str,
    /// The datasets that it was about, separated by commas; or nothing.
    pub dataset: &'a str,
    /// Rows that were sent, taken, looked up or changed.
    pub rows: u64,
    /// Bytes of Arrow data.
    pub bytes: u64,
    /// `ok`, `cancelled` or the name of a gRPC status.
    pub outcome: &'a str,
    /// From the request to the end of the stream.
    pub elapsed: Duration,
}

fn text(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unknown".to_owned(), |p| p.to_string())
}

/// A call has ended, one way or another.
pub fn ended(call: &Ended<'_>) {
    let Ended { principal, peer, method, action, dataset, rows, bytes, outcome, elapsed } = *call;
    let elapsed_us = elapsed.as_micros() as u64;
    info!(target: "pheon::audit", principal, peer = text(peer), method, action, dataset, rows, bytes, outcome, elapsed_us);
}

/// A request was refused because of its credentials, or because it had none.
pub fn refused(peer: Option<SocketAddr>, path: &str, reason: &str) {
    // The path is the client's: it must not fill the log.
    let path: String = path.chars().take(100).collect();
    warn!(target: "pheon::audit", peer = text(peer), path, reason, outcome = "unauthenticated");
}

/// Somebody has exchanged his secret for a bearer token, on the page.
pub fn login(peer: Option<SocketAddr>, principal: &str) {
    info!(target: "pheon::audit", principal, peer = text(peer), method = "login", outcome = "ok");
}
