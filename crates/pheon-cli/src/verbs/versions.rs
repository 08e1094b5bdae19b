//! `pheon versions`: what has been published and not yet collected.

use std::io::Write;

use serde_json::json;

use super::{DatasetArgs, read_store};
use crate::failure::Failure;
use crate::listing::{Align, write_json, write_table};
use crate::size::{show_count, show_size, show_time};

/// Arguments of `pheon versions`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.dataset.store)?;
    let versions = store.versions(&args.dataset.name)?;
    if args.json {
        let all: Vec<_> = versions
            .iter()
            .map(|v| {
                json!({
                    "version": v.version, "created_unix_ms": v.created_unix_ms, "rows": v.rows, "bytes": v.bytes, "origin": v.origin,
                })
            })
            .collect();
        write_json(out, &all.into())?;
        return Ok(());
    }
    let headings = [
        ("VERSION", Align::Right),
        ("CREATED", Align::Left),
        ("ROWS", Align::Right),
        ("SIZE", Align::Right),
        ("ORIGIN", Align::Left),
    ];
    let rows: Vec<_> = versions
        .iter()
        .map(|v| {
            vec![
                v.version.to_string(),
                show_time(v.created_unix_ms),
                show_count(v.rows),
                show_size(v.bytes),
                v.origin.clone(),
            ]
        })
        .collect();
    write_table(out, &headings, &rows)?;
    Ok(())
}
