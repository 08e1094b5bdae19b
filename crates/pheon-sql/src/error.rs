//! What can go wrong with a statement, split by what the caller can do next.

use std::fmt;
use std::sync::Arc;

use arrow_schema::ArrowError;
use datafusion::common::DataFusionError;
use pheon::{ReadError, WriteError};

/// A statement failed. Nothing was published.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SqlError {
    /// The text is no statement.
    Syntax {
        /// Where and why.
        problem: String,
    },
    /// A statement that is SQL, but names, types or numbers of columns do not fit together.
    Plan {
        /// What does not fit.
        problem: String,
    },
    /// A statement that is not supported, or not allowed here.
    Unsupported {
        /// Which, and what to do in its place.
        problem: String,
    },
    /// There is no such dataset, or not that version.
    NotFound {
        /// Its name as it stands in the statement.
        dataset: String,
    },
    /// There is a dataset of this name already.
    Exists {
        /// Its name.
        dataset: String,
    },
    /// The caller may not do that.
    Denied {
        /// `read`, `write` or `drop`.
        action: &'static str,
        /// The dataset, whether it exists or not.
        dataset: String,
    },
    /// Neither snapshots nor stores opened read-only take changes.
    ReadOnly,
    /// Parameters do not fit the statement's.
    Parameters {
        /// What was expected and found.
        problem: String,
    },
    /// A dataset changed its columns after the statement was prepared; prepare it again.
    Changed {
        /// The dataset.
        dataset: String,
    },
    /// The limit of memory, of a query or of all together, or one of the limits on a statement's size.
    Limit {
        /// Which, and how it stands.
        problem: String,
    },
    /// A value cannot be computed: a division by zero, a text that is no number.
    Value {
        /// What and why.
        problem: String,
    },
    /// Reading the store failed.
    Read(ReadError),
    /// Changing the store failed.
    Write(WriteError),
    /// The stream of rows that are written failed.
    Source {
        /// Its message.
        problem: String,
    },
    /// Whoever asked wants no answer any more.
    Stopped,
    /// The query engine contradicted itself.
    Internal {
        /// Its message.
        problem: String,
    },
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { problem }
            | Self::Plan { problem }
            | Self::Unsupported { problem }
            | Self::Parameters { problem }
            | Self::Limit { problem }
            | Self::Value { problem } => f.write_str(problem),
            Self::NotFound { dataset } => write!(f, "there is no dataset {dataset:?}"),
            Self::Exists { dataset } => write!(f, "there is a dataset {dataset:?} already"),
            Self::Denied { action, dataset } => write!(f, "no right to {action} {dataset:?}"),
            Self::ReadOnly => f.write_str("this session only reads: the store is open read-only, or it is a snapshot"),
            Self::Changed { dataset } => {
                write!(f, "the columns of {dataset:?} have changed since the statement was prepared; prepare it again")
            }
            Self::Read(e) => e.fmt(f),
            Self::Write(e) => e.fmt(f),
            Self::Source { problem } => write!(f, "the rows that come in: {problem}"),
            Self::Stopped => f.write_str("the statement was stopped"),
            Self::Internal { problem } => write!(f, "the query engine failed: {problem}"),
        }
    }
}

impl std::error::Error for SqlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(e) => e.source(),
            Self::Write(e) => e.source(),
            _ => None,
        }
    }
}

impl From<ReadError> for SqlError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::NotFound { dataset, version: None } => Self::NotFound { dataset },
            ReadError::NotFound { dataset, version: Some(v) } => Self::NotFound { dataset: format!("{dataset}@{v}") },
            e => Self::Read(e),
        }
    }
}

impl From<WriteError> for SqlError {
    fn from(e: WriteError) -> Self {
        match e {
            WriteError::Read(e) => e.into(),
            WriteError::ReadOnly { .. } => Self::ReadOnly,
            WriteError::Source { problem } => Self::Source { problem },
            e => Self::Write(e),
        }
    }
}

impl From<ArrowError> for SqlError {
    fn from(e: ArrowError) -> Self {
        DataFusionError::from(e).into()
    }
}

impl From<DataFusionError> for SqlError {
    fn from(e: DataFusionError) -> Self {
        use DataFusionError as D;
        match e {
            D::External(e) => Self::from_external(e),
            D::Context(_, inner) => (*inner).into(),
            D::Diagnostic(_, inner) => (*inner).into(),
            D::Collection(mut errors) if !errors.is_empty() => errors.swap_remove(0).into(),
            D::Shared(inner) => Self::from_shared(&inner),
            D::SQL(e, _) => Self::Syntax { problem: e.to_string() },
            D::Plan(problem) => Self::Plan { problem },
            D::SchemaError(e, _) => Self::Plan { problem: e.to_string() },
            D::Configuration(problem) => Self::Plan { problem },
            D::NotImplemented(problem) => Self::Unsupported { problem },
            D::ResourcesExhausted(problem) => Self::Limit { problem: format!("out of memory: {problem}") },
            D::Execution(problem) => Self::Value { problem },
            D::ArrowError(e, _) => Self::from_arrow(*e),
            e => Self::Internal { problem: e.to_string() },
        }
    }
}

impl SqlError {
    fn from_external(e: Box<dyn std::error::Error + Send + Sync>) -> Self {
        let e = match e.downcast::<SqlError>() {
            Ok(e) => return *e,
            Err(e) => e,
        };
        let e = match e.downcast::<ReadError>() {
            Ok(e) => return (*e).into(),
            Err(e) => e,
        };
        match e.downcast::<DataFusionError>() {
            Ok(e) => (*e).into(),
            Err(e) => Self::Internal { problem: e.to_string() },
        }
    }

    /// An error that several streams share cannot be taken out of its place.
    fn from_shared(e: &Arc<DataFusionError>) -> Self {
        match e.find_root() {
            DataFusionError::External(e) => match (e.downcast_ref::<SqlError>(), e.downcast_ref::<ReadError>()) {
                (Some(e), _) => e.clone(),
                (_, Some(e)) => e.clone().into(),
                _ => Self::Internal { problem: e.to_string() },
            },
            DataFusionError::ResourcesExhausted(problem) => {
                Self::Limit { problem: format!("out of memory: {problem}") }
            }
            DataFusionError::Execution(problem) => Self::Value { problem: problem.clone() },
            DataFusionError::Plan(problem) => Self::Plan { problem: problem.clone() },
            DataFusionError::NotImplemented(problem) => Self::Unsupported { problem: problem.clone() },
            DataFusionError::ArrowError(e, _) => Self::Value { problem: e.to_string() },
            e => Self::Internal { problem: e.to_string() },
        }
    }

    fn from_arrow(e: ArrowError) -> Self {
        match e {
            ArrowError::ExternalError(e) => Self::from_external(e),
            ArrowError::NotYetImplemented(problem) => Self::Unsupported { problem },
            ArrowError::MemoryError(problem) => Self::Limit { problem },
            e => Self::Value { problem: e.to_string() },
        }
    }

    /// The error as DataFusion hands it through a plan, and [`From<DataFusionError>`] takes it out again.
    pub(crate) fn into_datafusion(self) -> DataFusionError {
        DataFusionError::External(Box::new(self))
    }
}

/// A failed read as DataFusion hands it through a plan.
pub(crate) fn read_failed(e: ReadError) -> DataFusionError {
    DataFusionError::External(Box::new(e))
}
