//! The two sides of a key comparison: keys as a segment stores them and keys as a caller asks for them.

use arrow_array::{Array, GenericBinaryArray, OffsetSizeTrait};
use arrow_buffer::NullBuffer;
use pheon_os::prefetch;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::key::{KeyRef, KeyType, hash_fixed64};
use crate::segment::column::{Column, Raw, fixed_at, fixed64, var_at};
use crate::segment::keys::KeyPart;

/// A key column, specialised so that the compiler can see through a batch loop.
pub(crate) trait Stored: Sync {
    /// What a key of this column looks like.
    type Key<'k>: Copy;

    /// Asks for the lines that tell where a row's key is.
    fn hint_place(&self, row: usize);
    /// Asks for the lines of the key itself; the place must be known by now.
    fn hint_key(&self, row: usize);
    /// Whether the row has this key; `None` if the buffers do not hold the row.
    fn equals(&self, row: usize, key: Self::Key<'_>) -> Option<bool>;
}

/// Keys to look up, in order.
pub(crate) trait Asked<K>: Sync {
    /// The key at `i`; `None`: it cannot be in the dataset (a null, or out of the type's range).
    fn key(&self, i: usize) -> Option<K>;
}

/// A key that knows its hash.
pub(crate) trait Hashed: Copy {
    fn hash(self, seed: u64) -> u64;
}

impl Hashed for &[u8] {
    #[inline(always)]
    fn hash(self, seed: u64) -> u64 {
        xxh3_64_with_seed(self, seed)
    }
}

impl Hashed for u64 {
    #[inline(always)]
    fn hash(self, seed: u64) -> u64 {
        hash_fixed64(self, seed)
    }
}

impl Hashed for KeyRef<'_> {
    #[inline]
    fn hash(self, seed: u64) -> u64 {
        KeyRef::hash(self, seed)
    }
}

/// LargeUtf8 and LargeBinary keys.
pub(crate) struct VarKeys<'a> {
    pub(crate) offsets: &'a [i64],
    pub(crate) values: &'a [u8],
}

impl Stored for VarKeys<'_> {
    type Key<'k> = &'k [u8];

    #[inline(always)]
    fn hint_place(&self, row: usize) {
        prefetch::read_at(self.offsets, row);
        prefetch::read_at(self.offsets, row + 1);
    }

    #[inline(always)]
    fn hint_key(&self, row: usize) {
        hint_span(self.offsets, self.values, row);
    }

    #[inline(always)]
    fn equals(&self, row: usize, key: &[u8]) -> Option<bool> {
        Some(same_bytes(var_at(self.offsets, self.values, row)?, key))
    }
}

/// Lines of a value that are asked for at most: longer ones are read in order, which processors foresee.
const SPAN_LINES_MAX: usize = 8;

/// Asks for the lines of a variable-length value.
#[inline(always)]
pub(crate) fn hint_span(offsets: &[i64], values: &[u8], row: usize) {
    if let Some(&[start, end]) = offsets.get(row..).and_then(|o| o.first_chunk::<2>()) {
        let (first, last) = (start as usize, (end as usize).wrapping_sub(1));
        prefetch::read(values, first);
        let lines = (last / 64).wrapping_sub(first / 64);
        if lines > 0 {
            prefetch::read(values, last);
            if lines > 1 {
                (1..lines.min(SPAN_LINES_MAX)).for_each(|line| prefetch::read(values, first.wrapping_add(64 * line)));
            }
        }
    }
}

/// Whether two byte strings are equal. Without a call for those of up to 128 bytes: whole blocks, and the last one again so
/// that it overlaps, for lengths differ from key to key and every branch on them may be foreseen wrongly.
#[inline(always)]
pub(crate) fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    const BLOCK: usize = 32;
    #[inline(always)]
    fn differ<const N: usize>(a: &[u8; N], b: &[u8; N]) -> u64 {
        let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        std::iter::zip(a, b).fold(0, |all, (a, b)| all | (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)))
    }
    #[inline(always)]
    fn same_ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
        a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
    }
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        129.. => a == b,
        BLOCK.. => {
            let blocks = std::iter::zip(a.as_chunks::<BLOCK>().0, b.as_chunks::<BLOCK>().0);
            let difference = blocks.fold(0, |all, (a, b)| all | differ(a, b));
            difference == 0 && a.last_chunk::<BLOCK>() == b.last_chunk::<BLOCK>()
        }
        16.. => same_ends::<16>(a, b),
        8.. => same_ends::<8>(a, b),
        4.. => same_ends::<4>(a, b),
        _ => a == b,
    }
}

/// Integer, boolean-free 64-bit keys and narrower.
pub(crate) struct FixedKeys<'a> {
    pub(crate) values: &'a [u8],
    pub(crate) width: usize,
    pub(crate) signed: bool,
}

impl Stored for FixedKeys<'_> {
    type Key<'k> = u64;

    #[inline(always)]
    fn hint_place(&self, row: usize) {
        prefetch::read(self.values, row.wrapping_mul(self.width));
    }

    #[inline(always)]
    fn hint_key(&self, _row: usize) {}

    #[inline(always)]
    fn equals(&self, row: usize, key: u64) -> Option<bool> {
        Some(fixed64(fixed_at(self.values, self.width, row)?, self.signed) == key)
    }
}

/// Keys of eight bytes, which are compared as they lie.
pub(crate) struct WordKeys<'a>(pub(crate) &'a [[u8; 8]]);

impl Stored for WordKeys<'_> {
    type Key<'k> = u64;

    #[inline(always)]
    fn hint_place(&self, row: usize) {
        prefetch::read_at(self.0, row);
    }

    #[inline(always)]
    fn hint_key(&self, _row: usize) {}

    #[inline(always)]
    fn equals(&self, row: usize, key: u64) -> Option<bool> {
        self.0.get(row).map(|stored| u64::from_le_bytes(*stored) == key)
    }
}

/// Every other key type: booleans, decimals, fixed-size binaries.
pub(crate) struct AnyKeys<'a> {
    pub(crate) column: &'a Column,
    pub(crate) key_type: KeyType,
}

impl Stored for AnyKeys<'_> {
    type Key<'k> = KeyRef<'k>;

    fn hint_place(&self, row: usize) {
        if let Raw::Fixed { width, values } = &self.column.raw {
            prefetch::read(values, row.wrapping_mul(*width));
        }
    }

    fn hint_key(&self, _row: usize) {}

    fn equals(&self, row: usize, key: KeyRef<'_>) -> Option<bool> {
        Some(self.column.key(self.key_type, row)? == key)
    }
}

/// Keys of several columns, asked for as key bytes.
pub(crate) struct CompositeKeys<'a> {
    pub(crate) columns: &'a [Column],
    pub(crate) parts: &'a [KeyPart],
}

impl Stored for CompositeKeys<'_> {
    type Key<'k> = &'k [u8];

    #[inline]
    fn hint_place(&self, row: usize) {
        for part in self.parts {
            match &self.columns[part.column].raw {
                Raw::Var { offsets, .. } => {
                    prefetch::read_at(offsets, row);
                    prefetch::read_at(offsets, row + 1);
                }
                Raw::Fixed { width, values } => prefetch::read(values, row.wrapping_mul(*width)),
                Raw::Bool { values } => prefetch::read(values, row / 8),
                Raw::Struct { .. } | Raw::Other => {}
            }
        }
    }

    #[inline]
    fn hint_key(&self, row: usize) {
        for part in self.parts {
            if let Raw::Var { offsets, values } = &self.columns[part.column].raw {
                hint_span(offsets, values, row);
            }
        }
    }

    /// Column by column against the key bytes, so that nothing is put together.
    fn equals(&self, row: usize, key: &[u8]) -> Option<bool> {
        let mut rest = key;
        for part in self.parts {
            match part.key_type.strip(self.columns[part.column].key(part.key_type, row)?, rest) {
                Some(after) => rest = after,
                None => return Some(false),
            }
        }
        Some(rest.is_empty())
    }
}

/// Byte keys as slices, for callers that have no Arrow array.
impl<'k> Asked<&'k [u8]> for &[&'k [u8]] {
    #[inline(always)]
    fn key(&self, i: usize) -> Option<&'k [u8]> {
        Some(self[i])
    }
}

impl<'k> Asked<&'k [u8]> for &[Option<&'k [u8]>] {
    #[inline(always)]
    fn key(&self, i: usize) -> Option<&'k [u8]> {
        self[i]
    }
}

/// Binary arrays with 32- or 64-bit offsets.
impl<'k, I: OffsetSizeTrait> Asked<&'k [u8]> for &'k GenericBinaryArray<I> {
    #[inline(always)]
    fn key(&self, i: usize) -> Option<&'k [u8]> {
        if Array::is_null(*self, i) { None } else { Some(self.value(i)) }
    }
}

/// 64-bit keys with the nulls of the array they come from.
pub(crate) struct Words<'a> {
    pub(crate) values: &'a [u64],
    pub(crate) nulls: Option<&'a NullBuffer>,
}

impl Asked<u64> for Words<'_> {
    #[inline(always)]
    fn key(&self, i: usize) -> Option<u64> {
        if self.nulls.is_some_and(|n| n.is_null(i)) { None } else { Some(self.values[i]) }
    }
}

impl<'k> Asked<KeyRef<'k>> for &[Option<KeyRef<'k>>] {
    fn key(&self, i: usize) -> Option<KeyRef<'k>> {
        self[i]
    }
}

#[cfg(test)]
mod tests {
    use super::same_bytes;

    #[test]
    fn one_byte_makes_a_difference_anywhere() {
        for len in 0..300 {
            let mut a: Vec<u8> = (0..len).map(|i| (i * 7 % 256) as u8).collect();
            let b = a.clone();
            assert!(same_bytes(&a, &b), "{len}");
            assert!(!same_bytes(&a, &[&b[..], b"x"].concat()), "{len}");
            for at in 0..len {
                a[at] ^= 1 << (at % 8);
                assert!(!same_bytes(&a, &b), "{len} {at}");
                a[at] = b[at];
            }
        }
    }

    #[test]
    fn two_equal_differences_do_not_make_up_for_each_other() {
        for len in 0..140 {
            let mut a: Vec<u8> = (0..len).map(|i| (i * 7 % 256) as u8).collect();
            let b = a.clone();
            for (first, second) in (0..len).flat_map(|first| (first + 1..len).map(move |second| (first, second))) {
                a[first] ^= 4;
                a[second] ^= 4;
                assert!(!same_bytes(&a, &b), "{len} {first} {second}");
                (a[first], a[second]) = (b[first], b[second]);
            }
        }
    }
}
