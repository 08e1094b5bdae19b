//! `sql`: queries in all formats, changes, exit codes.

use std::io::Cursor;

use arrow_array::cast::AsArray;
use arrow_ipc::reader::StreamReader;

use crate::World;

#[test]
fn queries_print_rows_in_all_formats() {
    let world = World::with_words();
    let store = world.store();
    let query = "select word, meaning from words where word >= 'c' order by word limit 2";
    assert_eq!(world.ok(["sql", &store, query]), "word    meaning\n------  -------\ncherry  red\ndate    brown\n");
    assert_eq!(world.ok(["sql", &store, query, "--format", "csv"]), "word,meaning\ncherry,red\ndate,brown\n");
    let lines = "{\"word\":\"cherry\",\"meaning\":\"red\"}\n{\"word\":\"date\",\"meaning\":\"brown\"}\n";
    assert_eq!(world.ok(["sql", &store, query, "--json"]), lines);
    let output = world.command().args(["sql", &store, query, "--format", "arrow"]).output().unwrap();
    let batches: Vec<_> =
        StreamReader::try_new(Cursor::new(output.stdout), None).unwrap().map(Result::unwrap).collect();
    let words: Vec<&str> = batches.iter().flat_map(|b| b.column(0).as_string::<i64>().iter().flatten()).collect();
    assert_eq!(words, ["cherry", "date"]);
    assert_eq!(world.ok(["sql", &store, "select 1 as x where false", "--format", "csv"]), "x\n");
}

#[test]
fn changes_say_how_many_rows() {
    let world = World::with_words();
    let store = world.store();
    let run = world.run(["sql", &store, "insert into words values ('fig', 'purple')"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "", "1 rows\n"));
    assert_eq!(world.ok(["get", &store, "words", "fig"]), "purple\n");
    world.fails(["sql", &store, "insert into words values ('fig', 'blue')"], 1, &["fig"]);
    world.fails(["sql", &store, "drop table words", "--read-only"], 1, &["only reads"]);
    world.ok(["sql", &store, "drop table words"]);
    assert_eq!(world.ok(["ls", &store, "--json"]).trim(), "[]");
}

#[test]
fn failures_have_exit_codes() {
    let world = World::with_words();
    let store = world.store();
    world.fails(["sql", &store, "selec 1"], 2, &["selec"]);
    world.fails(["sql", &store, "select nothing from words"], 2, &["nothing"]);
    world.fails(["sql", &store, "select * from nothing"], 1, &["nothing"]);
    world.fails(["sql", &store, "copy words to '/tmp/x.csv'"], 2, &["COPY"]);
    world.fails(["sql", "/nowhere/at/all", "select 1"], 1, &["no store"]);
    let hog = "select distinct a.word || b.word || c.word || d.word || e.word || f.word || g.word || h.word \
               from words a, words b, words c, words d, words e, words f, words g, words h";
    world.fails(["sql", &store, hog, "--memory", "4M"], 1, &["out of memory"]);
}
