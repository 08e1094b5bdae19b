//! Pheon stores over Arrow Flight and Flight SQL: server and client.

pub mod client;
