//! A view: which index and which chunks there are. Immutable; a newer one replaces it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pheon_os::fs::FileSystem;
use xxhash_rust::xxh3::xxh3_64;

use crate::chunk::{Chunk, Record, chunk_path};
use crate::error::LiveError;
use crate::index::{Index, SLOTS_MAX_LOG2, SLOTS_MIN_LOG2, index_path};
use crate::layout::{
    Address, CHUNK_BYTES_OPENED_MAX, CHUNK_NUMBERS, EMPTY, FILE_HEAD_BYTES, FREED, VIEW_MAGIC, chunk_distance,
    next_chunk, tag_bits,
};

/// 7 words and one a chunk.
const VIEW_BYTES_MAX: u64 = (7 + CHUNK_NUMBERS as u64) * 8;

/// The files of a view, mapped.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) number: u64,
    pub(crate) index: Arc<Index>,
    /// Oldest first, never empty; numbers ascend by one.
    pub(crate) chunks: Vec<Arc<Chunk>>,
    first: u32,
    log_bytes: u64,
}

pub(crate) fn view_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("view-{number}"))
}

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Its chunk is not in this view: there is a newer view.
    Elsewhere,
    /// There can be no record.
    Damaged,
}

/// Where a key's slot is.
pub(crate) enum Place<'a> {
    /// The slot names the newest record of this key.
    Taken { slot: usize, record: Record<'a> },
    /// No slot is the key's; this one may become it. `was` is [`EMPTY`] or [`FREED`].
    Vacant { slot: usize, was: u64 },
}

impl View {
    pub(crate) fn new(number: u64, index: Arc<Index>, chunks: Vec<Arc<Chunk>>) -> Self {
        let first = chunks.first().map_or(0, |chunk| chunk.number());
        let log_bytes = chunks.iter().map(|chunk| chunk.bytes() as u64).sum();
        Self { number, index, chunks, first, log_bytes }
    }

    /// Maps the files of a view; those that `known` has are not mapped again.
    ///
    /// # Errors
    /// An I/O error of kind `NotFound` when the view, or a file of it, is gone: a newer one is current.
    pub(crate) fn open(
        fs: &dyn FileSystem,
        dir: &Path,
        number: u64,
        known: Option<&View>,
        writable: bool,
    ) -> Result<Self, LiveError> {
        let plan = Plan::read(fs, dir, number)?;
        let index = match known.filter(|known| known.index.number() == plan.index) {
            Some(known) => known.index.clone(),
            None => Arc::new(Index::open(fs, dir, plan.index, plan.slots_log2, writable)?),
        };
        let mut chunks = Vec::with_capacity(plan.chunks.len());
        let mut chunk_number = plan.first;
        for bytes in plan.chunks {
            let known = known.and_then(|view| view.chunk(chunk_number)).filter(|c| c.bytes() as u64 == bytes);
            chunks.push(match known {
                Some(chunk) => chunk.clone(),
                None => Arc::new(Chunk::open(fs, dir, chunk_number, bytes, writable)?),
            });
            chunk_number = next_chunk(chunk_number);
        }
        Ok(Self::new(number, index, chunks))
    }

    /// Writes the view's file, after telling a new chunk where the one before it ends. A file of that name is a leftover.
    pub(crate) fn write(&self, fs: &dyn FileSystem, dir: &Path, mode: u32) -> Result<(), LiveError> {
        if let [.., last, tail] = self.chunks.as_slice()
            && tail.used() == FILE_HEAD_BYTES
        {
            tail.set_before(last.used());
        }
        let path = view_path(dir, self.number);
        let bytes = self.encode();
        let map = crate::files::create(fs, &path, bytes.len() as u64, mode)?;
        map.write(0, &bytes);
        drop(map);
        self.remove_left(fs, dir);
        Ok(())
    }

    /// Removes what writers left that were killed after publishing a view, or failed to remove the files of the one before:
    /// the files that a view before the current one names, and neither that one nor this one, which follows it.
    fn remove_left(&self, fs: &dyn FileSystem, dir: &Path) {
        let current = self.number - 1;
        let mut before =
            (1..current).rev().map_while(|number| Some((number, Plan::read(fs, dir, number).ok()?))).peekable();
        if before.peek().is_none() {
            return;
        }
        let Ok(kept) = Plan::read(fs, dir, current) else { return };
        for (number, left) in before {
            let chunks = (0..left.chunks.len()).scan(left.first, |next, _| {
                let chunk = *next;
                *next = next_chunk(chunk);
                Some(chunk)
            });
            for chunk in chunks.filter(|&chunk| self.chunk(chunk).is_none() && !kept.has_chunk(chunk)) {
                crate::files::remove(fs, &chunk_path(dir, chunk));
            }
            if left.index != self.index.number() && left.index != kept.index {
                crate::files::remove(fs, &index_path(dir, left.index));
            }
            crate::files::remove(fs, &view_path(dir, number));
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut words = vec![
            VIEW_MAGIC,
            self.number,
            self.index.number(),
            u64::from(self.index.log2()),
            u64::from(self.first),
            self.chunks.len() as u64,
        ];
        words.extend(self.chunks.iter().map(|chunk| chunk.bytes() as u64));
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    #[inline]
    pub(crate) fn chunk(&self, number: u32) -> Option<&Arc<Chunk>> {
        self.chunks.get(chunk_distance(number, self.first) as usize)
    }

    /// The chunk that records are appended to.
    pub(crate) fn tail(&self) -> &Arc<Chunk> {
        self.chunks.last().expect("a view has a chunk: it is checked when one is opened, and none drops the last")
    }

    pub(crate) fn oldest(&self) -> &Arc<Chunk> {
        &self.chunks[0]
    }

    /// Bytes of all chunks.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    #[inline]
    pub(crate) fn record(&self, address: Address) -> Result<Record<'_>, Lost> {
        let chunk = self.chunk(address.chunk()).ok_or(Lost::Elsewhere)?;
        chunk.record(address.offset()).ok_or(Lost::Damaged)
    }

    /// Where the slot of a key is.
    pub(crate) fn place(&self, hash: u64, key: &[u8]) -> Result<Place<'_>, Lost> {
        let tag = tag_bits(hash);
        let mut slot = self.index.home(hash);
        let mut vacant = None;
        for _ in 0..self.index.slots() {
            let word = self.index.load(slot);
            if word == EMPTY {
                let (slot, was) = vacant.unwrap_or((slot, EMPTY));
                return Ok(Place::Vacant { slot, was });
            }
            if word == FREED {
                vacant.get_or_insert((slot, FREED));
            } else if tag_bits(word) == tag {
                let record = self.record(Address::of_word(word))?;
                if record.key() == key {
                    return Ok(Place::Taken { slot, record });
                }
            }
            slot = self.index.next(slot);
        }
        vacant.map(|(slot, was)| Place::Vacant { slot, was }).ok_or(Lost::Damaged)
    }

    /// The slot that names this record, whose key has this hash, if one does.
    pub(crate) fn slot_of(&self, record: &Record<'_>, hash: u64) -> Option<usize> {
        let address = record.address().bits();
        let mut slot = self.index.home(hash);
        for _ in 0..self.index.slots() {
            let word = self.index.load(slot);
            if word == EMPTY {
                return None;
            }
            if word > FREED && Address::of_word(word).bits() == address {
                return Some(slot);
            }
            slot = self.index.next(slot);
        }
        None
    }

    /// The last record of a chain, from this address back, that transaction `commit` covers.
    #[inline]
    pub(crate) fn as_of(&self, mut address: Address, commit: u64) -> Result<Option<Record<'_>>, Lost> {
        let mut later = (u64::MAX, u32::MAX, usize::MAX);
        while address.is_some() {
            let record = self.record(address)?;
            let txn = record.txn();
            if txn <= commit {
                return Ok(Some(record));
            }
            // Records before are of earlier transactions or earlier in the log, so damage cannot make this go round.
            let place = (txn, chunk_distance(address.chunk(), self.first), address.offset());
            if place >= later {
                return Err(Lost::Damaged);
            }
            later = place;
            address = record.before();
        }
        Ok(None)
    }
}

/// What a view's file says.
struct Plan {
    index: u64,
    slots_log2: u32,
    first: u32,
    chunks: Vec<u64>,
}

impl Plan {
    fn read(fs: &dyn FileSystem, dir: &Path, number: u64) -> Result<Self, LiveError> {
        let path = view_path(dir, number);
        let bytes = fs.read(&path, VIEW_BYTES_MAX).map_err(|e| LiveError::io("read", &path, e))?;
        Self::decode(&bytes, number).map_err(|problem| LiveError::corrupt(&path, problem))
    }

    fn has_chunk(&self, number: u32) -> bool {
        (chunk_distance(number, self.first) as usize) < self.chunks.len()
    }

    fn decode(bytes: &[u8], number: u64) -> Result<Self, String> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [VIEW_MAGIC, of, index, slots_log2, first, count, chunks @ .., sum] = words.as_slice() else {
            return Err(format!("{} bytes that begin no view", bytes.len()));
        };
        if !rest.is_empty() || *sum != xxh3_64(&bytes[..bytes.len() - 8]) {
            return Err("its checksum is wrong".to_owned());
        }
        let good_chunk = |&bytes: &u64| (FILE_HEAD_BYTES as u64..=CHUNK_BYTES_OPENED_MAX).contains(&bytes);
        if *of != number
            || *count != chunks.len() as u64
            || chunks.is_empty()
            || !(u64::from(SLOTS_MIN_LOG2)..=u64::from(SLOTS_MAX_LOG2)).contains(slots_log2)
            || *first >= u64::from(CHUNK_NUMBERS)
            || !chunks.iter().all(good_chunk)
        {
            return Err("its fields contradict each other".to_owned());
        }
        Ok(Self { index: *index, slots_log2: *slots_log2 as u32, first: *first as u32, chunks: chunks.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writers were killed before they removed what an old view names, and the view that is current names some of it, too.
    #[test]
    fn only_what_neither_view_names_is_removed() {
        let (dir, fs) = (tempfile::tempdir().unwrap(), pheon_os::fs::real());
        let chunk = |number| Arc::new(Chunk::create(&*fs, dir.path(), number, 4096, 0o600).unwrap());
        let index = |number| Arc::new(Index::create(&*fs, dir.path(), number, SLOTS_MIN_LOG2, 0o600).unwrap());
        let (first, second, old, new) = (chunk(0), chunk(1), index(0), index(1));
        let write = |number, index: &Arc<Index>, chunks: &[&Arc<Chunk>]| {
            let chunks = chunks.iter().map(|&chunk| chunk.clone()).collect();
            View::new(number, index.clone(), chunks).write(&*fs, dir.path(), 0o600).unwrap();
            let mut names: Vec<_> = fs.read_dir(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect();
            names.sort();
            names.join(" ")
        };
        let all = "index-0 index-1 log-0 log-1";
        assert_eq!(write(1, &old, &[&first, &second]), format!("{all} view-1"));
        assert_eq!(write(2, &old, &[&first, &second]), format!("{all} view-1 view-2"));
        assert_eq!(write(3, &new, &[&second]), format!("{all} view-2 view-3"), "view 2 is current, and names all");
        assert_eq!(write(4, &new, &[&second]), "index-1 log-1 view-3 view-4");
    }

    #[test]
    fn a_view_is_what_its_fields_can_be() {
        let (least, most) = (u64::from(SLOTS_MIN_LOG2), u64::from(SLOTS_MAX_LOG2));
        let file = |log2: u64, first: u64, count: u64, chunks: &[u64]| {
            let mut bytes: Vec<u8> = [&[VIEW_MAGIC, 7, 3, log2, first, count], chunks]
                .concat()
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .collect();
            bytes.extend(xxh3_64(&bytes).to_le_bytes());
            bytes
        };
        let longest = CHUNK_BYTES_OPENED_MAX;
        let numbers = u64::from(CHUNK_NUMBERS);
        for (bytes, is_one) in [
            (file(least, 0, 1, &[64]), true),
            (file(most, numbers - 1, 2, &[longest, 4096]), true),
            (file(least - 1, 0, 1, &[64]), false),
            (file(most + 1, 0, 1, &[64]), false),
            (file(least, numbers, 1, &[64]), false),
            (file(least, 0, 2, &[64]), false),
            (file(least, 0, 0, &[]), false),
            (file(least, 0, 1, &[56]), false),
            (file(least, 0, 2, &[64, longest + 8]), false),
        ] {
            let plan = Plan::decode(&bytes, 7);
            assert_eq!(plan.is_ok(), is_one, "{:?}", plan.err());
            assert!(Plan::decode(&bytes, 8).is_err(), "of another number");
        }
        let sound = file(least, 5, 3, &[64; 3]);
        for bit in 0..8 * sound.len() {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Plan::decode(&damaged, 7).is_err(), "bit {bit}");
        }
        assert!(Plan::decode(&[sound.as_slice(), b"1234"].concat(), 7).is_err());
        let plan = Plan::decode(&sound, 7).unwrap();
        assert_eq!((plan.index, plan.slots_log2, plan.first, plan.chunks.len()), (3, SLOTS_MIN_LOG2, 5, 3));
        assert_eq!([4, 5, 7, 8].map(|chunk| plan.has_chunk(chunk)), [false, true, true, false]);
    }
}
