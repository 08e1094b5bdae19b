//! Sleeping until a word in shared memory changes.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while the word has this value, until [`wake_all`] is called for it or the time is over. May return early.
///
/// # Errors
/// None that a caller could do something about are expected: `EFAULT` when the memory is gone.
pub fn wait(word: &AtomicU32, value: u32, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match futex::wait(word, Flags::empty(), value, Some(&timeout)) {
        Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::TIMEDOUT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Wakes all that sleep on the word, in any process.
pub fn wake_all(word: &AtomicU32) {
    let _ = futex::wake(word, Flags::empty(), i32::MAX as u32);
}
