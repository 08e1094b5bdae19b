//! Structured logs on standard error, and traces where somebody collects them.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt as lines};

/// The target of spans. They are for traces alone: lines of the log have what they need.
pub(crate) const SPANS: &str = "pheon::call";

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
    /// Traces cannot be sent there.
    Traces {
        /// As given.
        endpoint: String,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format { found } => write!(f, "{found:?} is no format of logs: expected text or json"),
            Self::Filter { found, .. } => {
                write!(f, "{found:?} is no filter of logs: expected a level, or target=level separated by commas")
            }
            Self::Traces { endpoint, .. } => {
                write!(f, "send traces to {endpoint:?}: expected an address such as http://127.0.0.1:4317")
            }
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Format { .. } => None,
            Self::Filter { source, .. } => Some(source),
            Self::Traces { source, .. } => Some(source),
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

/// What the log needs while it is written to.
#[must_use = "the last traces are sent when this is dropped"]
pub struct Logs {
    #[cfg(feature = "traces")]
    _traces: Option<crate::traces::Traces>,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logs(..)")
    }
}

/// Sends the events of this process to standard error, and its spans to the OpenTelemetry collector at `collector`, where
/// there is one. Does nothing if something else takes them already.
///
/// # Errors
/// [`LogError::Filter`], [`LogError::Traces`].
pub fn start(format: LogFormat, filter: &str, collector: Option<&str>) -> Result<Logs, LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LogError::Filter { found: filter.to_owned(), source })?;
    let filter = filter.and(filter_fn(|metadata| metadata.target() != SPANS));
    let lines = lines::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines);
    #[cfg(feature = "traces")]
    {
        let Some(collector) = collector else {
            // No layer, rather than none in its place: that would ask for every span of every library.
            let _ = registry.try_init();
            return Ok(Logs { _traces: None });
        };
        let traces = crate::traces::Traces::start(collector)?;
        let spans = tracing_opentelemetry::layer()
            .with_tracer(traces.tracer())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.target() == SPANS && metadata.is_span()));
        let _ = registry.with(spans).try_init();
        Ok(Logs { _traces: Some(traces) })
    }
    #[cfg(not(feature = "traces"))]
    {
        let _ = registry.try_init();
        match collector {
            None => Ok(Logs {}),
            Some(endpoint) => Err(LogError::Traces {
                endpoint: endpoint.to_owned(),
                source: io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this server was built without the feature \"traces\"",
                ),
            }),
        }
    }
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

    /// h2 has hundreds of spans a message; they cost nothing where nobody asks for them.
    #[test]
    fn spans_of_libraries_are_off() {
        let _logs = start(LogFormat::Text, FILTER, None).unwrap();
        assert!(tracing::enabled!(target: "pheon::server", tracing::Level::INFO));
        assert!(!tracing::enabled!(target: "h2::proto", tracing::Level::TRACE));
        assert!(tracing::span!(target: "h2::proto", tracing::Level::TRACE, "poll").is_disabled());
        assert!(tracing::span!(target: SPANS, tracing::Level::INFO, "call").is_disabled());
    }
}
