//! `pheon get`: values of keys.

use std::io::Write;

use arrow_schema::FieldRef;
use pheon::{OwnedKey, Table, parse_key};

use super::{DatasetArgs, open_table, read_store};
use crate::cells::{value_json, value_text};
use crate::failure::{Failure, say};

/// Arguments of `pheon get`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// The keys. Bytes are given as text or as 0x and hexadecimal digits, dates and times as in ISO 8601. Text that
    /// begins with - goes behind the options and --.
    #[arg(required = true, allow_negative_numbers = true)]
    keys: Vec<String>,
    /// An older version.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Print one JSON object a row, with all columns.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.dataset.store)?;
    let table = open_table(&store, &args.dataset.name, args.version)?;
    let keys = parse_keys(&table, &args.keys)?;
    let schema = table.schema();
    let values: Vec<(usize, &FieldRef)> =
        schema.fields().iter().enumerate().filter(|(_, f)| !table.key().contains(f.name())).collect();
    let mut missing = false;
    let mut line = Vec::new();
    for (text, key) in args.keys.iter().zip(&keys) {
        let rows = table.rows(key.as_ref())?;
        if rows.num_rows() == 0 {
            say(&format!("error: no key {text:?} in {:?}", args.dataset.name));
            missing = true;
        }
        for row in 0..rows.num_rows() {
            line.clear();
            if args.json {
                let all: Vec<_> = schema.fields().iter().enumerate().collect();
                json_row(&rows, row, &all, &mut line)?;
            } else {
                if args.keys.len() > 1 {
                    line.extend_from_slice(text.as_bytes());
                    line.push(b'\t');
                }
                value_row(&rows, row, &values, &mut line)?;
            }
            line.push(b'\n');
            out.write_all(&line)?;
        }
    }
    if missing { Err(Failure::Reported) } else { Ok(()) }
}

/// The keys as the dataset's key type.
fn parse_keys(table: &Table, texts: &[String]) -> Result<Vec<OwnedKey>, Failure> {
    let schema = table.schema();
    let field = match table.key() {
        [name] => schema.field_with_name(name)?,
        [] => return Err(Failure::Usage(format!("{:?} has no key column to look up; use scan", table.name()))),
        _ => return Err(Failure::Usage(format!("{:?} has several key columns; use scan", table.name()))),
    };
    texts.iter().map(|text| Ok(parse_key(text, field.data_type())?)).collect()
}

/// One value column: the bare value. Several: a JSON object. None: `true`.
fn value_row(rows: &Table, row: usize, values: &[(usize, &FieldRef)], line: &mut Vec<u8>) -> Result<(), Failure> {
    match values {
        [] => line.extend_from_slice(b"true"),
        [(column, field)] => {
            if !value_text(&rows.value(row, *column)?, field, line)? {
                line.extend_from_slice(b"null");
            }
        }
        _ => json_row(rows, row, values, line)?,
    }
    Ok(())
}

fn json_row(rows: &Table, row: usize, columns: &[(usize, &FieldRef)], line: &mut Vec<u8>) -> Result<(), Failure> {
    for (i, (column, field)) in columns.iter().enumerate() {
        line.push(if i == 0 { b'{' } else { b',' });
        serde_json::to_writer(&mut *line, field.name()).map_err(std::io::Error::from)?;
        line.push(b':');
        value_json(&rows.value(row, *column)?, field, line)?;
    }
    line.push(b'}');
    Ok(())
}
