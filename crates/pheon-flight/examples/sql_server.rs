//! A Flight SQL server for one store without credentials: for trying clients out.
//!
//! `cargo run -p pheon-flight --example sql_server -- STORE` prints its address and serves until its input ends.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use pheon::Store;
use pheon_flight::sql::{Caller, Gate, HandleLimits, SqlService};
use pheon_sql::{AllAccess, Engine, EngineOptions};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Extensions, Status};

/// The ADBC driver sends at most so much at a time.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Lets everybody do everything; its handles are not signed.
struct Open;

impl Gate for Open {
    fn caller(&self, _: &Extensions) -> Result<Caller, Status> {
        Ok(Caller { name: String::new(), access: Arc::new(AllAccess) })
    }

    fn sign(&self, payload: &[u8]) -> Vec<u8> {
        payload.to_vec()
    }

    fn open(&self, signed: &[u8]) -> Option<Vec<u8>> {
        Some(signed.to_vec())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open(std::env::args().nth(1).ok_or("which store?")?)?;
    let engine = Engine::new(store, EngineOptions::default())?;
    let service = SqlService::new(engine, Arc::new(Open), HandleLimits::default())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("grpc://{}", listener.local_addr()?);
    let ended = async {
        let _ = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await;
    };
    tonic::transport::Server::builder()
        .add_service(FlightServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), ended)
        .await?;
    Ok(())
}
