//! Names, markers, documents from the future, and directories that are somebody else's.

use std::fs;
use std::path::Path;

use pheon::{PutOptions, ReadError, Store, WriteError};
use serde_json::{Value as Json, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::scratch::{Scratch, assert_numbered, numbered, put, temporary_dir, tree};

/// A document with a right checksum, whatever it says.
pub(crate) fn with_checksum(document: &Json) -> Vec<u8> {
    let mut document = document.clone();
    document.as_object_mut().unwrap().remove("checksum");
    let text = serde_json::to_string(&document).unwrap();
    let body = text.strip_suffix('}').unwrap();
    format!("{body},\"checksum\":\"{:032x}\"}}\n", xxh3_128(body.as_bytes())).into_bytes()
}

/// Replaces a published file, whose mode forbids writing to it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

pub(crate) fn parse(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn names_that_are_none_are_refused_everywhere() {
    let scratch = Scratch::new();
    let outside = scratch.path().parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["", ".", "..", "../outside", "/etc", ".tmp-x", "a/b", "a b", "-a", "naïve", "a\0b", &"x".repeat(129)]
    {
        let is_invalid = |e: ReadError| assert!(matches!(&e, ReadError::InvalidName { name: n } if n == name), "{e}");
        is_invalid(scratch.store.map(name).unwrap_err());
        is_invalid(scratch.store.table_at(name, 1).unwrap_err());
        is_invalid(scratch.store.versions(name).unwrap_err());
        is_invalid(scratch.store.verify(name).unwrap_err());
        is_invalid(scratch.store.memory(name).unwrap_err());
        let is_refused = |e: WriteError| match e {
            WriteError::Read(e) => is_invalid(e),
            e => panic!("{e}"),
        };
        is_refused(put(&scratch.store, name, &numbered(1, 0), PutOptions::map("k")).unwrap_err());
        is_refused(scratch.store.drop_dataset(name).unwrap_err());
        is_refused(scratch.store.gc(name, 1).unwrap_err());
        is_refused(scratch.store.rollback(name, 1).unwrap_err());
        assert!(!scratch.store.contains(name).unwrap());
    }
    assert_eq!(tree(&scratch.path()), ["pheon.json"]);
    assert!(tree(&outside).is_empty());
    let long = "x".repeat(128);
    for name in ["a", "_", "0", "A.b-c_d", "con", &long] {
        scratch.put(name, &numbered(3, 0));
        assert_numbered(&scratch.store.map(name).unwrap(), 3, 0);
    }
    let mut names = vec!["a", "_", "0", "A.b-c_d", "con", &long];
    names.sort_unstable();
    assert_eq!(scratch.store.datasets().unwrap(), names);
}

#[test]
fn a_missing_dataset_is_not_found_and_nothing_is_made() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path().join("empty")).unwrap();
    fs::write(scratch.path().join("file"), "x").unwrap();
    let missing = |e: ReadError| assert!(matches!(e, ReadError::NotFound { version: None, .. }), "{e}");
    for name in ["nothing", "empty", "file"] {
        missing(scratch.store.map(name).unwrap_err());
        missing(scratch.store.verify(name).unwrap_err());
        missing(scratch.store.versions(name).unwrap_err());
    }
    for name in ["nothing", "file"] {
        match scratch.store.gc(name, 1).unwrap_err() {
            WriteError::Read(e) => missing(e),
            e => panic!("{e}"),
        }
    }
    assert!(scratch.store.datasets().unwrap().is_empty());
    assert_eq!(tree(&scratch.path()), ["empty", "file", "pheon.json"]);
    // A folder without a version is what a killed first writer leaves: collecting clears it.
    fs::write(scratch.path().join("empty/.tmp-leftover"), "x").unwrap();
    assert_eq!(scratch.store.gc("empty", 1).unwrap().leftovers_removed, 1);
    assert_eq!(tree(&scratch.path()), ["file", "pheon.json"]);
    assert!(put(&scratch.store, "file", &numbered(1, 0), PutOptions::map("k")).is_err());
    assert_eq!(fs::read(scratch.path().join("file")).unwrap(), b"x");
}

#[test]
fn stores_are_made_where_nothing_else_is() {
    let dir = temporary_dir();
    let path = dir.path().join("a/b/c");
    assert!(matches!(Store::open_read_only(&path), Err(ReadError::StoreNotFound { .. })));
    assert!(!path.exists());
    let store = Store::open(&path).unwrap();
    assert_eq!((store.uuid().len(), store.path()), (32, path.as_path()));
    assert_eq!(Store::open(&path).unwrap().uuid(), store.uuid());
    assert_eq!(Store::open_read_only(&path).unwrap().uuid(), store.uuid());
    let other = Store::open(dir.path().join("other")).unwrap();
    assert_ne!(other.uuid(), store.uuid());

    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "x").unwrap();
    match Store::open(&foreign).unwrap_err() {
        WriteError::Options { problem } => assert!(problem.contains("thesis.tex"), "{problem}"),
        e => panic!("{e}"),
    }
    assert_eq!(tree(&foreign), ["thesis.tex"]);
    assert!(matches!(Store::open_read_only(&foreign), Err(ReadError::StoreNotFound { .. })));
    let file = foreign.join("thesis.tex");
    assert!(Store::open(&file).is_err() && Store::open(file.join("below")).is_err());
    // What a killed creator left does not stand in the way.
    let halfway = dir.path().join("halfway");
    fs::create_dir(&halfway).unwrap();
    fs::write(halfway.join(".tmp-0123.json"), "{").unwrap();
    Store::open(&halfway).unwrap();
}

#[test]
fn creators_that_race_make_one_store() {
    let dir = temporary_dir();
    for round in 0..20 {
        let path = dir.path().join(format!("s{round}"));
        let uuids: Vec<String> = std::thread::scope(|scope| {
            let openers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| Store::open(&path).unwrap().uuid().to_owned())).collect();
            openers.into_iter().map(|o| o.join().unwrap()).collect()
        });
        assert!(uuids.iter().all(|u| *u == uuids[0]), "{uuids:?}");
        assert_eq!(tree(&path), ["pheon.json"]);
    }
}

#[test]
fn markers_are_checked() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(3, 0));
    let path = scratch.path().join("pheon.json");
    let good = fs::read(&path).unwrap();
    let expect = |bytes: &[u8], says: &str| {
        replace(&path, bytes);
        let read = Store::open_read_only(scratch.path()).unwrap_err();
        assert!(matches!(read, ReadError::Corrupt { .. }), "{read}");
        assert!(read.to_string().contains(says) && read.to_string().contains("pheon.json"), "{read}");
        let write = Store::open(scratch.path()).unwrap_err();
        assert!(matches!(write, WriteError::Read(ReadError::Corrupt { .. })), "{write}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "a bad marker is not written over");
    };
    expect(b"", "found 0");
    expect(b"{}\n", "expected at least");
    expect(&good[..good.len() - 1], "checksum");
    expect(&vec![b' '; 70_000], "70000");
    let json: Json = serde_json::from_slice(&good).unwrap();
    replace(&path, &with_checksum(&json));
    assert_eq!(Store::open(scratch.path()).unwrap().uuid(), scratch.store.uuid(), "members may have any order");
    let with = |name: &str, value: Json| {
        let mut json = json.clone();
        json[name] = value;
        with_checksum(&json)
    };
    expect(&with("format_version", json!(2)), "newer");
    expect(&with("pheon", json!("manifest")), "expected \"store\"");
    expect(&with("uuid", json!(5)), "JSON");
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        replace(&path, &bad);
        assert!(matches!(Store::open_read_only(scratch.path()), Err(ReadError::Corrupt { .. })), "bit {bit}");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(Store::open_read_only(scratch.path()), Err(ReadError::Corrupt { .. })));
    fs::remove_dir(&path).unwrap();
    // Members that a later version adds are ignored.
    fs::write(&path, with("colour", json!("blue"))).unwrap();
    assert_numbered(&Store::open(scratch.path()).unwrap().map("m").unwrap(), 3, 0);
}

#[test]
fn manifests_are_checked() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(30, 0));
    scratch.put("m", &numbered(40, 0));
    let dir = scratch.path().join("m");
    let path = dir.join("manifest-000002.json");
    let good = fs::read(&path).unwrap();
    let json = parse(&path);
    let expect = |bytes: &[u8], says: &str| {
        replace(&path, bytes);
        let e = scratch.store.map("m").unwrap_err();
        assert!(matches!(e, ReadError::Corrupt { .. }) && e.to_string().contains(says), "{e}");
        let report = scratch.store.verify("m").unwrap();
        assert!(!report.is_ok(), "{says}");
        // The version before it is still there.
        assert_numbered(&scratch.store.map_at("m", 1).unwrap(), 30, 0);
    };
    let with = |change: &dyn Fn(&mut Json)| {
        let mut json = json.clone();
        change(&mut json);
        with_checksum(&json)
    };
    expect(&with(&|j| j["format_version"] = json!(pheon::FORMAT_VERSION + 1)), "newer");
    expect(&with(&|j| j["pheon"] = json!("store")), "expected \"manifest\"");
    expect(&with(&|j| j["version"] = json!(1)), "expected 2, found 1");
    expect(&with(&|j| j["rows"] = json!(-1)), "JSON");
    let twice = |j: &Json| json!([j["segments"][0].clone(), j["segments"][0].clone()]);
    expect(&with(&|j| j["segments"] = json!([])), "expected 2, which its segments and key need, found 1");
    expect(&with(&|j| j["segments"] = twice(j)), "expected 2");
    // What format version 1 does not have, in a manifest that says that it is of version 2.
    let with = |change: &dyn Fn(&mut Json)| {
        with(&|j| {
            j["format_version"] = json!(2);
            change(j);
        })
    };
    expect(&with(&|j| j["segments"] = json!([])), "at least one segment");
    expect(&with(&|j| j["segments"] = twice(j)), "they hold 80 rows");
    expect(&with(&|j| j["segments"][0]["id"] = json!("../../../../../../../../../../etc/")), "is not an id");
    expect(&with(&|j| j["segments"][0]["id"] = json!("0".repeat(32))), "missing");
    expect(&with(&|j| j["segments"][0]["rows"] = json!(41)), "expected 41 rows, found 40");
    expect(&with(&|j| j["key"] = json!([])), "index");
    expect(&with(&|j| j["key"] = json!(["v2"])), "no key column \"v2\"");
    expect(&with(&|j| j["key"] = json!(["k", "v"])), "key");
    expect(&with(&|j| j["segments"][0]["index"] = Json::Null), "index");
    for (member, value) in [
        ("size_bytes", json!(u64::MAX)),
        ("body_offset", json!(u64::MAX)),
        ("body_bytes", json!(u64::MAX)),
        ("body_bytes", json!(0)),
        ("metadata_xxh3_128", json!("0".repeat(32))),
        ("metadata_xxh3_128", json!("")),
        ("buffers", json!([])),
    ] {
        for file in ["data", "index"] {
            expect(&with(&|j| j["segments"][0][file][member] = value.clone()), "");
        }
    }
    for (member, value) in
        [("offset", json!(u64::MAX)), ("length", json!(u64::MAX)), ("length", json!(7)), ("offset", json!(1))]
    {
        expect(&with(&|j| j["segments"][0]["data"]["buffers"][1][member] = value.clone()), "");
    }
    for len in (0..good.len()).step_by(7) {
        expect(&good[..len], "");
    }
    replace(&path, &with(&|j| j["colour"] = json!(["unknown members are ignored"])));
    assert_numbered(&scratch.store.map("m").unwrap(), 40, 0);
    assert_eq!(with_checksum(&json).len(), good.len());
}

#[test]
fn only_canonical_manifest_names_are_versions() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(30, 0));
    let dir = scratch.path().join("m");
    for name in [
        "manifest-7.json",
        "manifest-000009.json.bak",
        "manifest-0000008.json",
        "manifest-.json",
        "Manifest-000005.json",
    ] {
        fs::write(dir.join(name), "x").unwrap();
    }
    assert_eq!(scratch.store.versions("m").unwrap().len(), 1);
    assert_eq!(scratch.put("m", &numbered(31, 0)), 2);
    // What is not ours is left alone, also by collecting.
    fs::write(dir.join("notes.txt"), "mine").unwrap();
    fs::create_dir(dir.join("photos")).unwrap();
    scratch.store.gc("m", 1).unwrap();
    assert!(dir.join("notes.txt").exists() && dir.join("photos").exists() && dir.join("manifest-7.json").exists());
    assert_numbered(&scratch.store.map("m").unwrap(), 31, 0);
    // A seventh digit is as good as six.
    let mut json = parse(&dir.join("manifest-000002.json"));
    json["version"] = json!(1_234_567);
    fs::write(dir.join("manifest-1234567.json"), with_checksum(&json)).unwrap();
    assert_eq!(scratch.store.map("m").unwrap().version(), 1_234_567);
    assert_eq!(scratch.put("m", &numbered(8, 0)), 1_234_568);
    // There is no number after the greatest.
    fs::write(dir.join(format!("manifest-{}.json", u64::MAX)), "x").unwrap();
    let e = put(&scratch.store, "m", &numbered(1, 0), PutOptions::map("k")).unwrap_err();
    assert!(matches!(e, WriteError::Limit { .. }), "{e}");
}

#[test]
fn published_files_are_read_only_and_names_are_as_specified() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    scratch.put("m", &numbered(30, 0));
    let root = scratch.path();
    let names = tree(&root);
    assert_eq!(names.len(), 7, "{names:?}");
    let segment = names.iter().find(|n| n.starts_with("m/seg-") && !n.ends_with(".arrow")).unwrap();
    let id = segment.strip_prefix("m/seg-").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
    let files = [
        "pheon.json".to_owned(),
        "m/manifest-000001.json".to_owned(),
        format!("{segment}/data.arrow"),
        format!("{segment}/index.arrow"),
    ];
    for file in files {
        let mode = fs::metadata(root.join(&file)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o440, "{file}");
    }
    let text = fs::read_to_string(root.join("m/manifest-000001.json")).unwrap();
    assert_eq!((text.lines().count(), text.ends_with("\"}\n"), text.contains(": ")), (1, true, false));
    assert_eq!(&text[text.len() - 48..text.len() - 35], ",\"checksum\":\"");
}
