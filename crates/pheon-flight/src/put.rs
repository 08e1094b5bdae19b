//! `DoPut`: rows in, one new version out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{ArrayRef, RecordBatch, StructArray};
use arrow_flight::{FlightData, PutResult};
use arrow_schema::{DataType, SchemaRef};
use futures::StreamExt;
use pheon::{ChangeOptions, PutOptions, ReadError, Store, Writer};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::command::{PutCommand, PutMode};
use crate::exchange::decoded;
use crate::flat::{Flatten, kept_bytes};
use crate::intake::{Intake, Taken};
use crate::places::Places;
use crate::service::Caller;
use crate::status;

/// Batches that wait for the writer.
const BATCHES_WAITING_MAX: usize = 4;

/// What the network's side tells the writer's.
enum Told {
    Rows(RecordBatch),
    /// The client ended its stream: publish. A channel that closes without it means that the stream broke.
    End,
}

/// What was published.
struct Published {
    version: u64,
    rows: u64,
}

/// Tells a build to stop when the call ends before it does.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a stream of rows may use.
#[derive(Clone, Debug)]
pub(crate) struct PutLimits {
    pub(crate) decompressed_bytes_max: u64,
    pub(crate) delete_bytes_max: u64,
    pub(crate) places: Places,
}

/// Serves one stream of rows.
pub(crate) async fn put(
    caller: Caller,
    store: Store,
    first: FlightData,
    rest: Streaming<FlightData>,
    limits: &PutLimits,
) -> Result<PutResult, Status> {
    let descriptor = first.flight_descriptor.as_ref();
    let descriptor = descriptor.ok_or_else(|| Status::invalid_argument("the first message has no descriptor"))?;
    let command = PutCommand::of_descriptor(descriptor)?;
    caller.check_write(&command.put)?;
    caller.record().action(command.mode.name());
    // A new version has the columns as they come; else they become what is there.
    let flatten = if command.mode == PutMode::Publish { Flatten::ButDictionaries } else { Flatten::All };
    let mut stream = decoded(first, rest, limits.decompressed_bytes_max, flatten, &caller);
    let schema = schema_of(&mut stream).await?;
    let place = limits.places.writer()?;
    let delete_bytes_max = limits.delete_bytes_max;
    let stop = Arc::new(AtomicBool::new(false));
    let _stop_on_drop = StopOnDrop(stop.clone());
    let (told, hears) = mpsc::channel(BATCHES_WAITING_MAX);
    let name = command.put.clone();
    let mut writer = tokio::task::spawn_blocking(move || {
        let _place = place;
        write(&store, &command, schema, hears, &stop, delete_bytes_max)
    });
    let fed = async {
        while let Some(next) = stream.next().await {
            match next? {
                Taken::Rows { batch, .. } => {
                    // The writer has failed already; its own error says more.
                    if told.send(Told::Rows(batch)).await.is_err() {
                        return Ok(());
                    }
                }
                Taken::Schema(_) => return Err(Status::invalid_argument("the stream has a second schema")),
            }
        }
        let _ = told.send(Told::End).await;
        Ok(())
    };
    tokio::pin!(fed);
    let failed = |e| Status::internal(format!("the writer ended early: {e}"));
    let done = tokio::select! {
        // It failed while the client was still sending.
        done = &mut writer => done,
        fed = &mut fed => {
            fed?;
            writer.await
        }
    };
    let published = done.map_err(failed)??;
    let result = json!({"dataset": name, "version": published.version, "rows": published.rows});
    Ok(PutResult { app_metadata: result.to_string().into() })
}

async fn schema_of(stream: &mut Intake) -> Result<SchemaRef, Status> {
    match stream.next().await.transpose()? {
        Some(Taken::Schema(schema)) => Ok(schema),
        Some(Taken::Rows { .. }) => Err(Status::invalid_argument("the stream does not begin with a schema")),
        None => Err(Status::invalid_argument("the stream has no schema")),
    }
}

fn write(
    store: &Store,
    command: &PutCommand,
    schema: SchemaRef,
    mut hears: mpsc::Receiver<Told>,
    stop: &Arc<AtomicBool>,
    delete_bytes_max: u64,
) -> Result<Published, Status> {
    let of_write = |e| status::of_write(&e);
    let broken = || Status::cancelled("the stream broke; nothing was published");
    if command.mode == PutMode::Delete {
        let (mut batches, mut bytes) = (Vec::new(), 0u64);
        while let Told::Rows(batch) = hears.blocking_recv().ok_or_else(broken)? {
            bytes = bytes.saturating_add(kept_bytes(&batch));
            if bytes > delete_bytes_max {
                return Err(Status::resource_exhausted(format!(
                    "keys of more than {delete_bytes_max} bytes (delete_bytes_max): delete them in several steps"
                )));
            }
            batches.push(batch);
        }
        let keys = arrow_select::concat::concat_batches(&schema, &batches).map_err(|e| status::of_arrow(&e))?;
        let keys = delete_keys(store, command, keys)?;
        if stop.load(Ordering::Relaxed) {
            return Err(broken());
        }
        let options = ChangeOptions::default().compact(command.compact.unwrap_or(true));
        let (version, rows) = store.delete(&command.put, &keys, options).map_err(of_write)?;
        return Ok(Published { version, rows });
    }
    let (mut writer, columns) = open_writer(store, command, &schema, stop)?;
    while let Told::Rows(batch) = hears.blocking_recv().ok_or_else(broken)? {
        let batch = match &columns {
            Some(columns) => batch.project(columns).map_err(|e| status::of_arrow(&e))?,
            None => batch,
        };
        writer.write(&batch).map_err(of_write)?;
    }
    let rows = writer.rows();
    let version = writer.commit().map_err(of_write)?;
    Ok(Published { version, rows })
}

/// The key columns of rows that name what to delete: by name, else the only column, else in order.
fn delete_keys(store: &Store, command: &PutCommand, keys: RecordBatch) -> Result<ArrayRef, Status> {
    let table = store.table(&command.put).map_err(|e| status::of_read(&e))?;
    let wrong = || Status::invalid_argument(format!("rows to delete have no columns {:?}", table.key()));
    match table.key() {
        [] => Err(Status::invalid_argument(format!("{:?} has no key to delete by", command.put))),
        [_] if keys.num_columns() == 1 => Ok(keys.column(0).clone()),
        [name] => keys.column_by_name(name).cloned().ok_or_else(wrong),
        _ if keys.num_columns() == 1 && matches!(keys.column(0).data_type(), DataType::Struct(_)) => {
            Ok(keys.column(0).clone())
        }
        names if keys.num_columns() < names.len() => Err(wrong()),
        _ => Ok(Arc::new(StructArray::from(keys))),
    }
}

/// The writer that a command asks for, and which columns of the rows it takes; `None`: all.
fn open_writer(
    store: &Store,
    command: &PutCommand,
    schema: &SchemaRef,
    stop: &Arc<AtomicBool>,
) -> Result<(Writer, Option<Vec<usize>>), Status> {
    let of_write = |e| status::of_write(&e);
    let known = match store.table(&command.put) {
        Ok(table) => Some(table.info()),
        Err(ReadError::NotFound { .. }) if command.mode == PutMode::Publish => None,
        Err(e) => return Err(status::of_read(&e)),
    };
    let stop = stop.clone();
    let cancel = move || stop.load(Ordering::Relaxed);
    let on_duplicate = command.on_duplicate.into();
    if command.mode != PutMode::Publish {
        if command.key.is_some() || command.map.is_some() || command.value.is_some() {
            return Err(Status::invalid_argument(
                "\"key\", \"map\" and \"value\" belong to \"mode\": \"publish\": the dataset has them already",
            ));
        }
        let mut options = ChangeOptions::default().on_duplicate(on_duplicate).compact(command.compact.unwrap_or(true));
        options.build = options.build.cancel(cancel);
        let writer = match command.mode {
            PutMode::Append => store.appender(&command.put, schema, options),
            _ => store.upserter(&command.put, schema, options),
        };
        return Ok((writer.map_err(of_write)?, None));
    }
    let key = match (&command.key, &known) {
        (Some(key), _) => key.clone(),
        (None, Some(info)) => info.key.clone(),
        (None, None) => Vec::new(),
    };
    let unique = command.map.unwrap_or(match &known {
        Some(info) => info.unique && !key.is_empty(),
        None => command.key.is_some() && command.value.is_some(),
    });
    let columns = match &command.value {
        None => None,
        Some(value) => {
            let names = key.iter().chain(value.iter().filter(|name| !key.contains(name)));
            let of_name = |name: &String| {
                schema.index_of(name).map_err(|_| Status::invalid_argument(format!("the rows have no column {name:?}")))
            };
            Some(names.map(of_name).collect::<Result<Vec<_>, Status>>()?)
        }
    };
    let schema = match &columns {
        Some(columns) => Arc::new(schema.project(columns).map_err(|e| status::of_arrow(&e))?),
        None => schema.clone(),
    };
    let options = PutOptions::table(key).unique(unique).on_duplicate(on_duplicate).cancel(cancel);
    Ok((store.writer(&command.put, schema, options).map_err(of_write)?, columns))
}
