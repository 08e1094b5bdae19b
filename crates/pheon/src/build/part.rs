//! A part of a build: rows that another process has sorted. Its runs are merged with those of the other parts, and their
//! rows are in no other file before that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::DictionaryTracker;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat;
use pheon_os::fs::FileSystem;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::adapt::{Adapter, Origin, Promised, check_values};
use super::block::{Block, Bounds};
use super::dictionary::{Unifier, unifiers};
use super::normalise::shape_of;
use super::run::{Run, RunRecord, spill_schema};
use crate::error::WriteError;

/// What a finished part holds, as its document says it (docs/format.md section 5).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartContent {
    /// Rows that were taken in; runs may have fewer, because repeated keys are dealt with.
    pub(crate) rows: u64,
    #[serde(with = "hex_schema")]
    pub(crate) schema: SchemaRef,
    /// Of the stored columns, and of the key bytes behind them if the key has several columns.
    pub(crate) bounds: Vec<Bounds>,
    /// In the order in which the schema numbers them, each as a run of one column.
    pub(crate) dictionaries: Vec<RunRecord>,
    /// In the order of their rows.
    pub(crate) runs: Vec<RunRecord>,
}

/// A finished part and where it is.
#[derive(Debug, Clone)]
pub(crate) struct FinishedPart {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) content: PartContent,
}

/// Whose columns the others must agree with, for messages.
const OWN_ROWS: &str = "the writer's own rows";

/// The columns of a build: those of its own rows, if there are any, else those that its parts agree on. `None`: nobody
/// has any. A column in which a part has seen only nulls becomes what it is elsewhere; parts without rows have no say.
///
/// # Errors
/// [`WriteError::Schema`] naming the part that differs.
pub(crate) fn agreed_schema(own: Option<&SchemaRef>, parts: &[FinishedPart]) -> Result<Option<SchemaRef>, WriteError> {
    let mut with_rows = parts.iter().filter(|part| part.content.rows > 0);
    if let Some(own) = own {
        with_rows.try_for_each(|part| check_columns(own, |_| OWN_ROWS.to_owned(), part))?;
        return Ok(Some(own.clone()));
    }
    let Some(first) = with_rows.next() else {
        // A part that was finished without a batch knows no columns.
        let schemas = parts.iter().map(|part| &part.content.schema);
        return Ok(schemas.into_iter().find(|schema| !schema.fields().is_empty()).cloned());
    };
    // For each column, whom its type is from.
    let mut sources = vec![first; first.content.schema.fields().len()];
    let mut fields: Vec<Field> = first.content.schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    for part in with_rows {
        let schema = Schema::new(fields.clone());
        for (at, field) in fields.iter_mut().enumerate() {
            let Ok(found) = part.content.schema.field_with_name(field.name()) else { continue };
            let nullable = field.is_nullable() || found.is_nullable();
            if *field.data_type() == DataType::Null && *found.data_type() != DataType::Null {
                *field = found.clone();
                sources[at] = part;
            }
            *field = field.clone().with_nullable(nullable);
        }
        let of = |at: usize| format!("part {:?}", sources[at].name);
        let schema = Schema::new_with_metadata(fields.clone(), schema.metadata().clone());
        check_columns(&schema, of, part)?;
    }
    Ok(Some(Arc::new(Schema::new_with_metadata(fields, first.content.schema.metadata().clone()))))
}

/// Whether values of one type are values of the other as they lie: `equals_datatype` alone takes children of structs and
/// unions by their place, whatever their names.
fn same_type(a: &DataType, b: &DataType) -> bool {
    fn same_names(a: &DataType, b: &DataType) -> bool {
        use DataType as D;
        match (a, b) {
            (D::Struct(a), D::Struct(b)) => {
                std::iter::zip(a, b).all(|(a, b)| a.name() == b.name() && same_names(a.data_type(), b.data_type()))
            }
            (D::Union(a, _), D::Union(b, _)) => std::iter::zip(a.iter(), b.iter())
                .all(|((i, a), (j, b))| i == j && a.name() == b.name() && same_names(a.data_type(), b.data_type())),
            (D::Map(a, _), D::Map(b, _)) => match (a.data_type(), b.data_type()) {
                (D::Struct(a), D::Struct(b)) => {
                    std::iter::zip(a, b).all(|(a, b)| same_names(a.data_type(), b.data_type()))
                }
                _ => true,
            },
            (
                D::List(a) | D::LargeList(a) | D::FixedSizeList(a, _) | D::ListView(a) | D::LargeListView(a),
                D::List(b) | D::LargeList(b) | D::FixedSizeList(b, _) | D::ListView(b) | D::LargeListView(b),
            ) => same_names(a.data_type(), b.data_type()),
            (D::Dictionary(_, a), D::Dictionary(_, b)) => same_names(a, b),
            (D::RunEndEncoded(_, a), D::RunEndEncoded(_, b)) => same_names(a.data_type(), b.data_type()),
            _ => true,
        }
    }
    a.equals_datatype(b) && same_names(a, b)
}

/// Fails unless a part's columns are these, in any order. `source`: whom the type of a column is from.
fn check_columns(expected: &Schema, source: impl Fn(usize) -> String, part: &FinishedPart) -> Result<(), WriteError> {
    let (name, found) = (&part.name, &part.content.schema);
    let names = |schema: &Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    for (at, field) in expected.fields().iter().enumerate() {
        let Some((place, given)) = found.column_with_name(field.name()) else {
            return Err(WriteError::schema(format!(
                "part {name:?} has no column {:?}, which is in {}; its columns are {:?}",
                field.name(),
                source(at),
                names(found)
            )));
        };
        if *given.data_type() != DataType::Null || *field.data_type() == DataType::Null {
            let type_of = |f: &Field| match f.metadata().get(super::CODEC_KEY) {
                Some(codec) => format!("{} encoded by {codec}", f.data_type()),
                None => f.data_type().to_string(),
            };
            let same_codec = given.metadata().get(super::CODEC_KEY) == field.metadata().get(super::CODEC_KEY);
            if !same_codec || !same_type(given.data_type(), field.data_type()) {
                return Err(WriteError::schema(format!(
                    "part {name:?} has a column {:?} of type {}; in {} it is {}. Parts must agree: give all of them this \
                     type, or write rows of it before parts are handed out, which then convert to it",
                    field.name(),
                    type_of(given),
                    source(at),
                    type_of(field)
                )));
            }
        }
        let nulls = *given.data_type() == DataType::Null && *field.data_type() != DataType::Null;
        if !field.is_nullable() && (nulls || part.content.bounds.get(place).is_some_and(|b| b.nulls)) {
            return Err(WriteError::schema(format!(
                "part {name:?} has nulls in column {:?}, which {} declare to have none",
                field.name(),
                source(at)
            )));
        }
    }
    match found.fields().iter().find(|f| expected.field_with_name(f.name()).is_err()) {
        Some(extra) => Err(WriteError::schema(format!(
            "part {name:?} has a column {:?}, which {} has not; the columns are {:?}",
            extra.name(),
            if expected.fields().is_empty() { OWN_ROWS.to_owned() } else { source(0) },
            names(expected)
        ))),
        None => Ok(()),
    }
}

impl FinishedPart {
    /// Whether the document's pieces fit each other. What a checksum covers is believed, but another program may have
    /// computed it. `keeps_all`: rows with a key that occurred before are not left out.
    pub(crate) fn check(&self, has_key_bytes: bool, keeps_all: bool) -> Result<(), String> {
        let content = &self.content;
        if content.rows == 0 {
            return if content.runs.is_empty() { Ok(()) } else { Err("runs of no rows".to_owned()) };
        }
        let shapes = self.shapes(has_key_bytes);
        let fit = content.bounds.len() == shapes.len() && content.bounds.iter().zip(&shapes).all(|(b, s)| b.fits(s));
        if !fit {
            return Err(format!(
                "bounds of {} columns do not fit the {} of the schema",
                content.bounds.len(),
                shapes.len()
            ));
        }
        let mut declared = std::iter::zip(content.schema.fields(), &content.bounds);
        if let Some((field, _)) = declared.find(|(field, bounds)| bounds.nulls && !field.is_nullable()) {
            return Err(format!("nulls in column {:?}, which its schema declares to have none", field.name()));
        }
        let dictionaries = unifiers(&content.schema).len();
        if content.dictionaries.len() != dictionaries {
            return Err(format!("expected {dictionaries} dictionaries, found {}", content.dictionaries.len()));
        }
        if !content.bounds.iter().zip(&shapes).all(|(bounds, shape)| bounds.is_plausible(shape)) {
            return Err("bounds beyond what any file holds".to_owned());
        }
        let sorted = content.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.rows));
        if sorted > content.rows || keeps_all && sorted < content.rows {
            let at_most = if keeps_all { "" } else { "at most " };
            return Err(format!("expected {at_most}{} rows in its runs, found {sorted}", content.rows));
        }
        match content.runs.iter().chain(&content.dictionaries).find(|run| run.file.contains('/') || run.file == "..") {
            Some(run) => Err(format!("expected a file beside the document, found {:?}", run.file)),
            None => Ok(()),
        }
    }

    /// The files beside the document, and how long each must be at least.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        let records = self.content.runs.iter().chain(&self.content.dictionaries);
        records.map(|run| (run.file.as_str(), run.file_bytes_min()))
    }

    /// Reads every byte of the files beside the document.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`](crate::ReadError::Corrupt) names a block that is not as it was written.
    pub(crate) fn verify(&self, fs: &Arc<dyn FileSystem>) -> Result<(), WriteError> {
        let as_is = Arc::new(Adapter::of_bytes(&self.name, Vec::new()));
        for record in self.content.runs.iter().chain(&self.content.dictionaries) {
            Run::of_part(fs, &self.dir, record, spill_schema(&[]), as_is.clone()).verify()?;
        }
        Ok(())
    }

    fn shapes(&self, has_key_bytes: bool) -> Vec<DataType> {
        let mut shapes: Vec<_> = self.content.schema.fields().iter().map(|f| shape_of(f.data_type())).collect();
        if has_key_bytes {
            shapes.push(DataType::LargeBinary);
        }
        shapes
    }

    /// The part's runs as runs of a build with these columns, whose dictionaries learn the part's values, and the bounds
    /// of its rows. `first_row`: how many rows come before, if rows are numbered.
    pub(crate) fn open(
        &self,
        fs: &Arc<dyn FileSystem>,
        stored: &Schema,
        dictionaries: &mut [Unifier],
        has_key_bytes: bool,
        first_row: Option<u32>,
    ) -> Result<(Vec<Run>, Vec<Bounds>), WriteError> {
        let content = &self.content;
        let failed = |e: &arrow_schema::ArrowError| {
            WriteError::schema(format!("part {:?}: putting its dictionaries together with others: {e}", self.name))
        };
        // Where each column's dictionaries begin, in the part and in the build.
        let starts = |schema: &Schema| {
            let counts = schema.fields().iter().map(|f| unifiers(&Schema::new(vec![f.clone()])).len());
            counts
                .scan(0, |sum, n| {
                    Some((*sum, {
                        *sum += n;
                        *sum
                    }))
                })
                .collect::<Vec<_>>()
        };
        let (theirs, ours) = (starts(&content.schema), starts(stored));
        let sorted_rows = content.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.rows));
        let mut shapes = self.shapes(has_key_bytes);
        let mut limits = content.bounds.clone();
        let stored_bytes = content.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.file_bytes_min()));
        limits.iter_mut().zip(&shapes).for_each(|(bounds, shape)| bounds.limit(shape, stored_bytes));
        let promised = Promised::new(content.schema.clone(), shapes.clone(), content.bounds.clone());
        let mut columns = Vec::with_capacity(stored.fields().len());
        let mut bounds = Vec::with_capacity(content.bounds.len());
        for (at, field) in stored.fields().iter().enumerate() {
            let missing = || WriteError::schema(format!("part {:?} has no column {:?}", self.name, field.name()));
            let (place, given) = content.schema.column_with_name(field.name()).ok_or_else(missing)?;
            if *given.data_type() == DataType::Null && *field.data_type() != DataType::Null {
                let shape = shape_of(field.data_type());
                let mut nulls = Bounds::new(&shape);
                nulls.add_nulls(&shape, sorted_rows);
                bounds.push(nulls);
                columns.push(Origin::Nulls(shape));
                continue;
            }
            bounds.push(limits[place].clone());
            let mut maps = Vec::new();
            for (record, unifier) in content.dictionaries[theirs[place].0..theirs[place].1]
                .iter()
                .zip(&mut dictionaries[ours[at].0..ours[at].1])
            {
                let values = self.dictionary(fs, record, unifier)?;
                maps.push(unifier.learn_shape(&values).map_err(|e| failed(&e))?);
            }
            let moves = maps.iter().any(|map| map.iter().enumerate().any(|(from, &to)| from != to as usize));
            columns.push(if moves {
                Origin::Indices(place, field.data_type().clone(), maps)
            } else {
                Origin::Same(place)
            });
        }
        bounds.extend_from_slice(&limits[content.schema.fields().len()..]);
        if first_row.is_some() {
            shapes.push(DataType::Int32);
        }
        let schema = spill_schema(&shapes);
        let part_columns = content.schema.fields().len();
        let part = self.name.clone();
        let adapter = Arc::new(Adapter { part, columns, part_columns, first_row, promised: Some(promised) });
        let run = |record| Run::of_part(fs, &self.dir, record, schema.clone(), adapter.clone());
        Ok((content.runs.iter().map(run).collect(), bounds))
    }

    /// The values of one dictionary, in shape.
    fn dictionary(
        &self,
        fs: &Arc<dyn FileSystem>,
        record: &RunRecord,
        unifier: &Unifier,
    ) -> Result<ArrayRef, WriteError> {
        let shape = unifier.values_shape();
        let as_is = Adapter::of_bytes(&self.name, vec![Origin::Same(0)]);
        let run = Run::of_part(fs, &self.dir, record, spill_schema(std::slice::from_ref(&shape)), Arc::new(as_is));
        let mut reader = run.read()?;
        let mut pieces = vec![arrow_array::new_empty_array(&shape)];
        while let Some(block) = reader.next()? {
            for column in &block.columns {
                check_values(column, unifier.values_type())
                    .map_err(|e| run.damaged(reader.blocks_read() - 1, e.to_string()))?;
            }
            pieces.extend(block.columns);
        }
        concat(&pieces.iter().map(AsRef::as_ref).collect::<Vec<_>>())
            .map_err(|e| WriteError::schema(format!("part {:?}: reading a dictionary: {e}", self.name)))
    }
}

/// Writes a dictionary as a run of one column.
pub(crate) fn write_dictionary(
    fs: &Arc<dyn FileSystem>,
    dir: &Path,
    number: usize,
    unifier: &Unifier,
    durable: bool,
) -> Result<RunRecord, WriteError> {
    let values = unifier
        .values()
        .map_err(|e| WriteError::schema(format!("putting the values of a dictionary together: {e}")))?;
    let schema = spill_schema(&[unifier.values_shape()]);
    let mut run = Run::create(fs, &dir.join(format!("dictionary-{number}")), schema)?;
    run.append(&Block { rows: values.len(), columns: vec![values] })?;
    run.keep(durable)
}

/// A schema as the hexadecimal digits of its Arrow IPC flatbuffer.
pub(crate) mod hex_schema {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(schema: &SchemaRef, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tracker = DictionaryTracker::new(true);
        let bytes = IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb(schema);
        let digits: String = bytes.finished_data().iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&digits)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SchemaRef, D::Error> {
        use serde::de::Error;
        let digits = String::deserialize(deserializer)?;
        let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| D::Error::custom("a schema is not hexadecimal"))?;
        let schema = arrow_ipc::root_as_schema(&bytes).map_err(D::Error::custom)?;
        crate::untrusted::schema(schema).map_err(D::Error::custom)
    }
}
