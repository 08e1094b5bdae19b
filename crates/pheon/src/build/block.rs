//! Rows in shape (see `normalise`), and upper bounds of what they need in a file.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_schema::{DataType, UnionMode};
use serde::{Deserialize, Serialize};

/// A number of rows, one array a column.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// How many; a block may have rows and no columns.
    pub(crate) rows: usize,
    /// Each of `rows` rows.
    pub(crate) columns: Vec<ArrayRef>,
}

impl Block {
    /// Rows `start..start + rows`, sharing the buffers.
    pub(crate) fn slice(&self, start: usize, rows: usize) -> Self {
        Self { rows, columns: self.columns.iter().map(|c| c.slice(start, rows)).collect() }
    }
}

/// Upper bounds for one array or column: what its parts cannot exceed when its rows are put in any order, some perhaps
/// left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Rows.
    pub(crate) rows: u64,
    /// Whether there may be nulls.
    pub(crate) nulls: bool,
    /// Bytes of the values, for byte strings.
    pub(crate) bytes: u64,
    /// One a child.
    pub(crate) children: Vec<Bounds>,
}

impl Bounds {
    /// No rows.
    pub(crate) fn new(shape: &DataType) -> Self {
        use DataType as D;
        let children = match shape {
            D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) => vec![Self::new(f.data_type())],
            D::Struct(fields) => fields.iter().map(|f| Self::new(f.data_type())).collect(),
            D::Union(fields, _) => fields.iter().map(|(_, f)| Self::new(f.data_type())).collect(),
            _ => Vec::new(),
        };
        Self { children, ..Self::default() }
    }

    /// Adds an array's rows.
    pub(crate) fn add(&mut self, array: &dyn Array) {
        self.add_below(array, false);
    }

    /// `parent_nulls`: a null parent may turn its children into nulls when rows are put in another order.
    fn add_below(&mut self, array: &dyn Array, parent_nulls: bool) {
        use DataType as D;
        self.rows += array.len() as u64;
        let nulls = parent_nulls || array.null_count() > 0;
        self.nulls |= nulls;
        match array.data_type() {
            D::LargeBinary => {
                let offsets = array.as_binary::<i64>().offsets();
                self.bytes += (offsets[array.len()] - offsets[0]) as u64;
            }
            D::List(_) => {
                let list = array.as_list::<i32>();
                let (first, last) = (list.offsets()[0], list.offsets()[list.len()]);
                let child = list.values().slice(first as usize, (last - first) as usize);
                self.children[0].add_below(&child, nulls);
            }
            D::LargeList(_) => {
                let list = array.as_list::<i64>();
                let (first, last) = (list.offsets()[0], list.offsets()[list.len()]);
                let child = list.values().slice(first as usize, (last - first) as usize);
                self.children[0].add_below(&child, nulls);
            }
            D::FixedSizeList(..) => {
                self.children[0].add_below(array.as_fixed_size_list().values(), nulls);
            }
            D::Struct(_) => {
                for (bounds, child) in self.children.iter_mut().zip(array.as_struct().columns()) {
                    bounds.add_below(child, nulls);
                }
            }
            D::Union(fields, mode) => {
                let union = array.as_union();
                for (bounds, (id, _)) in self.children.iter_mut().zip(fields.iter()) {
                    let child = union.child(id);
                    match mode {
                        UnionMode::Sparse => bounds.add_below(child, nulls),
                        // A dense child may be longer than what this slice refers to, and referred to more than once.
                        UnionMode::Dense => {
                            let whole = child.len() as u64;
                            let used = union.type_ids().iter().filter(|&&i| i == id).count() as u64;
                            let mut all = Self { children: bounds.children.clone(), ..Self::default() };
                            all.children.iter_mut().for_each(Self::clear);
                            all.add_below(child, nulls);
                            bounds.add_scaled(&all, used.div_ceil(whole.max(1)).max(1));
                            bounds.rows -= whole * used.div_ceil(whole.max(1)).max(1);
                            bounds.rows += used;
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn clear(&mut self) {
        let mut children = std::mem::take(&mut self.children);
        children.iter_mut().for_each(Self::clear);
        *self = Self { children, ..Self::default() };
    }

    fn add_scaled(&mut self, other: &Self, times: u64) {
        self.rows = self.rows.saturating_add(other.rows.saturating_mul(times));
        self.bytes = self.bytes.saturating_add(other.bytes.saturating_mul(times));
        self.nulls |= other.nulls;
        for (child, other) in self.children.iter_mut().zip(&other.children) {
            child.add_scaled(other, times);
        }
    }

    /// Adds `rows` rows that are null.
    pub(crate) fn add_nulls(&mut self, shape: &DataType, rows: u64) {
        let mut one = Self::new(shape);
        one.add_below(&new_null_array(shape, 1), true);
        self.add_scaled(&one, rows);
        self.nulls |= rows > 0;
    }

    /// Whether these are bounds of columns of this shape: bounds read from a file may not be.
    pub(crate) fn fits(&self, shape: &DataType) -> bool {
        let shapes = child_shapes(shape);
        self.children.len() == shapes.len() && self.children.iter().zip(shapes).all(|(child, shape)| child.fits(shape))
    }

    /// Whether what `seen` counts is within these bounds. Of a dense union's children, blocks may hold more than their rows
    /// refer to; they are not compared.
    pub(crate) fn cover(&self, seen: &Self, shape: &DataType) -> bool {
        let children = || {
            let mut pairs = self.children.iter().zip(&seen.children).zip(child_shapes(shape));
            pairs.all(|((own, seen), shape)| own.cover(seen, shape))
        };
        self.rows >= seen.rows
            && self.bytes >= seen.bytes
            && (self.nulls || !seen.nulls)
            && (matches!(shape, DataType::Union(_, UnionMode::Dense)) || children())
    }

    /// Lowers what columns cannot have that are stored in so many bytes: bounds read from a file may say anything, and a
    /// file is planned by them.
    pub(crate) fn limit(&mut self, shape: &DataType, stored_bytes: u64) {
        use DataType as D;
        match shape {
            // Several rows may refer to one that is stored.
            D::Union(_, UnionMode::Dense) => return,
            // These take no room of their own.
            D::Null | D::Struct(_) | D::FixedSizeList(..) | D::FixedSizeBinary(0) => {}
            D::FixedSizeBinary(n) => self.rows = self.rows.min(stored_bytes / *n as u64),
            _ => self.rows = self.rows.min(stored_bytes.saturating_mul(8)),
        }
        self.bytes = self.bytes.min(stored_bytes);
        for (child, shape) in self.children.iter_mut().zip(child_shapes(shape)) {
            child.limit(shape, stored_bytes);
        }
    }

    /// Whether a file could hold this.
    pub(crate) fn is_plausible(&self, shape: &DataType) -> bool {
        const MAX: u64 = 1 << 56;
        let mut children = self.children.iter().zip(child_shapes(shape));
        self.rows <= MAX
            && self.bytes <= MAX
            && self.memory_bytes(shape) <= MAX
            && children.all(|(child, shape)| child.is_plausible(shape))
    }

    /// Adds another block's bounds.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.add_scaled(other, 1);
    }

    /// Bytes in memory of so many rows of this shape, roughly.
    pub(crate) fn memory_bytes(&self, shape: &DataType) -> u64 {
        use DataType as D;
        let validity = if self.nulls { self.rows / 8 } else { 0 };
        let rows_of = |width: u64| self.rows.saturating_mul(width);
        let own = match shape {
            D::Boolean => self.rows / 8,
            D::Int8 => self.rows,
            D::Int16 => rows_of(2),
            D::Int32 | D::List(_) => rows_of(4),
            D::Int64 | D::LargeList(_) => rows_of(8),
            D::FixedSizeBinary(n) => rows_of(*n as u64),
            D::LargeBinary => rows_of(8).saturating_add(self.bytes),
            D::Union(_, UnionMode::Sparse) => self.rows,
            D::Union(_, UnionMode::Dense) => rows_of(5),
            _ => 0,
        };
        let children = self.children.iter().zip(child_shapes(shape)).map(|(b, s)| b.memory_bytes(s));
        children.fold(validity.saturating_add(own), u64::saturating_add)
    }
}

/// The children of a shape, in order.
pub(crate) fn child_shapes(shape: &DataType) -> Vec<&DataType> {
    use DataType as D;
    match shape {
        D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) => vec![f.data_type()],
        D::Struct(fields) => fields.iter().map(|f| f.data_type()).collect(),
        D::Union(fields, _) => fields.iter().map(|(_, f)| f.data_type()).collect(),
        _ => Vec::new(),
    }
}

/// The bounds of a block's columns.
pub(crate) fn bounds_of(block: &Block, shapes: &[DataType]) -> Vec<Bounds> {
    let mut all: Vec<_> = shapes.iter().map(Bounds::new).collect();
    for (bounds, column) in all.iter_mut().zip(&block.columns) {
        bounds.add(column);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::builder::{Int32Builder, ListBuilder};
    use arrow_array::{LargeBinaryArray, UnionArray};
    use arrow_buffer::ScalarBuffer;
    use arrow_schema::Field;
    use std::sync::Arc;

    #[test]
    fn slices_count_their_own_bytes_only() {
        let array = LargeBinaryArray::from_iter([Some(&b"aaaa"[..]), None, Some(b"bb"), Some(b"c")]);
        let mut bounds = Bounds::new(array.data_type());
        bounds.add(&array.slice(2, 2));
        assert_eq!((bounds.rows, bounds.bytes, bounds.nulls), (2, 3, false));
        bounds.add(&array.slice(0, 2));
        assert_eq!((bounds.rows, bounds.bytes, bounds.nulls), (4, 7, true));
        assert_eq!(bounds.memory_bytes(array.data_type()), 4 * 8 + 7);
    }

    #[test]
    fn lists_count_the_children_of_the_slice() {
        let mut builder = ListBuilder::new(Int32Builder::new());
        for row in 0..4 {
            (0..row).for_each(|v| builder.values().append_value(v));
            builder.append(true);
        }
        let list = builder.finish();
        let mut bounds = Bounds::new(list.data_type());
        bounds.add(&list.slice(1, 2));
        assert_eq!((bounds.rows, bounds.children[0].rows), (2, 3));
    }

    #[test]
    fn a_dense_union_counts_what_its_slice_uses() {
        let child: ArrayRef = Arc::new(LargeBinaryArray::from_iter_values([b"abc", b"def"]));
        let fields = [(3i8, Arc::new(Field::new("x", DataType::LargeBinary, true)))].into_iter().collect();
        let offsets = ScalarBuffer::from(vec![0, 1, 1, 1, 0]);
        let union = UnionArray::try_new(fields, vec![3i8; 5].into(), Some(offsets), vec![child]).unwrap();
        let mut bounds = Bounds::new(union.data_type());
        bounds.add(&union);
        assert_eq!(bounds.children[0].rows, 5);
        assert!(bounds.children[0].bytes >= 15);
        bounds.add(&union.slice(0, 1));
        assert_eq!(bounds.children[0].rows, 6);
    }
}
