//! What clients send, and files that are read in.

use std::path::PathBuf;
use std::sync::LazyLock;

use arrow_array::{Int64Array, RecordBatch, RecordBatchIterator, RecordBatchReader, StringArray};
use arrow_flight::FlightData;
use pheon::input::{self, Format, InputOptions};
use pheon::{OnDuplicate, PutOptions, Store};

/// Bytes that messages may unpack to.
const BYTES_MAX: u64 = 16 << 20;

/// A store of two small datasets, one of them with keys of two columns.
static STORE: LazyLock<Store> = LazyLock::new(|| {
    let dir = tempfile::Builder::new().prefix("pheon-fuzz-").tempdir().expect("a scratch folder").keep();
    let store = Store::open(dir.join("store")).expect("make a store");
    let texts = StringArray::from_iter_values((0..20).map(|i| format!("key {i:02}")));
    let numbers = Int64Array::from_iter_values((0..20).map(|i| i * 3 - 20));
    let columns = [("k", std::sync::Arc::new(texts) as _), ("n", std::sync::Arc::new(numbers) as _)];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let reader = || RecordBatchIterator::new([Ok(batch.clone())], batch.schema());
    store.put("m", reader(), PutOptions::map("k").threads(1)).expect("put a map");
    store.put("t", reader(), PutOptions::table(["n", "k"]).threads(1)).expect("put a table");
    store
});

/// A descriptor, a ticket, an action and what they ask for.
pub fn command(input: &[u8]) {
    let (choice, input) = crate::choice(input);
    let scan = match choice % 5 {
        0 => pheon_flight::fuzzing::descriptor(input).ok(),
        1 => pheon_flight::fuzzing::ticket(input),
        2 => {
            let keys = STORE.table("m").and_then(|t| t.slice(0, 3).to_batch()).expect("the store is sound");
            for columns in [&["k"][..], &["n", "k"]] {
                let keys: Option<Vec<_>> =
                    columns.iter().map(|c| Some((*c, keys.column_by_name(c)?.clone()))).collect();
                let keys = RecordBatch::try_from_iter(keys.unwrap_or_default()).expect("columns of one length");
                let _ = pheon_flight::fuzzing::lookup(&STORE, input, &keys);
            }
            None
        }
        3 => {
            let names = ["live", "info", "versions", "locate", "memory", "verify", "refresh", "datasets"];
            let (name, body) = crate::choice(input);
            let _ = pheon_flight::fuzzing::action(&STORE, names[usize::from(name) % names.len()], body);
            None
        }
        _ => serde_json::from_slice(input).ok(),
    };
    if let Some(command) = scan {
        let text = serde_json::to_vec(&command).expect("a command is JSON");
        let again = serde_json::from_slice(&text).expect("a command reads itself");
        assert_eq!(command, again, "a ticket must say what the command said");
        let _ = pheon_flight::fuzzing::scan(&STORE, &command);
    }
}

/// An Arrow stream as messages; what is not framed is one more message.
fn split(mut stream: &[u8]) -> Vec<FlightData> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = stream.split_at_checked(8) {
        let len = u32::from_le_bytes(prefix[4..].try_into().expect("four")) as usize;
        let (header, rest) = rest.split_at(len.min(rest.len()));
        let body = arrow_ipc::root_as_message(header).map_or(0, |message| message.bodyLength());
        let (body, rest) = rest.split_at(usize::try_from(body).unwrap_or(0).min(rest.len()));
        messages.push(FlightData {
            data_header: header.to_vec().into(),
            data_body: body.to_vec().into(),
            ..FlightData::default()
        });
        stream = rest;
    }
    messages
}

/// Before the first input: else a target that refuses all of them would find nothing either. Without keys all of these
/// are published.
pub fn init(file: impl Fn(&[u8]) -> bool, sound: &[&[u8]]) {
    crate::init();
    for (i, bytes) in sound.iter().enumerate() {
        assert!(file(&[&[0], &bytes[1..]].concat()), "sound input {i} is refused");
    }
}

/// A client's rows, which become a version; they must be whole, or refused. Whether they are published.
pub fn do_put(input: &[u8]) -> bool {
    let (choice, input) = crate::choice(input);
    let Ok((Some(schema), batches)) = pheon_flight::fuzzing::intake(split(input), BYTES_MAX) else { return false };
    for column in batches.iter().flat_map(RecordBatch::columns) {
        column.to_data().validate_full().expect("what was taken in is valid");
    }
    batches.iter().map(RecordBatch::num_rows).sum::<usize>() < 10_000
        && put(RecordBatchIterator::new(batches.into_iter().map(Ok), schema), choice)
}

/// A file of this format, read in and published, if it can be. Whether it was.
pub fn file(format: Format, input: &[u8]) -> bool {
    let (choice, input) = crate::choice(input);
    let path = PathBuf::from(STORE.path()).with_file_name("input");
    // A new file, so that an earlier input's mapping is its own.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, input).expect("write a scratch file");
    let mut options = InputOptions::default();
    options.format = Some(format);
    options.header = choice & 0x40 == 0;
    options.infer_rows = if choice & 0x20 == 0 { Some(1) } else { None };
    options.batch_rows = if choice & 0x10 == 0 { 3 } else { 1000 };
    input::open(&path, &options).is_ok_and(|reader| put(reader, choice))
}

/// What is published must be sound, whatever it was made of.
fn put(reader: impl RecordBatchReader, choice: u8) -> bool {
    let key: Vec<String> =
        reader.schema().fields().iter().take(usize::from(choice % 3)).map(|f| f.name().clone()).collect();
    let mut options = PutOptions::table(key).threads(1).memory_limit_bytes(64 << 20);
    if choice & 4 != 0 && choice % 3 != 0 {
        options = options.unique(true).on_duplicate(OnDuplicate::Last);
    }
    let put = STORE.put("new", reader, options);
    if std::env::var_os("PHEON_FUZZ_VERBOSE").is_some() {
        eprintln!("{put:?}");
    }
    if put.is_ok() {
        let report = STORE.verify("new").expect("it was published");
        assert!(report.is_ok(), "what was published is damaged: {:?}", report.problems);
        crate::engine::read(&STORE, "new");
        STORE.drop_dataset("new").expect("drop it");
    }
    put.is_ok()
}
