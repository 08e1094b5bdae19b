//! Keys of several columns: built in every mode, in memory and spilled, compared with a sort of tuples.

use super::*;
use crate::key::composite::{PartAt, encode_rows};
use crate::key::{KeyRef, KeyType};
use arrow_array::types::Int8Type;

/// A row's key, in the order of tuples: text, number, decimal, date, flag.
type Tuple = (Vec<u8>, i16, i128, i32, bool);

fn tuple() -> impl Strategy<Value = Tuple> {
    let text = proptest::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(0x7F)], 0..3);
    (text, -2i16..2, -2i128..2, -1i32..2, any::<bool>())
}

/// The tuples' columns with the first two at the ends, the text dictionary-encoded, and the number of each row.
fn batch_of(rows: &[Tuple]) -> RecordBatch {
    let text = |(t, ..): &Tuple| String::from_utf8(t.clone()).unwrap();
    let text: DictionaryArray<Int8Type> =
        rows.iter().map(text).collect::<Vec<_>>().iter().map(String::as_str).collect();
    let decimals = Decimal128Array::from_iter_values(rows.iter().map(|r| r.2)).with_precision_and_scale(20, 1);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("text", Arc::new(text)),
        ("row", Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64))),
        ("flag", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.4))))),
        ("date", Arc::new(Date32Array::from_iter_values(rows.iter().map(|r| r.3)))),
        ("decimal", Arc::new(decimals.unwrap())),
        ("number", Arc::new(Int16Array::from_iter_values(rows.iter().map(|r| r.1)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

const NAMES: [&str; 5] = ["text", "number", "decimal", "date", "flag"];
const TYPES: [KeyType; 5] =
    [KeyType::Utf8, KeyType::Signed(2), KeyType::Decimal(16), KeyType::Signed(4), KeyType::Bool];

/// Row numbers as they must be stored, or the least two rows with one key.
fn expected(rows: &[Tuple], keep: Option<OnDuplicate>) -> Result<Vec<u64>, ()> {
    let mut map: BTreeMap<&Tuple, Vec<u64>> = BTreeMap::new();
    rows.iter().enumerate().for_each(|(i, row)| map.entry(row).or_default().push(i as u64));
    if keep == Some(OnDuplicate::Error) && map.values().any(|of| of.len() > 1) {
        return Err(());
    }
    Ok(map
        .into_values()
        .flat_map(|of| match keep {
            None => of,
            Some(OnDuplicate::Last) => vec![of[of.len() - 1]],
            Some(_) => vec![of[0]],
        })
        .collect())
}

/// Each distinct key, hashed as the format says, has its one entry in the index.
fn check_composite_index(built: &Built, rows: &[Tuple], stored: &[u64]) {
    let file = read(&built.dir.path().join("index.arrow"));
    let plan = IndexPlan::from_metadata(file.schema().metadata()).unwrap();
    let index = Index::new(Buffer::from(file.column(0).as_fixed_size_binary().value_data()), plan).unwrap();
    let at = |row: usize| &rows[stored[row] as usize];
    let parts: [(KeyType, Box<PartAt<'_>>); 5] = [
        (TYPES[0], Box::new(move |row| Some(KeyRef::Bytes(&at(row).0)))),
        (TYPES[1], Box::new(move |row| Some(at(row).1.into()))),
        (TYPES[2], Box::new(move |row| Some(at(row).2.into()))),
        (TYPES[3], Box::new(move |row| Some(at(row).3.into()))),
        (TYPES[4], Box::new(move |row| Some(at(row).4.into()))),
    ];
    let (offsets, bytes, _) = encode_rows(stored.len(), &parts);
    let mut keys = 0;
    for row in 0..stored.len() {
        if row > 0 && at(row) == at(row - 1) {
            continue;
        }
        keys += 1;
        let h = KeyRef::Bytes(&bytes[offsets[row] as usize..offsets[row + 1] as usize]).hash(plan.seed);
        let primary = index.primary(h);
        let found = [primary, index.secondary(h, primary)].iter().any(|&b| {
            let bucket = index.bucket(b);
            (0..10).any(|slot| bucket.matches(fingerprint(h)) >> slot & 1 == 1 && bucket.row(slot) == row as u32)
        });
        assert!(found, "row {row} is not in the index");
    }
    assert_eq!(plan.keys, keys);
}

fn check(rows: &[Tuple], cuts: usize, threads: usize) {
    let whole = batch_of(rows);
    let pieces: Vec<RecordBatch> = (0..rows.len())
        .step_by(cuts)
        .map(|at| whole.slice(at, cuts.min(rows.len() - at)))
        .chain([whole.slice(0, 0)])
        .collect();
    for keep in [None, Some(OnDuplicate::First), Some(OnDuplicate::Last), Some(OnDuplicate::Error)] {
        let options = PutOptions::table(NAMES).unique(keep.is_some()).threads(threads);
        let options = options.on_duplicate(keep.unwrap_or_default());
        for tune in [&(|_: &mut Tuning| {}) as &dyn Fn(&mut Tuning), &tiny] {
            let Ok(want) = expected(rows, keep) else {
                let dir = tempfile::tempdir().unwrap();
                let e = try_build(pheon_os::fs::real(), dir.path(), whole.schema(), &pieces, &options, tune);
                let WriteError::DuplicateKey { rows: (a, b), key, .. } = e.unwrap_err() else {
                    panic!("another error")
                };
                assert!(a < b && rows[a as usize] == rows[b as usize], "{a} {b}");
                let (text, number, decimal, date, flag) = &rows[a as usize];
                let text = std::str::from_utf8(text).unwrap();
                assert_eq!(key, format!("({text:?}, {number}, {decimal}, {date}, {})", u8::from(*flag)));
                continue;
            };
            let built = build(&pieces, &options, tune);
            let schema = built.batch.schema();
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            assert_eq!(names, ["text", "row", "flag", "date", "decimal", "number"], "no other column is written");
            assert_eq!(schema.field(0).data_type(), &DataType::LargeUtf8, "a dictionary key is stored plain");
            let got = built.batch.column(1).as_primitive::<UInt64Type>().values().to_vec();
            assert_eq!(got, want, "{keep:?}");
            for (row, &from) in want.iter().enumerate() {
                let (text, number, ..) = &rows[from as usize];
                assert_eq!(built.batch.column(0).as_string::<i64>().value(row).as_bytes(), text);
                assert_eq!(built.batch.column(5).as_primitive::<Int16Type>().value(row), *number);
            }
            check_composite_index(&built, rows, &want);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_mode_agrees_with_a_sort_of_tuples(
        rows in proptest::collection::vec(tuple(), 1..250),
        cuts in 1usize..90,
        threads in 1usize..3,
    ) {
        check(&rows, cuts, threads);
    }
}

#[test]
fn sorted_input_is_seen_to_be_sorted() {
    let mut rows: Vec<Tuple> = (0..400).map(|i| (vec![b'a'; i % 5], (i / 7) as i16, 0, 0, i % 2 == 0)).collect();
    rows.sort();
    check(&rows, 64, 1);
}

#[test]
fn keys_are_read_back_where_long_strings_cut_pieces_short() {
    // Two strings a piece of 8 MiB: bits and numbers are then read from rows that are no multiple of 8.
    let long: Vec<String> = (0..9).map(|i| format!("{}{}", "x".repeat(3 << 20), 9 - i)).collect();
    let flags = BooleanArray::from_iter((0..9).map(|i| Some(i % 3 == 0)));
    let columns: [(&str, ArrayRef); 2] =
        [("flag", Arc::new(flags)), ("long", Arc::new(StringArray::from_iter_values(&long)))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let spilled = |tuning: &mut Tuning| tuning.buffer_bytes = 7 << 20;
    let built = build(from_ref(&batch), &PutOptions::table(["flag", "long"]).threads(1), &spilled);
    let file = read(&built.dir.path().join("index.arrow"));
    assert_eq!(IndexPlan::from_metadata(file.schema().metadata()).unwrap().keys, 9);
    let index_plan = IndexPlan::from_metadata(file.schema().metadata()).unwrap();
    let index = Index::new(Buffer::from(file.column(0).as_fixed_size_binary().value_data()), index_plan).unwrap();
    for row in 0..9 {
        let mut bytes = Vec::new();
        KeyType::Bool.encode(built.batch.column(0).as_boolean().value(row).into(), &mut bytes).unwrap();
        KeyType::Utf8.encode(built.batch.column(1).as_string::<i64>().value(row).into(), &mut bytes).unwrap();
        let h = KeyRef::Bytes(&bytes).hash(index_plan.seed);
        let bucket = index.bucket(index.primary(h));
        assert!((0..10).any(|slot| bucket.row(slot) == row as u32 && bucket.matches(fingerprint(h)) >> slot & 1 == 1));
    }
}

#[test]
fn a_null_in_any_key_column_is_named() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]));
    let names: DictionaryArray<Int8Type> = vec![Some("x"), Some("y"), None].into_iter().collect();
    let columns = [("n", numbers), ("t", texts), ("d", Arc::new(names) as ArrayRef)];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
    let problem = |key: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let options = PutOptions::table(key.iter().copied());
        let e = try_build(pheon_os::fs::real(), dir.path(), batch.schema(), from_ref(&batch), &options, &|_| {});
        e.unwrap_err().to_string()
    };
    assert_eq!(problem(&["n", "t"]), "key column \"t\" is null in input row 1");
    assert_eq!(problem(&["n", "d"]), "key column \"d\" is null in input row 2");
    assert_eq!(problem(&["d"]), "key column \"d\" is null in input row 2");
    assert!(problem(&["n", "t", "n"]).contains("\"n\" is named twice"));
}

#[test]
fn a_dictionary_key_is_sorted_and_stored_by_value() {
    let names: DictionaryArray<Int8Type> = vec!["z", "a", "m", "a"].into_iter().collect();
    let batch = numbered("k", &(Arc::new(names) as ArrayRef));
    let built = build(from_ref(&batch), &PutOptions::table(["k"]).threads(1), &|_| {});
    let keys: Vec<_> = built.batch.column(0).as_string::<i64>().iter().flatten().collect();
    assert_eq!(keys, ["a", "a", "m", "z"]);
    assert_eq!(built.batch.column(1).as_primitive::<UInt64Type>().values(), &[1, 3, 2, 0]);
    check_index(&built, 0, KeyType::Utf8);
}
