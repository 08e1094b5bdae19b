//! Integration tests of the engine, through its public interface only. One binary, one module a topic.
#![allow(clippy::disallowed_methods)] // tests damage, move and count files behind the engine's back

mod changes;
mod columns;
mod compatible;
mod composite;
mod corruption;
mod dictionaries;
mod faults;
mod forged;
mod hashes;
mod hostile;
mod interrupted;
mod keys;
mod locks;
mod lookups;
mod memory;
mod names;
mod parts;
#[cfg(feature = "polars")]
mod polars;
mod power_cuts;
mod random;
mod scratch;
mod sizes;
mod tables;
mod values;
mod versions;
