//! Flight SQL: statements, prepared statements, bulk ingest, catalogue, transactions as read-only snapshots.
//!
//! What a client holds between two calls is kept here under a handle: signed, so that none can be guessed, bound to the
//! caller that got it, and gone when it was not used for a while.

mod catalogue;
mod gate;
mod handles;
mod ingest;
mod running;
mod service;
mod session_options;
mod sql_info;
mod sql_status;
mod work;

pub use gate::{Caller, Gate};
pub use handles::HandleLimits;
pub use service::SqlService;
pub use sql_status::status_of;
