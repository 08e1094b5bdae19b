//! Help, bad usage, missing things, bad names.

use crate::World;

const VERBS: [&str; 13] =
    ["build", "ls", "info", "get", "scan", "verify", "compact", "gc", "versions", "rollback", "drop", "warm", "memory"];

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new();
    let help = world.ok(["--help"]);
    for verb in VERBS {
        assert!(help.contains(&format!("  {verb} ")), "{verb} in {help}");
        let text = world.ok([verb, "--help"]);
        assert!(text.contains("Usage: pheon") && text.contains(verb), "{text}");
    }
    assert_eq!(world.ok(["--version"]), format!("pheon {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn bad_usage_ends_with_2() {
    let world = World::with_words();
    let store = world.store();
    let s = store.as_str();
    for args in [
        &[][..],
        &["nonsense"],
        &["ls"],
        &["ls", s, "--nonsense"],
        &["get", s, "words"],
        &["build", s, "words"],
        &["build", s, "words", "x.csv"],
        &["build", s, "words", "x.csv", "--key", "word", "--on-duplicate", "maybe"],
        &["build", s, "words", "x.csv", "--key", "word", "--memory-limit", "lots"],
        &["build", s, "words", "x.csv", "--key", "word", "--delimiter", "||"],
        &["build", s, "words", "x.csv", "--key", "word", "--type", "word"],
        &["build", s, "words", "x.csv", "--key", "word", "--type", "word=strange"],
        &["build", s, "words", "x.csv", "--key", "word", "--infer-rows", "0"],
        &["build", s, "words", "x.csv", "--table", "--key", "word", "--on-duplicate", "first"],
        &["build", s, "words", "words.csv", "--key", "word,meaning"],
        &["build", s, "words", "words.csv", "--key", "word", "--memory-limit", "1KB"],
        &["build", s, "words", "words.csv", "--key", "word", "--threads", "0"],
        &["scan", s, "words", "--prefix", "a", "--from", "b"],
        &["scan", s, "words", "--format", "xml"],
        &["scan", s, "words", "--columns", "nope"],
        &["rollback", s, "words", "first"],
        &["gc", s, "words", "--keep", "0"],
    ] {
        let run = world.run(args);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{args:?}: {run:?}");
        assert!(!run.err.is_empty(), "{args:?} says nothing");
    }
    assert_eq!(world.ok(["versions", s, "words", "--json"]).matches("\"version\"").count(), 1, "nothing was built");
}

#[cfg(not(feature = "sql"))]
#[test]
fn without_sql_the_verb_says_how_to_get_it() {
    let world = World::with_words();
    let store = world.store();
    for args in [&["sql"][..], &["sql", &store, "select 1"], &["sql", &store, "select 1", "--json"], &["sql", "--help"]]
    {
        let run = world.run(args);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{args:?}: {run:?}");
        assert!(run.err.contains("this build of Pheon has no SQL"), "{args:?}: {run:?}");
    }
}

#[test]
fn a_missing_store_is_not_created() {
    let world = World::new();
    let missing = world.path("nowhere");
    let m = missing.to_str().unwrap();
    for args in [
        &["ls", m][..],
        &["info", m, "words"],
        &["get", m, "words", "a"],
        &["scan", m, "words"],
        &["verify", m],
        &["compact", m, "words"],
        &["gc", m],
        &["versions", m, "words"],
        &["rollback", m, "words", "1"],
        &["drop", m, "words"],
        &["warm", m],
        &["memory", m],
    ] {
        world.fails(args, 1, &["no store at", "nowhere"]);
        assert!(!missing.exists(), "{args:?} made the folder");
    }
}

#[test]
fn a_missing_dataset_is_named() {
    let world = World::with_words();
    let store = world.store();
    let s = store.as_str();
    for args in [
        &["info", s, "nope"][..],
        &["get", s, "nope", "a"],
        &["scan", s, "nope"],
        &["verify", s, "nope"],
        &["compact", s, "nope"],
        &["gc", s, "nope"],
        &["versions", s, "nope"],
        &["rollback", s, "nope", "1"],
        &["drop", s, "nope"],
        &["warm", s, "nope"],
        &["memory", s, "nope"],
    ] {
        world.fails(args, 1, &["\"nope\""]);
    }
    world.fails(["info", s, "words", "--version", "7"], 1, &["\"words\"", "version 7"]);
    world.fails(["rollback", s, "words", "7"], 1, &["\"words\"", "version 7"]);
}

#[test]
fn bad_names_cannot_leave_the_store() {
    let world = World::with_words();
    let store = world.store();
    let long = "x".repeat(129);
    for name in ["", ".", "..", "../evil", "a/b", ".hidden", "-x", "ä", "a b", &long] {
        for verb in ["info", "versions", "drop"] {
            world.fails([verb, &store, "--", name], 2, &["is not a dataset name", "[A-Za-z0-9_]"]);
        }
        world.fails(["build", &store, "--key", "word", "--", name, "words.csv"], 2, &["is not a dataset name"]);
    }
    let entries: Vec<_> = std::fs::read_dir(world.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(entries.len(), 2, "{entries:?}");
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let world = World::new();
    let file = world.file("t.csv", "k,v\na,1\n");
    let home = world.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("letter.txt"), "dear").unwrap();
    world.fails(["build", home.to_str().unwrap(), "t", &file, "--key", "k"], 2, &["is no store", "letter.txt"]);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1);
}
