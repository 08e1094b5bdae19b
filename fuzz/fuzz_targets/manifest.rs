//! A document in the newest manifest's place.
#![no_main]

use pheon_fuzz::engine;

libfuzzer_sys::fuzz_target!(init: engine::init(), |data: &[u8]| { engine::manifest(data); });
