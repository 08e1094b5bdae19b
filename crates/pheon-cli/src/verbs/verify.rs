//! `pheon verify`: every byte of a dataset.

use std::io::Write;

use serde_json::json;

use super::{DatasetsArgs, read_store};
use crate::failure::{Failure, say};
use crate::listing::{Align, write_json, write_table};
use crate::size::{show_count, show_size};

/// Arguments of `pheon verify`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    datasets: DatasetsArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.datasets.store)?;
    let mut reports = Vec::new();
    for name in args.datasets.names(&store)? {
        let report = store.verify(&name)?;
        reports.push((name, report));
    }
    let bad = reports.iter().any(|(_, r)| !r.is_ok());
    if args.json {
        let all: Vec<_> = reports
            .iter()
            .map(|(name, r)| {
                json!({
                    "name": name, "ok": r.is_ok(), "version": r.version, "rows": r.rows, "keys": r.keys, "bytes": r.bytes,
                    "problem_count": r.problem_count, "problems": r.problems,
                })
            })
            .collect();
        write_json(out, &all.into())?;
    } else {
        let headings = [
            ("NAME", Align::Left),
            ("VERSION", Align::Right),
            ("ROWS", Align::Right),
            ("KEYS", Align::Right),
            ("READ", Align::Right),
            ("RESULT", Align::Left),
        ];
        let rows: Vec<_> = reports
            .iter()
            .map(|(name, r)| {
                let result = if r.is_ok() {
                    "ok".to_owned()
                } else {
                    format!("{} problems", show_count(r.problem_count as u64))
                };
                vec![
                    name.clone(),
                    r.version.to_string(),
                    show_count(r.rows),
                    show_count(r.keys),
                    show_size(r.bytes),
                    result,
                ]
            })
            .collect();
        write_table(out, &headings, &rows)?;
    }
    out.flush()?;
    for (name, report) in &reports {
        for problem in &report.problems {
            say(&format!("{name}: {problem}"));
        }
        let untold = report.problem_count - report.problems.len().min(report.problem_count);
        if untold > 0 {
            say(&format!("{name}: {} more problems", show_count(untold as u64)));
        }
    }
    if bad { Err(Failure::Reported) } else { Ok(()) }
}
