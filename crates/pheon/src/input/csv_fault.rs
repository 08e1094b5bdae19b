//! Finds the place of a fault in a CSV file. The fast decoder counts rows, not lines, and not every error names its
//! column; so after an error the file is read once more, slowly, up to the record that does not fit.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use csv::ByteRecord;

use super::csv_infer::records;
use super::{Format, InputOptions, input, open_file};
use crate::error::WriteError;

/// Why decoding stopped.
pub(super) enum Fault {
    Io(io::Error),
    Decode(ArrowError),
    OpenQuote,
}

/// The error for a fault in one of the records after the first `rows_good`.
pub(super) fn find(
    path: &Path,
    format: Format,
    options: &InputOptions,
    schema: &Schema,
    target: &SchemaRef,
    rows_good: u64,
    fault: &Fault,
) -> WriteError {
    let text = match fault {
        Fault::OpenQuote => open_quote(path, format, options),
        _ => bad_record(path, format, options, schema, target, rows_good),
    };
    match (text, fault) {
        (Ok(Some(text)), _) => input(path, text),
        (_, Fault::Decode(e)) => input(path, format!("in a record after row {rows_good}: {e}")),
        _ => input(path, format!("a quote is opened and not closed in a record after row {rows_good}")),
    }
}

fn bad_record(
    path: &Path,
    format: Format,
    options: &InputOptions,
    schema: &Schema,
    target: &SchemaRef,
    rows_good: u64,
) -> Result<Option<String>, WriteError> {
    let mut reader = records(open_file(path)?, format, options);
    let mut record = ByteRecord::new();
    let mut skip = rows_good + u64::from(options.header);
    while reader.read_byte_record(&mut record).map_err(|e| input(path, e.to_string()))? {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != schema.fields().len() {
            return Ok(Some(format!(
                "line {line} has {} fields, expected {} as in the first line",
                record.len(),
                schema.fields().len()
            )));
        }
        for (field, value) in schema.fields().iter().zip(&record) {
            let Ok(value) = std::str::from_utf8(value) else {
                let text = value[..value.len().min(60)].escape_ascii();
                return Ok(Some(format!("line {line}, column {:?}: \"{text}\" is not UTF-8", field.name())));
            };
            let wanted = target.field_with_name(field.name()).is_ok();
            if wanted && !options.null_values.iter().any(|null| null == value) && !fits(value, field.data_type()) {
                let shown: String = value.chars().take(60).collect();
                return Ok(Some(format!(
                    "line {line}, column {:?}: {shown:?} is not {}, the type of the values before it; read the column as str, or let \
                     more rows decide (infer_rows)",
                    field.name(),
                    field.data_type()
                )));
            }
        }
    }
    Ok(None)
}

fn fits(value: &str, data_type: &DataType) -> bool {
    match data_type {
        // The cast takes "yes" and "1" too, the decoder does not.
        DataType::Boolean => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
        DataType::Utf8View => true,
        _ => {
            let array: ArrayRef = Arc::new(StringArray::from(vec![value]));
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(&array, data_type, &options).is_ok()
        }
    }
}

/// The last record is the one whose quote stays open.
fn open_quote(path: &Path, format: Format, options: &InputOptions) -> Result<Option<String>, WriteError> {
    // Bounded: the record itself may be the rest of a huge file.
    let mut reader = records(open_file(path)?, format, options);
    let mut record = ByteRecord::new();
    let mut line = None;
    while reader.read_byte_record(&mut record).map_err(|e| input(path, e.to_string()))? {
        line = record.position().map(csv::Position::line);
    }
    Ok(line.map(|line| {
        format!(
            "the record that begins in line {line} opens a quote that is never closed; close it, double quotes inside of quotes, or read \
             the file without quotes"
        )
    }))
}
