//! The plan node that reads a table: slices of the mapping, without a copy.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef, SortOptions};
use arrow_select::concat::concat_batches;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Constraints, Result, Statistics};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalSortExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, CardinalityEffect, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, ReplaceChildrenOptions,
    SendableRecordBatchStream,
};
use datafusion::scalar::ScalarValue;
use pheon::{ReadError, Table};

use crate::error::read_failed;
use crate::selection::{Rows, Selection};

/// A partition of a scan has at least so many rows.
const PARTITION_ROWS_MIN: usize = 64 << 10;
/// Smaller slices are joined to batches.
const JOINED_ROWS_MAX: usize = 1 << 10;

/// What a scan reads.
pub(crate) struct Scan {
    /// The whole table.
    pub(crate) table: Table,
    /// All of its columns as SQL sees them.
    pub(crate) schema: SchemaRef,
    pub(crate) projection: Vec<usize>,
    pub(crate) selection: Selection,
    pub(crate) limit: Option<usize>,
    /// Places of the key columns in `schema`.
    pub(crate) key: Vec<usize>,
    pub(crate) constraints: Constraints,
}

/// Part of the rows, for one thread.
#[derive(Debug, Clone)]
enum Partition {
    Pieces(Vec<Table>),
    Lookup(Table, ArrayRef),
}

/// Reads a table, or rows of it that its index found.
#[derive(Debug, Clone)]
pub(crate) struct PheonScan {
    partitions: Vec<Partition>,
    shown: String,
    fetch: Option<usize>,
    statistics: Arc<Statistics>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PheonScan {
    pub(crate) fn new(scan: Scan, partitions: usize) -> Result<Self> {
        let Scan { table, schema, projection, selection, limit, key, constraints } = scan;
        let projected = Arc::new(schema.project(&projection)?);
        let names: Vec<&str> = projection.iter().map(|&c| schema.field(c).name().as_str()).collect();
        let select =
            |t: &Table| if projection.len() == schema.fields().len() { Ok(t.clone()) } else { t.select(&names) };
        let mut bounds = None;
        let (rows, partitions) = match selection.rows {
            Rows::Pieces(pieces) => {
                bounds = first_key_bounds(&pieces, &schema, &key).map_err(read_failed)?;
                let mut left = limit.unwrap_or(usize::MAX);
                let mut rows = 0;
                let mut kept = Vec::with_capacity(pieces.len());
                for piece in pieces {
                    let piece = piece.slice(0, left);
                    if piece.num_rows() > 0 {
                        left -= piece.num_rows();
                        rows += piece.num_rows();
                        kept.push(select(&piece).map_err(read_failed)?);
                    }
                }
                (Precision::Exact(rows), split(kept, rows, partitions))
            }
            Rows::Lookup(table, keys) => {
                let table = select(&table).map_err(read_failed)?;
                let rows = Precision::Inexact(keys.len().min(limit.unwrap_or(usize::MAX)));
                (rows, split_keys(&table, &keys, partitions))
            }
        };
        let shown = format!(
            "dataset={}@{}, {}columns=[{}], rows={}{}",
            table.name(),
            table.version(),
            selection.shown.map(|s| format!("key: {s}, ")).unwrap_or_default(),
            names.join(", "),
            match rows {
                Precision::Exact(n) => n.to_string(),
                Precision::Inexact(n) => format!("about {n}"),
                Precision::Absent => "unknown".to_owned(),
            },
            if partitions.len() > 1 { format!(", partitions={}", partitions.len()) } else { String::new() },
        );
        let mut statistics = Statistics { num_rows: rows, ..Statistics::new_unknown(&projected) };
        if table.num_rows() > 0 && matches!(rows, Precision::Exact(_)) {
            let width = table.nbytes().unwrap_or(0) as usize / table.num_rows();
            statistics.total_byte_size = rows.multiply(&Precision::Exact(width)).to_inexact();
        }
        for (at, column) in projection.iter().enumerate() {
            let Some(part) = key.iter().position(|k| k == column) else { continue };
            let mut of_column = ColumnStatistics { null_count: Precision::Exact(0), ..ColumnStatistics::new_unknown() };
            if part == 0
                && limit.is_none()
                && let Some((min, max)) = &bounds
            {
                of_column.min_value = Precision::Exact(min.clone());
                of_column.max_value = Precision::Exact(max.clone());
            }
            if key.len() == 1 && constraints.iter().len() > 0 {
                of_column.distinct_count = rows;
            }
            statistics.column_statistics[at] = of_column;
        }
        let equivalence = equivalence(&projected, &projection, &key, &constraints)?;
        let properties = properties(equivalence, partitions.len());
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { partitions, shown, fetch: limit, statistics: Arc::new(statistics), properties, metrics })
    }
}

fn properties(equivalence: EquivalenceProperties, partitions: usize) -> Arc<PlanProperties> {
    let partitioning = Partitioning::UnknownPartitioning(partitions);
    let properties = PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, Boundedness::Bounded);
    Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative))
}

/// Ascending by as many of the leading key columns as are read; keys are never null, so nulls are first as well as last.
fn equivalence(
    schema: &SchemaRef,
    projection: &[usize],
    key: &[usize],
    constraints: &Constraints,
) -> Result<EquivalenceProperties> {
    let mut ordering = Vec::new();
    for column in key {
        let Some(at) = projection.iter().position(|c| c == column) else { break };
        let expr: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(at).name(), at));
        ordering.push(PhysicalSortExpr { expr, options: SortOptions { descending: false, nulls_first: false } });
    }
    let mut properties = if ordering.is_empty() {
        EquivalenceProperties::new(schema.clone())
    } else {
        EquivalenceProperties::new_with_orderings(schema.clone(), [ordering])
    };
    if let Some(constraints) = constraints.project(projection) {
        properties = properties.with_constraints(constraints);
    }
    Ok(properties)
}

/// The least and the greatest value of the key's first column: those of the first and the last row.
fn first_key_bounds(
    pieces: &[Table],
    schema: &Schema,
    key: &[usize],
) -> std::result::Result<Option<(ScalarValue, ScalarValue)>, ReadError> {
    let mut filled = pieces.iter().filter(|piece| piece.num_rows() > 0);
    let (Some(&column), Some(first)) = (key.first(), filled.next()) else { return Ok(None) };
    let last = filled.next_back().unwrap_or(first);
    let name = [schema.field(column).name()];
    let value = |piece: &Table, row: usize| -> std::result::Result<Option<ScalarValue>, ReadError> {
        let array = piece.slice(row, 1).select(&name)?.column(0)?;
        Ok(ScalarValue::try_from_array(&array, 0).ok())
    };
    Ok(value(first, 0)?.zip(value(last, last.num_rows() - 1)?))
}

/// Contiguous runs of about as many rows each.
fn split(pieces: Vec<Table>, rows: usize, partitions: usize) -> Vec<Partition> {
    let count = partitions.min(rows / PARTITION_ROWS_MIN).max(1);
    let share = rows.div_ceil(count).max(1);
    let mut out = Vec::with_capacity(count);
    let (mut current, mut room) = (Vec::new(), share);
    for mut piece in pieces {
        while piece.num_rows() > 0 {
            let taken = piece.slice(0, room);
            room -= taken.num_rows();
            piece = piece.slice(taken.num_rows(), usize::MAX);
            current.push(taken);
            if room == 0 {
                out.push(Partition::Pieces(std::mem::take(&mut current)));
                room = share;
            }
        }
    }
    if !current.is_empty() || out.is_empty() {
        out.push(Partition::Pieces(current));
    }
    out
}

fn split_keys(table: &Table, keys: &ArrayRef, partitions: usize) -> Vec<Partition> {
    let count = partitions.min(keys.len() / PARTITION_ROWS_MIN).max(1);
    let share = keys.len().div_ceil(count).max(1);
    let chunks = (0..keys.len()).step_by(share);
    chunks.map(|at| Partition::Lookup(table.clone(), keys.slice(at, share.min(keys.len() - at)))).collect()
}

impl DisplayAs for PheonScan {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "PheonScan: {}", self.shown)?;
                self.fetch.map_or(Ok(()), |fetch| write!(f, ", limit={fetch}"))
            }
            DisplayFormatType::TreeRender => self.shown.split(", ").try_for_each(|line| writeln!(f, "{line}")),
        }
    }
}

impl ExecutionPlan for PheonScan {
    fn name(&self) -> &'static str {
        "PheonScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.properties.eq_properties.schema().clone();
        let batch_rows = context.session_config().batch_size().max(1);
        let partition = self.partitions[partition].clone();
        let metrics = BaselineMetrics::new(&self.metrics, 0);
        let mut left = self.fetch.unwrap_or(usize::MAX);
        let mut batches = Batches::new(partition, schema.clone(), batch_rows);
        let batches = std::iter::from_fn(move || {
            let timer = metrics.elapsed_compute().timer();
            let batch = if left == 0 { None } else { batches.next() };
            timer.done();
            let batch = batch?.map(|batch| {
                let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
                left -= batch.num_rows();
                batch.record_output(&metrics)
            });
            Some(batch)
        });
        let stream = RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches));
        Ok(make_cooperative(Box::pin(stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let Some(partition) = args.partition() else { return Ok(self.statistics.clone()) };
        let rows = match &self.partitions[partition] {
            Partition::Pieces(pieces) => Precision::Exact(pieces.iter().map(Table::num_rows).sum()),
            Partition::Lookup(_, keys) => Precision::Inexact(keys.len()),
        };
        let unknown = Statistics::new_unknown(self.properties.eq_properties.schema());
        Ok(Arc::new(Statistics { num_rows: rows, ..unknown }))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let mut scan = self.clone();
        if let Some(limit) = limit {
            scan.fetch = Some(scan.fetch.map_or(limit, |fetch| fetch.min(limit)));
            let rows = self.statistics.num_rows.min(&Precision::Exact(limit)).to_inexact();
            let statistics = Statistics::clone(&self.statistics).to_inexact();
            scan.statistics = Arc::new(Statistics { num_rows: rows, ..statistics });
        }
        Some(Arc::new(scan))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// The batches of a partition, made as they are asked for.
struct Batches {
    pieces: VecDeque<Table>,
    /// Keys that are still to be looked up.
    lookup: Option<(Table, ArrayRef)>,
    ready: VecDeque<RecordBatch>,
    schema: SchemaRef,
    batch_rows: usize,
}

impl Batches {
    fn new(partition: Partition, schema: SchemaRef, batch_rows: usize) -> Self {
        let (pieces, lookup) = match partition {
            Partition::Pieces(pieces) => (pieces.into(), None),
            Partition::Lookup(table, keys) => (VecDeque::new(), Some((table, keys))),
        };
        Self { pieces, lookup, ready: VecDeque::new(), schema, batch_rows }
    }

    fn fill(&mut self) -> Result<()> {
        if let Some((table, keys)) = self.lookup.take() {
            let now = self.batch_rows.min(keys.len());
            let (_, rows) = table.lookup(&keys.slice(0, now), None).map_err(read_failed)?;
            if now < keys.len() {
                self.lookup = Some((table, keys.slice(now, keys.len() - now)));
            }
            // A key may have many rows.
            for at in (0..rows.num_rows()).step_by(self.batch_rows) {
                let rows = rows.slice(at, self.batch_rows.min(rows.num_rows() - at));
                self.ready.push_back(relabelled(rows, &self.schema)?);
            }
            return Ok(());
        }
        let (mut small, mut rows) = (Vec::new(), 0);
        while let Some(piece) = self.pieces.pop_front() {
            if rows > 0 && (piece.num_rows() > JOINED_ROWS_MAX || rows + piece.num_rows() > self.batch_rows) {
                self.pieces.push_front(piece);
                break;
            }
            let now = piece.slice(0, self.batch_rows);
            if now.num_rows() < piece.num_rows() {
                self.pieces.push_front(piece.slice(self.batch_rows, usize::MAX));
            }
            rows += now.num_rows();
            small.extend(batches_of(&now, &self.schema)?);
            if now.num_rows() > JOINED_ROWS_MAX {
                self.ready.extend(small.drain(..));
                return Ok(());
            }
        }
        if small.len() > 1 {
            self.ready.push_back(concat_batches(&self.schema, &small)?);
        } else {
            self.ready.extend(small);
        }
        Ok(())
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && (self.lookup.is_some() || !self.pieces.is_empty()) {
            if let Err(e) = self.fill() {
                (self.pieces, self.lookup) = (VecDeque::new(), None);
                return Some(Err(e));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

fn batches_of(table: &Table, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    if schema.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(table.num_rows()));
        return Ok(vec![RecordBatch::try_new_with_options(schema.clone(), vec![], &options)?]);
    }
    let batches = table.to_batches().map_err(read_failed)?;
    batches.into_iter().map(|batch| relabelled(batch, schema)).collect()
}

/// The same columns under the schema that SQL sees, in which keys are never null.
pub(crate) fn relabelled(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
}
