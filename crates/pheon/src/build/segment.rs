//! The way in: batches go to [`SegmentBuilder::write`], two finished files come out of [`SegmentBuilder::finish`].

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use pheon_os::fs::FileSystem;

use super::options::PutOptions;
use super::progress::Monitor;
use crate::error::WriteError;
use crate::manifest::SegmentRecord;

/// Builds one segment in bounded memory.
pub(crate) struct SegmentBuilder {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    schema: SchemaRef,
    monitor: Monitor,
}

impl SegmentBuilder {
    /// `dir`: an existing empty temporary folder.
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        schema: SchemaRef,
        options: &PutOptions,
    ) -> Result<Self, WriteError> {
        options.resolved_memory_bytes()?;
        options.resolved_threads()?;
        Ok(Self { fs, dir, schema, monitor: Monitor::new(options) })
    }

    /// Takes rows in.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        let _ = (batch, &self.schema);
        self.monitor.check()
    }

    /// Writes `data.arrow` and `index.arrow`.
    pub(crate) fn finish(self) -> Result<SegmentRecord, WriteError> {
        let _ = &self.fs;
        Err(WriteError::Options { problem: format!("building {} is not there yet", self.dir.display()) })
    }
}
