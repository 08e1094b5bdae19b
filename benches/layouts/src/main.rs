//! Measures index layouts against each other: `cargo run --release -p pheon-bench-layouts -- 7000000 50000000`.
//!
//! Keys are random 64-bit numbers that are their own hash; every layout maps them to row numbers and every candidate is
//! compared with the key column, so all pay the same key access. Answers are checked. One thread. Lookups are timed in
//! windows of a millisecond, of which the fastest 5 % count; builds in processor time, and in wall time with two threads.
//! docs/decisions/0001-bucket-layout.md holds the outcome.

mod bucket64;
mod byte12;
mod huge_pages;
mod layout;
mod linear8;
mod measure;
mod perfect;
mod two_choice;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bucket64::Bucket64;
use byte12::Byte12;
use huge_pages::HugePages;
use layout::Layout;
use linear8::Linear8;
use measure::{Data, cpu_time};
use perfect::Perfect;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages { enabled: AtomicBool::new(true) };

/// The perfect hash would be built by every processor otherwise.
const THREADS: &str = "RAYON_NUM_THREADS";

fn main() -> ExitCode {
    let mut sizes = Vec::new();
    for argument in std::env::args().skip(1) {
        match (argument.as_str(), argument.parse::<usize>()) {
            ("--small-pages", _) => ALLOCATOR.enabled.store(false, Ordering::Relaxed),
            (_, Ok(n)) if (1..u32::MAX as usize).contains(&n) => sizes.push(n),
            _ => {
                eprintln!("usage: pheon-bench-layouts [--small-pages] KEYS...");
                return ExitCode::from(2);
            }
        }
    }
    if std::env::var_os(THREADS).is_none() {
        let problem = start_again();
        eprintln!("starting again with {THREADS}=1: {problem}");
        return ExitCode::FAILURE;
    }
    for n in sizes {
        if let Err(problem) = run(n) {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Replaces this process by itself with one thread for libraries. Returns only if that fails.
fn start_again() -> io::Error {
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(e) => return e,
    };
    Command::new(exe).args(std::env::args_os().skip(1)).env(THREADS, "1").exec()
}

fn run(n: usize) -> Result<(), String> {
    let data = Data::new(n);
    let dir = std::env::temp_dir();
    println!("\n{n} keys; memory in 2 MiB pages: {} MiB", huge_mib());
    for (what, len_bytes) in [("index of 7.11 bytes a key", n as u64 * 711 / 100), ("key column", n as u64 * 8)] {
        println!("random 64-byte lines of the {what}: {:.1} ns a line", data.line_bound(len_bytes));
    }
    println!(
        "| layout | build ns/key | bytes/key | lines/hit | lines/miss | keys read/miss | batch hit ns | batch miss ns | single ns |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for load in [0.85, 0.9, 0.95] {
        let name = format!("(a) bucket64, load {:.0} %", load * 100.0);
        report(&data, &name, || Ok(Bucket64::build(&data.keys, load, u64::MAX, 1, &dir)?.0))?;
    }
    for load in [0.75, 0.85] {
        let name = format!("(b) 8 x 64-bit, linear, load {:.0} %", load * 100.0);
        report(&data, &name, || Ok(Linear8::build(&data.keys, load)))?;
    }
    report(&data, "(c) perfect hash, rows", || Ok(Perfect::<u32>::build(&data.keys)))?;
    report(&data, "(c) perfect hash, rows + 8-bit fp", || Ok(Perfect::<[u8; 5]>::build(&data.keys)))?;
    report(&data, "(d) 12 x 8-bit fp, load 90 %", || Byte12::build(&data.keys, 0.9))?;
    for (what, memory_bytes, threads) in [
        ("in memory", u64::MAX, 1),
        ("in memory", u64::MAX, 2),
        ("spilled", n as u64 * 3, 1),
        ("spilled", n as u64 * 3, 2),
    ] {
        let mut best = f64::MAX;
        let mut stats = Default::default();
        for _ in 0..3 {
            let start = Instant::now();
            (_, stats) = Bucket64::build(&data.keys, 0.9, memory_bytes, threads, &dir)?;
            best = best.min(start.elapsed().as_secs_f64() * 1e9 / n as f64);
        }
        println!("build (a) {what}, {threads} thread(s): {best:.1} ns a key of wall time; {stats:?}");
    }
    Ok(())
}

fn report<L: Layout>(data: &Data, name: &str, build: impl Fn() -> Result<L, String>) -> Result<(), String> {
    let mut build_ns = f64::MAX;
    let mut built = None;
    for _ in 0..2 {
        // The former one is freed first, so that both never exist at once.
        drop(built.take());
        let (layout, time) = cpu_time(&build);
        build_ns = build_ns.min(time.as_secs_f64() * 1e9 / data.keys.len() as f64);
        built = Some(layout?);
    }
    let Some(layout) = built else { return Ok(()) };
    let f = data.measure(&layout).map_err(|problem| format!("{name}: {problem}"))?;
    println!(
        "| {name} | {build_ns:.1} | {:.2} | {:.3} | {:.3} | {:.3} | {:.1} | {:.1} | {:.0} |",
        f.bytes_a_key, f.hit_lines, f.miss_lines, f.miss_keys, f.hit_ns, f.miss_ns, f.single_ns
    );
    Ok(())
}

/// Anonymous memory of this process in huge pages, or 0 if the kernel does not tell.
#[allow(clippy::disallowed_methods)] // a file of the kernel's, not of a store
fn huge_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("AnonHugePages:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
