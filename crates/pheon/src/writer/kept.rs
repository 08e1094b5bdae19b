//! Verifying what an interrupted build left for the one that takes it up: every byte of its finished parts.

use std::io;
use std::path::Path;

use super::parts::{PART_NAME, Part, part_name, read_build};
use crate::dataset::{Dataset, RESUME_NAME};
use crate::error::{ReadError, WriteError};

/// Notes what is wrong. A part that goes meanwhile has nothing wrong: its build is committed or begun anew.
pub(crate) fn verify_kept(dataset: &Dataset, note: &mut dyn FnMut(ReadError)) {
    let dir = dataset.dir().join(RESUME_NAME);
    let build = match read_build(dataset.fs().as_ref(), &dir) {
        Ok(Some(build)) => build,
        Ok(None) => return,
        Err(e) => return note(of_write(&dir, e)),
    };
    let entries = match dataset.fs().read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return,
        Err(e) => return note(ReadError::io("list", &dir, e)),
    };
    for entry in entries.iter().filter(|e| e.is_dir && e.name.starts_with("part-") && !e.name.contains('.')) {
        let folder = dir.join(&entry.name);
        if let Err(e) = verify_part(dataset, &dir, &folder, |name| Part::kept(dataset, &dir, &build, name))
            && dataset.fs().metadata(&folder).is_ok()
        {
            note(of_write(&folder, e));
        }
    }
}

fn of_write(path: &Path, error: WriteError) -> ReadError {
    match error {
        WriteError::Read(e) => e,
        WriteError::Io { source, .. } => ReadError::io("read", path, io::Error::new(source.kind(), source.to_string())),
        other => ReadError::corrupt(path, "its folder", other.to_string()),
    }
}

fn verify_part(dataset: &Dataset, dir: &Path, folder: &Path, part: impl Fn(String) -> Part) -> Result<(), WriteError> {
    let part = part(part_name(dataset.fs().as_ref(), &folder.join(PART_NAME))?);
    if part.final_dir() != folder {
        let problem = format!("its folder is not that of part {:?}", part.name());
        return Err(ReadError::corrupt(folder.join(PART_NAME), "member \"name\"", problem).into());
    }
    match part.finished()? {
        Some(finished) => finished.verify(dataset.fs()),
        None => Err(ReadError::corrupt(dir, "its parts", format!("part {:?} is missing", part.name())).into()),
    }
}
