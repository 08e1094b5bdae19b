//! A list of hidden rows.
#![no_main]

use pheon_fuzz::engine;

libfuzzer_sys::fuzz_target!(init: engine::init(), |data: &[u8]| { engine::arrow_file(engine::Piece::Hidden, data); });
