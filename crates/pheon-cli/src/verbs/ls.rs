//! `pheon ls`: the datasets of a store.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::{open_table, read_store};
use crate::failure::{Failure, say};
use crate::listing::{Align, write_json, write_table};
use crate::size::{show_count, show_size, show_time};

/// Arguments of `pheon ls`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store: a directory, or shm://NAME for one in memory.
    store: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.store)?;
    let (mut infos, mut failed) = (Vec::new(), false);
    for name in store.datasets()? {
        match open_table(&store, &name, None) {
            Ok(table) => infos.push(table.info()),
            // One damaged dataset does not hide the others.
            Err(failure) => {
                failure.report();
                failed = true;
            }
        }
    }
    if args.json {
        let all: Vec<_> = infos
            .iter()
            .map(|i| {
                json!({
                    "name": i.name, "kind": kind(i.unique), "version": i.version, "rows": i.rows, "key": i.key,
                    "bytes": i.data_bytes + i.index_bytes, "created_unix_ms": i.created_unix_ms,
                })
            })
            .collect();
        write_json(out, &all.into())?;
    } else if infos.is_empty() && !failed {
        say("the store holds no dataset yet");
    } else {
        let headings = [
            ("NAME", Align::Left),
            ("KIND", Align::Left),
            ("KEY", Align::Left),
            ("VERSION", Align::Right),
            ("ROWS", Align::Right),
            ("SIZE", Align::Right),
            ("CREATED", Align::Left),
        ];
        let rows: Vec<_> = infos
            .iter()
            .map(|i| {
                vec![
                    i.name.clone(),
                    kind(i.unique).to_owned(),
                    i.key.join(", "),
                    i.version.to_string(),
                    show_count(i.rows),
                    show_size(i.data_bytes + i.index_bytes),
                    show_time(i.created_unix_ms),
                ]
            })
            .collect();
        write_table(out, &headings, &rows)?;
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

/// The word for a dataset whose keys are or are not unique.
pub(super) fn kind(unique: bool) -> &'static str {
    if unique { "map" } else { "table" }
}
