//! Dates, times and durations, with their time zones; and what a time is as a key.

use pyo3::prelude::*;
use pyo3::types::{
    PyDate, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyString, PyTime, PyTimeAccess, PyTuple, PyTzInfo,
    PyTzInfoAccess,
};

use super::extension::{self, DATE, DATETIME, Live, TIME, TIMEDELTA};
use crate::clock::{self, MICROS_A_DAY};
use crate::errors::Error;
use crate::msgpack::Reader;

/// The byte after a wall clock: what follows it, and whether it is the second time that the clock shows this.
const NAIVE: u8 = 0;
const UTC: u8 = 1;
const OFFSET: u8 = 2;
const NAMED_OFFSET: u8 = 3;
const ZONE_INFO: u8 = 4;
const FOLD: u8 = 0x80;

const SECONDS_A_DAY: u32 = 86_400;
const MICROS_A_SECOND: u32 = 1_000_000;

pub(super) fn write_date(date: &Bound<'_, PyDate>, out: &mut Vec<u8>) -> PyResult<()> {
    extension::write(DATE, &clock::days_of_date(date)?.to_be_bytes(), out)
}

pub(super) fn read_date<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let days = i32::from_be_bytes(payload.array()?);
    clock::date_of_days(py, i64::from(days)).map_err(|e| payload.corrupt(&format!("no date: {e}")))
}

pub(super) fn write_delta(delta: &Bound<'_, PyDelta>, out: &mut Vec<u8>) -> PyResult<()> {
    // All three together in microseconds would not fit 64 bits.
    let mut payload = [0; 12];
    payload[..4].copy_from_slice(&delta.get_days().to_be_bytes());
    payload[4..8].copy_from_slice(&delta.get_seconds().to_be_bytes());
    payload[8..].copy_from_slice(&delta.get_microseconds().to_be_bytes());
    extension::write(TIMEDELTA, &payload, out)
}

pub(super) fn read_delta<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let days = i32::from_be_bytes(payload.array()?);
    let (seconds, micros) = (u32::from_be_bytes(payload.array()?), u32::from_be_bytes(payload.array()?));
    if seconds >= SECONDS_A_DAY || micros >= MICROS_A_SECOND {
        return Err(payload.corrupt("no timedelta: seconds of a day or microseconds of a second out of range"));
    }
    let delta = PyDelta::new(py, days, seconds as i32, micros as i32, true);
    Ok(delta.map_err(|e| payload.corrupt(&format!("no timedelta: {e}")))?.into_any())
}

/// Appends a datetime; false, and nothing, if its tzinfo is of a class that has no encoding.
pub(super) fn write_datetime(time: &Bound<'_, PyDateTime>, out: &mut Vec<u8>) -> PyResult<bool> {
    write_wall(DATETIME, wall_of_datetime(time)?, time.get_tzinfo().as_ref(), time.get_fold(), out)
}

/// Appends a time; false, and nothing, if its tzinfo is of a class that has no encoding.
pub(super) fn write_time(time: &Bound<'_, PyTime>, out: &mut Vec<u8>) -> PyResult<bool> {
    write_wall(TIME, clock::micros_of_day(time), time.get_tzinfo().as_ref(), time.get_fold(), out)
}

/// Appends a datetime as a key: its instant, or its wall clock if it has no offset. Whether it comes back as it is.
pub(super) fn write_key_datetime(time: &Bound<'_, PyDateTime>, out: &mut Vec<u8>) -> PyResult<bool> {
    let wall = wall_of_datetime(time)?;
    write_key_wall(DATETIME, wall, time, time.get_tzinfo().as_ref(), time.get_fold(), out)
}

/// Appends a time as a key: less its offset, or its wall clock if it has none. Whether it comes back as it is.
pub(super) fn write_key_time(time: &Bound<'_, PyTime>, out: &mut Vec<u8>) -> PyResult<bool> {
    let wall = clock::micros_of_day(time);
    write_key_wall(TIME, wall, time, time.get_tzinfo().as_ref(), time.get_fold(), out)
}

/// Microseconds since 1970-01-01T00:00 on the datetime's own clock.
fn wall_of_datetime(time: &Bound<'_, PyDateTime>) -> PyResult<i64> {
    let days = clock::days_of_date(time.as_any().cast::<PyDate>()?)?;
    Ok(i64::from(days) * MICROS_A_DAY + clock::micros_of_day(time))
}

fn write_wall(
    kind: i8,
    wall: i64,
    zone: Option<&Bound<'_, PyTzInfo>>,
    fold: bool,
    out: &mut Vec<u8>,
) -> PyResult<bool> {
    let start = out.len();
    out.extend_from_slice(&wall.to_be_bytes());
    if (zone.is_some() || fold) && !write_zone(zone, if fold { FOLD } else { 0 }, out)? {
        out.truncate(start);
        return Ok(false);
    }
    extension::close(kind, start, out)?;
    Ok(true)
}

fn write_zone(zone: Option<&Bound<'_, PyTzInfo>>, fold: u8, out: &mut Vec<u8>) -> PyResult<bool> {
    let Some(zone) = zone else {
        out.push(NAIVE | fold);
        return Ok(true);
    };
    let py = zone.py();
    let utc = PyTzInfo::utc(py)?;
    if zone.is(&*utc) {
        out.push(UTC | fold);
        return Ok(true);
    }
    let class = zone.get_type();
    if class.is(utc.get_type()) {
        // What the class's constructor took: the offset, and a name if one was given.
        let given = zone.call_method0(pyo3::intern!(py, "__getinitargs__"))?.cast_into::<PyTuple>()?;
        let offset = given.get_item(0)?;
        // Less than a day.
        let micros = clock::micros_of_delta(offset.cast::<PyDelta>()?).unwrap_or_default();
        let named = given.len() > 1;
        out.push(fold | if named { NAMED_OFFSET } else { OFFSET });
        out.extend_from_slice(&micros.to_be_bytes());
        if named {
            out.extend_from_slice(given.get_item(1)?.cast::<PyString>()?.encode_utf8()?.as_bytes());
        }
        return Ok(true);
    }
    if class.is(clock::zone_info(py)?)
        && let Ok(key) = zone.getattr(pyo3::intern!(py, "key"))?.cast::<PyString>()
    {
        out.push(ZONE_INFO | fold);
        out.extend_from_slice(key.to_str()?.as_bytes());
        return Ok(true);
    }
    Ok(false)
}

fn write_key_wall(
    kind: i8,
    wall: i64,
    time: &Bound<'_, PyAny>,
    zone: Option<&Bound<'_, PyTzInfo>>,
    fold: bool,
    out: &mut Vec<u8>,
) -> PyResult<bool> {
    let py = time.py();
    let Some(zone) = zone else {
        write_wall(kind, wall, None, false, out)?;
        return Ok(!fold);
    };
    let utc = PyTzInfo::utc(py)?;
    if zone.is(&*utc) {
        write_wall(kind, wall, Some(&utc), false, out)?;
        return Ok(!fold);
    }
    // As hash() does it: times that differ in nothing but their fold are equal in Python.
    let utcoffset = pyo3::intern!(py, "utcoffset");
    let offset = if fold {
        let changes = PyDict::new(py);
        changes.set_item(pyo3::intern!(py, "fold"), 0)?;
        time.call_method(pyo3::intern!(py, "replace"), (), Some(&changes))?.call_method0(utcoffset)?
    } else {
        time.call_method0(utcoffset)?
    };
    if offset.is_none() {
        write_wall(kind, wall, None, false, out)?;
    } else {
        let offset = clock::micros_of_delta(offset.cast::<PyDelta>()?).unwrap_or_default();
        write_wall(kind, wall - offset, Some(&utc), false, out)?;
    }
    Ok(false)
}

pub(super) fn read_datetime<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let wall = i64::from_be_bytes(payload.array()?);
    let time = clock::datetime_of_micros(py, wall, None).map_err(|e| payload.corrupt(&format!("no datetime: {e}")))?;
    in_zone(time, payload)
}

pub(super) fn read_time<'py>(py: Python<'py>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let wall = i64::from_be_bytes(payload.array()?);
    let time = clock::time_of_micros(py, wall).map_err(|e| payload.corrupt(&format!("no time: {e}")))?;
    in_zone(time, payload)
}

/// The time with the zone and fold that follow in its payload.
fn in_zone<'py>(time: Bound<'py, PyAny>, payload: &mut Reader<'_, Live>) -> PyResult<Bound<'py, PyAny>> {
    let py = time.py();
    let rest = payload.take_rest();
    let Some((flags, rest)) = rest.split_first() else { return Ok(time) };
    let changes = PyDict::new(py);
    changes.set_item(pyo3::intern!(py, "fold"), u8::from(flags & FOLD != 0))?;
    let zone = match (flags & !FOLD, rest) {
        (NAIVE, []) => None,
        (UTC, []) => Some(PyTzInfo::utc(py)?.to_owned().into_any()),
        (kind @ (OFFSET | NAMED_OFFSET), rest) => {
            let Some((micros, name)) = rest.split_first_chunk() else {
                return Err(payload.corrupt("a time zone's offset is cut short"));
            };
            let offset = clock::delta_of_micros(py, i64::from_be_bytes(*micros));
            let class = PyTzInfo::utc(py)?.get_type();
            let zone = match (kind, name) {
                (OFFSET, []) => offset.and_then(|offset| class.call1((offset,))),
                (NAMED_OFFSET, name) => offset.and_then(|o| class.call1((o, PyString::from_bytes(py, name)?))),
                _ => return Err(payload.corrupt("bytes after a time zone's offset")),
            };
            Some(zone.map_err(|e| payload.corrupt(&format!("no time zone: {e}")))?)
        }
        (ZONE_INFO, key) => {
            let key = PyString::from_bytes(py, key).map_err(|e| payload.corrupt(&format!("no time zone: {e}")))?;
            // No damage: another machine may know other zones. And no KeyError, which would read like a missing key.
            let zone = clock::zone_info(py)?.call1((&key,));
            Some(zone.map_err(|e| Error::new_err(format!("the time zone {key:?} cannot be loaded here: {e}")))?)
        }
        _ => return Err(payload.corrupt("a time zone of a kind that is not known")),
    };
    if let Some(zone) = zone {
        changes.set_item(pyo3::intern!(py, "tzinfo"), zone)?;
    }
    time.call_method(pyo3::intern!(py, "replace"), (), Some(&changes))
}
