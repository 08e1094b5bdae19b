//! How a build divides its memory.

use super::pipeline::{CHUNK_BYTES, CHUNK_ROWS_MAX};

/// Sizes that follow from the memory limit. Rows and what sorting them needs take half of it; while runs are merged
/// their blocks take that half. Index, staged writes and chunks on their way share the rest.
#[derive(Debug, Clone)]
pub(crate) struct Tuning {
    /// Rows are spilled beyond this.
    pub(crate) buffer_bytes: u64,
    /// Input is taken in pieces of about this size...
    pub(crate) piece_bytes: u64,
    /// ...and at most so many rows.
    pub(crate) piece_rows: usize,
    /// Chunks on their way to the data file.
    pub(crate) chunk_bytes: u64,
    pub(crate) chunk_rows: usize,
    /// Blocks of a spilled run; one of each run is in memory while they are merged.
    pub(crate) spill_block_bytes: u64,
    /// Runs merged at once, at least 2.
    pub(crate) fan_in: usize,
    /// Staged writes of all columns.
    pub(crate) staging_bytes: u64,
    /// The index builder's entries.
    pub(crate) index_bytes: u64,
}

/// Each run keeps a file open.
const FAN_IN_MAX: u64 = 128;

impl Tuning {
    /// For a memory limit in bytes.
    pub(crate) fn new(memory_bytes: u64) -> Self {
        let buffer_bytes = memory_bytes / 2;
        let spill_block_bytes = (memory_bytes / 512).clamp(64 << 10, 4 << 20);
        Self {
            buffer_bytes,
            piece_bytes: memory_bytes / 16,
            piece_rows: 1 << 17,
            chunk_bytes: (memory_bytes / 128).clamp(64 << 10, CHUNK_BYTES),
            chunk_rows: CHUNK_ROWS_MAX,
            spill_block_bytes,
            // A run's block may be replaced while chunks that refer to it are still on their way.
            fan_in: (buffer_bytes / (3 * spill_block_bytes)).clamp(2, FAN_IN_MAX) as usize,
            staging_bytes: (memory_bytes / 8).min(64 << 20),
            index_bytes: memory_bytes / 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_limit() {
        for memory in [64 << 20, 1 << 30, 100 << 30] {
            let t = Tuning::new(memory);
            assert!(t.buffer_bytes + t.staging_bytes + t.index_bytes + 8 * t.chunk_bytes <= memory, "{t:?}");
            assert!(3 * t.spill_block_bytes * t.fan_in as u64 <= t.buffer_bytes, "{t:?}");
        }
    }
}
