//! `pheon._native`: the engine as Python sees it. One file a Python noun; `python/pheon` builds the public classes on these.
//!
//! No data is held in Python objects, but for the values of some hot keys (`hot.rs`): handles refer to mappings of the
//! store's files. All classes are frozen, and the interpreter lock is released during builds and lookups of many keys.

mod batch;
mod bound;
mod cli;
mod clock;
mod column;
mod decimal;
mod decode;
mod errors;
mod hot;
mod info;
mod ingest;
mod iter;
mod key;
mod keyed_rows;
mod keys;
mod live;
mod lossless;
mod map;
mod msgpack;
mod options;
mod part;
mod progress;
mod remote;
mod sink;
mod sql;
mod store;
mod table;
mod text;
mod tuple_key;
mod writer;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use super::*;

    #[pymodule_export]
    use super::batch::PyBatch;
    #[pymodule_export]
    use super::cli::run_cli;
    #[pymodule_export]
    use super::column::{ColumnIter, PyColumn, column_of_buffer};
    #[pymodule_export]
    use super::iter::RowIter;
    #[pymodule_export]
    use super::live::{LiveHandle, LiveIter, SnapshotHandle};
    #[pymodule_export]
    use super::live::{live_decode, live_encode, live_encode_key, live_is_container};
    #[pymodule_export]
    use super::map::MapHandle;
    #[pymodule_export]
    use super::part::PartHandle;
    #[pymodule_export]
    use super::progress::Progress;
    #[pymodule_export]
    use super::remote::{RemoteBatchIter, RemoteClient, RemoteMapHandle, RemoteRowIter, RemoteTableHandle};
    #[pymodule_export]
    use super::sql::parameter_row;
    #[pymodule_export]
    use super::store::StoreHandle;
    #[pymodule_export]
    use super::table::TableHandle;
    #[pymodule_export]
    use super::writer::WriterHandle;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        m.add("FORMAT_VERSION", pheon::FORMAT_VERSION)?;
        m.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
