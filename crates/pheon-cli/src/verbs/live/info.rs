//! `pheon live info`: the facts about a live map.

use std::fmt::Write as _;
use std::io::Write;

use serde_json::json;

use super::{PlaceArgs, attached, look, place};
use crate::failure::Failure;
use crate::listing::{write_facts, write_json};
use crate::size::{show_count, show_size, show_time};

/// Arguments of `pheon live info`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The map.
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let location = place(args.place.store.as_deref(), args.place.group)?.location(&args.name);
    let info = look(&location)?;
    let path = location.dir()?.to_string_lossy().into_owned();
    let attached = attached(std::slice::from_ref(&location))[0];
    let uuid = info.uuid.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let limits = &info.options;
    if args.json {
        let facts = json!({
            "name": args.name, "entries": info.entries, "entry_bytes": info.entry_bytes,
            "file_bytes": info.file_bytes, "chunks": info.chunks, "slots": info.slots, "sequence": info.sequence,
            "uuid": uuid, "created_unix_ms": info.created_unix_ms, "max_entries": limits.max_entries,
            "max_age_seconds": limits.max_age.as_secs_f64(), "max_bytes": limits.max_bytes, "durable": limits.durable,
            "attached_processes": attached.processes, "orphan": attached.is_orphan(), "path": path,
        });
        write_json(out, &facts)?;
        return Ok(());
    }
    let limit = |is_set: bool, shown: String| if is_set { shown } else { "none".to_owned() };
    let facts = [
        ("name", args.name.clone()),
        ("entries", show_count(info.entries)),
        ("entry bytes", show_size(info.entry_bytes)),
        ("files", show_size(info.file_bytes)),
        ("log", format!("{} chunks", info.chunks)),
        ("index", format!("{} slots", show_count(info.slots as u64))),
        ("commits", show_count(info.sequence)),
        ("created", show_time(info.created_unix_ms)),
        ("most entries", limit(limits.max_entries > 0, show_count(limits.max_entries))),
        ("greatest age", limit(!limits.max_age.is_zero(), format!("{} s", limits.max_age.as_secs_f64()))),
        ("most bytes", limit(limits.max_bytes > 0, show_size(limits.max_bytes))),
        ("durable", if limits.durable { "yes" } else { "no" }.to_owned()),
        ("processes", attached.show_processes()),
        ("state", attached.show_state().to_owned()),
        ("uuid", uuid),
        ("path", path),
    ];
    write_facts(out, &facts)?;
    Ok(())
}
