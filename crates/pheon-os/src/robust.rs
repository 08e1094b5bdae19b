//! Mutexes in shared memory that the kernel frees when their owner dies.
//!
//! Process-shared, robust POSIX mutexes: taking a free one and releasing it is a few nanoseconds in user space. The C
//! library keeps a list of those that a thread holds; when the thread ends, however that happens, the kernel walks the list
//! and marks each as "owner died", and the next one who takes it is told.
#![allow(unsafe_code)] // pthread calls on raw memory have no safe form

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::shared::SharedMap;

/// Bytes of a mutex.
pub const MUTEX_BYTES: usize = size_of::<libc::pthread_mutex_t>();

/// What came of an attempt to take a mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It is ours.
    Taken,
    /// It is ours, and its last owner died with it: what it guards may be half done.
    TakenFromTheDead,
    /// A living thread has it.
    Busy,
}

/// A mutex at some place of a shared mapping. Its memory must stay mapped while this thread holds it.
#[derive(Clone, Copy, Debug)]
pub struct RobustMutex<'a> {
    map: &'a SharedMap,
    offset: usize,
}

impl<'a> RobustMutex<'a> {
    /// The mutex at `offset`, a multiple of 8.
    ///
    /// # Panics
    /// When it is not all inside the mapping, or the mapping is read-only.
    pub fn at(map: &'a SharedMap, offset: usize) -> Self {
        map.address(offset, MUTEX_BYTES);
        Self { map, offset }
    }

    fn raw(self) -> *mut libc::pthread_mutex_t {
        self.map.address(self.offset, MUTEX_BYTES).cast()
    }

    /// Makes a free mutex of memory that nobody else uses yet.
    ///
    /// # Errors
    /// What the C library says: it has no robust mutexes.
    pub fn init(self) -> io::Result<()> {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        // SAFETY: the attributes are initialised first and destroyed last; the mutex's memory is inside a live, writable
        // mapping, aligned to 8 bytes, and not in use.
        unsafe {
            done(libc::pthread_mutexattr_init(attributes.as_mut_ptr()))?;
            let made = done(libc::pthread_mutexattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED))
                .and_then(|()| {
                    done(libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST))
                })
                .and_then(|()| done(libc::pthread_mutex_init(self.raw(), attributes.as_ptr())));
            libc::pthread_mutexattr_destroy(attributes.as_mut_ptr());
            made
        }
    }

    /// Takes it if it is free.
    ///
    /// # Errors
    /// When the memory holds no mutex.
    #[inline]
    pub fn try_lock(self) -> io::Result<Attempt> {
        // SAFETY: a mutex in live shared memory, initialised before its file got a name.
        let answer = unsafe { libc::pthread_mutex_trylock(self.raw()) };
        self.attempted(answer)
    }

    /// Waits for it, so long at most.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    pub fn lock_within(self, timeout: Duration) -> io::Result<Attempt> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + timeout;
        let until = libc::timespec {
            tv_sec: until.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(until.subsec_nanos() as i32),
        };
        // SAFETY: as for `try_lock`; the time lives across the call.
        let answer = unsafe { libc::pthread_mutex_timedlock(self.raw(), &raw const until) };
        self.attempted(answer)
    }

    fn attempted(self, answer: libc::c_int) -> io::Result<Attempt> {
        match answer {
            0 => Ok(Attempt::Taken),
            libc::EOWNERDEAD => {
                // SAFETY: this thread holds the mutex, as the answer says.
                done(unsafe { libc::pthread_mutex_consistent(self.raw()) })?;
                Ok(Attempt::TakenFromTheDead)
            }
            libc::EBUSY | libc::ETIMEDOUT | libc::EAGAIN => Ok(Attempt::Busy),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Releases it.
    ///
    /// # Errors
    /// `EPERM` when this thread does not hold it.
    #[inline]
    pub fn unlock(self) -> io::Result<()> {
        // SAFETY: a mutex in live shared memory; robust mutexes check who releases them.
        done(unsafe { libc::pthread_mutex_unlock(self.raw()) })
    }
}

fn done(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_child::Child;
    use crate::fs::real;

    fn mutex_file() -> (tempfile::TempDir, SharedMap) {
        let dir = tempfile::tempdir().unwrap();
        let map = real().create_shared(&dir.path().join("m"), 4096, 0o600).unwrap();
        RobustMutex::at(&map, 64).init().unwrap();
        (dir, map)
    }

    #[test]
    fn a_held_mutex_is_busy_for_others_and_released_by_its_owner_only() {
        let (_dir, map) = mutex_file();
        let mutex = RobustMutex::at(&map, 64);
        assert_eq!(mutex.try_lock().unwrap(), Attempt::Taken);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mutex = RobustMutex::at(&map, 64);
                assert_eq!(mutex.try_lock().unwrap(), Attempt::Busy);
                assert_eq!(mutex.lock_within(Duration::from_millis(5)).unwrap(), Attempt::Busy);
                assert_eq!(mutex.unlock().unwrap_err().raw_os_error(), Some(libc::EPERM));
            });
        });
        mutex.unlock().unwrap();
        assert_eq!(mutex.try_lock().unwrap(), Attempt::Taken);
        mutex.unlock().unwrap();
    }

    #[test]
    fn the_next_owner_is_told_of_a_killed_one_and_later_ones_are_not() {
        let (_dir, map) = mutex_file();
        let mutex = RobustMutex::at(&map, 64);
        let child = Child::fork(|| mutex.try_lock().unwrap() == Attempt::Taken);
        assert_eq!(mutex.try_lock().unwrap(), Attempt::Busy);
        child.kill();
        assert_eq!(mutex.lock_within(Duration::from_secs(10)).unwrap(), Attempt::TakenFromTheDead);
        mutex.unlock().unwrap();
        assert_eq!(mutex.try_lock().unwrap(), Attempt::Taken);
        mutex.unlock().unwrap();
    }

    #[test]
    fn a_forked_child_does_not_hold_what_its_parent_holds() {
        let (_dir, map) = mutex_file();
        let mutex = RobustMutex::at(&map, 64);
        assert_eq!(mutex.try_lock().unwrap(), Attempt::Taken);
        let child = Child::fork(|| mutex.try_lock().unwrap() == Attempt::Busy && mutex.unlock().is_err());
        child.kill();
        assert_eq!(mutex.unlock().map_err(|e| e.raw_os_error()), Ok(()));
    }
}
