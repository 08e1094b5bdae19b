//! Pheon stores over Arrow Flight and Flight SQL: server and client.

pub mod audit;
pub mod auth;
pub mod config;
pub mod connection;
mod files;
pub mod http;
pub mod ipc;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod queries;
