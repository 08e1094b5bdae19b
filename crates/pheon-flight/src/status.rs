//! Errors of the engine as gRPC statuses: docs/flight.md, Errors.

use std::error::Error;
use std::io;

use arrow_schema::ArrowError;
use pheon::{ReadError, WriteError};
use pheon_live::LiveError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The header that names an error more exactly than its status: docs/flight.md, Errors.
pub(crate) const DETAIL_HEADER: &str = "pheon-error";

/// The longest message that is sent, in bytes: it travels as a header, and clients bound those.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// An error and its causes, joined with ": ".
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        cause = error.source();
    }
    text
}

fn status(code: Code, error: &dyn Error) -> Status {
    let mut text = chain(error);
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
        text.push_str("...");
    }
    Status::new(code, text)
}

/// A status that also names the error.
pub(crate) fn with_detail(mut status: Status, detail: &'static str) -> Status {
    status.metadata_mut().insert(DETAIL_HEADER, MetadataValue::from_static(detail));
    status
}

/// The name of a failed read.
pub(crate) fn detail_of_read(error: &ReadError) -> &'static str {
    match error {
        ReadError::StoreNotFound { .. } => "store-not-found",
        ReadError::NotFound { .. } => "not-found",
        ReadError::InvalidName { .. } => "invalid-name",
        ReadError::KeyType { .. } => "key-type",
        ReadError::WrongShape { .. } => "wrong-shape",
        ReadError::Corrupt { .. } => "corrupt",
        ReadError::Io { source, .. } if pheon_os::is_full(source) => "store-full",
        ReadError::Io { .. } => "io",
        ReadError::Arrow { .. } => "arrow",
        _ => "internal",
    }
}

/// The name of a failed write.
pub(crate) fn detail_of_write(error: &WriteError) -> &'static str {
    match error {
        WriteError::Read(error) => detail_of_read(error),
        WriteError::DuplicateKey { .. } | WriteError::KeyExists { .. } => "duplicate-key",
        WriteError::Schema { .. } => "schema",
        WriteError::Limit { .. } => "limit",
        WriteError::Input { .. } => "input",
        WriteError::Options { .. } => "options",
        WriteError::Source { .. } => "source",
        WriteError::StoreFull { .. } => "store-full",
        WriteError::LockTimeout { .. } => "lock-timeout",
        WriteError::Cancelled => "cancelled",
        WriteError::ReadOnly { .. } => "read-only",
        WriteError::Io { source, .. } if pheon_os::is_full(source) => "store-full",
        WriteError::Io { .. } => "io",
        _ => "internal",
    }
}

fn detail_of_live(error: &LiveError) -> &'static str {
    match error {
        LiveError::NotFound { .. } | LiveError::Unlinked { .. } => "not-found",
        LiveError::Exists { .. } => "exists",
        LiveError::Options { .. } => "options",
        LiveError::TooLarge { .. } => "too-large",
        LiveError::Corrupt { .. } => "corrupt",
        LiveError::Full { .. } => "store-full",
        LiveError::LockTimeout { .. } => "lock-timeout",
        LiveError::Stopped => "cancelled",
        LiveError::ReadOnly { .. } => "read-only",
        LiveError::Io { .. } | LiveError::NotDurable { .. } => "io",
        _ => "internal",
    }
}

fn io_code(error: &io::Error) -> Code {
    if pheon_os::is_full(error) { Code::ResourceExhausted } else { Code::Internal }
}

/// A failed read as a status.
pub(crate) fn of_read(error: &ReadError) -> Status {
    let code = match error {
        ReadError::StoreNotFound { .. } | ReadError::NotFound { .. } => Code::NotFound,
        ReadError::InvalidName { .. }
        | ReadError::KeyType { .. }
        | ReadError::WrongShape { .. }
        | ReadError::Arrow { .. } => Code::InvalidArgument,
        ReadError::Corrupt { .. } => Code::DataLoss,
        ReadError::Io { source, .. } => io_code(source),
        _ => Code::Internal,
    };
    with_detail(status(code, error), detail_of_read(error))
}

/// A failed write as a status.
pub(crate) fn of_write(error: &WriteError) -> Status {
    let code = match error {
        WriteError::Read(error) => return of_read(error),
        WriteError::DuplicateKey { .. } | WriteError::KeyExists { .. } => Code::AlreadyExists,
        WriteError::Schema { .. }
        | WriteError::Input { .. }
        | WriteError::Options { .. }
        | WriteError::Source { .. } => Code::InvalidArgument,
        WriteError::StoreFull { .. } | WriteError::Limit { .. } => Code::ResourceExhausted,
        WriteError::LockTimeout { .. } => Code::Unavailable,
        WriteError::Cancelled => Code::Cancelled,
        WriteError::ReadOnly { .. } => Code::FailedPrecondition,
        WriteError::Io { source, .. } => io_code(source),
        _ => Code::Internal,
    };
    with_detail(status(code, error), detail_of_write(error))
}

/// A failed operation on a live map as a status.
pub(crate) fn of_live(error: &LiveError) -> Status {
    let code = match error {
        LiveError::NotFound { .. } | LiveError::Unlinked { .. } => Code::NotFound,
        LiveError::Exists { .. } => Code::AlreadyExists,
        LiveError::Options { .. } | LiveError::TooLarge { .. } => Code::InvalidArgument,
        LiveError::Corrupt { .. } => Code::DataLoss,
        LiveError::Full { .. } => Code::ResourceExhausted,
        LiveError::LockTimeout { .. } => Code::Unavailable,
        LiveError::Stopped => Code::Cancelled,
        LiveError::ReadOnly { .. } => Code::FailedPrecondition,
        LiveError::Io { source, .. } => io_code(source),
        LiveError::NotDurable { cause } => match &**cause {
            LiveError::Io { source, .. } => io_code(source),
            LiveError::Full { .. } => Code::ResourceExhausted,
            _ => Code::Internal,
        },
        _ => Code::Internal,
    };
    with_detail(status(code, error), detail_of_live(error))
}

/// What Arrow refused of a client's data.
pub(crate) fn of_arrow(error: &ArrowError) -> Status {
    with_detail(status(Code::InvalidArgument, error), "arrow")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn codes_and_causes() {
        let missing = ReadError::NotFound { dataset: "a".into(), version: Some(3) };
        assert_eq!(of_read(&missing).code(), Code::NotFound);
        let named = |status: &Status| status.metadata().get(DETAIL_HEADER).unwrap().to_str().unwrap().to_owned();
        assert_eq!(named(&of_read(&missing)), "not-found");
        assert_eq!(of_write(&missing.into()).code(), Code::NotFound);
        let source = Arc::new(io::Error::from_raw_os_error(28));
        let full = WriteError::StoreFull { operation: "write", path: "/f".into(), source: source.clone() };
        assert_eq!(of_write(&full).code(), Code::ResourceExhausted);
        assert_eq!(named(&of_write(&full)), "store-full");
        let unread = ReadError::Io { operation: "open", path: "/f".into(), source };
        let unread = of_read(&unread);
        assert_eq!(unread.code(), Code::ResourceExhausted);
        assert!(unread.message().starts_with("open /f: No space left"), "{}", unread.message());
        let corrupt = ReadError::Corrupt { path: "/f".into(), place: "footer".into(), problem: "x".into() };
        assert_eq!(of_read(&corrupt).code(), Code::DataLoss);
        assert_eq!(of_live(&LiveError::NotHeld).code(), Code::Internal);
    }

    #[test]
    fn long_messages_are_cut() {
        let long = ReadError::InvalidName { name: "ä".repeat(10_000) };
        let status = of_read(&long);
        assert!(status.message().len() < MESSAGE_BYTES_MAX + 8 && status.message().ends_with("..."));
    }
}
