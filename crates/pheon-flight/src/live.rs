//! Live maps: scans of a snapshot, lookups, and keys in their encoding (docs/live-values.md).

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::LargeBinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use pheon::Store;
use pheon_live::{Entry, LiveError, LiveMap, LiveOptions, Location, Ordered, Place};
use tonic::Status;

use crate::encode::MESSAGE_BYTES_MAX;
use crate::exchange::{check_bytes, validity_bytes};
use crate::status;

/// In an entry's byte: the value begins with the key as it was given.
const GIVEN_KEY: u8 = 1;
/// The extension type of integers beyond 64 bits.
const WIDE_INT: i8 = 2;

/// What the right to a live map is asked by.
pub(crate) fn right(name: &str) -> String {
    format!("live/{name}")
}

fn location(store: &Store, name: &str) -> Location {
    Place::Store { path: store.path().to_owned() }.location(name)
}

/// The names of a store's live maps.
pub(crate) fn names(store: &Store) -> Result<Vec<String>, Status> {
    let place = Place::Store { path: store.path().to_owned() };
    let maps = place.list().map_err(|e| status::of_live(&e))?;
    Ok(maps.iter().map(|location| location.name().to_owned()).collect())
}

/// Attaches a live map; to write where the server may, since only so is one of an earlier boot rebuilt.
pub(crate) fn attach(store: &Store, name: &str) -> Result<LiveMap, Status> {
    LiveMap::attach(&location(store, name), !store.is_read_only()).map_err(|e| match e {
        LiveError::NotFound { .. } => no_such(name),
        e => status::of_live(&e),
    })
}

/// Makes a live map, or finds it unless it must be made; whether it was made.
pub(crate) fn make(store: &Store, name: &str, create: Option<bool>, options: &LiveOptions) -> Result<bool, Status> {
    let location = location(store, name);
    match create {
        Some(true) => LiveMap::create(&location, options).map(|_| true),
        Some(false) => LiveMap::attach(&location, true).map(|_| false),
        None => LiveMap::open_filled(&location, options, std::iter::empty()).map(|(_, made)| made),
    }
    .map_err(|e| match e {
        LiveError::NotFound { .. } => no_such(name),
        e => status::of_live(&e),
    })
}

fn no_such(name: &str) -> Status {
    status::with_detail(Status::not_found(format!("there is no live map {name:?}")), "not-found")
}

fn encoded(fields: Vec<Field>) -> SchemaRef {
    let metadata = HashMap::from([("pheon.encoding".to_owned(), "live-values".to_owned())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The schema of a scan.
pub(crate) fn scan_schema() -> SchemaRef {
    encoded(vec![Field::new("key", DataType::LargeBinary, false), Field::new("value", DataType::LargeBinary, false)])
}

/// An entry's value without the key that may stand before it, and that key.
pub(crate) fn parts(meta: u8, stored: &[u8]) -> Result<(Option<&[u8]>, &[u8]), Status> {
    if meta & GIVEN_KEY == 0 {
        return Ok((None, stored));
    }
    let split = stored.split_first_chunk::<4>().and_then(|(len, rest)| {
        let (given, value) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        Some((Some(given), value))
    });
    split.ok_or_else(|| Status::data_loss("an entry of a live map is damaged: the key as given does not fit"))
}

/// What to store for a value, and its byte.
pub(crate) fn stored(given: Option<&[u8]>, value: &[u8]) -> (u8, Vec<u8>) {
    match given {
        None => (0, value.to_vec()),
        Some(given) => (GIVEN_KEY, [&(given.len() as u32).to_le_bytes(), given, value].concat()),
    }
}

/// The entries of a snapshot, as batches.
pub(crate) struct LiveBatches {
    entries: Ordered,
    next: usize,
    end: usize,
    columns: Option<Vec<usize>>,
}

impl LiveBatches {
    /// A snapshot of a map; the schema of the columns that were asked for.
    pub(crate) fn new(
        map: &LiveMap,
        columns: Option<&[String]>,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<(Self, SchemaRef), Status> {
        let (columns, schema) = projection(columns)?;
        let entries = map.snapshot().and_then(|snapshot| snapshot.ordered()).map_err(|e| status::of_live(&e))?;
        let len = entries.len() as u64;
        let start = offset.min(len);
        let end = start + limit.unwrap_or(u64::MAX).min(len - start);
        Ok((Self { entries, next: start as usize, end: end as usize, columns }, schema))
    }
}

/// Which columns, and their schema.
pub(crate) fn projection(columns: Option<&[String]>) -> Result<(Option<Vec<usize>>, SchemaRef), Status> {
    let all = scan_schema();
    let Some(names) = columns else { return Ok((None, all)) };
    let of_name = |name: &String| {
        all.index_of(name)
            .map_err(|_| Status::invalid_argument(format!("a live map has the columns key and value, not {name:?}")))
    };
    let columns = names.iter().map(of_name).collect::<Result<Vec<_>, Status>>()?;
    let schema = all.project(&columns).map_err(|e| status::of_arrow(&e))?;
    Ok((Some(columns), Arc::new(schema)))
}

impl Iterator for LiveBatches {
    type Item = Result<Vec<RecordBatch>, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let (mut keys, mut values) = (LargeBinaryBuilder::new(), LargeBinaryBuilder::new());
        let mut bytes = 0;
        while self.next < self.end && bytes < MESSAGE_BYTES_MAX / 2 {
            let Some(entry) = self.entries.get(self.next) else { break };
            self.next += 1;
            let (given, value) = match parts(entry.meta(), entry.value()) {
                Ok(parts) => parts,
                Err(status) => return Some(Err(status)),
            };
            let key = given.unwrap_or(entry.key());
            keys.append_value(key);
            values.append_value(value);
            bytes += key.len() + value.len() + 16;
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()), Arc::new(values.finish())];
        let batch = RecordBatch::try_new(scan_schema(), columns).and_then(|batch| match &self.columns {
            Some(columns) => batch.project(columns),
            None => Ok(batch),
        });
        Some(batch.map(|batch| vec![batch]).map_err(|e| Status::internal(format!("make a batch: {e}"))))
    }
}

/// Lookups in a live map.
pub(crate) struct LiveLookup {
    map: LiveMap,
    found: bool,
}

impl LiveLookup {
    pub(crate) fn open(store: &Store, name: &str, found: bool) -> Result<Self, Status> {
        Ok(Self { map: attach(store, name)?, found })
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        let mut fields = vec![Field::new("value", DataType::LargeBinary, true)];
        if self.found {
            fields.push(Field::new("found", DataType::Boolean, true));
        }
        encoded(fields)
    }

    pub(crate) fn answer(&self, keys: &RecordBatch, bytes_max: u64) -> Result<Vec<ArrayRef>, Status> {
        if keys.num_columns() != 1 {
            return Err(Status::invalid_argument(format!("{} columns of keys: expected one", keys.num_columns())));
        }
        // An offset and a bit for each, also for a key that is not there.
        let columns = 1 + u64::from(self.found);
        let mut bytes = keys.num_rows() as u64 * 8 + columns * validity_bytes(keys.num_rows());
        check_bytes(bytes, bytes_max)?;
        let keys = encode_keys(keys.column(0))?;
        let keys = keys.as_binary::<i64>();
        // A null is nowhere: it has no encoding, and no key has no bytes.
        let slices: Vec<&[u8]> =
            (0..keys.len()).map(|i| if keys.is_null(i) { &[][..] } else { keys.value(i) }).collect();
        let mut values = LargeBinaryBuilder::with_capacity(keys.len(), 0);
        let mut found = Vec::with_capacity(keys.len());
        let read = |entry: Option<Entry<'_>>| -> Result<(), Failed> {
            found.push(entry.is_some());
            match entry {
                Some(entry) => {
                    let value = parts(entry.meta(), entry.value())?.1;
                    bytes = bytes.saturating_add(value.len() as u64);
                    check_bytes(bytes, bytes_max)?;
                    values.append_value(value);
                }
                None => values.append_null(),
            }
            Ok(())
        };
        self.map.get_many_with(&slices, read).map_err(|failed| failed.0)?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(values.finish())];
        if self.found {
            columns.push(Arc::new(BooleanArray::from(found)));
        }
        Ok(columns)
    }
}

/// A status that a live map's own errors become.
struct Failed(Status);

impl From<LiveError> for Failed {
    fn from(error: LiveError) -> Self {
        Self(status::of_live(&error))
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

/// Keys of a lookup in their encoding. LargeBinary and Binary are taken as encoded already.
fn encode_keys(keys: &ArrayRef) -> Result<ArrayRef, Status> {
    use DataType as D;
    let cast = |to: &D| {
        cast_with_options(keys, to, &CastOptions { safe: false, ..CastOptions::default() })
            .map_err(|e| status::of_arrow(&e))
    };
    let mut out = LargeBinaryBuilder::with_capacity(keys.len(), keys.len() * 10);
    let mut scratch = Vec::new();
    match keys.data_type() {
        D::LargeBinary => return Ok(keys.clone()),
        D::Binary | D::BinaryView => return cast(&D::LargeBinary),
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Dictionary(..) => {
            let texts = cast(&D::LargeUtf8)?;
            add(texts.as_string::<i64>().iter(), &mut out, &mut scratch, |text, scratch| {
                rmp::encode::write_str(scratch, text).is_ok()
            });
        }
        D::Boolean => add(keys.as_boolean().iter(), &mut out, &mut scratch, |truth, scratch| {
            rmp::encode::write_sint(scratch, i64::from(truth)).is_ok()
        }),
        D::UInt64 => add(keys.as_primitive::<UInt64Type>().iter(), &mut out, &mut scratch, |number, scratch| {
            rmp::encode::write_uint(scratch, number).is_ok()
        }),
        found if found.is_integer() => {
            let numbers = cast(&D::Int64)?;
            add(numbers.as_primitive::<Int64Type>().iter(), &mut out, &mut scratch, |number, scratch| {
                rmp::encode::write_sint(scratch, number).is_ok()
            });
        }
        D::Float16 | D::Float32 | D::Float64 => {
            let numbers = cast(&D::Float64)?;
            add(numbers.as_primitive::<Float64Type>().iter(), &mut out, &mut scratch, write_float);
        }
        D::Null => (0..keys.len()).for_each(|_| out.append_null()),
        other => {
            return Err(Status::invalid_argument(format!(
                "keys of a live map are text, integers, floating-point numbers, booleans, or encoded LargeBinary, not {other}"
            )));
        }
    }
    Ok(Arc::new(out.finish()))
}

fn add<T>(
    keys: impl Iterator<Item = Option<T>>,
    out: &mut LargeBinaryBuilder,
    scratch: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>) -> bool,
) {
    for key in keys {
        scratch.clear();
        if key.is_some_and(|key| write(key, scratch)) {
            out.append_value(&scratch);
        } else {
            out.append_null();
        }
    }
}

/// A float as a key: one that is a whole number is the int that it equals.
fn write_float(value: f64, out: &mut Vec<u8>) -> bool {
    const BEYOND_I64: f64 = 9_223_372_036_854_775_808.0;
    if !value.is_finite() || value.fract() != 0.0 {
        return rmp::encode::write_f64(out, value).is_ok();
    }
    if (-BEYOND_I64..BEYOND_I64).contains(&value) {
        return rmp::encode::write_sint(out, value as i64).is_ok();
    }
    if (0.0..BEYOND_I64 * 2.0).contains(&value) {
        return rmp::encode::write_uint(out, value as u64).is_ok();
    }
    // Magnitude = mantissa * 2^shift, as big-endian bytes.
    let bits = value.to_bits();
    let mantissa = (bits & ((1 << 52) - 1)) | 1 << 52;
    let shift = ((bits >> 52 & 0x7FF) as usize) - 1075;
    let bit_length = 53 + shift;
    let mut bytes = vec![0u8; bit_length / 8 + 1];
    let len = bytes.len();
    for bit in (0..53).filter(|bit| mantissa >> bit & 1 == 1) {
        let at = bit + shift;
        bytes[len - 1 - at / 8] |= 1 << (at % 8);
    }
    if value < 0.0 {
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            let (negated, overflow) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (negated, overflow);
        }
    }
    let written = rmp::encode::write_ext_meta(out, bytes.len() as u32, WIDE_INT).is_ok();
    out.extend(bytes);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_the_ints_that_they_equal() {
        let encoded = |value: f64| {
            let mut out = Vec::new();
            assert!(write_float(value, &mut out));
            out
        };
        assert_eq!(encoded(1.0), [1]);
        assert_eq!(encoded(-0.0), [0]);
        assert_eq!(encoded(-1.0), [0xFF]);
        assert_eq!(encoded(0.5), [0xCB, 0x3F, 0xE0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded(9_223_372_036_854_775_808.0), [0xCF, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        // 2^64: bit_length is 65, so 9 bytes.
        assert_eq!(encoded(2f64.powi(64)), [0xC7, 9, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(encoded(-(2f64.powi(64))), [0xC7, 9, 2, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
