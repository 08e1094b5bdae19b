//! Private folders in memory: `shm://name` is `/dev/shm/pheon-<uid>-<name>`, a live map without a store is
//! `/dev/shm/pheon-live-<uid>-<name>`.
//!
//! `/dev/shm` is writable by everybody, so a folder of that name may be somebody else's trap: it is used only if it is a
//! real folder, belongs to the effective user and is closed to all others. The folder of `/dev/shm` is sticky, so nobody
//! else can replace it after the check.

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::FileSystem;
use crate::process;

/// What a store path in memory begins with.
pub const SCHEME: &str = "shm://";

const ROOT: &str = "/dev/shm";

/// Longest store name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The store name in a path of the form `shm://name`; the name is not checked.
pub fn name_in(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(SCHEME)
}

/// The folder of a store in memory, whether it exists or not.
///
/// # Errors
/// `InvalidInput` when the name is not `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
pub fn store_dir(name: &str) -> io::Result<PathBuf> {
    let first = name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
    let rest = name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'));
    if !first || !rest || name.len() > NAME_BYTES_MAX {
        let text = format!(
            "the shared-memory store name {name:?} is not allowed: use 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 _ . - and \
             begin with a letter, a digit or _"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(Path::new(ROOT).join(format!("pheon-{}-{name}", process::effective_uid())))
}

/// The folder of a store in memory, made with mode 0700 if it is missing.
///
/// # Errors
/// As [`store_dir`] and [`open_store_dir`]; `NotFound` when this machine has no `/dev/shm`.
pub fn create_store_dir(fs: &dyn FileSystem, name: &str) -> io::Result<PathBuf> {
    let dir = store_dir(name)?;
    match fs.create_dir(&dir, 0o700) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    check_private(fs, &dir, process::effective_uid())?;
    Ok(dir)
}

/// Whether what lies in a folder is memory and not on a disk: `tmpfs`, as `/dev/shm` is. False where there is no such folder.
pub fn is_memory(dir: &Path) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|found| found.f_type as u64 == TMPFS_MAGIC)
}

/// The folder of a store in memory that must exist.
///
/// # Errors
/// As [`store_dir`]; `NotFound` when it does not exist; `NotADirectory` when it is anything but a folder, such as a
/// symbolic link; `PermissionDenied` when it is another user's or open to others.
pub fn open_store_dir(fs: &dyn FileSystem, name: &str) -> io::Result<PathBuf> {
    let dir = store_dir(name)?;
    check_private(fs, &dir, process::effective_uid())?;
    Ok(dir)
}

/// The folder of a live map in memory, whether it exists or not: `/dev/shm/pheon-live-<uid>-<name>`, or with `-g<gid>-` for
/// one that a group shares.
///
/// # Errors
/// As [`store_dir`].
pub fn live_dir(name: &str, group: Option<u32>) -> io::Result<PathBuf> {
    store_dir(name)?; // the same names are allowed
    Ok(Path::new(ROOT).join(format!("{}{name}", live_prefix(group))))
}

/// What the names of a user's or group's live maps begin with, in [`live_root`].
pub fn live_prefix(group: Option<u32>) -> String {
    match group {
        None => format!("pheon-live-{}-", process::effective_uid()),
        Some(group) => format!("pheon-live-g{group}-"),
    }
}

/// The folder of all live maps in memory.
pub fn live_root() -> &'static Path {
    Path::new(ROOT)
}

/// Makes the folder of a live map under any name: mode 0700, or 2770 for a group.
///
/// # Errors
/// `PermissionDenied` when this user is not in the group.
pub fn create_live_dir(fs: &dyn FileSystem, dir: &Path, group: Option<u32>) -> io::Result<()> {
    match group {
        Some(group) => fs.create_group_dir(dir, group),
        None => fs.create_dir(dir, 0o700),
    }
}

/// Whether a live map's folder may be trusted: it is this user's and closed to others, or this group's and closed to the
/// rest.
///
/// # Errors
/// As [`open_store_dir`].
pub fn check_live_dir(fs: &dyn FileSystem, dir: &Path, group: Option<u32>) -> io::Result<()> {
    let Some(group) = group else { return check_private(fs, dir, process::effective_uid()) };
    let meta = fs.metadata(dir)?;
    if !meta.is_dir {
        let what = format!("{}: expected a folder, found a file or a symbolic link", dir.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, what));
    }
    if meta.gid != group || meta.mode & 0o007 != 0 {
        let what = format!(
            "{}: expected to belong to group {group} and to be closed to others, found group {} and mode {:04o}",
            dir.display(),
            meta.gid,
            meta.mode
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(())
}

fn check_private(fs: &dyn FileSystem, dir: &Path, uid: u32) -> io::Result<()> {
    let meta = fs.metadata(dir)?;
    let refuse = |kind, what: String| Err(io::Error::new(kind, format!("{}: {what}", dir.display())));
    if !meta.is_dir {
        return refuse(io::ErrorKind::NotADirectory, "expected a folder, found a file or a symbolic link".to_string());
    }
    if meta.uid != uid {
        let found = meta.uid;
        return refuse(
            io::ErrorKind::PermissionDenied,
            format!("expected to belong to user {uid}, found user {found}"),
        );
    }
    let mode = meta.mode;
    if mode & 0o077 != 0 {
        let what = format!("expected to be closed to other users (mode 0700), found mode {mode:04o}; chmod 700 it");
        return refuse(io::ErrorKind::PermissionDenied, what);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::real;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// A name that nobody else has; its folder, file or link is removed at the end.
    struct Name(String);

    impl Name {
        fn new() -> Name {
            Name(format!("test-{}", process::random_id()))
        }
    }

    impl Drop for Name {
        fn drop(&mut self) {
            let path = store_dir(&self.0).unwrap();
            let _ = fs::remove_dir_all(&path);
            let _ = fs::remove_file(&path);
        }
    }

    #[test]
    fn names_cannot_escape() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", ".hidden", "-x", "a/b", "../x", "a b", "é", "a\0b", &long] {
            assert_eq!(store_dir(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(create_store_dir(&*real(), name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        let uid = process::effective_uid();
        for name in ["a", "_x", "9.b-c_D", &long[1..]] {
            assert_eq!(store_dir(name).unwrap(), Path::new(ROOT).join(format!("pheon-{uid}-{name}")));
        }
        assert_eq!(name_in(Path::new("shm://a")), Some("a"));
        assert_eq!(name_in(Path::new("/dev/shm/a")), None);
    }

    #[test]
    fn a_new_folder_is_private_and_opens_again() {
        let name = Name::new();
        assert_eq!(open_store_dir(&*real(), &name.0).unwrap_err().kind(), io::ErrorKind::NotFound);
        let dir = create_store_dir(&*real(), &name.0).unwrap();
        assert_eq!(fs::symlink_metadata(&dir).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(create_store_dir(&*real(), &name.0).unwrap(), dir);
        assert_eq!(open_store_dir(&*real(), &name.0).unwrap(), dir);
    }

    #[test]
    fn a_folder_open_to_others_or_of_somebody_else_is_refused() {
        let name = Name::new();
        let dir = create_store_dir(&*real(), &name.0).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o750)).unwrap();
        let error = open_store_dir(&*real(), &name.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("0750"), "{error}");
        assert!(create_store_dir(&*real(), &name.0).is_err());
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        let stranger = process::effective_uid() + 1;
        assert_eq!(check_private(&*real(), &dir, stranger).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_link_or_a_file_in_its_place_is_refused() {
        let target = tempfile::tempdir().unwrap();
        let name = Name::new();
        symlink(target.path(), store_dir(&name.0).unwrap()).unwrap();
        assert_eq!(create_store_dir(&*real(), &name.0).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(open_store_dir(&*real(), &name.0).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        let name = Name::new();
        fs::write(store_dir(&name.0).unwrap(), "").unwrap();
        assert_eq!(create_store_dir(&*real(), &name.0).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
