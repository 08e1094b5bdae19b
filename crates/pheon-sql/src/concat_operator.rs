//! `||` as a function, so that it can be guarded like one.

use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_plan::PhysicalExpr;

/// Does what the operator does.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConcatOperator {
    signature: Signature,
}

impl ConcatOperator {
    pub(crate) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ConcatOperator {
    fn name(&self) -> &'static str {
        "||"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!("{} || {}", left.schema_name(), right.schema_name())),
            _ => Ok("||".to_owned()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = types else { return datafusion::common::plan_err!("|| takes two values") };
        let (left, right) = BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else { return datafusion::common::plan_err!("|| takes two values") };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        let mut operands: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
        for arg in args.args {
            operands.push(match arg {
                ColumnarValue::Scalar(value) => Arc::new(Literal::new(value)),
                ColumnarValue::Array(array) => {
                    let name = fields.len().to_string();
                    fields.push(Field::new(&name, array.data_type().clone(), true));
                    arrays.push(array);
                    Arc::new(Column::new(&name, fields.len() - 1))
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(args.number_rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?;
        let [left, right] = operands.as_slice() else { return datafusion::common::plan_err!("|| takes two values") };
        BinaryExpr::new(left.clone(), Operator::StringConcat, right.clone()).evaluate(&batch)
    }
}
