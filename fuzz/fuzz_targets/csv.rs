//! A CSV file.
#![no_main]

use pheon::input::Format;
use pheon_fuzz::messages;

const SOUND: &[&[u8]] = &[include_bytes!("../corpus/csv/plain"), include_bytes!("../corpus/csv/no-header")];

fn run(data: &[u8]) -> bool {
    messages::file(Format::Csv, data)
}

libfuzzer_sys::fuzz_target!(init: messages::init(run, SOUND), |data: &[u8]| {
    run(data);
});
