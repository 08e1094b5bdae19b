//! Values come as they are written, or they are errors.

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::types::{Decimal128Type, Decimal256Type, Float64Type, TimestampSecondType};
use arrow_array::{Array, Decimal128Array, Float64Array, ListArray, TimestampNanosecondArray};
use arrow_buffer::i256;
use arrow_schema::Field;

use super::*;

fn chosen(data_type: &str) -> InputOptions {
    let types = vec![("v".to_owned(), parse_type(data_type).expect("a type"))];
    InputOptions { types, ..Default::default() }
}

/// Fails as it must: with line and column, and with the text.
fn assert_named(message: &str, line: usize, text: &str) {
    assert!(message.contains(&format!("line {line}, column \"v\": ")) && message.contains(text), "{text}: {message}");
}

/// `bad` behind rows that made the column's type.
fn after(good: &str, bad: &str) -> String {
    let content = format!("k,v\na,{good}\nb,{good}\nc,\"{bad}\"\n");
    fails("t.csv", content, &InputOptions { infer_rows: Some(2), ..Default::default() })
}

#[test]
fn what_inference_would_take_for_another_type_does_not_fit_an_inferred_column() {
    for bad in
        ["0042", "+5", " 7", "7 ", "-0", "-", "--1", "1e3", "9223372036854775808", "12345678901234567890123", "1x"]
    {
        assert_named(&after("1", bad), 4, bad);
    }
    for bad in ["0042", "+5", "+1.5", " 1.5", "1.5 ", "infinity", "9007199254740993", "1.5.1", "1x"] {
        assert_named(&after("1.5", bad), 4, bad);
    }
    for bad in ["2024-1-5", "20240131", "2024-01-31T23:30:00-05:00", "2024-01-31 00:00:00", "+2024-01-31"] {
        assert_named(&after("2024-01-31", bad), 4, bad);
    }
    for bad in ["2024-01-31T12:00:00+02:00", "2024-01-31T12:00:00Z", "2024-01-31", "2024-01-31T12:00:00.1234567"] {
        assert_named(&after("2024-01-31T12:00:00", bad), 4, bad);
    }
    assert_named(&after("2024-01-31T12:00:00Z", "2024-01-31T12:00:00"), 4, "2024-01-31T12:00:00");
}

#[test]
fn plain_numbers_are_what_they_were() {
    let good =
        ["0", "-1", "7", "999999999999999999", "-9223372036854775808", "9223372036854775807", "1000000000000000000"];
    let batch = text(format!("v\n{}\n", good.join("\n")));
    let expected: Vec<i64> = good.iter().map(|t| t.parse().unwrap()).collect();
    assert_eq!(batch["v"].as_primitive::<Int64Type>().values(), &expected[..]);
    let good = ["0", "-0", "1.5", "-.5", "1e300", "NaN", "-inf", "0.1", "9007199254740992", "-1.25e-3"];
    let batch = text(format!("v\n{}\n", good.join("\n")));
    let values = batch["v"].as_primitive::<Float64Type>().values();
    for (text, value) in good.iter().zip(values) {
        assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
    }
    let batch = text("k,v\na,1\nb,\nc,3\n");
    assert_eq!(batch["v"].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(1), None, Some(3)]);
    let batch = text("v\n2024-01-31T12:00:00.100000000\n2024-01-31 12:00:00.12\n");
    assert_eq!(type_of(&batch, "v"), DataType::Timestamp(TimeUnit::Microsecond, None));
}

#[test]
fn columns_that_no_type_holds_are_text() {
    for content in ["v\n9007199254740993\n1.5\n", "v\n1.5\n-9007199254740993\n", "v\n2024-01-31T12:00:00.1234567891\n"]
    {
        let expected: Vec<&str> = content.lines().skip(1).collect();
        assert_eq!(strings(&text(content), "v"), some(&expected));
    }
    for lines in [["9007199254740993", "1.5"], ["18446744073709551616", "1"], ["-9223372036854775809", "1.5"]] {
        let dir = Dir::new();
        let content: String =
            lines.iter().map(|n| format!("{{\"s\":\"1e9 \\\" 5\",\"o\":[1e300,{n}],\"v\":{n}}}\n")).collect();
        let batch = read(&dir.file("t.ndjson", content), &InputOptions::default()).unwrap();
        assert_eq!(strings(&batch, "v"), some(&lines));
    }
    let dir = Dir::new();
    let floats = dir.file("t.ndjson", "{\"w\":[1e300,2],\"v\":1e300}\n{\"w\":[18446744073709551616.0],\"v\":1}\n");
    let batch = read(&floats, &InputOptions::default()).unwrap();
    assert_eq!(type_of(&batch, "v"), DataType::Float64);
    assert!(matches!(type_of(&batch, "w"), DataType::List(field) if *field.data_type() == DataType::Float64));
}

#[test]
fn files_of_integers_and_of_fractions_lose_no_integer() {
    let dir = Dir::new();
    let a = dir.file("a.csv", "k,v\na,1\nb,9007199254740993\n");
    let b = dir.file("b.csv", "k,v\nc,2.5\n");
    let error = collect(open_all(&[&a, &b], &InputOptions::default()).unwrap().reader).expect_err("no float is that");
    assert_named(&error.to_string(), 3, "9007199254740993");
}

#[test]
fn chosen_types_cut_nothing_off() {
    for (data_type, bad) in [
        ("int64", "1.5"),
        ("date", "2024-01-31T23:30:00-05:00"),
        ("date", "2024-01-31 00:00:00"),
        ("Date64", "2024-01-31T23:30:00"),
        ("time", "12:30:00.1234567"),
        ("timestamp[s]", "2024-01-31T12:00:00.5"),
        ("timestamp[us]", "2024-01-31T12:00:00.123456789"),
        ("timestamp[ns]", "2024-01-31T12:00:00.1234567891"),
        ("timestamp[us]", "2024-01-31T12:00:00+02:00"),
        ("timestamp[us]", "2024-01-31T12:00:00Z"),
        ("timestamp[us]", "2024-01-31T12:00:00 Europe/Berlin"),
        ("decimal(10,2)", "19.999"),
        ("decimal(10,2)", "1e-3"),
        ("decimal(10,2)", "123456789"),
        ("decimal(10,2)", "1e8"),
        ("decimal(10,2)", "1e99999999999999999999"),
        ("decimal(10,2)", "."),
        ("decimal(10,2)", "1,5"),
        ("decimal(38,0)", "99999999999999999999999999999999999999999"),
    ] {
        let good = match data_type {
            "int64" => "1",
            "time" => "12:30:00",
            _ if data_type.starts_with("decimal") => "1",
            _ => "2024-01-31",
        };
        assert_named(&fails("t.csv", format!("k,v\na,{good}\nb,\"{bad}\"\n"), &chosen(data_type)), 3, bad);
        let good = if good == "1" { good.to_owned() } else { format!("\"{good}\"") };
        let content = format!("\n{{\"v\":{good}}}\n\n{{\"v\":\"{bad}\"}}\n");
        assert_named(&fails("t.ndjson", content, &chosen(data_type)), 4, bad);
    }
    // Of 256 and more digits, a counter of eight bits would forget 256.
    for digits in [255, 256, 257, 300, 512] {
        let bad = "1".repeat(digits);
        assert_named(&fails("t.csv", format!("k,v\na,1\nb,{bad}\n"), &chosen("decimal(38,0)")), 3, "1111");
        assert_named(
            &fails("t.ndjson", format!("{{\"v\":1}}\n{{\"v\":\"{bad}\"}}\n"), &chosen("decimal(76,0)")),
            2,
            "1111",
        );
    }
}

#[test]
fn chosen_types_take_what_fits() {
    let dir = Dir::new();
    let read_as =
        |content: &str, data_type: &str| read(&dir.file("t.csv", content), &chosen(data_type)).expect(content);
    let batch = read_as("v\n+5\n0042\n 7 \n", "int64");
    assert_eq!(batch["v"].as_primitive::<Int64Type>().values(), &[5, 42, 7]);
    let batch =
        read_as("v\n1.5\n-.25\n+3.\n1.25e2\n12500e-4\n0.000\n-7.1000\n00012345678.9\n0e99999\n", "decimal(10,2)");
    let expected = [150, -25, 300, 12_500, 125, 0, -710, 1_234_567_890, 0];
    assert_eq!(batch["v"].as_primitive::<Decimal128Type>().values(), &expected);
    let nines = "9".repeat(76);
    let batch = read_as(&format!("v\n{nines}\n-{nines}.0\n{}1\n", "0".repeat(300)), "decimal(76,0)");
    let largest = i256::from_string(&nines).unwrap();
    assert_eq!(batch["v"].as_primitive::<Decimal256Type>().values(), &[largest, -largest, i256::ONE]);
    let batch = read_as("v\n2024-01-31T12:00:00.000\n1969-12-31 23:59:59\n2024-01-31\n", "timestamp[s]");
    assert_eq!(batch["v"].as_primitive::<TimestampSecondType>().values(), &[1_706_702_400, -1, 1_706_659_200]);
    let batch = read_as("v\n1970-01-01T02:00:01+02:00\n1970-01-01 00:00:01\n", "timestamp[s,UTC]");
    assert_eq!(batch["v"].as_primitive::<TimestampSecondType>().values(), &[1, 1]);
    let json = dir.file("t.ndjson", "{\"v\":1700000000}\n{\"v\":null}\n{\"v\":-1}\n");
    let batch = read(&json, &chosen("timestamp[s]")).unwrap();
    let values: Vec<_> = batch["v"].as_primitive::<TimestampSecondType>().iter().collect();
    assert_eq!(values, [Some(1_700_000_000), None, Some(-1)]);
}

#[test]
fn numbers_in_json_that_are_no_count_of_units() {
    for (content, data_type) in [
        ("{\"v\":1}\n{\"v\":1700000000.9}\n", "timestamp[s]"),
        ("{\"v\":1}\n{\"v\":1e300}\n", "timestamp[s]"),
        ("{\"v\":18446744073709551615}\n", "timestamp[s]"),
        ("{\"v\":1.5}\n", "date"),
        ("{\"v\":1.5}\n", "time"),
        ("{\"v\":1.5}\n", "int64"),
        ("{\"v\":[1.5]}\n", "List(Int64)"),
    ] {
        let message = fails("t.ndjson", content, &chosen(data_type));
        assert!(message.contains("column \"v\" holds"), "{message}");
    }
    let message = fails("t.ndjson", "{\"v\":1}\n\n{\"v\":18446744073709551616}\n", &chosen("uint64"));
    assert_named(&message, 3, "18446744073709551616");
}

#[test]
fn places_without_values_take_chosen_types() {
    let dir = Dir::new();
    let list = |item: DataType| DataType::new_list(item, true);
    let object = |item: DataType| DataType::Struct(vec![Field::new("a", item, true)].into());
    for (content, data_type) in [
        ("{\"v\":[]}\n{\"v\":null}\n", list(DataType::Int64)),
        ("{\"v\":[]}\n{\"v\":null}\n", list(DataType::Date32)),
        ("{\"v\":{\"a\":null}}\n", object(DataType::Int64)),
        ("{\"v\":[1.5,2]}\n", DataType::new_fixed_size_list(DataType::Float32, 2, true)),
        ("{\"v\":[1,2]}\n", DataType::new_large_list(DataType::Int32, true)),
    ] {
        let options = InputOptions { types: vec![("v".to_owned(), data_type.clone())], ..Default::default() };
        let batch = read(&dir.file("t.ndjson", content), &options).unwrap_or_else(|e| panic!("{data_type}: {e}"));
        assert_eq!(type_of(&batch, "v"), data_type);
    }
    // Unless one is chosen they hold text, also where another file has values there.
    let batch = read(&dir.file("t.ndjson", "{\"v\":[[]]}\n"), &InputOptions::default()).unwrap();
    assert_eq!(type_of(&batch, "v"), list(list(DataType::LargeUtf8)));
}

#[test]
fn a_zone_is_seen_wherever_the_time_ends() {
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for time in ["092656Z", "09:26:56Z", "09:26:56+02:00", "09:26:56.5Z"] {
        assert_eq!(type_of(&text(format!("v\n2024-01-31T{time}\n")), "v"), zoned, "{time}");
    }
}

#[test]
fn scales_below_zero_are_refused_for_text() {
    for (name, content) in [("t.csv", "v\n12300\n"), ("t.ndjson", "{\"v\":12300}\n")] {
        let message = fails(name, content, &chosen("decimal(10,-2)"));
        assert!(message.contains("\"v\"") && message.contains("scale"), "{message}");
    }
}

#[test]
fn casts_cut_nothing_off() {
    let dir = Dir::new();
    let stamp = |nanos| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(vec![0, nanos])) };
    let hundredths = |values: Vec<i128>| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(10, 2).unwrap())
    };
    let floats = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
    let texts = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let list = |last: f64| -> ArrayRef {
        let rows = [Some(vec![Some(1.0), None]), None, Some(vec![Some(last)])];
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows))
    };
    let mut tags = StringDictionaryBuilder::<Int32Type>::new();
    tags.append_value("1.5");
    let zoned =
        |nanos| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(vec![nanos]).with_timezone("Europe/Berlin")) };
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("2024-01-31T10:00:00")]);
    let words: ArrayRef = Arc::new(lists.finish());
    let file = |values: &ArrayRef, parquet: bool| {
        let batch = RecordBatch::try_from_iter([("v", values.clone())]).unwrap();
        match parquet {
            true => dir.file("t.parquet", parquet_bytes(&batch, 10)),
            false => dir.file("t.arrow", arrow_bytes(&[batch], None, false)),
        }
    };
    for (values, data_type, shown) in [
        (floats(vec![1.0, 1.7]), "int64", "1.7"),
        (floats(vec![f64::NAN]), "int64", ""),
        (floats(vec![1e300]), "int64", ""),
        (floats(vec![2.5]), "bool", "2.5"),
        (floats(vec![1.005]), "decimal(10,2)", "1.005"),
        (stamp(1500), "timestamp[us]", "00:00:00.0000015"),
        (stamp(1_000_000), "date", "00:00:00.001"),
        (zoned(-1), "timestamp[us,UTC]", ""),
        (zoned(2000), "timestamp[us]", "time zone Europe/Berlin"),
        (words, "List(Date32)", "text inside"),
        (hundredths(vec![100, 199]), "int64", "1.99"),
        (hundredths(vec![100, 199]), "decimal(10,1)", "1.99"),
        (hundredths(vec![12_345]), "decimal(10,-2)", "123.45"),
        (texts(vec!["1.25", "19.999"]), "decimal(10,2)", "19.999"),
        (texts(vec!["2024-01-31T10:00:00"]), "date", "2024-01-31T10:00:00"),
        (Arc::new(tags.finish()), "int64", "1.5"),
        (list(1.5), "List(Int64)", "1.5"),
    ] {
        for parquet in [false, true] {
            let message = read(&file(&values, parquet), &chosen(data_type)).expect_err(data_type).to_string();
            assert!(message.contains("column \"v\"") && message.contains(shown), "{data_type}: {message}");
        }
    }
    let read_as = |values: &ArrayRef, data_type: &str| {
        read(&file(values, false), &chosen(data_type)).expect(data_type)["v"].clone()
    };
    let integers = read_as(&floats(vec![1.0, -2.0, -0.0]), "int64");
    assert_eq!(integers.as_primitive::<Int64Type>().values(), &[1, -2, 0]);
    assert_eq!(read_as(&stamp(2000), "timestamp[us]").as_primitive::<TimestampMicrosecondType>().values(), &[0, 2]);
    assert_eq!(read_as(&zoned(2000), "timestamp[us,UTC]").len(), 1);
    assert_eq!(read_as(&hundredths(vec![150]), "decimal(10,1)").as_primitive::<Decimal128Type>().values(), &[15]);
    assert_eq!(read_as(&list(2.0), "List(Int64)").as_list::<i32>().value_length(2), 1);
    let fine = read_as(&floats(vec![123.456, 0.1, 1e-18, -7e9, 98_765.432_1]), "decimal(38,18)");
    assert_eq!(fine.as_primitive::<Decimal128Type>().value(2), 1);
    let rounded = read_as(&floats(vec![0.1]), "float32");
    assert_eq!(rounded.data_type(), &DataType::Float32);
}
