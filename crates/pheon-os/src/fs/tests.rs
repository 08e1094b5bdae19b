use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::fault::{FaultFs, Lasts, Op};
use super::record::{Effort, RecordFs};
use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The contract of a [`FileSystem`], for each implementation.
fn obeys_the_contract(make: impl FnOnce(&Path) -> Arc<dyn FileSystem>) {
    let root = tempfile::tempdir().unwrap();
    let fs = make(root.path());
    let at = |name: &str| root.path().join(name);

    fs.create_dir(&at("d"), 0o750).unwrap();
    assert_eq!(fs.create_dir(&at("d"), 0o750).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs.create_dir(&at("no/d"), 0o750).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(fs.metadata(&at("d")).unwrap().is_dir);

    let file = fs.create_new(&at("d/f"), 0o600).unwrap();
    assert_eq!(fs.create_new(&at("d/f"), 0o600).err().unwrap().kind(), ErrorKind::AlreadyExists);
    file.write_at(6, b"world").unwrap();
    file.write_at(0, b"hello ").unwrap();
    file.start_writeback(0, 11);
    file.set_mode(0o440).unwrap();
    file.sync().unwrap();
    fs.sync_dir(&at("d")).unwrap();

    let meta = fs.metadata(&at("d/f")).unwrap();
    assert_eq!((meta.len_bytes, meta.is_dir, meta.mode), (11, false, 0o440));
    assert_eq!(meta.uid, crate::process::effective_uid());
    assert!(meta.modified_unix_ns > 1_600_000_000_000_000_000);
    assert_eq!(fs.read(&at("d/f"), 11).unwrap(), b"hello world");
    assert_eq!(fs.read(&at("d/f"), 10).unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(fs.read(&at("d"), 10).unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(&*fs.map(&at("d/f")).unwrap(), b"hello world");

    let open = fs.open_read(&at("d/f")).unwrap();
    let mut buf = [0; 5];
    open.read_at(6, &mut buf).unwrap();
    assert_eq!(&buf, b"world");
    assert_eq!(open.read_at(7, &mut buf).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(open.len().unwrap(), 11);
    open.drop_cache(0, 0);
    file.set_len(3).unwrap();
    assert_eq!(open.len().unwrap(), 3);

    fs.link(&at("d/f"), &at("d/g")).unwrap();
    assert_eq!(fs.link(&at("d/f"), &at("d/g")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let (f, g) = (fs.metadata(&at("d/f")).unwrap(), fs.metadata(&at("d/g")).unwrap());
    assert_eq!((f.dev, f.ino), (g.dev, g.ino));
    fs.rename(&at("d/f"), &at("d/h")).unwrap();

    std::os::unix::fs::symlink(at("d"), at("d/link")).unwrap();
    std::os::unix::fs::symlink(at("absent"), at("d/dangling")).unwrap();
    let not_utf8 = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    std::fs::write(at("d").join(not_utf8), "").unwrap();
    assert_eq!(fs.create_new(&at("d/dangling"), 0o600).err().unwrap().kind(), ErrorKind::AlreadyExists);
    assert!(!fs.metadata(&at("d/link")).unwrap().is_dir);
    fs.create_dir(&at("d/sub"), 0o700).unwrap();
    let mut entries = fs.read_dir(&at("d")).unwrap();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let listed: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.is_dir)).collect();
    assert_eq!(listed, [("dangling", false), ("g", false), ("h", false), ("link", false), ("sub", true)]);

    fs.unlink(&at("d/h")).unwrap();
    assert_eq!(fs.metadata(&at("d/h")).unwrap_err().kind(), ErrorKind::NotFound);
    fs.remove_dir_all(&at("d")).unwrap();
    assert_eq!(fs.read_dir(&at("d")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs.sync_dir(&at("d")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_real_file_system_obeys_the_contract() {
    obeys_the_contract(|_| real());
}

#[test]
fn a_fault_file_system_without_faults_obeys_the_contract() {
    obeys_the_contract(|_| Arc::new(FaultFs::new(real())));
}

#[test]
fn a_fifo_is_refused_and_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert_eq!(real().read(&path, 10).unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(real().map(&path).unwrap_err().kind(), ErrorKind::InvalidData);
}

fn write_three(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    let file = fs.create_new(path, 0o600)?;
    for i in 0..3 {
        file.write_at(i * 4, b"abcd")?;
    }
    file.sync()
}

#[test]
fn every_call_of_a_sequence_can_be_made_to_fail() {
    let dir = tempfile::tempdir().unwrap();
    let calls = {
        let fs = FaultFs::new(real());
        write_three(&fs, &dir.path().join("good")).unwrap();
        let ops: Vec<Op> = fs.log().into_iter().map(|(op, _)| op).collect();
        assert_eq!(ops, [Op::CreateNew, Op::WriteAt, Op::WriteAt, Op::WriteAt, Op::Sync]);
        assert!(fs.log().iter().all(|(_, path)| path.ends_with("good")));
        fs.calls()
    };
    for nth in 1..=calls {
        let fs = FaultFs::new(real());
        fs.fail_nth(nth, None, ENOSPC, Lasts::ForEver);
        let path = dir.path().join(nth.to_string());
        assert!(crate::is_full(&write_three(&fs, &path).unwrap_err()), "{nth}");
        assert_eq!(fs.calls(), nth);
        assert_eq!(fs.metadata(&path).unwrap_err().raw_os_error(), Some(ENOSPC)); // for ever
        fs.heal();
        // Call 1 creates; the failing write leaves half of its four bytes.
        let expected = [None, Some(2), Some(6), Some(10), Some(12)][nth as usize - 1];
        assert_eq!(fs.metadata(&path).ok().map(|meta| meta.len_bytes), expected, "{nth}");
    }
}

#[test]
fn only_calls_that_take_a_descriptor_run_out_of_them() {
    const EMFILE: i32 = 24;
    let dir = tempfile::tempdir().unwrap();
    let fs = FaultFs::new(real());
    fs.fail_nth(1, None, EMFILE, Lasts::ForEver);
    fs.create_dir(&dir.path().join("d"), 0o700).unwrap();
    assert_eq!(fs.read_dir(dir.path()).unwrap_err().raw_os_error(), Some(EMFILE));
    fs.rename(&dir.path().join("d"), &dir.path().join("e")).unwrap();
    assert_eq!(fs.sync_dir(dir.path()).unwrap_err().raw_os_error(), Some(EMFILE));
    assert_eq!(fs.failed(), [Op::ReadDir, Op::SyncDir]);
}

#[test]
fn an_interrupted_call_is_made_again_where_the_real_file_system_does_so() {
    const EINTR: i32 = 4;
    let dir = tempfile::tempdir().unwrap();
    for nth in 1..=5 {
        let fs = FaultFs::new(real());
        fs.fail_nth(nth, None, EINTR, Lasts::Once);
        let path = dir.path().join(nth.to_string());
        write_three(&fs, &path).unwrap();
        assert_eq!((fs.calls(), fs.failed().len()), (6, 1));
        assert_eq!(real().read(&path, 12).unwrap(), b"abcdabcdabcd");
    }
    let fs = FaultFs::new(real());
    fs.fail_nth(1, None, EINTR, Lasts::Once);
    assert_eq!(fs.create_dir(&dir.path().join("d"), 0o700).unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn a_fault_may_hit_one_kind_of_call_once() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<FaultFs> = Arc::new(FaultFs::new(real()));
    fs.fail_nth(2, Some(Op::Sync), EIO, Lasts::Once);
    write_three(&*fs, &dir.path().join("a")).unwrap();
    assert_eq!(write_three(&*fs, &dir.path().join("b")).unwrap_err().raw_os_error(), Some(EIO));
    write_three(&*fs, &dir.path().join("c")).unwrap();
    assert_eq!((fs.calls_of(Op::Sync), fs.calls_of(Op::WriteAt), fs.calls_of(Op::Map)), (3, 9, 0));
}

#[test]
fn a_recording_file_system_obeys_the_contract() {
    obeys_the_contract(|root| Arc::new(RecordFs::new(real(), root).unwrap()));
}

/// The files of every state, each as its name and content.
fn states_of(recording: &RecordFs) -> std::collections::BTreeSet<Vec<(String, String)>> {
    let dir = tempfile::tempdir().unwrap();
    let record = recording.record().unwrap();
    record
        .states(Effort { states_max: 200, seed: 3 })
        .map(|state| {
            state.write_to(&dir.path().join("cut")).unwrap();
            let files = state.names().map(|name| {
                let bytes = std::fs::read(dir.path().join("cut").join(name)).unwrap_or_default();
                (name.to_str().unwrap().to_owned(), String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
            });
            files.collect()
        })
        .collect()
}

#[test]
fn a_cut_leaves_what_was_synced_and_any_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old"), "1").unwrap();
    let fs = RecordFs::new(real(), dir.path()).unwrap();
    let at = |name: &str| dir.path().join(name);
    let file = fs.create_new(&at("tmp"), 0o600).unwrap();
    file.write_at(0, b"2").unwrap();
    file.sync().unwrap();
    fs.rename(&at("tmp"), &at("new")).unwrap();
    fs.unlink(&at("old")).unwrap();
    let text =
        |files: &[(&str, &str)]| files.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let states = states_of(&fs);
    for files in
        [&[][..], &[("old", "1")], &[("old", "1"), ("tmp", "")], &[("old", "1"), ("tmp", "2")], &[("new", "2")]]
    {
        assert!(states.contains(&text(files)), "{files:?} of {states:?}");
    }
    assert!(states.contains(&text(&[("new", "2"), ("old", "1")])));
    assert!(
        !states.iter().flatten().any(|(name, bytes)| name == "new" && bytes != "2"),
        "it was synced before: {states:?}"
    );
    fs.sync_dir(dir.path()).unwrap();
    fs.acknowledge();
    let record = fs.record().unwrap();
    let last: Vec<_> = record.states(Effort::default()).filter(|state| state.acknowledged == 1).collect();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].names().collect::<Vec<_>>(), [Path::new("new")]);
    // Without the sync of the file its content may be anything that was written.
    let without = record.without(&record.syncs()[..1]);
    assert!(without.states(Effort::default()).filter(|state| state.acknowledged == 1).count() > 1);
}

#[test]
fn what_is_written_through_a_mapping_is_lost_by_sectors_until_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let fs = RecordFs::new(real(), dir.path()).unwrap();
    let path = dir.path().join("m");
    let map = fs.create_shared(&path, 4096, 0o600).unwrap();
    fs.sync_shared(&path, &map).unwrap();
    fs.sync_dir(dir.path()).unwrap();
    map.write(0, &[b'a'; 1024]);
    fs.acknowledge();
    let found: Vec<_> = states_of(&fs).into_iter().flatten().map(|(_, bytes)| bytes.replace('\0', "-")).collect();
    let (a, lost) = ("a".repeat(512), "-".repeat(512));
    for bytes in [String::new(), a.clone(), format!("{lost}{a}"), format!("{a}{a}")] {
        assert!(found.contains(&bytes), "{bytes} of {found:?}");
    }
    fs.sync_shared(&path, &map).unwrap();
    fs.acknowledge();
    let last = fs.record().unwrap().states(Effort::default()).filter(|state| state.acknowledged == 2).count();
    assert_eq!(last, 1);
}
