use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::forked_child::Child;

const NEVER: &dyn Fn() -> bool = &|| false;
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);
/// Longer than anything here takes; a hang becomes a failure.
const LONG: Option<Duration> = Some(Duration::from_secs(30));

fn acquire(path: &Path, timeout: Option<Duration>, should_stop: &dyn Fn() -> bool) -> Result<FileLock, LockError> {
    FileLock::acquire(&*crate::fs::real(), path, timeout, should_stop)
}

fn lock_path() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    (dir, path)
}

fn holder_of(result: Result<FileLock, LockError>) -> Option<u32> {
    match result {
        Err(LockError::Timeout { holder_pid, .. }) => holder_pid,
        other => panic!("expected a timeout, got {other:?}"),
    }
}

/// How many descriptors of this file the process has.
fn descriptors_of(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter(|link| link == path).count()
}

#[test]
fn of_two_threads_that_make_the_registry_one_takes_the_others() {
    let theirs = registry();
    assert!(ptr::eq(replace(ptr::null_mut(), process::pid()), theirs));
    assert!(ptr::eq(registry(), theirs));
}

#[test]
fn taken_released_and_taken_again() {
    let (_dir, path) = lock_path();
    for _ in 0..3 {
        let lock = acquire(&path, AT_ONCE, NEVER).unwrap();
        assert!(lock.is_held());
        assert_eq!(lock.path(), path);
    }
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o007, 0);
}

#[test]
fn a_second_writer_of_this_process_times_out_and_is_told_so() {
    let (_dir, path) = lock_path();
    let lock = acquire(&path, AT_ONCE, NEVER).unwrap();
    let began = Instant::now();
    let error = acquire(&path, Some(Duration::from_millis(60)), NEVER).unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(60));
    let text = error.to_string();
    assert!(text.contains(&format!("(pid {})", process::pid())) && text.contains("LOCK"), "{text}");
    assert!(matches!(error, LockError::Timeout { waited_ms: 60.., .. }), "{error:?}");
    // Neither attempt disturbed the lock that is held.
    let child_path = path.clone();
    let parent = process::pid();
    Child::fork(move || holder_of(acquire(&child_path, AT_ONCE, NEVER)) == Some(parent)).kill();
    drop(lock);
    acquire(&path, AT_ONCE, NEVER).unwrap();
}

#[test]
fn another_process_that_holds_it_is_named_and_its_death_frees_it() {
    let (_dir, path) = lock_path();
    let child_path = path.clone();
    let child = Child::fork(move || {
        std::mem::forget(acquire(&child_path, AT_ONCE, NEVER).unwrap());
        true
    });
    let error = acquire(&path, Some(Duration::from_millis(30)), NEVER).unwrap_err();
    assert!(error.to_string().contains(&format!("held by process {};", child.pid())), "{error}");
    let waiter = thread::spawn(move || acquire(&path, LONG, NEVER).map(drop));
    thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    child.kill(); // SIGKILL
    waiter.join().unwrap().unwrap();
}

#[test]
fn a_forked_child_does_not_hold_its_parents_lock_and_cannot_drop_it() {
    let (_dir, path) = lock_path();
    let lock = acquire(&path, AT_ONCE, NEVER).unwrap();
    let parent = process::pid();
    let child_path = path.clone();
    // The child owns a copy of `lock` without having taken it; the closure drops that copy.
    let copy = Mutex::new(Some(lock));
    Child::fork(|| {
        let inherited = copy.lock().unwrap().take().unwrap();
        let not_held = !inherited.is_held();
        drop(inherited);
        not_held && holder_of(acquire(&child_path, AT_ONCE, NEVER)) == Some(parent)
    })
    .kill();
    let lock = copy.lock().unwrap().take().unwrap();
    assert!(lock.is_held());
    let child_path = path.clone();
    Child::fork(move || holder_of(acquire(&child_path, AT_ONCE, NEVER)) == Some(parent)).kill();
    drop(lock);
}

#[test]
fn a_forked_child_that_takes_it_keeps_it_when_the_inherited_copy_is_dropped() {
    let (_dir, path) = lock_path();
    let lock = Mutex::new(Some(acquire(&path, AT_ONCE, NEVER).unwrap()));
    let ready = path.with_extension("ready");
    let child = thread::scope(|scope| {
        let releaser = scope.spawn(|| {
            // The child waits for the lock, and so must the release for the child; `fork` below returns after both.
            while !ready.exists() {
                thread::sleep(Duration::from_millis(2));
            }
            drop(lock.lock().unwrap().take());
        });
        let child = Child::fork(|| {
            let inherited = lock.lock().unwrap().take(); // nobody has this mutex before `ready` exists
            fs::write(&ready, "").unwrap();
            std::mem::forget(acquire(&path, LONG, NEVER).unwrap());
            drop(inherited); // must not close a descriptor of the file
            true
        });
        releaser.join().unwrap();
        child
    });
    assert_eq!(holder_of(acquire(&path, AT_ONCE, NEVER)), Some(child.pid()));
    child.kill();
    acquire(&path, LONG, NEVER).unwrap();
}

#[test]
fn threads_exclude_each_other() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 20;
    let (_dir, path) = lock_path();
    let (inside, total) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let lock = acquire(&path, LONG, NEVER).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    total.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(total.into_inner(), THREADS * ROUNDS);
}

#[test]
fn processes_and_threads_together_lose_no_update() {
    const CHILDREN: usize = 4;
    const ROUNDS: u32 = 25;
    let (_dir, path) = lock_path();
    let counter = path.with_extension("counter");
    fs::write(&counter, "0").unwrap();
    let add = || {
        for _ in 0..ROUNDS {
            let _lock = acquire(&path, LONG, NEVER).unwrap();
            let value: u32 = fs::read_to_string(&counter).unwrap().parse().unwrap();
            thread::yield_now();
            fs::write(&counter, (value + 1).to_string()).unwrap();
        }
    };
    thread::scope(|scope| {
        for _ in 0..CHILDREN {
            scope.spawn(|| {
                Child::fork(|| {
                    add();
                    true
                })
                .kill();
            });
        }
        scope.spawn(add);
        scope.spawn(add);
    });
    assert_eq!(fs::read_to_string(&counter).unwrap(), ((CHILDREN as u32 + 2) * ROUNDS).to_string());
}

#[test]
fn a_replaced_lock_file_is_followed() {
    let (dir, path) = lock_path();
    let old = acquire(&path, AT_ONCE, NEVER).unwrap();
    fs::rename(&path, dir.path().join("dropped")).unwrap();
    // The path names a new file, which is free, although the old one is held.
    let new = acquire(&path, AT_ONCE, NEVER).unwrap();
    assert_ne!(old.id, new.id);
    // By its new name the old one is still the old one, and held.
    assert_eq!(holder_of(acquire(&dir.path().join("dropped"), AT_ONCE, NEVER)), Some(process::pid()));
}

#[test]
fn a_file_that_was_replaced_between_opening_and_locking_is_not_taken() {
    let (_dir, path) = lock_path();
    let opened = || fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let mut held = HashMap::new();
    let file = opened();
    fs::remove_file(&path).unwrap();
    let attempt = lock_opened(&*crate::fs::real(), &mut held, process::pid(), &path, file).unwrap();
    assert!(matches!(attempt, Attempt::Replaced) && held.is_empty(), "{attempt:?}");
    let attempt = lock_opened(&*crate::fs::real(), &mut held, process::pid(), &path, opened()).unwrap();
    assert!(matches!(attempt, Attempt::Taken(_)) && held.len() == 1, "{attempt:?}");
}

#[test]
fn a_descriptor_of_a_held_file_stays_open_as_long_as_its_lock() {
    let (_dir, path) = lock_path();
    let lock = acquire(&path, AT_ONCE, NEVER).unwrap();
    // As when the path got this file after it was examined.
    let again = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let attempt =
        lock_opened(&*crate::fs::real(), &mut registry().held.lock().unwrap(), process::pid(), &path, again).unwrap();
    assert!(matches!(attempt, Attempt::HeldBy(Some(pid)) if pid == process::pid()), "{attempt:?}");
    assert_eq!(descriptors_of(&path), 2);
    let parent = process::pid();
    let child_path = path.clone();
    Child::fork(move || holder_of(acquire(&child_path, AT_ONCE, NEVER)) == Some(parent)).kill();
    drop(lock);
    assert_eq!(descriptors_of(&path), 0);
}

#[test]
fn waiting_for_a_thread_opens_nothing() {
    let (_dir, path) = lock_path();
    let _lock = acquire(&path, AT_ONCE, NEVER).unwrap();
    holder_of(acquire(&path, Some(Duration::from_millis(20)), NEVER));
    assert_eq!(descriptors_of(&path), 1);
}

#[test]
fn waiting_stops_when_asked() {
    let (_dir, path) = lock_path();
    let _lock = acquire(&path, AT_ONCE, NEVER).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, waiter_path) = (stop.clone(), path.clone());
    let waiter = thread::spawn(move || acquire(&waiter_path, None, &|| seen.load(Ordering::SeqCst)).map(drop));
    thread::sleep(Duration::from_millis(30));
    assert!(!waiter.is_finished());
    stop.store(true, Ordering::SeqCst);
    assert!(matches!(waiter.join().unwrap(), Err(LockError::Stopped)));
}

#[test]
fn a_lock_file_that_cannot_be_one_is_an_error_that_names_it() {
    let (dir, path) = lock_path();
    let missing = acquire(&dir.path().join("no/LOCK"), AT_ONCE, NEVER).unwrap_err();
    assert!(matches!(&missing, LockError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
    assert!(missing.to_string().contains("no/LOCK"), "{missing}");
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    assert!(matches!(acquire(&path, AT_ONCE, NEVER), Err(LockError::Io { operation: "open", .. })));
    assert!(acquire(dir.path(), AT_ONCE, NEVER).is_err());
}
