//! Which keys changed between two commits, read from the log.

use std::collections::HashSet;

use crate::error::LiveError;
use crate::layout::{Address, FILE_HEAD_BYTES};
use crate::shared::Shared;

/// A place in a map's history: everything up to a commit was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub(crate) txn: u64,
    pub(crate) end: Address,
}

impl Position {
    /// The number of the last transaction seen.
    pub fn sequence(&self) -> u64 {
        self.txn
    }
}

/// What changed since a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Each key once, with its caller's byte and, of a key that is set, the first bytes of its newest record's value, in
    /// order of the first change.
    pub keys: Vec<ChangedKey>,
    /// Whether the log did not go back to the position: then `keys` may lack any.
    pub truncated: bool,
}

/// A key that was set or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangedKey {
    /// Its bytes.
    pub key: Vec<u8>,
    /// The caller's byte of the record, 0 for a deletion.
    pub meta: u8,
    /// The record's value, empty for a deletion.
    pub value: Vec<u8>,
}

pub(crate) fn position(shared: &Shared) -> Position {
    let block = shared.ctrl.block();
    Position { txn: block.txn, end: block.end() }
}

/// What others than `but_by` changed after `from`, and the position after it.
pub(crate) fn since(shared: &Shared, from: Position, but_by: Option<u32>) -> Result<(Changes, Position), LiveError> {
    loop {
        let view = shared.view()?;
        let block = shared.ctrl.block();
        let now = Position { txn: block.txn, end: block.end() };
        let mut changes = Changes::default();
        if now.txn == from.txn {
            return Ok((changes, now));
        }
        let first = view.chunks.iter().position(|chunk| chunk.number() == from.end.chunk());
        changes.truncated = first.is_none();
        let mut seen = HashSet::new();
        for (i, chunk) in view.chunks.iter().enumerate().skip(first.unwrap_or(0)) {
            let mut at = if Some(i) == first { from.end.offset() } else { FILE_HEAD_BYTES };
            while at < chunk.used() {
                let Some(record) = chunk.record(at) else { break };
                at += record.bytes as usize;
                let counts = record.txn() > from.txn
                    && record.txn() <= now.txn
                    && !record.is_aborted()
                    && !record.is_moved()
                    && but_by != Some(record.writer());
                if counts && seen.insert(record.key()) {
                    let meta = if record.is_deleted() { 0 } else { record.meta() };
                    let value = if meta == 0 { Vec::new() } else { record.value().to_vec() };
                    changes.keys.push(ChangedKey { key: record.key().to_vec(), meta, value });
                }
            }
        }
        // A later view may have the chunks of this commit that this one lacks.
        if shared.ctrl.view() == view.number || view.chunk(now.end.chunk()).is_some() {
            return Ok((changes, now));
        }
        if shared.ctrl.is_unlinked() {
            changes.truncated = true;
            return Ok((changes, now));
        }
    }
}
