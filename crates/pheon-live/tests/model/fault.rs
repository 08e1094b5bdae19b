//! Ways to get the protocol wrong: each makes some scenario fail, which shows that the model would notice.

/// One deviation from docs/live.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The protocol as it is written.
    None,
    // Writer.
    SlotBeforeRecord,
    SlotBeforeUsed,
    SlotRelaxed,
    CommitBeforeSlot,
    CommitRelaxed,
    BlockInPlace,
    BlockAfterCommit,
    BlockRelaxed,
    ViewRelaxed,
    // Repair.
    RepairForward,
    RepairKeepsSlots,
    NoRepair,
    // Cleaning.
    DropBeforeCommit,
    CleanLastChunk,
    FreeInOwnChunk,
    // Reader.
    CommitAfterSlot,
    CommitNotAcquired,
    SlotNotAcquired,
    ViewNotAcquired,
    ViewUnchecked,
    ViewCheckedBeforeSlots,
    CommitBeforeViewOnly,
    BlockUnchecked,
    BlockNoFence,
}
