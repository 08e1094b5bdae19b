//! A dataset's folder as readers see it: names, manifests, the newest version.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pheon_os::fs::FileSystem;

use crate::access::Access;
use crate::error::ReadError;
use crate::manifest::{self, FORMAT_VERSION, Manifest};
use crate::version::Version;

/// The writers' lock file of a dataset.
pub(crate) const LOCK_NAME: &str = "LOCK";
/// What a build that can be resumed has finished.
pub(crate) const RESUME_NAME: &str = "resume";
/// Names of work in progress begin with this.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";
/// Names of segments begin with this.
pub(crate) const SEGMENT_PREFIX: &str = "seg-";
/// A manifest larger than this is not ours: one holds some hundred bytes a column.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// How often a reader starts again because the files that it was about to open have just been collected.
const OPEN_ATTEMPTS_MAX: u32 = 64;
const NAME_LEN_MAX: usize = 128;

/// A dataset's place. It may not exist.
#[derive(Debug, Clone)]
pub(crate) struct Dataset {
    fs: Arc<dyn FileSystem>,
    name: Arc<str>,
    dir: Arc<Path>,
    access: Access,
}

/// One published version of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionInfo {
    /// Its number.
    pub version: u64,
    /// When it was published, milliseconds since 1970-01-01 UTC.
    pub created_unix_ms: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of its files. Versions may share files.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
    /// How it came about: `put`, `append`, `upsert`, `delete`, `compact`, or `rollback:<version>`.
    pub origin: String,
}

/// A dataset's folder at one moment. Two equal ones mean that no name in it has come or gone between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    dev: u64,
    ino: u64,
    modified_unix_ns: i64,
}

/// A folder that was changed so shortly ago might change once more within the same tick of the kernel's clock, which a
/// stamp would not show. Two values: for file systems that keep fractions of a second, and for those that do not.
const STAMP_AGE_MIN_NS: i64 = 50_000_000;
const STAMP_AGE_MIN_WHOLE_SECONDS_NS: i64 = 2_100_000_000;

impl Dataset {
    /// # Errors
    /// [`ReadError::InvalidName`] unless the name matches `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`; such a name cannot leave
    /// the store's folder.
    pub(crate) fn new(fs: Arc<dyn FileSystem>, store_dir: &Path, name: &str) -> Result<Self, ReadError> {
        if !is_name(name) {
            return Err(ReadError::InvalidName { name: name.to_owned() });
        }
        Ok(Self { fs, name: name.into(), dir: store_dir.join(name).into(), access: Access::Auto })
    }

    /// The same dataset, read in this way by whatever is opened from now on.
    #[must_use]
    pub(crate) fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(crate) fn access(&self) -> Access {
        self.access
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    pub(crate) fn manifest_path(&self, version: u64) -> PathBuf {
        self.dir.join(format!("manifest-{version:06}.json"))
    }

    /// Numbers of the published versions, ascending; empty if there are none.
    pub(crate) fn version_numbers(&self) -> Result<Vec<u64>, ReadError> {
        let entries = match self.fs.read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            Err(e) => return Err(ReadError::io("list", self.dir.as_ref(), e)),
        };
        let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| manifest_number(&entry.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads and checks one manifest; `None` if there is no such version.
    pub(crate) fn manifest(&self, version: u64) -> Result<Option<Manifest>, ReadError> {
        let path = self.manifest_path(version);
        let bytes = match self.fs.read(&path, MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                return Err(ReadError::corrupt(path, "its length", e.to_string()));
            }
            Err(e) => return Err(ReadError::io("read", path, e)),
        };
        let manifest: Manifest =
            manifest::decode(&bytes).map_err(|problem| ReadError::corrupt(&path, "its text", problem))?;
        let wrong = |place: &str, problem: String| Err(ReadError::corrupt(&path, place, problem));
        if manifest.pheon != "manifest" {
            return wrong("member \"pheon\"", format!("expected \"manifest\", found {:?}", manifest.pheon));
        }
        if manifest.format_version > FORMAT_VERSION {
            let problem =
                format!("this Pheon reads up to {FORMAT_VERSION}, found {}; use a newer one", manifest.format_version);
            return wrong("member \"format_version\"", problem);
        }
        if manifest.version != version {
            return wrong("member \"version\"", format!("expected {version}, found {}", manifest.version));
        }
        let needed = Manifest::format_version_for(&manifest.key, &manifest.segments);
        if manifest.format_version < needed {
            let problem =
                format!("expected {needed}, which its segments and key need, found {}", manifest.format_version);
            return wrong("member \"format_version\"", problem);
        }
        let ids = manifest.segments.iter().flat_map(|s| [Some(&s.id), s.hidden.as_ref().map(|h| &h.id)]).flatten();
        if let Some(bad) = ids.into_iter().find(|id| id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit())) {
            return wrong("member \"segments\"", format!("{bad:?} is not an id"));
        }
        Ok(Some(manifest))
    }

    /// Opens one version, or the newest.
    pub(crate) fn open(&self, version: Option<u64>) -> Result<Arc<Version>, ReadError> {
        self.open_sharing(version, None)
    }

    fn open_sharing(&self, version: Option<u64>, reuse: Option<&Version>) -> Result<Arc<Version>, ReadError> {
        let mut last_failure = None;
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let number = match version {
                Some(number) => number,
                None => match self.version_numbers()?.last() {
                    Some(&number) => number,
                    None => return Err(self.not_found(None)),
                },
            };
            let opened = match self.manifest(number)? {
                Some(manifest) => Version::open(self.fs.as_ref(), self.clone(), manifest.clone(), reuse)
                    .map(Arc::new)
                    .map_err(|e| (e, manifest)),
                None if version.is_some() => return Err(self.not_found(version)),
                None => continue,
            };
            match opened {
                // Collected between reading the manifest and mapping its files: look again. A file that is missing while
                // its manifest stays is damage, and the manifest tells the two apart. Another manifest of that number is
                // one of a dataset that was dropped and made again.
                Err((e @ ReadError::Io { .. }, manifest)) if is_missing_file(&e) => {
                    if self.manifest(number)? == Some(manifest) {
                        last_failure = Some(e);
                        break;
                    }
                }
                opened => return opened.map_err(|(e, _)| e),
            }
        }
        Err(match last_failure {
            Some(ReadError::Io { path, .. }) => {
                ReadError::corrupt(path, "its folder", "the file is missing, although a published manifest names it")
            }
            _ => self.not_found(version),
        })
    }

    /// The newest version unless it is `current`, whose open segments it shares. A dataset that was dropped and made
    /// again counts from 1 anew, so the number alone does not tell.
    pub(crate) fn newer_than(&self, current: &Version) -> Result<Option<Arc<Version>>, ReadError> {
        match self.version_numbers()?.last() {
            Some(&newest) if newest != current.manifest.version => self.open_sharing(None, Some(current)).map(Some),
            Some(&newest) => match self.manifest(newest)? {
                Some(found) if found == current.manifest => Ok(None),
                _ => self.open_sharing(None, Some(current)).map(Some),
            },
            None => Err(self.not_found(None)),
        }
    }

    /// What the folder is like now; `None` if it was changed too recently to tell, or cannot be asked. One system call.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let meta = self.fs.metadata(&self.dir).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let age = i64::try_from(now.as_nanos()).ok()?.checked_sub(meta.modified_unix_ns)?;
        let whole_seconds = meta.modified_unix_ns % 1_000_000_000 == 0;
        let enough = if whole_seconds { STAMP_AGE_MIN_WHOLE_SECONDS_NS } else { STAMP_AGE_MIN_NS };
        (age > enough).then_some(Stamp { dev: meta.dev, ino: meta.ino, modified_unix_ns: meta.modified_unix_ns })
    }

    /// All published versions, ascending.
    pub(crate) fn versions(&self) -> Result<Vec<VersionInfo>, ReadError> {
        let mut infos = Vec::new();
        for number in self.version_numbers()? {
            if let Some(m) = self.manifest(number)? {
                let bytes = m.file_bytes();
                infos.push(VersionInfo {
                    version: m.version,
                    created_unix_ms: m.created_unix_ms,
                    rows: m.rows,
                    bytes,
                    segments: m.segments.len(),
                    origin: m.origin,
                });
            }
        }
        if infos.is_empty() { Err(self.not_found(None)) } else { Ok(infos) }
    }

    pub(crate) fn not_found(&self, version: Option<u64>) -> ReadError {
        ReadError::NotFound { dataset: self.name().to_owned(), version }
    }
}

fn is_missing_file(error: &ReadError) -> bool {
    matches!(error, ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Whether `name` may name a dataset.
pub(crate) fn is_name(name: &str) -> bool {
    let (Some(first), true) = (name.bytes().next(), name.len() <= NAME_LEN_MAX) else { return false };
    (first.is_ascii_alphanumeric() || first == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The version that a file name stands for: at least six digits, and only the canonical spelling.
pub(crate) fn manifest_number(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_prefix("manifest-")?.strip_suffix(".json")?;
    let number: u64 = digits.parse().ok()?;
    (format!("{number:06}") == digits && number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_are_refused() {
        for good in ["a", "_", "9lives", "prices.v2-eu", &"x".repeat(128)] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a\\b", "a b", "é", "a\0", "a\n", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn only_canonical_manifest_names_count() {
        assert_eq!(manifest_number("manifest-000007.json"), Some(7));
        assert_eq!(manifest_number("manifest-1234567.json"), Some(1_234_567));
        for bad in [
            "manifest-7.json",
            "manifest-0000007.json",
            "manifest-+00007.json",
            "manifest-000000.json",
            "manifest-000007.json~",
        ] {
            assert_eq!(manifest_number(bad), None, "{bad}");
        }
    }
}
