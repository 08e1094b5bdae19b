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
    use arrow_array::{ArrayRef, DictionaryArray, Int64Array, LargeStringArray, StringArray, StructArray};

    use super::*;

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
