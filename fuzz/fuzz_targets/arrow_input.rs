//! An Arrow file or stream that is read in.
#![no_main]

use pheon::input::Format;
use pheon_fuzz::messages;

const SOUND: &[&[u8]] = &[
    include_bytes!("../corpus/arrow_input/file"),
    include_bytes!("../corpus/arrow_input/lz4"),
    include_bytes!("../corpus/arrow_input/nested"),
    include_bytes!("../corpus/arrow_input/views"),
    include_bytes!("../corpus/arrow_input/zstd"),
];

fn run(data: &[u8]) -> bool {
    messages::file(Format::Arrow, data)
}

libfuzzer_sys::fuzz_target!(init: messages::init(run, SOUND), |data: &[u8]| {
    run(data);
});
