//! The few files that a server reads beside its store: configuration, tokens, certificates and keys.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Nothing of this kind is larger.
const BYTES_MAX: u64 = 4 << 20;
const OTHERS_READ: u32 = 0o004;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// A file's content, and who else may touch it.
#[derive(Debug)]
pub(crate) struct SmallFile {
    pub(crate) bytes: Vec<u8>,
    mode: u32,
}

impl SmallFile {
    /// Whether every user of the machine may read it.
    pub(crate) fn is_world_readable(&self) -> bool {
        self.mode & OTHERS_READ != 0
    }

    /// Whether somebody else may change it.
    pub(crate) fn is_writable_by_others(&self) -> bool {
        self.mode & GROUP_OR_OTHERS_WRITE != 0
    }
}

/// Reads a whole file.
#[expect(clippy::disallowed_methods, reason = "files of the server's administrator, not of a store")]
pub(crate) fn read(path: &Path) -> io::Result<SmallFile> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {BYTES_MAX} bytes")));
    }
    Ok(SmallFile { bytes, mode: metadata.mode() })
}

/// Memory of this process in RAM, as the kernel counts it.
pub(crate) fn resident_bytes() -> Option<u64> {
    proc_number("/proc/self/status", "VmRSS:", 0).map(|kib| kib * 1024)
}

/// How many files and connections this process may have open; `None`: as many as it likes.
pub(crate) fn open_files_max() -> Option<u64> {
    proc_number("/proc/self/limits", "Max open files", 0)
}

#[expect(clippy::disallowed_methods, reason = "facts about this process, not a file of a store")]
fn proc_number(path: &str, name: &str, column: usize) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_this_process() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(open_files_max().is_none_or(|n| n > 2));
    }

    #[test]
    fn reads_regular_files_of_bounded_size() {
        assert!(read(Path::new("/dev/zero")).is_err());
        assert!(read(Path::new("/nonexistent")).is_err());
    }
}
