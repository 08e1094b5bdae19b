//! `pheon memory`: what datasets cost.

use std::io::Write;

use pheon::{DatasetMemory, MemoryScope};
use serde_json::json;

use super::{DatasetsArgs, read_store};
use crate::failure::Failure;
use crate::listing::{Align, write_json, write_table};
use crate::size::show_size;

/// Arguments of `pheon memory`.
///
/// SIZE, ON DISK and IN MEMORY (the page cache, once for all processes) are of the newest version; OLDER is what only older
/// versions hold on disk. PROCESSES map it, of those whose maps you may read (all, for root). SHARE (proportional set size)
/// divides each page among the processes that hold it and is added up over them; PAGE TABLES is an estimate of what mapping
/// costs beside it, and IN 2 MiB PAGES what they map by large pages, added up too.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(flatten)]
    datasets: DatasetsArgs,
    /// Print JSON, in bytes.
    #[arg(long)]
    json: bool,
}

const HEADINGS: [(&str, Align); 10] = [
    ("NAME", Align::Left),
    ("VERSION", Align::Right),
    ("SIZE", Align::Right),
    ("ON DISK", Align::Right),
    ("IN MEMORY", Align::Right),
    ("PROCESSES", Align::Right),
    ("SHARE", Align::Right),
    ("PAGE TABLES", Align::Right),
    ("IN 2 MiB PAGES", Align::Right),
    ("OLDER", Align::Right),
];

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let store = read_store(&args.datasets.store)?;
    let names = args.datasets.names(&store)?;
    let reports = store.memory_of(&names, MemoryScope::AllProcesses)?;
    if !args.datasets.names.is_empty()
        && let Some(missing) = names.iter().find(|name| reports.iter().all(|m| m.name != **name))
    {
        store.table(missing)?; // says that it is not there
    }
    if args.json {
        write_json(out, &reports.iter().map(to_json).collect::<Vec<_>>().into())?;
        return Ok(());
    }
    let mut rows: Vec<_> = reports.iter().map(|m| row(m.name.clone(), m.version.to_string(), m)).collect();
    if reports.len() > 1 {
        rows.push(row("total".into(), String::new(), &total(&reports)));
    }
    write_table(out, &HEADINGS, &rows)?;
    Ok(())
}

fn row(name: String, version: String, m: &DatasetMemory) -> Vec<String> {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "?".into(), show_size);
    vec![
        name,
        version,
        show_size(m.file_bytes),
        show_size(m.on_disk_bytes),
        size(m.resident_bytes),
        m.mapped_by_processes.map_or_else(String::new, |n| n.to_string()),
        show_size(m.process_pss_bytes),
        size(m.process_page_table_bytes),
        show_size(m.huge_bytes),
        show_size(m.older_on_disk_bytes),
    ]
}

/// All but what cannot be added up: a process may map several datasets.
fn total(reports: &[DatasetMemory]) -> DatasetMemory {
    let mut sum = DatasetMemory::default();
    sum.resident_bytes = reports.iter().map(|m| m.resident_bytes).sum();
    sum.process_page_table_bytes = reports.iter().map(|m| m.process_page_table_bytes).sum();
    for m in reports {
        sum.file_bytes += m.file_bytes;
        sum.on_disk_bytes += m.on_disk_bytes;
        sum.process_pss_bytes += m.process_pss_bytes;
        sum.huge_bytes += m.huge_bytes;
        sum.older_on_disk_bytes += m.older_on_disk_bytes;
    }
    sum
}

fn to_json(m: &DatasetMemory) -> serde_json::Value {
    json!({
        "name": m.name, "version": m.version, "file_bytes": m.file_bytes, "on_disk_bytes": m.on_disk_bytes,
        "resident_bytes": m.resident_bytes, "mapped_by_processes": m.mapped_by_processes,
        "pss_bytes": m.process_pss_bytes, "private_bytes": m.process_private_bytes,
        "page_table_bytes": m.process_page_table_bytes, "page_table_total_bytes": m.process_page_table_total_bytes,
        "huge_bytes": m.huge_bytes, "access": m.access.to_string(),
        "older_versions": m.older_versions, "older_on_disk_bytes": m.older_on_disk_bytes,
    })
}
