//! How large columns become that refer to their values, once each row has its own, or whose rows take no bytes: a message
//! of few bytes can stand for any number of them.

use arrow_array::cast::AsArray;
use arrow_array::{Array, OffsetSizeTrait, RecordBatch, downcast_dictionary_array, downcast_run_array};
use arrow_buffer::ArrowNativeType;
use arrow_data::ArrayData;
use arrow_schema::DataType;

/// What a row of a column may need, whatever it came in: an offset, or a number.
const WORD_BYTES: u64 = 8;
/// What a batch takes that is kept, beside its columns' buffers, about.
const BATCH_BYTES: u64 = 256;

/// Which columns will be given a value a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flatten {
    /// All that refer to their values; columns of nulls alone too, which get another type.
    All,
    /// Those that are stored otherwise than they come: views and runs. Dictionaries stay dictionaries.
    ButDictionaries,
}

/// Whether a type, or one within it, refers to its values.
fn refers(data_type: &DataType, flatten: Flatten) -> bool {
    use DataType as D;
    match data_type {
        D::Utf8View | D::BinaryView | D::ListView(_) | D::LargeListView(_) | D::RunEndEncoded(..) => true,
        D::Dictionary(..) | D::Null => flatten == Flatten::All,
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

/// What a batch takes that is kept until it is joined with others: not less than a word for each row of each column.
pub(crate) fn kept_bytes(batch: &RecordBatch) -> u64 {
    fn values(data: &ArrayData) -> u64 {
        let own = if matches!(data.data_type(), DataType::Struct(_)) { 0 } else { data.len() as u64 };
        data.child_data().iter().map(values).fold(own, u64::saturating_add)
    }
    let words = batch.columns().iter().map(|column| values(&column.to_data())).fold(0, u64::saturating_add);
    (batch.get_array_memory_size() as u64).max(words.saturating_mul(WORD_BYTES)).saturating_add(BATCH_BYTES)
}

fn flat(array: &dyn Array) -> u64 {
    use DataType as D;
    match array.data_type() {
        D::Null => WORD_BYTES.saturating_mul(array.len() as u64),
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

/// The bytes of one value and its offset, at least one; of nested ones those of all, which is too many.
fn size_of<'a>(values: &'a dyn Array) -> Box<dyn Fn(usize) -> u64 + 'a> {
    fn span<O: OffsetSizeTrait>(offsets: &[O], i: usize) -> u64 {
        // Rows that are null may have any key.
        let end = offsets.get(i + 1).map_or(0, |end| end.as_usize());
        WORD_BYTES + end.saturating_sub(offsets.get(i).map_or(end, |start| start.as_usize())) as u64
    }
    use DataType as D;
    match values.data_type() {
        D::Utf8 => Box::new(|i| span(values.as_string::<i32>().value_offsets(), i)),
        D::LargeUtf8 => Box::new(|i| span(values.as_string::<i64>().value_offsets(), i)),
        D::Binary => Box::new(|i| span(values.as_binary::<i32>().value_offsets(), i)),
        D::LargeBinary => Box::new(|i| span(values.as_binary::<i64>().value_offsets(), i)),
        D::FixedSizeBinary(n) => {
            let width = u64::try_from(*n).unwrap_or(0).max(1);
            Box::new(move |_| width)
        }
        other => match other.primitive_width() {
            Some(width) => Box::new(move |_| width as u64),
            None => {
                let all = flat(values).max(1);
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
        ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Int8Array, Int32Array, Int64Array, NullArray,
        RunArray, StringArray, StringViewArray, StructArray,
    };
    use arrow_buffer::Buffer;

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
        assert!((2001..=3033).contains(&bytes(dictionary.clone(), Flatten::All)));
        assert_eq!(bytes(dictionary, Flatten::ButDictionaries), 0, "it stays one");
        let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![1_000_000, 1_000_001]), &texts).unwrap();
        assert_eq!(bytes(Arc::new(runs), Flatten::ButDictionaries), 1_008_000_009);
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![long.as_str(), "y", long.as_str()]));
        assert_eq!(bytes(views, Flatten::All), 2001);
        assert_eq!(bytes(Arc::new(Int64Array::from(vec![1, 2])), Flatten::All), 0, "nothing refers");
        assert_eq!(bytes(texts, Flatten::All), 0);
    }

    #[test]
    fn values_without_bytes_count_too() {
        const ROWS: i32 = 1_000_000;
        let ends = Int32Array::from(vec![ROWS]);
        let run = |value: ArrayRef| Arc::new(RunArray::<Int32Type>::try_new(&ends, &value).unwrap()) as ArrayRef;
        for value in [
            Arc::new(StringArray::from(vec![""])) as ArrayRef,
            Arc::new(StringArray::new_null(1)),
            Arc::new(NullArray::new(1)),
            Arc::new(FixedSizeBinaryArray::try_new_with_len(0, Buffer::default(), None, 1).unwrap()),
            Arc::new(BooleanArray::from(vec![true])),
            Arc::new(StructArray::new_empty_fields(1, None)),
        ] {
            let name = value.data_type().to_string();
            assert!(bytes(run(value), Flatten::ButDictionaries) >= ROWS as u64, "{name}");
        }
        let nulls: ArrayRef = Arc::new(NullArray::new(1000));
        assert_eq!(bytes(nulls.clone(), Flatten::All), 8000);
        assert_eq!(bytes(nulls, Flatten::ButDictionaries), 0, "they stay nulls");
    }

    #[test]
    fn kept_rows_count_a_word_at_least() {
        let kept = |array: ArrayRef| kept_bytes(&RecordBatch::try_from_iter([("c", array)]).unwrap());
        let nulls: ArrayRef = Arc::new(NullArray::new(1000));
        assert!((8000..9000).contains(&kept(nulls.clone())));
        assert!((8000..9000).contains(&kept(Arc::new(BooleanArray::from(vec![true; 1000])))));
        assert!((8000..9000).contains(&kept(Arc::new(Int64Array::from(vec![7; 1000])))));
        let pair = StructArray::try_from(vec![("a", nulls.clone()), ("b", nulls)]).unwrap();
        assert!((16_000..17_000).contains(&kept(Arc::new(pair))));
        let long = kept(Arc::new(StringArray::from(vec!["x".repeat(100); 1000])));
        assert!(long >= 100_000, "as many as there are");
        assert!(kept(Arc::new(NullArray::new(0))) > 0, "a batch without rows is kept too");
    }
}
