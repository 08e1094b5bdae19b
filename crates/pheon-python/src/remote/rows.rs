//! A run of rows of a version at a server. Ranges of keys become numbers of rows there, so a slice of a slice is as here.

use std::ops::Bound;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use pheon::{KeyRef, ReadError, composite_key};
use pheon_flight::client::Scan;
use pheon_flight::client::blocking::Rows;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use serde_json::{Value, json};

use super::dataset::Dataset;
use super::errors::RemoteError;
use super::link::collect;
use crate::errors::arrow_error;
use crate::keyed_rows::{Ends, KeyedRows};
use crate::keys::Keys;

/// Runs of rows that one scan asks for.
const RUNS_MAX: usize = 10_000;
/// Spans that one action asks for.
const SPANS_MAX: usize = 10_000;

/// A version or a contiguous slice of one, with all columns or some.
#[derive(Debug, Clone)]
pub(super) struct RemoteRows {
    pub(super) dataset: Arc<Dataset>,
    /// The first row, counted within the version.
    start: usize,
    len: usize,
    schema: SchemaRef,
    selected: bool,
}

impl RemoteRows {
    pub(super) fn whole(dataset: Arc<Dataset>) -> Self {
        let (len, schema) = (dataset.rows, dataset.schema.clone());
        Self { dataset, start: 0, len, schema, selected: false }
    }

    pub(super) fn bounds(&self) -> (usize, usize) {
        (self.start, self.len)
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn is_selected(&self) -> bool {
        self.selected
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The same rows with these columns.
    pub(super) fn select(&self, names: &[String]) -> PyResult<Self> {
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let at = self.schema.index_of(name).map_err(|_| PyKeyError::new_err(name.clone()))?;
            if columns.contains(&at) {
                let problem = format!("{:?}: column {name:?} is asked for twice", self.dataset.name);
                return Err(pyo3::exceptions::PyTypeError::new_err(problem));
            }
            columns.push(at);
        }
        let fields: Vec<_> = columns.iter().map(|&at| self.schema.fields()[at].clone()).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, self.schema.metadata().clone()));
        Ok(Self { schema, selected: true, ..self.clone() })
    }

    /// The newest version with the same columns, if there is a newer one.
    pub(super) fn refreshed(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        let Some(newer) = self.dataset.newer(py)? else { return Ok(None) };
        let newer = Self::whole(newer);
        Ok(Some(if self.selected { newer.select(&self.names())? } else { newer }))
    }

    fn projected(&self, scan: Scan) -> Scan {
        if self.selected { scan.columns(self.names()) } else { scan }
    }

    pub(super) fn scan(&self) -> Scan {
        let mut scan = self.projected(self.dataset.scan());
        if self.start > 0 {
            scan = scan.offset(self.start as u64);
        }
        if self.start + self.len < self.dataset.rows {
            scan = scan.limit(self.len as u64);
        }
        scan
    }

    pub(super) fn stream(&self, py: Python<'_>) -> PyResult<Rows> {
        self.dataset.link.scan(py, &self.scan())
    }

    /// The rows, in at least one batch.
    pub(super) fn batches(&self, py: Python<'_>) -> PyResult<Vec<RecordBatch>> {
        let mut batches = if self.len == 0 { Vec::new() } else { collect(py, self.stream(py)?)? };
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(self.schema.clone()));
        }
        Ok(batches)
    }

    /// The rows as one batch.
    pub(super) fn batch(&self, py: Python<'_>) -> PyResult<RecordBatch> {
        joined(py, &self.schema, self.batches(py)?)
    }

    /// Rows of several places, each from a first row of this slice to one before a last; ends beyond it are cut.
    pub(super) fn gather(&self, py: Python<'_>, pieces: &[(usize, usize)]) -> PyResult<RecordBatch> {
        let mut batches = Vec::new();
        let runs = pieces.iter().filter_map(|&(start, stop)| {
            let piece = self.slice(start, stop.saturating_sub(start));
            (piece.len > 0).then_some((piece.start as u64, piece.len as u64))
        });
        let runs: Vec<_> = runs.collect();
        for some in runs.chunks(RUNS_MAX) {
            let scan = self.projected(self.dataset.scan()).rows(some.iter().copied());
            batches.extend(collect(py, self.dataset.link.scan(py, &scan)?)?);
        }
        joined(py, &self.schema, batches)
    }

    /// The rows within this slice of each span.
    fn locate(&self, spans: &[Value]) -> PyResult<Vec<Self>> {
        let body = self.dataset.locate(spans);
        let found = Python::attach(|py| self.dataset.link.action_one(py, "locate", &body))?;
        let unexpected = || RemoteError::new_err("find rows: unexpected answer: other numbers of rows");
        let rows = found.get("rows").and_then(Value::as_array).filter(|rows| rows.len() == spans.len());
        let number = |pair: &Value, at: usize| {
            let number = pair.get(at).and_then(Value::as_u64);
            number.and_then(|n| usize::try_from(n).ok()).ok_or_else(unexpected)
        };
        let end = self.start + self.len;
        let clipped = |pair: &Value| {
            let (first, rows) = (number(pair, 0)?, number(pair, 1)?);
            let start = first.clamp(self.start, end);
            let stop = first.saturating_add(rows).clamp(start, end);
            Ok(Self { start, len: stop - start, ..self.clone() })
        };
        rows.ok_or_else(unexpected)?.iter().map(clipped).collect()
    }

    fn locate_one(&self, span: Value) -> PyResult<Self> {
        let found = self.locate(&[span])?.pop();
        found.ok_or_else(|| RemoteError::new_err("find rows: unexpected answer: no rows"))
    }

    /// The bounds of many ranges of keys, asked for at once.
    pub(super) fn ranges<'py>(
        &self,
        keys: &Keys,
        pairs: &[(Object<'py>, Object<'py>)],
    ) -> PyResult<Vec<(usize, usize)>> {
        let plan = Planned { rows: self.clone(), span: None };
        let mut planned = Vec::with_capacity(pairs.len());
        for (start, stop) in pairs {
            planned.push(keys.range(&plan, start, stop, false)??);
        }
        let spans: Vec<_> = planned.iter_mut().filter_map(|plan| plan.span.take().map(|span| (span, plan))).collect();
        let (asked, plans): (Vec<_>, Vec<_>) = spans.into_iter().unzip();
        for (spans, plans) in asked.chunks(SPANS_MAX).zip(chunked(plans)) {
            for (plan, found) in plans.into_iter().zip(self.locate(spans)?) {
                plan.rows = found;
            }
        }
        Ok(planned.iter().map(|plan| plan.rows.bounds()).collect())
    }
}

type Object<'py> = pyo3::Bound<'py, PyAny>;

/// The same pieces as [`slice::chunks`] has, of things that are given away.
fn chunked<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<_> = items.by_ref().take(SPANS_MAX).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Rows that are known once the server was asked for a span; until then all that it may be in.
#[derive(Clone)]
struct Planned {
    rows: RemoteRows,
    span: Option<Value>,
}

impl Planned {
    fn asking(&self, span: Value) -> Self {
        Self { rows: self.rows.clone(), span: Some(span) }
    }
}

impl KeyedRows for Planned {
    type Error = PyErr;

    fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        Self { rows: self.rows.slice(offset, len), span: self.span.clone() }
    }

    fn range(&self, ends: Ends<'_>) -> Result<Self, PyErr> {
        Ok(match ends {
            (Bound::Unbounded, Bound::Unbounded) => self.clone(),
            ends => self.asking(between(ends)),
        })
    }

    fn prefix(&self, prefix: &[u8]) -> Result<Self, PyErr> {
        Ok(self.asking(json!({ "prefix": hexadecimal(KeyRef::Bytes(prefix)) })))
    }

    fn rows(&self, key: KeyRef<'_>) -> Result<Self, PyErr> {
        Ok(self.asking(json!({ "key": hexadecimal(key) })))
    }

    fn composite_key(&self, parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> {
        self.rows.composite_key(parts)
    }
}

fn between(ends: Ends<'_>) -> Value {
    json!({ "from": end(ends.0), "to": end(ends.1) })
}

/// Batches of one schema as one.
pub(super) fn joined(py: Python<'_>, schema: &SchemaRef, mut batches: Vec<RecordBatch>) -> PyResult<RecordBatch> {
    match batches.len() {
        0 => Ok(RecordBatch::new_empty(schema.clone())),
        1 => Ok(batches.swap_remove(0)),
        _ => py
            .detach(|| arrow_select::concat::concat_batches(batches[0].schema_ref(), &batches))
            .map_err(|e| arrow_error("join batches", &e)),
    }
}

/// A key's bytes as hexadecimal digits; numbers little-endian.
fn hexadecimal(key: KeyRef<'_>) -> String {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match key {
        KeyRef::Bytes(bytes) => digits(bytes),
        KeyRef::Fixed64(number) => digits(&number.to_le_bytes()),
        KeyRef::I128(number) => digits(&number.to_le_bytes()),
        KeyRef::I256(number) => digits(&number),
        // A form of keys that a later engine adds has bytes too; the server refuses what is none of its own.
        _ => String::new(),
    }
}

fn end(bound: Bound<KeyRef<'_>>) -> Value {
    match bound {
        Bound::Unbounded => Value::Null,
        Bound::Included(key) => json!({ "included": hexadecimal(key) }),
        Bound::Excluded(key) => json!({ "excluded": hexadecimal(key) }),
    }
}

impl KeyedRows for RemoteRows {
    type Error = PyErr;

    fn num_rows(&self) -> usize {
        self.len
    }

    fn slice(&self, offset: usize, len: usize) -> Self {
        let offset = offset.min(self.len);
        Self { start: self.start + offset, len: len.min(self.len - offset), ..self.clone() }
    }

    fn range(&self, ends: Ends<'_>) -> Result<Self, PyErr> {
        if let (Bound::Unbounded, Bound::Unbounded) = ends {
            return Ok(self.clone());
        }
        self.locate_one(between(ends))
    }

    fn prefix(&self, prefix: &[u8]) -> Result<Self, PyErr> {
        self.locate_one(json!({ "prefix": hexadecimal(KeyRef::Bytes(prefix)) }))
    }

    fn rows(&self, key: KeyRef<'_>) -> Result<Self, PyErr> {
        self.locate_one(json!({ "key": hexadecimal(key) }))
    }

    fn composite_key(&self, parts: &[KeyRef<'_>]) -> Result<Vec<u8>, ReadError> {
        composite_key(&self.dataset.name, &self.dataset.key_fields, parts)
    }
}
