//! The progress bar of `pheon build`.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pheon::{Phase, Progress};

use crate::size::{show_count, show_duration, show_rate};

/// A line on the terminal that is drawn again and again.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// `None` unless standard error is a terminal.
    pub(crate) fn on_terminal() -> Option<Self> {
        if !stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Some(Self(bar))
    }

    /// What the build is to call.
    pub(crate) fn callback(&self) -> impl Fn(&Progress) + Send + Sync + use<> {
        let bar = self.0.clone();
        let shown: Mutex<Option<(Phase, bool)>> = Mutex::new(None);
        move |progress: &Progress| {
            let kind = (progress.phase, progress.rows_total.is_some() && progress.phase != Phase::Sync);
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            if *shown != Some(kind) {
                *shown = Some(kind);
                bar.set_style(style(kind.1));
            }
            drop(shown);
            bar.set_prefix(phase_name(progress.phase));
            if let Some(total) = progress.rows_total {
                // An estimate may be too low.
                bar.set_length(total.max(progress.rows_done));
            }
            bar.set_position(progress.rows_done);
            bar.set_message(message(progress));
        }
    }

    /// Removes the line.
    pub(crate) fn clear(self) {
        self.0.finish_and_clear();
    }
}

fn style(with_total: bool) -> ProgressStyle {
    let template = if with_total { "{prefix:8} [{bar:30}] {percent:>3}%  {msg}" } else { "{prefix:8} {spinner} {msg}" };
    ProgressStyle::with_template(template).expect("a fixed template").progress_chars("=> ")
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Read => "reading",
        Phase::Merge => "writing",
        Phase::Index => "indexing",
        Phase::Sync => "syncing",
        _ => "working",
    }
}

fn message(progress: &Progress) -> String {
    if progress.phase == Phase::Sync {
        return "waiting for the disk".into();
    }
    let mut text = format!("{} rows", show_count(progress.rows_done));
    if progress.rows_done > 0 {
        text.push_str(&format!(", {}", show_rate(progress.rows_per_second())));
    }
    if let Some(eta) = progress.eta() {
        text.push_str(&format!(", {} left", show_duration(eta)));
    }
    text
}
