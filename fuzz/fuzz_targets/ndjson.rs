//! A file of JSON lines.
#![no_main]

use pheon_fuzz::messages;

libfuzzer_sys::fuzz_target!(init: pheon_fuzz::init(), |data: &[u8]| messages::file(pheon::input::Format::Json, data));
