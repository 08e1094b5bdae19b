//! Full verification: every byte of a dataset against its checksums, of the newest version its order, its index and the Arrow
//! format, too.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;

use arrow_array::Array as _;
use xxhash_rust::xxh3::xxh3_64;

use crate::access::Access;
use crate::dataset::Dataset;
use crate::error::ReadError;
use crate::index::EMPTY_ROW;
use crate::lookup::KeyBound;
use crate::manifest::{FileRecord, Manifest, SegmentRecord};
use crate::segment::file::{metadata_checksum, segment_dir};
use crate::segment::{Segment, SegmentKey};
use crate::version::Version;
use crate::version::hidden::hidden_path;
use crate::writer::verify_kept;

/// Problems that a report lists at most; more are only counted.
const PROBLEMS_MAX: usize = 100;

/// What [`crate::Store::verify`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The version that was read; 0 if no manifest could be.
    pub version: u64,
    /// Rows read.
    pub rows: u64,
    /// Distinct keys found in the data.
    pub keys: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong, naming file and place; empty: nothing. At most 100 are listed.
    pub problems: Vec<String>,
    /// How many problems there are.
    pub problem_count: usize,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problem_count == 0
    }

    fn note(&mut self, problem: impl std::fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem.to_string());
        }
    }
}

/// Verifies the newest version of a dataset, the manifests and files of the older ones, and what an interrupted build left.
pub(crate) fn verify(dataset: &Dataset) -> Result<VerifyReport, ReadError> {
    let mut report = VerifyReport::default();
    let numbers = dataset.version_numbers()?;
    let (&newest, older) = numbers.split_last().ok_or_else(|| dataset.not_found(None))?;
    let mut others = Vec::new();
    for &number in older {
        match dataset.manifest(number) {
            Ok(manifest) => others.extend(manifest),
            Err(e) => report.note(e),
        }
    }
    verify_kept(dataset, &mut |problem| report.note(problem));
    let mut read = HashSet::new();
    match dataset.manifest(newest) {
        Ok(Some(manifest)) => {
            verify_version(dataset, &manifest, &mut report);
            read = manifest.segments.into_iter().flat_map(ids).collect();
        }
        Ok(None) => return Err(dataset.not_found(Some(newest))),
        Err(e) => report.note(e),
    }
    others.iter().for_each(|manifest| verify_older(dataset, manifest, &mut read, &mut report));
    Ok(report)
}

/// The ids of a segment and of its list of hidden rows.
fn ids(record: SegmentRecord) -> impl Iterator<Item = String> {
    std::iter::once(record.id).chain(record.hidden.map(|hidden| hidden.id))
}

/// Checks every byte of the files that no other version has which was `read` already.
fn verify_older(dataset: &Dataset, manifest: &Manifest, read: &mut HashSet<String>, report: &mut VerifyReport) {
    let mut found = VerifyReport::default();
    for record in &manifest.segments {
        let dir = segment_dir(dataset.dir(), &record.id);
        if read.insert(record.id.clone()) {
            verify_file(dataset, &dir.join("data.arrow"), &record.data, &mut found);
            if let Some(index) = &record.index {
                verify_file(dataset, &dir.join("index.arrow"), index, &mut found);
            }
        }
        if let Some(hidden) = record.hidden.as_ref().filter(|hidden| read.insert(hidden.id.clone())) {
            verify_file(dataset, &hidden_path(dataset.dir(), &hidden.id), &hidden.file, &mut found);
        }
    }
    // A version that was collected meanwhile has no files.
    if found.is_ok() || !matches!(dataset.manifest(manifest.version), Ok(None)) {
        report.bytes += found.bytes;
        report.problem_count += found.problem_count - found.problems.len();
        found.problems.iter().for_each(|problem| report.note(problem));
    }
}

fn verify_version(dataset: &Dataset, manifest: &Manifest, report: &mut VerifyReport) {
    report.version = manifest.version;
    let shown = manifest.segments.iter().fold(0u64, |sum, segment| sum.saturating_add(segment.live_rows()));
    if manifest.rows != shown {
        report.note(format!(
            "{}: rows is not the sum over the segments",
            dataset.manifest_path(manifest.version).display()
        ));
    }
    let before = report.problem_count;
    for record in &manifest.segments {
        let dir = segment_dir(dataset.dir(), &record.id);
        let mut sound = verify_file(dataset, &dir.join("data.arrow"), &record.data, report);
        if let Some(index) = &record.index {
            sound &= verify_file(dataset, &dir.join("index.arrow"), index, report);
        }
        if let Some(hidden) = &record.hidden {
            verify_file(dataset, &hidden_path(dataset.dir(), &hidden.id), &hidden.file, report);
        }
        match Segment::open(dataset.fs().as_ref(), dataset.dir(), record, &manifest.key, Access::Memory) {
            Err(e) => report.note(e),
            // Buffers that are not what was published say nothing more when they are read as rows.
            Ok(segment) if sound => verify_segment(&segment, manifest, report),
            Ok(_) => {}
        }
    }
    if report.problem_count == before {
        match Version::open(dataset.fs().as_ref(), dataset.clone(), manifest.clone(), None) {
            Ok(version) => verify_parts(&version, report),
            Err(e) => report.note(e),
        }
    }
}

/// Checks what segments say of each other, each of them sound by itself.
fn verify_parts(version: &Version, report: &mut VerifyReport) {
    match version.whole() {
        Ok(list) if list.rows() == version.rows() => {}
        Ok(list) => report.note(ReadError::corrupt(
            version.dataset.manifest_path(report.version),
            "member \"rows\"",
            format!("it says {}, the segments show {} rows", version.rows(), list.rows()),
        )),
        Err(e) => report.note(e),
    }
    if !version.manifest.unique {
        return;
    }
    for (i, part) in version.parts.iter().enumerate() {
        for row in part.all_rows().filter(|&row| !part.is_hidden(row)) {
            for older in &version.parts[..i] {
                let found = part.segment.with_key(row as usize, |key| older.segment.find(key, None));
                match found {
                    Some(Ok(Some(there))) if !older.is_hidden(there) => {
                        let problem = format!("key {} is there too", part.segment.key_text(row as usize));
                        report.note(older.segment.data.corrupt(format!("row {there}"), problem));
                    }
                    Some(Err(e)) => report.note(e),
                    _ => {}
                }
            }
        }
    }
}

/// Checks length, metadata, every buffer and the padding between buffers. True if all is well.
fn verify_file(dataset: &Dataset, path: &Path, record: &FileRecord, report: &mut VerifyReport) -> bool {
    let before = report.problem_count;
    let map = match dataset.fs().map(path) {
        Ok(map) => map,
        Err(e) => {
            report.note(format!("cannot map {}: {e}", path.display()));
            return false;
        }
    };
    let mut bad = |place: String, problem: String| report.note(ReadError::corrupt(path, place, problem));
    if map.len() as u64 != record.size_bytes {
        bad("its length".to_owned(), format!("expected {} bytes, found {}", record.size_bytes, map.len()));
        return false;
    }
    match metadata_checksum(&map, record) {
        Some(found) if found == record.metadata_xxh3_128 => {}
        Some(found) => bad(
            "its metadata".to_owned(),
            format!("expected XXH3-128 {:032x}, found {found:032x}", record.metadata_xxh3_128),
        ),
        None => {
            bad("its length".to_owned(), "its body lies outside the file".to_owned());
            return false;
        }
    }
    let mut end = record.body_offset;
    let body_end = record.body_offset + record.body_bytes;
    for (i, buffer) in record.buffers.iter().enumerate() {
        let stop = buffer.offset.saturating_add(buffer.length);
        if buffer.length == 0 {
            continue;
        }
        if buffer.offset < end || stop > body_end {
            bad(format!("buffer {i}"), "it overlaps another or leaves the body".to_owned());
            return false;
        }
        if let Some(at) = first_nonzero(&map[end as usize..buffer.offset as usize]) {
            bad(format!("byte {}", end + at as u64), "padding is not zero".to_owned());
        }
        let found = xxh3_64(&map[buffer.offset as usize..stop as usize]);
        if found != buffer.xxh3_64 {
            bad(format!("buffer {i}"), format!("expected XXH3-64 {:016x}, found {found:016x}", buffer.xxh3_64));
        }
        end = stop;
    }
    if let Some(at) = first_nonzero(&map[end as usize..body_end as usize]) {
        bad(format!("byte {}", end + at as u64), "padding is not zero".to_owned());
    }
    report.bytes += map.len() as u64;
    report.problem_count == before
}

fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&b| b != 0)
}

/// Checks Arrow validity, the sort order and the index of a segment whose bytes are as published.
fn verify_segment(segment: &Segment, manifest: &Manifest, report: &mut VerifyReport) {
    report.rows += segment.rows as u64;
    for position in 0..segment.columns.len() {
        match segment.data.decode_column(position) {
            Ok(array) => {
                if let Err(e) = array.to_data().validate_full() {
                    report.note(segment.data.corrupt(format!("column {position}"), e.to_string()));
                    return;
                }
            }
            Err(e) => {
                report.note(e);
                return;
            }
        }
    }
    if let Some(side) = &segment.key {
        report.keys += verify_keys(segment, side, manifest.unique, report);
        verify_index(segment, side, report);
    }
}

/// Walks the keys in order; returns how many are distinct. Each must be found at its first row.
fn verify_keys(segment: &Segment, side: &SegmentKey, unique: bool, report: &mut VerifyReport) -> u64 {
    let bad_row = |row: usize, problem: String| segment.columns[side.column].corrupt_at(&segment.data, row, problem);
    let mut distinct = 0;
    for row in 0..segment.rows {
        if segment.key_is_null(row) {
            report.note(bad_row(row, "a key is null".to_owned()));
            return distinct;
        }
        let order = match row.checked_sub(1).map(|previous| segment.compare_keys(previous, segment, row)) {
            Some(Ok(order)) => order,
            Some(Err(e)) => {
                report.note(e);
                return distinct;
            }
            None => Ordering::Less,
        };
        match order {
            Ordering::Less => {
                distinct += 1;
                match segment.with_key(row, |key| segment.find(key, None)) {
                    Some(Ok(Some(found))) if found as usize == row => {}
                    Some(Ok(found)) => report.note(side.index_file.corrupt(
                        format!("the entry of key {}", segment.key_text(row)),
                        format!("expected row {row}, found {}", found.map_or("none".to_owned(), |r| r.to_string())),
                    )),
                    Some(Err(e)) => report.note(e),
                    None => {
                        report.note(segment.lost_key(row));
                        return distinct;
                    }
                }
            }
            Ordering::Equal if !unique => {}
            Ordering::Equal => report.note(bad_row(row, format!("key {} occurs twice", segment.key_text(row)))),
            Ordering::Greater => {
                report.note(bad_row(row, format!("key {} is less than the one before", segment.key_text(row))));
            }
        }
    }
    if distinct != side.index.plan().keys {
        let problem = format!("it names {} keys, the data has {distinct}", side.index.plan().keys);
        report.note(side.index_file.corrupt("its metadata", problem));
    }
    distinct
}

/// Counts the entries: each indexed key has exactly one.
fn verify_index(segment: &Segment, side: &SegmentKey, report: &mut VerifyReport) {
    let plan = side.index.plan();
    let mut entries = 0u64;
    for b in 0..plan.total_buckets() {
        let bucket = side.index.bucket(b);
        for slot in 0..crate::index::SLOTS as u32 {
            let row = bucket.row(slot);
            if row == EMPTY_ROW {
                continue;
            }
            entries += 1;
            if row as usize >= segment.rows {
                report.note(
                    side.index_file.corrupt(format!("bucket {b}"), format!("it names row {row} of {}", segment.rows)),
                );
            }
        }
    }
    if entries != plan.keys {
        report.note(side.index_file.corrupt("its buckets", format!("expected {} entries, found {entries}", plan.keys)));
    }
    // An open range must cover every row, whatever the keys.
    match segment.rows_between(KeyBound::Open, KeyBound::Open) {
        Ok(rows) if rows == (0..segment.rows) => {}
        Ok(rows) => report.note(segment.data.corrupt("its keys", format!("an open range covers rows {rows:?}"))),
        Err(e) => report.note(e),
    }
}
