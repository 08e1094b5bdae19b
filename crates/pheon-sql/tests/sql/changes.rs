//! Statements that change the store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchIterator};
use pheon::{ChangeOptions, PutOptions, Store};
use pheon_sql::{Access, EngineOptions, SqlError};

use crate::scratch::{Scratch, batch, put, runtime};

#[test]
fn insert_appends_and_refuses_keys_that_are_there() {
    let scratch = Scratch::new();
    assert_eq!(scratch.change("insert into numbers values (1, 0.5, 'one'), (3, null, null)").unwrap(), 2);
    assert_eq!(scratch.store.table("numbers").unwrap().version(), 2);
    assert_eq!(scratch.rows("select * from numbers where n in (1, 3)").unwrap(), ["1|0.5|one", "3|null|null"]);
    let again = scratch.change("insert into numbers (n) values (1)").unwrap_err();
    assert!(matches!(&again, SqlError::Write(pheon::WriteError::KeyExists { .. })), "{again:?}");
    let null = scratch.change("insert into numbers values (null, 1, 'x')").unwrap_err();
    assert!(matches!(&null, SqlError::Write(_) | SqlError::Value { .. }), "{null:?}");
    assert_eq!(scratch.store.table("numbers").unwrap().version(), 2);
    assert_eq!(scratch.change("insert into plain select * from plain").unwrap(), 3);
    assert_eq!(scratch.one("select count(*), sum(\"Value\") from \"Plain\""), "6|12");
}

#[test]
fn three_ways_to_replace() {
    let scratch = Scratch::new();
    scratch.change("replace into numbers values (2, 7, 'a')").unwrap();
    scratch.change("insert or replace into numbers values (4, 7, 'b')").unwrap();
    let sql = "insert into numbers values (6, 7, 'c') on conflict (n) do update \
               set half = excluded.half, name = excluded.name";
    scratch.change(sql).unwrap();
    assert_eq!(scratch.rows("select * from numbers where n in (2, 4, 6)").unwrap(), ["2|7.0|a", "4|7.0|b", "6|7.0|c"]);
    assert_eq!(scratch.one("select count(*) from numbers"), "1000");
    let wrong =
        "insert into numbers values (6, 7, 'c') on conflict (half) do update set n = excluded.n, name = excluded.name";
    assert!(matches!(scratch.change(wrong), Err(SqlError::Plan { .. })));
    let wrong =
        "insert into numbers (n, half, name) values (6, 7, 'c') on conflict (n) do update set half = excluded.half";
    assert!(matches!(scratch.change(wrong), Err(SqlError::Unsupported { .. })));
    for (wrong, column) in [
        ("insert into numbers values (8, 7, 'c') on conflict (n) do update set half = excluded.half", "name"),
        ("insert into numbers (n, half) values (8, 7) on conflict (n) do update set half = excluded.half", "name"),
        ("insert into numbers (n, half) values (8, 7) on conflict do update set half = excluded.half", "name"),
        ("insert into numbers values (8, 7, 'c') on conflict (n) do update set n = excluded.n", "half"),
        ("insert into numbers values (8, 7, 'c') on conflict (n) do update set other = excluded.other", "other"),
    ] {
        let e = scratch.change(wrong).unwrap_err().to_string();
        assert!(e.contains(column), "{wrong}: {e}");
    }
    assert_eq!(scratch.rows("select * from numbers where n = 8").unwrap(), ["8|2.0|name 4"]);
    let sql = "insert into numbers (n, half) values (8, 7) on conflict (n) do update \
               set half = excluded.half, name = excluded.name";
    scratch.change(sql).unwrap();
    assert_eq!(scratch.rows("select * from numbers where n = 8").unwrap(), ["8|7.0|null"], "it was set to null");
    assert!(matches!(scratch.change("replace into plain values (1)"), Err(SqlError::Unsupported { .. })));
}

#[test]
fn rows_that_are_there_may_stay() {
    let scratch = Scratch::new();
    let sql =
        "insert into numbers values (2, 7, 'a'), (3, 7, 'b'), (3, 8, 'c'), (4, 7, 'd') on conflict (n) do nothing";
    assert_eq!(scratch.change(sql).unwrap(), 1);
    assert_eq!(
        scratch.rows("select * from numbers where n in (2, 3, 4)").unwrap(),
        ["2|0.5|name 1", "3|7.0|b", "4|1.0|name 2"]
    );
    assert_eq!(scratch.store.table("numbers").unwrap().version(), 2);
    assert_eq!(scratch.change(sql).unwrap(), 0);
    assert_eq!(scratch.store.table("numbers").unwrap().version(), 2, "nothing changed, nothing is published");
    let several = "insert into pairs select a, b + 50, day from pairs where a = 'a9' on conflict do nothing";
    assert_eq!(scratch.change(several).unwrap(), 50);
    assert_eq!(scratch.one("select count(*), max(b) from pairs where a = 'a9'"), "150|149");
    for (wrong, why) in [
        ("insert into words values ('w0001', 1) on conflict do nothing", "occur once"),
        ("insert into plain values (1) on conflict do nothing", "occur once"),
        ("insert into numbers (n) values (1) on conflict (half) do nothing", "half"),
    ] {
        let e = scratch.change(wrong).unwrap_err().to_string();
        assert!(e.contains(why), "{wrong}: {e}");
    }
}

#[test]
fn update_replaces_rows_of_a_unique_key() {
    let scratch = Scratch::new();
    assert_eq!(scratch.change("update numbers set half = half + 1, name = 'x' where n < 6").unwrap(), 3);
    assert_eq!(
        scratch.rows("select * from numbers where n < 8").unwrap(),
        ["0|1.0|x", "2|1.5|x", "4|2.0|x", "6|1.5|null"]
    );
    assert!(matches!(scratch.change("update numbers set n = n + 1"), Err(SqlError::Unsupported { .. })));
    assert!(matches!(scratch.change("update words set place = 1"), Err(SqlError::Unsupported { .. })));
}

#[test]
fn delete_takes_keys_out() {
    let scratch = Scratch::new();
    assert_eq!(scratch.change("delete from numbers where n between 10 and 20").unwrap(), 6);
    assert_eq!(scratch.change("delete from numbers where name = 'name 1' or half > 498").unwrap(), 4);
    assert_eq!(scratch.one("select count(*), max(n) from numbers"), "990|1992");
    assert_eq!(scratch.change("delete from pairs where a = 'a1' and b < 10").unwrap(), 10);
    assert_eq!(scratch.one("select count(*) from pairs"), "990");
    assert_eq!(scratch.change("delete from words where word = 'w0240'").unwrap(), 4);
    assert!(matches!(scratch.change("delete from words where place = 1"), Err(SqlError::Unsupported { .. })));
    assert!(matches!(scratch.change("delete from plain where \"Value\" = 1"), Err(SqlError::Unsupported { .. })));
    assert_eq!(scratch.change("delete from numbers where n = 1").unwrap(), 0);
    let before = scratch.store.table("words").unwrap().version();
    assert_eq!(scratch.change("delete from words").unwrap(), 996);
    assert_eq!(scratch.store.table("words").unwrap().version(), before + 1);
    assert_eq!(scratch.store.table("words").unwrap().key(), ["word"]);
    assert_eq!(scratch.change("delete from plain").unwrap(), 3);
}

#[test]
fn tables_are_created_and_dropped() {
    let scratch = Scratch::new();
    scratch.change("create table t (id int, name text, primary key (id))").unwrap();
    assert_eq!(scratch.one("select count(*) from t"), "0");
    assert!(scratch.store.map("t").is_ok());
    scratch.change("insert into t values (2, 'b'), (1, 'a')").unwrap();
    assert_eq!(scratch.rows("select * from t").unwrap(), ["1|a", "2|b"]);
    assert!(matches!(scratch.change("create table t (x int)"), Err(SqlError::Exists { .. })));
    assert_eq!(scratch.change("create table if not exists t (x int)").unwrap(), 0);
    assert_eq!(scratch.change("create table u as select n, half from numbers where n < 10").unwrap(), 5);
    assert!(scratch.store.table("u").unwrap().key().is_empty());
    let sql = "create table v (n bigint primary key, half double) as select n, half from numbers where n < 10";
    assert_eq!(scratch.change(sql).unwrap(), 5);
    assert_eq!(scratch.store.table("v").unwrap().key(), ["n"]);
    scratch.change("drop table t").unwrap();
    assert!(matches!(scratch.change("drop table t"), Err(SqlError::NotFound { .. })));
    assert_eq!(scratch.change("drop table if exists t").unwrap(), 0);
    scratch.change("drop table if exists PLAIN").unwrap();
    assert!(!scratch.store.contains("Plain").unwrap());
    assert!(scratch.change("drop table \"plain\"").is_err());
    assert!(matches!(scratch.change("create table \"a@1\" (x int)"), Err(SqlError::Unsupported { .. })));
    assert!(matches!(scratch.change("create table \"../x\" (x int)"), Err(SqlError::Read(_))));
    assert!(matches!(scratch.change("create table other.t (x int)"), Err(SqlError::Unsupported { .. })));
}

/// Whoever waited for them has gone before they got the lock that another writer had.
#[test]
fn a_statement_that_nobody_waits_for_publishes_nothing() {
    let scratch = Scratch::new();
    let numbers = scratch.store.table("numbers").unwrap();
    for sql in [
        "insert into numbers (n) values (1)",
        "replace into numbers (n) values (2)",
        "insert into numbers (n) values (1) on conflict do nothing",
        "update numbers set half = 0 where n = 2",
        "delete from numbers where n = 2",
        "delete from numbers",
        "create or replace table numbers as select 1 as n",
    ] {
        let writer = scratch.store.upserter("numbers", &numbers.schema(), ChangeOptions::default()).unwrap();
        let runtime = runtime();
        runtime.block_on(async {
            let statement = scratch.engine.session().prepare(sql).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(200), statement.update(None)).await;
            assert!(waited.is_err(), "{sql}");
        });
        drop(writer);
        // With it end the threads that write.
        drop(runtime);
        assert_eq!(scratch.store.table("numbers").unwrap().version(), 1, "{sql}");
    }
}

/// Rights that are asked for when a statement has been planned: meanwhile another writer appends a row.
#[derive(Debug)]
struct Meanwhile {
    store: Store,
    row: Mutex<Option<RecordBatch>>,
}

impl Access for Meanwhile {
    fn may_read(&self, _: &str) -> bool {
        true
    }

    fn may_write(&self, dataset: &str) -> bool {
        if let Some(row) = self.row.lock().unwrap().take() {
            let rows = RecordBatchIterator::new([Ok(row.clone())], row.schema());
            self.store.append(dataset, rows, ChangeOptions::default()).unwrap();
        }
        true
    }

    fn may_admin(&self, _: &str) -> bool {
        true
    }
}

/// A table whose keys occur once without having to.
fn by_chance(store: &Store, keys: &[i64]) -> RecordBatch {
    let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let rows = batch(vec![("k", column(keys.to_vec())), ("v", column(keys.iter().map(|k| k * 10).collect()))]);
    put(store, "chance", rows.clone(), PutOptions::table(["k"]));
    rows
}

#[test]
fn rows_that_another_writer_adds_meanwhile_stay() {
    for sql in [
        "update chance set v = 0 where v = 20",
        "delete from chance where v = 20",
        "insert into chance values (2, 0), (9, 0) on conflict do nothing",
    ] {
        let scratch = Scratch::new();
        let row = by_chance(&scratch.store, &[2]);
        by_chance(&scratch.store, &[1, 2, 3]);
        let access = Arc::new(Meanwhile { store: scratch.store.clone(), row: Mutex::default() });
        runtime().block_on(async {
            let session = scratch.engine.session().with_access(access.clone());
            let statement = session.prepare(sql).await.unwrap();
            *access.row.lock().unwrap() = Some(row);
            let refused = statement.update(None).await.unwrap_err();
            assert!(access.row.lock().unwrap().is_none(), "{sql}: it was planned before the row came");
            let by_now = matches!(&refused, SqlError::Unsupported { problem } if problem.contains("by now"));
            assert!(by_now, "{sql}: {refused:?}");
            let anew = statement.update(None).await.unwrap_err();
            assert!(matches!(&anew, SqlError::Unsupported { .. }), "{sql}: {anew:?}");
        });
        assert_eq!(scratch.rows("select * from chance").unwrap(), ["1|10", "2|20", "2|20", "3|30"], "{sql}");
        assert_eq!(scratch.store.table("chance").unwrap().version(), 3, "{sql}");
    }
}

/// Those that do not make a key occur twice are no conflict, and conditions on keys mean all rows of a key.
#[test]
fn other_rows_that_come_meanwhile_are_no_conflict() {
    for (sql, new, expected) in [
        ("update chance set v = 0 where v = 20", 4, ["1|10", "2|0", "3|30", "4|40"].as_slice()),
        ("delete from chance where v = 20", 4, ["1|10", "3|30", "4|40"].as_slice()),
        ("insert into chance values (2, 0) on conflict do nothing", 4, ["1|10", "2|20", "3|30", "4|40"].as_slice()),
        ("delete from chance where k = 2", 2, ["1|10", "3|30"].as_slice()),
        ("replace into chance values (2, 5)", 2, ["1|10", "2|5", "3|30"].as_slice()),
    ] {
        let scratch = Scratch::new();
        let row = by_chance(&scratch.store, &[new]);
        by_chance(&scratch.store, &[1, 2, 3]);
        let access = Arc::new(Meanwhile { store: scratch.store.clone(), row: Mutex::default() });
        runtime().block_on(async {
            let session = scratch.engine.session().with_access(access.clone());
            let statement = session.prepare(sql).await.unwrap();
            *access.row.lock().unwrap() = Some(row);
            statement.update(None).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            assert!(access.row.lock().unwrap().is_none(), "{sql}");
        });
        assert_eq!(scratch.rows("select * from chance").unwrap(), expected, "{sql}");
        assert!(scratch.store.verify("chance").unwrap().is_ok(), "{sql}");
    }
}

#[test]
fn keys_that_come_twice_in_a_statement_stay_once() {
    let scratch = Scratch::new();
    by_chance(&scratch.store, &[1, 2, 3]);
    assert_eq!(scratch.change("insert into chance values (7, 1), (7, 2), (2, 0) on conflict do nothing").unwrap(), 1);
    assert_eq!(scratch.rows("select * from chance where k > 1").unwrap(), ["2|20", "3|30", "7|1"]);
    runtime().block_on(async {
        let statement = scratch.engine.session().prepare("update chance set v = ? where k = ?").await.unwrap();
        let column = |values: [i64; 3]| Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
        let rows = batch(vec![("v", column([4, 5, 6])), ("k", column([7, 7, 1]))]);
        statement.update(Some(rows)).await.unwrap();
    });
    assert_eq!(scratch.rows("select * from chance").unwrap(), ["1|6", "2|20", "3|30", "7|5"]);
    assert!(scratch.store.verify("chance").unwrap().is_ok());
    scratch.store.compact("chance", ChangeOptions::default()).unwrap();
    // An INSERT adds rows as before, several of a key too.
    let again = scratch.change("insert into chance values (7, 8), (7, 9)").unwrap();
    assert_eq!((again, scratch.one("select count(*) from chance where k = 7")), (2, "3".to_owned()));
}

#[test]
fn keys_to_delete_are_memory_of_the_query() {
    let mut options = EngineOptions::default();
    options.query_memory_bytes_max = 4 << 10;
    let scratch = Scratch::with(options);
    let e = scratch.change("delete from numbers where half >= 0").unwrap_err();
    assert!(matches!(&e, SqlError::Limit { problem } if problem.contains("keys to delete")), "{e:?}");
    assert_eq!(scratch.change("delete from numbers where half < 10").unwrap(), 20);
    assert_eq!(scratch.engine.memory_bytes(), 0);
}

#[test]
fn a_failing_statement_publishes_nothing() {
    let scratch = Scratch::new();
    let failed = scratch.change("insert into plain select 1 / (\"Value\" - 2) from \"Plain\"").unwrap_err();
    assert!(matches!(failed, SqlError::Value { .. }), "{failed:?}");
    assert_eq!(scratch.store.table("Plain").unwrap().version(), 1);
    assert!(scratch.change("create table w as select 1 / (\"Value\" - 2) from \"Plain\"").is_err());
    assert!(!scratch.store.contains("w").unwrap());
}
