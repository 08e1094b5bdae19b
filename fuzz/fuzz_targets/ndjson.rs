//! A file of JSON lines.
#![no_main]

use pheon::input::Format;
use pheon_fuzz::messages;

const SOUND: &[&[u8]] = &[b"\x01{\"k\": 1, \"v\": \"a\"}\n{\"k\": 2, \"v\": null}\n"];

fn run(data: &[u8]) -> bool {
    messages::file(Format::Json, data)
}

libfuzzer_sys::fuzz_target!(init: messages::init(run, SOUND), |data: &[u8]| {
    run(data);
});
