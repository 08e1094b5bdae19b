use std::ops::Range;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal64Array, Decimal128Array, DictionaryArray,
    FixedSizeListArray, Float64Array, Int8Array, Int64Array, LargeStringArray, ListArray, MapArray, NullArray,
    RecordBatch, StringArray, StructArray, Time32SecondArray, Time64NanosecondArray, TimestampMicrosecondArray,
    TimestampSecondArray, UInt16Array, new_empty_array,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields, IntervalUnit, Schema, TimeUnit};
use polars_core::prelude::{AnyValue, DataFrame, DataType as PolarsType, TimeUnit as PolarsUnit};

use super::to_frame;

fn batch(columns: impl IntoIterator<Item = (&'static str, ArrayRef)>) -> RecordBatch {
    let columns: Vec<_> = columns.into_iter().collect();
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

fn frame(batches: &[RecordBatch]) -> DataFrame {
    to_frame(&batches[0].schema(), batches.to_vec()).unwrap()
}

/// The addresses of a buffer.
fn place<T>(values: &[T]) -> Range<usize> {
    let range = values.as_ptr_range();
    range.start.addr()..range.end.addr()
}

#[test]
fn numbers_and_long_strings_stay_in_the_mapped_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let text = "a string that does not fit beside its length, ".repeat(10);
    let mut bytes: Vec<u8> = (0..1000i64).flat_map(i64::to_le_bytes).collect();
    bytes.extend(text.as_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let map = pheon_os::fs::real().map(&path).unwrap();
    let inside = place(&map);
    let file = Buffer::from(bytes::Bytes::from_owner(map));
    let numbers = |from: usize| ScalarBuffer::<i64>::new(file.clone(), from, 1000 - from);
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0i64, 230, 460]));
    let frame_of = |from: usize| {
        let whole = batch([
            ("n", Arc::new(Int64Array::new(numbers(from), None)) as ArrayRef),
            ("t", Arc::new(TimestampMicrosecondArray::new(numbers(from), None)) as _),
            ("f", Arc::new(Float64Array::new(ScalarBuffer::new(file.clone(), from, 1000 - from), None)) as _),
        ]);
        frame(&[whole])
    };
    for from in [0, 500] {
        let frame = frame_of(from);
        let n = frame.column("n").unwrap().as_materialized_series().i64().unwrap();
        let found = place(n.cont_slice().unwrap());
        assert_eq!(found.start, inside.start + 8 * from); // at the very place, and all of it
        assert_eq!(found.end, inside.start + 8000);
        let t = frame.column("t").unwrap().as_materialized_series();
        assert_eq!(t.dtype(), &PolarsType::Datetime(PolarsUnit::Microseconds, None));
        assert_eq!(place(t.datetime().unwrap().physical().cont_slice().unwrap()), found);
        assert_eq!(place(frame.column("f").unwrap().f64().unwrap().cont_slice().unwrap()), found);
    }
    let strings = LargeStringArray::new(offsets, file.slice(8000), None);
    let strings = frame(&[batch([("s", Arc::new(strings) as ArrayRef)])]);
    let strings = strings.column("s").unwrap().str().unwrap().clone();
    drop(file); // polars holds the mapping
    assert_eq!(strings.get(1), Some(&text[230..460]));
    let found = place(strings.get(1).unwrap().as_bytes());
    assert_eq!(found, inside.start + 8230..inside.start + 8460);
}

#[test]
fn a_batch_is_a_chunk_and_none_is_empty() {
    let part = |from: i64, word: &str| {
        batch([
            ("n", Arc::new(Int64Array::from(vec![Some(from), None, Some(from + 2)])) as ArrayRef),
            ("s", Arc::new(LargeStringArray::from(vec![Some(word), None, Some("a longer word than twelve")])) as _),
            ("c", Arc::new([Some(word), None, Some("both")].into_iter().collect::<DictionaryArray<Int32Type>>()) as _),
        ])
    };
    let (first, second) = (part(1, "first"), part(10, "second"));
    let frame = frame(&[first.clone(), second.slice(1, 2), second.slice(0, 0), first.slice(2, 1)]);
    assert_eq!(frame.shape(), (6, 3));
    let numbers = frame.column("n").unwrap().i64().unwrap();
    assert_eq!(numbers.chunks().iter().map(|chunk| chunk.len()).filter(|&n| n > 0).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(1), None, Some(3), None, Some(12), Some(3)]);
    let strings = frame.column("s").unwrap().str().unwrap();
    let long = Some("a longer word than twelve");
    assert_eq!(strings.iter().collect::<Vec<_>>(), [Some("first"), None, long, None, long, long]);
    let words = frame.column("c").unwrap();
    let words: Vec<_> = (0..6).map(|row| words.get(row).unwrap().get_str().map(ToOwned::to_owned)).collect();
    let both = Some("both".to_owned());
    assert_eq!(words, [Some("first".to_owned()), None, both.clone(), None, both.clone(), both]);

    let empty = to_frame(&first.schema(), []).unwrap();
    assert_eq!(empty.shape(), (0, 3));
    assert_eq!(empty.dtypes(), frame.dtypes());
    let no_columns = to_frame(&Schema::empty(), []).unwrap();
    assert_eq!(no_columns.shape(), (0, 0));
}

#[test]
fn every_type_that_both_have() {
    let list = |values: Vec<Option<Vec<Option<i32>>>>| ListArray::from_iter_primitive::<Int32Type, _, _>(values);
    let fields = Fields::from(vec![
        Field::new("x", DataType::Int8, true),
        Field::new("when", DataType::Timestamp(TimeUnit::Second, None), true),
    ]);
    let inner: Vec<ArrayRef> = vec![
        Arc::new(Int8Array::from(vec![7, 8, 9])),
        Arc::new(TimestampSecondArray::from(vec![Some(1), None, Some(3)])),
    ];
    let rows = StructArray::new(fields, inner, Some(vec![true, true, false].into()));
    let pairs = {
        let fields =
            Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int32, true)]);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(arrow_array::Int32Array::from(vec![1, 2]))];
        let entries = StructArray::new(fields.clone(), columns, None);
        let field = Arc::new(Field::new("entries", DataType::Struct(fields), false));
        MapArray::new(field, OffsetBuffer::from_lengths([1, 0, 1]), entries, None, false)
    };
    let pair_lists = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        [Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(6)])],
        2,
    );
    let utc = TimestampMicrosecondArray::from(vec![0, 1, 2]).with_timezone("Europe/Paris");
    let whole = batch([
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])) as ArrayRef),
        ("u16", Arc::new(UInt16Array::from(vec![1, 2, 65535])) as _),
        ("binary", Arc::new(BinaryArray::from(vec![&b"\xff"[..], b"", b"more than twelve bytes"])) as _),
        ("date", Arc::new(Date32Array::from(vec![0, 1, 20_000])) as _),
        ("time", Arc::new(Time64NanosecondArray::from(vec![0, 1, 2])) as _),
        ("seconds", Arc::new(Time32SecondArray::from(vec![0, 1, 2])) as _),
        ("zone", Arc::new(utc) as _),
        ("d128", Arc::new(Decimal128Array::from(vec![1, 2, 315]).with_precision_and_scale(10, 2).unwrap()) as _),
        ("d64", Arc::new(Decimal64Array::from(vec![1, 2, 315]).with_precision_and_scale(10, 2).unwrap()) as _),
        ("list", Arc::new(list(vec![Some(vec![Some(1), None]), None, Some(vec![])])) as _),
        ("array", Arc::new(pair_lists) as _),
        ("struct", Arc::new(rows) as _),
        ("map", Arc::new(pairs) as _),
        ("null", Arc::new(NullArray::new(3)) as _),
    ]);
    for (from, len) in [(0, 3), (1, 2), (2, 1)] {
        let part = frame(&[whole.slice(from, len)]);
        let all = frame(std::slice::from_ref(&whole)).slice(from as i64, len);
        assert!(part.equals_missing(&all), "{part:?} {all:?}");
    }
    let all = frame(&[whole]);
    assert_eq!(all.column("bool").unwrap().bool().unwrap().iter().collect::<Vec<_>>(), [Some(true), None, Some(false)]);
    assert_eq!(all.column("u16").unwrap().u16().unwrap().get(2), Some(65535));
    assert_eq!(all.column("binary").unwrap().binary().unwrap().get(2), Some(&b"more than twelve bytes"[..]));
    assert_eq!(all.column("date").unwrap().get(2).unwrap(), AnyValue::Date(20_000));
    assert_eq!(all.column("time").unwrap().get(2).unwrap(), AnyValue::Time(2));
    assert_eq!(all.column("seconds").unwrap().get(2).unwrap(), AnyValue::Time(2_000_000_000));
    for decimal in ["d128", "d64"] {
        assert_eq!(all.column(decimal).unwrap().get(2).unwrap(), AnyValue::Decimal(315, 10, 2));
    }
    let zone = all.column("zone").unwrap().dtype().clone();
    assert!(
        matches!(&zone, PolarsType::Datetime(PolarsUnit::Microseconds, Some(zone)) if zone.as_str() == "Europe/Paris")
    );
    let lists = all.column("list").unwrap().list().unwrap();
    assert_eq!(lists.get_as_series(0).unwrap().i32().unwrap().iter().collect::<Vec<_>>(), [Some(1), None]);
    assert!(lists.get_as_series(1).is_none() && lists.get_as_series(2).unwrap().is_empty());
    let arrays = all.column("array").unwrap().array().unwrap();
    assert_eq!(arrays.get_as_series(2).unwrap().i32().unwrap().iter().collect::<Vec<_>>(), [None, Some(6)]);
    let rows = all.column("struct").unwrap().struct_().unwrap();
    assert_eq!(rows.field_by_name("x").unwrap().i8().unwrap().iter().collect::<Vec<_>>(), [Some(7), Some(8), None]);
    let when = rows.field_by_name("when").unwrap();
    assert_eq!(when.get(0).unwrap(), AnyValue::Datetime(1000, PolarsUnit::Milliseconds, None));
    assert_eq!(all.column("map").unwrap().list().unwrap().get_as_series(2).unwrap().len(), 1);
    assert_eq!(all.column("null").unwrap().null_count(), 3);
}

#[test]
fn what_polars_does_not_have_is_named() {
    let refused = |data_type: &DataType| {
        let whole = batch([("good", new_empty_array(&DataType::Int8)), ("odd one", new_empty_array(data_type))]);
        let problem = to_frame(&whole.schema(), [whole]).map(|_| ()).expect_err(&data_type.to_string());
        assert!(problem.contains("\"odd one\""), "{problem}");
        problem
    };
    let inside = |inner: &DataType| DataType::new_list(inner.clone(), true);
    let intervals = DataType::Interval(IntervalUnit::DayTime);
    assert!(refused(&intervals).contains("Interval(DayTime)"));
    assert!(refused(&inside(&inside(&intervals))).contains("Interval(DayTime)"));
    refused(&DataType::Interval(IntervalUnit::MonthDayNano));
    refused(&inside(&DataType::Decimal64(10, 2)));
    refused(&inside(&DataType::Decimal256(40, 2)));
    refused(&DataType::Decimal128(10, -2));
    refused(&DataType::Struct(Fields::from(vec![Field::new("x", intervals, true)])));
    refused(&DataType::Timestamp(TimeUnit::Nanosecond, Some("Mars/Base".into())));
    refused(&inside(&DataType::Timestamp(TimeUnit::Nanosecond, Some("Mars/Base".into()))));
    let union = DataType::Union(
        arrow_schema::UnionFields::from_fields(vec![Field::new("x", DataType::Int8, true)]),
        arrow_schema::UnionMode::Sparse,
    );
    refused(&union);
    let twice =
        batch([("same", Arc::new(Int8Array::from(vec![1])) as ArrayRef), ("same", Arc::new(NullArray::new(1)) as _)]);
    assert!(to_frame(&twice.schema(), [twice]).unwrap_err().contains("same"));
}

#[test]
fn an_extension_type_is_what_it_is_stored_as() {
    let metadata = [("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())];
    let child = Field::new("item", DataType::Int8, true).with_metadata(metadata.clone().into());
    let field = Field::new("x", DataType::List(Arc::new(child)), true).with_metadata(metadata.into());
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let whole = RecordBatch::try_new(schema, vec![new_empty_array(field.data_type())]).unwrap();
    let frame = frame(&[whole]);
    assert_eq!(frame.column("x").unwrap().dtype(), &PolarsType::List(Box::new(PolarsType::Int8)));
}
