//! Damaged files: an error or a miss, never a crash, never another key's value; and `verify` tells.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field};
use pheon::{ChangeOptions, Map, PutOptions, ReadError, Store, Value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::keys::{Key, array as key_array, key_ref};
use crate::names::{parse, replace, with_checksum};
use crate::random::Random;
use crate::scratch::{Scratch, entries, numbered, put, temporary_dir, tree};
use crate::values::{array, value_types};

/// The files of a store with one dataset `m` of one version, by their path in the store.
#[derive(Clone)]
pub(crate) struct Image(BTreeMap<PathBuf, Vec<u8>>);

pub(crate) const MANIFEST: &str = "m/manifest-000001.json";

impl Image {
    pub(crate) fn of(batch: &RecordBatch, options: PutOptions) -> Self {
        let scratch = Scratch::new();
        put(&scratch.store, "m", batch, options.threads(1)).unwrap();
        let names = crate::scratch::tree(&scratch.path());
        let path = scratch.path();
        let files = names.iter().filter(|n| path.join(n).is_file() && !n.ends_with("LOCK"));
        Self(files.map(|n| (PathBuf::from(n), fs::read(path.join(n)).unwrap())).collect())
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.0.keys().find(|p| p.to_str().unwrap().ends_with(ending)).unwrap().clone()
    }

    pub(crate) fn bytes(&mut self, ending: &str) -> &mut Vec<u8> {
        let path = self.path(ending);
        self.0.get_mut(&path).unwrap()
    }

    pub(crate) fn manifest(&self) -> Json {
        serde_json::from_slice(&self.0[Path::new(MANIFEST)]).unwrap()
    }

    /// Offset and length of buffer `i` of `data` or `index`.
    fn buffer(&self, file: &str, i: usize) -> std::ops::Range<usize> {
        let buffer = &self.manifest()["segments"][0][file]["buffers"][i];
        let start = buffer["offset"].as_u64().unwrap() as usize;
        start..start + buffer["length"].as_u64().unwrap() as usize
    }

    /// Buffer `i` of `data.arrow` or `index.arrow`.
    fn buffer_mut(&mut self, file: &str, i: usize) -> &mut [u8] {
        let range = self.buffer(file, i);
        &mut self.bytes(&format!("{file}.arrow"))[range]
    }

    /// Makes all checksums right again, as if a faulty writer had written these bytes.
    pub(crate) fn forge(&mut self) {
        let mut manifest = self.manifest();
        for file in ["data", "index"] {
            if manifest["segments"][0][file].is_null() {
                continue;
            }
            let bytes = self.bytes(&format!("{file}.arrow")).clone();
            let record = &mut manifest["segments"][0][file];
            let (start, len) =
                (record["body_offset"].as_u64().unwrap() as usize, record["body_bytes"].as_u64().unwrap() as usize);
            let around = [&bytes[..start], &bytes[start + len..]].concat();
            record["metadata_xxh3_128"] = json!(format!("{:032x}", xxh3_128(&around)));
            for buffer in record["buffers"].as_array_mut().unwrap() {
                let at = buffer["offset"].as_u64().unwrap() as usize;
                let end = at + buffer["length"].as_u64().unwrap() as usize;
                buffer["xxh3_64"] = json!(format!("{:016x}", xxh3_64(&bytes[at..end])));
            }
        }
        *self.bytes(MANIFEST) = with_checksum(&manifest);
    }

    /// Writes the store to a new folder.
    pub(crate) fn write(&self) -> Written {
        let dir = temporary_dir();
        for (path, bytes) in &self.0 {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let store = Store::open(dir.path());
        Written { store, dir }
    }
}

pub(crate) struct Written {
    store: Result<Store, pheon::WriteError>,
    dir: tempfile::TempDir,
}

impl Written {
    /// Where a file of the image is.
    pub(crate) fn path(&self, image: &Image, ending: &str) -> PathBuf {
        self.dir.path().join(image.path(ending))
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn problems(&self) -> Vec<String> {
        self.store().verify("m").unwrap().problems
    }
}

#[track_caller]
fn corrupt(e: ReadError) -> String {
    assert!(matches!(e, ReadError::Corrupt { .. }), "{e:?}");
    e.to_string()
}

#[test]
fn an_undamaged_image_is_as_good_as_the_store() {
    let mut image = Image::of(&numbered(40, 0), PutOptions::map("k"));
    let members = |image: &Image| {
        let mut manifest = image.manifest();
        // The order of members, and so their checksum, is the writer's choice.
        manifest.as_object_mut().unwrap().remove("checksum");
        manifest
    };
    let before = members(&image);
    image.forge();
    assert_eq!(members(&image), before, "forging changes nothing where nothing was damaged");
    let written = image.write();
    crate::scratch::assert_numbered(&written.store().map("m").unwrap(), 40, 0);
    assert_eq!(written.problems(), [""; 0]);
}

/// Looks every key up by every way; what is found must be that key's.
fn assert_hit_miss_or_corrupt(map: &Map, n: usize) {
    let keys: Vec<String> = (0..n + 5).map(|i| format!("key-{i}")).collect();
    for key in &keys {
        match map.find(key.into()) {
            Ok(Some(row)) => match map.key_at(row) {
                Ok(Value::Str(found)) => assert_eq!(found, key),
                other => panic!("{other:?}"),
            },
            Ok(None) => {}
            Err(e) => drop(corrupt(e)),
        }
        for result in [map.floor(key.into()), map.ceiling(key.into())] {
            result.map(drop).unwrap_or_else(|e| drop(corrupt(e)));
        }
        map.prefix(key.as_bytes()).and_then(|t| t.to_batch()).map(drop).unwrap_or_else(|e| drop(corrupt(e)));
        map.range(..pheon::KeyRef::from(key)).and_then(|t| t.to_batch()).map(drop).unwrap_or_else(|e| drop(corrupt(e)));
    }
    let keys = StringArray::from(keys);
    match map.find_many(&keys, None) {
        Ok(rows) => {
            for (i, row) in rows.iter().enumerate() {
                if let Some(row) = row {
                    assert!(matches!(map.key_at(row), Ok(Value::Str(found)) if found == keys.value(i)));
                }
            }
        }
        Err(e) => drop(corrupt(e)),
    }
    map.get_many(&keys).map(drop).unwrap_or_else(|e| drop(corrupt(e)));
    map.get_many_columns(&keys).map(drop).unwrap_or_else(|e| drop(corrupt(e)));
}

#[test]
fn index_rows_that_are_wrong() {
    const ROWS: usize = 45;
    let good = Image::of(&numbered(ROWS, 0), PutOptions::map("k"));
    type Change = fn(u32, usize) -> u32;
    let change: [(&str, Change); 6] = [
        ("one past the end", |row, _| if row == u32::MAX { row } else { ROWS as u32 }),
        ("far beyond", |row, _| if row == u32::MAX { row } else { u32::MAX - 1 }),
        ("empty", |_, _| u32::MAX),
        ("another row", |row, _| if row == u32::MAX { row } else { (row + 1) % ROWS as u32 }),
        ("all the first", |_, _| 0),
        ("anything", |_, i| (i as u32).wrapping_mul(0x9E37_79B9)),
    ];
    for (what, change) in change {
        let mut image = good.clone();
        for (i, bucket) in image.buffer_mut("index", 1).chunks_exact_mut(64).enumerate() {
            for slot in 0..10 {
                let at = 24 + 4 * slot;
                let row = u32::from_le_bytes(bucket[at..at + 4].try_into().unwrap());
                bucket[at..at + 4].copy_from_slice(&change(row, i * 10 + slot).to_le_bytes());
            }
        }
        let written = image.write();
        let map = written.store().map("m").unwrap();
        assert_hit_miss_or_corrupt(&map, ROWS);
        match map.find("key-7".into()) {
            Ok(found) => assert_eq!(found, None, "{what}"),
            Err(e) => assert!(corrupt(e).contains("index.arrow"), "{what}"),
        }
        // Many at once are answered, or refused, as one is.
        let many = map.find_many(&StringArray::from(vec!["key-7"]), None);
        assert_eq!(many.is_err(), map.find("key-7".into()).is_err(), "{what}");
        assert!(written.problems()[0].contains("XXH3-64"), "{what}");
        image.forge();
        assert!(!image.write().problems().is_empty(), "{what}");
    }
}

/// The last key becomes one that comes before: what lies between is of other keys.
#[test]
fn a_damaged_key_hands_out_no_row_of_another_key() {
    let keys = [1, 2, 2, 5, 6];
    let rows = entries(Arc::new(Int64Array::from_iter_values(keys)), Arc::new(Int64Array::from_iter_values(0..5)));
    for damaged in [1, 2, 5, 7] {
        let mut image = Image::of(&rows, PutOptions::table(["k"]));
        image.buffer_mut("data", 1)[32..40].copy_from_slice(&i64::to_le_bytes(damaged));
        let written = image.write();
        let table = written.store().table("m").unwrap();
        for key in [1, 2, 5] {
            let found = table.rows(key.into()).unwrap().to_batch().unwrap();
            let values: Vec<i64> = found.column(1).as_primitive::<Int64Type>().values().to_vec();
            let sound: Vec<i64> = (0..4).filter(|&row| keys[row as usize] == key).collect();
            let with_last = [&sound[..], &[4]].concat();
            assert!(values == sound || damaged == key && values == with_last, "{damaged}: {key}: {values:?}");
        }
        assert!(!written.problems().is_empty());
    }
}

#[test]
fn index_fingerprints_and_overflow_bits_that_are_wrong() {
    const ROWS: usize = 200;
    let good = Image::of(&numbered(ROWS, 0), PutOptions::map("k"));
    for (range, byte) in
        [(0..20, 0x00), (0..20, 0xFF), (20..24, 0x00), (20..24, 0xFF), (0..24, 0x5A), (0..64, 0x00), (0..64, 0xFF)]
    {
        let mut image = good.clone();
        for bucket in image.buffer_mut("index", 1).chunks_exact_mut(64) {
            bucket[range.clone()].fill(byte);
        }
        let written = image.write();
        assert_hit_miss_or_corrupt(&written.store().map("m").unwrap(), ROWS);
        assert!(!written.problems().is_empty(), "{range:?} {byte}");
    }
}

#[test]
fn key_and_value_offsets_that_are_wrong() {
    const ROWS: usize = 30;
    let texts: Vec<String> = (0..ROWS).map(|i| format!("value {i}")).collect();
    let keys: Vec<String> = (0..ROWS).map(|i| format!("key-{i}")).collect();
    let batch = entries(Arc::new(StringArray::from(keys)), Arc::new(StringArray::from(texts)));
    let good = Image::of(&batch, PutOptions::map("k"));
    // Buffers: validity, offsets, bytes of `k`, then of `v`.
    for buffer in [1, 4] {
        for bad in [-1, i64::MIN, i64::MAX, 1 << 40, 100_000] {
            for row in [0, 1, 15, ROWS] {
                let mut image = good.clone();
                image.buffer_mut("data", buffer)[8 * row..8 * row + 8].copy_from_slice(&bad.to_le_bytes());
                let written = image.write();
                let map = written.store().map("m").unwrap();
                assert_hit_miss_or_corrupt(&map, ROWS);
                let column = usize::from(buffer == 4);
                let e = corrupt(map.table().column(column).unwrap_err());
                assert!(e.contains("data.arrow") && e.contains("row "), "{e}");
                corrupt(map.table().to_batch().unwrap_err());
                let touched = row.min(ROWS - 1) as u64;
                let value = if column == 0 { map.key_at(touched) } else { map.value_at(touched, 0) };
                corrupt(value.unwrap_err());
                // Rows away from the damage are as good as ever.
                let away = (row + 10) % (ROWS - 2) + 1;
                if away.abs_diff(row) > 1 {
                    map.table().slice(away, 1).column(column).unwrap();
                    assert!(matches!(map.value_at(away as u64, 0).unwrap(), Value::Str(v) if v.starts_with("value ")));
                }
                assert!(!written.problems().is_empty());
                image.forge();
                assert!(!image.write().problems().is_empty(), "{buffer} {bad} {row}");
            }
        }
    }
}

/// Structs of plain fields are read row by row: what is wrong with one does not concern the others, nor does it cost anything.
#[test]
fn text_in_a_struct_that_is_not_utf_8() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["first", "zweitér", "third"]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true]));
    let fields = [("text", &texts), ("flag", &flags)]
        .map(|(name, array)| (Arc::new(Field::new(name, array.data_type().clone(), true)), array.clone()));
    let values = StructArray::from(fields.to_vec());
    let batch = entries(Arc::new(Int32Array::from(vec![1, 2, 3])), Arc::new(values));
    let mut image = Image::of(&batch, PutOptions::map("k"));
    let bytes = image.buffer_mut("data", 5);
    assert_eq!(&bytes[5..13], "zweitér".as_bytes());
    bytes[6] = 0xFF;
    let written = image.write();
    let map = written.store().map("m").unwrap();
    for (key, text) in [(1, "first"), (3, "third")] {
        let Some(Value::Array(found)) = map.get(key).unwrap() else { panic!("{key}") };
        assert_eq!(found.as_struct().column(0).as_string::<i64>().value(0), text);
    }
    let e = corrupt(map.get(2).unwrap_err());
    assert!(e.contains("row 1") && e.contains("\"v.text\"") && e.contains("UTF-8"), "{e}");
    let found = map.get_many(&Int32Array::from(vec![3, 9, 1])).unwrap();
    assert_eq!(found.as_struct().column(0).as_string::<i64>().value(2), "first");
    assert!(found.is_null(1) && found.null_count() == 1);
    assert!(corrupt(map.get_many(&Int32Array::from(vec![1, 2])).unwrap_err()).contains("\"v.text\""));
    corrupt(map.table().column(1).unwrap_err());
    assert!(written.problems()[0].contains("buffer 5"), "{:?}", written.problems());
    image.forge();
    assert!(!image.write().problems().is_empty());
    // A field whose offsets lead outside.
    let mut image = Image::of(&batch, PutOptions::map("k"));
    image.buffer_mut("data", 4)[8..16].copy_from_slice(&1_000_000i64.to_le_bytes());
    let written = image.write();
    let map = written.store().map("m").unwrap();
    corrupt(map.get(1).unwrap_err());
    corrupt(map.get(2).unwrap_err());
    assert!(map.get(3).unwrap().is_some());
    corrupt(map.get_many(&Int32Array::from(vec![2])).unwrap_err());
}

/// A damaged bit that says which values are there concerns its own row alone.
#[test]
fn validity_of_a_struct_that_is_wrong() {
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(10..26));
    let fields = vec![Arc::new(Field::new("number", DataType::Int32, true))];
    let nulls = NullBuffer::from_iter((0..16).map(|i| i != 7));
    let values = StructArray::new(fields.into(), vec![numbers], Some(nulls));
    let batch = entries(Arc::new(Int32Array::from_iter_values(0..16)), Arc::new(values));
    let mut image = Image::of(&batch, PutOptions::map("k"));
    // Buffers: validity and values of `k`, then validity of `v`.
    let bits = image.buffer_mut("data", 2);
    assert_eq!(bits[..2], [0b0111_1111, 0xFF]);
    bits[0] ^= 0b1000_0100;
    let written = image.write();
    let map = written.store().map("m").unwrap();
    let there = |row: i32| row != 2;
    let number = |array: &StructArray, at: usize| array.column(0).as_primitive::<Int32Type>().value(at);
    for row in (0..16).filter(|&row| row != 7 && there(row)) {
        let Some(Value::Array(found)) = map.get(row).unwrap() else { panic!("{row}") };
        assert_eq!(number(found.as_struct(), 0), 10 + row);
    }
    assert!(matches!(map.get(2).unwrap(), Some(Value::Null)));
    let found = map.get_many(&Int32Array::from_iter_values((0..17).rev())).unwrap();
    let found = found.as_struct();
    for row in (0..16).filter(|&row| row != 7) {
        let at = 16 - row as usize;
        assert_eq!(found.is_valid(at), there(row), "{row}");
        assert!(!there(row) || number(found, at) == 10 + row, "{row}");
    }
    assert!(found.is_null(0), "a miss");
    assert!(written.problems()[0].contains("buffer 2"), "{:?}", written.problems());
}

#[test]
fn text_that_is_not_utf_8() {
    let keys = Int32Array::from(vec![1, 2, 3]);
    let texts = StringArray::from(vec!["first", "zweitér", "third"]);
    let batch = entries(Arc::new(keys), Arc::new(texts));
    let mut image = Image::of(&batch, PutOptions::map("k"));
    let bytes = image.buffer_mut("data", 4);
    assert_eq!(&bytes[5..13], "zweitér".as_bytes());
    bytes[6] = 0xFF;
    let written = image.write();
    let map = written.store().map("m").unwrap();
    assert!(matches!(map.get(1).unwrap(), Some(Value::Str("first"))));
    assert!(matches!(map.get(3).unwrap(), Some(Value::Str("third"))));
    let e = corrupt(map.get(2).unwrap_err());
    assert!(e.contains("row 1") && e.contains("\"v\"") && e.contains("UTF-8"), "{e}");
    assert!(corrupt(map.table().column(1).unwrap_err()).contains("row 1"));
    corrupt(map.row(1).unwrap_err());
    assert_eq!(map.row(2).unwrap().num_rows(), 1);
    assert_eq!(map.get_many(&Int32Array::from(vec![3, 1, 9])).unwrap().null_count(), 1);
    assert!(corrupt(map.get_many(&Int32Array::from(vec![1, 2])).unwrap_err()).contains("\"v\""));
    assert!(written.problems()[0].contains("buffer 4"), "{:?}", written.problems());
    image.forge();
    assert!(image.write().problems()[0].contains("UTF-8") || !image.write().problems().is_empty());
    // An offset inside a character.
    let mut image = Image::of(&batch, PutOptions::map("k"));
    image.buffer_mut("data", 3)[8..16].copy_from_slice(&11i64.to_le_bytes());
    let written = image.write();
    let map = written.store().map("m").unwrap();
    corrupt(map.get(1).unwrap_err());
    corrupt(map.get(2).unwrap_err());
    corrupt(map.table().column(1).unwrap_err());
}

#[test]
fn every_byte_outside_the_buffers_is_checked_when_a_file_is_opened() {
    let good = Image::of(&numbered(30, 0), PutOptions::map("k"));
    for file in ["data", "index"] {
        let record = &good.manifest()["segments"][0][file];
        let (start, len) =
            (record["body_offset"].as_u64().unwrap() as usize, record["body_bytes"].as_u64().unwrap() as usize);
        let size = record["size_bytes"].as_u64().unwrap() as usize;
        let written = good.write();
        let path = written.dir.path().join(good.path(&format!("{file}.arrow")));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), size);
        for at in (0..start).chain(start + len..size) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            replace(&path, &bad);
            let e = corrupt(written.store().map("m").unwrap_err());
            assert!(e.contains(&format!("{file}.arrow")), "{e}");
        }
        for len in [0, 1, 7, 8, 9, 10, 17, size / 2, start, start + len, size - 11, size - 1] {
            replace(&path, &bytes[..len]);
            let e = corrupt(written.store().map("m").unwrap_err());
            assert!(e.contains(&format!("expected {size} bytes, found {len}")), "{e}");
            assert!(!written.problems().is_empty());
        }
        replace(&path, &[&bytes[..], b"more"].concat());
        corrupt(written.store().map("m").unwrap_err());
        assert!(!written.problems().is_empty());
        fs::remove_file(&path).unwrap();
        assert!(corrupt(written.store().map("m").unwrap_err()).contains("missing"));
        assert!(!written.problems().is_empty());
        fs::create_dir(&path).unwrap();
        assert!(written.store().map("m").is_err());
        assert!(!written.problems().is_empty());
    }
}

#[test]
fn files_of_other_versions_do_not_fit() {
    let mut image = Image::of(&numbered(30, 0), PutOptions::map("k"));
    let data = image.bytes("data.arrow").clone();
    let index = std::mem::replace(image.bytes("index.arrow"), data);
    *image.bytes("data.arrow") = index;
    corrupt(image.write().store().map("m").unwrap_err());
    let other = Image::of(&numbered(30, 5), PutOptions::map("k")).bytes("data.arrow").clone();
    let mut image = Image::of(&numbered(30, 0), PutOptions::map("k"));
    *image.bytes("data.arrow") = other;
    // Same schema, same lengths: opening cannot tell, `verify` can.
    let written = image.write();
    assert!(written.store().map("m").is_err() || !written.problems().is_empty());
    assert!(!written.problems().is_empty());
}

#[test]
fn put_over_a_damaged_dataset_makes_it_whole() {
    for ending in ["data.arrow", "index.arrow", MANIFEST] {
        let mut image = Image::of(&numbered(30, 0), PutOptions::map("k"));
        image.bytes(ending)[20] ^= 0xFF;
        let written = image.write();
        let store = written.store();
        corrupt(store.map("m").unwrap_err());
        if ending == MANIFEST {
            let e = store.versions("m").unwrap_err();
            corrupt(e);
        }
        let damaged = store.rollback("m", 1).unwrap_err();
        assert!(matches!(damaged, pheon::WriteError::Read(ReadError::Corrupt { .. })), "{damaged}");
        assert_eq!(put(store, "m", &numbered(20, 7), PutOptions::map("k")).unwrap(), 2);
        crate::scratch::assert_numbered(&store.map("m").unwrap(), 20, 7);
        store.gc("m", 1).unwrap();
        crate::scratch::assert_tidy(&written.dir.path().join("m"), 1, 1);
        assert_eq!(written.problems(), [""; 0]);
        crate::scratch::assert_numbered(&store.map("m").unwrap(), 20, 7);
    }
}

/// Older versions can be opened, and be made the newest one.
#[test]
fn verify_reads_the_files_of_older_versions() {
    let scratch = crate::scratch::Scratch::new();
    scratch.put("m", &numbered(30, 0));
    let gone = StringArray::from(vec!["key-1", "key-2"]);
    scratch.store.delete("m", &gone, ChangeOptions::default().compact(false)).unwrap();
    scratch.put("m", &numbered(20, 7));
    let dir = scratch.path().join("m");
    let older: Vec<_> = tree(&dir)
        .into_iter()
        .map(|name| dir.join(name))
        .filter(|path| path.extension().is_some_and(|extension| extension == "arrow"))
        .collect();
    // Two segments with an index each, and a list of hidden rows.
    assert_eq!(older.len(), 5, "{older:?}");
    let sound = scratch.store.verify("m").unwrap();
    let bytes: u64 = older.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert_eq!((sound.problem_count, sound.version, sound.rows, sound.bytes), (0, 3, 20, bytes));
    for path in older {
        let good = std::fs::read(&path).unwrap();
        for at in [9, good.len() / 2, good.len() - 20] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            let report = scratch.store.verify("m").unwrap();
            assert!(report.problems.iter().any(|p| p.contains(path.to_str().unwrap())), "{path:?} {at}: {report:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!scratch.store.verify("m").unwrap().is_ok(), "{path:?}");
        std::fs::write(&path, good).unwrap();
    }
    assert!(scratch.store.verify("m").unwrap().is_ok());
    scratch.store.gc("m", 1).unwrap();
    assert!(scratch.store.verify("m").unwrap().is_ok());
}

#[test]
fn verify_finds_what_a_faulty_writer_would_write() {
    let batch = entries(Arc::new(Int64Array::from_iter_values(0..50)), Arc::new(Int64Array::from_iter_values(0..50)));
    let good = Image::of(&batch, PutOptions::map("k"));
    let check = |what: &str, says: &str, damage: &dyn Fn(&mut Image)| {
        let mut image = good.clone();
        damage(&mut image);
        image.forge();
        let problems = image.write().problems();
        assert!(problems.iter().any(|p| p.contains(says)), "{what}: {problems:?}");
    };
    let set = |image: &mut Image, row: usize, key: i64| {
        image.buffer_mut("data", 1)[8 * row..8 * row + 8].copy_from_slice(&key.to_le_bytes());
    };
    check("keys out of order", "less than the one before", &|i| {
        set(i, 10, 11);
        set(i, 11, 10);
    });
    check("a key twice", "occurs twice", &|i| set(i, 10, 9));
    check("a key that is not indexed", "found none", &|i| set(i, 49, 1000));
    check("an entry too many", "expected 50 entries, found 51", &|i| {
        let buckets = i.buffer_mut("index", 1);
        let free = buckets.chunks_exact(64).position(|b| b[60..] == [0xFF; 4]).unwrap();
        buckets[64 * free + 60..64 * free + 64].copy_from_slice(&3u32.to_le_bytes());
    });
    check("an entry too few", "expected 50 entries, found 49", &|i| {
        let buckets = i.buffer_mut("index", 1);
        buckets[24..28].fill(0xFF);
    });
    let nonzero = |image: &mut Image, file: &str| {
        let end = image.buffer(file, 1).end;
        let body = image.manifest()["segments"][0][file].clone();
        let body_end = (body["body_offset"].as_u64().unwrap() + body["body_bytes"].as_u64().unwrap()) as usize;
        assert!(end < body_end, "{file} has no padding there");
        image.bytes(&format!("{file}.arrow"))[end] = 1;
    };
    check("padding", "padding is not zero", &|i| nonzero(i, "data"));
}

/// Uses everything that a damaged store may still offer. What it answers must be about the key that was asked for.
fn exercise(store: &Store, keys: &[Key], data_type: &DataType) {
    let _ = (store.versions("m"), store.datasets(), store.verify("m"));
    if let Ok(table) = store.table("m") {
        for part in [table.clone(), table.slice(3, 7)] {
            for column in 0..part.schema().fields().len() {
                if let Ok(array) = part.column(column) {
                    array.to_data().validate_full().unwrap();
                }
                for row in 0..part.num_rows() {
                    let _ = part.value(row, column);
                }
            }
            let _ = (part.to_batch(), part.nbytes());
        }
    }
    let Ok(map) = store.map("m") else { return };
    let asked = key_array(data_type, &keys.iter().cloned().map(Some).collect::<Vec<_>>());
    if let Ok(batch) = map.get_many_columns(&asked) {
        batch.columns().iter().for_each(|c| c.to_data().validate_full().unwrap());
    }
    let many = map.find_many(&asked, None);
    for (i, key) in keys.iter().enumerate() {
        let k = key_ref(key, data_type);
        let found = [map.find(k).ok().flatten(), many.as_ref().ok().filter(|m| m.is_valid(i)).map(|m| m.value(i))];
        for row in found.into_iter().flatten() {
            assert!((row as usize) < map.len(), "row {row}");
            match (map.key_at(row), key) {
                (Ok(Value::Bytes(b)), Key::Bytes(k)) => assert_eq!(b, k),
                (Ok(Value::Str(s)), Key::Bytes(k)) => assert_eq!(s.as_bytes(), k),
                (Ok(Value::Bool(b)), Key::Number(n)) => assert_eq!(i128::from(b), n.as_i128()),
                (Ok(Value::Int(v)), Key::Number(n)) => assert_eq!(i128::from(v), n.as_i128()),
                (Ok(Value::Array(_)), Key::Number(_)) => {}
                (other, key) => panic!("{other:?} for {key:?}"),
            }
        }
        let _ = (map.floor(k), map.ceiling(k), map.range(k..).and_then(|t| t.to_batch()));
        let _ = map.prefix(b"k").and_then(|t| t.to_batch());
    }
}

/// A small store with this key type and value columns of every kind, and its keys.
fn varied(data_type: &DataType, rows: usize) -> (Image, Vec<Key>) {
    let mut random = Random::new(11);
    let number = |i: usize| Key::Number(arrow_buffer::i256::from_i128(i as i128 * 3 - 20));
    let mut keys: Vec<Key> = (0..rows)
        .map(|i| match data_type {
            DataType::Utf8 => Key::Bytes(format!("key é {i}").into_bytes()),
            DataType::FixedSizeBinary(_) => Key::Bytes(vec![i as u8, 7]),
            DataType::Boolean => Key::Number(arrow_buffer::i256::from_i128(i as i128 % 2)),
            _ => number(i),
        })
        .collect();
    if *data_type == DataType::Boolean {
        keys.truncate(1);
    }
    let n = keys.len();
    let mut columns: Vec<(String, ArrayRef, bool)> =
        vec![("k".to_owned(), key_array(data_type, &keys.iter().cloned().map(Some).collect::<Vec<_>>()), true)];
    for (i, t) in value_types().iter().enumerate() {
        columns.push((format!("c{i}"), array(t, n, i % 3 != 0, &mut random), true));
    }
    let image = Image::of(&RecordBatch::try_from_iter_with_nullable(columns).unwrap(), PutOptions::map("k"));
    // Keys that are not there, too.
    let missing = if *data_type == DataType::Boolean { vec![Key::Number(arrow_buffer::i256::ONE)] } else { Vec::new() };
    keys.extend(missing);
    (image, keys)
}

/// Overwrites bytes of `bytes` as `damage` says; true if that changed any.
fn apply(
    bytes: &mut Vec<u8>,
    damage: &[(prop::sample::Index, u8)],
    cut: Option<prop::sample::Index>,
    within: std::ops::Range<usize>,
) -> bool {
    let before = bytes.clone();
    for (at, byte) in damage {
        if !within.is_empty() {
            bytes[within.start + at.index(within.len())] = *byte;
        }
    }
    if let Some(cut) = cut {
        let len = cut.index(bytes.len());
        bytes.truncate(len);
    }
    *bytes != before
}

/// Runs `attempt`; a panic in it becomes a failed case that can be shrunk.
pub(crate) fn without_panic(attempt: impl FnOnce()) -> Result<(), TestCaseError> {
    catch_unwind(AssertUnwindSafe(attempt)).map_err(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        TestCaseError::fail(format!("panicked: {}", text.unwrap_or_default()))
    })
}

fn check_random_damage(data_type: &DataType, cases: u32) {
    let (good, keys) = varied(data_type, 24);
    let byte = prop_oneof![Just(0u8), Just(0xFF), Just(0x80), any::<u8>()];
    let input = (
        0..good.0.len(),
        proptest::collection::vec((any::<prop::sample::Index>(), byte), 1..12),
        proptest::option::weighted(0.1, any::<prop::sample::Index>()),
    );
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&input, |(file, damage, cut)| {
        let mut image = good.clone();
        let bytes = image.0.values_mut().nth(file).unwrap();
        let all = 0..bytes.len();
        let changed = apply(bytes, &damage, cut, all);
        let written = image.write();
        without_panic(|| {
            let Ok(store) = &written.store else { return };
            exercise(store, &keys, data_type);
            assert_eq!(store.verify("m").unwrap().is_ok(), !changed, "verify");
        })
    });
    if let Err(e) = result {
        panic!("{data_type}: {e}");
    }
}

#[test]
fn random_damage_is_seen_and_never_panics() {
    for data_type in
        [DataType::Utf8, DataType::Int16, DataType::Boolean, DataType::FixedSizeBinary(2), DataType::Decimal128(20, 2)]
    {
        check_random_damage(&data_type, 120);
    }
}

/// Damage inside the buffers with checksums that fit: nothing warns the reader, so every use must check for itself.
fn check_forged_damage(data_type: &DataType, cases: u32) {
    let (good, keys) = varied(data_type, 24);
    let byte = prop_oneof![Just(0u8), Just(0xFF), Just(0x80), Just(0x7F), any::<u8>()];
    let input = (
        prop_oneof![4 => Just("data"), 1 => Just("index")],
        proptest::collection::vec((any::<prop::sample::Index>(), byte), 1..60),
    );
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&input, |(file, damage)| {
        let mut image = good.clone();
        let record = &image.manifest()["segments"][0][file];
        let start = record["body_offset"].as_u64().unwrap() as usize;
        let body = start..start + record["body_bytes"].as_u64().unwrap() as usize;
        apply(image.bytes(&format!("{file}.arrow")), &damage, None, body);
        image.forge();
        let written = image.write();
        without_panic(|| exercise(written.store(), &keys, data_type))
    });
    if let Err(e) = result {
        panic!("{data_type}: {e}");
    }
}

#[test]
fn forged_damage_never_panics() {
    for data_type in
        [DataType::Utf8, DataType::Int16, DataType::Boolean, DataType::FixedSizeBinary(2), DataType::Decimal128(20, 2)]
    {
        check_forged_damage(&data_type, 120);
    }
}

/// The last byte of a bit-packed key column has bits that belong to no row.
#[test]
fn bits_beyond_the_last_row_are_no_keys() {
    let keys = BooleanArray::from(vec![true]);
    let image = Image::of(&entries(Arc::new(keys), Arc::new(BooleanArray::from(vec![true]))), PutOptions::map("k"));
    for row in 1..=9u32 {
        let mut image = image.clone();
        let hash = pheon::KeyRef::from(false).hash(0);
        let bucket = image.buffer_mut("index", 1);
        bucket[..2].copy_from_slice(&(hash as u16).to_le_bytes());
        bucket[24..28].copy_from_slice(&row.to_le_bytes());
        let written = image.write();
        let map = written.store().map("m").unwrap();
        corrupt(map.find(false.into()).unwrap_err());
        corrupt(map.get_many(&BooleanArray::from(vec![false])).unwrap_err());
        corrupt(map.get_many_columns(&BooleanArray::from(vec![false])).unwrap_err());
    }
}

#[test]
fn the_example_of_a_manifest_is_what_forging_assumes() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(3, 0));
    let json = parse(&scratch.path().join(MANIFEST));
    assert_eq!(json["segments"][0]["data"]["buffers"].as_array().unwrap().len(), 5);
    assert_eq!(json["segments"][0]["index"]["buffers"].as_array().unwrap().len(), 2);
}
