//! Each deviation from the protocol is noticed: what the model would say about a wrong one.

use crate::fault::Fault;
use crate::scenarios::{self, explore};

macro_rules! noticed {
    ($($test:ident: $scenario:ident, $fault:ident, $says:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $says)]
            fn $test() {
                explore(scenarios::$scenario, Fault::$fault);
            }
        )*
    };
}

noticed! {
    slot_before_record: COMMIT, SlotBeforeRecord, "torn record";
    slot_before_used: COMMIT, SlotBeforeUsed, "not the state of transaction";
    slot_relaxed: COMMIT, SlotRelaxed, "torn record";
    commit_before_slot: COMMIT, CommitBeforeSlot, "not the state of transaction";
    commit_relaxed: COMMIT, CommitRelaxed, "not the state of transaction";
    block_in_place: COMMIT, BlockInPlace, "not the state of transaction";
    block_after_commit: COMMIT, BlockAfterCommit, "not the state of transaction";
    block_relaxed: LEN, BlockRelaxed, "of another transaction";
    view_relaxed: REBUILD, ViewRelaxed, "torn view";
    repair_forward: REPAIR, RepairForward, "not the state of transaction";
    repair_keeps_slots: COMMIT, RepairKeepsSlots, "not the state of transaction";
    no_repair: COMMIT, NoRepair, "not the state of transaction";
    drop_before_commit: CLEANING_ONLY, DropBeforeCommit, "unknown chunk in the current view";
    clean_last_chunk: CLEANING_LAST, CleanLastChunk, "not the state of transaction";
    free_in_own_chunk: CLEANING_SPANNING, FreeInOwnChunk, "not the state of transaction";
    commit_after_slot: COMMIT, CommitAfterSlot, "not the state of transaction";
    commit_not_acquired: COMMIT, CommitNotAcquired, "not the state of transaction";
    slot_not_acquired: COMMIT, SlotNotAcquired, "torn record";
    view_not_acquired: REBUILD, ViewNotAcquired, "torn view";
    view_unchecked: REBUILD, ViewUnchecked, "not the state of transaction";
    view_unchecked_between_changes: REBUILD_BETWEEN, ViewUnchecked, "not the state of transaction";
    view_unchecked_by_get: REBUILD_AND_GET, ViewUnchecked, "a value that no transaction";
    view_checked_before_slots: CLEANING_DELETED, ViewCheckedBeforeSlots, "not the state of transaction";
    commit_before_view_only: CLEANING, CommitBeforeViewOnly, "unknown chunk in the current view";
    block_unchecked: LEN, BlockUnchecked, "of another transaction";
    block_without_fence: LEN, BlockNoFence, "of another transaction";
}
