//! SQL from outside: statements in, rows out.

mod changes;
mod hostile;
mod oracle;
mod parameters;
mod plans;
mod scratch;
mod sessions;
