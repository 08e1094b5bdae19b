//! Live maps: Python objects as the bytes that they share. docs/live-values.md specifies the encoding.

mod calendar;
mod codec;
mod extension;
mod key;
mod number;
mod probe;
mod shape;

pub(crate) use probe::{live_decode, live_encode, live_encode_key, live_is_container};
