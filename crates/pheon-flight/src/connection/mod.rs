//! Connections: how many, how slow, for how long.
//!
//! [`Acceptor`] takes connections from a listener, shakes hands with each in a task of its own, and hands out those that
//! are ready, as a stream that [`serve`] takes. [`Connections`] knows all that are open; a sweep ends
//! those that break a deadline, and one that nobody will miss makes room when all are taken. [`CallLayer`] tells it which
//! connections have calls and which calls wait for their client.

mod acceptor;
mod call;
mod gather;
mod in_place;
mod lent;
mod link;
mod serve;
mod stream;
mod table;
mod tls;

pub use acceptor::{Acceptor, Protocol};
pub(crate) use call::track_page;
pub use call::{CallLayer, CallService, TrackedBody};
pub(crate) use link::Loan;
pub use link::Peer;
pub use serve::serve;
pub use stream::Connection;
pub use table::Connections;
pub use tls::{ClientCertificates, Tls, TlsError, TlsFiles};
