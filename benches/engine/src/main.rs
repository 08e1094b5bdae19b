//! Lookups of the engine beside the memory system's own bound, on the same mapped files, in one run.
//!
//! `cargo run --release -p pheon-bench-engine -- [ROWS] [FILE.arrow] [--json] [--only TEXT]`
//!
//! FILE: an Arrow file with two string columns, key and value; without it path-like keys are made up. `--only`: cases whose
//! name contains TEXT. The maps are in `$PHEON_BENCH_DIR`, else in the folder for temporary files. `--json`: one JSON object a line instead of a table. For the bound see `bound.rs`. All times are of one thread, the best of several rounds.
#![allow(clippy::disallowed_methods, reason = "a bench looks at files behind the seam")]

mod bound;
mod data;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use pheon::{PutOptions, Store};

use self::bound::Files;
use self::data::{Case, Questions};

type Failure = Box<dyn std::error::Error>;

/// Queries a round.
const QUERIES: usize = 500_000;
/// In a mixture, one query in so many is a key that is not there.
const MISS_EVERY: usize = 5;
const ROUNDS: usize = 9;

fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let only = match args.iter().position(|arg| arg == "--only") {
        Some(at) => args.drain(at..(at + 2).min(args.len())).nth(1).unwrap_or_default(),
        None => String::new(),
    };
    let json = args.iter().position(|arg| arg == "--json").map(|at| args.remove(at)).is_some();
    let rows: usize = args.first().map_or(Ok(7_300_000), |a| a.parse())?;
    let file = args.get(1).map(Path::new);
    let parent = std::env::var_os("PHEON_BENCH_DIR").map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let dir = parent.join(format!("pheon-bench-{}", std::process::id()));
    let result = run(&dir, rows, file, &only, json);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn run(dir: &Path, rows: usize, file: Option<&Path>, only: &str, json: bool) -> Result<(), Failure> {
    let store = Store::open(dir)?;
    type Make<'a> = &'a dyn Fn() -> Result<Case, Failure>;
    let makers: [(&str, Make<'_>); 4] = [
        ("int64 -> int64", &|| Case::numbers(rows)),
        ("str -> str, short", &|| Case::short(rows)),
        ("str -> str, long", &|| Case::long(rows, file)),
        ("str -> struct", &|| Case::structs(rows)),
    ];
    if !json {
        println!("ns a query                      |   bound | get_many  share | find_many | single get | lines");
    }
    for (name, make) in makers {
        if name.contains(only) {
            measure(&store, &make()?, json)?;
            store.drop_dataset("case")?;
        }
    }
    Ok(())
}

fn measure(store: &Store, case: &Case, json: bool) -> Result<(), Failure> {
    let began = Instant::now();
    let reader = arrow_array::RecordBatchIterator::new([Ok(case.rows.clone())], case.rows.schema());
    store.put("case", reader, PutOptions::map("key"))?;
    let seconds = began.elapsed().as_secs_f64();
    let map = store.map("case")?;
    let warmed = store.warm("case")?;
    let (info, rows) = (map.info(), case.rows.num_rows());
    if !json {
        println!(
            "{}, {rows} rows: built in {seconds:.2} s ({:.2} M rows/s), data {} MB, index {:.2} B/key, {} % in 2 MiB pages",
            case.name,
            rows as f64 / seconds / 1e6,
            info.data_bytes / 1_000_000,
            info.index_bytes as f64 / rows as f64,
            100 * warmed.huge_bytes / warmed.file_bytes,
        );
    }
    let files = Files::open(store, &map)?;
    let kinds: [(&str, &dyn Fn(usize) -> bool); 3] =
        [("hits", &|_| true), ("80 % hits", &|i| !i.is_multiple_of(MISS_EVERY)), ("misses", &|_| false)];
    for (kind, is_hit) in kinds {
        let questions = case.questions(QUERIES, is_hit)?;
        let answer = map.get_many(&questions.keys)?;
        let right = case.answers(&questions)?;
        assert!(answer.to_data() == right.to_data(), "wrong answers: {}, {kind}", case.name);
        let lines = files.lines(&map, &questions)?;
        let (mut bound, mut many, mut rows_only) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        // In turns, so that a busy neighbour hurts all alike.
        for _ in 0..ROUNDS {
            bound = bound.min(time(|| {
                black_box(lines.read());
            }));
            many = many.min(time(|| {
                black_box(map.get_many(&questions.keys).expect("it worked before"));
            }));
            rows_only = rows_only.min(time(|| {
                black_box(map.find_many(&questions.keys, None).expect("it worked before"));
            }));
        }
        let single = (0..3).map(|_| time(|| single_gets(&map, &questions))).fold(f64::INFINITY, f64::min);
        if json {
            let report = serde_json::json!({
                "case": case.name, "kind": kind, "rows": rows, "bound_ns": bound, "get_many_ns": many,
                "find_many_ns": rows_only, "get_ns": single, "lines": lines.mean(), "distinct_bytes": lines.distinct_bytes(),
                "huge_share": warmed.huge_bytes as f64 / warmed.file_bytes as f64,
            });
            println!("{report}");
            continue;
        }
        println!(
            "  {kind:29} | {bound:7.1} | {many:8.1} {:5.0} % | {rows_only:9.1} | {single:10.1} | {:.2}",
            100.0 * bound / many,
            lines.mean()
        );
    }
    Ok(())
}

fn single_gets(map: &pheon::Map, questions: &Questions) {
    let keys = &questions.keys;
    match keys.as_string_opt::<i64>() {
        Some(text) => (0..keys.len()).for_each(|i| {
            black_box(map.get(text.value(i)).expect("it worked before"));
        }),
        None => keys.as_primitive::<arrow_array::types::Int64Type>().values().iter().for_each(|&key| {
            black_box(map.get(key).expect("it worked before"));
        }),
    }
}

/// Nanoseconds a query.
fn time(round: impl FnOnce()) -> f64 {
    let began = Instant::now();
    round();
    began.elapsed().as_nanos() as f64 / QUERIES as f64
}
