//! What one client, and all of them together, may use.

use std::fmt;
use std::time::Duration;

/// Limits of a server. [`Limits::default`] has the documented defaults; [`Limits::set`] reads one from text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one message that a client sends, as it comes from the wire.
    pub message_bytes_max: usize,
    /// Bytes of a request's headers ("metadata"), decoded.
    pub metadata_bytes_max: u32,
    /// Bytes that the buffers of one message have once they are decompressed.
    pub decompressed_bytes_max: u64,
    /// Connections at once, of all clients. When they are all taken, one that has never shown credentials, or else the one
    /// that has been without a call for longest, makes room for a new one.
    pub connections_max: usize,
    /// Calls at once on one connection.
    pub streams_max: u32,
    /// Streams that a client may have reset before the server has looked at them. More end the connection.
    pub resets_max: usize,
    /// From a connection to the end of its TLS handshake, and from there to the first bytes of HTTP/2.
    pub handshake_timeout: Duration,
    /// How long a connection may be without a call.
    pub idle_timeout: Duration,
    /// How long a client may leave unread what it has asked for, or not send what it has begun to send. Not how long it may
    /// leave an exchange open.
    pub stall_timeout: Duration,
    /// How often a client is asked whether it is still there.
    pub keepalive_interval: Duration,
    /// How long it may take to answer that.
    pub keepalive_timeout: Duration,
    /// Memory of one query, in bytes.
    pub query_memory_bytes_max: u64,
    /// Memory of all queries, in bytes.
    pub memory_bytes_max: u64,
    /// How long one query may run.
    pub query_time_max: Duration,
    /// From when on a query is logged as slow.
    pub slow_query: Duration,
    /// How long a ticket is good for.
    pub ticket_age_max: Duration,
    /// How long a bearer token that the handshake has issued is good for.
    pub token_age_max: Duration,
    /// How long running calls may go on after the server has been told to stop.
    pub drain_timeout: Duration,
    /// Rows that the web page shows of one query.
    pub page_rows_max: usize,
    /// Bytes of one answer that is put together before it is sent: to a batch of keys, or to an action on a live map.
    pub answer_bytes_max: u64,
    /// Bytes of the keys of one deletion.
    pub delete_bytes_max: u64,
    /// Memory for building the files of one version, in bytes: of a stream of rows, a change by SQL, or a compaction. At
    /// least 64 MiB.
    pub write_memory_bytes_max: u64,
    /// Streams of rows that are being written at once. Each keeps a thread, also while its client is silent.
    pub writers_max: usize,
    /// Actions at once that may take long, and as many changes of live maps that wait for a lock.
    pub actions_max: usize,
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * MIB,
            metadata_bytes_max: 16 * KIB as u32,
            decompressed_bytes_max: 256 * MIB as u64,
            connections_max: 4096,
            streams_max: 128,
            resets_max: 64,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(1800),
            stall_timeout: Duration::from_secs(600),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            query_memory_bytes_max: 1 << 30,
            memory_bytes_max: 4 << 30,
            query_time_max: Duration::from_secs(600),
            slow_query: Duration::from_secs(1),
            ticket_age_max: Duration::from_secs(3600),
            token_age_max: Duration::from_secs(8 * 3600),
            drain_timeout: Duration::from_secs(30),
            page_rows_max: 1000,
            answer_bytes_max: 512 * MIB as u64,
            delete_bytes_max: 256 * MIB as u64,
            write_memory_bytes_max: 256 * MIB as u64,
            writers_max: 64,
            actions_max: 64,
        }
    }
}

/// A limit that is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitError {
    /// No limit has this name.
    Unknown {
        /// As given.
        name: String,
    },
    /// The value is none, or out of bounds.
    Value {
        /// The limit.
        name: &'static str,
        /// As given.
        found: String,
        /// What would do.
        expected: &'static str,
    },
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => {
                write!(f, "no limit is named {name:?}; there are {}", Limits::NAMES.join(", "))
            }
            Self::Value { name, found, expected } => write!(f, "{name} = {found:?}: expected {expected}"),
        }
    }
}

impl std::error::Error for LimitError {}

const A_SIZE: &str = "a size such as 64MiB, 2GB or 1000000, of at least 1 KiB";
const A_LARGE_SIZE: &str = "a size such as 256MiB or 1GB, of at least 64 MiB";
const A_TIME: &str = "a time such as 500ms, 30s, 5m, 8h or 1d, of at least 1 ms";
const A_NUMBER: &str = "a number of at least 1";
const A_FEW: &str = "a number from 1 to 128";
/// With less memory the engine builds nothing.
const WRITE_MEMORY_BYTES_MIN: u64 = 64 * MIB as u64;
/// What one kind of work may keep of the threads that may block, of which there are 512: reads always have some.
const THREADS_MAX: usize = 128;

impl Limits {
    /// All names that [`Limits::set`] knows.
    pub const NAMES: [&str; 24] = [
        "message_bytes_max",
        "metadata_bytes_max",
        "decompressed_bytes_max",
        "connections_max",
        "streams_max",
        "resets_max",
        "handshake_timeout",
        "idle_timeout",
        "stall_timeout",
        "keepalive_interval",
        "keepalive_timeout",
        "query_memory_bytes_max",
        "memory_bytes_max",
        "query_time_max",
        "slow_query",
        "ticket_age_max",
        "token_age_max",
        "drain_timeout",
        "page_rows_max",
        "answer_bytes_max",
        "delete_bytes_max",
        "write_memory_bytes_max",
        "writers_max",
        "actions_max",
    ];

    /// Sets one from text, as flags, environment and file have it.
    ///
    /// # Errors
    /// [`LimitError`] if there is none of this name, or the value is none.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        let name = *Self::NAMES
            .iter()
            .find(|known| **known == name)
            .ok_or_else(|| LimitError::Unknown { name: name.to_owned() })?;
        let wrong = |expected| LimitError::Value { name, found: value.to_owned(), expected };
        let size = || parse_size(value).filter(|bytes| *bytes >= KIB as u64).ok_or_else(|| wrong(A_SIZE));
        let small = |max: u64| size().and_then(|bytes| if bytes <= max { Ok(bytes) } else { Err(wrong(A_SIZE)) });
        let time = || parse_time(value).filter(|t| !t.is_zero()).ok_or_else(|| wrong(A_TIME));
        let number = || value.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(|| wrong(A_NUMBER));
        let few = || value.parse().ok().filter(|n| (1..=THREADS_MAX).contains(n)).ok_or_else(|| wrong(A_FEW));
        match name {
            "message_bytes_max" => self.message_bytes_max = small(u64::from(u32::MAX))? as usize,
            "metadata_bytes_max" => self.metadata_bytes_max = small(16 * MIB as u64)? as u32,
            "decompressed_bytes_max" => self.decompressed_bytes_max = size()?,
            "connections_max" => self.connections_max = number()? as usize,
            "streams_max" => self.streams_max = number()?,
            "resets_max" => self.resets_max = number()? as usize,
            "handshake_timeout" => self.handshake_timeout = time()?,
            "idle_timeout" => self.idle_timeout = time()?,
            "stall_timeout" => self.stall_timeout = time()?,
            "keepalive_interval" => self.keepalive_interval = time()?,
            "keepalive_timeout" => self.keepalive_timeout = time()?,
            "query_memory_bytes_max" => self.query_memory_bytes_max = size()?,
            "memory_bytes_max" => self.memory_bytes_max = size()?,
            "query_time_max" => self.query_time_max = time()?,
            "slow_query" => self.slow_query = time()?,
            "ticket_age_max" => self.ticket_age_max = time()?,
            "token_age_max" => self.token_age_max = time()?,
            "drain_timeout" => self.drain_timeout = time()?,
            "page_rows_max" => self.page_rows_max = number()? as usize,
            "answer_bytes_max" => self.answer_bytes_max = size()?,
            "delete_bytes_max" => self.delete_bytes_max = size()?,
            "write_memory_bytes_max" => {
                let large = size().ok().filter(|bytes| *bytes >= WRITE_MEMORY_BYTES_MIN);
                self.write_memory_bytes_max = large.ok_or_else(|| wrong(A_LARGE_SIZE))?;
            }
            "writers_max" => self.writers_max = few()?,
            _ => self.actions_max = few()?,
        }
        Ok(())
    }
}

/// `64MiB`, `2GB`, `512M` (powers of 1024), `1000`.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let unit = unit.to_ascii_lowercase();
    let (base, prefix) = match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
        (Some(prefix), _) => (1024f64, prefix),
        (None, Some(prefix)) => (1000f64, prefix),
        (None, None) => (1024f64, unit.as_str()),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|u| *u == prefix)?;
    let bytes = number * base.powi(power as i32);
    (bytes <= 1e18).then_some(bytes as u64)
}

/// `500ms`, `30s`, `5m`, `8h`, `1d`; without a unit: seconds.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|t| t.as_secs() <= 100 * 365 * 86_400)
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let number = digits.trim();
    if !number.chars().all(is_number) {
        return None;
    }
    Some((number.parse().ok()?, &text[digits.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_every_one_by_its_name() {
        let mut limits = Limits::default();
        for name in Limits::NAMES {
            let before = limits.clone();
            let value = match name {
                "connections_max" | "streams_max" | "resets_max" | "page_rows_max" | "writers_max" | "actions_max" => {
                    "7"
                }
                "write_memory_bytes_max" => "700MiB",
                _ if name.contains("bytes") => "7KiB",
                _ => "7ms",
            };
            limits.set(name, value).unwrap();
            assert_ne!(limits, before, "{name}");
        }
        assert_eq!((limits.message_bytes_max, limits.metadata_bytes_max), (7168, 7168));
        assert_eq!((limits.connections_max, limits.streams_max), (7, 7));
        assert_eq!(limits.drain_timeout, Duration::from_millis(7));
    }

    #[test]
    fn values() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("2GB", 2_000_000_000), ("512M", 512 << 20), ("1000", 1000), ("1.5k", 1536)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for (text, ms) in
            [("500ms", 500), ("30s", 30_000), ("1.5m", 90_000), ("8h", 28_800_000), ("1d", 86_400_000), ("3", 3000)]
        {
            assert_eq!(parse_time(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "x", "-1", "1e9", "nan", "inf", "1 parsec", "1XB", "--1s"] {
            assert_eq!((parse_size(text), parse_time(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let mut limits = Limits::default();
        assert!(limits.set("connection_max", "7").unwrap_err().to_string().contains("connections_max"));
        for (name, value) in [
            ("connections_max", "0"),
            ("connections_max", "many"),
            ("idle_timeout", "0s"),
            ("idle_timeout", "5 MiB"),
            ("message_bytes_max", "1"),
            ("message_bytes_max", "8GiB"),
            ("metadata_bytes_max", "32MiB"),
            ("write_memory_bytes_max", "63MiB"),
            ("write_memory_bytes_max", "much"),
            ("writers_max", "129"),
            ("actions_max", "0"),
        ] {
            let e = limits.set(name, value).unwrap_err().to_string();
            assert!(e.contains(name) && e.contains(value), "{e}");
        }
        assert_eq!(limits, Limits::default());
    }
}
