//! `pheon warm`: datasets into memory.

use std::io::Write;
use std::time::Duration;

use pheon::{WarmOptions, WarmReport};
use pheon_os::interrupt;
use serde_json::json;

use super::{DatasetsArgs, read_store};
use crate::failure::{Failure, say};
use crate::listing::{Align, write_json, write_table};
use crate::size::show_size;

/// How often a command that only holds locks looks for Ctrl-C.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// Arguments of `pheon warm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    datasets: DatasetsArgs,
    /// Keep them in memory: the command stays until Ctrl-C, since a lock ends with its process.
    #[arg(long)]
    lock: bool,
    /// Do not ask for 2 MiB pages.
    #[arg(long)]
    no_huge: bool,
    /// Print JSON, in bytes.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.datasets.store)?;
    // Another thread of a host program may have taken Ctrl-C over already; then the host decides.
    let guard = interrupt::Guard::install().ok();
    if args.lock && guard.is_none() {
        return Err(Failure::Failed("stay until Ctrl-C: another part of this process has taken it over".into()));
    }
    let mut options = WarmOptions::default().lock(args.lock).huge(!args.no_huge);
    if guard.is_some() {
        options = options.cancel(interrupt::interrupted);
    }
    let mut reports = Vec::new();
    for name in args.datasets.names(&store)? {
        let report = store.warm_with(&name, &options)?;
        if report.interrupted {
            return Err(Failure::Interrupted(format!("warm {name}: interrupted; nothing stays locked")));
        }
        reports.push((name, report));
    }
    write_reports(args, &reports, out)?;
    out.flush()?;
    for (name, report) in &reports {
        if let Some(refusal) = &report.huge_refusal {
            say(&format!("{name}: the kernel gave no more 2 MiB pages: {refusal}"));
        }
        if let Some(refusal) = &report.lock_refusal {
            say(&format!("{name}: not locked: {refusal}"));
        }
    }
    if args.lock {
        let locked: u64 = reports.iter().map(|(_, report)| report.locked_bytes).sum();
        if locked == 0 && !reports.is_empty() {
            return Err(Failure::Failed("nothing is locked".into()));
        }
        say(&format!("{} locked in memory until Ctrl-C", show_size(locked)));
        while !interrupt::interrupted() {
            std::thread::sleep(POLL_EVERY);
        }
    }
    Ok(())
}

fn write_reports(args: &Args, reports: &[(String, WarmReport)], out: &mut dyn Write) -> Result<(), Failure> {
    if args.json {
        let all: Vec<_> = reports
            .iter()
            .map(|(name, r)| {
                json!({
                    "name": name, "version": r.version, "file_bytes": r.file_bytes,
                    "resident_before_bytes": r.resident_before_bytes, "resident_bytes": r.resident_bytes,
                    "huge_bytes": r.huge_bytes, "huge_refusal": r.huge_refusal, "locked_bytes": r.locked_bytes,
                    "lock_refusal": r.lock_refusal, "access": r.access.to_string(), "seconds": r.elapsed.as_secs_f64(),
                })
            })
            .collect();
        write_json(out, &all.into())?;
        return Ok(());
    }
    let headings = [
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("BEFORE", Align::Right),
        ("IN MEMORY", Align::Right),
        ("IN 2 MiB PAGES", Align::Right),
        ("LOCKED", Align::Right),
        ("SECONDS", Align::Right),
    ];
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".into(), show_size);
    let rows: Vec<_> = reports
        .iter()
        .map(|(name, r)| {
            vec![
                name.clone(),
                show_size(r.file_bytes),
                size(r.resident_before_bytes),
                size(r.resident_bytes),
                show_size(r.huge_bytes),
                show_size(r.locked_bytes),
                format!("{:.1}", r.elapsed.as_secs_f64()),
            ]
        })
        .collect();
    write_table(out, &headings, &rows)?;
    Ok(())
}
