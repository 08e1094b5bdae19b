//! Which keys changed between two commits, read from the log.

use std::collections::HashMap;

use crate::chunk::Record;
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
    /// Each key once, in order of the first change, with what the last change gave it: the caller's byte and the value.
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

impl ChangedKey {
    fn of(record: &Record<'_>) -> Self {
        let meta = if record.is_deleted() { 0 } else { record.meta() };
        // The value of a deletion has no bytes.
        Self { key: record.key().to_vec(), meta, value: record.value().to_vec() }
    }
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
        // The newest record of each key, at the place of its first one.
        let mut records = Vec::new();
        let mut places = HashMap::new();
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
                if counts {
                    let place = *places.entry(record.key()).or_insert(records.len());
                    if place < records.len() {
                        records[place] = record;
                    } else {
                        records.push(record);
                    }
                }
            }
        }
        changes.keys = records.iter().map(ChangedKey::of).collect();
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
