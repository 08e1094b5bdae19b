//! Every Arrow type goes in, in slices and in wild order, and comes out as the format says.

use arrow_array::builder::*;
use arrow_array::types::*;
use arrow_buffer::{IntervalDayTime, IntervalMonthDayNano, OffsetBuffer, ScalarBuffer, i256};
use arrow_schema::UnionFields;

use super::*;

const ROWS: usize = 400;

/// Values of every row that is not null.
fn at(row: usize) -> Option<i64> {
    (row % 7 != 3).then_some((row as i64 * 7919) % 1013 - 500)
}

fn text(row: usize) -> Option<String> {
    at(row).map(|v| format!("{v} {}", "é".repeat(row % 20)))
}

fn all() -> impl Iterator<Item = Option<i64>> {
    (0..ROWS).map(at)
}

fn primitive<T: ArrowPrimitiveType>(of: impl Fn(i64) -> T::Native) -> ArrayRef {
    Arc::new(all().map(|v| v.map(&of)).collect::<PrimitiveArray<T>>())
}

fn flat_columns() -> Vec<(&'static str, ArrayRef)> {
    let strings = || (0..ROWS).map(text);
    let fixed = all().map(|v| v.map(|v| v.to_le_bytes()[..5].to_vec()));
    vec![
        ("null", Arc::new(NullArray::new(ROWS))),
        ("bool", Arc::new(all().map(|v| v.map(|v| v % 2 == 0)).collect::<BooleanArray>())),
        ("i8", primitive::<Int8Type>(|v| v as i8)),
        ("i16", primitive::<Int16Type>(|v| v as i16)),
        ("i32", primitive::<Int32Type>(|v| v as i32)),
        ("i64", primitive::<Int64Type>(|v| v)),
        ("u8", primitive::<UInt8Type>(|v| v as u8)),
        ("u16", primitive::<UInt16Type>(|v| v as u16)),
        ("u32", primitive::<UInt32Type>(|v| v as u32)),
        ("u64", primitive::<UInt64Type>(|v| v as u64)),
        ("f16", primitive::<Float16Type>(half)),
        ("f32", primitive::<Float32Type>(|v| v as f32 / 3.0)),
        ("f64", primitive::<Float64Type>(|v| v as f64 / 3.0)),
        ("date32", primitive::<Date32Type>(|v| v as i32)),
        ("date64", primitive::<Date64Type>(|v| v * 86_400_000)),
        ("time32", primitive::<Time32MillisecondType>(|v| v.unsigned_abs() as i32)),
        ("time64", primitive::<Time64NanosecondType>(|v| v.abs())),
        ("ts", Arc::new(all().collect::<TimestampMicrosecondArray>().with_timezone("America/New_York"))),
        ("duration", primitive::<DurationSecondType>(|v| v)),
        ("months", primitive::<IntervalYearMonthType>(|v| v as i32)),
        ("days", primitive::<IntervalDayTimeType>(|v| IntervalDayTime::new(v as i32, 7))),
        ("nanos", primitive::<IntervalMonthDayNanoType>(|v| IntervalMonthDayNano::new(v as i32, 2, v))),
        ("d32", primitive::<Decimal32Type>(|v| v as i32)),
        ("d64", primitive::<Decimal64Type>(|v| v)),
        ("d128", primitive::<Decimal128Type>(|v| i128::from(v) << 50)),
        ("d256", primitive::<Decimal256Type>(|v| i256::from_i128(i128::from(v) << 70))),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 5).unwrap())),
        ("utf8", Arc::new(strings().collect::<StringArray>())),
        ("large", Arc::new(strings().collect::<LargeStringArray>())),
        ("view", Arc::new(strings().collect::<StringViewArray>())),
        ("binary", Arc::new(strings().map(|s| s.map(String::into_bytes)).collect::<BinaryArray>())),
        ("binary_view", Arc::new(strings().map(|s| s.map(String::into_bytes)).collect::<BinaryViewArray>())),
        ("no_nulls", Arc::new(Int32Array::from_iter_values(0..ROWS as i32))),
    ]
}

/// A number as a half float, without depending on the crate of that type.
fn half(v: i64) -> <Float16Type as ArrowPrimitiveType>::Native {
    let f: ArrayRef = Arc::new(Float32Array::from(vec![v as f32]));
    arrow_cast::cast(&f, &DataType::Float16).unwrap().as_primitive::<Float16Type>().value(0)
}

fn lists<O: OffsetSizeTrait>() -> ArrayRef {
    let mut builder = GenericListBuilder::<O, _>::new(StringBuilder::new());
    for row in 0..ROWS {
        (0..row % 5).for_each(|i| builder.values().append_option(text(row + i)));
        builder.append(row % 11 != 5);
    }
    Arc::new(builder.finish())
}

fn nested_columns() -> Vec<(&'static str, ArrayRef)> {
    let inner = lists::<i32>();
    let fields = vec![Field::new("a", DataType::Utf8, true), Field::new("l", inner.data_type().clone(), true)];
    let strings: ArrayRef = Arc::new((0..ROWS).map(text).collect::<StringArray>());
    let nulls = (0..ROWS).map(|r| r % 13 != 6).collect::<Vec<bool>>();
    let structs = StructArray::new(fields.into(), vec![strings.clone(), inner.clone()], Some(nulls.into()));

    let pairs = (0..3 * ROWS).map(|r| (r % 5 != 1).then_some(r as i32)).collect::<Int32Array>();
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    let nulls = (0..ROWS).map(|r| r % 9 != 2).collect::<Vec<bool>>();
    let fixed_lists = FixedSizeListArray::new(item, 3, Arc::new(pairs), Some(nulls.into()));

    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for row in 0..ROWS {
        for i in 0..row % 4 {
            maps.keys().append_value(format!("key {i}"));
            maps.values().append_option(at(row + i).map(|v| v as i32));
        }
        maps.append(row % 10 != 1).unwrap();
    }

    let views =
        arrow_cast::cast(&inner, &DataType::ListView(Arc::new(Field::new("item", DataType::Utf8, true)))).unwrap();
    let large_views = Arc::new(Field::new("item", DataType::Utf8, true));
    let large_views = arrow_cast::cast(&lists::<i64>(), &DataType::LargeListView(large_views)).unwrap();
    let ends = Int32Array::from_iter_values((1..=ROWS as i32 / 4).map(|i| 4 * i));
    let run_values = (0..ROWS / 4).map(text).collect::<StringArray>();
    let runs = RunArray::try_new(&ends, &run_values).unwrap();

    let ids: ScalarBuffer<i8> = (0..ROWS).map(|r| if r % 3 == 0 { 5 } else { 2 }).collect();
    let union_fields: UnionFields = [
        (2i8, Arc::new(Field::new("n", DataType::Int64, true))),
        (5i8, Arc::new(Field::new("s", DataType::LargeUtf8, true))),
    ]
    .into_iter()
    .collect();
    let numbers: ArrayRef = Arc::new(all().collect::<Int64Array>());
    let large: ArrayRef = Arc::new((0..ROWS).map(text).collect::<LargeStringArray>());
    let sparse = UnionArray::try_new(union_fields.clone(), ids.clone(), None, vec![numbers.clone(), large.clone()]);
    let mut counts = [0i32; 8];
    let offsets: ScalarBuffer<i32> = ids
        .iter()
        .map(|&id| {
            counts[id as usize] += 1;
            counts[id as usize] - 1
        })
        .collect();
    let dense_children = vec![numbers.slice(0, counts[2] as usize), large.slice(0, counts[5] as usize)];
    let dense = UnionArray::try_new(union_fields, ids, Some(offsets), dense_children);
    vec![
        ("list", inner),
        ("large_list", lists::<i64>()),
        ("struct", Arc::new(structs)),
        ("fixed_list", Arc::new(fixed_lists)),
        ("map", Arc::new(maps.finish())),
        ("list_view", views),
        ("large_list_view", large_views),
        ("runs", Arc::new(runs)),
        ("sparse", Arc::new(sparse.unwrap())),
        ("dense", Arc::new(dense.unwrap())),
    ]
}

fn dictionary_columns() -> Vec<(&'static str, ArrayRef)> {
    let plain: DictionaryArray<Int8Type> =
        (0..ROWS).map(|r| at(r % 30).map(|v| v.to_string())).collect::<Vec<_>>().iter().map(|s| s.as_deref()).collect();
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), None, Some(-1.5), Some(0.5)]));
    let keys = (0..ROWS).map(|r| (r % 6 != 0).then_some((r % 4) as u16)).collect::<UInt16Array>();
    let numbers = DictionaryArray::<UInt16Type>::new(keys, floats);
    // A dictionary within lists within a struct.
    let values: DictionaryArray<Int32Type> =
        (0..2 * ROWS).map(|r| text(r % 40)).collect::<Vec<_>>().iter().map(|s| s.as_deref()).collect();
    let item = Arc::new(Field::new("item", values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(2, ROWS));
    let lists: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(values), None));
    let fields = vec![Field::new("l", lists.data_type().clone(), true)];
    let nested = StructArray::new(fields.into(), vec![lists], None);
    vec![("d8", Arc::new(plain)), ("d16", Arc::new(numbers)), ("nested", Arc::new(nested))]
}

/// The columns beside a key that is a permutation of the row numbers.
fn batch_of(columns: Vec<(&'static str, ArrayRef)>) -> RecordBatch {
    let key: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS as i64).map(|r| r * 7919 % 401)));
    RecordBatch::try_from_iter_with_nullable(
        [("k", key, false)].into_iter().chain(columns.into_iter().map(|(n, a)| (n, a, true))),
    )
    .unwrap()
}

/// Uneven slices, so that every array has an offset of its own.
fn slices(whole: &RecordBatch) -> Vec<RecordBatch> {
    let cuts = [0, 1, 9, 40, 41, 130, 133, 300, 397, ROWS];
    cuts.windows(2).map(|c| whole.slice(c[0], c[1] - c[0])).collect()
}

fn check(columns: Vec<(&'static str, ArrayRef)>) {
    let whole = batch_of(columns);
    let sorted = sorted_by_first(&whole);
    for tune in [&(|_: &mut Tuning| {}) as &dyn Fn(&mut Tuning), &tiny] {
        for (options, want) in
            [(PutOptions::map("k").threads(2), &sorted), (PutOptions::table(Vec::<String>::new()).threads(1), &whole)]
        {
            let built = build(&slices(&whole), &options, tune);
            let stored = stored_schema(&whole.schema()).unwrap();
            assert_eq!(built.batch.schema().fields(), stored.fields());
            for (column, field) in stored.fields().iter().enumerate() {
                let want = stored_array(want.column(column), field.data_type());
                let got = built.batch.column(column);
                got.to_data().validate_full().unwrap_or_else(|e| panic!("{}: {e}", field.name()));
                assert_eq!(got.null_count(), want.null_count(), "{}", field.name());
                assert_eq!(got, &want, "column {}", field.name());
            }
        }
    }
}

/// What arrow-cast makes of an array; unions hold nothing that needs a cast here.
fn stored_array(array: &ArrayRef, to: &DataType) -> ArrayRef {
    if array.data_type() == to { array.clone() } else { arrow_cast::cast(array, to).unwrap() }
}

#[test]
fn flat_types() {
    check(flat_columns());
}

#[test]
fn nested_types() {
    check(nested_columns());
}

#[test]
fn dictionaries_are_unified() {
    check(dictionary_columns());
}

#[test]
fn every_batch_may_bring_its_own_dictionary() {
    let part = |from: i64| {
        let words: Vec<String> = (from..from + 50).map(|i| format!("word {}", i % 70)).collect();
        let words: DictionaryArray<Int32Type> = words.iter().map(|w| Some(w.as_str())).collect();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((from..from + 50).map(|i| 1000 - i)));
        RecordBatch::try_from_iter([("k", keys), ("d", Arc::new(words) as ArrayRef)]).unwrap()
    };
    let parts = [part(0), part(50), part(100)];
    for tune in [&(|_: &mut Tuning| {}) as &dyn Fn(&mut Tuning), &tiny] {
        let built = build(&parts, &PutOptions::map("k"), tune);
        let got = built.batch.column(1).as_any_dictionary();
        assert_eq!(got.values().len(), 70);
        let got = arrow_cast::cast(built.batch.column(1), &DataType::Utf8).unwrap();
        let want: Vec<String> = (0..150).rev().map(|i| format!("word {}", i % 70)).collect();
        assert_eq!(got.as_string::<i32>(), &StringArray::from(want));
    }
}

#[test]
fn rows_without_nulls_have_no_validity() {
    let whole = batch_of(vec![("v", Arc::new((0..ROWS).map(|r| (r > 5).then_some(r as i32)).collect::<Int32Array>()))]);
    let built = build(&[whole.slice(10, 300)], &PutOptions::map("k"), &|_| {});
    assert_eq!(built.record.data.buffers[2].length, 0);
    // Nulls that came in but were dropped as duplicates leave none behind.
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2]));
    let values: ArrayRef = Arc::new(Int32Array::from(vec![None, Some(1), Some(2)]));
    let batch = RecordBatch::try_from_iter([("k", keys), ("v", values)]).unwrap();
    let built = build(&[batch], &PutOptions::map("k").on_duplicate(OnDuplicate::Last), &|_| {});
    assert_eq!((built.record.rows, built.record.data.buffers[2].length), (2, 0));
}

#[test]
fn a_dictionary_that_outgrows_its_indices_is_an_error() {
    let part = |from: i64| {
        let words: Vec<String> = (from..from + 100).map(|i| i.to_string()).collect();
        let words: DictionaryArray<Int8Type> = words.iter().map(|w| Some(w.as_str())).collect();
        RecordBatch::try_from_iter([("category", Arc::new(words) as ArrayRef)]).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let parts = [part(0), part(100)];
    let options = PutOptions::table(Vec::<String>::new());
    let e = try_build(pheon_os::fs::real(), dir.path(), parts[0].schema(), &parts, &options, &|_| {}).unwrap_err();
    let e = e.to_string();
    assert!(e.contains("\"category\"") && e.contains("input rows 100..200") && e.contains("Int8 can count"), "{e}");
}

#[test]
fn small_batches_are_put_together() {
    let whole = concat_all(&[batch_of(nested_columns()), batch_of(nested_columns())]);
    let rows: Vec<RecordBatch> = (0..whole.num_rows()).map(|r| whole.slice(r, 1)).collect();
    let built = build(&rows, &PutOptions::table(["k"]), &|_| {});
    let want = sorted_by_first(&whole);
    let stored = stored_schema(&whole.schema()).unwrap();
    for (column, field) in stored.fields().iter().enumerate() {
        assert_eq!(built.batch.column(column), &stored_array(want.column(column), field.data_type()));
    }
}
