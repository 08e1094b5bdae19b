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
    pub(crate) write_memory_bytes_max: u64,
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
    let (limits, place) = (limits.clone(), limits.places.writer()?);
    let stop = Arc::new(AtomicBool::new(false));
    let _stop_on_drop = StopOnDrop(stop.clone());
    let (told, hears) = mpsc::channel(BATCHES_WAITING_MAX);
    let name = command.put.clone();
    let mut writer = tokio::task::spawn_blocking(move || {
        let _place = place;
        write(&store, &command, schema, hears, &stop, &limits)
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
    limits: &PutLimits,
) -> Result<Published, Status> {
    let PutLimits { delete_bytes_max, write_memory_bytes_max: memory_bytes, .. } = *limits;
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
        let options = changes(memory_bytes).compact(command.compact.unwrap_or(true));
        let (version, rows) = store.delete(&command.put, &keys, options).map_err(of_write)?;
        return Ok(Published { version, rows });
    }
    let (mut writer, columns) = open_writer(store, command, &schema, stop, memory_bytes)?;
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

/// Changes that take no more memory than this.
pub(crate) fn changes(memory_bytes: u64) -> ChangeOptions {
    let mut options = ChangeOptions::default();
    options.build = options.build.memory_limit_bytes(memory_bytes);
    options
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
    memory_bytes: u64,
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
        let mut options = changes(memory_bytes).on_duplicate(on_duplicate).compact(command.compact.unwrap_or(true));
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
    let options = options.memory_limit_bytes(memory_bytes);
    Ok((store.writer(&command.put, schema, options).map_err(of_write)?, columns))
}

#[cfg(test)]
mod tests {
    use arrow_array::{FixedSizeBinaryArray, Int64Array, NullArray, RecordBatchIterator};
    use arrow_flight::Action;
    use tempfile::TempDir;

    use super::*;
    use crate::limits::Limits;
    use crate::service::Caller;

    fn batch(key: i64) -> RecordBatch {
        let column = |n| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
        RecordBatch::try_from_iter([("k", column(key)), ("v", column(1))]).unwrap()
    }

    /// A store with a table of several segments.
    fn store() -> (TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let rows = |key| RecordBatchIterator::new([Ok(batch(key))], batch(key).schema());
        store.put("t", rows(0), PutOptions::table(["k"])).unwrap();
        for key in 1..20 {
            store.append("t", rows(key), ChangeOptions::default().compact(false)).unwrap();
        }
        (dir, store)
    }

    fn put(store: &Store, mode: PutMode, rows: RecordBatch, memory_bytes: u64) -> Result<Published, Status> {
        let limits = PutLimits {
            decompressed_bytes_max: u64::MAX,
            delete_bytes_max: u64::MAX,
            write_memory_bytes_max: memory_bytes,
            places: Places::new(&Limits::default()),
        };
        let command = PutCommand { put: "t".to_owned(), mode, ..PutCommand::default() };
        let (told, hears) = mpsc::channel(2);
        let schema = rows.schema();
        assert!(told.try_send(Told::Rows(rows)).is_ok() && told.try_send(Told::End).is_ok());
        write(store, &command, schema, hears, &Arc::default(), &limits)
    }

    /// A terabyte, if they got their type at once.
    #[test]
    fn nulls_without_a_type_are_not_made_keys_at_once() {
        let (_dir, store) = store();
        let wide = FixedSizeBinaryArray::try_from_iter([vec![7u8; 1 << 20]].into_iter()).unwrap();
        let wide = RecordBatch::try_from_iter([("k", Arc::new(wide) as ArrayRef)]).unwrap();
        let rows = RecordBatchIterator::new([Ok(wide.clone())], wide.schema());
        store.put("t", rows, PutOptions::table(["k"])).unwrap();
        let nulls = Arc::new(NullArray::new(1 << 20)) as ArrayRef;
        let nulls = RecordBatch::try_from_iter_with_nullable([("k", nulls, true)]).unwrap();
        for mode in [PutMode::Append, PutMode::Upsert] {
            let refused = put(&store, mode, nulls.clone(), 64 << 20).map(|_| ()).unwrap_err();
            assert!(refused.message().contains("null"), "{refused:?}");
        }
    }

    /// Seen by a limit that the engine refuses.
    #[test]
    fn all_that_is_built_has_a_limit_of_memory() {
        let (_dir, store) = store();
        let too_little = |status: &Status| status.message().contains("memory_limit is 1 bytes");
        for mode in [PutMode::Publish, PutMode::Append, PutMode::Upsert] {
            let refused = put(&store, mode, batch(100), 1).map(|_| ()).unwrap_err();
            assert!(too_little(&refused), "{mode:?}: {refused:?}");
        }
        let compact = Action { r#type: "compact".to_owned(), body: br#"{"dataset": "t"}"#.to_vec().into() };
        let refused = crate::action::run(&Caller::everyone(), &store, false, 1, &compact).unwrap_err();
        assert!(too_little(&refused), "{refused:?}");
        // A deletion builds where it merges what is there, and is done also if that fails.
        let segments = || store.table("t").unwrap().info().segments;
        put(&store, PutMode::Delete, batch(5).project(&[0]).unwrap(), 1).unwrap();
        let left = segments();
        assert!(left > 10, "nothing was merged, there are {left}");
        put(&store, PutMode::Delete, batch(6).project(&[0]).unwrap(), 64 << 20).unwrap();
        assert!(segments() < left, "they were merged");
        assert_eq!(store.table("t").unwrap().num_rows(), 18);
    }
}
