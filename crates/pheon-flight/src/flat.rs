//! How large columns become that refer to their values, once each row has its own: a message of few bytes can stand for
//! any number of them.

use arrow_array::cast::AsArray;
use arrow_array::{Array, OffsetSizeTrait, RecordBatch, downcast_dictionary_array, downcast_run_array};
use arrow_buffer::ArrowNativeType;
use arrow_schema::DataType;

/// Which columns will be given a value a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flatten {
    /// All that refer to their values.
    All,
    /// Those that are stored otherwise than they come: views and runs. Dictionaries stay dictionaries.
    ButDictionaries,
}

/// Whether a type, or one within it, refers to its values.
fn refers(data_type: &DataType, flatten: Flatten) -> bool {
    use DataType as D;
    match data_type {
        D::Utf8View | D::BinaryView | D::ListView(_) | D::LargeListView(_) | D::RunEndEncoded(..) => true,
        D::Dictionary(..) => flatten == Flatten::All,
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => refers(f.data_type(), flatten),
        D::Struct(fields) => fields.iter().any(|f| refers(f.data_type(), flatten)),
        D::Union(fields, _) => fields.iter().any(|(_, f)| refers(f.data_type(), flatten)),
        _ => false,
    }
}

/// Bytes of the columns of a batch that refer to their values, each row with its own; 0 where there is none.
pub(crate) fn flat_bytes(batch: &RecordBatch, flatten: Flatten) -> u64 {
    let columns = batch.columns().iter().filter(|column| refers(column.data_type(), flatten));
    columns.map(|column| flat(column.as_ref())).fold(0, u64::saturating_add)
}

fn flat(array: &dyn Array) -> u64 {
    use DataType as D;
    match array.data_type() {
        D::Utf8View => array.as_string_view().views().iter().fold(0, |sum, view| sum + u64::from(*view as u32)),
        D::BinaryView => array.as_binary_view().views().iter().fold(0, |sum, view| sum + u64::from(*view as u32)),
        D::ListView(_) => flat_list(array.as_list_view::<i32>().sizes(), array.as_list_view::<i32>().values()),
        D::LargeListView(_) => flat_list(array.as_list_view::<i64>().sizes(), array.as_list_view::<i64>().values()),
        D::Dictionary(..) => {
            downcast_dictionary_array!(
                array => {
                    let size = size_of(array.values().as_ref());
                    array.keys().values().iter().fold(0, |sum: u64, key| sum.saturating_add(size(key.as_usize())))
                }
                _ => u64::MAX
            )
        }
        D::RunEndEncoded(..) => {
            downcast_run_array!(
                array => {
                    let size = size_of(array.values().as_ref());
                    let mut start = 0;
                    array.run_ends().values().iter().enumerate().fold(0, |sum: u64, (run, end)| {
                        let len = end.as_usize().saturating_sub(start);
                        start = end.as_usize();
                        sum.saturating_add(size(run).saturating_mul(len as u64))
                    })
                }
                _ => u64::MAX
            )
        }
        D::List(_) => flat(array.as_list::<i32>().values()),
        D::LargeList(_) => flat(array.as_list::<i64>().values()),
        D::FixedSizeList(..) => flat(array.as_fixed_size_list().values()),
        D::Map(..) => flat(array.as_map().entries()),
        D::Struct(_) => sum(array.as_struct().columns().iter().map(AsRef::as_ref)),
        D::Union(fields, _) => sum(fields.iter().map(|(id, _)| array.as_union().child(id).as_ref())),
        _ => array.get_buffer_memory_size() as u64,
    }
}

fn sum<'a>(children: impl Iterator<Item = &'a dyn Array>) -> u64 {
    children.map(flat).fold(0, u64::saturating_add)
}

/// Lists that may share their values: as many of the average size as they say, and not less than all values once.
fn flat_list<O: OffsetSizeTrait>(sizes: &[O], values: &dyn Array) -> u64 {
    let all = flat(values);
    let taken = sizes.iter().fold(0u64, |sum, size| sum.saturating_add(size.as_usize() as u64));
    all.div_ceil(values.len().max(1) as u64).saturating_mul(taken).max(all)
}

/// The bytes of one value; of nested ones those of all, which is too many.
fn size_of<'a>(values: &'a dyn Array) -> Box<dyn Fn(usize) -> u64 + 'a> {
    fn span<O: OffsetSizeTrait>(offsets: &[O], i: usize) -> u64 {
        // Rows that are null may have any key.
        let end = offsets.get(i + 1).map_or(0, |end| end.as_usize());
        end.saturating_sub(offsets.get(i).map_or(end, |start| start.as_usize())) as u64
    }
    use DataType as D;
    match values.data_type() {
        D::Utf8 => Box::new(|i| span(values.as_string::<i32>().value_offsets(), i)),
        D::LargeUtf8 => Box::new(|i| span(values.as_string::<i64>().value_offsets(), i)),
        D::Binary => Box::new(|i| span(values.as_binary::<i32>().value_offsets(), i)),
        D::LargeBinary => Box::new(|i| span(values.as_binary::<i64>().value_offsets(), i)),
        D::FixedSizeBinary(n) => {
            let width = u64::try_from(*n).unwrap_or(0);
            Box::new(move |_| width)
        }
        other => match other.primitive_width() {
            Some(width) => Box::new(move |_| width as u64),
            None => {
                let all = flat(values);
                Box::new(move |_| all)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::{Int8Type, Int32Type};
    use arrow_array::{
        ArrayRef, DictionaryArray, Int8Array, Int32Array, Int64Array, RunArray, StringArray, StringViewArray,
    };

    use super::*;

    fn bytes(array: ArrayRef, flatten: Flatten) -> u64 {
        flat_bytes(&RecordBatch::try_from_iter([("c", array)]).unwrap(), flatten)
    }

    #[test]
    fn each_row_counts_its_value() {
        let long = "x".repeat(1000);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(), "y"]));
        let keys = Int8Array::from(vec![Some(0), Some(1), None, Some(0)]);
        let dictionary: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::new(keys, texts.clone()));
        assert!((2001..=3001).contains(&bytes(dictionary.clone(), Flatten::All)));
        assert_eq!(bytes(dictionary, Flatten::ButDictionaries), 0, "it stays one");
        let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![1_000_000, 1_000_001]), &texts).unwrap();
        assert_eq!(bytes(Arc::new(runs), Flatten::ButDictionaries), 1_000_000_001);
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![long.as_str(), "y", long.as_str()]));
        assert_eq!(bytes(views, Flatten::All), 2001);
        assert_eq!(bytes(Arc::new(Int64Array::from(vec![1, 2])), Flatten::All), 0, "nothing refers");
        assert_eq!(bytes(texts, Flatten::All), 0);
    }
}
