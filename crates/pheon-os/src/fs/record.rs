//! A file system that remembers: for tests of what a power cut may leave.
//!
//! [`RecordFs`] writes down every change below a folder. [`Record::states`] then makes, for the moment after each change,
//! folders as a disk may have them after the power went there: of a file what was synced, and of what was written since
//! any 512 bytes, as they were at any time since; of a folder the names that were synced, and of what was made, linked,
//! renamed or removed since any of it. A rename happens as a whole; nothing else follows from the order of calls. That is less than any file system in use
//! promises, so whatever survives it survives them all.
//!
//! ```
//! use pheon_os::fs::{self, FileSystem, record::{Effort, RecordFs}};
//! # fn main() -> std::io::Result<()> {
//! let root = std::env::temp_dir().join(pheon_os::process::random_id());
//! fs::real().create_dir(&root, 0o700)?;
//! let recording = RecordFs::new(fs::real(), &root)?;
//! let file = recording.create_new(&root.join("a"), 0o600)?;
//! file.write_at(0, b"text")?;
//! file.sync()?;
//! recording.acknowledge();
//! let states: Vec<_> = recording.record()?.states(Effort::default()).collect();
//! // The name was not synced, so it may be lost although the text was.
//! assert!(states.iter().any(|state| state.acknowledged == 1 && state.names().count() == 0));
//! # fs::real().remove_dir_all(&root)
//! # }
//! ```

#![allow(clippy::disallowed_methods, reason = "for tests, which look at files behind the seam")]

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{DirEntry, FileMeta, FileSystem, ReadFile, WriteFile};
use crate::map::ReadMap;
use crate::shared::SharedMap;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// The number of the folder that is recorded.
const ROOT: u64 = 0;
/// So many changes of names that may be lost are tried in all combinations.
const EXHAUSTIVE_MAX: usize = 6;

/// One change. Files and folders go by numbers of their own, since names are used again.
#[derive(Clone, Debug)]
enum Change {
    /// Names that become a file or folder, or nobody's, all at once: folder, name, whose it is from now on.
    Names(Vec<(u64, String, Option<u64>)>),
    Write(u64, u64, Vec<u8>),
    SetLen(u64, u64),
    /// Of a file or a folder.
    Sync(u64),
    Acknowledge,
}

type Names = BTreeMap<String, u64>;

#[derive(Debug, Default)]
struct State {
    changes: Vec<Change>,
    /// What a human calls them.
    texts: Vec<String>,
    /// As the processes see it.
    names: HashMap<u64, Names>,
    next: u64,
    /// Files that are written through mappings, and what is recorded of them so far.
    shared: BTreeMap<u64, (File, Vec<u8>)>,
}

/// Wraps another file system and records what is changed below one folder. Clones share one record.
#[derive(Clone, Debug)]
pub struct RecordFs {
    inner: Arc<dyn FileSystem>,
    root: PathBuf,
    start: Arc<Tree>,
    state: Arc<Mutex<State>>,
}

/// Folders with their names, files with their content.
#[derive(Clone, Debug, Default)]
struct Tree {
    names: HashMap<u64, Names>,
    files: HashMap<u64, Arc<Vec<u8>>>,
}

impl Tree {
    fn read(&mut self, path: &Path, id: u64, next: &mut u64) -> io::Result<()> {
        let mut names = Names::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            *next += 1;
            let child = *next;
            names.insert(entry.file_name().to_string_lossy().into_owned(), child);
            if entry.file_type()?.is_dir() {
                self.read(&entry.path(), child, next)?;
            } else {
                self.files.insert(child, Arc::new(fs::read(entry.path())?));
            }
        }
        self.names.insert(id, names);
        Ok(())
    }
}

impl RecordFs {
    /// Records what is changed below `root`, a folder whose content counts as being on the disk.
    pub fn new(inner: Arc<dyn FileSystem>, root: &Path) -> io::Result<Self> {
        let mut start = Tree::default();
        let mut next = ROOT;
        start.read(root, ROOT, &mut next)?;
        let state = State { names: start.names.clone(), next, ..State::default() };
        Ok(Self { inner, root: root.to_owned(), start: Arc::new(start), state: Arc::new(Mutex::new(state)) })
    }

    /// Notes that the caller was told that something is done.
    pub fn acknowledge(&self) {
        let mut state = self.enter();
        state.push("acknowledged".to_owned(), Change::Acknowledge);
    }

    /// All changes so far.
    pub fn record(&self) -> io::Result<Record> {
        let state = self.enter();
        let folders = Arc::new(state.names.keys().copied().collect());
        Ok(Record { start: self.start.clone(), folders, changes: state.changes.clone(), texts: state.texts.clone() })
    }

    /// The state, with what was written through mappings meanwhile.
    fn enter(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.note_mappings();
        state
    }

    /// Folder and name of a path that is recorded; `None` for the folder itself and for paths elsewhere.
    fn place(&self, state: &State, path: &Path) -> Option<(u64, String)> {
        let relative = path.strip_prefix(&self.root).ok()?;
        let name = relative.file_name()?.to_str()?.to_owned();
        let folder = state.find(relative.parent()?)?;
        Some((folder, name))
    }

    fn id(&self, state: &State, path: &Path) -> Option<u64> {
        state.find(path.strip_prefix(&self.root).ok()?)
    }

    fn text(&self, what: &str, path: &Path) -> String {
        format!("{what} {}", path.strip_prefix(&self.root).unwrap_or(path).display())
    }

    /// A new file or folder got this name.
    fn made(&self, state: &mut State, what: &str, path: &Path, is_dir: bool) -> Option<u64> {
        let (folder, name) = self.place(state, path)?;
        state.next += 1;
        let id = state.next;
        if is_dir {
            state.names.insert(id, Names::new());
        }
        state.rename(self.text(what, path), vec![(folder, name, Some(id))]);
        Some(id)
    }

    /// From now on what is written to the file through mappings is looked for.
    fn watch(&self, state: &mut State, id: u64, path: &Path) -> io::Result<()> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = state.shared.entry(id) {
            let file = File::open(path)?;
            let known = self.start.files.get(&id).map_or_else(Vec::new, |bytes| bytes.to_vec());
            vacant.insert((file, known));
        }
        Ok(())
    }
}

impl State {
    fn find(&self, relative: &Path) -> Option<u64> {
        relative.iter().try_fold(ROOT, |folder, name| self.names.get(&folder)?.get(name.to_str()?).copied())
    }

    fn push(&mut self, text: String, change: Change) {
        self.texts.push(text);
        self.changes.push(change);
    }

    fn rename(&mut self, text: String, names: Vec<(u64, String, Option<u64>)>) {
        for (folder, name, id) in &names {
            apply(&mut self.names, *folder, name, *id);
        }
        self.push(text, Change::Names(names));
    }

    fn note_mappings(&mut self) {
        let mut found: Vec<(u64, usize, Vec<u8>)> = Vec::new();
        for (&id, (file, known)) in &mut self.shared {
            let len = file.metadata().map_or(0, |meta| meta.len());
            let mut bytes = vec![0; len as usize];
            // A file that cannot be read any more has nothing to say.
            if file.read_exact_at(&mut bytes, 0).is_err() {
                continue;
            }
            known.resize(bytes.len(), 0);
            for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate().map(|(i, sector)| (i * SECTOR_BYTES, sector)) {
                if known[at..at + sector.len()] != *sector {
                    known[at..at + sector.len()].copy_from_slice(sector);
                    match found.last_mut() {
                        Some((last, from, bytes)) if *last == id && *from + bytes.len() == at => bytes.extend(sector),
                        _ => found.push((id, at, sector.to_vec())),
                    }
                }
            }
        }
        for (id, at, bytes) in found {
            self.push(
                format!("write {} bytes at {at} of file {id} through a mapping", bytes.len()),
                Change::Write(id, at as u64, bytes),
            );
        }
    }

    /// Removes all names in a folder, those of its folders first.
    fn empty(&mut self, text: &str, folder: u64) {
        for (name, id) in self.names.get(&folder).cloned().unwrap_or_default() {
            if self.names.contains_key(&id) {
                self.empty(&format!("{text}/{name}"), id);
            }
            self.rename(format!("{text}/{name}"), vec![(folder, name, None)]);
        }
    }
}

fn apply(names: &mut HashMap<u64, Names>, folder: u64, name: &str, id: Option<u64>) {
    let folder = names.entry(folder).or_default();
    match id {
        Some(id) => folder.insert(name.to_owned(), id),
        None => folder.remove(name),
    };
}

impl FileSystem for RecordFs {
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.create_dir(path, mode)?;
        self.made(&mut state, "mkdir", path, true);
        Ok(())
    }

    fn create_group_dir(&self, path: &Path, group: u32) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.create_group_dir(path, group)?;
        self.made(&mut state, "mkdir", path, true);
        Ok(())
    }

    fn open_lock(&self, path: &Path) -> io::Result<File> {
        let mut state = self.enter();
        let file = self.inner.open_lock(path)?;
        if self.id(&state, path).is_none() {
            self.made(&mut state, "create", path, false);
        }
        Ok(file)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<FileMeta> {
        self.inner.metadata(path)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.inner.read(path, max_bytes)
    }

    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.enter();
        let inner = self.inner.create_new(path, mode)?;
        Ok(match self.made(&mut state, "create", path, false) {
            Some(id) => Box::new(RecordFile { inner, id, path: path.to_owned(), fs: self.clone() }),
            None => inner,
        })
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.inner.open_read(path)
    }

    fn map(&self, path: &Path) -> io::Result<ReadMap> {
        self.inner.map(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.link(from, to)?;
        if let (Some(id), Some((folder, name))) = (self.id(&state, from), self.place(&state, to)) {
            state.rename(self.text("link to", to), vec![(folder, name, Some(id))]);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.rename(from, to)?;
        let (id, old, new) = (self.id(&state, from), self.place(&state, from), self.place(&state, to));
        if let (Some(id), Some((old, old_name)), Some((folder, name))) = (id, old, new) {
            state.rename(self.text("rename to", to), vec![(old, old_name, None), (folder, name, Some(id))]);
        }
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.unlink(path)?;
        if let Some((folder, name)) = self.place(&state, path) {
            state.rename(self.text("unlink", path), vec![(folder, name, None)]);
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.remove_dir_all(path)?;
        if let (Some(id), Some((folder, name))) = (self.id(&state, path), self.place(&state, path)) {
            let text = self.text("remove", path);
            state.empty(&text, id);
            state.rename(text, vec![(folder, name, None)]);
        }
        Ok(())
    }

    fn create_shared(&self, path: &Path, len: u64, mode: u32) -> io::Result<SharedMap> {
        let mut state = self.enter();
        let map = self.inner.create_shared(path, len, mode)?;
        if let Some(id) = self.made(&mut state, "create", path, false) {
            state.push(self.text("reserve", path), Change::SetLen(id, len));
            self.watch(&mut state, id, path)?;
        }
        Ok(map)
    }

    fn map_shared(&self, path: &Path, writable: bool) -> io::Result<SharedMap> {
        let mut state = self.enter();
        let map = self.inner.map_shared(path, writable)?;
        if let Some(id) = self.id(&state, path) {
            self.watch(&mut state, id, path)?;
        }
        Ok(map)
    }

    fn sync_shared(&self, path: &Path, map: &SharedMap) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.sync_shared(path, map)?;
        if let Some(id) = self.id(&state, path) {
            state.push(self.text("sync", path), Change::Sync(id));
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter();
        self.inner.sync_dir(path)?;
        if let Some(id) = self.id(&state, path) {
            state.push(self.text("sync the folder", path), Change::Sync(id));
        }
        Ok(())
    }
}

struct RecordFile {
    inner: Box<dyn WriteFile>,
    id: u64,
    path: PathBuf,
    fs: RecordFs,
}

impl WriteFile for RecordFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.fs.enter();
        self.inner.write_at(offset, bytes)?;
        let text = format!("{} ({} bytes at {offset})", self.fs.text("write", &self.path), bytes.len());
        state.push(text, Change::Write(self.id, offset, bytes.to_vec()));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.fs.enter();
        self.inner.set_len(len)?;
        state.push(self.fs.text("truncate", &self.path), Change::SetLen(self.id, len));
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.inner.set_mode(mode)
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        self.inner.start_writeback(offset, len);
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.fs.enter();
        self.inner.sync()?;
        state.push(self.fs.text("sync", &self.path), Change::Sync(self.id));
        Ok(())
    }
}

/// How many states are made.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// For each moment at most so many: all lost and all kept first; then all combinations of a few names, or each one alone
    /// and each one missing of many; then random ones.
    pub states_max: usize,
    /// Decides about the random ones.
    pub seed: u64,
}

impl Effort {
    /// For a test: so many states at each moment, or `long_states` of them where `PHEON_LONG` is set. The dice are those of
    /// `PHEON_SEED`; else always the same, or new ones for a long test.
    ///
    /// # Panics
    /// If `PHEON_SEED` is no number.
    pub fn of_test(quick_states: usize, long_states: usize) -> Self {
        let given = std::env::var("PHEON_SEED").ok().map(|seed| seed.parse().expect("PHEON_SEED is a number"));
        let is_long = std::env::var_os("PHEON_LONG").is_some();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let seed = given.unwrap_or_else(|| if is_long { now() } else { 1 });
        Self { states_max: if is_long { long_states } else { quick_states }, seed }
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self { states_max: 64, seed: 1 }
    }
}

/// Changes in their order.
#[derive(Clone, Debug)]
pub struct Record {
    start: Arc<Tree>,
    folders: Arc<HashSet<u64>>,
    changes: Vec<Change>,
    texts: Vec<String>,
}

/// What a disk may have after a power cut.
#[derive(Clone, Debug)]
pub struct CutState {
    /// How many changes came before the power went.
    pub after_changes: usize,
    /// How many things the caller had been told were done.
    pub acknowledged: usize,
    /// `None`: a folder.
    tree: BTreeMap<PathBuf, Option<Arc<Vec<u8>>>>,
}

impl CutState {
    /// Makes the folder `dir` be so.
    pub fn write_to(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir(dir)?,
        }
        for (path, content) in &self.tree {
            match content {
                Some(bytes) => fs::write(dir.join(path), bytes.as_slice())?,
                None => fs::create_dir(dir.join(path))?,
            }
        }
        Ok(())
    }

    /// All files and folders.
    pub fn names(&self) -> impl Iterator<Item = &Path> {
        self.tree.keys().map(PathBuf::as_path)
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.acknowledged, &self.tree).hash(&mut hasher);
        hasher.finish()
    }
}

impl Record {
    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in words.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Which changes are syncs, of files and of folders.
    pub fn syncs(&self) -> Vec<usize> {
        (0..self.len()).filter(|&at| matches!(self.changes[at], Change::Sync(_))).collect()
    }

    /// The same changes on a disk that ignored some of them: for a test that the syncs there are needed, and their lack noticed.
    #[must_use]
    pub fn without(&self, ignored: &[usize]) -> Record {
        let kept = || (0..self.len()).filter(|at| !ignored.contains(at));
        Record {
            changes: kept().map(|at| self.changes[at].clone()).collect(),
            texts: kept().map(|at| self.texts[at].clone()).collect(),
            ..self.clone()
        }
    }

    /// Which changes are said to be the same as this one: further syncs of a file or folder.
    pub fn same_as(&self, at: usize) -> Vec<usize> {
        (0..self.len()).filter(|&other| self.texts[other] == self.texts[at]).collect()
    }

    /// Different states after each change in turn.
    pub fn states(&self, effort: Effort) -> impl Iterator<Item = CutState> {
        self.states_at(effort, |_| true)
    }

    /// Different states after some numbers of changes.
    pub fn states_at(&self, effort: Effort, is_wanted: impl Fn(usize) -> bool) -> impl Iterator<Item = CutState> {
        let mut seen = HashSet::new();
        (0..=self.len())
            .filter(move |&after| is_wanted(after))
            .flat_map(move |after| self.states_after(after, effort))
            .filter(move |state| seen.insert(state.fingerprint()))
    }

    fn states_after(&self, after: usize, effort: Effort) -> Vec<CutState> {
        let disk = Disk::after(self, after);
        let mut random = Random(effort.seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ after as u64);
        let mut states = Vec::new();
        let mut add = |kept: &dyn Fn(usize) -> bool, data: Data, random: &mut Random| {
            if states.len() < effort.states_max {
                states.push(CutState {
                    after_changes: after,
                    acknowledged: disk.acknowledged,
                    tree: disk.tree(kept, data, random),
                });
            }
        };
        let names = disk.names.len();
        // Where few are made, which of these come is left to the dice.
        let offset = random.below(1 << EXHAUSTIVE_MAX) as usize;
        for data in [Data::All, Data::Synced] {
            add(&|_| true, data, &mut random);
            add(&|_| false, data, &mut random);
        }
        if names <= EXHAUSTIVE_MAX {
            for set in (0..1usize << names).map(|set| (set + offset) % (1 << names)) {
                add(&|i| set >> i & 1 == 1, Data::Any, &mut random);
            }
        } else {
            for chosen in (0..names).map(|chosen| (chosen + offset) % names) {
                add(&|i| i != chosen, Data::Any, &mut random);
                add(&|i| i == chosen, Data::Any, &mut random);
                add(&|i| i < chosen, Data::Any, &mut random);
            }
        }
        if names > 0 || !disk.pending.is_empty() {
            while states.len() < effort.states_max {
                let set: Vec<bool> = (0..names).map(|_| random.below(2) == 0).collect();
                states.push(CutState {
                    after_changes: after,
                    acknowledged: disk.acknowledged,
                    tree: disk.tree(&|i| set[i], Data::Any, &mut random),
                });
            }
        }
        states
    }
}

/// What becomes of bytes that were written and not synced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    All,
    Synced,
    Any,
}

/// What is on the disk for sure, and what may be.
struct Disk<'a> {
    folders: &'a HashSet<u64>,
    synced: Tree,
    /// Names that came or went since their folder was synced.
    names: Vec<&'a [(u64, String, Option<u64>)]>,
    /// Changes of a file's content since it was synced.
    pending: BTreeMap<u64, Vec<&'a Change>>,
    acknowledged: usize,
}

impl<'a> Disk<'a> {
    fn after(record: &'a Record, after: usize) -> Self {
        let synced = Tree::clone(&record.start);
        let mut disk =
            Disk { folders: &record.folders, synced, names: Vec::new(), pending: BTreeMap::new(), acknowledged: 0 };
        for change in &record.changes[..after] {
            match change {
                Change::Names(names) => disk.names.push(names),
                Change::Write(id, ..) | Change::SetLen(id, _) => disk.pending.entry(*id).or_default().push(change),
                Change::Sync(id) => {
                    let written = disk.pending.remove(id).unwrap_or_default();
                    if !written.is_empty() {
                        let content = disk.content(*id, &written);
                        disk.synced.files.insert(*id, Arc::new(content));
                    }
                    // A rename between two folders is on the disk when one of them is synced: it is one change.
                    let (synced, names) =
                        disk.names.into_iter().partition(|names| names.iter().any(|(folder, ..)| folder == id));
                    disk.names = names;
                    let synced: Vec<&[(u64, String, Option<u64>)]> = synced;
                    for (folder, name, id) in synced.into_iter().flatten() {
                        apply(&mut disk.synced.names, *folder, name, *id);
                    }
                }
                Change::Acknowledge => disk.acknowledged += 1,
            }
        }
        disk
    }

    /// A file's content with these changes.
    fn content(&self, id: u64, changes: &[&Change]) -> Vec<u8> {
        let mut bytes = self.synced.files.get(&id).map_or_else(Vec::new, |bytes| bytes.to_vec());
        for change in changes {
            match change {
                Change::SetLen(_, len) => bytes.resize(*len as usize, 0),
                Change::Write(_, offset, written) => {
                    let end = *offset as usize + written.len();
                    bytes.resize(bytes.len().max(end), 0);
                    bytes[*offset as usize..end].copy_from_slice(written);
                }
                _ => {}
            }
        }
        bytes
    }

    /// A file's content after the cut.
    fn content_after(&self, id: u64, data: Data, random: &mut Random) -> Arc<Vec<u8>> {
        let synced = || self.synced.files.get(&id).cloned().unwrap_or_default();
        let Some(changes) = self.pending.get(&id) else { return synced() };
        match data {
            Data::Synced => synced(),
            Data::All => Arc::new(self.content(id, changes)),
            Data::Any => {
                let before = synced();
                if random.below(3) == 0
                    && let Some(mixed) = self.mixed(&before, changes, random)
                {
                    return Arc::new(mixed);
                }
                // Of some sectors an earlier content may have been written back.
                let count =
                    if random.below(2) == 0 { changes.len() } else { random.below(changes.len() as u64 + 1) as usize };
                let mut bytes = self.content(id, &changes[..count]);
                let sectors = bytes.len().div_ceil(SECTOR_BYTES) as u64;
                let (kind, chosen) = (random.below(7), random.below(sectors + 1) as usize);
                for (i, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
                    let is_lost = match kind {
                        0 => false,
                        1 => true,
                        2 => i >= chosen,
                        3 => i < chosen,
                        4 => i == chosen,
                        5 => i != chosen,
                        _ => random.below(2) == 0,
                    };
                    if is_lost {
                        let at = (i * SECTOR_BYTES).min(before.len());
                        let old = &before[at..(at + sector.len()).min(before.len())];
                        sector[..old.len()].copy_from_slice(old);
                        sector[old.len()..].fill(0);
                    }
                }
                // The length is a fact of its own.
                if random.below(4) == 0 && bytes.len() > before.len() {
                    bytes.truncate(before.len() + random.below((bytes.len() - before.len()) as u64) as usize);
                }
                Arc::new(bytes)
            }
        }
    }

    /// A file's content when each sector was written back at a moment of its own, the last one most often. `None` if its
    /// length was set meanwhile.
    fn mixed(&self, before: &[u8], changes: &[&Change], random: &mut Random) -> Option<Vec<u8>> {
        let mut writes = Vec::with_capacity(changes.len());
        for change in changes {
            let Change::Write(_, offset, written) = change else { return None };
            writes.push((*offset as usize, written));
        }
        let mut bytes = before.to_vec();
        let len = writes.iter().map(|(offset, written)| offset + written.len()).max()?.max(bytes.len());
        bytes.resize(len, 0);
        let moments: Vec<usize> = (0..len.div_ceil(SECTOR_BYTES))
            .map(|_| match random.below(2) {
                0 => writes.len(),
                _ => random.below(writes.len() as u64 + 1) as usize,
            })
            .collect();
        for (i, (offset, written)) in writes.into_iter().enumerate() {
            for (sector, _) in moments.iter().enumerate().filter(|(_, moment)| **moment > i) {
                let (from, to) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
                let (from, to) = (from.max(offset), to.min(offset + written.len()));
                if from < to {
                    bytes[from..to].copy_from_slice(&written[from - offset..to - offset]);
                }
            }
        }
        Some(bytes)
    }

    fn tree(
        &self,
        kept: &dyn Fn(usize) -> bool,
        data: Data,
        random: &mut Random,
    ) -> BTreeMap<PathBuf, Option<Arc<Vec<u8>>>> {
        let mut names = self.synced.names.clone();
        for (_, changes) in self.names.iter().enumerate().filter(|(i, _)| kept(*i)) {
            for (folder, name, id) in *changes {
                apply(&mut names, *folder, name, *id);
            }
        }
        let mut tree = BTreeMap::new();
        let mut contents = HashMap::new();
        let mut folders = vec![(ROOT, PathBuf::new())];
        while let Some((folder, path)) = folders.pop() {
            for (name, &id) in names.get(&folder).into_iter().flatten() {
                let path = path.join(name);
                let content = if self.folders.contains(&id) {
                    folders.push((id, path.clone()));
                    None
                } else {
                    let content = contents.entry(id).or_insert_with(|| self.content_after(id, data, random));
                    Some(content.clone())
                };
                tree.insert(path, content);
            }
        }
        tree
    }
}

struct Random(u64);

impl Random {
    /// A number below `n`: xorshift64*.
    fn below(&mut self, n: u64) -> u64 {
        self.0 |= u64::from(self.0 == 0);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % n.max(1)
    }
}
