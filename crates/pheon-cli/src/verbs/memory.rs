//! `pheon memory`: what datasets cost.

use std::io::Write;

use serde_json::json;

use super::{DatasetsArgs, read_store};
use crate::failure::Failure;
use crate::listing::{Align, write_json, write_table};
use crate::size::show_size;

/// Arguments of `pheon memory`.
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
        reports.push(store.memory(&name)?);
    }
    // This command maps the files too while it looks.
    let others = |mapped_by: Option<u32>| mapped_by.map(|n| n.saturating_sub(1));
    if args.json {
        let all: Vec<_> = reports
            .iter()
            .map(|m| {
                json!({
                    "name": m.name, "version": m.version, "file_bytes": m.file_bytes, "on_disk_bytes": m.on_disk_bytes,
                    "resident_bytes": m.resident_bytes, "mapped_by_other_processes": others(m.mapped_by_processes),
                })
            })
            .collect();
        write_json(out, &all.into())?;
        return Ok(());
    }
    let headings = [
        ("NAME", Align::Left),
        ("VERSION", Align::Right),
        ("SIZE", Align::Right),
        ("ON DISK", Align::Right),
        ("IN MEMORY", Align::Right),
        ("PROCESSES", Align::Right),
    ];
    let rows: Vec<_> = reports
        .iter()
        .map(|m| {
            vec![
                m.name.clone(),
                m.version.to_string(),
                show_size(m.file_bytes),
                show_size(m.on_disk_bytes),
                show_size(m.resident_bytes),
                others(m.mapped_by_processes).map_or_else(|| "?".into(), |n| n.to_string()),
            ]
        })
        .collect();
    write_table(out, &headings, &rows)?;
    Ok(())
}
