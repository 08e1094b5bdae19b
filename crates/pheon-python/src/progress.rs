//! What a build tells Python while it runs, and how Python stops it: Ctrl-C and exceptions of the callback.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pheon::{Phase, WriteError};
use pyo3::prelude::*;

use crate::errors;

/// How often a running build looks for signals. Only the thread that called may do so, hence [`Watch::run`].
const POLL_EVERY: Duration = Duration::from_millis(50);

/// One report of a running build, given to the `progress` callback.
#[pyclass(frozen, get_all, module = "pheon")]
pub(crate) struct Progress {
    /// What is being done: "read", "merge", "index" or "sync".
    phase: &'static str,
    /// Rows finished in this phase.
    rows_done: u64,
    /// Rows in all, where known.
    rows_total: Option<u64>,
    /// Rows a second since the phase began.
    rows_per_second: f64,
    /// Seconds since the phase began.
    elapsed_seconds: f64,
    /// Seconds until the phase ends, where that can be told.
    eta_seconds: Option<f64>,
}

#[pymethods]
impl Progress {
    fn __repr__(&self) -> String {
        let total = self.rows_total.map_or_else(|| "None".to_owned(), |t| t.to_string());
        format!(
            "Progress(phase={:?}, rows_done={}, rows_total={total}, rows_per_second={:.0})",
            self.phase, self.rows_done, self.rows_per_second
        )
    }
}

/// The engine's `progress` callback.
type ProgressFn = Arc<dyn Fn(&pheon::Progress) + Send + Sync>;

/// The link between one running build and the interpreter.
pub(crate) struct Watch {
    callback: Option<Py<PyAny>>,
    stop: AtomicBool,
    raised: Mutex<Option<PyErr>>,
}

impl Watch {
    pub(crate) fn new(callback: Option<Py<PyAny>>) -> Arc<Self> {
        Arc::new(Self { callback, stop: AtomicBool::new(false), raised: Mutex::new(None) })
    }

    /// The engine's `cancel`: true once a signal handler or the callback raised.
    pub(crate) fn cancel(self: &Arc<Self>) -> Arc<dyn Fn() -> bool + Send + Sync> {
        let watch = Arc::clone(self);
        Arc::new(move || watch.stop.load(Ordering::Relaxed))
    }

    /// The engine's `progress`, if there is a callback.
    pub(crate) fn progress(self: &Arc<Self>) -> Option<ProgressFn> {
        self.callback.as_ref()?;
        let watch = Arc::clone(self);
        Some(Arc::new(move |p| watch.report(p)))
    }

    /// Runs engine work without the interpreter lock, on a thread of its own, while this one looks for signals:
    /// Python delivers them to the main thread only, and the engine may work on any.
    ///
    /// # Errors
    /// What a signal handler or the callback raised, also if the work was done by then: an exception is never dropped.
    /// One that comes while a version becomes visible is raised and the version stays, which the engine's last look at
    /// [`Watch::cancel`], right before, makes rare.
    pub(crate) fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> Result<T, WriteError> + Send,
    ) -> PyResult<T> {
        let done = py.detach(|| {
            std::thread::scope(|scope| {
                let waiter = std::thread::current();
                let worker = scope.spawn(move || {
                    let done = work();
                    waiter.unpark();
                    done
                });
                let mut polled = Instant::now();
                while !worker.is_finished() {
                    std::thread::park_timeout(POLL_EVERY);
                    if polled.elapsed() >= POLL_EVERY {
                        polled = Instant::now();
                        if let Err(e) = Python::attach(|py| py.check_signals()) {
                            self.keep(e);
                        }
                    }
                }
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        });
        match done {
            Ok(done) => match self.take_raised() {
                Some(raised) => Err(raised),
                None => Ok(done),
            },
            Err(e) => Err(self.take_raised().unwrap_or_else(|| errors::write_error(py, &e))),
        }
    }

    fn take_raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn report(&self, progress: &pheon::Progress) {
        let Some(callback) = &self.callback else { return };
        let report = Progress {
            phase: phase_name(progress.phase),
            rows_done: progress.rows_done,
            rows_total: progress.rows_total,
            rows_per_second: progress.rows_per_second(),
            elapsed_seconds: progress.elapsed.as_secs_f64(),
            eta_seconds: progress.eta().map(|d| d.as_secs_f64()),
        };
        if let Err(e) = Python::attach(|py| callback.call1(py, (report,)).map(drop)) {
            self.keep(e);
        }
    }

    /// Tells the callback, if there is one, of rows that were sent to a server.
    ///
    /// # Errors
    /// What the callback raises.
    pub(crate) fn sent(&self, py: Python<'_>, rows: u64, total: Option<u64>, elapsed: Duration) -> PyResult<()> {
        let Some(callback) = &self.callback else { return Ok(()) };
        let elapsed_seconds = elapsed.as_secs_f64();
        let rows_per_second = if elapsed_seconds > 0.0 { rows as f64 / elapsed_seconds } else { 0.0 };
        let left = total.map(|total| total.saturating_sub(rows) as f64);
        let report = Progress {
            phase: "read",
            rows_done: rows,
            rows_total: total,
            rows_per_second,
            elapsed_seconds,
            eta_seconds: left.filter(|_| rows_per_second > 0.0).map(|left| left / rows_per_second),
        };
        callback.call1(py, (report,)).map(drop)
    }

    /// The first exception wins; later ones are consequences.
    fn keep(&self, error: PyErr) {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Read => "read",
        Phase::Merge => "merge",
        Phase::Index => "index",
        Phase::Sync => "sync",
        _ => "work",
    }
}
