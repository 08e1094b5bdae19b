//! `pheon scan`: rows in key order, streamed.

use std::io::Write;
use std::ops::Bound;

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use pheon::{OwnedKey, Table, parse_bytes, parse_key};

use super::scan_format::Format;
use super::{DatasetArgs, open_table, read_store};
use crate::failure::Failure;

/// So many rows are in memory at a time.
const CHUNK_ROWS: usize = 8192;

/// Arguments of `pheon scan`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// Only keys that begin with this text (bytes: or 0x and hexadecimal digits).
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    prefix: Option<String>,
    /// Only keys from this one on.
    #[arg(long, value_name = "A", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only keys before this one.
    #[arg(long, value_name = "B", allow_hyphen_values = true)]
    to: Option<String>,
    /// At most so many rows.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only these columns, separated by commas.
    #[arg(long, value_name = "COL", value_delimiter = ',')]
    columns: Vec<String>,
    /// table: aligned for people, long cells cut; csv; json: one object a line; arrow: an IPC stream.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// An older version.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.dataset.store)?;
    let table = open_table(&store, &args.dataset.name, args.version)?;
    let mut rows = select(&table, args)?;
    if let Some(limit) = args.limit {
        rows = rows.slice(0, limit);
    }
    let schema = table.schema();
    let mut columns = Vec::new();
    for name in &args.columns {
        columns.push(schema.index_of(name).map_err(|_| {
            let names: Vec<_> = schema.fields().iter().map(|f| format!("{:?}", f.name())).collect();
            Failure::Usage(format!("{:?} has no column {name:?}; its columns are {}", table.name(), names.join(", ")))
        })?);
    }
    if columns.is_empty() {
        columns = (0..schema.fields().len()).collect();
    }
    let mut writer = if args.json { Format::Json } else { args.format }.writer();
    let chunk = |start: usize| -> Result<RecordBatch, Failure> {
        Ok(rows.slice(start, CHUNK_ROWS).to_batch()?.project(&columns)?)
    };
    writer.begin(&chunk(0)?, out)?;
    for start in (0..rows.num_rows()).step_by(CHUNK_ROWS) {
        writer.rows(&chunk(start)?, out)?;
    }
    writer.end(out)
}

fn select(table: &Table, args: &Args) -> Result<Table, Failure> {
    if args.prefix.is_none() && args.from.is_none() && args.to.is_none() {
        return Ok(table.clone());
    }
    let schema = table.schema();
    let [name] = table.key() else {
        let problem = if table.key().is_empty() { "no key column" } else { "several key columns" };
        return Err(Failure::Usage(format!(
            "{:?} has {problem}; scan it without --prefix, --from and --to",
            table.name()
        )));
    };
    let data_type = schema.field_with_name(name)?.data_type();
    if let Some(prefix) = &args.prefix {
        let prefix = match data_type {
            DataType::LargeUtf8 => prefix.as_bytes().to_vec(),
            DataType::LargeBinary | DataType::FixedSizeBinary(_) => parse_bytes(prefix)?,
            other => {
                return Err(Failure::Usage(format!(
                    "keys of {:?} are {other} and have no prefix; use --from and --to",
                    table.name()
                )));
            }
        };
        return Ok(table.prefix(&prefix)?);
    }
    let key = |text: &Option<String>| -> Result<Option<OwnedKey>, Failure> {
        Ok(text.as_ref().map(|text| parse_key(text, data_type)).transpose()?)
    };
    let (from, to) = (key(&args.from)?, key(&args.to)?);
    let start = from.as_ref().map_or(Bound::Unbounded, |k| Bound::Included(k.as_ref()));
    let end = to.as_ref().map_or(Bound::Unbounded, |k| Bound::Excluded(k.as_ref()));
    Ok(table.range((start, end))?)
}
