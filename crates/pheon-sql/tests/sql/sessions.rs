//! Names, versions, snapshots, rights.

use std::sync::Arc;

use arrow_array::RecordBatch;
use pheon::Store;
use pheon_sql::{Access, Engine, EngineOptions, IngestConflict, IngestMode, IngestOptions, SqlError};

use crate::scratch::{Scratch, query, runtime};

#[test]
fn names_versions_and_the_catalogue() {
    let scratch = Scratch::new();
    scratch.change("delete from numbers where n < 100").unwrap();
    assert_eq!(scratch.one("select count(*) from numbers"), "950");
    assert_eq!(scratch.one("select count(*) from \"numbers@1\""), "1000");
    assert_eq!(scratch.one("select count(*) from pheon.public.\"numbers@1\""), "1000");
    assert_eq!(scratch.one("select count(*) from Plain"), "3");
    assert_eq!(scratch.rows("select \"Value\" from \"Plain\"").unwrap(), ["3", "1", "2"]);
    for missing in ["nothing", "\"numbers@9\"", "\"../numbers\""] {
        let e = scratch.rows(&format!("select * from {missing}")).unwrap_err();
        assert!(matches!(e, SqlError::NotFound { .. }), "{missing}: {e:?}");
    }
    let sql = "select table_name from information_schema.tables where table_schema = 'public' order by 1";
    assert_eq!(scratch.rows(sql).unwrap(), ["Plain", "numbers", "pairs", "words"]);
    let sql = "select column_name, is_nullable from information_schema.columns where table_name = 'pairs'";
    assert_eq!(scratch.rows(sql).unwrap(), ["a|NO", "b|NO", "day|YES"]);
    let facts = scratch.engine.session().tables().unwrap();
    let facts: Vec<_> = facts.iter().map(|t| (t.name.as_str(), t.key.join(","), t.unique, t.rows)).collect();
    let key = |k: &str| k.to_owned();
    assert_eq!(
        facts,
        [
            ("Plain", key(""), false, 3),
            ("numbers", key("n"), true, 950),
            ("pairs", key("a,b"), true, 1000),
            ("words", key("word"), false, 1000)
        ]
    );
}

#[test]
fn a_snapshot_stays_where_it_is_and_takes_no_changes() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let snapshot = scratch.engine.snapshot();
        let count = "select count(*) from numbers";
        let first = snapshot.prepare(count).await.unwrap();
        assert_eq!(query(&first, None).await.unwrap(), ["1000"]);
        let delete = scratch.engine.session().prepare("delete from numbers where n < 100").await.unwrap();
        assert_eq!(delete.update(None).await.unwrap(), 50);
        assert_eq!(query(&first, None).await.unwrap(), ["1000"]);
        assert_eq!(query(&snapshot.prepare(count).await.unwrap(), None).await.unwrap(), ["1000"]);
        assert!(matches!(snapshot.prepare("delete from numbers").await, Err(SqlError::ReadOnly)));
        snapshot.end_snapshot();
        assert_eq!(query(&first, None).await.unwrap(), ["950"], "clients go on with statements of a transaction");
        assert!(matches!(snapshot.prepare("delete from numbers").await, Err(SqlError::ReadOnly)));
        assert!(matches!(snapshot.prepare("create table t (a int)").await, Err(SqlError::ReadOnly)));
    });
    let read_only = Store::open_read_only(scratch.store.path()).unwrap();
    let engine = Engine::new(read_only, EngineOptions::default()).unwrap();
    assert!(matches!(engine.execute("drop table numbers", None), Err(SqlError::ReadOnly)));
    assert!(engine.collect("select 1").is_ok());
}

/// Reads `numbers`, writes `pairs`, and that is all.
#[derive(Debug)]
struct Few;

impl Access for Few {
    fn may_read(&self, dataset: &str) -> bool {
        dataset == "numbers"
    }

    fn may_write(&self, dataset: &str) -> bool {
        dataset == "pairs"
    }

    fn may_admin(&self, _: &str) -> bool {
        false
    }
}

#[test]
fn rights_are_asked_before_anything_is_told() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let session = scratch.engine.session().with_access(Arc::new(Few));
        for denied in [
            "select * from words",
            "select * from \"words@1\"",
            "select * from there_is_none",
            "select * from pairs",
            "select * from numbers where n in (select place from words)",
            "select (select max(day) from pairs)",
            "insert into numbers (n) values (1)",
            "insert into pairs select * from words",
            "insert into pairs select * from pairs",
            "update pairs set day = null",
            "drop table numbers",
            "create table other (x int)",
            "explain select * from words",
            "with w as (select * from words) select 1 from w",
        ] {
            let e = session.prepare(denied).await.map(|_| ()).unwrap_err();
            assert!(matches!(e, SqlError::Denied { .. }), "{denied}: {e:?}");
        }
        let insert = session.prepare("insert into pairs values ('new', 1, null)").await.unwrap();
        assert_eq!(insert.update(None).await.unwrap(), 1);
        let tables = session.prepare("select table_name from information_schema.tables where table_schema = 'public'");
        assert_eq!(query(&tables.await.unwrap(), None).await.unwrap(), ["numbers"]);
        let columns =
            session.prepare("select distinct table_name from information_schema.columns where table_schema = 'public'");
        assert_eq!(query(&columns.await.unwrap(), None).await.unwrap(), ["numbers"]);
        assert_eq!(session.tables().unwrap().len(), 1);
    });
}

/// Everything, with names that begin so.
#[derive(Debug)]
struct Beginning(&'static str);

impl Access for Beginning {
    fn may_read(&self, dataset: &str) -> bool {
        dataset.starts_with(self.0)
    }

    fn may_write(&self, dataset: &str) -> bool {
        dataset.starts_with(self.0)
    }

    fn may_admin(&self, dataset: &str) -> bool {
        dataset.starts_with(self.0)
    }
}

#[test]
fn rights_are_those_of_the_dataset_that_a_name_stands_for() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let run = async |access, sql: &str| {
            let statement = scratch.engine.session().with_access(Arc::new(Beginning(access))).prepare(sql).await?;
            if statement.is_query() { query(&statement, None).await.map(|_| 0) } else { statement.update(None).await }
        };
        let statements = [
            "select * from plain",
            "select * from \"PLAIN\"",
            "select 1 where 1 in (select \"Value\" from plain)",
            "insert into plain values (4)",
            "delete from plain",
            "drop table plain",
        ];
        for sql in statements {
            let e = run("pl", sql).await.unwrap_err();
            assert!(matches!(e, SqlError::NotFound { .. } | SqlError::Denied { .. }), "{sql}: {e:?}");
            let e = run("Other", sql).await.unwrap_err();
            assert!(matches!(e, SqlError::Denied { .. }), "{sql}: {e:?}");
        }
        assert_eq!(run("pl", "drop table if exists plain").await.unwrap(), 0);
        assert_eq!(scratch.store.table("Plain").unwrap().version(), 1);
        // One that the caller may not know of is not in the way, and is not told.
        assert_eq!(run("", "create table \"PLAIN\" as select 1 as x").await.unwrap(), 1);
        assert_eq!(run("Plain", "insert into plain values (4)").await.unwrap(), 1);
        assert_eq!(run("", "create table plain as select 1 as x").await.unwrap(), 1);
        for sql in statements.iter().filter(|sql| !sql.contains("PLAIN")) {
            run("Plain", sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        assert_eq!(scratch.store.datasets().unwrap(), ["PLAIN", "numbers", "pairs", "plain", "words"]);
    });
}

#[test]
fn rights_are_asked_at_each_execution() {
    let scratch = Scratch::new();
    runtime().block_on(async {
        let session = scratch.engine.session();
        let names = "select table_name from information_schema.tables where table_schema = 'public' order by 1";
        let select = session.prepare("select count(*) from numbers").await.unwrap();
        let insert = session.prepare("insert into numbers (n) values (1)").await.unwrap();
        let names = session.prepare(names).await.unwrap();
        assert_eq!(query(&names, None).await.unwrap().len(), 4);
        assert_eq!((select.open_tables(), insert.open_tables()), (1, 1));
        for released in [false, true] {
            if released {
                select.release();
                insert.release();
                assert_eq!(select.open_tables() + insert.open_tables(), 0);
            }
            let less = |statement: &pheon_sql::Statement| statement.clone().with_access(Arc::new(Beginning("words")));
            assert!(matches!(query(&less(&select), None).await, Err(SqlError::Denied { .. })));
            assert!(matches!(less(&insert).update(None).await, Err(SqlError::Denied { .. })));
            assert_eq!(query(&less(&names), None).await.unwrap(), ["words"]);
            assert_eq!(query(&names, None).await.unwrap().len(), 4);
            assert_eq!(query(&select, None).await.unwrap(), ["1000"]);
        }
        assert_eq!(select.datasets(), ["numbers"]);
        assert_eq!(insert.update(None).await.unwrap(), 1);
    });
}

#[test]
fn ingest_in_all_modes() {
    let scratch = Scratch::new();
    let batch = scratch.engine.collect("select \"Value\" from \"Plain\"").unwrap().1.remove(0);
    runtime().block_on(async {
        let session = scratch.engine.session();
        let ingest = async |name: &str, mode| {
            let rows = futures::stream::iter([Ok(batch.clone())]);
            session.ingest(name, batch.schema(), IngestOptions::new(mode), rows).await
        };
        assert!(matches!(ingest("new", IngestMode::Append).await, Err(SqlError::NotFound { .. })));
        assert_eq!(ingest("new", IngestMode::Create).await.unwrap(), 3);
        assert!(matches!(ingest("new", IngestMode::Create).await, Err(SqlError::Exists { .. })));
        assert_eq!(ingest("new", IngestMode::Append).await.unwrap(), 3);
        assert_eq!(ingest("new", IngestMode::CreateAppend).await.unwrap(), 3);
        assert_eq!(scratch.store.table("new").unwrap().num_rows(), 9);
        assert_eq!(ingest("new", IngestMode::Replace).await.unwrap(), 3);
        assert_eq!(scratch.store.table("new").unwrap().num_rows(), 3);
        let broken = futures::stream::iter([Ok(batch.clone()), Err(SqlError::Source { problem: "gone".into() })]);
        assert!(
            session.ingest("broken", batch.schema(), IngestOptions::new(IngestMode::Create), broken).await.is_err()
        );
        assert!(!scratch.store.contains("broken").unwrap());
    });
}

#[test]
fn ingest_with_a_key() {
    let scratch = Scratch::new();
    let some = |sql: &str| scratch.engine.collect(sql).unwrap().1.remove(0);
    let rows = some("select * from (values (3, 'c'), (1, 'a'), (2, 'b')) t(id, name)");
    let more = some("select * from (values (3, 'C'), (4, 'd')) t(id, name)");
    let runtime = runtime();
    let ingest = |rows: &RecordBatch, options: IngestOptions| {
        let stream = futures::stream::iter([Ok(rows.clone())]);
        runtime.block_on(scratch.engine.session().ingest("keyed", rows.schema(), options, stream))
    };
    let create = IngestOptions::new(IngestMode::Create).key(["id"]);
    assert_eq!(ingest(&rows, create).unwrap(), 3);
    assert_eq!(scratch.rows("select * from keyed").unwrap(), ["1|a", "2|b", "3|c"]);
    assert_eq!(scratch.store.table("keyed").unwrap().key(), ["id"]);
    let append = IngestOptions::new(IngestMode::Append);
    let again = ingest(&rows, append.clone()).unwrap_err();
    assert!(matches!(&again, SqlError::Write(pheon::WriteError::KeyExists { .. })), "{again:?}");
    assert_eq!(ingest(&more, append.clone().conflict(IngestConflict::Nothing)).unwrap(), 1);
    assert_eq!(scratch.rows("select * from keyed where id > 2").unwrap(), ["3|c", "4|d"]);
    assert_eq!(ingest(&more, append.clone().conflict(IngestConflict::Replace)).unwrap(), 2);
    assert_eq!(scratch.rows("select * from keyed where id > 2").unwrap(), ["3|C", "4|d"]);
    let other = ingest(&more, append.key(["name"])).unwrap_err();
    assert!(matches!(&other, SqlError::Plan { problem } if problem.contains("id")), "{other:?}");
    let replace = IngestOptions::new(IngestMode::Replace);
    assert_eq!(ingest(&more, replace.clone()).unwrap(), 2);
    assert_eq!(scratch.store.table("keyed").unwrap().key(), ["id"], "the key stays");
    assert_eq!(ingest(&more, replace.key(Vec::<String>::new())).unwrap(), 2);
    assert!(scratch.store.table("keyed").unwrap().key().is_empty());
}
