//! Listings and administration: ls, info, versions, rollback, gc, compact, drop, verify, warm, memory.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::World;

#[test]
fn ls() {
    let world = World::with_words();
    let store = world.store();
    let file = world.file("t.csv", "k,v\n1,2\n1,3\n");
    world.ok(["build", &store, "Numbers", &file, "--key", "k", "--table"]);
    let text = world.ok(["ls", &store]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("NAME     KIND   KEY   VERSION  ROWS "), "{text}");
    assert!(lines[1].starts_with("Numbers  table  k           1     2 "), "{text}");
    assert!(lines[2].starts_with("words    map    word        1     5 "), "{text}");
    let json = world.json(["ls", &store, "--json"]);
    assert_eq!(
        (&json[0]["name"], &json[1]["kind"], json[1]["rows"].as_u64()),
        (&"Numbers".into(), &"map".into(), Some(5))
    );
    world.ok(["drop", &store, "words"]);
    world.ok(["drop", &store, "Numbers"]);
    let run = world.run(["ls", &store]);
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{run:?}");
    assert_eq!(world.json(["ls", &store, "--json"]), serde_json::json!([]));
}

#[test]
fn info() {
    let world = World::with_words();
    let text = world.ok(["info", &world.store(), "words"]);
    for part in [
        "kind      map",
        "rows      5",
        "key       word: LargeUtf8",
        "values    meaning: LargeUtf8",
        "bytes a key",
        "origin    put",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = world.json(["info", &world.store(), "words", "--json"]);
    assert_eq!(json["key"], serde_json::json!(["word"]));
    assert_eq!(
        (json["rows"].as_u64(), json["index_keys"].as_u64(), json["segments"].as_u64()),
        (Some(5), Some(5), Some(1))
    );
    let path = Path::new(json["path"].as_str().unwrap());
    let on_disk: u64 = files_below(path)
        .iter()
        .filter(|f| f.extension().is_some_and(|e| e == "arrow"))
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert_eq!(json["data_bytes"].as_u64().unwrap() + json["index_bytes"].as_u64().unwrap(), on_disk);
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn versions_rollback_gc_compact_drop() {
    let world = World::with_words();
    let store = world.store();
    let file = world.file("new.csv", "word,meaning\nfig,purple\n");
    world.ok(["build", &store, "words", &file, "--key", "word"]);
    let run = world.run(["rollback", &store, "words", "1"]);
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{run:?}");
    assert!(run.err.contains("version 3"), "{run:?}");
    assert_eq!(world.ok(["get", &store, "words", "apple"]), "green\n");
    let versions = world.json(["versions", &store, "words", "--json"]);
    let origins: Vec<_> = versions.as_array().unwrap().iter().map(|v| v["origin"].as_str().unwrap()).collect();
    assert_eq!(origins, ["put", "put", "rollback:1"]);
    let text = world.ok(["versions", &store, "words"]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.lines().last().unwrap().ends_with("rollback:1"), "{text}");

    let report = world.json(["gc", &store, "words", "--keep", "1", "--json"]);
    assert_eq!(report[0]["versions_removed"], serde_json::json!([1, 2]));
    assert_eq!(report[0]["segments_removed"], 1, "the rollback still uses the first segment");
    assert!(report[0]["bytes_freed"].as_u64().unwrap() > 0);
    assert_eq!(world.json(["versions", &store, "words", "--json"]).as_array().unwrap().len(), 1);
    assert_eq!(world.ok(["gc", &store]).lines().count(), 2);
    assert_eq!(world.ok(["get", &store, "words", "apple"]), "green\n");

    let compacted = world.json(["compact", &store, "words", "--json"]);
    assert_eq!((compacted["version"].as_u64(), compacted["compacted"].as_bool()), (Some(3), Some(false)));
    let rolled = world.json(["rollback", &store, "words", "3", "--json"]);
    assert_eq!(rolled["version"], 4);
    let dropped = world.json(["drop", &store, "words", "--json"]);
    assert_eq!(dropped["dropped"], true);
    world.fails(["get", &store, "words", "apple"], 1, &["\"words\""]);
    assert!(!world.path("store/words").exists());
}

#[test]
fn verify_finds_a_flipped_bit() {
    let world = World::with_words();
    let store = world.store();
    assert_eq!(world.ok(["verify", &store]).lines().last().map(|l| l.ends_with("ok")), Some(true));
    assert_eq!(world.json(["verify", &store, "words", "--json"])[0]["ok"], true);
    let files = files_below(&world.path("store/words"));
    let data = files.iter().find(|f| f.ends_with("data.arrow")).unwrap();
    let mut bytes = std::fs::read(data).unwrap();
    let at = bytes.windows(6).position(|w| w == b"yellow").expect("values are stored plainly");
    bytes[at] ^= 1;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::write(data, &bytes).unwrap();
    let run = world.run(["verify", &store]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.out.contains("problems") && run.err.contains("data.arrow"), "{run:?}");
    let run = world.run(["verify", &store, "--json"]);
    assert_eq!(run.code, 1);
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report[0]["ok"], false);
    assert!(report[0]["problem_count"].as_u64().unwrap() >= 1);
}

#[test]
fn a_damaged_dataset_does_not_hide_the_others() {
    let world = World::with_words();
    let store = world.store();
    let file = world.file("t.csv", "k,v\n1,2\n");
    world.ok(["build", &store, "bad", &file, "--key", "k"]);
    for path in files_below(&world.path("store/bad")) {
        if path.ends_with("data.arrow") {
            std::fs::remove_file(&path).unwrap();
        }
    }
    let run = world.run(["ls", &store]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.out.contains("words") && run.err.contains("data.arrow"), "{run:?}");
    world.fails(["get", &store, "bad", "1"], 1, &["data.arrow"]);
}

#[test]
fn a_store_with_a_damaged_marker() {
    let world = World::with_words();
    let marker = world.path("store/pheon.json");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    std::fs::write(&marker, text.replace("\"format_version\":1", "\"format_version\":2")).unwrap();
    world.fails(["ls", &world.store()], 1, &["pheon.json", "checksum"]);
}

#[test]
fn warm_and_memory() {
    let world = World::with_words();
    let store = world.store();
    let json = world.json(["warm", &store, "--json", "--no-huge"]);
    assert_eq!(json[0]["resident_bytes"], json[0]["file_bytes"]);
    assert_eq!((json[0]["locked_bytes"].as_u64(), json[0]["huge_refusal"].as_str()), (Some(0), None), "{json}");
    let text = world.ok(["warm", &store, "words"]);
    assert!(text.starts_with("NAME ") && text.lines().nth(1).unwrap().starts_with("words "), "{text}");
    let json = world.json(["memory", &store, "words", "--json"]);
    assert_eq!(json[0]["resident_bytes"], json[0]["file_bytes"], "{json}");
    assert!(json[0]["on_disk_bytes"].as_u64().unwrap() > 0, "{json}");
    // Measuring is not mapping.
    assert_eq!((json[0]["mapped_by_processes"].as_u64(), json[0]["pss_bytes"].as_u64()), (Some(0), Some(0)), "{json}");
    let text = world.ok(["memory", &store]);
    assert!(text.starts_with("NAME ") && text.lines().count() == 2, "{text}");
    world.fails(["memory", &store, "words", "nope"], 1, &["nope"]);
}

#[test]
fn memory_adds_up_and_tells_who_maps() {
    let world = World::with_words();
    let store = world.store();
    let words = world.json(["memory", &store, "--json"])[0]["on_disk_bytes"].as_u64().unwrap();
    let opened = pheon::Store::open(world.path("store")).unwrap();
    let map = opened.map("words").unwrap();
    let batch = map.table().to_batch().unwrap();
    for _ in 0..2 {
        let reader = arrow_array::RecordBatchIterator::new([Ok(batch.clone())], batch.schema());
        opened.put("again", reader, pheon::PutOptions::map(map.key_fields()[0].name().as_str())).unwrap();
    }
    let json = world.json(["memory", &store, "--json"]);
    let (again, words_now) = (&json[0], &json[1]);
    assert_eq!((again["older_versions"].as_u64(), again["version"].as_u64()), (Some(1), Some(2)), "{json}");
    assert_eq!(again["older_on_disk_bytes"], again["on_disk_bytes"], "{json}");
    assert_eq!(words_now["on_disk_bytes"].as_u64(), Some(words));
    assert_eq!(words_now["mapped_by_processes"].as_u64(), Some(1), "{json}"); // by this test
    assert!(words_now["pss_bytes"].as_u64().unwrap() > 0, "{json}");
    opened.rollback("again", 1).unwrap();
    let json = world.json(["memory", &store, "again", "--json"]);
    // The newest has the files of the first; only those of the second are more.
    assert_eq!(
        (json[0]["older_versions"].as_u64(), &json[0]["older_on_disk_bytes"]),
        (Some(2), &json[0]["on_disk_bytes"])
    );
    let text = world.ok(["memory", &store]);
    let total = text.lines().last().unwrap();
    assert!(total.starts_with("total ") && text.lines().count() == 4, "{text}");
}
