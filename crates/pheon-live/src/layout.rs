//! Where everything is: the offsets of docs/live.md, and addresses of records.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) const FORMAT_VERSION: u64 = 3;
/// The format before, whose records have no seals. Its maps stay what they are.
pub(crate) const FORMAT_WITHOUT_SEALS: u64 = 2;

pub(crate) const CTRL_MAGIC: u64 = u64::from_le_bytes(*b"PHEONLIV");
pub(crate) const LOG_MAGIC: u64 = u64::from_le_bytes(*b"PHEONLOG");
pub(crate) const INDEX_MAGIC: u64 = u64::from_le_bytes(*b"PHEONIDX");
pub(crate) const VIEW_MAGIC: u64 = u64::from_le_bytes(*b"PHEONVIW");
pub(crate) const SYNC_MAGIC: u64 = u64::from_le_bytes(*b"PHEONSYN");

/// Heads of index and log files.
pub(crate) const FILE_HEAD_BYTES: usize = 64;
pub(crate) const RECORD_HEAD_BYTES: usize = 48;

/// Bits of an address that name the chunk, and how many chunk numbers there are.
const CHUNK_SHIFT: u32 = 28;
pub(crate) const CHUNK_NUMBERS: u32 = 1 << 20;
const OFFSET_MASK: u64 = (1 << CHUNK_SHIFT) - 1;
pub(crate) const ADDRESS_MASK: u64 = (1 << 48) - 1;
/// The longest chunk that is made: offsets count 8 bytes, and that of its end must fit too.
pub(crate) const CHUNK_BYTES_MAX: u64 = CHUNK_BYTES_OPENED_MAX - 4096;
/// The longest chunk of an older map. Nothing is written to it beyond [`CHUNK_BYTES_MAX`].
pub(crate) const CHUNK_BYTES_OPENED_MAX: u64 = 1 << (CHUNK_SHIFT + 3);

/// In a slot or as the address before a record: no record, and a slot that may be used again.
pub(crate) const EMPTY: u64 = 0;
pub(crate) const FREED: u64 = 1;

/// Flags of a record, in its link word above the address.
pub(crate) const DELETED: u64 = 1 << 48;
pub(crate) const MOVED: u64 = 2 << 48;
pub(crate) const ABORTED: u64 = 4 << 48;
pub(crate) const LAST: u64 = 8 << 48;

/// What is known of a record only after it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The last one of its transaction.
    Last,
    /// Of a transaction that was taken back.
    Aborted,
}

impl Mark {
    /// The flag that says so in the same boot.
    pub(crate) fn flag(self) -> u64 {
        match self {
            Self::Last => LAST,
            Self::Aborted => ABORTED,
        }
    }

    /// What says so after a boot: a word, for no flipped bit makes one of the other, or of a record that has none (0).
    pub(crate) fn seal(self) -> u32 {
        match self {
            Self::Last => u32::from_le_bytes(*b"LAST"),
            Self::Aborted => u32::from_le_bytes(*b"ABRT"),
        }
    }
}

/// The caller's byte.
pub(crate) const META_SHIFT: u32 = 56;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(u64);

impl Address {
    pub(crate) fn new(chunk: u32, offset: usize) -> Self {
        debug_assert!(chunk < CHUNK_NUMBERS && offset.is_multiple_of(8) && offset as u64 / 8 <= OFFSET_MASK);
        Self((u64::from(chunk) << CHUNK_SHIFT) | (offset as u64 / 8))
    }

    /// The address in the low bits of a slot or link word.
    #[inline]
    pub(crate) fn of_word(word: u64) -> Self {
        Self(word & ADDRESS_MASK)
    }

    #[inline]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// Whether a record may be there.
    #[inline]
    pub(crate) fn is_some(self) -> bool {
        self.0 > FREED
    }

    #[inline]
    pub(crate) fn chunk(self) -> u32 {
        (self.0 >> CHUNK_SHIFT) as u32
    }

    #[inline]
    pub(crate) fn offset(self) -> usize {
        ((self.0 & OFFSET_MASK) * 8) as usize
    }
}

/// The chunk after this one.
pub(crate) fn next_chunk(number: u32) -> u32 {
    (number + 1) % CHUNK_NUMBERS
}

/// How many chunks `number` comes after `first`.
#[inline]
pub(crate) fn chunk_distance(number: u32, first: u32) -> u32 {
    number.wrapping_sub(first) % CHUNK_NUMBERS
}

/// The hash that chooses slots.
#[inline]
pub(crate) fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The part of a hash that a slot keeps, in place.
#[inline]
pub(crate) fn tag_bits(hash: u64) -> u64 {
    hash & !ADDRESS_MASK
}

/// Bytes of a record, or `None` where a length does not fit.
pub(crate) fn record_bytes(key_len: usize, value_len: usize) -> Option<usize> {
    let bytes = RECORD_HEAD_BYTES.checked_add(key_len)?.checked_add(value_len)?.checked_next_multiple_of(8)?;
    (bytes as u64 <= CHUNK_BYTES_MAX - FILE_HEAD_BYTES as u64).then_some(bytes)
}

/// The fields of a record's head, but for checksum and abort flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) bytes: u32,
    pub(crate) key_len: u32,
    pub(crate) value_len: u32,
    pub(crate) txn: u64,
    /// Address before, flags, the caller's byte.
    pub(crate) link: u64,
    pub(crate) order: u64,
    pub(crate) writer: u32,
}

impl Head {
    /// The checksum of a record. The flags "aborted" and "last", which are set later, are left out; so is the address
    /// before, which is worth nothing after a boot.
    pub(crate) fn checksum(&self, key: &[u8], value: &[u8]) -> u32 {
        let stable = self.link & !(ADDRESS_MASK | ABORTED | LAST);
        let seed =
            self.txn.rotate_left(32) ^ self.order ^ stable ^ u64::from(self.bytes) ^ u64::from(self.writer) << 32;
        let of_key = xxh3_64_with_seed(key, seed ^ u64::from(self.key_len));
        xxh3_64_with_seed(value, of_key ^ u64::from(self.value_len)) as u32
    }
}

/// Offsets in CTRL.
pub(crate) mod ctrl {
    pub(crate) const BYTES: u64 = 4096;
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const ABI: usize = 8;
    pub(crate) const UUID: usize = 16;
    pub(crate) const BOOT: usize = 32;
    pub(crate) const CREATED_MS: usize = 48;
    pub(crate) const FLAGS: usize = 56;
    pub(crate) const ENTRIES_MAX: usize = 64;
    pub(crate) const AGE_MAX_NS: usize = 72;
    pub(crate) const BYTES_MAX: usize = 80;
    pub(crate) const SUM: usize = 88;
    pub(crate) const SYNC_FAILED: usize = 96;
    pub(crate) const VIEW: usize = 128;
    pub(crate) const STATE: usize = 136;
    pub(crate) const COMMIT: usize = 192;
    pub(crate) const CHANGE: usize = 256;
    pub(crate) const SLEEPERS: usize = 260;
    pub(crate) const BLOCKS: usize = 320;
    pub(crate) const BLOCK_BYTES: usize = 64;
    pub(crate) const MUTEX: usize = 448;

    pub(crate) const FLAG_IN_STORE: u64 = 1;
    pub(crate) const FLAG_DURABLE: u64 = 2;
    /// "UNLK". A word rather than a bit: who finds it removes the map, so no flipped bit may make it.
    pub(crate) const STATE_UNLINKED: u32 = u32::from_le_bytes(*b"UNLK");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another implementation: what is on disks stays readable.
    #[test]
    fn the_checksum_of_a_record_is_what_it_always_was() {
        let head = Head {
            bytes: 64,
            key_len: 3,
            value_len: 5,
            txn: 0x1122_3344_5566_7788,
            link: 7 << META_SHIFT | DELETED,
            order: 0x99aa_bbcc_ddee_ff00,
            writer: 0xdead_beef,
        };
        assert_eq!(head.checksum(b"key", b"value"), 0xadfa8d36);
        // What is set, or worth nothing, later is not under it.
        let other = Head { link: head.link | LAST | ABORTED | 12345, ..head };
        assert_eq!(other.checksum(b"key", b"value"), head.checksum(b"key", b"value"));
    }

    #[test]
    fn addresses_give_back_what_they_are_made_of() {
        for (chunk, offset) in [(0, 64), (1, 72), (CHUNK_NUMBERS - 1, (CHUNK_BYTES_MAX - 8) as usize)] {
            let address = Address::new(chunk, offset);
            assert_eq!((address.chunk(), address.offset()), (chunk, offset));
            assert_eq!(Address::of_word(address.bits() | LAST | 7 << META_SHIFT), address);
            assert!(address.is_some() && address.bits() <= ADDRESS_MASK);
        }
        assert!(!Address::of_word(EMPTY).is_some() && !Address::of_word(FREED).is_some());
    }

    #[test]
    fn the_end_of_the_longest_chunk_is_an_address() {
        for chunk in [0, 7, CHUNK_NUMBERS - 1] {
            let end = Address::new(chunk, CHUNK_BYTES_MAX as usize);
            assert_eq!((end.chunk(), end.offset()), (chunk, CHUNK_BYTES_MAX as usize));
        }
        let largest = CHUNK_BYTES_MAX as usize - FILE_HEAD_BYTES;
        assert_eq!(record_bytes(8, largest - RECORD_HEAD_BYTES - 8), Some(largest));
        assert_eq!(record_bytes(8, largest - RECORD_HEAD_BYTES - 7), None);
    }

    #[test]
    fn chunk_numbers_go_round() {
        assert_eq!(next_chunk(CHUNK_NUMBERS - 1), 0);
        assert_eq!(chunk_distance(1, CHUNK_NUMBERS - 2), 3);
        assert_eq!(chunk_distance(5, 5), 0);
    }

    #[test]
    fn a_checksum_covers_every_field_but_those_that_change() {
        let head = Head { bytes: 64, key_len: 3, value_len: 4, txn: 5, link: 9 | MOVED, order: 6, writer: 7 };
        let sum = head.checksum(b"key", b"valu");
        assert_eq!(Head { link: 8 | MOVED | ABORTED | LAST, ..head }.checksum(b"key", b"valu"), sum);
        for other in [
            Head { bytes: 72, ..head },
            Head { txn: 6, ..head },
            Head { link: 9, ..head },
            Head { link: 9 | MOVED | 1 << META_SHIFT, ..head },
            Head { order: 7, ..head },
            Head { writer: 8, ..head },
        ] {
            assert_ne!(other.checksum(b"key", b"valu"), sum, "{other:?}");
        }
        assert_ne!(head.checksum(b"kez", b"valu"), sum);
        assert_ne!(head.checksum(b"key", b"vala"), sum);
        assert_ne!(Head { key_len: 2, value_len: 5, ..head }.checksum(b"ke", b"yvalu"), sum);
    }
}
