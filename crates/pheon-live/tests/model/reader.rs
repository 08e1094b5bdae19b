//! A reader: "Read" of docs/live.md. It only loads, as it may have the files mapped read-only.

use loom::sync::atomic::Ordering::{self, Acquire, Relaxed};
use loom::sync::atomic::fence;

use crate::fault::Fault;
use crate::memory::{self, Body, FREED, KEYS, Memory, NOTHING, View, chunk_of};
use crate::writer::entries;

/// The mapped view has no such chunk: start again.
struct Unknown;

/// One process that has a view mapped.
pub(crate) struct Reader<'a> {
    memory: &'a Memory,
    fault: Fault,
    number: u64,
    view: View,
    commit: u64,
    /// Reads one key, not a snapshot.
    single: bool,
}

impl<'a> Reader<'a> {
    /// One that mapped the current view; made before other threads start.
    pub(crate) fn new(memory: &'a Memory, fault: Fault) -> Self {
        let number = memory.view.load(Relaxed);
        let view = View::unpack(memory.views[number as usize].load(Relaxed));
        Self { memory, fault, number, view, commit: 0, single: false }
    }

    fn acquire_unless(&self, fault: Fault) -> Ordering {
        if self.fault == fault { Relaxed } else { Acquire }
    }

    /// Reads all keys as of one commit, and checks them: the number never goes back, is at least `acknowledged`, and the values are
    /// those that this transaction left.
    pub(crate) fn check_snapshot(&mut self, acknowledged: u64) {
        for _ in 0..4 {
            let mut commit = self.begin();
            let read = KEYS.map(|key| self.get(key, &mut commit));
            if self.fault != Fault::ViewUnchecked
                && self.fault != Fault::ViewCheckedBeforeSlots
                && self.memory.view.load(Relaxed) != self.number
            {
                continue;
            }
            if let [Ok(first), Ok(second)] = read {
                assert!(commit >= acknowledged, "acknowledged transaction is not seen");
                assert!(commit >= self.commit, "time went back");
                assert_eq!([first, second], self.memory.state(commit), "not the state of transaction {commit}");
                self.commit = commit;
                return;
            }
            self.assert_view_changed();
        }
        panic!("reader does not come to an end");
    }

    /// Maps the current view if need be, and loads the commit number.
    fn begin(&mut self) -> u64 {
        let order = self.acquire_unless(Fault::CommitNotAcquired);
        if self.fault == Fault::CommitBeforeViewOnly {
            let commit = self.memory.commit.load(order);
            self.map_view();
            return commit;
        }
        loop {
            self.map_view();
            let commit = self.memory.commit.load(order);
            let check =
                self.fault == Fault::ViewCheckedBeforeSlots || self.single && self.fault != Fault::ViewUnchecked;
            if !check || self.memory.view.load(Relaxed) == self.number {
                return commit;
            }
        }
    }

    /// Whoever meets a chunk that the mapped view does not have, finds a later view.
    fn assert_view_changed(&self) {
        assert!(self.memory.view.load(Relaxed) != self.number, "unknown chunk in the current view");
    }

    /// Looks one key up: its value is one that it had at some commit meanwhile. Here it is enough to check the view before the slots.
    pub(crate) fn check_get(&mut self, key: u64) {
        self.single = true;
        let from = self.memory.commit.load(Relaxed);
        for _ in 0..4 {
            let mut commit = self.begin();
            if let Ok(value) = self.get(key, &mut commit) {
                let to = self.memory.commit.load(Relaxed);
                let had = (from..=to).any(|commit| self.memory.state(commit)[key as usize - 1] == value);
                assert!(had, "a value that no transaction from {from} to {to} left: {value}");
                self.single = false;
                return;
            }
            self.assert_view_changed();
        }
        panic!("reader does not come to an end");
    }

    fn map_view(&mut self) {
        loop {
            let number = self.memory.view.load(self.acquire_unless(Fault::ViewNotAcquired));
            if number == self.number {
                return;
            }
            let view = View::unpack(self.memory.views[number as usize].load(Relaxed));
            let gone = (view.first..=view.last)
                .any(|chunk| !self.view.has(chunk) && self.memory.chunks[chunk].unlinked.load(Acquire) != 0);
            if !gone {
                (self.number, self.view) = (number, view);
            }
        }
    }

    /// The key's value as of `commit`, 0 if it has none.
    fn get(&self, key: u64, commit: &mut u64) -> Result<u64, Unknown> {
        for slot in &self.memory.indexes[self.view.index] {
            let at = slot.load(self.acquire_unless(Fault::SlotNotAcquired));
            if self.fault == Fault::CommitAfterSlot {
                *commit = self.memory.commit.load(Acquire);
            }
            match at {
                NOTHING => return Ok(0),
                FREED => {}
                _ if self.body(at)?.key == key => return self.newest(at, *commit),
                _ => {}
            }
        }
        Ok(0)
    }

    fn newest(&self, mut at: u64, commit: u64) -> Result<u64, Unknown> {
        while at > FREED {
            let body = self.body(at)?;
            if body.transaction <= commit {
                return Ok(body.value);
            }
            let before = memory::unpack_link(self.memory.record(at).link.load(Relaxed));
            assert!(before < at, "links go back in the log");
            at = before;
        }
        Ok(0)
    }

    fn body(&self, at: u64) -> Result<Body, Unknown> {
        if !self.view.has(chunk_of(at)) {
            return Err(Unknown);
        }
        Ok(Body::unpack(self.memory.record(at).body.load(Relaxed)))
    }

    /// Number of entries, from the commit block, which a later writer may be writing over.
    pub(crate) fn check_len(&self) {
        for _ in 0..4 {
            let commit = self.memory.commit.load(Acquire);
            let block = &self.memory.blocks[commit as usize % 2];
            let transaction = block.transaction.load(Relaxed);
            let count = block.entries.load(Relaxed);
            if self.fault != Fault::BlockNoFence {
                fence(Acquire);
            }
            if self.fault == Fault::BlockUnchecked || self.memory.commit.load(Relaxed) == commit {
                assert_eq!(transaction, commit, "block of another transaction");
                assert_eq!(count, entries(self.memory.state(commit)), "entries of another transaction");
                return;
            }
        }
        panic!("len does not come to an end");
    }
}
