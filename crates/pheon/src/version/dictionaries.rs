//! One dictionary for rows of several segments, each of which has its own.
//!
//! Arrow's kernels put different dictionaries behind each other: values occur twice, small indices overflow, and the
//! order of an ordered dictionary is lost. So arrays get the same dictionary before they are joined: the values of the
//! oldest segment in their order, then those that younger ones add. Wherever in a type the dictionary is.

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, ArrayRef, UInt32Array, make_array};
use arrow_cast::{CastOptions, cast, cast_with_options};
use arrow_data::ArrayData;
use arrow_data::transform::MutableArrayData;
use arrow_schema::{ArrowError, DataType};
use arrow_select::concat::concat;
use arrow_select::take::take;

use super::Version;
use crate::build::has_dictionary;
use crate::error::ReadError;

impl Version {
    /// Arrays of one column with a common dictionary, if its type has any.
    pub(crate) fn with_one_dictionary(&self, column: usize, arrays: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, ReadError> {
        if self.parts.len() == 1 || !has_dictionary(self.schema().field(column).data_type()) {
            return Ok(arrays);
        }
        let mut all = self.dictionaries_of(column)?;
        let own = all.len();
        all.extend(arrays.iter().map(|array| array.to_data()));
        match unify(&all) {
            Ok(unified) => Ok(unified.into_iter().skip(own).map(make_array).collect()),
            Err(e) => Err(ReadError::arrow("join the dictionaries of several segments", e)),
        }
    }

    /// No rows of each segment, oldest first: just the dictionaries.
    pub(crate) fn dictionaries_of(&self, column: usize) -> Result<Vec<ArrayData>, ReadError> {
        let slice = |part: &super::Part| {
            let segment = &part.segment;
            Ok(segment.columns[column].slice(&segment.data, 0, 0)?.to_data())
        };
        self.parts.iter().map(slice).collect()
    }
}

/// Rows of arrays with common dictionaries: for each piece which array, its first row there and the one after its last.
///
/// Not by Arrow's `interleave` and `concat`, which put dictionaries behind each other even if they are the same.
pub(crate) fn join(
    arrays: &[ArrayRef],
    pieces: impl Iterator<Item = (usize, usize, usize)>,
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    let arrays: Vec<ArrayData> = arrays.iter().map(|array| array.to_data()).collect();
    let mut joined = MutableArrayData::new(arrays.iter().collect(), false, rows);
    for (array, from, to) in pieces {
        joined.try_extend(array, from, to)?;
    }
    Ok(make_array(joined.freeze()))
}

/// The same arrays, all of one type, with common dictionaries.
///
/// # Errors
/// If a common dictionary has more values than the indices can number.
pub(crate) fn unify(arrays: &[ArrayData]) -> Result<Vec<ArrayData>, ArrowError> {
    let Some(first) = arrays.first() else { return Ok(Vec::new()) };
    if let DataType::Dictionary(index, values) = first.data_type() {
        return unify_dictionaries(arrays, index, values);
    }
    let mut children: Vec<Vec<ArrayData>> = vec![Vec::new(); arrays.len()];
    for i in 0..first.child_data().len() {
        let of_all: Vec<ArrayData> = arrays.iter().map(|array| array.child_data()[i].clone()).collect();
        for (own, child) in children.iter_mut().zip(unify(&of_all)?) {
            own.push(child);
        }
    }
    let rebuilt = arrays.iter().zip(children).map(|(array, children)| {
        if children.is_empty() { Ok(array.clone()) } else { array.clone().into_builder().child_data(children).build() }
    });
    rebuilt.collect()
}

fn unify_dictionaries(
    arrays: &[ArrayData],
    index: &DataType,
    value_type: &DataType,
) -> Result<Vec<ArrayData>, ArrowError> {
    let first = &arrays[0].child_data()[0];
    if arrays.iter().all(|array| array.child_data()[0].ptr_eq(first)) {
        return Ok(arrays.to_vec());
    }
    let dictionaries: Vec<ArrayRef> = arrays.iter().map(|array| make_array(array.child_data()[0].clone())).collect();
    let all = concat(&dictionaries.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
    let wide = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(value_type.clone()));
    // By first appearance, each once.
    let numbered = cast(&all, &wide)?;
    let numbered = numbered.as_dictionary::<UInt32Type>();
    let (found, most) = (numbered.values().len(), numbers_of(index));
    if found as u64 > most {
        return Err(ArrowError::InvalidArgumentError(format!("{found} values, and {index} numbers {most}")));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut start = 0;
    let mut unified = Vec::with_capacity(arrays.len());
    for (array, dictionary) in arrays.iter().zip(&dictionaries) {
        let renumbered: UInt32Array = numbered.keys().slice(start, dictionary.len());
        start += dictionary.len();
        let keys = make_array(
            ArrayData::builder(index.clone())
                .len(array.len())
                .offset(array.offset())
                .add_buffer(array.buffers()[0].clone())
                .nulls(array.nulls().cloned())
                .build()?,
        );
        let keys = cast_with_options(&take(&renumbered, &keys, None)?, index, &strict)?.to_data();
        let data = ArrayData::builder(array.data_type().clone())
            .len(keys.len())
            .offset(keys.offset())
            .add_buffer(keys.buffers()[0].clone())
            .nulls(keys.nulls().cloned())
            .add_child_data(numbered.values().to_data());
        unified.push(data.build()?);
    }
    Ok(unified)
}

/// How many values indices of this type number.
fn numbers_of(index: &DataType) -> u64 {
    let bits = 8 * index.primitive_width().unwrap_or(8) as u32;
    let bits = if index.is_signed_integer() { bits - 1 } else { bits };
    1u64.checked_shl(bits).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int8Type;
    use arrow_array::{DictionaryArray, Int8Array, StringArray, StructArray};
    use arrow_schema::Field;

    use super::*;

    fn coded(codes: Vec<Option<i8>>, values: Vec<&str>) -> ArrayRef {
        let values: ArrayRef = Arc::new(StringArray::from(values));
        Arc::new(DictionaryArray::<Int8Type>::try_new(Int8Array::from(codes), values).unwrap())
    }

    fn texts(array: &dyn Array) -> Vec<Option<String>> {
        let plain = cast(array, &DataType::Utf8).unwrap();
        plain.as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect()
    }

    #[test]
    fn the_first_dictionary_keeps_its_order_and_values_come_once() {
        let arrays = [
            coded(vec![Some(2), Some(0)], vec!["lo", "mid", "hi"]),
            coded(vec![Some(1), None, Some(0)], vec!["hi", "top"]),
        ];
        let data: Vec<ArrayData> = arrays.iter().map(|a| a.slice(1, a.len() - 1).to_data()).collect();
        let unified: Vec<ArrayRef> = unify(&data).unwrap().into_iter().map(make_array).collect();
        for (array, before) in unified.iter().zip(&arrays) {
            let values = array.as_dictionary::<Int8Type>().values();
            assert_eq!(texts(values), ["lo", "mid", "hi", "top"].map(|v| Some(v.to_owned())));
            assert_eq!(texts(array), texts(&before.slice(1, before.len() - 1)));
        }
        let joined = join(&unified, [(1, 0, 2), (0, 0, 1)].into_iter(), 3).unwrap();
        assert_eq!(joined.as_dictionary::<Int8Type>().values().len(), 4);
        assert_eq!(texts(&joined), [None, Some("hi".to_owned()), Some("lo".to_owned())]);
    }

    #[test]
    fn dictionaries_inside_structs_are_joined_too() {
        let inside = |codes, values| -> ArrayRef {
            let child = coded(codes, values);
            Arc::new(StructArray::from(vec![(Arc::new(Field::new("x", child.data_type().clone(), true)), child)]))
        };
        let arrays = [inside(vec![Some(0)], vec!["a"]), inside(vec![Some(0), Some(1)], vec!["b", "a"])];
        let unified = unify(&arrays.iter().map(|a| a.to_data()).collect::<Vec<_>>()).unwrap();
        let unified: Vec<ArrayRef> = unified.into_iter().map(make_array).collect();
        let joined = join(&unified, [(0, 0, 1), (1, 0, 2)].into_iter(), 3).unwrap();
        let column = joined.as_struct().column(0);
        assert_eq!(texts(column), ["a", "b", "a"].map(|v| Some(v.to_owned())));
        assert_eq!(column.as_dictionary::<Int8Type>().values().len(), 2);
    }

    #[test]
    fn more_values_than_the_indices_number_are_an_error() {
        let many = |from: usize| {
            let values: Vec<String> = (from..from + 100).map(|i| format!("{i}")).collect();
            coded(vec![Some(0)], values.iter().map(String::as_str).collect()).to_data()
        };
        assert!(unify(&[many(0), many(100)]).is_err());
        assert!(unify(&[many(0), many(27)]).is_ok());
    }
}
