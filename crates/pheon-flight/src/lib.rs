//! Pheon stores over Arrow Flight and Flight SQL: server and client.

#[cfg(feature = "sql")]
pub mod sql;
