//! Functions that make much of little: their answers are bounded, as no memory pool counts them.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::scalar::ScalarValue;

use crate::error::SqlError;

/// Functions whose answer's length is one of their arguments.
const GUARDED: [(&str, usize); 8] = [
    ("repeat", 1),
    ("lpad", 1),
    ("rpad", 1),
    ("array_repeat", 1),
    ("array_resize", 1),
    ("range", 1),
    ("generate_series", 1),
    ("space", 0),
];
/// The greatest such argument, and the sum over a batch.
const COUNT_MAX: i64 = 16 << 20;
const BATCH_COUNT_MAX: i64 = 64 << 20;

/// Puts bounds on the arguments of such functions.
pub(crate) fn guard(state: &mut SessionState) -> std::result::Result<(), SqlError> {
    for (name, argument) in GUARDED {
        if let Ok(inner) = state.udf(name) {
            let guarded = ScalarUDF::new_from_impl(Guarded { inner, argument });
            state.register_udf(Arc::new(guarded))?;
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    /// The argument that says how much.
    argument: usize,
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // range(n) counts to its only argument.
        let argument = self.argument.min(args.args.len().saturating_sub(1));
        if let Some(count) = args.args.get(argument) {
            self.check(count, args.number_rows)?;
        }
        self.inner.invoke_with_args(args)
    }
}

impl Guarded {
    fn check(&self, count: &ColumnarValue, rows: usize) -> Result<()> {
        let refused = |found: i64, max: i64| {
            let problem = format!("{}: {found} is too much in one go, at most {max} is allowed", self.inner.name());
            Err(SqlError::Limit { problem }.into_datafusion())
        };
        let number = |value: &ScalarValue| match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(n))) => n.unsigned_abs().min(i64::MAX as u64) as i64,
            _ => 0,
        };
        let (greatest, sum) = match count {
            ColumnarValue::Scalar(value) => {
                let n = number(value);
                (n, n.saturating_mul(rows.max(1) as i64))
            }
            ColumnarValue::Array(array) => {
                let (mut greatest, mut sum) = (0i64, 0i64);
                for row in 0..array.len() {
                    let n = number(&ScalarValue::try_from_array(array, row)?);
                    greatest = greatest.max(n);
                    sum = sum.saturating_add(n);
                }
                (greatest, sum)
            }
        };
        match (greatest > COUNT_MAX, sum > BATCH_COUNT_MAX) {
            (true, _) => refused(greatest, COUNT_MAX),
            (_, true) => refused(sum, BATCH_COUNT_MAX),
            _ => Ok(()),
        }
    }
}
