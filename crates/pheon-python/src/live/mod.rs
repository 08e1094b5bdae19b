//! Live maps, and Python objects as the bytes that they share. docs/live-values.md specifies the encoding.

mod batch;
mod calendar;
mod codec;
mod entry;
mod extension;
mod handle;
mod key;
mod nested;
mod number;
mod probe;
mod shape;
mod snapshot;

pub(crate) use codec::{encode_key, encode_value};
pub(crate) use handle::LiveHandle;
pub(crate) use probe::{live_decode, live_encode, live_encode_key, live_is_container};
pub(crate) use snapshot::{LiveIter, SnapshotHandle};
