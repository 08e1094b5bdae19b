//! Where maps are: making, opening, finding and removing them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pheon_os::fs::FileSystem;
use pheon_os::lock::{FileLock, LockError};
use pheon_os::robust::Attempt;
use pheon_os::{process, shm};

use crate::chunk::Chunk;
use crate::ctrl::{Block, Ctrl};
use crate::error::LiveError;
use crate::index::{Index, SLOTS_MIN_LOG2};
use crate::layout::{Address, FILE_HEAD_BYTES};
use crate::map::{Change, LiveMap};
use crate::options::LiveOptions;
use crate::own::{self, OwnFiles};
use crate::recover;
use crate::shared::{self, Shared};
use crate::sync;
use crate::view::View;
use crate::write::CHUNK_BYTES_MIN;

/// Where the live maps of a store are, inside it.
const STORE_FOLDER: &str = ".live";
/// What the name of a folder that is being made or removed has where a map's has its name. No map's name begins so.
const TEMPORARY: &str = ".tmp-";
/// How often making a map starts again because another process took its unfinished folder for a leftover.
const ATTEMPTS_MAX: u32 = 16;
const DIR_MODE: u32 = 0o777;
/// How long to wait for a process that rebuilds a map after a boot.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long unlinking waits for a writer, which may be stopped or hold the lock for long.
const UNLINK_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a live map is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// In memory, for this user or for a group.
    Memory {
        /// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
        name: String,
        /// The id of a group all of whose members may use it; `None`: this user only.
        group: Option<u32>,
    },
    /// In a store's folder.
    Store {
        /// The store's folder.
        path: PathBuf,
        /// As above.
        name: String,
    },
}

impl Location {
    /// The map's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Memory { name, .. } | Self::Store { name, .. } => name,
        }
    }

    /// The map's folder, whether it exists or not.
    ///
    /// # Errors
    /// [`LiveError::Options`] for a name that is not allowed.
    pub fn dir(&self) -> Result<PathBuf, LiveError> {
        let group = match self {
            Self::Memory { group, .. } => *group,
            Self::Store { .. } => None,
        };
        let in_memory = shm::live_dir(self.name(), group)
            .map_err(|e| LiveError::Options { problem: e.to_string().replace("shared-memory store", "live map's") })?;
        Ok(match self {
            Self::Memory { .. } => in_memory,
            Self::Store { path, name } => path.join(STORE_FOLDER).join(name),
        })
    }

    /// A file that every process which has the map attached maps: who maps it tells who has the map.
    ///
    /// # Errors
    /// As [`dir`](Self::dir).
    pub fn attached_file(&self) -> Result<PathBuf, LiveError> {
        Ok(Ctrl::path_in(&self.dir()?))
    }

    /// Whether there is something of this name, be it a map that can be opened or not.
    ///
    /// # Errors
    /// As [`dir`](Self::dir), and when the folder cannot be examined.
    pub fn exists(&self) -> Result<bool, LiveError> {
        exists(&*pheon_os::fs::real(), &self.dir()?)
    }

    fn is_in_store(&self) -> bool {
        matches!(self, Self::Store { .. })
    }

    /// The folder that the map's folder is in, and what the names in it begin with.
    fn parent(&self) -> (PathBuf, String) {
        match self {
            Self::Memory { group, .. } => (shm::live_root().to_owned(), shm::live_prefix(*group)),
            Self::Store { path, .. } => (path.join(STORE_FOLDER), String::new()),
        }
    }

    /// A name for a folder that is no map yet, or no longer.
    fn temporary(&self) -> PathBuf {
        let (parent, prefix) = self.parent();
        parent.join(format!("{prefix}{TEMPORARY}{}", process::random_id()))
    }

    fn check(&self, fs: &dyn FileSystem, dir: &Path) -> Result<(), LiveError> {
        let Self::Memory { group, .. } = self else { return Ok(()) };
        shm::check_live_dir(fs, dir, *group).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => LiveError::NotFound { path: dir.to_owned() },
            _ => LiveError::io("open", dir, e),
        })
    }
}

/// Where maps are in memory or in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This user's, or a group's, maps in memory.
    Memory {
        /// The group's id.
        group: Option<u32>,
    },
    /// The maps of a store.
    Store {
        /// The store's folder.
        path: PathBuf,
    },
}

impl Place {
    /// A map here.
    pub fn location(&self, name: &str) -> Location {
        let name = name.to_owned();
        match self {
            Self::Memory { group } => Location::Memory { name, group: *group },
            Self::Store { path } => Location::Store { path: path.clone(), name },
        }
    }

    /// The maps here, ascending by name, whether they can be opened or not.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<Location>, LiveError> {
        let (parent, prefix) = self.location("any").parent();
        let entries = match pheon_os::fs::real().read_dir(&parent) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(LiveError::io("list", &parent, e)),
        };
        let names = entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.strip_prefix(&prefix));
        let mut found: Vec<_> =
            names.map(|name| self.location(name)).filter(|location| location.dir().is_ok()).collect();
        found.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        Ok(found)
    }
}

impl LiveMap {
    /// Makes a new map.
    ///
    /// # Errors
    /// [`LiveError::Exists`] if there is one of this name; [`LiveError::Options`], [`LiveError::Full`];
    /// [`LiveError::Corrupt`] if something else has its place.
    pub fn create(location: &Location, options: &LiveOptions) -> Result<Self, LiveError> {
        Self::create_filled(location, options, std::iter::empty())
    }

    /// [`create`](Self::create) with changes that are made, in one transaction, before the name appears: nobody sees the map
    /// without them, and if they fail there is no map. They may be asked for several times.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) and [`apply`](Self::apply).
    pub fn create_filled<'c>(
        location: &Location,
        options: &LiveOptions,
        changes: impl Iterator<Item = Change<'c>> + Clone,
    ) -> Result<Self, LiveError> {
        Self::create_at(&pheon_os::fs::real(), location, options, changes)
    }

    /// [`LiveMap::create`] on another file system: one that injects faults, in tests.
    #[doc(hidden)]
    pub fn create_with(fs: Arc<dyn FileSystem>, location: &Location, options: &LiveOptions) -> Result<Self, LiveError> {
        Self::create_at(&fs, location, options, std::iter::empty())
    }

    fn create_at<'c>(
        fs: &Arc<dyn FileSystem>,
        location: &Location,
        options: &LiveOptions,
        changes: impl Iterator<Item = Change<'c>> + Clone,
    ) -> Result<Self, LiveError> {
        let dir = location.dir()?;
        if options.durable && !location.is_in_store() {
            let problem = "a live map in memory cannot be durable; open one in a store".to_owned();
            return Err(LiveError::Options { problem });
        }
        if exists(&**fs, &dir)? && !finish_unlinking(&**fs, location)? {
            return Err(LiveError::Exists { path: dir });
        }
        remove_leftovers(&**fs, location);
        let mut attempts = 1;
        loop {
            let temporary = location.temporary();
            let made = build(fs, location, &temporary, options, changes.clone()).and_then(|lock| {
                let renamed = fs.rename(&temporary, &dir);
                drop(lock);
                renamed.map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                        LiveError::Exists { path: dir.clone() }
                    }
                    _ => LiveError::io("rename", &temporary, e),
                })
            });
            match made {
                Ok(()) => {
                    if location.is_in_store() {
                        let (parent, _) = location.parent();
                        fs.sync_dir(&parent).map_err(|e| LiveError::io("sync", &parent, e))?;
                    }
                    return Self::attach_with(fs.clone(), location, true);
                }
                Err(error) => {
                    let _ = fs.remove_dir_all(&temporary);
                    let error = error.of_map(&temporary, &dir);
                    let removed =
                        matches!(&error, LiveError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
                    if !removed || attempts == ATTEMPTS_MAX {
                        return Err(error);
                    }
                    attempts += 1;
                }
            }
        }
    }

    /// Opens a map that exists. One whose machine was booted since is rebuilt from its log, which reads all of it.
    ///
    /// # Errors
    /// [`LiveError::NotFound`]; [`LiveError::Corrupt`] for a map of another version or C library.
    pub fn attach(location: &Location, writable: bool) -> Result<Self, LiveError> {
        Self::attach_with(pheon_os::fs::real(), location, writable)
    }

    /// [`LiveMap::attach`] on another file system.
    #[doc(hidden)]
    pub fn attach_with(fs: Arc<dyn FileSystem>, location: &Location, writable: bool) -> Result<Self, LiveError> {
        let dir = location.dir()?;
        location.check(&*fs, &dir)?;
        let path = Ctrl::path_in(&dir);
        let meta = fs.metadata(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LiveError::NotFound { path: dir.clone() },
            _ => LiveError::io("examine", &path, e),
        })?;
        let open = || {
            let ctrl = Ctrl::open(&*fs, &dir, writable)?;
            // Unlinked since it was examined; the name may be another map's already.
            let gone = || LiveError::NotFound { path: dir.clone() };
            if ctrl.is_unlinked() || !is_at(&*fs, &path, (meta.dev, meta.ino))? {
                return Err(gone());
            }
            let boot = process::boot_id().map_err(|e| LiveError::io("read the boot's id for", &dir, e))?;
            let mode = meta.mode & 0o666;
            let own = Arc::new(OwnFiles::new(fs.clone(), &dir, &ctrl));
            if ctrl.boot() != boot {
                if !writable {
                    let problem =
                        "it is of an earlier boot of this machine; open it for writing once, which rebuilds it";
                    return Err(LiveError::corrupt(&path, problem));
                }
                let lock = FileLock::acquire(&*fs, &dir.join("LOCK"), Some(RECOVERY_WAIT_MAX), &|| false)
                    .map_err(|e| not_locked(&dir, io::ErrorKind::Other, e))?;
                if ctrl.boot() != boot {
                    recover::recover(&*own, &dir, &ctrl, mode, boot)?;
                }
                drop(lock);
            }
            let view = loop {
                let number = ctrl.view();
                match View::open(&*own, &dir, number, None, writable) {
                    Err(LiveError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        if ctrl.is_unlinked() {
                            return Err(gone());
                        }
                        if ctrl.view() == number {
                            return Err(LiveError::corrupt(&dir, format!("view {number} or a file of it is missing")));
                        }
                    }
                    _ if ctrl.is_unlinked() => return Err(gone()),
                    other => break other?,
                }
            };
            Ok(Shared::new(own, dir.clone(), ctrl, view, writable, mode))
        };
        let shared = shared::known((meta.dev, meta.ino), writable, open)?;
        Ok(Self::of(shared, location.clone()))
    }

    /// Opens a map, making it if it is not there. Any number of processes may do so at once: they get the same map.
    /// `options` are those of a new map; one that exists keeps its own.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`attach`](Self::attach).
    pub fn open(location: &Location, options: &LiveOptions) -> Result<Self, LiveError> {
        Ok(Self::open_filled(location, options, std::iter::empty())?.0)
    }

    /// [`open`](Self::open) that makes changes if it makes the map, as [`create_filled`](Self::create_filled) does; and whether
    /// it made it.
    ///
    /// # Errors
    /// As [`create_filled`](Self::create_filled) and [`attach`](Self::attach).
    pub fn open_filled<'c>(
        location: &Location,
        options: &LiveOptions,
        changes: impl Iterator<Item = Change<'c>> + Clone,
    ) -> Result<(Self, bool), LiveError> {
        loop {
            match Self::attach(location, true) {
                Err(LiveError::NotFound { .. }) => {}
                other => return Ok((other?, false)),
            }
            match Self::create_filled(location, options, changes.clone()) {
                // Made, or unlinked again, by another process at the same time.
                Err(LiveError::Exists { .. } | LiveError::NotFound { .. }) => {}
                other => return Ok((other?, true)),
            }
        }
    }

    /// Removes the map's name, so that a new one may be made. Who has it open can go on reading what it has mapped, not
    /// writing. Waits a second at most for a writer.
    ///
    /// # Errors
    /// [`LiveError::NotFound`] if it is gone already.
    pub fn unlink(&self) -> Result<(), LiveError> {
        if !self.shared.writable {
            return Err(LiveError::ReadOnly { path: self.shared.dir.clone() });
        }
        let shared = &self.shared;
        let held = shared.acquire(Some(UNLINK_WAIT_MAX), &|| false)?;
        let meta = shared.fs.metadata(shared.ctrl.path());
        let done = if shared.ctrl.set_unlinked() {
            // It was not unlinked before, so the name was this map's when CTRL was looked at.
            let id = meta.ok().map(|meta| (meta.dev, meta.ino));
            let removed = match id.map_or(Ok(true), |id| is_at(&*shared.fs, shared.ctrl.path(), id)) {
                Ok(true) => remove_dir(&*shared.fs, &self.location, Some(&shared.ctrl), id),
                // This thread was stopped for long, and another one did its work. If it is stopped later, `remove_dir` notices.
                Ok(false) => Err(LiveError::NotFound { path: shared.dir.clone() }),
                Err(error) => Err(error),
            };
            removed.inspect_err(|error| {
                // Else somebody else removed it.
                if !matches!(error, LiveError::NotFound { .. }) {
                    shared.ctrl.set_linked();
                    if shared.ctrl.in_store() {
                        // Else a power cut might find the state that was taken back.
                        let _ = shared.fs.sync_shared(shared.ctrl.path(), shared.ctrl.map());
                    }
                }
            })
        } else {
            // By somebody else; another map may have got the name.
            Err(LiveError::NotFound { path: shared.dir.clone() })
        };
        if held {
            shared.release()?;
        }
        done
    }

    /// [`unlink`](Self::unlink) by name, also of a map that cannot be opened.
    ///
    /// # Errors
    /// [`LiveError::NotFound`].
    pub fn remove(location: &Location) -> Result<(), LiveError> {
        Self::remove_with(pheon_os::fs::real(), location)
    }

    /// [`LiveMap::remove`] on another file system.
    #[doc(hidden)]
    pub fn remove_with(fs: Arc<dyn FileSystem>, location: &Location) -> Result<(), LiveError> {
        let dir = location.dir()?;
        if !exists(&*fs, &dir)? {
            return Err(LiveError::NotFound { path: dir });
        }
        location.check(&*fs, &dir)?;
        if matches!(finish_unlinking(&*fs, location), Ok(true)) {
            return Err(LiveError::NotFound { path: dir });
        }
        let Some(ctrl) = Ctrl::open(&*fs, &dir, true).ok() else { return remove_dir(&*fs, location, None, None) };
        // Else nobody uses it, unless somebody is about to rebuild it.
        let held = match is_of_this_boot(&ctrl) {
            true => None,
            false => match FileLock::acquire(&*fs, &dir.join("LOCK"), Some(UNLINK_WAIT_MAX), &|| false) {
                Err(error @ LockError::Timeout { .. }) => {
                    return Err(not_locked(&dir, io::ErrorKind::ResourceBusy, error));
                }
                taken => taken.ok(),
            },
        };
        if is_of_this_boot(&ctrl) {
            match Self::attach_with(fs.clone(), location, true) {
                Ok(map) => return map.unlink(),
                Err(error @ LiveError::NotFound { .. }) => return Err(error),
                // Others may have opened it.
                Err(_) => {}
            }
        }
        let told = ctrl.set_unlinked();
        let removed = remove_dir(&*fs, location, Some(&ctrl), None);
        if told && removed.as_ref().is_err_and(|error| !matches!(error, LiveError::NotFound { .. })) {
            ctrl.set_linked();
            if location.is_in_store() {
                // As in `unlink`.
                let _ = fs.sync_shared(ctrl.path(), ctrl.map());
            }
        }
        drop(held);
        removed
    }
}

fn is_of_this_boot(ctrl: &Ctrl) -> bool {
    process::boot_id().is_ok_and(|boot| ctrl.boot() == boot)
}

/// Whether a path names this file.
fn is_at(fs: &dyn FileSystem, path: &Path, id: (u64, u64)) -> Result<bool, LiveError> {
    Ok(found_at(fs, path)? == Some(id))
}

/// Which file a path names, if any.
fn found_at(fs: &dyn FileSystem, path: &Path) -> Result<Option<(u64, u64)>, LiveError> {
    match fs.metadata(path) {
        Ok(meta) => Ok(Some((meta.dev, meta.ino))),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(LiveError::io("examine", path, e)),
    }
}

/// Removes the folder of a map that is being unlinked by somebody, who may have been killed. Whether the name is free.
fn finish_unlinking(fs: &dyn FileSystem, location: &Location) -> Result<bool, LiveError> {
    let dir = location.dir()?;
    location.check(fs, &dir)?;
    let path = Ctrl::path_in(&dir);
    let folder = found_at(fs, &dir)?;
    let Some(id) = found_at(fs, &path)? else {
        // The name comes and goes with all that is in the folder, so one that stays without CTRL is nobody's work.
        if folder.is_some() && found_at(fs, &dir)? == folder {
            let problem =
                "it is no live map: it has no CTRL; `pheon live rm --force` removes it, or choose another name";
            return Err(LiveError::corrupt(&dir, problem));
        }
        return Ok(!exists(fs, &dir)?);
    };
    let Ok(ctrl) = Ctrl::open(fs, &dir, true) else { return Ok(false) };
    if !ctrl.is_unlinked() {
        return Ok(false);
    }
    // Who unlinks has the lock, if it is one.
    let held = is_of_this_boot(&ctrl)
        && ctrl.mutex().lock_within(UNLINK_WAIT_MAX).is_ok_and(|attempt| attempt != Attempt::Busy);
    let done = match is_at(fs, &path, id) {
        Ok(true) if ctrl.is_unlinked() => remove_dir(fs, location, Some(&ctrl), Some(id)).map(|()| true),
        Ok(_) => exists(fs, &dir).map(|exists| !exists),
        Err(error) => Err(error),
    };
    if held {
        let _ = ctrl.mutex().unlock();
    }
    done
}

fn exists(fs: &dyn FileSystem, path: &Path) -> Result<bool, LiveError> {
    Ok(found_at(fs, path)?.is_some())
}

/// Builds a map under a temporary name. The lock says that somebody is at it.
fn build<'c>(
    fs: &Arc<dyn FileSystem>,
    location: &Location,
    temporary: &Path,
    options: &LiveOptions,
    changes: impl Iterator<Item = Change<'c>>,
) -> Result<FileLock, LiveError> {
    let failed = |e| LiveError::io("make", temporary, e);
    let make_dir = |dir: &Path| match location {
        Location::Memory { group, .. } => shm::create_live_dir(&**fs, dir, *group),
        Location::Store { .. } => fs.create_dir(dir, DIR_MODE),
    };
    if location.is_in_store() {
        let (parent, _) = location.parent();
        match fs.create_dir(&parent, DIR_MODE) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(LiveError::io("make", &parent, e)),
            _ => {}
        }
    }
    make_dir(temporary).map_err(failed)?;
    let lock = FileLock::acquire(&**fs, &temporary.join("LOCK"), Some(Duration::ZERO), &|| false)
        // Somebody takes it for a leftover, and is about to remove it.
        .map_err(|e| not_locked(temporary, io::ErrorKind::NotFound, e))?;
    // Files are for whom the folder is for.
    let mode = fs.metadata(temporary).map_err(failed)?.mode & 0o666;
    let ctrl = Ctrl::create(&**fs, temporary, mode, options, location.is_in_store())?;
    let own = OwnFiles::new(fs.clone(), temporary, &ctrl);
    make_dir(own.folder()).map_err(failed)?;
    let chunk = Chunk::create(&own, temporary, 0, CHUNK_BYTES_MIN, mode)?;
    let index = Index::create(&own, temporary, 0, SLOTS_MIN_LOG2, mode)?;
    let view = View::new(1, Arc::new(index), vec![Arc::new(chunk)]);
    view.write(&own, temporary, mode)?;
    ctrl.set_view(view.number);
    let start = Address::new(0, FILE_HEAD_BYTES).bits();
    let block = Block { txn: 1, end: start, clean: start, next_order: 1, ..Block::default() };
    ctrl.publish(&block);
    let boot = process::boot_id().map_err(|e| LiveError::io("read the boot's id for", temporary, e))?;
    ctrl.set_boot(boot);
    let shared = Arc::new(Shared::new(Arc::new(own), temporary.to_owned(), ctrl, view, true, mode));
    if location.is_in_store() {
        let path = shared.ctrl.path();
        fs.sync_shared(path, shared.ctrl.map()).map_err(|e| LiveError::io("sync", path, e))?;
        fs.sync_dir(temporary).map_err(|e| LiveError::io("sync", temporary, e))?;
        sync::all(&shared, &shared.mapped_view(), &block)?;
    }
    let mut changes = changes.peekable();
    if changes.peek().is_some() {
        let map = LiveMap::of(shared, location.clone());
        map.lock(None, &|| false)?;
        let filled = map.apply(changes).and_then(|()| map.sync());
        map.unlock()?;
        filled?;
    }
    Ok(lock)
}

/// `busy`: what it means that somebody else has the lock.
fn not_locked(dir: &Path, busy: io::ErrorKind, error: LockError) -> LiveError {
    match error {
        LockError::Io { source, .. } => LiveError::io("lock", dir, source),
        LockError::Timeout { .. } | LockError::Stopped => LiveError::io("lock", dir, io::Error::new(busy, error)),
    }
}

/// Removes a map's folder: its name first, at once. `ctrl`: its CTRL, and the device and inode of that, if they are known.
fn remove_dir(
    fs: &dyn FileSystem,
    location: &Location,
    ctrl: Option<&Ctrl>,
    id: Option<(u64, u64)>,
) -> Result<(), LiveError> {
    let (dir, temporary) = (location.dir()?, location.temporary());
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => LiveError::NotFound { path: dir.clone() },
        _ => LiveError::io("remove", &dir, e),
    };
    // While an error still changes nothing: a folder can be listed only where a file can be opened.
    let files = match ctrl.map(own::folder_name) {
        Some(folder) => match fs.read_dir(&dir.join(&folder)) {
            Ok(entries) => entries.into_iter().map(|entry| Path::new(&folder).join(entry.name)).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed(e)),
        },
        None => Vec::new(),
    };
    fs.rename(&dir, &temporary).map_err(failed)?;
    // CTRL may be missing: somebody else removes leftovers already.
    let found = fs.metadata(&Ctrl::path_in(&temporary)).ok().map(|meta| (meta.dev, meta.ino));
    if id.is_some() && found.is_some() && found != id {
        // This thread was stopped for so long that another one finished its work, and the name is another map's.
        fs.rename(&temporary, &dir).map_err(|e| LiveError::io("give its name back to", &dir, e))?;
        return Err(LiveError::NotFound { path: dir });
    }
    if location.is_in_store() {
        // Else a power cut could bring back the name without all that belongs to it.
        let (parent, _) = location.parent();
        if let Err(e) = fs.sync_dir(&parent) {
            let _ = fs.rename(&temporary, &dir);
            return Err(LiveError::io("sync", &parent, e));
        }
    }
    // At least the memory is given back, which needs no descriptor. What stays is a leftover, which the next one who makes a
    // map removes.
    for file in files.into_iter().chain(["CTRL", "LOCK"].map(PathBuf::from)) {
        crate::files::remove(fs, &temporary.join(file));
    }
    let _ = fs.remove_dir_all(&temporary);
    Ok(())
}

/// Removes what killed processes left of maps that they were making or removing.
fn remove_leftovers(fs: &dyn FileSystem, location: &Location) {
    let (parent, prefix) = location.parent();
    let prefix = format!("{prefix}{TEMPORARY}");
    let Ok(entries) = fs.read_dir(&parent) else { return };
    let mut left = entries.iter().filter(|entry| entry.is_dir && entry.name.starts_with(&prefix)).peekable();
    // Of a map whose unlinking was cut short the new name must be on the disk before its files go.
    if left.peek().is_some() && location.is_in_store() && fs.sync_dir(&parent).is_err() {
        return;
    }
    for entry in left {
        let dir = parent.join(&entry.name);
        if let Ok(_lock) = FileLock::acquire(fs, &dir.join("LOCK"), Some(Duration::ZERO), &|| false) {
            let _ = fs.remove_dir_all(&dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_removes_a_map_too_late_gives_its_name_back_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Store { path: folder.path().to_owned(), name: "m".into() };
        let fs = pheon_os::fs::real();
        let dir = location.dir().unwrap();
        let id = || fs.metadata(&Ctrl::path_in(&dir)).map(|meta| (meta.dev, meta.ino)).unwrap();
        let make = || LiveMap::create(&location, &LiveOptions::default()).unwrap();
        let first = make();
        let removed = id();
        first.unlink().unwrap();
        let second = make();
        assert_ne!(id(), removed, "the first one's CTRL is open still");
        assert!(matches!(remove_dir(&*fs, &location, None, Some(removed)), Err(LiveError::NotFound { .. })));
        second.lock(None, &|| false).unwrap();
        second.put(b"k", 0, b"v").unwrap();
        second.unlock().unwrap();
        assert_eq!(LiveMap::attach(&location, false).unwrap().get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
        remove_dir(&*fs, &location, None, Some(id())).unwrap();
        assert!(!exists(&*fs, &dir).unwrap());
    }
}
