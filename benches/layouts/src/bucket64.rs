//! (a) The layout of docs/format.md section 3.3, built and read by the engine's own code.

use std::path::Path;

use arrow_buffer::Buffer;
use pheon::index::{Index, IndexBuilder, IndexPlan, IndexStats, SLOTS, fingerprint};

use crate::two_choice::TwoChoice;

pub(crate) struct Bucket64(Index);

impl Bucket64 {
    /// At a load of `load` keys a slot; 0.9 is what the format starts from. `memory_bytes` below 12 a key spills to `dir`.
    pub(crate) fn build(
        keys: &[u64],
        load: f64,
        memory_bytes: u64,
        threads: usize,
        dir: &Path,
    ) -> Result<(Self, IndexStats), String> {
        let buckets = (keys.len() as f64 / (load * SLOTS as f64)).ceil() as u64;
        let plan = IndexPlan::with_buckets(keys.len() as u64, 0, buckets.max(1));
        let mut builder = IndexBuilder::new(pheon_os::fs::real(), dir, plan, memory_bytes, threads);
        builder.push_many(keys, 0).map_err(|e| format!("spilling the index: {e}"))?;
        let mut bytes: Vec<u8> = Vec::with_capacity(plan.size_bytes() as usize);
        let stats = builder
            .finish(&mut |chunk| {
                bytes.extend_from_slice(chunk);
                Ok(())
            })
            .map_err(|e| format!("building bucket64 at load {load}: {e}"))?;
        Ok((Self(Index::new(Buffer::from_vec(bytes), plan)?), stats))
    }
}

impl TwoChoice for Bucket64 {
    fn size_bytes(&self) -> u64 {
        self.0.plan().size_bytes()
    }
    #[inline]
    fn primary(&self, h: u64) -> u64 {
        self.0.primary(h)
    }
    #[inline]
    fn secondary(&self, h: u64, primary: u64) -> u64 {
        self.0.secondary(h, primary)
    }
    #[inline]
    fn prefetch(&self, b: u64) {
        self.0.prefetch(b);
    }
    #[inline]
    fn matches(&self, b: u64, h: u64) -> u32 {
        self.0.bucket(b).matches(fingerprint(h))
    }
    #[inline]
    fn row(&self, b: u64, slot: u32) -> u32 {
        self.0.bucket(b).row(slot)
    }
    #[inline]
    fn overflowed(&self, b: u64, h: u64) -> bool {
        self.0.bucket(b).overflowed(h)
    }
}
