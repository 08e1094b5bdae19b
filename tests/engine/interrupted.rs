//! Something happens between the moment a reader has read a manifest and the moment it maps the files that it names.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pheon::{ReadError, Store};
use pheon_os::fs::{DirEntry, FileMeta, FileSystem, ReadFile, WriteFile};
use pheon_os::map::ReadMap;
use pheon_os::shared::SharedMap;

use crate::scratch::{Scratch, assert_numbered, numbered};

type Event = Box<dyn FnOnce() + Send>;

/// The real file system, on which an event takes place just before a file is mapped.
struct Interrupted {
    real: Arc<dyn FileSystem>,
    events: Mutex<Vec<Event>>,
}

impl fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupted")
    }
}

impl FileSystem for Interrupted {
    fn map(&self, path: &Path) -> io::Result<ReadMap> {
        let event = self.events.lock().unwrap().pop();
        if let Some(event) = event {
            event();
        }
        self.real.map(path)
    }

    fn create_group_dir(&self, path: &Path, group: u32) -> io::Result<()> {
        self.real.create_group_dir(path, group)
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.real.open_lock(path)
    }

    fn create_shared(&self, path: &Path, len: u64, mode: u32) -> io::Result<SharedMap> {
        self.real.create_shared(path, len, mode)
    }

    fn map_shared(&self, path: &Path, writable: bool) -> io::Result<SharedMap> {
        self.real.map_shared(path, writable)
    }

    fn sync_shared(&self, path: &Path, map: &SharedMap) -> io::Result<()> {
        self.real.sync_shared(path, map)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.real.create_dir(path, mode)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.real.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        self.real.metadata(path)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.real.read(path, max_bytes)
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        self.real.create_new(path, mode)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.real.open_read(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.real.unlink(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.real.sync_dir(path)
    }
}

/// A store with ten rows in version 1 of `m`, and a second view of it in which the events happen, the last one first.
fn interrupted(events: impl FnOnce(&Scratch) -> Vec<Event>) -> (Scratch, Store) {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(10, 0));
    let fs = Interrupted { real: pheon_os::fs::real(), events: Mutex::new(events(&scratch)) };
    let store = Store::open_with(scratch.path(), Arc::new(fs)).unwrap();
    (scratch, store)
}

fn publish(store: Store, base: i64) {
    crate::scratch::put(&store, "m", &numbered(20, base), pheon::PutOptions::map("k").threads(1)).unwrap();
}

#[test]
fn a_version_collected_under_a_reader_gives_the_next_one() {
    let (_scratch, store) = interrupted(|scratch| {
        let next = |base| {
            let store = scratch.store.clone();
            Box::new(move || {
                publish(store.clone(), base);
                store.gc("m", 1).unwrap();
            }) as Event
        };
        vec![next(700), next(600), next(500)]
    });
    let map = store.map("m").unwrap();
    assert_eq!(map.version(), 4);
    assert_numbered(&map, 20, 700);
}

#[test]
fn a_dataset_made_again_under_a_reader_is_not_taken_for_damage() {
    let (_scratch, store) = interrupted(|scratch| {
        let store = scratch.store.clone();
        vec![Box::new(move || {
            store.drop_dataset("m").unwrap();
            publish(store, 900);
        })]
    });
    let map = store.map("m").unwrap();
    assert_eq!(map.version(), 1);
    assert_numbered(&map, 20, 900);
}

#[test]
fn what_is_gone_is_not_found() {
    let gone = |scratch: &Scratch| {
        let store = scratch.store.clone();
        vec![Box::new(move || store.drop_dataset("m").unwrap()) as Event]
    };
    let (_scratch, store) = interrupted(gone);
    assert!(matches!(store.map("m"), Err(ReadError::NotFound { version: None, .. })));
    let (_scratch, store) = interrupted(gone);
    assert!(matches!(store.map_at("m", 1), Err(ReadError::NotFound { version: Some(1), .. })));
}

#[test]
fn a_segment_removed_by_hand_is_damage() {
    let (_scratch, store) = interrupted(|scratch| {
        let dataset = scratch.path().join("m");
        vec![Box::new(move || {
            let segment =
                dataset.read_dir().unwrap().flatten().find(|e| e.file_name().to_string_lossy().starts_with("seg-"));
            std::fs::remove_dir_all(segment.unwrap().path()).unwrap();
        })]
    });
    let e = store.map("m").unwrap_err();
    assert!(matches!(e, ReadError::Corrupt { .. }) && e.to_string().contains("missing"), "{e}");
}
