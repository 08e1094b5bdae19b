//! A store of its own for each test, in memory where the machine has a memory file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchIterator, StringArray};
use pheon::{Map, PutOptions, Store, WriteError};
use tempfile::TempDir;

/// A store that is removed at the end.
pub(crate) struct Scratch {
    dir: TempDir,
    pub(crate) store: Store,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = temporary_dir();
        let store = Store::open(dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    /// A map named `m` with one version.
    pub(crate) fn with_map(batch: &RecordBatch) -> (Self, Map) {
        let scratch = Self::new();
        scratch.put("m", batch);
        let map = scratch.store.map("m").unwrap();
        (scratch, map)
    }

    /// Publishes a version of a map whose key is column `k`.
    pub(crate) fn put(&self, name: &str, batch: &RecordBatch) -> u64 {
        put(&self.store, name, batch, PutOptions::map("k").threads(1)).unwrap()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }
}

pub(crate) fn temporary_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

pub(crate) fn put(store: &Store, name: &str, batch: &RecordBatch, options: PutOptions) -> Result<u64, WriteError> {
    store.put(name, RecordBatchIterator::new([Ok(batch.clone())], batch.schema()), options)
}

/// Columns `k` and `v`.
pub(crate) fn entries(keys: ArrayRef, values: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)]).unwrap()
}

/// `n` string keys `key-0` ..., each with the value `base` + its number; not in key order.
pub(crate) fn numbered(n: usize, base: i64) -> RecordBatch {
    let keys = StringArray::from_iter_values((0..n).map(|i| format!("key-{}", (i * 7919 + 3) % n.max(1))));
    let values = Int64Array::from_iter_values((0..n).map(|i| base + ((i * 7919 + 3) % n.max(1)) as i64));
    entries(Arc::new(keys), Arc::new(values))
}

/// Asserts that the map holds what [`numbered`] made, and nothing else.
#[track_caller]
pub(crate) fn assert_numbered(map: &Map, n: usize, base: i64) {
    assert_eq!(map.len(), n);
    for i in 0..n {
        let found = map.get(format!("key-{i}").as_str()).unwrap();
        assert!(matches!(found, Some(pheon::Value::Int(v)) if v == base + i as i64), "key-{i}: {found:?}");
    }
    assert!(map.get(format!("key-{n}").as_str()).unwrap().is_none());
}

/// Names of the files and folders below `dir`, relative to it, sorted.
pub(crate) fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, base: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            out.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            if path.is_dir() {
                walk(&path, base, out);
            }
        }
    }
    let mut names = Vec::new();
    walk(dir, dir, &mut names);
    names.sort();
    names
}

/// Asserts that a dataset's folder holds so many manifests and segments, the lock, and nothing else.
#[track_caller]
pub(crate) fn assert_tidy(dataset: &Path, manifests: usize, segments: usize) {
    let names: Vec<String> = tree(dataset).into_iter().filter(|n| !n.contains('/')).collect();
    let count = |prefix: &str| names.iter().filter(|n| n.starts_with(prefix)).count();
    assert_eq!((count("manifest-"), count("seg-"), count("LOCK")), (manifests, segments, 1), "{names:?}");
    assert_eq!(names.len(), manifests + segments + 1, "{names:?}");
}
