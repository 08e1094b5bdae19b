//! The messages of a stream of rows.
#![no_main]

use pheon_fuzz::messages;

const SOUND: &[&[u8]] = &[
    include_bytes!("../corpus/do_put/lz4"),
    include_bytes!("../corpus/do_put/nested"),
    include_bytes!("../corpus/do_put/views"),
    include_bytes!("../corpus/do_put/zstd"),
];

fn run(data: &[u8]) -> bool {
    messages::do_put(data)
}

libfuzzer_sys::fuzz_target!(init: messages::init(run, SOUND), |data: &[u8]| {
    run(data);
});
