//! One schema for all files of a build: overrides, projection, agreement between files, and bringing batches into it.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use super::{Format, InputOptions, Source, input};
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
        (D::Int64, D::Float64) | (D::Float64, D::Int64) if inferred => D::Float64,
        (D::Timestamp(_, za), D::Timestamp(_, zb)) if inferred && za == zb => {
            D::Timestamp(TimeUnit::Nanosecond, za.clone())
        }
        _ => return None,
    })
}

/// A column without any value holds strings.
fn without_null(data_type: DataType) -> DataType {
    if data_type == DataType::Null { DataType::LargeUtf8 } else { data_type }
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
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(column, field.data_type(), &options).map_err(|e| {
                let problem = format!(
                    "column {:?} is {} and was to be read as {}: {e}",
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
