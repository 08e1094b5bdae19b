//! The `pheon` command as a library: the cargo binary and the Python wheel's console script both call [`run`].
//!
//! Data goes to standard output, everything else to standard error. One file a verb, in `verbs/`.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | done; also when the reader of a pipe has gone away |
//! | 1 | failed, or a key is missing, or `verify` found a problem |
//! | 2 | bad usage |
//! | 130 | stopped by Ctrl-C; the store is as it was |

mod cells;
mod failure;
mod group;
mod listing;
mod msgpack;
mod size;
mod verbs;

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};

use clap::{Parser, Subcommand};

use failure::Failure;

const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// One physical copy of a huge dictionary or data frame, read by every process at memory speed.
#[derive(Parser)]
#[command(name = "pheon", version, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build a map (or, with --table, a table) from Parquet, CSV, NDJSON or Arrow files and publish it as a new
    /// version.
    Build(Box<verbs::build::Args>),
    /// List the datasets of a store.
    Ls(verbs::ls::Args),
    /// Show the facts about a dataset.
    Info(verbs::info::Args),
    /// Look keys up. One KEY prints the bare value, several print key<TAB>value.
    Get(verbs::get::Args),
    /// Print rows in key order.
    Scan(verbs::scan::Args),
    /// Execute one SQL statement.
    #[cfg(feature = "sql")]
    Sql(verbs::sql::Args),
    /// Say that this build has no SQL, and how to get it.
    #[cfg(not(feature = "sql"))]
    #[command(hide = true, disable_help_flag = true)]
    Sql(verbs::no_sql::Args),
    /// Check every byte of a dataset (default: of all datasets).
    Verify(verbs::verify::Args),
    /// Merge a dataset's segments into one.
    Compact(verbs::compact::Args),
    /// Remove old versions and what killed writers left.
    Gc(verbs::gc::Args),
    /// List the versions of a dataset.
    Versions(verbs::versions::Args),
    /// Publish the content of an old version as the newest one.
    Rollback(verbs::rollback::Args),
    /// Remove a dataset with all its versions.
    Drop(verbs::drop::Args),
    /// Bring a dataset (default: all datasets) into memory.
    Warm(verbs::warm::Args),
    /// Show what datasets cost on disk and in memory.
    Memory(verbs::memory::Args),
    /// List, examine and remove live maps.
    Live(verbs::live::Args),
    /// Serve a store to other hosts over Arrow Flight, until SIGTERM or Ctrl-C.
    Serve(verbs::serve::Args),
    /// Make a token for a server's token file.
    Token(verbs::token::Args),
}

/// Runs the command with these arguments, the program's name first, and returns its exit code. Never exits the process
/// itself, except on a second Ctrl-C.
pub fn run<I>(args: I) -> i32
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    // Where it cannot be set, the process ends without the message.
    let _ = pheon_os::bus_error::explain();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version go to standard output, usage errors to standard error; a closed pipe is nobody's
            // problem.
            let _ = e.print();
            return e.exit_code();
        }
    };
    let mut out = BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, io::stdout().lock());
    let done = dispatch(cli.verb, &mut out).and_then(|()| out.flush().map_err(Failure::from));
    match done {
        Ok(()) => 0,
        Err(failure) => {
            // What was printed before the failure is still data. (Already gone if the pipe is closed.)
            let _ = out.flush();
            failure.report()
        }
    }
}

fn dispatch(verb: Verb, out: &mut dyn Write) -> Result<(), Failure> {
    match verb {
        Verb::Build(args) => verbs::build::run(&args, out),
        Verb::Ls(args) => verbs::ls::run(&args, out),
        Verb::Info(args) => verbs::info::run(&args, out),
        Verb::Get(args) => verbs::get::run(&args, out),
        Verb::Scan(args) => verbs::scan::run(&args, out),
        #[cfg(feature = "sql")]
        Verb::Sql(args) => verbs::sql::run(&args, out),
        #[cfg(not(feature = "sql"))]
        Verb::Sql(args) => verbs::no_sql::run(&args),
        Verb::Verify(args) => verbs::verify::run(&args, out),
        Verb::Compact(args) => verbs::compact::run(&args, out),
        Verb::Gc(args) => verbs::gc::run(&args, out),
        Verb::Versions(args) => verbs::versions::run(&args, out),
        Verb::Rollback(args) => verbs::rollback::run(&args, out),
        Verb::Drop(args) => verbs::drop::run(&args, out),
        Verb::Warm(args) => verbs::warm::run(&args, out),
        Verb::Memory(args) => verbs::memory::run(&args, out),
        Verb::Live(args) => verbs::live::run(&args, out),
        Verb::Serve(args) => verbs::serve::run(&args),
        Verb::Token(args) => verbs::token::run(&args, out),
    }
}
