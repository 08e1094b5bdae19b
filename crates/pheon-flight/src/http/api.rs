//! What the page asks: JSON.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use pheon::{MemoryScope, ReadError, Store, Table};
use serde::Deserialize;
use serde_json::{Value, json};

use super::rows::{columns, rows};
use super::verdicts::{CONSUMERS, verdicts};
use super::{Caller, Page};
use crate::audit;
use crate::command::KeyValue;
use crate::connection::Peer;
use crate::queries::QueryFacts;
use crate::scan;

const PREVIEW_ROWS_MAX: usize = 100;
/// Rows of a probe's key that are shown.
const FOUND_ROWS_MAX: usize = 20;
/// Lookups that a probe is timed by.
const PROBE_LOOKUPS: usize = 101;

pub(super) fn routes() -> Router<Arc<Page>> {
    let routes = Router::new()
        .route("/me", get(me))
        .route("/login", post(login))
        .route("/datasets", get(datasets))
        .route("/datasets/{name}", get(dataset))
        .route("/datasets/{name}/probe", post(probe))
        .route("/queries", get(queries))
        .route("/queries/{id}/cancel", post(cancel));
    #[cfg(feature = "sql")]
    let routes = routes.route("/sql", post(super::sql::run));
    routes
}

/// An error as the page shows it.
pub(super) fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// Why a page's question has no answer.
enum Failed {
    Read(ReadError),
    Status(tonic::Status),
}

impl From<ReadError> for Failed {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

impl From<Failed> for Response {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Read(ReadError::NotFound { .. } | ReadError::InvalidName { .. }) => no_such_dataset(),
            Failed::Read(e @ (ReadError::KeyType { .. } | ReadError::WrongShape { .. })) => {
                problem(StatusCode::BAD_REQUEST, &e.to_string())
            }
            Failed::Read(e) => problem(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
            Failed::Status(status) => problem(StatusCode::BAD_REQUEST, status.message()),
        }
    }
}

/// The same answer whether it is forbidden or not there.
fn no_such_dataset() -> Response {
    problem(StatusCode::NOT_FOUND, "no such dataset")
}

/// The engine blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failed> + Send + 'static) -> Result<T, Response> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Response::from),
        Err(_) => Err(problem(StatusCode::INTERNAL_SERVER_ERROR, "the server failed")),
    }
}

async fn me(State(page): State<Arc<Page>>, Caller { principal, .. }: Caller) -> Json<Value> {
    Json(json!({
        "name": principal.name(), "open": page.authenticator.is_open(), "location": page.location,
        "version": env!("CARGO_PKG_VERSION"), "store": page.store.uuid(), "path": page.store.path().to_string_lossy(),
        "sql": cfg!(feature = "sql"), "rows_max": page.limits.page_rows_max, "consumers": CONSUMERS,
    }))
}

/// A token that expires for one that does not. Needs `application/json`, so no form of another page can send it.
async fn login(
    State(page): State<Arc<Page>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Json(_): Json<Value>,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer.address());
    match page.authenticator.login(&headers, b"") {
        Ok((name, token)) => {
            audit::login(peer, &name);
            Json(json!({ "token": token })).into_response()
        }
        Err(status) => {
            audit::refused(peer, "/api/login", status.message());
            problem(StatusCode::UNAUTHORIZED, status.message())
        }
    }
}

async fn datasets(State(page): State<Arc<Page>>, Caller { principal, .. }: Caller) -> Result<Json<Value>, Response> {
    let list = blocking(move || {
        let names: Vec<_> = page.store.datasets()?.into_iter().filter(|name| principal.may_read(name)).collect();
        Ok(names.into_iter().filter_map(|name| listed(&page.store, name)).collect::<Vec<_>>())
    });
    Ok(Json(json!(list.await?)))
}

/// A dataset's line in the list; `None`: it has gone since.
fn listed(store: &Store, name: String) -> Option<Value> {
    let facts = || {
        let info = store.table(&name)?.info();
        let memory = store.memory_of(std::slice::from_ref(&name), MemoryScope::default())?;
        Ok(memory.first().map(|m| {
            json!({
                "name": name, "version": info.version, "rows": info.rows, "key": info.key, "unique": info.unique,
                "bytes": m.file_bytes, "resident": m.resident_bytes, "older": m.older_versions,
            })
        }))
    };
    match facts() {
        Ok(facts) => facts,
        Err(ReadError::NotFound { .. }) => None,
        // The others can still be shown.
        Err(e) => Some(json!({ "name": name, "problem": e.to_string() })),
    }
}

#[derive(Deserialize)]
struct Preview {
    #[serde(default)]
    offset: usize,
    version: Option<u64>,
}

fn open(store: &Store, name: &str, version: Option<u64>) -> Result<Table, ReadError> {
    match version {
        Some(version) => store.table_at(name, version),
        None => store.table(name),
    }
}

async fn dataset(
    State(page): State<Arc<Page>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(preview): Query<Preview>,
) -> Result<Json<Value>, Response> {
    caller.audited("preview");
    caller.record.dataset(&name);
    if !caller.principal.may_read(&name) {
        return Err(no_such_dataset());
    }
    let record = caller.record.clone();
    let facts = blocking(move || {
        let table = open(&page.store, &name, preview.version)?;
        let info = table.info();
        let versions: Vec<_> = page.store.versions(&name)?.iter().map(version).collect();
        let schema = table.schema();
        let mut described = columns(&schema);
        for ((column, field), verdicts) in described.iter_mut().zip(schema.fields()).zip(verdicts(&table)?) {
            column["nullable"] = json!(field.is_nullable());
            column["key"] = json!(table.key().contains(field.name()));
            column["copies"] = verdicts;
        }
        let batch = table.slice(preview.offset, PREVIEW_ROWS_MAX).to_batch()?;
        let arrow = |source| ReadError::Arrow { operation: "print a row", source: Arc::new(source) };
        record.rows(batch.num_rows() as u64);
        Ok(json!({
            "name": name, "version": table.version(), "rows": table.num_rows(), "key": table.key(), "unique": info.unique,
            "segments": info.segments, "data_bytes": info.data_bytes, "index_bytes": info.index_bytes,
            "hidden_rows": info.hidden_rows, "created_unix_ms": info.created_unix_ms, "in_place": !table.is_copied()?,
            "columns": described, "versions": versions, "offset": preview.offset, "step": PREVIEW_ROWS_MAX,
            "preview": rows(&batch).map_err(arrow)?,
        }))
    });
    Ok(Json(facts.await?))
}

fn version(v: &pheon::VersionInfo) -> Value {
    json!({ "version": v.version, "created_unix_ms": v.created_unix_ms, "rows": v.rows, "bytes": v.bytes, "segments": v.segments, "origin": v.origin })
}

/// The key is in the body: addresses get into logs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Probed {
    key: KeyValue,
    version: Option<u64>,
}

async fn probe(
    State(page): State<Arc<Page>>,
    caller: Caller,
    Path(name): Path<String>,
    Json(probed): Json<Probed>,
) -> Result<Json<Value>, Response> {
    caller.audited("probe");
    caller.record.dataset(&name);
    if !caller.principal.may_read(&name) {
        return Err(no_such_dataset());
    }
    let record = caller.record.clone();
    let found = blocking(move || {
        let table = open(&page.store, &name, probed.version)?;
        let key = scan::full_key(&table, &probed.key).map_err(Failed::Status)?;
        let began = Instant::now();
        let rows_found = table.rows(key.as_ref())?;
        let first_ns = began.elapsed().as_nanos() as u64;
        let mut times = Vec::with_capacity(PROBE_LOOKUPS);
        for _ in 0..PROBE_LOOKUPS {
            let began = Instant::now();
            std::hint::black_box(table.rows(key.as_ref())?);
            times.push(began.elapsed().as_nanos() as u64);
        }
        times.sort_unstable();
        let steps: Vec<_> = table
            .probe(key.as_ref())?
            .iter()
            .map(|p| {
                json!({
                    "segment": p.segment, "keys": p.keys, "buckets": p.buckets, "bucket": p.bucket, "other": p.other,
                    "candidates": p.candidates, "row": p.row, "hidden": p.hidden,
                })
            })
            .collect();
        let batch = rows_found.slice(0, FOUND_ROWS_MAX).to_batch()?;
        record.rows(rows_found.num_rows() as u64);
        let arrow = |source| ReadError::Arrow { operation: "print a row", source: Arc::new(source) };
        Ok(json!({
            "found": rows_found.num_rows(), "first_row": (rows_found.num_rows() > 0).then(|| rows_found.bounds().0),
            "columns": columns(&batch.schema()), "rows": rows(&batch).map_err(arrow)?, "first_ns": first_ns,
            "median_ns": times[PROBE_LOOKUPS / 2], "lookups": PROBE_LOOKUPS, "steps": steps,
            "slots": pheon::Probe::SLOTS,
        }))
    });
    Ok(Json(found.await?))
}

async fn queries(State(page): State<Arc<Page>>, Caller { principal, .. }: Caller) -> Json<Value> {
    // What others ask is theirs.
    let show = |list: Vec<QueryFacts>| -> Vec<Value> {
        let own = list.into_iter().filter(|q| q.principal == principal.name());
        own.map(|q| json!({ "id": q.id, "text": q.text, "ms": q.elapsed.as_millis() as u64, "rows": q.rows })).collect()
    };
    Json(json!({ "running": show(page.queries.running()), "slow": show(page.queries.slow()) }))
}

async fn cancel(
    State(page): State<Arc<Page>>,
    caller: Caller,
    Path(id): Path<u64>,
    Json(_): Json<Value>,
) -> Json<Value> {
    caller.audited("cancel");
    Json(json!({ "cancelled": page.queries.cancel(id, caller.principal.name()) }))
}
