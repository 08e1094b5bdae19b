//! What is pushed into the index, and that EXPLAIN shows it.

use crate::scratch::Scratch;

fn scan_line(plan: &str) -> &str {
    plan.lines().find(|l| l.contains("PheonScan")).unwrap_or_else(|| panic!("no scan in\n{plan}")).trim()
}

#[test]
fn filters_on_a_key_of_one_column_become_searches_without_a_filter() {
    let scratch = Scratch::new();
    for (condition, shown, rows) in [
        ("n = 10", "n in {10}", 1),
        ("n = 11", "n in {11}", 0),
        ("10 >= n", "n in (.., 10]", 6),
        ("n > 10 and n < 20", "n in (10, 20)", 4),
        ("n between 10 and 20", "n in [10, 20]", 6),
        ("n in (4, 2, 3)", "n in {2} or {3} or {4}", 2),
        ("n in (4, 2, 3, 8, 10)", "n in {5 keys}", 4),
        ("n < 4 or n >= 1990", "n in (.., 4) or [1990, ..)", 7),
        ("n <> 4", "n in (.., 4) or (4, ..)", 999),
        ("not (n < 1990)", "n in [1990, ..)", 5),
        ("n = 10 and n = 12", "", 0),
        ("n is null", "", 0),
    ] {
        let sql = format!("select half from numbers where {condition}");
        let plan = scratch.plan(&sql);
        assert_eq!(scratch.rows(&sql).unwrap().len(), rows, "{condition}\n{plan}");
        if shown.is_empty() {
            continue;
        }
        assert!(!plan.contains("FilterExec"), "{condition}\n{plan}");
        let line = scan_line(&plan);
        let expected = format!("PheonScan: dataset=numbers@1, key: {shown}, columns=[half], rows={rows}");
        assert_eq!(line, expected, "{condition}");
    }
}

#[test]
fn prefixes_of_text_become_searches() {
    let scratch = Scratch::new();
    for (condition, shown, rows) in [
        ("word like 'w001%'", "word in ['w001', 'w002')", 20),
        ("starts_with(word, 'w001')", "word in ['w001', 'w002')", 20),
        ("word = 'w0240'", "word in {'w0240'}", 4),
        ("word >= 'w0440'", "word in ['w0440', ..)", 20),
    ] {
        let sql = format!("select place from words where {condition}");
        let plan = scratch.plan(&sql);
        assert!(!plan.contains("FilterExec"), "{condition}\n{plan}");
        assert!(scan_line(&plan).contains(&format!("key: {shown}, ")), "{condition}\n{plan}");
        assert_eq!(scratch.rows(&sql).unwrap().len(), rows, "{condition}");
    }
    let sql = "select place from words where word like 'w00_1%'";
    let plan = scratch.plan(sql);
    assert!(plan.contains("FilterExec") && scan_line(&plan).contains("word in ['w00', 'w01')"), "{plan}");
    assert_eq!(scratch.rows(sql).unwrap().len(), 20);
}

#[test]
fn leading_columns_of_a_key_of_several_become_ranges() {
    let scratch = Scratch::new();
    for (condition, read, rows) in [
        ("a = 'a3'", 100, 100),
        ("a = 'a3' and b = 7", 1, 1),
        ("a = 'a3' and b between 7 and 9", 3, 3),
        ("a in ('a3', 'a4') and b < 5", 10, 10),
        ("a > 'a7'", 200, 200),
        ("a like 'a%' and b = 7", 1000, 10),
        ("b = 7", 1000, 10),
        ("a = 'a3' and day = date '1970-11-15'", 100, 1),
    ] {
        let sql = format!("select day from pairs where {condition}");
        let plan = scratch.plan(&sql);
        assert!(scan_line(&plan).contains(&format!("rows={read}")), "{condition}\n{plan}");
        assert_eq!(scratch.rows(&sql).unwrap().len(), rows, "{condition}\n{plan}");
    }
}

#[test]
fn order_counts_and_bounds_come_from_the_key() {
    let scratch = Scratch::new();
    assert!(!scratch.plan("select * from numbers order by n limit 3").contains("Sort"));
    assert!(!scratch.plan("select * from pairs order by a, b").contains("SortExec"));
    assert!(scratch.plan("select * from numbers order by half").contains("SortExec"));
    let plan = scratch.plan("select count(*), min(n), max(n) from numbers");
    assert!(!plan.contains("PheonScan"), "{plan}");
    assert_eq!(scratch.one("select count(*), min(n), max(n) from numbers"), "1000|0|1998");
    assert_eq!(scratch.one("select count(*), min(n), max(n) from numbers where n > 5 and n < 100"), "47|6|98");
    assert_eq!(scratch.one("select count(*) from words"), "1000");
}

#[test]
fn many_keys_are_one_lookup() {
    let scratch = Scratch::new();
    let list: Vec<String> = (0..5000).rev().map(|n: i64| (n - 100).to_string()).collect();
    let sql = format!("select n from numbers where n in ({})", list.join(","));
    assert!(scan_line(&scratch.plan(&sql)).contains("key: n in {5000 keys}"));
    let rows = scratch.rows(&sql).unwrap();
    assert_eq!(rows, (0..1000).map(|n| (n * 2).to_string()).collect::<Vec<_>>());
}

#[test]
fn nothing_is_pushed_where_the_comparison_is_another() {
    let scratch = Scratch::new();
    assert_eq!(scratch.rows("select n from numbers where n = 10.0").unwrap(), ["10"]);
    assert_eq!(scratch.rows("select n from numbers where n = '10'").unwrap(), ["10"]);
    assert_eq!(scratch.rows("select n from numbers where n + 1 = 11").unwrap(), ["10"]);
    assert_eq!(scratch.rows("select n from numbers where n > 5.5 and n < 8.5").unwrap(), ["6", "8"]);
    assert_eq!(scratch.rows("select b from pairs where b = 5000000000").unwrap().len(), 0);
    assert_eq!(scratch.rows("select n from numbers where n not in (2, null)").unwrap().len(), 0);
    assert_eq!(scratch.rows("select n from numbers where not (n = null)").unwrap().len(), 0);
    // A filter that is simplified to a constant only after it was pushed down.
    assert_eq!(scratch.rows("select half from numbers where not (n in (null))").unwrap().len(), 0);
}

#[test]
fn tables_that_are_stored_differently_are_joined() {
    let scratch = Scratch::new();
    assert_eq!(scratch.rows("select a.n from numbers a, words b where a.n < 2").unwrap().len(), 1000);
    assert_eq!(scratch.one("select count(*) from (select n from numbers union all select place from words)"), "2000");
}
