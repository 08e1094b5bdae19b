//! From constraints on a key's columns to places in a table.

use std::fmt::{self, Write as _};
use std::ops::Bound;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, StringArray, UInt64Array};
use pheon::{KeyRef, KeyType, ReadError, Table};

use crate::interval::{Cut, Interval, Intervals, KeyValue, successor};
use crate::key_part::KeyPart;
use crate::predicate::Constraint;

/// More single keys than this are one batch lookup in place of a search each.
const PIECES_MAX: usize = 64;
/// So many combinations of values of leading key columns are searched for one by one.
const COMBINATIONS_MAX: usize = 1024;
/// Values that a description names.
const SHOWN_MAX: usize = 3;

/// Rows of a table, in key order.
#[derive(Debug, Clone)]
pub(crate) enum Rows {
    /// These slices, one after the other.
    Pieces(Vec<Table>),
    /// The rows of these keys, ascending.
    Lookup(Table, ArrayRef),
}

/// Rows, and how they were found.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) rows: Rows,
    /// For EXPLAIN; `None`: all rows.
    pub(crate) shown: Option<String>,
}

/// The rows of `table` for which all `constraints` may hold.
pub(crate) fn select(table: &Table, key: &[KeyPart], constraints: &[Constraint]) -> Result<Selection, ReadError> {
    let mut by_part: Vec<Option<Intervals>> = vec![None; key.len()];
    for c in constraints {
        let so_far = by_part[c.part].take();
        by_part[c.part] = Some(so_far.map_or_else(|| c.values.clone(), |have| have.intersect(&c.values)));
    }
    if by_part.first().is_none_or(Option::is_none) {
        // A later column that holds for nothing says that there is nothing.
        let none = by_part.iter().flatten().any(|set| set.as_slice().is_empty());
        return Ok(if none {
            Selection { rows: Rows::Pieces(vec![]), shown: Some("nothing".to_owned()) }
        } else {
            Selection { rows: Rows::Pieces(vec![table.clone()]), shown: None }
        });
    }
    let mut shown = String::new();
    let rows = match key {
        [part] => {
            let set = by_part[0].take().unwrap_or_else(Intervals::all);
            describe(&mut shown, part, &set);
            of_one_column(table, part, &set)?
        }
        _ => of_several_columns(table, key, &by_part, &mut shown)?,
    };
    Ok(Selection { rows, shown: Some(shown) })
}

fn of_one_column(table: &Table, part: &KeyPart, set: &Intervals) -> Result<Rows, ReadError> {
    if let Some(points) = set.points() {
        if points.len() > PIECES_MAX
            && let Some(keys) = array_of(part, &points)
        {
            return Ok(Rows::Lookup(table.clone(), keys));
        }
        let pieces = points.into_iter().map(|value| table.rows(part.key_ref(value)));
        return Ok(Rows::Pieces(pieces.collect::<Result<_, _>>()?));
    }
    let pieces = set.as_slice().iter().map(|Interval { low, high }| {
        let low = match low {
            Cut::At(v, false) => Bound::Included(part.key_ref(v)),
            Cut::At(v, true) => Bound::Excluded(part.key_ref(v)),
            Cut::Start | Cut::End => Bound::Unbounded,
        };
        let high = match high {
            Cut::At(v, true) => Bound::Included(part.key_ref(v)),
            Cut::At(v, false) => Bound::Excluded(part.key_ref(v)),
            Cut::Start | Cut::End => Bound::Unbounded,
        };
        table.range((low, high))
    });
    Ok(Rows::Pieces(pieces.collect::<Result<_, _>>()?))
}

/// Keys as an array that the engine converts; `None` for types that are searched one by one.
fn array_of(part: &KeyPart, points: &[&KeyValue]) -> Option<ArrayRef> {
    let numbers = || points.iter().map(|v| if let KeyValue::Number(n) = v { Some(*n) } else { None });
    let bytes = || points.iter().map(|v| if let KeyValue::Bytes(b) = v { Some(b.as_slice()) } else { None });
    Some(match part.key_type {
        KeyType::Signed(_) if part.data_type.is_integer() => {
            Arc::new(numbers().map(|n| n.and_then(|n| i64::try_from(n).ok())).collect::<Int64Array>())
        }
        KeyType::Unsigned(_) => {
            Arc::new(numbers().map(|n| n.and_then(|n| u64::try_from(n).ok())).collect::<UInt64Array>())
        }
        KeyType::Utf8 => {
            let texts = bytes().map(|b| b.and_then(|b| std::str::from_utf8(b).ok()));
            Arc::new(texts.collect::<StringArray>())
        }
        KeyType::Binary | KeyType::FixedBinary(_) => Arc::new(bytes().collect::<BinaryArray>()),
        _ => return None,
    })
}

/// Single values of the leading columns, each with all intervals of the column after them.
fn of_several_columns(
    table: &Table,
    key: &[KeyPart],
    by_part: &[Option<Intervals>],
    shown: &mut String,
) -> Result<Rows, ReadError> {
    let mut prefixes: Vec<Vec<&KeyValue>> = vec![vec![]];
    let mut last = None;
    for (part, set) in key.iter().zip(by_part) {
        let Some(set) = set else { break };
        if prefixes.len() * set.as_slice().len() > COMBINATIONS_MAX {
            break;
        }
        describe(shown, part, set);
        match set.points() {
            Some(points) => {
                let extended = prefixes.iter().flat_map(|prefix| {
                    points.iter().map(|&point| prefix.iter().copied().chain([point]).collect::<Vec<_>>())
                });
                prefixes = extended.collect();
            }
            None => {
                last = Some(set);
                break;
            }
        }
    }
    let bytes_of = |values: &[&KeyValue]| -> Result<Vec<u8>, ReadError> {
        let parts: Vec<KeyRef<'_>> = values.iter().zip(key).map(|(value, part)| part.key_ref(value)).collect();
        table.composite_key(&parts)
    };
    let mut pieces = Vec::new();
    for prefix in &prefixes {
        if let Some(set) = last {
            for Interval { low, high } in set.as_slice() {
                // Keys whose columns up to here have the cut's value lie between its bytes and their successor.
                let place = |cut: &Cut, open: Option<Vec<u8>>| -> Result<Option<Vec<u8>>, ReadError> {
                    let Cut::At(value, after) = cut else { return Ok(open) };
                    let bytes = bytes_of(&[prefix.as_slice(), &[value]].concat())?;
                    Ok(if *after { successor(&bytes) } else { Some(bytes) })
                };
                let start = bytes_of(prefix)?;
                let end = successor(&start);
                let low = if *low == Cut::Start { Some(start) } else { place(low, None)? };
                let Some(low) = low else { continue };
                let high = place(high, end)?;
                pieces.push(between(table, &low, high.as_deref())?);
            }
        } else if prefix.is_empty() {
            pieces.push(table.clone());
        } else if prefix.len() == key.len() {
            pieces.push(table.rows(KeyRef::Bytes(&bytes_of(prefix)?))?);
        } else {
            pieces.push(table.prefix(&bytes_of(prefix)?)?);
        }
    }
    Ok(Rows::Pieces(pieces))
}

fn between(table: &Table, low: &[u8], high: Option<&[u8]>) -> Result<Table, ReadError> {
    let high = high.map_or(Bound::Unbounded, |bytes| Bound::Excluded(KeyRef::Bytes(bytes)));
    table.range((Bound::Included(KeyRef::Bytes(low)), high))
}

fn describe(out: &mut String, part: &KeyPart, set: &Intervals) {
    if !out.is_empty() {
        out.push_str(" and ");
    }
    let _ = write!(out, "{} in {}", part.name, Shown(set));
}

struct Shown<'a>(&'a Intervals);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.as_slice();
        if let (Some(points), true) = (self.0.points(), all.len() > SHOWN_MAX) {
            return write!(f, "{{{} keys}}", points.len());
        }
        if all.is_empty() {
            return f.write_str("{}");
        }
        for (i, interval) in all.iter().take(SHOWN_MAX).enumerate() {
            if i > 0 {
                f.write_str(" or ")?;
            }
            if let Some(point) = interval.point() {
                write!(f, "{{{}}}", ShownValue(point))?;
                continue;
            }
            match &interval.low {
                Cut::At(v, after) => write!(f, "{}{}", if *after { '(' } else { '[' }, ShownValue(v))?,
                _ => f.write_str("(..")?,
            }
            f.write_str(", ")?;
            match &interval.high {
                Cut::At(v, after) => write!(f, "{}{}", ShownValue(v), if *after { ']' } else { ')' })?,
                _ => f.write_str("..)")?,
            }
        }
        if all.len() > SHOWN_MAX { write!(f, " or {} more", all.len() - SHOWN_MAX) } else { Ok(()) }
    }
}

/// Dates and times are shown as the numbers that they are stored as.
struct ShownValue<'a>(&'a KeyValue);

/// Bytes of a value that a description shows.
const SHOWN_BYTES_MAX: usize = 40;

impl fmt::Display for ShownValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            KeyValue::Number(n) => write!(f, "{n}"),
            KeyValue::Bytes(b) if b.len() > SHOWN_BYTES_MAX => write!(f, "'{}..'", b[..SHOWN_BYTES_MAX].escape_ascii()),
            KeyValue::Bytes(b) => match std::str::from_utf8(b) {
                Ok(s) => write!(f, "'{}'", s.escape_debug()),
                Err(_) => write!(f, "'{}'", b.escape_ascii()),
            },
        }
    }
}
