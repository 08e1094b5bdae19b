//! Values as text: strings as they are, everything else as in JSON.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use arrow_schema::{ArrowError, DataType, FieldRef};
use pheon::Value;

use crate::msgpack;

/// Prints the cells of a batch.
pub(crate) struct Cells<'a> {
    columns: Vec<Column<'a>>,
}

struct Column<'a> {
    field: &'a FieldRef,
    array: &'a ArrayRef,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Str,
    Bytes,
    Json(NullableEncoder<'a>),
}

impl<'a> Cells<'a> {
    pub(crate) fn new(batch: &'a RecordBatch, options: &'a EncoderOptions) -> Result<Self, ArrowError> {
        let fields = batch.schema_ref().fields().iter();
        let columns = fields.zip(batch.columns()).map(|(field, array)| Column::new(field, array, options));
        Ok(Self { columns: columns.collect::<Result<_, _>>()? })
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    pub(crate) fn name(&self, column: usize) -> &str {
        self.columns[column].field.name()
    }

    /// Appends a cell as JSON.
    pub(crate) fn json(&mut self, column: usize, row: usize, out: &mut Vec<u8>) {
        self.columns[column].json(row, out);
    }

    /// Appends a cell as text; false if it is null, of which there is no text.
    pub(crate) fn text(&mut self, column: usize, row: usize, out: &mut Vec<u8>) -> bool {
        self.columns[column].text(row, out)
    }
}

impl<'a> Column<'a> {
    fn new(field: &'a FieldRef, array: &'a ArrayRef, options: &'a EncoderOptions) -> Result<Self, ArrowError> {
        let kind = match array.data_type() {
            DataType::LargeUtf8 => Kind::Str,
            DataType::LargeBinary | DataType::FixedSizeBinary(_) => Kind::Bytes,
            _ => Kind::Json(make_encoder(field, array, options)?),
        };
        Ok(Self { field, array, kind })
    }

    fn json(&mut self, row: usize, out: &mut Vec<u8>) {
        if self.array.is_null(row) {
            return out.extend_from_slice(b"null");
        }
        match &mut self.kind {
            Kind::Str => quote(self.array.as_string::<i64>().value(row), out),
            Kind::Bytes => bytes_json(bytes_of(self.array, row), self.field, out),
            Kind::Json(encoder) if encoder.is_null(row) => out.extend_from_slice(b"null"),
            Kind::Json(encoder) => encoder.encode(row, out),
        }
    }

    fn text(&mut self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.array.is_null(row) {
            return false;
        }
        match &mut self.kind {
            Kind::Str => out.extend_from_slice(self.array.as_string::<i64>().value(row).as_bytes()),
            Kind::Bytes => out.extend_from_slice(bytes_text(bytes_of(self.array, row), self.field).as_bytes()),
            Kind::Json(_) => {
                let start = out.len();
                self.json(row, out);
                if &out[start..] == b"null" {
                    out.truncate(start);
                    return false;
                }
                // Dates, decimals, dictionary strings: a JSON string is shown without its quotes.
                if out[start] == b'"'
                    && let Ok(text) = serde_json::from_slice::<String>(&out[start..])
                {
                    out.truncate(start);
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        true
    }
}

/// Bytes as JSON: what they stand for where a codec says so, else a string.
fn bytes_json(bytes: &[u8], field: &FieldRef, out: &mut Vec<u8>) {
    match decoded(bytes, field) {
        Some(json) => out.extend_from_slice(json.as_bytes()),
        None => quote(&show_bytes(bytes), out),
    }
}

fn bytes_text(bytes: &[u8], field: &FieldRef) -> String {
    match decoded(bytes, field) {
        Some(json) if json.starts_with('"') => serde_json::from_str(&json).unwrap_or(json),
        Some(json) => json,
        None => show_bytes(bytes),
    }
}

/// Pickled values stay bytes: to unpickle is to run a program.
fn decoded(bytes: &[u8], field: &FieldRef) -> Option<String> {
    field.metadata().get(CODEC_KEY).is_some_and(|codec| codec == "msgpack").then(|| msgpack::to_json(bytes)).flatten()
}

/// Field metadata that says how Python values are encoded.
const CODEC_KEY: &str = "pheon.codec";

fn bytes_of(array: &ArrayRef, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        _ => array.as_fixed_size_binary().value(row),
    }
}

/// How nested values are printed: null members are written out.
pub(crate) fn encoder_options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true)
}

/// Bytes as text where they are text that looks like it, else as `0x` and hexadecimal digits. Both forms are accepted
/// as keys.
pub(crate) fn show_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("0x") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => {
            let mut hex = String::with_capacity(2 + 2 * bytes.len());
            hex.push_str("0x");
            for byte in bytes {
                hex.push_str(&format!("{byte:02x}"));
            }
            hex
        }
    }
}

fn quote(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// Appends one value as JSON. Takes the value alone, so that a lookup in a huge dataset does not touch whole columns.
pub(crate) fn value_json(value: &Value<'_>, field: &FieldRef, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        Value::Int(v) => out.extend_from_slice(v.to_string().as_bytes()),
        Value::UInt(v) => out.extend_from_slice(v.to_string().as_bytes()),
        Value::Float(v) if !v.is_finite() => out.extend_from_slice(b"null"),
        Value::Float(v) => out.extend_from_slice(show_float(*v, field).as_bytes()),
        Value::Str(v) => quote(v, out),
        Value::Bytes(v) => bytes_json(v, field, out),
        Value::Array(array) => Column::new(field, array, &encoder_options())?.json(0, out),
        other => unreachable!("a value of a kind that this command does not know: {other:?}"),
    }
    Ok(())
}

/// Appends one value as text; false if it is null.
pub(crate) fn value_text(value: &Value<'_>, field: &FieldRef, out: &mut Vec<u8>) -> Result<bool, ArrowError> {
    match value {
        Value::Null => return Ok(false),
        Value::Str(v) => out.extend_from_slice(v.as_bytes()),
        Value::Bytes(v) => out.extend_from_slice(bytes_text(v, field).as_bytes()),
        Value::Float(v) => out.extend_from_slice(show_float(*v, field).as_bytes()),
        Value::Array(array) => return Ok(Column::new(field, array, &encoder_options())?.text(0, out)),
        other => value_json(other, field, out)?,
    }
    Ok(true)
}

/// The shortest text that reads back as the same number of the column's width.
fn show_float(value: f64, field: &FieldRef) -> String {
    match field.data_type() {
        DataType::Float32 | DataType::Float16 => format!("{:?}", value as f32),
        _ => format!("{value:?}"),
    }
}
