//! Joins that let others run though hardly any pair of rows is an answer: what never yields cannot be stopped.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow_array::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, ReplaceChildrenOptions,
    SendableRecordBatchStream, replace_children_if_necessary,
};
use futures::{Stream, StreamExt};

/// The plan, in which joins that compare all rows with all rows yield after each batch of what they join.
pub(crate) fn yielding(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let changed = plan.transform_up(|node| {
        if !node.is::<NestedLoopJoinExec>() && !node.is::<CrossJoinExec>() {
            return Ok(Transformed::no(node));
        }
        let inputs = node.children().into_iter().map(|input| Arc::new(Yield { input: input.clone() }) as _);
        let inputs = inputs.collect::<Vec<Arc<dyn ExecutionPlan>>>();
        Ok(Transformed::yes(replace_children_if_necessary(node, inputs)?))
    })?;
    Ok(changed.data)
}

/// The rows of its input.
#[derive(Debug)]
struct Yield {
    input: Arc<dyn ExecutionPlan>,
}

impl Yield {
    /// The same over another input.
    fn over(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Arc<dyn ExecutionPlan> {
        children.pop().map_or(self as _, |input| Arc::new(Self { input }) as _)
    }
}

impl DisplayAs for Yield {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Yield")
    }
}

impl ExecutionPlan for Yield {
    fn name(&self) -> &'static str {
        "Yield"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.over(children))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(children.pop().map_or(self as _, |input| Arc::new(Self { input }) as _))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, Yielding { rows, rest: false })))
    }
}

struct Yielding {
    rows: SendableRecordBatchStream,
    /// A batch was given: first let others run.
    rest: bool,
}

impl Stream for Yielding {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rest) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = ready!(self.rows.poll_next_unpin(context));
        self.rest = next.is_some();
        Poll::Ready(next)
    }
}
