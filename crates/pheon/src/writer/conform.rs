//! Bringing rows that are added to a dataset into its columns and types, without loss.

use std::collections::HashMap;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, make_array, new_null_array};
use arrow_cast::{CastOptions, cast, cast_with_options};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use arrow_select::concat::concat;

use crate::build::{CODEC_KEY, has_dictionary, stored_type};
use crate::error::WriteError;
use crate::segment::{Segment, null_bytes};
use crate::version::Version;
use crate::version::dictionaries::unify;

/// What nulls without a type become at once, in bytes.
const NULL_BYTES_AT_ONCE: u64 = 16 << 20;

/// How the columns that come in become those of the dataset.
pub(super) struct Conform {
    dataset: String,
    schema: SchemaRef,
    /// For each stored column, which of the columns that come in it is.
    columns: Vec<usize>,
    /// Of rows that come in so many are converted at once: nulls without a type take no bytes until they have one.
    rows_at_once: usize,
}

impl Conform {
    /// # Errors
    /// [`WriteError::Schema`] for a column too few or too many, a codec or a type that does not fit.
    pub(super) fn new(dataset: &str, input: &Schema, stored: &SchemaRef) -> Result<Self, WriteError> {
        let wrong = |problem: String| Err(WriteError::schema(format!("rows for {dataset:?}: {problem}")));
        let mut places: HashMap<&str, usize> =
            input.fields().iter().enumerate().map(|(i, field)| (field.name().as_str(), i)).collect();
        let mut columns = Vec::with_capacity(stored.fields().len());
        let mut width = 0u64;
        for field in stored.fields() {
            let Some(at) = places.remove(field.name().as_str()) else {
                let found: Vec<&str> = input.fields().iter().map(|f| f.name().as_str()).collect();
                return wrong(format!("column {:?} is missing; the columns are {found:?}", field.name()));
            };
            let given = input.field(at);
            let codec = |f: &arrow_schema::Field| f.metadata().get(CODEC_KEY).cloned();
            if codec(given) != codec(field) && *given.data_type() != DataType::Null {
                let name = |codec: Option<String>| codec.map_or("none".to_owned(), |c| format!("{c:?}"));
                return wrong(format!(
                    "column {:?} has the codec {}, the dataset {}",
                    field.name(),
                    name(codec(given)),
                    name(codec(field))
                ));
            }
            if !converts(given.data_type(), field.data_type()) {
                return wrong(format!(
                    "column {:?} has type {}, which does not become {} without loss; convert it first",
                    field.name(),
                    given.data_type(),
                    field.data_type()
                ));
            }
            if is_of_nulls(given.data_type()) {
                width = width.saturating_add(null_bytes(field.data_type()));
            }
            columns.push(at);
        }
        let rows_at_once = NULL_BYTES_AT_ONCE.checked_div(width).map_or(usize::MAX, |rows| rows.max(1) as usize);
        if let Some(name) = places.keys().min() {
            let known: Vec<&str> = stored.fields().iter().map(|f| f.name().as_str()).collect();
            return wrong(format!("there is no column {name:?}; the columns are {known:?}"));
        }
        Ok(Self { dataset: dataset.to_owned(), schema: stored.clone(), columns, rows_at_once })
    }

    /// Hands on a batch in the dataset's columns and types, in pieces where it would be too large at once. `first_row`: the
    /// number of its first row, for messages.
    ///
    /// # Errors
    /// As [`Conform::batch`], and those of `take`.
    pub(super) fn each(
        &self,
        batch: &RecordBatch,
        first_row: u64,
        mut take: impl FnMut(&RecordBatch) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut at = 0;
        loop {
            let piece = batch.slice(at, self.rows_at_once.min(batch.num_rows() - at));
            take(&self.batch(&piece, first_row + at as u64)?)?;
            at += piece.num_rows();
            if at >= batch.num_rows() {
                return Ok(());
            }
        }
    }

    /// A batch in the dataset's columns and types. `first_row`: the number of its first row, for messages.
    ///
    /// # Errors
    /// [`WriteError::Schema`] for a value that the column's type does not hold, or a null where none may be.
    pub(super) fn batch(&self, batch: &RecordBatch, first_row: u64) -> Result<RecordBatch, WriteError> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (field, &at) in self.schema.fields().iter().zip(&self.columns) {
            let wrong = |problem: String| {
                let rows = first_row..first_row + batch.num_rows() as u64;
                WriteError::schema(format!(
                    "rows for {:?}: column {:?}, input rows {rows:?}: {problem}",
                    self.dataset,
                    field.name()
                ))
            };
            let Some(given) = batch.columns().get(at) else {
                return Err(wrong(format!("the batch has {} columns", batch.num_columns())));
            };
            let array = convert(given, field.data_type()).map_err(wrong)?;
            if !field.is_nullable() && array.logical_null_count() > 0 {
                return Err(wrong("it has nulls, and the dataset's column has none".to_owned()));
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|e| WriteError::schema(format!("rows for {:?}: {e}", self.dataset)))
    }
}

fn is_of_nulls(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null => true,
        DataType::Dictionary(_, values) => is_of_nulls(values),
        _ => false,
    }
}

/// Whether values of `from` can become values of `to` as they are, or with a check of each.
fn converts(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    if stored_type(from).is_ok_and(|stored| stored.equals_datatype(to)) {
        return true;
    }
    match (from, to) {
        (D::Null, _) => true,
        (D::Dictionary(_, from), D::Dictionary(_, to)) => converts(from, to),
        (D::Dictionary(_, from), to) => converts(from, to),
        (from, D::Dictionary(_, to)) => converts(from, to),
        (from, to) if from.is_integer() && to.is_integer() => true,
        (D::Int8 | D::UInt8 | D::Int16 | D::UInt16 | D::Float16, D::Float32) => true,
        (from, D::Float64) if from.is_integer() => true,
        (D::Float16 | D::Float32, D::Float64) => true,
        // The stored number does not depend on the zone.
        (D::Timestamp(_, a), D::Timestamp(_, b)) => a.is_some() == b.is_some(),
        (D::Duration(_), D::Duration(_)) | (D::Time32(_) | D::Time64(_), D::Time32(_) | D::Time64(_)) => true,
        (D::Date32, D::Date64) => true,
        _ => false,
    }
}

fn convert(given: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    use DataType as D;
    let from = given.data_type();
    if from == to {
        return Ok(given.clone());
    }
    if *from == D::Null {
        return Ok(new_null_array(to, given.len()));
    }
    // What is not safe is an error, not a null.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |array: &ArrayRef, to: &DataType| cast_with_options(array, to, &strict).map_err(|e| e.to_string());
    let converted = match (from, to) {
        _ if has_union(from) => convert_children(given, to)?,
        (D::Dictionary(_, values), _) if !matches!(to, D::Dictionary(..)) => convert(&cast(given, values)?, to)?,
        _ => cast(given, to)?,
    };
    // Times in a coarser unit are cut by the cast, long integers are rounded: what does not come back as it was is refused.
    let may_lose = matches!(
        (from, to),
        (D::Timestamp(..), _)
            | (D::Duration(_), _)
            | (D::Time32(_) | D::Time64(_), _)
            | (D::Int64 | D::UInt64, D::Float64)
    );
    if may_lose && cast(&converted, from)?.to_data() != given.to_data() {
        return Err(format!("a value of type {from} has no exact counterpart of type {to}"));
    }
    Ok(converted)
}

/// Arrow casts no unions: what has one is put together anew from its children.
fn convert_children(given: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    use DataType as D;
    let failed = |e: ArrowError| e.to_string();
    match given.data_type() {
        D::ListView(item) => return convert(&cast(given, &D::List(item.clone())).map_err(failed)?, to),
        D::LargeListView(item) => return convert(&cast(given, &D::LargeList(item.clone())).map_err(failed)?, to),
        _ => {}
    }
    let wanted: Vec<&DataType> = match to {
        D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) | D::Map(item, _) => vec![item.data_type()],
        D::Struct(fields) => fields.iter().map(|f| f.data_type()).collect(),
        D::Union(fields, _) => fields.iter().map(|(_, f)| f.data_type()).collect(),
        _ => return cast(given, to).map_err(failed),
    };
    let data = given.to_data();
    let children = data.child_data().iter().zip(wanted);
    let children = children.map(|(child, to)| Ok(convert(&make_array(child.clone()), to)?.to_data()));
    let children = children.collect::<Result<Vec<_>, String>>()?;
    data.into_builder().data_type(to.clone()).child_data(children).build().map(make_array).map_err(failed)
}

fn has_union(data_type: &DataType) -> bool {
    use DataType as D;
    match data_type {
        D::Union(..) => true,
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => has_union(f.data_type()),
        D::ListView(f) | D::LargeListView(f) => has_union(f.data_type()),
        D::Struct(fields) => fields.iter().any(|f| has_union(f.data_type())),
        D::RunEndEncoded(_, values) => has_union(values.data_type()),
        D::Dictionary(_, values) => has_union(values),
        _ => false,
    }
}

impl Version {
    /// Fails if rows of this version and of `new` could not be joined: their dictionaries have more values than the indices
    /// can number, or an ordered one has values in another order.
    pub(super) fn check_dictionaries(&self, new: &Segment) -> Result<(), WriteError> {
        for (i, field) in self.schema().fields().iter().enumerate().filter(|(_, f)| has_dictionary(f.data_type())) {
            let wrong = |problem: String| {
                Err(WriteError::schema(format!("rows for {:?}: column {:?}: {problem}", self.name(), field.name())))
            };
            let mut all = self.dictionaries_of(i)?;
            all.push(new.columns[i].slice(&new.data, 0, 0)?.to_data());
            let unified = match unify(&all) {
                Ok(unified) => unified,
                Err(e) => {
                    return wrong(format!(
                        "its dictionary and those that are there have more values together than {} numbers; put the data anew with wider indices or plain values ({e})",
                        field.data_type()
                    ));
                }
            };
            if field.dict_is_ordered() == Some(true) && matches!(field.data_type(), DataType::Dictionary(..)) {
                let values = make_array(unified[0].child_data()[0].clone());
                let own = make_array(all[all.len() - 1].child_data()[0].clone());
                let wide = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(values.data_type().clone()));
                let places = concat(&[values.as_ref(), own.as_ref()]).and_then(|both| cast(&both, &wide));
                let ascend = places.is_ok_and(|places| {
                    let places = places.as_dictionary::<UInt32Type>().keys().slice(values.len(), own.len());
                    places.values().is_sorted()
                });
                if !ascend {
                    return wrong(
                        "its dictionary is ordered, and orders values otherwise than the one that is there".to_owned(),
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        Int32Array, Int64Array, NullArray, StringArray, TimestampMillisecondArray, TimestampNanosecondArray,
    };
    use arrow_schema::{Field, TimeUnit};

    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
    }

    #[test]
    fn columns_are_matched_by_name() {
        let stored = schema(&[("a", DataType::Int64), ("b", DataType::LargeUtf8)]);
        let batch = RecordBatch::try_from_iter([
            ("b", Arc::new(StringArray::from(vec!["x"])) as ArrayRef),
            ("a", Arc::new(Int32Array::from(vec![-1])) as ArrayRef),
        ])
        .unwrap();
        let conform = Conform::new("d", &batch.schema(), &stored).unwrap();
        let got = conform.batch(&batch, 0).unwrap();
        assert_eq!(got.schema(), stored);
        assert_eq!(got.column(0).as_ref(), &Int64Array::from(vec![-1]) as &dyn Array);
    }

    #[test]
    fn nulls_get_their_type_some_rows_at_a_time() {
        const ROWS: usize = 10_000;
        let stored = schema(&[("a", DataType::Int64), ("wide", DataType::FixedSizeBinary(1 << 16))]);
        let number = Arc::new(Int64Array::from_iter_values(0..ROWS as i64)) as ArrayRef;
        let of_nulls = [("a", number.clone()), ("wide", Arc::new(NullArray::new(ROWS)))];
        let batch = RecordBatch::try_from_iter_with_nullable(of_nulls.map(|(n, c)| (n, c, true))).unwrap();
        let conform = Conform::new("d", &batch.schema(), &stored).unwrap();
        let (mut numbers, mut longest) = (Vec::new(), 0);
        let take = |piece: &RecordBatch| {
            assert_eq!((piece.schema(), piece.column(1).null_count()), (stored.clone(), piece.num_rows()));
            numbers.push(piece.column(0).clone());
            longest = longest.max(piece.num_rows() << 16);
            Ok(())
        };
        conform.each(&batch, 0, take).unwrap();
        assert_eq!(longest, NULL_BYTES_AT_ONCE as usize);
        let numbers: Vec<&dyn Array> = numbers.iter().map(AsRef::as_ref).collect();
        assert_eq!(concat(&numbers).unwrap().as_ref(), number.as_ref(), "all rows, in order");
        // Others come whole, also without rows.
        for rows in [0, ROWS] {
            let mut pieces = 0;
            let conform = Conform::new("d", &stored, &stored).unwrap();
            let batch = conform.batch(&RecordBatch::new_empty(stored.clone()), 0).unwrap();
            let batch = if rows == 0 { batch } else { batch_of_zeros(&stored, rows / 1000) };
            conform
                .each(&batch, 0, |_| {
                    pieces += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(pieces, 1);
        }
    }

    fn batch_of_zeros(schema: &SchemaRef, rows: usize) -> RecordBatch {
        let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect();
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    }

    #[test]
    fn too_few_too_many_or_wrong_columns_are_named() {
        let stored = schema(&[("a", DataType::Int64), ("b", DataType::Int64)]);
        let problem = |columns: &[(&str, DataType)]| {
            Conform::new("d", &schema(columns), &stored).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(problem(&[("a", DataType::Int64)]).contains("\"b\" is missing"));
        let three = [("a", DataType::Int64), ("b", DataType::Int64), ("c", DataType::Int64)];
        assert!(problem(&three).contains("no column \"c\""));
        assert!(problem(&[("a", DataType::Utf8), ("b", DataType::Int64)]).contains("\"a\" has type Utf8"));
        assert!(problem(&[("a", DataType::Float64), ("b", DataType::Int64)]).contains("without loss"));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1 << 52, (1 << 60) + 1]));
        assert!(convert(&numbers, &DataType::Float64).unwrap_err().contains("exact"));
        assert!(convert(&numbers.slice(0, 1), &DataType::Float64).is_ok());
    }

    #[test]
    fn values_that_do_not_fit_are_errors_not_nulls() {
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![1, 1 << 40]));
        assert!(convert(&wide, &DataType::Int32).is_err());
        assert!(convert(&wide.slice(0, 1), &DataType::Int32).is_ok());
        let fine: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_000_000, 1_000_001]));
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        assert!(convert(&fine, &milliseconds).unwrap_err().contains("exact"));
        assert!(convert(&fine.slice(0, 1), &milliseconds).is_ok());
        let far: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![i64::MAX]));
        assert!(convert(&far, &DataType::Timestamp(TimeUnit::Nanosecond, None)).is_err());
    }
}
