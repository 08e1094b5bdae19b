//! A writer, which may be killed before any of its stores, and the repair that the next one makes.

use std::cell::Cell;

use loom::sync::atomic::Ordering::{self, Relaxed, Release};

use crate::fault::Fault;
use crate::memory::{self, ABORTED, Body, FREED, KEYS, Memory, NOTHING, View, Word, address, chunk_of, position_of};

/// The writer's process ended here.
#[derive(Debug)]
pub(crate) struct Killed;

/// What a transaction does besides its changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    /// Key and value; 0 deletes.
    pub(crate) changes: &'static [(u64, u64)],
    /// Starts a chunk.
    pub(crate) new_chunk: bool,
    /// Starts one after the first change.
    pub(crate) chunk_between: bool,
    /// Makes the index anew, without deleted keys, before the first change.
    pub(crate) rebuild: bool,
    /// The same after the first change, which the new index has too.
    pub(crate) rebuild_between: bool,
    /// Drops the first chunk, which an earlier transaction cleaned.
    pub(crate) drop_first: bool,
    /// Moves what is live in the first chunk to the end of the log.
    pub(crate) clean: bool,
}

/// Holds the writers' mutex: in the model all writers run in one thread, one after the other.
pub(crate) struct Writer<'a> {
    memory: &'a Memory,
    fault: Fault,
    stores_left: Cell<usize>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(memory: &'a Memory, fault: Fault) -> Self {
        Self::killed_after(memory, fault, usize::MAX)
    }

    /// One that makes `stores` stores.
    pub(crate) fn killed_after(memory: &'a Memory, fault: Fault, stores: usize) -> Self {
        Self { memory, fault, stores_left: Cell::new(stores) }
    }

    fn store(&self, word: &Word, value: u64, order: Ordering) -> Result<(), Killed> {
        self.stores_left.set(self.stores_left.get().checked_sub(1).ok_or(Killed)?);
        word.store(value, order);
        Ok(())
    }

    /// Part of something that nobody can see yet: no place to be killed at.
    fn fill(&self, word: &Word, value: u64, order: Ordering) -> Result<(), Killed> {
        if self.stores_left.get() == 0 {
            return Err(Killed);
        }
        word.store(value, order);
        Ok(())
    }

    fn release_unless(&self, fault: Fault) -> Ordering {
        if self.fault == fault { Relaxed } else { Release }
    }

    /// "Write" of docs/live.md.
    pub(crate) fn transaction(&self, plan: Plan) -> Result<(), Killed> {
        self.repair()?;
        if plan.new_chunk || plan.rebuild || plan.drop_first {
            self.rotate(plan)?;
        }
        let transaction = self.committed() + 1;
        let mut state = self.memory.state(transaction - 1);
        if self.fault == Fault::CommitBeforeSlot {
            for &(key, value) in plan.changes {
                state[key as usize - 1] = value;
            }
            self.commit(transaction, self.end(), state)?;
        }
        for (i, &(key, value)) in plan.changes.iter().enumerate() {
            if i == 1 && (plan.rebuild_between || plan.chunk_between) {
                let (rebuild, new_chunk) = (plan.rebuild_between, plan.chunk_between);
                self.rotate(Plan { rebuild, new_chunk, ..Plan::default() })?;
            }
            self.append(Body { transaction, key, value })?;
            state[key as usize - 1] = value;
        }
        if plan.clean {
            self.clean(transaction)?;
        }
        if self.fault == Fault::CommitBeforeSlot {
            return Ok(());
        }
        self.commit(transaction, self.end(), state)
    }

    fn committed(&self) -> u64 {
        self.memory.commit.held()
    }

    fn view(&self) -> View {
        View::unpack(self.memory.views[self.memory.view.held() as usize].held())
    }

    /// The place after the last whole record.
    fn end(&self) -> u64 {
        let last = self.view().last;
        address(last, self.memory.chunks[last].used.held() as usize)
    }

    /// Where the last committed transaction ended.
    fn committed_end(&self) -> u64 {
        self.memory.blocks[self.half(self.committed())].end.held()
    }

    fn half(&self, transaction: u64) -> usize {
        if self.fault == Fault::BlockInPlace { 0 } else { transaction as usize % 2 }
    }

    /// The key's slot, or the one that a new key gets, and the address in it.
    fn slot(&self, key: u64) -> (&Word, u64) {
        let mut free = None;
        for slot in &self.memory.indexes[self.view().index] {
            let at = slot.held();
            match at {
                NOTHING => return free.unwrap_or((slot, at)),
                FREED => free = free.or(Some((slot, at))),
                _ if Body::unpack(self.memory.record(at).body.held()).key == key => return (slot, at),
                _ => {}
            }
        }
        free.expect("a slot is free")
    }

    fn append(&self, body: Body) -> Result<(), Killed> {
        let (slot, before) = self.slot(body.key);
        let end = self.end();
        let record = self.memory.record(end);
        let write_record = || {
            self.fill(&record.body, body.pack(), Relaxed)?;
            self.store(&record.link, memory::pack_link(before), Relaxed)
        };
        let used = &self.memory.chunks[chunk_of(end)].used;
        let publish_used = || self.store(used, position_of(end) as u64 + 1, Release);
        let publish_slot = || self.store(slot, end, self.release_unless(Fault::SlotRelaxed));
        match self.fault {
            Fault::SlotBeforeRecord => {
                publish_slot()?;
                write_record()?;
                publish_used()
            }
            Fault::SlotBeforeUsed => {
                write_record()?;
                publish_slot()?;
                publish_used()
            }
            _ => {
                write_record()?;
                publish_used()?;
                publish_slot()
            }
        }
    }

    fn commit(&self, transaction: u64, end: u64, state: memory::State) -> Result<(), Killed> {
        if self.fault == Fault::BlockAfterCommit {
            self.publish(transaction, state)?;
            return self.write_block(transaction, end, state);
        }
        self.write_block(transaction, end, state)?;
        self.publish(transaction, state)
    }

    fn write_block(&self, transaction: u64, end: u64, state: memory::State) -> Result<(), Killed> {
        let block = &self.memory.blocks[self.half(transaction)];
        let order = self.release_unless(Fault::BlockRelaxed);
        self.fill(&block.transaction, transaction, order)?;
        self.store(&block.end, end, order)?;
        self.fill(&block.entries, entries(state), order)
    }

    fn publish(&self, transaction: u64, state: memory::State) -> Result<(), Killed> {
        if self.stores_left.get() > 0 {
            let mut history = self.memory.history.lock().unwrap();
            assert_eq!(history.len() as u64, transaction);
            history.push(state);
        }
        self.store(&self.memory.commit, transaction, self.release_unless(Fault::CommitRelaxed))
    }

    /// New files, then a new view, then what it does not name is unlinked.
    fn rotate(&self, plan: Plan) -> Result<(), Killed> {
        let mut view = self.view();
        if plan.new_chunk && view.last == 0 {
            view.last = 1;
            self.fill(&self.memory.chunks[1].used, 0, Relaxed)?;
        }
        if plan.rebuild {
            let (old, new) = (&self.memory.indexes[view.index], &self.memory.indexes[1 - view.index]);
            // What is deleted but not committed may have to be undone.
            let alive = |at: &u64| {
                let body = |at: u64| Body::unpack(self.memory.record(at).body.held());
                *at > FREED && (body(*at).value != 0 || body(*at).transaction > self.committed())
            };
            let live = old.iter().map(|slot| slot.held()).filter(alive).chain(std::iter::repeat(NOTHING));
            for (slot, at) in new.iter().zip(live) {
                self.fill(slot, at, Relaxed)?;
            }
            view.index = 1 - view.index;
        }
        let dropped = plan.drop_first.then_some(view.first);
        if plan.drop_first {
            view.first = view.last;
        }
        self.publish_view(view, dropped)
    }

    fn publish_view(&self, view: View, dropped: Option<usize>) -> Result<(), Killed> {
        let number = self.memory.view.held() + 1;
        self.fill(&self.memory.views[number as usize], view.pack(), Relaxed)?;
        self.store(&self.memory.view, number, self.release_unless(Fault::ViewRelaxed))?;
        if let Some(chunk) = dropped {
            self.store(&self.memory.chunks[chunk].unlinked, 1, Release)?;
        }
        Ok(())
    }

    /// "Cleaning" of docs/live.md, for the whole first chunk at once.
    fn clean(&self, transaction: u64) -> Result<(), Killed> {
        let view = self.view();
        assert!(view.first != view.last || self.fault == Fault::CleanLastChunk);
        let oldest = &self.memory.chunks[view.first];
        for position in 0..oldest.used.held() as usize {
            let body = Body::unpack(oldest.records[position].body.held());
            let (slot, at) = self.slot(body.key);
            if at != address(view.first, position) {
                continue;
            }
            if body.value == 0 {
                if !self.last_chunk_began_after(body.transaction) {
                    break;
                }
                self.store(slot, FREED, Release)?;
            } else {
                self.append(Body { transaction, ..body })?;
            }
        }
        if self.fault == Fault::DropBeforeCommit {
            self.publish_view(View { first: view.last, ..view }, Some(view.first))?;
        }
        Ok(())
    }

    /// Whether the first record of the last chunk is of a later transaction.
    fn last_chunk_began_after(&self, transaction: u64) -> bool {
        let last = &self.memory.chunks[self.view().last];
        let began = || Body::unpack(last.records[0].body.held()).transaction;
        [Fault::FreeInOwnChunk, Fault::CleanLastChunk].contains(&self.fault)
            || last.used.held() > 0 && began() > transaction
    }

    /// "Killed writers" of docs/live.md.
    fn repair(&self) -> Result<(), Killed> {
        let (from, to) = (self.committed_end(), self.end());
        if from == to || self.fault == Fault::NoRepair {
            return Ok(());
        }
        let mut records: Vec<u64> = if chunk_of(from) == chunk_of(to) {
            (from..to).rev().collect()
        } else {
            // The transaction went on in the next chunk, or began there.
            let used = self.memory.chunks[chunk_of(from)].used.held() as usize;
            let before = from..address(chunk_of(from), used);
            before.chain(address(chunk_of(to), 0)..to).rev().collect()
        };
        if self.fault == Fault::RepairForward {
            records.reverse();
        }
        for at in records {
            let record = self.memory.record(at);
            let body = Body::unpack(record.body.held());
            let link = record.link.held();
            let (slot, now) = self.slot(body.key);
            if now == at && self.fault != Fault::RepairKeepsSlots {
                // Never empty again: a key may have been placed behind this slot when the index was rebuilt.
                self.store(slot, memory::unpack_link(link).max(FREED), Release)?;
            }
            self.store(&record.link, link | ABORTED, Release)?;
        }
        let transaction = self.committed() + 1;
        self.commit(transaction, to, self.memory.state(transaction - 1))
    }
}

/// Number of keys that a state has.
pub(crate) fn entries(state: memory::State) -> u64 {
    KEYS.iter().filter(|&&key| state[key as usize - 1] != 0).count() as u64
}
