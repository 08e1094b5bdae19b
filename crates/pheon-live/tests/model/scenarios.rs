//! What is explored: a writer that may be killed, then the next ones, in one thread; a reader in the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{Acquire, Release};

use crate::fault::Fault;
use crate::memory::Memory;
use crate::reader::Reader;
use crate::writer::{Plan, Writer};

/// Which writers are killed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    Nobody,
    /// The first writer, before each of its stores.
    Writer,
    /// And the one that repairs, before each of its stores.
    Repair,
}

/// What the reader does meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Looks both keys up at one commit.
    Once,
    /// And again, and knows beforehand what was acknowledged.
    Twice,
    /// One key.
    Get,
    /// The number of entries.
    Len,
}

#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Records for which the chunks have room.
    pub(crate) sizes: [usize; 2],
    /// Before the threads start.
    pub(crate) before: &'static [Plan],
    pub(crate) first: Plan,
    pub(crate) kill: Kill,
    /// The writers that follow; the first of them repairs.
    pub(crate) after: &'static [Plan],
    pub(crate) read: Read,
    /// At most so many preemptions, where all of them would take minutes.
    pub(crate) preemptions: Option<usize>,
}

/// Enough for each mutation to be noticed; without a bound these scenarios take minutes each.
const BOUND: Option<usize> = Some(3);
const NOTHING: Plan = Plan {
    changes: &[],
    new_chunk: false,
    chunk_between: false,
    rebuild: false,
    rebuild_between: false,
    drop_first: false,
    clean: false,
};
const PUT: Plan = Plan { changes: &[(1, 1), (2, 1)], ..NOTHING };
const UPDATE: Plan = Plan { changes: &[(1, 2), (2, 2)], ..NOTHING };
const UPDATE_AND_DELETE: Plan = Plan { changes: &[(1, 2), (2, 0)], ..NOTHING };
const PUT_ONE: Plan = Plan { changes: &[(2, 3)], ..NOTHING };
const CLEAN: Plan = Plan { clean: true, ..NOTHING };
const DROP: Plan = Plan { drop_first: true, ..NOTHING };

/// A transaction of two updates, cut short anywhere, and another one.
pub(crate) const COMMIT: Scenario = Scenario {
    name: "commit",
    sizes: [5, 0],
    before: &[PUT],
    first: UPDATE,
    kill: Kill::Writer,
    after: &[PUT_ONE],
    read: Read::Once,
    preemptions: None,
};
/// Two new keys, whose slots become empty again.
pub(crate) const INSERT: Scenario = Scenario {
    name: "insert",
    sizes: [3, 0],
    before: &[],
    first: PUT,
    after: &[Plan { changes: &[(1, 3)], ..NOTHING }],
    ..COMMIT
};
/// Two transactions, nobody killed, and a reader that looks twice and knows what was acknowledged.
pub(crate) const TWICE: Scenario = Scenario {
    name: "twice",
    sizes: [4, 0],
    first: Plan { changes: &[(1, 2)], ..NOTHING },
    kill: Kill::Nobody,
    read: Read::Twice,
    ..COMMIT
};
/// Two changes of one key, and a repair that is cut short anywhere too.
pub(crate) const REPAIR: Scenario = Scenario {
    name: "repair",
    sizes: [4, 0],
    first: Plan { changes: &[(1, 2), (1, 3)], ..NOTHING },
    kill: Kill::Repair,
    after: &[NOTHING],
    preemptions: BOUND,
    ..COMMIT
};
/// The same with two new keys.
pub(crate) const REPAIR_INSERT: Scenario =
    Scenario { name: "repair of inserts", sizes: [2, 0], before: &[], first: PUT, ..REPAIR };
/// A new index in a new view, then two updates.
pub(crate) const REBUILD: Scenario = Scenario {
    name: "rebuild",
    sizes: [4, 0],
    first: Plan { rebuild: true, ..UPDATE },
    kill: Kill::Writer,
    after: &[NOTHING],
    preemptions: BOUND,
    ..COMMIT
};
/// A new index between the two updates of a transaction.
pub(crate) const REBUILD_BETWEEN: Scenario =
    Scenario { name: "rebuild between changes", first: Plan { rebuild_between: true, ..UPDATE }, ..REBUILD };
/// The same between two updates of one key, which the reader looks up.
pub(crate) const REBUILD_AND_GET: Scenario = Scenario {
    name: "rebuild between changes of one key",
    first: Plan { rebuild_between: true, changes: &[(1, 2), (1, 3)], ..NOTHING },
    read: Read::Get,
    ..REBUILD
};
/// A deleted key that the new index does not have.
pub(crate) const REBUILD_WITHOUT: Scenario = Scenario {
    name: "rebuild without a deleted key",
    sizes: [5, 0],
    first: UPDATE_AND_DELETE,
    after: &[Plan { rebuild: true, ..PUT_ONE }],
    ..REBUILD
};
/// A new chunk in a new view, then two updates.
pub(crate) const NEW_CHUNK: Scenario =
    Scenario { name: "new chunk", sizes: [2, 2], first: Plan { new_chunk: true, ..UPDATE }, ..REBUILD };
/// A transaction goes on in the next chunk.
pub(crate) const CHUNK_BETWEEN: Scenario = Scenario {
    name: "new chunk between changes",
    sizes: [3, 1],
    first: Plan { chunk_between: true, ..UPDATE },
    ..REBUILD
};
/// One that deletes a key does, and the next one cleans: the view does not move after the deletion, so its slot must stay.
pub(crate) const CLEANING_SPANNING: Scenario = Scenario {
    name: "cleaning after a transaction of two chunks",
    sizes: [3, 2],
    first: Plan { changes: &[(2, 0), (1, 2)], chunk_between: true, ..NOTHING },
    kill: Kill::Nobody,
    after: &[CLEAN],
    ..REBUILD
};
/// A chunk is cleaned, again by the next writer, and dropped.
pub(crate) const CLEANING: Scenario = Scenario {
    name: "cleaning",
    sizes: [2, 4],
    before: &[PUT, Plan { new_chunk: true, ..NOTHING }],
    first: CLEAN,
    after: &[CLEAN, DROP],
    preemptions: Some(2),
    ..REBUILD
};
/// The same with nobody killed and nothing dropped.
pub(crate) const CLEANING_ONLY: Scenario = Scenario { kill: Kill::Nobody, after: &[], ..CLEANING };
/// A key is deleted and its slot freed.
pub(crate) const CLEANING_DELETED: Scenario = Scenario {
    name: "cleaning of a deleted key",
    sizes: [4, 1],
    first: UPDATE_AND_DELETE,
    kill: Kill::Nobody,
    after: &[Plan { new_chunk: true, ..NOTHING }, CLEAN],
    ..REBUILD
};
/// The same, when the reader looks one key up.
pub(crate) const CLEANING_AND_GET: Scenario = Scenario {
    name: "cleaning and get",
    first: Plan { changes: &[(1, 0)], ..NOTHING },
    read: Read::Get,
    ..CLEANING_DELETED
};
/// What must not be: the last chunk is cleaned, so the view does not tell readers of it.
pub(crate) const CLEANING_LAST: Scenario =
    Scenario { name: "cleaning of the last chunk", sizes: [6, 0], after: &[CLEAN], ..CLEANING_DELETED };
/// `len` while two transactions change it.
pub(crate) const LEN: Scenario = Scenario {
    name: "len",
    sizes: [5, 0],
    before: &[PUT],
    first: Plan { changes: &[(1, 0)], ..NOTHING },
    kill: Kill::Writer,
    after: &[Plan { changes: &[(2, 0)], ..NOTHING }],
    read: Read::Len,
    preemptions: BOUND,
};

/// Whether the writer and the one that repairs were killed; how many executions there were.
struct Explored {
    killed: [bool; 2],
    executions: usize,
}

/// All executions of a scenario in which the first writer makes `stores[0]` stores, the one that repairs `stores[1]`.
fn explore_one(scenario: Scenario, fault: Fault, stores: [usize; 2]) -> Explored {
    let executions = Arc::new(AtomicUsize::new(0));
    let killed = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    let (count, was_killed) = (Arc::clone(&executions), Arc::clone(&killed));
    let mut model = loom::model::Builder::new();
    model.max_branches = 10_000;
    model.preemption_bound = scenario.preemptions;
    model.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let memory = Arc::new(Memory::new(scenario.sizes));
        for &plan in scenario.before {
            Writer::new(&memory, Fault::None).transaction(plan).unwrap();
        }
        let mut reader = Reader::new(&memory, fault);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writers = {
            let (memory, killed, acknowledged) =
                (Arc::clone(&memory), Arc::clone(&was_killed), Arc::clone(&acknowledged));
            loom::thread::spawn(move || {
                let cut_short = |writer: usize, plan: Plan| {
                    let ended = Writer::killed_after(&memory, fault, stores[writer]).transaction(plan);
                    killed[writer].store(ended.is_err(), Ordering::Relaxed);
                    ended.is_err()
                };
                if cut_short(0, scenario.first) && scenario.kill == Kill::Repair {
                    cut_short(1, NOTHING);
                }
                for &plan in scenario.after {
                    if scenario.read == Read::Twice {
                        acknowledged.store(memory.commit.held(), Release);
                    }
                    Writer::new(&memory, fault).transaction(plan).unwrap();
                }
            })
        };
        match scenario.read {
            Read::Once => reader.check_snapshot(0),
            Read::Get => reader.check_get(1),
            Read::Len => reader.check_len(),
            Read::Twice => {
                let before = acknowledged.load(Acquire);
                reader.check_snapshot(before);
                reader.check_snapshot(before);
            }
        }
        writers.join().unwrap();
        reader.check_snapshot(memory.commit.held());
    });
    Explored {
        killed: [0, 1].map(|writer: usize| killed[writer].load(Ordering::Relaxed)),
        executions: executions.load(Ordering::Relaxed),
    }
}

/// All executions of a scenario, with its writers killed before each of their stores.
pub(crate) fn explore(scenario: Scenario, fault: Fault) {
    let (mut executions, mut cuts) = (0, 0);
    let first_cuts = if scenario.kill == Kill::Nobody { usize::MAX..usize::MAX } else { 0..usize::MAX };
    for first in first_cuts.chain([usize::MAX]) {
        let repair_cuts = if scenario.kill == Kill::Repair { 0..usize::MAX } else { usize::MAX..usize::MAX };
        let mut killed = false;
        for second in repair_cuts.chain([usize::MAX]) {
            let explored = explore_one(scenario, fault, [first, second]);
            executions += explored.executions;
            cuts += 1;
            killed = explored.killed[0];
            if !explored.killed[1] {
                break;
            }
        }
        if !killed {
            break;
        }
    }
    println!("{}: {executions} executions of {cuts} models", scenario.name);
}
