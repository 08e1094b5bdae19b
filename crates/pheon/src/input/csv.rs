//! CSV and TSV through arrow-csv's push decoder, which is fed here so that two of its blind spots are covered: a quote
//! that is never closed, and errors without a place (see [`super::csv_fault`]).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{RecordBatch, RecordBatchOptions, StringViewArray};
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::{Decoder, Format as CsvFormat};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use regex::Regex;

use super::csv_fault::{Fault, find};
use super::{Batches, InputOptions, Source, input, open_file, text};
use crate::error::WriteError;

const READ_BUFFER_BYTES: usize = 1 << 20;
/// A longer record is taken for the effect of an unclosed quote.
const RECORD_BYTES_MAX: u64 = 256 << 20;

pub(super) fn open(source: &Source, target: &SchemaRef, options: &InputOptions) -> Result<Batches, WriteError> {
    let columns: Vec<Column> = source.schema.fields().iter().map(|f| Column::new(f.name(), target, options)).collect();
    let fields: Vec<Field> = columns.iter().map(|c| Field::new(&c.name, c.decoded.clone(), true)).collect();
    let mut format = CsvFormat::default()
        .with_header(options.header)
        .with_delimiter(options.delimiter_of(source.format))
        .with_quote(options.quote_byte());
    if options.null_values != [""] {
        format = format.with_null_regex(null_regex(&options.null_values)?);
    }
    let wanted = columns.iter().enumerate().filter(|(_, c)| c.target.is_some()).map(|(i, _)| i).collect();
    let decoder = ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_format(format)
        .with_projection(wanted)
        .with_batch_size(source.batch_rows)
        .build_decoder();
    let mut rows = Rows {
        path: source.path.clone(),
        reader: BufReader::with_capacity(READ_BUFFER_BYTES, open_file(&source.path)?),
        decoder,
        ended: Ended::No,
        last_byte: b'\n',
        record_bytes: 0,
        rows_read: 0,
    };
    let (format, options) = (source.format, options.clone());
    Ok(Box::new(std::iter::from_fn(move || {
        let batch = rows.next().and_then(|batch| batch.map(|batch| convert(&batch, &columns)).transpose());
        let batch = batch.map_err(|fault| match fault {
            Fault::Io(e) => input(&rows.path, e.to_string()),
            fault => find(&rows.path, format, &options, &columns, rows.rows_read, &fault),
        });
        if let Ok(Some(batch)) = &batch {
            rows.rows_read += batch.num_rows() as u64;
        }
        batch.transpose()
    })))
}

/// A column of the file.
pub(super) struct Column {
    pub(super) name: String,
    /// What arrow-csv makes of it.
    decoded: DataType,
    /// What it is to be, if it is wanted.
    pub(super) target: Option<DataType>,
    /// Whether other rows have decided about the type.
    pub(super) inferred: bool,
}

impl Column {
    /// Strings as views, because an array of the other kind overflows at 2 GiB.
    fn new(name: &str, target: &SchemaRef, options: &InputOptions) -> Self {
        let inferred = !options.types.iter().any(|(column, _)| column == name);
        let target = target.field_with_name(name).ok().map(|field| field.data_type().clone());
        let decoded = match &target {
            Some(wanted) if decodes(wanted, inferred) => wanted.clone(),
            _ => DataType::Utf8View,
        };
        Self { name: name.to_owned(), decoded, target, inferred }
    }
}

/// Whether arrow-csv makes this type from text as it must be. All others go through strings ([`super::text`]).
fn decodes(data_type: &DataType, inferred: bool) -> bool {
    use DataType as D;
    let number = data_type.is_integer() || data_type.is_floating();
    number && !inferred || matches!(data_type, D::Boolean | D::Utf8View)
}

/// The columns in their types.
fn convert(batch: &RecordBatch, columns: &[Column]) -> Result<RecordBatch, Fault> {
    let wanted = columns.iter().filter_map(|column| Some((column, column.target.as_ref()?)));
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for ((column, target), array) in wanted.zip(batch.columns()) {
        if let Some(strings) = array.as_string_view_opt() {
            check_text(strings)?;
        }
        let array = match array.data_type() == target {
            true => array.clone(),
            false => text::convert(array.as_string_view(), target, column.inferred).map_err(Fault::Misfit)?,
        };
        fields.push(Field::new(&column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}

/// arrow-csv looks whether a batch is UTF-8 as a whole, so that two fields beside each other may have the halves of one
/// character.
fn check_text(strings: &StringViewArray) -> Result<(), ArrowError> {
    let is_text = |value: &[u8]| {
        // A part of what is UTF-8 is UTF-8, too, if it begins and ends with whole characters.
        let begins = value.first().is_none_or(|&byte| !is_continuation(byte));
        begins && value.last().is_none_or(u8::is_ascii) || std::str::from_utf8(value).is_ok()
    };
    match strings.clone().to_binary_view().iter().flatten().all(is_text) {
        true => Ok(()),
        false => Err(ArrowError::ParseError("a value is not UTF-8".into())),
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

fn null_regex(values: &[String]) -> Result<Regex, WriteError> {
    let alternatives: Vec<String> = values.iter().map(|v| regex::escape(v)).collect();
    // With no value at all, nothing may match.
    let pattern = if values.is_empty() { r"[^\s\S]".into() } else { format!("^(?:{})$", alternatives.join("|")) };
    Regex::new(&pattern).map_err(|e| WriteError::Options { problem: format!("null_values: {e}") })
}

#[derive(Clone, Copy, PartialEq)]
enum Ended {
    No,
    /// All bytes of the file are decoded, and the decoder has yet to be told.
    Bytes,
    Told,
}

struct Rows {
    path: PathBuf,
    reader: BufReader<std::fs::File>,
    decoder: Decoder,
    ended: Ended,
    last_byte: u8,
    /// Bytes decoded since a record was last completed.
    record_bytes: u64,
    rows_read: u64,
}

impl Rows {
    fn next(&mut self) -> Result<Option<RecordBatch>, Fault> {
        while self.ended == Ended::No && self.decoder.capacity() > 0 {
            let capacity = self.decoder.capacity();
            let bytes = self.reader.fill_buf().map_err(Fault::Io)?;
            if bytes.is_empty() {
                self.ended = Ended::Bytes;
                break;
            }
            let used = self.decoder.decode(bytes)?;
            if used > 0 {
                self.last_byte = bytes[used - 1];
            }
            self.reader.consume(used);
            let completed = self.decoder.capacity() != capacity;
            self.record_bytes = if completed { 0 } else { self.record_bytes + used as u64 };
            if self.record_bytes > RECORD_BYTES_MAX {
                return Err(Fault::OpenQuote);
            }
        }
        if self.ended == Ended::Bytes && self.decoder.capacity() > 0 {
            // A line end completes an unfinished last record, unless it stands between quotes; then the end of the
            // input does.
            if self.last_byte != b'\n' && self.last_byte != b'\r' {
                self.decoder.decode(b"\n")?;
                self.last_byte = b'\n';
            }
            if self.decoder.capacity() > 0 {
                let capacity = self.decoder.capacity();
                self.decoder.decode(b"")?;
                if self.decoder.capacity() != capacity {
                    return Err(Fault::OpenQuote);
                }
                self.ended = Ended::Told;
            }
        }
        Ok(self.decoder.flush()?)
    }
}

impl From<ArrowError> for Fault {
    fn from(e: ArrowError) -> Self {
        Self::Decode(e)
    }
}
