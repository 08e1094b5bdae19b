//! Finding the rows that a change takes out, and writing the lists of them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, StructArray};
use arrow_schema::{DataType, Field};

use super::Exclusive;
use crate::build::{ArrowFile, Bounds};
use crate::dataset::TEMPORARY_PREFIX;
use crate::error::{ReadError, WriteError};
use crate::manifest::{HiddenRecord, SegmentRecord};
use crate::segment::Segment;
use crate::version::hidden::{hidden_path, schema};
use crate::version::{Part, Version};

/// Keys of a new segment that are looked up in the old ones at once.
const KEYS_AT_ONCE: usize = 1 << 16;

impl Version {
    /// Of each segment, the visible rows that have one of these keys, ascending.
    pub(super) fn rows_with_keys(&self, keys: &ArrayRef) -> Result<Vec<Vec<u32>>, ReadError> {
        if self.key_type().is_none() {
            return Err(self.wrong_shape("it has no key to find rows by"));
        }
        self.parts.iter().map(|part| self.rows_in_part(part, keys)).collect()
    }

    fn rows_in_part(&self, part: &Part, keys: &ArrayRef) -> Result<Vec<u32>, ReadError> {
        let segment = &part.segment;
        let mut rows = Vec::new();
        for first in segment.find_array(self.name(), keys, 1)?.iter().flatten() {
            if !part.is_hidden(first) {
                rows.extend(segment.rows_of_key(first)?);
            }
        }
        rows.sort_unstable();
        // A key may have been given twice.
        rows.dedup();
        Ok(rows)
    }

    /// Of each segment, the visible rows that have a key of `new`, ascending.
    pub(super) fn rows_with_keys_of(&self, new: &Segment) -> Result<Vec<Vec<u32>>, ReadError> {
        let mut rows = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut own = Vec::new();
            if overlap(&part.segment, new)? {
                for start in (0..new.rows).step_by(KEYS_AT_ONCE) {
                    let keys = keys_of(new, start, KEYS_AT_ONCE.min(new.rows - start))?;
                    own.extend(self.rows_in_part(part, &keys)?);
                }
                own.sort_unstable();
                own.dedup();
            }
            rows.push(own);
        }
        Ok(rows)
    }

    /// Fails if a key of `new` is in this version.
    pub(super) fn check_new_keys(&self, new: &Segment) -> Result<(), WriteError> {
        for part in &self.parts {
            if !overlap(&part.segment, new)? {
                continue;
            }
            for start in (0..new.rows).step_by(KEYS_AT_ONCE) {
                let keys = keys_of(new, start, KEYS_AT_ONCE.min(new.rows - start))?;
                let found = part.segment.find_array(self.name(), &keys, 1)?;
                let there = found.iter().flatten().find(|&row| !part.is_hidden(row));
                if let Some(row) = there {
                    return Err(WriteError::KeyExists {
                        dataset: self.name().to_owned(),
                        key: part.segment.key_text(row as usize),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Whether the key ranges of two segments have anything in common.
fn overlap(a: &Segment, b: &Segment) -> Result<bool, ReadError> {
    let (Some(last_a), Some(last_b)) = (a.rows.checked_sub(1), b.rows.checked_sub(1)) else { return Ok(false) };
    Ok(a.compare_keys(0, b, last_b)?.is_le() && b.compare_keys(0, a, last_a)?.is_le())
}

/// The keys of some rows as an array to look up.
fn keys_of(segment: &Segment, start: usize, len: usize) -> Result<ArrayRef, ReadError> {
    let parts = segment.key.as_ref().map_or(&[][..], |side| &side.parts);
    let mut columns = parts.iter().map(|part| {
        let column = &segment.columns[part.column];
        Ok((column, column.slice(&segment.data, start, len)?))
    });
    if parts.len() == 1 {
        return columns.next().unwrap_or_else(|| unreachable!("there is one")).map(|(_, array)| array);
    }
    let fields = columns
        .map(|column| {
            let (column, array) = column?;
            Ok((Arc::new(Field::new(&column.name, array.data_type().clone(), true)), array))
        })
        .collect::<Result<Vec<_>, ReadError>>()?;
    Ok(Arc::new(StructArray::from(fields)))
}

impl Exclusive {
    /// The segments of `base` with these rows of each hidden too. A segment of which no row is left goes, unless it is
    /// the only one.
    pub(super) fn hide(&self, base: &Version, rows: Vec<Vec<u32>>) -> Result<Vec<SegmentRecord>, WriteError> {
        let mut segments = Vec::with_capacity(base.parts.len());
        for ((part, record), rows) in base.parts.iter().zip(&base.manifest.segments).zip(rows) {
            let mut record = record.clone();
            if !rows.is_empty() {
                let mut all = rows;
                if let Some(hidden) = &part.hidden {
                    all.extend_from_slice(hidden.rows());
                    all.sort_unstable();
                }
                if all.len() == part.segment.rows && base.parts.len() > 1 {
                    continue;
                }
                record.hidden = Some(self.write_hidden(&all)?);
            }
            segments.push(record);
        }
        if segments.is_empty() {
            // All are gone: the last of them stands for the columns and their types.
            let (part, record) = base
                .parts
                .iter()
                .zip(&base.manifest.segments)
                .next_back()
                .unwrap_or_else(|| unreachable!("a version has at least one segment"));
            let all: Vec<u32> = part.all_rows().collect();
            let mut record = record.clone();
            record.hidden = Some(self.write_hidden(&all)?);
            segments.push(record);
        }
        let (fs, dir) = (self.dataset().fs(), self.dataset().dir());
        fs.sync_dir(dir).map_err(|e| WriteError::io("sync the folder", dir, e))?;
        Ok(segments)
    }

    /// Writes a list of rows under its final name; the folder is not synced yet.
    fn write_hidden(&self, rows: &[u32]) -> Result<HiddenRecord, WriteError> {
        let (fs, dir) = (self.dataset().fs(), self.dataset().dir());
        let id = self.new_id()?;
        let temporary = dir.join(format!("{TEMPORARY_PREFIX}{id}.arrow"));
        let shape = [DataType::Int32];
        let mut bounds = Bounds::new(&shape[0]);
        bounds.rows = rows.len() as u64;
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        let mut batch =
            ArrowFile::create(fs.as_ref(), &temporary, Arc::new(schema()))?.begin(&shape, &[bounds], u64::MAX);
        batch.append_raw(rows.len(), &bytes)?;
        let written = batch.finish(fs.as_ref())?;
        written.target.seal()?;
        let target = hidden_path(dir, &id);
        fs.rename(&temporary, &target).map_err(|e| WriteError::io("rename to", &target, e))?;
        Ok(HiddenRecord { id, rows: rows.len() as u64, file: written.record })
    }
}
