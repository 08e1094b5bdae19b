//! Several files, one after the other.

use std::collections::VecDeque;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};

use super::{Batches, InputOptions, Source};
use crate::error::WriteError;

/// Reads files in order and opens each only when its turn comes. After an error it is at its end.
pub(super) struct Chain {
    waiting: VecDeque<Source>,
    current: Option<Batches>,
    schema: SchemaRef,
    options: InputOptions,
}

impl Chain {
    pub(super) fn new(sources: Vec<Source>, schema: SchemaRef, options: InputOptions) -> Self {
        Self { waiting: sources.into(), current: None, schema, options }
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>, WriteError> {
        loop {
            if let Some(batches) = &mut self.current {
                match batches.next() {
                    Some(batch) => return batch.map(Some),
                    None => self.current = None,
                }
            }
            let Some(source) = self.waiting.pop_front() else { return Ok(None) };
            self.current = Some(source.open(&self.schema, &self.options)?);
        }
    }
}

impl Iterator for Chain {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance()
            .map_err(|e| {
                self.current = None;
                self.waiting.clear();
                ArrowError::ExternalError(Box::new(e))
            })
            .transpose()
    }
}

impl RecordBatchReader for Chain {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}
