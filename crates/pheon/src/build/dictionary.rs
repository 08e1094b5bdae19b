//! Unifying dictionaries: every batch may bring its own, a file holds one a column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::ArrowDictionaryKeyType;
use arrow_array::{Array, ArrayRef, PrimitiveArray, make_array, new_empty_array};
use arrow_schema::{ArrowError, DataType, Schema};
use arrow_select::{concat::concat, interleave::interleave};
use xxhash_rust::xxh3::xxh3_64;

use super::normalise::{shape_of, stored_type, to_shape};

/// The dictionaries of a schema in the order in which the schema numbers them, with a cursor for one walk over a batch.
pub(crate) struct Dictionaries<'a> {
    all: &'a mut [Unifier],
    next: usize,
}

impl<'a> Dictionaries<'a> {
    /// For one walk over all columns of a batch.
    pub(crate) fn new(all: &'a mut [Unifier]) -> Self {
        Self { all, next: 0 }
    }

    /// The dictionary of the field that the walk has reached.
    pub(crate) fn next(&mut self) -> Result<&mut Unifier, ArrowError> {
        let at = self.next;
        self.next += 1;
        self.all.get_mut(at).ok_or_else(|| ArrowError::SchemaError("more dictionaries than the schema has".into()))
    }
}

/// The unifiers that a stored schema needs.
pub(crate) fn unifiers(stored: &Schema) -> Vec<Unifier> {
    let mut all = Vec::new();
    stored.fields().iter().for_each(|f| collect(f.data_type(), &mut all));
    all
}

fn collect(data_type: &DataType, all: &mut Vec<Unifier>) {
    use DataType as D;
    match data_type {
        D::Dictionary(keys, values) => all.push(Unifier::new(keys, values)),
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => collect(f.data_type(), all),
        D::Struct(fields) => fields.iter().for_each(|f| collect(f.data_type(), all)),
        D::Union(fields, _) => fields.iter().for_each(|(_, f)| collect(f.data_type(), all)),
        _ => {}
    }
}

/// One dictionary that grows: maps the indices of each batch's own dictionary to its own.
pub(crate) struct Unifier {
    key_type: DataType,
    value_type: DataType,
    /// Values in shape, in pieces as they were met.
    pieces: Vec<ArrayRef>,
    len: usize,
    bytes: u64,
    /// Hash of a value's bytes to the numbers of the values that have it. Only for values that are single byte strings.
    seen: HashMap<u64, Vec<u32>>,
    null_at: Option<u32>,
    /// The last batch's dictionary and how it maps; batches of one stream usually share theirs.
    last: Option<(ArrayRef, Arc<[u32]>)>,
}

impl Unifier {
    fn new(key_type: &DataType, value_type: &DataType) -> Self {
        Self {
            key_type: key_type.clone(),
            value_type: value_type.clone(),
            pieces: Vec::new(),
            len: 0,
            bytes: 0,
            seen: HashMap::new(),
            null_at: None,
            last: None,
        }
    }

    /// Memory that the values take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The type of its values, as they are stored.
    pub(crate) fn values_type(&self) -> &DataType {
        &self.value_type
    }

    /// The type of its values, in shape.
    pub(crate) fn values_shape(&self) -> DataType {
        shape_of(&self.value_type)
    }

    /// The whole dictionary, in shape.
    pub(crate) fn values(&self) -> Result<ArrayRef, ArrowError> {
        match self.pieces.as_slice() {
            [] => Ok(new_empty_array(&self.values_shape())),
            [one] => Ok(one.clone()),
            many => concat(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>()),
        }
    }

    /// The array's indices into this dictionary, which learns the values that it does not know yet.
    pub(crate) fn unify(&mut self, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let dictionary = array.as_any_dictionary();
        let map = match &self.last {
            Some((values, map)) if values.to_data().ptr_eq(&dictionary.values().to_data()) => map.clone(),
            _ => {
                let map: Arc<[u32]> = self.learn(dictionary.values())?.into();
                self.last = Some((dictionary.values().clone(), map.clone()));
                map
            }
        };
        macro_rules! remap {
            ($($variant:ident => $native:ident),*) => {
                match &self.key_type {
                    $(DataType::$variant => remap::<arrow_array::types::$native>(dictionary.keys(), &map, &self.key_type),)*
                    other => Err(ArrowError::SchemaError(format!("{other} cannot index a dictionary"))),
                }
            };
        }
        remap!(Int8 => Int8Type, Int16 => Int16Type, Int32 => Int32Type, Int64 => Int64Type,
               UInt8 => UInt8Type, UInt16 => UInt16Type, UInt32 => UInt32Type, UInt64 => UInt64Type)
    }

    /// The number here of each value of a batch's dictionary.
    fn learn(&mut self, values: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
        debug_assert_eq!(stored_type(values.data_type()).as_ref(), Ok(&self.value_type));
        self.learn_shape(&to_shape(values, &mut Dictionaries::new(&mut []))?)
    }

    /// The number here of each value of another dictionary of this type, in shape.
    pub(crate) fn learn_shape(&mut self, shape: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
        let mut map = Vec::with_capacity(shape.len());
        let mut fresh = Vec::new();
        let first = u32::try_from(self.len).map_err(|_| too_many())?;
        for row in 0..shape.len() {
            let next = first.checked_add(fresh.len() as u32).ok_or_else(too_many)?;
            let known = if shape.is_null(row) {
                let known = self.null_at;
                self.null_at.get_or_insert(next);
                known
            } else if let Some(bytes) = single_bytes(shape, row) {
                let pieces = &self.pieces;
                let same = |&at: &u32| {
                    let here = at.checked_sub(first).map(|i| (shape, fresh[i as usize]));
                    let (array, row) = here.or_else(|| locate(pieces, at as usize))?;
                    Some(single_bytes(array, row) == Some(bytes))
                };
                let candidates = self.seen.entry(xxh3_64(bytes)).or_default();
                let known = candidates.iter().copied().find(|at| same(at) == Some(true));
                if known.is_none() {
                    candidates.push(next);
                }
                known
            } else {
                None
            };
            map.push(known.unwrap_or_else(|| {
                fresh.push(row);
                next
            }));
        }
        if !fresh.is_empty() {
            let piece = if fresh.len() == shape.len() {
                shape.clone()
            } else {
                interleave(&[shape.as_ref()], &fresh.iter().map(|&row| (0, row)).collect::<Vec<_>>())?
            };
            self.len += piece.len();
            self.bytes += piece.get_array_memory_size() as u64 + 48 * piece.len() as u64;
            self.pieces.push(piece);
        }
        Ok(map)
    }
}

/// Indices in shape into one dictionary as indices into another; `map` has the number there of each value here.
///
/// An index beyond `map` can only be in a slot that no row refers to, since all others were checked when they were
/// taken in: it becomes 0.
pub(crate) fn reindex(shape: &ArrayRef, key_type: &DataType, map: &[u32]) -> Result<ArrayRef, ArrowError> {
    let typed = make_array(shape.to_data().into_builder().data_type(key_type.clone()).build()?);
    macro_rules! remap {
        ($($variant:ident => $native:ident),*) => {
            match key_type {
                $(DataType::$variant => remap_or::<arrow_array::types::$native>(&typed, map, key_type, Some(0)),)*
                other => Err(ArrowError::SchemaError(format!("{other} cannot index a dictionary"))),
            }
        };
    }
    remap!(Int8 => Int8Type, Int16 => Int16Type, Int32 => Int32Type, Int64 => Int64Type,
           UInt8 => UInt8Type, UInt16 => UInt16Type, UInt32 => UInt32Type, UInt64 => UInt64Type)
}

fn too_many() -> ArrowError {
    ArrowError::DictionaryKeyOverflowError
}

fn locate(pieces: &[ArrayRef], mut at: usize) -> Option<(&ArrayRef, usize)> {
    for piece in pieces {
        if at < piece.len() {
            return Some((piece, at));
        }
        at -= piece.len();
    }
    None
}

/// The bytes of a value in a shape that has one byte string a row.
fn single_bytes(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    macro_rules! fixed {
        ($native:ident, $n:literal) => {{
            let values = array.as_primitive::<arrow_array::types::$native>().values().inner();
            Some(&values.as_slice()[row * $n..][..$n])
        }};
    }
    match array.data_type() {
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(row)),
        DataType::FixedSizeBinary(_) => Some(array.as_fixed_size_binary().value(row)),
        DataType::Int8 => fixed!(Int8Type, 1),
        DataType::Int16 => fixed!(Int16Type, 2),
        DataType::Int32 => fixed!(Int32Type, 4),
        DataType::Int64 => fixed!(Int64Type, 8),
        _ => None,
    }
}

fn remap<K: ArrowDictionaryKeyType>(
    keys: &dyn Array,
    map: &[u32],
    key_type: &DataType,
) -> Result<ArrayRef, ArrowError> {
    remap_or::<K>(keys, map, key_type, None)
}

/// `beyond`: what an index beyond `map` becomes; `None`: it is an error.
fn remap_or<K: ArrowDictionaryKeyType>(
    keys: &dyn Array,
    map: &[u32],
    key_type: &DataType,
    beyond: Option<u32>,
) -> Result<ArrayRef, ArrowError> {
    use arrow_buffer::ArrowNativeType;
    let keys = keys.as_primitive::<K>();
    let unified: PrimitiveArray<K> = keys.try_unary(|key| {
        let at = map.get(key.as_usize()).or(beyond.as_ref()).ok_or_else(|| {
            ArrowError::InvalidArgumentError(format!("index {key:?} is beyond a dictionary of {} values", map.len()))
        })?;
        K::Native::from_usize(*at as usize).filter(|k| k.as_usize() == *at as usize).ok_or_else(|| {
            ArrowError::InvalidArgumentError(format!(
                "the batches' dictionaries together have more values than {key_type} can count; cast the column to a dictionary with wider indices, or to its plain values"
            ))
        })
    })?;
    let data = unified.into_data().into_builder().data_type(shape_of(key_type)).build()?;
    Ok(make_array(data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::types::{Int8Type, Int32Type};
    use arrow_array::{DictionaryArray, Int8Array, StringArray};
    use arrow_schema::Field;

    fn schema(keys: DataType) -> Schema {
        let values = stored_type(&DataType::Utf8).unwrap();
        Schema::new(vec![Field::new("d", DataType::Dictionary(Box::new(keys), Box::new(values)), true)])
    }

    fn unify(all: &mut [Unifier], array: ArrayRef) -> ArrayRef {
        Dictionaries::new(all).next().unwrap().unify(&array).unwrap()
    }

    #[test]
    fn batches_share_one_dictionary() {
        let mut all = unifiers(&schema(DataType::Int8));
        let first: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
        let second: DictionaryArray<Int8Type> = vec![Some("c"), Some("b")].into_iter().collect();
        let got = unify(&mut all, Arc::new(first));
        assert_eq!(got.as_primitive::<Int8Type>(), &Int8Array::from(vec![Some(0), None, Some(1), Some(0)]));
        let got = unify(&mut all, Arc::new(second));
        assert_eq!(got.as_primitive::<Int8Type>(), &Int8Array::from(vec![2, 1]));
        let values = all[0].values().unwrap();
        let values: Vec<_> = values.as_binary::<i64>().iter().flatten().collect();
        assert_eq!(values, [b"a", b"b", b"c"]);
    }

    #[test]
    fn too_many_values_for_the_index_type_is_an_error() {
        let mut all = unifiers(&schema(DataType::Int8));
        for part in 0..2 {
            let values = StringArray::from_iter_values((0..100).map(|i| format!("{part} {i}")));
            let keys = Int8Array::from_iter_values(0..100);
            let array: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(values)));
            let got = Dictionaries::new(&mut all).next().unwrap().unify(&array);
            assert_eq!(got.is_ok(), part == 0);
        }
    }

    #[test]
    fn equal_values_within_one_dictionary_are_merged() {
        let mut all = unifiers(&schema(DataType::Int32));
        let values = StringArray::from(vec![Some("x"), None, Some("x"), None]);
        let keys = arrow_array::Int32Array::from(vec![0, 1, 2, 3]);
        let got = unify(&mut all, Arc::new(DictionaryArray::new(keys, Arc::new(values))));
        assert_eq!(got.as_primitive::<Int32Type>().values(), &[0, 1, 0, 1]);
        assert_eq!(all[0].values().unwrap().len(), 2);
    }
}
