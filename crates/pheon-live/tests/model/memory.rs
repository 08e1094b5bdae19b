//! The words that processes share, laid out as in docs/live.md but tiny, and the oracle that readers are compared with.

use std::sync::Mutex;
use std::sync::atomic;

use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::{self, Relaxed};

/// Two keys, both hashing to slot 0, so that every lookup of the second one probes past the first.
pub(crate) const KEYS: [u64; 2] = [1, 2];
/// Address of no record.
pub(crate) const NOTHING: u64 = 0;
/// Address in a slot whose key was dropped.
pub(crate) const FREED: u64 = 1;
/// Flag in a record's link: its transaction was cut short.
pub(crate) const ABORTED: u64 = 1 << 32;

const SLOTS: usize = 2;
/// Most records in a chunk.
const RECORDS: usize = 8;
const FIRST_ADDRESS: u64 = 2;
/// Tells a link that was written from memory that was not.
const WRITTEN: u64 = 1 << 40;

/// What each key's value is; 0: missing.
pub(crate) type State = [u64; 2];

/// One word of shared memory.
///
/// Readers use [`Word::load`]. A writer holds the writers' mutex, so what it loads is what was stored last: [`Word::held`] is that, and
/// no step of the model. (A load by the thread that stores would also make loom 0.7 forget that a reader's load before it races with
/// the store: it remembers one last access of a word, whoever made it.)
pub(crate) struct Word {
    shared: AtomicU64,
    last: atomic::AtomicU64,
}

impl Word {
    fn new(value: u64) -> Self {
        Self { shared: AtomicU64::new(value), last: atomic::AtomicU64::new(value) }
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.shared.load(order)
    }

    pub(crate) fn held(&self) -> u64 {
        self.last.load(Relaxed)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.shared.store(value, order);
        self.last.store(value, Relaxed);
    }
}

/// All shared memory of one map. Files that do not exist yet are there, and unused.
pub(crate) struct Memory {
    pub(crate) view: Word,
    pub(crate) commit: Word,
    pub(crate) blocks: [Block; 2],
    pub(crate) indexes: [[Word; SLOTS]; 2],
    pub(crate) chunks: [Chunk; 2],
    /// `view-<n>`, packed by [`View::pack`]; view 0 is not used.
    pub(crate) views: [Word; 4],
    /// Outside of the map, for checks only: the state that each commit number stands for.
    pub(crate) history: Mutex<Vec<State>>,
}

/// Commit block; of its eight words those that the model needs.
pub(crate) struct Block {
    pub(crate) transaction: Word,
    pub(crate) end: Word,
    pub(crate) entries: Word,
}

/// One `log-<c>`. `used` is the number of whole records.
pub(crate) struct Chunk {
    pub(crate) used: Word,
    pub(crate) unlinked: Word,
    pub(crate) records: Vec<Record>,
}

/// A record's fields in two words, so that one without the other can be told.
pub(crate) struct Record {
    pub(crate) body: Word,
    pub(crate) link: Word,
}

/// What [`Record::body`] holds.
#[derive(Clone, Copy)]
pub(crate) struct Body {
    pub(crate) transaction: u64,
    pub(crate) key: u64,
    /// 0: deleted.
    pub(crate) value: u64,
}

/// Which files make the map.
#[derive(Clone, Copy)]
pub(crate) struct View {
    pub(crate) index: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

fn word() -> Word {
    Word::new(0)
}

fn words<const N: usize>() -> [Word; N] {
    std::array::from_fn(|_| word())
}

impl Memory {
    /// A new map: view 1 with index 0 and chunk 0, nothing committed. `sizes`: records for which the chunks have room (loom looks at
    /// every word at every fence, so they are as small as a scenario allows).
    pub(crate) fn new(sizes: [usize; 2]) -> Self {
        let chunk = |size| Chunk {
            used: word(),
            unlinked: word(),
            records: (0..size).map(|_| Record { body: word(), link: word() }).collect(),
        };
        let memory = Self {
            view: Word::new(1),
            commit: word(),
            blocks: std::array::from_fn(|_| Block { transaction: word(), end: word(), entries: word() }),
            indexes: [words(), words()],
            chunks: sizes.map(chunk),
            views: words(),
            history: Mutex::new(vec![[0, 0]]),
        };
        memory.views[1].store(View { index: 0, first: 0, last: 0 }.pack(), Relaxed);
        memory.blocks[0].end.store(address(0, 0), Relaxed);
        memory
    }

    pub(crate) fn record(&self, address: u64) -> &Record {
        &self.chunks[chunk_of(address)].records[position_of(address)]
    }

    /// The state that transaction `commit` left.
    pub(crate) fn state(&self, commit: u64) -> State {
        self.history.lock().unwrap()[commit as usize]
    }
}

/// Address of a chunk's record; also of the place after its last one.
pub(crate) fn address(chunk: usize, position: usize) -> u64 {
    FIRST_ADDRESS + (chunk * (RECORDS + 1) + position) as u64
}

pub(crate) fn chunk_of(address: u64) -> usize {
    (address - FIRST_ADDRESS) as usize / (RECORDS + 1)
}

pub(crate) fn position_of(address: u64) -> usize {
    (address - FIRST_ADDRESS) as usize % (RECORDS + 1)
}

impl Body {
    pub(crate) fn pack(self) -> u64 {
        self.transaction << 16 | self.key << 8 | self.value
    }

    /// Panics if the record was not written before it was read.
    pub(crate) fn unpack(word: u64) -> Self {
        let body = Self { transaction: word >> 16, key: word >> 8 & 255, value: word & 255 };
        assert!(body.transaction > 0 && KEYS.contains(&body.key), "torn record: no body");
        body
    }
}

/// What [`Record::link`] holds: the address that the slot had before.
pub(crate) fn pack_link(before: u64) -> u64 {
    WRITTEN | before
}

/// Panics if the record was not written before it was read.
pub(crate) fn unpack_link(word: u64) -> u64 {
    assert!(word & WRITTEN != 0, "torn record: no link");
    word & !(WRITTEN | ABORTED)
}

impl View {
    pub(crate) fn pack(self) -> u64 {
        1 << 24 | (self.index << 16 | self.first << 8 | self.last) as u64
    }

    /// Panics if the file was not written before its number was published.
    pub(crate) fn unpack(word: u64) -> Self {
        assert!(word >> 24 == 1, "torn view");
        let byte = |shift: u64| (word >> shift & 255) as usize;
        Self { index: byte(16), first: byte(8), last: byte(0) }
    }

    pub(crate) fn has(self, chunk: usize) -> bool {
        (self.first..=self.last).contains(&chunk)
    }
}
