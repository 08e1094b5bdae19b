//! Zero-copy slices of string columns, each validated over just the rows it covers.
//!
//! Unsafe for speed: arrow-rs validates the *whole* values buffer of a string array, which for a short slice of a huge
//! mapped column reads gigabytes. Here exactly the slice's bytes are checked (a 1,000-row prefix of a 620 MB column: tens
//! of microseconds instead of tens of milliseconds).
#![allow(unsafe_code)]

use std::sync::Arc;

use arrow_array::{ArrayRef, LargeBinaryArray, LargeStringArray};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::DataType;

/// Rows `start .. start + len` of a LargeUtf8 or LargeBinary column. The error names the first bad row.
pub(super) fn var_slice(
    data_type: &DataType,
    offsets: &ScalarBuffer<i64>,
    values: &Buffer,
    nulls: Option<NullBuffer>,
    start: usize,
    len: usize,
) -> Result<ArrayRef, (usize, String)> {
    let here = &offsets[start..=start + len];
    let outside = || {
        let bad = here.windows(2).position(|w| !(0 <= w[0] && w[0] <= w[1] && w[1] as u64 <= values.len() as u64));
        (start + bad.unwrap_or(0), "its offsets lie outside the values or run backwards".to_owned())
    };
    if !here.is_sorted() || here[0] < 0 || here[len] as u64 > values.len() as u64 {
        return Err(outside());
    }
    let slice = OffsetBuffer::new(offsets.slice(start, len + 1));
    if *data_type == DataType::LargeBinary {
        return LargeBinaryArray::try_new(slice, values.clone(), nulls)
            .map(|a| Arc::new(a) as ArrayRef)
            .map_err(|e| (start, e.to_string()));
    }
    let base = here[0] as usize;
    let bytes = &values[base..here[len] as usize];
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let at = (base + e.valid_up_to()) as i64;
        (start + here.partition_point(|&o| o <= at).saturating_sub(1), "it is not UTF-8".to_owned())
    })?;
    if let Some(i) = here.iter().position(|&o| !text.is_char_boundary(o as usize - base)) {
        return Err((start + i.saturating_sub(1), "it ends inside a UTF-8 character".to_owned()));
    }
    // SAFETY: the offsets were just checked to ascend within `values`, the bytes between the first and the last of them
    // to be UTF-8, and each of them to stand on a character boundary; published files never change (ReadMap's contract).
    let array = unsafe { LargeStringArray::new_unchecked(slice, values.clone(), nulls) };
    Ok(Arc::new(array))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray;

    fn slice(offsets: &[i64], values: &[u8], start: usize, len: usize) -> Result<ArrayRef, (usize, String)> {
        var_slice(&DataType::LargeUtf8, &ScalarBuffer::from(offsets.to_vec()), &Buffer::from(values), None, start, len)
    }

    #[test]
    fn only_the_slice_is_judged() {
        let values = "aé\u{0}".as_bytes().iter().copied().chain([0xFF]).collect::<Vec<_>>();
        let ok = slice(&[0, 1, 3, 4, 5], &values, 0, 3).unwrap();
        assert_eq!(ok.as_string::<i64>().iter().flatten().collect::<Vec<_>>(), ["a", "é", "\u{0}"]);
        assert_eq!(slice(&[0, 1, 3, 4, 5], &values, 1, 3).unwrap_err(), (3, "it is not UTF-8".to_owned()));
        assert_eq!(slice(&[0, 1, 2, 3, 4], &values, 0, 4).unwrap_err().0, 1);
    }

    #[test]
    fn offsets_outside_or_backwards_are_errors() {
        assert_eq!(slice(&[0, 9], b"abc", 0, 1).unwrap_err().0, 0);
        assert_eq!(slice(&[0, 2, 1, 3], b"abc", 0, 3).unwrap_err().0, 1);
        assert_eq!(slice(&[-1, 1], b"abc", 0, 1).unwrap_err().0, 0);
        assert_eq!(slice(&[0, 0, 0], b"", 0, 2).unwrap().len(), 2);
    }
}
