//! `pheon rollback`: an old version's content as the newest version.

use std::io::Write;

use serde_json::json;

use super::{DatasetArgs, write_store};
use crate::failure::{Failure, say};
use crate::listing::write_json;

/// Arguments of `pheon rollback`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// The version to go back to.
    version: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = write_store(&args.dataset.store)?;
    let name = &args.dataset.name;
    let version = store.rollback(name, args.version)?;
    say(&format!("{name}: version {version} has the content of version {}", args.version));
    if args.json {
        write_json(out, &json!({ "name": name, "version": version, "content_of": args.version }))?;
    }
    Ok(())
}
