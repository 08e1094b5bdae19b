//! Sorted runs that did not fit in memory: written once in order, read back once in order, then removed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::{Buffer, MutableBuffer};
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::root_as_message;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use pheon_os::fs::{FileSystem, ReadFile, WriteFile};

use super::block::Block;
use super::gather::gather_column;
use super::sort::place;
use crate::error::WriteError;

/// A sorted run. Its file is removed with it.
pub(crate) struct Run {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    schema: SchemaRef,
    file: Box<dyn WriteFile>,
    blocks: Vec<Stored>,
    end: u64,
    rows: u64,
    /// The last row, alone.
    last: Option<Block>,
}

/// Where a block lies: its message, padded, then its body.
#[derive(Debug, Clone, Copy)]
struct Stored {
    offset: u64,
    message_bytes: usize,
    body_at: usize,
    total_bytes: usize,
}

/// The schema under which shapes are spilled.
pub(crate) fn spill_schema(shapes: &[DataType]) -> SchemaRef {
    let fields: Vec<_> = shapes.iter().map(|s| Field::new("", s.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

impl Run {
    /// Creates the file; it must not exist.
    pub(crate) fn create(fs: &Arc<dyn FileSystem>, path: &Path, schema: SchemaRef) -> Result<Self, WriteError> {
        let file = fs.create_new(path, 0o600).map_err(|e| WriteError::io("creating the spill file", path, e))?;
        let (fs, path) = (fs.clone(), path.to_owned());
        Ok(Self { fs, path, schema, file, blocks: Vec::new(), end: 0, rows: 0, last: None })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The last row, alone.
    pub(crate) fn last(&self) -> Option<&Block> {
        self.last.as_ref()
    }

    /// Appends rows; they must not sort before those that are there.
    pub(crate) fn append(&mut self, block: &Block) -> Result<(), WriteError> {
        if block.rows == 0 {
            return Ok(());
        }
        let failed = |e: ArrowError| self.broken(&e);
        let options = RecordBatchOptions::new().with_row_count(Some(block.rows));
        let batch =
            RecordBatch::try_new_with_options(self.schema.clone(), block.columns.clone(), &options).map_err(failed)?;
        let (_, encoded) = IpcDataGenerator::default()
            .encode(
                &batch,
                &mut DictionaryTracker::new(true),
                &IpcWriteOptions::default(),
                &mut IpcWriteContext::default(),
            )
            .map_err(failed)?;
        let message_bytes = encoded.ipc_message.len();
        let body_at = message_bytes.next_multiple_of(64);
        let mut message = encoded.ipc_message;
        message.resize(body_at, 0);
        let write = |at, bytes: &[u8]| {
            self.file.write_at(at, bytes).map_err(|e| WriteError::io("writing the spill file", &self.path, e))
        };
        write(self.end, &message)?;
        write(self.end + body_at as u64, &encoded.arrow_data)?;
        let total_bytes = body_at + encoded.arrow_data.len();
        self.blocks.push(Stored { offset: self.end, message_bytes, body_at, total_bytes });
        self.end += total_bytes as u64;
        self.rows += block.rows as u64;
        // A copy: a slice would keep the whole block in memory.
        let last = |column: &ArrayRef| gather_column(&[column], &[place(0, block.rows - 1)]);
        let columns = block.columns.iter().map(last).collect::<Result<_, _>>().map_err(|e| self.broken(&e))?;
        self.last = Some(Block { rows: 1, columns });
        Ok(())
    }

    /// A reader from the first block on.
    pub(crate) fn read(&self) -> Result<RunReader<'_>, WriteError> {
        let file =
            self.fs.open_read(&self.path).map_err(|e| WriteError::io("opening the spill file", &self.path, e))?;
        Ok(RunReader { run: self, file, next: 0 })
    }

    fn broken(&self, e: &ArrowError) -> WriteError {
        let cause = std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string());
        WriteError::io("coding rows of the spill file", &self.path, cause)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Nobody can act on a failure here; leftovers go with the temporary folder.
        let _ = self.fs.unlink(&self.path);
    }
}

/// Reads a run's blocks in order.
pub(crate) struct RunReader<'a> {
    run: &'a Run,
    file: Box<dyn ReadFile>,
    next: usize,
}

impl RunReader<'_> {
    /// The next block, `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Block>, WriteError> {
        let Some(stored) = self.run.blocks.get(self.next) else { return Ok(None) };
        self.next += 1;
        let mut bytes = MutableBuffer::from_len_zeroed(stored.total_bytes);
        self.file
            .read_at(stored.offset, bytes.as_slice_mut())
            .map_err(|e| WriteError::io("reading the spill file", &self.run.path, e))?;
        // Read once: the page cache has better use for the memory.
        self.file.drop_cache(stored.offset, stored.total_bytes as u64);
        let bytes: Buffer = bytes.into();
        let block = decode(&bytes, stored, &self.run.schema).map_err(|e| self.run.broken(&e))?;
        Ok(Some(block))
    }
}

fn decode(bytes: &Buffer, stored: &Stored, schema: &SchemaRef) -> Result<Block, ArrowError> {
    let message = root_as_message(&bytes[..stored.message_bytes]).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| ArrowError::IpcError("not a record batch".into()))?;
    let body = bytes.slice(stored.body_at);
    let batch = read_record_batch(&body, batch, schema.clone(), &HashMap::new(), None, &message.version())?;
    Ok(Block { rows: batch.num_rows(), columns: batch.columns().to_vec() })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at files behind the seam")]
mod tests {
    use super::*;
    use arrow_array::{Array, Int32Array, LargeBinaryArray};

    #[test]
    fn what_was_written_comes_back_and_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let strings = LargeBinaryArray::from_iter([Some(&b"a"[..]), None, Some(b"ccc")]);
        let numbers = Int32Array::from(vec![1, 2, 3]);
        let whole = Block { rows: 3, columns: vec![Arc::new(strings), Arc::new(numbers)] };
        let schema = spill_schema(&[DataType::LargeBinary, DataType::Int32]);
        let mut run = Run::create(&pheon_os::fs::real(), &path, schema).unwrap();
        run.append(&whole).unwrap();
        run.append(&whole.slice(0, 0)).unwrap();
        run.append(&whole.slice(1, 2)).unwrap();
        assert_eq!(run.rows(), 5);
        assert_eq!(run.last().unwrap().columns, whole.slice(2, 1).columns);
        let mut reader = run.read().unwrap();
        assert_eq!(reader.next().unwrap().unwrap().columns, whole.columns);
        let second = reader.next().unwrap().unwrap();
        assert_eq!((second.rows, &second.columns), (2, &whole.slice(1, 2).columns));
        assert_eq!(second.columns[0].null_count(), 1);
        assert!(reader.next().unwrap().is_none());
        drop(reader);
        assert!(path.exists());
        drop(run);
        assert!(!path.exists());
    }
}
