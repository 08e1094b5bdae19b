//! How many bytes values have, one by one.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, IntervalMonthDayNanoType};
use arrow_array::{Array, ArrayRef};
use arrow_cast::cast;
use arrow_schema::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::scalar::ScalarValue;

/// Of the values of a batch: the greatest, and all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) greatest: u64,
    pub(crate) total: u64,
}

impl Extent {
    pub(crate) fn sum(values: impl IntoIterator<Item = u64>) -> Self {
        values.into_iter().fold(Self::default(), |sum, value| Self {
            greatest: sum.greatest.max(value),
            total: sum.total.saturating_add(value),
        })
    }
}

/// Bytes of each value of an argument.
pub(crate) enum Extents {
    /// Of all of them.
    Same(u64),
    Each(Vec<u64>),
}

impl Extents {
    pub(crate) fn of(arg: &ColumnarValue, rows: usize) -> Result<Self> {
        Ok(match arg {
            ColumnarValue::Scalar(scalar) => {
                Self::Same(bytes_of(&scalar.to_array_of_size(1)?).first().copied().unwrap_or(0))
            }
            ColumnarValue::Array(array) if array.len() == rows => Self::Each(bytes_of(array)),
            // A scalar that was evaluated as an array.
            ColumnarValue::Array(array) => Self::Same(bytes_of(array).into_iter().max().unwrap_or(0)),
        })
    }

    pub(crate) fn at(&self, row: usize) -> u64 {
        match self {
            Self::Same(bytes) => *bytes,
            Self::Each(bytes) => bytes.get(row).copied().unwrap_or(0),
        }
    }

    pub(crate) fn add_to(&self, sum: &mut [u64]) {
        for (row, sum) in sum.iter_mut().enumerate() {
            *sum = sum.saturating_add(self.at(row));
        }
    }
}

fn lengths<O: arrow_array::OffsetSizeTrait>(offsets: &[O]) -> Vec<u64> {
    offsets.windows(2).map(|w| (w[1].as_usize() - w[0].as_usize()) as u64).collect()
}

fn bytes_of(array: &ArrayRef) -> Vec<u64> {
    /// Of lists, the sums over their elements.
    fn sums<O: arrow_array::OffsetSizeTrait>(offsets: &[O], elements: &ArrayRef) -> Vec<u64> {
        if let Some(width) = elements.data_type().primitive_width() {
            return lengths(offsets).into_iter().map(|n| n * width as u64).collect();
        }
        let each = bytes_of(elements);
        // An empty element still takes an offset.
        let of = |w: &[O]| each[w[0].as_usize()..w[1].as_usize()].iter().map(|bytes| bytes + 8).sum();
        offsets.windows(2).map(of).collect()
    }
    match array.data_type() {
        DataType::Utf8 => lengths(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => lengths(array.as_string::<i64>().value_offsets()),
        DataType::Binary => lengths(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => lengths(array.as_binary::<i64>().value_offsets()),
        DataType::Utf8View => array.as_string_view().lengths().map(u64::from).collect(),
        DataType::BinaryView => array.as_binary_view().lengths().map(u64::from).collect(),
        DataType::List(_) => sums(array.as_list::<i32>().value_offsets(), array.as_list::<i32>().values()),
        DataType::LargeList(_) => sums(array.as_list::<i64>().value_offsets(), array.as_list::<i64>().values()),
        other => {
            let width = other.primitive_width().unwrap_or_else(|| array.get_array_memory_size() / array.len().max(1));
            vec![width as u64; array.len()]
        }
    }
}

/// How many elements each list of an argument has; no list has none.
pub(crate) fn elements_of(arg: &ColumnarValue, rows: usize) -> Result<Extents> {
    let counts = |array: &ArrayRef| -> Vec<u64> {
        match array.data_type() {
            DataType::List(_) => lengths(array.as_list::<i32>().value_offsets()),
            DataType::LargeList(_) => lengths(array.as_list::<i64>().value_offsets()),
            DataType::FixedSizeList(_, size) => vec![u64::try_from(*size).unwrap_or(0); array.len()],
            _ => vec![0; array.len()],
        }
    };
    Ok(match arg {
        ColumnarValue::Scalar(scalar) => {
            Extents::Same(counts(&scalar.to_array_of_size(1)?).first().copied().unwrap_or(0))
        }
        ColumnarValue::Array(array) if array.len() == rows => Extents::Each(counts(array)),
        ColumnarValue::Array(array) => Extents::Same(counts(array).into_iter().max().unwrap_or(0)),
    })
}

/// An argument that says how much: a number for each row, negative ones and nulls as nothing.
pub(crate) fn counts_of(arg: Option<&ColumnarValue>, rows: usize) -> Result<Vec<u64>> {
    let numbers = numbers_of(arg, rows)?;
    Ok(numbers.into_iter().map(|n| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)).collect())
}

fn numbers_of(arg: Option<&ColumnarValue>, rows: usize) -> Result<Vec<Option<i64>>> {
    let Some(arg) = arg else { return Ok(vec![None; rows]) };
    let array = match arg {
        ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(rows)?,
        ColumnarValue::Array(array) => array.clone(),
    };
    // What is no number counts nothing: the function refuses it itself.
    let Ok(numbers) = cast(&array, &DataType::Int64) else { return Ok(vec![None; rows]) };
    Ok(numbers.as_primitive::<Int64Type>().iter().collect())
}

/// Nanoseconds of a day.
const DAY: i128 = 86_400_000_000_000;

/// Elements of `range(stop)`, `range(start, stop)` and `range(start, stop, step)`, of numbers, dates or times.
pub(crate) fn length_of_range(args: &[ColumnarValue], rows: usize) -> Result<Vec<u64>> {
    let ticks = |arg: Option<&ColumnarValue>| -> Result<Vec<Option<i64>>> {
        match arg {
            Some(arg) if arg.data_type().is_temporal() && !is_interval(&arg.data_type()) => {
                let nanoseconds = DataType::Timestamp(arrow_schema::TimeUnit::Nanosecond, None);
                numbers_of(Some(&arg.cast_to(&nanoseconds, None)?), rows)
            }
            other => numbers_of(other, rows),
        }
    };
    let (start, stop) = match args {
        [stop] => (vec![Some(0); rows], ticks(Some(stop))?),
        _ => (ticks(args.first())?, ticks(args.get(1))?),
    };
    let step: Vec<i128> = match args.get(2) {
        None => vec![1; rows],
        Some(step) if is_interval(&step.data_type()) => intervals_of(step, rows)?,
        Some(step) => numbers_of(Some(step), rows)?.into_iter().map(|n| n.map_or(1, i128::from)).collect(),
    };
    let length = |row: usize| {
        let (Some(start), Some(stop)) = (start[row], stop[row]) else { return 0 };
        let distance = (i128::from(stop) - i128::from(start)).unsigned_abs();
        let steps = distance / step[row].unsigned_abs().max(1) + 1;
        u64::try_from(steps).unwrap_or(u64::MAX)
    };
    Ok((0..rows).map(length).collect())
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

/// At least so many nanoseconds.
fn intervals_of(arg: &ColumnarValue, rows: usize) -> Result<Vec<i128>> {
    let array = match arg {
        ColumnarValue::Scalar(ScalarValue::Null) => return Ok(vec![1; rows]),
        ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(rows)?,
        ColumnarValue::Array(array) => array.clone(),
    };
    let kind = DataType::Interval(arrow_schema::IntervalUnit::MonthDayNano);
    let Ok(intervals) = cast(&array, &kind) else { return Ok(vec![1; rows]) };
    let of = |step: Option<arrow_buffer::IntervalMonthDayNano>| {
        step.map_or(1, |s| 28 * DAY * i128::from(s.months) + DAY * i128::from(s.days) + i128::from(s.nanoseconds))
    };
    Ok(intervals.as_primitive::<IntervalMonthDayNanoType>().iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, LargeStringArray, ListArray, StringArray};

    use super::*;

    #[test]
    fn bytes_of_values() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None, Some("é")]));
        assert_eq!(bytes_of(&texts), [3, 0, 2]);
        assert_eq!(bytes_of(&texts.slice(1, 2)), [0, 2]);
        let texts: ArrayRef = Arc::new(LargeStringArray::from(vec!["", "abcd"]));
        assert_eq!(bytes_of(&texts), [0, 4]);
        let lists =
            ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), None, Some(vec![])]);
        assert_eq!(bytes_of(&(Arc::new(lists) as ArrayRef)), [16, 0, 0]);
    }

    #[test]
    fn lengths_of_ranges() {
        let scalar = |n: i64| ColumnarValue::Scalar(ScalarValue::Int64(Some(n)));
        let length = |args: &[ColumnarValue]| length_of_range(args, 1).unwrap()[0];
        assert_eq!(length(&[scalar(10)]), 11);
        assert_eq!(length(&[scalar(-1_000_000_000_000), scalar(0)]), 1_000_000_000_001);
        assert_eq!(length(&[scalar(i64::MIN), scalar(i64::MAX), scalar(i64::MAX)]), 3);
        assert_eq!(length(&[scalar(0), ColumnarValue::Scalar(ScalarValue::Int64(None))]), 0);
        let days = |n| ColumnarValue::Scalar(ScalarValue::Date32(Some(n)));
        let day = ColumnarValue::Scalar(ScalarValue::new_interval_mdn(0, 1, 0));
        assert_eq!(length(&[days(0), days(364), day]), 365);
        let counts = counts_of(Some(&ColumnarValue::Array(Arc::new(Int64Array::from(vec![-5, 5])))), 2).unwrap();
        assert_eq!(counts, [0, 5]);
    }
}
