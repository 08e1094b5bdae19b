//! A store in a temporary folder, and short ways to ask it.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, RecordBatchIterator, StringArray,
};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use pheon::{ChangeOptions, PutOptions, Store};
use pheon_sql::{Answer, Engine, EngineOptions, SqlError, Statement};

pub(crate) struct Scratch {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    _dir: tempfile::TempDir,
}

/// Rows of `numbers` and of `words`.
pub(crate) const ROWS: i64 = 1000;

impl Scratch {
    /// `numbers` (key n, each once), `words` (key word, each twice, of two segments), `pairs` (key a, b), `plain` (no key).
    pub(crate) fn new() -> Self {
        Self::with(EngineOptions::default())
    }

    pub(crate) fn with(options: EngineOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let numbers = batch(vec![
            ("n", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|n| n * 2))) as ArrayRef),
            ("half", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|n| n as f64 / 2.0)))),
            ("name", Arc::new((0..ROWS).map(|n| (n % 3 > 0).then(|| format!("name {n}"))).collect::<StringArray>())),
        ]);
        put(&store, "numbers", numbers, PutOptions::map("n"));
        let words = |range: std::ops::Range<i64>| {
            batch(vec![
                (
                    "word",
                    Arc::new(StringArray::from_iter_values(range.clone().map(|n| format!("w{:04}", n / 2))))
                        as ArrayRef,
                ),
                ("place", Arc::new(Int32Array::from_iter_values(range.map(|n| n as i32)))),
            ])
        };
        put(&store, "words", words(0..ROWS / 2), PutOptions::table(["word"]));
        let more = words(ROWS / 2 - 100..ROWS - 100);
        let reader = RecordBatchIterator::new([Ok(more.clone())], more.schema());
        store.append("words", reader, ChangeOptions::default().compact(false)).unwrap();
        let pairs = batch(vec![
            ("a", Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("a{}", n / 100)))) as ArrayRef),
            ("b", Arc::new(Int32Array::from_iter_values((0..ROWS).map(|n| (n % 100) as i32)))),
            ("day", Arc::new(Date32Array::from_iter_values((0..ROWS).map(|n| n as i32)))),
        ]);
        put(&store, "pairs", pairs, PutOptions::table(["a", "b"]).unique(true));
        let plain = batch(vec![("Value", Arc::new(Int64Array::from(vec![3, 1, 2])) as ArrayRef)]);
        put(&store, "Plain", plain, PutOptions::table(Vec::<String>::new()));
        let engine = Engine::new(store.clone(), options).unwrap();
        Self { engine, store, _dir: dir }
    }

    /// Rows as text, cells joined by `|`.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<String>, SqlError> {
        let (_, batches) = self.engine.collect(sql)?;
        Ok(shown(&batches))
    }

    pub(crate) fn one(&self, sql: &str) -> String {
        let rows = self.rows(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows[0].clone()
    }

    pub(crate) fn change(&self, sql: &str) -> Result<u64, SqlError> {
        match self.engine.execute(sql, None)? {
            Answer::Changed(rows) => Ok(rows),
            Answer::Rows(_) => panic!("{sql} is a query"),
        }
    }

    /// The physical plan.
    pub(crate) fn plan(&self, sql: &str) -> String {
        let (_, batches) = self.engine.collect(&format!("explain {sql}")).unwrap();
        let rows = batches.iter().flat_map(|b| {
            let (kinds, plans) = (b.column(0).as_string::<i32>().clone(), b.column(1).as_string::<i32>().clone());
            (0..b.num_rows()).map(move |i| (kinds.value(i).to_owned(), plans.value(i).to_owned())).collect::<Vec<_>>()
        });
        rows.into_iter().find(|(kind, _)| kind == "physical_plan").unwrap().1
    }
}

pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

pub(crate) fn put(store: &Store, name: &str, batch: RecordBatch, options: PutOptions) {
    let schema = batch.schema();
    store.put(name, RecordBatchIterator::new([Ok(batch)], schema), options).unwrap();
}

pub(crate) fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let mut rows = Vec::new();
    for batch in batches {
        let cells: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            rows.push(cells.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    rows
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

pub(crate) async fn query(statement: &Statement, parameters: Option<RecordBatch>) -> Result<Vec<String>, SqlError> {
    let stream = statement.query(parameters).await?;
    assert_eq!(stream.schema(), statement.schema());
    let batches: Vec<RecordBatch> = stream.try_collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema(), statement.schema());
    }
    Ok(shown(&batches))
}
