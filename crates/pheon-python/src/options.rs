//! The options of a build or a change, as Python's `Store` passes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use pheon::{ChangeOptions, OnDuplicate, PartOptions, PutOptions, Retention, Store, WriteError, Writer};
use pheon_flight::client::Put;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::progress::Watch;

/// Keys of the options dict; the names of `put_map`'s keyword arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct BuildOptions {
    on_duplicate: String,
    memory_limit: Option<u64>,
    threads: Option<usize>,
    spill_dir: Option<PathBuf>,
    progress: Option<Py<PyAny>>,
    /// Seconds.
    lock_timeout: Option<f64>,
    /// "put", "append" or "upsert"; not used for what takes no rows.
    mode: String,
    /// Whether small segments are merged after a change.
    pub(crate) compact: bool,
    /// How many of the newest versions stay after a change; None: all.
    keep: Option<u64>,
    /// How long ago a version may have been current to stay all the same, in seconds.
    max_age: Option<f64>,
}

/// What becomes of the rows that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Put,
    Append,
    Upsert,
}

/// A build or a change that Python asked for.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) options: PutOptions,
    pub(crate) watch: Arc<Watch>,
    mode: Mode,
    compact: bool,
    retain: Option<Retention>,
}

impl Job {
    /// A writer of rows with this schema.
    pub(crate) fn writer(&self, store: &Store, name: &str, schema: &SchemaRef) -> Result<Writer, WriteError> {
        match self.mode {
            Mode::Put => store.writer(name, schema.clone(), self.options.clone()),
            Mode::Append => store.appender(name, schema, self.change()),
            Mode::Upsert => store.upserter(name, schema, self.change()),
        }
    }

    /// The same for a server. What steers a build on this machine does not reach it.
    pub(crate) fn remote(&self, name: &str) -> Put {
        let put = match self.mode {
            Mode::Put => Put::publish(name).key(self.options.key.iter().cloned()).map(self.options.unique),
            Mode::Append => Put::append(name).compact(self.compact),
            Mode::Upsert => Put::upsert(name).compact(self.compact),
        };
        put.on_duplicate(match self.options.on_duplicate {
            OnDuplicate::First => "first",
            OnDuplicate::Last => "last",
            _ => "error",
        })
    }

    /// The same for a part, which has the rest from its writer.
    pub(crate) fn part(&self) -> PartOptions {
        let mut part = PartOptions::default();
        part.memory_limit_bytes = self.options.memory_limit_bytes;
        part.threads = self.options.threads;
        part.progress.clone_from(&self.options.progress);
        part.cancel.clone_from(&self.options.cancel);
        part
    }

    pub(crate) fn change(&self) -> ChangeOptions {
        let mut change = ChangeOptions::default().compact(self.compact);
        change.build = self.options.clone();
        change.retain = self.retain;
        change
    }
}

/// Which versions stay.
pub(crate) fn retention(keep: u64, max_age: Option<f64>) -> PyResult<Retention> {
    let retention = Retention::newest(keep);
    Ok(match max_age {
        Some(age) => retention.max_age(seconds("max_age", age)?),
        None => retention,
    })
}

impl BuildOptions {
    /// Refuses what a server decides by itself.
    pub(crate) fn check_remote(&self) -> PyResult<()> {
        let given = [
            ("memory_limit", self.memory_limit.is_some()),
            ("threads", self.threads.is_some()),
            ("spill_dir", self.spill_dir.is_some()),
            ("lock_timeout", self.lock_timeout.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((name, _)) => Err(PyValueError::new_err(format!(
                "{name} steers a build on this machine, and this one is the server's: leave it out"
            ))),
        }
    }

    /// The engine's options, and the link through which the work talks to Python.
    pub(crate) fn resolve(self, key: Vec<String>, unique: bool) -> PyResult<Job> {
        let watch = Watch::new(self.progress);
        let mut options = PutOptions::table(key).unique(unique).on_duplicate(on_duplicate(&self.on_duplicate)?);
        options.memory_limit_bytes = self.memory_limit;
        options.threads = self.threads;
        options.spill_dir = self.spill_dir;
        options.progress = watch.progress();
        options.cancel = Some(watch.cancel());
        options.lock_timeout = self.lock_timeout.map(|value| seconds("lock_timeout", value)).transpose()?;
        let mode = match self.mode.as_str() {
            "append" => Mode::Append,
            "upsert" => Mode::Upsert,
            _ => Mode::Put,
        };
        let retain = match (self.keep, self.max_age) {
            (None, None) => None,
            (keep, age) => Some(retention(keep.unwrap_or(1), age)?),
        };
        Ok(Job { options, watch, mode, compact: self.compact, retain })
    }
}

fn on_duplicate(name: &str) -> PyResult<OnDuplicate> {
    match name {
        "error" => Ok(OnDuplicate::Error),
        "first" => Ok(OnDuplicate::First),
        "last" => Ok(OnDuplicate::Last),
        other => {
            Err(PyValueError::new_err(format!("on_duplicate is {other:?}; expected \"error\", \"first\" or \"last\"")))
        }
    }
}

fn seconds(option: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("{option} is {value}; expected seconds, 0 or more")))
}
