//! SQL from outside: statements in, rows out.

#![allow(clippy::disallowed_methods)] // Tests look at files.

mod changes;
mod hostile;
mod oracle;
mod parameters;
mod plans;
mod scratch;
mod sessions;
