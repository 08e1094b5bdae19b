//! A chunk of a live map's log.
#![no_main]

use pheon_fuzz::live::{self, File};

libfuzzer_sys::fuzz_target!(init: live::init(File::Log), |data: &[u8]| { live::file(File::Log, data); });
