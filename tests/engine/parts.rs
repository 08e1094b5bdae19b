//! Builds in parts: who may write when, what a commit takes, what an interrupted build leaves and another takes up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use pheon::{
    OnDuplicate, Part, PartOptions, PartWriter, PutOptions, ReadError, Resume, Retention, Store, Unfinished,
    WriteError, Writer,
};
use pheon_os::fs::fault::{FaultFs, Lasts, Op};

use crate::faults::{assert_fits, kinds_of_failure};
use crate::scratch::{Scratch, assert_numbered, assert_tidy, entries, numbered, tree};

fn options() -> PutOptions {
    PutOptions::map("k").threads(1).memory_limit_bytes(64 << 20).lock_timeout(Duration::from_secs(1))
}

fn begin(store: &Store) -> Writer {
    store.writer_of_parts("m", options(), None).unwrap()
}

fn resume(store: &Store) -> Writer {
    store.writer_of_parts("m", options(), Some(Resume::default())).unwrap()
}

/// Writes a part as another process would: from its text.
fn fill(part: &Part, batch: &RecordBatch) {
    let mut writer = open(part).unwrap();
    writer.write(batch).unwrap();
    assert_eq!(writer.finish().unwrap(), batch.num_rows() as u64);
}

fn open(part: &Part) -> Result<PartWriter, WriteError> {
    Part::from_text(&part.to_text().unwrap()).unwrap().writer(PartOptions::default())
}

/// Rows `from..to` of `n` numbered ones.
fn slice(n: usize, from: usize, to: usize) -> RecordBatch {
    numbered(n, 0).slice(from, to - from)
}

#[track_caller]
fn assert_part(error: &WriteError, name: &str, text: &str) {
    let WriteError::Part { dataset, part, .. } = error else { panic!("{error:?}") };
    assert_eq!((dataset.as_str(), part.as_str()), ("m", name));
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn own_rows_and_parts_become_one_version() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    writer.write(&slice(300, 0, 50)).unwrap();
    let parts = [writer.part(None).unwrap(), writer.part(Some("two")).unwrap(), writer.part(None).unwrap()];
    assert_eq!(parts.each_ref().map(Part::name), ["1", "two", "3"]);
    // In any order, and while the writer goes on.
    fill(&parts[2], &slice(300, 200, 300));
    fill(&parts[0], &slice(300, 50, 120));
    writer.write(&slice(300, 120, 130)).unwrap();
    assert_part(&writer.check_parts().unwrap_err(), "two", "never begun");
    fill(&parts[1], &slice(300, 130, 200));
    assert_eq!(parts[1].finished_rows().unwrap(), Some(70));
    assert!(scratch.store.map("m").is_err(), "nothing is visible before the commit");
    assert_eq!(writer.rows(), 60);
    assert_eq!(writer.commit().unwrap(), 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 300, 0);
    assert!(scratch.store.verify("m").unwrap().is_ok());
    assert_tidy(&scratch.path().join("m"), 1, 1);
    assert_eq!(parts[1].finished_rows().unwrap(), None);
}

#[test]
fn repeated_keys_go_by_the_order_in_which_parts_were_handed_out() {
    let row = |value: i64| entries(Arc::new(StringArray::from(vec!["same"])), Arc::new(Int64Array::from(vec![value])));
    for (on_duplicate, want) in [(OnDuplicate::First, 0), (OnDuplicate::Last, 2)] {
        let scratch = Scratch::new();
        let mut writer = scratch.store.writer_of_parts("m", options().on_duplicate(on_duplicate), None).unwrap();
        let parts = [writer.part(None).unwrap(), writer.part(None).unwrap()];
        fill(&parts[1], &row(2));
        fill(&parts[0], &row(1));
        writer.write(&row(0)).unwrap();
        writer.commit().unwrap();
        let map = scratch.store.map("m").unwrap();
        assert!(matches!(map.get("same").unwrap(), Some(pheon::Value::Int(v)) if v == want));
    }
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let parts = [writer.part(Some("a")).unwrap(), writer.part(Some("b")).unwrap()];
    fill(&parts[0], &row(1));
    fill(&parts[1], &row(2));
    let e = writer.commit().unwrap_err().to_string();
    assert!(e.contains("row 0 of part \"a\"") && e.contains("row 0 of part \"b\"") && e.contains("\"m\""), "{e}");
    let mut writer = begin(&scratch.store);
    let part = writer.part(Some("a")).unwrap();
    let mut rows = open(&part).unwrap();
    rows.write(&row(1)).unwrap();
    rows.write(&row(1)).unwrap();
    let e = rows.finish().unwrap_err().to_string();
    assert!(e.contains("row 0 of part \"a\"") && e.contains("row 1 of part \"a\""), "{e}");
    drop(writer);
    assert_eq!(tree(&scratch.path()), ["pheon.json"]);
}

#[test]
fn a_part_has_one_writer_and_a_commit_none() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let parts = [writer.part(None).unwrap(), writer.part(None).unwrap()];
    fill(&parts[0], &slice(10, 0, 5));
    assert_part(&open(&parts[0]).unwrap_err(), "1", "finished already");
    let mut held = open(&parts[1]).unwrap();
    assert_part(&open(&parts[1]).unwrap_err(), "2", "being written by this process");
    held.write(&slice(10, 5, 10)).unwrap();
    assert_part(&writer.check_parts().unwrap_err(), "2", "still being written");
    assert_part(&writer.commit().unwrap_err(), "2", "still being written");
    assert!(!scratch.store.contains("m").unwrap());
    // Its build is over, and says so at the next chance.
    assert_part(&held.write(&slice(10, 5, 10)).unwrap_err(), "2", "is over");
    drop(held);
    assert_eq!(tree(&scratch.path()), ["pheon.json"]);
}

#[test]
fn a_part_that_failed_or_was_given_up_can_be_written_again() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let part = writer.part(None).unwrap();
    let mut rows = open(&part).unwrap();
    rows.write(&slice(10, 0, 5)).unwrap();
    let other = entries(Arc::new(StringArray::from(vec!["x"])), Arc::new(Int32Array::from(vec![1])));
    let e = rows.write(&other).unwrap_err().to_string();
    assert!(e.contains("part \"1\"") && e.contains("Int32"), "{e}");
    assert!(rows.finish().is_err());
    assert_part(&writer.check_parts().unwrap_err(), "1", "failed or was given up");
    fill(&part, &slice(10, 0, 10));
    writer.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 10, 0);
}

#[test]
fn unfinished_parts_are_left_out_when_asked_to() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let parts = [writer.part(None).unwrap(), writer.part(None).unwrap(), writer.part(None).unwrap()];
    fill(&parts[2], &numbered(10, 0));
    let mut late = open(&parts[0]).unwrap();
    late.write(&numbered(20, 7)).unwrap();
    writer.commit_with(Unfinished::Skip).unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 10, 0);
    assert_part(&late.finish().unwrap_err(), "1", "is over");
    assert_part(&open(&parts[1]).unwrap_err(), "2", "is over");
    assert_tidy(&scratch.path().join("m"), 1, 1);
}

#[test]
fn parts_after_rows_have_their_columns() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let before = writer.part(None).unwrap();
    writer.write(&slice(20, 0, 10)).unwrap();
    let after = writer.part(None).unwrap();
    assert!(before.schema().is_none() && after.schema().is_some());
    let narrow = |from: usize, to: usize| {
        let wide = slice(20, from, to);
        let values = arrow_cast::cast(wide.column(1), &arrow_schema::DataType::Int32).unwrap();
        entries(wide.column(0).clone(), values)
    };
    fill(&after, &narrow(10, 15));
    fill(&before, &narrow(15, 20));
    let e = writer.commit().unwrap_err();
    assert!(matches!(e, WriteError::Schema { .. }), "{e:?}");
    let e = e.to_string();
    assert!(e.contains("part \"1\"") && e.contains("Int32") && e.contains("Int64"), "{e}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    writer.part(Some("1")).unwrap();
    writer.part(Some("x")).unwrap();
    for name in ["x", "", &"y".repeat(10_000)] {
        assert!(matches!(writer.part(Some(name)), Err(WriteError::Options { .. })), "{name:.9}");
    }
    drop(writer);
    assert!(matches!(begin(&scratch.store).commit(), Err(WriteError::Options { .. })), "no columns at all");
    assert!(matches!(resume(&scratch.store).part(None), Err(WriteError::Options { .. })), "no name to find it by");
    assert_eq!(tree(&scratch.path()), ["pheon.json"]);
    scratch.put("m", &numbered(3, 0));
    let schema = numbered(3, 0).schema();
    let mut appender = scratch.store.appender("m", &schema, Default::default()).unwrap();
    assert!(matches!(appender.part(None), Err(WriteError::Options { .. })));
    assert!(Part::from_text("{}").is_err());
    let bad = options().memory_limit_bytes(1);
    assert!(matches!(scratch.store.writer_of_parts("n", bad, None), Err(WriteError::Options { .. })));
}

#[test]
fn empty_parts_are_parts_too() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let parts = [writer.part(None).unwrap(), writer.part(None).unwrap(), writer.part(None).unwrap()];
    assert_eq!(open(&parts[0]).unwrap().finish().unwrap(), 0);
    fill(&parts[1], &numbered(5, 0).slice(0, 0));
    fill(&parts[2], &numbered(5, 0));
    writer.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 5, 0);
    let mut writer = begin(&scratch.store);
    fill(&writer.part(None).unwrap(), &numbered(5, 0).slice(0, 0));
    writer.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 0, 0);
}

/// Damages one byte of each file of a finished part in turn; none may go unseen.
#[test]
fn a_damaged_part_is_named_and_nothing_is_published() {
    let scratch = Scratch::new();
    let mut writer = resume(&scratch.store);
    fill(&writer.part(Some("good")).unwrap(), &slice(900, 0, 400));
    let bad = writer.part(Some("bad")).unwrap();
    let before = part_folders(&scratch);
    fill(&bad, &slice(900, 400, 900));
    let folder = part_folders(&scratch).into_iter().find(|folder| !before.contains(folder)).unwrap();
    drop(writer);
    let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let commit = || {
        let mut writer = scratch.store.writer_of_parts("m", options(), Some(Resume::default()))?;
        writer.part(Some("good"))?;
        writer.part(Some("bad"))?;
        writer.commit()
    };
    for file in files {
        let good = std::fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(good.len() / 60 + 1).chain([good.len() - 1]) {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            std::fs::write(&file, &damaged).unwrap();
            let e = commit().unwrap_err();
            assert!(matches!(&e, WriteError::Read(ReadError::Corrupt { .. })), "byte {at}: {e:?}");
            assert!(e.to_string().contains("part \"bad\""), "{e}");
            assert!(!scratch.store.contains("m").unwrap());
        }
        std::fs::write(&file, &good[..good.len() / 2]).unwrap();
        assert!(matches!(commit().unwrap_err(), WriteError::Read(ReadError::Corrupt { .. })));
        std::fs::write(&file, &good).unwrap();
    }
    assert_eq!(commit().unwrap(), 1);
    assert_numbered(&scratch.store.map("m").unwrap(), 900, 0);
}

fn part_folders(scratch: &Scratch) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(scratch.path().join("m/resume")).unwrap().map(|e| e.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn a_build_is_taken_up_where_it_was_interrupted() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(3, 100));
    let mut writer = resume(&scratch.store);
    fill(&writer.part(Some("a")).unwrap(), &slice(60, 0, 20));
    let given_up = writer.part(Some("b")).unwrap();
    open(&given_up).unwrap().write(&slice(60, 20, 40)).unwrap();
    writer.write(&slice(60, 40, 60)).unwrap();
    drop(writer);
    assert_numbered(&scratch.store.map("m").unwrap(), 3, 100);
    // Changes and collections of leftovers go on meanwhile.
    scratch.store.append("m", reader(&entries_one("more", 1)), Default::default()).unwrap();
    assert_eq!(scratch.store.gc("m", 1).unwrap().leftovers_removed, 0);

    let mut writer = resume(&scratch.store);
    let (a, b) = (writer.part(Some("a")).unwrap(), writer.part(Some("b")).unwrap());
    assert_eq!((a.finished_rows().unwrap(), b.finished_rows().unwrap()), (Some(20), None));
    fill(&b, &slice(60, 20, 40));
    drop(writer);
    let mut writer = resume(&scratch.store);
    // The order is that of these calls, and one that is not asked for is not merged.
    writer.part(Some("b")).unwrap();
    let c = writer.part(Some("c")).unwrap();
    fill(&c, &numbered(0, 0));
    writer.write(&slice(60, 0, 20)).unwrap();
    writer.write(&slice(60, 40, 60)).unwrap();
    assert_eq!(writer.commit().unwrap(), 3);
    assert_numbered(&scratch.store.map("m").unwrap(), 60, 0);
    scratch.store.gc("m", 1).unwrap();
    assert_tidy(&scratch.path().join("m"), 1, 1);
}

fn entries_one(key: &str, value: i64) -> RecordBatch {
    entries(Arc::new(StringArray::from(vec![key])), Arc::new(Int64Array::from(vec![value])))
}

fn reader(batch: &RecordBatch) -> impl arrow_array::RecordBatchReader {
    arrow_array::RecordBatchIterator::new([Ok(batch.clone())], batch.schema())
}

/// A build with one finished part, interrupted.
fn interrupted(scratch: &Scratch) {
    let mut writer = resume(&scratch.store);
    fill(&writer.part(Some("a")).unwrap(), &numbered(20, 0));
    drop(writer);
    assert!(scratch.path().join("m/resume").is_dir());
}

#[test]
fn another_build_than_the_interrupted_one_is_refused() {
    let scratch = Scratch::new();
    interrupted(&scratch);
    let problem = |options: PutOptions, resume: Resume| {
        let e = scratch.store.writer_of_parts("m", options, Some(resume)).unwrap_err();
        assert!(matches!(e, WriteError::Options { .. }), "{e:?}");
        e.to_string()
    };
    let e = problem(options().on_duplicate(OnDuplicate::Last), Resume::default());
    assert!(e.contains("on_duplicate \"error\"") && e.contains("\"last\"") && e.contains("without resume"), "{e}");
    assert!(problem(options().unique(false), Resume::default()).contains("unique true"));
    let mut other = options();
    other.key = vec!["v".to_owned()];
    assert!(problem(other, Resume::default()).contains("the key [\"k\"]"));
    assert!(problem(options(), Resume::default().fact("reading", "csv")).contains("reading none, this one has csv"));
    let mut writer = resume(&scratch.store);
    writer.write(&entries(Arc::new(StringArray::from(vec!["x"])), Arc::new(Int32Array::from(vec![1])))).unwrap();
    writer.part(Some("a")).unwrap();
    assert!(matches!(writer.commit(), Err(WriteError::Schema { .. })));
    let mut writer = resume(&scratch.store);
    writer.part(Some("a")).unwrap();
    writer.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 20, 0);
}

#[test]
fn what_an_interrupted_build_left_goes_in_many_ways() {
    let left = |scratch: &Scratch| scratch.path().join("m/resume").exists();
    let old = Retention::newest(1).max_age(Duration::ZERO);
    type Way<'a> = (&'a str, &'a dyn Fn(&Store));
    let ways: [Way<'_>; 4] = [
        ("a build that starts again", &|store| drop(store.writer_of_parts("m", options(), None).unwrap())),
        ("a put", &|store| assert!(store.put("m", reader(&numbered(2, 0)), options()).is_ok())),
        ("gc of what is old", &|store| drop(store.gc_with("m", old).unwrap())),
        ("drop", &|store| store.drop_dataset("m").unwrap()),
    ];
    for (name, way) in ways {
        for published in [false, true] {
            let scratch = Scratch::new();
            if published {
                scratch.put("m", &numbered(2, 0));
            }
            interrupted(&scratch);
            way(&scratch.store);
            assert!(!left(&scratch), "{name}");
            assert_eq!(scratch.path().join("m").exists(), name != "drop" && (published || name == "a put"), "{name}");
        }
    }
    let scratch = Scratch::new();
    interrupted(&scratch);
    scratch.put("other", &numbered(1, 0));
    scratch.store.gc("other", 1).unwrap();
    assert!(left(&scratch), "it is young");
    scratch.store.gc_with("other", old).unwrap();
    assert!(!scratch.path().join("m").exists(), "gc of another dataset takes unfinished first builds with it");
    // While a part of it is being written, it is not old.
    let mut writer = resume(&scratch.store);
    fill(&writer.part(Some("a")).unwrap(), &numbered(2, 0));
    let held = open(&writer.part(Some("b")).unwrap()).unwrap();
    drop(writer);
    scratch.store.gc_with("m", old).unwrap();
    assert!(left(&scratch));
    drop(held);
    scratch.store.gc_with("m", old).unwrap();
    assert!(!left(&scratch));
}

/// A writer that is killed between publishing and tidying up must not have its parts merged again.
#[test]
fn parts_of_a_committed_build_are_not_taken_up() {
    let scratch = Scratch::new();
    interrupted(&scratch);
    let (folder, copy) = (scratch.path().join("m/resume"), scratch.path().with_extension("copy"));
    copy_all(&folder, &copy);
    let mut writer = resume(&scratch.store);
    writer.part(Some("a")).unwrap();
    writer.commit().unwrap();
    copy_all(&copy, &folder);
    let mut writer = resume(&scratch.store);
    assert_eq!(writer.part(Some("a")).unwrap().finished_rows().unwrap(), None);
    drop(writer);
    assert_tidy(&scratch.path().join("m"), 1, 1);
    copy_all(&copy, &folder);
    let report = scratch.store.gc("m", 1).unwrap();
    assert_eq!((report.leftovers_removed, report.segments_removed), (1, 0));
    assert!(report.bytes_freed > 0 && !folder.exists(), "{report:?}");
    std::fs::remove_dir_all(copy).unwrap();
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file operation of the main writer fails in turn: finished parts stay, and another attempt publishes them.
#[test]
fn a_failing_commit_keeps_the_parts_of_a_build_that_can_be_resumed() {
    for (errno, lasts, step) in kinds_of_failure() {
        for nth in (1..).step_by(step as usize) {
            let scratch = Scratch::new();
            let mut writer = resume(&scratch.store);
            fill(&writer.part(Some("a")).unwrap(), &slice(40, 0, 20));
            drop(writer);
            let faulty = FaultFs::new(pheon_os::fs::real());
            let store = Store::open_with(scratch.path(), Arc::new(faulty.clone())).unwrap();
            let begun = faulty.calls();
            faulty.fail_nth(nth, None, errno, lasts);
            let attempt = |store: &Store| {
                let mut writer = store.writer_of_parts("m", options(), Some(Resume::default()))?;
                writer.part(Some("a"))?;
                writer.write(&slice(40, 20, 40))?;
                writer.commit()
            };
            let result = attempt(&store);
            let calls = faulty.calls() - begun;
            faulty.heal();
            if let Err(e) = &result {
                assert_fits(e, errno, faulty.failed()[0]);
            }
            if scratch.store.contains("m").unwrap() {
                assert_numbered(&scratch.store.map("m").unwrap(), 40, 0);
            } else {
                assert!(result.is_err());
                attempt(&scratch.store).unwrap_or_else(|e| panic!("operation {nth} took the part with it: {e}"));
                assert_numbered(&scratch.store.map("m").unwrap(), 40, 0);
            }
            scratch.put("m", &numbered(3, 0));
            scratch.store.gc("m", 1).unwrap();
            assert_tidy(&scratch.path().join("m"), 1, 1);
            if nth > calls {
                assert!(nth > 20, "only {nth} operations");
                break;
            }
        }
    }
}

/// Every file operation of a part's writer fails in turn: there is no finished part, and it can be written again.
#[test]
fn a_failing_part_is_not_finished() {
    kinds_of_failure().for_each(|(errno, lasts, step)| fail_each_operation_of_a_part(errno, lasts, step as usize));
}

fn fail_each_operation_of_a_part(errno: i32, lasts: Lasts, step: usize) {
    const EINTR: i32 = 4;
    let scratch = Scratch::new();
    for nth in (1..).step_by(step) {
        let faulty = FaultFs::new(pheon_os::fs::real());
        let store = Store::open_with(scratch.path(), Arc::new(faulty.clone())).unwrap();
        let mut writer = store.writer_of_parts("m", options(), Some(Resume::default())).unwrap();
        let part = writer.part(Some("a")).unwrap();
        faulty.fail_nth(nth, None, errno, lasts);
        let done = (|| {
            let mut rows = part.writer(PartOptions::default())?;
            rows.write(&numbered(30, 0))?;
            rows.finish()
        })();
        faulty.heal();
        let failed = faulty.failed().first().copied();
        match &done {
            Ok(_) => {
                assert!(failed.is_none_or(|op| op == Op::Metadata || errno == EINTR && op.is_restarted()), "{failed:?}")
            }
            // The part may have its name when the folder cannot be synced.
            Err(_) if part.finished_rows().unwrap().is_some() => assert_eq!(failed, Some(Op::SyncDir)),
            Err(e) => {
                assert_fits(e, errno, failed.unwrap());
                fill(&part, &numbered(30, 0));
            }
        }
        writer.commit().unwrap();
        assert_numbered(&scratch.store.map("m").unwrap(), 30, 0);
        store.gc("m", 1).unwrap();
        assert_tidy(&scratch.path().join("m"), 1, 1);
        if failed.is_none() {
            assert!(nth > 8, "only {nth} operations");
            break;
        }
    }
}

/// Without a free descriptor a build fails; its finished parts stay.
#[test]
fn a_build_that_runs_out_of_descriptors_keeps_its_finished_parts() {
    const EMFILE: i32 = 24;
    let scratch = Scratch::new();
    let faulty = FaultFs::new(pheon_os::fs::real());
    let store = Store::open_with(scratch.path(), Arc::new(faulty.clone())).unwrap();
    let mut writer = resume(&store);
    fill(&writer.part(Some("a")).unwrap(), &slice(40, 0, 20));
    faulty.fail_nth(1, None, EMFILE, Lasts::ForEver);
    let error = writer.commit().unwrap_err();
    assert!(
        matches!(&error, WriteError::Io { source, .. } | WriteError::Read(ReadError::Io { source, .. }) if source.raw_os_error() == Some(EMFILE)),
        "{error:?}"
    );
    assert!(store.gc_with("m", Retention::newest(1).max_age(Duration::ZERO)).is_err());
    faulty.heal();
    assert_eq!(resume(&store).part(Some("a")).unwrap().finished_rows().unwrap(), Some(20));
}

/// A power cut at any moment leaves a part that is whole or none.
#[test]
fn a_part_of_a_build_that_can_be_resumed_is_synced_before_it_has_its_name() {
    let scratch = Scratch::new();
    let faulty = FaultFs::new(pheon_os::fs::real());
    let store = Store::open_with(scratch.path(), Arc::new(faulty.clone())).unwrap();
    let synced = |resume: Option<Resume>| {
        let mut writer = store.writer_of_parts("m", options(), resume).unwrap();
        let part = writer.part(Some("a")).unwrap();
        let begun = faulty.log().len();
        let mut rows = part.writer(PartOptions::default()).unwrap();
        rows.write(&numbered(30, 0)).unwrap();
        rows.finish().unwrap();
        let log = faulty.log().split_off(begun);
        let what = |(op, path): &(Op, PathBuf)| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let kind = ["run", "part.json", "resume"].into_iter().find(|kind| name.contains(kind)).unwrap_or("folder");
            matches!(op, Op::Sync | Op::SyncDir | Op::Rename).then(|| format!("{op:?} {kind}"))
        };
        log.iter().filter_map(what).collect::<Vec<_>>()
    };
    let want = ["Sync run", "Sync part.json", "SyncDir folder", "Rename folder", "SyncDir resume"];
    assert_eq!(synced(Some(Resume::default())), want);
    assert_eq!(synced(None), ["Rename folder"], "nothing of it survives a power cut");
}

#[test]
fn a_part_of_an_earlier_build_is_over_though_another_one_has_its_folder() {
    let scratch = Scratch::new();
    let mut first = resume(&scratch.store);
    let (stale, begun) = (first.part(Some("a")).unwrap(), first.part(Some("b")).unwrap());
    let mut rows = open(&begun).unwrap();
    rows.write(&slice(10, 0, 5)).unwrap();
    let kept = first.part(Some("kept")).unwrap();
    fill(&kept, &slice(10, 5, 10));
    assert_eq!(first.commit_with(Unfinished::Skip).unwrap(), 1);
    let mut second = resume(&scratch.store);
    let parts = [second.part(Some("a")).unwrap(), second.part(Some("b")).unwrap()];
    assert_part(&open(&stale).err().unwrap(), "a", "over");
    assert_part(&rows.finish().unwrap_err(), "b", "over");
    fill(&parts[0], &slice(20, 0, 10));
    fill(&parts[1], &slice(20, 10, 20));
    second.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 20, 0);
}

#[test]
fn children_of_structs_are_told_by_their_names() {
    let row = |key: &str, first: &str, second: &str| {
        let number = |v: f64| Arc::new(Float64Array::from(vec![v])) as ArrayRef;
        let pair = StructArray::try_from(vec![(first, number(1.0)), (second, number(2.0))]).unwrap();
        entries(Arc::new(StringArray::from(vec![key])), Arc::new(pair))
    };
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let parts = [writer.part(None).unwrap(), writer.part(None).unwrap()];
    fill(&parts[0], &row("a", "lat", "lon"));
    fill(&parts[1], &row("b", "lon", "lat"));
    let e = writer.commit().unwrap_err().to_string();
    assert!(e.contains("part \"2\"") && e.contains("Parts must agree"), "{e}");
}

#[test]
fn what_was_kept_stays_while_a_manifest_cannot_be_read() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(3, 0));
    let mut writer = resume(&scratch.store);
    let part = writer.part(Some("a")).unwrap();
    fill(&part, &slice(10, 0, 10));
    drop(writer);
    let dir = scratch.path().join("m");
    // As a writer leaves it that is killed before its manifest has its name; and an older manifest is damaged.
    let build: String = std::fs::read_to_string(dir.join("resume/build.json")).unwrap();
    let id = build.split("\"id\":\"").nth(1).unwrap()[..16].to_owned();
    std::fs::create_dir(dir.join(format!("seg-0000000000000002{id}"))).unwrap();
    let manifest = dir.join("manifest-000001.json");
    let good = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, b"{}").unwrap();
    let e = scratch.store.writer_of_parts("m", options(), Some(Resume::default())).err().unwrap().to_string();
    assert!(e.contains("cannot be told"), "{e}");
    assert_eq!(part.finished_rows().unwrap(), Some(10));
    std::fs::write(&manifest, good).unwrap();
    let mut writer = resume(&scratch.store);
    assert_eq!(writer.part(Some("a")).unwrap().finished_rows().unwrap(), Some(10));
    writer.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 10, 0);
}

#[test]
fn a_put_that_fails_and_a_change_leave_an_interrupted_build_alone() {
    let scratch = Scratch::new();
    scratch.put("m", &numbered(3, 0));
    interrupted(&scratch);
    let kept = || scratch.path().join("m/resume").exists();
    let twice = entries(Arc::new(StringArray::from(vec!["x", "x"])), Arc::new(Int64Array::from(vec![1, 2])));
    assert!(matches!(scratch.store.put("m", reader(&twice), options()), Err(WriteError::DuplicateKey { .. })));
    assert!(kept());
    let mut change = pheon::ChangeOptions::default();
    change.retain = Some(Retention::newest(1).max_age(Duration::ZERO));
    scratch.store.upsert("m", reader(&slice(20, 3, 4)), change).unwrap();
    assert!(kept());
    scratch.put("m", &numbered(2, 0));
    assert!(!kept());
}

#[test]
fn batches_of_a_part_may_have_their_columns_in_any_order() {
    let scratch = Scratch::new();
    let mut writer = begin(&scratch.store);
    let batch = |names: [&str; 3], from: i64| {
        let column = |name: &str| match name {
            "k" => Arc::new(StringArray::from(vec![format!("key {from}")])) as ArrayRef,
            "a" => Arc::new(Int64Array::from(vec![from])),
            _ => Arc::new(Int64Array::from(vec![-from])),
        };
        RecordBatch::try_from_iter(names.map(|name| (name, column(name)))).unwrap()
    };
    writer.write(&batch(["k", "a", "b"], 1)).unwrap();
    let part = writer.part(None).unwrap();
    let mut rows = open(&part).unwrap();
    for (number, names) in [["k", "b", "a"], ["a", "b", "k"], ["k", "a", "b"]].into_iter().enumerate() {
        rows.write(&batch(names, number as i64 + 2)).unwrap();
    }
    rows.finish().unwrap();
    writer.commit().unwrap();
    let map = scratch.store.map("m").unwrap();
    for number in 1..5 {
        let row = map.find(format!("key {number}").as_str().into()).unwrap().unwrap();
        let value = |column| map.value_at(row, column).unwrap();
        assert!(
            matches!((value(0), value(1)), (pheon::Value::Int(a), pheon::Value::Int(b)) if a == number && b == -number)
        );
    }
}

#[test]
fn a_run_that_is_gone_is_said_before_other_parts_are_written() {
    let scratch = Scratch::new();
    interrupted(&scratch);
    let folder = part_folders(&scratch).pop().unwrap();
    let run = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).find(|p| p.extension().is_none()).unwrap();
    let bytes = std::fs::read(&run).unwrap();
    for damage in [Some(&bytes[..bytes.len() - 1]), None] {
        std::fs::remove_file(&run).unwrap();
        damage.map_or(Ok(()), |bytes| std::fs::write(&run, bytes)).unwrap();
        let mut writer = resume(&scratch.store);
        let e = writer.part(Some("a")).unwrap_err().to_string();
        assert!(e.contains("to write this part again") && e.contains(&folder.display().to_string()), "{e}");
        drop(writer);
        std::fs::write(&run, &bytes).unwrap();
    }
    // As it says.
    std::fs::remove_dir_all(&folder).unwrap();
    let mut writer = resume(&scratch.store);
    let part = writer.part(Some("a")).unwrap();
    fill(&part, &numbered(20, 0));
    writer.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 20, 0);
}

#[test]
fn a_part_that_its_build_was_published_without_is_told_so() {
    let scratch = Scratch::new();
    let mut writer = resume(&scratch.store);
    let mut rows = open(&writer.part(Some("a")).unwrap()).unwrap();
    rows.write(&numbered(5, 0)).unwrap();
    // As a writer leaves it that was killed around publishing.
    std::fs::write(scratch.path().join("m/resume/CLOSED"), b"").unwrap();
    assert_part(&rows.finish().unwrap_err(), "a", "over");
    drop(writer);
    // It had not published: what takes the build up begins the part again.
    let mut writer = resume(&scratch.store);
    fill(&writer.part(Some("a")).unwrap(), &numbered(5, 0));
    writer.commit().unwrap();
    assert_numbered(&scratch.store.map("m").unwrap(), 5, 0);
}
