//! Live maps: ls, info, rm.

use pheon_live::{LiveMap, LiveOptions, Location};

use crate::World;

/// A map of the world's store with two entries; it is attached as long as this lives.
fn made(world: &World, name: &str) -> LiveMap {
    let location = Location::Store { path: world.path("store"), name: name.to_owned() };
    let map = LiveMap::create(&location, &LiveOptions { max_entries: 10, ..LiveOptions::default() }).unwrap();
    map.lock(None, &|| false).unwrap();
    map.put(b"a", 0, b"1").unwrap();
    map.put(b"b", 0, b"2").unwrap();
    map.unlock().unwrap();
    map
}

#[test]
fn live_ls_and_info() {
    let world = World::with_words();
    let store = world.store();
    let run = world.run(["live", "ls", &store]);
    assert_eq!((run.code, run.out.as_str()), (0, ""), "{run:?}");
    assert!(run.err.contains("no live map"), "{run:?}");
    let map = made(&world, "counters");
    drop(made(&world, "orphaned"));
    std::fs::create_dir(world.path("store").join(".live/broken")).unwrap();
    std::fs::write(world.path("store").join(".live/broken/CTRL"), "x").unwrap();
    let text = world.ok(["live", "ls", &store]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("NAME      ENTRIES"), "{text}");
    assert!(lines[1].starts_with("broken") && lines[1].contains("damaged"), "{text}");
    assert!(lines[2].starts_with("counters        2") && lines[2].ends_with("1  attached"), "{text}");
    assert!(lines[3].starts_with("orphaned        2") && lines[3].ends_with("0  orphan"), "{text}");
    let json = world.json(["live", "ls", &store, "--json"]);
    assert_eq!(json[1]["entries"], 2);
    assert_eq!((&json[1]["orphan"], &json[2]["orphan"]), (&false.into(), &true.into()));
    assert!(json[0]["problem"].as_str().unwrap().contains("damaged"), "{json}");
    // A held lock is not waited for.
    map.lock(None, &|| false).unwrap();
    let json = world.json(["live", "info", "counters", "--store", &store, "--json"]);
    assert_eq!(
        (&json["entries"], &json["max_entries"], &json["attached_processes"]),
        (&2.into(), &10.into(), &1.into())
    );
    map.unlock().unwrap();
    let text = world.ok(["live", "info", "counters", "--store", &store]);
    assert!(text.contains("most entries  10\n") && text.contains("state         attached\n"), "{text}");
    let run = world.run(["live", "info", "nothing", "--store", &store]);
    assert_eq!((run.code, run.out.as_str()), (1, ""), "{run:?}");
    assert!(run.err.contains("no live map"), "{run:?}");
    assert_eq!(world.run(["live", "info", "../x", "--store", &store]).code, 2);
}

#[test]
fn live_rm_spares_what_is_attached() {
    let world = World::with_words();
    let store = world.store();
    let map = made(&world, "used");
    drop(made(&world, "left"));
    let run = world.run(["live", "rm", "left", "used", "--store", &store]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.err.contains("1 process has it attached"), "{run:?}");
    assert!(world.ok(["live", "ls", &store]).contains("left"), "all or none");
    let json = world.json(["live", "rm", "--orphans", "--store", &store, "--json"]);
    assert_eq!(json["removed"], serde_json::json!(["left"]));
    world.ok(["live", "rm", "used", "--store", &store, "--force"]);
    assert_eq!(world.json(["live", "ls", &store, "--json"]), serde_json::json!([]));
    assert_eq!(map.get(b"a").unwrap().as_deref(), Some(&b"1"[..]), "who has it can read on");
    assert_eq!(world.run(["live", "rm", "used", "--store", &store]).code, 1);
    assert_eq!(world.run(["live", "rm", "--store", &store]).code, 2);
}

#[test]
fn live_maps_in_memory() {
    let world = World::new();
    let name = format!("test-cli-{}", pheon_os::process::random_id());
    let location = Location::Memory { name: name.clone(), group: None };
    drop(LiveMap::create(&location, &LiveOptions::default()).unwrap());
    assert!(world.ok(["live", "ls"]).contains(&name));
    assert_eq!(world.json(["live", "info", &name, "--json"])["entries"], 0);
    world.ok(["live", "rm", &name]);
    assert!(!world.ok(["live", "ls", "--json"]).contains(&name));
}
