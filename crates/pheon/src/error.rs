//! What can go wrong, split by what the caller can do next: [`ReadError`] for opening and looking up,
//! [`WriteError`] for building, publishing and administration.
//!
//! A message says what was being done, where, what was expected and what was found. Causes chain through `source()`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// An operation on published data failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReadError {
    /// The directory is not there, or holds no store marker.
    StoreNotFound {
        /// Where a store was expected.
        path: PathBuf,
    },
    /// The dataset has no published version, or not the version that was asked for.
    NotFound {
        /// The dataset's name.
        dataset: String,
        /// The version asked for; `None`: any.
        version: Option<u64>,
    },
    /// The name breaks the rule of docs/format.md section 1.
    InvalidName {
        /// The name as given.
        name: String,
    },
    /// A file is not ours, truncated, or its bytes are not what was published.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Which part of it: a buffer, a row, the footer...
        place: String,
        /// What was expected and found.
        problem: String,
    },
    /// The key given does not fit the dataset's key type.
    KeyType {
        /// The dataset's name.
        dataset: String,
        /// The type of the key column.
        expected: String,
        /// The type given.
        found: String,
    },
    /// The call does not fit the dataset: not a map, several value columns, no key...
    WrongShape {
        /// The dataset's name.
        dataset: String,
        /// What does not fit, and which call does.
        problem: String,
    },
    /// An operating-system call failed.
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// An Arrow kernel refused valid-looking input.
    Arrow {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        source: Arc<arrow_schema::ArrowError>,
    },
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::StoreNotFound { path } => {
                write!(f, "no store at {}: there is no pheon.json; open it for writing to create one", path.display())
            }
            Self::NotFound { dataset, version: None } => {
                write!(f, "no dataset named {dataset:?} has been published in this store")
            }
            Self::NotFound { dataset, version: Some(v) } => {
                write!(f, "dataset {dataset:?} has no version {v}; it was never published or has been collected")
            }
            Self::InvalidName { name } => {
                write!(f, "{name:?} is not a dataset name: expected [A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}")
            }
            Self::Corrupt { path, place, problem } => {
                write!(f, "{} is corrupt at {place}: {problem}", path.display())
            }
            Self::KeyType { dataset, expected, found } => {
                write!(f, "keys of {dataset:?} are {expected}, got {found}")
            }
            Self::WrongShape { dataset, problem } => write!(f, "{dataset:?}: {problem}"),
            Self::Io { operation, path, .. } => write!(f, "{operation} {}", path.display()),
            Self::Arrow { operation, .. } => write!(f, "{operation}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            Self::Arrow { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl ReadError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source: Arc::new(source) }
    }

    pub(crate) fn arrow(operation: &'static str, source: arrow_schema::ArrowError) -> Self {
        Self::Arrow { operation, source: Arc::new(source) }
    }

    pub(crate) fn corrupt(path: impl Into<PathBuf>, place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Corrupt { path: path.into(), place: place.into(), problem: problem.into() }
    }
}

/// Building, publishing or administration failed. The store is as it was before the call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WriteError {
    /// Reading what is there failed.
    Read(ReadError),
    /// A key occurs twice and `on_duplicate` is `Error`.
    DuplicateKey {
        /// The dataset's name, empty while unknown.
        dataset: String,
        /// The key, printed.
        key: String,
        /// Rows of the input, counted from 0 in the order in which they were written: of the writer's own rows, or of
        /// those of the part that has them.
        rows: (u64, u64),
        /// The parts that the rows are in; `None`: the writer's own rows.
        parts: (Option<String>, Option<String>),
    },
    /// A part of a build is not in the state that the call needs: not finished, finished already, being written by
    /// another process, or its build is gone.
    Part {
        /// The dataset's name.
        dataset: String,
        /// The part's name.
        part: String,
        /// Its state, and what to do.
        problem: String,
    },
    /// A key that is appended is in the dataset already, where keys are unique.
    KeyExists {
        /// The dataset's name.
        dataset: String,
        /// The key, printed.
        key: String,
    },
    /// The data does not fit: null key, missing column, a type that cannot be a key...
    Schema {
        /// What does not fit, naming column and row (counted from 0).
        problem: String,
    },
    /// No space or quota left.
    StoreFull {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// Another writer kept the dataset's lock.
    LockTimeout {
        /// The dataset's name.
        dataset: String,
        /// Who holds it, where the kernel tells.
        holder_pid: Option<u32>,
        /// How long this call waited, in milliseconds.
        waited_ms: u64,
    },
    /// The caller's `cancel` answered true.
    Cancelled,
    /// The store was opened read-only.
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
    /// Beyond a limit of this format version.
    Limit {
        /// Which limit, what was found.
        problem: String,
    },
    /// An input file could not be read as what it is named.
    Input {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// The caller's options contradict each other or are out of range.
    Options {
        /// Which, and what is allowed.
        problem: String,
    },
    /// The stream that delivers the data failed.
    Source {
        /// Its message.
        problem: String,
    },
    /// An operating-system call failed.
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
}

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(e) => e.fmt(f),
            Self::DuplicateKey { dataset, key, rows, parts: (None, None) } => write!(
                f,
                "{dataset:?}: key {key} occurs in input rows {} and {}; remove one or choose on_duplicate=\"first\" or \"last\"",
                rows.0, rows.1
            ),
            Self::DuplicateKey { dataset, key, rows, parts } => {
                let place = |row: u64, part: &Option<String>| match part {
                    Some(name) => format!("row {row} of part {name:?}"),
                    None => format!("row {row} of the writer's own rows"),
                };
                write!(
                    f,
                    "{dataset:?}: key {key} occurs in {} and in {}; remove one or choose on_duplicate=\"first\" or \"last\"",
                    place(rows.0, &parts.0),
                    place(rows.1, &parts.1)
                )
            }
            Self::Part { dataset, part, problem } => write!(f, "{dataset:?}: part {part:?} {problem}"),
            Self::KeyExists { dataset, key } => {
                write!(f, "{dataset:?}: key {key} is there already; replace its row with upsert, or leave it out")
            }
            Self::Schema { problem } | Self::Limit { problem } | Self::Options { problem } => f.write_str(problem),
            Self::Source { problem } => write!(f, "the input stream failed: {problem}"),
            Self::StoreFull { operation, path, .. } => write!(
                f,
                "{operation} {}: no space or quota left; nothing was published, the store is as it was",
                path.display()
            ),
            Self::LockTimeout { dataset, holder_pid, waited_ms } => {
                write!(f, "{dataset:?}: gave up after {waited_ms} ms waiting for the writers' lock, held by ")?;
                match holder_pid {
                    Some(pid) if *pid == pheon_os::process::pid() => {
                        write!(f, "this process, {pid} (another writer of it)")
                    }
                    Some(pid) => write!(f, "process {pid}"),
                    None => f.write_str("a process that the kernel does not name"),
                }
            }
            Self::Cancelled => f.write_str("cancelled; nothing was published"),
            Self::ReadOnly { path } => write!(f, "store {} was opened read-only", path.display()),
            Self::Input { path, problem } => write!(f, "cannot read {}: {problem}", path.display()),
            Self::Io { operation, path, .. } => write!(f, "{operation} {}", path.display()),
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(e) => e.source(),
            Self::StoreFull { source, .. } | Self::Io { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<ReadError> for WriteError {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

impl WriteError {
    /// Sorts an OS error into [`WriteError::StoreFull`] or [`WriteError::Io`].
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let (path, source) = (path.into(), Arc::new(source));
        if pheon_os::is_full(&source) {
            Self::StoreFull { operation, path, source }
        } else {
            Self::Io { operation, path, source }
        }
    }

    pub(crate) fn schema(problem: impl Into<String>) -> Self {
        Self::Schema { problem: problem.into() }
    }
}
