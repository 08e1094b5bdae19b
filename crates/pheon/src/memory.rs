//! What a dataset costs: bytes on disk, in the page cache, and in this process.

use std::path::PathBuf;

use pheon_os::memory;

use crate::error::ReadError;
use crate::version::Version;

/// Memory of one version's files, as the kernel counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetMemory {
    /// The dataset's name.
    pub name: String,
    /// The version.
    pub version: u64,
    /// Length of its files in bytes.
    pub file_bytes: u64,
    /// Blocks on disk in bytes; less where a file has holes.
    pub on_disk_bytes: u64,
    /// Bytes in the page cache, whoever brought them there.
    pub resident_bytes: u64,
    /// This process's proportional share of the pages that it has mapped.
    pub process_pss_bytes: u64,
    /// Bytes of those pages that no other process has mapped.
    pub process_private_bytes: u64,
    /// Bytes that this process has mapped by 2 MiB pages.
    pub huge_bytes: u64,
    /// Processes that map these files, of those whose maps we may read.
    pub mapped_by_processes: Option<u32>,
}

/// What [`crate::Store::warm`] achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmReport {
    /// Length of the files in bytes.
    pub file_bytes: u64,
    /// Bytes in the page cache afterwards.
    pub resident_bytes: u64,
    /// Bytes in 2 MiB pages afterwards, as far as the kernel tells.
    pub huge_bytes: u64,
    /// Why there are not more, in the kernel's words.
    pub huge_refusal: Option<String>,
}

pub(crate) fn of_version(version: &Version) -> Result<DatasetMemory, ReadError> {
    let files: Vec<PathBuf> = version.files().into_iter().map(ToOwned::to_owned).collect();
    let parts = memory::of_files(&files).map_err(|e| ReadError::io("measure", version.dataset.dir(), e))?;
    let sum = |part: fn(&memory::FileMemory) -> u64| parts.iter().map(part).sum();
    Ok(DatasetMemory {
        name: version.name().to_owned(),
        version: version.manifest.version,
        file_bytes: sum(|p| p.len_bytes),
        on_disk_bytes: sum(|p| p.on_disk_bytes),
        resident_bytes: sum(|p| p.resident_bytes),
        process_pss_bytes: sum(|p| p.process_pss_bytes),
        process_private_bytes: sum(|p| p.process_private_bytes),
        huge_bytes: sum(|p| p.huge_bytes),
        mapped_by_processes: parts.iter().filter_map(|p| p.mapped_by_processes).max(),
    })
}

pub(crate) fn warm(version: &Version) -> Result<WarmReport, ReadError> {
    let mut report = WarmReport::default();
    for file in version.parts.iter().flat_map(crate::version::Part::files) {
        let fail = |e| ReadError::io("read into memory", &file.path, e);
        file.map.populate().map_err(fail)?;
        let collapse = file.map.advise_collapse();
        report.file_bytes += file.map.len() as u64;
        report.resident_bytes += file.map.resident_bytes().map_err(fail)?;
        if let Some(refusal) = collapse.refusal {
            report.huge_refusal.get_or_insert_with(|| refusal.to_string());
        }
    }
    report.huge_bytes = of_version(version)?.huge_bytes;
    Ok(report)
}
