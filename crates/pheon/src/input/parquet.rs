//! Parquet files, row group by row group.

use std::fs::File;
use std::path::Path;

use arrow_schema::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::ipc::guard;
use super::{Batches, Format, Source, open_file};
use crate::error::WriteError;

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, WriteError> {
    let file = open_file(path)?;
    guard(path, "its footer, or it is no Parquet file", || Ok(ParquetRecordBatchReaderBuilder::try_new(file)?))
}

pub(super) fn look(path: &Path) -> Result<Source, WriteError> {
    let builder = builder(path)?;
    let rows = builder.metadata().file_metadata().num_rows();
    Ok(Source {
        path: path.into(),
        format: Format::Parquet,
        schema: builder.schema().clone(),
        rows_estimate: u64::try_from(rows).ok(),
        batch_rows: usize::MAX,
    })
}

pub(super) fn open(source: &Source, target: &SchemaRef) -> Result<Batches, WriteError> {
    let path = source.path.clone();
    let builder = builder(&path)?;
    let wanted = source.schema.fields().iter().enumerate();
    let wanted = wanted.filter(|(_, f)| target.index_of(f.name()).is_ok()).map(|(i, _)| i);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let mut reader = guard(&path, "its first row group", || {
        Ok(builder.with_projection(mask).with_batch_size(source.batch_rows).build()?)
    })?;
    let mut rows = 0u64;
    Ok(Box::new(std::iter::from_fn(move || {
        let batch = guard(&path, &format!("the rows after row {rows}"), || reader.next().transpose());
        if let Ok(Some(batch)) = &batch {
            rows += batch.num_rows() as u64;
        }
        batch.transpose()
    })))
}
