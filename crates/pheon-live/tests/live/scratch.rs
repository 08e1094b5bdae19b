//! Maps for tests, gone at the end.

use std::path::PathBuf;

use pheon_live::{Change, LiveError, LiveMap, LiveOptions, Location};
use pheon_os::process;

/// A map in memory of a name that nobody else has.
pub(crate) struct Scratch {
    pub(crate) map: LiveMap,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::with(&LiveOptions::default())
    }

    pub(crate) fn with(options: &LiveOptions) -> Self {
        let location = Location::Memory { name: format!("test-{}", process::random_id()), group: None };
        Self { map: LiveMap::create(&location, options).unwrap() }
    }

    pub(crate) fn location(&self) -> Location {
        self.map.location().clone()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.map.unlink();
    }
}

/// The folder inside a map's that has all its files but CTRL and LOCK.
pub(crate) fn files_dir(location: &Location) -> PathBuf {
    let entries = std::fs::read_dir(location.dir().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].clone()
}

/// `body` under the map's lock.
pub(crate) fn locked<T>(map: &LiveMap, body: impl FnOnce() -> T) -> T {
    map.lock(None, &|| false).unwrap();
    let done = body();
    map.unlock().unwrap();
    done
}

pub(crate) fn put(map: &LiveMap, key: &[u8], value: &[u8]) -> Result<(), LiveError> {
    locked(map, || map.put(key, 0, value))
}

pub(crate) fn delete(map: &LiveMap, key: &[u8]) -> bool {
    locked(map, || map.delete(key).unwrap())
}

pub(crate) fn put_all<'a>(map: &LiveMap, entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    let changes = entries.into_iter().map(|(key, value)| Change::Put { key, meta: 0, value });
    locked(map, || map.apply(changes).unwrap());
}

/// Everything in the map's order.
pub(crate) fn all(map: &LiveMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let ordered = map.snapshot().unwrap().ordered().unwrap();
    (0..ordered.len())
        .map(|at| {
            let entry = ordered.get(at).unwrap();
            (entry.key().to_vec(), entry.value().to_vec())
        })
        .collect()
}
