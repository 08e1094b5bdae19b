//! The columns of a CSV file: names from its header, types from its first rows.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{Date32Type, Float64Type, Int64Type};
use arrow_cast::parse::{Parser, string_to_datetime};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use csv::{ByteRecord, Reader, ReaderBuilder};

use super::text::{fraction_digits, is_exact};
use super::{Format, InputOptions, Source, input, open_file};
use crate::error::WriteError;

/// At most this much of a file is looked at: an opening quote that is never closed makes one record of all the rest.
const SAMPLE_BYTES_MAX: u64 = 1 << 30;
const HEADER_BYTES_MAX: u64 = 16 << 20;
/// Batches are so many rows that they hold about this much text.
const BATCH_BYTES: u64 = 16 << 20;

/// A reader that accepts records of any length and counts lines.
pub(super) fn records<R: Read>(source: R, format: Format, options: &InputOptions) -> Reader<R> {
    ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(options.delimiter_of(format))
        .quoting(options.quote.is_some())
        .quote(options.quote_byte())
        .buffer_capacity(256 * 1024)
        .from_reader(source)
}

pub(super) fn look(path: &Path, format: Format, file_bytes: u64, options: &InputOptions) -> Result<Source, WriteError> {
    let names = column_names(path, format, options)?;
    let chosen = |name: &String| {
        options.types.iter().any(|(n, _)| n == name) || options.columns.as_ref().is_some_and(|c| !c.contains(name))
    };
    let mut columns: Vec<Guess> =
        names.iter().map(|name| if chosen(name) { Guess::STRING } else { Guess::default() }).collect();

    let sample = open_file(path)?.take(SAMPLE_BYTES_MAX);
    let mut reader = records(sample, format, options);
    let mut record = ByteRecord::new();
    let fault = |e: csv::Error| input(path, format!("while its types were looked for: {e}"));
    if options.header {
        reader.read_byte_record(&mut record).map_err(fault)?;
    }
    let start = reader.position().byte();
    let rows_max = options.infer_rows.unwrap_or(u64::MAX);
    let mut rows = 0u64;
    while rows < rows_max && (rows < ROWS_MIN || columns.iter().any(|c| c.possible != 0)) {
        if !reader.read_byte_record(&mut record).map_err(fault)? || reader.position().byte() >= SAMPLE_BYTES_MAX {
            break;
        }
        rows += 1;
        for (column, field) in columns.iter_mut().zip(&record) {
            // Text that is not UTF-8 is reported with its line when it is decoded.
            match std::str::from_utf8(field) {
                Ok(field) if !options.null_values.iter().any(|null| null == field) => column.see(field),
                _ => {}
            }
        }
    }
    let row_bytes = ((reader.position().byte() - start) / rows.max(1)).max(1);
    let fields: Vec<Field> = names.iter().zip(&columns).map(|(n, c)| Field::new(n, c.data_type(), true)).collect();
    Ok(Source {
        path: path.into(),
        format,
        schema: Arc::new(Schema::new(fields)),
        rows_estimate: Some(file_bytes.saturating_sub(start) / row_bytes),
        batch_rows: (BATCH_BYTES / row_bytes).clamp(1, 1 << 20) as usize,
    })
}

/// So many rows are read in any case, to estimate how long rows are.
const ROWS_MIN: u64 = 1000;

fn column_names(path: &Path, format: Format, options: &InputOptions) -> Result<Vec<String>, WriteError> {
    let mut reader = records(open_file(path)?.take(HEADER_BYTES_MAX), format, options);
    let mut record = ByteRecord::new();
    let found = reader.read_byte_record(&mut record).map_err(|e| input(path, e.to_string()))?;
    if !found {
        return Err(input(path, "the file is empty; expected at least a line with the column names"));
    }
    if !options.header {
        return Ok((1..=record.len()).map(|i| format!("column_{i}")).collect());
    }
    record
        .iter()
        .map(|name| match std::str::from_utf8(name) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => {
                let text = name[..name.len().min(40)].escape_ascii();
                Err(input(path, format!("line 1: column name \"{text}\" is not UTF-8; expected a text file in UTF-8")))
            }
        })
        .collect()
}

const BOOL: u8 = 1;
const INT: u8 = 2;
const FLOAT: u8 = 4;
const DATE: u8 = 8;
const TIMESTAMP: u8 = 16;
const TIMESTAMP_ZONED: u8 = 32;

/// Which types every value so far would have.
#[derive(Clone, Copy)]
pub(super) struct Guess {
    possible: u8,
    any: bool,
    nanoseconds: bool,
    /// Integers that no float is have been seen.
    inexact: bool,
}

impl Default for Guess {
    fn default() -> Self {
        let possible = BOOL | INT | FLOAT | DATE | TIMESTAMP | TIMESTAMP_ZONED;
        Self { possible, any: false, nanoseconds: false, inexact: false }
    }
}

impl Guess {
    const STRING: Self = Self { possible: 0, any: true, nanoseconds: false, inexact: false };

    /// What one text alone says.
    pub(super) fn of(text: &str) -> Self {
        let mut guess = Self::default();
        guess.see(text);
        guess
    }

    /// The same for a text that is known to be a date or a timestamp.
    pub(super) fn of_shape(text: &str) -> Self {
        let mut guess = Self::default();
        guess.see_shape(text, |_| true);
        guess
    }

    fn see(&mut self, text: &str) {
        self.see_shape(text, |text| string_to_datetime(&chrono_utc(), text).is_ok());
    }

    fn see_shape(&mut self, text: &str, is_timestamp: impl Fn(&str) -> bool) {
        self.any = true;
        if self.possible == 0 {
            return;
        }
        let mut fits = 0;
        if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            fits = BOOL;
        } else if is_integer(text) {
            // Digits with leading zeros name something; as numbers they would not come back as they were.
            let digits = text.strip_prefix('-').unwrap_or(text);
            if (digits.len() == 1 || !digits.starts_with('0'))
                && let Some(integer) = Int64Type::parse(text)
            {
                // Only a float has a sign before a zero.
                fits = if text == "-0" { FLOAT } else { INT | FLOAT };
                self.inexact |= !is_exact(integer.into());
            }
        } else if is_float(text) {
            fits = FLOAT;
        } else if is_date(text.as_bytes()) {
            if text.len() == 10 {
                fits = if Date32Type::parse(text).is_some() { DATE } else { 0 };
            } else if matches!(text.as_bytes().get(10), Some(b'T' | b' ')) && is_timestamp(text) {
                let fraction_digits = fraction_digits(text);
                self.nanoseconds |= fraction_digits > 6;
                let zoned = has_zone(text);
                fits = match fraction_digits {
                    // No type holds them all.
                    10.. => 0,
                    _ if zoned => TIMESTAMP_ZONED,
                    _ => TIMESTAMP,
                };
            }
        }
        self.possible &= fits;
    }

    /// Whether what was seen can stand in a column of this inferred type.
    pub(super) fn fits(self, data_type: &DataType) -> bool {
        let kind = match data_type {
            DataType::Boolean => BOOL,
            DataType::Int64 => INT,
            DataType::Float64 => FLOAT,
            DataType::Date32 => DATE,
            DataType::Timestamp(_, None) => TIMESTAMP,
            DataType::Timestamp(_, Some(_)) => TIMESTAMP_ZONED,
            _ => return true,
        };
        self.possible & kind != 0
    }

    fn data_type(self) -> DataType {
        let unit = if self.nanoseconds { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
        match self.possible {
            _ if !self.any => DataType::Null,
            p if p & BOOL != 0 => DataType::Boolean,
            p if p & INT != 0 => DataType::Int64,
            // Fractions and integers that only an integer column holds: neither type has room for both.
            p if p & FLOAT != 0 && self.inexact => DataType::LargeUtf8,
            p if p & FLOAT != 0 => DataType::Float64,
            p if p & DATE != 0 => DataType::Date32,
            p if p & TIMESTAMP != 0 => DataType::Timestamp(unit, None),
            p if p & TIMESTAMP_ZONED != 0 => DataType::Timestamp(unit, Some("UTC".into())),
            _ => DataType::LargeUtf8,
        }
    }
}

/// Whether a timestamp says where it was taken.
pub(super) fn has_zone(text: &str) -> bool {
    text.bytes().skip(11).any(|c| !(c.is_ascii_digit() || c == b':' || c == b'.'))
}

pub(super) fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
}

fn is_float(text: &str) -> bool {
    if matches!(text, "NaN" | "nan" | "inf" | "-inf") {
        return true;
    }
    let numeric = |c: u8| c.is_ascii_digit() || b"+-.eE".contains(&c);
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    digits.first().is_some_and(|c| c.is_ascii_digit() || *c == b'.')
        && text.bytes().all(numeric)
        && Float64Type::parse(text).is_some()
}

/// Whether the text begins as `2024-01-31`.
fn is_date(text: &[u8]) -> bool {
    text.len() >= 10
        && text[..10].iter().enumerate().all(|(i, c)| if i == 4 || i == 7 { *c == b'-' } else { c.is_ascii_digit() })
}

fn chrono_utc() -> arrow_array::timezone::Tz {
    "+00:00".parse().expect("a zone offset")
}
