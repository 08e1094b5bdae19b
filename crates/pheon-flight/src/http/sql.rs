//! The page's box for SQL: it reads, and no more rows than the limit allows.

use std::sync::Arc;
use std::time::Instant;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures::TryStreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::api::problem;
use super::rows::{columns, rows};
use super::{Caller, Page};
use crate::gate::Rights;

/// A statement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    sql: String,
}

/// The status of gRPC as one of HTTP.
fn refused(status: &Status) -> Response {
    let http = match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented | Code::AlreadyExists => {
            StatusCode::BAD_REQUEST
        }
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::ResourceExhausted => StatusCode::PAYLOAD_TOO_LARGE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(http, status.message())
}

pub(super) async fn run(
    State(page): State<Arc<Page>>,
    caller: Caller,
    Json(asked): Json<Asked>,
) -> Result<Json<Value>, Response> {
    caller.audited("query");
    let rights = Arc::new(Rights::new(caller.principal.clone(), true));
    let session = page.sql.engine().session().with_access(rights);
    let began = Instant::now();
    let mut running = page.sql.begin(caller.principal.name(), &asked.sql, caller.record.clone());
    let refused = |status: Status| refused(&status);
    let statement = running.run(async move { session.prepare(&asked.sql).await }).await.map_err(refused)?;
    for dataset in statement.datasets() {
        caller.record.dataset(&dataset);
    }
    if !statement.is_query() {
        return Err(problem(StatusCode::BAD_REQUEST, "the page only reads: send changes through a client"));
    }
    let schema = statement.schema();
    let stream = running.run(async move { statement.query(None).await }).await.map_err(refused)?;
    let mut stream = running.rows(stream).await.map_err(refused)?;
    let rows_max = page.limits.page_rows_max;
    let mut found: Vec<Value> = Vec::new();
    let mut more = false;
    while let Some(batch) = stream.try_next().await.map_err(refused)? {
        let room = rows_max - found.len();
        more = batch.num_rows() > room;
        let shown: RecordBatch = batch.slice(0, batch.num_rows().min(room));
        let failed = |e: ArrowError| problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("show the rows: {e}"));
        found.extend(rows(&shown).map_err(failed)?);
        if more {
            break;
        }
    }
    drop(stream);
    let ms = began.elapsed().as_secs_f64() * 1e3;
    Ok(Json(json!({ "columns": columns(&schema), "rows": found, "more": more, "ms": ms })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::status_of;

    #[test]
    fn statuses() {
        for (status, expected) in [
            (Status::invalid_argument("x"), 400),
            (Status::permission_denied("x"), 403),
            (status_of(&pheon_sql::SqlError::ReadOnly), 400),
            (Status::cancelled("x"), 409),
        ] {
            assert_eq!(refused(&status).status().as_u16(), expected);
        }
    }
}
