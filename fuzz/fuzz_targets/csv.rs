//! A CSV file.
#![no_main]

use pheon::input::Format;
use pheon_fuzz::messages;

const SOUND: &[&[u8]] = &[b"\x01k,v\n1,a\n2,\xC3\xA9\n", b"\x451,a\n2,b\n"];

fn run(data: &[u8]) -> bool {
    messages::file(Format::Csv, data)
}

libfuzzer_sys::fuzz_target!(init: messages::init(run, SOUND), |data: &[u8]| {
    run(data);
});
