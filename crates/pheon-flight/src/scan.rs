//! Scans: the rows that a command selects, as messages.

use std::ops::{Bound, Range};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use pheon::{Info, KeyRef, OwnedKey, Store, Table, parse_bytes, parse_key};
use tonic::Status;

use crate::command::{KeyScalar, KeyValue, ScanCommand, dataset_and_version};
use crate::encode::{Encoder, MESSAGE_BYTES_MAX, Message, encode_within};
use crate::status;

/// Pages that are touched before a message goes out, so that no page fault blocks the network's threads.
const PAGE_BYTES: usize = 4096;
/// Bytes of messages that are made in one step.
const STEP_BYTES: usize = 4 * MESSAGE_BYTES_MAX;
/// Batches of one step, however small.
const STEP_BATCHES_MAX: usize = 16;

/// Opens the dataset that `name` or `name@version` names.
pub(crate) fn open(store: &Store, text: &str) -> Result<Table, Status> {
    let (name, version) = dataset_and_version(text);
    match version {
        Some(version) => store.table_at(name, version),
        None => store.table(name),
    }
    .map_err(|e| status::of_read(&e))
}

/// Refuses a version that is another than the one that was opened: versions of a dataset that is dropped and made anew begin
/// with 1 again.
pub(crate) fn check_created(created: Option<u64>, info: impl FnOnce() -> Info) -> Result<(), Status> {
    let Some(created) = created else { return Ok(()) };
    let info = info();
    if created == info.created_unix_ms {
        return Ok(());
    }
    let problem = format!(
        "{:?} was replaced: version {} is no longer the one that was opened; open it anew",
        info.name, info.version
    );
    Err(status::with_detail(Status::not_found(problem), "not-found"))
}

/// The rows and columns that a command selects of a table.
#[derive(Debug)]
pub(crate) struct Selection {
    table: Table,
    /// Of `table`, one after the other; `None`: all.
    pieces: Option<Vec<Range<usize>>>,
}

impl Selection {
    pub(crate) fn new(mut table: Table, command: &ScanCommand) -> Result<Self, Status> {
        let of_read = |e| status::of_read(&e);
        if let Some(columns) = &command.columns {
            table = table.select(columns).map_err(of_read)?;
        }
        let (skip, limit) = (to_usize(command.offset.unwrap_or(0)), command.limit.map_or(usize::MAX, to_usize));
        if let Some(keys) = &command.keys {
            let mut pieces = Pieces::new(skip, limit, keys.len());
            for key in keys {
                let (first, len) = table.rows(full_key(&table, key)?.as_ref()).map_err(of_read)?.bounds();
                pieces.add(first, len);
            }
            return Ok(Self { table, pieces: Some(pieces.found) });
        }
        if let Some(runs) = &command.rows {
            let mut pieces = Pieces::new(skip, limit, runs.len());
            for &(first, len) in runs {
                let (first, len) = table.slice(to_usize(first), to_usize(len)).bounds();
                pieces.add(first, len);
            }
            return Ok(Self { table, pieces: Some(pieces.found) });
        }
        if let Some(prefix) = &command.prefix {
            table = table.prefix(&prefix_bytes(&table, prefix)?).map_err(of_read)?;
        } else if command.from.is_some() || command.to.is_some() {
            let key = |key: &Option<KeyValue>| key.as_ref().map(|key| bound_key(&table, key)).transpose();
            let (from, to) = (key(&command.from)?, key(&command.to)?);
            let start = from.as_ref().map_or(Bound::Unbounded, |key| Bound::Included(key.as_ref()));
            let end = to.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()));
            table = table.range((start, end)).map_err(of_read)?;
        }
        Ok(Self { table: table.slice(skip, limit), pieces: None })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    pub(crate) fn rows(&self) -> usize {
        match &self.pieces {
            Some(pieces) => pieces.iter().map(ExactSizeIterator::len).sum(),
            None => self.table.num_rows(),
        }
    }

    /// Bytes of the rows, an estimate where they are picked by keys.
    pub(crate) fn bytes(&self) -> Result<u64, Status> {
        let all = self.table.nbytes().map_err(|e| status::of_read(&e))?;
        let rows = self.table.num_rows().max(1) as u64;
        Ok(if self.pieces.is_some() { all / rows * self.rows() as u64 } else { all })
    }

    /// The rows as batches whose messages are about as large as they may be.
    pub(crate) fn batches(self) -> Result<Batches, Status> {
        let rows = self.table.num_rows().max(1) as u64;
        let row_bytes = (self.table.nbytes().map_err(|e| status::of_read(&e))? / rows).max(1);
        let step = (MESSAGE_BYTES_MAX as u64 * 15 / 16 / row_bytes).clamp(1, u32::MAX.into()) as usize;
        Ok(Batches { selection: self, next: 0, step })
    }
}

/// Runs of rows, without those that are skipped or beyond the limit.
struct Pieces {
    skip: usize,
    left: usize,
    found: Vec<Range<usize>>,
}

impl Pieces {
    fn new(skip: usize, limit: usize, expected: usize) -> Self {
        Self { skip, left: limit, found: Vec::with_capacity(expected) }
    }

    fn add(&mut self, first: usize, len: usize) {
        let skipped = self.skip.min(len);
        self.skip -= skipped;
        let taken = (len - skipped).min(self.left);
        self.left -= taken;
        if taken > 0 {
            self.found.push(first + skipped..first + skipped + taken);
        }
    }
}

pub(crate) fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Batches of a selection, in order.
pub(crate) struct Batches {
    selection: Selection,
    /// The next row, or the next piece.
    next: usize,
    /// How many rows of middling size make a message.
    step: usize,
}

/// Rows of one message are as long as so many bytes at most, where one row is not longer.
const STEP_BYTES_MAX: u64 = 2 * MESSAGE_BYTES_MAX as u64;

/// As many rows from the first of `rows` on as have about `bytes_max` bytes, but at least one; and their bytes.
fn fitting(table: &Table, mut rows: Range<usize>, bytes_max: u64) -> Result<(Range<usize>, u64), Status> {
    loop {
        let bytes = table.bytes_of(rows.clone()).map_err(|e| status::of_read(&e))?;
        if bytes <= bytes_max || rows.len() <= 1 {
            return Ok((rows, bytes));
        }
        // In proportion, and at most half of them.
        let share = (rows.len() as u128 * u128::from(bytes_max) / u128::from(bytes)) as usize;
        rows.end = rows.start + share.clamp(1, rows.len() / 2);
    }
}

impl Iterator for Batches {
    type Item = Result<Vec<RecordBatch>, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let Selection { table, pieces } = &mut self.selection;
        let found = match pieces {
            None if self.next >= table.num_rows() => return None,
            None => {
                let end = self.next.saturating_add(self.step).min(table.num_rows());
                let (rows, _) = match fitting(table, self.next..end, STEP_BYTES_MAX) {
                    Ok(found) => found,
                    Err(status) => return Some(Err(status)),
                };
                self.next = rows.end;
                table.slice(rows.start, rows.len()).to_batches()
            }
            Some(pieces) if self.next >= pieces.len() => return None,
            Some(pieces) => {
                let (mut picked, mut room, mut bytes_left) = (Vec::new(), self.step, STEP_BYTES_MAX);
                while room > 0 && bytes_left > 0 && self.next < pieces.len() {
                    let piece = &mut pieces[self.next];
                    let end = piece.start + piece.len().min(room);
                    let (taken, bytes) = match fitting(table, piece.start..end, bytes_left) {
                        Ok(found) => found,
                        Err(status) => return Some(Err(status)),
                    };
                    piece.start = taken.end;
                    room -= taken.len();
                    bytes_left = bytes_left.saturating_sub(bytes);
                    picked.push(taken);
                    if piece.start == piece.end {
                        self.next += 1;
                    }
                }
                table.gather(&picked).map(|batch| vec![batch])
            }
        };
        Some(found.map_err(|e| status::of_read(&e)))
    }
}

/// The value of one key column.
fn scalar_key(value: &KeyScalar, data_type: &DataType) -> Result<OwnedKey, Status> {
    let is_text = matches!(data_type, DataType::LargeUtf8 | DataType::LargeBinary | DataType::FixedSizeBinary(_));
    let fits = match value {
        KeyScalar::Text(_) => true,
        KeyScalar::Number(_) => !is_text && *data_type != DataType::Boolean,
        KeyScalar::Bool(_) => *data_type == DataType::Boolean,
    };
    if !fits {
        return Err(Status::invalid_argument(format!("key {} does not fit: keys are {data_type}", value.text())));
    }
    parse_key(&value.text(), data_type).map_err(|e| Status::invalid_argument(e.to_string()))
}

/// A key, or of a key of several columns the beginning of one.
fn bound_key(table: &Table, key: &KeyValue) -> Result<OwnedKey, Status> {
    let fields = table.key_fields();
    let parts = key.parts();
    if fields.is_empty() {
        return Err(Status::invalid_argument(format!("{:?} has no key to select rows by", table.name())));
    }
    if parts.len() > fields.len() || parts.is_empty() {
        return Err(Status::invalid_argument(format!(
            "a key of {} values: keys of {:?} have {}",
            parts.len(),
            table.name(),
            fields.len()
        )));
    }
    let mut values = Vec::with_capacity(parts.len());
    for (value, field) in parts.iter().zip(&fields) {
        values.push(scalar_key(value, field.data_type())?);
    }
    if fields.len() == 1 {
        return Ok(values.swap_remove(0));
    }
    let refs: Vec<KeyRef<'_>> = values.iter().map(OwnedKey::as_ref).collect();
    table.composite_key(&refs).map(OwnedKey::Bytes).map_err(|e| status::of_read(&e))
}

pub(crate) fn full_key(table: &Table, key: &KeyValue) -> Result<OwnedKey, Status> {
    let (given, columns) = (key.parts().len(), table.key().len());
    if given != columns && columns > 0 {
        return Err(Status::invalid_argument(format!(
            "a key of {given} values: keys of {:?} have {columns}",
            table.name()
        )));
    }
    bound_key(table, key)
}

fn prefix_bytes(table: &Table, prefix: &KeyValue) -> Result<Vec<u8>, Status> {
    let fields = table.key_fields();
    if let ([field], [KeyScalar::Text(text)]) = (fields.as_slice(), prefix.parts()) {
        return match field.data_type() {
            DataType::LargeUtf8 => Ok(text.as_bytes().to_vec()),
            DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
                parse_bytes(text).map_err(|e| Status::invalid_argument(e.to_string()))
            }
            other => Err(Status::invalid_argument(format!("keys are {other} and have no prefix; use from and to"))),
        };
    }
    match bound_key(table, prefix)? {
        OwnedKey::Bytes(bytes) => Ok(bytes),
        _ => Err(Status::invalid_argument(format!("keys of {:?} have no prefix; use from and to", table.name()))),
    }
}

/// The messages of a batch, as large as they may be.
pub(crate) fn messages(encoder: &mut Encoder, batch: &RecordBatch, out: &mut Vec<Message>) -> Result<(), Status> {
    encode_within(encoder, batch, MESSAGE_BYTES_MAX, out).map_err(|e| Status::internal(format!("encode a batch: {e}")))
}

/// Messages of several batches at a time.
struct Steps<B> {
    batches: B,
    encoder: Encoder,
    /// The next step ends when it has so many.
    bytes: usize,
}

impl<B> Steps<B>
where
    B: Iterator<Item = Result<Vec<RecordBatch>, Status>>,
{
    fn step(&mut self, first: B::Item) -> Result<Vec<Message>, Status> {
        let (mut out, mut bytes) = (Vec::new(), 0);
        for found in std::iter::once(first).chain(self.batches.by_ref().take(STEP_BATCHES_MAX - 1)) {
            let encoded = out.len();
            for batch in found? {
                if batch.num_rows() > 0 {
                    messages(&mut self.encoder, &batch, &mut out)?;
                }
            }
            bytes += out[encoded..].iter().map(Message::body_bytes).sum::<usize>();
            if bytes >= self.bytes {
                break;
            }
        }
        self.bytes = STEP_BYTES;
        out.iter().flat_map(|message| &message.body).for_each(|piece| touch(piece));
        Ok(out)
    }
}

impl<B> Iterator for Steps<B>
where
    B: Iterator<Item = Result<Vec<RecordBatch>, Status>>,
{
    type Item = Result<Vec<Message>, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.batches.next()?;
        Some(self.step(first))
    }
}

/// A stream of a schema and batches. Each step is taken on a thread that may block, one ahead of what is being sent. Steps
/// begin with one batch, for the first rows to leave soon, and become longer: each is a hand-over between threads.
pub(crate) fn stream<B>(
    schema: &SchemaRef,
    batches: B,
) -> Result<impl Stream<Item = Result<Message, Status>> + use<B>, Status>
where
    B: Iterator<Item = Result<Vec<RecordBatch>, Status>> + Send + 'static,
{
    let encoder = Encoder::new(schema).map_err(|e| Status::internal(format!("encode a schema: {e}")))?;
    let steps = Steps { batches, encoder, bytes: 1 };
    let first = stream::iter([Ok(Message::schema(schema))]);
    Ok(first.chain(ahead(steps)))
}

fn touch(bytes: &[u8]) {
    std::hint::black_box(bytes.iter().step_by(PAGE_BYTES).fold(0, |sum: u8, byte| sum ^ byte));
}

fn ahead<I>(steps: I) -> impl Stream<Item = Result<Message, Status>>
where
    I: Iterator<Item = Result<Vec<Message>, Status>> + Send + 'static,
{
    let start = |mut steps: I| {
        tokio::task::spawn_blocking(move || {
            let next = steps.next();
            (steps, next)
        })
    };
    let groups = stream::unfold(Some(start(steps)), move |job| async move {
        let (steps, next) = match job?.await {
            Ok(done) => done,
            Err(e) => return Some((Err(Status::internal(format!("a scan ended early: {e}"))), None)),
        };
        match next? {
            Ok(messages) => Some((Ok(stream::iter(messages.into_iter().map(Ok))), Some(start(steps)))),
            Err(status) => Some((Err(status), None)),
        }
    });
    groups.try_flatten()
}
