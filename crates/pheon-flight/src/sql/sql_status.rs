//! Errors of SQL as gRPC statuses, decided by variant.

use pheon::{ReadError, WriteError};
use pheon_sql::SqlError;
use tonic::{Code, Status};

/// The status that a client sees.
pub fn status_of(error: &SqlError) -> Status {
    let code = match error {
        SqlError::Syntax { .. } | SqlError::Plan { .. } | SqlError::Parameters { .. } | SqlError::Value { .. } => {
            Code::InvalidArgument
        }
        SqlError::Unsupported { .. } => Code::Unimplemented,
        SqlError::NotFound { .. } => Code::NotFound,
        SqlError::Exists { .. } => Code::AlreadyExists,
        SqlError::Denied { .. } => Code::PermissionDenied,
        SqlError::ReadOnly | SqlError::Changed { .. } => Code::FailedPrecondition,
        SqlError::Limit { .. } => Code::ResourceExhausted,
        SqlError::Source { .. } => Code::Aborted,
        SqlError::Stopped => Code::Cancelled,
        SqlError::Read(e) => of_read(e),
        SqlError::Write(e) => of_write(e),
        _ => Code::Internal,
    };
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    crate::status::with_detail(Status::new(code, text), detail_of(error))
}

fn detail_of(error: &SqlError) -> &'static str {
    match error {
        SqlError::Syntax { .. } => "sql-syntax",
        SqlError::Plan { .. } => "sql-plan",
        SqlError::Parameters { .. } => "sql-parameters",
        SqlError::Value { .. } => "sql-value",
        SqlError::Unsupported { .. } => "sql-unsupported",
        SqlError::NotFound { .. } => "not-found",
        SqlError::Exists { .. } => "exists",
        SqlError::Denied { .. } => "denied",
        SqlError::ReadOnly => "read-only",
        SqlError::Changed { .. } => "sql-changed",
        SqlError::Limit { .. } => "sql-limit",
        SqlError::Source { .. } => "source",
        SqlError::Read(e) => crate::status::detail_of_read(e),
        SqlError::Write(e) => crate::status::detail_of_write(e),
        _ => "internal",
    }
}

fn of_read(error: &ReadError) -> Code {
    match error {
        ReadError::NotFound { .. } | ReadError::StoreNotFound { .. } => Code::NotFound,
        ReadError::InvalidName { .. } | ReadError::KeyType { .. } | ReadError::WrongShape { .. } => {
            Code::InvalidArgument
        }
        ReadError::Corrupt { .. } => Code::DataLoss,
        _ => Code::Internal,
    }
}

fn of_write(error: &WriteError) -> Code {
    match error {
        WriteError::Read(e) => of_read(e),
        WriteError::DuplicateKey { .. } | WriteError::KeyExists { .. } => Code::AlreadyExists,
        WriteError::Schema { .. } | WriteError::Options { .. } | WriteError::Limit { .. } => Code::InvalidArgument,
        WriteError::StoreFull { .. } => Code::ResourceExhausted,
        WriteError::LockTimeout { .. } => Code::Unavailable,
        WriteError::Cancelled => Code::Cancelled,
        WriteError::ReadOnly { .. } => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}

pub(super) fn failed(error: SqlError) -> Status {
    status_of(&error)
}
