//! More files of somebody who computes checksums and means harm: Arrow messages that were made anew, and interrupted builds
//! whose documents are wrong about their rows.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{DictionaryArray, Int64Array, StringArray};
use arrow_ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow_ipc::{
    BodyCompressionArgs, Buffer, CompressionType, DictionaryBatchArgs, FieldNode, MessageArgs, MessageHeader,
    RecordBatchArgs, root_as_footer, root_as_message, root_as_schema,
};
use arrow_schema::Schema;
use flatbuffers::FlatBufferBuilder;
use pheon::{ChangeOptions, PutOptions, ReadError, Resume, Store, WriteError};
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::corruption::{Image, MANIFEST, without_panic};
use crate::hostile::{interrupted, quietly, take_up};
use crate::names::{parse, replace, with_checksum};
use crate::scratch::{Scratch, assert_numbered, assert_tidy, entries, numbered, tree};

/// So long a compressed buffer says that it becomes.
const HUGE: u64 = 1 << 47;

/// A record batch or dictionary message with other facts, as a flatbuffer.
fn remade(message: &[u8], compressed: bool, rows: Option<i64>, change: impl Fn(&mut Vec<Buffer>)) -> Vec<u8> {
    let message = root_as_message(message).unwrap();
    let dictionary = message.header_as_dictionary_batch();
    let batch = dictionary.map_or_else(|| message.header_as_record_batch().unwrap(), |d| d.data().unwrap());
    let mut out = FlatBufferBuilder::new();
    let nodes: Vec<FieldNode> = batch.nodes().unwrap().iter().copied().collect();
    let nodes = nodes.iter().map(|node| FieldNode::new(rows.unwrap_or(node.length()), node.null_count()));
    let nodes = out.create_vector(&nodes.collect::<Vec<_>>());
    let mut buffers: Vec<Buffer> = batch.buffers().unwrap().iter().copied().collect();
    change(&mut buffers);
    let buffers = out.create_vector(&buffers);
    let compression = BodyCompressionArgs { codec: CompressionType::LZ4_FRAME, ..Default::default() };
    let compression = compressed.then(|| arrow_ipc::BodyCompression::create(&mut out, &compression));
    let args = RecordBatchArgs {
        length: rows.unwrap_or(batch.length()),
        nodes: Some(nodes),
        buffers: Some(buffers),
        compression,
        variadicBufferCounts: None,
    };
    let mut header = arrow_ipc::RecordBatch::create(&mut out, &args).as_union_value();
    let mut header_type = MessageHeader::RecordBatch;
    if let Some(dictionary) = dictionary {
        let data = Some(flatbuffers::WIPOffset::new(header.value()));
        let args = DictionaryBatchArgs { id: dictionary.id(), data, isDelta: false };
        header = arrow_ipc::DictionaryBatch::create(&mut out, &args).as_union_value();
        header_type = MessageHeader::DictionaryBatch;
    }
    let args = MessageArgs {
        version: message.version(),
        header_type,
        header: Some(header),
        bodyLength: message.bodyLength(),
        custom_metadata: None,
    };
    let root = arrow_ipc::Message::create(&mut out, &args);
    out.finish(root, None);
    out.finished_data().to_vec()
}

/// Makes the body's buffers say that they become huge. `body`: what follows a message.
fn inflate(message: &[u8], body: &mut [u8]) {
    let message = root_as_message(message).unwrap();
    let batch = message.header_as_dictionary_batch().map(|d| d.data().unwrap());
    let batch = batch.unwrap_or_else(|| message.header_as_record_batch().unwrap());
    let mut inflated = 0;
    for buffer in batch.buffers().unwrap().iter().filter(|buffer| buffer.length() >= 8) {
        let at = buffer.offset() as usize;
        body[at..at + 8].copy_from_slice(&HUGE.to_le_bytes());
        inflated += 1;
    }
    assert!(inflated > 0);
}

fn message_of(bytes: &[u8], block: &arrow_ipc::Block) -> Vec<u8> {
    let from = block.offset() as usize;
    bytes[from + 8..from + block.metaDataLength() as usize].to_vec()
}

/// An encapsulated message of exactly `len` bytes.
fn framed(flatbuffer: &[u8], len: usize) -> Vec<u8> {
    let mut framed = [&u32::MAX.to_le_bytes()[..], &(len as u32 - 8).to_le_bytes(), flatbuffer].concat();
    assert!(framed.len() <= len);
    framed.resize(len, 0);
    framed
}

fn footer_start(bytes: &[u8]) -> usize {
    let end = bytes.len() - 10;
    end - u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize
}

#[test]
fn a_compressed_dictionary_of_a_published_file_is_refused() {
    /// What the new message is longer by.
    const MORE: usize = 128;
    let tags: DictionaryArray<Int32Type> =
        vec!["some-long-tag", "another-long-tag", "some-long-tag"].into_iter().collect();
    let keys = StringArray::from(vec!["key-0", "key-1", "key-2"]);
    let mut image = Image::of(&entries(Arc::new(keys), Arc::new(tags)), PutOptions::map("k"));
    let mut bytes = image.bytes("data.arrow").clone();
    let start = footer_start(&bytes);
    let footer = root_as_footer(&bytes[start..bytes.len() - 10]).unwrap();
    let dictionary = *footer.dictionaries().unwrap().get(0);
    let batch = *footer.recordBatches().unwrap().get(0);
    assert!(dictionary.offset() < batch.offset());
    let moved = |block: &arrow_ipc::Block, by: i64, longer: i32| {
        arrow_ipc::Block::new(block.offset() + by, block.metaDataLength() + longer, block.bodyLength())
    };
    for (old, new) in [(dictionary, moved(&dictionary, 0, MORE as i32)), (batch, moved(&batch, MORE as i64, 0))] {
        let at = bytes[start..].windows(24).position(|window| window == old.0).unwrap();
        bytes[start + at..start + at + 24].copy_from_slice(&new.0);
    }
    let old = message_of(&bytes, &dictionary);
    let (from, meta) = (dictionary.offset() as usize, dictionary.metaDataLength() as usize);
    inflate(&old, &mut bytes[from + meta..]);
    bytes.splice(from..from + meta, framed(&remade(&old, true, None, |_| {}), meta + MORE));
    *image.bytes("data.arrow") = bytes;
    let mut manifest = image.manifest();
    let record = &mut manifest["segments"][0]["data"];
    let longer = |number: &mut Json| *number = json!(number.as_u64().unwrap() + MORE as u64);
    longer(&mut record["size_bytes"]);
    longer(&mut record["body_offset"]);
    record["buffers"].as_array_mut().unwrap().iter_mut().for_each(|buffer| longer(&mut buffer["offset"]));
    *image.bytes(MANIFEST) = with_checksum(&manifest);
    image.forge();
    let written = image.write();
    let told = written.store().table("m").map(drop).unwrap_err();
    assert!(matches!(told, ReadError::Corrupt { .. }) && told.to_string().contains("compressed"), "{told}");
    assert!(!written.store().verify("m").unwrap().is_ok());
}

#[test]
fn a_list_of_hidden_rows_that_is_empty_or_too_short_is_refused() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(9, 0));
    let gone = StringArray::from(vec!["key-1", "key-2"]);
    scratch.store.delete("m", &gone, ChangeOptions::default().compact(false)).unwrap();
    let dir = scratch.path().join("m");
    let list = dir.join(tree(&dir).into_iter().find(|name| name.starts_with("hidden-")).unwrap());
    let path = dir.join("manifest-000002.json");
    let (good, document) = (fs::read(&list).unwrap(), parse(&path));
    for (rows, misplaced, length) in
        [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 4, 0), (0, 7, 0), (2, 0, 0), (2, 0, 4), (2, 0, 7)]
    {
        let mut bytes = good.clone();
        let start = footer_start(&bytes);
        let block = *root_as_footer(&bytes[start..bytes.len() - 10]).unwrap().recordBatches().unwrap().get(0);
        let flatbuffer = remade(&message_of(&bytes, &block), false, Some(rows), |buffers| {
            buffers[1] = Buffer::new(misplaced, length);
        });
        let (from, meta) = (block.offset() as usize, block.metaDataLength() as usize);
        bytes.splice(from..from + meta, framed(&flatbuffer, meta));
        let mut document = document.clone();
        document["rows"] = json!(9 - rows);
        let hidden = &mut document["segments"][0]["hidden"];
        hidden["rows"] = json!(rows);
        let record = &mut hidden["file"];
        let body = record["body_offset"].as_u64().unwrap() as usize;
        let end = body + record["body_bytes"].as_u64().unwrap() as usize;
        let around = [&bytes[..body], &bytes[end..]].concat();
        record["metadata_xxh3_128"] = json!(format!("{:032x}", xxh3_128(&around)));
        let offset = body as i64 + misplaced;
        let sum = xxh3_64(&bytes[offset as usize..(offset + length) as usize]);
        record["buffers"][1] = json!({"offset": offset, "length": length, "xxh3_64": format!("{sum:016x}")});
        replace(&list, &bytes);
        replace(&path, &with_checksum(&document));
        without_panic(|| {
            let told = scratch.store.map("m").map(drop).unwrap_err();
            assert!(matches!(told, ReadError::Corrupt { .. }), "{told:?}");
            assert!(!scratch.store.verify("m").unwrap().is_ok());
        })
        .unwrap_or_else(|e| panic!("{rows} rows, {length} bytes at {misplaced}: {e}"));
    }
}

/// Takes up the build with rows of the writer's own, or without: then the part's run is the only one.
fn take_up_beside(store: &Store, own_rows: bool) -> Result<u64, WriteError> {
    if !own_rows {
        return take_up(store);
    }
    let mut writer = store.writer_of_parts("m", PutOptions::map("k").threads(1), Some(Resume::default()))?;
    let keys = StringArray::from_iter_values((12..15).map(|i| format!("key-{i}")));
    writer.write(&entries(Arc::new(keys), Arc::new(Int64Array::from_iter_values(12..15))))?;
    writer.part(Some("a"))?;
    writer.commit()
}

fn assert_refused(what: &str, store: &Store) {
    for own_rows in [false, true] {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_up_beside(store, own_rows)));
        let done = done.unwrap_or_else(|_| panic!("{what}: it panicked"));
        let told = done.expect_err(what);
        assert!(matches!(told, WriteError::Read(ReadError::Corrupt { .. })), "{what}: {told:?}");
        assert!(!store.contains("m").unwrap(), "{what}");
    }
}

#[test]
fn a_part_that_has_more_rows_than_its_document_says_is_refused() {
    quietly();
    let scratch = Scratch::new();
    let (path, _) = interrupted(&scratch);
    let good = parse(&path);
    assert_eq!(good["bounds"][0]["rows"], 12);
    for column in [0, 1] {
        for (member, number) in [
            ("rows", json!(1)),
            ("rows", json!(11)),
            ("rows", json!(0)),
            ("rows", json!(u64::MAX)),
            ("bytes", json!(u64::MAX)),
            ("bytes", json!(u64::MAX - 63)),
            ("bytes", json!(1u64 << 57)),
        ] {
            let mut document = good.clone();
            document["bounds"][column][member] = number.clone();
            fs::write(&path, with_checksum(&document)).unwrap();
            assert_refused(&format!("column {column}: {member} {number}"), &scratch.store);
        }
    }
    for rows in [0, 11, 13, 1 << 33, u64::MAX] {
        let mut document = good.clone();
        document["rows"] = json!(rows);
        fs::write(&path, with_checksum(&document)).unwrap();
        assert_refused(&format!("{rows} rows"), &scratch.store);
    }
    for bytes in [0, 1, 40] {
        let mut document = good.clone();
        document["bounds"][0]["bytes"] = json!(bytes);
        fs::write(&path, with_checksum(&document)).unwrap();
        assert_refused(&format!("{bytes} bytes"), &scratch.store);
    }
    // More than there is may be said, and costs nothing.
    let mut document = good;
    document["bounds"][0]["bytes"] = json!(1u64 << 50);
    document["bounds"][1]["rows"] = json!(1u64 << 50);
    fs::write(&path, with_checksum(&document)).unwrap();
    assert_eq!(take_up(&scratch.store).unwrap(), 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 12, 0);
    let data = tree(&scratch.path()).into_iter().find(|name| name.ends_with("data.arrow")).unwrap();
    assert!(fs::metadata(scratch.path().join(data)).unwrap().len() < 1 << 20);
}

/// The run of the part, its bytes and its document.
fn run_of(document: &Path) -> (PathBuf, Vec<u8>, Json) {
    let parsed = parse(document);
    assert_eq!(
        (parsed["runs"].as_array().unwrap().len(), parsed["runs"][0]["blocks"].as_array().unwrap().len()),
        (1, 1)
    );
    let run = document.with_file_name(parsed["runs"][0]["file"].as_str().unwrap());
    (run.clone(), fs::read(run).unwrap(), parsed)
}

fn forge_run(document: &Path, run: &Path, bytes: &[u8], mut parsed: Json) {
    let block = &mut parsed["runs"][0]["blocks"][0];
    let total = block["total_bytes"].as_u64().unwrap() as usize;
    block["xxh3_64"] = json!(format!("{:016x}", xxh3_64(&bytes[..total])));
    fs::write(run, bytes).unwrap();
    fs::write(document, with_checksum(&parsed)).unwrap();
}

#[test]
fn a_run_that_is_not_sorted_is_refused() {
    quietly();
    let scratch = Scratch::new();
    let (path, _) = interrupted(&scratch);
    let (run, good, document) = run_of(&path);
    let at = |key: &str| good.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
    // "key-0", "key-1", "key-10", "key-11", "key-2"...
    let (two, three) = (at("key-2key-3"), at("key-3"));
    for (what, place, key) in [
        ("a key twice", three, "key-2"),
        ("a key too small", three, "key-1"),
        ("a key too great", two, "key-4"),
        ("the first one greatest", at("key-0"), "key-9"),
    ] {
        let mut bytes = good.clone();
        bytes[place..place + 5].copy_from_slice(key.as_bytes());
        forge_run(&path, &run, &bytes, document.clone());
        assert_refused(what, &scratch.store);
    }
    forge_run(&path, &run, &good, document);
    assert_eq!(take_up_beside(&scratch.store, true).unwrap(), 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 15, 0);
}

#[test]
fn text_of_a_run_that_is_not_utf_8_is_refused() {
    let scratch = Scratch::new();
    let (path, _) = interrupted(&scratch);
    let (run, mut bytes, document) = run_of(&path);
    let last = bytes.windows(5).position(|window| window == b"key-9").unwrap() + 4;
    bytes[last] = 0xFF;
    forge_run(&path, &run, &bytes, document);
    assert_refused("no text", &scratch.store);
}

/// What is published would say that there are no nulls, and have some.
#[test]
fn a_part_that_declares_to_have_no_nulls_and_has_some_is_refused() {
    let scratch = Scratch::new();
    let (path, _) = interrupted(&scratch);
    let mut document = parse(&path);
    document["bounds"][1]["nulls"] = json!(true);
    let digits = document["schema"].as_str().unwrap().to_owned();
    let bytes: Vec<u8> =
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..][..2], 16).unwrap()).collect();
    let schema = fb_to_schema(root_as_schema(&bytes).unwrap());
    let declared = |nullable: bool| {
        let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(nullable && f.name() != "k"));
        let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone());
        let mut document = document.clone();
        let encoded = IpcSchemaEncoder::new().schema_to_fb(&schema);
        let digits: String = encoded.finished_data().iter().map(|byte| format!("{byte:02x}")).collect();
        document["schema"] = json!(digits);
        fs::write(&path, with_checksum(&document)).unwrap();
    };
    declared(false);
    assert_refused("nulls", &scratch.store);
    declared(true);
    assert_eq!(take_up(&scratch.store).unwrap(), 1);
}

#[test]
fn a_compressed_block_of_a_run_is_refused() {
    let scratch = Scratch::new();
    let (path, _) = interrupted(&scratch);
    let (run, good, mut document) = run_of(&path);
    let block = document["runs"][0]["blocks"][0].clone();
    let number = |member: &str| block[member].as_u64().unwrap() as usize;
    let old = &good[..number("message_bytes")];
    let mut body = good[number("body_at")..number("total_bytes")].to_vec();
    inflate(old, &mut body);
    let mut message = remade(old, true, None, |_| {});
    let message_bytes = message.len();
    message.resize(message_bytes.next_multiple_of(64), 0);
    let block = &mut document["runs"][0]["blocks"][0];
    block["message_bytes"] = json!(message_bytes);
    block["body_at"] = json!(message.len());
    block["total_bytes"] = json!(message.len() + body.len());
    forge_run(&path, &run, &[message, body].concat(), document);
    assert_refused("compressed", &scratch.store);
}

#[test]
fn an_interrupted_build_whose_id_is_none_is_refused() {
    let scratch = Scratch::new();
    let (part, _) = interrupted(&scratch);
    let path = part.parent().unwrap().with_file_name("build.json");
    let (good, part_document) = (parse(&path), parse(&part));
    let id = good["id"].as_str().unwrap();
    for bad in [
        "",
        "0",
        "..",
        &"z".repeat(32),
        &"é".repeat(16),
        &"../".repeat(11)[..32],
        &id[..31],
        &format!("{id}0"),
        &"A".repeat(32),
    ] {
        let (mut build, mut document) = (good.clone(), part_document.clone());
        build["id"] = json!(bad);
        document["build"] = json!(bad);
        fs::write(&path, with_checksum(&build)).unwrap();
        fs::write(&part, with_checksum(&document)).unwrap();
        assert_refused(&format!("id {bad:?}"), &scratch.store);
    }
    // Without it, a build goes through.
    assert_eq!(scratch.put("m", &numbered(12, 0)), 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 12, 0);
    assert_tidy(&scratch.path().join("m"), 1, 1);
}
