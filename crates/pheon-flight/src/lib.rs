//! Pheon stores over Arrow Flight and Flight SQL: server and client. The wire contract is docs/flight.md.

mod action;
pub mod audit;
pub mod auth;
mod body;
pub mod client;
mod command;
pub mod config;
pub mod connection;
mod descriptors;
mod drain;
mod encode;
mod exchange;
mod files;
mod flat;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "sql")]
mod gate;
pub mod http;
mod intake;
pub mod ipc;
pub mod limits;
mod live;
mod live_action;
pub mod logs;
pub mod metrics;
mod places;
mod put;
pub mod queries;
pub mod record;
mod router;
mod scan;
mod server;
mod service;
mod span;
#[cfg(feature = "sql")]
pub mod sql;
mod sql_text;
mod status;
mod ticket;
#[cfg(feature = "traces")]
mod traces;
mod wire;

pub use command::{KeyScalar, KeyValue, ScanCommand};
pub use config::ServeConfig;
pub use drain::Drain;
pub use encode::Message;
pub use limits::Limits;
pub use router::FlightRouter;
pub use server::{ServeError, Server};
pub use service::PlainService;
pub use wire::{FlightDataStream, ZeroCopy, ZeroCopyLayer, response};
