//! The key of a build: which columns it is made of, and the column that rows are sorted by.
//!
//! A key of several columns is sorted, merged and hashed as its key bytes (docs/format.md section 3.2). They are a
//! LargeBinary column behind the columns of the data from the first buffer to the last merge, and never in the data file.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, LargeBinaryArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::cells::{Cells, FromColumn, with_cells};
use crate::error::WriteError;
use crate::key::composite::{PartAt, Tuple, encode_rows};
use crate::key::{KeyRef, KeyType};
use crate::segment::keys::KeyPart;

/// The key of a build.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// The column that rows are sorted by: the key column, or the key bytes behind all columns.
    pub(crate) column: usize,
    /// What is in that column.
    pub(crate) key_type: KeyType,
    /// The key columns, in the key's order.
    pub(crate) parts: Vec<KeyPart>,
}

impl Key {
    /// The key that `names` are, if there are any.
    pub(crate) fn of(stored: &Schema, names: &[String]) -> Result<Option<Self>, WriteError> {
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(WriteError::Options {
                problem: format!("column {twice:?} is named twice in the key {names:?}"),
            });
        }
        let parts = names.iter().map(|name| part_of(stored, name)).collect::<Result<Vec<_>, _>>()?;
        Ok(match *parts {
            [] => None,
            [KeyPart { column, key_type }] => Some(Self { column, key_type, parts }),
            _ => Some(Self { column: stored.fields().len(), key_type: KeyType::Composite, parts }),
        })
    }

    /// Whether rows carry a column of key bytes.
    pub(crate) fn has_key_bytes(&self) -> bool {
        self.key_type == KeyType::Composite
    }

    /// Whether this is one of the key columns.
    pub(crate) fn contains(&self, column: usize) -> bool {
        self.parts.iter().any(|part| part.column == column)
    }

    /// The key bytes of rows: `columns` in shape, without nulls, in the order of the parts.
    pub(crate) fn key_bytes(&self, columns: &[&ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let rows = columns.first().map_or(0, |c| c.len());
        let keys: Vec<Box<dyn Keys>> = std::iter::zip(columns, &self.parts)
            .map(|(column, part)| -> Box<dyn Keys> {
                with_cells!(part.key_type, C => Box::new(C::from_column(column, part.key_type)))
            })
            .collect();
        let parts: Vec<(KeyType, Box<PartAt<'_>>)> = std::iter::zip(&keys, &self.parts)
            .map(|(keys, part)| -> (KeyType, Box<PartAt<'_>>) { (part.key_type, Box::new(|row| Some(keys.key(row)))) })
            .collect();
        let (offsets, bytes, valid) = encode_rows(rows, &parts);
        assert!(!valid.contains(&false), "a column's own values are parts of a key");
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(Arc::new(LargeBinaryArray::try_new(offsets, Buffer::from_vec(bytes), None)?))
    }

    /// A key of the sorted column for people to read.
    pub(crate) fn text(&self, key: KeyRef<'_>) -> String {
        match key {
            KeyRef::Bytes(bytes) if self.has_key_bytes() => {
                let key_types: Vec<_> = self.parts.iter().map(|part| part.key_type).collect();
                Tuple { key_types: &key_types, bytes }.to_string()
            }
            key => key.to_string(),
        }
    }
}

/// The keys of a column, whatever its type.
trait Keys {
    fn key(&self, row: usize) -> KeyRef<'_>;
}

impl<C: Cells> Keys for C {
    fn key(&self, row: usize) -> KeyRef<'_> {
        Cells::key(self, row)
    }
}

fn part_of(stored: &Schema, name: &str) -> Result<KeyPart, WriteError> {
    let Ok(column) = stored.index_of(name) else {
        let columns: Vec<_> = stored.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(WriteError::schema(format!(
            "there is no column {name:?} to be the key; the columns are {columns:?}"
        )));
    };
    let data_type = stored.field(column).data_type();
    let Some(key_type) = KeyType::of(data_type) else {
        return Err(WriteError::schema(format!(
            "column {name:?} of type {data_type} cannot be a key; a key can be a string, binary, fixed-size binary, integer, boolean, date, time, timestamp, duration or decimal; cast the column to one of these"
        )));
    };
    Ok(KeyPart { column, key_type })
}

/// The stored schema with dictionary-encoded key columns as their plain values: a key is read by its value, and sorted by it.
pub(crate) fn with_plain_keys(stored: &SchemaRef, names: &[String]) -> SchemaRef {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, values) if names.contains(field.name()) => {
            Arc::new(field.as_ref().clone().with_data_type(values.as_ref().clone()))
        }
        _ => field.clone(),
    };
    let fields: Vec<_> = stored.fields().iter().map(plain).collect();
    Arc::new(Schema::new_with_metadata(fields, stored.metadata().clone()))
}

/// A key column with its dictionary and its runs resolved.
pub(crate) fn plain_values(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::RunEndEncoded(_, values) => plain_values(&arrow_cast::cast(column, values.data_type())?),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let values = arrow_select::take::take(dictionary.values(), dictionary.keys(), None)?;
            plain_values(&values)
        }
        _ => Ok(column.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::types::Int8Type;
    use arrow_array::{DictionaryArray, StringArray};

    #[test]
    fn dictionaries_of_key_columns_are_resolved() {
        let names: DictionaryArray<Int8Type> = vec![Some("b"), Some("a"), Some("b")].into_iter().collect();
        let plain = plain_values(&(Arc::new(names) as ArrayRef)).unwrap();
        assert_eq!(plain.as_string::<i32>(), &StringArray::from(vec!["b", "a", "b"]));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8));
        let field = |name: &str| Field::new(name, dictionary.clone(), false);
        let stored = Arc::new(Schema::new(vec![field("k"), field("v")]));
        let plain = with_plain_keys(&stored, &["k".to_owned()]);
        assert_eq!((plain.field(0).data_type(), plain.field(1).data_type()), (&DataType::LargeUtf8, &dictionary));
    }

    #[test]
    fn keys_of_columns_that_cannot_be_one_are_refused() {
        let field = |name: &str, data_type| Field::new(name, data_type, false);
        let stored = Schema::new(vec![field("a", DataType::Int8), field("b", DataType::Float64)]);
        let problem = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&n| n.to_owned()).collect();
            Key::of(&stored, &names).unwrap_err().to_string()
        };
        assert!(problem(&["a", "a"]).contains("\"a\" is named twice"));
        assert!(problem(&["a", "c"]).contains("no column \"c\""));
        assert!(problem(&["a", "b"]).contains("\"b\" of type Float64 cannot be a key"));
    }
}
