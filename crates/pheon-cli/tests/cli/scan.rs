//! `scan`: bounds, limits, formats.

use std::io::Cursor;

use arrow_array::cast::AsArray;
use arrow_ipc::reader::StreamReader;

use crate::World;

fn keys(world: &World, args: &[&str]) -> Vec<String> {
    let store = world.store();
    let mut all = vec!["scan", &store, "words", "--format", "csv", "--columns", "word"];
    all.extend(args);
    world.ok(all).lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn bounds_prefix_and_limit() {
    let world = World::with_words();
    assert_eq!(keys(&world, &[]), ["apple", "banana", "cherry", "date", "elderberry"], "in key order");
    assert_eq!(
        keys(&world, &["--from", "banana", "--to", "date"]),
        ["banana", "cherry"],
        "from inclusive, to exclusive"
    );
    assert_eq!(keys(&world, &["--from", "bb"]), ["cherry", "date", "elderberry"]);
    assert_eq!(keys(&world, &["--to", "b"]), ["apple"]);
    assert_eq!(keys(&world, &["--from", "date", "--to", "banana"]), [""; 0], "an empty range");
    assert_eq!(keys(&world, &["--prefix", "da"]), ["date"]);
    assert_eq!(keys(&world, &["--prefix", ""]).len(), 5);
    assert_eq!(keys(&world, &["--prefix", "zz"]), [""; 0]);
    assert_eq!(keys(&world, &["--limit", "2"]), ["apple", "banana"]);
    assert_eq!(keys(&world, &["--limit", "0"]), [""; 0]);
    assert_eq!(keys(&world, &["--from", "b", "--limit", "1"]), ["banana"]);
}

#[test]
fn numbers_are_ordered_as_numbers() {
    let world = World::new();
    let store = world.store();
    let file = world.file("t.csv", "k,v\n10,c\n9,b\n-1,a\n");
    world.ok(["build", &store, "t", &file, "--key", "k"]);
    assert_eq!(world.ok(["scan", &store, "t", "--format", "csv", "--from", "-1", "--to", "10"]), "k,v\n-1,a\n9,b\n");
}

#[test]
fn tables_are_aligned() {
    let world = World::new();
    let store = world.store();
    let long = "x".repeat(100);
    let file = world.file("t.csv", format!("name,n,note\nab,10,\nä,2000,\"two\nlines\"\nb,3,{long}\n"));
    world.ok(["build", &store, "t", &file, "--key", "name"]);
    let text = world.ok(["scan", &store, "t"]);
    let lines: Vec<&str> = text.lines().collect();
    let cut = format!("{}…", "x".repeat(79));
    let rule = "-".repeat(80);
    assert_eq!(
        lines,
        [
            "name     n  note",
            &format!("----  ----  {rule}"),
            "ab      10  null",
            &format!("b        3  {cut}"),
            "ä     2000  two\\nlines",
        ]
    );
    let empty = world.ok(["scan", &store, "t", "--limit", "0"]);
    assert_eq!(empty, "name  n  note\n----  -  ----\n");
}

#[test]
fn csv_and_json_can_be_built_from_again() {
    let world = World::new();
    let store = world.store();
    let file = world.file("t.csv", "k,s,n\n\"a,b\",\"say \"\"x\"\"\",1\n\"two\nlines\",plain,\nc,,3\n");
    world.ok(["build", &store, "t", &file, "--key", "k"]);
    let original = world.ok(["scan", &store, "t", "--json"]);
    for (format, name) in [("csv", "again.csv"), ("json", "again.ndjson"), ("arrow", "again.arrows")] {
        let output = world.command().args(["scan", &store, "t", "--format", format]).output().unwrap();
        let file = world.file(name, output.stdout);
        world.ok(["build", &store, "again", &file, "--key", "k"]);
        assert_eq!(world.ok(["scan", &store, "again", "--json"]), original, "{format}");
    }
}

#[test]
fn arrow_streams_span_batches() {
    let world = World::new();
    let store = world.store();
    let rows: String = (0..20_000).map(|i| format!("k{i:05},{i}\n")).collect();
    let file = world.file("t.csv", format!("k,v\n{rows}"));
    world.ok(["build", &store, "t", &file, "--key", "k"]);
    for (limit, expected) in [("100000", 20_000), ("8192", 8192), ("8193", 8193), ("0", 0)] {
        let output =
            world.command().args(["scan", &store, "t", "--format", "arrow", "--limit", limit]).output().unwrap();
        let batches: Vec<_> =
            StreamReader::try_new(Cursor::new(output.stdout), None).unwrap().map(Result::unwrap).collect();
        let keys: Vec<String> =
            batches.iter().flat_map(|b| b["k"].as_string::<i64>().iter().map(|v| v.unwrap().to_owned())).collect();
        assert_eq!(keys.len(), expected);
        assert!(keys.is_sorted());
        assert_eq!(world.ok(["scan", &store, "t", "--json", "--limit", limit]).lines().count(), expected);
    }
}
