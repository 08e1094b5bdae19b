//! Why a process dies of SIGBUS: who reads a page of a mapped file that is not there any more gets no error that a library
//! could hand on. A program, which owns its signals, can at least say so.

#![allow(unsafe_code)] // sigaction and write in a handler have no safe form.

use std::io;
use std::mem::MaybeUninit;

const MESSAGE: &str = "pheon: SIGBUS: a file that was being read was truncated, or its disk could not read a page of it; \
                       `pheon verify` tells which\n";

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: `write` may be called in a signal handler (signal-safety(7)), and the message lives for ever. The handler is
    // gone by now (SA_RESETHAND), so that the read which is done again ends the process as it would have.
    unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
}

/// From now on this process says on standard error why SIGBUS ends it. For programs only: it replaces any other handler, such
/// as that of Rust's runtime, which is about stacks that overflow (SIGSEGV here).
///
/// # Errors
/// What the operating system says.
pub fn explain() -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigaction`: no flags, an empty mask, SIG_DFL.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESETHAND;
    // SAFETY: the action is valid for the call, and its handler does only what a handler may.
    match unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::forked_child::Child;

    #[test]
    fn a_page_that_is_gone_ends_the_process_as_before_but_not_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let (path, said) = (dir.path().join("file"), dir.path().join("said"));
        fs::write(&path, [7; 8192]).unwrap();
        let map = crate::fs::real().map(&path).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
        let log = File::create(&said).unwrap();
        for (explained, expected) in [(false, ""), (true, MESSAGE)] {
            let end = Child::end_of(|| {
                // SAFETY: both descriptors are open; only this child's standard error is another one then.
                assert!(unsafe { libc::dup2(log.as_raw_fd(), libc::STDERR_FILENO) } >= 0);
                if explained {
                    explain().unwrap();
                }
                assert_eq!(map[4095], 7);
                std::hint::black_box(map[4096]);
            });
            assert_eq!(end, Err(libc::SIGBUS));
            assert_eq!(fs::read_to_string(&said).unwrap(), expected);
        }
    }
}
