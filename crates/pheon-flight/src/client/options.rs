//! How a client connects.

use std::time::Duration;

/// Who the client says it is.
#[derive(Clone, Default)]
pub(super) enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A bearer token.
    Token(String),
    /// Exchanged for a bearer token when the client connects, and again when that has expired.
    Login { user: String, password: String },
}

/// How a [`Client`](super::Client) connects. What is not set has a default that suits a fast network.
#[derive(Clone)]
pub struct ClientOptions {
    pub(super) credentials: Credentials,
    pub(super) roots_pem: Option<Vec<u8>>,
    pub(super) identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) server_name: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) message_bytes_max: usize,
    pub(super) window_bytes: u32,
    pub(super) answer_bytes: usize,
    pub(super) batches_in_flight: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::None,
            roots_pem: None,
            identity_pem: None,
            server_name: None,
            timeout: None,
            connect_timeout: Duration::from_secs(10),
            message_bytes_max: 256 << 20,
            window_bytes: 8 << 20,
            answer_bytes: 1 << 20,
            batches_in_flight: 4,
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let credentials = match &self.credentials {
            Credentials::None => "none".to_owned(),
            Credentials::Token(_) => "a token".to_owned(),
            Credentials::Login { user, .. } => format!("user {user:?}"),
        };
        f.debug_struct("ClientOptions")
            .field("credentials", &credentials)
            .field("roots", &self.roots_pem.is_some())
            .field("client_certificate", &self.identity_pem.is_some())
            .field("server_name", &self.server_name)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("window_bytes", &self.window_bytes)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Sends this bearer token with each call.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credentials = Credentials::Token(token.into());
        self
    }

    /// Exchanges user and password for a bearer token.
    #[must_use]
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Credentials::Login { user: user.into(), password: password.into() };
        self
    }

    /// The certificates, in PEM, that a server's must come from. Without them no TLS server is trusted.
    #[must_use]
    pub fn tls_roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots_pem = Some(pem.into());
        self
    }

    /// The client's own certificate and key, in PEM, for servers that ask for one.
    #[must_use]
    pub fn tls_identity(mut self, certificate_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.identity_pem = Some((certificate_pem.into(), key_pem.into()));
        self
    }

    /// The name that the server's certificate must have. Default: the host of the URI.
    #[must_use]
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// How long a call may take, and how long a stream may stand still. Default: for ever, as long as the peer answers pings.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long connecting may take. Default: 10 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The largest message that is taken. Default: 256 MiB.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// How much of a stream the server may send ahead; of all streams of a connection four times as much. Default: 8 MiB.
    #[must_use]
    pub fn window_bytes(mut self, bytes: u32) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// How large the answers of lookups are meant to be: batches of keys are cut accordingly. Default: 1 MiB.
    #[must_use]
    pub fn answer_bytes(mut self, bytes: usize) -> Self {
        self.answer_bytes = bytes.max(1);
        self
    }

    /// How many batches of keys of one lookup are under way at once. Default: 4.
    #[must_use]
    pub fn batches_in_flight(mut self, batches: usize) -> Self {
        self.batches_in_flight = batches.max(1);
        self
    }
}
