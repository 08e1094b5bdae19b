//! The two sides of a key comparison: keys as a segment stores them and keys as a caller asks for them.

use arrow_array::{Array, GenericByteArray, types::ByteArrayType};
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
        Some(var_at(self.offsets, self.values, row)? == key)
    }
}

/// Asks for the first and the last line of a variable-length value, which are all lines of a value up to 65 bytes.
#[inline(always)]
pub(crate) fn hint_span(offsets: &[i64], values: &[u8], row: usize) {
    if let Some(&[start, end]) = offsets.get(row..).and_then(|o| o.first_chunk::<2>()) {
        let (first, last) = (start as usize, (end as usize).wrapping_sub(1));
        prefetch::read(values, first);
        if first / 64 != last / 64 {
            prefetch::read(values, last);
        }
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
                Raw::Other => {}
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

/// String and binary arrays with 32- or 64-bit offsets.
impl<'k, T: ByteArrayType> Asked<&'k [u8]> for &'k GenericByteArray<T>
where
    T::Native: AsRef<[u8]>,
{
    #[inline(always)]
    fn key(&self, i: usize) -> Option<&'k [u8]> {
        if Array::is_null(*self, i) { None } else { Some(self.value(i).as_ref()) }
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
