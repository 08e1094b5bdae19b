//! The memory system's own bound: the very lines that lookups read, when all of them are known beforehand.
//!
//! For each query the bound has the numbers of the 64-byte lines that its lookup cannot do without: the bucket (the
//! second one too, where the key is there or may be), the key's offsets and bytes, the value's offsets and bytes, each
//! line as often as the query needs it. A loop asks for the lines of a query that comes later (prefetch) and reads one
//! byte of each line of this one. Where the questions together touch little more than the last-level cache holds, the
//! bound is partly the cache's.

use std::path::{Path, PathBuf};

use arrow_array::{Array, ArrayRef};
use arrow_data::ArrayData;
use arrow_schema::DataType;
use pheon::{KeyRef, Map, Store};
use pheon_os::fs::real;
use pheon_os::map::ReadMap;

use crate::Failure;
use crate::data::Questions;

const LINE: usize = 64;
/// Queries between asking for lines and reading them.
const AHEAD: usize = 12;
/// Where a bucket holds its ten row numbers: docs/format.md section 3.3.
const BUCKET_ROWS: std::ops::Range<usize> = 24..64;

/// The files of a map of one segment, mapped once more, and where its arrays lie in them.
pub(crate) struct Files {
    data: ReadMap,
    index: ReadMap,
    buckets_at: usize,
    /// An address in the map's own mapping, and the place in the file that it shows.
    anchor: (usize, usize),
    key: ArrayData,
    value: ArrayData,
}

/// The lines of all queries, one after the other.
pub(crate) struct Lines<'a> {
    files: &'a Files,
    /// Numbers of lines: of the index those up to `split`, of the data the others.
    numbers: Vec<u32>,
    /// For each query, how many of its lines are of the index and how many of the data.
    counts: Vec<[u8; 2]>,
}

impl Files {
    pub(crate) fn open(store: &Store, map: &Map) -> Result<Self, Failure> {
        let folder = store.path().join(map.name());
        let manifest = std::fs::read(newest(&folder, "manifest-")?)?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
        let segment = &manifest["segments"][0];
        let offset = |file: &str, buffer: usize| {
            segment[file]["buffers"][buffer]["offset"].as_u64().map(|at| at as usize).ok_or("no such buffer")
        };
        let folder = newest(&folder, "seg-")?;
        let (key, value) = (map.table().column(0)?.to_data(), map.table().column(1)?.to_data());
        // Of both kinds of keys, the second buffer of the column is the first in memory.
        let anchor = (key.buffers()[0].as_ptr().addr(), offset("data", 1)?);
        let (data, index) = (real().map(&folder.join("data.arrow"))?, real().map(&folder.join("index.arrow"))?);
        // As the engine's own mapping has it.
        data.advise_huge(true)?;
        index.advise_huge(true)?;
        Ok(Self { data, index, buckets_at: offset("index", 1)?, anchor, key, value })
    }

    /// The lines that the lookup of each question needs.
    pub(crate) fn lines(&self, map: &Map, questions: &Questions) -> Result<Lines<'_>, Failure> {
        let mut lines = Lines { files: self, numbers: Vec::new(), counts: Vec::new() };
        let table = map.table();
        let keys = Keys::of(&questions.keys);
        for i in 0..questions.keys.len() {
            let probe = &table.probe(keys.at(i))?[0];
            let begin = lines.numbers.len();
            lines.push(self.buckets_at + probe.bucket as usize * LINE, LINE);
            if let Some(other) = probe.other
                && probe.row.is_none_or(|row| !self.is_in_bucket(probe.bucket, row))
            {
                lines.push(self.buckets_at + other as usize * LINE, LINE);
            }
            let of_index = lines.numbers.len() - begin;
            if let Some(row) = probe.row {
                self.push_row(&mut lines, &self.key, row as usize);
                self.push_row(&mut lines, &self.value, row as usize);
            }
            lines.counts.push([of_index as u8, (lines.numbers.len() - begin - of_index) as u8]);
        }
        Ok(lines)
    }

    fn is_in_bucket(&self, bucket: u64, row: u32) -> bool {
        let at = self.buckets_at + bucket as usize * LINE;
        self.index[at..][BUCKET_ROWS].chunks_exact(4).any(|stored| *stored == row.to_le_bytes())
    }

    /// The lines of a row's value in an array and its children.
    fn push_row(&self, lines: &mut Lines<'_>, array: &ArrayData, row: usize) {
        let row = array.offset() + row;
        let place = |buffer: usize| array.buffers()[buffer].as_ptr().addr() - self.anchor.0 + self.anchor.1;
        match array.data_type() {
            DataType::Struct(_) => array.child_data().iter().for_each(|child| self.push_row(lines, child, row)),
            DataType::LargeUtf8 => {
                lines.push(place(0) + 8 * row, 16);
                let offsets = &array.buffers()[0].typed_data::<i64>()[row..row + 2];
                lines.push(place(1) + offsets[0] as usize, (offsets[1] - offsets[0]) as usize);
            }
            other => {
                let width = other.primitive_width().unwrap_or_else(|| panic!("no lines are known for {other}"));
                lines.push(place(0) + width * row, width);
            }
        }
    }
}

impl Lines<'_> {
    /// The lines of so many bytes.
    fn push(&mut self, at: usize, bytes: usize) {
        if bytes > 0 {
            self.numbers.extend((at / LINE..=(at + bytes - 1) / LINE).map(|line| line as u32));
        }
    }

    /// Bytes of all lines, each counted once: what a cache must hold to serve every round after the first.
    pub(crate) fn distinct_bytes(&self) -> usize {
        let mut numbers = self.numbers.iter();
        let mut lines: Vec<u64> = Vec::with_capacity(self.numbers.len());
        for counts in &self.counts {
            for (file, &count) in counts.iter().enumerate() {
                lines.extend(numbers.by_ref().take(count.into()).map(|&line| (file as u64) << 32 | u64::from(line)));
            }
        }
        lines.sort_unstable();
        lines.dedup();
        lines.len() * LINE
    }

    /// Lines that a query needs on average.
    pub(crate) fn mean(&self) -> f64 {
        self.numbers.len() as f64 / self.counts.len() as f64
    }

    /// Reads all of them once, in the order of the queries; the sum of the bytes read.
    pub(crate) fn read(&self) -> u64 {
        let files = [self.files.index.as_ref(), self.files.data.as_ref()];
        let mut ahead = self.numbers.iter();
        let mut ask = |counts: Option<&[u8; 2]>| {
            for (file, count) in files.iter().zip(counts.copied().unwrap_or_default()) {
                for _ in 0..count {
                    if let Some(&line) = ahead.next() {
                        pheon_os::prefetch::read(file, line as usize * LINE);
                    }
                }
            }
        };
        (0..AHEAD).for_each(|i| ask(self.counts.get(i)));
        let mut lines = self.numbers.iter();
        let mut sum = 0;
        for (i, counts) in self.counts.iter().enumerate() {
            ask(self.counts.get(i + AHEAD));
            for (file, &count) in files.iter().zip(counts) {
                for _ in 0..count {
                    if let Some(&line) = lines.next() {
                        sum += u64::from(file[line as usize * LINE]);
                    }
                }
            }
        }
        sum
    }
}

/// The keys of an array for probing.
enum Keys<'a> {
    Text(&'a arrow_array::LargeStringArray),
    Numbers(&'a arrow_array::Int64Array),
}

impl<'a> Keys<'a> {
    fn of(array: &'a ArrayRef) -> Self {
        use arrow_array::cast::AsArray;
        match array.data_type() {
            DataType::LargeUtf8 => Self::Text(array.as_string()),
            _ => Self::Numbers(array.as_primitive()),
        }
    }

    fn at(&self, i: usize) -> KeyRef<'a> {
        match self {
            Self::Text(keys) => keys.value(i).into(),
            Self::Numbers(keys) => KeyRef::Fixed64(keys.value(i).cast_unsigned()),
        }
    }
}

/// The last of a folder's entries with this beginning, by name.
fn newest(folder: &Path, beginning: &str) -> Result<PathBuf, Failure> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning)));
    found.sort();
    found.pop().ok_or_else(|| format!("no {beginning}* in {}", folder.display()).into())
}
