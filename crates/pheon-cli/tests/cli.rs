//! The built `pheon` command, driven as a user drives it. One module a topic.

#![allow(clippy::disallowed_methods)] // Tests write input files and damage stores on purpose.

#[path = "cli/build.rs"]
mod build;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/live.rs"]
mod live;
#[path = "cli/lookup.rs"]
mod lookup;
#[path = "cli/pipes.rs"]
mod pipes;
#[path = "cli/scan.rs"]
mod scan;
#[cfg(feature = "sql")]
#[path = "cli/sql.rs"]
mod sql;
#[path = "cli/store.rs"]
mod store;
#[cfg(feature = "sql")]
#[path = "cli/token.rs"]
mod token;
#[path = "cli/usage.rs"]
mod usage;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A temporary folder with input files and a store in it.
struct World {
    dir: tempfile::TempDir,
}

/// What a run of the command left behind.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A world whose store has a map `words` from `word` to `meaning`: a..e.
    fn with_words() -> Self {
        let world = Self::new();
        let file = world
            .file("words.csv", "word,meaning\ncherry,red\napple,green\nbanana,yellow\ndate,brown\nelderberry,black\n");
        world.ok(["build", &world.store(), "words", &file, "--key", "word"]);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> String {
        self.path("store").to_str().expect("a UTF-8 path").to_owned()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("writing an input file");
        path.to_str().expect("a UTF-8 path").to_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pheon"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command().args(args).output().expect("starting the command"))
    }

    /// Runs a command that must succeed; returns its standard output.
    fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{run:?}");
        run.out
    }

    /// Runs a command that must fail with this code and one line that holds these parts, and print no data.
    fn fails<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, code: i32, parts: &[&str]) {
        let run = self.run(args);
        assert_eq!((run.code, run.out.as_str()), (code, ""), "{run:?}");
        assert!(run.err.starts_with("error: "), "{run:?}");
        for part in parts {
            assert!(run.err.contains(part), "expected {part:?} in {run:?}");
        }
        if code == 1 {
            assert_eq!(run.err.lines().count(), 1, "one line says why: {run:?}");
        }
    }

    fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> serde_json::Value {
        serde_json::from_str(&self.ok(args)).expect("one JSON document")
    }
}

impl Run {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8 output");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}
