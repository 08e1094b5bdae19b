//! Key columns as sorting, merging and hashing see them: a window of 8 bytes at any depth, comparison, hash.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, Buffer, ScalarBuffer};
use pheon_os::prefetch;

use super::sort::{Place, block_of, row_of};
use crate::key::{KeyRef, KeyType};

/// The key column of one block. `row` is always below the block's number of rows.
///
/// A key is a string of bytes whose order is the order of keys: numbers count as big-endian bytes, sign bit flipped.
pub(crate) trait Cells: Send + Sync + Clone {
    /// How many bytes a key has.
    fn len_bytes(&self, row: usize) -> usize;
    /// The 8 bytes at `depth` as a big-endian number; bytes beyond the key's end are 0. Numbers are only asked for at
    /// multiples of 8 below their length.
    fn window(&self, row: usize, depth: usize) -> u64;
    /// The order of two keys that are known to agree in their first `depth` bytes.
    fn compare(&self, row: usize, other: &Self, other_row: usize, depth: usize) -> Ordering;
    /// As a key to hash or to print.
    fn key(&self, row: usize) -> KeyRef<'_>;
    /// How many leading bytes two keys share; may say less than there are.
    fn shared_bytes(&self, _row: usize, _other: &Self, _other_row: usize) -> usize {
        0
    }
    /// A copy of the keys at `places` from `depth` on, side by side, where that helps sorting them and does not take much
    /// memory; each of them has at least `depth` bytes.
    fn copied(_cells: &[Self], _places: &[Place], _depth: usize) -> Option<Self> {
        None
    }
    /// Asks for what says where the key is.
    fn prefetch_place(&self, row: usize);
    /// Asks for the key's bytes at `depth`; best after [`Cells::prefetch_place`] had time.
    fn prefetch_bytes(&self, _row: usize, _depth: usize) {}
}

/// LargeUtf8 and LargeBinary.
#[derive(Clone)]
pub(crate) struct StringCells {
    offsets: ScalarBuffer<i64>,
    bytes: Buffer,
}

impl StringCells {
    #[inline]
    fn value(&self, row: usize) -> &[u8] {
        let (from, to) = (self.offsets[row] as usize, self.offsets[row + 1] as usize);
        &self.bytes.as_slice()[from..to]
    }
}

/// The first 8 bytes as a big-endian number, padded with zeros.
#[inline]
fn window_of(rest: &[u8]) -> u64 {
    match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => rest.iter().enumerate().fold(0, |w, (i, &b)| w | u64::from(b) << (56 - 8 * i)),
    }
}

impl Cells for StringCells {
    #[inline]
    fn len_bytes(&self, row: usize) -> usize {
        (self.offsets[row + 1] - self.offsets[row]) as usize
    }

    #[inline]
    fn window(&self, row: usize, depth: usize) -> u64 {
        window_of(self.value(row).get(depth..).unwrap_or_default())
    }

    #[inline]
    fn compare(&self, row: usize, other: &Self, other_row: usize, depth: usize) -> Ordering {
        let (a, b) = (self.value(row), other.value(other_row));
        a.get(depth..).unwrap_or_default().cmp(b.get(depth..).unwrap_or_default())
    }

    #[inline]
    fn key(&self, row: usize) -> KeyRef<'_> {
        KeyRef::Bytes(self.value(row))
    }

    fn shared_bytes(&self, row: usize, other: &Self, other_row: usize) -> usize {
        self.value(row).iter().zip(other.value(other_row)).take_while(|(a, b)| a == b).count()
    }

    fn copied(cells: &[Self], places: &[Place], depth: usize) -> Option<Self> {
        const AHEAD_PLACE: usize = 24;
        const AHEAD_BYTES: usize = 12;
        const BYTES_MAX: usize = 4 << 20;
        let mut offsets = Vec::with_capacity(places.len() + 1);
        let mut bytes = Vec::new();
        offsets.push(0);
        for (i, &place) in places.iter().enumerate() {
            if let Some(&ahead) = places.get(i + AHEAD_PLACE) {
                cells[block_of(ahead)].prefetch_place(row_of(ahead));
            }
            if let Some(&ahead) = places.get(i + AHEAD_BYTES) {
                cells[block_of(ahead)].prefetch_bytes(row_of(ahead), depth);
                cells[block_of(ahead)].prefetch_bytes(row_of(ahead), depth + 64);
            }
            bytes.extend_from_slice(&cells[block_of(place)].value(row_of(place))[depth..]);
            if bytes.len() > BYTES_MAX {
                return None;
            }
            offsets.push(bytes.len() as i64);
        }
        Some(Self { offsets: ScalarBuffer::from(offsets), bytes: Buffer::from_vec(bytes) })
    }

    #[inline]
    fn prefetch_place(&self, row: usize) {
        prefetch::read_at(&self.offsets, row);
    }

    #[inline]
    fn prefetch_bytes(&self, row: usize, depth: usize) {
        prefetch::read(self.bytes.as_slice(), self.offsets[row] as usize + depth);
    }
}

/// FixedSizeBinary.
#[derive(Clone)]
pub(crate) struct FixedCells {
    width: usize,
    bytes: Buffer,
}

impl FixedCells {
    #[inline]
    fn value(&self, row: usize) -> &[u8] {
        &self.bytes.as_slice()[row * self.width..][..self.width]
    }
}

impl Cells for FixedCells {
    #[inline]
    fn len_bytes(&self, _row: usize) -> usize {
        self.width
    }

    #[inline]
    fn window(&self, row: usize, depth: usize) -> u64 {
        window_of(self.value(row).get(depth..).unwrap_or_default())
    }

    #[inline]
    fn compare(&self, row: usize, other: &Self, other_row: usize, _depth: usize) -> Ordering {
        self.value(row).cmp(other.value(other_row))
    }

    #[inline]
    fn key(&self, row: usize) -> KeyRef<'_> {
        KeyRef::Bytes(self.value(row))
    }

    #[inline]
    fn prefetch_place(&self, row: usize) {
        prefetch::read(self.bytes.as_slice(), row * self.width);
    }

    #[inline]
    fn prefetch_bytes(&self, row: usize, depth: usize) {
        prefetch::read(self.bytes.as_slice(), row * self.width + depth);
    }
}

/// Integers of up to 8 bytes, and decimals of that size.
#[derive(Clone)]
pub(crate) struct IntegerCells {
    width: usize,
    signed: bool,
    decimal: bool,
    bytes: Buffer,
}

impl IntegerCells {
    /// The value extended to 64 bits.
    #[inline]
    fn value(&self, row: usize) -> u64 {
        let bytes = self.bytes.as_slice();
        let raw = match self.width {
            1 => u64::from(bytes[row]),
            2 => u64::from(u16::from_le_bytes(at(bytes, row))),
            4 => u64::from(u32::from_le_bytes(at(bytes, row))),
            _ => u64::from_le_bytes(at(bytes, row)),
        };
        if self.signed {
            let unused = 64 - 8 * self.width as u32;
            ((raw << unused).cast_signed() >> unused).cast_unsigned()
        } else {
            raw
        }
    }
}

/// Bytes `row * N..` of a column of so wide values.
#[inline]
fn at<const N: usize>(bytes: &[u8], row: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[row * N..][..N]);
    value
}

impl Cells for IntegerCells {
    #[inline]
    fn len_bytes(&self, _row: usize) -> usize {
        8
    }

    #[inline]
    fn window(&self, row: usize, _depth: usize) -> u64 {
        self.value(row) ^ (u64::from(self.signed) << 63)
    }

    #[inline]
    fn compare(&self, row: usize, other: &Self, other_row: usize, _depth: usize) -> Ordering {
        self.window(row, 0).cmp(&other.window(other_row, 0))
    }

    #[inline]
    fn key(&self, row: usize) -> KeyRef<'_> {
        let value = self.value(row);
        if self.decimal { KeyRef::I128(i128::from(value.cast_signed())) } else { KeyRef::Fixed64(value) }
    }

    #[inline]
    fn prefetch_place(&self, row: usize) {
        prefetch::read(self.bytes.as_slice(), row * self.width);
    }
}

/// Booleans.
#[derive(Clone)]
pub(crate) struct BoolCells {
    bits: BooleanBuffer,
}

impl Cells for BoolCells {
    #[inline]
    fn len_bytes(&self, _row: usize) -> usize {
        8
    }

    #[inline]
    fn window(&self, row: usize, _depth: usize) -> u64 {
        u64::from(self.bits.value(row))
    }

    #[inline]
    fn compare(&self, row: usize, other: &Self, other_row: usize, _depth: usize) -> Ordering {
        self.bits.value(row).cmp(&other.bits.value(other_row))
    }

    #[inline]
    fn key(&self, row: usize) -> KeyRef<'_> {
        KeyRef::Fixed64(self.window(row, 0))
    }

    fn prefetch_place(&self, _row: usize) {}
}

/// Decimals of 16 and 32 bytes: little-endian two's complement.
#[derive(Clone)]
pub(crate) struct WideCells<const N: usize> {
    bytes: Buffer,
}

impl<const N: usize> Cells for WideCells<N> {
    #[inline]
    fn len_bytes(&self, _row: usize) -> usize {
        N
    }

    #[inline]
    fn window(&self, row: usize, depth: usize) -> u64 {
        let words = N / 8;
        let word = u64::from_le_bytes(at(self.bytes.as_slice(), row * words + words - 1 - depth / 8));
        if depth == 0 { word ^ 1 << 63 } else { word }
    }

    #[inline]
    fn compare(&self, row: usize, other: &Self, other_row: usize, _depth: usize) -> Ordering {
        (0..N).step_by(8).map(|d| self.window(row, d)).cmp((0..N).step_by(8).map(|d| other.window(other_row, d)))
    }

    #[inline]
    fn key(&self, row: usize) -> KeyRef<'_> {
        if N == 16 {
            KeyRef::I128(i128::from_le_bytes(at(self.bytes.as_slice(), row)))
        } else {
            KeyRef::I256(at(self.bytes.as_slice(), row))
        }
    }

    #[inline]
    fn prefetch_place(&self, row: usize) {
        prefetch::read(self.bytes.as_slice(), row * N);
    }
}

/// Makes the cells of a key column in shape.
pub(crate) trait FromColumn: Cells + Sized + 'static {
    /// `column`: the shape of a column of type `key`, without nulls.
    fn from_column(column: &ArrayRef, key: KeyType) -> Self;
}

impl FromColumn for StringCells {
    fn from_column(column: &ArrayRef, _key: KeyType) -> Self {
        let array = column.as_binary::<i64>();
        Self { offsets: array.offsets().inner().clone(), bytes: array.values().clone() }
    }
}

impl FromColumn for FixedCells {
    fn from_column(column: &ArrayRef, _key: KeyType) -> Self {
        let (bytes, width) = fixed_bytes(column);
        Self { width, bytes }
    }
}

impl FromColumn for IntegerCells {
    fn from_column(column: &ArrayRef, key: KeyType) -> Self {
        let (bytes, width) = fixed_bytes(column);
        let decimal = matches!(key, KeyType::Decimal(_));
        Self { width, signed: decimal || matches!(key, KeyType::Signed(_)), decimal, bytes }
    }
}

impl FromColumn for BoolCells {
    fn from_column(column: &ArrayRef, _key: KeyType) -> Self {
        Self { bits: column.as_boolean().values().clone() }
    }
}

impl<const N: usize> FromColumn for WideCells<N> {
    fn from_column(column: &ArrayRef, _key: KeyType) -> Self {
        Self { bytes: fixed_bytes(column).0 }
    }
}

/// The bytes of a fixed-width shape's rows, and how many a row has.
///
/// # Panics
/// If the array has another shape.
pub(crate) fn fixed_bytes(array: &dyn Array) -> (Buffer, usize) {
    let width = match array.data_type() {
        arrow_schema::DataType::FixedSizeBinary(n) => *n as usize,
        other => other.primitive_width().unwrap_or_else(|| unreachable!("{other} is not of fixed width")),
    };
    let data = array.to_data();
    (data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width), width)
}

/// Runs `$body` with `$cells` standing for the type of cells that fits the key type.
macro_rules! with_cells {
    ($key:expr, $cells:ident => $body:expr) => {{
        use $crate::build::cells as c;
        use $crate::key::KeyType as K;
        match $key {
            K::Utf8 | K::Binary | K::Composite => {
                type $cells = c::StringCells;
                $body
            }
            K::FixedBinary(_) => {
                type $cells = c::FixedCells;
                $body
            }
            K::Bool => {
                type $cells = c::BoolCells;
                $body
            }
            K::Signed(_) | K::Unsigned(_) | K::Decimal(4 | 8) => {
                type $cells = c::IntegerCells;
                $body
            }
            K::Decimal(_) => {
                type $cells = c::WideCells<16>;
                $body
            }
            K::Decimal256 => {
                type $cells = c::WideCells<32>;
                $body
            }
        }
    }};
}
pub(crate) use with_cells;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::dictionary::Dictionaries;
    use crate::build::normalise::{stored_type, to_shape};
    use arrow_array::{
        BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, FixedSizeBinaryArray, Int8Array, Int64Array,
        UInt16Array, UInt64Array,
    };
    use arrow_buffer::i256;
    use std::sync::Arc;

    /// All pairs of rows compare as `KeyType::compare` says, by comparison and by windows.
    fn check(array: ArrayRef) {
        let key = KeyType::of(&stored_type(array.data_type()).unwrap()).unwrap();
        let shape = to_shape(&array, &mut Dictionaries::new(&mut [])).unwrap();
        with_cells!(key, C => {
            let cells = C::from_column(&shape, key);
            for a in 0..array.len() {
                cells.prefetch_place(a);
                cells.prefetch_bytes(a, 3);
                for b in 0..array.len() {
                    let want = key.compare(cells.key(a), cells.key(b));
                    assert_eq!(cells.compare(a, &cells, b, 0), want, "{key:?} {a} {b}");
                    let windows = |row: usize| {
                        let len = cells.len_bytes(row);
                        (0..len.max(1)).step_by(8).map(|d| cells.window(row, d)).chain([len as u64]).collect::<Vec<_>>()
                    };
                    assert_eq!(windows(a).cmp(&windows(b)), want, "{key:?} {a} {b}");
                }
            }
        });
    }

    #[test]
    fn windows_and_comparison_agree_with_the_key_order() {
        check(Arc::new(Int8Array::from(vec![-128, -1, 0, 1, 127, -1])));
        check(Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, 1, i64::MAX])));
        check(Arc::new(UInt16Array::from(vec![0, 1, 0x8000, 0xFFFF])));
        check(Arc::new(UInt64Array::from(vec![0, 1, 1 << 63, u64::MAX])));
        check(Arc::new(BooleanArray::from(vec![true, false, true])));
        let wide = [i128::MIN, -(1 << 64), -1, 0, 1, 1 << 64, (1 << 64) + 1, i128::MAX];
        check(Arc::new(Decimal128Array::from(wide.to_vec()).with_precision_and_scale(38, 0).unwrap()));
        let wide: Vec<_> = wide.iter().map(|&v| i256::from_i128(v)).chain([i256::MIN, i256::MAX]).collect();
        check(Arc::new(Decimal256Array::from(wide)));
        let fixed = [b"abcdefghij", b"abcdefghik", b"abcdefgh\0\0", b"\xffbcdefghij"];
        check(Arc::new(FixedSizeBinaryArray::try_from_iter(fixed.into_iter()).unwrap()));
        let strings: [&[u8]; 7] = [b"", b"a", b"abcdefgh", b"abcdefghi", b"abcdefghzzzzzzzzz", b"\xff", b"b"];
        check(Arc::new(BinaryArray::from_iter_values(strings)));
        check(Arc::new(BinaryArray::from_iter_values(strings).slice(2, 4)));
    }
}
