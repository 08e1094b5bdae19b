//! Functions that make much of little: their answers are bounded before they are made, as no memory pool counts them.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::concat_operator::ConcatOperator;
use crate::error::SqlError;
use crate::extent::{Extent, Extents, counts_of, length_of_range};

/// Bytes of one value that a function makes.
const VALUE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of the values that it makes in one go, for the rows of a batch.
const BATCH_BYTES_MAX: u64 = 256 << 20;

/// How large a function's answer can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// As all arguments together.
    Sum,
    /// As the first, so many times as this argument says.
    Times(usize),
    /// So many characters as this argument says.
    Padded(usize),
    /// As the first, with the last one in place of each of its bytes, and before and after.
    Replaced,
    /// The elements of the first with the second between them.
    Joined,
    /// So many elements as there are steps from the first to the second.
    Range,
}

const GUARDED: [(&str, Growth); 22] = [
    ("repeat", Growth::Times(1)),
    ("lpad", Growth::Padded(1)),
    ("rpad", Growth::Padded(1)),
    ("replace", Growth::Replaced),
    ("regexp_replace", Growth::Replaced),
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Sum),
    ("overlay", Growth::Sum),
    ("encode", Growth::Sum),
    ("string_to_array", Growth::Sum),
    ("array_repeat", Growth::Times(1)),
    ("array_resize", Growth::Padded(1)),
    ("array_to_string", Growth::Joined),
    ("range", Growth::Range),
    ("generate_series", Growth::Range),
    ("make_array", Growth::Sum),
    ("array_append", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_union", Growth::Sum),
    ("flatten", Growth::Sum),
    ("||", Growth::Sum),
];

/// Puts bounds on the answers of such functions, wherever a statement calls one.
pub(crate) fn guard(state: &mut SessionState) -> std::result::Result<(), SqlError> {
    Ok(state.register_function_rewrite(Arc::new(Guards))?)
}

/// Replaces functions by guarded ones, and `||` by one that is a function.
#[derive(Debug)]
struct Guards;

impl FunctionRewrite for Guards {
    fn name(&self) -> &'static str {
        "guards"
    }

    fn rewrite(&self, expr: Expr, _: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let (func, args) = match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => (func, args),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                (Arc::new(ScalarUDF::new_from_impl(ConcatOperator::new())), vec![*left, *right])
            }
            other => return Ok(Transformed::no(other)),
        };
        let growth = GUARDED.iter().find(|(name, _)| *name == func.name()).map(|(_, growth)| *growth);
        let is_guarded = func.inner().downcast_ref::<Guarded>().is_some();
        Ok(match growth.filter(|_| !is_guarded) {
            Some(growth) => {
                let func = Arc::new(ScalarUDF::new_from_impl(Guarded { inner: func, growth }));
                Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
            }
            None => Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })),
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
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
        self.check(&args)?;
        self.inner.invoke_with_args(args)
    }
}

impl Guarded {
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let extent = extent_of(self.growth, &args.args, rows)?;
        let (found, what, max) = if extent.greatest > VALUE_BYTES_MAX {
            (extent.greatest, "a value", VALUE_BYTES_MAX)
        } else if extent.total > BATCH_BYTES_MAX {
            (extent.total, "the values of one batch", BATCH_BYTES_MAX)
        } else {
            return Ok(());
        };
        let problem =
            format!("{} would make {what} of about {found} bytes, at most {max} are allowed", self.inner.name());
        Err(SqlError::Limit { problem }.into_datafusion())
    }
}

/// At most how large the answer for each row is, and all together.
fn extent_of(growth: Growth, args: &[ColumnarValue], rows: usize) -> Result<Extent> {
    let Some(first) = args.first() else { return Ok(Extent::default()) };
    let bytes = |arg: &ColumnarValue| Extents::of(arg, rows);
    Ok(match growth {
        Growth::Sum => {
            let mut sum = vec![0u64; rows];
            for arg in args {
                bytes(arg)?.add_to(&mut sum);
            }
            Extent::sum(sum)
        }
        Growth::Times(at) => {
            let (bytes, counts) = (bytes(first)?, counts_of(args.get(at), rows)?);
            // Nothing, many times, still takes offsets.
            Extent::sum(counts.into_iter().enumerate().map(|(row, n)| bytes.at(row).max(1).saturating_mul(n)))
        }
        Growth::Padded(at) => {
            let (bytes, counts) = (args.get(2).map(bytes).transpose()?, counts_of(args.get(at), rows)?);
            let of_one = |row: usize| bytes.as_ref().map_or(1, |bytes| bytes.at(row).clamp(1, 16));
            Extent::sum(counts.into_iter().enumerate().map(|(row, n)| of_one(row).saturating_mul(n)))
        }
        Growth::Replaced => {
            let (bytes, by) = (bytes(first)?, args.get(2).map(bytes).transpose()?);
            let of_one = |row: usize| {
                let (own, by) = (bytes.at(row), by.as_ref().map_or(0, |by| by.at(row)));
                // Twice, as what a pattern captured may stand in its place, for two bytes each time.
                own.saturating_add(own.saturating_add(1).saturating_mul(by).saturating_mul(2))
            };
            Extent::sum((0..rows).map(of_one))
        }
        Growth::Joined => {
            let (bytes, by) = (bytes(first)?, args.get(1).map(bytes).transpose()?);
            let of_one = |row: usize| {
                let by = by.as_ref().map_or(0, |by| by.at(row)).saturating_add(1);
                bytes.at(row).saturating_mul(by)
            };
            Extent::sum((0..rows).map(of_one))
        }
        Growth::Range => Extent::sum(length_of_range(args, rows)?.into_iter().map(|n| n.saturating_mul(8))),
    })
}
