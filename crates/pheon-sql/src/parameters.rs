//! The parameters of a statement: their types, and values for them.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ParamValues;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;

use crate::error::SqlError;

/// Of a value whose length may be any.
const OFFSET_BYTES: usize = 8;

/// One field a placeholder, in order; Null where the type cannot be inferred.
pub(crate) fn schema_of(plan: Option<&LogicalPlan>, count: usize) -> Result<SchemaRef, SqlError> {
    let known = plan.map(LogicalPlan::get_parameter_fields).transpose()?.unwrap_or_default();
    let field = |number: usize| {
        let name = format!("${number}");
        let data_type = match known.get(&name) {
            Some(Some(field)) => field.data_type().clone(),
            _ => DataType::Null,
        };
        Field::new(name, data_type, true)
    };
    Ok(Arc::new(Schema::new((1..=count).map(field).collect::<Vec<_>>())))
}

/// Whether some type is not known.
pub(crate) fn is_open(schema: &Schema) -> bool {
    schema.fields().iter().any(|f| *f.data_type() == DataType::Null)
}

/// Gives placeholders whose type is not known that of the values.
pub(crate) fn with_types(plan: LogicalPlan, given: &Schema) -> Result<LogicalPlan, SqlError> {
    let field_of = |id: &str| -> Option<FieldRef> {
        let number = id.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?;
        let field = given.fields().get(number)?;
        Some(Arc::new(Field::new(id, field.data_type().clone(), true)))
    };
    let plan = plan.transform_up_with_subqueries(|node| {
        let changed = node.map_expressions(|e| {
            e.transform_up(|e| match e {
                Expr::Placeholder(Placeholder { id, field: None }) => {
                    let field = field_of(&id);
                    Ok(Transformed::yes(Expr::Placeholder(Placeholder { id, field })))
                }
                other => Ok(Transformed::no(other)),
            })
        })?;
        if !changed.transformed {
            return Ok(changed);
        }
        changed.map_data(LogicalPlan::recompute_schema)
    });
    Ok(plan.data()?)
}

/// Bytes that values take at least once they have the statement's types, which those do not that have them already.
pub(crate) fn conformed_bytes(values: &RecordBatch, expected: &SchemaRef) -> usize {
    let columns = values.columns().iter().zip(expected.fields());
    let others = columns.filter(|(column, field)| column.data_type() != field.data_type());
    others
        .map(|(column, field)| column.len().saturating_mul(width_of(field.data_type())))
        .fold(0, usize::saturating_add)
}

/// Bytes that each value of a type takes at least.
fn width_of(data_type: &DataType) -> usize {
    let of_fixed = |width: &i32| usize::try_from(*width).unwrap_or(0);
    match data_type {
        DataType::Null => 0,
        DataType::FixedSizeBinary(width) => of_fixed(width),
        DataType::FixedSizeList(field, width) => width_of(field.data_type()).saturating_mul(of_fixed(width)),
        DataType::Struct(fields) => fields.iter().map(|f| width_of(f.data_type())).fold(0, usize::saturating_add),
        other => other.primitive_width().unwrap_or(OFFSET_BYTES),
    }
}

/// Values in the statement's types, by position.
pub(crate) fn conform(values: &RecordBatch, expected: &SchemaRef) -> Result<RecordBatch, SqlError> {
    if values.num_columns() != expected.fields().len() {
        let problem =
            format!("the statement has {} parameters, {} were given", expected.fields().len(), values.num_columns());
        return Err(SqlError::Parameters { problem });
    }
    let columns = values.columns().iter().zip(expected.fields()).map(|(column, field)| {
        cast(column, field.data_type())
            .map_err(|e| SqlError::Parameters { problem: format!("parameter {}: {e}", field.name()) })
    });
    let options = RecordBatchOptions::new().with_row_count(Some(values.num_rows()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new_with_options(expected.clone(), columns, &options)?)
}

pub(crate) fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, arrow_schema::ArrowError> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })
}

/// One row of values for [`LogicalPlan::replace_params_with_values`].
pub(crate) fn row(values: &RecordBatch, row: usize) -> Result<ParamValues, SqlError> {
    let scalars = values.columns().iter().map(|column| ScalarValue::try_from_array(column, row));
    Ok(ParamValues::from(scalars.collect::<Result<Vec<_>, _>>()?))
}
