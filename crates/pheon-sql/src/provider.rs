//! A table of the store as DataFusion sees it.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Constraint as TableConstraint, Constraints, DFSchema, Result, Statistics};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use pheon::Table;

use crate::error::read_failed;
use crate::key_part::KeyPart;
use crate::predicate::Constraint;
use crate::scan::{PheonScan, Scan};
use crate::selection::select;

/// One version of a dataset.
#[derive(Debug)]
pub(crate) struct PheonTable {
    table: Table,
    schema: SchemaRef,
    /// What filters are turned into; empty if the key takes none.
    key: Vec<KeyPart>,
    /// Places of all key columns in the schema.
    key_columns: Vec<usize>,
    constraints: Constraints,
}

impl PheonTable {
    pub(crate) fn new(table: Table) -> Self {
        let stored = table.schema();
        let key_columns: Vec<usize> = table.key().iter().filter_map(|name| stored.index_of(name).ok()).collect();
        let schema = sql_schema(&table);
        let unique = !key_columns.is_empty() && table.is_unique();
        let constraints = if unique { vec![TableConstraint::PrimaryKey(key_columns.clone())] } else { Vec::new() };
        let key = KeyPart::of(&table);
        Self { table, schema, key, key_columns, constraints: Constraints::new_unverified(constraints) }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn key(&self) -> &[KeyPart] {
        &self.key
    }
}

/// A table's columns as SQL sees them: keys are never null, whatever the column was declared as. What a store notes of the
/// whole table is no column's, and a join of two tables would not know whose to take.
pub(crate) fn sql_schema(table: &Table) -> SchemaRef {
    let stored = table.schema();
    let fields: Vec<Arc<Field>> = stored
        .fields()
        .iter()
        .map(|field| match table.key().contains(field.name()) {
            true => Arc::new(field.as_ref().clone().with_nullable(false)),
            false => field.clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

#[async_trait]
impl TableProvider for PheonTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let unknown = Statistics::new_unknown(&self.schema);
        Some(Statistics { num_rows: Precision::Exact(self.table.num_rows()), ..unknown })
    }

    /// Answers of the index to a key of one column agree with SQL's comparisons for every key type; those about a key of
    /// several columns are asked about one column at a time, and checked again above the scan.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = filters.iter().map(|filter| match Constraint::of(filter, &self.key) {
            Some(c) if c.exact && self.key.len() == 1 => TableProviderFilterPushDown::Exact,
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        });
        Ok(support.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut constraints = Vec::new();
        let mut left = Vec::new();
        for filter in filters {
            match Constraint::of(filter, &self.key) {
                Some(c) => {
                    // That of a key of several columns is checked above the scan, as it was announced.
                    if !c.exact && self.key.len() == 1 {
                        left.push(filter.clone());
                    }
                    constraints.push(c);
                }
                None => left.push(filter.clone()),
            }
        }
        let selection = select(&self.table, &self.key, &constraints).map_err(read_failed)?;
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let scan = Scan {
            table: self.table.clone(),
            schema: self.schema.clone(),
            projection,
            selection,
            limit,
            key: self.key_columns.clone(),
            constraints: self.constraints.clone(),
        };
        let partitions = state.config().target_partitions();
        match conjunction(left) {
            None => Ok(Arc::new(PheonScan::new(scan, partitions)?)),
            Some(predicate) => self.filtered(state, scan, predicate, partitions),
        }
    }
}

impl PheonTable {
    /// A scan under a filter that was announced as answered by the index and then simplified to what the index knows
    /// nothing of, such as a constant.
    fn filtered(
        &self,
        state: &dyn Session,
        scan: Scan,
        predicate: Expr,
        partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = scan.projection.len();
        let mut projection = scan.projection.clone();
        for column in predicate.column_refs() {
            let at = self.schema.index_of(&column.name)?;
            if !projection.contains(&at) {
                projection.push(at);
            }
        }
        let schema = DFSchema::try_from(self.schema.project(&projection)?)?;
        let predicate = predicate.transform(|e| match e {
            Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::from_name(column.name)))),
            other => Ok(Transformed::no(other)),
        })?;
        let predicate = state.create_physical_expr(predicate.data, &schema)?;
        let scan = PheonScan::new(Scan { projection, limit: None, ..scan }, partitions)?;
        let filtered: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(predicate, Arc::new(scan))?);
        let fields = filtered.schema();
        if fields.fields().len() == wanted {
            return Ok(filtered);
        }
        let columns = (0..wanted).map(|at| {
            let name = fields.field(at).name().clone();
            (Arc::new(PhysicalColumn::new(&name, at)) as Arc<dyn PhysicalExpr>, name)
        });
        Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), filtered)?))
    }
}
