//! The store as a catalogue: catalog `pheon`, schema `public`, a table a dataset.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::TableType;
use pheon::{ReadError, Store, Table};

use crate::access::Access;
use crate::error::{SqlError, read_failed};
use crate::provider::PheonTable;

/// The one catalog.
pub const CATALOG: &str = "pheon";
/// The one schema that has tables.
pub const SCHEMA: &str = "public";

/// Versions that were opened, by the name in the statement. Who looks again finds the same.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    tables: Mutex<HashMap<String, Arc<PheonTable>>>,
    /// Names that were looked for and are not there.
    missing: Mutex<BTreeSet<String>>,
}

impl Pinned {
    /// Opens a table unless it is open already.
    pub(crate) fn open(&self, store: &Store, name: &str) -> std::result::Result<Option<Arc<PheonTable>>, ReadError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name) {
            return Ok(Some(table.clone()));
        }
        let Some(table) = open(store, name)? else {
            self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
            return Ok(None);
        };
        let table = Arc::new(PheonTable::new(table));
        tables.insert(name.to_owned(), table.clone());
        Ok(Some(table))
    }

    /// Forgets which names were not there, before a statement is planned.
    pub(crate) fn forget_missing(&self) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One of the names that were not there.
    pub(crate) fn missing(&self) -> Option<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    /// Whether one of the tables, named without a version, has a newer one by now, or is gone.
    pub(crate) fn is_outdated(&self) -> bool {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().any(|(name, table)| {
            let newest = table.table().name().eq_ignore_ascii_case(name);
            newest && !matches!(table.table().refreshed(), Ok(None))
        })
    }

    /// Names and tables.
    pub(crate) fn tables(&self) -> BTreeMap<String, Arc<PheonTable>> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().map(|(name, table)| (name.clone(), table.clone())).collect()
    }
}

/// A dataset by its name, `name@version`, or by its name in other capitals if only one has it.
fn open(store: &Store, name: &str) -> std::result::Result<Option<Table>, ReadError> {
    let found = |result: std::result::Result<Table, ReadError>| match result {
        Ok(table) => Ok(Some(table)),
        Err(ReadError::NotFound { .. } | ReadError::InvalidName { .. }) => Ok(None),
        Err(e) => Err(e),
    };
    if let Some(table) = found(store.table(name))? {
        return Ok(Some(table));
    }
    if let Some((dataset, version)) = split_version(name) {
        return found(store.table_at(dataset, version));
    }
    let same: Vec<String> = store.datasets()?.into_iter().filter(|d| d.eq_ignore_ascii_case(name)).collect();
    match same.as_slice() {
        [only] => found(store.table(only)),
        _ => Ok(None),
    }
}

/// `prices@3` as name and version.
pub(crate) fn split_version(name: &str) -> Option<(&str, u64)> {
    let (dataset, version) = name.rsplit_once('@')?;
    Some((dataset, version.parse().ok()?))
}

/// The dataset that a name in a statement is about, for rights.
pub(crate) fn dataset_of(name: &str) -> &str {
    split_version(name).map_or(name, |(dataset, _)| dataset)
}

/// The schema `public`.
#[derive(Debug)]
pub(crate) struct PublicSchema {
    store: Store,
    access: Arc<dyn Access>,
    pinned: Arc<Pinned>,
}

impl PublicSchema {
    pub(crate) fn new(store: Store, access: Arc<dyn Access>, pinned: Arc<Pinned>) -> Self {
        Self { store, access, pinned }
    }
}

#[async_trait]
impl SchemaProvider for PublicSchema {
    fn table_names(&self) -> Vec<String> {
        let names = self.store.datasets().unwrap_or_default();
        names.into_iter().filter(|name| self.access.may_read(name)).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let dataset = dataset_of(name);
        // Who may only write still names the table that is written to.
        if !self.access.may_read(dataset) && !self.access.may_write(dataset) && !self.access.may_admin(dataset) {
            return Err(denied("read", dataset));
        }
        let table = self.pinned.open(&self.store, name).map_err(read_failed)?;
        Ok(table.map(|table| table as Arc<dyn TableProvider>))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        let dataset = dataset_of(name);
        self.access.may_read(dataset) && self.store.contains(dataset).unwrap_or(false)
    }
}

fn denied(action: &'static str, dataset: &str) -> DataFusionError {
    SqlError::Denied { action, dataset: dataset.to_owned() }.into_datafusion()
}

/// The catalog `pheon`.
#[derive(Debug)]
pub(crate) struct PheonCatalog(pub(crate) Arc<PublicSchema>);

impl CatalogProvider for PheonCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![SCHEMA.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == SCHEMA).then(|| self.0.clone() as Arc<dyn SchemaProvider>)
    }
}
