//! What a live map says is on the disk.
#![no_main]

use pheon_fuzz::live::{self, File};

libfuzzer_sys::fuzz_target!(init: live::init(File::Sync), |data: &[u8]| { live::file(File::Sync, data); });
