//! The action `live`: operations on a live map in one transaction, in MessagePack.

use std::collections::HashMap;
use std::time::Duration;

use pheon::Store;
use pheon_live::{Change, LiveError, LiveMap};
use rmp::Marker;
use rmp::decode;
use rmp::encode;
use tonic::Status;

use crate::exchange::check_bytes;
use crate::live::{attach, parts, right, stored};
use crate::places::Places;
use crate::service::{Caller, blocking};
use crate::status;

/// How long to wait for the map's lock in all.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long to wait for it before it has a thread of those that are for waiting.
const LOCK_WAIT_AT_ONCE: Duration = Duration::from_millis(10);
/// How often reading is tried again where others change the map meanwhile, before a snapshot is taken.
const READS_MAX: usize = 8;
/// Operations of one call.
const OPERATIONS_MAX: u32 = 1_000_000;

type Bytes<'a> = &'a [u8];
/// What a key becomes (the outer `None`: it stays), whether it was there or the operation was done, and the value to tell.
type Outcome = (Option<Option<Vec<u8>>>, bool, Option<Vec<u8>>);

/// A key in its canonical form, and as it was given where that differs.
#[derive(Clone, Copy)]
struct Key<'a> {
    canonical: Bytes<'a>,
    given: Option<Bytes<'a>>,
}

enum Operation<'a> {
    Set(Key<'a>, Bytes<'a>),
    Delete(Key<'a>),
    Get(Key<'a>),
    SetDefault(Key<'a>, Bytes<'a>),
    Cas(Key<'a>, Option<Bytes<'a>>, Option<Bytes<'a>>),
    /// Nothing is changed by any operation unless the key has this value.
    Expect(Key<'a>, Option<Bytes<'a>>),
    Increment(Key<'a>, Bytes<'a>),
    Pop(Key<'a>),
    Clear,
    Len,
}

impl Operation<'_> {
    fn changes(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::Len | Self::Expect(..))
    }
}

fn malformed(what: &str) -> Status {
    Status::invalid_argument(format!("malformed body of the action \"live\": {what}"))
}

/// Reads the body.
struct Body<'a>(Bytes<'a>);

impl<'a> Body<'a> {
    fn array(&mut self, what: &str) -> Result<u32, Status> {
        decode::read_array_len(&mut self.0).map_err(|_| malformed(&format!("{what} is no array")))
    }

    fn take(&mut self, len: u32) -> Result<Bytes<'a>, Status> {
        let (head, rest) = self.0.split_at_checked(len as usize).ok_or_else(|| malformed("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn text(&mut self, what: &str) -> Result<&'a str, Status> {
        let len = decode::read_str_len(&mut self.0).map_err(|_| malformed(&format!("{what} is no text")))?;
        std::str::from_utf8(self.take(len)?).map_err(|_| malformed(&format!("{what} is not UTF-8")))
    }

    fn bin(&mut self, what: &str) -> Result<Bytes<'a>, Status> {
        let len = decode::read_bin_len(&mut self.0).map_err(|_| malformed(&format!("{what} is no bin")))?;
        self.take(len)
    }

    fn optional(&mut self, what: &str) -> Result<Option<Bytes<'a>>, Status> {
        if self.0.first() == Some(&Marker::Null.to_u8()) {
            self.0 = &self.0[1..];
            return Ok(None);
        }
        self.bin(what).map(Some)
    }

    fn key(&mut self) -> Result<Key<'a>, Status> {
        if matches!(self.0.first(), Some(0x92)) {
            self.0 = &self.0[1..];
            return Ok(Key { canonical: self.bin("a key")?, given: Some(self.bin("a key as given")?) });
        }
        Ok(Key { canonical: self.bin("a key")?, given: None })
    }

    fn operation(&mut self) -> Result<Operation<'a>, Status> {
        let members = self.array("an operation")?;
        let name = self.text("an operation's name")?;
        let (expected, operation) = match name {
            "set" => (3, Operation::Set(self.key()?, self.bin("a value")?)),
            "delete" => (2, Operation::Delete(self.key()?)),
            "get" => (2, Operation::Get(self.key()?)),
            "setdefault" => (3, Operation::SetDefault(self.key()?, self.bin("a value")?)),
            "cas" => (4, Operation::Cas(self.key()?, self.optional("a value")?, self.optional("a value")?)),
            "expect" => (3, Operation::Expect(self.key()?, self.optional("a value")?)),
            "increment" => (3, Operation::Increment(self.key()?, self.bin("a number")?)),
            "pop" => (2, Operation::Pop(self.key()?)),
            "clear" => (1, Operation::Clear),
            "len" => (1, Operation::Len),
            other => return Err(malformed(&format!("there is no operation {other:?}"))),
        };
        if members != expected {
            return Err(malformed(&format!("{name:?} has {members} members, expected {expected}")));
        }
        Ok(operation)
    }
}

/// Does what a body asks for; the result's body. Where the map's lock is kept by others it waits in a place that is for that.
pub(crate) async fn serve(
    caller: Caller,
    store: Store,
    body: bytes::Bytes,
    bytes_max: u64,
    places: &Places,
) -> Result<Vec<u8>, Status> {
    let again = (caller.clone(), store.clone(), body.clone());
    let at_once = move || match run(&caller, &store, &body, LOCK_WAIT_AT_ONCE, bytes_max) {
        Err(Refused::Locked) => Ok(None),
        done => done.map(Some).map_err(Status::from),
    };
    if let Some(done) = blocking(at_once).await? {
        return Ok(done);
    }
    let place = places.lock(LOCK_WAIT_MAX).await?;
    let (caller, store, body) = again;
    blocking(move || {
        let _place = place;
        run(&caller, &store, &body, LOCK_WAIT_MAX, bytes_max).map_err(Status::from)
    })
    .await
}

/// Why nothing was done.
pub(crate) enum Refused {
    /// Others kept the lock for as long as was to be waited.
    Locked,
    For(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::For(status)
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Locked => {
                let problem = format!("others kept the lock of the live map for {} s", LOCK_WAIT_MAX.as_secs());
                status::with_detail(Self::unavailable(problem), "lock-timeout")
            }
            Refused::For(status) => status,
        }
    }
}

pub(crate) fn run(
    caller: &Caller,
    store: &Store,
    body: &[u8],
    wait: Duration,
    bytes_max: u64,
) -> Result<Vec<u8>, Refused> {
    let mut body = Body(body);
    if body.array("it")? != 2 {
        return Err(malformed("expected a name and a list of operations").into());
    }
    let name = body.text("the name")?;
    let count = body.array("the list of operations")?;
    if count > OPERATIONS_MAX {
        return Err(Status::resource_exhausted(format!("{count} operations: at most {OPERATIONS_MAX} at once")).into());
    }
    let mut operations = Vec::new();
    for _ in 0..count {
        operations.push(body.operation()?);
    }
    if !body.0.is_empty() {
        return Err(malformed("bytes follow the operations").into());
    }
    let writes = operations.iter().any(Operation::changes);
    if writes {
        caller.check_write(&right(name))?;
    } else {
        caller.check_read(&right(name))?;
    }
    let map = attach(store, name)?;
    if !writes {
        return Ok(read(&map, &operations, bytes_max)?);
    }
    map.lock(Some(wait), &|| false).map_err(|e| match e {
        LiveError::LockTimeout { .. } => Refused::Locked,
        e => Refused::For(status::of_live(&e)),
    })?;
    let done = transact(&map, &operations, &as_it_is(&map), map.len(), bytes_max);
    map.unlock().map_err(|e| status::of_live(&e))?;
    Ok(done?)
}

/// The entry of a key: its byte and what is stored.
type Stored = Option<(u8, Vec<u8>)>;
/// What reads see.
type Reader<'r> = dyn Fn(&[u8]) -> Result<Stored, LiveError> + 'r;

fn as_it_is(map: &LiveMap) -> impl Fn(&[u8]) -> Result<Stored, LiveError> {
    |key| map.get_with(key, |entry| (entry.meta(), entry.value().to_vec()))
}

/// Answers operations that only read, all of them as of one moment.
fn read(map: &LiveMap, operations: &[Operation<'_>], bytes_max: u64) -> Result<Vec<u8>, Status> {
    for _ in 0..READS_MAX {
        let before = map.sequence();
        let done = transact(map, operations, &as_it_is(map), map.len(), bytes_max)?;
        if operations.len() < 2 || map.sequence() == before {
            return Ok(done);
        }
    }
    let snapshot = map.snapshot().map_err(|e| status::of_live(&e))?;
    let get = |key: &[u8]| Ok(snapshot.get(key)?.map(|entry| (entry.meta(), entry.value().to_vec())));
    let asks = operations.iter().any(|operation| matches!(operation, Operation::Len));
    let len = if asks { snapshot.len().map_err(|e| status::of_live(&e))? } else { 0 };
    transact(map, operations, &get, len, bytes_max)
}

/// What a transaction has changed so far: of a key, its byte and what is stored; `None`: it is gone.
#[derive(Default)]
struct Changed<'a> {
    cleared: bool,
    keys: HashMap<Bytes<'a>, Entry>,
    /// In the order in which keys were first changed, which becomes the map's. One that was deleted and is set again
    /// comes once more, and its last place counts.
    order: Vec<Bytes<'a>>,
}

/// What becomes of a key.
struct Entry {
    stored: Stored,
    /// Its place in `order`.
    place: usize,
    /// Whether it was deleted in between, and so leaves its place in the map.
    was_deleted: bool,
}

impl<'a> Changed<'a> {
    fn get(&self, reader: &Reader<'_>, key: Bytes<'a>) -> Result<Stored, Status> {
        match self.keys.get(key) {
            Some(changed) => Ok(changed.stored.clone()),
            None if self.cleared => Ok(None),
            None => reader(key).map_err(|e| status::of_live(&e)),
        }
    }

    fn put(&mut self, key: Bytes<'a>, stored: Stored) {
        let before = self.keys.get(key);
        let comes_back = stored.is_some() && before.is_some_and(|before| before.stored.is_none());
        let place = match before {
            Some(before) if !comes_back => before.place,
            _ => {
                self.order.push(key);
                self.order.len() - 1
            }
        };
        let was_deleted = stored.is_none() || before.is_some_and(|before| before.was_deleted);
        self.keys.insert(key, Entry { stored, place, was_deleted });
    }
}

fn transact(
    map: &LiveMap,
    operations: &[Operation<'_>],
    reader: &Reader<'_>,
    mut len: u64,
    bytes_max: u64,
) -> Result<Vec<u8>, Status> {
    let mut changed = Changed::default();
    let mut out = Vec::new();
    let full = |_| Status::internal("write a result");
    encode::write_array_len(&mut out, operations.len() as u32).map_err(full)?;
    let mut as_expected = true;
    for operation in operations {
        let key = match operation {
            Operation::Clear => {
                changed = Changed { cleared: true, ..Changed::default() };
                len = 0;
                answer(&mut out, true, None)?;
                continue;
            }
            Operation::Len => {
                encode::write_uint(&mut out, len).map_err(full)?;
                continue;
            }
            Operation::Set(key, _)
            | Operation::Delete(key)
            | Operation::Get(key)
            | Operation::SetDefault(key, _)
            | Operation::Cas(key, ..)
            | Operation::Expect(key, _)
            | Operation::Increment(key, _)
            | Operation::Pop(key) => *key,
        };
        let before = changed.get(reader, key.canonical)?;
        let (given, value) = match &before {
            Some((meta, bytes)) => {
                let (given, value) = parts(*meta, bytes)?;
                (given, Some(value))
            }
            None => (key.given, None),
        };
        // What to store; the outer None: nothing changes.
        let (after, done, result): Outcome = match operation {
            Operation::Set(_, new) => (Some(Some(new.to_vec())), value.is_some(), None),
            Operation::Delete(_) => (value.map(|_| None), value.is_some(), None),
            Operation::Get(_) => (None, value.is_some(), value.map(<[u8]>::to_vec)),
            Operation::SetDefault(_, new) => match value {
                Some(value) => (None, true, Some(value.to_vec())),
                None => (Some(Some(new.to_vec())), false, Some(new.to_vec())),
            },
            Operation::Cas(_, old, new) => {
                let equal = value == *old;
                (equal.then(|| new.map(<[u8]>::to_vec)), equal, value.map(<[u8]>::to_vec))
            }
            Operation::Expect(_, old) => {
                let equal = value == *old;
                as_expected &= equal;
                (None, equal, value.map(<[u8]>::to_vec))
            }
            Operation::Increment(_, by) => {
                let sum = add(value, by)?;
                (Some(Some(sum.clone())), value.is_some(), Some(sum))
            }
            Operation::Pop(_) => (value.map(|_| None), value.is_some(), value.map(<[u8]>::to_vec)),
            Operation::Clear | Operation::Len => continue,
        };
        check_bytes(out.len() as u64 + result.as_ref().map_or(0, Vec::len) as u64, bytes_max)?;
        answer(&mut out, done, result.as_deref())?;
        if let Some(after) = after {
            len = len + u64::from(after.is_some()) - u64::from(value.is_some());
            let entry = after.map(|value| stored(given, &value));
            changed.put(key.canonical, entry);
        }
    }
    if !as_expected {
        return Ok(out);
    }
    if changed.cleared {
        map.clear_and(&changed)?;
    } else if !changed.order.is_empty() {
        map.apply(changed.changes()).map_err(|e| status::of_live(&e))?;
    }
    Ok(out)
}

impl<'a> Changed<'a> {
    /// First what makes room.
    fn changes<'c>(&'c self) -> impl Iterator<Item = Change<'c>> {
        let placed = self.order.iter().enumerate().map(|(place, &key)| (place, key, &self.keys[key]));
        let deletes = placed
            .clone()
            .filter(|(place, _, entry)| entry.was_deleted && entry.place == *place)
            .map(|(_, key, _)| Change::Delete { key });
        let puts = placed.filter(|(place, _, entry)| entry.place == *place).filter_map(|(_, key, entry)| {
            entry.stored.as_ref().map(|(meta, value)| Change::Put { key, meta: *meta, value })
        });
        deletes.chain(puts)
    }
}

/// Clearing and what follows it, in one transaction.
trait ClearAnd {
    fn clear_and(&self, changed: &Changed<'_>) -> Result<(), Status>;
}

impl ClearAnd for LiveMap {
    fn clear_and(&self, changed: &Changed<'_>) -> Result<(), Status> {
        let of_live = |e| status::of_live(&e);
        let all = self.snapshot().and_then(|snapshot| snapshot.ordered()).map_err(of_live)?;
        let keys: Vec<Vec<u8>> =
            (0..all.len()).filter_map(|at| all.get(at)).map(|entry| entry.key().to_vec()).collect();
        let deletes = keys.iter().map(|key| Change::Delete { key });
        self.apply(deletes.chain(changed.changes())).map_err(of_live)
    }
}

fn answer(out: &mut Vec<u8>, done: bool, value: Option<&[u8]>) -> Result<(), Status> {
    let full = |_| Status::internal("write a result");
    encode::write_array_len(out, 2).map_err(full)?;
    encode::write_bool(out, done).map_err(|_| Status::internal("write a result"))?;
    match value {
        Some(value) => encode::write_bin(out, value).map_err(full),
        None => encode::write_nil(out).map_err(|_| Status::internal("write a result")),
    }
}

/// A number in MessagePack.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let number = match Marker::from_u8(*bytes.first()?) {
            Marker::F64 => Self::Float(decode::read_f64(&mut rest).ok()?),
            Marker::F32 => Self::Float(decode::read_f32(&mut rest).ok()?.into()),
            Marker::True => return (bytes.len() == 1).then_some(Self::Int(1)),
            Marker::False => return (bytes.len() == 1).then_some(Self::Int(0)),
            _ => Self::Int(decode::read_int::<i128, _>(&mut rest).ok()?),
        };
        rest.is_empty().then_some(number)
    }
}

fn add(value: Option<&[u8]>, by: &[u8]) -> Result<Vec<u8>, Status> {
    let number = |bytes: &[u8]| {
        Number::read(bytes).ok_or_else(|| Status::invalid_argument("\"increment\" adds int of 64 bits and float only"))
    };
    let before = value.map_or(Ok(Number::Int(0)), number)?;
    let mut out = Vec::new();
    let written = match (before, number(by)?) {
        (Number::Int(a), Number::Int(b)) => {
            let sum = a + b;
            match (i64::try_from(sum), u64::try_from(sum)) {
                (Ok(sum), _) => encode::write_sint(&mut out, sum).is_ok(),
                (_, Ok(sum)) => encode::write_uint(&mut out, sum).is_ok(),
                _ => return Err(Status::invalid_argument(format!("\"increment\": the sum {sum} exceeds 64 bits"))),
            }
        }
        (a, b) => {
            let float = |n| match n {
                Number::Int(n) => n as f64,
                Number::Float(n) => n,
            };
            encode::write_f64(&mut out, float(a) + float(b)).is_ok()
        }
    };
    if written { Ok(out) } else { Err(Status::internal("write a number")) }
}
