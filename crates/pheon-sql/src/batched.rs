//! Many rows of parameters at once: `where key = ?` for a batch of them is one lookup in the index.
//!
//! The plan of such a statement is a chain of projections and filters above a table, each row by itself. So the rows of
//! these keys are looked up first, in the order of the parameters, with the other parameters as further columns beside
//! them; the rest of the plan, in which placeholders became columns, then runs once over all of them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StructArray, UInt64Array};
use arrow_schema::{Field, Fields, Schema};
use arrow_select::take::take;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::expr::{Alias, BinaryExpr, Placeholder};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Operator};
use pheon::{ReadError, Table};

use crate::error::SqlError;
use crate::memory::bytes_of;
use crate::provider::PheonTable;
use crate::scan::relabelled;

/// Names of the columns that parameters become; no column of a table may be named so.
const PREFIX: &str = "__pheon_parameter_";
/// The table that has only parameters.
const PARAMETERS: &str = "__pheon_parameters";
/// What a lookup notes of each row that it finds.
const ROW_BYTES: usize = 16;

/// The answer to rows of parameters.
pub(crate) struct Batched {
    /// How many of them, from the first on.
    pub(crate) taken: usize,
    pub(crate) answer: Answer,
}

pub(crate) enum Answer {
    /// Here it is.
    Rows(RecordBatch),
    /// This plan, without placeholders, has it; rows must stay in order.
    Plan(LogicalPlan),
}

/// A node of the chain above the leaf.
enum Node {
    Projection(Vec<Expr>),
    Filter(Expr),
}

/// `plan` for the first rows of parameters; `None` if it is not of that form. `given`: as they came, `values`: in the types
/// of the statement. What is looked up for them are about `rows_max` rows, or those of one key, which `memory` counts.
pub(crate) fn batched(
    plan: &LogicalPlan,
    given: &RecordBatch,
    values: &RecordBatch,
    rows_max: usize,
    memory: &MemoryReservation,
) -> Result<Option<Batched>, SqlError> {
    let (mut taken, mut values) = (values.num_rows(), values.clone());
    // From the top to the leaf.
    let mut nodes = Vec::new();
    let mut at = plan;
    let mut name: Option<TableReference> = None;
    let leaf = loop {
        match at {
            LogicalPlan::Projection(p) => {
                nodes.push(Node::Projection(p.expr.clone()));
                at = &p.input;
            }
            LogicalPlan::Filter(f) => {
                nodes.push(Node::Filter(f.predicate.clone()));
                at = &f.input;
            }
            LogicalPlan::SubqueryAlias(alias) if matches!(alias.input.as_ref(), LogicalPlan::TableScan(_)) => {
                name = Some(alias.alias.clone());
                at = &alias.input;
            }
            LogicalPlan::TableScan(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => break at,
            _ => return Ok(None),
        }
    };
    nodes.reverse();
    if !is_simple(&nodes)? {
        return Ok(None);
    }
    let base = match leaf {
        LogicalPlan::TableScan(scan) if scan.projection.is_none() && scan.filters.is_empty() => {
            let provider = source_as_provider(&scan.source)?;
            let Some(table) = provider.downcast_ref::<PheonTable>() else { return Ok(None) };
            let name = name.unwrap_or_else(|| scan.table_name.clone());
            let Some(keys) = take_keys(&mut nodes, table, given) else { return Ok(None) };
            let found = match lookup(table.table(), &keys.given, rows_max, memory) {
                // Of a type that the engine does not convert, such as a number as text.
                Err(SqlError::Read(ReadError::KeyType { .. })) => {
                    lookup(table.table(), &take_struct(&keys.columns, &values), rows_max, memory)
                }
                other => other,
            };
            let found = found?;
            (taken, values) = (found.taken, values.slice(0, found.taken));
            let rows = relabelled(found.rows, &datafusion::catalog::TableProvider::schema(table))?;
            if let Some(rows) = columns_only(&nodes, &rows)? {
                return Ok(Some(Batched { taken, answer: Answer::Rows(rows) }));
            }
            scan_of(name, beside(&rows, &values, &found.positions)?)?
        }
        LogicalPlan::Values(v) if v.values.len() == 1 => {
            let fields = v.schema.fields().iter();
            let exprs = v.values[0].iter().zip(fields).map(|(e, f)| Ok(columns_for(e.clone())?.alias(f.name())));
            let exprs = exprs.collect::<Result<Vec<_>, SqlError>>()?;
            LogicalPlanBuilder::from(parameters_only(&values)?).project(exprs)?.build()?
        }
        LogicalPlan::EmptyRelation(e) if e.produce_one_row => parameters_only(&values)?,
        _ => return Ok(None),
    };
    let mut builder = LogicalPlanBuilder::from(base);
    for node in nodes {
        builder = match node {
            Node::Filter(predicate) => builder.filter(columns_for(predicate)?)?,
            Node::Projection(exprs) => {
                let exprs = exprs.into_iter().map(named).collect::<Result<Vec<_>, SqlError>>()?;
                builder.project(exprs)?
            }
        };
    }
    Ok(Some(Batched { taken, answer: Answer::Plan(builder.build()?) }))
}

struct Found {
    /// So many keys were looked up.
    taken: usize,
    /// Of the key that each row belongs to.
    positions: UInt64Array,
    rows: RecordBatch,
}

/// The rows of the first keys: as many keys as have about `rows_max` rows together, at least one.
fn lookup(table: &Table, keys: &ArrayRef, rows_max: usize, memory: &MemoryReservation) -> Result<Found, SqlError> {
    let keys = keys.slice(0, keys.len().min(rows_max.max(1)));
    let (mut taken, mut rows) = (keys.len(), keys.len());
    if !table.is_unique() {
        (taken, rows) = (0, 0);
        for of_key in table.lookup_counts(&keys)? {
            if taken > 0 && rows + of_key > rows_max {
                break;
            }
            (taken, rows) = (taken + 1, rows + of_key);
        }
    }
    // Before there are any, by their mean width; then as they are.
    let width = table.nbytes()? as usize / table.num_rows().max(1) + ROW_BYTES;
    memory.try_resize(rows.saturating_mul(width))?;
    let (positions, rows) = table.lookup(&keys.slice(0, taken), None)?;
    memory.try_resize(bytes_of(&rows) + positions.len() * ROW_BYTES)?;
    Ok(Found { taken, positions, rows })
}

/// Whether each row is by itself, and placeholders stand no higher than the first projection, above which the columns
/// that they become are gone.
fn is_simple(nodes: &[Node]) -> Result<bool, SqlError> {
    let mut projected = false;
    for node in nodes {
        let (exprs, is_projection) = match node {
            Node::Projection(exprs) => (exprs.as_slice(), true),
            Node::Filter(predicate) => (std::slice::from_ref(predicate), false),
        };
        for expr in exprs {
            let mut simple = true;
            expr.apply(|e| {
                simple &= match e {
                    Expr::Placeholder(_) => !projected,
                    Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::SetComparison(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::OuterReferenceColumn(..)
                    | Expr::Unnest(_) => false,
                    _ => true,
                };
                Ok(TreeNodeRecursion::Continue)
            })?;
            if !simple {
                return Ok(false);
            }
        }
        projected |= is_projection;
    }
    Ok(true)
}

struct Keys {
    /// For each key column, which parameter it equals.
    columns: Vec<(String, usize)>,
    given: ArrayRef,
}

/// Takes `column = $n` for all key columns out of the filters just above the table.
fn take_keys(nodes: &mut Vec<Node>, table: &PheonTable, given: &RecordBatch) -> Option<Keys> {
    let names: Vec<&str> = table.key().iter().map(|part| part.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let mut places: Vec<Option<usize>> = vec![None; names.len()];
    let filters = nodes.iter().take_while(|n| matches!(n, Node::Filter(_))).count();
    let mut kept = Vec::new();
    for node in &nodes[..filters] {
        let Node::Filter(predicate) = node else { continue };
        for conjunct in split_conjunction_owned(predicate.clone()) {
            let equal = key_equality(&conjunct)
                .and_then(|(column, number)| Some((names.iter().position(|n| *n == column)?, number)))
                .filter(|&(part, number)| places[part].is_none() && number < given.num_columns());
            match equal {
                Some((part, number)) => places[part] = Some(number),
                None => kept.push(conjunct),
            }
        }
    }
    let places = places.into_iter().collect::<Option<Vec<_>>>()?;
    nodes.drain(..filters);
    if let Some(rest) = conjunction(kept) {
        nodes.insert(0, Node::Filter(rest));
    }
    let columns: Vec<(String, usize)> = names.into_iter().map(str::to_owned).zip(places).collect();
    let given = take_struct(&columns, given);
    Some(Keys { columns, given })
}

fn key_equality(e: &Expr) -> Option<(&str, usize)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = e else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Placeholder(p)) | (Expr::Placeholder(p), Expr::Column(column)) => {
            Some((&column.name, number_of(p)?))
        }
        _ => None,
    }
}

fn number_of(placeholder: &Placeholder) -> Option<usize> {
    placeholder.id.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// Keys of one column as they are, of several as structs.
fn take_struct(columns: &[(String, usize)], values: &RecordBatch) -> ArrayRef {
    if let [(_, only)] = columns {
        return values.column(*only).clone();
    }
    let fields: Fields =
        columns.iter().map(|(name, at)| Field::new(name, values.column(*at).data_type().clone(), true)).collect();
    let arrays = columns.iter().map(|(_, at)| values.column(*at).clone()).collect();
    Arc::new(StructArray::new(fields, arrays, None))
}

/// The answer itself, where all that is left is a choice of columns.
fn columns_only(nodes: &[Node], rows: &RecordBatch) -> Result<Option<RecordBatch>, SqlError> {
    let mut rows = rows.clone();
    for node in nodes {
        let Node::Projection(exprs) = node else { return Ok(None) };
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for expr in exprs {
            let (column, name) = match expr {
                Expr::Column(column) => (column, &column.name),
                Expr::Alias(Alias { expr, name, .. }) => match expr.as_ref() {
                    Expr::Column(column) => (column, name),
                    _ => return Ok(None),
                },
                _ => return Ok(None),
            };
            let Ok(at) = rows.schema_ref().index_of(&column.name) else { return Ok(None) };
            fields.push(rows.schema_ref().field(at).clone().with_name(name));
            arrays.push(rows.column(at).clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let schema = Schema::new_with_metadata(fields, rows.schema_ref().metadata().clone());
        rows = RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)?;
    }
    Ok(Some(rows))
}

/// The rows, with the parameters that each of them belongs to.
fn beside(rows: &RecordBatch, values: &RecordBatch, positions: &UInt64Array) -> Result<RecordBatch, SqlError> {
    let mut fields: Vec<Arc<Field>> = rows.schema_ref().fields().iter().cloned().collect();
    let mut arrays = rows.columns().to_vec();
    for (number, column) in values.columns().iter().enumerate() {
        fields.push(Arc::new(Field::new(parameter_name(number), column.data_type().clone(), true)));
        arrays.push(take(column, positions, None)?);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}

fn parameters_only(values: &RecordBatch) -> Result<LogicalPlan, SqlError> {
    let fields: Vec<Field> = values
        .columns()
        .iter()
        .enumerate()
        .map(|(number, column)| Field::new(parameter_name(number), column.data_type().clone(), true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(values.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values.columns().to_vec(), &options)?;
    scan_of(TableReference::bare(PARAMETERS), batch)
}

fn scan_of(name: TableReference, batch: RecordBatch) -> Result<LogicalPlan, SqlError> {
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
    Ok(LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)?.build()?)
}

fn parameter_name(number: usize) -> String {
    format!("{PREFIX}{}", number + 1)
}

/// The expression with columns in place of placeholders.
fn columns_for(expr: Expr) -> Result<Expr, SqlError> {
    let changed = expr.transform_up(|e| match &e {
        Expr::Placeholder(p) => match number_of(p) {
            Some(number) => Ok(Transformed::yes(Expr::Column(Column::from_name(parameter_name(number))))),
            None => Ok(Transformed::no(e)),
        },
        _ => Ok(Transformed::no(e)),
    })?;
    Ok(changed.data)
}

/// The same for an output column, whose name stays.
fn named(expr: Expr) -> Result<Expr, SqlError> {
    let (qualifier, name) = expr.qualified_name();
    let changed = columns_for(expr.clone())?;
    Ok(if changed == expr { expr } else { changed.alias_qualified(qualifier, name) })
}
