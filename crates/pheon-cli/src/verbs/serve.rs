//! `pheon serve`: a store for other hosts, over Arrow Flight.

use std::net::SocketAddr;
use std::path::PathBuf;

use pheon_flight::{Limits, ServeConfig, ServeError, Server};

use crate::failure::{Failure, chain, say};

/// Arguments of `pheon serve`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store: a directory, or shm://NAME for one in memory. It must exist.
    store: PathBuf,
    /// Where to listen. Port 0: any free one; the line on standard error says which.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8815")]
    listen: SocketAddr,
    /// Refuse everything that would change the store.
    #[arg(long)]
    read_only: bool,
    /// Listen without TLS where other hosts can connect: everything that is sent can then be read on the way.
    #[arg(long)]
    insecure: bool,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let config = ServeConfig {
        store: args.store.clone(),
        listen: args.listen,
        insecure: args.insecure,
        read_only: args.read_only,
        limits: Limits::default(),
    };
    let server = Server::bind(config)?;
    say(&format!("listening on grpc://{}", server.local_addr()));
    Ok(server.run_blocking()?)
}

impl From<ServeError> for Failure {
    fn from(e: ServeError) -> Self {
        match e {
            ServeError::Store(e) => e.into(),
            ServeError::Insecure { .. } => Self::Usage(chain(&e)),
            _ => Self::Failed(chain(&e)),
        }
    }
}
