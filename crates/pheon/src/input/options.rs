//! What a caller says about input files.

use std::path::Path;

use arrow_schema::DataType;

use crate::error::WriteError;

/// The kind of an input file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Text with a delimiter between fields, a comma unless chosen otherwise (RFC 4180).
    Csv,
    /// The same with tabs.
    Tsv,
    /// One JSON object a line.
    Json,
    /// Arrow IPC, file or stream; Feather version 2 is the same.
    Arrow,
}

const EXTENSIONS: &str = ".parquet .pq .csv .tsv .tab .ndjson .jsonl .arrow .arrows .feather .ipc";

impl Format {
    /// The format that a file's extension stands for, upper or lower case.
    ///
    /// # Errors
    /// An extension that stands for none; the text lists those that do.
    pub fn of(path: &Path) -> Result<Self, String> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        Ok(match extension.as_str() {
            "parquet" | "pq" => Self::Parquet,
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "ndjson" | "jsonl" => Self::Json,
            "arrow" | "arrows" | "feather" | "ipc" => Self::Arrow,
            _ => {
                return Err(format!(
                    "extension {extension:?} stands for no known format; expected one of {EXTENSIONS}, or give the format"
                ));
            }
        })
    }

    /// The format of this name: `parquet`, `csv`, `tsv`, `json` or `arrow`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "parquet" => Self::Parquet,
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "json" | "ndjson" | "jsonl" => Self::Json,
            "arrow" | "feather" | "ipc" => Self::Arrow,
            _ => return None,
        })
    }
}

/// How input files are read. Start from [`InputOptions::default`] and set what differs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InputOptions {
    /// The format of all files; `None`: each by its extension.
    pub format: Option<Format>,
    /// Columns to read, in this order; `None`: all. Parquet and Arrow files read nothing else from disk.
    pub columns: Option<Vec<String>>,
    /// Column types that replace what the file says or what was inferred. A value that does not fit is an error: fractions
    /// for an integer, a time for a date, digits behind the point that the unit or the scale does not hold, a time zone
    /// for a column without one (a time without a zone, in a column with one, is that zone's). Only floats are rounded,
    /// to the nearest. In CSV files, numbers may have a plus, zeros or blanks in front if their type is chosen; scales of
    /// decimals in text files must not be negative.
    pub types: Vec<(String, DataType)>,
    /// CSV: the delimiter, one ASCII character; `None`: comma for `.csv`, tab for `.tsv`.
    pub delimiter: Option<u8>,
    /// CSV: the quote character; `None`: quotes have no meaning.
    pub quote: Option<u8>,
    /// CSV: whether the first line names the columns; otherwise they are `column_1`, `column_2`...
    pub header: bool,
    /// CSV: fields that mean null. The default is the empty field; naming other values makes empty fields empty
    /// strings.
    pub null_values: Vec<String>,
    /// CSV: how many rows decide about the types; `None`: all. A later row that does not fit, because
    /// alone it would have another type, is an error that names the line. Columns of digits with leading zeros are
    /// strings, and so are those with fractions and integers that no float is. (JSON files are always read whole first.)
    pub infer_rows: Option<u64>,
    /// The most rows a batch.
    pub batch_rows: usize,
}

impl Default for InputOptions {
    fn default() -> Self {
        Self {
            format: None,
            columns: None,
            types: Vec::new(),
            delimiter: None,
            quote: Some(b'"'),
            header: true,
            null_values: vec![String::new()],
            infer_rows: Some(1_000_000),
            batch_rows: 16 * 1024,
        }
    }
}

impl InputOptions {
    pub(super) fn validate(&self) -> Result<(), WriteError> {
        let problem = if self.batch_rows == 0 {
            "batch_rows is 0; expected at least 1".into()
        } else if self.infer_rows == Some(0) {
            "infer_rows is 0; expected at least 1".into()
        } else if let Some(c) = self.delimiter.filter(|c| !c.is_ascii() || b"\r\n\0".contains(c)) {
            format!("the delimiter is {:?}; expected one ASCII character that ends no line", char::from(c))
        } else if self.quote.is_some() && self.quote == self.delimiter {
            "delimiter and quote are the same character".into()
        } else {
            return Ok(());
        };
        Err(WriteError::Options { problem })
    }

    /// The delimiter of a file of this format.
    pub(super) fn delimiter_of(&self, format: Format) -> u8 {
        self.delimiter.unwrap_or(if format == Format::Tsv { b'\t' } else { b',' })
    }

    /// The quote character for parsers that insist on one: 0xFF occurs in no UTF-8 text.
    pub(super) fn quote_byte(&self) -> u8 {
        self.quote.unwrap_or(0xFF)
    }
}
