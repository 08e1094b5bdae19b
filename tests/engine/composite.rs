//! Keys of several columns, of every type, against an oracle of tuples.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields};
use pheon::{KeyBatch, KeyRef, KeyType, OnDuplicate, PutOptions, ReadError, Store, Table, Value, WriteError};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::keys::{Key, array, askable_types, converted, key_ref, key_types, strategy};
use crate::scratch::{Scratch, put};

type Tuple = Vec<Key>;

/// Columns' types, a few values of each, and rows as places among these.
#[derive(Clone, Debug)]
struct Case {
    types: Vec<DataType>,
    pools: Vec<Vec<Key>>,
    rows: Vec<Vec<usize>>,
}

fn cases() -> impl Strategy<Value = Case> {
    vec(0..key_types().len(), 2..5).prop_flat_map(|kinds| {
        let types: Vec<DataType> = kinds.iter().map(|&i| key_types()[i].clone()).collect();
        let pools: Vec<_> = types.iter().map(|t| vec(strategy(t), 1..6)).collect();
        let rows = vec(vec(0usize..6, types.len()), 0..60);
        (Just(types), pools, rows).prop_map(|(types, pools, rows)| Case { types, pools, rows })
    })
}

impl Case {
    fn tuple(&self, row: &[usize]) -> Tuple {
        std::iter::zip(row, &self.pools).map(|(&i, pool)| pool[i % pool.len()].clone()).collect()
    }

    fn tuples(&self) -> Vec<Tuple> {
        self.rows.iter().map(|row| self.tuple(row)).collect()
    }

    fn names(&self) -> Vec<String> {
        (0..self.types.len()).map(|i| format!("k{i}")).collect()
    }

    /// The rows, their number first, and the key columns in reverse.
    fn batch(&self) -> RecordBatch {
        let tuples = self.tuples();
        let mut columns: Vec<(String, ArrayRef, bool)> =
            vec![("v".to_owned(), Arc::new(Int64Array::from_iter_values(0..tuples.len() as i64)), true)];
        for (i, data_type) in self.types.iter().enumerate().rev() {
            let keys: Vec<Option<Key>> = tuples.iter().map(|t| Some(t[i].clone())).collect();
            columns.push((format!("k{i}"), array(data_type, &keys), true));
        }
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn refs<'a>(&'a self, tuple: &'a [Key]) -> Vec<KeyRef<'a>> {
        std::iter::zip(tuple, &self.types).map(|(key, data_type)| key_ref(key, data_type)).collect()
    }

    fn bytes(&self, table: &Table, tuple: &[Key]) -> Vec<u8> {
        table.composite_key(&self.refs(tuple)).unwrap()
    }

    /// Keys as an array of structs, each column in one of the types in which it may be asked for.
    fn asked(&self, tuples: &[Tuple], choice: usize, named: bool) -> StructArray {
        let columns: Vec<ArrayRef> = (0..self.types.len())
            .map(|i| {
                let types = askable_types(&self.types[i]);
                let data_type = &types[choice % types.len()];
                let keys: Vec<_> = tuples.iter().map(|t| converted(&t[i], &self.types[i], data_type)).collect();
                array(data_type, &keys)
            })
            .collect();
        let name = |i: usize| if named { format!("k{i}") } else { String::new() };
        let mut all: Vec<(Field, ArrayRef)> = columns
            .into_iter()
            .enumerate()
            .map(|(i, c)| (Field::new(name(i), c.data_type().clone(), true), c))
            .collect();
        if named {
            // Names decide, not the order, and other fields do not matter.
            all.reverse();
            let other: ArrayRef = Arc::new(StringArray::from(vec!["x"; tuples.len()]));
            all.insert(1, (Field::new("other", DataType::Utf8, true), other));
        }
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = all.into_iter().unzip();
        StructArray::new(Fields::from(fields), columns, None)
    }

    /// Whether a tuple can be asked for in these types.
    fn askable(&self, tuple: &[Key], choice: usize) -> bool {
        std::iter::zip(tuple, &self.types).all(|(key, data_type)| {
            let types = askable_types(data_type);
            converted(key, data_type, &types[choice % types.len()]).is_some()
        })
    }
}

fn values(table: &Table) -> Vec<i64> {
    table.to_batch().unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_agree_with_an_oracle(
        case in cases(), others in vec(vec(0usize..6, 4), 1..6), ends in any::<[(bool, u8); 2]>(),
    ) {
        // A column of values without bytes adds nothing to the key bytes: a tuple with it and one without it are the same key.
        prop_assume!(!case.types.contains(&DataType::FixedSizeBinary(0)));
        let scratch = Scratch::new();
        put(&scratch.store, "t", &case.batch(), PutOptions::table(case.names()).threads(1)).unwrap();
        let table = scratch.store.table("t").unwrap();
        prop_assert_eq!(table.key_type(), Some(KeyType::Composite));
        let mut oracle: BTreeMap<Tuple, Vec<i64>> = BTreeMap::new();
        case.tuples().into_iter().zip(0..).for_each(|(t, i)| oracle.entry(t).or_default().push(i));
        prop_assert_eq!(values(&table), oracle.values().flatten().copied().collect::<Vec<_>>());

        let others: Vec<Tuple> = others.iter().map(|row| case.tuple(row)).collect();
        for tuple in oracle.keys().chain(&others) {
            let rows = table.rows(KeyRef::Bytes(&case.bytes(&table, tuple))).unwrap();
            prop_assert_eq!(values(&rows), oracle.get(tuple).cloned().unwrap_or_default());
            for n in 0..=tuple.len() {
                let rows = table.prefix(&case.bytes(&table, &tuple[..n])).unwrap();
                let want = oracle.iter().filter(|(t, _)| t[..n] == tuple[..n]).flat_map(|(_, v)| v);
                prop_assert_eq!(values(&rows), want.copied().collect::<Vec<_>>(), "{:?}", &tuple[..n]);
            }
        }
        for from in &others {
            for to in &others {
                // A shorter tuple comes before all that it begins.
                let cut = |tuple: &Tuple, end: (bool, u8)| tuple[..usize::from(end.1) % (tuple.len() + 1)].to_vec();
                let (from, to) = (cut(from, ends[0]), cut(to, ends[1]));
                let (a, b) = (case.bytes(&table, &from), case.bytes(&table, &to));
                let bound = |inside: bool, key| if inside { Bound::Included(key) } else { Bound::Excluded(key) };
                let rows = table.range((bound(ends[0].0, KeyRef::Bytes(&a)), bound(ends[1].0, KeyRef::Bytes(&b))));
                let inside = |t: &Tuple| {
                    (if ends[0].0 { *t >= from } else { *t > from }) && (if ends[1].0 { *t <= to } else { *t < to })
                };
                let want = oracle.iter().filter(|(t, _)| inside(t)).flat_map(|(_, v)| v);
                prop_assert_eq!(values(&rows.unwrap()), want.copied().collect::<Vec<_>>());
            }
        }
        let distinct = oracle.len() == case.rows.len();
        prop_assert_eq!(table.is_unique(), distinct);
        prop_assert_eq!(scratch.store.map("t").is_ok(), distinct);
        let report = scratch.store.verify("t").unwrap();
        prop_assert!(report.is_ok(), "{:?}", report.problems);
        prop_assert_eq!((report.rows, report.keys), (case.rows.len() as u64, oracle.len() as u64));
    }

    #[test]
    fn maps_agree_with_an_oracle(
        case in cases(), others in vec(vec(0usize..6, 4), 1..30), last in any::<bool>(), choice in 0usize..12, named in any::<bool>(),
    ) {
        let scratch = Scratch::new();
        let options = |on| PutOptions::table(case.names()).unique(true).on_duplicate(on).threads(1);
        let mut oracle: BTreeMap<Tuple, i64> = BTreeMap::new();
        let mut repeats = false;
        for (tuple, i) in case.tuples().into_iter().zip(0..) {
            repeats |= oracle.contains_key(&tuple);
            if last { oracle.insert(tuple, i); } else { oracle.entry(tuple).or_insert(i); }
        }
        let strict = put(&scratch.store, "strict", &case.batch(), options(OnDuplicate::Error));
        prop_assert_eq!(matches!(strict, Err(WriteError::DuplicateKey { .. })), repeats);
        put(&scratch.store, "m", &case.batch(), options(if last { OnDuplicate::Last } else { OnDuplicate::First })).unwrap();
        let map = scratch.store.map("m").unwrap();
        prop_assert_eq!(map.len(), oracle.len());
        prop_assert_eq!(map.key_fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>(), case.names());

        let asked: Vec<Tuple> = oracle.keys().cloned().chain(others.iter().map(|row| case.tuple(row))).collect();
        let encoded: Vec<Vec<u8>> = asked.iter().map(|t| map.composite_key(&case.refs(t)).unwrap()).collect();
        let found = |bytes: &[u8]| match map.get(KeyRef::Bytes(bytes)).unwrap() {
            Some(Value::Int(v)) => Some(v),
            _ => None,
        };
        for (tuple, bytes) in asked.iter().zip(&encoded) {
            prop_assert_eq!(found(bytes), oracle.get(tuple).copied());
            let row = |r: Option<u64>| r.map(|r| match map.value_at(r, 0).unwrap() { Value::Int(v) => v, _ => -1 });
            let key = KeyRef::Bytes(bytes);
            prop_assert_eq!(row(map.floor(key).unwrap()), oracle.range(..=tuple.clone()).next_back().map(|(_, v)| *v));
            prop_assert_eq!(row(map.ceiling(key).unwrap()), oracle.range(tuple.clone()..).next().map(|(_, v)| *v));
        }
        let mut rows = Vec::new();
        let slices: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
        map.lookup(&KeyBatch::Bytes(&slices), &mut rows).unwrap();
        let any: Vec<Option<KeyRef<'_>>> = slices.iter().map(|&b| Some(KeyRef::Bytes(b))).chain([None]).collect();
        map.lookup(&KeyBatch::Any(&any), &mut rows).unwrap();
        let found_row = |b: &[u8]| map.find(KeyRef::Bytes(b)).unwrap().map_or(u32::MAX, |row| row as u32);
        let expected: Vec<u32> = slices.iter().map(|&b| found_row(b)).collect();
        prop_assert_eq!(rows, [expected.clone(), expected, vec![u32::MAX]].concat());

        let got = map.get_many(&case.asked(&asked, choice, named)).unwrap();
        let got: Vec<Option<i64>> = got.as_primitive::<Int64Type>().iter().collect();
        let want: Vec<Option<i64>> =
            asked.iter().map(|t| oracle.get(t).copied().filter(|_| case.askable(t, choice))).collect();
        prop_assert_eq!(got, want);
    }
}

fn small(store: &Store) {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "a"]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![-1, 2, -3]));
    let batch = RecordBatch::try_from_iter([("t", texts), ("n", numbers.clone()), ("v", numbers)]).unwrap();
    put(store, "m", &batch, PutOptions::table(["t", "n"]).unique(true).threads(1)).unwrap();
}

/// So many that some fall into a bucket with their fingerprint and only the keys themselves tell.
#[test]
fn keys_that_are_not_there_are_not_found() {
    const ROWS: i64 = 20_000;
    let scratch = Scratch::new();
    let texts = |from: i64, to: i64| Arc::new(StringArray::from_iter_values((from..to).map(|i| format!("t{}", i % 7))));
    let numbers = |from: i64, to: i64| Arc::new(Int64Array::from_iter_values(from..to));
    let columns: Vec<(&str, ArrayRef)> = vec![("t", texts(0, ROWS)), ("n", numbers(0, ROWS)), ("v", numbers(0, ROWS))];
    put(&scratch.store, "m", &RecordBatch::try_from_iter(columns).unwrap(), PutOptions::table(["t", "n"]).unique(true))
        .unwrap();
    let map = scratch.store.map("m").unwrap();
    let asked = |from: i64, to: i64| {
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, false));
        StructArray::from(vec![
            (field("t", DataType::Utf8), texts(from, to) as ArrayRef),
            (field("n", DataType::Int64), numbers(from, to) as ArrayRef),
        ])
    };
    assert!(map.contains_many(&asked(0, ROWS)).unwrap().iter().all(|found| found == Some(true)));
    let missing = map.contains_many(&asked(ROWS, 15 * ROWS)).unwrap();
    assert_eq!(missing.iter().filter(|&found| found == Some(true)).count(), 0);
    for i in ROWS..5 * ROWS {
        let key = map.table().composite_key(&[format!("t{}", i % 7).as_str().into(), i.into()]).unwrap();
        assert_eq!(map.find(KeyRef::Bytes(&key)).unwrap(), None, "{i}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let scratch = Scratch::new();
    small(&scratch.store);
    let map = scratch.store.map("m").unwrap();
    let table = map.table();
    let message = |e: Result<Vec<u8>, ReadError>| e.unwrap_err().to_string();
    assert!(message(table.composite_key(&["a".into(), "b".into()])).contains("Int64"));
    assert!(message(table.composite_key(&["a".into(), 1i64.into(), 2i64.into()])).contains("2 columns, got 3"));
    // The same for a table that is elsewhere.
    let fields = table.key_fields();
    for parts in [&["a".into(), 1i64.into()][..], &["a".into()], &[]] {
        let elsewhere = pheon::composite_key("m", &fields, parts).unwrap();
        assert_eq!(elsewhere, table.composite_key(parts).unwrap(), "{parts:?}");
    }
    let three = ["a".into(), 1i64.into(), 2i64.into()];
    assert!(message(pheon::composite_key("m", &fields, &three)).contains("2 columns, got 3"));
    assert!(
        matches!(map.find(5i64.into()), Err(ReadError::KeyType { expected, .. }) if expected == "(LargeUtf8, Int64)")
    );
    assert!(matches!(map.key_at(0), Err(ReadError::WrongShape { .. })));
    assert!(matches!(map.key_part_at(0, 1), Ok(Value::Int(-3))) && map.key_part_at(0, 2).is_err());
    let texts = StringArray::from(vec!["a"]);
    assert!(matches!(map.get_many(&texts), Err(ReadError::KeyType { .. })));
    let half = StructArray::from(vec![(Arc::new(Field::new("t", DataType::Utf8, true)), Arc::new(texts) as ArrayRef)]);
    assert!(matches!(map.get_many(&half), Err(ReadError::KeyType { .. })), "a struct without the column n");
    // By their order two columns would do, and so would the first two of three.
    let number: ArrayRef = Arc::new(Int64Array::from(vec![-3]));
    let columns: [(&str, ArrayRef); 3] = [("x", half.column(0).clone()), ("y", number.clone()), ("z", number)];
    let named = |columns: &[(&str, ArrayRef)]| {
        let fields = columns
            .iter()
            .map(|(name, array)| (Arc::new(Field::new(*name, array.data_type().clone(), true)), array.clone()));
        StructArray::from(fields.collect::<Vec<_>>())
    };
    assert!(map.contains_many(&named(&columns[..2])).unwrap().value(0));
    assert!(matches!(map.contains_many(&named(&columns)), Err(ReadError::KeyType { .. })));
    let nulls = map.contains_many(&arrow_array::NullArray::new(2)).unwrap();
    assert_eq!(nulls.iter().flatten().collect::<Vec<_>>(), [false, false]);
    scratch.put("one", &crate::scratch::numbered(3, 0));
    assert!(message(scratch.store.table("one").unwrap().composite_key(&["a".into()])).contains("not several columns"));
}

#[test]
fn manifests_ask_for_readers_that_know_such_keys() {
    let scratch = Scratch::new();
    small(&scratch.store);
    scratch.put("one", &crate::scratch::numbered(3, 0));
    let manifest = |name: &str, number: u32| {
        std::fs::read_to_string(scratch.path().join(name).join(format!("manifest-{number:06}.json"))).unwrap()
    };
    assert!(manifest("m", 1).contains("\"format_version\":2,"));
    assert!(manifest("one", 1).contains("\"format_version\":1,"));
    scratch.store.rollback("m", 1).unwrap();
    assert!(manifest("m", 2).contains("\"format_version\":2,"));
    assert!(std::fs::read_to_string(scratch.path().join("pheon.json")).unwrap().contains("\"format_version\":1,"));
}

#[test]
fn every_damaged_byte_of_the_key_columns_is_seen() {
    let scratch = Scratch::new();
    small(&scratch.store);
    let map = scratch.store.map("m").unwrap();
    let want: Vec<Vec<u8>> =
        [("a", -3i64), ("a", 2), ("b", -1)].map(|(t, n)| map.composite_key(&[t.into(), n.into()]).unwrap()).to_vec();
    drop(map);
    let entries = std::fs::read_dir(scratch.path().join("m")).unwrap().map(|e| e.unwrap().path());
    let segment = entries.into_iter().find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("seg-")).unwrap();
    for file in ["data.arrow", "index.arrow"] {
        let path = segment.join(file);
        let good = std::fs::read(&path).unwrap();
        let write = |bytes: &[u8]| {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, bytes).unwrap();
        };
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            write(&bad);
            assert!(!scratch.store.verify("m").unwrap().is_ok(), "{file}: byte {at}");
            // No wrong value, no crash.
            if let Ok(map) = scratch.store.map("m") {
                for key in &want {
                    let _ = map.find(KeyRef::Bytes(key));
                    let _ = map.prefix(&key[..2]);
                }
            }
        }
        write(&good);
    }
    assert!(scratch.store.verify("m").unwrap().is_ok());
}
