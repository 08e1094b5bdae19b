//! Which types are stored (docs/format.md section 3.1), and the few shapes that rows have on their way there.
//!
//! Three types belong to a column: what comes in, what is stored, and its *shape*. The shape is what every later stage
//! works on: integers of the same width for all fixed-width types, LargeBinary for strings, fixed-size binaries for what
//! is wider than 8 bytes, the index integers for a dictionary, a list of structs for a map. Turning input into shapes
//! shares buffers wherever the bytes are already right.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{BinaryType, ByteArrayType, Utf8Type};
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, GenericByteArray, GenericListArray, LargeBinaryArray, OffsetSizeTrait,
    StructArray, UnionArray, make_array, new_empty_array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaRef, UnionFields};

use super::dictionary::Dictionaries;
use crate::error::WriteError;

/// What shapes call the values of a list and the entries of a map, whatever their types call them.
const ITEM: &str = "item";
const ENTRIES: &str = "entries";

/// The type under which a column of `input` type is stored, or why it cannot be.
pub(crate) fn stored_type(input: &DataType) -> Result<DataType, String> {
    use DataType as D;
    Ok(match input {
        D::Utf8 | D::Utf8View => D::LargeUtf8,
        D::Binary | D::BinaryView => D::LargeBinary,
        D::List(f) | D::ListView(f) => D::List(stored_child(f)?),
        D::LargeList(f) | D::LargeListView(f) => D::LargeList(stored_child(f)?),
        // arrow-rs reads such a column back with another length.
        D::FixedSizeList(_, 0) => return Err("a list of the fixed size 0 cannot be stored".into()),
        D::FixedSizeList(f, n) => D::FixedSizeList(stored_child(f)?, *n),
        D::Map(f, sorted) => D::Map(stored_child(f)?, *sorted),
        D::Struct(fields) => D::Struct(fields.iter().map(stored_child).collect::<Result<Fields, _>>()?),
        D::Union(fields, mode) => {
            let children = fields.iter().map(|(_, f)| stored_child(f)).collect::<Result<Vec<_>, _>>()?;
            let ids = fields.iter().map(|(id, _)| id);
            D::Union(UnionFields::try_new(ids, children).map_err(|e| e.to_string())?, *mode)
        }
        D::RunEndEncoded(_, values) => stored_type(values.data_type())?,
        D::Dictionary(keys, values) => {
            let values = stored_type(values)?;
            if has_dictionary(&values) {
                return Err("a dictionary whose values are dictionaries themselves cannot be stored".into());
            }
            D::Dictionary(keys.clone(), Box::new(values))
        }
        // What no reader would take is not written either.
        other => crate::untrusted::check(other).map(|()| other.clone()).map_err(|e| e.to_string())?,
    })
}

fn stored_child(field: &FieldRef) -> Result<FieldRef, String> {
    Ok(Arc::new(stored_field(field)?))
}

fn stored_field(field: &Field) -> Result<Field, String> {
    Ok(field.clone().with_data_type(stored_type(field.data_type())?))
}

/// Whether a dictionary is somewhere in a stored type.
pub(crate) fn has_dictionary(data_type: &DataType) -> bool {
    use DataType as D;
    match data_type {
        D::Dictionary(..) => true,
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => has_dictionary(f.data_type()),
        D::Struct(fields) => fields.iter().any(|f| has_dictionary(f.data_type())),
        D::Union(fields, _) => fields.iter().any(|(_, f)| has_dictionary(f.data_type())),
        _ => false,
    }
}

/// The stored schema of an input schema; metadata is kept.
pub(crate) fn stored_schema(input: &Schema) -> Result<SchemaRef, WriteError> {
    let fields = input.fields().iter().map(|field| {
        stored_field(field).map_err(|problem| {
            WriteError::schema(format!("column {:?} of type {}: {problem}", field.name(), field.data_type()))
        })
    });
    Ok(Arc::new(Schema::new_with_metadata(fields.collect::<Result<Vec<_>, _>>()?, input.metadata().clone())))
}

/// The shape of a stored type.
pub(crate) fn shape_of(stored: &DataType) -> DataType {
    use DataType as D;
    match stored {
        D::Null | D::Boolean => stored.clone(),
        D::Int8 | D::UInt8 => D::Int8,
        D::Int16 | D::UInt16 | D::Float16 => D::Int16,
        D::Int32 | D::UInt32 | D::Float32 | D::Date32 | D::Time32(_) | D::Decimal32(..) => D::Int32,
        D::Interval(IntervalUnit::YearMonth) => D::Int32,
        D::Int64 | D::UInt64 | D::Float64 | D::Date64 | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => D::Int64,
        D::Decimal64(..) | D::Interval(IntervalUnit::DayTime) => D::Int64,
        D::Decimal128(..) | D::Interval(IntervalUnit::MonthDayNano) => D::FixedSizeBinary(16),
        D::Decimal256(..) => D::FixedSizeBinary(32),
        D::FixedSizeBinary(n) => D::FixedSizeBinary(*n),
        D::List(f) => D::List(shape_child(ITEM, f)),
        D::Map(f, _) => D::List(shape_child(ENTRIES, f)),
        D::LargeList(f) => D::LargeList(shape_child(ITEM, f)),
        D::FixedSizeList(f, n) => D::FixedSizeList(shape_child(ITEM, f), *n),
        D::Struct(fields) => D::Struct(fields.iter().map(|f| shape_child(f.name(), f)).collect()),
        D::Union(fields, mode) => {
            let children = fields.iter().map(|(id, f)| (id, shape_child(f.name(), f))).collect();
            D::Union(children, *mode)
        }
        D::Dictionary(keys, _) => shape_of(keys),
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Binary | D::LargeBinary | D::BinaryView => D::LargeBinary,
        D::ListView(_) | D::LargeListView(_) | D::RunEndEncoded(..) => {
            unreachable!("{stored} is never stored")
        }
    }
}

fn shape_child(name: &str, stored: &Field) -> FieldRef {
    shape_field(name, shape_of(stored.data_type()))
}

fn shape_field(name: &str, shape: DataType) -> FieldRef {
    Arc::new(Field::new(name, shape, true))
}

/// Whether turning this input type into its shape shares all buffers, so that it costs no memory.
pub(crate) fn shape_is_free(input: &DataType) -> bool {
    use DataType as D;
    match input {
        D::Utf8View | D::BinaryView | D::ListView(_) | D::LargeListView(_) | D::RunEndEncoded(..) => false,
        D::Utf8 | D::Binary | D::Dictionary(..) => false,
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => shape_is_free(f.data_type()),
        D::Struct(fields) => fields.iter().all(|f| shape_is_free(f.data_type())),
        D::Union(fields, _) => fields.iter().all(|(_, f)| shape_is_free(f.data_type())),
        _ => true,
    }
}

/// Turns an input array into its shape. Dictionaries are unified on the way: `dictionaries` are visited in the order in
/// which a schema numbers them.
pub(crate) fn to_shape(array: &ArrayRef, dictionaries: &mut Dictionaries<'_>) -> Result<ArrayRef, ArrowError> {
    use DataType as D;
    if array.is_empty() {
        let stored = stored_type(array.data_type()).map_err(ArrowError::SchemaError)?;
        // One without rows may come without offsets, or with some that point anywhere.
        if !has_dictionary(&stored) {
            return Ok(new_empty_array(&shape_of(&stored)));
        }
    }
    Ok(match array.data_type() {
        D::Null | D::Boolean => array.clone(),
        D::Utf8 => text(widened::<Utf8Type>(array.as_bytes())?)?,
        D::Binary => widened::<BinaryType>(array.as_bytes())?,
        stored @ (D::LargeUtf8 | D::LargeBinary) => {
            let data = array.to_data();
            check_offsets(
                &data.buffers()[0].typed_data::<i64>()[data.offset()..][..=array.len()],
                data.buffers()[1].len(),
            )?;
            let bytes = relabelled(array, D::LargeBinary)?;
            if *stored == D::LargeUtf8 { text(bytes)? } else { bytes }
        }
        D::Utf8View => to_shape(&arrow_cast::cast(array, &D::LargeUtf8)?, dictionaries)?,
        D::BinaryView => to_shape(&arrow_cast::cast(array, &D::LargeBinary)?, dictionaries)?,
        D::List(item) => list_shape(array.as_list::<i32>(), item, dictionaries)?,
        D::LargeList(item) => list_shape(array.as_list::<i64>(), item, dictionaries)?,
        D::ListView(f) => to_shape(&arrow_cast::cast(array, &D::List(f.clone()))?, dictionaries)?,
        D::LargeListView(f) => to_shape(&arrow_cast::cast(array, &D::LargeList(f.clone()))?, dictionaries)?,
        D::RunEndEncoded(_, values) => to_shape(&arrow_cast::cast(array, values.data_type())?, dictionaries)?,
        D::Map(field, _) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let (offsets, entries) = own_values(map.offsets(), &entries)?;
            check_nulls(None, &entries, field)?;
            let entries = to_shape(&entries, dictionaries)?;
            let field = shape_field(ENTRIES, entries.data_type().clone());
            let nulls = map.nulls().cloned();
            Arc::new(GenericListArray::<i32>::try_new(field, offsets, entries, nulls)?)
        }
        D::FixedSizeList(item, n) => {
            let list = array.as_fixed_size_list();
            check_items(list, item)?;
            let child = to_shape(list.values(), dictionaries)?;
            let field = shape_field(ITEM, child.data_type().clone());
            let nulls = list.nulls().cloned();
            Arc::new(FixedSizeListArray::try_new_with_length(field, *n, child, nulls, list.len())?)
        }
        D::Struct(fields) => {
            let parent = array.as_struct();
            std::iter::zip(fields, parent.columns()).try_for_each(|(f, c)| check_nulls(parent.nulls(), c, f))?;
            let children = parent.columns().iter().map(|c| to_shape(c, dictionaries)).collect::<Result<Vec<_>, _>>()?;
            let fields: Fields =
                fields.iter().zip(&children).map(|(f, c)| shape_field(f.name(), c.data_type().clone())).collect();
            let nulls = parent.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(fields, children, nulls, parent.len())?)
        }
        D::Union(fields, _) => {
            let union = array.as_union();
            let (offsets, own) = own_children(union, fields);
            let mut children = Vec::with_capacity(fields.len());
            let mut shapes = Vec::with_capacity(fields.len());
            for ((id, field), child) in fields.iter().zip(own) {
                let child = to_shape(&child, dictionaries)?;
                shapes.push((id, shape_field(field.name(), child.data_type().clone())));
                children.push(child);
            }
            Arc::new(UnionArray::try_new(shapes.into_iter().collect(), union.type_ids().clone(), offsets, children)?)
        }
        D::Dictionary(..) => dictionaries.next()?.unify(array)?,
        other => relabelled(array, shape_of(other))?,
    })
}

/// The same buffers under another type.
pub(super) fn relabelled(array: &ArrayRef, to: DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == &to {
        return Ok(array.clone());
    }
    Ok(make_array(array.to_data().into_builder().data_type(to).build()?))
}

/// 32-bit offsets to 64-bit ones; the values are shared.
fn widened<T: ByteArrayType<Offset = i32>>(array: &GenericByteArray<T>) -> Result<ArrayRef, ArrowError> {
    check_offsets(array.offsets(), array.values().len())?;
    let offsets: Vec<i64> = array.offsets().iter().map(|&o| i64::from(o)).collect();
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(LargeBinaryArray::try_new(offsets, array.values().clone(), array.nulls().cloned())?))
}

/// The bytes of a text column, if they are UTF-8: readers rely on it, and of arrays that come through the C data interface
/// nobody has looked. What stands at a null is left out if it is none.
fn text(bytes: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let binary = bytes.as_binary::<i64>();
    if is_text(binary) {
        return Ok(bytes);
    }
    match binary.iter().flatten().find(|value| std::str::from_utf8(value).is_err()) {
        Some(value) => {
            let shown = value[..value.len().min(60)].escape_ascii();
            Err(ArrowError::InvalidArgumentError(format!("\"{shown}\" is not UTF-8; make it a binary column")))
        }
        None => Ok(Arc::new(binary.iter().collect::<LargeBinaryArray>())),
    }
}

/// Whether all bytes are UTF-8, value by value.
pub(super) fn is_text(binary: &LargeBinaryArray) -> bool {
    let (offsets, first) = (binary.offsets(), binary.offsets()[0]);
    let values = &binary.values()[first as usize..offsets[binary.len()] as usize];
    let is_whole = |text: &str| offsets.iter().all(|offset| text.is_char_boundary((offset - first) as usize));
    values.is_ascii() || std::str::from_utf8(values).is_ok_and(is_whole)
}

fn list_shape<O: OffsetSizeTrait>(
    list: &GenericListArray<O>,
    item: &Field,
    dictionaries: &mut Dictionaries<'_>,
) -> Result<ArrayRef, ArrowError> {
    let (offsets, values) = own_values(list.offsets(), list.values())?;
    check_nulls(None, &values, item)?;
    let child = to_shape(&values, dictionaries)?;
    let field = shape_field(ITEM, child.data_type().clone());
    Ok(Arc::new(GenericListArray::<O>::try_new(field, offsets, child, list.nulls().cloned())?))
}

/// The values that a list's rows have, one behind the other. Its offsets are sound.
pub(super) fn items<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> ArrayRef {
    let (first, last) = (list.offsets()[0].as_usize(), list.offsets()[list.len()].as_usize());
    list.values().slice(first, last - first)
}

pub(super) fn check_items(list: &FixedSizeListArray, item: &Field) -> Result<(), ArrowError> {
    let parent = list.nulls().map(|nulls| nulls.expand(list.value_length() as usize));
    check_nulls(parent.as_ref(), list.values(), item)
}

/// Fails if a child that is declared to have no nulls has some where its parent has none, be it as a run or in a dictionary:
/// pyarrow lets that be, and readers rely on it.
pub(super) fn check_nulls(parent: Option<&NullBuffer>, child: &ArrayRef, field: &Field) -> Result<(), ArrowError> {
    let nulls = if field.is_nullable() { None } else { child.logical_nulls() };
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) if !parent.is_some_and(|parent| parent.contains(&nulls)) => {
            let problem = format!("the field {:?} in it is declared without nulls, but has some", field.name());
            Err(ArrowError::InvalidArgumentError(problem))
        }
        _ => Ok(()),
    }
}

/// Checks a list's offsets, and cuts its values to those of its rows: a long column comes in pieces that share them, and each
/// value is looked at.
fn own_values<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    values: &ArrayRef,
) -> Result<(OffsetBuffer<O>, ArrayRef), ArrowError> {
    check_offsets(offsets, values.len())?;
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let used = last.as_usize() - first.as_usize();
    if used == values.len() {
        return Ok((offsets.clone(), values.clone()));
    }
    let moved: Vec<O> = offsets.iter().map(|&o| o - first).collect();
    Ok((OffsetBuffer::new(ScalarBuffer::from(moved)), values.slice(first.as_usize(), used)))
}

/// The offsets of a dense union, and its children, cut in the same way.
fn own_children(union: &UnionArray, fields: &UnionFields) -> (Option<ScalarBuffer<i32>>, Vec<ArrayRef>) {
    let whole = || fields.iter().map(|(id, _)| union.child(id).clone());
    let Some(offsets) = union.offsets() else { return (None, whole().collect()) };
    // Of each type the first place that a row has, and the one behind the last.
    let mut used = [(i32::MAX, 0); 1 << 7];
    for (&id, &offset) in std::iter::zip(union.type_ids(), offsets) {
        let Some((first, end)) = used.get_mut(id as usize) else { return (Some(offsets.clone()), whole().collect()) };
        (*first, *end) = ((*first).min(offset), (*end).max(offset.saturating_add(1)));
    }
    let is_there = |(child, (id, _)): (ArrayRef, (i8, &FieldRef))| {
        let (first, end) = used[id as usize];
        end == 0 || first >= 0 && end as usize <= child.len()
    };
    if !std::iter::zip(whole(), fields.iter()).all(is_there) {
        // Whoever makes a union of it says what is wrong.
        return (Some(offsets.clone()), whole().collect());
    }
    let children = std::iter::zip(whole(), fields.iter()).map(|(child, (id, _))| match used[id as usize] {
        (_, 0) => child.slice(0, 0),
        (first, end) => child.slice(first as usize, (end - first) as usize),
    });
    let moved = std::iter::zip(union.type_ids(), offsets).map(|(&id, &offset)| offset - used[id as usize].0);
    (Some(moved.collect()), children.collect())
}

/// Arrays that come through the C data interface were never checked; later stages rely on this.
fn check_offsets<O: OffsetSizeTrait>(offsets: &[O], values_len: usize) -> Result<(), ArrowError> {
    let first = offsets.first().copied().unwrap_or_default();
    let last = offsets.last().copied().unwrap_or_default();
    // One pass without an early exit: the compiler turns it into vector instructions.
    let ascending = offsets.windows(2).fold(true, |ok, pair| ok & (pair[0] <= pair[1]));
    if !ascending || first < O::default() || last.as_usize() > values_len {
        return Err(ArrowError::InvalidArgumentError(format!(
            "offsets from {first:?} to {last:?} do not ascend within {values_len} values"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{TimeUnit, UnionMode};

    fn field(name: &str, data_type: DataType) -> FieldRef {
        Arc::new(Field::new(name, data_type, true))
    }

    #[test]
    fn text_is_utf_8_value_by_value() {
        let shaped = |values: &[&[u8]]| text(Arc::new(LargeBinaryArray::from_iter_values(values)));
        for sound in [&[][..], &["a", ""], &["é", "日本", "b"]] {
            let sound: Vec<&[u8]> = sound.iter().map(|text| text.as_bytes()).collect();
            let found = shaped(&sound).unwrap();
            assert_eq!(found.as_binary::<i64>().iter().flatten().collect::<Vec<_>>(), sound);
        }
        // The second: halves of one character.
        for (bad, shown) in [([&b"a"[..], b"b\xFF"], "\"b\\xff\""), ([b"a\xC3", b"\xA9b"], "\"a\\xc3\"")] {
            let error = shaped(&bad).unwrap_err().to_string();
            assert!(error.contains(shown) && error.contains("UTF-8"), "{error}");
        }
        // A slice does not know its neighbours.
        let all: ArrayRef = Arc::new(LargeBinaryArray::from_iter_values([&b"a\xC3"[..], b"b", b"\xA9c"]));
        assert!(text(all.slice(1, 1)).is_ok() && text(all.slice(0, 2)).is_err() && text(all.slice(1, 2)).is_err());
        // Nobody reads what stands at a null.
        let hidden = LargeBinaryArray::new(
            OffsetBuffer::new(vec![0, 1, 2, 3].into()),
            b"a\xFFb".as_slice().into(),
            Some(vec![true, false, true].into()),
        );
        let cleaned = text(Arc::new(hidden)).unwrap();
        assert!(is_text(cleaned.as_binary()));
        assert_eq!(cleaned.as_binary::<i64>().iter().collect::<Vec<_>>(), [Some(&b"a"[..]), None, Some(b"b")]);
    }

    #[test]
    fn types_follow_the_format() {
        use DataType as D;
        let same = |t: D| assert_eq!(stored_type(&t).unwrap(), t);
        same(D::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())));
        same(D::Dictionary(Box::new(D::Int8), Box::new(D::LargeUtf8)));
        assert_eq!(stored_type(&D::Utf8View).unwrap(), D::LargeUtf8);
        assert_eq!(stored_type(&D::ListView(field("x", D::Utf8))).unwrap(), D::List(field("x", D::LargeUtf8)));
        let ree = D::RunEndEncoded(field("run_ends", D::Int32), field("values", D::BinaryView));
        assert_eq!(stored_type(&ree).unwrap(), D::LargeBinary);
        let union = |t: D| D::Union([(5i8, field("a", t))].into_iter().collect(), UnionMode::Dense);
        assert_eq!(stored_type(&union(D::Utf8)).unwrap(), union(D::LargeUtf8));
        let nested = D::Dictionary(Box::new(D::Int8), Box::new(D::Dictionary(Box::new(D::Int8), Box::new(D::Utf8))));
        assert!(stored_type(&nested).unwrap_err().contains("dictionaries"));
    }

    #[test]
    fn bad_offsets_are_refused() {
        assert!(check_offsets::<i64>(&[0, 2, 2, 5], 5).is_ok());
        assert!(check_offsets::<i64>(&[], 0).is_ok());
        for bad in [&[0, 3, 2][..], &[-1, 2], &[0, 6]] {
            assert!(check_offsets::<i64>(bad, 5).is_err(), "{bad:?}");
        }
    }
}
