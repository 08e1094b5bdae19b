//! `pheon gc`: old versions and leftovers.

use std::io::Write;
use std::time::Duration;

use pheon::Retention;
use serde_json::json;

use super::{DatasetsArgs, write_store};
use crate::failure::Failure;
use crate::listing::{Align, write_json, write_table};
use crate::size::{parse_seconds, show_size};

/// Arguments of `pheon gc`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    datasets: DatasetsArgs,
    /// How many of the newest versions to keep.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    keep: u64,
    /// Keep versions that were current less than this many seconds ago, too.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    max_age: Option<f64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = write_store(&args.datasets.store)?;
    let mut retention = Retention::newest(args.keep);
    if let Some(age) = args.max_age {
        retention = retention.max_age(Duration::from_secs_f64(age));
    }
    let mut reports = Vec::new();
    for name in args.datasets.names(&store)? {
        let report = store.gc_with(&name, retention)?;
        reports.push((name, report));
    }
    // Where no dataset has a version yet, nothing else does.
    store.gc_unfinished(retention)?;
    if args.json {
        let all: Vec<_> = reports
            .iter()
            .map(|(name, r)| {
                json!({
                    "name": name, "versions_removed": r.versions_removed, "segments_removed": r.segments_removed,
                    "leftovers_removed": r.leftovers_removed, "bytes_freed": r.bytes_freed,
                })
            })
            .collect();
        write_json(out, &all.into())?;
        return Ok(());
    }
    let headings = [
        ("NAME", Align::Left),
        ("VERSIONS REMOVED", Align::Right),
        ("SEGMENTS REMOVED", Align::Right),
        ("LEFTOVERS REMOVED", Align::Right),
        ("FREED", Align::Right),
    ];
    let rows: Vec<_> = reports
        .iter()
        .map(|(name, r)| {
            vec![
                name.clone(),
                r.versions_removed.len().to_string(),
                r.segments_removed.to_string(),
                r.leftovers_removed.to_string(),
                show_size(r.bytes_freed),
            ]
        })
        .collect();
    write_table(out, &headings, &rows)?;
    Ok(())
}
