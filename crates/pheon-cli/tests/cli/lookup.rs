//! `get`: keys of every type, values of every shape.

use std::sync::Arc;

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Int8Array, Int64Array,
    RecordBatch, TimestampMicrosecondArray, UInt64Array,
};
use parquet::arrow::ArrowWriter;

use crate::World;

#[test]
fn one_key_prints_the_bare_value() {
    let world = World::with_words();
    assert_eq!(world.ok(["get", &world.store(), "words", "apple"]), "green\n");
    assert_eq!(
        world.ok(["get", &world.store(), "words", "apple", "--json"]),
        "{\"word\":\"apple\",\"meaning\":\"green\"}\n"
    );
}

#[test]
fn several_keys_print_key_and_value() {
    let world = World::with_words();
    assert_eq!(
        world.ok(["get", &world.store(), "words", "date", "apple", "date"]),
        "date\tbrown\napple\tgreen\ndate\tbrown\n"
    );
}

#[test]
fn a_missing_key_ends_with_1_and_the_found_ones_are_printed() {
    let world = World::with_words();
    world.fails(["get", &world.store(), "words", "fig"], 1, &["\"fig\"", "\"words\""]);
    let run = world.run(["get", &world.store(), "words", "fig", "apple", "grape"]);
    assert_eq!((run.code, run.out.as_str()), (1, "apple\tgreen\n"), "{run:?}");
    assert_eq!(run.err.lines().count(), 2, "{run:?}");
    world.fails(["get", &world.store(), "words", "--", "-apple"], 1, &["\"-apple\""]);
    assert!(run.err.contains("\"fig\"") && run.err.contains("\"grape\""), "{run:?}");
}

#[test]
fn old_versions() {
    let world = World::with_words();
    let store = world.store();
    let file = world.file("new.csv", "word,meaning\napple,sour\n");
    world.ok(["build", &store, "words", &file, "--key", "word"]);
    assert_eq!(world.ok(["get", &store, "words", "apple"]), "sour\n");
    assert_eq!(world.ok(["get", &store, "words", "apple", "--version", "1"]), "green\n");
}

#[test]
fn several_or_no_value_columns() {
    let world = World::new();
    let store = world.store();
    let file = world.file("t.csv", "k,a,b\nx,1,\n");
    world.ok(["build", &store, "t", &file, "--key", "k"]);
    assert_eq!(world.ok(["get", &store, "t", "x"]), "{\"a\":1,\"b\":null}\n");
    let file = world.file("set.csv", "k\nx\ny\n");
    world.ok(["build", &store, "set", &file, "--key", "k"]);
    assert_eq!(world.ok(["get", &store, "set", "x"]), "true\n");
    world.fails(["get", &store, "set", "z"], 1, &["\"z\""]);
}

fn fixed(values: &[&[u8]]) -> ArrayRef {
    let mut builder = FixedSizeBinaryBuilder::new(values[0].len() as i32);
    values.iter().for_each(|v| builder.append_value(v).unwrap());
    Arc::new(builder.finish())
}

#[test]
fn keys_of_every_type() {
    let columns: Vec<(&str, ArrayRef, &str, &str)> = vec![
        ("int8", Arc::new(Int8Array::from(vec![5, -5])), "-5", "200"),
        ("int64", Arc::new(Int64Array::from(vec![1, i64::MIN])), "-9223372036854775808", "1.5"),
        ("uint64", Arc::new(UInt64Array::from(vec![1, u64::MAX])), "18446744073709551615", "-1"),
        ("bool", Arc::new(BooleanArray::from(vec![false, true])), "true", "yes"),
        ("date", Arc::new(Date32Array::from(vec![0, 19753])), "2024-01-31", "yesterday"),
        (
            "timestamp",
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1_706_702_400_500_000])),
            "2024-01-31T12:00:00.5",
            "2024-01-31T12:00:00.5000001",
        ),
        (
            "zoned",
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1_706_702_400_000_000]).with_timezone("UTC")),
            "2024-01-31T14:00:00+02:00",
            "noon",
        ),
        (
            "berlin",
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1_706_702_400_000_000]).with_timezone("Europe/Berlin")),
            "2024-01-31T13:00:00",
            "noon",
        ),
        (
            "decimal",
            Arc::new(Decimal128Array::from(vec![0, -150]).with_precision_and_scale(10, 2).unwrap()),
            "-1.5",
            "1.005",
        ),
        ("binary", Arc::new(BinaryArray::from(vec![&b"a"[..], &[0, 255]])), "0x00ff", "0x0"),
        ("fixed", fixed(&[b"ab", &[255, 0]]), "0xff00", "abc"),
    ];
    let world = World::new();
    let store = world.store();
    for (name, keys, key, bad) in columns {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter([("k", keys), ("v", values)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let file = world.file("t.parquet", writer.into_inner().unwrap());
        world.ok(["build", &store, name, &file, "--key", "k"]);
        assert_eq!(world.ok(["get", &store, name, key]), "2\n", "{name}");
        world.fails(["get", &store, name, bad], 2, &[bad, "does not fit"]);
        assert_eq!(world.ok(["scan", &store, name, "--format", "csv"]).lines().count(), 3, "{name}");
    }
    world.fails(["scan", &store, "int64", "--prefix", "1"], 2, &["no prefix", "--from"]);
}

#[test]
fn values_of_scalar_types() {
    let world = World::new();
    let store = world.store();
    let date: ArrayRef = Arc::new(Date32Array::from(vec![Some(19753), None]));
    let columns: Vec<(&str, ArrayRef, &str)> = vec![
        ("date", date, "2024-01-31\nnull\n"),
        ("float", Arc::new(Float32Array::from(vec![0.1, f32::NAN])), "0.1\nNaN\n"),
        ("flag", Arc::new(BooleanArray::from(vec![true, false])), "true\nfalse\n"),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"plain"[..], &[1, 2]])), "plain\n0x0102\n"),
        (
            "decimal",
            Arc::new(Decimal128Array::from(vec![150, 0]).with_precision_and_scale(5, 2).unwrap()),
            "1.50\n0.00\n",
        ),
    ];
    for (name, values, expected) in columns {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter_with_nullable([("k", keys, false), ("v", values, true)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let file = world.file("t.parquet", writer.into_inner().unwrap());
        world.ok(["build", &store, name, &file, "--key", "k"]);
        let both = world.ok(["get", &store, name, "1"]) + &world.ok(["get", &store, name, "2"]);
        assert_eq!(both, expected, "{name}");
    }
}
