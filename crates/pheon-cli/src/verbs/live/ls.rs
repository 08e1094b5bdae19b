//! `pheon live ls`: the live maps of a place.

use std::io::Write;
use std::path::PathBuf;

use pheon_live::LiveInfo;
use serde_json::{Value, json};

use super::{Attached, attached, look, place};
use crate::failure::{Failure, say};
use crate::group::parse_group;
use crate::listing::{Align, write_json, write_table};
use crate::size::{show_count, show_size, show_time};

/// Arguments of `pheon live ls`.
///
/// STATE is "attached", or "orphan" if no process has the map, or why it cannot be read; SIZE is that of its files.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The store: a directory, or shm://NAME for one in memory. Default: your maps in memory.
    store: Option<PathBuf>,
    /// The same as STORE.
    #[arg(long = "store", value_name = "STORE", conflicts_with = "store")]
    store_option: Option<PathBuf>,
    /// The group, by name or number, whose maps in memory are meant.
    #[arg(long, value_name = "GROUP", value_parser = parse_group, conflicts_with_all = ["store", "store_option"])]
    group: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

struct Line {
    name: String,
    found: Result<LiveInfo, String>,
    attached: Attached,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let locations = place(args.store.as_deref().or(args.store_option.as_deref()), args.group)?.list()?;
    // One that cannot be read does not hide the others.
    let found: Vec<_> = locations.iter().map(|location| look(location).map_err(Failure::message)).collect();
    let lines: Vec<_> = found
        .into_iter()
        .zip(attached(&locations))
        .zip(&locations)
        .map(|((found, attached), location)| Line { name: location.name().to_owned(), found, attached })
        .collect();
    if args.json {
        write_json(out, &lines.iter().map(to_json).collect::<Vec<_>>().into())?;
    } else if lines.is_empty() {
        say("there is no live map");
    } else {
        let headings = [
            ("NAME", Align::Left),
            ("ENTRIES", Align::Right),
            ("SIZE", Align::Right),
            ("CREATED", Align::Left),
            ("PROCESSES", Align::Right),
            ("STATE", Align::Left),
        ];
        write_table(out, &headings, &lines.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn row(line: &Line) -> Vec<String> {
    let (entries, size, created) = match &line.found {
        Ok(info) => (show_count(info.entries), show_size(info.file_bytes), show_time(info.created_unix_ms)),
        Err(_) => ("?".into(), "?".into(), "?".into()),
    };
    let state = match &line.found {
        Ok(_) => line.attached.show_state().to_owned(),
        Err(problem) => problem.clone(),
    };
    vec![line.name.clone(), entries, size, created, line.attached.show_processes(), state]
}

fn to_json(line: &Line) -> Value {
    let info = line.found.as_ref().ok();
    json!({
        "name": line.name, "entries": info.map(|i| i.entries), "file_bytes": info.map(|i| i.file_bytes),
        "created_unix_ms": info.map(|i| i.created_unix_ms), "attached_processes": line.attached.processes,
        "orphan": line.attached.is_orphan(), "problem": line.found.as_ref().err(),
    })
}
