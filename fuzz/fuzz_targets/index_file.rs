//! An index file.
#![no_main]

use pheon_fuzz::engine;

libfuzzer_sys::fuzz_target!(init: engine::init(), |data: &[u8]| { engine::arrow_file(engine::Piece::Index, data); });
