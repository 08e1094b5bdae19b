//! Forked children for tests.
#![allow(unsafe_code)] // fork, kill and wait have no safe form

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Children inherit the mappings of the whole test process, so tests that count who maps a file keep them away.
static FORKING: RwLock<()> = RwLock::new(());

/// While this lives there are no forked children.
pub(crate) fn none() -> RwLockWriteGuard<'static, ()> {
    FORKING.write().unwrap()
}

/// A forked child that runs `body`, tells the parent so, and then stays until it is killed, if `body` gave true.
pub(crate) struct Child {
    pid: libc::pid_t,
    _forking: RwLockReadGuard<'static, ()>,
}

impl Child {
    /// How a forked child ends that runs `body`: the signal, or else the exit code, which is 0 if `body` comes to its end.
    pub(crate) fn end_of(body: impl FnOnce()) -> Result<i32, i32> {
        let _forking = FORKING.read().unwrap();
        // SAFETY: as in `fork`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
            // SAFETY: a plain system call.
            unsafe { libc::_exit(i32::from(!done)) }
        }
        let mut status = 0;
        // SAFETY: a child of this process that nobody else waits for.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status)) }
    }

    /// Returns when `body` has run in the child.
    pub(crate) fn fork(body: impl FnOnce() -> bool) -> Child {
        let forking = FORKING.read().unwrap();
        let mut pipe = [0; 2];
        // SAFETY: writes two descriptors into `pipe`.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the child runs `body`, which allocates, takes no lock that another thread may hold and starts no thread, and
        // leaves by `_exit`; glibc makes its allocator usable after a fork.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(false);
            // SAFETY: plain system calls; the byte lives across the write.
            unsafe {
                libc::write(pipe[1], (&raw const done).cast(), 1);
                if done {
                    libc::pause();
                }
                libc::_exit(1);
            }
        }
        let mut done = 0u8;
        // SAFETY: `done` has room for the one byte; the descriptors are this function's own.
        unsafe {
            libc::close(pipe[1]);
            assert_eq!(libc::read(pipe[0], (&raw mut done).cast(), 1), 1);
            libc::close(pipe[0]);
        }
        let child = Child { pid, _forking: forking };
        assert_eq!(done, 1, "the child's part failed");
        child
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// SIGKILL, and waits for its end.
    pub(crate) fn kill(self) {}
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: a child of this process that nobody else waits for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, &raw mut status, 0);
        }
    }
}
