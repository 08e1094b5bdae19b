//! The server: binds, serves, drains.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_flight::flight_service_server::FlightServiceServer;
use pheon::{ReadError, Store, WriteError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tower::Layer;

use crate::auth::{Authenticator, Signer};
use crate::config::{ServeConfig, read_credentials};
use crate::connection::{Acceptor, CallLayer, Connections, Protocol, Tls, TlsError, serve};
use crate::drain::{DrainLayer, DrainStart};
use crate::http::Page;
use crate::metrics::Metrics;
use crate::queries::QueryLog;
use crate::record::RecordLayer;
use crate::router::FlightRouter;
use crate::service::PlainService;
use crate::wire::ZeroCopyLayer;

/// Of each thread: planning a query nests deeply.
const STACK_BYTES: usize = 16 << 20;

/// Why a server does not start, or ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The store cannot be opened.
    Store(WriteError),
    /// The address cannot be listened on.
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Plaintext on an address that other hosts reach.
    Insecure {
        /// Which.
        address: SocketAddr,
    },
    /// No threads, signals or random numbers to work with.
    Start {
        /// What was being done.
        operation: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The files of TLS changed since they were looked at, and do not do.
    Tls(TlsError),
    /// SQL cannot be had.
    #[cfg(feature = "sql")]
    Sql(pheon_sql::SqlError),
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(e) => e.fmt(f),
            Self::Bind { address, .. } => write!(f, "listen on {address}"),
            Self::Insecure { address } => write!(
                f,
                "refusing to listen on {address} without TLS: other hosts could read everything that is sent; configure TLS, \
                 listen on 127.0.0.1, or say --insecure"
            ),
            Self::Start { operation, .. } => f.write_str(operation),
            Self::Tls(_) => f.write_str("TLS"),
            #[cfg(feature = "sql")]
            Self::Sql(_) => f.write_str("SQL"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(e) => e.source(),
            Self::Bind { source, .. } | Self::Start { source, .. } => Some(source),
            Self::Insecure { .. } => None,
            Self::Tls(e) => Some(e),
            #[cfg(feature = "sql")]
            Self::Sql(e) => Some(e),
        }
    }
}

/// A server that is bound to its addresses.
pub struct Server {
    config: ServeConfig,
    store: Store,
    listener: TcpListener,
    address: SocketAddr,
    http: Option<(TcpListener, SocketAddr)>,
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn start(operation: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::Start { operation, source }
}

impl Server {
    /// Opens the store and binds the addresses: from here on connections wait to be served.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn bind(config: ServeConfig) -> Result<Self, ServeError> {
        for address in std::iter::once(config.listen).chain(config.http) {
            if !address.ip().is_loopback() && config.tls.is_none() && !config.insecure {
                return Err(ServeError::Insecure { address });
            }
        }
        let of_read = |e: ReadError| ServeError::Store(e.into());
        let mut store = Store::open_read_only(&config.store).map_err(of_read)?;
        if !config.read_only {
            store = Store::open(&config.store).map_err(ServeError::Store)?;
        }
        let (listener, address) = bind(config.listen)?;
        let http = config.http.map(bind).transpose()?;
        Ok(Self { config, store, listener, address, http })
    }

    /// Where Flight listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where the web page listens, if at all.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// The address of Flight as clients write it.
    pub fn location(&self) -> String {
        format!("grpc{}://{}", if self.config.tls.is_some() { "+tls" } else { "" }, self.address)
    }

    /// Serves until `shutdown` is ready, then lets calls end that have begun, for as long as the limits allow. SIGHUP has
    /// the token file and the certificates read again.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        let hangup = signal(SignalKind::hangup()).map_err(start("listen for SIGHUP"))?;
        self.run_until(shutdown, hangup).await
    }

    async fn run_until(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
        hangup: Signal,
    ) -> Result<(), ServeError> {
        let location = self.location();
        let Self { config, store, listener, http, .. } = self;
        let limits = &config.limits;
        let signer = config.signer.clone().or_else(Signer::generate);
        let no_random = || start("make a key for tickets")(io::Error::other("no random numbers"));
        let signer = signer.ok_or_else(no_random)?;
        let authenticator = Arc::new(Authenticator::new(config.credentials.clone(), signer, limits.token_age_max));
        let tls = config.tls.as_ref().map(Tls::load).transpose().map_err(ServeError::Tls)?.map(Arc::new);
        let metrics = Metrics::new();
        let queries = QueryLog::new(limits.slow_query, metrics.clone());
        let connections = Connections::new(limits, metrics.clone());
        let register =
            |listener| tokio::net::TcpListener::from_std(listener).map_err(start("register a listening socket"));
        let accept = |listener, protocol| {
            Ok::<_, ServeError>(Acceptor::new(register(listener)?, tls.clone(), protocol, limits, connections.clone()))
        };
        let acceptor = accept(listener, Protocol::Http2)?;
        #[cfg(feature = "sql")]
        let sql = sql_service(store.clone(), &config, authenticator.signer(), queries.clone())?;
        let (drain_start, draining) = DrainStart::new();
        // The page goes on for as long as calls do: it tells that they are ending.
        let (page_stop, page_stops) = DrainStart::new();
        let ready = Arc::new(AtomicBool::new(true));
        let page = match http {
            Some((listener, _)) => {
                let page = Page {
                    store: store.clone(),
                    authenticator: authenticator.clone(),
                    metrics: metrics.clone(),
                    queries,
                    #[cfg(feature = "sql")]
                    sql: sql.clone(),
                    limits: limits.clone(),
                    location,
                    ready: ready.clone(),
                    tls: tls.is_some(),
                };
                Some(tokio::spawn(page.serve(accept(listener, Protocol::Http1)?, page_stops)))
            }
            None => None,
        };
        let reload = tokio::spawn(reload(config.clone(), authenticator.clone(), tls.clone(), hangup));
        let tickets = Arc::new(authenticator.signer().clone());
        let plain =
            PlainService::new(store, config.read_only, cfg!(feature = "sql"), tickets, limits, draining.clone());
        #[cfg(feature = "sql")]
        let router = FlightRouter::new(plain, sql, authenticator.clone(), limits);
        #[cfg(not(feature = "sql"))]
        let router = FlightRouter::new(plain, authenticator.clone(), limits);
        let flight = FlightServiceServer::new(router)
            .max_decoding_message_size(limits.message_bytes_max)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<FlightServiceServer<FlightRouter>>().await;
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_file_descriptor_set(crate::descriptors::flight())
        };
        let failed = |e| start("describe the services")(io::Error::other(e));
        // Clients of both ages ask.
        let reflection = describe().build_v1().map_err(failed)?;
        let reflection_alpha = describe().build_v1alpha().map_err(failed)?;
        let ends = DrainLayer(draining);
        let (told, drain) = tokio::sync::oneshot::channel();
        let stop = async move {
            shutdown.await;
            ready.store(false, Ordering::Relaxed);
            health.set_not_serving::<FlightServiceServer<FlightRouter>>().await;
            drain_start.begin();
            tracing::info!(target: "pheon::server", "stopping: calls that have begun may end");
            let _ = told.send(());
        };
        let routes = tonic::service::Routes::new(ZeroCopyLayer.layer(flight))
            .add_service(ends.layer(health_service))
            .add_service(ends.layer(reflection))
            .add_service(ends.layer(reflection_alpha))
            .prepare();
        let service = (CallLayer, RecordLayer::new(metrics.clone()), authenticator.layer()).layer(routes);
        let overdue = async {
            if drain.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(limits.drain_timeout).await;
        };
        let (mut page, served) = (page, async {
            serve(acceptor, limits, service, stop).await;
            page_stop.begin();
        });
        let calls_and_page = async {
            served.await;
            if let Some(page) = &mut page {
                let _ = page.await;
            }
        };
        tokio::select! {
            () = calls_and_page => {}
            () = overdue => {}
        }
        reload.abort();
        if let Some(page) = &page {
            page.abort();
        }
        connections.end_all();
        Ok(())
    }

    /// Serves until SIGTERM or SIGINT, then lets calls end that have begun. `ready` is called when these signals are heard:
    /// whoever is told that the server is there may stop it.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn run_blocking(self, ready: impl FnOnce()) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(start("start threads"))?;
        let done = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(start("listen for SIGTERM"))?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(start("listen for SIGINT"))?;
            let hangup = signal(SignalKind::hangup()).map_err(start("listen for SIGHUP"))?;
            ready();
            let shutdown = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            self.run_until(shutdown, hangup).await
        });
        // Work that still blocks belongs to calls whose time is over.
        runtime.shutdown_background();
        done
    }
}

/// Reads token file and certificates again at each SIGHUP. What is wrong with them is logged, and nothing changes.
async fn reload(config: ServeConfig, authenticator: Arc<Authenticator>, tls: Option<Arc<Tls>>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        if let Some(path) = &config.token_file {
            let mut warnings = Vec::new();
            match read_credentials(path, &mut warnings) {
                Ok(credentials) => {
                    authenticator.replace(credentials);
                    tracing::info!(target: "pheon::server", path = %path.display(), "token file read");
                }
                Err(e) => tracing::error!(target: "pheon::server", error = %e, "token file not read"),
            }
            for warning in warnings {
                tracing::warn!(target: "pheon::server", "{warning}");
            }
        }
        match tls.as_ref().map(|tls| tls.reload()) {
            Some(Ok(())) => tracing::info!(target: "pheon::server", "certificates read"),
            Some(Err(e)) => tracing::error!(target: "pheon::server", error = %e, "certificates not read"),
            None => {}
        }
    }
}

/// SQL for Flight and the page: limits are for both together.
#[cfg(feature = "sql")]
fn sql_service(
    store: Store,
    config: &ServeConfig,
    signer: &Signer,
    queries: QueryLog,
) -> Result<crate::sql::SqlService, ServeError> {
    let limits = &config.limits;
    let mut options = pheon_sql::EngineOptions::default();
    options.query_memory_bytes_max = usize::try_from(limits.query_memory_bytes_max).unwrap_or(usize::MAX);
    options.memory_bytes_max = usize::try_from(limits.memory_bytes_max).unwrap_or(usize::MAX);
    options.write_memory_bytes = limits.write_memory_bytes_max;
    let engine = pheon_sql::Engine::new(store, options).map_err(ServeError::Sql)?;
    let gate = Arc::new(crate::gate::RequestGate::new(signer, config.read_only));
    let handles = crate::sql::HandleLimits {
        decompressed_bytes_max: limits.decompressed_bytes_max,
        time_max: limits.query_time_max,
        ..crate::sql::HandleLimits::default()
    };
    let service = crate::sql::SqlService::new(engine, gate, handles).map_err(start("start threads for SQL"))?;
    Ok(service.with_queries(queries))
}

#[cfg(all(test, feature = "sql"))]
mod tests {
    use super::*;

    #[test]
    fn sql_has_the_limits_of_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path).unwrap();
        let mut config = ServeConfig::loopback(path);
        let limits = ["query_memory_bytes_max", "memory_bytes_max", "write_memory_bytes_max"];
        for (name, value) in limits.iter().zip(["100MiB", "200MiB", "300MiB"]) {
            config.limits.set(name, value).unwrap();
        }
        let signer = Signer::generate().unwrap();
        let queries = QueryLog::new(config.limits.slow_query, Metrics::new());
        let service = sql_service(store, &config, &signer, queries).unwrap();
        let options = service.engine().options();
        assert_eq!((options.query_memory_bytes_max, options.memory_bytes_max), (100 << 20, 200 << 20));
        assert_eq!(options.write_memory_bytes, 300 << 20);
    }
}
