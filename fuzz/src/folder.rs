//! A folder that a target damages, and that is whole again for the next input.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Files below a scratch folder, and what they are when nothing is damaged.
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Folder {
    /// A copy of these files and folders of a folder, under TMPDIR, which `make fuzz` removes.
    pub fn copy_of(from: &Path, names: &[&str]) -> Self {
        let mut files = BTreeMap::new();
        for path in names.iter().map(|name| from.join(name)) {
            if path.is_dir() {
                collect(from, &path, &mut files);
            } else {
                files.insert(
                    path.strip_prefix(from).expect("below it").to_owned(),
                    fs::read(&path).expect("read an image"),
                );
            }
        }
        let root = tempfile::Builder::new().prefix("pheon-fuzz-").tempdir().expect("a scratch folder").keep();
        let folder = Self { root, files };
        folder.restore();
        folder
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The sound bytes of a file.
    pub fn sound(&self, name: &Path) -> &[u8] {
        &self.files[name]
    }

    /// The file whose path ends so.
    pub fn find(&self, ending: &str) -> PathBuf {
        let mut found = self.files.keys().filter(|path| path.to_string_lossy().ends_with(ending));
        found.next().unwrap_or_else(|| panic!("no file ends in {ending}")).clone()
    }

    /// The paths of all files.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.files.keys().map(|path| path.to_string_lossy().into_owned())
    }

    /// As it was, with nothing else in it.
    pub fn restore(&self) {
        for entry in fs::read_dir(&self.root).expect("list the scratch folder").flatten() {
            let _ =
                if entry.path().is_dir() { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
        for (name, bytes) in &self.files {
            self.write(name, bytes);
        }
    }

    /// Puts other bytes into a file's place.
    pub fn write(&self, name: &Path, bytes: &[u8]) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("it lies in the scratch folder")).expect("make a folder");
        // Not written over: an earlier input's mapping may be alive.
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).expect("write a scratch file");
    }
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("list an image").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("below the image").to_owned();
            files.insert(name, fs::read(&path).expect("read an image"));
        }
    }
}
