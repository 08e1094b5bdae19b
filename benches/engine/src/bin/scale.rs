//! Building a map that is larger than the memory that building may use: rate, memory, bytes written, disk.
//!
//! `cargo run --release -p pheon-bench-engine --bin scale -- [--rows N] [--kind str|int] [--order random|sorted]
//!  [--memory-limit BYTES] [--threads N] [--dir DIR]`
//!
//! Rows are made up while they are taken in: keys of 20 bytes to values of 20 bytes, or 64-bit numbers to 64-bit numbers.
//! What making them costs alone is printed too. A million of them are looked up afterwards. Output: one JSON object.
#![allow(clippy::disallowed_methods, reason = "a bench looks at files behind the seam")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::{Array, ArrayRef, Int64Array, LargeStringArray, RecordBatch, RecordBatchReader};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use pheon::{Progress, PutOptions, Store};

type Failure = Box<dyn std::error::Error>;

const BATCH_ROWS: u64 = 65_536;
const CHECKED: u64 = 1_000_000;
const TEXT_BYTES: usize = 20;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Str,
    Int,
}

#[derive(Clone, Copy)]
struct Rows {
    kind: Kind,
    sorted: bool,
    count: u64,
}

fn main() -> Result<(), Failure> {
    let mut rows = Rows { kind: Kind::Str, sorted: false, count: 100_000_000 };
    let mut limit: u64 = 2 << 30;
    let mut threads = None;
    let mut parent = std::env::temp_dir();
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match (name.as_str(), value.as_str()) {
            ("--rows", n) => rows.count = n.parse()?,
            ("--kind", "str") => rows.kind = Kind::Str,
            ("--kind", "int") => rows.kind = Kind::Int,
            ("--order", "random") => rows.sorted = false,
            ("--order", "sorted") => rows.sorted = true,
            ("--memory-limit", bytes) => limit = bytes.parse()?,
            ("--threads", n) => threads = Some(n.parse()?),
            ("--dir", dir) => parent = PathBuf::from(dir),
            _ => return Err(format!("unknown option: {name} {value}").into()),
        }
    }
    let dir = parent.join(format!("pheon-bench-build-{}", std::process::id()));
    let result = run(&dir, rows, limit, threads);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn run(dir: &Path, rows: Rows, limit: u64, threads: Option<usize>) -> Result<(), Failure> {
    let making = Instant::now();
    let made: usize =
        Stream::new(Rows { count: rows.count.min(4_000_000), ..rows }).map(|b| b.map_or(0, |b| b.num_rows())).sum();
    let making_ns = making.elapsed().as_nanos() as f64 / made as f64;
    let store = Store::open(dir)?;
    let mut options = PutOptions::map("key").memory_limit_bytes(limit);
    options.threads = threads;
    let phases = Arc::new(Mutex::new(Vec::<(String, f64, f64)>::new()));
    let seen = phases.clone();
    let start = Instant::now();
    options.progress = Some(Arc::new(move |progress: &Progress| {
        let mut phases = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{:?}", progress.phase);
        if phases.last().is_none_or(|last| last.0 != name) {
            phases.push((name, start.elapsed().as_secs_f64(), processor_seconds().unwrap_or(0.0)));
        }
    }));
    let watch = Watch::begin(dir);
    let written = io_field("write_bytes")?;
    let began_processor = processor_seconds()?;
    let began = Instant::now();
    store.put("built", Stream::new(rows), options)?;
    let seconds = began.elapsed().as_secs_f64();
    let processor = processor_seconds()? - began_processor;
    let written = io_field("write_bytes")? - written;
    let peak_memory = status_field("VmHWM:")?;
    let disk_peak = watch.end();
    let map = store.map("built")?;
    let info = map.info();
    assert_eq!(map.len() as u64, rows.count);
    check(&map, rows)?;
    let data = rows.count * if rows.kind == Kind::Str { 2 * TEXT_BYTES as u64 } else { 16 };
    // Seconds and processor seconds of each phase.
    let mut ends = phases.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ends.push((String::new(), seconds, began_processor + processor));
    let phases: serde_json::Map<String, serde_json::Value> = ends
        .windows(2)
        .map(|two| (two[0].0.clone(), serde_json::json!([two[1].1 - two[0].1, two[1].2 - two[0].2])))
        .collect();
    let report = serde_json::json!({
        "phases": phases,
        "kind": if rows.kind == Kind::Str { "str" } else { "int" },
        "order": if rows.sorted { "sorted" } else { "random" },
        "rows": rows.count,
        "memory_limit_bytes": limit,
        "seconds": seconds,
        "rows_per_second": rows.count as f64 / seconds,
        "processor_seconds": processor,
        "making_ns_a_row": making_ns,
        "peak_memory_bytes": peak_memory,
        "written_bytes": written,
        "written_per_byte_of_data": written as f64 / data as f64,
        "disk_peak_bytes": disk_peak,
        "data_bytes": info.data_bytes,
        "index_bytes": info.index_bytes,
        "index_bytes_a_key": info.index_bytes as f64 / rows.count as f64,
        "checked": CHECKED,
    });
    println!("{report}");
    Ok(())
}

/// Looks some rows up, and as many keys that are not there.
fn check(map: &pheon::Map, rows: Rows) -> Result<(), Failure> {
    let numbers: Vec<u64> = (0..CHECKED).map(|i| mix(i ^ 0xC0FFEE) % rows.count).collect();
    let keys = rows.keys(&numbers);
    let values = map.get_many(&keys)?;
    assert!(values.to_data() == rows.values(&numbers).to_data(), "wrong values");
    let others: Vec<u64> = numbers.iter().map(|n| n + (1 << 40)).collect();
    assert_eq!(map.get_many(&rows.keys(&others))?.null_count(), others.len(), "keys that are not there");
    Ok(())
}

/// Makes rows up, batch by batch.
struct Stream {
    rows: Rows,
    next: u64,
    schema: SchemaRef,
}

impl Stream {
    fn new(rows: Rows) -> Self {
        let data_type = if rows.kind == Kind::Str { DataType::LargeUtf8 } else { DataType::Int64 };
        let fields = vec![Field::new("key", data_type.clone(), false), Field::new("value", data_type, false)];
        Self { rows, next: 0, schema: Arc::new(Schema::new(fields)) }
    }
}

impl Iterator for Stream {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.rows.count.min(self.next + BATCH_ROWS);
        let numbers: Vec<u64> = (self.next..end).collect();
        self.next = end;
        if numbers.is_empty() {
            return None;
        }
        Some(RecordBatch::try_new(self.schema.clone(), vec![self.rows.keys(&numbers), self.rows.values(&numbers)]))
    }
}

impl RecordBatchReader for Stream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Rows {
    fn keys(self, numbers: &[u64]) -> ArrayRef {
        // Sorted numbers and their texts ascend; mixed ones are distinct, too.
        self.column(numbers, |n| if self.sorted { n << 16 } else { mix(n) })
    }

    fn values(self, numbers: &[u64]) -> ArrayRef {
        self.column(numbers, |n| mix(n ^ 0x7777))
    }

    fn column(self, numbers: &[u64], word: impl Fn(u64) -> u64) -> ArrayRef {
        match self.kind {
            Kind::Int => Arc::new(Int64Array::from_iter_values(numbers.iter().map(|&n| word(n).cast_signed()))),
            Kind::Str => {
                let mut bytes = Vec::with_capacity(numbers.len() * TEXT_BYTES);
                for &n in numbers {
                    bytes.extend_from_slice(b"key:");
                    bytes.extend_from_slice(&hexadecimal(word(n)));
                }
                let offsets: Vec<i64> = (0..=numbers.len()).map(|i| (i * TEXT_BYTES) as i64).collect();
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(LargeStringArray::new(offsets, Buffer::from_vec(bytes), None))
            }
        }
    }
}

/// Sixteen digits, the most significant first.
fn hexadecimal(word: u64) -> [u8; 16] {
    const PAIRS: [[u8; 2]; 256] = {
        let digits = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut i = 0;
        while i < pairs.len() {
            pairs[i] = [digits[i >> 4], digits[i & 15]];
            i += 1;
        }
        pairs
    };
    let mut text = [0; 16];
    for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(word.to_be_bytes()) {
        *pair = PAIRS[usize::from(byte)];
    }
    text
}

/// Samples the bytes below a folder.
struct Watch {
    done: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn begin(dir: &Path) -> Self {
        let (done, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (dir, until, most) = (dir.to_owned(), done.clone(), peak.clone());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                most.fetch_max(bytes_below(&dir), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { done, peak, thread }
    }

    fn end(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.peak.load(Ordering::Relaxed)
    }
}

/// Blocks of all files below a folder. Files come and go meanwhile.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn io_field(name: &str) -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
    Ok(line.trim_start_matches([':', ' ']).trim().parse()?)
}

fn status_field(name: &str) -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// User and system time of all threads, which /proc counts in hundredths of a second.
fn processor_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
