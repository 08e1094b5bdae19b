//! Times lookups, counts lines and checks every answer.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pheon_os::prefetch;

use crate::layout::{GROUP, Layout, Lines, MISSING, mix, reduce};

/// Queries of each kind; more lines than a last-level cache holds.
const QUERIES: usize = 1 << 22;
/// Queries timed at once: about a millisecond, so that some of them are not disturbed by others on this machine.
const WINDOW: usize = 1 << 15;
/// Queries of the dependent chain, and of a window of it: each takes longer.
const CHAIN: usize = 1 << 20;
const CHAIN_WINDOW: usize = 1 << 12;
/// Times that all queries are asked.
const PASSES: usize = 3;
/// The window that counts is the fastest but 5 %: the very fastest owes something to chance.
const RANK_PERCENT: usize = 5;

/// The keys of a data set, and queries for them.
pub(crate) struct Data {
    /// The key of each row; it is its own hash.
    pub(crate) keys: Vec<u64>,
    hit_rows: Vec<u32>,
    hits: Vec<u64>,
    misses: Vec<u64>,
}

/// One row of the result.
pub(crate) struct Figures {
    pub(crate) bytes_a_key: f64,
    pub(crate) hit_lines: f64,
    pub(crate) miss_lines: f64,
    pub(crate) miss_keys: f64,
    pub(crate) hit_ns: f64,
    pub(crate) miss_ns: f64,
    pub(crate) single_ns: f64,
}

impl Data {
    pub(crate) fn new(n: usize) -> Self {
        let keys: Vec<u64> = (0..n as u64).map(mix).collect();
        let hit_rows: Vec<u32> = (0..QUERIES as u64).map(|i| reduce(mix(!i), n) as u32).collect();
        let hits = hit_rows.iter().map(|&row| keys[row as usize]).collect();
        let misses = (0..QUERIES as u64).map(|i| mix(n as u64 + i)).collect();
        Self { keys, hit_rows, hits, misses }
    }

    /// Measures a layout.
    ///
    /// # Errors
    ///
    /// An answer was wrong.
    pub(crate) fn measure(&self, layout: &impl Layout) -> Result<Figures, String> {
        self.check(layout)?;
        let per_query = |lines: u64| lines as f64 / QUERIES as f64;
        let (hit_lines, miss_lines) = (self.count(layout, &self.hits), self.count(layout, &self.misses));
        Ok(Figures {
            bytes_a_key: layout.size_bytes() as f64 / self.keys.len() as f64,
            hit_lines: per_query(hit_lines.index),
            miss_lines: per_query(miss_lines.index),
            miss_keys: per_query(miss_lines.keys),
            hit_ns: fast_window(&self.hits, WINDOW, |queries| self.batch(layout, queries)),
            miss_ns: fast_window(&self.misses, WINDOW, |queries| self.batch(layout, queries)),
            single_ns: fast_window(&self.hits[..CHAIN], CHAIN_WINDOW, |queries| self.chain(layout, queries)),
        })
    }

    fn check(&self, layout: &impl Layout) -> Result<(), String> {
        for (name, queries, expected) in [("hit", &self.hits, Some(&self.hit_rows)), ("miss", &self.misses, None)] {
            let mut lines = Lines::default();
            for (g, group) in queries.as_chunks::<GROUP>().0.iter().enumerate() {
                let mut rows = [0; GROUP];
                layout.find_group(&self.keys, group, &mut rows);
                for (i, &h) in group.iter().enumerate() {
                    let right = expected.map_or(MISSING, |rows| rows[g * GROUP + i]);
                    let answers = [rows[i], layout.find(&self.keys, h), layout.count(&self.keys, h, &mut lines)];
                    if answers != [right; 3] {
                        return Err(format!("wrong answer for {name} {h:#x}: expected {right}, found {answers:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&self, layout: &impl Layout, queries: &[u64]) -> Lines {
        let mut lines = Lines::default();
        for &h in queries {
            black_box(layout.count(&self.keys, h, &mut lines));
        }
        lines
    }

    fn batch(&self, layout: &impl Layout, queries: &[u64]) -> u64 {
        let mut sum = 0_u64;
        let mut rows = [0; GROUP];
        for group in queries.as_chunks::<GROUP>().0 {
            layout.find_group(&self.keys, group, &mut rows);
            sum += rows.iter().map(|&row| u64::from(row)).sum::<u64>();
        }
        sum
    }

    /// Each query depends on the answer before it.
    fn chain(&self, layout: &impl Layout, queries: &[u64]) -> u64 {
        let nothing = black_box(0_u64);
        let mut row = 0_u32;
        for &h in queries {
            row = layout.find(&self.keys, h ^ (u64::from(row) & nothing));
        }
        u64::from(row)
    }

    /// The bound: random lines of `len_bytes` of memory, read as often as queries and as far ahead as a group, ns a line.
    pub(crate) fn line_bound(&self, len_bytes: u64) -> f64 {
        let lines = vec![[1_u64; 8]; (len_bytes / 64) as usize];
        fast_window(&self.misses, WINDOW, |queries| {
            let mut sum = 0;
            for group in queries.as_chunks::<GROUP>().0 {
                for &h in group {
                    prefetch::read_at(&lines, reduce(h, lines.len()));
                }
                for &h in group {
                    sum += lines[reduce(h, lines.len())][0];
                }
            }
            sum
        })
    }
}

/// Nanoseconds a query in a fast window.
fn fast_window(queries: &[u64], window: usize, mut run: impl FnMut(&[u64]) -> u64) -> f64 {
    let mut times = Vec::new();
    for _ in 0..PASSES {
        for window in queries.chunks_exact(window) {
            let start = Instant::now();
            black_box(run(window));
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    times[times.len() * RANK_PERCENT / 100].as_secs_f64() * 1e9 / window as f64
}

/// What `run` returns, and how long this thread ran on a processor, waiting for none; exact to some milliseconds. Wall time
/// if the kernel does not tell.
pub(crate) fn cpu_time<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let (before, start) = (on_processor(), Instant::now());
    let result = run();
    let wall = start.elapsed();
    (result, on_processor().zip(before).map_or(wall, |(after, before)| after - before))
}

/// First field of `schedstat`: nanoseconds on a processor.
#[allow(clippy::disallowed_methods)] // a file of the kernel's, not of a store
fn on_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}
