//! The output formats of `pheon scan` and `pheon sql`.

use std::io::Write;

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::DataType;
use clap::ValueEnum;

use crate::cells::{Cells, encoder_options};
use crate::failure::Failure;
use crate::listing::{Align, write_row};

/// How rows are printed.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Json,
    Arrow,
}

impl Format {
    pub(crate) fn writer(self) -> Box<dyn RowWriter> {
        match self {
            Self::Json => Box::new(JsonRows::default()),
            Self::Table => Box::new(TableRows::default()),
            Self::Csv => Box::new(CsvRows::default()),
            Self::Arrow => Box::new(ArrowRows::default()),
        }
    }
}

/// Writes rows batch by batch. `begin` sees the first batch (maybe empty) before `rows` does.
pub(crate) trait RowWriter {
    fn begin(&mut self, first: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure>;
    fn rows(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure>;
    fn end(&mut self, _: &mut dyn Write) -> Result<(), Failure> {
        Ok(())
    }
}

/// One JSON object a line.
#[derive(Default)]
pub(crate) struct JsonRows {
    line: Vec<u8>,
}

impl RowWriter for JsonRows {
    fn begin(&mut self, _: &RecordBatch, _: &mut dyn Write) -> Result<(), Failure> {
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure> {
        let options = encoder_options();
        let mut cells = Cells::new(batch, &options)?;
        let names: Vec<String> = (0..cells.len())
            .map(|i| serde_json::to_string(cells.name(i)).expect("a string always serialises"))
            .collect();
        for row in 0..batch.num_rows() {
            self.line.clear();
            self.line.push(b'{');
            for (i, name) in names.iter().enumerate() {
                if i > 0 {
                    self.line.push(b',');
                }
                self.line.extend_from_slice(name.as_bytes());
                self.line.push(b':');
                cells.json(i, row, &mut self.line);
            }
            self.line.extend_from_slice(b"}\n");
            out.write_all(&self.line)?;
        }
        Ok(())
    }
}

/// RFC 4180 with a header. Null is an empty field, the empty string a quoted one.
#[derive(Default)]
pub(crate) struct CsvRows {
    cell: Vec<u8>,
    line: Vec<u8>,
}

impl CsvRows {
    fn push(&mut self, first: bool, present: bool) {
        if !first {
            self.line.push(b',');
        }
        if !present {
            return;
        }
        if !self.cell.is_empty() && !self.cell.iter().any(|c| b",\"\r\n".contains(c)) {
            return self.line.extend_from_slice(&self.cell);
        }
        self.line.push(b'"');
        for &c in &self.cell {
            if c == b'"' {
                self.line.push(b'"');
            }
            self.line.push(c);
        }
        self.line.push(b'"');
    }
}

impl RowWriter for CsvRows {
    fn begin(&mut self, first: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure> {
        self.line.clear();
        for (i, field) in first.schema_ref().fields().iter().enumerate() {
            self.cell.clear();
            self.cell.extend_from_slice(field.name().as_bytes());
            self.push(i == 0, true);
        }
        self.line.push(b'\n');
        Ok(out.write_all(&self.line)?)
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure> {
        let options = encoder_options();
        let mut cells = Cells::new(batch, &options)?;
        for row in 0..batch.num_rows() {
            self.line.clear();
            for column in 0..cells.len() {
                self.cell.clear();
                let present = cells.text(column, row, &mut self.cell);
                self.push(column == 0, present);
            }
            // A lone null would be an empty line, which readers skip.
            if self.line.is_empty() {
                self.line.extend_from_slice(b"\"\"");
            }
            self.line.push(b'\n');
            out.write_all(&self.line)?;
        }
        Ok(())
    }
}

/// Aligned columns. Widths come from the first batch; a wider cell further down shifts its line.
#[derive(Default)]
pub(crate) struct TableRows {
    widths: Vec<usize>,
    numbers: Vec<bool>,
}

/// Longer cells are cut.
const CELL_CHARS_MAX: usize = 80;
const NULL: &str = "null";

fn table_cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Failure> {
    let options = encoder_options();
    let mut cells = Cells::new(batch, &options)?;
    let mut bytes = Vec::new();
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut line = Vec::with_capacity(cells.len());
        for column in 0..cells.len() {
            bytes.clear();
            let present = cells.text(column, row, &mut bytes);
            line.push(if present { shorten(&String::from_utf8_lossy(&bytes)) } else { NULL.to_owned() });
        }
        rows.push(line);
    }
    Ok(rows)
}

/// One line, at most [`CELL_CHARS_MAX`] characters: control characters are escaped, what is cut is marked.
fn shorten(text: &str) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == CELL_CHARS_MAX - 1 && text.chars().count() > CELL_CHARS_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

impl RowWriter for TableRows {
    fn begin(&mut self, first: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure> {
        let fields = first.schema();
        let heads: Vec<String> = fields.fields().iter().map(|f| shorten(f.name())).collect();
        self.numbers = fields.fields().iter().map(|f| is_number(f.data_type())).collect();
        self.widths = heads.iter().map(|h| h.chars().count()).collect();
        for row in table_cells(first)? {
            for (width, cell) in self.widths.iter_mut().zip(&row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        self.write(&heads, out)?;
        let rule: Vec<String> = self.widths.iter().map(|w| "-".repeat(*w)).collect();
        self.write(&rule, out)
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure> {
        for row in table_cells(batch)? {
            self.write(&row, out)?;
        }
        Ok(())
    }
}

impl TableRows {
    fn write(&self, cells: &[String], out: &mut dyn Write) -> Result<(), Failure> {
        Ok(write_row(out, cells, &self.widths, |i| if self.numbers[i] { Align::Right } else { Align::Left })?)
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// An Arrow IPC stream: schema, batches, end mark.
#[derive(Default)]
pub(crate) struct ArrowRows {
    writer: Option<StreamWriter<Vec<u8>>>,
}

impl ArrowRows {
    /// Hands on what the encoder has produced so far.
    fn drain(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        if let Some(writer) = &mut self.writer {
            out.write_all(writer.get_ref())?;
            writer.get_mut().clear();
        }
        Ok(())
    }
}

impl RowWriter for ArrowRows {
    fn begin(&mut self, first: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure> {
        self.writer = Some(StreamWriter::try_new(Vec::new(), first.schema_ref())?);
        self.drain(out)
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Failure> {
        if let Some(writer) = &mut self.writer {
            writer.write(batch)?;
        }
        self.drain(out)
    }

    fn end(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        if let Some(writer) = &mut self.writer {
            writer.finish()?;
        }
        self.drain(out)
    }
}
