//! `pheon sql` of a build without SQL: says so, where the command would else take the verb for a slip of the pen.

use std::ffi::OsString;

use crate::failure::Failure;

/// Arguments of `pheon sql`, whatever they are.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

/// Says how to get SQL.
pub(crate) fn run(_: &Args) -> Result<(), Failure> {
    Err(Failure::Failed("this build of Pheon has no SQL; build it with the feature \"sql\"".to_owned()))
}
