//! One file a verb: its arguments, and what it does with them.

pub(crate) mod build;
mod build_progress;
pub(crate) mod compact;
pub(crate) mod drop;
pub(crate) mod gc;
pub(crate) mod get;
pub(crate) mod info;
pub(crate) mod live;
pub(crate) mod ls;
pub(crate) mod memory;
#[cfg(not(feature = "sql"))]
pub(crate) mod no_sql;
pub(crate) mod rollback;
pub(crate) mod scan;
mod scan_format;
pub(crate) mod serve;
#[cfg(feature = "sql")]
pub(crate) mod sql;
pub(crate) mod token;
pub(crate) mod verify;
pub(crate) mod versions;
pub(crate) mod warm;

use std::path::{Path, PathBuf};

use pheon::{Store, Table};

use crate::failure::Failure;

/// A store, and a dataset in it.
#[derive(clap::Args)]
pub(crate) struct DatasetArgs {
    /// The store: a directory, or shm://NAME for one in memory.
    pub(crate) store: PathBuf,
    /// The dataset.
    pub(crate) name: String,
}

/// A store, and one, several or all datasets in it.
#[derive(clap::Args)]
pub(crate) struct DatasetsArgs {
    /// The store: a directory, or shm://NAME for one in memory.
    pub(crate) store: PathBuf,
    /// The datasets; none: all of them.
    pub(crate) names: Vec<String>,
}

impl DatasetsArgs {
    fn names(&self, store: &Store) -> Result<Vec<String>, Failure> {
        Ok(if self.names.is_empty() { store.datasets()? } else { self.names.clone() })
    }
}

/// An existing store, to read.
fn read_store(path: &Path) -> Result<Store, Failure> {
    Ok(Store::open_read_only(path)?)
}

/// An existing store, to change. Unlike `Store::open` it makes none.
fn write_store(path: &Path) -> Result<Store, Failure> {
    Store::open_read_only(path)?;
    Ok(Store::open(path)?)
}

fn open_table(store: &Store, name: &str, version: Option<u64>) -> Result<Table, Failure> {
    Ok(match version {
        Some(version) => store.table_at(name, version)?,
        None => store.table(name)?,
    })
}
