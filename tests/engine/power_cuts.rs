//! The power goes at every moment of every kind of write: on each disk that may be left the version before or after is
//! there, whole, what was acknowledged is not lost, and the next writer tidies up.
//!
//! A few states at some moments; `PHEON_LONG` tries many at each. `PHEON_SEED` replays a failure.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array, RecordBatch, RecordBatchIterator, StringArray};
use pheon::{
    ChangeOptions, OnDuplicate, PartOptions, PutOptions, ReadError, Resume, Retention, Store, Table, WriteError,
};
use pheon_os::fs::fault::{FaultFs, Lasts};
use pheon_os::fs::real;
use pheon_os::fs::record::{CutState, Effort, Record, RecordFs};

use crate::scratch::{assert_numbered, assert_tidy, entries, numbered, put, temporary_dir, tree};

type Rows = BTreeMap<String, i64>;
type Step = fn(&Store);

const EIO: i32 = 5;
/// States for each moment.
const QUICK_STATES: usize = 8;
/// And so many moments are passed over, unless there are few.
const QUICK_STEP: usize = 3;
const MOMENTS_MIN: usize = 30;
const LONG_STATES: usize = 150;

fn is_long() -> bool {
    std::env::var_os("PHEON_LONG").is_some()
}

fn effort() -> Effort {
    Effort::of_test(QUICK_STATES, LONG_STATES)
}

/// What readers find, after each step.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    newest: Option<Rows>,
    versions: BTreeMap<u64, Rows>,
}

fn rows_of(table: &Table) -> Rows {
    let batch = table.to_batch().unwrap();
    let (keys, values) = (texts_of(batch.column(0)), batch.column(1).as_primitive::<Int64Type>());
    keys.into_iter().zip(values.values().iter().copied()).collect()
}

fn texts_of(keys: &dyn Array) -> Vec<String> {
    keys.as_string::<i64>().iter().map(|key| key.unwrap().to_owned()).collect()
}

fn snapshot(store: &Store) -> Snapshot {
    let newest = match store.table("m") {
        Ok(table) => Some(rows_of(&table)),
        Err(ReadError::NotFound { .. }) => None,
        Err(e) => panic!("the newest version: {e}"),
    };
    let mut versions = BTreeMap::new();
    let infos = match store.versions("m") {
        Err(ReadError::NotFound { .. }) => Vec::new(),
        infos => infos.unwrap_or_else(|e| panic!("the versions: {e}")),
    };
    for info in infos {
        let table = store.table_at("m", info.version).unwrap_or_else(|e| panic!("version {}: {e}", info.version));
        versions.insert(info.version, rows_of(&table));
    }
    Snapshot { newest, versions }
}

/// Records steps on a store that `before` has prepared, and what readers find after each.
fn record(before: &[Step], steps: &[Step]) -> (Record, Vec<Snapshot>) {
    let dir = temporary_dir();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    before.iter().for_each(|step| step(&store));
    let recording = RecordFs::new(real(), dir.path()).unwrap();
    let recorded = Store::open_with(&path, Arc::new(recording.clone())).unwrap();
    let mut snapshots = vec![snapshot(&store)];
    for step in steps {
        step(&recorded);
        recording.acknowledge();
        snapshots.push(snapshot(&store));
    }
    (recording.record().unwrap(), snapshots)
}

/// Looks at each state of a record. How many there were, or what is wrong with one.
fn explore(record: &Record, effort: Effort, check: impl Fn(&Path, usize)) -> Result<usize, String> {
    let step = if is_long() || record.len() < MOMENTS_MIN { 1 } else { QUICK_STEP };
    let is_tried = |after: usize| (after + effort.seed as usize).is_multiple_of(step) || after == record.len();
    check_states(record, effort, record.states_at(effort, is_tried), check)
}

fn explore_some(
    record: &Record,
    effort: Effort,
    is_wanted: impl Fn(&CutState) -> bool,
    check: impl Fn(&Path, usize),
) -> Result<usize, String> {
    check_states(record, effort, record.states(effort).filter(is_wanted), check)
}

fn check_states(
    record: &Record,
    effort: Effort,
    states_to_check: impl Iterator<Item = CutState>,
    check: impl Fn(&Path, usize),
) -> Result<usize, String> {
    let dir = temporary_dir();
    let cut = dir.path().join("cut");
    let mut states = 0;
    for state in states_to_check {
        state.write_to(&cut).unwrap();
        let checked = catch_unwind(AssertUnwindSafe(|| check(&cut, state.acknowledged)));
        if let Err(panic) = checked {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
            let (from, to) = (state.after_changes.saturating_sub(12), state.after_changes);
            let last = record.texts()[from..to].join("\n  ");
            let seed = effort.seed;
            let found = state.names().map(|name| name.display().to_string()).collect::<Vec<_>>().join(" ");
            return Err(format!(
                "{text}\nPHEON_SEED={seed}, state {states}, acknowledged {}, on the disk: {found}\nafter {last}",
                state.acknowledged
            ));
        }
        states += 1;
    }
    Ok(states)
}

/// What must hold after a cut in the midst of steps with these snapshots.
fn check_store(cut: &Path, acknowledged: usize, snapshots: &[Snapshot]) {
    let until = snapshots.len().min(acknowledged + 2);
    check_allowed(cut, &snapshots[acknowledged..until], &snapshots[..until]);
}

/// The store is as one of these, and the next writer tidies up. Versions that were removed may have come back: they are what
/// they were in one of `earlier`.
fn check_allowed(cut: &Path, allowed: &[Snapshot], earlier: &[Snapshot]) {
    let path = cut.join("store");
    let store = Store::open(&path).unwrap();
    let found = snapshot(&store);
    let is_allowed = allowed.iter().any(|snapshot| snapshot.newest == found.newest);
    assert!(is_allowed, "found {:?}, allowed {allowed:?}", found.newest);
    for (version, rows) in &found.versions {
        let is_known = earlier.iter().any(|snapshot| snapshot.versions.get(version) == Some(rows));
        assert!(is_known, "version {version} has {rows:?}");
    }
    // One that is there before and after the step is there in its midst, too.
    for version in allowed[0].versions.keys().filter(|version| allowed.iter().all(|s| s.versions.contains_key(version)))
    {
        assert!(found.versions.contains_key(version), "version {version} is gone");
    }
    if found.newest.is_some() {
        let report = store.verify("m").unwrap();
        assert!(report.is_ok(), "{report:?}");
    }
    let next = put(&store, "m", &numbered(7, 500), PutOptions::map("k").threads(1)).unwrap();
    assert_eq!(next, found.versions.last_key_value().map_or(1, |(version, _)| version + 1));
    assert_numbered(&store.map("m").unwrap(), 7, 500);
    store.gc("m", 1).unwrap();
    assert_tidy(&path.join("m"), 1, 1);
    let left: Vec<String> = tree(&path).into_iter().filter(|name| !name.starts_with("m")).collect();
    assert_eq!(left, ["pheon.json"]);
}

/// Every state after every change of the steps is good.
fn survives(what: &str, before: &[Step], steps: &[Step]) {
    let (record, snapshots) = record(before, steps);
    assert!(record.len() > 3, "{what}: only {} changes: the recorder does not see the engine", record.len());
    let effort = effort();
    match explore(&record, effort, |cut, acknowledged| check_store(cut, acknowledged, &snapshots)) {
        Ok(states) => println!("{what}: {} changes, {states} states, seed {}", record.len(), effort.seed),
        Err(problem) => panic!("{what}: {problem}"),
    }
}

fn reader(batch: &RecordBatch) -> RecordBatchIterator<[Result<RecordBatch, arrow_schema::ArrowError>; 1]> {
    RecordBatchIterator::new([Ok(batch.clone())], batch.schema())
}

fn map_options() -> PutOptions {
    PutOptions::map("k").threads(1)
}

fn rows(range: std::ops::Range<i64>, base: i64) -> RecordBatch {
    let keys = StringArray::from_iter_values(range.clone().map(|i| format!("row-{i:03}")));
    entries(Arc::new(keys), Arc::new(Int64Array::from_iter_values(range.map(|i| base + i))))
}

fn first(store: &Store) {
    put(store, "m", &numbered(40, 0), map_options()).unwrap();
}

fn second(store: &Store) {
    put(store, "m", &numbered(30, 1000), map_options()).unwrap();
}

fn collect(store: &Store) {
    store.gc("m", 1).unwrap();
}

fn append(store: &Store) {
    let from = store.table("m").unwrap().version() as i64 * 10 + 100;
    store.append("m", reader(&rows(from..from + 5, 0)), ChangeOptions::default().compact(false)).unwrap();
}

fn upsert(store: &Store) {
    store.upsert("m", reader(&numbered(3, -50)), ChangeOptions::default().compact(false)).unwrap();
}

fn delete(store: &Store) {
    let keys = StringArray::from(vec!["key-4", "key-9"]);
    store.delete("m", &keys, ChangeOptions::default().compact(false)).unwrap();
}

fn compact(store: &Store) {
    store.compact("m", ChangeOptions::default()).unwrap();
}

fn compact_and_collect(store: &Store) {
    store.compact("m", ChangeOptions::default().retain(Retention::newest(1))).unwrap();
}

fn append_and_tidy(store: &Store) {
    let from = store.table("m").unwrap().version() as i64 * 10 + 100;
    let options = ChangeOptions::default().retain(Retention::newest(2));
    store.append("m", reader(&rows(from..from + 3, 0)), options).unwrap();
}

fn rollback(store: &Store) {
    store.rollback("m", 1).unwrap();
}

fn drop_it(store: &Store) {
    store.drop_dataset("m").unwrap();
}

fn in_parts(store: &Store) {
    let mut writer = store.writer_of_parts("m", map_options().memory_limit_bytes(64 << 20), None).unwrap();
    for range in [0..20, 20..45] {
        let mut part = writer.part(None).unwrap().writer(PartOptions::default()).unwrap();
        part.write(&rows(range, 0)).unwrap();
        part.finish().unwrap();
    }
    writer.commit().unwrap();
}

/// A kind of write: what it is called, what was there before, what is done.
type Workload = (&'static str, &'static [Step], &'static [Step]);

const WORKLOADS: &[Workload] = &[
    ("first put", &[], &[first]),
    ("put", &[first], &[second]),
    ("gc", &[first, second, first, append], &[collect]),
    ("append, upsert, delete", &[first], &[append, upsert, delete]),
    ("compact", &[first, append, upsert], &[compact]),
    ("compact and collect", &[first, append, delete, append], &[compact_and_collect]),
    ("append with compaction", &[first, append, append, append, append], &[append_and_tidy, append_and_tidy]),
    ("rollback", &[first, second], &[rollback]),
    ("drop", &[first, second], &[drop_it]),
    ("drop and put", &[first, second], &[drop_it, first]),
    ("parts", &[first], &[in_parts]),
];

#[test]
fn every_power_cut_leaves_the_version_before_or_after() {
    for (what, before, steps) in WORKLOADS {
        survives(what, before, steps);
    }
}

#[test]
fn power_cuts_while_a_store_is_made_leave_one_or_none() {
    let dir = temporary_dir();
    let recording = RecordFs::new(real(), dir.path()).unwrap();
    let store = Store::open_with(dir.path().join("store"), Arc::new(recording.clone())).unwrap();
    recording.acknowledge();
    first(&store);
    recording.acknowledge();
    let forty: Rows = rows_of(&store.table("m").unwrap());
    let record = recording.record().unwrap();
    let checked = explore(&record, effort(), |cut, acknowledged| {
        assert!(acknowledged == 0 || cut.join("store/pheon.json").exists());
        let store = Store::open(cut.join("store")).unwrap();
        let found = snapshot(&store);
        assert!(found.newest.is_none() || found.newest.as_ref() == Some(&forty));
        assert!(acknowledged < 2 || found.newest.is_some());
        second(&store);
        assert_numbered(&store.map("m").unwrap(), 30, 1000);
    });
    checked.unwrap_or_else(|problem| panic!("{problem}"));
}

const PART_NAMES: [&str; 2] = ["a", "b"];

fn resumed(store: &Store) -> Result<pheon::Writer, WriteError> {
    let options = map_options().memory_limit_bytes(64 << 20).on_duplicate(OnDuplicate::Last);
    store.writer_of_parts("m", options, Some(Resume::default()))
}

fn write_part(writer: &mut pheon::Writer, i: usize) {
    let part = writer.part(Some(PART_NAMES[i])).unwrap();
    if part.finished_rows().unwrap().is_none() {
        let mut part = part.writer(PartOptions::default()).unwrap();
        part.write(&rows(i as i64 * 20..i as i64 * 20 + 20, 0)).unwrap();
        part.finish().unwrap();
    }
}

/// A build in parts that is interrupted twice: finished parts are there when it is taken up again.
fn recorded_resume() -> Record {
    let dir = temporary_dir();
    let path = dir.path().join("store");
    first(&Store::open(&path).unwrap());
    let recording = RecordFs::new(real(), dir.path()).unwrap();
    let store = Store::open_with(&path, Arc::new(recording.clone())).unwrap();
    for i in 0..2 {
        let mut writer = resumed(&store).unwrap();
        (0..=i).for_each(|i| write_part(&mut writer, i));
        recording.acknowledge();
    }
    let mut writer = resumed(&store).unwrap();
    (0..2).for_each(|i| write_part(&mut writer, i));
    writer.commit().unwrap();
    recording.acknowledge();
    recording.record().unwrap()
}

fn check_resume(cut: &Path, acknowledged: usize) {
    let whole: Rows = (0..40).map(|i| (format!("row-{i:03}"), i)).collect();
    let store = Store::open(cut.join("store")).unwrap();
    let found = snapshot(&store).newest.unwrap();
    let is_published = found == whole;
    assert!(is_published || found.len() == 40 && found.contains_key("key-0"), "{found:?}");
    assert!(is_published || acknowledged < 3);
    assert!(store.verify("m").unwrap().is_ok());
    let mut writer = resumed(&store).unwrap();
    for (i, name) in PART_NAMES.iter().enumerate() {
        let rows = writer.part(Some(name)).unwrap().finished_rows().unwrap();
        assert!(rows.is_none_or(|rows| rows == 20));
        assert!(is_published || rows.is_some() || acknowledged <= i, "part {name} is lost");
        assert!(!is_published || rows.is_none(), "part {name} of a build that is over is taken up");
    }
    drop(writer);
    let mut writer = resumed(&store).unwrap();
    (0..2).for_each(|i| write_part(&mut writer, i));
    writer.commit().unwrap();
    assert_eq!(snapshot(&store).newest.as_ref(), Some(&whole));
    store.gc("m", 1).unwrap();
    assert_tidy(&cut.join("store/m"), 1, 1);
}

#[test]
fn power_cuts_take_no_finished_part_of_a_build_that_is_resumed() {
    let record = recorded_resume();
    let states = explore(&record, effort(), check_resume).unwrap_or_else(|problem| panic!("{problem}"));
    println!("{} changes, {states} states", record.len());
}

/// An interrupted build whose parts are thrown away by another writer.
#[test]
fn power_cuts_while_parts_are_discarded_leave_all_or_none() {
    for discard in [second as Step, in_parts, drop_it] {
        let dir = temporary_dir();
        let path = dir.path().join("store");
        let store = Store::open(&path).unwrap();
        first(&store);
        let mut writer = resumed(&store).unwrap();
        (0..2).for_each(|i| write_part(&mut writer, i));
        drop(writer);
        let recording = RecordFs::new(real(), dir.path()).unwrap();
        discard(&Store::open_with(&path, Arc::new(recording.clone())).unwrap());
        let record = recording.record().unwrap();
        let checked = explore(&record, effort(), |cut, _| {
            let store = Store::open(cut.join("store")).unwrap();
            let mut writer = resumed(&store).unwrap();
            (0..2).for_each(|i| write_part(&mut writer, i));
            writer.commit().unwrap();
            assert_eq!(rows_of(&store.table("m").unwrap()).len(), 40);
            assert!(store.verify("m").unwrap().is_ok());
            store.gc("m", 1).unwrap();
            assert_tidy(&cut.join("store/m"), 1, 1);
        });
        checked.unwrap_or_else(|problem| panic!("{problem}"));
    }
}

/// A writer fails anywhere, as one that is killed; what it did not sync the next one does, before it is told that it is done.
#[test]
fn what_a_failed_writer_did_not_sync_the_next_one_does() {
    let cases: [(&[Step], Step, Step); 3] =
        [(&[], first, second), (&[first], second, collect), (&[first], append, compact)];
    for (before, failing, next) in cases {
        for nth in (1..).step_by(if is_long() { 1 } else { 3 }) {
            let dir = temporary_dir();
            let path = dir.path().join("store");
            let store = Store::open(&path).unwrap();
            before.iter().for_each(|step| step(&store));
            let faulty = FaultFs::new(real());
            let recording = RecordFs::new(Arc::new(faulty.clone()), dir.path()).unwrap();
            let recorded = Store::open_with(&path, Arc::new(recording.clone())).unwrap();
            let old = snapshot(&store);
            faulty.fail_nth(nth, None, EIO, Lasts::ForEver);
            // Its panic is the error.
            let failed = catch_unwind(AssertUnwindSafe(|| failing(&recorded))).is_err();
            faulty.heal();
            let left = snapshot(&store);
            let begun = recording.record().unwrap().len();
            next(&recorded);
            recording.acknowledge();
            let new = snapshot(&store);
            let record = recording.record().unwrap();
            let states = Effort { states_max: if is_long() { 40 } else { 6 }, ..effort() };
            let checked = explore_some(
                &record,
                states,
                |state| state.after_changes >= begun,
                |cut, acknowledged| {
                    let all = [new.clone(), left.clone(), old.clone()];
                    check_allowed(cut, if acknowledged == 1 { &all[..1] } else { &all }, &all);
                },
            );
            checked.unwrap_or_else(|problem| panic!("operation {nth} failed: {problem}"));
            if !failed {
                assert!(nth > 10, "only {nth} operations");
                break;
            }
        }
    }
}

/// The syncs of a record whose lack nobody notices. One that is done twice, in case the first was of a writer that was
/// killed, must be missed if neither is.
fn unneeded(what: &str, record: &Record, check: impl Fn(&Path, usize)) -> Vec<String> {
    let effort = Effort { states_max: 24, seed: 1 };
    let is_missed = |syncs: &[usize]| explore_some(&record.without(syncs), effort, |_| true, &check).is_err();
    let syncs = record.syncs();
    let (alone, others): (Vec<usize>, Vec<usize>) = syncs.iter().partition(|&&at| is_missed(&[at]));
    println!("{what}: of {} syncs the lack of each of {} is noticed", syncs.len(), alone.len());
    let both = |at: &usize| !is_missed(&record.same_as(*at));
    others.iter().filter(|at| both(at)).map(|&at| format!("{what}, change {at}: {}", record.texts()[at])).collect()
}

/// A disk that ignores a sync loses something, whichever it is: these tests notice each of them.
#[test]
fn every_sync_is_needed_and_its_lack_is_noticed() {
    let workloads = if is_long() { WORKLOADS } else { &WORKLOADS[1..2] };
    let mut found = Vec::new();
    for (what, before, steps) in workloads {
        let (record, snapshots) = record(before, steps);
        found.extend(unneeded(what, &record, |cut, acknowledged| check_store(cut, acknowledged, &snapshots)));
    }
    if is_long() {
        found.extend(unneeded("resumed parts", &recorded_resume(), check_resume));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
