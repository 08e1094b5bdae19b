//! What a lookup does, step by step, for people who want to see it.

use crate::error::ReadError;
use crate::index::{KEYS_PER_BUCKET, SLOTS, fingerprint};
use crate::key::KeyRef;
use crate::segment::Segment;
use crate::table::Table;

/// A lookup in one segment: the buckets that it reads, of 64 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// The segment, counted from 0, the oldest first.
    pub segment: usize,
    /// Keys that its index holds.
    pub keys: u64,
    /// Buckets of its index.
    pub buckets: u64,
    /// The bucket that is read first.
    pub bucket: u64,
    /// The bucket that is read next, because the first one has sent such keys there.
    pub other: Option<u64>,
    /// Entries of these buckets with the key's fingerprint of 16 bits: rows whose keys are compared.
    pub candidates: u32,
    /// The row of the segment that holds the key, the first of several; hidden ones, which a newer segment has replaced or
    /// deleted, too.
    pub row: Option<u32>,
    /// Whether that row is hidden.
    pub hidden: bool,
}

impl Probe {
    /// Entries that a bucket has room for.
    pub const SLOTS: usize = SLOTS;
    /// Keys that a bucket holds on average.
    pub const KEYS_PER_BUCKET: u64 = KEYS_PER_BUCKET;
}

impl Table {
    /// How `key` is looked for in each segment of the version, the newest first, as lookups go. Nothing without a key.
    ///
    /// # Errors
    /// [`ReadError::KeyType`] if the key does not fit.
    pub fn probe(&self, key: KeyRef<'_>) -> Result<Vec<Probe>, ReadError> {
        self.version.check_key(key)?;
        let mut probes = Vec::new();
        for (number, part) in self.version.parts.iter().enumerate().rev() {
            let Some(mut probe) = part.segment.probe(key)? else { continue };
            probe.segment = number;
            probe.hidden = probe.row.is_some_and(|row| part.is_hidden(row));
            probes.push(probe);
        }
        Ok(probes)
    }
}

impl Segment {
    fn probe(&self, key: KeyRef<'_>) -> Result<Option<Probe>, ReadError> {
        let Some(side) = &self.key else { return Ok(None) };
        let (index, plan) = (&side.index, side.index.plan());
        let hash = key.hash(plan.seed);
        let bucket = index.primary(hash);
        let other = index.bucket(bucket).overflowed(hash).then(|| index.secondary(hash, bucket));
        let matches = |bucket: u64| index.bucket(bucket).matches(fingerprint(hash)).count_ones();
        Ok(Some(Probe {
            segment: 0,
            keys: plan.keys,
            buckets: plan.total_buckets(),
            bucket,
            other,
            candidates: matches(bucket) + other.map_or(0, matches),
            row: self.find(key, None)?,
            hidden: false,
        }))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a store of this test
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, RecordBatch, RecordBatchIterator};

    use crate::{ChangeOptions, KeyRef, PutOptions, Store};

    fn rows(range: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from_iter_values(range)) as _)]).unwrap()
    }

    #[test]
    fn probes_tell_what_lookups_find() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let reader = |batch: RecordBatch| RecordBatchIterator::new([Ok(batch.clone())], batch.schema());
        store.put("t", reader(rows(0..1000)), PutOptions::table(["k"]).unique(true)).unwrap();
        store.upsert("t", reader(rows(990..1010)), ChangeOptions::default()).unwrap();
        let table = store.table("t").unwrap();
        let of = |key: i64| table.probe(KeyRef::Fixed64(key.cast_unsigned())).unwrap();
        let replaced = of(995);
        assert_eq!(replaced.iter().map(|p| p.segment).collect::<Vec<_>>(), [1, 0]);
        assert!(!replaced[0].hidden && replaced[0].row == Some(5), "{replaced:?}");
        assert!(replaced[1].hidden && replaced[1].row == Some(995));
        assert!(replaced.iter().all(|p| p.bucket < p.buckets && p.candidates >= 1));
        assert_eq!((replaced[1].keys, replaced[1].buckets), (1000, 112));
        let missing = of(5000);
        assert!(missing.iter().all(|p| p.row.is_none() && !p.hidden));
        assert!(table.probe("text".into()).is_err());
    }
}
