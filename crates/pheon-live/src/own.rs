//! Which files a map's names mean: those in a folder of its own, whatever has the map's name by now.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pheon_os::fs::{DirEntry, FileMeta, FileSystem, ReadFile, WriteFile};
use pheon_os::map::ReadMap;
use pheon_os::shared::SharedMap;

use crate::ctrl::Ctrl;

/// Passes calls on. All of a map's files but CTRL and LOCK lie in a folder inside the map's that its uuid names. Paths begin
/// with the map's name, which may be another map's when a thread goes on that was stopped: that map has no such folder, so
/// nothing of it can be meant.
#[derive(Debug)]
pub(crate) struct OwnFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    files: PathBuf,
}

impl OwnFiles {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: &Path, ctrl: &Ctrl) -> Self {
        Self { fs, dir: dir.to_owned(), files: dir.join(folder_name(ctrl)) }
    }

    /// The folder of the files.
    pub(crate) fn folder(&self) -> &Path {
        &self.files
    }

    /// Where a file is; the map's folder itself stays what it is.
    fn at(&self, path: &Path) -> PathBuf {
        match path.file_name() {
            Some(name) if path.parent() == Some(&self.dir) && name != "CTRL" && name != "LOCK" => self.files.join(name),
            _ => path.to_owned(),
        }
    }

    /// The folder that has the files of this one.
    fn list_at(&self, path: &Path) -> PathBuf {
        if path == self.dir { self.files.clone() } else { path.to_owned() }
    }
}

/// The name of the folder inside a map's that has its files.
pub(crate) fn folder_name(ctrl: &Ctrl) -> String {
    format!("{:032x}", u128::from_be_bytes(ctrl.uuid()))
}

impl FileSystem for OwnFiles {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.fs.create_dir(path, mode)
    }

    fn create_group_dir(&self, path: &Path, group: u32) -> io::Result<()> {
        self.fs.create_group_dir(path, group)
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.fs.open_lock(&self.at(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.fs.read_dir(&self.list_at(path))
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        self.fs.metadata(&self.at(path))
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.fs.read(&self.at(path), max_bytes)
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        self.fs.create_new(&self.at(path), mode)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.fs.open_read(&self.at(path))
    }

    fn map(&self, path: &Path) -> io::Result<ReadMap> {
        self.fs.map(&self.at(path))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.link(&self.at(from), &self.at(to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(&self.at(from), &self.at(to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.fs.unlink(&self.at(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_dir_all(path)
    }

    fn create_shared(&self, path: &Path, len: u64, mode: u32) -> io::Result<SharedMap> {
        self.fs.create_shared(&self.at(path), len, mode)
    }

    fn map_shared(&self, path: &Path, writable: bool) -> io::Result<SharedMap> {
        self.fs.map_shared(&self.at(path), writable)
    }

    fn sync_shared(&self, path: &Path, map: &SharedMap) -> io::Result<()> {
        self.fs.sync_shared(&self.at(path), map)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.sync_dir(&self.list_at(path))
    }
}
