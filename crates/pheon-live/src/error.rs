//! What can go wrong, by what the caller can do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An operation on a live map failed. Nothing of it was committed, but for [`LiveError::NotDurable`].
#[derive(Debug)]
#[non_exhaustive]
pub enum LiveError {
    /// There is no such map.
    NotFound {
        /// Its folder.
        path: PathBuf,
    },
    /// There is a map of this name already.
    Exists {
        /// Its folder.
        path: PathBuf,
    },
    /// A name or an option that cannot be.
    Options {
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A file is not what it should be.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// There is no room: the disk, the quota, or the map's own limit.
    Full {
        /// The map's folder.
        path: PathBuf,
        /// What there is no room for.
        problem: String,
        /// What the operating system said; `None` for the map's own limit.
        source: Option<io::Error>,
    },
    /// A key and value that are too large for one record.
    TooLarge {
        /// Bytes of the key.
        key_bytes: usize,
        /// Bytes of the value.
        value_bytes: usize,
    },
    /// The lock was not free in time.
    LockTimeout {
        /// The map's folder.
        path: PathBuf,
        /// How long was waited.
        waited_ms: u64,
    },
    /// The caller's `should_stop` said so while waiting.
    Stopped,
    /// This thread does not hold the lock that it wants to release.
    NotHeld,
    /// The map was opened read-only.
    ReadOnly {
        /// The map's folder.
        path: PathBuf,
    },
    /// The map was unlinked: what is mapped can still be read, but not changed.
    Unlinked {
        /// The map's folder as it was.
        path: PathBuf,
    },
    /// What was written to a durable map is committed, and others see it, but it is not known to be on the disk: after a power
    /// cut it may be gone.
    NotDurable {
        /// Why not.
        cause: Box<LiveError>,
    },
    /// Another system call failed.
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl LiveError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        if pheon_os::is_full(&source) {
            return Self::Full {
                path: path.to_owned(),
                problem: format!("{operation}: no space left"),
                source: Some(source),
            };
        }
        // An empty file, or what is no file: nothing that the system could do better another time.
        if source.kind() == io::ErrorKind::InvalidData {
            return Self::corrupt(path, source.to_string());
        }
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// The error of a map that is being made in another folder than its own, as one of the map.
    pub(crate) fn of_map(self, temporary: &Path, dir: &Path) -> Self {
        match self {
            Self::Full { path, problem, source } if path.starts_with(temporary) => {
                Self::Full { path: dir.to_owned(), problem, source }
            }
            other => other,
        }
    }

    pub(crate) fn corrupt(path: &Path, problem: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), problem: problem.into() }
    }
}

impl fmt::Display for LiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { path } => write!(f, "there is no live map {}", path.display()),
            Self::Exists { path } => write!(f, "there is a live map {} already", path.display()),
            Self::Options { problem } => f.write_str(problem),
            Self::Corrupt { path, problem } => write!(f, "{} is damaged: {problem}", path.display()),
            Self::Full { path, problem, .. } => {
                write!(f, "live map {}: {problem}; what is in it can still be read", path.display())
            }
            Self::TooLarge { key_bytes, value_bytes } => {
                write!(f, "a key of {key_bytes} and a value of {value_bytes} bytes exceed the 2 GiB of one entry")
            }
            Self::LockTimeout { path, waited_ms } => {
                write!(f, "waited {waited_ms} ms for the lock of live map {}: another thread holds it", path.display())
            }
            Self::Stopped => f.write_str("stopped while waiting for a lock"),
            Self::NotHeld => f.write_str("this thread does not hold the lock"),
            Self::ReadOnly { path } => write!(f, "live map {} was opened read-only", path.display()),
            Self::Unlinked { path } => write!(f, "live map {} was unlinked; it cannot be changed", path.display()),
            Self::NotDurable { cause } => {
                write!(f, "the change is made, but may be gone after a power cut: ")?;
                match &**cause {
                    Self::Full { path, problem, .. } => write!(f, "live map {}: {problem}", path.display()),
                    other => other.fmt(f),
                }
            }
            Self::Io { operation, path, source } => write!(f, "cannot {operation} {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for LiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Full { source: Some(source), .. } => Some(source),
            Self::NotDurable { cause } => Some(cause),
            _ => None,
        }
    }
}
