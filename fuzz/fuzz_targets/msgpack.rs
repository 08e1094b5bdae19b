//! A MessagePack value that the command shows.
#![no_main]

libfuzzer_sys::fuzz_target!(init: pheon_fuzz::init(), |data: &[u8]| pheon_fuzz::msgpack(data));
