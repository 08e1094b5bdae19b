//! What happens when nobody reads the output, or not all of it.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::World;

/// `pheon scan ... | head -1`: the pipe closes under the command, which then ends quietly.
#[test]
fn a_closed_pipe_ends_quietly() {
    let world = World::new();
    let store = world.store();
    let rows: String = (0..200_000).map(|i| format!("key{i:08},a value that takes some room {i}\n")).collect();
    let file = world.file("t.csv", format!("k,v\n{rows}"));
    world.ok(["build", &store, "t", &file, "--key", "k"]);
    for format in ["table", "csv", "json", "arrow"] {
        let mut child = world
            .command()
            .args(["scan", &store, "t", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = Vec::new();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_until(b'\n', &mut first).unwrap();
        assert!(!first.is_empty());
        drop(reader);
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{format}");
    }
}

#[test]
fn a_full_output_device_is_an_error() {
    let world = World::with_words();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output =
        world.command().args(["scan", &world.store(), "words"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.starts_with("error: write the output: ") && err.lines().count() == 1, "{err}");
}
