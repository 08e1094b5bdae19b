//! The messages of a stream of rows.
#![no_main]

use pheon_fuzz::messages;

libfuzzer_sys::fuzz_target!(init: pheon_fuzz::init(), |data: &[u8]| messages::do_put(data));
