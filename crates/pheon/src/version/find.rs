//! Lookups in a version of several segments: each in turn, newest first.
//!
//! A row is named by 64 bits: its segment's number above, its row there below. In a version of one segment that is the
//! row's number.

use arrow_array::{Array, ArrayRef, UInt32Array, UInt64Array, new_null_array};
use arrow_buffer::{NullBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::Version;
use super::dictionaries::join;
use crate::build::{Place, block_of, gather_stored, has_dictionary, place, row_of};
use crate::error::ReadError;
use crate::key::KeyRef;

const MISSING: u64 = u64::MAX;
const ROW_BITS: u32 = 32;

#[inline]
pub(crate) fn row_id(part: usize, row: u32) -> u64 {
    (part as u64) << ROW_BITS | u64::from(row)
}

/// Segment and row of a [`row_id`].
#[inline]
pub(crate) fn parts_of(id: u64) -> (usize, u32) {
    ((id >> ROW_BITS) as usize, id as u32)
}

impl Version {
    /// The row that holds `key`, whose form must fit the key type. `value`: the column that the caller will read next.
    #[inline(always)]
    pub(crate) fn find(&self, key: KeyRef<'_>, value: Option<usize>) -> Result<Option<u64>, ReadError> {
        match self.single() {
            Some(segment) => Ok(segment.find(key, value)?.map(u64::from)),
            None => self.find_in_several(key, value),
        }
    }

    #[inline(never)]
    fn find_in_several(&self, key: KeyRef<'_>, value: Option<usize>) -> Result<Option<u64>, ReadError> {
        for (i, part) in self.parts.iter().enumerate().rev() {
            if let Some(row) = part.segment.find(key, value)?
                && !part.is_hidden(row)
            {
                return Ok(Some(row_id(i, row)));
            }
        }
        Ok(None)
    }

    /// Rows of an Arrow array of keys; null where missing.
    pub(crate) fn find_array(&self, keys: &ArrayRef, threads: usize) -> Result<UInt64Array, ReadError> {
        if let Some(segment) = self.single() {
            let rows = segment.find_array(self.name(), keys, threads)?;
            let ids: Vec<u64> = rows.values().iter().map(|&row| u64::from(row)).collect();
            return Ok(UInt64Array::new(ScalarBuffer::from(ids), rows.nulls().cloned()));
        }
        let mut ids = vec![MISSING; keys.len()];
        // Positions of the keys that no newer segment has; `None`: all.
        let mut open: Option<Vec<u32>> = None;
        for (i, part) in self.parts.iter().enumerate().rev() {
            let asked = match &open {
                None => keys.clone(),
                Some(open) if open.is_empty() => break,
                Some(open) => arrow_select::take::take(keys, &UInt32Array::from(open.clone()), None)
                    .map_err(|e| ReadError::arrow("choose keys", e))?,
            };
            let rows = part.segment.find_array(self.name(), &asked, threads)?;
            let mut still_open = Vec::new();
            for (j, row) in rows.iter().enumerate() {
                let position = open.as_ref().map_or(j as u32, |open| open[j]);
                match row {
                    Some(row) if !part.is_hidden(row) => ids[position as usize] = row_id(i, row),
                    _ => still_open.push(position),
                }
            }
            open = Some(still_open);
        }
        let nulls = NullBuffer::from_iter(ids.iter().map(|&id| id != MISSING));
        Ok(UInt64Array::new(ScalarBuffer::from(ids), (nulls.null_count() > 0).then_some(nulls)))
    }

    /// Values of one column for an Arrow array of keys, aligned with it; null where missing.
    pub(crate) fn get_array(&self, keys: &ArrayRef, column: usize, threads: usize) -> Result<ArrayRef, ReadError> {
        match self.single() {
            Some(segment) => segment.get_array(self.name(), keys, column, threads),
            None => self.take(column, &self.find_array(keys, threads)?),
        }
    }

    /// [`Version::get_array`] with a limit to the values' bytes: `None` where there would be more.
    pub(crate) fn get_array_within(
        &self,
        keys: &ArrayRef,
        column: usize,
        bytes_max: usize,
    ) -> Result<Option<ArrayRef>, ReadError> {
        if let Some(segment) = self.single() {
            return segment.get_array_within(self.name(), keys, column, bytes_max);
        }
        let rows = self.find_array(keys, 1)?;
        if self.row_bytes(column, &rows)? > bytes_max as u64 {
            return Ok(None);
        }
        self.take(column, &rows).map(Some)
    }

    /// Values of one column for rows already found; null where the row is null.
    pub(crate) fn take(&self, column: usize, rows: &UInt64Array) -> Result<ArrayRef, ReadError> {
        if let Some((part, rows)) = self.in_one_part(rows)? {
            return self.parts[part].segment.take(column, &rows);
        }
        let failed = |e| ReadError::arrow("gather values of several segments", e);
        if u32::try_from(rows.len()).is_err() {
            let problem = format!("{} rows at once, which is more than {}", rows.len(), u32::MAX);
            return Err(failed(ArrowError::InvalidArgumentError(problem)));
        }
        // The values of each segment, then all of them in the order asked for.
        let mut own: Vec<Vec<u32>> = vec![Vec::new(); self.parts.len()];
        let places: Vec<Place> = (0..rows.len())
            .map(|i| {
                if rows.is_null(i) {
                    return place(self.parts.len(), 0);
                }
                let (part, row) = parts_of(rows.value(i));
                own[part].push(row);
                place(part, own[part].len() - 1)
            })
            .collect();
        let mut values = Vec::with_capacity(own.len() + 1);
        for (part, rows) in self.parts.iter().zip(own) {
            values.push(part.segment.take(column, &UInt32Array::from(rows))?);
        }
        values.push(new_null_array(values[0].data_type(), 1));
        if has_dictionary(values[0].data_type()) {
            let values = self.with_one_dictionary(column, values)?;
            return join(&values, places.iter().map(|&p| (block_of(p), row_of(p), row_of(p) + 1)), places.len())
                .map_err(failed);
        }
        gather_stored(&values, &places).map_err(failed)
    }

    /// Bytes that [`Version::take`] would copy, without validity; of rows that are null what a null takes.
    pub(crate) fn row_bytes(&self, column: usize, rows: &UInt64Array) -> Result<u64, ReadError> {
        let mut bytes = self.model().columns[column].null_bytes().saturating_mul(rows.null_count() as u64);
        for id in rows.iter().flatten() {
            let (part, row) = parts_of(id);
            let part = self.parts.get(part).ok_or_else(|| self.wrong_shape(format!("there is no row {id}")))?;
            let segment = &part.segment;
            bytes = bytes.saturating_add(segment.columns[column].row_bytes(&segment.data, row..row + 1)?);
        }
        Ok(bytes)
    }

    /// The rows' numbers if they all lie in one segment.
    ///
    /// # Errors
    /// [`ReadError::WrongShape`] if one of them names a segment that is not there.
    fn in_one_part(&self, rows: &UInt64Array) -> Result<Option<(usize, UInt32Array)>, ReadError> {
        let mut only = None;
        let mut one = true;
        for id in rows.iter().flatten() {
            let (part, _) = parts_of(id);
            if part >= self.parts.len() {
                return Err(self.wrong_shape(format!("there is no row {id}")));
            }
            one &= *only.get_or_insert(part) == part;
        }
        Ok(one.then(|| {
            let numbers: Vec<u32> = rows.values().iter().map(|&id| parts_of(id).1).collect();
            (only.unwrap_or(0), UInt32Array::new(ScalarBuffer::from(numbers), rows.nulls().cloned()))
        }))
    }
}
