//! Ctrl-C as a flag to ask, for as long as a guard lives. Afterwards the signal does what it did before, so that a
//! library call made by another program (a Python interpreter, say) leaves nothing behind.

#![allow(unsafe_code)] // sigaction has no safe form.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the shell reports for a program that ended on SIGINT.
pub const EXIT_CODE: i32 = 130;

static INSTALLED: AtomicBool = AtomicBool::new(false);
static SIGNALS: AtomicU32 = AtomicU32::new(0);

/// While it lives, SIGINT is counted instead of ending the process; the second one ends it at once with [`EXIT_CODE`].
#[derive(Debug)]
pub struct Guard {
    previous: libc::sigaction,
}

extern "C" fn on_signal(_: libc::c_int) {
    if SIGNALS.fetch_add(1, Ordering::SeqCst) > 0 {
        // SAFETY: `_exit` may be called in a signal handler (signal-safety(7)) and does not return. The user asked
        // twice; nothing that is half written is ever visible.
        unsafe { libc::_exit(EXIT_CODE) }
    }
}

impl Guard {
    /// Takes SIGINT over. At most one guard lives in a process.
    ///
    /// # Errors
    /// `AlreadyExists` while another guard lives; what the operating system says.
    pub fn install() -> io::Result<Self> {
        if INSTALLED.swap(true, Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "Ctrl-C is already taken over in this process"));
        }
        SIGNALS.store(0, Ordering::SeqCst);
        // SAFETY: all-zero bytes are a valid `sigaction`: no flags, an empty mask, SIG_DFL.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        let mut previous = MaybeUninit::zeroed();
        // SAFETY: both pointers are valid for the call; the handler only touches an atomic and calls `_exit`, both of
        // which a handler may do.
        if unsafe { libc::sigaction(libc::SIGINT, &action, previous.as_mut_ptr()) } != 0 {
            let error = io::Error::last_os_error();
            INSTALLED.store(false, Ordering::SeqCst);
            return Err(error);
        }
        // SAFETY: sigaction succeeded and has filled it.
        Ok(Self { previous: unsafe { previous.assume_init() } })
    }

    /// Whether SIGINT arrived since the guard was installed.
    pub fn interrupted(&self) -> bool {
        interrupted()
    }
}

/// Whether SIGINT arrived while the current (or, without one, the latest) guard lived. For callbacks that outlive a
/// borrow.
pub fn interrupted() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: `previous` is what sigaction returned for the same signal.
        unsafe { libc::sigaction(libc::SIGINT, &self.previous, std::ptr::null_mut()) };
        INSTALLED.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler_now() -> usize {
        let mut now = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null new action only reads the current one into a valid pointer.
        assert_eq!(unsafe { libc::sigaction(libc::SIGINT, std::ptr::null(), now.as_mut_ptr()) }, 0);
        // SAFETY: filled by the call above.
        unsafe { now.assume_init() }.sa_sigaction
    }

    #[test]
    fn counts_and_restores() {
        let before = handler_now();
        let guard = Guard::install().expect("no other guard lives");
        assert!(Guard::install().is_err(), "only one guard at a time");
        assert!(!guard.interrupted());
        // SAFETY: raises a signal whose handler is ours.
        assert_eq!(unsafe { libc::raise(libc::SIGINT) }, 0);
        assert!(guard.interrupted());
        drop(guard);
        assert_eq!(handler_now(), before);
        assert!(!Guard::install().expect("the first is gone").interrupted(), "a new guard starts from zero");
    }

    #[test]
    fn the_second_one_ends_the_process() {
        let end = crate::forked_child::Child::end_of(|| {
            // Another test's guard may have been inherited, whole or in part.
            INSTALLED.store(false, Ordering::SeqCst);
            std::mem::forget(Guard::install().unwrap());
            // SAFETY: raises a signal whose handler is ours.
            unsafe { libc::raise(libc::SIGINT) };
            assert!(interrupted());
            // SAFETY: as above.
            unsafe { libc::raise(libc::SIGINT) };
        });
        assert_eq!(end, Ok(EXIT_CODE));
    }
}
