//! Rows of a part as rows of the build that it belongs to: columns in the build's order, dictionary indices into its
//! dictionaries, rows numbered after those that come before.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, Int32Array, make_array, new_null_array};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, FieldRef, SchemaRef};

use super::block::{Block, Bounds, bounds_of};
use super::dictionary::reindex;
use super::normalise::{check_items, check_nulls, has_dictionary, is_text, items};
use crate::error::WriteError;

/// How the blocks of one part become blocks of the build.
pub(crate) struct Adapter {
    /// The part's name, for messages.
    pub(crate) part: String,
    /// For each stored column of the build, where it comes from.
    pub(crate) columns: Vec<Origin>,
    /// How many columns the part stores; those behind them (key bytes, row numbers) follow the build's.
    pub(crate) part_columns: usize,
    /// How many rows come before the part's first, where rows are numbered by a last column.
    pub(crate) first_row: Option<u32>,
    /// What its document says of its rows; `None` for a dictionary.
    pub(crate) promised: Option<Promised>,
}

/// What a part's document says of its rows, which the build is planned by, and what was read of them.
pub(crate) struct Promised {
    schema: SchemaRef,
    shapes: Vec<DataType>,
    bounds: Vec<Bounds>,
    seen: Mutex<Vec<Bounds>>,
}

impl Promised {
    /// `schema`: the stored columns, which are the first of these shapes.
    pub(crate) fn new(schema: SchemaRef, shapes: Vec<DataType>, bounds: Vec<Bounds>) -> Self {
        let seen = Mutex::new(shapes.iter().map(Bounds::new).collect());
        Self { schema, shapes, bounds, seen }
    }
}

/// Where a column of the build comes from.
pub(crate) enum Origin {
    /// The part's column of this number, as it is.
    Same(usize),
    /// The part's column of this number with other dictionary indices: the stored type, and for each dictionary in it
    /// the number in the build's of each value.
    Indices(usize, DataType, Vec<Vec<u32>>),
    /// Nulls of this shape: the part has seen nothing else.
    Nulls(DataType),
}

impl Adapter {
    /// For what is no row: a dictionary, or bytes that are only read.
    pub(crate) fn of_bytes(part: &str, columns: Vec<Origin>) -> Self {
        Self { part: part.to_owned(), part_columns: columns.len(), columns, first_row: None, promised: None }
    }

    /// Fails if the part has more than its document says, or values that its types have not. Every block is read once.
    pub(crate) fn check(&self, block: &Block) -> Result<(), String> {
        let Some(Promised { schema, shapes, bounds, seen }) = &self.promised else { return Ok(()) };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, own) in bounds_of(block, shapes).iter().enumerate() {
            seen[at].merge(own);
            if !bounds[at].cover(&seen[at], &shapes[at]) {
                return Err(format!("column {at} has more rows, bytes or nulls than the document's bounds"));
            }
        }
        for (field, column) in schema.fields().iter().zip(&block.columns) {
            check_values(column, field.data_type()).map_err(|e| format!("column {:?}: {e}", field.name()))?;
        }
        Ok(())
    }

    pub(crate) fn adapt(&self, block: Block) -> Result<Block, WriteError> {
        let rows = block.rows;
        let columns = self.columns(&block).map_err(|e| {
            WriteError::schema(format!("part {:?}: its rows do not fit those of the other parts: {e}", self.part))
        })?;
        Ok(Block { rows, columns })
    }

    fn columns(&self, block: &Block) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut columns = Vec::with_capacity(self.columns.len() + block.columns.len() - self.part_columns);
        for origin in &self.columns {
            columns.push(match origin {
                Origin::Same(at) => block.columns[*at].clone(),
                Origin::Indices(at, stored, maps) => {
                    reindexed(&block.columns[*at], stored, &mut maps.iter().map(Vec::as_slice))?
                }
                Origin::Nulls(shape) => new_null_array(shape, block.rows),
            });
        }
        columns.extend_from_slice(&block.columns[self.part_columns..]);
        if let (Some(first), Some(last)) = (self.first_row, columns.last_mut()) {
            // Row numbers are unsigned and stored in the same bits.
            let numbers = last.as_primitive::<Int32Type>().values().iter();
            *last = Arc::new(Int32Array::from_iter_values(numbers.map(|n| n.wrapping_add(first.cast_signed()))));
        }
        Ok(columns)
    }
}

/// Fails if a column in shape has values that its stored type has not, wherever they are in it: text that is not UTF-8, or nulls in
/// a field that is declared without. Dictionaries are not looked at.
pub(crate) fn check_values(array: &ArrayRef, stored: &DataType) -> Result<(), ArrowError> {
    use DataType as D;
    match stored {
        D::Utf8 | D::LargeUtf8 | D::Utf8View if !is_text(array.as_binary()) => {
            Err(ArrowError::InvalidArgumentError("text that is not UTF-8".into()))
        }
        D::List(item) | D::Map(item, _) => check_children(None, &[items(array.as_list::<i32>())], &[item]),
        D::LargeList(item) => check_children(None, &[items(array.as_list::<i64>())], &[item]),
        D::FixedSizeList(item, _) => {
            let list = array.as_fixed_size_list();
            check_items(list, item)?;
            check_values(list.values(), item.data_type())
        }
        D::Struct(fields) => {
            let parent = array.as_struct();
            check_children(parent.nulls(), parent.columns(), &fields.iter().collect::<Vec<_>>())
        }
        D::Union(fields, _) => {
            let union = array.as_union();
            fields.iter().try_for_each(|(id, field)| check_values(union.child(id), field.data_type()))
        }
        _ => Ok(()),
    }
}

fn check_children(parent: Option<&NullBuffer>, children: &[ArrayRef], fields: &[&FieldRef]) -> Result<(), ArrowError> {
    std::iter::zip(children, fields).try_for_each(|(child, field)| {
        check_nulls(parent, child, field)?;
        check_values(child, field.data_type())
    })
}

/// A column in shape with its dictionary indices replaced, wherever they are in it; `maps` in the order in which a schema
/// numbers its dictionaries.
fn reindexed(
    array: &ArrayRef,
    stored: &DataType,
    maps: &mut dyn Iterator<Item = &[u32]>,
) -> Result<ArrayRef, ArrowError> {
    use DataType as D;
    if !has_dictionary(stored) {
        return Ok(array.clone());
    }
    let fields: Vec<&DataType> = match stored {
        D::Dictionary(keys, _) => {
            let map =
                maps.next().ok_or_else(|| ArrowError::SchemaError("more dictionaries than were written".into()))?;
            return reindex(array, keys, map);
        }
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => vec![f.data_type()],
        D::Struct(fields) => fields.iter().map(|f| f.data_type()).collect(),
        D::Union(fields, _) => fields.iter().map(|(_, f)| f.data_type()).collect(),
        other => return Err(ArrowError::SchemaError(format!("{other} holds no dictionary"))),
    };
    let data = array.to_data();
    let children = data.child_data().iter().zip(fields);
    let children = children.map(|(child, stored)| Ok(reindexed(&make_array(child.clone()), stored, maps)?.to_data()));
    let children = children.collect::<Result<Vec<_>, ArrowError>>()?;
    Ok(make_array(data.into_builder().child_data(children).build()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{FixedSizeListArray, LargeBinaryArray, LargeListArray, ListArray, StructArray};
    use arrow_buffer::OffsetBuffer;
    use arrow_schema::Field;

    fn field(data_type: DataType, nullable: bool) -> FieldRef {
        Arc::new(Field::new("x", data_type, nullable))
    }

    /// Values, nulls of the parent, whether text is to be in there and whether nulls may be: in structs and lists of all kinds.
    #[test]
    fn values_that_a_type_has_not_are_seen_wherever_they_are() {
        let good = LargeBinaryArray::from_iter([Some("é".as_bytes()), None]);
        let bad = LargeBinaryArray::from_iter([Some(&b"\xFF"[..]), Some(b"b")]);
        let masked = NullBuffer::from(vec![true, false]);
        for (values, parent, stored, nullable, is_sound) in [
            (&good, None, DataType::LargeUtf8, true, true),
            (&good, None, DataType::LargeUtf8, false, false),
            (&good, Some(&masked), DataType::LargeUtf8, false, true),
            (&bad, None, DataType::LargeUtf8, false, false),
            (&bad, None, DataType::LargeBinary, false, true),
        ] {
            let values: ArrayRef = Arc::new(values.clone());
            let (shape, nulls) = (field(DataType::LargeBinary, true), parent.cloned());
            let item = field(stored, nullable);
            let in_struct = StructArray::new(vec![shape.clone()].into(), vec![values.clone()], nulls.clone());
            let in_pieces = FixedSizeListArray::new(shape.clone(), 1, values.clone(), nulls);
            let mut cases: Vec<(ArrayRef, DataType)> = vec![
                (Arc::new(in_struct), DataType::Struct(vec![item.clone()].into())),
                (Arc::new(in_pieces), DataType::FixedSizeList(item.clone(), 1)),
            ];
            // A list without rows' values has no place for them.
            if parent.is_none() {
                let in_list = ListArray::new(shape.clone(), OffsetBuffer::from_lengths([1, 1]), values.clone(), None);
                let in_large = LargeListArray::new(shape, OffsetBuffer::from_lengths([2]), values, None);
                cases.push((Arc::new(in_list), DataType::List(item.clone())));
                cases.push((Arc::new(in_large), DataType::LargeList(item)));
            }
            for (array, stored) in cases {
                assert_eq!(check_values(&array, &stored).is_ok(), is_sound, "{stored} {nullable}");
            }
        }
    }
}
