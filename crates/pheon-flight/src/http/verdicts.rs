//! Which library reads which column where it lies, and why another is copied: what `zero_copy_report` says in Python, for a
//! page that has no Python to ask.

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef};
use arrow_schema::{DataType, Field, TimeUnit};
use pheon::{ReadError, Table};
use serde_json::{Map, Value, json};

/// In the order in which the page shows them.
pub(super) const CONSUMERS: [&str; 4] = ["pyarrow", "pandas", "polars", "numpy"];

const CODEC_KEY: &str = "pheon.codec";
const TURNS: &str = "rows of several segments take turns; Store.compact makes one segment of them";
const BITS: &str = "booleans are bits in Arrow and bytes in NumPy";

/// What a verdict depends on, beside the type.
struct Column<'a> {
    field: &'a Field,
    nulls: usize,
    pieces: usize,
    /// Of a dictionary: how many values it has; `None` if pandas keeps it as Arrow has it.
    categories: Option<usize>,
}

/// The values of a dictionary column, the longest of all pieces.
fn categories(field: &Field, chunks: &[ArrayRef]) -> Option<usize> {
    let DataType::Dictionary(_, values) = field.data_type() else { return None };
    let dictionaries = || chunks.iter().filter_map(|chunk| chunk.as_any_dictionary_opt()).map(|d| d.values());
    let kept = values.is_nested() || dictionaries().any(|values| values.null_count() > 0);
    if kept { None } else { Some(dictionaries().map(|values| values.len()).max().unwrap_or(0)) }
}

/// For each column and consumer why it is copied; null: it is not.
pub(super) fn verdicts(table: &Table) -> Result<Vec<Value>, ReadError> {
    let schema = table.schema();
    let turns = table.is_copied()?;
    let pieces = if turns { 0 } else { table.num_chunks()? };
    let mut all = Vec::with_capacity(schema.fields().len());
    for (i, field) in schema.fields().iter().enumerate() {
        let mut of = Map::new();
        let chunks = if turns { Vec::new() } else { table.column_chunks(i)? };
        // Counting nulls reads the bitmap, where there is one.
        let nulls = if field.is_nullable() { chunks.iter().map(|chunk| chunk.logical_null_count()).sum() } else { 0 };
        let column = Column { field, nulls, pieces, categories: categories(field, &chunks) };
        for consumer in CONSUMERS {
            let reason = match consumer {
                _ if turns => Some(TURNS.to_owned()),
                "pandas" => pandas(&column),
                "polars" => polars(field.data_type()).map(str::to_owned),
                "numpy" => numpy(&column),
                _ => None,
            };
            of.insert(consumer.to_owned(), json!(reason));
        }
        all.push(Value::Object(of));
    }
    Ok(all)
}

fn joined(pieces: usize) -> Option<String> {
    (pieces > 1).then(|| format!("the rows lie in {pieces} pieces, a NumPy array in one; Store.compact joins them"))
}

fn nulls_become(nulls: usize, stands: &str) -> String {
    let digits = nulls.to_string();
    let grouped: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    format!("{} nulls become {stands}", grouped.join(","))
}

/// The form that a column of unknown origin takes. What a frame was before it was put may ask for another one.
fn pandas(column: &Column<'_>) -> Option<String> {
    use DataType as D;
    match column.field.data_type() {
        D::Utf8 => Some("pandas' strings have 64-bit offsets, these are string".to_owned()),
        D::Utf8View => Some("pandas' strings have 64-bit offsets, these are string_view".to_owned()),
        D::Dictionary(..) if column.nulls > 0 && column.categories.is_some() => {
            Some(nulls_become(column.nulls, "the code -1"))
        }
        D::Boolean if column.nulls == 0 => Some(BITS.to_owned()),
        kind if column.nulls == 0 && (kind.is_integer() || kind.is_floating()) => joined(column.pieces),
        D::Timestamp(..) | D::Duration(_) if column.nulls == 0 => joined(column.pieces),
        D::Dictionary(keys, _) => {
            let codes = [(8, "int8"), (16, "int16"), (32, "int32"), (64, "int64")];
            let count = column.categories? as u128;
            let code = codes.into_iter().find(|(bits, _)| count < 1 << (bits - 1)).map_or("int64", |(_, name)| name);
            let stored = keys.to_string().to_lowercase();
            if stored == code {
                joined(column.pieces)
            } else {
                Some(format!("pandas has {code} codes of so many categories, not {stored}"))
            }
        }
        // An Arrow array of pandas' own.
        _ => None,
    }
}

fn numpy(column: &Column<'_>) -> Option<String> {
    use DataType as D;
    let kind = column.field.data_type();
    if column.field.metadata().contains_key(CODEC_KEY) {
        return Some("encoded values are decoded to Python objects".to_owned());
    }
    let viewed =
        kind.is_integer() || kind.is_floating() || matches!(kind, D::Timestamp(..) | D::Duration(_) | D::Date64);
    match kind {
        D::Boolean if column.nulls == 0 => return Some(BITS.to_owned()),
        D::Date32 if column.nulls == 0 => return Some("NumPy counts days in 64 bits, these have 32".to_owned()),
        _ if !viewed => {
            let text = kind.to_string();
            let name = text.split('(').next().unwrap_or_default();
            return Some(format!("NumPy has no {name}; they become Python objects"));
        }
        _ => {}
    }
    if column.nulls > 0 {
        let stands = match kind {
            D::Float32 | D::Float64 => "NaN",
            D::Timestamp(..) | D::Duration(_) => "NaT",
            _ => "None, among objects",
        };
        return Some(nulls_become(column.nulls, stands));
    }
    joined(column.pieces)
}

/// The first reason that one of the types within a type gives.
fn polars(kind: &DataType) -> Option<&'static str> {
    use DataType as D;
    type Rule = (fn(&DataType) -> bool, &'static str);
    const RULES: [Rule; 8] = [
        (|t| matches!(t, D::Decimal256(..) | D::Interval(_)), "polars has no such type"),
        (|t| matches!(t, D::Decimal32(..) | D::Decimal64(..)), "polars has decimals of 128 bits only"),
        (
            |t| matches!(t, D::Dictionary(..)),
            "polars numbers categories its own way, and has other dictionaries as plain values",
        ),
        (|t| matches!(t, D::Map(..) | D::List(_)), "polars has 64-bit offsets in lists, these have 32-bit ones"),
        (
            |t| matches!(t, D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary),
            "polars refers to strings by views, of 16 bytes a value, that must be made",
        ),
        (|t| matches!(t, D::FixedSizeBinary(_)), "polars has no binaries of fixed size, and refers to others by views"),
        (
            |t| matches!(t, D::Timestamp(TimeUnit::Second, _) | D::Duration(TimeUnit::Second)),
            "polars has no unit of seconds",
        ),
        (|t| matches!(t, D::Time32(_) | D::Time64(TimeUnit::Microsecond)), "polars counts times of day in nanoseconds"),
    ];
    RULES.iter().find(|(is_so, _)| within(kind, *is_so)).map(|(_, reason)| *reason)
}

/// Whether a type, or one within it, is so.
fn within(kind: &DataType, is_so: fn(&DataType) -> bool) -> bool {
    use DataType as D;
    let field = |f: &arrow_schema::FieldRef| within(f.data_type(), is_so);
    is_so(kind)
        || match kind {
            D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _) | D::Map(f, _) => field(f),
            D::Struct(fields) => fields.iter().any(field),
            D::Union(fields, _) => fields.iter().any(|(_, f)| field(f)),
            D::Dictionary(keys, values) => within(keys, is_so) || within(values, is_so),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_and_numbers_are_grouped() {
        let texts = DataType::Struct(vec![Field::new("a", DataType::LargeUtf8, true)].into());
        assert!(polars(&texts).unwrap().contains("views"));
        assert_eq!(polars(&DataType::Int64), None);
        assert_eq!(nulls_become(1_234_567, "NaN"), "1,234,567 nulls become NaN");
        assert_eq!(nulls_become(12, "NaN"), "12 nulls become NaN");
    }
}
