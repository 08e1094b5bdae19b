//! Lookups of the engine beside the memory system's own bound, on one mapping, in one run.
//!
//! `cargo run --release -p pheon-bench-engine -- [ROWS] [FILE.arrow]`
//!
//! FILE: an Arrow file with two string columns, key and value; without it path-like keys are made up. The bound is the time
//! to read a random 64-byte line of the same mapping when it was asked for well before (prefetch), in ns a line. A lookup reads a known number of
//! lines, so its share of the bound says how much of the time is memory and how much is ours.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, LargeStringArray, RecordBatch, RecordBatchIterator};
use pheon::{PutOptions, Store, Value};

/// Queries a round.
const QUERIES: usize = 500_000;
/// One query in so many is a key that is not there.
const MISS_EVERY: usize = 5;
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let rows: usize = args.next().map_or(Ok(7_300_000), |a| a.parse())?;
    let file = args.next();
    let dir = std::env::temp_dir().join(format!("pheon-bench-{}", std::process::id()));
    let store = Store::open(&dir)?;
    let result = run(&store, rows, file.as_deref().map(Path::new));
    for name in store.datasets()? {
        store.drop_dataset(&name)?;
    }
    result
}

fn run(store: &Store, rows: usize, file: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let words = match file {
        Some(file) => {
            let batches =
                pheon::input::open(file, &pheon::input::InputOptions::default())?.collect::<Result<Vec<_>, _>>()?;
            let batch = arrow_select::concat::concat_batches(&batches[0].schema(), &batches)?;
            let columns =
                [0, 1].map(|i| arrow_cast::cast(batch.column(i), &arrow_schema::DataType::LargeUtf8).expect("text"));
            let [keys, values] = columns;
            let len = rows.min(keys.len());
            RecordBatch::try_from_iter([("key", keys.slice(0, len)), ("value", values.slice(0, len))])?
        }
        None => made_up(rows)?,
    };
    strings(store, &words)?;
    integers(store, rows)
}

fn made_up(rows: usize) -> Result<RecordBatch, Box<dyn std::error::Error>> {
    let key = |i: u64| {
        let x = mix(i);
        format!("usr/share/doc/package-{:04}/examples/{:03}/file-{:012x}.txt", x % 4096, x >> 20 & 511, x >> 16)
    };
    let keys: ArrayRef = Arc::new(LargeStringArray::from_iter_values((0..rows as u64).map(key)));
    let values: ArrayRef = Arc::new(LargeStringArray::from_iter_values(
        (0..rows as u64).map(|i| format!("section/package-{:05}", mix(i) % 65_536)),
    ));
    Ok(RecordBatch::try_from_iter([("key", keys), ("value", values)])?)
}

fn strings(store: &Store, words: &RecordBatch) -> Result<(), Box<dyn std::error::Error>> {
    let rows = words.num_rows();
    let began = Instant::now();
    store.put("words", RecordBatchIterator::new([Ok(words.clone())], words.schema()), PutOptions::map("key"))?;
    let seconds = began.elapsed().as_secs_f64();
    let info = store.map("words")?.info();
    println!(
        "str -> str, {rows} rows: built in {seconds:.2} s ({:.2} M rows/s), data {} MB, index {:.2} B/key",
        rows as f64 / seconds / 1e6,
        info.data_bytes / 1_000_000,
        info.index_bytes as f64 / rows as f64
    );
    let map = store.map("words")?;
    store.warm("words")?;
    let keys = words.column(0).as_string::<i64>();
    let values = words.column(1).as_string::<i64>();
    let picks = picks(rows);
    let asked = |hit: &dyn Fn(usize) -> bool| {
        LargeStringArray::from_iter_values(picks.iter().enumerate().map(|(i, &row)| {
            let key = keys.value(row);
            if hit(i) { key.to_owned() } else { format!("{key}?") }
        }))
    };
    let table = map.table();
    let data = table.column(0)?.to_data();
    let bound = line_bound(&data.buffers()[1]);
    println!("  bound: {bound:.1} ns a random line of the key bytes");
    let mixed = |i: usize| !i.is_multiple_of(MISS_EVERY);
    for (name, hit) in
        [("80 % hits", &mixed as &dyn Fn(usize) -> bool), ("all hits", &|_| true), ("all misses", &|_| false)]
    {
        let batch = asked(hit);
        let answer = map.get_many(&batch)?;
        let answer = answer.as_string::<i64>();
        for (i, &row) in picks.iter().enumerate() {
            let expected = hit(i).then(|| values.value(row));
            assert_eq!(answer.is_valid(i).then(|| answer.value(i)), expected, "query {i}");
        }
        let many = best(|| {
            black_box(map.get_many(&batch).expect("it worked before"));
        });
        let rows_only = best(|| {
            black_box(map.find_many(&batch, None).expect("it worked before"));
        });
        let single = best(|| {
            let mut total = 0;
            for i in 0..batch.len() {
                if let Ok(Some(Value::Str(value))) = map.get(batch.value(i)) {
                    total += value.len();
                }
            }
            black_box(total);
        });
        // Index line; key offsets, key bytes (1.6 lines of 64 bytes on average for 64-byte keys), value offsets, value bytes.
        let lines = picks
            .iter()
            .enumerate()
            .map(|(i, &row)| if hit(i) { lines_of(keys.value(row), values.value(row)) } else { 1.03 })
            .sum::<f64>()
            / picks.len() as f64;
        println!(
            "  {name:10}  get_many {many:6.1} ns   find_many {rows_only:6.1} ns   single get {single:6.1} ns   {lines:.2} lines: get_many is {:.0} % of the bound",
            100.0 * lines * bound / many
        );
    }
    Ok(())
}

/// Lines that a hit reads on average: index, two pairs of offsets (one in eight crosses a line), key and value bytes.
fn lines_of(key: &str, value: &str) -> f64 {
    let span = |len: usize| if len == 0 { 0.0 } else { 1.0 + (len - 1) as f64 / 64.0 };
    1.08 + 2.0 * 1.125 + span(key.len()) + span(value.len())
}

fn integers(store: &Store, rows: usize) -> Result<(), Box<dyn std::error::Error>> {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows as u64).map(|i| mix(i).cast_signed())));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let batch = RecordBatch::try_from_iter([("key", keys), ("value", values)])?;
    let began = Instant::now();
    store.put("numbers", RecordBatchIterator::new([Ok(batch.clone())], batch.schema()), PutOptions::map("key"))?;
    println!("int64 -> int64, {rows} rows: built in {:.2} s", began.elapsed().as_secs_f64());
    let map = store.map("numbers")?;
    store.warm("numbers")?;
    let bound = line_bound(&map.table().column(0)?.to_data().buffers()[0]);
    println!("  bound: {bound:.1} ns a random line of the keys");
    let picks = picks(rows);
    for (name, offset, lines) in [("all hits", 0, 3.08), ("all misses", rows as u64, 1.03)] {
        let asked = Int64Array::from_iter_values(picks.iter().map(|&row| mix(row as u64 + offset).cast_signed()));
        let answer = map.get_many(&asked)?;
        let answer = answer.as_primitive::<arrow_array::types::Int64Type>();
        for (i, &row) in picks.iter().enumerate() {
            assert_eq!(answer.is_valid(i).then(|| answer.value(i)), (offset == 0).then_some(row as i64), "query {i}");
        }
        let many = best(|| {
            black_box(map.get_many(&asked).expect("it worked before"));
        });
        println!(
            "  {name:10}  get_many {many:6.1} ns   {lines:.2} lines: {:.0} % of the bound",
            100.0 * lines * bound / many
        );
    }
    Ok(())
}

fn picks(rows: usize) -> Vec<usize> {
    (0..QUERIES as u64).map(|i| (mix(i ^ 0x5555_0000_0000) % rows as u64) as usize).collect()
}

/// The best of several rounds, in ns a query.
fn best(mut round: impl FnMut()) -> f64 {
    let time = |round: &mut dyn FnMut()| {
        let began = Instant::now();
        round();
        began.elapsed().as_nanos() as f64 / QUERIES as f64
    };
    (0..ROUNDS).map(|_| time(&mut round)).fold(f64::INFINITY, f64::min)
}

/// Nanoseconds to read a random 64-byte line that was asked for 32 lines earlier.
fn line_bound(bytes: &[u8]) -> f64 {
    const AHEAD: usize = 32;
    let lines = (bytes.len() / 64).max(1) as u64;
    let places: Vec<usize> =
        (0..QUERIES as u64 + AHEAD as u64).map(|i| (mix(i ^ 0xABCD) % lines) as usize * 64).collect();
    best(|| {
        let mut sum = 0u64;
        for i in 0..QUERIES {
            pheon_os::prefetch::read(bytes, places[i + AHEAD]);
            sum += u64::from(bytes[places[i]]);
        }
        black_box(sum);
    })
}

/// SplitMix64's finaliser: distinct inputs give distinct outputs.
fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
