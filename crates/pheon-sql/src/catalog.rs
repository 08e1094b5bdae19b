//! The store as a catalogue: catalog `pheon`, schema `public`, a table a dataset.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::TableType;
use pheon::{ReadError, Store, Table};

use crate::access::Access;
use crate::error::SqlError;
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
    /// Opens a table that the caller may name, unless it is open already.
    ///
    /// # Errors
    /// [`SqlError::Denied`] if he may not name what is called so, whether it is there or not.
    pub(crate) fn open(
        &self,
        store: &Store,
        access: &dyn Access,
        name: &str,
    ) -> std::result::Result<Option<Arc<PheonTable>>, SqlError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(name).filter(|table| access.may_name(table.table().name())) {
            return Ok(Some(table.clone()));
        }
        let Some(table) = open(store, access, name)? else {
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

    /// The dataset that a name in the statement stands for; the name itself if no table was opened by it.
    pub(crate) fn dataset_named(&self, name: &str) -> String {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.get(name).map_or_else(|| name.to_owned(), |table| table.table().name().to_owned())
    }

    /// How many tables are open.
    pub(crate) fn count(&self) -> usize {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Names and tables.
    pub(crate) fn tables(&self) -> BTreeMap<String, Arc<PheonTable>> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().map(|(name, table)| (name.clone(), table.clone())).collect()
    }
}

/// A dataset by its name, `name@version`, or by its name in other capitals.
fn open(store: &Store, access: &dyn Access, name: &str) -> std::result::Result<Option<Table>, SqlError> {
    let found = |result: std::result::Result<Table, ReadError>| match result {
        Ok(table) => Ok(Some(table)),
        Err(ReadError::NotFound { .. } | ReadError::InvalidName { .. }) => Ok(None),
        Err(e) => Err(SqlError::from(e)),
    };
    if let Some((dataset, version)) = split_version(name) {
        return if access.may_name(dataset) {
            found(store.table_at(dataset, version))
        } else {
            Err(SqlError::Denied { action: "read", dataset: dataset.to_owned() })
        };
    }
    match resolve(store, access, name)? {
        Some(dataset) => found(store.table(&dataset)),
        None if access.may_name(name) => Ok(None),
        None => Err(SqlError::Denied { action: "read", dataset: name.to_owned() }),
    }
}

/// The dataset that a name without a version stands for: the one of that name, else the only one whose name is the same
/// but for capitals. Those that the caller may not name are not there for him.
pub(crate) fn resolve(
    store: &Store,
    access: &dyn Access,
    name: &str,
) -> std::result::Result<Option<String>, ReadError> {
    if access.may_name(name) && store.contains(name)? {
        return Ok(Some(name.to_owned()));
    }
    let mut same = store.datasets()?.into_iter().filter(|d| d.eq_ignore_ascii_case(name) && access.may_name(d));
    Ok(match (same.next(), same.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    })
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
        let table = self.pinned.open(&self.store, self.access.as_ref(), name).map_err(SqlError::into_datafusion)?;
        Ok(table.map(|table| table as Arc<dyn TableProvider>))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        let dataset = resolve(&self.store, self.access.as_ref(), dataset_of(name)).unwrap_or_default();
        dataset.is_some_and(|dataset| self.access.may_read(&dataset))
    }
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
