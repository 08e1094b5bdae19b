use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampNanosecondType, UInt64Type,
};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, TimeUnit};
use arrow_select::concat::concat_batches;

use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("writing a test file");
        path
    }
}

fn collect(reader: Box<dyn RecordBatchReader + Send>) -> Result<RecordBatch, WriteError> {
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(write_error)?;
    for batch in &batches {
        assert_eq!(batch.schema(), schema, "every batch has the promised schema");
    }
    Ok(concat_batches(&schema, &batches).expect("batches of one schema"))
}

fn read(path: &Path, options: &InputOptions) -> Result<RecordBatch, WriteError> {
    collect(open(path, options)?)
}

fn text(content: impl AsRef<[u8]>) -> RecordBatch {
    let dir = Dir::new();
    read(&dir.file("t.csv", content), &InputOptions::default()).expect("valid CSV")
}

/// The message of the error for a file of this name and content.
fn fails(name: &str, content: impl AsRef<[u8]>, options: &InputOptions) -> String {
    let dir = Dir::new();
    let path = dir.file(name, content);
    let error = read(&path, options).expect_err("bad input");
    let WriteError::Input { path: at, .. } = &error else { panic!("expected an input error, got {error:?}") };
    assert_eq!(at, &path, "the error names the file");
    error.to_string()
}

fn strings(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(name).expect("a column");
    column.as_string::<i64>().iter().map(|v| v.map(str::to_owned)).collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|v| Some((*v).to_owned())).collect()
}

fn type_of(batch: &RecordBatch, name: &str) -> DataType {
    batch.column_by_name(name).expect("a column").data_type().clone()
}

mod exact;

mod csv_files {
    use super::*;

    #[test]
    fn types_are_inferred() {
        let batch = text(
            "s,i,f,b,d,t,z,n,zero,big,none\n\
             x,-1,1.5,true,2024-01-31,2024-01-31T12:00:00.5,2024-01-31 12:00:00+02:00,2024-01-31T00:00:00.123456789,007,9223372036854775808,\n\
             y,2,3,FALSE,1969-12-31,2024-01-31 12:00:00,2024-01-31 12:00:00Z,2024-01-31T00:00:00,8,1,\n",
        );
        let stamp = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
        let expected = [
            ("s", DataType::LargeUtf8),
            ("i", DataType::Int64),
            ("f", DataType::Float64),
            ("b", DataType::Boolean),
            ("d", DataType::Date32),
            ("t", stamp(TimeUnit::Microsecond, None)),
            ("z", stamp(TimeUnit::Microsecond, Some("UTC"))),
            ("n", stamp(TimeUnit::Nanosecond, None)),
            ("zero", DataType::LargeUtf8),
            ("big", DataType::LargeUtf8),
            ("none", DataType::LargeUtf8),
        ];
        for (name, data_type) in expected {
            assert_eq!(type_of(&batch, name), data_type, "column {name}");
        }
        assert_eq!(batch["i"].as_primitive::<Int64Type>().values(), &[-1, 2]);
        assert_eq!(batch["d"].as_primitive::<Date32Type>().values(), &[19753, -1]);
        assert_eq!(batch["t"].as_primitive::<TimestampMicrosecondType>().values()[0], 1_706_702_400_500_000);
        assert_eq!(batch["z"].as_primitive::<TimestampMicrosecondType>().values()[0], 1_706_695_200_000_000);
        assert_eq!(batch["n"].as_primitive::<TimestampNanosecondType>().values()[0] % 1_000_000_000, 123_456_789);
        assert_eq!(strings(&batch, "zero"), some(&["007", "8"]));
        assert_eq!(batch["none"].null_count(), 2);
    }

    #[test]
    fn quotes_line_ends_and_byte_order_mark() {
        let batch = text("\u{FEFF}k,v\r\n\"a,1\",\"two\r\nlines\"\r\nb,\"say \"\"hi\"\"\"");
        assert_eq!(strings(&batch, "k"), some(&["a,1", "b"]));
        assert_eq!(strings(&batch, "v"), some(&["two\r\nlines", "say \"hi\""]));
        let again = text("\u{FEFF}\"k\",v\na,b\n\n\n");
        assert_eq!(strings(&again, "k"), some(&["a"]));
    }

    #[test]
    fn tabs_other_delimiters_and_no_header() {
        let dir = Dir::new();
        let tsv = dir.file("t.tsv", "k\tv\na,b\tc\n");
        assert_eq!(strings(&read(&tsv, &InputOptions::default()).unwrap(), "k"), some(&["a,b"]));
        let mut options = InputOptions { delimiter: Some(b';'), header: false, ..Default::default() };
        let csv = dir.file("t.csv", "a;1\nb;2\n");
        let batch = read(&csv, &options).unwrap();
        assert_eq!(strings(&batch, "column_1"), some(&["a", "b"]));
        assert_eq!(batch["column_2"].as_primitive::<Int64Type>().values(), &[1, 2]);
        options.quote = None;
        let raw = dir.file("raw.csv", "\"a;\"\"1\n\"b;2\"\n");
        assert_eq!(strings(&read(&raw, &options).unwrap(), "column_1"), some(&["\"a", "\"b"]));
    }

    #[test]
    fn empty_and_header_only() {
        let message = fails("e.csv", "", &InputOptions::default());
        assert!(message.contains("empty"), "{message}");
        for content in ["k,v", "k,v\n", "k,v\r\n\r\n"] {
            let batch = text(content);
            assert_eq!((batch.num_rows(), batch.num_columns()), (0, 2), "{content:?}");
            assert_eq!(type_of(&batch, "k"), DataType::LargeUtf8);
        }
    }

    #[test]
    fn null_values() {
        let dir = Dir::new();
        let path = dir.file("t.csv", "k,v\na,\nb,NA\nc,x.y\nd,xzy\n");
        let batch = read(&path, &InputOptions::default()).unwrap();
        assert_eq!(strings(&batch, "v")[..2], [None, Some("NA".into())]);
        let options = InputOptions { null_values: vec!["NA".into(), "x.y".into()], ..Default::default() };
        let batch = read(&path, &options).unwrap();
        assert_eq!(strings(&batch, "v"), [Some(String::new()), None, None, Some("xzy".into())]);
        let options = InputOptions { null_values: vec![], ..Default::default() };
        assert_eq!(read(&path, &options).unwrap()["v"].null_count(), 0);
    }

    #[test]
    fn a_later_row_that_breaks_the_type_is_named() {
        let mut content = String::from("k,v\n\"first\nline\",1\n");
        for i in 0..5000 {
            content.push_str(&format!("k{i},{i}\n"));
        }
        content.push_str("bad,7x\n");
        let options = InputOptions { infer_rows: Some(100), batch_rows: 512, ..Default::default() };
        let message = fails("t.csv", &content, &options);
        // Header, two lines of the first record, 5000 lines.
        for part in ["line 5004,", "\"v\"", "\"7x\"", "Int64", "infer_rows"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        let all = InputOptions { infer_rows: None, ..options.clone() };
        let dir = Dir::new();
        let path = dir.file("t.csv", &content);
        assert_eq!(type_of(&read(&path, &all).unwrap(), "v"), DataType::LargeUtf8);
        let types = vec![("v".to_owned(), DataType::LargeUtf8)];
        let batch = read(&path, &InputOptions { types, ..options }).unwrap();
        assert_eq!((batch.num_rows(), strings(&batch, "v")[5001].as_deref()), (5002, Some("7x")));
    }

    #[test]
    fn every_type_names_its_bad_value() {
        let cases = [
            ("true", "yes", "Boolean"),
            ("1", "1.5", "Int64"),
            ("1.5", "1,5x", "Float64"),
            ("2024-01-01", "2024-13-01", "Date32"),
            ("2024-01-01T00:00:00", "noon", "Timestamp"),
        ];
        for (good, bad, data_type) in cases {
            let options = InputOptions { infer_rows: Some(1), ..Default::default() };
            let content = format!("k,v\na,{good}\n{}b,\"{bad}\"\n", format!("c,{good}\n").repeat(2000));
            // The estimate of row lengths looks at 1000 rows, but only infer_rows decide.
            let message = fails("t.csv", content, &options);
            assert!(
                message.contains("line 2003,") && message.contains(data_type) && message.contains(bad),
                "{message}"
            );
        }
        let types = vec![("v".to_owned(), DataType::Decimal128(4, 2))];
        let options = InputOptions { types, ..Default::default() };
        let message = fails("t.csv", "k,v\na,1.25\nb,123456.5\n", &options);
        assert!(message.contains("line 3,") && message.contains("Decimal128"), "{message}");
    }

    #[test]
    fn broken_structure_is_named() {
        let options = InputOptions::default();
        let message = fails("t.csv", "k,v\na,1\nb,2,3\n", &options);
        assert!(
            message.contains("line 3") && message.contains("3 fields") && message.contains("expected 2"),
            "{message}"
        );
        let message = fails("t.csv", "k,v\na,1\nb\n", &options);
        assert!(message.contains("line 3") && message.contains("1 fields"), "{message}");
        let message = fails("t.csv", b"k,v\na,1\nb\xFFc,2\n", &options);
        assert!(message.contains("line 3") && message.contains("\"k\"") && message.contains("UTF-8"), "{message}");
        // The two bytes of one character, in two fields.
        let halves = b"k,v,n\na,b,1\nc\xC3,\xA9d,2\n";
        for columns in [None, Some(vec!["k".to_owned(), "n".to_owned()]), Some(vec!["v".to_owned()])] {
            let message = fails("t.csv", halves, &InputOptions { columns, ..Default::default() });
            assert!(message.contains("line 3") && message.contains("UTF-8"), "{message}");
        }
        assert_eq!(strings(&text("k,v,n\né,dé,1\n,é,2\n"), "v"), some(&["dé", "é"]));
        let message = fails("t.csv", "k,k\na,1\n", &options);
        assert!(message.contains("\"k\"") && message.contains("twice"), "{message}");
        let message = fails("t.csv", b"PAR1\xFF\x00\x01", &options);
        assert!(message.contains("not UTF-8"), "{message}");
    }

    #[test]
    fn a_quote_left_open_is_an_error() {
        for tail in ["", "\n", "\nc,3\nd,4\n", "\nc,3\nd,4"] {
            let message = fails("t.csv", format!("k,v\na,1\nb,\"2{tail}"), &InputOptions::default());
            assert!(message.contains("line 3") && message.contains("quote"), "{tail:?}: {message}");
        }
        // A quote inside of an unquoted field is a character like any other.
        assert_eq!(strings(&text("k,v\na,6\" pipe\n"), "v"), some(&["6\" pipe"]));
        assert_eq!(text("k,v\na,\"6\"").num_rows(), 1);
    }

    #[test]
    fn batch_borders_fall_anywhere() {
        let content = format!("k,v\n{}", (0..100).map(|i| format!("k{i},\"v\n{i}\"\n")).collect::<String>());
        let dir = Dir::new();
        let whole = dir.file("t.csv", &content);
        let cut = dir.file("c.csv", content.trim_end());
        for batch_rows in [1, 3, 50, 99, 100, 101] {
            let options = InputOptions { batch_rows, ..Default::default() };
            for path in [&whole, &cut] {
                let batch = read(path, &options).unwrap();
                assert_eq!(batch.num_rows(), 100, "{batch_rows} rows a batch");
                assert_eq!(strings(&batch, "v")[99].as_deref(), Some("v\n99"));
            }
        }
    }

    #[test]
    fn long_rows_make_small_batches() {
        let dir = Dir::new();
        let row = format!("{},1\n", "x".repeat(1 << 20));
        let path = dir.file("t.csv", format!("k,v\n{}", row.repeat(40)));
        let reader = open(&path, &InputOptions::default()).unwrap();
        let rows: Vec<usize> = reader.map(|b| b.unwrap().num_rows()).collect();
        assert!(rows.iter().all(|n| *n <= 16), "{rows:?}");
        assert_eq!(rows.iter().sum::<usize>(), 40);
    }

    #[test]
    fn types_that_are_chosen() {
        let dir = Dir::new();
        let path = dir.file("t.csv", "k,b,t\n0001,xy,12:30:00\n");
        let types = ["k=str", "b=bytes", "t=time"].map(|t| t.split_once('=').unwrap());
        let types = types.map(|(n, t)| (n.to_owned(), parse_type(t).unwrap())).to_vec();
        let batch = read(&path, &InputOptions { types, ..Default::default() }).unwrap();
        assert_eq!(strings(&batch, "k"), some(&["0001"]));
        assert_eq!(batch["b"].as_binary::<i64>().value(0), b"xy");
        assert_eq!(type_of(&batch, "t"), DataType::Time64(TimeUnit::Microsecond));
    }
}

mod json_files {
    use super::*;

    fn json(content: &str) -> RecordBatch {
        let dir = Dir::new();
        read(&dir.file("t.ndjson", content), &InputOptions::default()).expect("valid NDJSON")
    }

    #[test]
    fn types_and_missing_fields() {
        let batch = json(
            "\u{FEFF}{\"k\":\"a\",\"i\":1,\"f\":1,\"u\":1,\"mix\":1,\"e\":null,\"wide\":-1}\n\n\
             {\"f\":2.5,\"k\":\"b\",\"u\":18446744073709551615,\"mix\":\"x\",\"late\":true,\"wide\":18446744073709551615}\r\n",
        );
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch["i"].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), None]);
        assert_eq!(type_of(&batch, "f"), DataType::Float64);
        assert_eq!(batch["u"].as_primitive::<UInt64Type>().values(), &[1, u64::MAX]);
        assert_eq!(strings(&batch, "mix"), some(&["1", "x"]));
        assert_eq!(strings(&batch, "wide"), some(&["-1", "18446744073709551615"]));
        assert_eq!(type_of(&batch, "e"), DataType::LargeUtf8);
        assert!(batch["late"].is_null(0) && batch["late"].as_boolean().value(1));
    }

    #[test]
    fn nested_values() {
        let batch = json(
            "{\"k\":1,\"o\":{\"a\":[1,2],\"n\":{\"s\":\"x\"}},\"l\":[],\"p\":{}}\n{\"k\":2,\"o\":{\"a\":[2.5],\"z\":null},\"l\":[[\"y\"]]}\n",
        );
        let shown = |row| {
            let options = arrow_cast::display::FormatOptions::default().with_null("null");
            arrow_cast::display::ArrayFormatter::try_new(&batch["o"], &options).unwrap().value(row).to_string()
        };
        assert_eq!(shown(0), "{a: [1.0, 2.0], n: {s: x}, z: null}");
        assert_eq!(shown(1), "{a: [2.5], n: null, z: null}");
        assert_eq!(batch["l"].as_list::<i32>().value_length(1), 1);
        assert_eq!(batch["p"].null_count(), 1);
    }

    #[test]
    fn a_field_that_first_occurs_in_the_last_line_is_kept() {
        let mut content = "{\"k\":1}\n".repeat(20_000);
        content.push_str("{\"k\":1.5,\"new\":\"x\"}\n");
        let batch = json(&content);
        assert_eq!(type_of(&batch, "k"), DataType::Float64);
        assert_eq!(strings(&batch, "new").last().unwrap().as_deref(), Some("x"));
    }

    #[test]
    fn bad_lines_are_named() {
        let options = InputOptions::default();
        let message = fails("t.jsonl", "{\"k\":1}\n{\"k\":}\n", &options);
        assert!(message.contains("line 2, character 6") && message.contains("one JSON object a line"), "{message}");
        let message = fails("t.jsonl", "[{\"k\":1}]\n", &options);
        assert!(message.contains("line 1") && message.contains("one JSON object a line"), "{message}");
        let message = fails("t.jsonl", "{\n\"k\":1}\n", &options);
        assert!(message.contains("line 1"), "{message}");
        let message = fails("t.jsonl", "{\"k\":{\"a\":1}}\n{\"k\":{\"a\":[1]}}\n", &options);
        assert!(message.contains("line 2") && message.contains("\"k.a\"") && message.contains("list"), "{message}");
        let message = fails("t.jsonl", "{\"k\":1} {\"k\":2}\n", &options);
        assert!(message.contains("line 1"), "{message}");
        let message = fails("t.jsonl", b"{\"k\":\"\xFF\"}\n", &options);
        assert!(message.contains("line 1"), "{message}");
    }

    #[test]
    fn chosen_types_lose_nothing() {
        let dir = Dir::new();
        let path = dir.file("t.ndjson", "{\"k\":12345678901234567890123,\"d\":0.1}\n{\"k\":1,\"d\":1.25}\n");
        let types = vec![("k".to_owned(), DataType::LargeUtf8), ("d".to_owned(), DataType::Decimal128(10, 2))];
        let batch = read(&path, &InputOptions { types, ..Default::default() }).unwrap();
        assert_eq!(strings(&batch, "k"), some(&["12345678901234567890123", "1"]));
        assert_eq!(batch["d"].as_primitive::<arrow_array::types::Decimal128Type>().values(), &[10, 125]);
        let types = vec![("d".to_owned(), DataType::Int64)];
        let message = fails("t.ndjson", "{\"d\":0.5}\n", &InputOptions { types: types.clone(), ..Default::default() });
        assert!(message.contains("\"d\"") && message.contains("fractions"), "{message}");
        let message = fails("t.ndjson", "{\"d\":\"x\"}\n", &InputOptions { types, ..Default::default() });
        assert!(message.contains("\"d\"") && message.contains("Int64"), "{message}");
    }

    #[test]
    fn no_rows() {
        assert_eq!(json("").num_rows(), 0);
        assert_eq!(json("\n\n").num_columns(), 0);
    }
}

fn sample(rows: i32) -> RecordBatch {
    let keys: StringArray = (0..rows).map(|i| Some(format!("k{i}"))).collect();
    let numbers = Int32Array::from_iter_values(0..rows);
    let mut tags = StringDictionaryBuilder::<Int32Type>::new();
    (0..rows).for_each(|i| tags.append_value(["red", "green", "blue"][i as usize % 3]));
    RecordBatch::try_from_iter([
        ("k", Arc::new(keys) as ArrayRef),
        ("n", Arc::new(numbers) as ArrayRef),
        ("tag", Arc::new(tags.finish()) as ArrayRef),
    ])
    .expect("equal lengths")
}

fn parquet_bytes(batch: &RecordBatch, group_rows: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow_bytes(batches: &[RecordBatch], compression: Option<CompressionType>, stream: bool) -> Vec<u8> {
    let (mut bytes, schema) = (Vec::new(), batches[0].schema());
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    if stream {
        let mut writer = StreamWriter::try_new_with_options(&mut bytes, &schema, options).unwrap();
        batches.iter().for_each(|b| writer.write(b).unwrap());
        writer.finish().unwrap();
    } else {
        let mut writer = FileWriter::try_new_with_options(&mut bytes, &schema, options).unwrap();
        batches.iter().for_each(|b| writer.write(b).unwrap());
        writer.finish().unwrap();
    }
    bytes
}

mod binary_files {
    use super::*;

    #[test]
    fn parquet_with_row_groups_and_projection() {
        let dir = Dir::new();
        let expected = sample(1000);
        let path = dir.file("t.parquet", parquet_bytes(&expected, 128));
        let options = InputOptions { batch_rows: 100, ..Default::default() };
        assert_eq!(read(&path, &options).unwrap(), expected);
        let columns = Some(vec!["n".to_owned(), "k".to_owned()]);
        let batch = read(&path, &InputOptions { columns, ..options }).unwrap();
        assert_eq!(batch, expected.project(&[1, 0]).unwrap());
        let input = open_all(&[&path, &path], &InputOptions::default()).unwrap();
        assert_eq!(input.rows_estimate, Some(2000));
        assert_eq!(collect(input.reader).unwrap().num_rows(), 2000);
    }

    #[test]
    fn parquet_projection_reads_nothing_else() {
        // The column that is not wanted is destroyed; reading the other one does not notice.
        let dir = Dir::new();
        let expected = sample(1000);
        let mut bytes = parquet_bytes(&expected, 1000);
        let at = bytes.windows(4).position(|w| w == b"k500").expect("strings are stored plainly");
        bytes[at - 2000..at + 500].fill(0xFF);
        let path = dir.file("t.parquet", bytes);
        let columns = |name: &str| InputOptions { columns: Some(vec![name.to_owned()]), ..Default::default() };
        assert_eq!(read(&path, &columns("n")).unwrap(), expected.project(&[1]).unwrap());
        let message = read(&path, &columns("k")).expect_err("a destroyed column").to_string();
        assert!(message.contains("t.parquet"), "{message}");
    }

    #[test]
    fn arrow_files_and_streams_plain_and_compressed() {
        let dir = Dir::new();
        let expected = sample(1000);
        for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
            for stream in [false, true] {
                let path = dir.file(
                    "t.feather",
                    arrow_bytes(&[expected.slice(0, 700), expected.slice(700, 300)], compression, stream),
                );
                let options = InputOptions { batch_rows: 64, ..Default::default() };
                let reader = open(&path, &options).unwrap();
                let rows: Vec<usize> = reader.map(|b| b.unwrap().num_rows()).collect();
                assert!(rows.iter().all(|n| *n <= 64), "{rows:?}");
                assert_eq!(read(&path, &options).unwrap(), expected);
                let columns = Some(vec!["tag".to_owned()]);
                let batch = read(&path, &InputOptions { columns, ..options }).unwrap();
                assert_eq!(batch, expected.project(&[2]).unwrap());
                let rows = open_all(&[&path], &InputOptions::default()).unwrap().rows_estimate;
                assert_eq!(rows, Some(1000));
            }
        }
    }

    /// The decoder takes as much memory as a compressed buffer says that it needs.
    #[test]
    fn a_compressed_buffer_cannot_say_that_it_holds_more_than_it_could() {
        const ROWS: usize = 2_000_003;
        let dir = Dir::new();
        let zeros: ArrayRef = Arc::new(Int64Array::from(vec![0; ROWS]));
        let batch = RecordBatch::try_from_iter([("n", zeros)]).unwrap();
        for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            for stream in [false, true] {
                // As small as it gets.
                let good = arrow_bytes(std::slice::from_ref(&batch), Some(compression), stream);
                let path = dir.file("t.arrow", &good);
                assert_eq!(read(&path, &InputOptions::default()).unwrap(), batch, "{compression:?}");
                let length = (8 * ROWS as i64).to_le_bytes();
                let at = good.windows(8).position(|window| window == length).unwrap();
                for claimed in [4 << 30, 1 << 40, i64::MAX, -2] {
                    let mut bad = good.clone();
                    bad[at..at + 8].copy_from_slice(&i64::to_le_bytes(claimed));
                    let message = fails("t.arrow", bad, &InputOptions::default());
                    assert!(message.contains(&format!("claims to hold {claimed}")), "{message}");
                }
            }
        }
    }

    #[test]
    fn chosen_types_are_cast() {
        let dir = Dir::new();
        let path = dir.file("t.arrow", arrow_bytes(&[sample(3)], None, false));
        let types = vec![("n".to_owned(), DataType::LargeUtf8)];
        let batch = read(&path, &InputOptions { types, ..Default::default() }).unwrap();
        assert_eq!(strings(&batch, "n"), some(&["0", "1", "2"]));
        let types = vec![("k".to_owned(), DataType::Int64)];
        let message =
            read(&path, &InputOptions { types, ..Default::default() }).expect_err("k0 is no number").to_string();
        assert!(message.contains("\"k\"") && message.contains("Int64") && message.contains("k0"), "{message}");
    }

    #[test]
    fn wrong_extensions_and_unknown_ones() {
        let options = InputOptions::default();
        let parquet = parquet_bytes(&sample(3), 10);
        for (name, content) in
            [("t.arrow", &parquet[..]), ("t.parquet", b"k,v\na,1\n"), ("t.parquet", b""), ("t.ndjson", &parquet)]
        {
            let message = fails(name, content, &options);
            assert!(message.len() > 20, "{name}: {message}");
        }
        assert!(fails("t.arrow", b"", &options).contains("empty"));
        assert!(fails("t.feather", b"FEA1....", &options).contains("Feather version 1"));
        assert!(fails("t.xlsx", b"x", &options).contains(".parquet"));
        assert!(fails("noextension", b"x", &options).contains("expected one of"));
        let message = open("/nonexistent/a.csv".as_ref(), &options).map(drop).expect_err("no such file").to_string();
        assert!(message.contains("/nonexistent/a.csv") && message.contains("No such file"), "{message}");
        let dir = Dir::new();
        let path = dir.file("data", &parquet);
        let options = InputOptions { format: Some(Format::Parquet), ..options };
        assert_eq!(read(&path, &options).unwrap().num_rows(), 3);
        let message = open(dir.0.path(), &options).map(drop).expect_err("a folder").to_string();
        assert!(message.contains("regular file"), "{message}");
    }

    /// Whatever is damaged or cut off: an error that names the file, or (for bytes that nobody checks) some rows; never
    /// a crash.
    #[test]
    fn damaged_files_never_crash() {
        let dir = Dir::new();
        let batch = sample(50);
        let files = [
            ("t.parquet", parquet_bytes(&batch, 20)),
            ("t.arrow", arrow_bytes(std::slice::from_ref(&batch), None, false)),
            ("s.arrow", arrow_bytes(std::slice::from_ref(&batch), None, true)),
        ];
        let mut errors = 0;
        for (name, good) in &files {
            let flips = (0..good.len()).step_by(3).map(|at| {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                bad
            });
            let cuts = (0..good.len()).step_by(31).map(|len| good[..len].to_vec());
            for bad in flips.chain(cuts) {
                let path = dir.file(name, &bad);
                match read(&path, &InputOptions::default()) {
                    Ok(_) => {}
                    Err(WriteError::Input { path: at, .. }) => {
                        assert_eq!(at, path);
                        errors += 1;
                    }
                    Err(e) => panic!("{name}: expected an input error, got {e:?}"),
                }
            }
        }
        assert!(errors > 200, "only {errors} damages were noticed");
    }
}

mod several_files {
    use super::*;

    #[test]
    fn chained_in_order_with_columns_in_any_order() {
        let dir = Dir::new();
        let a = dir.file("a.csv", "k,v\na,1\n");
        let b = dir.file("b.csv", "v,k\n2,b\n");
        let c = dir.file("c.csv", "k,v\n");
        let batch = collect(open_all(&[a, c, b], &InputOptions::default()).unwrap().reader).unwrap();
        assert_eq!(strings(&batch, "k"), some(&["a", "b"]));
        assert_eq!(batch["v"].as_primitive::<Int64Type>().values(), &[1, 2]);
    }

    #[test]
    fn inferred_types_widen() {
        let dir = Dir::new();
        let a = dir.file("a.csv", "k,v\na,1\n");
        let b = dir.file("b.csv", "k,v\nb,2.5\n");
        let batch = collect(open_all(&[&a, &b], &InputOptions::default()).unwrap().reader).unwrap();
        assert_eq!(type_of(&batch, "v"), DataType::Float64);
        let a = dir.file("a.ndjson", "{\"k\":1}\n");
        let b = dir.file("b.ndjson", "{\"k\":\"x\",\"w\":1}\n");
        let batch = collect(open_all(&[&a, &b], &InputOptions::default()).unwrap().reader).unwrap();
        assert_eq!(strings(&batch, "k"), some(&["1", "x"]));
        assert!(batch["w"].is_null(0));
    }

    #[test]
    fn differences_name_file_and_column() {
        let dir = Dir::new();
        let a = dir.file("a.csv", "k,v\na,1\n");
        let b = dir.file("b.csv", "k,v\nb,x\n");
        let c = dir.file("c.csv", "k\nb\n");
        let d = dir.file("d.csv", "k,v,w\nb,1,2\n");
        let fails = |second: &Path, name: &str| {
            let error = open_all(&[a.as_path(), second], &InputOptions::default()).expect_err("files differ");
            let WriteError::Input { path, problem } = &error else { panic!("{error:?}") };
            assert_eq!(path, second);
            assert!(problem.contains(&format!("\"{name}\"")), "{problem}");
        };
        fails(&b, "v");
        fails(&c, "v");
        fails(&d, "w");
        let columns = Some(vec!["k".to_owned()]);
        let options = InputOptions { columns, ..Default::default() };
        let batch = collect(open_all(&[&a, &b, &c, &d], &options).unwrap().reader).unwrap();
        assert_eq!(batch.num_rows(), 4);
        let types = vec![("v".to_owned(), DataType::LargeUtf8)];
        let options = InputOptions { types, ..Default::default() };
        let batch = collect(open_all(&[&a, &b], &options).unwrap().reader).unwrap();
        assert_eq!(strings(&batch, "v"), some(&["1", "x"]));
    }

    #[test]
    fn formats_mix_when_types_agree() {
        let dir = Dir::new();
        let a = dir.file("a.csv", "k,v\na,1\n");
        let batch = RecordBatch::try_from_iter([
            ("k", Arc::new(StringArray::from(vec!["b"])) as ArrayRef),
            ("v", Arc::new(Int64Array::from(vec![2])) as ArrayRef),
        ])
        .unwrap();
        let b = dir.file("b.parquet", parquet_bytes(&batch, 10));
        let c = dir.file("c.ndjson", "{\"k\":\"c\",\"v\":3}\n");
        let batch = collect(open_all(&[a, b, c], &InputOptions::default()).unwrap().reader).unwrap();
        assert_eq!(strings(&batch, "k"), some(&["a", "b", "c"]));
    }

    #[test]
    fn an_error_ends_the_stream() {
        let dir = Dir::new();
        let a = dir.file("a.csv", "k,v\na,1\nb\n");
        let b = dir.file("b.csv", "k,v\na,1\n");
        let mut reader = open_all(&[a, b], &InputOptions::default()).unwrap().reader;
        assert!(reader.next().expect("an item").is_err());
        assert!(reader.next().is_none());
    }

    #[test]
    fn bad_options() {
        let dir = Dir::new();
        let a = dir.file("a.csv", "k,v\na,1\n");
        let options = |f: fn(&mut InputOptions)| {
            let mut o = InputOptions::default();
            f(&mut o);
            o
        };
        for o in [
            options(|o| o.batch_rows = 0),
            options(|o| o.delimiter = Some(b'\n')),
            options(|o| o.delimiter = Some(b'"')),
            options(|o| o.infer_rows = Some(0)),
        ] {
            assert!(matches!(open(&a, &o), Err(WriteError::Options { .. })), "{o:?}");
        }
        let missing = options(|o| o.columns = Some(vec!["nope".into()]));
        let message = open(&a, &missing).map(drop).expect_err("no such column").to_string();
        assert!(message.contains("\"nope\"") && message.contains("\"k\", \"v\""), "{message}");
    }
}

#[test]
fn type_names() {
    for (name, data_type) in [
        ("str", DataType::LargeUtf8),
        ("int64", DataType::Int64),
        ("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("timestamp[ns, UTC]", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
        ("decimal(10,2)", DataType::Decimal128(10, 2)),
        ("decimal(40, 2)", DataType::Decimal256(40, 2)),
        ("FixedSizeBinary(16)", DataType::FixedSizeBinary(16)),
    ] {
        assert_eq!(parse_type(name), Ok(data_type));
    }
    for name in ["", "strange", "decimal(99,0)", "timestamp[h]"] {
        assert!(parse_type(name).unwrap_err().contains("expected str"), "{name}");
    }
}
