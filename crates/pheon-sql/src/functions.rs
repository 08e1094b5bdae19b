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
    ColumnarValue, Expr, ExprSchemable, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use crate::concat_operator::ConcatOperator;
use crate::error::SqlError;
use crate::extent::{Extent, Extents, counts_of, elements_of, length_of_range};

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
    /// As many elements as the second argument says, each as the third where it is not the first's.
    Resized,
    /// As the first, with the last one in place of each of its bytes, and before and after.
    Replaced,
    /// The elements of the first, with the third in place of so many of them; `None`: of all.
    Exchanged(Replaced),
    /// The elements of the first as text, with the second between them, and the third in place of nulls.
    Joined,
    /// The first, once for each group that the second captures, which may all lie within each other.
    Captured,
    /// What the second makes of a date or a time: names of months and the like.
    Formatted,
    /// As many elements as the longest has, for each of them.
    Zipped,
    /// So many elements as there are steps from the first to the second.
    Range,
}

/// How many elements are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Replaced {
    First,
    /// As this argument says.
    Counted(usize),
    All,
}

const GUARDED: [(&str, Growth); 29] = [
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
    ("array_resize", Growth::Resized),
    ("array_replace", Growth::Exchanged(Replaced::First)),
    ("array_replace_n", Growth::Exchanged(Replaced::Counted(3))),
    ("array_replace_all", Growth::Exchanged(Replaced::All)),
    ("arrays_zip", Growth::Zipped),
    ("map", Growth::Sum),
    ("regexp_match", Growth::Captured),
    ("to_char", Growth::Formatted),
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

/// Functions whose answers are about as large as their arguments, or smaller.
const BOUNDED: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "array_add",
    "array_any_value",
    "array_avg",
    "array_compact",
    "array_dims",
    "array_distance",
    "array_distinct",
    "array_element",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_length",
    "array_max",
    "array_min",
    "array_ndims",
    "array_normalize",
    "array_pop_back",
    "array_pop_front",
    "array_position",
    "array_positions",
    "array_product",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_reverse",
    "array_scale",
    "array_slice",
    "array_sort",
    "array_subtract",
    "array_sum",
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "arrow_typeof",
    "ascii",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bit_length",
    "btrim",
    "cardinality",
    "cast_to_type",
    "cbrt",
    "ceil",
    "character_length",
    "chr",
    "coalesce",
    "contains",
    "cos",
    "cosh",
    "cosine_distance",
    "cot",
    "current_date",
    "current_time",
    "date_bin",
    "date_part",
    "date_trunc",
    "decode",
    "degrees",
    "empty",
    "ends_with",
    "exp",
    "factorial",
    "file_row_index",
    "find_in_set",
    "floor",
    "from_unixtime",
    "gcd",
    "get_field",
    "greatest",
    "initcap",
    "inner_product",
    "input_file_name",
    "isnan",
    "iszero",
    "lcm",
    "least",
    "left",
    "levenshtein",
    "ln",
    "log",
    "log10",
    "log2",
    "lower",
    "ltrim",
    "make_date",
    "make_time",
    "map_entries",
    "map_extract",
    "map_keys",
    "map_values",
    "named_struct",
    "nanvl",
    "now",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "pi",
    "power",
    "radians",
    "random",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "reverse",
    "right",
    "round",
    "rtrim",
    "signum",
    "sin",
    "sinh",
    "split_part",
    "sqrt",
    "starts_with",
    "strpos",
    "struct",
    "substr",
    "substr_index",
    "tan",
    "tanh",
    "to_date",
    "to_hex",
    "to_local_time",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "translate",
    "trunc",
    "try_cast_to_type",
    "union_extract",
    "union_tag",
    "upper",
    "uuid",
    "version",
    "with_metadata",
];

/// Functions whose answers are of a type that an argument names.
const CASTS: [&str; 4] = ["arrow_cast", "arrow_try_cast", "cast_to_type", "try_cast_to_type"];
/// Aggregates that keep all they are given: over a window, answers grow with the square of the rows.
const GATHERING: [&str; 2] = ["array_agg", "string_agg"];
/// Bytes of a value of a type of fixed size, which nulls take too.
const WIDTH_MAX: u64 = 32 << 10;

/// What an element of a list may take beside its own bytes.
const ELEMENT_BYTES: u64 = 16;
/// How deep groups of a regular expression may nest, which the parser of such allows.
const GROUPS_NESTED_MAX: u64 = 250;
/// So many bytes at most become of one of a format: `%c` alone is a date with its time.
const FORMATTED: u64 = 32;

/// Puts bounds on the answers of such functions, wherever a statement calls one. Functions that nobody has looked at, as a
/// new version of DataFusion may bring them, are not there.
pub(crate) fn guard(state: &mut SessionState) -> std::result::Result<(), SqlError> {
    for name in unknown(state) {
        state.deregister_udf(&name)?;
    }
    let of_higher_order: Vec<String> = state.higher_order_functions().keys().cloned().collect();
    for name in of_higher_order {
        state.deregister_higher_order_function(&name)?;
    }
    Ok(state.register_function_rewrite(Arc::new(Guards))?)
}

fn unknown(state: &SessionState) -> Vec<String> {
    let known = |name: &str| BOUNDED.contains(&name) || GUARDED.iter().any(|(guarded, _)| *guarded == name);
    let mut names: Vec<String> = state.scalar_functions().values().map(|f| f.name().to_owned()).collect();
    names.retain(|name| !known(name));
    names.sort_unstable();
    names.dedup();
    names
}

/// Replaces functions by guarded ones, and `||` by one that is a function.
#[derive(Debug)]
struct Guards;

impl FunctionRewrite for Guards {
    fn name(&self) -> &'static str {
        "guards"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        match &expr {
            Expr::Cast(cast) => check_width(cast.field.data_type())?,
            Expr::TryCast(cast) => check_width(cast.field.data_type())?,
            Expr::ScalarFunction(f) if CASTS.contains(&f.func.name()) => check_width(&expr.get_type(schema)?)?,
            Expr::WindowFunction(f) if GATHERING.contains(&f.fun.name()) => {
                let problem = format!("{} over a window, which would make a list for each row", f.fun.name());
                return Err(SqlError::Unsupported { problem }.into_datafusion());
            }
            _ => {}
        }
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

fn check_width(data_type: &DataType) -> Result<()> {
    let width = width_of(data_type);
    if width <= WIDTH_MAX {
        return Ok(());
    }
    let problem = format!("a value of type {data_type} has {width} bytes, at most {WIDTH_MAX} are allowed");
    Err(SqlError::Limit { problem }.into_datafusion())
}

/// Bytes that a value has at least, where its type alone says how many; of a list's elements, those of one.
fn width_of(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeBinary(size) => u64::try_from(*size).unwrap_or(0),
        DataType::FixedSizeList(field, size) => {
            width_of(field.data_type()).max(1).saturating_mul(u64::try_from(*size).unwrap_or(0))
        }
        DataType::Struct(fields) => fields.iter().map(|f| width_of(f.data_type())).fold(0, u64::saturating_add),
        DataType::List(field) | DataType::LargeList(field) | DataType::ListView(field) | DataType::Map(field, _) => {
            width_of(field.data_type())
        }
        DataType::Dictionary(_, values) => width_of(values),
        other => other.primitive_width().unwrap_or(0) as u64,
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
        Growth::Resized => {
            let (own, counts) = (bytes(first)?, counts_of(args.get(1), rows)?);
            let by = args.get(2).map(bytes).transpose()?;
            let of_one = |row: usize| by.as_ref().map_or(0, |by| by.at(row)).saturating_add(ELEMENT_BYTES);
            let of_all = |(row, n): (usize, u64)| own.at(row).saturating_add(of_one(row).saturating_mul(n));
            Extent::sum(counts.into_iter().enumerate().map(of_all))
        }
        Growth::Exchanged(replaced) => {
            let (own, elements) = (bytes(first)?, elements_of(first, rows)?);
            let by = args.get(2).map(bytes).transpose()?;
            let times = match replaced {
                Replaced::First => vec![1; rows],
                Replaced::Counted(at) => counts_of(args.get(at), rows)?,
                Replaced::All => vec![u64::MAX; rows],
            };
            let of_one = |row: usize| {
                let by = by.as_ref().map_or(0, |by| by.at(row)).saturating_add(ELEMENT_BYTES);
                own.at(row).saturating_add(elements.at(row).min(times[row]).saturating_mul(by))
            };
            Extent::sum((0..rows).map(of_one))
        }
        Growth::Captured => {
            let (own, pattern) = (bytes(first)?, args.get(1).map(bytes).transpose()?);
            let of_one = |row: usize| {
                // Each takes two parentheses.
                let groups = pattern.as_ref().map_or(0, |pattern| pattern.at(row) / 2).min(GROUPS_NESTED_MAX);
                own.at(row).saturating_add(ELEMENT_BYTES).saturating_mul(groups + 1)
            };
            Extent::sum((0..rows).map(of_one))
        }
        Growth::Formatted => {
            let format = args.get(1).map(bytes).transpose()?;
            let of_one = |row: usize| format.as_ref().map_or(0, |format| format.at(row)).saturating_mul(FORMATTED);
            Extent::sum((0..rows).map(of_one))
        }
        Growth::Zipped => {
            let (mut sum, mut longest) = (vec![0u64; rows], vec![0u64; rows]);
            for arg in args {
                bytes(arg)?.add_to(&mut sum);
                let elements = elements_of(arg, rows)?;
                longest.iter_mut().enumerate().for_each(|(row, longest)| *longest = (*longest).max(elements.at(row)));
            }
            let each = ELEMENT_BYTES.saturating_mul(args.len() as u64);
            Extent::sum(sum.into_iter().zip(longest).map(|(sum, n)| sum.saturating_add(each.saturating_mul(n))))
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
            let own = bytes(first)?;
            let (by, null) = (args.get(1).map(bytes).transpose()?, args.get(2).map(bytes).transpose()?);
            let at = |extents: &Option<Extents>, row: usize| extents.as_ref().map_or(0, |extents| extents.at(row));
            let of_one = |row: usize| {
                let by = at(&by, row).saturating_add(at(&null, row)).saturating_add(1);
                own.at(row).saturating_mul(by)
            };
            Extent::sum((0..rows).map(of_one))
        }
        Growth::Range => Extent::sum(length_of_range(args, rows)?.into_iter().map(|n| n.saturating_mul(8))),
    })
}

#[cfg(test)]
mod tests {
    use datafusion::execution::SessionStateBuilder;

    use super::*;

    /// Each function is looked at once before statements may call it.
    #[test]
    fn every_function_is_known() {
        let state = SessionStateBuilder::new().with_default_features().build();
        assert_eq!(unknown(&state), Vec::<String>::new());
        let mut guarded = state.clone();
        guard(&mut guarded).unwrap();
        assert_eq!(guarded.scalar_functions().len(), state.scalar_functions().len());
        for (name, _) in GUARDED.iter().filter(|(name, _)| *name != "||") {
            assert!(state.scalar_functions().contains_key(*name), "{name}");
        }
    }
}
