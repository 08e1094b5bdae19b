//! CSV and TSV through arrow-csv's push decoder, which is fed here so that two of its blind spots are covered: a quote
//! that is never closed, and errors without a place (see [`super::csv_fault`]).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::{Decoder, Format as CsvFormat};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use regex::Regex;

use super::csv_fault::{Fault, find};
use super::{Batches, InputOptions, Source, input, open_file};
use crate::error::WriteError;

const READ_BUFFER_BYTES: usize = 1 << 20;
/// A longer record is taken for the effect of an unclosed quote.
const RECORD_BYTES_MAX: u64 = 256 << 20;

pub(super) fn open(source: &Source, target: &SchemaRef, options: &InputOptions) -> Result<Batches, WriteError> {
    let schema = Arc::new(decode_schema(source, target));
    let mut format = CsvFormat::default()
        .with_header(options.header)
        .with_delimiter(options.delimiter_of(source.format))
        .with_quote(options.quote_byte());
    if options.null_values != [""] {
        format = format.with_null_regex(null_regex(&options.null_values)?);
    }
    let wanted = schema.fields().iter().enumerate();
    let wanted = wanted.filter(|(_, f)| target.index_of(f.name()).is_ok()).map(|(i, _)| i).collect();
    let decoder = ReaderBuilder::new(schema.clone())
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
    let (format, target, options) = (source.format, target.clone(), options.clone());
    Ok(Box::new(std::iter::from_fn(move || {
        let batch = rows.next().map_err(|fault| match fault {
            Fault::Io(e) => input(&rows.path, e.to_string()),
            fault => find(&rows.path, format, &options, &schema, &target, rows.rows_read, &fault),
        });
        if let Ok(Some(batch)) = &batch {
            rows.rows_read += batch.num_rows() as u64;
        }
        batch.transpose()
    })))
}

/// All columns of the file, in types that arrow-csv can decode: strings as views, because an array of the other kind
/// overflows at 2 GiB.
fn decode_schema(source: &Source, target: &SchemaRef) -> Schema {
    let fields = source.schema.fields().iter().map(|field| {
        let data_type = match target.field_with_name(field.name()) {
            Ok(wanted) if decodes(wanted.data_type()) => wanted.data_type().clone(),
            _ => DataType::Utf8View,
        };
        Field::new(field.name(), data_type, true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// Whether arrow-csv makes this type from text itself. All others go through strings and a cast.
fn decodes(data_type: &DataType) -> bool {
    use DataType as D;
    data_type.is_integer()
        || data_type.is_floating()
        || data_type.is_decimal()
        || matches!(data_type, D::Boolean | D::Date32 | D::Date64 | D::Timestamp(..) | D::Utf8View)
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
