//! `pheon drop`: a dataset goes away.

use std::io::Write;

use serde_json::json;

use super::{DatasetArgs, write_store};
use crate::failure::{Failure, say};
use crate::listing::write_json;

/// Arguments of `pheon drop`.
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
    store.drop_dataset(name)?;
    say(&format!("{name}: dropped"));
    if args.json {
        write_json(out, &json!({ "name": name, "dropped": true }))?;
    }
    Ok(())
}
