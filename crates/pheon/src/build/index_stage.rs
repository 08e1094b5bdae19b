//! From a finished data file to its index: keys are read back in bounded memory unless their hashes came hot.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, LargeBinaryArray, make_array};
use arrow_buffer::{Buffer, MutableBuffer, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, Schema};
use pheon_os::fs::{FileSystem, ReadFile};

use super::block::Bounds;
use super::cells::{Cells, FromColumn, with_cells};
use super::data_file::{ArrowFile, WrittenFile};
use super::key::Key;
use super::progress::Monitor;
use super::sink::count_parts;
use crate::error::WriteError;
use crate::index::{BUCKET_BYTES, IndexBuildError, IndexBuilder, IndexPlan};
use crate::manifest::FileRecord;

/// Plans tried before giving up; the first nearly always works.
const ATTEMPTS_MAX: u32 = 16;
/// How much of the data file is read at a time.
const PIECE_ROWS: u64 = 1 << 16;
const PIECE_BYTES: i64 = 8 << 20;

/// What an index is built from.
pub(crate) struct IndexStage<'a> {
    pub(crate) fs: &'a Arc<dyn FileSystem>,
    pub(crate) dir: &'a Path,
    pub(crate) spill_dir: &'a Path,
    pub(crate) data_path: PathBuf,
    pub(crate) data: &'a FileRecord,
    pub(crate) rows: u64,
    pub(crate) key: &'a Key,
    /// The key columns as they are in the file, in the key's order.
    pub(crate) parts: Vec<StoredPart<'a>>,
    /// No key occurs twice.
    pub(crate) unique: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) threads: usize,
    pub(crate) monitor: &'a Monitor,
}

/// A key column in the data file.
pub(crate) struct StoredPart<'a> {
    shape: &'a DataType,
    /// Which of the file's buffers is its first, its validity.
    first_buffer: usize,
}

impl<'a> StoredPart<'a> {
    /// The column at this position of a file whose columns begin with these shapes.
    pub(crate) fn new(shapes: &'a [DataType], column: usize) -> Self {
        let first_buffer = shapes[..column].iter().map(|s| count_parts(s).1).sum();
        Self { shape: &shapes[column], first_buffer }
    }
}

impl IndexStage<'_> {
    /// Writes `index.arrow` for `keys` distinct keys. `hot`: a builder of the first plan that has all hashes already.
    pub(crate) fn build(&self, keys: u64, mut hot: Option<IndexBuilder>) -> Result<WrittenFile, WriteError> {
        let path = self.dir.join("index.arrow");
        for attempt in 0..ATTEMPTS_MAX {
            let plan = IndexPlan::for_keys(keys, attempt);
            let builder = match hot.take() {
                Some(builder) => builder,
                None => self.filled(plan)?,
            };
            let field = Field::new("bucket", DataType::FixedSizeBinary(BUCKET_BYTES as i32), false);
            let schema = Arc::new(Schema::new_with_metadata(vec![field], plan.to_metadata()));
            let shape = [DataType::FixedSizeBinary(BUCKET_BYTES as i32)];
            let mut bounds = Bounds::new(&shape[0]);
            bounds.rows = plan.total_buckets();
            let mut batch = ArrowFile::create(&**self.fs, &path, schema)?.begin(&shape, &[bounds], u64::MAX);
            let mut failed = None;
            let finished = builder.finish(&mut |bytes| {
                self.monitor.check().and_then(|()| batch.append_raw(bytes.len() / BUCKET_BYTES, bytes)).map_err(|e| {
                    failed = Some(e);
                    std::io::Error::other("the index file could not be written")
                })
            });
            match finished {
                Ok(_) => {
                    assert_eq!(batch.rows(), plan.total_buckets(), "the index builder owes buckets");
                    return batch.finish(&**self.fs);
                }
                Err(IndexBuildError::Unplaced { .. }) => {
                    self.fs.unlink(&path).map_err(|e| WriteError::io("removing", &path, e))?;
                }
                Err(IndexBuildError::Io(e)) => {
                    return Err(failed.unwrap_or_else(|| WriteError::io("building the index in", self.spill_dir, e)));
                }
            }
        }
        Err(WriteError::Limit {
            problem: format!(
                "{keys} keys could not be placed in an index with any of {ATTEMPTS_MAX} seeds; some of them may have been chosen to collide"
            ),
        })
    }

    /// How many different keys the data file holds.
    pub(crate) fn count_keys(&self) -> Result<u64, WriteError> {
        if self.unique {
            return Ok(self.rows);
        }
        let mut keys = 0;
        with_cells!(self.key.key_type, C => self.for_each_head::<C>(|_, _, _| {
            keys += 1;
            Ok(())
        }))?;
        Ok(keys)
    }

    fn filled(&self, plan: IndexPlan) -> Result<IndexBuilder, WriteError> {
        let mut builder = IndexBuilder::new(self.fs.clone(), self.spill_dir, plan, self.memory_bytes, self.threads);
        with_cells!(self.key.key_type, C => self.for_each_head::<C>(|cells, at, row| {
            let hash = cells.key(at).hash(plan.seed);
            builder.push(hash, row).map_err(|e| WriteError::io("building the index in", self.spill_dir, e))
        }))?;
        Ok(builder)
    }

    /// Calls `take` for the first row of every key: its cells, its place there, its number in the file.
    fn for_each_head<C: FromColumn>(
        &self,
        mut take: impl FnMut(&C, usize, u32) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let failed = |e| WriteError::io("reading back", &self.data_path, e);
        let file = self.fs.open_read(&self.data_path).map_err(failed)?;
        let mut before: Option<(C, usize)> = None;
        let mut row = 0;
        while row < self.rows {
            self.monitor.check()?;
            let (column, rows) = self.read_piece(&*file, row).map_err(failed)?;
            let cells = C::from_column(&column, self.key.key_type);
            for at in 0..rows {
                let same = !self.unique
                    && match (at.checked_sub(1), &before) {
                        (Some(previous), _) => cells.compare(at, &cells, previous, 0) == Ordering::Equal,
                        (None, Some((earlier, last))) => cells.compare(at, earlier, *last, 0) == Ordering::Equal,
                        (None, None) => false,
                    };
                if !same {
                    take(&cells, at, (row + at as u64) as u32)?;
                }
            }
            row += rows as u64;
            before = Some((cells, rows - 1));
        }
        Ok(())
    }

    /// Some keys from `row` on, as a column to make cells of, and how many rows these are.
    fn read_piece(&self, file: &dyn ReadFile, row: u64) -> std::io::Result<(ArrayRef, usize)> {
        let most = PIECE_ROWS.min(self.rows - row);
        if let [part] = self.parts.as_slice() {
            return self.read_part(file, part, row, most);
        }
        // Strings first: where they are long, there are fewer rows to read of the others.
        let mut order: Vec<usize> = (0..self.parts.len()).collect();
        order.sort_by_key(|&i| !matches!(self.parts[i].shape, DataType::LargeBinary));
        let mut rows = most;
        let mut columns = vec![None; self.parts.len()];
        for i in order {
            let (column, read) = self.read_part(file, &self.parts[i], row, rows)?;
            rows = read as u64;
            columns[i] = Some(column);
        }
        let columns: Vec<ArrayRef> = columns.into_iter().flatten().map(|c| c.slice(0, rows as usize)).collect();
        let key_bytes = self.key.key_bytes(&columns.iter().collect::<Vec<_>>()).map_err(broken)?;
        Ok((key_bytes, rows as usize))
    }

    /// At most so many rows of a column from `row` on, in shape, and how many there are.
    fn read_part(
        &self,
        file: &dyn ReadFile,
        part: &StoredPart<'_>,
        row: u64,
        rows: u64,
    ) -> std::io::Result<(ArrayRef, usize)> {
        let buffer_at = |at: usize| self.data.buffers[part.first_buffer + at];
        let read = |offset: u64, bytes: u64| {
            let mut buffer = MutableBuffer::from_len_zeroed(bytes as usize);
            file.read_at(offset, buffer.as_slice_mut()).map(|()| Buffer::from(buffer))
        };
        if matches!(part.shape, DataType::LargeBinary) {
            let offsets = ScalarBuffer::<i64>::from(read(buffer_at(1).offset + 8 * row, 8 * (rows + 1))?);
            let first = offsets[0];
            let within = offsets[1..].partition_point(|&o| o - first <= PIECE_BYTES).max(1);
            let bytes = read(buffer_at(2).offset + first as u64, (offsets[within] - first) as u64)?;
            let offsets: Vec<i64> = offsets[..=within].iter().map(|o| o - first).collect();
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            let array = LargeBinaryArray::try_new(offsets, bytes, None).map_err(broken)?;
            return Ok((Arc::new(array), within));
        }
        // Bits may begin within a byte.
        let mut skipped = 0;
        let (offset, bytes) = match part.shape {
            DataType::Boolean => {
                skipped = row % 8;
                (row / 8, (skipped + rows).div_ceil(8))
            }
            DataType::FixedSizeBinary(n) => (row * *n as u64, rows * *n as u64),
            other => {
                let width = other.primitive_width().unwrap_or_else(|| unreachable!("{other} cannot be a key")) as u64;
                (row * width, rows * width)
            }
        };
        let bytes = read(buffer_at(1).offset + offset, bytes)?;
        let data = ArrayData::builder(part.shape.clone()).len((skipped + rows) as usize).add_buffer(bytes).build();
        Ok((make_array(data.map_err(broken)?).slice(skipped as usize, rows as usize), rows as usize))
    }
}

fn broken(e: arrow_schema::ArrowError) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string())
}
