//! Every input format through the command.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;

use crate::World;

fn batch() -> RecordBatch {
    RecordBatch::try_from_iter([
        ("k", Arc::new(StringArray::from(vec!["b", "a"])) as ArrayRef),
        ("v", Arc::new(Int64Array::from(vec![2, 1])) as ArrayRef),
    ])
    .expect("equal lengths")
}

/// The same two rows in every format; files without an extension need --format.
fn inputs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let batch = batch();
    let mut parquet = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    let (file, stream) = (file.into_inner().unwrap(), stream.into_inner().unwrap());
    vec![
        ("t.parquet", "parquet", parquet.into_inner().unwrap()),
        ("t.csv", "csv", b"k,v\nb,2\na,1\n".to_vec()),
        ("t.tsv", "tsv", b"k\tv\nb\t2\na\t1\n".to_vec()),
        ("t.ndjson", "json", b"{\"k\":\"b\",\"v\":2}\n{\"k\":\"a\",\"v\":1}\n".to_vec()),
        ("t.jsonl", "json", b"{\"k\":\"b\",\"v\":2}\n{\"k\":\"a\",\"v\":1}\n".to_vec()),
        ("t.arrow", "arrow", file.clone()),
        ("t.feather", "arrow", file),
        ("t.arrows", "arrow", stream),
    ]
}

#[test]
fn every_format() {
    let world = World::new();
    let store = world.store();
    for (name, format, content) in inputs() {
        let file = world.file(name, &content);
        world.ok(["build", &store, "t", &file, "--key", "k"]);
        assert_eq!(world.ok(["scan", &store, "t", "--format", "csv"]), "k,v\na,1\nb,2\n", "{name}");
        let file = world.file("plain", &content);
        world.fails(["build", &store, "t", &file, "--key", "k"], 1, &["plain", "extension", ".parquet"]);
        world.ok(["build", &store, "t", &file, "--key", "k", "--format", format]);
        assert_eq!(world.ok(["get", &store, "t", "b"]), "2\n", "{name}");
    }
}

#[test]
fn damaged_files_are_named() {
    let world = World::new();
    for (name, _, content) in inputs() {
        if matches!(name, "t.csv" | "t.tsv") {
            continue; // Any text is CSV; its faults are tested with the reader.
        }
        let file = world.file(name, &content[..content.len() * 2 / 3]);
        world.fails(["build", &world.store(), "t", &file, "--key", "k"], 1, &["cannot read", name]);
        let file = world.file(name, "%PDF-1.7 something else entirely\n");
        world.fails(["build", &world.store(), "t", &file, "--key", "k"], 1, &["cannot read", name]);
    }
}

#[test]
fn nested_values_print_as_json() {
    let world = World::new();
    let store = world.store();
    let file = world.file(
        "t.ndjson",
        "{\"k\":1,\"v\":{\"tags\":[\"x\",null],\"n\":1.5}}\n{\"k\":2,\"v\":{\"tags\":[],\"n\":null}}\n",
    );
    world.ok(["build", &store, "t", &file, "--key", "k"]);
    assert_eq!(world.ok(["get", &store, "t", "1"]), "{\"tags\":[\"x\",null],\"n\":1.5}\n");
    assert_eq!(
        world.ok(["scan", &store, "t", "--json"]).lines().nth(1),
        Some("{\"k\":2,\"v\":{\"tags\":[],\"n\":null}}")
    );
    assert_eq!(
        world.ok(["scan", &store, "t", "--format", "csv", "--limit", "1"]),
        "k,v\n1,\"{\"\"tags\"\":[\"\"x\"\",null],\"\"n\"\":1.5}\"\n"
    );
}

/// Values that Python encoded as MessagePack are shown as what they stand for; pickled ones stay bytes.
#[test]
fn python_values_print_as_json() {
    let world = World::new();
    let store = world.store();
    for (codec, first, second) in [("msgpack", "[1,\"x\"]", "plain"), ("pickle", "0x9201a178", "0xa5706c61696e")] {
        let metadata = [("pheon.codec".to_owned(), codec.to_owned())].into();
        let value = Field::new("v", DataType::Binary, false).with_metadata(metadata);
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), value]));
        let encoded: [&[u8]; 2] = [&[0x92, 0x01, 0xA1, b'x'], &[0xA5, b'p', b'l', b'a', b'i', b'n']];
        let keys = Arc::new(Int64Array::from(vec![1, 2]));
        let batch =
            RecordBatch::try_new(schema.clone(), vec![keys, Arc::new(BinaryArray::from(encoded.to_vec()))]).unwrap();
        let mut writer = FileWriter::try_new(Vec::new(), &schema).unwrap();
        writer.write(&batch).unwrap();
        let file = world.file("t.arrow", writer.into_inner().unwrap());
        world.ok(["build", &store, codec, &file, "--key", "k"]);
        assert_eq!(world.ok(["get", &store, codec, "1", "2"]), format!("1\t{first}\n2\t{second}\n"));
        assert_eq!(
            world
                .ok(["scan", &store, codec, "--format", "csv", "--limit", "1"])
                .lines()
                .nth(1)
                .map(|l| l.replace('"', "")),
            Some(format!("1,{}", first.replace('"', "")))
        );
    }
}
