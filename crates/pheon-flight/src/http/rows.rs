//! Rows as the page shows them: text.

use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, SchemaRef};
use serde_json::{Value, json};

/// Of a cell; the rest is cut.
const CELL_CHARS_MAX: usize = 200;

/// A list of cells a row; null as null.
pub(super) fn rows(batch: &RecordBatch) -> Result<Vec<Value>, ArrowError> {
    let options = FormatOptions::default();
    let formats =
        batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut cells = Vec::with_capacity(formats.len());
        for (column, format) in batch.columns().iter().zip(&formats) {
            cells.push(if column.is_null(row) {
                Value::Null
            } else {
                let text = format.value(row).try_to_string()?;
                let mut cut: String = text.chars().take(CELL_CHARS_MAX).collect();
                if cut.len() < text.len() {
                    cut.push('…');
                }
                Value::String(cut)
            });
        }
        rows.push(Value::Array(cells));
    }
    Ok(rows)
}

/// Names and types, and which are numbers: they stand to the right.
pub(super) fn columns(schema: &SchemaRef) -> Vec<Value> {
    let of = |field: &Arc<arrow_schema::Field>| {
        let number = field.data_type().is_numeric();
        json!({ "name": field.name(), "type": field.data_type().to_string(), "number": number })
    };
    schema.fields().iter().map(of).collect()
}
