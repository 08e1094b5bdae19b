//! A document of a part, or of the build that it belongs to.
#![no_main]

use pheon_fuzz::engine;

libfuzzer_sys::fuzz_target!(init: engine::init(), |data: &[u8]| { engine::part(data); });
