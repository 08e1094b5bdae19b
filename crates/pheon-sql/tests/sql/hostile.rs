//! Statements that want too much, or something else than tables.

use pheon_sql::{EngineOptions, SqlError};

use crate::scratch::{Scratch, query, runtime};

#[test]
fn no_statement_reaches_files_or_settings() {
    let scratch = Scratch::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.csv").display().to_string();
    for sql in [
        &format!("copy numbers to '{path}'"),
        &format!("copy (select 1) to '{path}' stored as csv"),
        &format!("explain copy numbers to '{path}'"),
        &format!("create external table f (a int) stored as csv location '{path}'"),
        &format!("insert overwrite directory '{path}' select 1"),
        &format!("select * from '{path}'"),
        "select * from '/etc/passwd'",
        "select * from read_csv('/etc/passwd')",
        "set datafusion.execution.batch_size = 1",
        "set datafusion.runtime.memory_limit = '100G'",
        "reset datafusion.execution.batch_size",
        "create view v as select 1",
        "create schema s",
        "create database d",
        "drop schema public cascade",
        "create function f(int) returns int return $1",
        "prepare p as select 1",
        "execute p",
        "begin",
        "explain insert into numbers (n) values (1)",
        "explain analyze insert into numbers (n) values (1)",
        "explain analyze delete from numbers",
        "select 1; drop table numbers",
        "insert overwrite numbers select * from numbers",
        "merge into numbers using pairs on n = b when matched then delete",
        "truncate table nothing",
        "",
        ";",
        "select",
    ] {
        let e = scratch.engine.execute(sql, None).map(|_| ()).unwrap_err();
        let refused = matches!(
            e,
            SqlError::Unsupported { .. } | SqlError::Syntax { .. } | SqlError::Plan { .. } | SqlError::NotFound { .. }
        );
        assert!(refused, "{sql}: {e:?}");
    }
    assert!(std::fs::exists(&path).is_ok_and(|there| !there));
    assert_eq!(scratch.one("select count(*) from numbers"), "1000");
    assert_eq!(scratch.store.table("numbers").unwrap().version(), 1);
}

#[test]
fn deep_and_long_statements_are_refused_or_answered() {
    let scratch = Scratch::new();
    let nested = |open: &str, close: &str, n: usize| format!("select {}1{}", open.repeat(n), close.repeat(n));
    let chain = |op: &str, n: usize| format!("select 1{}", format!("{op} 1").repeat(n));
    for sql in [
        nested("(", ")", 10_000),
        nested("(select ", ")", 1000),
        nested("abs(", ")", 10_000),
        nested("array[", "]", 1000),
        nested("not ", "", 100_000),
        nested("- ", "", 100_000),
        nested("case when true then ", " end", 5000),
        chain(" +", 100_000),
        chain(" or 1 =", 50_000),
        chain(" union select", 20_000),
        chain("::int", 0) + &"::int".repeat(50_000),
        format!("select * from {}", vec!["plain"; 1000].join(",")),
        format!("select * from plain {}", "join plain on true ".repeat(2000)),
        format!("select '{}'", "x".repeat(2 << 20)),
        format!("select {}", vec!["?"; 10_000].join(",")),
    ] {
        let e = scratch.engine.execute(&sql, None).map(|_| ()).unwrap_err();
        let refused = matches!(e, SqlError::Limit { .. } | SqlError::Syntax { .. } | SqlError::Plan { .. });
        assert!(refused, "{}: {e:?}", &sql[..40]);
    }
    assert_eq!(scratch.one(&chain(" +", 190)), "191");
    assert_eq!(scratch.one(&nested("(", ")", 20)), "1");
    let list = (0..100_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(scratch.one(&format!("select count(*) from numbers where n in ({list})")), "1000");
    assert_eq!(scratch.one(&format!("select count(*) from numbers where half not in ({list})")), "500");
}

/// What the limits let through fits into the stack of a server's threads, 2 MiB.
#[test]
fn the_deepest_statements_fit_a_common_stack() {
    let scratch = Scratch::new();
    let chain = |op: &str, n: usize| format!("select 1{}", format!("{op} 1").repeat(n));
    let nested = |open: &str, close: &str, n: usize| format!("select {}1{}", open.repeat(n), close.repeat(n));
    let statements = [
        chain(" +", 195),
        chain(" = 1 or 1", 95),
        chain(" union all select", 95),
        nested("(", ")", 30),
        nested("abs(", ")", 30),
        nested("(select ", ")", 20),
        nested("case when true then ", " end", 30),
        format!("select 1{}", "::int".repeat(190)),
        format!("select count(*) from plain {}", "cross join (select 1) ".repeat(60)),
        format!("select n from numbers where {}", vec!["n = 4"; 95].join(" or ")),
    ];
    runtime().block_on(async {
        for sql in statements {
            let session = scratch.engine.session();
            let answered = tokio::spawn(async move {
                match session.prepare(&sql).await {
                    Ok(statement) => query(&statement, None).await.map(|rows| rows.len()),
                    Err(e) => Err(e),
                }
            });
            let answered = answered.await.unwrap();
            let fine = matches!(
                answered,
                Ok(1..) | Err(SqlError::Limit { .. } | SqlError::Syntax { .. } | SqlError::Plan { .. })
            );
            assert!(fine, "{answered:?}");
        }
    });
}

/// Common table expressions, each of which makes `s` of that of the one before.
fn doubled(expr: &str, times: usize) -> String {
    (1..=times).map(|n| format!(", t{n} as (select {expr} as s from t{})", n - 1)).collect()
}

#[test]
fn memory_is_bounded() {
    let mut options = EngineOptions::default();
    options.query_memory_bytes_max = 8 << 20;
    let scratch = Scratch::with(options);
    for sql in [
        "select a.n, b.n from numbers a, numbers b, numbers c order by a.half, b.half",
        "select distinct a.n, b.n, c.n from numbers a, numbers b, numbers c",
        "select array_agg(a.n) from numbers a, numbers b, numbers c",
        "select repeat('x', 1000000000)",
        "select lpad('x', 1000000000)",
        "select range(100000000000)",
        "select array_repeat(1, 1000000000)",
        "select sum(length(repeat(name, 1000000))) from numbers",
        "select repeat(repeat(repeat('x', 10000), 1000), 10000)",
        "select repeat(s, 100000) from (select repeat(name, 1000) s from numbers where n = 2)",
        "select replace(repeat('x', 10000), 'x', repeat('y', 10000))",
        "select regexp_replace(repeat('x', 10000), '(x)', repeat('\\1', 10000), 'g')",
        "select array_to_string(range(100000), repeat('y', 10000))",
        "select range(-100000000000, 0)",
        "select array_replace_all(string_to_array(repeat('a,', 100000), ','), 'a', repeat('x', 100000))",
        "select array_replace_n(string_to_array(repeat('a,', 100000), ','), 'a', repeat('x', 100000), 90000)",
        "select list_replace_all(array_repeat('a', 100000), 'a', repeat(name, 20000)) from numbers",
        "select sum(array_length(array_replace([name], name, repeat('x', 16000000)))) from numbers",
        "select array_resize(['a'], 1000000, repeat('x', 1000000))",
        "select array_to_string(['a', null, null, null], ',', repeat('x', 10000000))",
        &format!("select arrays_zip(range(100000), {})", vec!["[1]"; 1000].join(", ")),
        &format!("select regexp_match(repeat('x', 1000000), '{}.*{}')", "(".repeat(100), ")".repeat(100)),
        "select to_char(now(), repeat('%c', 1000000))",
        "select arrow_cast(null, 'FixedSizeBinary(2000000000)')",
        "select n, cast(null as int[1000000000]) from numbers",
        "select arrow_cast(null, 'FixedSizeList(1000000, Int64)') is null",
        "select generate_series(timestamp '1900-01-01', timestamp '2100-01-01', interval '1 microsecond')",
        &format!("with t0 as (select name as s from numbers) {} select * from t40", doubled("s || s", 40)),
        &format!("with t0 as (select name as s from numbers) {} select * from t40", doubled("concat(s, s)", 40)),
        &format!("with t0 as (select [n] as s from numbers) {} select * from t40", doubled("s || s", 40)),
        &format!("with t0 as (select [n] as s from numbers) {} select * from t40", doubled("array_concat(s, s)", 40)),
        "with recursive t as (select 'x' as s union all select s || s from t) select max(length(s)) from t",
    ] {
        let e = scratch.rows(sql).unwrap_err();
        assert!(matches!(e, SqlError::Limit { .. }), "{sql}: {e:?}");
    }
    assert_eq!(scratch.engine.memory_bytes(), 0);
    assert_eq!(scratch.one("select count(*) from numbers a, numbers b"), "1000000");
    let sql = "select repeat('ab', 3), lpad('1', 3, '0'), array_repeat(1, 2), replace('aba', 'a', 'cc'), \
               'a' || 1 || null, 'a' || 'b', concat('a', null), [1] || [2], range(3), \
               array_length(generate_series(date '2020-01-01', date '2020-12-31', interval '1 day'))";
    assert_eq!(scratch.one(sql), "ababab|001|[1, 1]|ccbcc|null|ab|a|[1, 2]|[0, 1, 2]|366");
    let sql = "select array_replace_all([1, 2, 1], 1, 3), array_replace(['a', 'a'], 'a', 'b'), array_replace_n([1, 1, 1], 1, 2, 2), \
               array_resize([1], 3, 9), array_to_string(['a', null], '-', '?'), regexp_match('ab', '(a)(b)'), \
               to_char(date '2024-05-06', '%d.%m.%Y'), map(['a'], [1])['a']";
    let expected = "[3, 2, 3]|[b, a]|[2, 2, 1]|[1, 9, 9]|a-?|[a, b]|06.05.2024|1";
    assert_eq!(scratch.one(sql), expected);
    let e = scratch.rows("select array_agg(n) over (order by n) from numbers").unwrap_err();
    assert!(matches!(e, SqlError::Unsupported { .. }), "{e:?}");
    let rows = scratch.rows("select name || '!' || n, n || name from numbers where n < 4").unwrap();
    assert_eq!(rows, ["null|null", "name 1!2|2name 1"]);
}

#[test]
fn all_queries_together_are_bounded() {
    let mut options = EngineOptions::default();
    options.memory_bytes_max = 1 << 20;
    let scratch = Scratch::with(options);
    let e = scratch.rows("select distinct a.n, b.n from numbers a, numbers b").unwrap_err();
    assert!(matches!(&e, SqlError::Limit { problem } if problem.starts_with("out of memory")), "{e:?}");
    assert_eq!(scratch.engine.memory_bytes(), 0);
    assert_eq!(scratch.one("select sum(n) from numbers"), "999000");
}
