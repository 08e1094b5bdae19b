//! The bytes of keys of several columns.
#![no_main]

use pheon_fuzz::keys;

libfuzzer_sys::fuzz_target!(init: pheon_fuzz::init(), |data: &[u8]| keys::composite(data));
