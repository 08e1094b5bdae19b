//! A map as one process has it: mapped once, whatever the number of handles.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pheon_os::fs::FileSystem;
use pheon_os::robust::{Attempt, RobustMutex};
use pheon_os::thread_id;

use crate::ctrl::Ctrl;
use crate::error::LiveError;
use crate::keylock::KeyLocks;
use crate::options::LiveOptions;
use crate::queue::Queue;
use crate::view::{Lost, View};

/// Attempts before a waiter goes to sleep in the kernel: some microseconds.
const SPINS_MAX: u32 = 60;
/// How long one sleep for the lock lasts, so that `should_stop` is asked now and then.
const SLEEP_MAX: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) ctrl: Ctrl,
    pub(crate) options: LiveOptions,
    pub(crate) writable: bool,
    /// Permissions of new files.
    pub(crate) mode: u32,
    /// Whether this process has seen to it that the names of the folders which the map is in are on the disk.
    pub(crate) names_synced: AtomicBool,
    view: ArcSwap<View>,
    lock: Owner,
    pub(crate) key_locks: OnceLock<KeyLocks>,
    /// Touched by the holder of the lock only.
    pub(crate) queue: Mutex<Option<Queue>>,
    /// Handles that are not closed.
    pub(crate) users: AtomicUsize,
}

/// Which thread of this process holds a mutex, and how often.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    thread: AtomicU64,
    depth: AtomicU32,
}

impl Owner {
    #[inline]
    pub(crate) fn is_me(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == thread_id::current().0
    }

    /// Takes the mutex, reentrantly. `false`: it was not free in time.
    ///
    /// # Errors
    /// [`LiveError::Stopped`], or the mutex's memory holds none.
    pub(crate) fn acquire(
        &self,
        mutex: RobustMutex<'_>,
        path: &Path,
        timeout: Option<Duration>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<bool, LiveError> {
        if self.enter_again() {
            return Ok(true);
        }
        let failed = |e| LiveError::io("lock", path, e);
        if self.try_often(mutex).map_err(failed)? {
            return Ok(true);
        }
        let began = Instant::now();
        loop {
            let left = timeout.map_or(SLEEP_MAX, |timeout| timeout.saturating_sub(began.elapsed()));
            if left.is_zero() {
                return Ok(false);
            }
            if mutex.lock_within(left.min(SLEEP_MAX)).map_err(failed)? != Attempt::Busy {
                self.entered();
                return Ok(true);
            }
            if should_stop() {
                return Err(LiveError::Stopped);
            }
        }
    }

    /// Counts one more entry of the thread that holds it.
    #[inline]
    pub(crate) fn enter_again(&self) -> bool {
        let mine = self.is_me();
        if mine {
            self.depth.fetch_add(1, Ordering::Relaxed);
        }
        mine
    }

    /// Takes it if it is free or gets free within some microseconds.
    #[inline]
    pub(crate) fn try_often(&self, mutex: RobustMutex<'_>) -> io::Result<bool> {
        for spin in 0..SPINS_MAX {
            if mutex.try_lock()? != Attempt::Busy {
                self.entered();
                return Ok(true);
            }
            // The holder may be waiting for this CPU.
            if spin % 16 == 15 {
                thread::yield_now();
            } else {
                for _ in 0..1 << (spin % 16).min(5) {
                    std::hint::spin_loop();
                }
            }
        }
        Ok(false)
    }

    #[inline]
    fn entered(&self) {
        self.thread.store(thread_id::current().0, Ordering::Relaxed);
        self.depth.store(1, Ordering::Relaxed);
    }

    /// Takes one entry back; the last one releases the mutex.
    #[inline]
    pub(crate) fn release(&self, mutex: RobustMutex<'_>) -> Result<(), LiveError> {
        if !self.is_me() {
            return Err(LiveError::NotHeld);
        }
        if self.depth.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.thread.store(0, Ordering::Relaxed);
            mutex.unlock().map_err(|_| LiveError::NotHeld)?;
        }
        Ok(())
    }

    /// Whether a thread of this process has it, or ended with it, or had it when this process was forked from its own.
    pub(crate) fn is_somebody(&self) -> bool {
        self.thread.load(Ordering::Relaxed) != 0
    }

    /// How often this thread holds it.
    pub(crate) fn depth(&self) -> u32 {
        if self.is_me() { self.depth.load(Ordering::Relaxed) } else { 0 }
    }
}

impl Shared {
    pub(crate) fn new(
        fs: Arc<dyn FileSystem>,
        dir: PathBuf,
        ctrl: Ctrl,
        view: View,
        writable: bool,
        mode: u32,
    ) -> Self {
        Self {
            fs,
            dir,
            options: ctrl.options(),
            ctrl,
            writable,
            mode,
            names_synced: AtomicBool::new(false),
            view: ArcSwap::from_pointee(view),
            lock: Owner::default(),
            key_locks: OnceLock::new(),
            queue: Mutex::default(),
            users: AtomicUsize::new(0),
        }
    }

    /// The current view, mapped. Its number was current at some time during the call.
    #[inline]
    pub(crate) fn view(&self) -> Result<arc_swap::Guard<Arc<View>>, LiveError> {
        let view = self.view.load();
        if view.number == self.ctrl.view() { Ok(view) } else { self.newer_view() }
    }

    #[cold]
    fn newer_view(&self) -> Result<arc_swap::Guard<Arc<View>>, LiveError> {
        loop {
            let known = self.view.load_full();
            let number = self.ctrl.view();
            if known.number == number {
                // Not what is there now: another thread may have let go of it.
                return Ok(arc_swap::Guard::from_inner(known));
            }
            match View::open(&*self.fs, &self.dir, number, Some(&known), self.writable) {
                // Unlinked maps have no files any more, and the name may be another map's meanwhile. What is mapped is of
                // an earlier view, which does not tell what the last commit says.
                _ if self.ctrl.is_unlinked() => return Err(LiveError::Unlinked { path: self.dir.clone() }),
                Ok(view) => self.set_view(Arc::new(view)),
                Err(LiveError::Io { ref source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    if self.ctrl.view() != number {
                        continue;
                    }
                    return Err(LiveError::corrupt(&self.dir, format!("view {number} or a file of it is missing")));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes a view the one that this process uses, unless it has a newer one.
    pub(crate) fn set_view(&self, view: Arc<View>) {
        self.view.rcu(|current| if current.number < view.number { view.clone() } else { current.clone() });
    }

    /// The error of a record that is not where it should be.
    pub(crate) fn lost(&self, lost: Lost) -> LiveError {
        match lost {
            Lost::Elsewhere if self.ctrl.is_unlinked() => LiveError::Unlinked { path: self.dir.clone() },
            Lost::Elsewhere => LiveError::corrupt(&self.dir, "a slot or record names a chunk that is not there"),
            Lost::Damaged => LiveError::corrupt(&self.dir, "a slot or record leads to no record"),
        }
    }

    /// Lets go of the entries' memory. Whoever needs it again finds that the view is an old one, and maps the current one.
    pub(crate) fn let_go(&self) {
        let index = self.view.load().index.clone();
        self.view.store(Arc::new(View::new(0, index, Vec::new())));
        if let Ok(mut queue) = self.queue.try_lock() {
            *queue = None;
        }
    }

    /// The view that is mapped, current or not.
    pub(crate) fn mapped_view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Fails for an unlinked map: its folder's name may be another map's.
    pub(crate) fn check_linked(&self) -> Result<(), LiveError> {
        if self.ctrl.is_unlinked() { Err(LiveError::Unlinked { path: self.dir.clone() }) } else { Ok(()) }
    }

    // The lock ----------------------------------------------------------------------------------------------------------

    pub(crate) fn acquire(&self, timeout: Option<Duration>, should_stop: &dyn Fn() -> bool) -> Result<bool, LiveError> {
        if !self.writable {
            return Err(LiveError::ReadOnly { path: self.dir.clone() });
        }
        self.lock.acquire(self.ctrl.mutex(), self.ctrl.path(), timeout, should_stop)
    }

    /// [`acquire`](Self::acquire) that gives up after some microseconds.
    #[inline]
    pub(crate) fn try_acquire(&self) -> Result<bool, LiveError> {
        if !self.writable {
            return Err(LiveError::ReadOnly { path: self.dir.clone() });
        }
        if self.lock.enter_again() {
            return Ok(true);
        }
        self.lock.try_often(self.ctrl.mutex()).map_err(|e| LiveError::io("lock", self.ctrl.path(), e))
    }

    #[inline]
    pub(crate) fn release(&self) -> Result<(), LiveError> {
        self.lock.release(self.ctrl.mutex())
    }

    pub(crate) fn lock_depth(&self) -> u32 {
        self.lock.depth()
    }

    /// Whether some thread of this process has the lock, or that of a key.
    fn is_locked(&self) -> bool {
        self.lock.is_somebody() || self.key_locks.get().is_some_and(KeyLocks::any_held)
    }
}

/// Maps of this process by device and inode of their CTRL, so that two handles of one map share its lock's owner.
type Known = HashMap<(u64, u64), Weak<Shared>>;

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// Maps that lost a handle while a thread of this process held their lock, or a lock of a key. The C library has the mutex in
/// a list of that thread's, and the kernel walks it when the thread ends: the memory must stay where it is.
static LOCKED: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

/// How long to wait for a table: a forked child may have inherited it locked, for ever, by a thread that it does not have;
/// it then works without.
const TABLE_WAIT_MAX: Duration = Duration::from_millis(200);

fn lock_table<T>(table: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let began = Instant::now();
    loop {
        match table.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) if began.elapsed() > TABLE_WAIT_MAX => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_micros(100)),
        }
    }
}

/// The map of this process with this CTRL, or the one that `open` makes.
pub(crate) fn known(
    id: (u64, u64),
    writable: bool,
    open: impl FnOnce() -> Result<Shared, LiveError>,
) -> Result<Arc<Shared>, LiveError> {
    let find = |known: &Known| {
        let shared = known.get(&id).and_then(Weak::upgrade)?;
        (shared.writable == writable && !shared.ctrl.is_unlinked()).then_some(shared)
    };
    if let Some(shared) = lock_table(&KNOWN).and_then(|mut guard| find(guard.get_or_insert_default())) {
        return Ok(shared);
    }
    // Without the table: opening after a boot may take long, and others need the table meanwhile.
    let shared = Arc::new(open()?);
    let Some(mut guard) = lock_table(&KNOWN) else { return Ok(shared) };
    let known = guard.get_or_insert_default();
    if let Some(earlier) = find(known) {
        return Ok(earlier);
    }
    known.retain(|_, weak| weak.strong_count() > 0);
    if writable {
        known.insert(id, Arc::downgrade(&shared));
    }
    Ok(shared)
}

/// Called for a map that loses a handle, be it the last one or not: keeps its memory while a thread of this process holds a lock of it, and lets go
/// of those that were given back meanwhile.
pub(crate) fn keep_while_locked(shared: &Arc<Shared>) {
    let Some(mut kept) = lock_table(&LOCKED) else {
        if shared.is_locked() {
            std::mem::forget(shared.clone());
        }
        return;
    };
    let free: Vec<_> = kept.extract_if(.., |other| !other.is_locked()).collect();
    if shared.is_locked() && !kept.iter().any(|other| Arc::ptr_eq(other, shared)) {
        kept.push(shared.clone());
    }
    drop(kept);
    drop(free);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{LiveMap, LiveOptions, Location};

    #[test]
    fn handles_share_their_lock_while_another_map_is_long_in_opening() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::Store { path: folder.path().to_owned(), name: "m".into() };
        drop(LiveMap::create(&location, &LiveOptions::default()).unwrap());
        let ((entered, enters), (release, released)) = (channel(), channel::<()>());
        thread::scope(|scope| {
            scope.spawn(move || {
                let nobodys = (u64::MAX, u64::MAX);
                let opened = known(nobodys, true, || {
                    entered.send(()).unwrap();
                    let _ = released.recv();
                    Err(LiveError::Stopped)
                });
                assert!(matches!(opened, Err(LiveError::Stopped)));
            });
            enters.recv().unwrap();
            let [one, other] = [(); 2].map(|()| LiveMap::attach(&location, true).unwrap());
            drop(release);
            assert!(Arc::ptr_eq(&one.shared, &other.shared));
        });
    }
}
