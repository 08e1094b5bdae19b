//! Where a hash belongs: the arithmetic of docs/format.md section 3.3, shared by builder and reader.

use std::collections::HashMap;

/// Bytes of a bucket: one cache line.
pub const BUCKET_BYTES: usize = 64;
/// Entries that a bucket holds.
pub const SLOTS: usize = 10;
/// Keys that a bucket holds on average in the first attempt: 90 % of its slots.
pub const KEYS_PER_BUCKET: u64 = 9;
/// The row number of an empty slot.
pub const EMPTY_ROW: u32 = u32::MAX;

/// Buckets that a block holds at most: 2 MiB, which is one huge page and fits a second-level cache.
pub(super) const BLOCK_BUCKETS_MAX: u64 = 32_768;
/// Byte offset of the overflow bits in a bucket, after the fingerprints.
pub(super) const OVERFLOW_OFFSET: usize = 2 * SLOTS;
/// Byte offset of the row numbers in a bucket.
pub(super) const ROWS_OFFSET: usize = OVERFLOW_OFFSET + 4;
const _: () = assert!(ROWS_OFFSET + 4 * SLOTS == BUCKET_BYTES);

/// Seeds after the first make the table looser by a sixteenth each, up to twice the first size.
const GROWTH_STEPS_MAX: u64 = 16;

const LAYOUT: &str = "bucket64";
const HASH: &str = "xxh3-64";

/// Size and seed of an index: everything that decides which buckets a hash may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPlan {
    /// Distinct keys that are indexed.
    pub keys: u64,
    /// Seed of the hash function.
    pub seed: u64,
    /// Blocks, at least 1. Both buckets of a key lie in one block.
    pub blocks: u64,
    /// Buckets of each block, 1 to 32768.
    pub buckets_per_block: u32,
}

impl IndexPlan {
    /// The plan that the builder tries in attempt `attempt`, counted from 0. The first has seed 0 and nine keys a bucket;
    /// attempt n has seed n and a looser table. `keys` must be less than 2^32.
    pub fn for_keys(keys: u64, attempt: u32) -> Self {
        let tight = keys.div_ceil(KEYS_PER_BUCKET).max(1);
        let steps = u64::from(attempt).min(GROWTH_STEPS_MAX);
        Self::with_buckets(keys, u64::from(attempt), tight + tight * steps / 16 + steps)
    }

    /// A plan of at least `buckets` buckets (at least 1), for measurements of other load factors.
    pub fn with_buckets(keys: u64, seed: u64, buckets: u64) -> Self {
        let blocks = buckets.div_ceil(BLOCK_BUCKETS_MAX).max(1);
        let buckets_per_block = buckets.div_ceil(blocks).max(1) as u32;
        Self { keys, seed, blocks, buckets_per_block }
    }

    /// Buckets of all blocks together.
    #[inline]
    pub fn total_buckets(&self) -> u64 {
        self.blocks * u64::from(self.buckets_per_block)
    }

    /// The block that holds both buckets of a hash.
    #[inline]
    pub fn block_of(&self, h: u64) -> u64 {
        primary(h, self.total_buckets()) / u64::from(self.buckets_per_block)
    }

    /// Bytes of the bucket column.
    pub fn size_bytes(&self) -> u64 {
        self.total_buckets() * BUCKET_BYTES as u64
    }

    /// The schema metadata of `index.arrow`.
    pub fn to_metadata(&self) -> HashMap<String, String> {
        HashMap::from([
            ("pheon.index".to_owned(), LAYOUT.to_owned()),
            ("pheon.hash".to_owned(), HASH.to_owned()),
            ("pheon.seed".to_owned(), self.seed.to_string()),
            ("pheon.keys".to_owned(), self.keys.to_string()),
            ("pheon.blocks".to_owned(), self.blocks.to_string()),
            ("pheon.buckets_per_block".to_owned(), self.buckets_per_block.to_string()),
        ])
    }

    /// Reads what [`IndexPlan::to_metadata`] wrote.
    ///
    /// # Errors
    ///
    /// A text that names the entry, what was expected and what was found: a missing or unreadable entry, another layout
    /// or hash function, numbers that contradict each other.
    pub fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, String> {
        expect(metadata, "pheon.index", LAYOUT)?;
        expect(metadata, "pheon.hash", HASH)?;
        let buckets_per_block = number(metadata, "pheon.buckets_per_block")?;
        let plan = Self {
            keys: number(metadata, "pheon.keys")?,
            seed: number(metadata, "pheon.seed")?,
            blocks: number(metadata, "pheon.blocks")?,
            buckets_per_block: u32::try_from(buckets_per_block)
                .map_err(|_| range_problem("pheon.buckets_per_block", "1 to 32768", buckets_per_block))?,
        };
        plan.check()?;
        Ok(plan)
    }

    /// Checks the numbers and that a bucket column of `buckets_len_bytes` has the size that they name.
    ///
    /// # Errors
    ///
    /// A text that says what was expected and found.
    pub fn validate(&self, buckets_len_bytes: u64) -> Result<(), String> {
        self.check()?;
        if self.size_bytes() == buckets_len_bytes {
            return Ok(());
        }
        Err(format!(
            "the bucket column has {buckets_len_bytes} bytes, expected {} for {} blocks of {} buckets",
            self.size_bytes(),
            self.blocks,
            self.buckets_per_block
        ))
    }

    fn check(&self) -> Result<(), String> {
        let per_block = u64::from(self.buckets_per_block);
        if !(1..=BLOCK_BUCKETS_MAX).contains(&per_block) {
            return Err(range_problem("pheon.buckets_per_block", "1 to 32768", per_block));
        }
        // A segment has at most 2^32-1 rows, so more buckets than that cannot be meant; the products below cannot overflow.
        if !(1..=u64::from(u32::MAX)).contains(&self.blocks) || self.total_buckets() > u64::from(u32::MAX) {
            return Err(range_problem("pheon.blocks", "at least 1, and at most 2^32-1 buckets in all", self.blocks));
        }
        if self.keys > self.total_buckets() * SLOTS as u64 || self.keys > u64::from(EMPTY_ROW) {
            return Err(range_problem("pheon.keys", "at most ten a bucket and below 2^32", self.keys));
        }
        Ok(())
    }
}

/// The part of a hash that a bucket stores to recognise it.
#[inline]
pub fn fingerprint(h: u64) -> u16 {
    h as u16
}

/// The part of a hash that chooses the secondary bucket and the overflow bit.
#[inline]
pub(super) fn spread(h: u64) -> u16 {
    (h >> 16) as u16
}

/// The bucket of `total` in which a hash is looked for first.
#[inline]
pub(super) fn primary(h: u64, total: u64) -> u64 {
    ((u128::from(h) * u128::from(total)) >> 64) as u64
}

/// The other bucket of a hash, both counted within the block: `p` is the primary, `per_block` the block's size.
#[inline]
pub(super) fn secondary_in_block(p: u32, spread: u16, per_block: u32) -> u32 {
    // At most 2^16 * 2^15: no overflow. The distance is 1 to per_block - 1, so for two or more buckets it is another one.
    let other = p + 1 + ((u32::from(spread) * (per_block - 1)) >> 16);
    if other >= per_block { other - per_block } else { other }
}

/// The bit of the primary's overflow word that is set when a key with this spread went to its secondary.
#[inline]
pub(super) fn overflow_bit(spread: u16) -> u32 {
    1 << (spread & 31)
}

fn expect(metadata: &HashMap<String, String>, key: &str, expected: &str) -> Result<(), String> {
    match metadata.get(key) {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(format!("schema metadata {key}: expected {expected:?}, found {found:?}")),
        None => Err(format!("schema metadata {key}: expected {expected:?}, found no such entry")),
    }
}

fn number(metadata: &HashMap<String, String>, key: &str) -> Result<u64, String> {
    let text =
        metadata.get(key).ok_or_else(|| format!("schema metadata {key}: expected a number, found no such entry"))?;
    // `parse` alone would also take a leading plus sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("schema metadata {key}: expected decimal digits, found {text:?}"));
    }
    text.parse().map_err(|_| format!("schema metadata {key}: expected a number below 2^64, found {text:?}"))
}

fn range_problem(key: &str, expected: &str, found: u64) -> String {
    format!("schema metadata {key}: expected {expected}, found {found}")
}
