//! One file of the log, and the records in it.

use std::path::{Path, PathBuf};

use pheon_os::fs::FileSystem;
use pheon_os::shared::SharedMap;

use crate::error::LiveError;
use crate::layout::{
    ABORTED, ADDRESS_MASK, Address, CHUNK_BYTES_OPENED_MAX, DELETED, FILE_HEAD_BYTES, Head, LAST, LOG_MAGIC,
    META_SHIFT, MOVED, Mark, RECORD_HEAD_BYTES,
};

/// Offsets in a record.
const LINK: usize = 16;
const WRITER: usize = 40;
/// Offsets in a chunk.
const USED: usize = 24;
const BEFORE: usize = 32;
/// Lengths of no record.
const NO_LENGTHS: u64 = u64::MAX;
/// What is cleared at once: so much, or less, of a disk is read and written.
const PAGE_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct Chunk {
    map: SharedMap,
    number: u32,
}

pub(crate) fn chunk_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("log-{number}"))
}

impl Chunk {
    /// Makes an empty chunk. A file of that name is a leftover: no view names it.
    pub(crate) fn create(
        fs: &dyn FileSystem,
        dir: &Path,
        number: u32,
        bytes: u64,
        mode: u32,
    ) -> Result<Self, LiveError> {
        let path = chunk_path(dir, number);
        let map = crate::files::create(fs, &path, bytes, mode)?;
        map.store(0, LOG_MAGIC);
        map.store(8, u64::from(number));
        map.store(16, bytes);
        map.store(USED, FILE_HEAD_BYTES as u64);
        Ok(Self { map, number })
    }

    pub(crate) fn open(
        fs: &dyn FileSystem,
        dir: &Path,
        number: u32,
        bytes: u64,
        writable: bool,
    ) -> Result<Self, LiveError> {
        let path = chunk_path(dir, number);
        let map = fs.map_shared(&path, writable).map_err(|e| LiveError::io("open", &path, e))?;
        let chunk = Self { map, number };
        let found = chunk.map.len_bytes() as u64;
        if found != bytes || !(FILE_HEAD_BYTES as u64..=CHUNK_BYTES_OPENED_MAX).contains(&bytes) {
            return Err(LiveError::corrupt(&path, format!("expected {bytes} bytes, found {found}")));
        }
        let head = [0, 8, 16].map(|at| chunk.map.load_relaxed(at));
        if head != [LOG_MAGIC, u64::from(number), bytes] {
            return Err(LiveError::corrupt(&path, "its head is not that of this chunk"));
        }
        Ok(chunk)
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn bytes(&self) -> usize {
        self.map.len_bytes()
    }

    pub(crate) fn map(&self) -> &SharedMap {
        &self.map
    }

    /// The offset after the last whole record. Whatever the file says, one where a record may be.
    pub(crate) fn used(&self) -> usize {
        (self.map.load(USED) as usize).clamp(FILE_HEAD_BYTES, self.bytes()) & !7
    }

    pub(crate) fn set_used(&self, used: usize) {
        self.map.store(USED, used as u64);
    }

    /// The offset at which the chunk before this one ends; 0 in the first one.
    pub(crate) fn before(&self) -> usize {
        self.map.load(BEFORE) as usize
    }

    /// Set before the first record is written. It lies in the same sector as that one's head, so whoever finds a record there
    /// after a power cut finds it too.
    pub(crate) fn set_before(&self, used: usize) {
        self.map.store(BEFORE, used as u64);
    }

    /// Whether something was written behind the used part: lengths come first.
    #[inline]
    pub(crate) fn has_unpublished(&self, used: usize) -> bool {
        self.bytes() - used >= 8 && self.map.load_relaxed(used) != 0
    }

    /// Makes what lies behind the used part no record, but something.
    pub(crate) fn set_no_record(&self, used: usize) {
        self.map.store(used, NO_LENGTHS);
    }

    /// Clears all from an offset on. For a recovery, and for the holder of the lock behind the used part.
    pub(crate) fn clear_from(&self, offset: usize) {
        let mut at = offset;
        while at < self.bytes() {
            let end = (at / PAGE_BYTES + 1) * PAGE_BYTES;
            let bytes = end.min(self.bytes()) - at;
            // Most of it was never written: to write zeros there would make as much to be synced.
            if self.map.bytes(at, bytes).is_some_and(|found| found.iter().any(|&byte| byte != 0)) {
                self.map.write(at, &[0; PAGE_BYTES][..bytes]);
            }
            at = end;
        }
    }

    /// Writes a record after the used part, without publishing it.
    pub(crate) fn write(&self, offset: usize, head: &Head, key: &[u8], value: &[u8]) {
        let sum = head.checksum(key, value);
        let mut bytes = [0u8; RECORD_HEAD_BYTES];
        bytes[0..4].copy_from_slice(&head.bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&head.key_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&head.txn.to_le_bytes());
        bytes[16..24].copy_from_slice(&head.link.to_le_bytes());
        bytes[24..32].copy_from_slice(&head.order.to_le_bytes());
        bytes[32..36].copy_from_slice(&head.value_len.to_le_bytes());
        bytes[36..40].copy_from_slice(&sum.to_le_bytes());
        bytes[40..44].copy_from_slice(&head.writer.to_le_bytes());
        self.map.write(offset, &bytes);
        self.map.write(offset + RECORD_HEAD_BYTES, key);
        self.map.write(offset + RECORD_HEAD_BYTES + key.len(), value);
        // What follows may have been written before a power cut.
        let end = RECORD_HEAD_BYTES + key.len() + value.len();
        self.map.write(offset + end, &[0; 8][..head.bytes as usize - end]);
    }

    /// Marks a record. The seal first: who finds the flag need not do it again. Nothing else of a record changes.
    pub(crate) fn mark(&self, offset: usize, mark: Mark) {
        let writer = self.map.load_relaxed(offset + WRITER) as u32;
        self.map.store(offset + WRITER, u64::from(mark.seal()) << 32 | u64::from(writer));
        self.map.store(offset + LINK, self.map.load_relaxed(offset + LINK) | mark.flag());
    }

    /// Makes a record's flags what its seal says. Nobody but a recovery may.
    pub(crate) fn set_flags(&self, offset: usize, mark: Option<Mark>) {
        let others = self.map.load_relaxed(offset + LINK) & !(ABORTED | LAST);
        self.map.store(offset + LINK, others | mark.map_or(0, Mark::flag));
    }

    /// The record at an offset; `None` if none can be there.
    #[inline]
    pub(crate) fn record(&self, offset: usize) -> Option<Record<'_>> {
        if offset < FILE_HEAD_BYTES
            || !offset.is_multiple_of(8)
            || offset >= self.bytes()
            || self.bytes() - offset < RECORD_HEAD_BYTES
        {
            return None;
        }
        let lengths = self.map.load_relaxed(offset);
        let (bytes, key_len) = (lengths as u32, (lengths >> 32) as u32);
        let value_len = self.map.load_relaxed(offset + 32) as u32;
        let needed = RECORD_HEAD_BYTES as u64 + u64::from(key_len) + u64::from(value_len);
        if u64::from(bytes) < needed || !bytes.is_multiple_of(8) || self.bytes() - offset < bytes as usize {
            return None;
        }
        Some(Record { chunk: self, offset, bytes, key_len, value_len })
    }
}

/// A published record. Everything but its marks is immutable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    chunk: &'a Chunk,
    offset: usize,
    pub(crate) bytes: u32,
    key_len: u32,
    value_len: u32,
}

impl<'a> Record<'a> {
    #[inline]
    pub(crate) fn txn(&self) -> u64 {
        self.chunk.map.load_relaxed(self.offset + 8)
    }

    #[inline]
    pub(crate) fn link(&self) -> u64 {
        self.chunk.map.load_relaxed(self.offset + LINK)
    }

    /// The address that the slot had before.
    #[inline]
    pub(crate) fn before(&self) -> Address {
        Address::of_word(self.link())
    }

    #[inline]
    pub(crate) fn is_deleted(&self) -> bool {
        self.link() & DELETED != 0
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.link() & ABORTED != 0
    }

    pub(crate) fn is_moved(&self) -> bool {
        self.link() & MOVED != 0
    }

    pub(crate) fn is_last(&self) -> bool {
        self.link() & LAST != 0
    }

    pub(crate) fn meta(&self) -> u8 {
        (self.link() >> META_SHIFT) as u8
    }

    #[inline]
    pub(crate) fn order(&self) -> u64 {
        self.chunk.map.load_relaxed(self.offset + 24)
    }

    pub(crate) fn writer(&self) -> u32 {
        self.chunk.map.load_relaxed(self.offset + WRITER) as u32
    }

    #[inline]
    pub(crate) fn key(&self) -> &'a [u8] {
        self.chunk.map.bytes(self.offset + RECORD_HEAD_BYTES, self.key_len as usize).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn value(&self) -> &'a [u8] {
        let offset = self.offset + RECORD_HEAD_BYTES + self.key_len as usize;
        self.chunk.map.bytes(offset, self.value_len as usize).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> Address {
        Address::new(self.chunk.number, self.offset)
    }

    /// What the seal says; `None` if it was never one.
    pub(crate) fn sealed(&self) -> Option<Option<Mark>> {
        match (self.chunk.map.load_relaxed(self.offset + WRITER) >> 32) as u32 {
            0 => Some(None),
            seal => [Mark::Last, Mark::Aborted].into_iter().find(|mark| mark.seal() == seal).map(Some),
        }
    }

    /// Whether the flags say what the seal says. An aborted record may have been the last one before.
    pub(crate) fn is_as_sealed(&self) -> bool {
        match self.sealed() {
            Some(None) => !self.is_last() && !self.is_aborted(),
            Some(Some(Mark::Last)) => self.is_last() && !self.is_aborted(),
            Some(Some(Mark::Aborted)) => self.is_aborted(),
            None => false,
        }
    }

    /// Whether the record is as it was written, but for its marks.
    pub(crate) fn is_intact(&self) -> bool {
        let head = Head {
            bytes: self.bytes,
            key_len: self.key_len,
            value_len: self.value_len,
            txn: self.txn(),
            link: self.link() & !ADDRESS_MASK,
            order: self.order(),
            writer: self.writer(),
        };
        let stored = (self.chunk.map.load_relaxed(self.offset + 32) >> 32) as u32;
        head.checksum(self.key(), self.value()) == stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 4096;

    fn chunk(dir: &Path) -> Chunk {
        Chunk::create(&*pheon_os::fs::real(), dir, 0, BYTES, 0o600).unwrap()
    }

    fn head() -> Head {
        Head { bytes: 56, key_len: 3, value_len: 4, txn: 1, link: 7 << META_SHIFT, order: 5, writer: 9 }
    }

    #[test]
    fn a_full_chunk_has_nothing_unpublished() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = chunk(dir.path());
        assert!(!chunk.has_unpublished(BYTES as usize) && !chunk.has_unpublished(BYTES as usize - 8));
        chunk.set_no_record(BYTES as usize - 8);
        assert!(chunk.has_unpublished(BYTES as usize - 8) && !chunk.has_unpublished(BYTES as usize - 16));
    }

    #[test]
    fn a_record_lies_wholly_in_its_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = chunk(dir.path());
        let at = FILE_HEAD_BYTES;
        chunk.write(at, &head(), b"key", b"valu");
        assert!(chunk.record(at).is_some_and(|record| record.is_intact() && record.meta() == 7));
        for offset in [0, at - 8, at + 4, BYTES as usize, BYTES as usize - 40, usize::MAX - 7] {
            assert!(chunk.record(offset).is_none(), "at {offset}");
        }
        // Bytes, length of the key, of the value.
        let rest = BYTES as u32 - at as u32;
        let wrong = [
            (0, 3, 4),
            (48, 3, 4),
            (60, 3, 4),
            (rest + 8, 3, 4),
            (56, 8, 1),
            (56, 1, 8),
            (56, u32::MAX, 4),
            (56, 3, u32::MAX),
        ];
        for (bytes, key_len, value_len) in wrong {
            chunk.map.store(at, u64::from(key_len) << 32 | u64::from(bytes));
            chunk.map.store(at + 32, u64::from(value_len));
            assert!(chunk.record(at).is_none(), "{bytes} {key_len} {value_len}");
        }
        for (bytes, key_len, value_len) in [(rest, 3_u32, 4_u32), (56, 8, 0), (56, 0, 8), (48, 0, 0)] {
            chunk.map.store(at, u64::from(key_len) << 32 | u64::from(bytes));
            chunk.map.store(at + 32, u64::from(value_len));
            assert!(chunk.record(at).is_some(), "{bytes} {key_len} {value_len}");
        }
    }

    #[test]
    fn the_end_of_a_chunk_has_room_for_a_record_without_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = chunk(dir.path());
        let at = BYTES as usize - RECORD_HEAD_BYTES;
        chunk.write(at, &Head { bytes: 48, key_len: 0, value_len: 0, ..head() }, b"", b"");
        assert!(chunk.record(at).is_some_and(|record| record.is_intact()));
    }

    #[test]
    fn flags_and_seals_must_agree() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = chunk(dir.path());
        let at = FILE_HEAD_BYTES;
        let [last, aborted] = [Mark::Last, Mark::Aborted].map(Mark::seal);
        for (seal, flags, agree) in [
            (0, 0, true),
            (0, LAST, false),
            (0, ABORTED, false),
            (0, LAST | ABORTED, false),
            (last, LAST, true),
            (last, 0, false),
            (last, ABORTED, false),
            (last, LAST | ABORTED, false),
            (aborted, ABORTED, true),
            (aborted, LAST | ABORTED, true),
            (aborted, 0, false),
            (aborted, LAST, false),
            (last ^ 1, LAST, false),
            (aborted ^ 1 << 31, ABORTED, false),
        ] {
            chunk.write(at, &Head { link: flags, ..head() }, b"key", b"valu");
            chunk.map.store(at + WRITER, u64::from(seal) << 32 | 9);
            let record = chunk.record(at).unwrap();
            assert!(record.is_intact(), "neither is under the checksum");
            assert_eq!(record.is_as_sealed(), agree, "{seal:x} {flags:x}");
        }
        // A transaction that was to be committed and is taken back.
        chunk.write(at, &head(), b"key", b"valu");
        for (mark, link) in [(Mark::Last, LAST), (Mark::Aborted, LAST | ABORTED)] {
            chunk.mark(at, mark);
            let record = chunk.record(at).unwrap();
            assert_eq!((record.sealed(), record.link()), (Some(Some(mark)), 7 << META_SHIFT | link));
            assert!(record.is_intact() && record.is_as_sealed() && record.writer() == 9);
        }
    }

    #[test]
    fn the_used_part_ends_where_a_record_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = Chunk::create(&*pheon_os::fs::real(), dir.path(), 0, 4096, 0o600).unwrap();
        for (told, used) in
            [(0, 64), (63, 64), (64, 64), (72, 72), (79, 72), (4096, 4096), (4097, 4096), (usize::MAX, 4096)]
        {
            chunk.set_used(told);
            assert_eq!(chunk.used(), used, "{told}");
        }
    }

    #[test]
    fn a_chunk_that_is_longer_than_addresses_reach_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fs = pheon_os::fs::real();
        drop(Chunk::create(&*fs, dir.path(), 0, 4096, 0o600).unwrap());
        for (bytes, opens) in [(CHUNK_BYTES_OPENED_MAX, true), (CHUNK_BYTES_OPENED_MAX + 8, false)] {
            // Holes.
            let path = chunk_path(dir.path(), 0);
            fs.unlink(&path).unwrap();
            fs.create_new(&path, 0o600).unwrap().set_len(bytes).unwrap();
            let map = fs.map_shared(&path, true).unwrap();
            map.store(0, LOG_MAGIC);
            map.store(16, bytes);
            let opened = Chunk::open(&*fs, dir.path(), 0, bytes, true);
            assert_eq!(opened.is_ok(), opens, "{opened:?}");
            assert!(opens || matches!(opened, Err(LiveError::Corrupt { .. })));
        }
    }

    #[test]
    fn what_is_cleared_is_zero_and_nothing_before_it_is() {
        const BYTES: usize = 3 * PAGE_BYTES;
        let dir = tempfile::tempdir().unwrap();
        let chunk = Chunk::create(&*pheon_os::fs::real(), dir.path(), 0, BYTES as u64, 0o600).unwrap();
        for from in [FILE_HEAD_BYTES, PAGE_BYTES - 8, PAGE_BYTES, PAGE_BYTES + 800, 2 * PAGE_BYTES, BYTES - 8, BYTES] {
            // Not a zero anywhere, as in a value that was compressed.
            chunk.map.write(FILE_HEAD_BYTES, &vec![0xff; BYTES - FILE_HEAD_BYTES]);
            chunk.clear_from(from);
            let bytes = chunk.map.bytes(0, BYTES).unwrap();
            assert!(bytes[FILE_HEAD_BYTES..from].iter().all(|&byte| byte == 0xff), "from {from}");
            assert!(bytes[from..].iter().all(|&byte| byte == 0), "from {from}");
        }
    }

    #[test]
    fn a_chunk_is_as_long_as_it_says() {
        let dir = tempfile::tempdir().unwrap();
        drop(chunk(dir.path()));
        let fs = pheon_os::fs::real();
        let open = |number, bytes| Chunk::open(&*fs, dir.path(), number, bytes, true);
        assert!(open(0, BYTES).is_ok());
        assert!(matches!(open(0, BYTES + 8), Err(LiveError::Corrupt { .. })));
        fs.create_new(&chunk_path(dir.path(), 1), 0o600).unwrap().write_at(0, &[0; 8]).unwrap();
        assert!(matches!(open(1, 8), Err(LiveError::Corrupt { .. })), "shorter than its head");
    }
}
