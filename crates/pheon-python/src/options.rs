//! The options of a build, as Python's `Store` passes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pheon::{OnDuplicate, PutOptions};
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
}

impl BuildOptions {
    /// The engine's options, and the link through which the build talks to Python.
    pub(crate) fn resolve(self, key: Vec<String>, unique: bool) -> PyResult<(PutOptions, Arc<Watch>)> {
        let watch = Watch::new(self.progress);
        let mut options = PutOptions::table(key).unique(unique).on_duplicate(on_duplicate(&self.on_duplicate)?);
        options.memory_limit_bytes = self.memory_limit;
        options.threads = self.threads;
        options.spill_dir = self.spill_dir;
        options.progress = watch.progress();
        options.cancel = Some(watch.cancel());
        options.lock_timeout = self.lock_timeout.map(seconds).transpose()?;
        Ok((options, watch))
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

fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| PyValueError::new_err(format!("lock_timeout is {value}; expected seconds, 0 or more")))
}
