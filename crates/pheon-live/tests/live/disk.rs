//! A disk whose power goes: what was synced is there afterwards, and of the rest any sector may be.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pheon_live::Location;
use pheon_os::fs::{DirEntry, FileMeta, FileSystem, ReadFile, WriteFile};
use pheon_os::map::ReadMap;
use pheon_os::shared::SharedMap;

use crate::behaviour::Random;
use crate::scratch::files_dir;

const SECTOR_BYTES: usize = 512;
const BOOT_OFFSET: usize = 32;

/// The folder of the files of one map, which exists, and its CTRL. Passes all calls on, and notes what they make durable.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    inner: Arc<dyn FileSystem>,
    ctrl: PathBuf,
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    meanwhile: Arc<Mutex<Meanwhile>>,
}

/// What happens before the call after so many more.
#[derive(Default)]
struct Meanwhile(Option<(u64, Box<dyn FnOnce() + Send>)>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// Files by a number of their own, since names are used again.
type Names = BTreeMap<String, u64>;

#[derive(Debug)]
struct State {
    /// As the processes see them, and as they are on the disk.
    names: Names,
    durable_names: Names,
    durable: HashMap<u64, Vec<u8>>,
    files: u64,
    random: Random,
    calls_left: Option<u64>,
    image: Option<BTreeMap<String, Vec<u8>>>,
}

impl Disk {
    /// All that is there is on the disk.
    pub(crate) fn of(inner: Arc<dyn FileSystem>, location: &Location, seed: u64) -> Self {
        let (ctrl, dir) = (location.dir().unwrap().join("CTRL"), files_dir(location));
        let (mut names, mut durable) = (Names::new(), HashMap::new());
        let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        for path in files.chain([ctrl.clone()]) {
            let file = names.len() as u64;
            names.insert(name(&path), file);
            durable.insert(file, std::fs::read(path).unwrap());
        }
        let (files, durable_names) = (names.len() as u64, names.clone());
        let random = Random(scrambled(seed));
        let state = State { names, durable_names, durable, files, random, calls_left: None, image: None };
        Self { inner, ctrl, dir, state: Arc::new(Mutex::new(state)), meanwhile: Arc::default() }
    }

    /// The power goes at the `nth` call from now, before it does anything; the processes do not notice.
    pub(crate) fn cut_at(&self, nth: u64) {
        self.state.lock().unwrap().calls_left = Some(nth);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.state.lock().unwrap().image.is_some()
    }

    /// Puts what is on the disk into the map's folder, as after a boot. Unless the power went before, it goes now.
    pub(crate) fn boot(&self) {
        let mut state = self.state.lock().unwrap();
        let image = state.image.take().unwrap_or_else(|| state.lose(&self.dir));
        std::fs::remove_dir_all(&self.dir).unwrap();
        std::fs::create_dir(&self.dir).unwrap();
        for (name, bytes) in image {
            std::fs::write(path_of(&self.dir, &name), bytes).unwrap();
        }
        let ctrl = std::fs::OpenOptions::new().write(true).open(&self.ctrl).unwrap();
        ctrl.write_all_at(&[9; 16], BOOT_OFFSET as u64).unwrap();
    }

    /// Who calls is stopped before its `nth` call from now, and goes on when this is done.
    pub(crate) fn stop_at(&self, nth: u64, meanwhile: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Meanwhile(Some((nth, Box::new(meanwhile))));
    }

    fn enter(&self) {
        let due = {
            let mut meanwhile = self.meanwhile.lock().unwrap();
            if let Some((left, _)) = &mut meanwhile.0 {
                *left -= 1;
            }
            meanwhile.0.take_if(|(left, _)| *left == 0)
        };
        if let Some((_, meanwhile)) = due {
            meanwhile();
        }
        let mut state = self.state.lock().unwrap();
        state.write_back(&self.dir);
        if let Some(left) = &mut state.calls_left {
            *left -= 1;
            if *left == 0 {
                state.calls_left = None;
                state.image = Some(state.lose(&self.dir));
            }
        }
    }
}

impl State {
    /// What the kernel writes back on its own.
    fn write_back(&mut self, dir: &Path) {
        if self.random.below(8) != 0 || self.names.is_empty() {
            return;
        }
        let at = self.random.below(self.names.len() as u64) as usize;
        if let Some((name, file)) = self.names.clone().into_iter().nth(at) {
            let bytes = self.mix(file, Some(&path_of(dir, &name)));
            self.durable.insert(file, bytes);
        }
    }

    /// Of each sector what is on the disk or what should be.
    fn mix(&mut self, file: u64, path: Option<&Path>) -> Vec<u8> {
        let current = path.and_then(|path| std::fs::read(path).ok());
        let mut bytes = self.durable.get(&file).cloned().unwrap_or_default();
        let Some(current) = current else { return bytes };
        bytes.resize(current.len(), 0);
        let differ: Vec<_> = (0..bytes.len().div_ceil(SECTOR_BYTES))
            .map(|sector| sector * SECTOR_BYTES..bytes.len().min((sector + 1) * SECTOR_BYTES))
            .filter(|sector| bytes[sector.clone()] != current[sector.clone()])
            .collect();
        let (kind, at) = (self.random.below(6), self.random.below(differ.len() as u64 + 1) as usize);
        for (i, sector) in differ.into_iter().enumerate() {
            let is_new = match kind {
                0 => true,
                1 => i < at,
                2 => i != at,
                3 => i > at,
                _ => self.random.below(2) == 0,
            };
            if is_new {
                bytes[sector.clone()].copy_from_slice(&current[sector]);
            }
        }
        bytes
    }

    /// What is there after a power cut.
    fn lose(&mut self, dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut image = BTreeMap::new();
        let mut names: Vec<_> = self.names.keys().chain(self.durable_names.keys()).cloned().collect();
        names.sort();
        names.dedup();
        for name in names {
            let (now, before) = (self.names.get(&name).copied(), self.durable_names.get(&name).copied());
            let file = if now == before || self.random.below(2) == 0 { now } else { before };
            let Some(file) = file else { continue };
            let path = path_of(dir, &name);
            let mut bytes = self.mix(file, (now == Some(file)).then_some(&*path));
            if name.starts_with("index-") {
                bytes.fill(0xa5);
            }
            image.insert(name, bytes);
        }
        image
    }
}

/// A start for random numbers that differs in many bits from the next one's.
pub(crate) fn scrambled(seed: u64) -> u64 {
    (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn path_of(dir: &Path, name: &str) -> PathBuf {
    if name == "CTRL" { dir.with_file_name(name) } else { dir.join(name) }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl FileSystem for Disk {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.enter();
        self.inner.create_dir(path, mode)
    }

    fn create_group_dir(&self, path: &Path, group: u32) -> io::Result<()> {
        self.enter();
        self.inner.create_group_dir(path, group)
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        self.enter();
        self.inner.open_lock(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.enter();
        self.inner.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        self.enter();
        self.inner.metadata(path)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.enter();
        self.inner.read(path, max_bytes)
    }

    fn create_new(&self, path: &Path, _mode: u32) -> io::Result<Box<dyn WriteFile>> {
        panic!("no map makes {} so", path.display());
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.enter();
        self.inner.open_read(path)
    }

    fn map(&self, path: &Path) -> io::Result<ReadMap> {
        self.enter();
        self.inner.map(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        panic!("no map links {} to {}", from.display(), to.display());
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter();
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.enter();
        self.inner.unlink(path)?;
        self.state.lock().unwrap().names.remove(&name(path));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.enter();
        self.inner.remove_dir_all(path)
    }

    fn create_shared(&self, path: &Path, len: u64, mode: u32) -> io::Result<SharedMap> {
        self.enter();
        let map = self.inner.create_shared(path, len, mode)?;
        let mut state = self.state.lock().unwrap();
        let file = state.files;
        state.files += 1;
        state.names.insert(name(path), file);
        state.durable.insert(file, vec![0; len as usize]);
        Ok(map)
    }

    fn map_shared(&self, path: &Path, writable: bool) -> io::Result<SharedMap> {
        self.enter();
        self.inner.map_shared(path, writable)
    }

    fn sync_shared(&self, path: &Path, map: &SharedMap) -> io::Result<()> {
        self.enter();
        self.inner.sync_shared(path, map)?;
        let mut state = self.state.lock().unwrap();
        let file = state.names[&name(path)];
        state.durable.insert(file, map.bytes(0, map.len_bytes()).unwrap().to_vec());
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.enter();
        self.inner.sync_dir(path)?;
        if path == self.dir {
            let mut state = self.state.lock().unwrap();
            state.durable_names = state.names.clone();
        }
        Ok(())
    }
}
