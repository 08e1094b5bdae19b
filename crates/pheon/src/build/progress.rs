//! Watching and stopping a build: progress reports, rate, remaining time, cancellation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::options::{CancelFn, ProgressFn, PutOptions};
use crate::error::WriteError;

/// What a build is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Taking rows in; sorting and spilling what does not fit in memory.
    Read,
    /// Writing rows in their final order.
    Merge,
    /// Building the hash index.
    Index,
    /// Waiting until the disk holds everything.
    Sync,
}

/// How far a build has come.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Rows through this phase so far.
    pub rows_done: u64,
    /// Rows that this phase has to do, where known.
    pub rows_total: Option<u64>,
    /// Since this phase began.
    pub elapsed: Duration,
}

impl Progress {
    /// Rows a second since the phase began; 0 before the first row.
    pub fn rows_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.rows_done as f64 / seconds } else { 0.0 }
    }

    /// How long the rest of the phase will take at that rate; `None` while it cannot be told.
    pub fn eta(&self) -> Option<Duration> {
        let rest = self.rows_total?.saturating_sub(self.rows_done) as f64;
        let rate = self.rows_per_second();
        if rate > 0.0 { Duration::try_from_secs_f64(rest / rate).ok() } else { None }
    }
}

const REPORT_EVERY: Duration = Duration::from_millis(100);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Shared by the threads of one build: counts rows, reports them, asks whether to stop.
pub(crate) struct Monitor {
    progress: Option<ProgressFn>,
    cancel: Option<CancelFn>,
    cancelled: AtomicBool,
    start: Instant,
    /// When `cancel` was last asked, in nanoseconds since `start`.
    asked_ns: AtomicU64,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    rows_done: u64,
    rows_total: Option<u64>,
    began: Instant,
    reported: Option<Instant>,
}

impl Monitor {
    pub(crate) fn new(options: &PutOptions) -> Self {
        let now = Instant::now();
        Self {
            progress: options.progress.clone(),
            cancel: options.cancel.clone(),
            cancelled: AtomicBool::new(false),
            start: now,
            asked_ns: AtomicU64::new(0),
            state: Mutex::new(State {
                phase: Phase::Read,
                rows_done: 0,
                rows_total: options.expected_rows,
                began: now,
                reported: None,
            }),
        }
    }

    /// Begins a phase and reports it.
    pub(crate) fn phase(&self, phase: Phase, rows_total: Option<u64>) {
        let report = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.phase == phase && state.reported.is_some() {
                return;
            }
            let now = Instant::now();
            *state = State { phase, rows_done: 0, rows_total, began: now, reported: Some(now) };
            state.report(now)
        };
        self.send(&report);
    }

    /// Counts rows and reports if the last report is old enough.
    pub(crate) fn rows(&self, rows: u64) {
        let report = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.rows_done += rows;
            let now = Instant::now();
            if state.reported.is_some_and(|at| now - at < REPORT_EVERY) {
                return;
            }
            state.reported = Some(now);
            state.report(now)
        };
        self.send(&report);
    }

    fn send(&self, report: &Progress) {
        if let Some(progress) = &self.progress {
            progress(report);
        }
    }

    /// Fails once the caller wants to stop. Cheap enough for every few thousand rows.
    pub(crate) fn check(&self) -> Result<(), WriteError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(WriteError::Cancelled);
        }
        let Some(cancel) = &self.cancel else { return Ok(()) };
        let now = self.start.elapsed().as_nanos() as u64;
        let asked = self.asked_ns.load(Ordering::Relaxed);
        let due = asked == 0 || now.saturating_sub(asked) >= ASK_EVERY.as_nanos() as u64;
        // One thread wins the right to ask; the callback may be slow (it may take an interpreter's lock).
        if due
            && self.asked_ns.compare_exchange(asked, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
            && cancel()
        {
            self.cancelled.store(true, Ordering::Relaxed);
            return Err(WriteError::Cancelled);
        }
        Ok(())
    }
}

impl State {
    fn report(&self, now: Instant) -> Progress {
        Progress {
            phase: self.phase,
            rows_done: self.rows_done,
            rows_total: self.rows_total,
            elapsed: now - self.began,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn rate_and_eta() {
        let mut p =
            Progress { phase: Phase::Read, rows_done: 50, rows_total: Some(200), elapsed: Duration::from_secs(2) };
        assert_eq!(p.rows_per_second(), 25.0);
        assert_eq!(p.eta(), Some(Duration::from_secs(6)));
        p.rows_done = 0;
        assert_eq!(p.eta(), None);
        p.elapsed = Duration::ZERO;
        assert_eq!(p.rows_per_second(), 0.0);
    }

    #[test]
    fn reports_are_rare_and_phases_are_always_reported() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let monitor = Monitor::new(&PutOptions::map("k").progress(move |p| log.lock().unwrap().push(*p)));
        for _ in 0..1000 {
            monitor.rows(3);
        }
        monitor.phase(Phase::Merge, Some(3000));
        let seen = seen.lock().unwrap();
        assert!(seen.len() < 20, "{} reports", seen.len());
        assert_eq!((seen[0].phase, seen[0].rows_done), (Phase::Read, 3));
        assert_eq!(seen.last().map(|p| (p.phase, p.rows_total)), Some((Phase::Merge, Some(3000))));
    }

    #[test]
    fn cancelling_sticks() {
        let monitor = Monitor::new(&PutOptions::map("k").cancel(|| true));
        assert!(matches!(monitor.check(), Err(WriteError::Cancelled)));
        assert!(matches!(monitor.check(), Err(WriteError::Cancelled)));
        assert!(Monitor::new(&PutOptions::map("k")).check().is_ok());
    }
}
