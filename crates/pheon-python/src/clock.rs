//! Dates and times: Python objects to Arrow's integers and back.

use std::cmp::Ordering;

use arrow_schema::TimeUnit;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyDate, PyDateTime, PyDelta, PyDeltaAccess, PyString, PyTime, PyTimeAccess, PyType, PyTzInfo, PyTzInfoAccess,
};

/// `date(1970, 1, 1).toordinal()`.
const EPOCH_ORDINAL: i64 = 719_163;
const MICROS_A_SECOND: i64 = 1_000_000;
pub(crate) const MICROS_A_DAY: i64 = 86_400 * MICROS_A_SECOND;

/// Ticks of a unit in a second.
pub(crate) fn ticks_a_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => MICROS_A_SECOND,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Microseconds in another unit; `None` if they are no whole number of it or do not fit.
pub(crate) fn micros_to_ticks(micros: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Nanosecond => micros.checked_mul(1_000),
        _ => {
            let micros_a_tick = MICROS_A_SECOND / ticks_a_second(unit);
            (micros % micros_a_tick == 0).then_some(micros / micros_a_tick)
        }
    }
}

/// Microseconds and `nanos`, 0 to 999, in a unit; `None` if they are no whole number of it or do not fit.
pub(crate) fn nanos_to_ticks(micros: i64, nanos: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Nanosecond => i64::try_from(i128::from(micros) * 1_000 + i128::from(nanos)).ok(),
        _ if nanos != 0 => None,
        _ => micros_to_ticks(micros, unit),
    }
}

/// Microseconds and `nanos`, 0 to 999, rounded up to a unit; beyond 64 bits, on which side.
pub(crate) fn micros_to_ticks_ceil(micros: i64, nanos: i64, unit: TimeUnit) -> Result<i64, Ordering> {
    match unit {
        TimeUnit::Nanosecond => {
            i64::try_from(i128::from(micros) * 1_000 + i128::from(nanos)).map_err(|_| micros.cmp(&0))
        }
        _ => {
            let micros = micros + i64::from(nanos > 0);
            let micros_a_tick = MICROS_A_SECOND / ticks_a_second(unit);
            Ok(micros.div_euclid(micros_a_tick) + i64::from(micros.rem_euclid(micros_a_tick) > 0))
        }
    }
}

/// Ticks in microseconds. Python's types end there, so a finer value is an error rather than another value.
pub(crate) fn ticks_to_micros(ticks: i64, unit: TimeUnit) -> PyResult<i64> {
    match unit {
        TimeUnit::Nanosecond if ticks % 1_000 != 0 => Err(PyValueError::new_err(format!(
            "{ticks} ns is no whole number of microseconds, the finest that datetime can hold; read the column through Arrow"
        ))),
        TimeUnit::Nanosecond => Ok(ticks / 1_000),
        _ => ticks
            .checked_mul(MICROS_A_SECOND / ticks_a_second(unit))
            .ok_or_else(|| PyOverflowError::new_err(format!("{ticks} {unit:?}s are out of datetime's range"))),
    }
}

/// Days since 1970-01-01.
pub(crate) fn days_of_date(date: &Bound<'_, PyDate>) -> PyResult<i32> {
    let ordinal: i64 = date.call_method0(pyo3::intern!(date.py(), "toordinal"))?.extract()?;
    Ok((ordinal - EPOCH_ORDINAL) as i32)
}

/// The date so many days after 1970-01-01.
pub(crate) fn date_of_days(py: Python<'_>, days: i64) -> PyResult<Bound<'_, PyAny>> {
    let ordinal = days
        .checked_add(EPOCH_ORDINAL)
        .filter(|o| i32::try_from(*o).is_ok())
        .ok_or_else(|| PyOverflowError::new_err(format!("day {days} is out of date's range")))?;
    py.get_type::<PyDate>().call_method1(pyo3::intern!(py, "fromordinal"), (ordinal,))
}

/// Microseconds since midnight; `None` for a time with a time zone.
pub(crate) fn micros_of_time(time: &Bound<'_, PyTime>) -> Option<i64> {
    if time.get_tzinfo().is_some() {
        return None;
    }
    Some(micros_of_day(time))
}

/// Microseconds since midnight on the wall clock of a time or datetime.
pub(crate) fn micros_of_day(time: &impl PyTimeAccess) -> i64 {
    let seconds = (i64::from(time.get_hour()) * 60 + i64::from(time.get_minute())) * 60 + i64::from(time.get_second());
    seconds * MICROS_A_SECOND + i64::from(time.get_microsecond())
}

/// The time of day so many microseconds after midnight.
pub(crate) fn time_of_micros(py: Python<'_>, micros: i64) -> PyResult<Bound<'_, PyAny>> {
    if !(0..MICROS_A_DAY).contains(&micros) {
        return Err(PyOverflowError::new_err(format!("{micros} us is no time of day")));
    }
    let seconds = micros / MICROS_A_SECOND;
    let (h, m, s) = ((seconds / 3_600) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8);
    Ok(PyTime::new(py, h, m, s, (micros % MICROS_A_SECOND) as u32, None)?.into_any())
}

/// Microseconds of a duration; `None` if they do not fit 64 bits.
pub(crate) fn micros_of_delta(delta: &Bound<'_, PyDelta>) -> Option<i64> {
    let micros = i128::from(delta.get_days()) * i128::from(MICROS_A_DAY)
        + i128::from(delta.get_seconds()) * i128::from(MICROS_A_SECOND)
        + i128::from(delta.get_microseconds());
    i64::try_from(micros).ok()
}

/// The duration of so many microseconds.
pub(crate) fn delta_of_micros(py: Python<'_>, micros: i64) -> PyResult<Bound<'_, PyDelta>> {
    let (days, rest) = (micros.div_euclid(MICROS_A_DAY), micros.rem_euclid(MICROS_A_DAY));
    let days = i32::try_from(days)
        .map_err(|_| PyOverflowError::new_err(format!("{micros} us is out of timedelta's range")))?;
    PyDelta::new(py, days, (rest / MICROS_A_SECOND) as i32, (rest % MICROS_A_SECOND) as i32, false)
}

/// The nanoseconds, 0 to 999, that pandas' `Timestamp` and `Timedelta` have beyond the microseconds of the classes of
/// Python from which they derive.
pub(crate) fn nanoseconds(object: &Bound<'_, PyAny>) -> PyResult<i64> {
    if object.is_exact_instance_of::<PyDateTime>() || object.is_exact_instance_of::<PyDelta>() {
        return Ok(0);
    }
    let py = object.py();
    let name = if object.is_instance_of::<PyDelta>() {
        pyo3::intern!(py, "nanoseconds")
    } else {
        pyo3::intern!(py, "nanosecond")
    };
    match object.getattr_opt(name)? {
        // NaT has a float there.
        Some(nanos) => Ok(nanos.extract().unwrap_or(0)),
        None => Ok(0),
    }
}

fn epoch<'py>(py: Python<'py>, tz: Option<&Bound<'py, PyTzInfo>>) -> PyResult<Bound<'py, PyDateTime>> {
    PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, tz)
}

fn naive_epoch(py: Python<'_>) -> PyResult<&Bound<'_, PyDateTime>> {
    static EPOCH: PyOnceLock<Py<PyDateTime>> = PyOnceLock::new();
    Ok(EPOCH.get_or_try_init(py, || epoch(py, None).map(Bound::unbind))?.bind(py))
}

fn utc_epoch(py: Python<'_>) -> PyResult<&Bound<'_, PyDateTime>> {
    static EPOCH: PyOnceLock<Py<PyDateTime>> = PyOnceLock::new();
    let make = || epoch(py, Some(&PyTzInfo::utc(py)?.to_owned())).map(Bound::unbind);
    Ok(EPOCH.get_or_try_init(py, make)?.bind(py))
}

/// Microseconds since the epoch: of UTC if it has a time zone, else of its own wall clock.
pub(crate) fn micros_of_datetime(time: &Bound<'_, PyDateTime>) -> PyResult<i64> {
    let epoch = if is_aware(time)? { utc_epoch(time.py())? } else { naive_epoch(time.py())? };
    let since = time.as_any().sub(epoch)?;
    // datetime spans about 3.2e17 us, well within 64 bits.
    micros_of_delta(since.cast::<PyDelta>()?).ok_or_else(|| PyOverflowError::new_err("datetime out of range"))
}

/// Whether the datetime knows its offset from UTC (a tzinfo alone is not enough).
pub(crate) fn is_aware(time: &Bound<'_, PyDateTime>) -> PyResult<bool> {
    if time.get_tzinfo().is_none() {
        return Ok(false);
    }
    Ok(!time.call_method0(pyo3::intern!(time.py(), "utcoffset"))?.is_none())
}

/// The name under which Arrow knows a datetime's zone: an IANA name, or its offset as `+02:00`. `None`: it has no zone.
pub(crate) fn zone_name(time: &Bound<'_, PyDateTime>) -> PyResult<Option<String>> {
    let Some(tz) = time.get_tzinfo().filter(|_| is_aware(time).unwrap_or(false)) else { return Ok(None) };
    if tz.is(PyTzInfo::utc(time.py())?) {
        return Ok(Some("UTC".to_owned()));
    }
    for attribute in ["key", "zone"] {
        if let Ok(name) = tz.getattr(attribute)
            && let Ok(name) = name.extract::<String>()
        {
            return Ok(Some(name));
        }
    }
    let offset = time.call_method0(pyo3::intern!(time.py(), "utcoffset"))?;
    let micros = micros_of_delta(offset.cast::<PyDelta>()?).unwrap_or(0);
    let minutes = micros / MICROS_A_SECOND / 60;
    if minutes * 60 * MICROS_A_SECOND != micros {
        return Err(PyValueError::new_err("a time zone's offset must be a whole number of minutes"));
    }
    let sign = if minutes < 0 { '-' } else { '+' };
    Ok(Some(format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)))
}

/// The tzinfo of an Arrow zone name.
pub(crate) fn zone_of_name<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyTzInfo>> {
    if name == "UTC" {
        return Ok(PyTzInfo::utc(py)?.to_owned());
    }
    if let Some(minutes) = offset_minutes(name) {
        return PyTzInfo::fixed_offset(py, PyDelta::new(py, 0, minutes * 60, 0, true)?);
    }
    Ok(zone_info(py)?.call1((PyString::new(py, name),))?.cast_into()?)
}

/// `zoneinfo.ZoneInfo`.
pub(crate) fn zone_info(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "zoneinfo", "ZoneInfo")
}

/// `+02:00`, `-0330` or `+05` in minutes.
fn offset_minutes(name: &str) -> Option<i32> {
    let (sign, rest) = match name.as_bytes().first()? {
        b'+' => (1, &name[1..]),
        b'-' => (-1, &name[1..]),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    let number = |s: &str| s.parse::<i32>().ok();
    match digits.len() {
        2 => Some(sign * number(&digits)? * 60),
        4 => Some(sign * (number(&digits[..2])? * 60 + number(&digits[2..])?)),
        _ => None,
    }
}

/// The datetime so many microseconds after the epoch, in `zone` if there is one.
pub(crate) fn datetime_of_micros<'py>(
    py: Python<'py>,
    micros: i64,
    zone: Option<&Bound<'py, PyTzInfo>>,
) -> PyResult<Bound<'py, PyAny>> {
    let delta = delta_of_micros(py, micros)?;
    match zone {
        None => naive_epoch(py)?.as_any().add(delta),
        Some(zone) => {
            let utc = utc_epoch(py)?.as_any().add(delta)?;
            utc.call_method1(pyo3::intern!(py, "astimezone"), (zone,))
        }
    }
}
