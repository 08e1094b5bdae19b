//! What the fuzz targets share: stores and live maps in a scratch folder, hostile pieces put into them with checksums that
//! are right, and everything that a reader may then do.
//!
//! A checksum stops a fuzzer at the door; whoever writes hostile files computes it. So do these targets, and what they look
//! for is behind it.

pub mod engine;
pub mod folder;
pub mod keys;
pub mod live;
pub mod messages;

use std::panic;

/// The command's own, as it is compiled there.
#[path = "../../crates/pheon-cli/src/msgpack.rs"]
mod msgpack;

/// What [`msgpack`] shows bytes by.
mod cells {
    pub(crate) fn show_bytes(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A MessagePack value as text, which must be JSON and not much longer than the value.
pub fn msgpack(input: &[u8]) {
    if let Some(text) = msgpack::to_json(input) {
        match serde_json::from_str::<serde_json::Value>(&text) {
            Err(e) if !e.to_string().contains("recursion limit") => panic!("{text} is no JSON: {e}"),
            _ => {}
        }
        assert!(text.len() <= 400 * (input.len() + 10), "{} bytes become {} of text", input.len(), text.len());
    }
}

/// Lets panics that are caught pass: libFuzzer's own hook ends the process at each, but decoders of Arrow's are run where
/// their panics become errors. One that nobody catches still ends the run.
pub fn init() {
    panic::set_hook(Box::new(|info| {
        if std::env::var_os("PHEON_FUZZ_VERBOSE").is_some() {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
        }
    }));
}

/// Splits a byte off.
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}
