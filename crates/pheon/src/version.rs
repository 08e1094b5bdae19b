//! An open version of a dataset: what maps and tables share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use pheon_os::fs::FileSystem;

use crate::dataset::Dataset;
use crate::error::ReadError;
use crate::key::{KeyRef, KeyType};
use crate::manifest::Manifest;
use crate::segment::Segment;

/// An open version. Its mappings live as long as it does, whatever happens to the files' names.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) dataset: Dataset,
    pub(crate) manifest: Manifest,
    pub(crate) segment: Segment,
}

/// Facts about an open version.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Info {
    /// The dataset's name.
    pub name: String,
    /// The version's number.
    pub version: u64,
    /// The dataset's folder.
    pub path: PathBuf,
    /// When it was published, milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
    /// How it came about: `put`, or `rollback:<version>`.
    pub origin: String,
    /// Rows.
    pub rows: u64,
    /// Names of the key columns.
    pub key: Vec<String>,
    /// Whether each key occurs once.
    pub unique: bool,
    /// The columns as stored.
    pub schema: SchemaRef,
    /// Segments.
    pub segments: usize,
    /// Bytes of the data files.
    pub data_bytes: u64,
    /// Bytes of the index files.
    pub index_bytes: u64,
    /// Distinct keys that the index holds.
    pub index_keys: u64,
}

impl Version {
    /// Opens what `manifest` describes, in O(columns).
    pub(crate) fn open(fs: &dyn FileSystem, dataset: Dataset, manifest: Manifest) -> Result<Self, ReadError> {
        let [record] = manifest.segments.as_slice() else {
            let problem = format!("expected one segment, found {}; a newer Pheon may read it", manifest.segments.len());
            return Err(ReadError::corrupt(dataset.manifest_path(manifest.version), "segments", problem));
        };
        let segment = Segment::open(fs, dataset.dir(), record, &manifest.key)?;
        Ok(Self { dataset, manifest, segment })
    }

    pub(crate) fn name(&self) -> &str {
        self.dataset.name()
    }

    pub(crate) fn key_type(&self) -> Option<KeyType> {
        self.segment.key.as_ref().map(|k| k.key_type)
    }

    /// Fails unless `key` has the form of this dataset's keys.
    #[inline]
    pub(crate) fn check_key(&self, key: KeyRef<'_>) -> Result<(), ReadError> {
        match &self.segment.key {
            Some(side) if side.key_type.accepts(key) => Ok(()),
            Some(side) => Err(ReadError::KeyType {
                dataset: self.name().to_owned(),
                expected: self.segment.columns[side.column].data_type.to_string(),
                found: match key {
                    KeyRef::Bytes(_) => "bytes",
                    KeyRef::Fixed64(_) => "an integer",
                    KeyRef::I128(_) | KeyRef::I256(_) => "a decimal",
                }
                .to_owned(),
            }),
            None => Err(self.wrong_shape("it has no key to look up")),
        }
    }

    pub(crate) fn wrong_shape(&self, problem: impl Into<String>) -> ReadError {
        ReadError::WrongShape { dataset: self.name().to_owned(), problem: problem.into() }
    }

    pub(crate) fn info(&self) -> Info {
        let m = &self.manifest;
        Info {
            name: self.name().to_owned(),
            version: m.version,
            path: self.dataset.dir().to_owned(),
            created_unix_ms: m.created_unix_ms,
            origin: m.origin.clone(),
            rows: m.rows,
            key: m.key.clone(),
            unique: m.unique,
            schema: self.segment.schema().clone(),
            segments: m.segments.len(),
            data_bytes: m.segments.iter().map(|s| s.data.size_bytes).sum(),
            index_bytes: m.segments.iter().filter_map(|s| s.index.as_ref()).map(|i| i.size_bytes).sum(),
            index_keys: self.segment.key.as_ref().map_or(0, |k| k.index.plan().keys),
        }
    }

    /// The newest version if it is not this one.
    pub(crate) fn newer(self: &Arc<Self>) -> Result<Option<Arc<Self>>, ReadError> {
        self.dataset.newer_than(&self.manifest)
    }

    /// The paths of the version's files.
    pub(crate) fn files(&self) -> Vec<&Path> {
        let index = self.segment.key.as_ref().map(|k| k.index_file.path.as_path());
        [Some(self.segment.data.path.as_path()), index].into_iter().flatten().collect()
    }
}
