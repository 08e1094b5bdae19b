//! Rows that are found by their keys, wherever they are: in a mapped file, or at a server.

use std::ops::Bound;

use pheon::{KeyRef, ReadError, Table};

/// The two ends of a range of keys.
pub(crate) type Ends<'k> = (Bound<KeyRef<'k>>, Bound<KeyRef<'k>>);

/// A contiguous run of rows, ascending by key: what [`Table`]'s methods of the same names do.
pub(crate) trait KeyedRows: Sized + Clone {
    /// Why rows were not found.
    type Error;

    fn num_rows(&self) -> usize;
    fn slice(&self, offset: usize, len: usize) -> Self;
    fn range(&self, ends: Ends<'_>) -> Result<Self, Self::Error>;
    fn prefix(&self, prefix: &[u8]) -> Result<Self, Self::Error>;
    fn rows(&self, key: KeyRef<'_>) -> Result<Self, Self::Error>;
    fn composite_key(&self, parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError>;
}

impl KeyedRows for Table {
    type Error = ReadError;

    fn num_rows(&self) -> usize {
        Table::num_rows(self)
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        Table::slice(self, offset, len)
    }

    fn range(&self, ends: Ends<'_>) -> Result<Self, ReadError> {
        Table::range(self, ends)
    }

    fn prefix(&self, prefix: &[u8]) -> Result<Self, ReadError> {
        Table::prefix(self, prefix)
    }

    fn rows(&self, key: KeyRef<'_>) -> Result<Self, ReadError> {
        Table::rows(self, key)
    }

    fn composite_key(&self, parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> {
        Table::composite_key(self, parts)
    }
}
