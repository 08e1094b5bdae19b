//! The engine: a store, limits, and what sessions share.

use std::sync::Arc;

use datafusion::catalog::CatalogProviderList;
use datafusion::catalog::MemoryCatalogProviderList;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use pheon::Store;

use crate::access::{Access, AllAccess};
use crate::catalog::{CATALOG, PheonCatalog, Pinned, PublicSchema, SCHEMA};
use crate::error::SqlError;
use crate::functions;
use crate::memory::{QueryMemory, SharedMemory};
use crate::opaque::Opaque;
use crate::session::Session;

/// Limits of an engine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Memory that one query may take for sorts, joins, aggregates and the like. Default: 1 GiB.
    pub query_memory_bytes_max: usize,
    /// Memory that all queries may take together. Default: 4 GiB.
    pub memory_bytes_max: usize,
    /// Memory that building the files of an INSERT or a CREATE TABLE may take; at least 64 MiB. Default: 256 MiB.
    pub write_memory_bytes: u64,
    /// Threads that one query is split for. Default: as many as there are CPUs.
    pub partitions: usize,
    /// Rows of a batch. Default: 8192.
    pub batch_rows: usize,
    /// Length of a statement's text. Default: 1 MiB.
    pub statement_bytes_max: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            query_memory_bytes_max: 1 << 30,
            memory_bytes_max: 4 << 30,
            write_memory_bytes: 256 << 20,
            partitions: std::thread::available_parallelism().map_or(1, usize::from),
            batch_rows: 8192,
            statement_bytes_max: 1 << 20,
        }
    }
}

/// SQL over one store. Cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Opaque<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    options: EngineOptions,
    /// Functions and rules; without a catalogue.
    base: SessionState,
    runtime: Arc<RuntimeEnv>,
    memory: Arc<SharedMemory>,
}

impl Engine {
    /// An engine over a store. Opens no dataset.
    pub fn new(store: Store, options: EngineOptions) -> Result<Self, SqlError> {
        // Queries neither spill to disk nor read files: what does not fit in memory fails.
        let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(no_disk).build_arc()?;
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true)
            .with_target_partitions(options.partitions.max(1))
            .with_batch_size(options.batch_rows.max(1));
        let settings = config.options_mut();
        settings.sql_parser.map_string_types_to_utf8view = false;
        settings.optimizer.expand_views_at_output = true;
        settings.execution.collect_statistics = true;
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime.clone())
            .with_default_features()
            .with_file_formats(vec![]);
        let mut base = builder.build();
        base.table_factories_mut().clear();
        functions::guard(&mut base)?;
        let memory = Arc::new(SharedMemory::new(options.memory_bytes_max));
        Ok(Self { inner: Opaque::new(Inner { store, options, base, runtime, memory }) })
    }

    /// A session in which each statement sees the newest versions, for a caller who may do everything.
    pub fn session(&self) -> Session {
        Session::new(self.clone(), Arc::new(AllAccess), false)
    }

    /// A session in which a dataset stays at the version that the first statement to name it found. It takes no changes.
    pub fn snapshot(&self) -> Session {
        Session::new(self.clone(), Arc::new(AllAccess), true)
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Its limits.
    pub fn options(&self) -> &EngineOptions {
        &self.inner.options
    }

    /// Memory that all queries have taken at this moment, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.inner.memory.used()
    }

    /// A state for one statement, with these versions of tables.
    pub(crate) fn state(&self, access: Arc<dyn Access>, pinned: Arc<Pinned>) -> SessionState {
        let schema = Arc::new(PublicSchema::new(self.inner.store.clone(), access, pinned));
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(PheonCatalog(schema)));
        SessionStateBuilder::new_from_existing(self.inner.base.clone())
            .with_catalog_list(Arc::new(catalogs))
            .with_runtime_env(self.query_runtime())
            .build()
    }

    /// A runtime with the memory of one query.
    pub(crate) fn query_runtime(&self) -> Arc<RuntimeEnv> {
        let shared = &self.inner.runtime;
        let memory = QueryMemory::new(self.inner.memory.clone(), self.inner.options.query_memory_bytes_max);
        Arc::new(RuntimeEnv {
            memory_pool: Arc::new(memory),
            disk_manager: shared.disk_manager.clone(),
            cache_manager: shared.cache_manager.clone(),
            object_store_registry: shared.object_store_registry.clone(),
        })
    }
}
