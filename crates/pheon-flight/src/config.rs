//! What a server is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::limits::Limits;

/// A server's configuration.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The store, which must exist.
    pub store: PathBuf,
    /// Where to listen; port 0: any free one.
    pub listen: SocketAddr,
    /// Listen on a non-loopback address without TLS.
    pub insecure: bool,
    /// Refuse everything that would change the store.
    pub read_only: bool,
    /// Limits.
    pub limits: Limits,
}
