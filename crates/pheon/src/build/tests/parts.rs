//! Builds in parts: the same rows as one build of all, whatever the split, and errors that name the part.

use super::*;
use crate::build::part::{FinishedPart, agreed_schema};

/// Builds a part of these batches and reads its content back from its text.
fn part(
    name: &str,
    dir: &Path,
    batches: &[RecordBatch],
    schema: &SchemaRef,
    options: &PutOptions,
    tune: &dyn Fn(&mut Tuning),
) -> Result<FinishedPart, WriteError> {
    let dir = dir.join(name);
    std::fs::create_dir(&dir).unwrap();
    let mut builder = SegmentBuilder::new(pheon_os::fs::real(), dir.clone(), schema.clone(), options)?;
    tune(builder.tuning_mut());
    batches.iter().try_for_each(|b| builder.write(b))?;
    let content = builder.finish_part(false)?;
    let text = serde_json::to_vec(&content).unwrap();
    let content = serde_json::from_slice(&text).unwrap();
    assert_eq!(serde_json::to_vec(&content).unwrap(), text);
    let part = FinishedPart { name: name.into(), dir, content };
    let keeps_all = !options.unique || options.on_duplicate == OnDuplicate::Error;
    part.check(options.key.len() > 1, keeps_all).unwrap();
    Ok(part)
}

fn merge(
    dir: &Path,
    own: Option<(&SchemaRef, &[RecordBatch])>,
    parts: &[FinishedPart],
    options: &PutOptions,
    tune: &dyn Fn(&mut Tuning),
) -> Result<(SegmentRecord, RecordBatch), WriteError> {
    let target = dir.join("whole");
    std::fs::create_dir(&target).unwrap();
    let new = |schema: SchemaRef| SegmentBuilder::new(pheon_os::fs::real(), target.clone(), schema, options);
    let mut builder = match own {
        Some((schema, _)) => {
            let builder = new(schema.clone())?;
            agreed_schema(Some(builder.stored()), parts)?;
            builder
        }
        None => new(agreed_schema(None, parts)?.unwrap())?,
    };
    tune(builder.tuning_mut());
    own.iter().flat_map(|(_, batches)| *batches).try_for_each(|b| builder.write(b))?;
    parts.iter().try_for_each(|part| builder.attach(part))?;
    let record = builder.finish()?;
    check_file(&target.join("data.arrow"), &record.data);
    record.index.iter().for_each(|index| check_file(&target.join("index.arrow"), index));
    Ok((record, read(&target.join("data.arrow"))))
}

/// The same batches, some of them as own rows and the others in parts, come out the same.
pub(super) fn check_same(
    batches: &[RecordBatch],
    options: &PutOptions,
    tune: &dyn Fn(&mut Tuning),
    record: &SegmentRecord,
    whole: &RecordBatch,
) {
    let n = batches.len();
    let schema = batches[0].schema();
    let options = &PutOptions { progress: None, ..options.clone() };
    for (own, cut) in [(n / 3, 2 * n / 3), (0, n / 2)] {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, batches: &[RecordBatch]| part(name, dir.path(), batches, &schema, options, tune).unwrap();
        let parts = [of("a", &batches[own..cut]), of("none", &[]), of("b", &batches[cut..])];
        let own = (own > 0).then_some((&schema, &batches[..own]));
        let (merged, rows) = merge(dir.path(), own, &parts, options, tune).unwrap();
        assert_eq!(merged.rows, record.rows);
        assert_eq!(rows.schema(), whole.schema());
        assert_eq!(rows.columns(), whole.columns());
        assert_eq!(merged.index.is_some(), record.index.is_some());
    }
}

fn entries(keys: &[i64], values: ArrayRef) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    RecordBatch::try_from_iter_with_nullable([("k", keys, false), ("v", values, true)]).unwrap()
}

fn numbers(keys: &[i64]) -> RecordBatch {
    entries(keys, Arc::new(Int64Array::from(keys.to_vec())))
}

fn parts_of(dir: &Path, batches: &[RecordBatch], options: &PutOptions) -> Vec<FinishedPart> {
    let parts = batches.iter().enumerate();
    parts.map(|(i, b)| part(&format!("p{i}"), dir, from_ref(b), &b.schema(), options, &tiny).unwrap()).collect()
}

#[test]
fn a_repeated_key_is_named_with_part_and_row_even_after_runs_were_merged() {
    let options = PutOptions::map("k").threads(1);
    for (own, batches, want) in [
        (&[5, 6][..], vec![numbers(&[1]), numbers(&[7, 6])], ((1, None), (1, Some("p1")))),
        (&[5], vec![numbers(&[1, 8, 3]), numbers(&[7, 2]), numbers(&[9, 3])], ((2, Some("p0")), (1, Some("p2")))),
        (&[], (0..9).map(|i| numbers(&[i, 100 * (i % 8) + 50])).collect(), ((1, Some("p0")), (1, Some("p8")))),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts_of(dir.path(), &batches, &options);
        let own = numbers(own);
        let e = merge(dir.path(), Some((&own.schema(), &[own])), &parts, &options, &tiny).unwrap_err();
        let WriteError::DuplicateKey { rows, parts, .. } = &e else { panic!("{e}") };
        assert_eq!(((rows.0, parts.0.as_deref()), (rows.1, parts.1.as_deref())), want, "{e}");
    }
}

#[test]
fn a_column_of_nulls_becomes_what_it_is_in_the_other_parts() {
    let words: DictionaryArray<Int8Type> = vec![Some("x"), Some("y")].into_iter().collect();
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None]), None], 2);
    for typed in [Arc::new(words) as ArrayRef, Arc::new(fixed), Arc::new(StringArray::from(vec!["a", "b"]))] {
        let options = PutOptions::map("k");
        let dir = tempfile::tempdir().unwrap();
        let batches = [
            entries(&[4, 1], Arc::new(NullArray::new(2))),
            entries(&[3, 2], typed.clone()),
            entries(&[9], Arc::new(NullArray::new(1))),
        ];
        let parts = parts_of(dir.path(), &batches, &options);
        let (_, rows) = merge(dir.path(), None, &parts, &options, &tiny).unwrap();
        assert_eq!(rows.num_rows(), 5);
        let got = rows.column(1);
        got.to_data().validate_full().unwrap();
        let nulls: Vec<bool> = (0..5).map(|row| got.is_null(row)).collect();
        assert_eq!(nulls, [true, typed.is_null(1), false, true, true]);
        let want = arrow_cast::cast(&typed.slice(0, 1), got.data_type()).unwrap();
        assert_eq!(&got.slice(2, 1), &want);
    }
}

#[test]
fn columns_are_matched_by_name() {
    let options = PutOptions::map("k");
    let dir = tempfile::tempdir().unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let values: ArrayRef = Arc::new(StringArray::from(vec!["one"]));
    let turned = RecordBatch::try_from_iter_with_nullable([("v", values, true), ("k", keys, false)]).unwrap();
    let batches = [entries(&[2], Arc::new(StringArray::from(vec!["two"]))), turned];
    let (_, rows) = merge(dir.path(), None, &parts_of(dir.path(), &batches, &options), &options, &tiny).unwrap();
    assert_eq!(rows.column(1).as_string::<i64>(), &LargeStringArray::from(vec!["one", "two"]));
}

#[test]
fn parts_that_disagree_are_named_with_both_types() {
    let options = PutOptions::map("k");
    let problem = |own: Option<RecordBatch>, batches: &[RecordBatch]| {
        let dir = tempfile::tempdir().unwrap();
        let parts = parts_of(dir.path(), batches, &options);
        let own = own.map(|own| (own.schema(), vec![own]));
        let own = own.as_ref().map(|(schema, own)| (schema, own.as_slice()));
        merge(dir.path(), own, &parts, &options, &tiny).unwrap_err().to_string()
    };
    let strings = entries(&[7], Arc::new(StringArray::from(vec!["x"])));
    let e = problem(None, &[numbers(&[1]), strings.clone()]);
    assert!(
        e.contains("part \"p1\"") && e.contains("part \"p0\"") && e.contains("LargeUtf8") && e.contains("Int64"),
        "{e}"
    );
    let e = problem(Some(numbers(&[1])), from_ref(&strings));
    assert!(e.contains("part \"p0\"") && e.contains("own rows") && e.contains("LargeUtf8"), "{e}");
    let e = problem(Some(numbers(&[1])), &[entries(&[2], Arc::new(Int32Array::from(vec![2])))]);
    assert!(e.contains("Int32") && e.contains("Int64"), "{e}");
    let fewer = numbers(&[3]).project(&[0]).unwrap();
    let e = problem(None, &[numbers(&[1]), fewer.clone()]);
    assert!(e.contains("part \"p1\" has no column \"v\""), "{e}");
    let e = problem(None, &[fewer, numbers(&[1])]);
    assert!(e.contains("part \"p1\" has a column \"v\""), "{e}");
    let no_nulls = Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Int64, false)]);
    let no_nulls = RecordBatch::try_new(Arc::new(no_nulls), numbers(&[1]).columns().to_vec()).unwrap();
    let e = problem(Some(no_nulls), &[entries(&[2], Arc::new(Int64Array::from(vec![None])))]);
    assert!(e.contains("nulls in column \"v\""), "{e}");
    // A part without rows may say what it likes.
    let dir = tempfile::tempdir().unwrap();
    let parts = parts_of(dir.path(), &[strings.slice(0, 0), numbers(&[1])], &options);
    assert_eq!(merge(dir.path(), None, &parts, &options, &tiny).unwrap().0.rows, 1);
}

#[test]
fn dictionaries_of_parts_that_outgrow_their_indices_are_an_error() {
    let words = |from: i64| {
        let words: Vec<String> = (from..from + 100).map(|i| i.to_string()).collect();
        let words: DictionaryArray<Int8Type> = words.iter().map(|w| Some(w.as_str())).collect();
        entries(&(from..from + 100).collect::<Vec<_>>(), Arc::new(words))
    };
    let options = PutOptions::map("k");
    let dir = tempfile::tempdir().unwrap();
    let parts = parts_of(dir.path(), &[words(0), words(100)], &options);
    let e = merge(dir.path(), None, &parts, &options, &|_| {}).unwrap_err().to_string();
    assert!(e.contains("part \"p1\"") && e.contains("Int8 can count"), "{e}");
}

#[test]
fn long_blocks_of_parts_are_merged_few_at_a_time() {
    let options = PutOptions::map("k").threads(1);
    let dir = tempfile::tempdir().unwrap();
    let batches: Vec<_> = (0..5).map(|i| numbers(&(0..900).map(|k| 5 * k + i).collect::<Vec<_>>())).collect();
    let parts: Vec<_> = (batches.iter().enumerate())
        .map(|(i, b)| part(&format!("p{i}"), dir.path(), from_ref(b), &b.schema(), &options, &|_| {}).unwrap())
        .collect();
    // Each part is one block of some 14 kB; three of them are more than half of this memory.
    let little = |tuning: &mut Tuning| tuning.buffer_bytes = 60_000;
    let (record, rows) = merge(dir.path(), None, &parts, &options, &little).unwrap();
    assert_eq!(record.rows, 4500);
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values().to_vec(), (0..4500).collect::<Vec<i64>>());
    assert!(parts.iter().all(|part| part.dir.join(&part.content.runs[0].file).exists()), "a part's files are not ours");
}
