//! Streams that clients send: parameters, and rows of a bulk ingest.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use futures::StreamExt;
use futures::stream::BoxStream;
use pheon_sql::{CATALOG, IngestConflict, IngestMode, IngestOptions, SCHEMA, Session, SqlError};
use tonic::Status;

use super::handles::HandleLimits;
use super::sql_status::failed;
use crate::flat::{Flatten, kept_bytes};
use crate::intake::Intake;
use crate::record::CallRecord;

/// All rows of parameters as one batch; `None` without any.
pub(super) async fn parameters(
    stream: PeekableFlightDataStream,
    limits: &HandleLimits,
    record: CallRecord,
) -> Result<Option<RecordBatch>, Status> {
    let bytes_max = limits.parameter_bytes_max as u64;
    let unpacked_max = limits.decompressed_bytes_max.min(bytes_max);
    let mut stream = Intake::new(stream, unpacked_max, Flatten::All, record);
    let (mut batches, mut bytes) = (Vec::new(), 0u64);
    while let Some(batch) = stream.rows().await.transpose()? {
        bytes = bytes.saturating_add(kept_bytes(&batch));
        if bytes > bytes_max {
            return Err(Status::resource_exhausted(format!("parameters of more than {bytes_max} bytes")));
        }
        batches.push(batch);
    }
    let Some(first) = batches.first() else { return Ok(None) };
    concat_batches(&first.schema(), &batches).map(Some).map_err(|e| Status::invalid_argument(e.to_string()))
}

/// Publishes the rows of a bulk ingest; returns how many.
pub(super) async fn ingest(
    session: &Session,
    command: &CommandStatementIngest,
    stream: PeekableFlightDataStream,
    limits: &HandleLimits,
    record: CallRecord,
) -> Result<u64, Status> {
    let elsewhere = command.catalog.as_ref().is_some_and(|c| !c.is_empty() && c != CATALOG)
        || command.schema.as_ref().is_some_and(|s| !s.is_empty() && s != SCHEMA);
    if elsewhere {
        return Err(Status::invalid_argument(format!("all tables are in {CATALOG}.{SCHEMA}")));
    }
    if command.temporary {
        return Err(Status::unimplemented("temporary tables"));
    }
    let options = options_of(command)?;
    let mut stream = Intake::new(stream, limits.decompressed_bytes_max, Flatten::All, record);
    // The first batch, or the end of the stream, tells the schema.
    let first = stream.rows().await.transpose()?;
    let schema: SchemaRef = match (&first, stream.schema()) {
        (Some(batch), _) => batch.schema(),
        (None, Some(schema)) => schema.clone(),
        (None, None) => return Err(Status::invalid_argument("a stream without a schema")),
    };
    let broken = Arc::new(Mutex::new(None));
    let why = broken.clone();
    let rest = futures::stream::unfold(stream, |mut stream| async move { Some((stream.rows().await?, stream)) });
    let rest = rest.map(move |batch| {
        batch.map_err(|status| {
            let problem = status.message().to_owned();
            *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            SqlError::Source { problem }
        })
    });
    let rows: BoxStream<'_, Result<RecordBatch, SqlError>> = futures::stream::iter(first.map(Ok)).chain(rest).boxed();
    let done = session.ingest(&command.table, schema, options, rows).await;
    // What the client sent is its own fault, and said as such.
    let of_client = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.map_err(|e| of_client.unwrap_or_else(|| failed(e)))
}

/// Options that only this server has.
const KEY: &str = "pheon.key";
const ON_CONFLICT: &str = "pheon.on_conflict";

fn options_of(command: &CommandStatementIngest) -> Result<IngestOptions, Status> {
    let mut options = IngestOptions::new(mode_of(command.table_definition_options.as_ref())?);
    for (name, value) in &command.options {
        options = match (name.as_str(), value.as_str()) {
            (KEY, list) if list.trim_start().starts_with('[') => {
                let wrong = |e| Status::invalid_argument(format!("{KEY} is no JSON list of column names: {e}"));
                options.key(serde_json::from_str::<Vec<String>>(list).map_err(wrong)?)
            }
            (KEY, column) => options.key([column]),
            (ON_CONFLICT, "error") => options.conflict(IngestConflict::Error),
            (ON_CONFLICT, "replace") => options.conflict(IngestConflict::Replace),
            (ON_CONFLICT, "nothing") => options.conflict(IngestConflict::Nothing),
            (ON_CONFLICT, other) => {
                let problem = format!("{ON_CONFLICT} is {other:?}, expected error, replace or nothing");
                return Err(Status::invalid_argument(problem));
            }
            (other, _) => {
                let problem = format!("no ingest option {other:?}; there are {KEY} and {ON_CONFLICT}");
                return Err(Status::invalid_argument(problem));
            }
        };
    }
    Ok(options)
}

fn mode_of(options: Option<&TableDefinitionOptions>) -> Result<IngestMode, Status> {
    let Some(options) = options else { return Ok(IngestMode::CreateAppend) };
    Ok(match (options.if_not_exist(), options.if_exists()) {
        (TableNotExistOption::Fail, TableExistsOption::Append | TableExistsOption::Unspecified) => IngestMode::Append,
        (_, TableExistsOption::Append) => IngestMode::CreateAppend,
        (TableNotExistOption::Fail, _) => {
            return Err(Status::invalid_argument("a table that must be there, and must not be added to"));
        }
        (_, TableExistsOption::Replace) => IngestMode::Replace,
        (_, TableExistsOption::Fail | TableExistsOption::Unspecified) => IngestMode::Create,
    })
}
