//! Live maps as a user of the crate sees them. One binary, a module a topic.

#![allow(clippy::disallowed_methods)] // tests damage, copy and count files behind the maps' back

mod batches;
mod behaviour;
mod boots;
mod disk;
mod faults;
mod flips;
mod linearizable;
mod power_cuts;
mod scratch;
mod threads;
