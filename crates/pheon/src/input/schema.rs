//! One schema for all files of a build: overrides, projection, agreement between files, and bringing batches into it.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, make_array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use super::{Format, InputOptions, Source, input, text};
use crate::error::WriteError;

/// The schema that the stream over all sources has.
pub(super) fn unify(sources: &[Source], options: &InputOptions) -> Result<SchemaRef, WriteError> {
    let first = &sources[0];
    for source in sources {
        let named = options.types.iter().map(|(name, _)| name).chain(options.columns.iter().flatten());
        for name in named {
            find(source, name)?;
        }
    }
    if let Some(source) = sources.iter().find(|s| is_csv(s) || s.format == Format::Json)
        && let Some((name, data_type)) = options.types.iter().find(|(_, data_type)| has_negative_scale(data_type))
    {
        let problem = format!("column {name:?} was to be read as {data_type}; expected a scale of 0 or more for text");
        return Err(input(&source.path, problem));
    }
    let names: Vec<&String> = match &options.columns {
        Some(columns) => columns.iter().collect(),
        None => first.schema.fields().iter().map(|f| f.name()).collect(),
    };
    let mut fields: Vec<FieldRef> = Vec::with_capacity(names.len());
    for name in names {
        if fields.iter().any(|f| f.name() == name) {
            return Err(input(&first.path, format!("column {name:?} occurs twice; give its columns different names")));
        }
        fields.push(unify_column(sources, name, options)?);
    }
    if options.columns.is_none() {
        for source in &sources[1..] {
            if let Some(extra) = source.schema.fields().iter().find(|f| first.schema.index_of(f.name()).is_err()) {
                let problem = format!(
                    "column {:?} is not in {}; files of one build need the same columns",
                    extra.name(),
                    first.path.display()
                );
                return Err(input(&source.path, problem));
            }
        }
    }
    Ok(Arc::new(Schema::new_with_metadata(fields, first.schema.metadata().clone())))
}

fn unify_column(sources: &[Source], name: &str, options: &InputOptions) -> Result<FieldRef, WriteError> {
    let first = find(&sources[0], name)?;
    let chosen = options.types.iter().rev().find(|(column, _)| column == name).map(|(_, data_type)| data_type);
    if let Some(data_type) = chosen {
        let nullable = sources.iter().any(|s| find(s, name).is_ok_and(Field::is_nullable));
        return Ok(Arc::new(Field::new(name, data_type.clone(), nullable)));
    }
    let (mut data_type, mut nullable) = (first.data_type().clone(), first.is_nullable());
    for source in &sources[1..] {
        let field = find(source, name)?;
        nullable |= field.is_nullable();
        let both_text = is_csv(source) && is_csv(&sources[0]);
        data_type = merge(&data_type, field.data_type(), both_text).ok_or_else(|| {
            let problem = format!(
                "column {name:?} is {} here but {} in {}; files of one build need the same types: choose one for it",
                field.data_type(),
                first.data_type(),
                sources[0].path.display()
            );
            input(&source.path, problem)
        })?;
    }
    let data_type = without_null(data_type);
    Ok(Arc::new(Field::new(name, data_type, nullable).with_metadata(first.metadata().clone())))
}

fn find<'a>(source: &'a Source, name: &str) -> Result<&'a Field, WriteError> {
    let mut found = source.schema.fields().iter().filter(|f| f.name() == name);
    match (found.next(), found.next()) {
        (Some(field), None) => Ok(field),
        (Some(_), Some(_)) => {
            Err(input(&source.path, format!("column {name:?} occurs twice; give its columns different names")))
        }
        (None, _) => {
            let mut columns: Vec<String> =
                source.schema.fields().iter().take(20).map(|f| format!("{:?}", f.name())).collect();
            if source.schema.fields().len() > columns.len() {
                columns.push("...".into());
            }
            Err(input(&source.path, format!("it has no column {name:?}; its columns are {}", columns.join(", "))))
        }
    }
}

fn has_negative_scale(data_type: &DataType) -> bool {
    use DataType as D;
    match data_type {
        D::Decimal32(_, scale) | D::Decimal64(_, scale) | D::Decimal128(_, scale) | D::Decimal256(_, scale) => {
            *scale < 0
        }
        _ => false,
    }
}

fn is_csv(source: &Source) -> bool {
    matches!(source.format, Format::Csv | Format::Tsv)
}

/// The type that holds the values of both without loss, if there is one. Only inferred types are widened.
fn merge(a: &DataType, b: &DataType, inferred: bool) -> Option<DataType> {
    use DataType as D;
    Some(match (a, b) {
        _ if a == b => a.clone(),
        (D::Utf8 | D::LargeUtf8 | D::Utf8View, D::Utf8 | D::LargeUtf8 | D::Utf8View) => D::LargeUtf8,
        (D::Binary | D::LargeBinary | D::BinaryView, D::Binary | D::LargeBinary | D::BinaryView) => D::LargeBinary,
        (D::Null, other) | (other, D::Null) => other.clone(),
        // Of JSON: places that never had a value in one of them.
        (D::List(x), D::List(y)) if inferred => {
            D::List(Arc::new(x.as_ref().clone().with_data_type(merge(x.data_type(), y.data_type(), true)?)))
        }
        (D::Struct(x), D::Struct(y)) if inferred && x.len() == y.len() => {
            let merged = std::iter::zip(x, y).map(|(x, y)| {
                let data_type = merge(x.data_type(), y.data_type(), true).filter(|_| x.name() == y.name())?;
                Some(x.as_ref().clone().with_data_type(data_type))
            });
            D::Struct(merged.collect::<Option<Vec<_>>>()?.into())
        }
        (D::Int64, D::Float64) | (D::Float64, D::Int64) if inferred => D::Float64,
        (D::Timestamp(_, za), D::Timestamp(_, zb)) if inferred && za == zb => {
            D::Timestamp(TimeUnit::Nanosecond, za.clone())
        }
        _ => return None,
    })
}

/// What never had a value, a column or a place inside of one, holds strings.
fn without_null(data_type: DataType) -> DataType {
    let field = |field: &FieldRef| {
        let inner = without_null(field.data_type().clone());
        Arc::new(field.as_ref().clone().with_data_type(inner))
    };
    match data_type {
        DataType::Null => DataType::LargeUtf8,
        DataType::List(inner) => DataType::List(field(&inner)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other,
    }
}

/// The columns of `target` from a batch that may have others, in another order, in other types.
pub(super) fn conform(batch: &RecordBatch, target: &SchemaRef, path: &Path) -> Result<RecordBatch, WriteError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(target.fields().len());
    for field in target.fields() {
        let column = batch.column_by_name(field.name()).ok_or_else(|| {
            input(path, format!("it has no column {:?} any more; it changed while it was read", field.name()))
        })?;
        columns.push(if column.data_type() == field.data_type() {
            column.clone()
        } else {
            exact_cast(column, field.data_type()).map_err(|problem| {
                let problem = format!(
                    "column {:?} is {} and was to be read as {}: {problem}",
                    field.name(),
                    column.data_type(),
                    field.data_type()
                );
                input(path, problem)
            })?
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(target.clone(), columns, &options).map_err(|e| input(path, e.to_string()))
}

/// The values in another type, all of them: arrow's cast cuts off what the type cannot hold. Floats are rounded.
fn exact_cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |values: &ArrayRef, to: &DataType| cast_with_options(values, to, &options).map_err(|e| e.to_string());
    let plain = match values.data_type() {
        DataType::Dictionary(_, plain) => Some(plain.as_ref()),
        DataType::RunEndEncoded(_, plain) => Some(plain.data_type()),
        _ => None,
    };
    if let Some(plain) = plain {
        let plain = cast(values, plain)?;
        return if plain.data_type() == to { Ok(plain) } else { exact_cast(&plain, to) };
    }
    if let DataType::Dictionary(_, plain) = to {
        let plain = if values.data_type() == plain.as_ref() { values.clone() } else { exact_cast(values, plain)? };
        return cast(&plain, to);
    }
    let from = values.data_type();
    if let Some(problem) = refused(from, to) {
        return Err(problem);
    }
    if from.is_string() && is_counted(to) {
        let texts = cast(values, &DataType::Utf8View)?;
        let texts = texts.as_string_view();
        return text::convert(texts, to, false).map_err(|misfit| {
            let shown: String = texts.value(misfit.row).chars().take(60).collect();
            format!("{shown:?} does not fit{}", misfit.reason)
        });
    }
    let there = cast(values, to)?;
    if may_cut(from, to) {
        if !can_cast_types(to, from) {
            // Of what arrow casts one way only, a timestamp alone loses something.
            return match from {
                DataType::Timestamp(..) => Err("it has a date, which a time cannot hold".to_owned()),
                _ => Ok(there),
            };
        }
        // Zones say how a time is shown; back and forth they would move it.
        let (before, back) = match (from, to) {
            (DataType::Timestamp(unit, _), DataType::Timestamp(to, _)) => {
                let plain = |unit: &TimeUnit| DataType::Timestamp(*unit, None);
                let values = in_no_zone(values);
                let there = cast(&values, &plain(to))?;
                let back = cast(&there, &plain(unit))?;
                (values, back)
            }
            _ => (values.clone(), cast(&there, from)?),
        };
        if let Some(row) = first_difference(&before, &back, to.is_decimal()) {
            let shown = ArrayFormatter::try_new(&before, &FormatOptions::default()).map_err(|e| e.to_string())?;
            return Err(format!("{} does not fit", shown.value(row)));
        }
    }
    Ok(there)
}

/// Whether values of this type are a number of units, so that what lies between two is cut off.
fn is_counted(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_temporal() || data_type.is_decimal() || *data_type == DataType::Boolean
}

/// Why a value of this type, or one inside of it, is never read as that one.
fn refused(from: &DataType, to: &DataType) -> Option<String> {
    use DataType as D;
    let inside = |from: &DataType, to: &DataType| match from.is_string() && is_counted(to) {
        true => Some(format!("text inside of lists and structs is not read as {to}; read it as text")),
        false => refused(from, to),
    };
    match (from, to) {
        (D::Timestamp(_, Some(zone)), D::Timestamp(_, None)) => {
            Some(format!("it has the time zone {zone}; choose a type with one, as timestamp[us,UTC]"))
        }
        (
            D::List(a) | D::LargeList(a) | D::FixedSizeList(a, _) | D::ListView(a) | D::LargeListView(a),
            D::List(b) | D::LargeList(b) | D::FixedSizeList(b, _) | D::ListView(b) | D::LargeListView(b),
        )
        | (D::Map(a, _), D::Map(b, _)) => inside(a.data_type(), b.data_type()),
        (D::Struct(a), D::Struct(b)) => std::iter::zip(a, b).find_map(|(a, b)| inside(a.data_type(), b.data_type())),
        _ => None,
    }
}

/// Whether a cast between these may lose a part of a number or time, wherever it is in a value.
fn may_cut(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    match (from, to) {
        (
            D::List(a) | D::LargeList(a) | D::FixedSizeList(a, _) | D::ListView(a) | D::LargeListView(a),
            D::List(b) | D::LargeList(b) | D::FixedSizeList(b, _) | D::ListView(b) | D::LargeListView(b),
        ) => may_cut(a.data_type(), b.data_type()),
        (D::Map(a, _), D::Map(b, _)) => may_cut(a.data_type(), b.data_type()),
        (D::Struct(a), D::Struct(b)) => std::iter::zip(a, b).any(|(a, b)| may_cut(a.data_type(), b.data_type())),
        // Zones say how a time is shown.
        (D::Timestamp(a, _), D::Timestamp(b, _)) => a != b,
        _ => from != to && (is_counted(from) || from.is_floating()) && is_counted(to),
    }
}

/// Timestamps as they are stored, without their zone.
fn in_no_zone(timestamps: &ArrayRef) -> ArrayRef {
    let DataType::Timestamp(unit, _) = timestamps.data_type() else { return timestamps.clone() };
    let data = timestamps.to_data().into_builder().data_type(DataType::Timestamp(*unit, None));
    make_array(data.build().expect("the same values"))
}

/// The first row in which these differ. `rounded`: floats have been divided, and may differ in their last digits.
fn first_difference(a: &ArrayRef, b: &ArrayRef, rounded: bool) -> Option<usize> {
    if a == b {
        return None;
    }
    let close = |a: f64, b: f64, epsilon: f64| (a - b).abs() <= if rounded { 4.0 * epsilon * a.abs() } else { 0.0 };
    let same = |row: usize| {
        if let (Some(a), Some(b)) = (a.as_primitive_opt::<Float64Type>(), b.as_primitive_opt::<Float64Type>()) {
            return a.is_valid(row) && b.is_valid(row) && close(a.value(row), b.value(row), f64::EPSILON);
        }
        if let (Some(a), Some(b)) = (a.as_primitive_opt::<Float32Type>(), b.as_primitive_opt::<Float32Type>()) {
            let (left, right) = (f64::from(a.value(row)), f64::from(b.value(row)));
            return a.is_valid(row) && b.is_valid(row) && close(left, right, f64::from(f32::EPSILON));
        }
        false
    };
    // There is one integer for both zeros, whose bits differ.
    (0..a.len()).find(|row| !same(*row) && a.slice(*row, 1) != b.slice(*row, 1))
}
