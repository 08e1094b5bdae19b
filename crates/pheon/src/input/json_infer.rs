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
    /// Integers from 0 to the end of i64.
    Int,
    /// Integers within i64, one of them below 0.
    Negative,
    /// Integers within u64, one of them beyond i64.
    UInt,
    Float,
    /// Strings, or scalars of several kinds.
    String,
    List(Box<Seen>),
    Object(Vec<(String, Seen)>),
}

/// The types found so far.
#[derive(Debug, Default)]
pub(super) struct Inference {
    columns: Vec<(String, Seen)>,
    /// The field being read, for messages: names joined by dots.
    path: String,
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
        json.deserialize_map(Columns { columns: &mut self.columns, path: &mut self.path })?;
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
        Seen::Int | Seen::Negative => DataType::Int64,
        Seen::UInt => DataType::UInt64,
        Seen::Float => DataType::Float64,
        Seen::String => DataType::LargeUtf8,
        Seen::List(inner) => DataType::List(Arc::new(Field::new_list_field(inner_type(inner), true))),
        Seen::Object(columns) => {
            DataType::Struct(columns.iter().map(|(name, seen)| Field::new(name, inner_type(seen), true)).collect())
        }
    }
}

/// Inside of lists and objects, what never had a value holds strings.
fn inner_type(seen: &Seen) -> DataType {
    if *seen == Seen::Nothing { DataType::LargeUtf8 } else { data_type(seen) }
}

/// Merges one value into what was seen at its place.
struct Value<'a> {
    seen: &'a mut Seen,
    path: &'a mut String,
}

impl Value<'_> {
    fn scalar<E: Error>(self, found: Seen) -> Result<(), E> {
        *self.seen = match (std::mem::take(self.seen), found) {
            (Seen::Nothing, found) => found,
            (old, found) if old == found => found,
            (old @ (Seen::List(_) | Seen::Object(_)), _) => {
                let kind = if matches!(old, Seen::List(_)) { "a list" } else { "an object" };
                return Err(E::custom(format!(
                    "field {:?} is {kind} in an earlier line and a plain value here",
                    self.path
                )));
            }
            (Seen::Int, Seen::Negative) | (Seen::Negative, Seen::Int) => Seen::Negative,
            (Seen::Int, Seen::UInt) | (Seen::UInt, Seen::Int) => Seen::UInt,
            (Seen::Float, Seen::Int | Seen::Negative | Seen::UInt) => Seen::Float,
            (Seen::Int | Seen::Negative | Seen::UInt, Seen::Float) => Seen::Float,
            // No integer type holds both ends, and scalars of two kinds have only their text in common.
            _ => Seen::String,
        };
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
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
        self.scalar(if v < 0 { Seen::Negative } else { Seen::Int })
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<(), E> {
        self.scalar(if i64::try_from(v).is_ok() { Seen::Int } else { Seen::UInt })
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.scalar(Seen::Float)
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
                self.path
            )));
        };
        while seq.next_element_seed(Value { seen: inner, path: self.path })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        if *self.seen == Seen::Nothing {
            *self.seen = Seen::Object(Vec::new());
        }
        let Seen::Object(columns) = self.seen else {
            return Err(A::Error::custom(format!(
                "field {:?} is an object here and was none in an earlier line",
                self.path
            )));
        };
        Columns { columns, path: self.path }.visit_map(map)
    }
}

/// Merges one object, member by member.
struct Columns<'a> {
    columns: &'a mut Vec<(String, Seen)>,
    path: &'a mut String,
}

impl<'de> Visitor<'de> for Columns<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let path_len = self.path.len();
        // Objects of one file mostly have their members in one order: the next one is looked for behind the last one.
        let mut expected = 0;
        while let Some(at) = map.next_key_seed(Name { columns: self.columns, expected })? {
            expected = at + 1;
            if path_len > 0 {
                self.path.push('.');
            }
            self.path.push_str(&self.columns[at].0);
            map.next_value_seed(Value { seen: &mut self.columns[at].1, path: self.path })?;
            self.path.truncate(path_len);
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
