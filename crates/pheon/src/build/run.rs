//! Sorted runs that did not fit in memory: written once in order, read back once in order, then removed. A part of a
//! build is made of runs too, which another process has written ([`super::part`]); these belong to the part's folder.

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
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::adapt::Adapter;
use super::block::Block;
use super::gather::gather_column;
use super::sort::place;
use crate::error::{ReadError, WriteError};
use crate::manifest::hex64;

/// A sorted run. Its file is removed with it, unless it is a part's.
pub(crate) struct Run {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    schema: SchemaRef,
    /// Open while the run is written; `None` for a run of a part.
    file: Option<Box<dyn WriteFile>>,
    blocks: Vec<Stored>,
    end: u64,
    rows: u64,
    /// The last row, alone.
    last: Option<Block>,
    /// How rows of a part become rows of this build.
    adapter: Option<Arc<Adapter>>,
    /// The process that removes the file.
    owner: u32,
}

/// Where a block lies: its message, padded, then its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    offset: u64,
    message_bytes: u32,
    body_at: u32,
    total_bytes: u64,
    /// Of all `total_bytes`.
    #[serde(with = "hex64")]
    xxh3_64: u64,
}

/// A finished run as a part's document lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The file's name in the part's folder.
    pub(crate) file: String,
    pub(crate) rows: u64,
    pub(crate) blocks: Vec<Stored>,
}

impl RunRecord {
    /// Where its last block ends.
    pub(crate) fn file_bytes_min(&self) -> u64 {
        self.blocks.iter().map(|block| block.offset.saturating_add(block.total_bytes)).max().unwrap_or(0)
    }

    /// The length of the longest block: what reading the run takes of memory.
    pub(crate) fn longest_block_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.total_bytes).max().unwrap_or(0)
    }
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
        let (fs, path, file) = (fs.clone(), path.to_owned(), Some(file));
        Ok(Self {
            fs,
            path,
            schema,
            file,
            blocks: Vec::new(),
            end: 0,
            rows: 0,
            last: None,
            adapter: None,
            owner: pheon_os::process::pid(),
        })
    }

    /// A run that a part has written. `schema`: that of its blocks, as [`spill_schema`] makes it.
    pub(crate) fn of_part(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        record: &RunRecord,
        schema: SchemaRef,
        adapter: Arc<Adapter>,
    ) -> Self {
        Self {
            fs: fs.clone(),
            path: dir.join(&record.file),
            schema,
            file: None,
            blocks: record.blocks.clone(),
            end: 0,
            rows: record.rows,
            last: None,
            adapter: Some(adapter),
            owner: pheon_os::process::pid(),
        }
    }

    /// Ends the writing of a run that stays: on disk if `durable`, and no longer removed with this value.
    pub(crate) fn keep(mut self, durable: bool) -> Result<RunRecord, WriteError> {
        if let Some(file) = &self.file
            && durable
        {
            file.sync().map_err(|e| WriteError::io("syncing the run", &self.path, e))?;
        }
        self.file = None;
        let file = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        Ok(RunRecord { file, rows: self.rows, blocks: std::mem::take(&mut self.blocks) })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether another process has written it.
    pub(crate) fn is_of_part(&self) -> bool {
        self.adapter.is_some()
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
        let file = self.file.as_ref().expect("rows are appended only to a run that is being written");
        let write = |at, bytes: &[u8]| {
            file.write_at(at, bytes).map_err(|e| WriteError::io("writing the spill file", &self.path, e))
        };
        write(self.end, &message)?;
        write(self.end + body_at as u64, &encoded.arrow_data)?;
        let total_bytes = (body_at + encoded.arrow_data.len()) as u64;
        let mut hash = Xxh3::new();
        hash.update(&message);
        hash.update(&encoded.arrow_data);
        self.blocks.push(Stored {
            offset: self.end,
            message_bytes: message_bytes as u32,
            body_at: body_at as u32,
            total_bytes,
            xxh3_64: hash.digest(),
        });
        self.end += total_bytes;
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
        Ok(RunReader { run: self, file, next: 0, rows: 0 })
    }

    /// Reads every block, whatever it holds.
    pub(crate) fn verify(&self) -> Result<(), WriteError> {
        let mut reader = self.read()?;
        while reader.next_bytes()?.is_some() {}
        Ok(())
    }

    /// A block of it is not what was written. The bytes of a part are on the disk for as long as its build takes.
    pub(crate) fn damaged(&self, block: usize, problem: String) -> WriteError {
        let place = match &self.adapter {
            Some(adapter) => format!("block {block} of a run of part {:?}", adapter.part),
            None => format!("block {block} of the spilled rows"),
        };
        let advice = match (&self.adapter, self.path.parent()) {
            (Some(_), Some(dir)) => format!("; remove {} to write this part again", dir.display()),
            _ => String::new(),
        };
        WriteError::Read(ReadError::corrupt(&self.path, place, format!("{problem}{advice}")))
    }

    fn broken(&self, e: &ArrowError) -> WriteError {
        let cause = std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string());
        WriteError::io("coding rows of the spill file", &self.path, cause)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A child that was forked from the writer has the value, too, and must not take the file away.
        if self.file.is_some() && self.owner == pheon_os::process::pid() {
            // Nobody can act on a failure here; leftovers go with the temporary folder.
            let _ = self.fs.unlink(&self.path);
        }
    }
}

/// Reads a run's blocks in order.
pub(crate) struct RunReader<'a> {
    run: &'a Run,
    file: Box<dyn ReadFile>,
    next: usize,
    /// Rows read so far.
    rows: u64,
}

impl<'a> RunReader<'a> {
    pub(crate) fn run(&self) -> &'a Run {
        self.run
    }

    /// The next block, `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Block>, WriteError> {
        let number = self.next;
        let Some((stored, bytes)) = self.next_bytes()? else {
            return match self.rows == self.run.rows {
                true => Ok(None),
                false => Err(self.run.damaged(number, format!("{} rows of {} were read", self.rows, self.run.rows))),
            };
        };
        let block = crate::untrusted::guard(|| decode(&bytes, stored, &self.run.schema))
            .map_err(|e| self.run.damaged(number, e.to_string()))?;
        if block.rows == 0 {
            return Err(self.run.damaged(number, "it has no rows".to_owned()));
        }
        self.rows += block.rows as u64;
        match &self.run.adapter {
            Some(adapter) => {
                adapter.check(&block).map_err(|problem| self.run.damaged(number, problem))?;
                adapter.adapt(block).map(Some)
            }
            None => Ok(Some(block)),
        }
    }

    /// How many blocks were read.
    pub(crate) fn blocks_read(&self) -> usize {
        self.next
    }

    /// The bytes of the next block, which are as they were written.
    fn next_bytes(&mut self) -> Result<Option<(&'a Stored, Buffer)>, WriteError> {
        let Some(stored) = self.run.blocks.get(self.next) else { return Ok(None) };
        let number = self.next;
        self.next += 1;
        let file_bytes = self.file.len().map_err(|e| WriteError::io("reading the spill file", &self.run.path, e))?;
        if stored.offset.checked_add(stored.total_bytes).is_none_or(|end| end > file_bytes) {
            return Err(self.run.damaged(number, "the file ends within it".to_owned()));
        }
        let mut bytes = MutableBuffer::from_len_zeroed(stored.total_bytes as usize);
        match self.file.read_at(stored.offset, bytes.as_slice_mut()) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(self.run.damaged(number, "the file ends within it".to_owned()));
            }
            done => done.map_err(|e| WriteError::io("reading the spill file", &self.run.path, e))?,
        }
        // Read once: the page cache has better use for the memory.
        self.file.drop_cache(stored.offset, stored.total_bytes);
        let found = xxh3_64(bytes.as_slice());
        if found != stored.xxh3_64 {
            let problem = format!("expected the checksum {:016x}, found {found:016x}", stored.xxh3_64);
            return Err(self.run.damaged(number, problem));
        }
        Ok(Some((stored, bytes.into())))
    }
}

fn decode(bytes: &Buffer, stored: &Stored, schema: &SchemaRef) -> Result<Block, ArrowError> {
    let message = bytes.get(..stored.message_bytes as usize).filter(|_| stored.body_at as usize <= bytes.len());
    let message = message.ok_or_else(|| ArrowError::IpcError("a message longer than its block".into()))?;
    let message = root_as_message(message).map_err(|e| ArrowError::IpcError(e.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| ArrowError::IpcError("not a record batch".into()))?;
    // A compressed buffer says how long it becomes, and the decoder believes that.
    if batch.compression().is_some() {
        return Err(ArrowError::IpcError("its buffers are compressed".into()));
    }
    let body = bytes.slice(stored.body_at as usize);
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

    #[test]
    fn a_flipped_bit_or_a_cut_off_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let block = Block { rows: 2, columns: vec![Arc::new(Int32Array::from(vec![1, 2]))] };
        let mut run = Run::create(&pheon_os::fs::real(), &path, spill_schema(&[DataType::Int32])).unwrap();
        run.append(&block).unwrap();
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(&path, &bad).unwrap();
            let error = run.read().unwrap().next().unwrap_err().to_string();
            assert!(error.contains("block 0") && error.contains("checksum"), "byte {at}: {error}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(run.read().unwrap().next().unwrap_err().to_string().contains("ends within"));
    }
}
