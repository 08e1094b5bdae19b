//! Input files of every supported kind as one stream of record batches.
//!
//! Memory stays bounded whatever the size of a file: batches are small, Arrow files are mapped, and the types of text
//! files are found in a first pass that keeps nothing.
//!
//! ```no_run
//! use pheon::input::{self, InputOptions};
//! let mut options = InputOptions::default();
//! options.columns = Some(vec!["path".into(), "package".into()]);
//! let reader = input::open("packages.csv".as_ref(), &options)?;
//! # Ok::<(), pheon::WriteError>(())
//! ```
//!
//! # Limits
//! * Input files must not change while they are read. An Arrow file that is cut short meanwhile kills the process
//!   (SIGBUS), as with every program that maps files.
//! * Text must be UTF-8. Compressed text is not read; compressed Parquet and Feather are.

// Input files belong to the user; the engine's seam for file operations is for the store's own files.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod chain;
mod csv;
mod csv_fault;
mod csv_infer;
mod ipc;
mod json;
mod json_infer;
mod options;
mod parquet;
mod schema;
mod text;
mod types;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};

pub use options::{Format, InputOptions};
pub use types::parse_type;

use crate::error::WriteError;

/// One stream over one or several input files.
pub struct Input {
    /// The rows of all files in order.
    pub reader: Box<dyn RecordBatchReader + Send>,
    /// How many rows there are, exactly for Parquet, Arrow and JSON files and by estimate for CSV files; `None` if
    /// nobody knows.
    pub rows_estimate: Option<u64>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("schema", &self.reader.schema())
            .field("rows_estimate", &self.rows_estimate)
            .finish()
    }
}

/// Opens one file. Its format follows from the options or from its extension.
///
/// The reader's errors carry a [`WriteError`] (see [`write_error`]).
///
/// # Errors
/// [`WriteError::Input`] if the file is missing, is not what its name says, or lacks a column that was asked for.
pub fn open(path: &Path, options: &InputOptions) -> Result<Box<dyn RecordBatchReader + Send>, WriteError> {
    Ok(open_all(&[path], options)?.reader)
}

/// Opens several files as one stream. They must agree in columns and types; column order is the first file's.
///
/// # Errors
/// As [`open`]; files that differ are an error that names file and column.
pub fn open_all(paths: &[impl AsRef<Path>], options: &InputOptions) -> Result<Input, WriteError> {
    let (sources, target) = look_at_all(paths, options)?;
    let rows_estimate = sources.iter().map(|s| s.rows_estimate).sum();
    let reader = Box::new(chain::Chain::new(sources, target, options.clone()));
    Ok(Input { reader, rows_estimate })
}

/// Opens several files, each as a stream of its own. They agree in columns and types as those of [`open_all`] do. A file is
/// opened again when its first batch is asked for.
///
/// # Errors
/// As [`open_all`].
pub fn open_each(paths: &[impl AsRef<Path>], options: &InputOptions) -> Result<Vec<Input>, WriteError> {
    let (sources, target) = look_at_all(paths, options)?;
    let one = |source: Source| {
        let rows_estimate = source.rows_estimate;
        let reader = Box::new(chain::Chain::new(vec![source], target.clone(), options.clone()));
        Input { reader, rows_estimate }
    };
    Ok(sources.into_iter().map(one).collect())
}

/// What tells a file from another, or from itself after a change: its path without links, its length in bytes and when it
/// was last changed, in nanoseconds since 1970-01-01 UTC.
///
/// # Errors
/// [`WriteError::Input`] if the file is missing.
pub fn identity(path: &Path) -> Result<String, WriteError> {
    let failed = |e: std::io::Error| input(path, e.to_string());
    let meta = std::fs::metadata(path).map_err(failed)?;
    let canonical = std::fs::canonicalize(path).map_err(failed)?;
    let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
    let changed_ns = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Ok(format!("{} ({} bytes, changed at {changed_ns})", canonical.display(), meta.len()))
}

/// Every file after a first look, and the columns that they have in common.
fn look_at_all(paths: &[impl AsRef<Path>], options: &InputOptions) -> Result<(Vec<Source>, SchemaRef), WriteError> {
    options.validate()?;
    if paths.is_empty() {
        return Err(WriteError::Options { problem: "no input file was given".into() });
    }
    let mut json = json_infer::Inference::default();
    let mut sources = Vec::with_capacity(paths.len());
    for path in paths {
        sources.push(Source::look(path.as_ref(), options, &mut json)?);
    }
    let json = Arc::new(json.schema());
    for source in &mut sources {
        if source.format == Format::Json {
            source.schema = json.clone();
        }
    }
    let target = schema::unify(&sources, options)?;
    Ok((sources, target))
}

/// The [`WriteError`] inside an error of one of this module's readers; any other error becomes [`WriteError::Source`].
pub fn write_error(error: ArrowError) -> WriteError {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast::<WriteError>() {
            Ok(ours) => *ours,
            Err(other) => WriteError::Source { problem: other.to_string() },
        },
        other => WriteError::Source { problem: other.to_string() },
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, WriteError>> + Send>;

/// A file after a first look: its columns are known, its rows are not read.
struct Source {
    path: PathBuf,
    format: Format,
    /// All columns of the file. For text files the inferred types; Null where no value was seen.
    schema: SchemaRef,
    rows_estimate: Option<u64>,
    /// For CSV: rows a batch, so that a batch has a bounded size in bytes.
    batch_rows: usize,
}

impl Source {
    fn look(path: &Path, options: &InputOptions, json: &mut json_infer::Inference) -> Result<Self, WriteError> {
        let format = match options.format {
            Some(format) => format,
            None => Format::of(path).map_err(|problem| input(path, problem))?,
        };
        let meta = std::fs::metadata(path).map_err(|e| input(path, e.to_string()))?;
        if !meta.is_file() {
            return Err(input(path, "it is not a regular file; files are read twice, so a pipe or folder will not do"));
        }
        match format {
            Format::Parquet => parquet::look(path),
            Format::Arrow => ipc::look(path),
            Format::Csv | Format::Tsv => csv_infer::look(path, format, meta.len(), options),
            Format::Json => {
                let rows = json.scan(path)?;
                Ok(Self {
                    path: path.into(),
                    format,
                    schema: Arc::new(arrow_schema::Schema::empty()),
                    rows_estimate: Some(rows),
                    batch_rows: options.batch_rows,
                })
            }
        }
        .map(|mut source| {
            source.batch_rows = source.batch_rows.min(options.batch_rows);
            source
        })
    }

    /// The file's batches with the columns and types of `target`.
    fn open(&self, target: &SchemaRef, options: &InputOptions) -> Result<Batches, WriteError> {
        let batches = match self.format {
            Format::Parquet => parquet::open(self, target)?,
            Format::Arrow => ipc::open(self, target)?,
            Format::Csv | Format::Tsv => csv::open(self, target, options)?,
            Format::Json => json::open(self, target)?,
        };
        let (path, target) = (self.path.clone(), target.clone());
        Ok(Box::new(batches.map(move |batch| schema::conform(&batch?, &target, &path))))
    }
}

fn input(path: &Path, problem: impl Into<String>) -> WriteError {
    WriteError::Input { path: path.into(), problem: problem.into() }
}

fn open_file(path: &Path) -> Result<File, WriteError> {
    File::open(path).map_err(|e| input(path, e.to_string()))
}

#[cfg(test)]
mod tests;
