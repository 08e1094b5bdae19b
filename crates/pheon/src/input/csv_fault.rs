//! Finds the place of a fault in a CSV file. The fast decoder counts rows, not lines, and not every error names its
//! column; so after an error the file is read once more, slowly, up to the record that does not fit.

use std::io;
use std::path::Path;

use arrow_array::StringViewArray;
use arrow_schema::{ArrowError, DataType};
use csv::ByteRecord;

use super::csv::Column;
use super::csv_infer::records;
use super::text::{Misfit, convert};
use super::{Format, InputOptions, input, open_file};
use crate::error::WriteError;

/// Why decoding stopped.
pub(super) enum Fault {
    Io(io::Error),
    Decode(ArrowError),
    /// A text in a wanted column is no value of its type.
    Misfit(Misfit),
    OpenQuote,
}

/// The error for a fault in one of the records after the first `rows_good`.
pub(super) fn find(
    path: &Path,
    format: Format,
    options: &InputOptions,
    columns: &[Column],
    rows_good: u64,
    fault: &Fault,
) -> WriteError {
    let text = match fault {
        Fault::OpenQuote => open_quote(path, format, options),
        _ => bad_record(path, format, options, columns, rows_good),
    };
    match (text, fault) {
        (Ok(Some(text)), _) => input(path, text),
        (_, Fault::Misfit(misfit)) => {
            let row = rows_good + misfit.row as u64;
            input(path, format!("in the record after row {row}: a value does not fit{}", misfit.reason))
        }
        (_, Fault::Decode(e)) => input(path, format!("in a record after row {rows_good}: {e}")),
        _ => input(path, format!("a quote is opened and not closed in a record after row {rows_good}")),
    }
}

fn bad_record(
    path: &Path,
    format: Format,
    options: &InputOptions,
    columns: &[Column],
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
        if record.len() != columns.len() {
            return Ok(Some(format!(
                "line {line} has {} fields, expected {} as in the first line",
                record.len(),
                columns.len()
            )));
        }
        for (column, value) in columns.iter().zip(&record) {
            let Ok(value) = std::str::from_utf8(value) else {
                let text = value[..value.len().min(60)].escape_ascii();
                return Ok(Some(format!("line {line}, column {:?}: \"{text}\" is not UTF-8", column.name)));
            };
            let Some(target) = &column.target else { continue };
            if options.null_values.iter().any(|null| null == value) {
                continue;
            }
            if let Err(reason) = fits(value, target, column.inferred) {
                let shown: String = value.chars().take(60).collect();
                let (whose, advice) = match column.inferred {
                    true => (
                        "the type of the values before it",
                        "; read the column as str, or let more rows decide (infer_rows)",
                    ),
                    false => ("the type that was chosen", "; choose another type, or read the column as str"),
                };
                return Ok(Some(format!(
                    "line {line}, column {:?}: {shown:?} is not {target}, {whose}{reason}{advice}",
                    column.name
                )));
            }
        }
    }
    Ok(None)
}

fn fits(value: &str, target: &DataType, inferred: bool) -> Result<(), String> {
    match target {
        // The cast takes "yes" and "1" too, the decoder does not.
        DataType::Boolean if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => Ok(()),
        DataType::Boolean => Err(String::new()),
        DataType::Utf8View => Ok(()),
        _ => {
            let array = StringViewArray::from(vec![value]);
            convert(&array, target, inferred).map(drop).map_err(|misfit| misfit.reason)
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
