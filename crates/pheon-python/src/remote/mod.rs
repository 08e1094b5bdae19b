//! Stores of other hosts, over Arrow Flight: the same noun has the same methods as in a mapped store.
//!
//! What waits for the network does so without the interpreter lock, and Ctrl-C ends it.

mod client;
mod dataset;
mod errors;
mod iter;
mod link;
mod live;
mod map;
mod rows;
mod table;

pub(crate) use client::RemoteClient;
pub(crate) use errors::client_error;
pub(crate) use iter::{RemoteBatchIter, RemoteRowIter};
pub(crate) use link::Link;
pub(crate) use map::RemoteMapHandle;
pub(crate) use table::RemoteTableHandle;
