//! Building: options, duplicates, progress, interruption.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::World;

#[test]
fn a_map_from_csv() {
    let world = World::new();
    let file = world.file("t.csv", "k,v\nb,2\na,1\n");
    let run = world.run(["build", &world.store(), "t", &file, "--key", "k"]);
    assert_eq!((run.code, run.out.as_str()), (0, ""), "data only on standard output: {run:?}");
    assert!(run.err.starts_with("t: version 1, 2 rows in ") && run.err.lines().count() == 1, "{run:?}");
    let quiet = world.run(["build", &world.store(), "t", &file, "--key", "k", "-q"]);
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (0, "", ""));
    let result = world.json(["build", &world.store(), "t", &file, "--key", "k", "--json"]);
    assert_eq!((result["version"].as_u64(), result["rows"].as_u64()), (Some(3), Some(2)));
}

#[test]
fn duplicates() {
    let world = World::new();
    let file = world.file("t.csv", "k,v\na,1\nb,2\na,3\n");
    let store = world.store();
    world.fails(["build", &store, "t", &file, "--key", "k"], 1, &["\"a\"", "rows 0 and 2"]);
    world.fails(["info", &store, "t"], 1, &["\"t\""]);
    world.ok(["build", &store, "t", &file, "--key", "k", "--on-duplicate", "first"]);
    assert_eq!(world.ok(["get", &store, "t", "a"]), "1\n");
    world.ok(["build", &store, "t", &file, "--key", "k", "--on-duplicate", "last"]);
    assert_eq!(world.ok(["get", &store, "t", "a"]), "3\n");
    world.ok(["build", &store, "t", &file, "--key", "k", "--table"]);
    assert_eq!(world.ok(["get", &store, "t", "a"]), "1\n3\n");
}

#[test]
fn an_interrupted_build_goes_on_with_the_files_that_are_left() {
    let world = World::new();
    let store = world.store();
    let rows = |of: &str| (0..500).map(|i| format!("{of}{i},{i}\n")).collect::<String>();
    let a = world.file("a.csv", format!("k,v\n{}", rows("a")));
    let b = world.file("b.csv", format!("k,v\n{}b,oops\n", rows("b")));
    let args = ["build", &store, "t", &a, &b, "--key", "k", "--infer-rows", "10", "--resume"];
    world.fails(args, 1, &["b.csv", "line 502", "oops"]);
    world.fails(["info", &store, "t"], 1, &["\"t\""]);
    let other = [&args[..], &["--no-quotes"]].concat();
    world.fails(other, 2, &["interrupted build had", "the reading of files", "without resume"]);
    world.fails([&args[..], &["--on-duplicate", "last"]].concat(), 2, &["interrupted build had", "on_duplicate"]);

    world.file("b.csv", format!("k,v\n{}", rows("b")));
    let again = world.run(args);
    assert_eq!(again.code, 0, "{again:?}");
    let said: Vec<_> = again.err.lines().collect();
    assert!(said[0].starts_with("file 1 of 2 was finished before: ") && said[0].contains("a.csv"), "{said:?}");
    assert!(said.len() == 2 && said[1].starts_with("t: version 1, 1,000 rows"), "{said:?}");
    assert_eq!(world.ok(["get", &store, "t", "a7", "b499"]), "a7\t7\nb499\t499\n");
    world.ok(["verify", &store, "t"]);
    // It is done: the next build of the kind reads everything.
    assert_eq!(world.run(args).err.lines().count(), 1);
}

#[test]
fn a_file_that_was_changed_is_read_again_and_order_is_that_of_the_arguments() {
    let world = World::new();
    let store = world.store();
    let a = world.file("a.csv", "v\n1\n2\n");
    let b = world.file("b.csv", "v\n3\noops\n");
    let build = |files: &[&str], more: &[&str]| {
        world.run([&["build", &store, "t", "--table", "--infer-rows", "1", "--resume"], files, more].concat())
    };
    assert_eq!(build(&[&a, &b], &[]).code, 1);
    world.file("a.csv", "v\n10\n20\n30\n");
    world.file("b.csv", "v\n3\n");
    let run = build(&[&b, &a, &b], &["--quiet"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(world.ok(["scan", &store, "t", "--format", "csv"]), "v\n3\n10\n20\n30\n3\n");
    world.fails(["build", &store, "t", &a, "--append", "--resume"], 2, &["--append"]);
}

#[test]
fn null_keys_and_missing_columns() {
    let world = World::new();
    let file = world.file("t.csv", "k,v\na,1\n,2\n");
    world.fails(["build", &world.store(), "t", &file, "--key", "k"], 1, &["null", "row 1", "\"k\""]);
    world.fails(["build", &world.store(), "t", &file, "--key", "nope"], 1, &["\"nope\""]);
    world.fails(["build", &world.store(), "t", &file, "--key", "k", "--value", "nope"], 1, &["\"nope\"", "t.csv"]);
    world.fails(["build", &world.store(), "t", "missing.csv", "--key", "k"], 1, &["missing.csv", "No such file"]);
}

#[test]
fn columns_types_and_csv_options() {
    let world = World::new();
    let store = world.store();
    let file = world.file("t.csv", "id;a;b;c\n1;x;NA;1.50\n20;y z;5;2\n");
    world.ok([
        "build",
        &store,
        "t",
        &file,
        "--key",
        "id",
        "--value",
        "c,a",
        "--delimiter",
        ";",
        "--string",
        "id",
        "--type",
        "c=decimal(9,2)",
    ]);
    assert_eq!(world.ok(["scan", &store, "t", "--format", "csv"]), "id,c,a\n1,1.50,x\n20,2.00,y z\n");
}

#[test]
fn several_files_and_no_header() {
    let world = World::new();
    let store = world.store();
    let a = world.file("a.tsv", "b\t2\n");
    let b = world.file("b.tsv", "a\t\"1\n");
    world.ok(["build", &store, "t", &a, &b, "--key", "column_1", "--no-header", "--no-quotes", "--string", "column_2"]);
    assert_eq!(
        world.ok(["scan", &store, "t", "--json"]),
        "{\"column_1\":\"a\",\"column_2\":\"\\\"1\"}\n{\"column_1\":\"b\",\"column_2\":\"2\"}\n"
    );
    let c = world.file("c.tsv", "c\n");
    world.fails(["build", &store, "t", &a, &c, "--key", "column_1", "--no-header"], 1, &["c.tsv", "\"column_2\""]);
    assert_eq!(world.json(["versions", &store, "t", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn null_values_and_a_late_surprise() {
    let world = World::new();
    let store = world.store();
    let file = world.file("t.csv", "k,v\na,NA\nb,\n");
    world.ok(["build", &store, "t", &file, "--key", "k", "--null", "NA"]);
    assert_eq!(world.ok(["scan", &store, "t", "--format", "csv"]), "k,v\na,\nb,\"\"\n");
    let rows: String = (0..2000).map(|i| format!("k{i},{i}\n")).collect();
    let file = world.file("late.csv", format!("k,v\n{rows}z,oops\n"));
    let args = ["build", &store, "late", &file, "--key", "k", "--infer-rows", "10"];
    world.fails(args, 1, &["late.csv", "line 2002", "\"v\"", "\"oops\"", "infer_rows"]);
    world.ok(["build", &store, "late", &file, "--key", "k", "--infer-rows", "all", "-q"]);
    assert_eq!(world.ok(["get", &store, "late", "z"]), "oops\n");
}

#[test]
fn a_table_without_key() {
    let world = World::new();
    let store = world.store();
    let file = world.file("t.csv", "v\n3\n1\n2\n");
    world.ok(["build", &store, "t", &file, "--table"]);
    assert_eq!(world.ok(["scan", &store, "t", "--format", "csv"]), "v\n3\n1\n2\n", "rows keep their order");
    world.fails(["get", &store, "t", "1"], 2, &["no key column"]);
    world.fails(["scan", &store, "t", "--from", "1"], 2, &["no key column"]);
    assert_eq!(world.json(["info", &store, "t", "--json"])["kind"], "table");
}

#[test]
fn in_memory_stores() {
    let world = World::new();
    let store = format!("shm://pheon-cli-test-{}", std::process::id());
    let file = world.file("t.csv", "k,v\na,1\n");
    world.ok(["build", &store, "t", &file, "--key", "k"]);
    assert_eq!(world.ok(["get", &store, "t", "a"]), "1\n");
    let path = world.json(["info", &store, "t", "--json"])["path"].as_str().unwrap().to_owned();
    let dir = std::path::Path::new(&path).parent().unwrap();
    assert!(dir.starts_with("/dev/shm"), "{path}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// Ctrl-C: exit code 130, nothing published, nothing left behind, the old version stays.
#[test]
fn an_interrupted_build_leaves_the_store_as_it_was() {
    let rows: String = (0..400_000u32).map(|i| format!("{:08x},{i}\n", i.wrapping_mul(2_654_435_761))).collect();
    // A build that was through before the signal came is made again, with twice as much to do.
    let interrupted = (0..6).any(|attempt| {
        let world = World::with_words();
        let file = world.file("big.csv", format!("k,v\n{rows}"));
        let lines = interrupt_a_build(&world, &file, 10 << attempt);
        let Some(lines) = lines else { return false };
        assert_eq!(lines, ["error: cancelled; nothing was published"]);
        let left: Vec<_> =
            std::fs::read_dir(world.path("store/words")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|n| !n.to_string_lossy().starts_with(".tmp-")), "{left:?}");
        assert_eq!(world.ok(["get", &world.store(), "words", "apple"]), "green\n");
        assert_eq!(world.json(["versions", &world.store(), "words", "--json"]).as_array().unwrap().len(), 1);
        true
    });
    assert!(interrupted, "no signal came in time");
}

/// Builds a map of the same file so many times, and sends Ctrl-C once it writes; what it says, or `None` if it was
/// through before.
fn interrupt_a_build(world: &World, file: &str, times: usize) -> Option<Vec<String>> {
    let mut command = world.command();
    command.args(["build", &world.store(), "words", "--key", "k", "--string", "k", "--on-duplicate", "first"]);
    // Little memory, so that it begins to write while it still reads.
    command.args(["--memory-limit", "64MiB"]);
    command.args(std::iter::repeat_n(file, times)).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let words = world.path("store/words");
    let deadline = Instant::now() + Duration::from_secs(300);
    let begun =
        || std::fs::read_dir(&words).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with(".tmp-"));
    while !begun() {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return None;
        }
        assert!(Instant::now() < deadline, "the build never began to write");
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let lines: Vec<String> = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    let code = child.wait().unwrap().code();
    if code == Some(0) {
        return None;
    }
    assert!(killed.success());
    assert_eq!(code, Some(130), "{lines:?}");
    Some(lines)
}

#[test]
fn rows_are_appended_and_upserted() {
    let world = World::with_words();
    let store = world.store();
    let more = world.file("more.csv", "meaning,word\nfeline,ocelot\n");
    let said = world.run(["build", &store, "words", &more, "--append"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("version 2, 6 rows"), "{said:?}");
    assert_eq!(world.ok(["get", &store, "words", "ocelot"]), "feline\n");
    let again = world.run(["build", &store, "words", &more, "--append"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.err.contains("\"ocelot\" is there already"), "{again:?}");
    let other = world.file("other.csv", "word,meaning\nocelot,cat\nocelot,wild cat\n");
    world.ok(["build", &store, "words", &other, "--upsert", "--quiet"]);
    assert_eq!(world.ok(["get", &store, "words", "ocelot"]), "wild cat\n");
    let info = world.json(["info", &store, "words", "--json"]);
    assert_eq!((info["rows"].as_u64(), info["origin"].as_str()), (Some(6), Some("upsert")));
    let missing = world.run(["build", &store, "nothing", &more, "--append"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    for usage in [&["--append", "--upsert"][..], &["--append", "--key", "word"], &["--upsert", "--table"]] {
        let run = world.run([&["build", &store, "words", &more], usage].concat());
        assert_eq!(run.code, 2, "{run:?}");
    }
    let kept = world.json(["gc", &store, "words", "--max-age", "3600", "--json"]);
    assert_eq!(kept[0]["versions_removed"], serde_json::json!([]));
    assert_eq!(world.json(["compact", &store, "words", "--json"])["compacted"], true);
    assert_eq!(world.json(["info", &store, "words", "--json"])["segments"], 1);
    assert_eq!(world.json(["gc", &store, "words", "--json"])[0]["versions_removed"].as_array().map(Vec::len), Some(3));
}
