//! `pheon sql`: one statement, its rows or how many rows it changed.

use std::io::Write;
use std::path::PathBuf;

use arrow_array::RecordBatch;
use pheon_os::interrupt;
use pheon_sql::{Answer, Engine, EngineOptions, SqlError};

use super::scan_format::Format;
use super::{read_store, write_store};
use crate::failure::{Failure, chain, say};
use crate::size::parse_size;

/// Arguments of `pheon sql`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store: a directory, or shm://NAME for one in memory.
    store: PathBuf,
    /// The statement. A table is a dataset; "NAME@3", quoted, is its version 3.
    statement: String,
    /// table: aligned for people, long cells cut; csv; json: one object a line; arrow: an IPC stream.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Refuse statements that change the store.
    #[arg(long)]
    read_only: bool,
    /// Memory for sorts, joins and the like, as in 500M; a statement that needs more fails [default: 1G].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = if args.read_only { read_store(&args.store)? } else { write_store(&args.store)? };
    let mut options = EngineOptions::default();
    if let Some(bytes) = args.memory {
        options.query_memory_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        options.memory_bytes_max = options.query_memory_bytes_max;
    }
    let _guard = interrupt::Guard::install().ok();
    let answer = Engine::new(store, options)?.execute_until(&args.statement, None, interrupt::interrupted)?;
    let mut rows = match answer {
        Answer::Rows(rows) => rows,
        Answer::Changed(rows) => {
            say(&format!("{rows} rows"));
            return Ok(());
        }
    };
    let mut writer = if args.json { Format::Json } else { args.format }.writer();
    let first = rows.next().transpose()?;
    let first = first.unwrap_or_else(|| RecordBatch::new_empty(rows.schema()));
    writer.begin(&first, out)?;
    writer.rows(&first, out)?;
    for batch in rows {
        writer.rows(&batch?, out)?;
    }
    writer.end(out)
}

impl From<SqlError> for Failure {
    fn from(e: SqlError) -> Self {
        match e {
            SqlError::Read(e) => e.into(),
            SqlError::Write(e) => e.into(),
            SqlError::Syntax { .. } | SqlError::Plan { .. } | SqlError::Unsupported { .. } => Self::Usage(chain(&e)),
            SqlError::Stopped => Self::Interrupted(chain(&e)),
            e => Self::Failed(chain(&e)),
        }
    }
}
