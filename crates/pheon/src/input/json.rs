//! NDJSON: one object a line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_json::ReaderBuilder;
use arrow_schema::{DataType, Field, Schema, SchemaRef};

use super::{Batches, Source, input, open_file, text};
use crate::error::WriteError;

const READ_BUFFER_BYTES: usize = 1 << 20;
/// Rows a batch: objects may be large.
const BATCH_ROWS_MAX: usize = 4096;

pub(super) fn open(source: &Source, target: &SchemaRef) -> Result<Batches, WriteError> {
    let (path, target) = (source.path.clone(), target.clone());
    let schema = decode_schema(source, &target)?;
    let mut decoder = ReaderBuilder::new(Arc::new(schema))
        .with_coerce_primitive(true)
        .with_batch_size(source.batch_rows.min(BATCH_ROWS_MAX))
        .build_decoder()
        .map_err(|e| input(&path, e.to_string()))?;
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, open_file(&path)?);
    super::json_infer::skip_mark(&mut reader).map_err(|e| input(&path, e.to_string()))?;
    let mut rows = 0u64;
    Ok(Box::new(std::iter::from_fn(move || {
        let mut next = || {
            loop {
                let bytes = reader.fill_buf()?;
                let used = decoder.decode(bytes)?;
                let end = bytes.is_empty() || used < bytes.len();
                reader.consume(used);
                if end {
                    return decoder.flush();
                }
            }
        };
        let batch = next().map_err(|e| input(&path, format!("after line {rows}: {e}")));
        let batch = batch.and_then(|batch| batch.map(|batch| convert(&batch, &target, &path, rows)).transpose());
        if let Ok(Some(batch)) = &batch {
            rows += batch.num_rows() as u64;
        }
        batch.transpose()
    })))
}

/// Columns that were decoded as text, in the types that were chosen for them. `rows`: those before this batch.
fn convert(batch: &RecordBatch, target: &SchemaRef, path: &Path, rows: u64) -> Result<RecordBatch, WriteError> {
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (field, array) in target.fields().iter().zip(batch.columns()) {
        let array = match array.as_string_view_opt() {
            Some(texts) if array.data_type() != field.data_type() => text::convert(texts, field.data_type(), false)
                .map_err(|misfit| {
                    let place = match line_of(path, rows + misfit.row as u64) {
                        Some(line) => format!("line {line}"),
                        None => format!("row {}", rows + misfit.row as u64),
                    };
                    let shown: String = texts.value(misfit.row).chars().take(60).collect();
                    let (name, data_type) = (field.name(), field.data_type());
                    input(path, format!("{place}, column {name:?}: {shown:?} is not {data_type}{}", misfit.reason))
                })?,
            _ => array.clone(),
        };
        fields.push(Field::new(field.name(), array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|e| input(path, e.to_string()))
}

/// The line of a row, both counted from 1 and from 0: lines without anything are no rows.
fn line_of(path: &Path, row: u64) -> Option<u64> {
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, open_file(path).ok()?);
    super::json_infer::skip_mark(&mut reader).ok()?;
    let (mut line, mut number, mut rows) = (Vec::new(), 0, 0);
    while reader.read_until(b'\n', &mut line).ok()? > 0 {
        number += 1;
        if !line.trim_ascii().is_empty() {
            if rows == row {
                return Some(number);
            }
            rows += 1;
        }
        line.clear();
    }
    None
}

/// What the decoder is to make of each wanted column. It takes digits straight from the text, so that none are lost on the
/// way to a string or a float; but it cuts off what other types cannot hold, so those go through strings ([`super::text`])
/// unless inference has seen that they hold everything.
fn decode_schema(source: &Source, target: &SchemaRef) -> Result<Schema, WriteError> {
    let mut fields = Vec::with_capacity(target.fields().len());
    for field in target.fields() {
        let (_, inferred) = source.schema.column_with_name(field.name()).expect("unified schemas have known columns");
        let (inferred, chosen) = (inferred.data_type(), field.data_type());
        let refuse = |holds: &str| {
            let problem = format!(
                "column {:?} holds {holds} and was to be read as {chosen}; choose another type, or read it as it is",
                field.name()
            );
            Err(input(&source.path, problem))
        };
        let data_type = match (inferred, chosen) {
            _ if inferred == chosen || *inferred == DataType::Null => chosen.clone(),
            (DataType::Float64, _) if chosen.is_integer() || counts(chosen) => return refuse("fractions"),
            (DataType::UInt64, _) if counts(chosen) => return refuse("integers beyond the range of Int64"),
            (DataType::LargeUtf8, _) if chosen.is_integer() || counts(chosen) => DataType::Utf8View,
            (_, DataType::LargeBinary | DataType::Binary | DataType::BinaryView) => DataType::LargeUtf8,
            _ if chosen.is_decimal() && !inferred.is_nested() => DataType::Utf8View,
            _ if chosen.is_nested() && !is_lossless(inferred, chosen) => {
                return refuse(&format!("{inferred}"));
            }
            _ => chosen.clone(),
        };
        fields.push(Field::new(field.name(), data_type, true));
    }
    Ok(Schema::new(fields))
}

/// Whether a JSON number is a count of units in this type.
fn counts(data_type: &DataType) -> bool {
    data_type.is_temporal()
}

/// Whether the decoder keeps all that values inside of lists and objects say.
fn is_lossless(inferred: &DataType, chosen: &DataType) -> bool {
    use DataType as D;
    match (inferred, chosen) {
        // Places that never had a value.
        (D::Null, _) => true,
        (D::List(a), D::List(b) | D::LargeList(b) | D::FixedSizeList(b, _) | D::ListView(b) | D::LargeListView(b)) => {
            is_lossless(a.data_type(), b.data_type())
        }
        (D::Struct(a), D::Struct(b)) => b.iter().all(|field| {
            let found = a.iter().find(|known| known.name() == field.name());
            found.is_none_or(|known| is_lossless(known.data_type(), field.data_type()))
        }),
        (D::Struct(a), D::Map(entries, _)) => match entries.data_type() {
            D::Struct(pair) if pair.len() == 2 => {
                a.iter().all(|field| is_lossless(field.data_type(), pair[1].data_type()))
            }
            _ => false,
        },
        (D::Int64 | D::UInt64, _) if chosen.is_integer() => true,
        (D::Int64, _) if counts(chosen) => true,
        _ => inferred == chosen || chosen.is_string() || chosen.is_floating() || *chosen == D::Boolean,
    }
}
