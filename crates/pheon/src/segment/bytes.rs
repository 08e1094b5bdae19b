//! How many bytes rows have, for who wants to know before they are copied.

use std::ops::Range;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;

use super::column::{Column, Raw};
use super::file::ArrowFile;
use crate::error::ReadError;

impl Column {
    /// Bytes that a copy of these rows has, without validity. O(1), but for nested columns O(depth) once they are validated.
    pub(crate) fn row_bytes(&self, file: &ArrowFile, rows: Range<u32>) -> Result<u64, ReadError> {
        let (start, end) = (rows.start as usize, rows.end as usize);
        let len = end.saturating_sub(start) as u64;
        Ok(match &self.raw {
            Raw::Var { offsets, .. } => {
                let offset = |at: usize| offsets.get(at).copied().unwrap_or(0);
                // Damaged offsets are found when the rows are read.
                8 * len + u64::try_from(offset(end).saturating_sub(offset(start))).unwrap_or(0)
            }
            Raw::Fixed { width, .. } => (*width as u64).saturating_mul(len),
            Raw::Bool { .. } => len.div_ceil(8),
            Raw::Struct { fields } => fields.iter().try_fold(0u64, |sum, field| {
                field.row_bytes(file, rows.clone()).map(|bytes| sum.saturating_add(bytes))
            })?,
            Raw::Other => array_bytes(&self.slice(file, start, end - start)?),
        })
    }

    /// Bytes that a null row of a copy has, without validity.
    pub(crate) fn null_bytes(&self) -> u64 {
        null_bytes(&self.data_type)
    }
}

/// What a row without a value takes all the same: the room of a value of fixed width, an offset.
pub(crate) fn null_bytes(data_type: &DataType) -> u64 {
    use DataType as D;
    match data_type {
        D::Null => 0,
        D::Boolean => 1,
        D::Utf8 | D::Binary | D::List(_) | D::Map(..) => 4,
        D::LargeUtf8 | D::LargeBinary | D::LargeList(_) | D::ListView(_) => 8,
        D::FixedSizeBinary(width) => u64::try_from(*width).unwrap_or(0),
        D::FixedSizeList(field, width) => {
            null_bytes(field.data_type()).saturating_mul(u64::try_from(*width).unwrap_or(0))
        }
        D::Struct(fields) => fields.iter().map(|field| null_bytes(field.data_type())).fold(0, u64::saturating_add),
        // Its kind, its place, and of some unions a value of each kind.
        D::Union(fields, _) => {
            fields.iter().map(|(_, field)| null_bytes(field.data_type())).fold(5, u64::saturating_add)
        }
        D::Dictionary(keys, _) => keys.primitive_width().unwrap_or(8) as u64,
        // Views and the like have 16.
        other => other.primitive_width().unwrap_or(16) as u64,
    }
}

/// What a copy of an array has: of a dictionary only the keys, for its values are shared.
fn array_bytes(array: &dyn Array) -> u64 {
    use DataType as D;
    let len = array.len() as u64;
    let span = |offsets: &[i64]| match offsets {
        [first, .., last] => (*first as usize, (last - first).max(0) as usize),
        _ => (0, 0),
    };
    let narrow = |offsets: &[i32]| match offsets {
        [first, .., last] => (*first as usize, (last - first).max(0) as usize),
        _ => (0, 0),
    };
    let within = |values: &dyn Array, (first, count): (usize, usize)| array_bytes(values.slice(first, count).as_ref());
    match array.data_type() {
        D::Null => 0,
        D::Boolean => len.div_ceil(8),
        D::Utf8 => 4 * len + narrow(array.as_string::<i32>().value_offsets()).1 as u64,
        D::Binary => 4 * len + narrow(array.as_binary::<i32>().value_offsets()).1 as u64,
        D::LargeUtf8 => 8 * len + span(array.as_string::<i64>().value_offsets()).1 as u64,
        D::LargeBinary => 8 * len + span(array.as_binary::<i64>().value_offsets()).1 as u64,
        D::List(_) => {
            let list = array.as_list::<i32>();
            4 * len + within(list.values(), narrow(list.value_offsets()))
        }
        D::LargeList(_) => {
            let list = array.as_list::<i64>();
            8 * len + within(list.values(), span(list.value_offsets()))
        }
        D::Map(..) => {
            let map = array.as_map();
            4 * len + within(map.entries(), narrow(map.value_offsets()))
        }
        D::FixedSizeList(_, width) => {
            let list = array.as_fixed_size_list();
            let (first, width) = (list.value_offset(0) as usize, usize::try_from(*width).unwrap_or(0));
            within(list.values(), (first, list.len() * width))
        }
        D::Struct(_) => array.as_struct().columns().iter().map(|column| array_bytes(column)).sum(),
        D::Dictionary(keys, _) => keys.primitive_width().unwrap_or(8) as u64 * len,
        D::FixedSizeBinary(width) => u64::try_from(*width).unwrap_or(0) * len,
        other => match other.primitive_width() {
            Some(width) => width as u64 * len,
            None => array.to_data().get_slice_memory_size().unwrap_or(0) as u64,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::types::Int8Type;
    use arrow_array::{
        ArrayRef, DictionaryArray, Int64Array, LargeStringArray, StringArray, StructArray, new_null_array,
    };
    use arrow_data::ArrayData;
    use arrow_schema::{Field, UnionFields, UnionMode};

    use super::*;

    #[test]
    fn nulls_count_what_they_take() {
        use DataType as D;
        const ROWS: usize = 64;
        let field = |data_type| Arc::new(Field::new("f", data_type, true));
        let union = UnionFields::try_new([0, 1], [Field::new("a", D::Int64, true), Field::new("b", D::Utf8, true)]);
        for data_type in [
            D::Null,
            D::Boolean,
            D::Int8,
            D::Int64,
            D::Decimal256(40, 2),
            D::Utf8,
            D::LargeUtf8,
            D::Utf8View,
            D::FixedSizeBinary(1000),
            D::List(field(D::Int64)),
            D::LargeList(field(D::Int64)),
            D::FixedSizeList(field(D::Float32), 768),
            D::FixedSizeList(field(D::Struct(vec![field(D::Int64), field(D::LargeBinary)].into())), 3),
            D::Struct(vec![field(D::Int32), field(D::Utf8), field(D::FixedSizeBinary(5))].into()),
            D::Dictionary(Box::new(D::Int16), Box::new(D::Utf8)),
            D::Union(union.unwrap(), UnionMode::Sparse),
        ] {
            let taken = new_null_array(&data_type, ROWS).to_data();
            let bytes = |data: &ArrayData| data.buffers().iter().map(|b| b.len() as u64).sum::<u64>();
            fn all(data: &ArrayData, bytes: &dyn Fn(&ArrayData) -> u64) -> u64 {
                bytes(data) + data.child_data().iter().map(|child| all(child, bytes)).sum::<u64>()
            }
            let (counted, taken) = (ROWS as u64 * null_bytes(&data_type), all(&taken, &bytes));
            // There is one offset more than rows, and truths are bits.
            assert!(counted + 32 >= taken, "{data_type}: {counted} of {taken}");
            assert!(counted <= 2 * taken || data_type == D::Boolean, "{data_type}: {counted} of {taken}");
        }
    }

    #[test]
    fn slices_count_their_own_rows() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for text in ["a", "bbbb", "cc"] {
            lists.append_value([Some(text), Some(text)]);
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let texts: ArrayRef = Arc::new(LargeStringArray::from(vec!["xxx", "", "yyyyy"]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let shared: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::new(
            vec![0, 0, 0].into(),
            Arc::new(StringArray::from(vec!["x".repeat(1000)])),
        ));
        let all = StructArray::try_from(vec![("texts", texts.clone()), ("numbers", numbers.clone())]).unwrap();
        for (array, whole, last) in [
            (&lists, 3 * 4 + 6 * 4 + 14, 4 + 2 * 4 + 4),
            (&texts, 3 * 8 + 8, 8 + 5),
            (&numbers, 24, 8),
            (&shared, 3, 1),
            (&(Arc::new(all) as ArrayRef), 24 + 8 + 24, 8 + 5 + 8),
        ] {
            assert_eq!(array_bytes(array), whole, "{:?}", array.data_type());
            assert_eq!(array_bytes(&array.slice(2, 1)), last, "{:?}", array.data_type());
            assert_eq!(array_bytes(&array.slice(1, 0)), 0, "{:?}", array.data_type());
        }
    }
}
