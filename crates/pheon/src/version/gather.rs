//! Rows of several segments as record batches: long runs as slices of the mappings, short ones copied together.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, SchemaRef};

use super::Version;
use super::dictionaries::join;
use super::merge::Run;
use crate::build::{gather_stored, has_dictionary, place};
use crate::error::ReadError;

/// Runs of so many rows are handed out as they lie; shorter ones cost a consumer more as a chunk of their own than
/// their copy does.
const RUN_ROWS_MIN: u32 = 4096;
/// Rows that are copied together at most.
const COPIED_ROWS_MAX: u32 = 1 << 16;

impl Version {
    /// The rows of `runs` with these columns.
    pub(crate) fn batches(
        &self,
        runs: impl Iterator<Item = Run>,
        columns: &[usize],
        schema: &SchemaRef,
    ) -> Result<Vec<RecordBatch>, ReadError> {
        let mut batches = Vec::new();
        for group in groups(runs) {
            let arrays =
                columns.iter().map(|&c| self.column_of(&group, c)).collect::<Result<Vec<ArrayRef>, ReadError>>()?;
            let rows: usize = group.iter().map(|run| run.len as usize).sum();
            // What a checksum covers says which columns have no nulls, so that it is the buffers that are wrong here.
            let damaged =
                |e: ArrowError| self.parts[group[0].part as usize].segment.data.corrupt("its columns", e.to_string());
            batches.push(batch_of(schema, arrays, rows).map_err(damaged)?);
        }
        Ok(batches)
    }

    /// One column of the rows of `runs`, in as many arrays as [`Version::batches`] makes batches.
    pub(crate) fn chunks(&self, runs: impl Iterator<Item = Run>, column: usize) -> Result<Vec<ArrayRef>, ReadError> {
        groups(runs).iter().map(|group| self.column_of(group, column)).collect()
    }

    /// How many batches [`Version::batches`] makes of these runs.
    pub(crate) fn count_groups(runs: impl Iterator<Item = Run>) -> usize {
        groups(runs).len()
    }

    /// Whether some of these runs are copied together.
    pub(crate) fn copies_some(runs: impl Iterator<Item = Run>) -> bool {
        groups(runs).iter().any(|group| group.len() > 1)
    }

    fn column_of(&self, group: &[Run], column: usize) -> Result<ArrayRef, ReadError> {
        let slice = |part: u32, start: u32, len: u32| {
            let segment = &self.parts[part as usize].segment;
            segment.columns[column].slice(&segment.data, start as usize, len as usize)
        };
        if let [run] = group {
            return slice(run.part, run.start, run.len);
        }
        // Of each segment, the rows from the first to the last that is needed.
        let mut spans: Vec<(u32, u32, u32)> = Vec::new();
        for run in group {
            match spans.iter_mut().find(|span| span.0 == run.part) {
                Some(span) => span.2 = run.start + run.len,
                None => spans.push((run.part, run.start, run.start + run.len)),
            }
        }
        let values = spans
            .iter()
            .map(|&(part, start, end)| slice(part, start, end - start))
            .collect::<Result<Vec<_>, ReadError>>()?;
        // Of each run, which of the values it is in, its first row there and the one after its last.
        let pieces = group.iter().map(|run| {
            let at = spans.iter().position(|span| span.0 == run.part).unwrap_or(0);
            let from = (run.start - spans[at].1) as usize;
            (at, from, from + run.len as usize)
        });
        let rows = group.iter().map(|run| run.len as usize).sum();
        let failed = |e| ReadError::arrow("gather rows of several segments", e);
        if has_dictionary(values[0].data_type()) {
            return join(&self.with_one_dictionary(column, values)?, pieces, rows).map_err(failed);
        }
        let mut places = Vec::with_capacity(rows);
        pieces.for_each(|(at, from, to)| places.extend((from..to).map(|row| place(at, row))));
        gather_stored(&values, &places).map_err(failed)
    }
}

/// Puts short runs together.
fn groups(runs: impl Iterator<Item = Run>) -> Vec<Vec<Run>> {
    let mut groups: Vec<Vec<Run>> = Vec::new();
    let mut room = 0;
    for run in runs {
        if run.len >= RUN_ROWS_MIN {
            groups.push(vec![run]);
            room = 0;
            continue;
        }
        match groups.last_mut().filter(|_| room >= run.len) {
            Some(group) => group.push(run),
            None => {
                groups.push(vec![run]);
                room = COPIED_ROWS_MAX;
            }
        }
        room -= run.len;
    }
    groups
}

/// Columns as a record batch of so many rows, also if there are no columns.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}
