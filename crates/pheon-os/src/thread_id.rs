//! Who a thread is, for locks and logs in shared memory: numbers that a forked child does not inherit.
#![allow(unsafe_code)] // `pthread_atfork`

use std::cell::Cell;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many forks lie between the first process and this one, as far as the C library's `fork` was used.
static GENERATION: AtomicU64 = AtomicU64::new(1);
static NEXT: AtomicU64 = AtomicU64::new(1);
static SALT: AtomicU32 = AtomicU32::new(0);
static WATCH: Once = Once::new();

thread_local! {
    /// (generation, number, random number).
    static MINE: Cell<(u64, u64, u32)> = const { Cell::new((0, 0, 0)) };
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Two numbers of the calling thread: one that no other thread of this process has or had, also not the thread of the
/// parent that it was forked from; and a random one, to tell it from threads of other processes. Never 0.
#[inline]
pub fn current() -> (u64, u32) {
    let (generation, number, random) = MINE.get();
    if generation == GENERATION.load(Ordering::Relaxed) { (number, random) } else { renew() }
}

#[cold]
fn renew() -> (u64, u32) {
    // SAFETY: the handler only adds to an atomic, which is allowed in a forked child.
    WATCH.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(in_child));
    });
    let mut bytes = [0; 4];
    // Without randomness the threads of a process still differ.
    let random = match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_ne_bytes(bytes),
        Err(_) => std::process::id() ^ SALT.fetch_add(0x9e37_79b9, Ordering::Relaxed),
    }
    .max(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    MINE.set((GENERATION.load(Ordering::Relaxed), number, random));
    (number, random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_child::Child;

    #[test]
    fn threads_and_forked_children_are_told_apart() {
        let mine = current();
        assert_eq!(current(), mine);
        let other = std::thread::spawn(current).join().unwrap();
        assert!(other.0 != mine.0 && other.1 != mine.1);
        // The next child would take the same next number as the parent, but it is compared inside one process only.
        Child::fork(|| current().0 != mine.0 && current().1 != mine.1).kill();
        assert_eq!(current(), mine);
    }
}
