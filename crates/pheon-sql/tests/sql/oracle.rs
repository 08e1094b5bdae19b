//! Random filters on keys, against the same filters evaluated row by row.

use std::sync::{Arc, LazyLock, Mutex};

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Int8Array, Int64Array, LargeBinaryArray, StringArray,
    TimestampMicrosecondArray, UInt16Array,
};
use pheon::{ChangeOptions, PutOptions, Store};
use pheon_sql::{Engine, EngineOptions};
use proptest::prelude::*;

use crate::scratch::{batch, put, shown};

/// Pairs of tables of the same rows: one with a key, the other without, so that nothing is pushed into it.
static ENGINE: LazyLock<Mutex<(Engine, tempfile::TempDir)>> = LazyLock::new(|| Mutex::new(engine()));

/// Key columns of the tables `k0`, `k1` and so on, and literals of their types.
const KEYS: [(&[&str], &[&str]); 4] = [
    (&["i8"], &["-128", "-3", "0", "5", "127", "200", "2.5", "null"]),
    (&["text"], &["''", "'a'", "'ab'", "'b'", "'é'", "'zz'", "null"]),
    (&["text", "i8"], &["''", "'a'", "'ab'", "'b'", "'é'", "-3", "0", "5", "127"]),
    (&["u16", "day", "flag"], &["0", "7", "65535", "date '1970-01-03'", "true", "false"]),
];

fn engine() -> (Engine, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let texts = ["", "a", "ab", "aba", "abb", "b", "ba", "é", "ÿ", "zz"];
    let rows = |range: std::ops::Range<usize>| {
        let of = range.clone();
        batch(vec![
            ("id", Arc::new(Int64Array::from_iter_values(of.clone().map(|n| n as i64))) as ArrayRef),
            ("i8", Arc::new(Int8Array::from_iter_values(of.clone().map(|n| [-128, -3, 0, 1, 5, 127][n * 7 % 6])))),
            ("u16", Arc::new(UInt16Array::from_iter_values(of.clone().map(|n| [0, 7, 65535][n * 5 % 3])))),
            ("text", Arc::new(StringArray::from_iter_values(of.clone().map(|n| texts[n * 3 % 10])))),
            ("bytes", Arc::new(LargeBinaryArray::from_iter_values(of.clone().map(|n| [n as u8])))),
            ("day", Arc::new(Date32Array::from_iter_values(of.clone().map(|n| (n / 3 % 4) as i32)))),
            ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(of.clone().map(|n| n as i64)))),
            ("flag", Arc::new(BooleanArray::from_iter(of.map(|n| Some(n % 4 == 1))))),
        ])
    };
    put(&store, "plain", rows(0..200), PutOptions::table(Vec::<String>::new()));
    for (at, (key, _)) in KEYS.iter().enumerate() {
        let name = format!("k{at}");
        put(&store, &name, rows(0..120), PutOptions::table(key.iter().copied()));
        let more = rows(120..200);
        let reader = arrow_array::RecordBatchIterator::new([Ok(more.clone())], more.schema());
        // Every other table has two segments.
        store.append(&name, reader, ChangeOptions::default().compact(at % 2 == 0)).unwrap();
        if at % 2 == 0 {
            store.compact(&name, ChangeOptions::default()).unwrap();
        }
    }
    (Engine::new(store, EngineOptions::default()).unwrap(), dir)
}

fn condition(key: usize) -> impl Strategy<Value = String> {
    let (columns, literals) = KEYS[key];
    let of_type = move |column: &str, literal: &str| match column {
        "text" => literal.starts_with('\'') || literal == "null",
        "day" => literal.starts_with("date"),
        "flag" => matches!(literal, "true" | "false"),
        _ => literal.starts_with(|c: char| c == '-' || c.is_ascii_digit()) || literal == "null",
    };
    let leaf = (0..columns.len()).prop_flat_map(move |c| {
        let column = columns[c];
        let fitting: Vec<&str> = literals.iter().copied().filter(|l| of_type(column, l)).collect();
        let literal = prop::sample::select(fitting);
        let compared = (prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]), literal.clone())
            .prop_map(move |(op, l)| format!("{column} {op} {l}"));
        let list = prop::collection::vec(literal.clone(), 1..5).prop_flat_map(move |ls| {
            prop::sample::select(vec![
                format!("{column} in ({})", ls.join(", ")),
                format!("{column} not in ({})", ls.join(", ")),
            ])
        });
        let between = (literal.clone(), literal).prop_map(move |(a, b)| format!("{column} between {a} and {b}"));
        let like = prop::sample::select(vec!["a%", "ab%", "%b", "a_a", "é%", "", "%"]);
        let like =
            like.prop_map(
                move |p| if column == "text" { format!("text like '{p}'") } else { format!("{column} is not null") },
            );
        prop_oneof![compared, list, between, like, Just("id % 3 = 0".to_owned())]
    });
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn an_index_changes_no_answer((key, condition) in (0..KEYS.len()).prop_flat_map(|k| (Just(k), condition(k)))) {
        let guard = ENGINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ask = |table: &str| {
            let sql = format!("select id, i8, text, day from {table} where {condition} order by id");
            shown(&guard.0.collect(&sql).unwrap_or_else(|e| panic!("{sql}: {e}")).1)
        };
        prop_assert_eq!(ask(&format!("k{key}")), ask("plain"), "{}", condition);
        let sorted = format!("select {} from k{key} where {condition}", KEYS[key].0.join(", "));
        let rows = shown(&guard.0.collect(&sorted).unwrap().1);
        let again = format!("{sorted} order by {}", KEYS[key].0.join(", "));
        prop_assert_eq!(rows, shown(&guard.0.collect(&again).unwrap().1), "{}", condition);
    }
}
