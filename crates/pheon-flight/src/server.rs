//! The server: binds, serves, drains.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use pheon::{ReadError, Store, WriteError};
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tower::Layer;

use crate::auth::{Principal, Signer};
use crate::config::ServeConfig;
use crate::router::FlightRouter;
use crate::service::PlainService;
use crate::wire::ZeroCopyLayer;

/// Flow-control windows: what may be on its way to us before we have read it.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// The largest HTTP/2 frame that clients may send.
const FRAME_BYTES_MAX: u32 = 1 << 20;

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
    /// Serving ended with an error.
    Serve(tonic::transport::Error),
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
            Self::Serve(_) => f.write_str("serve"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(e) => e.source(),
            Self::Bind { source, .. } | Self::Start { source, .. } => Some(source),
            Self::Insecure { .. } => None,
            Self::Serve(e) => Some(e),
        }
    }
}

/// A server that is bound to its address.
pub struct Server {
    config: ServeConfig,
    store: Store,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Opens the store and binds the address: from here on connections wait to be served.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn bind(config: ServeConfig) -> Result<Self, ServeError> {
        let address = config.listen;
        if !address.ip().is_loopback() && !config.insecure {
            return Err(ServeError::Insecure { address });
        }
        let of_read = |e: ReadError| ServeError::Store(e.into());
        let mut store = Store::open_read_only(&config.store).map_err(of_read)?;
        if !config.read_only {
            store = Store::open(&config.store).map_err(ServeError::Store)?;
        }
        let failed = |source| ServeError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { config, store, listener, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready, then lets calls end that have begun, for as long as the limits allow.
    ///
    /// # Errors
    /// [`ServeError::Serve`], [`ServeError::Start`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
        let Self { config, store, listener, .. } = self;
        let start = |operation| move |source| ServeError::Start { operation, source };
        let signer = Signer::generate().ok_or_else(|| io::Error::other("no random numbers"));
        let signer = Arc::new(signer.map_err(start("make a key for tickets"))?);
        let listener = tokio::net::TcpListener::from_std(listener).map_err(start("register the listening socket"))?;
        let plain = PlainService::new(store, config.read_only, false, signer, config.limits.ticket_age_max);
        let flight = FlightServiceServer::new(FlightRouter::new(plain))
            .max_decoding_message_size(config.limits.message_bytes_max)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .accept_compressed(tonic::codec::CompressionEncoding::Zstd);
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<FlightServiceServer<FlightRouter>>().await;
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let failed = |e| ServeError::Start { operation: "describe the services", source: io::Error::other(e) };
        // Clients of both ages ask.
        let reflection = describe().build_v1().map_err(failed)?;
        let reflection_alpha = describe().build_v1alpha().map_err(failed)?;
        let who = InterceptorLayer::new(|mut request: tonic::Request<()>| {
            request.extensions_mut().insert(Principal::everyone());
            Ok(request)
        });
        let (draining, drain) = tokio::sync::oneshot::channel();
        let stop = async move {
            shutdown.await;
            health.set_not_serving::<FlightServiceServer<FlightRouter>>().await;
            let _ = draining.send(());
        };
        let serving = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(config.limits.streams_max)
            .layer(who)
            .add_service(ZeroCopyLayer.layer(flight))
            .add_service(health_service)
            .add_service(reflection)
            .add_service(reflection_alpha)
            .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop);
        let overdue = async {
            if drain.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(config.limits.drain_timeout).await;
        };
        tokio::select! {
            done = serving => done.map_err(ServeError::Serve),
            () = overdue => Ok(()),
        }
    }

    /// Serves until SIGTERM or SIGINT, then lets calls end that have begun.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub fn run_blocking(self) -> Result<(), ServeError> {
        let start = |operation| move |source| ServeError::Start { operation, source };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(start("start threads"))?;
        let done = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(start("listen for SIGTERM"))?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(start("listen for SIGINT"))?;
            self.run(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await
        });
        // Work that still blocks belongs to calls whose time is over.
        runtime.shutdown_background();
        done
    }
}
