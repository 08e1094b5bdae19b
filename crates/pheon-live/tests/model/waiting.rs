//! "Waiting" of docs/live.md: no wake-up is lost, wherever a writer is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Condvar, Mutex};

use crate::writer::Killed;

/// How writers and waiters agree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The flag is 1 if somebody may sleep. The writer makes that 2, stores `change`, wakes, and makes 2 (not 1) 0.
    ThreeStates,
    /// The flag is 0 or 1; the writer stores `change`, clears the flag, and wakes if it was set.
    ClearAfterChange,
    /// The same, but clears the flag before it stores `change`.
    ClearBeforeChange,
    /// [`Way::ThreeStates`], but the writer makes 1 a 0 too.
    ClearWhateverItIs,
    /// [`Way::ThreeStates`] without the fence of the waiter.
    NoFenceInWaiter,
    /// [`Way::ThreeStates`] without the fence of the writer.
    NoFenceInWriter,
    /// [`Way::ThreeStates`], but the waiter does not look at `commit` before it sleeps.
    NoLook,
}

struct Words {
    commit: AtomicU64,
    change: AtomicU64,
    flag: AtomicU64,
    /// The kernel's lock and queue for the futex `change`.
    kernel: (Mutex<()>, Condvar),
}

impl Words {
    /// Commits `transaction` and tells waiters; killed before its step number `steps`.
    fn commit(&self, way: Way, transaction: u64, mut steps: usize) -> Result<(), Killed> {
        let mut step = || {
            steps = steps.checked_sub(1).ok_or(Killed)?;
            Ok(())
        };
        step()?;
        self.commit.store(transaction, Release);
        if way == Way::ClearBeforeChange {
            step()?;
            fence(SeqCst);
            let set = self.flag.swap(0, Relaxed) != 0;
            step()?;
            self.change.store(transaction, Release);
            if set {
                step()?;
                self.wake();
            }
            return Ok(());
        }
        if way == Way::ClearAfterChange {
            step()?;
            self.change.store(transaction, Release);
            fence(SeqCst);
            step()?;
            let set = self.flag.swap(0, Relaxed) != 0;
            if set {
                step()?;
                self.wake();
            }
            return Ok(());
        }
        if way != Way::NoFenceInWriter {
            fence(SeqCst);
        }
        let set = self.flag.load(Relaxed) != 0;
        if set {
            step()?;
            self.flag.swap(2, Relaxed);
        }
        step()?;
        self.change.store(transaction, Release);
        if set {
            step()?;
            self.wake();
            step()?;
            if way == Way::ClearWhateverItIs {
                self.flag.swap(0, Relaxed);
            } else {
                let _ = self.flag.compare_exchange(2, 0, Relaxed, Relaxed);
            }
        }
        Ok(())
    }

    /// FUTEX_WAKE of all.
    fn wake(&self) {
        let _kernel = self.kernel.0.lock().unwrap();
        self.kernel.1.notify_all();
    }

    /// FUTEX_WAIT: sleeps unless `change` is another one.
    fn sleep(&self, noted: u64) {
        let kernel = self.kernel.0.lock().unwrap();
        if self.change.load(Relaxed) == noted {
            drop(self.kernel.1.wait(kernel).unwrap());
        }
    }

    /// Returns when there may be a transaction after `seen`.
    fn wait(&self, way: Way, seen: u64) {
        let noted = self.change.load(Acquire);
        // A swap, as loom 0.7 would let a plain store fall before an exchange that had not seen it.
        self.flag.swap(1, Relaxed);
        if way != Way::NoFenceInWaiter {
            fence(SeqCst);
        }
        if way == Way::NoLook || self.commit.load(Relaxed) == seen {
            self.sleep(noted);
        }
    }
}

/// A writer that is killed before each of its steps, if `kill`, then one that is not; a waiter that wants to see the last transaction.
/// Should it sleep for good, loom reports a deadlock.
fn explore(way: Way, kill: bool) {
    let total = Arc::new(AtomicUsize::new(0));
    for steps in if kill { 0..usize::MAX } else { usize::MAX - 1..usize::MAX } {
        let killed = Arc::new(AtomicBool::new(false));
        let (count, was_killed) = (Arc::clone(&total), Arc::clone(&killed));
        let mut model = loom::model::Builder::new();
        model.max_branches = 10_000;
        // All of them would take minutes.
        model.preemption_bound = Some(4);
        model.check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            let words = Arc::new(Words {
                commit: AtomicU64::new(0),
                change: AtomicU64::new(0),
                flag: AtomicU64::new(0),
                kernel: (Mutex::new(()), Condvar::new()),
            });
            let last = if steps == 0 { 1 } else { 2 };
            let writers = {
                let (words, killed) = (Arc::clone(&words), Arc::clone(&was_killed));
                loom::thread::spawn(move || {
                    if words.commit(way, 1, steps).is_err() {
                        killed.store(true, Ordering::Relaxed);
                    }
                    words.commit(way, last, usize::MAX).unwrap();
                })
            };
            let mut seen = 0;
            while seen < last {
                words.wait(way, seen);
                seen = words.commit.load(Acquire);
            }
            writers.join().unwrap();
        });
        if !killed.load(Ordering::Relaxed) {
            println!(
                "waiting: {} executions of {} models",
                total.load(Ordering::Relaxed),
                if kill { steps + 1 } else { 1 }
            );
            return;
        }
    }
}

#[test]
fn no_wake_is_lost() {
    explore(Way::ThreeStates, false);
}

#[test]
fn no_wake_is_lost_when_a_writer_is_killed() {
    explore(Way::ThreeStates, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn clearing_the_flag_after_change_loses_a_wake() {
    explore(Way::ClearAfterChange, false);
}

#[test]
fn clearing_the_flag_before_change_is_right_while_nobody_is_killed() {
    explore(Way::ClearBeforeChange, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn clearing_the_flag_before_change_loses_a_wake_of_a_killed_writer() {
    explore(Way::ClearBeforeChange, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn clearing_the_flag_of_a_new_waiter_loses_a_wake() {
    explore(Way::ClearWhateverItIs, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_waiter_needs_its_fence() {
    explore(Way::NoFenceInWaiter, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_writer_needs_its_fence() {
    explore(Way::NoFenceInWriter, false);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_waiter_looks_before_it_sleeps() {
    explore(Way::NoLook, false);
}
