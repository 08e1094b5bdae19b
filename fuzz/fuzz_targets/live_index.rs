//! A live map's index.
#![no_main]

use pheon_fuzz::live::{self, File};

libfuzzer_sys::fuzz_target!(init: live::init(File::Index), |data: &[u8]| { live::file(File::Index, data); });
