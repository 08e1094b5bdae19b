//! The index against a plain `HashMap`, on random, sequential and adversarial hashes.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use arrow_buffer::Buffer;
use proptest::prelude::*;

use super::layout::{overflow_bit, secondary_in_block, spread};
use super::*;

const PLENTY: u64 = 1 << 40;

/// A bijection of u64 that looks random (splitmix64, Sebastiano Vigna): distinct inputs give distinct hashes.
fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn random_hashes(n: u64) -> Vec<u64> {
    (0..n).map(mix).collect()
}

/// Row i has hash `hashes[i]`. The bytes that reached the sink, and the result.
fn try_build(
    hashes: &[u64],
    plan: IndexPlan,
    memory_bytes: u64,
    threads: usize,
    dir: &Path,
) -> (Vec<u8>, Result<IndexStats, IndexBuildError>) {
    let mut builder = IndexBuilder::new(pheon_os::fs::real(), dir, plan, memory_bytes, threads);
    builder.push_many(hashes, 0).unwrap();
    let mut bytes = Vec::new();
    let result = builder.finish(&mut |chunk| {
        bytes.extend_from_slice(chunk);
        Ok(())
    });
    (bytes, result)
}

fn build(hashes: &[u64], memory_bytes: u64, threads: usize) -> (Index, IndexStats) {
    let dir = tempfile::tempdir().unwrap();
    for attempt in 0..16 {
        let plan = IndexPlan::for_keys(hashes.len() as u64, attempt);
        match try_build(hashes, plan, memory_bytes, threads, dir.path()) {
            (bytes, Ok(stats)) => {
                assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "spill files are left");
                return (Index::new(Buffer::from_vec(bytes), plan).unwrap(), stats);
            }
            (_, Err(IndexBuildError::Unplaced { .. })) => {}
            (_, Err(e)) => panic!("{e}"),
        }
    }
    panic!("no plan places {} keys", hashes.len());
}

/// A lookup as the format describes it, and the number of lines read. `is_key` compares the stored key.
fn find(index: &Index, h: u64, is_key: impl Fn(u32) -> bool) -> (Option<u32>, u32) {
    let probe = |b: u64| {
        let bucket = index.bucket(b);
        let mask = bucket.matches(fingerprint(h));
        (0..SLOTS as u32).filter(|slot| mask & (1 << slot) != 0).map(|slot| bucket.row(slot)).find(|&row| is_key(row))
    };
    let primary = index.primary(h);
    if let Some(row) = probe(primary) {
        return (Some(row), 1);
    }
    if !index.bucket(primary).overflowed(h) {
        return (None, 1);
    }
    (probe(index.secondary(h, primary)), 2)
}

/// Every key is found at its row; buckets are as docs/format.md says; the statistics are true.
fn check(index: &Index, stats: &IndexStats, hashes: &[u64]) {
    let plan = index.plan();
    assert_eq!(stats.keys, hashes.len() as u64);
    assert_eq!(stats.buckets, plan.total_buckets());
    let mut second_line = 0;
    for (row, &h) in hashes.iter().enumerate() {
        let (found, lines) = find(index, h, |candidate| hashes[candidate as usize] == h && candidate as usize == row);
        assert_eq!(found, Some(row as u32), "hash {h:#x}");
        second_line += u64::from(lines == 2);
        assert_eq!(plan.block_of(h), index.primary(h) / u64::from(plan.buckets_per_block));
        assert_eq!(plan.block_of(h), index.secondary(h, index.primary(h)) / u64::from(plan.buckets_per_block));
    }
    assert_eq!(stats.secondary, second_line);
    let mut entries = 0;
    for b in 0..plan.total_buckets() {
        let bucket = index.bucket(b);
        let mut ended = false;
        for slot in 0..SLOTS as u32 {
            let row = bucket.row(slot);
            if row == EMPTY_ROW {
                ended = true;
                assert_eq!(bucket.matches(0) & (1 << slot), 0, "an empty slot matches");
                continue;
            }
            assert!(!ended, "bucket {b} has a hole before slot {slot}");
            entries += 1;
            let h = hashes[row as usize];
            assert_ne!(bucket.matches(fingerprint(h)) & (1 << slot), 0);
            assert!(b == index.primary(h) || b == index.secondary(h, index.primary(h)));
        }
    }
    assert_eq!(entries, hashes.len(), "every key has one entry");
}

#[test]
fn small_sizes() {
    for n in (0..=64).chain([89, 90, 91, 180, 181, 900, 9_001]) {
        let hashes = random_hashes(n);
        let (index, stats) = build(&hashes, PLENTY, 1);
        check(&index, &stats, &hashes);
        for i in 0..100 {
            assert_eq!(find(&index, mix(n + i), |row| hashes[row as usize] == mix(n + i)).0, None);
        }
    }
}

#[test]
fn sizes_of_a_plan() {
    let shape = |keys| {
        let plan = IndexPlan::for_keys(keys, 0);
        assert_eq!((plan.keys, plan.seed), (keys, 0));
        (plan.blocks, plan.buckets_per_block)
    };
    assert_eq!(shape(0), (1, 1));
    assert_eq!(shape(9), (1, 1));
    assert_eq!(shape(10), (1, 2));
    assert_eq!(shape(27), (1, 3));
    assert_eq!(shape(28), (1, 4));
    assert_eq!(shape(9 * 32_768), (1, 32_768));
    assert_eq!(shape(9 * 32_768 + 1), (2, 16_385));
    assert_eq!(shape(u64::from(u32::MAX)), (14_564, 32_768));
    for keys in [0, 1, 10, 1_000_000, u64::from(u32::MAX)] {
        let mut before = 0;
        for attempt in 0..40 {
            let plan = IndexPlan::for_keys(keys, attempt);
            assert_eq!(plan.seed, u64::from(attempt));
            assert!(plan.total_buckets() >= before, "attempts never get tighter");
            before = plan.total_buckets();
            assert_eq!(plan.validate(plan.size_bytes()), Ok(()));
        }
        assert!(before > IndexPlan::for_keys(keys, 0).total_buckets());
    }
}

#[test]
fn a_million_random_keys() {
    let hashes = random_hashes(1_000_000);
    let (index, stats) = build(&hashes, PLENTY, 2);
    assert_eq!(index.plan().seed, 0, "random hashes need no second attempt");
    assert!(index.plan().blocks > 1);
    check(&index, &stats, &hashes);
    // Sizes and shares are what the decision record promises, with room for chance.
    assert!(index.plan().size_bytes() as f64 / 1e6 < 7.2);
    assert!((stats.secondary as f64) < 0.11e6, "{stats:?}");
    let misses = 300_000;
    let second = (0..misses).filter(|i| find(&index, mix(1_000_000 + i), |_| false).1 == 2).count();
    assert!((second as f64) < 0.035 * misses as f64, "{second} of {misses} misses read a second line");
}

#[test]
fn hashes_that_are_not_random() {
    let n = 100_000_u64;
    // Multiples of 2^64/n spread evenly over the buckets, but share fingerprints and spreads.
    let even: Vec<u64> = (0..n).map(|i| i * (u64::MAX / n)).collect();
    let (index, stats) = build(&even, PLENTY, 1);
    check(&index, &stats, &even);
    assert_eq!(stats.secondary, 0);
    // Fingerprint 0 for everyone: it is also that of empty slots.
    let no_fingerprint: Vec<u64> = (0..n).map(|i| mix(i) & !0xFFFF).collect();
    let (index, stats) = build(&no_fingerprint, PLENTY, 1);
    check(&index, &stats, &no_fingerprint);
    // 20 equal hashes fill both buckets of one bucket pair and still fit.
    let mut equal = vec![0x1234_5678_9ABC_DEF0; 20];
    equal.extend([0, 1 << 62, 1 << 63, u64::MAX]);
    let dir = tempfile::tempdir().unwrap();
    let plan = IndexPlan::with_buckets(equal.len() as u64, 0, 8);
    let (bytes, result) = try_build(&equal, plan, PLENTY, 1, dir.path());
    let index = Index::new(Buffer::from_vec(bytes), plan).unwrap();
    check(&index, &result.unwrap(), &equal);
    // Small integers all belong to the first bucket.
    let sequential: Vec<u64> = (0..n).collect();
    let plan = IndexPlan::for_keys(n, 0);
    let (_, result) = try_build(&sequential, plan, PLENTY, 1, dir.path());
    assert!(matches!(result, Err(IndexBuildError::Unplaced { block: 0 })));
}

#[test]
fn more_equal_hashes_than_two_buckets_hold_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    // Twenty-one equal hashes in the last of several blocks: the blocks before it are written, nothing of it is.
    let mut hashes = random_hashes(900_000);
    hashes.extend([u64::MAX; 21]);
    for attempt in 0..4 {
        let plan = IndexPlan::for_keys(hashes.len() as u64, attempt);
        assert!(plan.blocks > 2);
        for (memory_bytes, threads) in [(PLENTY, 1), (PLENTY, 2), (0, 1), (0, 2)] {
            let (bytes, result) = try_build(&hashes, plan, memory_bytes, threads, dir.path());
            let block_bytes = plan.size_bytes() / plan.blocks;
            assert!(
                matches!(result, Err(IndexBuildError::Unplaced { block }) if block == plan.blocks - 1),
                "{result:?} in attempt {attempt}"
            );
            assert_eq!(bytes.len() as u64, (plan.blocks - 1) * block_bytes);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "spill files are left");
        }
    }
    // In a single bucket there is no secondary at all.
    let plan = IndexPlan { keys: 10, seed: 0, blocks: 1, buckets_per_block: 1 };
    assert!(try_build(&[7; 10], plan, PLENTY, 1, dir.path()).1.is_ok());
}

#[test]
fn memory_and_threads_do_not_change_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let hashes = random_hashes(2_000_000);
    let plan = IndexPlan::for_keys(hashes.len() as u64, 0);
    assert!(plan.blocks >= 7);
    let (expected, stats) = try_build(&hashes, plan, PLENTY, 1, dir.path());
    let stats = stats.unwrap();
    assert_eq!(stats.spilled_bytes, 0);
    // No memory: a partition a block. 24 MB: several blocks a partition. 40 MB: all in memory again.
    for (memory_bytes, threads, spills) in [
        (PLENTY, 2, false),
        (PLENTY, 64, false),
        (0, 1, true),
        (0, 2, true),
        (24 << 20, 1, true),
        (24 << 20, 2, true),
        (40 << 20, 1, false),
    ] {
        let (bytes, result) = try_build(&hashes, plan, memory_bytes, threads, dir.path());
        let result = result.unwrap();
        assert!(bytes == expected, "{memory_bytes} bytes of memory, {threads} threads: another index");
        assert_eq!(result.spilled_bytes > 0, spills, "{memory_bytes} bytes of memory");
        assert_eq!(IndexStats { spilled_bytes: 0, ..result }, stats);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "spill files are left");
    }
}

#[test]
fn a_failing_sink_ends_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let hashes = random_hashes(1_500_000);
    for threads in [1, 3] {
        let plan = IndexPlan::for_keys(hashes.len() as u64, 0);
        let mut builder = IndexBuilder::new(pheon_os::fs::real(), dir.path(), plan, 0, threads);
        builder.push_many(&hashes, 0).unwrap();
        let mut calls = 0;
        let result = builder.finish(&mut |_| {
            calls += 1;
            if calls == 2 { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
        });
        assert!(matches!(result, Err(IndexBuildError::Io(e)) if e.raw_os_error() == Some(28)));
        assert_eq!(calls, 2);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "spill files are left");
    }
}

#[test]
fn a_spill_folder_that_is_missing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let hashes = random_hashes(400_000);
    let plan = IndexPlan::for_keys(hashes.len() as u64, 0);
    let mut builder = IndexBuilder::new(pheon_os::fs::real(), &dir.path().join("missing"), plan, 0, 1);
    let pushed = builder.push_many(&hashes, 0);
    let error = match pushed {
        Err(e) => e,
        Ok(()) => match builder.finish(&mut |_| Ok(())) {
            Err(IndexBuildError::Io(e)) => e,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(std::error::Error::source(&IndexBuildError::Io(error)).is_some());
}

#[test]
fn metadata_comes_back() {
    let plan = IndexPlan { keys: 123, seed: u64::MAX, blocks: 3, buckets_per_block: 32_768 };
    let metadata = plan.to_metadata();
    assert_eq!(metadata["pheon.seed"], "18446744073709551615");
    assert_eq!(IndexPlan::from_metadata(&metadata), Ok(plan));
    let with = |key: &str, value: &str| {
        let mut changed = metadata.clone();
        changed.insert(key.to_owned(), value.to_owned());
        IndexPlan::from_metadata(&changed)
    };
    for (key, value) in [
        ("pheon.index", "bucket32"),
        ("pheon.hash", "crc"),
        ("pheon.seed", "18446744073709551616"),
        ("pheon.seed", "+1"),
        ("pheon.seed", ""),
        ("pheon.keys", "-1"),
        ("pheon.keys", "983041"),
        ("pheon.blocks", "0"),
        ("pheon.blocks", "18446744073709551615"),
        ("pheon.blocks", "131072"),
        ("pheon.buckets_per_block", "0"),
        ("pheon.buckets_per_block", "32769"),
        ("pheon.buckets_per_block", "4294967297"),
    ] {
        let problem = with(key, value).expect_err(value);
        assert!(problem.contains(key), "{problem}");
    }
    for key in metadata.keys() {
        let mut without = metadata.clone();
        without.remove(key);
        assert!(IndexPlan::from_metadata(&without).unwrap_err().contains(key));
    }
    // As many buckets as there may be, and one more.
    let most = IndexPlan { keys: 1, seed: 0, blocks: u64::from(u32::MAX) / 15, buckets_per_block: 15 };
    assert_eq!((most.total_buckets(), IndexPlan::from_metadata(&most.to_metadata())), (u64::from(u32::MAX), Ok(most)));
    let more = IndexPlan { blocks: 1 << 17, buckets_per_block: 32_768, ..most };
    assert!(IndexPlan::from_metadata(&more.to_metadata()).unwrap_err().contains("pheon.blocks"));
    assert_eq!(plan.validate(3 * 32_768 * 64), Ok(()));
    assert!(plan.validate(3 * 32_768 * 64 - 64).is_err());
    assert!(Index::new(Buffer::from_vec(vec![0_u8; 64]), plan).is_err());
}

/// A bucket whose ten fingerprints are `fps` and rows 0 to 9.
fn bucket_of(fps: [u16; SLOTS]) -> [u8; BUCKET_BYTES] {
    let mut line = [0_u8; BUCKET_BYTES];
    for (slot, fp) in fps.iter().enumerate() {
        line[2 * slot..2 * slot + 2].copy_from_slice(&fp.to_le_bytes());
        line[24 + 4 * slot..28 + 4 * slot].copy_from_slice(&(slot as u32).to_le_bytes());
    }
    line
}

proptest! {
    #[test]
    fn matches_finds_exactly_the_equal_fingerprints(fps in prop::array::uniform10(0_u16..4), fp in 0_u16..4) {
        let line = bucket_of(fps);
        let plan = IndexPlan::with_buckets(10, 0, 1);
        let index = Index::new(Buffer::from_slice_ref(line.as_slice()), plan).unwrap();
        let expected = fps.iter().enumerate().filter(|(_, f)| **f == fp).fold(0, |mask, (slot, _)| mask | 1 << slot);
        prop_assert_eq!(index.bucket(0).matches(fp), expected);
    }

    #[test]
    fn any_distinct_hashes_are_found(hashes in prop::collection::hash_set(any::<u64>(), 0..2_000), probes in prop::collection::vec(any::<u64>(), 100)) {
        let hashes: Vec<u64> = hashes.into_iter().collect();
        let oracle: HashMap<u64, u32> = hashes.iter().zip(0..).map(|(&h, row)| (h, row)).collect();
        let (index, stats) = build(&hashes, PLENTY, 1);
        check(&index, &stats, &hashes);
        for h in probes {
            prop_assert_eq!(find(&index, h, |row| hashes[row as usize] == h).0, oracle.get(&h).copied());
        }
    }

    #[test]
    fn the_secondary_is_another_bucket_of_the_block(h in any::<u64>(), per_block in 2_u32..=32_768, p in any::<u32>()) {
        let p = p % per_block;
        let other = secondary_in_block(p, spread(h), per_block);
        prop_assert!(other < per_block && other != p);
        // The formula of docs/format.md, in wide integers.
        let (wide_p, size) = (u64::from(p), u64::from(per_block));
        prop_assert_eq!(u64::from(other), (wide_p + 1 + ((((h >> 16) & 0xFFFF) * (size - 1)) >> 16)) % size);
        prop_assert_eq!(overflow_bit(spread(h)), 1_u32 << (((h >> 16) & 0xFFFF) & 31));
    }

    #[test]
    fn a_damaged_index_never_panics(bytes in prop::collection::vec(any::<u8>(), 64 * 7), h in any::<u64>()) {
        let plan = IndexPlan::with_buckets(63, 0, 7);
        let index = Index::new(Buffer::from_vec(bytes), plan).unwrap();
        let (found, lines) = find(&index, h, |_| false);
        prop_assert_eq!(found, None);
        prop_assert!(lines <= 2);
    }
}
