//! What the page asks: JSON.

use std::sync::Arc;

use arrow_cast::display::{ArrayFormatter, FormatOptions};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use pheon::{MemoryScope, ReadError, Table};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Caller, Page};
use crate::queries::QueryFacts;

const PREVIEW_ROWS_MAX: usize = 100;
const CELL_CHARS_MAX: usize = 200;

pub(super) fn routes() -> Router<Arc<Page>> {
    Router::new()
        .route("/me", get(me))
        .route("/login", post(login))
        .route("/datasets", get(datasets))
        .route("/datasets/{name}", get(dataset))
        .route("/queries", get(queries))
        .route("/queries/{id}/cancel", post(cancel))
}

/// An error as the page shows it.
pub(super) fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

fn failed(error: &ReadError) -> Response {
    match error {
        ReadError::NotFound { .. } | ReadError::InvalidName { .. } => problem(StatusCode::NOT_FOUND, "no such dataset"),
        _ => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The engine blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Response> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| failed(&e)),
        Err(_) => Err(problem(StatusCode::INTERNAL_SERVER_ERROR, "the server failed")),
    }
}

async fn me(State(page): State<Arc<Page>>, Caller(principal): Caller) -> Json<Value> {
    Json(json!({
        "name": principal.name(), "open": page.authenticator.is_open(), "location": page.location,
        "version": env!("CARGO_PKG_VERSION"), "store": page.store.uuid(),
    }))
}

/// A token that expires for one that does not. Needs `application/json`, so no form of another page can send it.
async fn login(State(page): State<Arc<Page>>, headers: HeaderMap, Json(_): Json<Value>) -> Response {
    match page.authenticator.login(&headers, b"") {
        Ok(token) => Json(json!({ "token": token })).into_response(),
        Err(status) => problem(StatusCode::UNAUTHORIZED, status.message()),
    }
}

async fn datasets(State(page): State<Arc<Page>>, Caller(principal): Caller) -> Result<Json<Value>, Response> {
    let list = blocking(move || {
        let names: Vec<_> = page.store.datasets()?.into_iter().filter(|name| principal.may_read(name)).collect();
        let memory = page.store.memory_of(&names, MemoryScope::default())?;
        let one = |m: pheon::DatasetMemory| {
            let info = page.store.table(&m.name)?.info();
            Ok(json!({
                "name": m.name, "version": m.version, "rows": info.rows, "key": info.key, "unique": info.unique,
                "bytes": m.file_bytes, "resident": m.resident_bytes, "older": m.older_versions,
            }))
        };
        memory.into_iter().map(one).collect::<Result<Vec<_>, ReadError>>()
    });
    Ok(Json(json!(list.await?)))
}

#[derive(Deserialize)]
struct Preview {
    #[serde(default)]
    offset: usize,
}

async fn dataset(
    State(page): State<Arc<Page>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Query(preview): Query<Preview>,
) -> Result<Json<Value>, Response> {
    // The same answer whether it is forbidden or not there.
    if !principal.may_read(&name) {
        return Err(problem(StatusCode::NOT_FOUND, "no such dataset"));
    }
    let facts = blocking(move || {
        let table = page.store.table(&name)?;
        let versions: Vec<_> = page.store.versions(&name)?.iter().map(version).collect();
        let columns: Vec<_> = table.schema().fields().iter().map(|f| {
            json!({ "name": f.name(), "type": f.data_type().to_string(), "nullable": f.is_nullable(), "key": table.key().contains(f.name()) })
        }).collect();
        Ok(json!({
            "name": name, "version": table.version(), "rows": table.num_rows(), "columns": columns, "versions": versions,
            "in_place": !table.is_copied()?, "offset": preview.offset, "preview": rows(&table, preview.offset)?,
        }))
    });
    Ok(Json(facts.await?))
}

fn version(v: &pheon::VersionInfo) -> Value {
    json!({ "version": v.version, "created_unix_ms": v.created_unix_ms, "rows": v.rows, "bytes": v.bytes, "segments": v.segments, "origin": v.origin })
}

/// Some rows as text, null as null.
fn rows(table: &Table, offset: usize) -> Result<Vec<Value>, ReadError> {
    let batch = table.slice(offset, PREVIEW_ROWS_MAX).to_batch()?;
    let options = FormatOptions::default();
    let arrow = |source| ReadError::Arrow { operation: "print a row", source: Arc::new(source) };
    let formats = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<Vec<_>, _>>();
    let formats = formats.map_err(arrow)?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut cells = Vec::with_capacity(formats.len());
        for (column, format) in batch.columns().iter().zip(&formats) {
            cells.push(if column.is_null(row) {
                Value::Null
            } else {
                let text = format.value(row).try_to_string().map_err(arrow)?;
                Value::String(text.chars().take(CELL_CHARS_MAX).collect())
            });
        }
        rows.push(Value::Array(cells));
    }
    Ok(rows)
}

async fn queries(State(page): State<Arc<Page>>, Caller(principal): Caller) -> Json<Value> {
    // What others ask is theirs.
    let show = |list: Vec<QueryFacts>| -> Vec<Value> {
        let own = list.into_iter().filter(|q| q.principal == principal.name());
        own.map(|q| json!({ "id": q.id, "text": q.text, "ms": q.elapsed.as_millis() as u64, "rows": q.rows })).collect()
    };
    Json(json!({ "running": show(page.queries.running()), "slow": show(page.queries.slow()) }))
}

async fn cancel(
    State(page): State<Arc<Page>>,
    Caller(principal): Caller,
    Path(id): Path<u64>,
    Json(_): Json<Value>,
) -> Json<Value> {
    Json(json!({ "cancelled": page.queries.cancel(id, principal.name()) }))
}
