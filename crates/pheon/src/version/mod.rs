//! An open version of a dataset: what maps and tables share.

pub(crate) mod dictionaries;
pub(crate) mod find;
pub(crate) mod gather;
pub(crate) mod hidden;
pub(crate) mod merge;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow_schema::{DataType, FieldRef, SchemaRef};
use pheon_os::fs::FileSystem;

use self::hidden::Hidden;
use self::merge::RunList;
use crate::access::Access;
use crate::dataset::{Dataset, Stamp};
use crate::error::ReadError;
use crate::key::composite::NoPart;
use crate::key::{KeyRef, KeyType};
use crate::manifest::{Manifest, SegmentRecord};
use crate::segment::Segment;
use crate::segment::file::ArrowFile;

/// An open version. Its mappings live as long as it does, whatever happens to the files' names.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) dataset: Dataset,
    pub(crate) manifest: Manifest,
    /// Its segments, oldest first; at least one.
    pub(crate) parts: Vec<Part>,
    whole: OnceLock<Arc<RunList>>,
    unique: OnceLock<bool>,
    /// The dataset's folder when it was last found to have nothing newer.
    seen: Mutex<Option<Stamp>>,
}

/// A segment as a version shows it.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    pub(crate) hidden: Option<Arc<Hidden>>,
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
    /// How it came about: `put`, `append`, `upsert`, `delete`, `compact`, or `rollback:<version>`.
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
    /// Rows of the segments that this version does not show: deleted, or replaced by later ones.
    pub hidden_rows: u64,
    /// Bytes of the data files.
    pub data_bytes: u64,
    /// Bytes of the index files.
    pub index_bytes: u64,
    /// Distinct keys that the indexes hold; a key in two segments counts twice.
    pub index_keys: u64,
    /// How its newest segment is read, as it was decided when that was opened: [`Access::Memory`] or [`Access::Random`].
    pub access: Access,
}

impl Part {
    fn open(
        fs: &dyn FileSystem,
        dataset: &Dataset,
        manifest: &Manifest,
        record: &SegmentRecord,
        reuse: Option<&Version>,
        access: Access,
    ) -> Result<Self, ReadError> {
        let same = |old: &Version| old.manifest.key == manifest.key && old.dataset.dir() == dataset.dir();
        let old = reuse.filter(|old| same(old)).and_then(|old| {
            let at = old.manifest.segments.iter().position(|s| s.id == record.id && s.data == record.data)?;
            Some((&old.manifest.segments[at], &old.parts[at]))
        });
        let segment = match old {
            Some((_, part)) => {
                let index = part.segment.key.as_ref().map(|key| &key.index_file);
                [Some(&part.segment.data), index].into_iter().flatten().try_for_each(|file| file.check_length(fs))?;
                part.segment.clone()
            }
            None => Arc::new(Segment::open(fs, dataset.dir(), record, &manifest.key, access)?),
        };
        let hidden = match (&record.hidden, old) {
            (None, _) => None,
            (Some(wanted), Some((known, part))) if known.hidden.as_ref() == Some(wanted) => part.hidden.clone(),
            (Some(wanted), _) => Some(Arc::new(Hidden::open(fs, dataset.dir(), wanted)?)),
        };
        if let Some(hidden) = &hidden
            && hidden.rows().last().is_none_or(|&row| row as usize >= segment.rows)
        {
            let problem = format!("expected rows below {}, found {:?}", segment.rows, hidden.rows().last());
            return Err(hidden.file.corrupt("its rows", problem));
        }
        Ok(Self { segment, hidden })
    }

    /// Rows that the version shows.
    pub(crate) fn live_rows(&self) -> u64 {
        self.segment.rows as u64 - self.hidden.as_ref().map_or(0, |h| h.rows().len() as u64)
    }

    /// Rows below `row` that the version shows.
    pub(crate) fn live_before(&self, row: u32) -> u64 {
        u64::from(row) - self.hidden.as_ref().map_or(0, |h| h.count_before(row) as u64)
    }

    #[inline]
    pub(crate) fn is_hidden(&self, row: u32) -> bool {
        self.hidden.as_ref().is_some_and(|h| h.contains(row))
    }

    /// Its mapped files; those that every lookup needs come first.
    pub(crate) fn files(&self) -> impl Iterator<Item = &ArrowFile> {
        let index = self.segment.key.as_ref().map(|k| &k.index_file);
        let hidden = self.hidden.as_ref().map(|h| &h.file);
        [index, hidden, Some(&self.segment.data)].into_iter().flatten()
    }

    pub(crate) fn all_rows(&self) -> Range<u32> {
        0..self.segment.rows as u32
    }
}

impl Version {
    /// Opens what `manifest` describes, in O(columns x segments). Segments that `reuse` has open are shared with it.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        dataset: Dataset,
        manifest: Manifest,
        reuse: Option<&Self>,
    ) -> Result<Self, ReadError> {
        let corrupt = |problem: String| {
            Err(ReadError::corrupt(dataset.manifest_path(manifest.version), "member \"segments\"", problem))
        };
        let access = dataset.access().decide(manifest.file_bytes(), dataset.dir());
        let mut parts: Vec<Part> = Vec::with_capacity(manifest.segments.len());
        for record in &manifest.segments {
            let part = Part::open(fs, &dataset, &manifest, record, reuse, access)?;
            if let Some(first) = parts.first()
                && first.segment.schema() != part.segment.schema()
            {
                return Err(part.segment.data.corrupt("its schema", "it differs from that of the first segment"));
            }
            parts.push(part);
        }
        if parts.is_empty() {
            return corrupt("expected at least one segment, found none".to_owned());
        }
        let rows: u64 = parts.iter().map(Part::live_rows).sum();
        if rows != manifest.rows {
            return corrupt(format!("they hold {rows} rows, member \"rows\" says {}", manifest.rows));
        }
        Ok(Self { dataset, manifest, parts, whole: OnceLock::new(), unique: OnceLock::new(), seen: Mutex::new(None) })
    }

    pub(crate) fn name(&self) -> &str {
        self.dataset.name()
    }

    /// The only segment of a version that has one and shows all of it.
    #[inline]
    pub(crate) fn single(&self) -> Option<&Segment> {
        match self.parts.as_slice() {
            [Part { segment, hidden: None }] => Some(segment),
            _ => None,
        }
    }

    /// The segment that stands for all in questions of types and columns.
    #[inline]
    pub(crate) fn model(&self) -> &Segment {
        &self.parts[0].segment
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.model().schema()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.manifest.rows
    }

    pub(crate) fn key_type(&self) -> Option<KeyType> {
        self.model().key.as_ref().map(|k| k.key_type)
    }

    /// Whether each key occurs once: because that was asked for, or because it is so in each segment and their keys do not
    /// overlap. Computed once, at first use.
    pub(crate) fn is_unique(&self) -> bool {
        self.manifest.unique || *self.unique.get_or_init(|| self.is_unique_so_far().unwrap_or(false))
    }

    fn is_unique_so_far(&self) -> Result<bool, ReadError> {
        let distinct = |part: &Part| {
            let side = part.segment.key.as_ref();
            side.is_some_and(|side| side.index.plan().keys == part.segment.rows as u64)
        };
        if !self.parts.iter().all(distinct) {
            return Ok(false);
        }
        // A segment of the merged order is one run if nothing of another lies between its rows.
        let mut starts: Vec<&Segment> = Vec::with_capacity(self.parts.len());
        for segment in self.parts.iter().map(|part| part.segment.as_ref()).filter(|segment| segment.rows > 0) {
            let mut at = starts.len();
            while at > 0 && segment.compare_keys(0, starts[at - 1], 0)?.is_lt() {
                at -= 1;
            }
            starts.insert(at, segment);
        }
        for pair in starts.windows(2) {
            if !pair[0].compare_keys(pair[0].rows - 1, pair[1], 0)?.is_lt() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All rows in order. Computed once, at first use.
    pub(crate) fn whole(&self) -> Result<&Arc<RunList>, ReadError> {
        if let Some(whole) = self.whole.get() {
            return Ok(whole);
        }
        let ranges: Vec<_> = self.parts.iter().map(Part::all_rows).collect();
        let list = RunList::merge(&self.parts, &ranges, !self.manifest.key.is_empty(), 0)?;
        Ok(self.whole.get_or_init(|| Arc::new(list)))
    }

    /// Fails unless `key` has the form of this dataset's keys.
    #[inline]
    pub(crate) fn check_key(&self, key: KeyRef<'_>) -> Result<(), ReadError> {
        let model = self.model();
        match &model.key {
            Some(side) if side.key_type.accepts(key) => Ok(()),
            Some(side) => Err(ReadError::KeyType {
                dataset: self.name().to_owned(),
                expected: side.type_name(&model.columns),
                found: form(key).to_owned(),
            }),
            None => Err(self.wrong_shape("it has no key to look up")),
        }
    }

    /// The key bytes of the leading columns' values (docs/format.md section 3.2).
    pub(crate) fn composite_key(&self, parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> {
        let model = self.model();
        let Some(side) = model.key.as_ref().filter(|side| side.is_composite()) else {
            return Err(self.wrong_shape("its key has not several columns; look keys up as they are"));
        };
        if parts.len() > side.parts.len() {
            let problem = format!("its key has {} columns, got {} values", side.parts.len(), parts.len());
            return Err(self.wrong_shape(problem));
        }
        let columns = side.parts.iter().map(|part| (part.key_type, &model.columns[part.column].data_type));
        encode_parts(self.name(), columns, parts)
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
            unique: self.is_unique(),
            schema: self.schema().clone(),
            segments: m.segments.len(),
            hidden_rows: m.segments.iter().filter_map(|s| s.hidden.as_ref()).map(|h| h.rows).sum(),
            data_bytes: m.segments.iter().map(|s| s.data.size_bytes).sum(),
            index_bytes: m.segments.iter().filter_map(|s| s.index.as_ref()).map(|i| i.size_bytes).sum(),
            index_keys: self.parts.iter().filter_map(|p| p.segment.key.as_ref()).map(|k| k.index.plan().keys).sum(),
            access: self.parts.last().map_or(Access::Auto, |part| part.segment.data.access),
        }
    }

    /// The newest version if it is not this one. One system call where the dataset's folder has not changed since the
    /// last time.
    pub(crate) fn newer(self: &Arc<Self>) -> Result<Option<Arc<Self>>, ReadError> {
        // Taken before the folder is listed: what comes after it is seen the next time.
        let now = self.dataset.stamp();
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_some() && *seen() == now {
            return Ok(None);
        }
        let newer = self.dataset.newer_than(self)?;
        if newer.is_none() {
            *seen() = now;
        }
        Ok(newer)
    }

    /// The paths of the version's files.
    pub(crate) fn files(&self) -> Vec<&Path> {
        self.parts.iter().flat_map(Part::files).map(|file| file.path.as_path()).collect()
    }
}

/// The key bytes of a key of several columns, as [`crate::Table::composite_key`] has them, of a dataset that is elsewhere:
/// `fields` are its key columns as stored, in the key's order.
///
/// # Errors
/// [`ReadError::KeyType`] if a value does not fit its column, [`ReadError::WrongShape`] if there are more values than
/// columns or a column is of no type that keys have.
pub fn composite_key(dataset: &str, fields: &[FieldRef], parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> {
    let wrong = |problem: String| ReadError::WrongShape { dataset: dataset.to_owned(), problem };
    if parts.len() > fields.len() {
        return Err(wrong(format!("its key has {} columns, got {} values", fields.len(), parts.len())));
    }
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let data_type = field.data_type();
        let key_type = KeyType::of(data_type).ok_or_else(|| wrong(format!("keys are not of type {data_type}")))?;
        columns.push((key_type, data_type));
    }
    encode_parts(dataset, columns.into_iter(), parts)
}

fn encode_parts<'a>(
    dataset: &str,
    columns: impl Iterator<Item = (KeyType, &'a DataType)>,
    parts: &[KeyRef<'_>],
) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::with_capacity(16 * parts.len());
    for ((key_type, data_type), &key) in std::iter::zip(columns, parts) {
        key_type.encode(key, &mut bytes).map_err(|problem| ReadError::KeyType {
            dataset: dataset.to_owned(),
            expected: data_type.to_string(),
            found: match problem {
                NoPart::Form => form(key).to_owned(),
                NoPart::Range => format!("{} that it cannot hold: {key}", form(key)),
            },
        })?;
    }
    Ok(bytes)
}

/// What people call a key of this form.
fn form(key: KeyRef<'_>) -> &'static str {
    match key {
        KeyRef::Bytes(_) => "bytes",
        KeyRef::Fixed64(_) => "an integer",
        KeyRef::I128(_) | KeyRef::I256(_) => "a decimal",
    }
}
