//! Prepared statements: types, values, and many rows of them at once.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, NullArray, RecordBatch, StringArray};
use arrow_schema::DataType;
use futures::TryStreamExt;
use pheon_sql::{EngineOptions, SqlError};

use crate::scratch::{Scratch, batch, query, runtime};

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn values(columns: Vec<ArrayRef>) -> RecordBatch {
    batch(columns.into_iter().map(|c| ("p", c)).collect())
}

/// Nulls take no bytes until they get a type.
#[test]
fn parameters_that_would_become_too_large() {
    let mut options = EngineOptions::default();
    options.query_memory_bytes_max = 4 << 20;
    let scratch = Scratch::with(options);
    let nulls = values(vec![Arc::new(NullArray::new(1 << 20))]);
    runtime().block_on(async {
        let session = scratch.engine.session();
        for sql in ["select 1 where $1 > 5", "select 1 where $1 > cast(5 as decimal(38, 2))", "select 1 where $1 = 'x'"]
        {
            let statement = session.prepare(sql).await.unwrap();
            let refused = statement.query(Some(nulls.clone())).await.map(|_| ());
            assert!(
                matches!(&refused, Err(SqlError::Limit { problem }) if problem.contains("parameters")),
                "{sql}: {refused:?}"
            );
            // Nothing is greater than null, nor equal to it.
            assert!(query(&statement, Some(nulls.slice(0, 10))).await.unwrap().is_empty(), "{sql}");
        }
    });
}

/// Statements with rows of parameters, and what they answer to them.
#[test]
fn many_rows_of_parameters_answer_in_their_order() {
    let scratch = Scratch::new();
    let text = |v: &[&str]| Arc::new(StringArray::from(v.to_vec())) as ArrayRef;
    let cases: Vec<(&str, Vec<ArrayRef>, Vec<&str>)> = vec![
        (
            "select * from numbers where n = ?",
            vec![ints(&[8, 3, 4, 8])],
            vec!["8|2.0|name 4", "4|1.0|name 2", "8|2.0|name 4"],
        ),
        ("select name, n from numbers where ? = n", vec![ints(&[2, 4])], vec!["name 1|2", "name 2|4"]),
        ("select n + $1, half from numbers where n = $1", vec![ints(&[2, 4])], vec!["4|0.5", "8|1.0"]),
        (
            "select n as m from numbers x where x.n = $1 and half > $2",
            vec![ints(&[2, 4, 6]), ints(&[1, 0, 1])],
            vec!["4", "6"],
        ),
        (
            "select place from words where word = ?",
            vec![text(&["w0001", "w0240", "none"])],
            vec!["2", "3", "480", "481", "480", "481"],
        ),
        (
            "select day from pairs where b = $2 and a = $1",
            vec![text(&["a1", "a0"]), ints(&[1, 2])],
            vec!["1970-04-12", "1970-01-03"],
        ),
        ("select count(*) from numbers where n < ?", vec![ints(&[4, 10])], vec!["2", "5"]),
        ("select n from numbers where n > ? order by n limit 1", vec![ints(&[4, 10])], vec!["6", "12"]),
        ("select $1 + 1, upper($2)", vec![ints(&[4, 10]), text(&["a", "b"])], vec!["5|A", "11|B"]),
        ("select n from numbers where n in (select n from numbers where n = ?)", vec![ints(&[4, 5])], vec!["4"]),
        ("select * from (select n, half from numbers) t where n = ?", vec![ints(&[6])], vec!["6|1.5"]),
    ];
    runtime().block_on(async {
        let session = scratch.engine.session();
        for (sql, columns, expected) in cases {
            let statement = session.prepare(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            let values = values(columns);
            let statement = statement.bound(values.schema_ref()).await.unwrap();
            let rows = query(&statement, Some(values)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            assert_eq!(rows, expected, "{sql}");
        }
    });
}

#[test]
fn types_are_inferred_and_values_converted() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let session = scratch.engine.session();
        let statement = session.prepare("select * from pairs where a = ? and b = ?").await.unwrap();
        let types: Vec<DataType> =
            statement.parameter_schema().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::LargeUtf8, DataType::Int32]);
        let given = values(vec![Arc::new(StringArray::from(vec!["a1"])), Arc::new(StringArray::from(vec!["7"]))]);
        assert_eq!(query(&statement, Some(given)).await.unwrap(), ["a1|7|1970-04-18"]);
        // A number that the column cannot hold.
        let given = values(vec![Arc::new(StringArray::from(vec!["a1"])), ints(&[1 << 40])]);
        let rows = query(&statement, Some(given)).await;
        assert!(matches!(&rows, Err(SqlError::Parameters { .. })), "{rows:?}");
        let wrong = query(&statement, Some(values(vec![ints(&[1])]))).await;
        assert!(matches!(wrong, Err(SqlError::Parameters { .. })), "{wrong:?}");
        assert!(matches!(query(&statement, None).await, Err(SqlError::Parameters { .. })));
        let open = session.prepare("select ?").await.unwrap();
        assert_eq!(open.parameter_schema().field(0).data_type(), &DataType::Null);
        let given = values(vec![Arc::new(Int32Array::from(vec![5]))]);
        let bound = open.bound(given.schema_ref()).await.unwrap();
        assert_eq!(bound.schema().field(0).data_type(), &DataType::Int32);
        assert_eq!(query(&bound, Some(given)).await.unwrap(), ["5"]);
        assert!(matches!(session.prepare("select ? + $1").await, Err(SqlError::Syntax { .. })));
    });
}

#[test]
fn updates_with_many_rows_publish_one_version() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let session = scratch.engine.session();
        let statement = session.prepare("insert into numbers (n, half) values (?, ? + 0.5)").await.unwrap();
        assert!(!statement.is_query());
        assert_eq!(statement.schema().fields().len(), 0);
        let rows = statement.update(Some(values(vec![ints(&[1, 3, 5]), ints(&[10, 30, 50])]))).await.unwrap();
        assert_eq!((rows, scratch.store.table("numbers").unwrap().version()), (3, 2));
        let statement = session.prepare("delete from numbers where n = ?").await.unwrap();
        assert_eq!(statement.update(Some(values(vec![ints(&[2, 4, 7])]))).await.unwrap(), 2);
        assert_eq!(scratch.store.table("numbers").unwrap().version(), 3);
    });
    assert_eq!(
        scratch.rows("select n, half from numbers where n < 7").unwrap(),
        ["0|0.0", "1|10.5", "3|30.5", "5|50.5", "6|1.5"]
    );
}

#[test]
fn a_prepared_statement_sees_newer_versions() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let session = scratch.engine.session();
        let statement = session.prepare("select count(*) from numbers where n < ?").await.unwrap();
        let of = |n: i64| Some(values(vec![ints(&[n])]));
        assert_eq!(query(&statement, of(4)).await.unwrap(), ["2"]);
        session.prepare("insert into numbers (n) values (1)").await.unwrap().update(None).await.unwrap();
        assert_eq!(query(&statement, of(4)).await.unwrap(), ["3"]);
        let sql = "create or replace table numbers as select 1 as n";
        session.prepare(sql).await.unwrap().update(None).await.unwrap();
        let all = session.prepare("select * from words").await.unwrap();
        session.prepare("create or replace table words as select 1 as x").await.unwrap().update(None).await.unwrap();
        assert!(matches!(all.query(None).await.err(), Some(SqlError::Changed { .. })));
    });
}

/// A few keys at a time: those that have about a batch of rows.
#[test]
fn answers_to_many_keys_come_in_parts() {
    let mut options = EngineOptions::default();
    options.batch_rows = 8;
    let scratch = Scratch::with(options);
    runtime().block_on(async {
        let session = scratch.engine.session();
        for (sql, key, of_key) in [
            ("select place from words where word = ?", "w0001", 2),
            ("select place + 0, upper($1) from words where word = $1", "w0240", 4),
        ] {
            let statement = session.prepare(sql).await.unwrap();
            let keys = Arc::new(StringArray::from(vec![key; 50])) as ArrayRef;
            let stream = statement.query(Some(values(vec![keys]))).await.unwrap();
            let found: Vec<RecordBatch> = stream.try_collect().await.unwrap();
            assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 50 * of_key, "{sql}");
            assert!(found.iter().all(|batch| batch.num_rows() <= 8), "{sql}");
        }
        let statement = session.prepare("select n from numbers where n = ?").await.unwrap();
        let keys: Vec<i64> = (0..50).rev().map(|n| n * 2).collect();
        let found = query(&statement, Some(values(vec![ints(&keys)]))).await.unwrap();
        assert_eq!(found, keys.iter().map(ToString::to_string).collect::<Vec<_>>());
    });
}

#[test]
fn what_is_looked_up_is_memory_of_the_query() {
    let mut options = EngineOptions::default();
    options.query_memory_bytes_max = 4 << 10;
    let scratch = Scratch::with(options);
    runtime().block_on(async {
        let statement = scratch.engine.session().prepare("select half from numbers where n = ?").await.unwrap();
        let of = |count: i64| Some(values(vec![ints(&(0..count).collect::<Vec<_>>())]));
        assert_eq!(query(&statement, of(10)).await.unwrap().len(), 5);
        let e = query(&statement, of(1000)).await.unwrap_err();
        assert!(matches!(&e, SqlError::Limit { problem } if problem.starts_with("out of memory")), "{e:?}");
    });
    assert_eq!(scratch.engine.memory_bytes(), 0);
}

/// Statements that are executed for each row answer with a batch each; one lookup answers with one for all of them.
#[test]
fn many_keys_are_one_lookup() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let session = scratch.engine.session();
        for (sql, batches) in [
            ("select name, half from numbers where n = ?", 1),
            ("select name from numbers where n = ? and half >= 0", 1),
            ("select max(name) from numbers where n = ?", 50),
        ] {
            let statement = session.prepare(sql).await.unwrap();
            let given = values(vec![ints(&(0..50).map(|n| n * 2).collect::<Vec<_>>())]);
            let found: Vec<RecordBatch> = statement.query(Some(given)).await.unwrap().try_collect().await.unwrap();
            assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 50, "{sql}");
            assert_eq!(found.iter().filter(|batch| batch.num_rows() > 0).count(), batches, "{sql}");
        }
    });
}
