//! `pheon warm`: datasets into memory.

use std::io::Write;

use serde_json::json;

use super::{DatasetsArgs, read_store};
use crate::failure::{Failure, say};
use crate::listing::{Align, write_json, write_table};
use crate::size::show_size;

/// Arguments of `pheon warm`.
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
        let report = store.warm(&name)?;
        reports.push((name, report));
    }
    if args.json {
        let all: Vec<_> = reports
            .iter()
            .map(|(name, r)| {
                json!({
                    "name": name, "file_bytes": r.file_bytes, "resident_bytes": r.resident_bytes, "huge_bytes": r.huge_bytes,
                    "huge_refusal": r.huge_refusal,
                })
            })
            .collect();
        write_json(out, &all.into())?;
        return Ok(());
    }
    let headings =
        [("NAME", Align::Left), ("SIZE", Align::Right), ("IN MEMORY", Align::Right), ("IN 2 MiB PAGES", Align::Right)];
    let rows: Vec<_> = reports
        .iter()
        .map(|(name, r)| {
            vec![name.clone(), show_size(r.file_bytes), show_size(r.resident_bytes), show_size(r.huge_bytes)]
        })
        .collect();
    write_table(out, &headings, &rows)?;
    out.flush()?;
    for (name, report) in &reports {
        if let Some(refusal) = &report.huge_refusal {
            say(&format!("{name}: the kernel gave no more 2 MiB pages: {refusal}"));
        }
    }
    Ok(())
}
