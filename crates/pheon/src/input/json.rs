//! NDJSON: one object a line.

use std::io::{BufRead, BufReader};

use arrow_json::ReaderBuilder;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

use super::{Batches, Source, input, open_file};
use crate::error::WriteError;

const READ_BUFFER_BYTES: usize = 1 << 20;
/// Rows a batch: objects may be large.
const BATCH_ROWS_MAX: usize = 4096;

pub(super) fn open(source: &Source, target: &SchemaRef) -> Result<Batches, WriteError> {
    let path = source.path.clone();
    let schema = decode_schema(source, target)?;
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
        if let Ok(Some(batch)) = &batch {
            rows += batch.num_rows() as u64;
        }
        batch.transpose()
    })))
}

/// What the decoder is to make of each wanted column. Chosen types are decoded straight from the text, so that digits
/// are not lost on the way, except that integers must not be made from fractions.
fn decode_schema(source: &Source, target: &SchemaRef) -> Result<Schema, WriteError> {
    let mut fields = Vec::with_capacity(target.fields().len());
    for field in target.fields() {
        let (_, inferred) = source.schema.column_with_name(field.name()).expect("unified schemas have known columns");
        let data_type = match (inferred.data_type(), field.data_type()) {
            (DataType::Float64, chosen) if chosen.is_integer() => {
                let problem = format!("column {:?} holds fractions and was to be read as {chosen}", field.name());
                return Err(input(&source.path, problem));
            }
            // Through strings: the cast refuses what is no integer, the decoder would cut fractions off.
            (DataType::LargeUtf8, chosen) if chosen.is_integer() => DataType::LargeUtf8,
            (_, DataType::LargeBinary | DataType::Binary | DataType::BinaryView) => DataType::LargeUtf8,
            (_, chosen) => chosen.clone(),
        };
        fields.push(Field::new(field.name(), data_type, true));
    }
    Ok(Schema::new(fields))
}
