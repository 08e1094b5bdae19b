//! `DoExchange`: lookups, many batches of keys under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow_buffer::BooleanBuffer;
use arrow_flight::FlightData;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt, stream};
use pheon::{Map, Store, Table};
use tonic::{Response, Status, Streaming};

use crate::command::{LookupCommand, dataset_and_version};
use crate::drain::Drain;
use crate::encode::{Encoder, Message};
use crate::flat::Flatten;
use crate::intake::{Intake, Taken};
use crate::live::LiveLookup;
use crate::scan::{check_created, to_usize};
use crate::service::Caller;
use crate::status;
use crate::wire::{FlightDataStream, response};

/// Batches of keys of one stream that are looked up at a time.
const BATCHES_AHEAD_MAX: usize = 4;
/// So few keys are looked up where they arrive: handing them to another thread would cost more.
const KEYS_INLINE_MAX: usize = 2048;

/// Of the number of a row's key, in an answer that has all rows of each key.
const POSITION_BYTES: u64 = 8;

/// What is needed to look a key up beside its own bytes, about: the key in the form that is compared, where it lies, the
/// row that it names.
const KEY_BYTES: u64 = 64;

/// Where keys are looked up.
enum Target {
    /// All rows of each key.
    Table(Table),
    Map {
        map: Map,
        columns: Vec<usize>,
        found: bool,
    },
    Live(LiveLookup),
}

impl Target {
    fn open(store: &Store, command: &LookupCommand) -> Result<(Self, SchemaRef), Status> {
        if let Some(name) = &command.lookup_live {
            let lookup = LiveLookup::open(store, name, command.found)?;
            let schema = lookup.schema();
            return Ok((Self::Live(lookup), schema));
        }
        let text = command.lookup.as_deref().unwrap_or_default();
        let (name, version) = dataset_and_version(text);
        let version = match (version, command.version) {
            (Some(a), Some(b)) if a != b => {
                return Err(Status::invalid_argument(format!("{text:?} and \"version\": {b} contradict each other")));
            }
            (a, b) => a.or(b),
        };
        let created = command.created;
        if command.rows {
            return Self::open_table(store, command, name, version);
        }
        let map = match version {
            Some(version) => store.map_at(name, version),
            None => store.map(name),
        }
        .map_err(|e| status::of_read(&e))?;
        check_created(created, || map.info())?;
        let fields = map.value_fields();
        let columns = match &command.columns {
            None => (0..fields.len()).collect(),
            Some(names) => names
                .iter()
                .map(|name| {
                    fields.iter().position(|field| field.name() == name).ok_or_else(|| {
                        Status::invalid_argument(format!("{text:?} has no value column {name:?} to look up"))
                    })
                })
                .collect::<Result<Vec<_>, Status>>()?,
        };
        let mut asked = vec![false; fields.len()];
        if let Some(&twice) = columns.iter().find(|&&column| std::mem::replace(&mut asked[column], true)) {
            let problem = format!("{text:?}: column {:?} is asked for twice", fields[twice].name());
            return Err(Status::invalid_argument(problem));
        }
        let mut answer: Vec<Field> = columns.iter().map(|&i| fields[i].as_ref().clone().with_nullable(true)).collect();
        if command.found {
            answer.push(Field::new("found", DataType::Boolean, true));
        }
        Ok((Self::Map { map, columns, found: command.found }, Arc::new(Schema::new(answer))))
    }

    fn open_table(
        store: &Store,
        command: &LookupCommand,
        name: &str,
        version: Option<u64>,
    ) -> Result<(Self, SchemaRef), Status> {
        let table = match version {
            Some(version) => store.table_at(name, version),
            None => store.table(name),
        };
        let mut table = table.map_err(|e| status::of_read(&e))?;
        check_created(command.created, || table.info())?;
        if let Some(columns) = &command.columns {
            table = table.select(columns).map_err(|e| status::of_read(&e))?;
        }
        if let Some((first, len)) = command.within {
            table = table.slice(to_usize(first), to_usize(len));
        }
        let position = Arc::new(Field::new("position", DataType::UInt64, false));
        let schema = table.schema();
        let fields: Vec<_> = std::iter::once(&position).chain(schema.fields()).cloned().collect();
        let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
        Ok((Self::Table(table), Arc::new(schema)))
    }

    /// `bytes_max`: how many the answer may have. Counted before any is copied.
    fn answer(&self, keys: &RecordBatch, schema: &SchemaRef, bytes_max: u64) -> Result<RecordBatch, Status> {
        let mut rows = keys.num_rows();
        let columns = match self {
            Self::Live(lookup) => lookup.answer(keys, bytes_max)?,
            Self::Table(table) => {
                let keys = key_array(&table.key_fields(), keys)?;
                let found = table.find_rows(&keys, None).map_err(|e| status::of_read(&e))?;
                let bytes = found.nbytes().map_err(|e| status::of_read(&e))?;
                check_bytes(bytes.saturating_add(found.len().saturating_mul(POSITION_BYTES)), bytes_max)?;
                let (positions, batch) = found.gather().map_err(|e| status::of_read(&e))?;
                rows = batch.num_rows();
                let positions: ArrayRef = Arc::new(positions);
                std::iter::once(&positions).chain(batch.columns()).cloned().collect()
            }
            Self::Map { map, columns, found } => {
                let of_read = |e| status::of_read(&e);
                let keys = key_array(map.key_fields(), keys)?;
                if let &[column] = columns.as_slice()
                    && (!*found || !map.may_have_null_values(column).map_err(of_read)?)
                {
                    // Values are copied while keys are found.
                    let room = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                    let values = map.get_many_within(&keys, column, room).map_err(of_read)?;
                    let values = values.ok_or_else(|| too_large(bytes_max))?;
                    let there = found.then(|| match values.nulls() {
                        Some(nulls) => nulls.inner().clone(),
                        None => BooleanBuffer::new_set(values.len()),
                    });
                    std::iter::once(values).chain(there.map(|there| Arc::new(BooleanArray::from(there)) as _)).collect()
                } else {
                    let rows = map.find_many(&keys, None).map_err(of_read)?;
                    let mut bytes = 0u64;
                    for &column in columns {
                        let of_column = map.bytes_of(&rows, column).map_err(of_read)?;
                        bytes = bytes.saturating_add(of_column).saturating_add(validity_bytes(rows.len()));
                    }
                    check_bytes(bytes, bytes_max)?;
                    let mut answer =
                        columns.iter().map(|&i| map.take(&rows, i)).collect::<Result<Vec<_>, _>>().map_err(of_read)?;
                    if *found {
                        answer.push(Arc::new(BooleanArray::from_iter((0..rows.len()).map(|i| Some(rows.is_valid(i))))));
                    }
                    answer
                }
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema.clone(), columns, &options)
            .map_err(|e| Status::internal(format!("put an answer together: {e}")))
    }
}

/// A bit a row.
pub(crate) fn validity_bytes(rows: usize) -> u64 {
    rows.div_ceil(8) as u64
}

/// Refuses keys that need too much memory to be looked up, however few bytes they came in.
fn check_keys(keys: usize, bytes_max: u64) -> Result<(), Status> {
    if (keys as u64).saturating_mul(KEY_BYTES) <= bytes_max {
        return Ok(());
    }
    let problem = format!(
        "{keys} keys at once need more than {bytes_max} bytes (decompressed_bytes_max) at {KEY_BYTES} bytes each: ask for \
         less at a time"
    );
    Err(status::with_detail(Status::resource_exhausted(problem), "answer-too-large"))
}

/// Refuses an answer that would be too large.
pub(crate) fn check_bytes(bytes: u64, bytes_max: u64) -> Result<(), Status> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(too_large(bytes_max))
}

fn too_large(bytes_max: u64) -> Status {
    let problem =
        format!("the answer would have more than {bytes_max} bytes (answer_bytes_max): ask for less at a time");
    status::with_detail(Status::resource_exhausted(problem), "answer-too-large")
}

/// The keys of a batch: its column, the one that is named as the key, or its columns as a struct.
fn key_array(key: &[FieldRef], batch: &RecordBatch) -> Result<ArrayRef, Status> {
    let wrong = || {
        let types = |fields: &mut dyn Iterator<Item = &FieldRef>| {
            fields.map(|field| format!("{:?} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
        };
        let (expected, found) = (types(&mut key.iter()), types(&mut batch.schema_ref().fields().iter()));
        let plain: Vec<_> = key.iter().map(|field| field.data_type().to_string()).collect();
        let problem = format!("keys are ({}), of the columns {expected}; got the columns {found}", plain.join(", "));
        status::with_detail(Status::invalid_argument(problem), "key-type")
    };
    if batch.num_columns() == 1 && (key.len() == 1 || matches!(batch.column(0).data_type(), DataType::Struct(_))) {
        return Ok(batch.column(0).clone());
    }
    match key {
        [field] => batch.column_by_name(field.name()).cloned().ok_or_else(wrong),
        _ if batch.num_columns() < key.len() => Err(wrong()),
        _ => Ok(Arc::new(StructArray::from(batch.clone()))),
    }
}

/// The decoded messages of a client's stream, with the first message put back before the others.
pub(crate) fn decoded(
    first: FlightData,
    rest: Streaming<FlightData>,
    bytes_max: u64,
    flatten: Flatten,
    caller: &Caller,
) -> Intake {
    Intake::new(stream::iter([Ok(first)]).chain(rest), bytes_max, flatten, caller.record().clone())
}

/// What a lookup of these keys is answered.
pub(crate) fn answer_once(
    store: &Store,
    command: &LookupCommand,
    keys: &RecordBatch,
    bytes_max: u64,
) -> Result<RecordBatch, Status> {
    let (target, schema) = Target::open(store, command)?;
    target.answer(keys, &schema, bytes_max)
}

/// What a stream of lookups may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookupLimits {
    pub(crate) decompressed_bytes_max: u64,
    pub(crate) answer_bytes_max: u64,
}

/// Serves one stream of lookups. It ends when its client ends it, or when the server stops: by then it has answered what
/// it was asked.
pub(crate) async fn lookup(
    caller: Caller,
    store: Store,
    mut stream: Streaming<FlightData>,
    limits: LookupLimits,
    drain: Drain,
) -> Result<Response<FlightDataStream>, Status> {
    let first = tokio::select! {
        first = stream.message() => first?.ok_or_else(|| Status::invalid_argument("the stream has no message"))?,
        () = drain.clone().begun() => return Err(Status::unavailable("the server stops")),
    };
    let descriptor = first.flight_descriptor.as_ref();
    let descriptor = descriptor.ok_or_else(|| Status::invalid_argument("the first message has no descriptor"))?;
    let command = LookupCommand::of_descriptor(descriptor)?;
    match (&command.lookup, &command.lookup_live) {
        (Some(name), _) => caller.check_read(dataset_and_version(name).0)?,
        (None, name) => caller.check_read(&crate::live::right(name.as_deref().unwrap_or_default()))?,
    }
    let (target, schema) = crate::service::blocking(move || Target::open(&store, &command)).await?;
    let target = Arc::new(target);
    let mut encoder = Encoder::new(&schema).map_err(|e| Status::internal(format!("encode a schema: {e}")))?;
    let first_answer = Message::schema(&schema);
    let stopping = Arc::new(AtomicBool::new(false));
    let told = stopping.clone();
    let stop = async move {
        drain.begun().await;
        told.store(true, Ordering::Relaxed);
    };
    let (record, bytes_max) = (caller.record().clone(), limits.answer_bytes_max);
    let answers = decoded(first, stream, limits.decompressed_bytes_max, Flatten::All, &caller)
        .take_until(Box::pin(stop))
        .try_filter_map(|taken| async move {
            Ok(match taken {
                Taken::Rows { batch, app_metadata } => Some((app_metadata, batch)),
                Taken::Schema(_) => None,
            })
        })
        .map(move |next| {
            let (target, schema) = (target.clone(), schema.clone());
            async move {
                let (app_metadata, keys) = next?;
                check_keys(keys.num_rows(), limits.decompressed_bytes_max)?;
                let batch = if keys.num_rows() <= KEYS_INLINE_MAX {
                    target.answer(&keys, &schema, bytes_max)?
                } else {
                    crate::service::blocking(move || target.answer(&keys, &schema, bytes_max)).await?
                };
                Ok::<_, Status>((app_metadata, batch))
            }
        })
        .buffered(BATCHES_AHEAD_MAX)
        .map(move |next| {
            let (app_metadata, batch) = next?;
            let mut messages =
                encoder.encode(&batch).map_err(|e| Status::internal(format!("encode an answer: {e}")))?;
            if let Some(last) = messages.last_mut() {
                last.app_metadata = app_metadata;
            }
            record.moved(0, messages.iter().map(|message| message.body_bytes() as u64).sum());
            Ok::<_, Status>(stream::iter(messages.into_iter().map(Ok)))
        })
        .try_flatten();
    let farewell = stream::once(async move {
        let why = || Status::unavailable("the server stops; what was asked before has been answered");
        stopping.load(Ordering::Relaxed).then(|| Err(why()))
    });
    let farewell = farewell.filter_map(std::future::ready);
    Ok(response(stream::iter([Ok(first_answer)]).chain(answers).chain(farewell)))
}
