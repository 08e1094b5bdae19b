//! `pheon token`: a secret for somebody, and the entry of the token file that knows it.

use std::io::Write;

use pheon_flight::auth::{Credentials, Secret};
use serde_json::json;

use crate::failure::{Failure, chain, say};
use crate::listing::write_json;

/// Arguments of `pheon token`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whose it is: for logs, and the user's name where a client logs in with one.
    name: String,
    /// Datasets that may be read: a name, a prefix followed by *, or *; live maps as live/NAME. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    read: Vec<String>,
    /// Datasets whose rows may be changed. Does not include reading.
    #[arg(long, value_name = "PATTERN")]
    write: Vec<String>,
    /// Datasets that may be compacted, rolled back, dropped and so on. Does not include reading or writing.
    #[arg(long, value_name = "PATTERN")]
    admin: Vec<String>,
    /// The day, or the time as in RFC 3339, from which on it counts no more.
    #[arg(long, value_name = "DATE")]
    expires: Option<String>,
    /// Print the secret and the entry as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let secret = Secret::generate().ok_or_else(|| Failure::Failed("the system gives no random bytes".into()))?;
    let rights = [args.read.as_slice(), args.write.as_slice(), args.admin.as_slice()];
    if rights.iter().all(|patterns| patterns.is_empty()) {
        return Err(Failure::Usage(
            "a token without a right is good for nothing: give --read, --write or --admin".into(),
        ));
    }
    let entry = Credentials::entry(&args.name, secret.hash(), args.expires.as_deref(), rights)
        .map_err(|e| Failure::Usage(chain(&e)))?;
    if args.json {
        write_json(out, &json!({ "name": args.name, "secret": secret.reveal(), "entry": entry }))?;
        return Ok(());
    }
    // The entry alone goes to standard output, so that it can be appended to the token file.
    out.write_all(entry.as_bytes())?;
    say(&format!("secret of {}, shown only now: {}", args.name, secret.reveal()));
    Ok(())
}
