//! What Flight SQL needs to know of a request: who asks, and which handles are the server's own.

use std::sync::Arc;

use pheon_sql::Access;
use tonic::{Extensions, Status};

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The name, for handles: nobody uses another one's.
    pub name: String,
    /// Rights.
    pub access: Arc<dyn Access>,
}

/// Callers and signatures, which the server around this module knows.
pub trait Gate: Send + Sync + 'static {
    /// Who sent a request.
    fn caller(&self, request: &Extensions) -> Result<Caller, Status>;
    /// A payload with a signature that only this server makes.
    fn sign(&self, payload: &[u8]) -> Vec<u8>;
    /// The payload, if the signature is the server's.
    fn open(&self, signed: &[u8]) -> Option<Vec<u8>>;
}
