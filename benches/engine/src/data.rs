//! What is looked up: real or made-up keys and values, and which of them are asked for.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{LargeStringBuilder, PrimitiveBuilder};
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int64Array, LargeStringArray, RecordBatch, StructArray};
use arrow_select::take::take;

use crate::Failure;

/// A map to build, and keys that it does not hold: row for row like its own.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Columns `key` and `value`.
    pub(crate) rows: RecordBatch,
    pub(crate) absent: ArrayRef,
}

/// Queries of one kind: keys, and for each the row of [`Case::rows`] that answers it.
pub(crate) struct Questions {
    pub(crate) keys: ArrayRef,
    pub(crate) rows: Vec<Option<u32>>,
}

impl Case {
    /// 64-bit numbers to 64-bit numbers.
    pub(crate) fn numbers(rows: usize) -> Result<Self, Failure> {
        let keys = |from: u64| Int64Array::from_iter_values((from..from + rows as u64).map(|i| mix(i).cast_signed()));
        let values = Int64Array::from_iter_values(0..rows as i64);
        Self::new("int64 -> int64", keys(0), Arc::new(values), Arc::new(keys(rows as u64)))
    }

    /// Names of 12 bytes to names of 8.
    pub(crate) fn short(rows: usize) -> Result<Self, Failure> {
        let keys = |kind: char| strings((0..rows as u64).map(|i| format!("{kind}{:011x}", mix(i) >> 20)));
        let values = strings((0..rows as u64).map(|i| format!("v{:07x}", mix(i) >> 36)));
        Self::new("str -> str, short", unique(&keys('u'))?, Arc::new(values), Arc::new(keys('w')))
    }

    /// Paths to names: the two string columns of a file, or paths made up.
    pub(crate) fn long(rows: usize, file: Option<&Path>) -> Result<Self, Failure> {
        let (keys, values) = match file {
            Some(file) => {
                let batches =
                    pheon::input::open(file, &pheon::input::InputOptions::default())?.collect::<Result<Vec<_>, _>>()?;
                let batch = arrow_select::concat::concat_batches(&batches[0].schema(), &batches)?;
                let text = |i: usize| arrow_cast::cast(batch.column(i), &arrow_schema::DataType::LargeUtf8);
                let len = rows.min(batch.num_rows());
                (text(0)?.slice(0, len), text(1)?.slice(0, len))
            }
            None => {
                let keys = strings((0..rows as u64).map(|i| {
                    let x = mix(i);
                    let (package, folder, name) = (x % 4096, x >> 20 & 511, x >> 16);
                    format!("usr/share/doc/package-{package:04}/examples/{folder:03}/file-{name:012x}.txt")
                }));
                let values = strings((0..rows as u64).map(|i| format!("section/package-{:05}", mix(i) % 65_536)));
                (Arc::new(keys) as ArrayRef, Arc::new(values) as ArrayRef)
            }
        };
        let keys = LargeStringArray::from(keys.to_data());
        let absent = strings(keys.iter().map(|key| format!("{}?", key.unwrap_or_default())));
        Self::new("str -> str, long", keys, values, Arc::new(absent))
    }

    /// The short names to structs of a number, a name and a float.
    pub(crate) fn structs(rows: usize) -> Result<Self, Failure> {
        let short = Self::short(rows)?;
        let fields = short.rows.num_rows();
        let mut numbers = PrimitiveBuilder::<Int64Type>::new();
        let mut names = LargeStringBuilder::new();
        let mut floats = PrimitiveBuilder::<Float64Type>::new();
        for i in 0..fields as u64 {
            numbers.append_value(i.cast_signed());
            names.append_value(format!("name-{:06}", mix(i) % 1_000_000));
            floats.append_value(i as f64 / 8.0);
        }
        let columns: [(&str, ArrayRef); 3] = [
            ("number", Arc::new(numbers.finish())),
            ("name", Arc::new(names.finish())),
            ("float", Arc::new(floats.finish())),
        ];
        let values = StructArray::try_from(columns.to_vec())?;
        let rows =
            RecordBatch::try_from_iter([("key", short.rows.column(0).clone()), ("value", Arc::new(values) as _)])?;
        Ok(Self { name: "str -> struct", rows, absent: short.absent })
    }

    fn new(
        name: &'static str,
        keys: impl Array + 'static,
        values: ArrayRef,
        absent: ArrayRef,
    ) -> Result<Self, Failure> {
        let keys: ArrayRef = Arc::new(keys);
        let values = values.slice(0, keys.len());
        Ok(Self { name, rows: RecordBatch::try_from_iter([("key", keys), ("value", values)])?, absent })
    }

    /// So many queries, of which every `miss_every`-th is a miss.
    pub(crate) fn questions(&self, count: usize, is_hit: impl Fn(usize) -> bool) -> Result<Questions, Failure> {
        let rows = self.rows.num_rows() as u64;
        let picks: Vec<u32> = (0..count as u64).map(|i| (mix(i ^ 0x5555_0000_0000) % rows) as u32).collect();
        let places: Vec<(usize, usize)> =
            picks.iter().enumerate().map(|(i, &row)| (usize::from(!is_hit(i)), row as usize)).collect();
        let keys =
            arrow_select::interleave::interleave(&[self.rows.column(0).as_ref(), self.absent.as_ref()], &places)?;
        let rows = picks.iter().enumerate().map(|(i, &row)| is_hit(i).then_some(row)).collect();
        Ok(Questions { keys, rows })
    }

    /// The right answers.
    pub(crate) fn answers(&self, questions: &Questions) -> Result<ArrayRef, Failure> {
        Ok(take(self.rows.column(1), &arrow_array::UInt32Array::from(questions.rows.clone()), None)?)
    }
}

fn strings<S: AsRef<str>>(texts: impl Iterator<Item = S>) -> LargeStringArray {
    LargeStringArray::from_iter_values(texts)
}

/// Without repeats, which numbers cut short may have.
fn unique(keys: &LargeStringArray) -> Result<LargeStringArray, Failure> {
    let mut seen = std::collections::HashSet::with_capacity(keys.len());
    Ok(strings(keys.iter().flatten().filter(|key| seen.insert(*key))))
}

/// SplitMix64's finaliser: distinct inputs give distinct outputs.
pub(crate) fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
