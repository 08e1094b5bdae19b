//! Tables as polars frames. Numbers, dates, times and what is nested of them stay where they are, in the mapped file.

mod import;

use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema};
use polars_core::frame::DataFrame;
use polars_core::prelude::{IdxSize, IntoColumn, Series, TimeZone};

use crate::error::ReadError;
use crate::table::Table;

/// Fields with it become polars extension types, which need a registration of the type: polars gets what they are stored as.
const EXTENSION_KEYS: [&str; 2] = ["ARROW:extension:name", "ARROW:extension:metadata"];

impl Table {
    /// The rows as a polars frame, which keeps the mapping alive, in as many chunks as [`Table::to_batches`] gives. With the
    /// cargo feature `polars`.
    ///
    /// Columns of integers, floats, booleans, 128-bit decimals, dates (`Date32`), milli-, micro- and nanosecond timestamps
    /// and durations and nanosecond times are views of the mapped file. Strings and binaries are too, beside 16 bytes a
    /// row that polars makes; the bytes of those longer than 12 stay in the file. Copied: what polars stores in another
    /// unit or width (seconds, `Date64`, other times, other decimals), categoricals, `FixedSizeBinary`, and the offsets of
    /// lists with 32-bit ones. Maps become lists of structs.
    ///
    /// # Errors
    /// [`ReadError::WrongShape`] with the column's name if polars has no such type (unions, intervals, ...) or cannot hold
    /// its values; as [`Table::to_batches`].
    pub fn to_polars(&self) -> Result<DataFrame, ReadError> {
        to_frame(&self.schema(), self.to_batches()?).map_err(|problem| self.version.wrong_shape(problem))
    }
}

/// A frame of batches that have this schema, a chunk of each column for each batch.
fn to_frame(schema: &Schema, batches: impl IntoIterator<Item = RecordBatch>) -> Result<DataFrame, String> {
    let mut batches: Vec<RecordBatch> = batches.into_iter().collect();
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(Arc::new(schema.clone())));
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if IdxSize::try_from(rows).is_err() || rows == IdxSize::MAX as usize {
        return Err(format!("a polars frame holds fewer than {} rows, found {rows}; take a slice", IdxSize::MAX));
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let named = |problem: String| format!("column {:?} as polars: {problem}", field.name());
        check(field.data_type(), Place::Column).map_err(named)?;
        let target = import::field(&without_extension(field)).map_err(named)?;
        let chunks = batches.iter().map(|batch| import::array(&batch.column(i).to_data(), target.dtype().clone()));
        let chunks = chunks.collect::<Result<Vec<_>, _>>().map_err(named)?;
        let series = Series::try_from((&target, chunks)).map_err(|e| named(e.to_string()))?;
        columns.push(series.into_column());
    }
    DataFrame::new(rows, columns).map_err(|e| e.to_string())
}

/// Where a type stands. Inside another one polars converts less, and panics where it cannot.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Column,
    Inside,
}

/// Fails for what polars does not have, or would panic at.
fn check(data_type: &DataType, place: Place) -> Result<(), String> {
    use DataType as D;
    let refuse = |why: &str| Err(format!("{data_type} {why}; leave the column out, or store another type"));
    match data_type {
        D::List(child) | D::LargeList(child) | D::FixedSizeList(child, _) | D::Map(child, _) => {
            check(child.data_type(), Place::Inside)
        }
        D::Struct(children) => children.iter().try_for_each(|child| check(child.data_type(), Place::Inside)),
        D::Dictionary(_, values) => match values.as_ref() {
            D::Utf8 | D::LargeUtf8 => Ok(()),
            _ if place == Place::Inside => refuse("inside another type is nothing that polars has"),
            values => check(values, Place::Inside),
        },
        D::Timestamp(_, Some(zone)) => match TimeZone::opt_try_new(Some(zone.as_ref())) {
            Ok(_) => Ok(()),
            Err(e) => refuse(&format!("is in a zone that polars does not know ({e})")),
        },
        D::Decimal32(_, scale) | D::Decimal64(_, scale) | D::Decimal128(_, scale) | D::Decimal256(_, scale)
            if *scale < 0 =>
        {
            refuse("has a negative scale, which polars does not have")
        }
        D::Decimal32(..) | D::Decimal64(..) | D::Decimal256(..) if place == Place::Inside => {
            refuse("inside another type is nothing that polars has")
        }
        D::Interval(_) | D::Union(..) | D::RunEndEncoded(..) | D::ListView(_) | D::LargeListView(_) => {
            refuse("is nothing that polars has")
        }
        _ => Ok(()),
    }
}

/// The field, and those inside it, without the metadata that names an extension type.
fn without_extension(field: &Field) -> Field {
    use DataType as D;
    let inner = |child: &FieldRef| Arc::new(without_extension(child));
    let data_type = match field.data_type() {
        D::List(child) => D::List(inner(child)),
        D::LargeList(child) => D::LargeList(inner(child)),
        D::FixedSizeList(child, size) => D::FixedSizeList(inner(child), *size),
        D::Map(child, sorted) => D::Map(inner(child), *sorted),
        D::Struct(children) => D::Struct(children.iter().map(inner).collect::<Fields>()),
        other => other.clone(),
    };
    let mut metadata = field.metadata().clone();
    metadata.retain(|key, _| !EXTENSION_KEYS.contains(&key.as_str()));
    field.clone().with_data_type(data_type).with_metadata(metadata)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests look at files behind the seam")]
mod tests;
