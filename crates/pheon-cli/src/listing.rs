//! Listings: aligned columns for people, one JSON document for programs.

use std::io::{self, Write};

use serde_json::Value;

/// How a column of a listing is aligned.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of text under headings; every column as wide as its widest cell, two spaces between columns.
pub(crate) fn write_table(out: &mut dyn Write, headings: &[(&str, Align)], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = headings.iter().map(|(name, _)| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head: Vec<String> = headings.iter().map(|(name, _)| (*name).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        write_row(out, row, &widths, |i| headings[i].1)?;
    }
    Ok(())
}

/// One row of an aligned table, without blanks at its end.
pub(crate) fn write_row(
    out: &mut dyn Write,
    cells: &[String],
    widths: &[usize],
    align: impl Fn(usize) -> Align,
) -> io::Result<()> {
    let mut line = String::new();
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            line.push_str("  ");
        }
        let blanks = widths[i].saturating_sub(cell.chars().count());
        match align(i) {
            Align::Left => {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', blanks));
            }
            Align::Right => {
                line.extend(std::iter::repeat_n(' ', blanks));
                line.push_str(cell);
            }
        }
    }
    writeln!(out, "{}", line.trim_end())
}

/// Facts, one a line, names padded to one width.
pub(crate) fn write_facts(out: &mut dyn Write, facts: &[(&str, String)]) -> io::Result<()> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, fact) in facts {
        writeln!(out, "{name:width$}  {fact}")?;
    }
    Ok(())
}

/// One JSON document, indented.
pub(crate) fn write_json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}
