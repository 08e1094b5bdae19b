//! `pheon live`: live maps. One file a verb, in `live/`; here what they share: which map, and who has it attached.

mod info;
mod ls;
mod rm;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use pheon_live::{LiveInfo, LiveMap, Location, Place};
use pheon_os::{memory, process};

use super::read_store;
use crate::failure::Failure;
use crate::group::parse_group;

/// Arguments of `pheon live`.
///
/// Processes count as attached if you may read their maps (/proc): your own, or everybody's for root; not those of other
/// containers. So a group's map is known to be an orphan by root only.
#[derive(clap::Args)]
#[command(disable_help_subcommand = true, verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List live maps: yours in memory, a group's, or those of a store.
    Ls(ls::Args),
    /// Show the facts about a live map.
    Info(info::Args),
    /// Remove live maps. Who has one attached can go on reading it, not writing.
    Rm(rm::Args),
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.verb {
        Verb::Ls(args) => ls::run(args, out),
        Verb::Info(args) => info::run(args, out),
        Verb::Rm(args) => rm::run(args, out),
    }
}

/// Where to look for maps.
#[derive(clap::Args)]
struct PlaceArgs {
    /// The store that the map is in: a directory, or shm://NAME for one in memory. Default: none, the map is in memory.
    #[arg(long)]
    store: Option<PathBuf>,
    /// The group, by name or number, whose maps in memory are meant. Default: your own.
    #[arg(long, value_name = "GROUP", value_parser = parse_group, conflicts_with = "store")]
    group: Option<u32>,
}

fn place(store: Option<&Path>, group: Option<u32>) -> Result<Place, Failure> {
    Ok(match store {
        Some(path) => Place::Store { path: read_store(path)?.path().to_owned() },
        None => Place::Memory { group },
    })
}

/// What reading a map gives. Read-only, so no lock is waited for and nothing is repaired.
fn look(location: &Location) -> Result<LiveInfo, Failure> {
    Ok(LiveMap::attach(location, false)?.info()?)
}

/// Who has a map attached.
#[derive(Clone, Copy, PartialEq)]
struct Attached {
    /// Processes, of those whose maps we may read; `None` where that cannot be told.
    processes: Option<u32>,
    /// Whether there may be processes that we cannot see.
    others: bool,
}

impl Attached {
    /// Whether nobody has it; `None` where that cannot be told.
    fn is_orphan(self) -> Option<bool> {
        match self.processes {
            Some(0) if self.others => None,
            processes => processes.map(|n| n == 0),
        }
    }

    fn show_processes(self) -> String {
        self.processes.map_or_else(|| "?".into(), |n| n.to_string())
    }

    fn show_state(self) -> &'static str {
        match self.is_orphan() {
            Some(true) => "orphan",
            Some(false) => "attached",
            None => "?",
        }
    }
}

/// Who has these maps attached. This process must have let go of them.
fn attached(locations: &[Location]) -> Vec<Attached> {
    let files: Vec<_> = locations.iter().map(|location| location.attached_file().ok()).collect();
    let there: Vec<PathBuf> = files.iter().flatten().cloned().collect();
    let survey = |files: &[PathBuf]| memory::of_files(files, memory::Scope::ThisProcess).map(|survey| survey.files);
    // All at once, since each survey reads the maps of all processes; one by one if a map went away meanwhile.
    let mut counts = match survey(&there) {
        Ok(found) => found.iter().map(|file| file.mapped_by_processes).collect::<Vec<_>>(),
        Err(_) => {
            let one = |file: &PathBuf| survey(std::slice::from_ref(file)).ok()?.first()?.mapped_by_processes;
            there.iter().map(one).collect()
        }
    }
    .into_iter();
    let is_root = process::effective_uid() == 0;
    let answers = files.iter().zip(locations).map(|(file, location)| Attached {
        processes: file.as_ref().and_then(|_| counts.next().flatten()),
        others: !is_root && matches!(location, Location::Memory { group: Some(_), .. }),
    });
    answers.collect()
}
