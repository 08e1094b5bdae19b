//! `pheon compact`: one segment.

use std::io::Write;

use pheon::ChangeOptions;
use serde_json::json;

use super::{DatasetArgs, write_store};
use crate::failure::{Failure, say};
use crate::listing::write_json;

/// Arguments of `pheon compact`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = write_store(&args.dataset.store)?;
    let name = &args.dataset.name;
    let before = store.table(name)?.version();
    let version = store.compact(name, ChangeOptions::default())?;
    if version == before {
        say(&format!("{name}: version {version} has one segment already"));
    } else {
        say(&format!("{name}: compacted into version {version}"));
    }
    if args.json {
        write_json(out, &json!({ "name": name, "version": version, "compacted": version != before }))?;
    }
    Ok(())
}
