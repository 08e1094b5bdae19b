//! Reading buckets: the steps of a lookup, so that a batch can put other work between them.

use arrow_buffer::Buffer;

use super::layout::{self, BUCKET_BYTES, EMPTY_ROW, IndexPlan, OVERFLOW_OFFSET, ROWS_OFFSET, SLOTS};

/// The bucket column of a segment. Cheap to clone: the bytes are shared.
///
/// A lookup of hash `h` reads `primary(h)`, compares the stored key of every row that [`Bucket::matches`] proposes and
/// goes on to `secondary` only if [`Bucket::overflowed`]. Rows come from the file and are not checked here: the caller must.
#[derive(Clone, Debug)]
pub struct Index {
    buckets: Buffer,
    plan: IndexPlan,
    total_buckets: u64,
}

impl Index {
    /// Takes the values of the bucket column. O(1): no bucket is read.
    ///
    /// # Errors
    ///
    /// A text that says how the column's size contradicts the plan.
    pub fn new(buckets: Buffer, plan: IndexPlan) -> Result<Self, String> {
        plan.validate(buckets.len() as u64)?;
        Ok(Self { buckets, plan, total_buckets: plan.total_buckets() })
    }

    /// Size and seed.
    #[inline]
    pub fn plan(&self) -> &IndexPlan {
        &self.plan
    }

    /// The bucket that a lookup reads first, counted from 0 among all buckets.
    #[inline]
    pub fn primary(&self, h: u64) -> u64 {
        layout::primary(h, self.total_buckets)
    }

    /// The other bucket of `h`, whose primary is `primary`. It is the same one only if the block has a single bucket.
    #[inline]
    pub fn secondary(&self, h: u64, primary: u64) -> u64 {
        let per_block = self.plan.buckets_per_block;
        let p = (primary % u64::from(per_block)) as u32;
        primary - u64::from(p) + u64::from(layout::secondary_in_block(p, layout::spread(h), per_block))
    }

    /// Bucket `b`.
    ///
    /// # Panics
    ///
    /// If `b` is not less than the number of buckets; no answer of [`Index::primary`] or [`Index::secondary`] is.
    #[inline]
    pub fn bucket(&self, b: u64) -> Bucket<'_> {
        Bucket(&self.lines()[b as usize])
    }

    /// Asks the processor to fetch bucket `b`; does nothing if there is none.
    #[inline]
    pub fn prefetch(&self, b: u64) {
        pheon_os::prefetch::read_at(self.lines(), b as usize);
    }

    #[inline]
    fn lines(&self) -> &[[u8; BUCKET_BYTES]] {
        self.buckets.as_slice().as_chunks().0
    }
}

/// One bucket: ten fingerprints, the overflow bits, ten rows.
#[derive(Clone, Copy, Debug)]
pub struct Bucket<'a>(&'a [u8; BUCKET_BYTES]);

impl<'a> Bucket<'a> {
    /// All of it.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Bit i is set if slot i holds an entry with fingerprint `fp`; empty slots never match.
    #[inline]
    pub fn matches(self, fp: u16) -> u32 {
        let fingerprints = self.0.first_chunk().expect("a bucket begins with them");
        let mask = pheon_os::lanes::equal(fingerprints, fp);
        // Empty slots hold fingerprint 0, so only one hash in 65,536 has to look whether its match is one.
        if fp == 0 { self.without_empty(mask) } else { mask }
    }

    /// The row in slot `slot`, which must be less than 10; 2^32-1 if the slot is empty.
    #[inline]
    pub fn row(self, slot: u32) -> u32 {
        let at = ROWS_OFFSET + 4 * slot as usize;
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Whether this bucket, as the primary of `h`, sent a key with the same overflow bit to its secondary.
    #[inline]
    pub fn overflowed(self, h: u64) -> bool {
        self.overflow_word() & layout::overflow_bit(layout::spread(h)) != 0
    }

    #[inline]
    fn overflow_word(self) -> u32 {
        let at = OVERFLOW_OFFSET;
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    #[cold]
    fn without_empty(self, mask: u32) -> u32 {
        (0..SLOTS as u32).filter(|&slot| self.row(slot) != EMPTY_ROW).fold(0, |used, slot| used | 1 << slot) & mask
    }
}
