//! Whole builds, compared with a slow, obvious oracle; files are read back with arrow-ipc's own reader.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::*;
use arrow_buffer::Buffer;
use arrow_ipc::reader::FileReader;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use pheon_os::fs::FileSystem;
use proptest::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::cells::{Cells, FromColumn, with_cells};
use super::dictionary::Dictionaries;
use super::normalise::{stored_schema, to_shape};
use super::options::{OnDuplicate, PutOptions};
use super::segment::SegmentBuilder;
use super::tuning::Tuning;
use crate::error::WriteError;
use crate::index::{Index, IndexPlan, fingerprint};
use crate::key::KeyType;
use crate::manifest::{FileRecord, SegmentRecord};

mod composite;
mod parts;
mod types;

/// Sizes that make a few hundred rows spill into many runs that need several passes.
pub(super) fn tiny(tuning: &mut Tuning) {
    tuning.buffer_bytes = 4000;
    tuning.piece_rows = 13;
    tuning.chunk_rows = 7;
    tuning.spill_block_bytes = 400;
    tuning.fan_in = 3;
}

pub(super) struct Built {
    pub(super) dir: tempfile::TempDir,
    pub(super) record: SegmentRecord,
    pub(super) batch: RecordBatch,
}

pub(super) fn try_build(
    fs: Arc<dyn FileSystem>,
    dir: &Path,
    schema: SchemaRef,
    batches: &[RecordBatch],
    options: &PutOptions,
    tune: &dyn Fn(&mut Tuning),
) -> Result<SegmentRecord, WriteError> {
    let mut builder = SegmentBuilder::new(fs, dir.into(), schema, options)?;
    tune(builder.tuning_mut());
    batches.iter().try_for_each(|b| builder.write(b))?;
    builder.finish()
}

pub(super) fn build(batches: &[RecordBatch], options: &PutOptions, tune: &dyn Fn(&mut Tuning)) -> Built {
    let dir = tempfile::tempdir().unwrap();
    let schema = batches[0].schema();
    let record = try_build(pheon_os::fs::real(), dir.path(), schema, batches, options, tune).unwrap();
    let batch = read(&dir.path().join("data.arrow"));
    check_file(&dir.path().join("data.arrow"), &record.data);
    let mut names: Vec<_> = dir.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    if let Some(index) = &record.index {
        check_file(&dir.path().join("index.arrow"), index);
        assert_eq!(names, ["data.arrow", "index.arrow"]);
    } else {
        assert_eq!(names, ["data.arrow"]);
    }
    assert_eq!(record.rows, batch.num_rows() as u64);
    parts::check_same(batches, options, tune, &record, &batch);
    Built { dir, record, batch }
}

pub(super) fn read(path: &Path) -> RecordBatch {
    let reader = FileReader::try_new(File::open(path).unwrap(), None).unwrap();
    assert_eq!(reader.num_batches(), 1);
    let batches: Vec<_> = reader.map(|b| b.unwrap()).collect();
    batches.into_iter().next().unwrap()
}

/// Everything that docs/format.md says about a file and its record.
fn check_file(path: &Path, record: &FileRecord) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len() as u64, record.size_bytes);
    assert_eq!(record.body_offset % 64, 0);
    let body = record.body_offset as usize..(record.body_offset + record.body_bytes) as usize;
    let mut metadata = Xxh3::new();
    metadata.update(&bytes[..body.start]);
    metadata.update(&bytes[body.end..]);
    assert_eq!(metadata.digest128(), record.metadata_xxh3_128);
    let mut at = body.start;
    for buffer in &record.buffers {
        let (from, to) = (buffer.offset as usize, (buffer.offset + buffer.length) as usize);
        assert!(from >= at && to <= body.end, "buffers ascend within the body");
        assert_eq!(from % if buffer.length >= 2 << 20 { 2 << 20 } else { 64 }, 0);
        assert_eq!(xxh3_64(&bytes[from..to]), buffer.xxh3_64);
        assert!(bytes[at..from].iter().all(|&b| b == 0), "gaps are zero");
        at = to;
    }
    assert!(bytes[at..body.end].iter().all(|&b| b == 0), "gaps are zero");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o440);
}

/// Every distinct key of the column is found in the index at its first row, and the index holds no other entry.
fn check_index(built: &Built, column: usize, key: KeyType) {
    let file = read(&built.dir.path().join("index.arrow"));
    let plan = IndexPlan::from_metadata(file.schema().metadata()).unwrap();
    let buckets = file.column(0).as_fixed_size_binary();
    let index = Index::new(Buffer::from(buckets.value_data()), plan).unwrap();
    let shape = to_shape(built.batch.column(column), &mut Dictionaries::new(&mut [])).unwrap();
    let mut keys = 0;
    with_cells!(key, C => {
        let cells = C::from_column(&shape, key);
        for row in 0..built.batch.num_rows() {
            if row > 0 && cells.compare(row, &cells, row - 1, 0).is_eq() {
                continue;
            }
            keys += 1;
            let h = cells.key(row).hash(plan.seed);
            let primary = index.primary(h);
            let places = [primary, index.secondary(h, primary)];
            let found = places.iter().any(|&b| {
                let bucket = index.bucket(b);
                (0..10).any(|slot| bucket.matches(fingerprint(h)) >> slot & 1 == 1 && bucket.row(slot) == row as u32)
            });
            assert!(found, "row {row} is not in the index");
        }
    });
    assert_eq!(plan.keys, keys);
    let entries = (0..plan.total_buckets()).flat_map(|b| (0..10).map(move |slot| (b, slot)));
    assert_eq!(entries.filter(|&(b, slot)| index.bucket(b).row(slot) != u32::MAX).count() as u64, keys);
}

/// The input with a last column that numbers its rows.
pub(super) fn numbered(name: &str, keys: &ArrayRef) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..keys.len() as u64));
    let schema =
        Schema::new(vec![Field::new(name, keys.data_type().clone(), true), Field::new("row", DataType::UInt64, true)]);
    RecordBatch::try_new(Arc::new(schema), vec![keys.clone(), numbers]).unwrap()
}

/// Input rows in the order in which they must be stored, or the numbers of two rows with one key.
fn oracle(keys: &ArrayRef, key: KeyType, keep: Option<OnDuplicate>) -> Result<Vec<u32>, ()> {
    let shape = to_shape(keys, &mut Dictionaries::new(&mut [])).unwrap();
    with_cells!(key, C => {
        let cells = C::from_column(&shape, key);
        struct Of<'a, C>(&'a C, usize, KeyType);
        impl<C: Cells> PartialEq for Of<'_, C> { fn eq(&self, o: &Self) -> bool { self.cmp(o).is_eq() } }
        impl<C: Cells> Eq for Of<'_, C> {}
        impl<C: Cells> PartialOrd for Of<'_, C> { fn partial_cmp(&self, o: &Self) -> Option<std::cmp::Ordering> { Some(self.cmp(o)) } }
        impl<C: Cells> Ord for Of<'_, C> {
            fn cmp(&self, o: &Self) -> std::cmp::Ordering { self.2.compare(self.0.key(self.1), o.0.key(o.1)) }
        }
        let mut map: BTreeMap<Of<'_, C>, Vec<u32>> = BTreeMap::new();
        for row in 0..keys.len() {
            map.entry(Of(&cells, row, key)).or_default().push(row as u32);
        }
        let mut rows = Vec::new();
        for of in map.into_values() {
            match keep {
                None => rows.extend(of),
                Some(OnDuplicate::First) => rows.push(of[0]),
                Some(OnDuplicate::Last) => rows.push(of[of.len() - 1]),
                Some(OnDuplicate::Error) if of.len() > 1 => return Err(()),
                Some(OnDuplicate::Error) => rows.push(of[0]),
            }
        }
        Ok(rows)
    })
}

/// Builds in every mode, in memory and with tiny budgets, and compares with the oracle.
fn check_keys(keys: &ArrayRef, cuts: usize, threads: usize) {
    let whole = numbered("k", keys);
    let stored = stored_schema(&whole.schema()).unwrap();
    let key = KeyType::of(stored.field(0).data_type()).unwrap();
    let pieces: Vec<RecordBatch> = (0..whole.num_rows())
        .step_by(cuts)
        .map(|at| whole.slice(at, cuts.min(whole.num_rows() - at)))
        .chain([whole.slice(0, 0)])
        .collect();
    for keep in [None, Some(OnDuplicate::First), Some(OnDuplicate::Last), Some(OnDuplicate::Error)] {
        let options = match keep {
            None => PutOptions::table(["k"]),
            Some(on) => PutOptions::map("k").on_duplicate(on),
        };
        let options = options.threads(threads);
        let want = oracle(keys, key, keep);
        for tune in [&(|_: &mut Tuning| {}) as &dyn Fn(&mut Tuning), &tiny] {
            let Ok(want) = &want else {
                let dir = tempfile::tempdir().unwrap();
                let fs = pheon_os::fs::real();
                let e = try_build(fs, dir.path(), whole.schema(), &pieces, &options, tune).unwrap_err();
                let WriteError::DuplicateKey { rows: (a, b), key: printed, dataset, .. } = e else { panic!("{e}") };
                assert!(a < b && dataset.is_empty(), "{a} {b}");
                let shape = to_shape(keys, &mut Dictionaries::new(&mut [])).unwrap();
                with_cells!(key, C => {
                    let cells = C::from_column(&shape, key);
                    assert!(cells.compare(a as usize, &cells, b as usize, 0).is_eq());
                    assert_eq!(cells.key(a as usize).to_string(), printed);
                });
                let left: Vec<_> = dir.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
                assert!(left.iter().all(|n| n == "data.arrow" || n == "index.arrow"), "{left:?}");
                continue;
            };
            let built = build(&pieces, &options, tune);
            let got: Vec<u32> =
                built.batch.column(1).as_primitive::<UInt64Type>().values().iter().map(|&r| r as u32).collect();
            assert_eq!(&got, want, "{key:?} {keep:?}");
            let rows = UInt32Array::from(want.clone());
            let want = arrow_select::take::take(keys, &rows, None).unwrap();
            let want = arrow_cast::cast(&want, stored.field(0).data_type()).unwrap();
            assert_eq!(built.batch.column(0), &want);
            check_index(&built, 0, key);
        }
    }
}

fn keys_of(kind: usize, numbers: &[i64]) -> ArrayRef {
    let n = || numbers.iter().copied();
    let text = |v: i64| format!("usr/share/{}", "x".repeat((v.unsigned_abs() % 23) as usize) + &v.to_string());
    match kind {
        0 => Arc::new(StringArray::from_iter_values(n().map(text))),
        1 => Arc::new(LargeStringArray::from_iter_values(n().map(text))),
        2 => Arc::new(StringViewArray::from_iter_values(n().map(text))),
        3 => Arc::new(BinaryArray::from_iter_values(n().map(|v| v.to_le_bytes()[..(v & 7) as usize].to_vec()))),
        4 => Arc::new(Int8Array::from_iter_values(n().map(|v| v as i8))),
        5 => Arc::new(Int16Array::from_iter_values(n().map(|v| v as i16))),
        6 => Arc::new(Int32Array::from_iter_values(n().map(|v| v as i32))),
        7 => Arc::new(Int64Array::from_iter_values(n())),
        8 => Arc::new(UInt8Array::from_iter_values(n().map(|v| v as u8))),
        9 => Arc::new(UInt16Array::from_iter_values(n().map(|v| v as u16))),
        10 => Arc::new(UInt32Array::from_iter_values(n().map(|v| v as u32))),
        11 => Arc::new(UInt64Array::from_iter_values(n().map(|v| v as u64))),
        12 => Arc::new(BooleanArray::from_iter(n().map(|v| Some(v & 1 == 1)))),
        13 => Arc::new(Date32Array::from_iter_values(n().map(|v| v as i32))),
        14 => Arc::new(TimestampNanosecondArray::from_iter_values(n()).with_timezone("Europe/Berlin")),
        15 => Arc::new(Time64MicrosecondArray::from_iter_values(n())),
        16 => Arc::new(Decimal32Array::from_iter_values(n().map(|v| v as i32)).with_precision_and_scale(9, 2).unwrap()),
        17 => Arc::new(Decimal64Array::from_iter_values(n()).with_precision_and_scale(18, 2).unwrap()),
        18 => {
            let wide = n().map(|v| i128::from(v) << 40);
            Arc::new(Decimal128Array::from_iter_values(wide).with_precision_and_scale(38, 2).unwrap())
        }
        19 => {
            let wide = n().map(|v| arrow_buffer::i256::from_i128(i128::from(v) << 60));
            Arc::new(Decimal256Array::from_iter_values(wide).with_precision_and_scale(76, 2).unwrap())
        }
        20 => {
            let bytes = n().map(|v| [&v.to_be_bytes()[..], &[7; 3]].concat());
            Arc::new(FixedSizeBinaryArray::try_from_iter(bytes).unwrap())
        }
        _ => Arc::new(DurationMillisecondArray::from_iter_values(n())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_key_type_mode_and_budget_agrees_with_the_oracle(
        kind in 0usize..22,
        numbers in prop_oneof![
            proptest::collection::vec(-40i64..40, 1..300),
            proptest::collection::vec(any::<i64>(), 1..300),
        ],
        shape in 0usize..3, cuts in 1usize..120, threads in 1usize..4,
    ) {
        let mut numbers = numbers;
        match shape {
            1 => numbers.sort_unstable(),
            2 => { numbers.sort_unstable(); numbers.dedup(); numbers.reverse() }
            _ => {}
        }
        check_keys(&keys_of(kind, &numbers), cuts, threads);
    }
}

#[test]
fn every_key_type_once() {
    let numbers: Vec<i64> = (0..250).map(|i| (i * 7919 % 251 - 125) * 0x0123_4567_89AB).collect();
    (0..22).for_each(|kind| check_keys(&keys_of(kind, &numbers), 60, 2));
}

#[test]
fn rows_without_a_key_keep_their_order() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..500).map(|i| i * 31 % 17)));
    let whole = numbered("v", &numbers);
    let pieces: Vec<_> = (0..10).map(|i| whole.slice(i * 50, 50)).collect();
    for tune in [&(|_: &mut Tuning| {}) as &dyn Fn(&mut Tuning), &tiny] {
        let built = build(&pieces, &PutOptions::table(Vec::<String>::new()), tune);
        assert!(built.record.index.is_none());
        assert_eq!(built.batch.columns(), whole.columns());
        assert_eq!(built.batch.schema().metadata()["pheon.key"], "[]");
    }
}

#[test]
fn nothing_is_a_dataset_too() {
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, false)]));
    let built = build(&[RecordBatch::new_empty(schema)], &PutOptions::map("k"), &|_| {});
    assert_eq!((built.record.rows, built.batch.num_columns()), (0, 1));
    assert_eq!(built.batch.schema().metadata()["pheon.unique"], "true");
    check_index(&built, 0, KeyType::Utf8);
    // No columns at all, but rows.
    let options = RecordBatchOptions::new().with_row_count(Some(5));
    let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
    for tune in [&(|_: &mut Tuning| {}) as &dyn Fn(&mut Tuning), &tiny] {
        assert_eq!(
            build(&[bare.clone(), bare.clone()], &PutOptions::table(Vec::<String>::new()), tune).record.rows,
            10
        );
    }
}

#[test]
fn keys_alone_make_a_set() {
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["b", "c", "a"]));
    let batch = RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let built = build(&[batch], &PutOptions::map("k"), &|_| {});
    let got: Vec<_> = built.batch.column(0).as_string::<i64>().iter().flatten().collect();
    assert_eq!(got, ["a", "b", "c"]);
}

#[test]
fn large_buffers_are_aligned_and_sums_are_right() {
    // Three buffers of more than 2 MiB, shuffled, some nulls late in the file.
    let rows = 300_000u64;
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..rows).map(|i| format!("{:09}", i.wrapping_mul(7_654_321) % 1_000_000_007)),
    ));
    let values: ArrayRef = Arc::new(Int64Array::from_iter((0..rows).map(|i| (i % 1000 != 7).then_some(i as i64))));
    let batch = RecordBatch::try_from_iter([("k", keys), ("v", values)]).unwrap();
    let built = build(from_ref(&batch), &PutOptions::map("k"), &|t| t.staging_bytes = 1 << 20);
    assert!(built.record.data.buffers.iter().filter(|b| b.length >= 2 << 20).count() >= 3);
    assert_eq!(built.batch.column(1).null_count(), 300);
    check_index(&built, 0, KeyType::Utf8);
    let spilled = build(&[batch], &PutOptions::map("k"), &|t| t.buffer_bytes = 4 << 20);
    assert_eq!(spilled.batch, built.batch);
}

#[test]
fn a_sorted_stream_is_one_run() {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2000));
    let whole = numbered("k", &keys);
    let dir = tempfile::tempdir().unwrap();
    let options = PutOptions::map("k");
    let mut builder = SegmentBuilder::new(pheon_os::fs::real(), dir.path().into(), whole.schema(), &options).unwrap();
    tiny(builder.tuning_mut());
    builder.write(&whole).unwrap();
    assert_eq!(builder.runs(), 1);
    // Order breaks: another run, and the result is right all the same.
    let late: ArrayRef = Arc::new(Int64Array::from_iter_values((-300..0).rev()));
    builder.write(&numbered("k", &late)).unwrap();
    let record = builder.finish().unwrap();
    assert_eq!(record.rows, 2300);
    let got = read(&dir.path().join("data.arrow"));
    assert!(got.column(0).as_primitive::<Int64Type>().values().iter().copied().eq(-300..2000));
}

#[test]
fn bad_input_is_named() {
    let problem = |batch: &RecordBatch, options: PutOptions| {
        let dir = tempfile::tempdir().unwrap();
        let e = try_build(pheon_os::fs::real(), dir.path(), batch.schema(), from_ref(batch), &options, &|_| {});
        e.unwrap_err().to_string()
    };
    let keys: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("b"), None]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]));
    let batch = RecordBatch::try_from_iter([("name", keys), ("f", floats)]).unwrap();
    assert_eq!(problem(&batch, PutOptions::map("name")), "key column \"name\" is null in input row 2");
    assert!(problem(&batch, PutOptions::map("f")).contains("Float64 cannot be a key; a key can be a string"));
    assert!(problem(&batch, PutOptions::map("g")).contains("no column \"g\""));
    assert!(problem(&batch, PutOptions::table(["name", "f"])).contains("\"f\" of type Float64 cannot be a key"));
    assert!(problem(&batch, PutOptions::table(Vec::<String>::new()).unique(true)).contains("needs a key"));
    let dir = tempfile::tempdir().unwrap();
    let other = batch.project(&[1, 0]).unwrap();
    let options = PutOptions::table(Vec::<String>::new());
    let e = try_build(pheon_os::fs::real(), dir.path(), batch.schema(), &[batch.clone(), other], &options, &|_| {});
    let e = e.unwrap_err().to_string();
    assert!(e.contains("input row 3") && e.contains("\"f\" of type Float64 where \"name\""), "{e}");
}

#[test]
fn cancelling_leaves_no_spill_files() {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..50_000).map(|i| i * 7919 % 50_021)));
    let whole = numbered("k", &keys);
    let mut cancelled = 0;
    for patience_ms in [0u64, 5, 40, 160] {
        let dir = tempfile::tempdir().unwrap();
        let begin = std::time::Instant::now();
        let options = PutOptions::map("k").cancel(move || begin.elapsed().as_millis() as u64 >= patience_ms);
        let tune = |t: &mut Tuning| {
            tiny(t);
            t.buffer_bytes = 50_000;
        };
        match try_build(pheon_os::fs::real(), dir.path(), whole.schema(), from_ref(&whole), &options, &tune) {
            Ok(_) => {}
            Err(WriteError::Cancelled) => cancelled += 1,
            Err(e) => panic!("{e}"),
        }
        let spills = dir.path().read_dir().unwrap().filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name != "data.arrow" && name != "index.arrow"
        });
        assert_eq!(spills.count(), 0, "after {patience_ms} ms");
    }
    assert!(cancelled >= 1);
}

/// What is in a folder, sorted.
fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = dir.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn builds_that_spill_into_one_folder_do_not_meet() {
    let spill = tempfile::tempdir().unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..3000).map(|i| i * 7919 % 3001)));
    let whole = numbered("k", &keys);
    let options = PutOptions::map("k").threads(1).spill_dir(spill.path());
    let tune = |t: &mut Tuning| {
        tiny(t);
        t.index_bytes = 0;
    };
    let expected = build(from_ref(&whole), &PutOptions::map("k").threads(1), &tune).record;
    // The spilled index of a build of old that was killed had this name.
    std::fs::write(spill.path().join("index-spill.tmp"), b"x").unwrap();
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let whole_build =
        try_build(pheon_os::fs::real(), dirs[3].path(), whole.schema(), from_ref(&whole), &options, &tune);
    assert_eq!(whole_build.unwrap(), expected);
    let begin = |dir: &tempfile::TempDir| {
        let mut builder =
            SegmentBuilder::new(pheon_os::fs::real(), dir.path().into(), whole.schema(), &options).unwrap();
        tune(builder.tuning_mut());
        builder.write(&whole).unwrap();
        assert!(builder.runs() > 1);
        builder
    };
    let first = begin(&dirs[0]);
    let held = spill.path().join(&names_in(spill.path())[0]);
    // As a process leaves it that is killed in the midst of a build.
    let left = spill.path().join(".pheon-spill-left");
    std::fs::create_dir(&left).unwrap();
    for name in names_in(&held) {
        std::fs::write(left.join(&name), b"rows").unwrap();
    }
    let second = begin(&dirs[1]);
    assert!(!left.exists() && held.exists());
    std::thread::scope(|scope| {
        let both = [first, second].map(|builder| scope.spawn(|| builder.finish().unwrap()));
        for built in both {
            assert_eq!(built.join().unwrap(), expected);
        }
    });
    drop(begin(&dirs[2]));
    assert_eq!(names_in(spill.path()), ["index-spill.tmp"]);
}

#[test]
fn progress_goes_through_the_phases() {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..5000).rev()));
    let whole = numbered("k", &keys);
    let phases = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = phases.clone();
    let rows = Arc::new(AtomicU64::new(0));
    let seen = rows.clone();
    let options = PutOptions::map("k").progress(move |p| {
        let mut phases = log.lock().unwrap();
        if phases.last() != Some(&p.phase) {
            phases.push(p.phase);
        }
        seen.fetch_max(p.rows_total.unwrap_or(0), Ordering::Relaxed);
    });
    build(&[whole], &options, &|_| {});
    use super::progress::Phase::*;
    assert_eq!(*phases.lock().unwrap(), [Read, Merge, Index, Sync]);
    assert_eq!(rows.load(Ordering::Relaxed), 5000);
}

#[test]
fn a_full_disk_is_told_and_leaves_no_spill_files() {
    use pheon_os::fs::fault::{FaultFs, Lasts, Op};
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..2000).rev()));
    let whole = numbered("k", &keys);
    let run = |nth: Option<u64>| {
        let dir = tempfile::tempdir().unwrap();
        let fs = Arc::new(FaultFs::new(pheon_os::fs::real()));
        if let Some(nth) = nth {
            fs.fail_nth(nth, Some(Op::WriteAt), 28, Lasts::ForEver);
        }
        let got = try_build(fs.clone(), dir.path(), whole.schema(), from_ref(&whole), &PutOptions::map("k"), &tiny);
        let spills = dir.path().read_dir().unwrap().filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name != "data.arrow" && name != "index.arrow"
        });
        assert_eq!(spills.count(), 0);
        (got, fs.calls_of(Op::WriteAt))
    };
    let (good, writes) = run(None);
    assert!(good.is_ok() && writes > 20);
    for nth in (1..=writes).step_by((writes / 25).max(1) as usize) {
        let (got, _) = run(Some(nth));
        assert!(matches!(got, Err(WriteError::StoreFull { .. })), "write {nth} of {writes}: {got:?}");
    }
}

/// Of a build that spills its rows and its index, by one thread beside its files, by four in a folder that the caller chose:
/// whatever fails, it fails or nothing is missing, and what is left in that folder the next build removes.
#[test]
fn a_build_that_spills_fails_or_is_whole() {
    use pheon_os::fs::fault::{self, FaultFs, Op};
    const ROWS: i64 = 600;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).rev()));
    let whole = numbered("k", &keys);
    let tune = |tuning: &mut Tuning| {
        tiny(tuning);
        tuning.index_bytes = 0;
    };
    for (threads, apart) in [(1, false), (4, true)] {
        let mut failures = 0;
        for (errno, lasts, step) in fault::kinds([29, 31, 37, 41, 43, 47, 53, 59, 61]) {
            for nth in (1..).step_by(step as usize) {
                let (dir, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let options = PutOptions::map("k").threads(threads);
                let options = if apart { options.spill_dir(spill.path()) } else { options };
                let fs = FaultFs::new(pheon_os::fs::real());
                fs.fail_nth(nth, None, errno, lasts);
                let got =
                    try_build(Arc::new(fs.clone()), dir.path(), whole.schema(), from_ref(&whole), &options, &tune);
                let failed = fs.failed();
                match got {
                    Ok(record) => {
                        // What is removed too late is a leftover, which another build removes.
                        let harmless = |op: &Op| matches!(op, Op::Unlink | Op::RemoveDirAll);
                        let is_made_again = errno == 4 && failed.iter().all(|op| op.is_restarted());
                        assert!(
                            failed.iter().all(harmless) || is_made_again,
                            "{threads} {nth} {errno} {lasts:?} {failed:?}"
                        );
                        let batch = read(&dir.path().join("data.arrow"));
                        let found = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
                        assert_eq!((record.rows, found), (ROWS as u64, (0..ROWS).collect()));
                        check_file(&dir.path().join("data.arrow"), &record.data);
                        check_file(&dir.path().join("index.arrow"), record.index.as_ref().unwrap());
                    }
                    Err(WriteError::StoreFull { source, .. }) => {
                        assert!(matches!(errno, 28 | 122) && source.raw_os_error() == Some(errno), "{nth} {source:?}");
                    }
                    Err(WriteError::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(errno), "{nth}"),
                    Err(other) => panic!("{threads} {nth} {errno} {lasts:?}: {other:?}"),
                }
                drop(super::spill_dir::SpillDir::create(&pheon_os::fs::real(), spill.path()).unwrap());
                assert_eq!(names_in(spill.path()), [""; 0], "{nth} {errno} {lasts:?} {failed:?}");
                failures += failed.len().min(1);
                if failed.is_empty() {
                    break;
                }
            }
        }
        assert!(failures > 50, "only {failures}");
    }
}

#[test]
fn every_failing_call_is_an_error() {
    use pheon_os::fs::fault::{FaultFs, Lasts, Op};
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..600).rev()));
    let whole = numbered("k", &keys);
    let run = |nth: u64| {
        let dir = tempfile::tempdir().unwrap();
        let fs = Arc::new(FaultFs::new(pheon_os::fs::real()));
        fs.fail_nth(nth, None, 5, Lasts::Once);
        let options = PutOptions::map("k").threads(1);
        let got = try_build(fs.clone(), dir.path(), whole.schema(), from_ref(&whole), &options, &tiny);
        (got, fs.log())
    };
    let (good, log) = run(u64::MAX);
    good.unwrap();
    let mut failed = 0;
    for nth in (1..=log.len()).filter(|n| n % 7 == 0 || n + 40 > log.len() || *n < 40) {
        let (got, _) = run(nth as u64);
        // A spill file that cannot be removed goes with the temporary folder.
        if log[nth - 1].0 == Op::Unlink {
            continue;
        }
        failed += 1;
        let e = got.expect_err(&format!("call {nth}: {:?}", log[nth - 1]));
        assert!(matches!(&e, WriteError::Io { source, .. } if source.raw_os_error() == Some(5)), "{nth}: {e:?}");
    }
    assert!(failed > 40);
}

#[test]
fn field_metadata_and_nullability_are_kept() {
    let field = Field::new("k", DataType::Timestamp(TimeUnit::Second, None), false)
        .with_metadata([("unit".to_string(), "s".to_string())].into());
    let schema = Schema::new_with_metadata(vec![field.clone()], [("pandas".to_string(), "{}".to_string())].into());
    let keys: ArrayRef = Arc::new(TimestampSecondArray::from(vec![3, 1, 2]));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![keys]).unwrap();
    let built = build(&[batch], &PutOptions::map("k"), &|_| {});
    assert_eq!(built.batch.schema().field(0), &field);
    let metadata = built.batch.schema().metadata().clone();
    assert_eq!((metadata["pandas"].as_str(), metadata["pheon.key"].as_str()), ("{}", "[\"k\"]"));
}

/// Rows of a whole batch sorted by its first column, as the oracle for values.
pub(super) fn sorted_by_first(whole: &RecordBatch) -> RecordBatch {
    let keys = whole.column(0).as_primitive::<Int64Type>();
    let mut rows: Vec<u32> = (0..whole.num_rows() as u32).collect();
    rows.sort_by_key(|&r| keys.value(r as usize));
    take_record_batch(whole, &UInt32Array::from(rows)).unwrap()
}

pub(super) fn concat_all(batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(&batches[0].schema(), batches).unwrap()
}
