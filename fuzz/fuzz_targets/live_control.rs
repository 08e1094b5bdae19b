//! A live map's control page.
#![no_main]

use pheon_fuzz::live::{self, File};

libfuzzer_sys::fuzz_target!(init: live::init(File::Control), |data: &[u8]| { live::file(File::Control, data); });
