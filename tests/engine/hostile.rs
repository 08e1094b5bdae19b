//! Files of somebody who computes checksums and means harm: nothing warns a reader, so every use must check for itself.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{ListArray, StringArray, types::Int32Type};
use pheon::{ChangeOptions, KeyRef, Map, PutOptions, ReadError, Resume, Store, Value, WriteError};
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::corruption::{Image, MANIFEST, without_panic};
use crate::names::{parse, replace, with_checksum};
use crate::scratch::{Scratch, assert_numbered, entries, numbered, put, tree};

fn use_everything(store: &Store) {
    let sound = store.verify("m").is_ok_and(|report| report.is_ok());
    let _ = (store.versions("m"), store.memory("m"));
    if let Ok(table) = store.table("m") {
        for column in 0..table.schema().fields().len() {
            match table.column(column) {
                Ok(array) => array.to_data().validate_full().unwrap(),
                Err(e) => assert!(!sound, "{e}"),
            }
            for row in 0..table.num_rows().min(50) {
                let _ = table.value(row, column);
            }
        }
        let _ = (table.to_batches(), table.nbytes());
    }
    if let Ok(map) = store.map("m") {
        look_up(&map);
    }
}

/// Whatever the file says that its keys are.
fn look_up(map: &Map) {
    let keys: Vec<String> = (0..6).map(|i| format!("key-{i}")).collect();
    for key in &keys {
        if let Ok(Some(row)) = map.find(key.into())
            && let Ok(Value::Str(found)) = map.key_at(row)
        {
            assert_eq!(found, key);
        }
        let _ = (map.floor(key.into()), map.ceiling(key.into()), map.contains(key));
        let _ = map.range(..KeyRef::from(key)).and_then(|rows| rows.to_batch());
    }
    let keys = StringArray::from(keys);
    let _ = (map.find_many(&keys, None), map.get_many(&keys), map.get_many_columns(&keys));
}

/// Panics of this thread print their text and place alone: those that become errors would each print a trace, which takes
/// longer than all the rest.
pub(crate) fn quietly() {
    let me = std::thread::current().id();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == me {
            eprintln!("{info}");
        } else {
            before(info);
        }
    }));
}

/// Bytes of the files' metadata, `step` apart, with checksums that fit.
fn check_forged_metadata(step: usize) {
    quietly();
    let texts = StringArray::from(vec!["key-0", "key-1", "key-2", "key-3"]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, Some(vec![]), None]);
    for (file, batch) in
        [("data", entries(Arc::new(texts), Arc::new(lists))), ("index", numbered(4, 0)), ("data", numbered(4, 0))]
    {
        let good = Image::of(&batch, PutOptions::map("k"));
        let record = good.manifest()["segments"][0][file].clone();
        let start = record["body_offset"].as_u64().unwrap() as usize;
        let end = start + record["body_bytes"].as_u64().unwrap() as usize;
        let name = format!("{file}.arrow");
        let length = good.clone().bytes(&name).len();
        let written = good.write();
        for at in (0..start).chain(end..length).step_by(step) {
            let flip = [1, 0x80, 0xFF][at % 3];
            let mut image = good.clone();
            image.bytes(&name)[at] ^= flip;
            image.forge();
            for changed in [&name, MANIFEST] {
                replace(&written.path(&image, changed), image.bytes(changed));
            }
            without_panic(|| use_everything(written.store())).unwrap_or_else(|e| panic!("{name} {at} {flip}: {e}"));
        }
    }
}

#[test]
fn forged_metadata_never_panics() {
    check_forged_metadata(7);
}

#[test]
#[ignore = "every byte takes a minute: `make test-long`"]
fn forged_metadata_never_panics_wherever_it_is() {
    check_forged_metadata(1);
}

#[test]
fn hostile_manifests_are_refused() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(30, 0));
    let path = scratch.path().join("m/manifest-000001.json");
    let good = parse(&path);
    let refused = |what: &str, bytes: &[u8]| {
        replace(&path, bytes);
        let told = scratch.store.map("m").map(drop).unwrap_err();
        assert!(matches!(told, ReadError::Corrupt { .. }), "{what}: {told:?}");
        assert!(!scratch.store.verify("m").unwrap().is_ok(), "{what}");
        for done in [scratch.store.rollback("m", 1).map(drop), scratch.store.compact("m", Default::default()).map(drop)]
        {
            assert!(matches!(done, Err(WriteError::Read(ReadError::Corrupt { .. }))), "{what}: {done:?}");
        }
        let _ = (scratch.store.versions("m"), scratch.store.memory("m"));
    };
    let change = |what: &str, change: &dyn Fn(&mut Json)| {
        let mut document = good.clone();
        document["format_version"] = json!(2);
        change(&mut document);
        refused(what, &with_checksum(&document));
    };
    for number in [json!(u64::MAX), json!(i64::MAX), json!(-1), json!(1e300), json!(0.5), json!("9"), Json::Null] {
        for pointer in [
            "/rows",
            "/format_version",
            "/version",
            "/segments/0/rows",
            "/segments/0/data/size_bytes",
            "/segments/0/data/body_offset",
            "/segments/0/data/body_bytes",
            "/segments/0/index/size_bytes",
            "/segments/0/data/buffers/1/offset",
            "/segments/0/data/buffers/1/length",
            "/segments/0/index/buffers/1/length",
        ] {
            change(&format!("{pointer} = {number}"), &|d| *d.pointer_mut(pointer).unwrap() = number.clone());
        }
    }
    // Sums that leave the range of their type.
    for rows in [u64::MAX, u64::MAX / 2 + 1] {
        change("two segments of very many rows", &|d| {
            let mut segment = d["segments"][0].clone();
            segment["rows"] = json!(rows);
            d["segments"] = json!([segment.clone(), segment]);
            d["rows"] = json!(rows.wrapping_mul(2));
        });
    }
    change("body and offset wrap to what was there", &|d| {
        let data = &mut d["segments"][0]["data"];
        let start = data["body_offset"].as_u64().unwrap();
        data["body_bytes"] = json!(u64::MAX - start + 1);
    });
    change("more hidden rows than rows", &|d| {
        let file = d["segments"][0]["index"].clone();
        d["segments"][0]["hidden"] = json!({"id": "0".repeat(32), "rows": u64::MAX, "file": file});
    });
    let id = good["segments"][0]["id"].as_str().unwrap();
    for bad in
        ["../../../etc/passwd", "", "..", "/", &"../".repeat(11)[..32], &format!("{}\0", &id[..31]), &"é".repeat(16)]
    {
        change(&format!("id {bad:?}"), &|d| d["segments"][0]["id"] = json!(bad));
        change(&format!("hidden id {bad:?}"), &|d| {
            let file = d["segments"][0]["index"].clone();
            d["segments"][0]["hidden"] = json!({"id": bad, "rows": 1, "file": file});
        });
    }
    change("a key that is no column", &|d| d["key"] = json!(["../k"]));
    change("a key twice", &|d| d["key"] = json!(["k", "k"]));
    change("a key of very many columns", &|d| d["key"] = json!(vec!["k"; 10_000]));
    // Nesting that would use up the stack of a careless reader.
    for depth in [200, 1 << 20] {
        let nested = format!("{{\"a\":{}{}", "[".repeat(depth), "]".repeat(depth));
        refused("deep nesting", &sealed(nested.as_bytes()));
        refused("deep nesting that never ends", &sealed(&nested.as_bytes()[..depth]));
    }
    for (what, body) in [
        ("no members", "{\"a\":1"),
        ("an array", "[1"),
        ("members twice", "{\"rows\":30,\"rows\":30,\"version\":1"),
        ("not UTF-8", "{\"pheon\":\"\u{1}\""),
        ("nothing", ""),
    ] {
        refused(what, &sealed(body.as_bytes()));
    }
    refused("bytes that are no text", &sealed(b"{\"pheon\":\"\xFF\xFE\""));
    replace(&path, &with_checksum(&good));
    assert_numbered(&scratch.store.map("m").unwrap(), 30, 0);
}

/// A document's bytes with the checksum behind them.
fn sealed(body: &[u8]) -> Vec<u8> {
    let sum = xxhash_rust::xxh3::xxh3_128(body);
    [body, format!(",\"checksum\":\"{sum:032x}\"}}\n").as_bytes()].concat()
}

/// With checksums that are right: rows that are hidden twice would be counted twice.
#[test]
fn hidden_rows_must_ascend() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(9, 0));
    let gone = StringArray::from(vec!["key-1", "key-2"]);
    scratch.store.delete("m", &gone, ChangeOptions::default().compact(false)).unwrap();
    let dir = scratch.path().join("m");
    let list = tree(&dir).into_iter().find(|name| name.starts_with("hidden-")).unwrap();
    let (list, manifest) = (dir.join(list), dir.join("manifest-000002.json"));
    let (file, document) = (fs::read(&list).unwrap(), parse(&manifest).to_string());
    let bytes = |rows: [u32; 2]| rows.map(u32::to_le_bytes).concat();
    // Buffers begin at multiples of 64.
    let at = (0..file.len()).step_by(64).find(|&at| file[at..].starts_with(&bytes([1, 2]))).unwrap();
    for (rows, is_sound) in [([1, 2], true), ([3, 4], true), ([1, 1], false), ([2, 1], false)] {
        let mut forged = file.clone();
        forged[at..at + 8].copy_from_slice(&bytes(rows));
        replace(&list, &forged);
        let sum = |rows| format!("{:016x}", xxh3_64(&bytes(rows)));
        assert_eq!(document.matches(&sum([1, 2])).count(), 1);
        let document: Json = serde_json::from_str(&document.replace(&sum([1, 2]), &sum(rows))).unwrap();
        replace(&manifest, &with_checksum(&document));
        match scratch.store.map("m") {
            Ok(map) => assert!(is_sound && map.len() == 7, "{rows:?}"),
            Err(error @ ReadError::Corrupt { .. }) => assert!(!is_sound, "{rows:?}: {error}"),
            Err(error) => panic!("{rows:?}: {error}"),
        }
    }
    // A list that has more rows than the manifest says, or fewer: others would come back.
    replace(&list, &file);
    for rows in [1, 3] {
        let mut document: Json = serde_json::from_str(&document).unwrap();
        document["segments"][0]["hidden"]["rows"] = json!(rows);
        document["rows"] = json!(9 - rows);
        replace(&manifest, &with_checksum(&document));
        let error = scratch.store.map("m").unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { .. }), "{rows}: {error}");
    }
}

/// A manifest of the next format, with members that nobody knows yet: refused where its version says so, read where not.
#[test]
fn manifests_from_the_future() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(30, 0));
    let path = scratch.path().join("m/manifest-000001.json");
    let mut document = parse(&path);
    for place in ["", "/segments/0", "/segments/0/data", "/segments/0/data/buffers/0"] {
        document.pointer_mut(place).unwrap()["colour"] = json!({"deep": [[[null, 1.5, "x"]]]});
    }
    replace(&path, &with_checksum(&document));
    assert_numbered(&scratch.store.map("m").unwrap(), 30, 0);
    assert!(scratch.store.verify("m").unwrap().is_ok());
    for version in [pheon::FORMAT_VERSION + 1, 99, u32::MAX] {
        document["format_version"] = json!(version);
        replace(&path, &with_checksum(&document));
        let told = scratch.store.map("m").unwrap_err().to_string();
        assert!(told.contains(&version.to_string()) && told.contains("newer"), "{told}");
        // Nothing of it is touched by a writer that does not know it.
        let before = tree(&scratch.path().join("m"));
        assert!(scratch.store.compact("m", Default::default()).is_err());
        assert!(scratch.store.gc("m", 1).is_err());
        assert_eq!(tree(&scratch.path().join("m")), before);
    }
    document["format_version"] = json!(pheon::FORMAT_VERSION);
    replace(&path, &with_checksum(&document));
    assert_numbered(&scratch.store.map("m").unwrap(), 30, 0);
}

/// An interrupted build with one finished part, and where its files are.
pub(crate) fn interrupted(scratch: &Scratch) -> (PathBuf, Vec<PathBuf>) {
    let options = PutOptions::map("k").threads(1);
    let mut writer = scratch.store.writer_of_parts("m", options, Some(Resume::default())).unwrap();
    let part = writer.part(Some("a")).unwrap();
    let mut rows = part.writer(Default::default()).unwrap();
    rows.write(&numbered(12, 0)).unwrap();
    rows.finish().unwrap();
    drop(writer);
    let kept = scratch.path().join("m/resume");
    let folder = fs::read_dir(&kept).unwrap().map(|e| e.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let files = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).chain([kept.join("build.json")]).collect();
    (folder.join("part.json"), files)
}

pub(crate) fn take_up(store: &Store) -> Result<u64, WriteError> {
    let mut writer = store.writer_of_parts("m", PutOptions::map("k").threads(1), Some(Resume::default()))?;
    writer.part(Some("a"))?;
    writer.commit()
}

/// The schema of a part is an Arrow flatbuffer: each of its bytes damaged, under a checksum that fits.
#[test]
fn a_hostile_schema_of_a_part_is_an_error() {
    quietly();
    let scratch = Scratch::new();
    let (path, _) = interrupted(&scratch);
    let good = parse(&path);
    let digits = good["schema"].as_str().unwrap().to_owned();
    let mut refused = 0;
    for at in 0..digits.len() / 2 {
        for flip in [1u8, 0x10, 0x80, 0xFF] {
            let mut document = good.clone();
            let byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap() ^ flip;
            let mut changed = digits.clone();
            changed.replace_range(2 * at..2 * at + 2, &format!("{byte:02x}"));
            document["schema"] = json!(changed);
            fs::write(&path, with_checksum(&document)).unwrap();
            without_panic(|| {
                let mut writer = scratch
                    .store
                    .writer_of_parts("m", PutOptions::map("k").threads(1), Some(Resume::default()))
                    .unwrap();
                match writer.part(Some("a")).and_then(|part| part.finished_rows().map_err(WriteError::Read)) {
                    Ok(_) => {}
                    Err(e) => {
                        assert!(matches!(e, WriteError::Read(ReadError::Corrupt { .. })), "{e:?}");
                        assert!(e.to_string().contains("part \"a\""), "{e}");
                        refused += 1;
                    }
                }
            })
            .unwrap_or_else(|e| panic!("byte {at} ^ {flip:#x}: {e}"));
        }
    }
    assert!(refused > 100, "{refused}");
    fs::write(&path, with_checksum(&good)).unwrap();
    assert_eq!(take_up(&scratch.store).unwrap(), 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 12, 0);
}

/// Every bit of what an interrupted build left: `verify` names it, and whoever takes the build up is told; nothing is
/// published that is not what was written.
fn check_flips_of_parts(bits: &[u32]) {
    let scratch = Scratch::new();
    // A version for `verify` to read.
    scratch.put("m", &numbered(3, 0));
    let (_, files) = interrupted(&scratch);
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(scratch.store.verify("m").unwrap().is_ok());
    for file in files {
        let good = fs::read(&file).unwrap();
        for at in 0..good.len() {
            for bit in bits {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(&file, &bad).unwrap();
                let report = scratch.store.verify("m").unwrap();
                assert!(!report.is_ok(), "{file:?} {at} {bit}");
                let e = take_up(&scratch.store).unwrap_err();
                assert!(matches!(e, WriteError::Read(ReadError::Corrupt { .. })), "{file:?} {at} {bit}: {e:?}");
            }
        }
        for len in (0..good.len()).step_by(bits.len().max(2) * 7 % 50) {
            fs::write(&file, &good[..len]).unwrap();
            assert!(!scratch.store.verify("m").unwrap().is_ok(), "{file:?} cut to {len}");
            assert!(take_up(&scratch.store).is_err(), "{file:?} cut to {len}");
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(scratch.store.verify("m").unwrap().is_ok());
    assert_eq!(take_up(&scratch.store).unwrap(), 2);
    assert_numbered(&scratch.store.map("m").unwrap(), 12, 0);
}

#[test]
fn a_flip_in_each_byte_of_an_interrupted_build_is_told() {
    check_flips_of_parts(&[3]);
}

#[test]
#[ignore = "every bit takes a minute: `make test-long`"]
fn every_flip_in_an_interrupted_build_is_told() {
    check_flips_of_parts(&[0, 1, 2, 3, 4, 5, 6, 7]);
}

/// Sound files in the place of others: of another dataset, of another version, of another segment.
#[test]
fn files_that_were_swapped_are_seen() {
    let scratch = Scratch::new();
    for (name, base) in [("m", 0), ("other", 5)] {
        put(&scratch.store, name, &numbered(30, base), PutOptions::map("k").threads(1)).unwrap();
        put(&scratch.store, name, &numbered(30, base + 100), PutOptions::map("k").threads(1)).unwrap();
    }
    let segments = |name: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(scratch.path().join(name)).unwrap().map(|e| e.unwrap().path());
        let mut found: Vec<_> = entries.filter(|path| path.join("data.arrow").exists()).collect();
        found.sort();
        found
    };
    let (ours, theirs) = (segments("m"), segments("other"));
    let newest = ours[1].join("data.arrow");
    for stranger in [ours[0].join("data.arrow"), theirs[1].join("data.arrow"), theirs[0].join("data.arrow")] {
        let good = fs::read(&newest).unwrap();
        replace(&newest, &fs::read(stranger).unwrap());
        assert!(!scratch.store.verify("m").unwrap().is_ok(), "values of another file went unseen");
        assert!(scratch.store.verify("other").unwrap().is_ok());
        // Whatever opens says no other key's row.
        if let Ok(map) = scratch.store.map("m") {
            for i in 0..30 {
                let row = map.find(format!("key-{i}").as_str().into()).unwrap().unwrap();
                assert!(matches!(map.key_at(row).unwrap(), pheon::Value::Str(key) if key == format!("key-{i}")));
            }
        }
        replace(&newest, &good);
    }
    for (from, to) in
        [("other/manifest-000002.json", "m/manifest-000002.json"), ("m/manifest-000001.json", "m/manifest-000002.json")]
    {
        let (from, to) = (scratch.path().join(from), scratch.path().join(to));
        let good = fs::read(&to).unwrap();
        replace(&to, &fs::read(from).unwrap());
        assert!(matches!(scratch.store.map("m").unwrap_err(), ReadError::Corrupt { .. }));
        assert!(!scratch.store.verify("m").unwrap().is_ok());
        replace(&to, &good);
    }
    assert_numbered(&scratch.store.map("m").unwrap(), 30, 100);
}
