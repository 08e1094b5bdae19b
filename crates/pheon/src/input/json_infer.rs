//! The types of NDJSON columns, found by reading every line once and keeping nothing but the types.
//!
//! All files of a build share one [`Inference`]. Reading everything is not only for convenience: the decoder of the
//! second pass cuts fractions off integers and skips unknown fields, so it must never meet a surprise.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::text::is_exact;
use super::{input, open_file};
use crate::error::WriteError;

/// A longer line is taken for a file that is no NDJSON.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// More columns than this are taken for data used as names.
const FIELDS_MAX: usize = 10_000;
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What the values seen so far have in common.
#[derive(Debug, Clone, Default, PartialEq)]
enum Seen {
    #[default]
    Nothing,
    Bool,
    Number(Number),
    /// Strings, or scalars of several kinds.
    String,
    List(Box<Seen>),
    Object(Vec<(String, Seen)>),
}

/// What the numbers at one place have in common; nothing of it: integers from 0 to the end of i64.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Number {
    /// One is an integer below 0.
    negative: bool,
    /// One is an integer beyond i64 and within u64.
    beyond_i64: bool,
    /// One is an integer beyond the ends of i64 and u64.
    beyond_all: bool,
    /// One is an integer that no float is.
    inexact: bool,
    /// One has a point or an exponent.
    fraction: bool,
}

impl Number {
    fn merge(self, other: Self) -> Self {
        Self {
            negative: self.negative | other.negative,
            beyond_i64: self.beyond_i64 | other.beyond_i64,
            beyond_all: self.beyond_all | other.beyond_all,
            inexact: self.inexact | other.inexact,
            fraction: self.fraction | other.fraction,
        }
    }

    /// Text where no type holds them all as they are.
    fn data_type(self) -> DataType {
        match self {
            Self { beyond_all: true, .. } | Self { fraction: true, inexact: true, .. } => DataType::LargeUtf8,
            Self { fraction: true, .. } => DataType::Float64,
            Self { beyond_i64: true, negative: true, .. } => DataType::LargeUtf8,
            Self { beyond_i64: true, .. } => DataType::UInt64,
            _ => DataType::Int64,
        }
    }
}

/// The types found so far.
#[derive(Debug, Default)]
pub(super) struct Inference {
    columns: Vec<(String, Seen)>,
    /// The field being read, for messages: names joined by dots.
    path: String,
}

/// Where in a line the parser is.
struct Place<'a> {
    path: &'a mut String,
    line: &'a [u8],
    /// Numbers that the parser has handed out, the one at hand among them.
    numbers: usize,
    /// So many of them end before this byte of the line.
    scanned: (usize, usize),
}

impl Place<'_> {
    /// Whether the number at hand is written as an integer: the parser does not tell for those that are too large for it.
    fn is_integer(&mut self) -> bool {
        let (mut seen, mut at) = self.scanned;
        let mut integer = false;
        while seen < self.numbers && at < self.line.len() {
            match self.line[at] {
                b'"' => {
                    at += 1;
                    while at < self.line.len() && self.line[at] != b'"' {
                        at += if self.line[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    let rest = &self.line[at..];
                    let len = rest.iter().position(|c| !b"+-.eE0123456789".contains(c)).unwrap_or(rest.len());
                    integer = !rest[..len].iter().any(|c| b".eE".contains(c));
                    seen += 1;
                    at += len;
                }
                _ => at += 1,
            }
        }
        self.scanned = (seen, at);
        integer
    }
}

impl Inference {
    /// Reads a file; returns its number of rows.
    pub(super) fn scan(&mut self, path: &Path) -> Result<u64, WriteError> {
        let mut reader = BufReader::with_capacity(1 << 20, open_file(path)?);
        skip_mark(&mut reader).map_err(|e| input(path, e.to_string()))?;
        let (mut line, mut number, mut rows) = (Vec::new(), 0u64, 0u64);
        loop {
            line.clear();
            number += 1;
            let read = io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let read = read.map_err(|e| input(path, format!("line {number}: {e}")))?;
            if read == 0 {
                return Ok(rows);
            }
            if read as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                return Err(input(
                    path,
                    format!("line {number} is longer than {LINE_BYTES_MAX} bytes; expected one JSON object a line"),
                ));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            self.line(&line).map_err(|e| {
                let (text, column) = (e.to_string(), e.column());
                let reason = text.split(" at line ").next().unwrap_or(&text);
                let types = e.is_data() && !text.starts_with("invalid type");
                let hint = if types { "" } else { "; expected one JSON object a line" };
                input(path, format!("line {number}, character {column}: {reason}{hint}"))
            })?;
            rows += 1;
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(line);
        self.path.clear();
        let mut place = Place { path: &mut self.path, line, numbers: 0, scanned: (0, 0) };
        json.deserialize_map(Columns { columns: &mut self.columns, place: &mut place })?;
        json.end()
    }

    /// The columns in the order in which they first occurred; Null where no value was seen.
    pub(super) fn schema(&self) -> Schema {
        Schema::new(fields(&self.columns))
    }
}

fn fields(columns: &[(String, Seen)]) -> Fields {
    columns.iter().map(|(name, seen)| Field::new(name, data_type(seen), true)).collect()
}

fn data_type(seen: &Seen) -> DataType {
    match seen {
        Seen::Nothing => DataType::Null,
        Seen::Bool => DataType::Boolean,
        Seen::Number(number) => number.data_type(),
        Seen::String => DataType::LargeUtf8,
        Seen::List(inner) => DataType::List(Arc::new(Field::new_list_field(data_type(inner), true))),
        Seen::Object(columns) => {
            DataType::Struct(columns.iter().map(|(name, seen)| Field::new(name, data_type(seen), true)).collect())
        }
    }
}

/// Merges one value into what was seen at its place.
struct Value<'a, 'l> {
    seen: &'a mut Seen,
    place: &'a mut Place<'l>,
}

impl Value<'_, '_> {
    fn scalar<E: Error>(self, found: Seen) -> Result<(), E> {
        *self.seen = match (std::mem::take(self.seen), found) {
            (Seen::Nothing, found) => found,
            (old, found) if old == found => found,
            (old @ (Seen::List(_) | Seen::Object(_)), _) => {
                let kind = if matches!(old, Seen::List(_)) { "a list" } else { "an object" };
                return Err(E::custom(format!(
                    "field {:?} is {kind} in an earlier line and a plain value here",
                    self.place.path
                )));
            }
            (Seen::Number(a), Seen::Number(b)) => Seen::Number(a.merge(b)),
            // Scalars of two kinds have only their text in common.
            _ => Seen::String,
        };
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.scalar(Seen::Bool)
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<(), E> {
        self.place.numbers += 1;
        let number = Number { negative: v < 0, inexact: !is_exact(v.into()), ..Number::default() };
        self.scalar(Seen::Number(number))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<(), E> {
        self.place.numbers += 1;
        let beyond_i64 = i64::try_from(v).is_err();
        self.scalar(Seen::Number(Number { beyond_i64, inexact: !is_exact(v.into()), ..Number::default() }))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<(), E> {
        self.place.numbers += 1;
        // Integers within i64 and u64 come as such.
        let beyond_all = v.abs() >= i64::MAX as f64 && self.place.is_integer();
        self.scalar(Seen::Number(Number { beyond_all, fraction: !beyond_all, ..Number::default() }))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.scalar(Seen::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if *self.seen == Seen::Nothing {
            *self.seen = Seen::List(Box::default());
        }
        let Seen::List(inner) = self.seen else {
            return Err(A::Error::custom(format!(
                "field {:?} is a list here and was none in an earlier line",
                self.place.path
            )));
        };
        while seq.next_element_seed(Value { seen: inner, place: self.place })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        if *self.seen == Seen::Nothing {
            *self.seen = Seen::Object(Vec::new());
        }
        let Seen::Object(columns) = self.seen else {
            return Err(A::Error::custom(format!(
                "field {:?} is an object here and was none in an earlier line",
                self.place.path
            )));
        };
        Columns { columns, place: self.place }.visit_map(map)
    }
}

/// Merges one object, member by member.
struct Columns<'a, 'l> {
    columns: &'a mut Vec<(String, Seen)>,
    place: &'a mut Place<'l>,
}

impl<'de> Visitor<'de> for Columns<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let path_len = self.place.path.len();
        // Objects of one file mostly have their members in one order: the next one is looked for behind the last one.
        let mut expected = 0;
        while let Some(at) = map.next_key_seed(Name { columns: self.columns, expected })? {
            expected = at + 1;
            if path_len > 0 {
                self.place.path.push('.');
            }
            self.place.path.push_str(&self.columns[at].0);
            map.next_value_seed(Value { seen: &mut self.columns[at].1, place: self.place })?;
            self.place.path.truncate(path_len);
        }
        Ok(())
    }
}

/// Finds the column of a member, or adds it.
struct Name<'a> {
    columns: &'a mut Vec<(String, Seen)>,
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        if self.columns.get(self.expected).is_some_and(|(known, _)| known == name) {
            return Ok(self.expected);
        }
        if let Some(at) = self.columns.iter().position(|(known, _)| known == name) {
            return Ok(at);
        }
        if self.columns.len() == FIELDS_MAX {
            return Err(E::custom(format!("more than {FIELDS_MAX} different field names in one object")));
        }
        self.columns.push((name.to_owned(), Seen::Nothing));
        Ok(self.columns.len() - 1)
    }
}

/// Skips the UTF-8 byte order mark that some editors write.
pub(super) fn skip_mark(reader: &mut impl BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with(UTF8_MARK) {
        reader.consume(UTF8_MARK.len());
    }
    Ok(())
}
