//! What a caller chooses about a build.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::progress::Progress;
use crate::error::WriteError;

/// The smallest memory limit that a build accepts, in bytes.
pub(crate) const MEMORY_LIMIT_MIN_BYTES: u64 = 64 << 20;

/// What to do when a key of a unique dataset occurs more than once in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDuplicate {
    /// Fail with [`WriteError::DuplicateKey`] and publish nothing.
    #[default]
    Error,
    /// Keep the row that came first in the input.
    First,
    /// Keep the row that came last in the input.
    Last,
}

/// A callback that watches a build.
pub(crate) type ProgressFn = Arc<dyn Fn(&Progress) + Send + Sync>;
/// A callback that answers true once a build should stop.
pub(crate) type CancelFn = Arc<dyn Fn() -> bool + Send + Sync>;

/// How a dataset is built. Made by [`PutOptions::map`] or [`PutOptions::table`], refined by the setters.
///
/// ```
/// use pheon::{OnDuplicate, PutOptions};
/// let options = PutOptions::map("key").on_duplicate(OnDuplicate::Last).memory_limit_bytes(256 << 20);
/// assert_eq!(options.key, ["key"]);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct PutOptions {
    /// Names of the key columns, in order; empty: rows keep their order and there is no index.
    pub key: Vec<String>,
    /// Whether a key may occur only once (then the dataset opens as a map).
    pub unique: bool,
    /// What to do about a second occurrence when `unique`.
    pub on_duplicate: OnDuplicate,
    /// How much memory the build may use, in bytes; at least 64 MiB. `None`: a quarter of the machine's.
    pub memory_limit_bytes: Option<u64>,
    /// How many threads work; `None`: as many as the process has CPUs.
    pub threads: Option<usize>,
    /// Where sorted runs that do not fit in memory are kept, in a folder of the build's own: many builds may have the same
    /// place, and remove there what killed ones have left. `None`: beside the files being built.
    pub spill_dir: Option<PathBuf>,
    /// Called at most about ten times a second, and when the phase changes. It must not block.
    pub progress: Option<ProgressFn>,
    /// Asked about twenty times a second from any of the build's threads; once it answers true the build fails
    /// with [`WriteError::Cancelled`].
    pub cancel: Option<CancelFn>,
    /// How long to wait for another writer of the same dataset; `None`: 60 seconds.
    pub lock_timeout: Option<Duration>,
    /// How many rows the input will have, where known; only for progress.
    pub expected_rows: Option<u64>,
}

impl PutOptions {
    /// Options for a map: one key column, unique.
    pub fn map(key: impl Into<String>) -> Self {
        Self { key: vec![key.into()], unique: true, ..Self::table(Vec::<String>::new()) }
    }

    /// Options for a table: any key columns, keys may repeat.
    pub fn table(key: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            key: key.into_iter().map(Into::into).collect(),
            unique: false,
            on_duplicate: OnDuplicate::Error,
            memory_limit_bytes: None,
            threads: None,
            spill_dir: None,
            progress: None,
            cancel: None,
            lock_timeout: None,
            expected_rows: None,
        }
    }

    /// Sets whether a key may occur only once.
    #[must_use]
    pub fn unique(mut self, unique: bool) -> Self {
        self.unique = unique;
        self
    }

    /// Sets what to do about a second occurrence of a key.
    #[must_use]
    pub fn on_duplicate(mut self, on_duplicate: OnDuplicate) -> Self {
        self.on_duplicate = on_duplicate;
        self
    }

    /// Sets how much memory the build may use, in bytes; at least 64 MiB.
    #[must_use]
    pub fn memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = Some(bytes);
        self
    }

    /// Sets how many threads work; at least 1.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets the folder for sorted runs that do not fit in memory; it must exist.
    #[must_use]
    pub fn spill_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spill_dir = Some(dir.into());
        self
    }

    /// Sets the callback that watches the build.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Sets the callback that can stop the build.
    #[must_use]
    pub fn cancel(mut self, cancel: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cancel = Some(Arc::new(cancel));
        self
    }

    /// Sets how long to wait for another writer of the same dataset.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// Sets how many rows the input will have, for progress only.
    #[must_use]
    pub fn expected_rows(mut self, rows: u64) -> Self {
        self.expected_rows = Some(rows);
        self
    }

    /// The memory limit in bytes after defaults.
    pub(crate) fn resolved_memory_bytes(&self) -> Result<u64, WriteError> {
        match self.memory_limit_bytes {
            None => Ok((pheon_os::process::total_memory_bytes() / 4).max(MEMORY_LIMIT_MIN_BYTES)),
            Some(bytes) if bytes < MEMORY_LIMIT_MIN_BYTES => Err(WriteError::Options {
                problem: format!(
                    "memory_limit is {bytes} bytes; expected at least {MEMORY_LIMIT_MIN_BYTES} bytes (64 MiB)"
                ),
            }),
            Some(bytes) => Ok(bytes),
        }
    }

    /// The number of threads after defaults.
    pub(crate) fn resolved_threads(&self) -> Result<usize, WriteError> {
        match self.threads {
            None => Ok(pheon_os::process::online_cpus().max(1)),
            Some(0) => Err(WriteError::Options { problem: "threads is 0; expected at least 1".into() }),
            Some(threads) => Ok(threads.min(THREADS_MAX)),
        }
    }
}

/// More threads than this are not started, whatever was asked for.
const THREADS_MAX: usize = 64;

impl fmt::Debug for PutOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutOptions")
            .field("key", &self.key)
            .field("unique", &self.unique)
            .field("on_duplicate", &self.on_duplicate)
            .field("memory_limit_bytes", &self.memory_limit_bytes)
            .field("threads", &self.threads)
            .field("spill_dir", &self.spill_dir)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel.is_some())
            .field("lock_timeout", &self.lock_timeout)
            .field("expected_rows", &self.expected_rows)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_limits() {
        assert!(PutOptions::map("k").unique);
        assert!(!PutOptions::table(["a", "b"]).unique);
        assert!(PutOptions::map("k").resolved_memory_bytes().unwrap() >= MEMORY_LIMIT_MIN_BYTES);
        assert!(PutOptions::map("k").resolved_threads().unwrap() >= 1);
        let small = PutOptions::map("k").memory_limit_bytes(MEMORY_LIMIT_MIN_BYTES - 1);
        assert!(matches!(small.resolved_memory_bytes(), Err(WriteError::Options { .. })));
        assert!(matches!(PutOptions::map("k").threads(0).resolved_threads(), Err(WriteError::Options { .. })));
    }
}
