//! One top-level column of a mapped data file: raw buffers for single values, validated arrays for whole columns.
//!
//! Nothing in a buffer is believed: every offset is checked where it is used, and a string is checked to be UTF-8
//! before it is handed out. A damaged file gives [`ReadError::Corrupt`], never a crash.

use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, StructArray, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Fields};

use super::file::{ArrowFile, layout_of};
use super::slice::var_slice;
use crate::access::Access;
use crate::error::ReadError;
use crate::key::{KeyRef, KeyType};
use crate::value::Value;

/// From so many bytes on, rows of a file that is read at random are read in order.
const IN_ORDER_BYTES_MIN: usize = 4 << 20;
/// Fewer lie in one or two pages, which come when they are read.
const ASKED_BYTES_MIN: usize = 8 << 10;

/// A column of a segment.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) position: usize,
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    pub(crate) raw: Raw,
    validity: Option<Buffer>,
    rows: usize,
    whole: OnceLock<ArrayRef>,
    /// Of a dictionary-encoded column, its codes: which value each row has. Whether there are such values is known only
    /// once the whole column is validated.
    pub(crate) codes: Option<Box<Column>>,
}

/// The buffers of a column whose values can be read one at a time.
#[derive(Debug)]
pub(crate) enum Raw {
    /// LargeUtf8 and LargeBinary: `rows + 1` offsets into `values`.
    Var {
        /// Not yet checked.
        offsets: ScalarBuffer<i64>,
        values: Buffer,
    },
    /// Fixed width: exactly `rows * width` bytes, so that a row that is not there is outside.
    Fixed { width: usize, values: Buffer },
    /// One bit a row.
    Bool { values: Buffer },
    /// Structs whose fields can all be read so.
    Struct { fields: Vec<Column> },
    /// Nested in other ways, dictionary-encoded and the like: only as whole, validated arrays.
    Other,
}

impl Column {
    /// Finds every column's buffers and checks their lengths. Costs O(columns).
    pub(crate) fn of_file(file: &ArrowFile) -> Result<Vec<Self>, ReadError> {
        let rows = file.rows as usize;
        let mut columns = Vec::with_capacity(file.schema.fields().len());
        let mut next = 0;
        for (position, field) in file.schema.fields().iter().enumerate() {
            let (_, count) = layout_of(field.data_type());
            let buffers = &file.buffers[next..next + count];
            next += count;
            let column = Self::of_buffers(position, field.name(), field.data_type(), rows, buffers);
            columns.push(column.map_err(|problem| file.corrupt(format!("column {:?}", field.name()), problem))?);
        }
        Ok(columns)
    }

    fn of_buffers(
        position: usize,
        name: &str,
        data_type: &DataType,
        rows: usize,
        buffers: &[Buffer],
    ) -> Result<Self, String> {
        let raw = match data_type {
            // Of no rows a buffer may be missing.
            DataType::Struct(fields) if rows > 0 && is_plain(data_type) => {
                Raw::Struct { fields: Self::of_fields(position, name, fields, rows, buffers)? }
            }
            _ => Raw::of(data_type, rows, buffers)?,
        };
        let validity = match (&raw, buffers.first()) {
            (Raw::Other, _) | (_, None) => None,
            (_, Some(b)) if b.is_empty() => None,
            (_, Some(b)) if b.len() >= rows.div_ceil(8) => Some(b.clone()),
            (_, Some(b)) => return Err(format!("validity has {} bytes for {rows} rows", b.len())),
        };
        let codes = match data_type {
            DataType::Dictionary(codes, _) => Some(Box::new(Self::of_buffers(position, name, codes, rows, buffers)?)),
            _ => None,
        };
        let (name, data_type) = (name.to_owned(), data_type.clone());
        Ok(Self { position, name, data_type, raw, validity, rows, whole: OnceLock::new(), codes })
    }

    fn of_fields(
        position: usize,
        name: &str,
        fields: &Fields,
        rows: usize,
        buffers: &[Buffer],
    ) -> Result<Vec<Self>, String> {
        let mut columns = Vec::with_capacity(fields.len());
        // The first one is the validity of the struct.
        let mut rest = buffers.get(1..).unwrap_or_default();
        for field in fields {
            let (here, after) = rest
                .split_at_checked(layout_of(field.data_type()).1)
                .ok_or_else(|| format!("field {:?} has too few buffers", field.name()))?;
            rest = after;
            let name = format!("{name}.{}", field.name());
            let column = Self::of_buffers(position, &name, field.data_type(), rows, here)
                .map_err(|problem| format!("field {:?}: {problem}", field.name()))?;
            columns.push(column);
        }
        Ok(columns)
    }

    /// A struct of these arrays, one for each field.
    pub(crate) fn struct_of(
        &self,
        file: &ArrowFile,
        arrays: Vec<ArrayRef>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ReadError> {
        let DataType::Struct(fields) = &self.data_type else { unreachable!("only structs have fields") };
        match StructArray::try_new(fields.clone(), arrays, nulls) {
            Ok(array) => Ok(Arc::new(array)),
            Err(e) => Err(file.corrupt(format!("column {:?}", self.name), e.to_string())),
        }
    }

    /// Whether the value of `row` is null. Only for columns with raw buffers.
    #[inline]
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.validity.as_ref().is_some_and(|v| v.as_slice().get(row / 8).is_none_or(|byte| byte >> (row % 8) & 1 == 0))
    }

    pub(crate) fn has_nulls(&self) -> bool {
        self.validity.is_some()
    }

    /// False only where no value is null, of whatever type the column is.
    pub(crate) fn may_have_nulls(&self) -> bool {
        self.has_nulls() || matches!(self.raw, Raw::Other)
    }

    /// The value of one row.
    pub(crate) fn value(&self, file: &ArrowFile, row: usize) -> Result<Value<'_>, ReadError> {
        if row >= self.rows {
            return Err(self.corrupt_at(file, row, format!("there are {} rows", self.rows)));
        }
        if self.is_null(row) {
            return Ok(Value::Null);
        }
        let bad = |problem: &str| self.corrupt_at(file, row, problem.to_owned());
        Ok(match &self.raw {
            Raw::Var { offsets, values } => {
                let bytes = var_at(offsets, values, row).ok_or_else(|| bad("its offsets lie outside the values"))?;
                if matches!(self.data_type, DataType::LargeUtf8) {
                    Value::Str(std::str::from_utf8(bytes).map_err(|_| bad("it is not UTF-8"))?)
                } else {
                    Value::Bytes(bytes)
                }
            }
            Raw::Bool { values } => Value::Bool(bit_at(values, row).ok_or_else(|| bad("it lies outside the buffer"))?),
            Raw::Fixed { width, values } => {
                let bytes = fixed_at(values, *width, row).ok_or_else(|| bad("it lies outside the buffer"))?;
                match Value::of_fixed(&self.data_type, bytes) {
                    Some(value) => value,
                    None => Value::Array(self.slice(file, row, 1)?),
                }
            }
            Raw::Struct { .. } => Value::Array(self.slice(file, row, 1)?),
            Raw::Other => match &self.codes {
                Some(codes) if matches!(&self.data_type, DataType::Dictionary(_, v) if **v == DataType::LargeUtf8) => {
                    self.text_of_dictionary(file, codes, row)?
                }
                _ => Value::Array(self.slice(file, row, 1)?),
            },
        })
    }

    /// The string that a row of a dictionary-encoded column stands for.
    fn text_of_dictionary(&self, file: &ArrowFile, codes: &Self, row: usize) -> Result<Value<'_>, ReadError> {
        let whole = match self.whole.get() {
            Some(whole) => whole,
            None => {
                self.slice(file, 0, self.rows)?;
                self.whole.get().ok_or_else(|| self.corrupt_at(file, row, "it was not kept"))?
            }
        };
        let code = match codes.value(file, row)? {
            Value::Null => return Ok(Value::Null),
            Value::Int(code) => usize::try_from(code).ok(),
            Value::UInt(code) => usize::try_from(code).ok(),
            _ => None,
        };
        let texts = whole.as_any_dictionary().values().as_string::<i64>();
        match code.filter(|&code| code < texts.len()) {
            Some(code) if texts.is_valid(code) => Ok(Value::Str(texts.value(code))),
            Some(_) => Ok(Value::Null),
            None => Err(self.corrupt_at(file, row, "its dictionary has no such value")),
        }
    }

    /// The key of one row, or `None` if the buffers do not hold it.
    #[inline]
    pub(crate) fn key(&self, key_type: KeyType, row: usize) -> Option<KeyRef<'_>> {
        if row >= self.rows {
            // The last byte of a bit-packed column has bits beyond the rows, and keys of no bytes are everywhere.
            return None;
        }
        match &self.raw {
            Raw::Var { offsets, values } => var_at(offsets, values, row).map(KeyRef::Bytes),
            Raw::Bool { values } => bit_at(values, row).map(|b| KeyRef::Fixed64(u64::from(b))),
            Raw::Fixed { width, values } => fixed_at(values, *width, row).map(|b| key_of_fixed(key_type, b)),
            Raw::Struct { .. } | Raw::Other => None,
        }
    }

    pub(crate) fn corrupt_at(&self, file: &ArrowFile, row: usize, problem: impl Into<String>) -> ReadError {
        file.corrupt(format!("row {row} of column {:?}", self.name), problem)
    }

    /// Rows `start .. start + len` as an array that shares the mapping, validated before it is handed out.
    ///
    /// Strings, plain values and structs of them cost O(len); other nested and dictionary columns are validated whole, once.
    pub(crate) fn slice(&self, file: &ArrowFile, start: usize, len: usize) -> Result<ArrayRef, ReadError> {
        if start.checked_add(len).is_none_or(|end| end > self.rows) {
            return Err(self.corrupt_at(file, start, format!("{len} rows asked for, there are {}", self.rows)));
        }
        if let Some(whole) = self.whole.get() {
            return Ok(whole.slice(start, len));
        }
        let moved;
        let mut raw = &self.raw;
        // Fields see to their own.
        if file.access == Access::Random && !matches!(raw, Raw::Struct { .. }) {
            let bytes = raw.bytes_of(start, len);
            if bytes >= IN_ORDER_BYTES_MIN {
                moved = raw.in_order(file);
                raw = &moved;
            } else if bytes >= ASKED_BYTES_MIN {
                raw.each_span(start, len, &mut |bytes| file.ask(bytes));
            }
        }
        let array = match raw {
            Raw::Struct { fields } => {
                let arrays = fields.iter().map(|field| field.slice(file, start, len)).collect::<Result<_, _>>()?;
                self.struct_of(file, arrays, self.nulls(start, len))?
            }
            Raw::Other => {
                let whole = file.decode_column(self.position)?;
                if whole.len() != self.rows {
                    return Err(file.corrupt(
                        format!("column {:?}", self.name),
                        format!("expected {} rows, found {}", self.rows, whole.len()),
                    ));
                }
                let whole = self.whole.get_or_init(|| whole);
                return Ok(whole.slice(start, len));
            }
            Raw::Var { offsets, values } => {
                var_slice(&self.data_type, offsets, values, self.nulls(start, len), start, len)
                    .map_err(|(row, problem)| self.corrupt_at(file, row, problem))?
            }
            Raw::Bool { values } => {
                Arc::new(BooleanArray::new(BooleanBuffer::new(values.clone(), start, len), self.nulls(start, len)))
            }
            Raw::Fixed { width, values } => {
                let data = ArrayData::builder(self.data_type.clone())
                    .len(len)
                    .nulls(self.nulls(start, len))
                    .add_buffer(values.slice_with_length(start * width, len * width))
                    .build()
                    .map_err(|e| self.corrupt_at(file, start, e.to_string()))?;
                make_array(data)
            }
        };
        if start == 0 && len == self.rows {
            return Ok(self.whole.get_or_init(|| array).clone());
        }
        Ok(array)
    }

    fn nulls(&self, start: usize, len: usize) -> Option<NullBuffer> {
        let validity = self.validity.as_ref()?;
        let nulls = NullBuffer::new(BooleanBuffer::new(validity.clone(), start, len));
        (nulls.null_count() > 0).then_some(nulls)
    }
}

impl Raw {
    /// The values of a column of eight bytes each.
    pub(crate) fn words(&self) -> Option<&[[u8; 8]]> {
        match self {
            Self::Fixed { width: 8, values } => Some(values.as_chunks().0),
            _ => None,
        }
    }

    /// Calls `take` with the bytes of some rows: where their values are, then the values. Damaged offsets give none.
    pub(crate) fn each_span(&self, start: usize, len: usize, take: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Var { offsets, values } => {
                let Some(here) = offsets.get(start..).and_then(|o| o.get(..=len)) else { return };
                take(offsets.inner().get(8 * start..8 * (start + len + 1)).unwrap_or_default());
                let (from, to) = (here[0] as usize, here[len] as usize);
                take(values.get(from..to).unwrap_or_default());
            }
            Self::Fixed { width, values } => take(values.get(start * width..(start + len) * width).unwrap_or_default()),
            Self::Bool { values } => take(values.get(start / 8..(start + len).div_ceil(8)).unwrap_or_default()),
            Self::Struct { fields } => fields.iter().for_each(|field| field.raw.each_span(start, len, take)),
            Self::Other => {}
        }
    }

    /// How many bytes [`Raw::each_span`] finds.
    fn bytes_of(&self, start: usize, len: usize) -> usize {
        let mut bytes = 0;
        self.each_span(start, len, &mut |span| bytes += span.len());
        bytes
    }

    /// The same buffers where reading them in order is best.
    fn in_order(&self, file: &ArrowFile) -> Self {
        match self {
            Self::Var { offsets, values } => Self::Var {
                offsets: ScalarBuffer::new(file.in_order(offsets.inner()), 0, offsets.len()),
                values: file.in_order(values),
            },
            Self::Fixed { width, values } => Self::Fixed { width: *width, values: file.in_order(values) },
            Self::Bool { values } => Self::Bool { values: file.in_order(values) },
            Self::Struct { .. } | Self::Other => Self::Other,
        }
    }

    fn of(data_type: &DataType, rows: usize, buffers: &[Buffer]) -> Result<Self, String> {
        let need = |buffer: &Buffer, bytes: Option<usize>, what: &str| match bytes {
            Some(bytes) if buffer.len() >= bytes => Ok(()),
            _ => Err(format!("its {what} buffer has {} bytes, too few for {rows} rows", buffer.len())),
        };
        Ok(match data_type {
            DataType::LargeUtf8 | DataType::LargeBinary => {
                need(&buffers[1], rows.checked_add(1).and_then(|n| n.checked_mul(8)), "offsets")?;
                Self::Var { offsets: ScalarBuffer::new(buffers[1].clone(), 0, rows + 1), values: buffers[2].clone() }
            }
            DataType::Boolean => {
                need(&buffers[1], Some(rows.div_ceil(8)), "values")?;
                Self::Bool { values: buffers[1].clone() }
            }
            DataType::FixedSizeBinary(n) => {
                let width = usize::try_from(*n).map_err(|e| e.to_string())?;
                need(&buffers[1], rows.checked_mul(width), "values")?;
                Self::Fixed { width, values: buffers[1].slice_with_length(0, rows * width) }
            }
            other => match other.primitive_width() {
                Some(width) => {
                    need(&buffers[1], rows.checked_mul(width), "values")?;
                    Self::Fixed { width, values: buffers[1].slice_with_length(0, rows * width) }
                }
                None => Self::Other,
            },
        })
    }
}

/// Whether rows of a type can be read one at a time, in structs too.
fn is_plain(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| is_plain(field.data_type())),
        DataType::LargeUtf8 | DataType::LargeBinary | DataType::Boolean | DataType::FixedSizeBinary(_) => true,
        other => other.primitive_width().is_some(),
    }
}

/// The bytes of one variable-length value, or `None` if the offsets are damaged.
#[inline(always)]
pub(crate) fn var_at<'a>(offsets: &[i64], values: &'a [u8], row: usize) -> Option<&'a [u8]> {
    let &[start, end] = offsets.get(row..)?.first_chunk::<2>()?;
    values.get(start as usize..end as usize)
}

/// The bytes of one fixed-width value.
#[inline(always)]
pub(crate) fn fixed_at(values: &[u8], width: usize, row: usize) -> Option<&[u8]> {
    let start = row.checked_mul(width)?;
    values.get(start..start.checked_add(width)?)
}

#[inline]
fn bit_at(values: &[u8], row: usize) -> Option<bool> {
    Some(values.get(row / 8)? >> (row % 8) & 1 == 1)
}

/// A little-endian integer of 1, 2, 4 or 8 bytes, sign-extended if `signed`.
#[inline(always)]
pub(crate) fn fixed64(bytes: &[u8], signed: bool) -> u64 {
    match (bytes.len(), signed) {
        (1, false) => u64::from(bytes[0]),
        (1, true) => i64::from(bytes[0].cast_signed()).cast_unsigned(),
        (2, false) => u64::from(u16::from_le_bytes([bytes[0], bytes[1]])),
        (2, true) => i64::from(i16::from_le_bytes([bytes[0], bytes[1]])).cast_unsigned(),
        (4, false) => u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes"))),
        (4, true) => i64::from(i32::from_le_bytes(bytes.try_into().expect("four bytes"))).cast_unsigned(),
        _ => u64::from_le_bytes(bytes.try_into().expect("eight bytes")),
    }
}

fn key_of_fixed(key_type: KeyType, bytes: &[u8]) -> KeyRef<'_> {
    match key_type {
        KeyType::Signed(_) => KeyRef::Fixed64(fixed64(bytes, true)),
        KeyType::Unsigned(_) => KeyRef::Fixed64(fixed64(bytes, false)),
        KeyType::Decimal(16) => KeyRef::I128(i128::from_le_bytes(bytes.try_into().expect("sixteen bytes"))),
        KeyType::Decimal(_) => KeyRef::I128(i128::from(fixed64(bytes, true).cast_signed())),
        KeyType::Decimal256 => KeyRef::I256(bytes.try_into().expect("thirty-two bytes")),
        _ => KeyRef::Bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_offsets_give_no_value() {
        let values = b"abcdef";
        for (offsets, row, want) in [
            (&[0, 2, 6][..], 0, Some(&b"ab"[..])),
            (&[0, 2, 6], 1, Some(b"cdef")),
            (&[0, 2, 6], 2, None),
            (&[0, 2, 6], usize::MAX, None),
            (&[3, 3], 0, Some(b"")),
            (&[4, 3], 0, None),
            (&[0, 7], 0, None),
            (&[-1, 3], 0, None),
            (&[i64::MIN, i64::MAX], 0, None),
            (&[0, -1], 0, None),
            (&[6, 6], 0, Some(b"")),
            (&[7, 7], 0, None),
            (&[], 0, None),
        ] {
            assert_eq!(var_at(offsets, values, row), want, "{offsets:?} {row}");
        }
    }

    #[test]
    fn fixed_values_end_with_the_buffer() {
        assert_eq!(fixed_at(b"abcd", 2, 1), Some(&b"cd"[..]));
        assert_eq!(fixed_at(b"abcd", 2, 2), None);
        assert_eq!(fixed_at(b"abcde", 2, 2), None);
        assert_eq!(fixed_at(b"abcd", 2, usize::MAX), None);
        assert_eq!(fixed_at(b"abcd", 0, 9), Some(&b""[..]));
        assert_eq!((bit_at(&[2], 0), bit_at(&[2], 1), bit_at(&[2], 8)), (Some(false), Some(true), None));
    }

    #[test]
    fn integers_extend_by_their_sign() {
        assert_eq!(fixed64(&[0xFF], true), u64::MAX);
        assert_eq!(fixed64(&[0xFF], false), 255);
        assert_eq!(fixed64(&[0xFE, 0xFF], true), u64::MAX - 1);
        assert_eq!(fixed64(&[0xFE, 0xFF], false), 0xFFFE);
        assert_eq!(fixed64(&(-3i32).to_le_bytes(), true), (-3i64).cast_unsigned());
        assert_eq!(fixed64(&u32::MAX.to_le_bytes(), false), u64::from(u32::MAX));
        assert_eq!(fixed64(&i64::MIN.to_le_bytes(), true), 1 << 63);
    }

    #[test]
    fn short_buffers_are_refused_and_long_ones_cut() {
        let buffers = |bytes: usize| [Buffer::default(), Buffer::from(vec![0u8; bytes])];
        assert!(Raw::of(&DataType::Int32, 3, &buffers(11)).unwrap_err().contains("11 bytes"));
        match Raw::of(&DataType::Int32, 3, &buffers(64)).unwrap() {
            Raw::Fixed { width, values } => assert_eq!((width, values.len()), (4, 12)),
            other => panic!("{other:?}"),
        }
        assert!(Raw::of(&DataType::Int64, usize::MAX / 4, &buffers(8)).is_err());
        assert!(Raw::of(&DataType::Boolean, 9, &buffers(1)).is_err());
        assert!(Raw::of(&DataType::Boolean, 8, &buffers(1)).is_ok());
        let text = |bytes: usize| [Buffer::default(), Buffer::from(vec![0u64; bytes / 8]), Buffer::default()];
        assert!(Raw::of(&DataType::LargeUtf8, 0, &text(0)).is_err());
        assert!(Raw::of(&DataType::LargeUtf8, 0, &text(8)).is_ok());
        assert!(Raw::of(&DataType::LargeUtf8, 8, &text(64)).is_err());
        assert!(Raw::of(&DataType::LargeBinary, usize::MAX, &text(64)).is_err());
    }
}
