//! How a command ends when it does not succeed.

use std::error::Error;
use std::io::{self, Write};

use pheon::{KeyTextError, ReadError, WriteError};
use pheon_live::LiveError;

/// A command's failure: what to say and which exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One line says why; exit code 1.
    Failed(String),
    /// The arguments do not fit; exit code 2.
    Usage(String),
    /// Everything has been said; exit code 1.
    Reported,
    /// Stopped by Ctrl-C.
    Interrupted(String),
    /// Whoever read our output has gone away, as `head` does.
    OutputClosed,
}

impl Failure {
    /// Says on standard error what there is to say, and returns the exit code.
    pub(crate) fn report(self) -> i32 {
        let code = match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Interrupted(_) => pheon_os::interrupt::EXIT_CODE,
            Self::Reported => return 1,
            Self::OutputClosed => return 0,
        };
        say(&format!("error: {}", self.message()));
        code
    }

    /// What there is to say, in one line.
    pub(crate) fn message(self) -> String {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::Interrupted(text) => {
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            Self::Reported | Self::OutputClosed => String::new(),
        }
    }
}

/// A line on standard error, if anybody listens.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// An error and its causes, joined with ": ".
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<ReadError> for Failure {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::InvalidName { .. } | ReadError::KeyType { .. } => Self::Usage(chain(&e)),
            _ => Self::Failed(chain(&e)),
        }
    }
}

impl From<WriteError> for Failure {
    fn from(e: WriteError) -> Self {
        match e {
            WriteError::Read(e) => e.into(),
            WriteError::Options { .. } => Self::Usage(chain(&e)),
            WriteError::Cancelled => Self::Interrupted(chain(&e)),
            _ => Self::Failed(chain(&e)),
        }
    }
}

impl From<KeyTextError> for Failure {
    fn from(e: KeyTextError) -> Self {
        Self::Usage(e.to_string())
    }
}

impl From<LiveError> for Failure {
    fn from(e: LiveError) -> Self {
        match e {
            LiveError::Options { .. } => Self::Usage(chain(&e)),
            // Its text has what the operating system said already.
            LiveError::Io { .. } => Self::Failed(e.to_string()),
            _ => Self::Failed(chain(&e)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Failed(format!("write the output: {e}"))
        }
    }
}

impl From<arrow_schema::ArrowError> for Failure {
    fn from(e: arrow_schema::ArrowError) -> Self {
        match e {
            arrow_schema::ArrowError::IoError(_, e) => e.into(),
            e => Self::Failed(chain(&e)),
        }
    }
}
