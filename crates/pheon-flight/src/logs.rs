//! Structured logs on standard error.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format { found: text.to_owned() }),
        }
    }
}

/// The log cannot be set up so.
#[derive(Debug)]
#[non_exhaustive]
pub enum LogError {
    /// Neither `text` nor `json`.
    Format {
        /// As given.
        found: String,
    },
    /// Not a filter.
    Filter {
        /// As given.
        found: String,
        /// Why not.
        source: tracing_subscriber::filter::ParseError,
    },
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format { found } => write!(f, "{found:?} is no format of logs: expected text or json"),
            Self::Filter { found, .. } => {
                write!(f, "{found:?} is no filter of logs: expected a level, or target=level separated by commas")
            }
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Format { .. } => None,
            Self::Filter { source, .. } => Some(source),
        }
    }
}

/// What is logged where nothing else is said.
pub const FILTER: &str = "info,h2=warn,hyper=warn,tower=warn,datafusion=warn";

/// Whether `filter` is one.
///
/// # Errors
/// [`LogError::Filter`].
pub fn check_filter(filter: &str) -> Result<(), LogError> {
    EnvFilter::try_new(filter).map(drop).map_err(|source| LogError::Filter { found: filter.to_owned(), source })
}

/// Sends the events of this process to standard error. Does nothing if something else takes them already.
///
/// # Errors
/// [`LogError::Filter`].
pub fn start(format: LogFormat, filter: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LogError::Filter { found: filter.to_owned(), source })?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match format {
        LogFormat::Text => logs.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_and_filters() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("xml"));
        check_filter(FILTER).unwrap();
        check_filter("pheon::audit=off,warn").unwrap();
        assert!(check_filter("pheon=loudly").is_err());
    }
}
