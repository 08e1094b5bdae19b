//! What stands before the services: credentials, TLS, limits, hostile clients; and the configuration of all that.

#[path = "guards/config.rs"]
mod config;
#[path = "guards/credentials.rs"]
mod credentials;
#[path = "guards/hostile.rs"]
mod hostile;
#[path = "guards/server.rs"]
mod server;
