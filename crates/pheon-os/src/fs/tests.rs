use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::fault::{FaultFs, Lasts, Op};
use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// The contract of a [`FileSystem`], for each implementation.
fn obeys_the_contract(fs: &dyn FileSystem) {
    let root = tempfile::tempdir().unwrap();
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
    obeys_the_contract(&*real());
}

#[test]
fn a_fault_file_system_without_faults_obeys_the_contract() {
    obeys_the_contract(&FaultFs::new(real()));
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
fn a_fault_may_hit_one_kind_of_call_once() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<FaultFs> = Arc::new(FaultFs::new(real()));
    fs.fail_nth(2, Some(Op::Sync), EIO, Lasts::Once);
    write_three(&*fs, &dir.path().join("a")).unwrap();
    assert_eq!(write_three(&*fs, &dir.path().join("b")).unwrap_err().raw_os_error(), Some(EIO));
    write_three(&*fs, &dir.path().join("c")).unwrap();
    assert_eq!((fs.calls_of(Op::Sync), fs.calls_of(Op::WriteAt), fs.calls_of(Op::Map)), (3, 9, 0));
}
