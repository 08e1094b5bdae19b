//! Stores: a hostile piece in a sound one.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arrow_array::Array;
use pheon::{ChangeOptions, KeyRef, Map, PutOptions, Resume, Store, Table, Value};
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::folder::Folder;

/// Rows that are looked at one by one.
const ROWS_MAX: usize = 40;
/// The end of a checked document.
const TAIL_BYTES: usize = 48;

/// Of the golden store: a dataset of several segments with hidden rows, and a plain one.
static GOLDEN: LazyLock<Folder> = LazyLock::new(|| {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/v2/store");
    Folder::copy_of(&golden, &["pheon.json", "changed", "key.string"])
});

/// A build that was interrupted, with one finished part.
static INTERRUPTED: LazyLock<Folder> =
    LazyLock::new(|| Folder::copy_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("images/interrupted"), &["."]));

/// A document with the checksum that belongs to it, whether the input has one already or not.
pub fn with_checksum(input: &[u8]) -> Vec<u8> {
    let body = match input.len().checked_sub(TAIL_BYTES).map(|end| input.split_at(end)) {
        Some((body, tail)) if tail.starts_with(b",\"checksum\":\"") => body,
        _ => input.strip_suffix(b"}").unwrap_or(input),
    };
    let mut document = body.to_vec();
    document.extend_from_slice(format!(",\"checksum\":\"{:032x}\"}}\n", xxh3_128(body)).as_bytes());
    document
}

fn encode(document: &Json) -> Vec<u8> {
    let mut document = document.clone();
    document.as_object_mut().expect("a document is an object").remove("checksum");
    with_checksum(document.to_string().as_bytes())
}

/// The record of an Arrow file, as its writer would make it; where the file does not say where its buffers lie, `known`
/// does.
fn record(bytes: &[u8], known: &Json) -> (Json, Option<i64>) {
    let found = layout(bytes);
    let rows = found.as_ref().map(|layout| layout.rows);
    let (start, len, buffers) = match found {
        Some(layout) => (layout.start, layout.len, layout.buffers),
        None => {
            let number = |json: &Json, member: &str| json[member].as_u64().unwrap_or_default();
            let buffers = known["buffers"].as_array().cloned().unwrap_or_default();
            let buffers = buffers.iter().map(|b| (number(b, "offset"), number(b, "length"))).collect();
            (number(known, "body_offset"), number(known, "body_bytes"), buffers)
        }
    };
    let part = |from: u64, len: u64| {
        let end = from.checked_add(len)?;
        bytes.get(usize::try_from(from).ok()?..usize::try_from(end).ok()?)
    };
    let around = [part(0, start), part(start, len).and(bytes.get(start.saturating_add(len) as usize..))];
    let around = around.map(Option::unwrap_or_default).concat();
    let buffers: Vec<Json> = buffers
        .into_iter()
        .map(|(offset, length)| {
            let sum = xxh3_64(part(offset, length).unwrap_or_default());
            json!({"offset": offset, "length": length, "xxh3_64": format!("{sum:016x}")})
        })
        .collect();
    let record = json!({
        "size_bytes": bytes.len(), "body_offset": start, "body_bytes": len,
        "metadata_xxh3_128": format!("{:032x}", xxh3_128(&around)), "buffers": buffers,
    });
    (record, rows)
}

struct Layout {
    start: u64,
    len: u64,
    rows: i64,
    buffers: Vec<(u64, u64)>,
}

fn layout(bytes: &[u8]) -> Option<Layout> {
    let end = bytes.len().checked_sub(10)?;
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().ok()?) as usize;
    let footer = arrow_ipc::root_as_footer(bytes.get(end.checked_sub(length)?..end)?).ok()?;
    let block = footer.recordBatches()?.iter().next()?;
    let at = usize::try_from(block.offset()).ok()?;
    let start = at.checked_add(usize::try_from(block.metaDataLength()).ok()?)?;
    let message = arrow_ipc::root_as_message(bytes.get(at..start)?.get(8..)?).ok()?;
    let batch = message.header_as_record_batch()?;
    let buffers = batch.buffers()?.iter().map(|b| (start as u64).wrapping_add(b.offset() as u64));
    let buffers = buffers.zip(batch.buffers()?.iter().map(|b| b.length() as u64)).collect();
    Some(Layout { start: start as u64, len: u64::try_from(block.bodyLength()).ok()?, rows: batch.length(), buffers })
}

/// The key that a data file says it has.
fn key_of(bytes: &[u8]) -> Option<Json> {
    let end = bytes.len().checked_sub(10)?;
    let length = u32::from_le_bytes(bytes[end..end + 4].try_into().ok()?) as usize;
    let footer = arrow_ipc::root_as_footer(bytes.get(end.checked_sub(length)?..end)?).ok()?;
    let metadata = footer.schema()?.custom_metadata()?;
    let key = metadata.iter().find(|entry| entry.key() == Some("pheon.key"))?;
    serde_json::from_str(key.value()?).ok()
}

/// Which piece of a store is hostile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    Data,
    Index,
    Hidden,
}

/// Before the first input: sound pieces must come through, or no input comes further than to its checksum.
pub fn init() {
    crate::init();
    let sound = |folder: &Folder, ending: &str| folder.sound(&folder.find(ending)).to_vec();
    let document: Json =
        serde_json::from_slice(&sound(&GOLDEN, "changed/manifest-000004.json")).expect("a golden manifest");
    let mut segments = document["segments"].as_array().expect("segments").iter();
    let id = segments.find_map(|segment| segment["hidden"]["id"].as_str()).expect("hidden rows");
    let hidden = format!("changed/hidden-{id}.arrow");
    for (piece, name) in [
        (Piece::Data, "key.string/*/data.arrow"),
        (Piece::Index, "key.string/*/index.arrow"),
        (Piece::Hidden, &*hidden),
    ] {
        let (dataset, file) = name.split_once("/*").unwrap_or(("", name));
        let found =
            GOLDEN.names().find(|name| name.starts_with(dataset) && name.ends_with(file)).expect("a golden file");
        assert!(arrow_file(piece, &sound(&GOLDEN, &found)), "{found} is refused");
    }
    assert!(manifest(&[&[1], sound(&GOLDEN, "changed/manifest-000004.json").as_slice()].concat()), "a sound manifest");
    for (choice, name) in [(0, "resume/build.json"), (1, "part.json")] {
        assert!(part(&[&[choice], sound(&INTERRUPTED, name).as_slice()].concat()), "a sound {name} is refused");
    }
}

/// A store in which one Arrow file has these bytes, and the manifest was written for it. Whether `verify` is content.
pub fn arrow_file(piece: Piece, bytes: &[u8]) -> bool {
    let folder = &*GOLDEN;
    let name = if piece == Piece::Hidden { "changed" } else { "key.string" };
    let manifest = folder.find(if piece == Piece::Hidden {
        "changed/manifest-000004.json"
    } else {
        "key.string/manifest-000001.json"
    });
    let mut document: Json = serde_json::from_slice(folder.sound(&manifest)).expect("a golden manifest");
    let segments = document["segments"].as_array_mut().expect("segments");
    let segment = match piece {
        Piece::Hidden => segments.iter_mut().find(|s| !s["hidden"].is_null()).expect("hidden rows"),
        _ => &mut segments[0],
    };
    let path = |file: &str| PathBuf::from(format!("{name}/seg-{}/{file}", segment["id"].as_str().unwrap_or_default()));
    let file = match piece {
        Piece::Data => path("data.arrow"),
        Piece::Index => path("index.arrow"),
        Piece::Hidden => format!("{name}/hidden-{}.arrow", segment["hidden"]["id"].as_str().unwrap_or_default()).into(),
    };
    let member = match piece {
        Piece::Data => &mut segment["data"],
        Piece::Index => &mut segment["index"],
        Piece::Hidden => &mut segment["hidden"]["file"],
    };
    let (made, rows) = record(bytes, member);
    *member = made;
    match (piece, rows) {
        (Piece::Data, Some(rows)) => {
            segment["rows"] = json!(rows);
            let key = key_of(bytes);
            if key.as_ref().is_some_and(|key| key.as_array().is_some_and(Vec::is_empty)) {
                segment["index"] = Json::Null;
            }
            document["rows"] = json!(rows);
            document["format_version"] = json!(2);
            document["unique"] = json!(bytes.len() % 2 == 0);
            document["key"] = key.unwrap_or_else(|| document["key"].clone());
        }
        (Piece::Hidden, Some(rows)) => {
            segment["hidden"]["rows"] = json!(rows);
            let shown = |s: &Json| {
                s["rows"].as_i64().unwrap_or(0).wrapping_sub(s["hidden"]["rows"].as_i64().unwrap_or(0)).max(0)
            };
            let sum = document["segments"].as_array().expect("segments").iter().map(shown).fold(0, i64::saturating_add);
            document["rows"] = json!(sum);
        }
        _ => {}
    }
    folder.write(&file, bytes);
    folder.write(&manifest, &encode(&document));
    let is_sound = read(&Store::open(folder.root()).expect("the store is sound"), name);
    folder.write(&file, folder.sound(&file));
    folder.write(&manifest, folder.sound(&manifest));
    is_sound
}

/// A store whose newest manifest is this document; also what changes and cleaning make of it. Whether `verify` is content.
pub fn manifest(input: &[u8]) -> bool {
    let folder = &*GOLDEN;
    let (choice, input) = crate::choice(input);
    folder.write(Path::new("changed/manifest-000004.json"), &with_checksum(input));
    let store = Store::open(folder.root()).expect("the store is sound");
    let is_sound = read(&store, "changed");
    if choice % 4 == 0 {
        let _ = store.gc("changed", 1);
        let _ = store.compact("changed", ChangeOptions::default());
        let _ = store.rollback("changed", 4);
        read(&store, "changed");
        folder.restore();
    } else {
        let name = Path::new("changed/manifest-000004.json");
        folder.write(name, folder.sound(name));
    }
    is_sound
}

/// A store with an interrupted build, one of whose documents is this one; it is taken up. Whether a version came of it.
pub fn part(input: &[u8]) -> bool {
    let folder = &*INTERRUPTED;
    let (choice, input) = crate::choice(input);
    let name = folder.find(if choice % 4 == 0 { "resume/build.json" } else { "part.json" });
    folder.write(&name, &with_checksum(input));
    let store = Store::open(folder.root()).expect("the store is sound");
    let options = PutOptions::map("key").threads(1).memory_limit_bytes(64 << 20);
    let resume = Resume::default().fact("codec", "none").fact("value", "value");
    let mut is_done = false;
    if let Ok(mut writer) = store.writer_of_parts("m", options, Some(resume)) {
        let _ = writer.part(Some("a"));
        is_done = writer.commit().is_ok();
        if is_done {
            read(&store, "m");
            let report = store.verify("m");
            assert!(
                report.as_ref().is_ok_and(pheon::VerifyReport::is_ok),
                "a build made of hostile parts is not sound: {report:?}"
            );
        }
    }
    folder.restore();
    is_done
}

fn key_ref<'a>(value: &'a Value<'a>) -> Option<KeyRef<'a>> {
    Some(match value {
        Value::Str(text) => KeyRef::Bytes(text.as_bytes()),
        Value::Bytes(bytes) => KeyRef::Bytes(bytes),
        Value::Int(number) => KeyRef::Fixed64(number.cast_unsigned()),
        Value::UInt(number) => KeyRef::Fixed64(*number),
        Value::Bool(truth) => KeyRef::Fixed64(u64::from(*truth)),
        _ => return None,
    })
}

/// Does with a dataset whatever a reader may. Where `verify` finds nothing wrong, everything must be right. Whether it is so.
pub fn read(store: &Store, name: &str) -> bool {
    let sound = store.verify(name).is_ok_and(|report| report.is_ok());
    let _ = (store.versions(name), store.memory(name));
    if let Ok(table) = store.table(name) {
        read_table(&table, sound);
        if let Some(batch) = table.to_batch().ok().filter(|_| !table.key().is_empty()) {
            let keys: Option<Vec<_>> = table.key().iter().map(|key| batch.column_by_name(key).cloned()).collect();
            if let Some([keys]) = keys.as_deref() {
                look_up_all(store, name, keys, sound);
            }
        }
    }
    if let Ok(map) = store.map(name) {
        read_map(&map, sound);
    }
    sound
}

fn read_table(table: &Table, sound: bool) {
    for part in [table.clone(), table.slice(1, 3)] {
        for column in 0..part.schema().fields().len() {
            match part.column(column) {
                Ok(array) => array.to_data().validate_full().expect("a column that is handed out is valid"),
                Err(e) => assert!(!sound, "verify found nothing, but a column is damaged: {e}"),
            }
            for row in 0..part.num_rows().min(ROWS_MAX) {
                let value = part.value(row, column);
                assert!(value.is_ok() || !sound, "verify found nothing, but a value is damaged");
            }
        }
        let _ = (part.to_batches(), part.nbytes(), part.num_chunks(), part.is_copied());
    }
}

fn look_up_all(store: &Store, name: &str, keys: &dyn Array, sound: bool) {
    let Ok(map) = store.map(name) else { return };
    let found = map.find_many(keys, None);
    if sound {
        let found = found.expect("verify found nothing, but a lookup fails");
        assert_eq!(found.null_count(), 0, "verify found nothing, but a key is not found");
    }
    if let Ok(batch) = map.get_many_columns(keys) {
        batch.columns().iter().for_each(|c| c.to_data().validate_full().expect("an answer is valid"));
    }
}

fn read_map(map: &Map, sound: bool) {
    for position in 0..map.len().min(ROWS_MAX) {
        let Ok(row) = map.row_at(position) else { continue };
        let _ = map.row(row);
        for column in 0..map.value_fields().len() {
            let _ = map.value_at(row, column);
        }
        let parts: Vec<_> = (0..map.key_fields().len()).map(|part| map.key_part_at(row, part)).collect();
        let parts: Option<Vec<_>> = parts.iter().map(|part| part.as_ref().ok().and_then(key_ref)).collect();
        let Some(parts) = parts else { continue };
        let several;
        let key = match parts.as_slice() {
            [key] => *key,
            parts => {
                let Ok(bytes) = map.composite_key(parts) else { continue };
                several = bytes;
                KeyRef::Bytes(&several)
            }
        };
        let found = map.find(key);
        assert!(!sound || matches!(found, Ok(Some(there)) if there == row), "verify found nothing, but a key is lost");
        let _ = (map.floor(key), map.ceiling(key), map.range(key..).and_then(|t| t.to_batch()));
        let _ = map.contains(key);
    }
    for key in [KeyRef::Bytes(b"not there"), KeyRef::Fixed64(0x1234_5678_9ABC), KeyRef::Bytes(&[0xFF; 40])] {
        let _ = (map.find(key), map.floor(key), map.ceiling(key), map.range(..key).and_then(|t| t.to_batch()));
    }
    let _ = map.prefix(b"a").and_then(|t| t.to_batch());
}
