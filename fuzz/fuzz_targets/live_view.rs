//! A live map's view.
#![no_main]

use pheon_fuzz::live::{self, File};

libfuzzer_sys::fuzz_target!(init: live::init(File::View), |data: &[u8]| { live::file(File::View, data); });
