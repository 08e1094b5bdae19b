//! Who did what: events of the target `pheon::audit`. Never a token, a secret or a row.

use std::net::SocketAddr;

use tracing::{info, warn};

/// A call that read, changed or administered a dataset has ended. `outcome` is `ok` or the name of a gRPC status.
pub fn record(principal: &str, action: &str, dataset: &str, rows: u64, bytes: u64, outcome: &str) {
    info!(target: "pheon::audit", principal, action, dataset, rows, bytes, outcome);
}

/// A request was refused because of its credentials, or because it had none.
pub fn refused(peer: Option<SocketAddr>, path: &str, reason: &str) {
    let peer = peer.map_or_else(|| "unknown".to_owned(), |p| p.to_string());
    warn!(target: "pheon::audit", peer, path, reason, outcome = "Unauthenticated");
}

/// Somebody has exchanged his secret for a bearer token.
pub fn login(peer: Option<SocketAddr>, principal: &str) {
    let peer = peer.map_or_else(|| "unknown".to_owned(), |p| p.to_string());
    info!(target: "pheon::audit", peer, principal, action = "login", outcome = "ok");
}
