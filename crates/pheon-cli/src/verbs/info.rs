//! `pheon info`: the facts about a dataset.

use std::io::Write;

use serde_json::json;

use super::ls::kind;
use super::{DatasetArgs, open_table, read_store};
use crate::failure::Failure;
use crate::listing::{write_facts, write_json};
use crate::size::{show_count, show_size, show_time};

/// Arguments of `pheon info`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// An older version.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.dataset.store)?;
    let info = open_table(&store, &args.dataset.name, args.version)?.info();
    let index_bytes_per_key = (info.index_keys > 0).then(|| info.index_bytes as f64 / info.index_keys as f64);
    if args.json {
        let columns: Vec<_> = info
            .schema
            .fields()
            .iter()
            .map(|f| json!({ "name": f.name(), "type": f.data_type().to_string(), "nullable": f.is_nullable(), "key": info.key.contains(f.name()) }))
            .collect();
        let facts = json!({
            "name": info.name, "kind": kind(info.unique), "version": info.version, "created_unix_ms": info.created_unix_ms,
            "origin": info.origin, "rows": info.rows, "key": info.key, "columns": columns, "segments": info.segments,
            "hidden_rows": info.hidden_rows,
            "data_bytes": info.data_bytes, "index_bytes": info.index_bytes, "index_keys": info.index_keys,
            "index_bytes_per_key": index_bytes_per_key, "access": info.access.to_string(), "path": info.path.to_string_lossy(),
        });
        write_json(out, &facts)?;
        return Ok(());
    }
    let column = |name: &String| match info.schema.field_with_name(name) {
        Ok(field) => format!("{name}: {}", field.data_type()),
        Err(_) => name.clone(),
    };
    let names = info.schema.fields().iter().map(|f| f.name()).filter(|n| !info.key.contains(n));
    let index = match index_bytes_per_key {
        Some(bytes) => format!("{} ({bytes:.2} bytes a key)", show_size(info.index_bytes)),
        None => "none".into(),
    };
    let facts = [
        ("name", info.name.clone()),
        ("kind", kind(info.unique).to_owned()),
        ("version", info.version.to_string()),
        ("created", show_time(info.created_unix_ms)),
        ("origin", info.origin.clone()),
        ("rows", show_count(info.rows)),
        (
            "key",
            if info.key.is_empty() {
                "none".into()
            } else {
                info.key.iter().map(column).collect::<Vec<_>>().join(", ")
            },
        ),
        ("values", names.map(column).collect::<Vec<_>>().join(", ")),
        (
            "segments",
            match info.hidden_rows {
                0 => info.segments.to_string(),
                hidden => format!("{}, with {} rows replaced or deleted", info.segments, show_count(hidden)),
            },
        ),
        ("data", show_size(info.data_bytes)),
        ("index", index),
        ("path", info.path.display().to_string()),
    ];
    write_facts(out, &facts)?;
    Ok(())
}
