//! Builds an index in bounded memory.
//!
//! Both buckets of a key lie in one block, so the builder only has to bring the entries of a block together; each block is
//! then filled on its own, within the cache. Entries are distributed when they are pushed: to one list a block if all fit
//! in memory, else to partitions of consecutive blocks in a spill file, one of which is distributed to lists at a time.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use pheon_os::fs::FileSystem;

use super::entry::{ENTRY_BYTES, Entry};
use super::layout::{BUCKET_BYTES, EMPTY_ROW, IndexPlan, SLOTS};
use super::place::{BlockStats, BlockTable, Line, NoSlot};
use super::spill::SpillFile;

/// The name of the spill file in the folder that the caller chose.
const SPILL_NAME: &str = "index-spill.tmp";

/// Threads at most; a block takes about a millisecond, so more would wait for the sink.
const THREADS_MAX: usize = 64;

/// Takes the hash and row of every distinct key, then streams the filled buckets.
pub struct IndexBuilder {
    plan: IndexPlan,
    threads: usize,
    total_buckets: u64,
    pushed: u64,
    entries: Entries,
}

enum Entries {
    /// One list a block.
    Memory(Vec<Vec<Entry>>),
    Spilled {
        file: SpillFile,
        blocks_per_partition: u32,
    },
}

/// What was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Keys placed.
    pub keys: u64,
    /// Buckets written, of 64 bytes each.
    pub buckets: u64,
    /// Keys that are in their secondary bucket: a lookup of one reads two lines.
    pub secondary: u64,
    /// Keys that were moved from primary to secondary to make room for another.
    pub moved: u64,
    /// Overflow bits that are set: a lookup of a missing key reads a second line with probability `overflow_bits / (32 * buckets)`.
    pub overflow_bits: u64,
    /// Bytes that went through the spill file; 0 if all entries fitted in memory.
    pub spilled_bytes: u64,
}

/// The index could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum IndexBuildError {
    /// A key found no slot in its block. Build again with the next plan: nothing of this block reached the sink, but
    /// earlier blocks may have.
    Unplaced {
        /// The block, counted from 0.
        block: u64,
    },
    /// The spill file or the sink failed.
    Io(io::Error),
}

impl fmt::Display for IndexBuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplaced { block } => write!(f, "index block {block}: a key found no slot with this seed and size"),
            Self::Io(_) => f.write_str("writing the index"),
        }
    }
}

impl std::error::Error for IndexBuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unplaced { .. } => None,
            Self::Io(e) => Some(e),
        }
    }
}

impl From<io::Error> for IndexBuildError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl IndexBuilder {
    /// Plans for exactly `plan.keys` keys and about `memory_bytes` of memory, with a floor of about 10 MiB for each of
    /// `threads` threads. If the entries (12 bytes each) do not fit, they are spilled to a file in `spill_dir`, which is
    /// removed with the builder.
    ///
    /// # Panics
    ///
    /// If the plan contradicts itself; no answer of [`IndexPlan::for_keys`] does.
    pub fn new(fs: Arc<dyn FileSystem>, spill_dir: &Path, plan: IndexPlan, memory_bytes: u64, threads: usize) -> Self {
        plan.validate(plan.size_bytes()).expect("a plan for fewer than 2^32 keys");
        let threads = threads.clamp(1, THREADS_MAX).min(plan.blocks as usize);
        let block_keys = plan.keys.div_ceil(plan.blocks);
        // Per thread: the table in work, finished lines waiting for the sink and a list of free ones.
        let table_bytes = u64::from(plan.buckets_per_block) * (BUCKET_BYTES * 4 + size_of::<[u16; SLOTS]>() + 3) as u64;
        let entry_memory = memory_bytes.saturating_sub(table_bytes * threads as u64);
        let block_bytes = list_capacity(block_keys) as u64 * ENTRY_BYTES as u64;
        let entries = if block_bytes * plan.blocks <= entry_memory {
            Entries::Memory(empty_lists(plan.blocks as usize, block_keys))
        } else {
            // Reading a partition back needs a buffer beside the lists: leave it an eighth.
            let blocks_per_partition = ((entry_memory - entry_memory / 8) / block_bytes).clamp(1, plan.blocks) as u32;
            let partitions = plan.blocks.div_ceil(u64::from(blocks_per_partition)) as usize;
            let file = SpillFile::new(fs, &spill_dir.join(SPILL_NAME), partitions, entry_memory);
            Entries::Spilled { file, blocks_per_partition }
        };
        Self { plan, threads, total_buckets: plan.total_buckets(), pushed: 0, entries }
    }

    /// Adds a key by its hash; `row` is the first row that holds it. The order of pushes decides which keys of a full
    /// bucket move, so the same order gives the same bytes, whatever the memory and the number of threads.
    ///
    /// # Errors
    ///
    /// Writing the spill file failed.
    ///
    /// # Panics
    ///
    /// If `row` is 2^32-1, which marks an empty slot.
    #[inline]
    pub fn push(&mut self, hash: u64, row: u32) -> io::Result<()> {
        assert_ne!(row, EMPTY_ROW, "row 2^32-1 marks an empty slot of the index");
        self.pushed += 1;
        let entry = Entry::new(hash, row, self.total_buckets);
        let block = entry.bucket / self.plan.buckets_per_block;
        match &mut self.entries {
            Entries::Memory(lists) => {
                lists[block as usize].push(entry);
                Ok(())
            }
            Entries::Spilled { file, blocks_per_partition } => {
                file.push((block / *blocks_per_partition) as usize, entry)
            }
        }
    }

    /// Adds keys that have one row each: `hashes[i]` belongs to row `first_row + i`.
    ///
    /// # Errors
    ///
    /// Writing the spill file failed.
    pub fn push_many(&mut self, hashes: &[u64], first_row: u32) -> io::Result<()> {
        hashes.iter().zip(first_row..).try_for_each(|(&hash, row)| self.push(hash, row))
    }

    /// Fills the blocks and hands their buckets to `sink`, in order, a whole block of at most 2 MiB a call.
    ///
    /// # Errors
    ///
    /// [`IndexBuildError::Unplaced`] if a key found no slot, [`IndexBuildError::Io`] if the spill file or `sink` failed.
    ///
    /// # Panics
    ///
    /// If the number of keys pushed is not that of the plan.
    pub fn finish(self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<IndexStats, IndexBuildError> {
        assert_eq!(self.pushed, self.plan.keys, "keys pushed to the index, and keys planned");
        let Self { plan, threads, entries, .. } = self;
        let mut output = Output { sink, stats: IndexStats::default() };
        match entries {
            Entries::Memory(lists) => build_blocks(&plan, threads, 0, lists, &mut output)?,
            Entries::Spilled { mut file, blocks_per_partition } => {
                file.flush_all()?;
                output.stats.spilled_bytes = file.len_bytes();
                let step = u64::from(blocks_per_partition);
                for (partition, first) in (0..plan.blocks).step_by(step as usize).enumerate() {
                    let blocks = first..(first + step).min(plan.blocks);
                    let lists = read_partition(&file, partition, &plan, blocks)?;
                    build_blocks(&plan, threads, first, lists, &mut output)?;
                }
            }
        }
        Ok(output.stats)
    }
}

/// Room for the keys of a block: their number varies by its square root; six of those are never exceeded in practice, and
/// if they are, the list grows.
fn list_capacity(block_keys: u64) -> usize {
    (block_keys + 6 * block_keys.isqrt() + 16) as usize
}

fn empty_lists(blocks: usize, block_keys: u64) -> Vec<Vec<Entry>> {
    // A single block gets them all.
    let capacity = if blocks == 1 { block_keys as usize } else { list_capacity(block_keys) };
    std::iter::repeat_with(|| Vec::with_capacity(capacity)).take(blocks).collect()
}

fn read_partition(
    file: &SpillFile,
    partition: usize,
    plan: &IndexPlan,
    blocks: Range<u64>,
) -> Result<Vec<Vec<Entry>>, IndexBuildError> {
    let mut lists = empty_lists((blocks.end - blocks.start) as usize, plan.keys.div_ceil(plan.blocks));
    let first_bucket = blocks.start as u32 * plan.buckets_per_block;
    let mut strays = 0_u64;
    file.read(partition, |entry| {
        let block = entry.bucket.wrapping_sub(first_bucket) / plan.buckets_per_block;
        match lists.get_mut(block as usize) {
            Some(list) => list.push(entry),
            None => strays += 1,
        }
    })?;
    if strays > 0 {
        let problem = format!("the spill file of the index holds {strays} entries that were not written there");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem).into());
    }
    Ok(lists)
}

struct Output<'a> {
    sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    stats: IndexStats,
}

impl Output<'_> {
    fn write(&mut self, keys: u64, lines: &[Line], block: BlockStats) -> Result<(), IndexBuildError> {
        (self.sink)(lines.as_flattened())?;
        self.stats.keys += keys;
        self.stats.buckets += lines.len() as u64;
        self.stats.secondary += block.secondary;
        self.stats.moved += block.moved;
        self.stats.overflow_bits += block.overflow_bits;
        Ok(())
    }
}

/// Builds consecutive blocks from `first_block` on, one a list, and writes them in order.
fn build_blocks(
    plan: &IndexPlan,
    threads: usize,
    first_block: u64,
    lists: Vec<Vec<Entry>>,
    output: &mut Output<'_>,
) -> Result<(), IndexBuildError> {
    let threads = threads.min(lists.len());
    if threads > 1 {
        return build_blocks_threaded(plan, threads, first_block, lists, output);
    }
    let mut table = BlockTable::default();
    for (entries, block) in lists.into_iter().zip(first_block..) {
        let stats = build_block(plan, &mut table, &entries, block)?;
        output.write(entries.len() as u64, &table.lines, stats)?;
    }
    Ok(())
}

fn build_block(
    plan: &IndexPlan,
    table: &mut BlockTable,
    entries: &[Entry],
    block: u64,
) -> Result<BlockStats, IndexBuildError> {
    let first_bucket = block as u32 * plan.buckets_per_block;
    table.build(entries, first_bucket, plan.buckets_per_block).map_err(|NoSlot| IndexBuildError::Unplaced { block })
}

/// A block on its way from a worker to the sink.
struct Built {
    keys: u64,
    lines: Vec<Line>,
    stats: BlockStats,
}

/// Worker `w` of n builds the blocks w, w + n, w + 2n..., and the caller's thread takes from the workers in turn, so that
/// blocks arrive in order. A worker is at most two blocks ahead of the sink.
fn build_blocks_threaded(
    plan: &IndexPlan,
    threads: usize,
    first_block: u64,
    lists: Vec<Vec<Entry>>,
    output: &mut Output<'_>,
) -> Result<(), IndexBuildError> {
    let count = lists.len();
    let mut shares: Vec<Vec<(u64, Vec<Entry>)>> = vec![Vec::new(); threads];
    for (i, entries) in lists.into_iter().enumerate() {
        shares[i % threads].push((first_block + i as u64, entries));
    }
    std::thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        for share in shares {
            let (built_sender, built) = mpsc::sync_channel::<Result<Built, IndexBuildError>>(1);
            let (free, free_lines) = mpsc::channel::<Vec<Line>>();
            std::thread::Builder::new().name("pheon-index".to_owned()).spawn_scoped(scope, move || {
                let mut table = BlockTable::default();
                for (block, entries) in share {
                    let built = build_block(plan, &mut table, &entries, block).map(|stats| {
                        let lines = std::mem::replace(&mut table.lines, free_lines.try_recv().unwrap_or_default());
                        Built { keys: entries.len() as u64, lines, stats }
                    });
                    // The receiver is gone once an earlier block or the sink has failed: nobody wants the rest.
                    if built.is_err() | built_sender.send(built).is_err() {
                        return;
                    }
                }
            })?;
            workers.push((built, free));
        }
        for i in 0..count {
            let (built, free) = &workers[i % threads];
            // A worker ends early only after it has sent an error, which ends this loop first; or by a panic.
            let built = built.recv().map_err(|_| io::Error::other("a thread that builds the index ended early"))??;
            output.write(built.keys, &built.lines, built.stats)?;
            // The worker may have finished its share; then the buffer is of no more use.
            let _ = free.send(built.lines);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_to_a_partition_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let plan = IndexPlan { keys: 100, seed: 0, blocks: 6, buckets_per_block: 10 };
        let entry = |bucket| Entry { bucket, low: 7, row: bucket };
        // A partition of the blocks 2 and 3, as their buckets say.
        for (buckets, strays) in [(vec![20, 39, 31], 0), (vec![20, 19], 1), (vec![40, 31, 0], 2)] {
            let mut file = SpillFile::new(pheon_os::fs::real(), &dir.path().join("spill"), 3, 1 << 20);
            buckets.iter().try_for_each(|&bucket| file.push(1, entry(bucket))).unwrap();
            file.flush_all().unwrap();
            match read_partition(&file, 1, &plan, 2..4) {
                Ok(lists) => assert_eq!((strays, lists), (0, vec![vec![entry(20)], vec![entry(39), entry(31)]])),
                Err(IndexBuildError::Io(error)) => {
                    assert!(strays > 0 && error.to_string().contains(&format!("{strays} entries")), "{error}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}
