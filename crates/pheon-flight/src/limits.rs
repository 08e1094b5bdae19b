//! Limits of a server.

use std::time::Duration;

/// What a client may ask of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a message that comes in.
    pub message_bytes_max: usize,
    /// Streams of a connection at a time.
    pub streams_max: u32,
    /// How long a ticket is good.
    pub ticket_age_max: Duration,
    /// How long calls may go on after the server was told to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            streams_max: 1024,
            ticket_age_max: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
