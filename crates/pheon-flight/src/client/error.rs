//! What can go wrong for a client, split by what the caller can do next.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

/// The trailer in which the server names the error more exactly than the gRPC status does.
const DETAIL_HEADER: &str = "pheon-error";

/// A call to a server failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientError {
    /// The URI, or an option, cannot be used.
    Options {
        /// What does not fit.
        problem: String,
    },
    /// There is no connection, or it broke.
    Connection {
        /// What was being done.
        operation: &'static str,
        /// The server.
        uri: String,
        /// The cause.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The deadline passed.
    Deadline {
        /// What was being done.
        operation: &'static str,
        /// The server.
        uri: String,
        /// The client's own deadline; `None`: that of the call, which server and transport keep.
        timeout: Option<Duration>,
    },
    /// The caller's `interrupt` said so.
    Interrupted {
        /// What was being done.
        operation: &'static str,
    },
    /// The server refused.
    Refused {
        /// What was being done.
        operation: &'static str,
        /// Why.
        reason: Refusal,
        /// The server's name of the error, if it gives one, see docs/flight.md.
        detail: Option<String>,
        /// The server's message.
        message: String,
    },
    /// What the server sent is not what docs/flight.md says.
    Protocol {
        /// What was being done.
        operation: &'static str,
        /// What was expected and found.
        problem: String,
    },
}

/// Why a server refused a call: its gRPC status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No credentials, or wrong ones.
    Unauthenticated,
    /// This caller may not do that.
    Denied,
    /// No such dataset, version or live map.
    NotFound,
    /// A duplicate key.
    Exists,
    /// Malformed, or of the wrong type.
    Invalid,
    /// A read-only server.
    Precondition,
    /// A limit, or a full disk.
    Exhausted,
    /// A corrupt file.
    Corrupt,
    /// The server was built without it.
    Unimplemented,
    /// Another writer holds a lock, or the server is about to end: later it may work.
    Busy,
    /// The call was ended by the server.
    Aborted,
    /// Anything else.
    Internal,
}

impl Refusal {
    fn of(code: Code) -> Self {
        match code {
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::Denied,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Exists,
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid,
            Code::FailedPrecondition => Self::Precondition,
            Code::ResourceExhausted => Self::Exhausted,
            Code::DataLoss => Self::Corrupt,
            Code::Unimplemented => Self::Unimplemented,
            Code::Unavailable => Self::Busy,
            Code::Aborted | Code::Cancelled => Self::Aborted,
            _ => Self::Internal,
        }
    }
}

impl ClientError {
    /// The error that a status stands for.
    pub(super) fn from_status(operation: &'static str, uri: &str, status: &Status) -> Self {
        let detail = status.metadata().get(DETAIL_HEADER).and_then(|d| d.to_str().ok()).map(str::to_owned);
        match status.code() {
            // This side's transport keeps the deadline too, and may be the first to say so.
            _ if is_timeout(status) => return Self::Deadline { operation, uri: uri.to_owned(), timeout: None },
            Code::DeadlineExceeded => return Self::Deadline { operation, uri: uri.to_owned(), timeout: None },
            // A server's own refusals have no source; those that this side's transport made have.
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
                if std::error::Error::source(status).is_some() => {}
            code => {
                let message = status.message().to_owned();
                return Self::Refused { operation, reason: Refusal::of(code), detail, message };
            }
        }
        Self::Connection { operation, uri: uri.to_owned(), source: Arc::new(status.clone()) }
    }

    /// The server's name of the error, if it refused and gives one: docs/flight.md, Errors.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Refused { detail, .. } => detail.as_deref(),
            _ => None,
        }
    }

    /// Whether a new connection may help.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Connection { .. })
    }
}

fn is_timeout(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Options { problem } => f.write_str(problem),
            Self::Connection { operation, uri, source } => {
                write!(f, "{operation} at {uri}: no connection: ")?;
                let mut cause: &dyn std::error::Error = source.as_ref();
                // The innermost cause is the one that tells; a status in between repeats "transport error".
                while let Some(next) = cause.source() {
                    cause = next;
                }
                write!(f, "{cause}")
            }
            Self::Deadline { operation, uri, timeout: Some(timeout) } => {
                write!(f, "{operation} at {uri}: no answer within {timeout:?}")
            }
            Self::Deadline { operation, uri, timeout: None } => {
                write!(f, "{operation} at {uri}: the deadline passed")
            }
            Self::Interrupted { operation } => write!(f, "{operation}: interrupted"),
            Self::Refused { operation, message, .. } => write!(f, "{operation}: {message}"),
            Self::Protocol { operation, problem } => write!(f, "{operation}: unexpected answer: {problem}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
