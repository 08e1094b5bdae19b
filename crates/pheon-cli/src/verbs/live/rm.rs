//! `pheon live rm`: live maps go away.

use std::io::Write;

use pheon_live::{LiveError, LiveMap, Location};
use serde_json::json;

use super::{Attached, PlaceArgs, attached, place};
use crate::failure::{Failure, say};
use crate::listing::write_json;

/// Arguments of `pheon live rm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The maps.
    #[arg(required_unless_present = "orphans")]
    names: Vec<String>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Remove all maps that no process has attached, those that cannot be read among them.
    #[arg(long, conflicts_with_all = ["names", "force"])]
    orphans: bool,
    /// Remove maps though processes have them attached, or may have.
    #[arg(long)]
    force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let place = place(args.place.store.as_deref(), args.place.group)?;
    let mut locations = if args.orphans { place.list()? } else { Vec::new() };
    for name in &args.names {
        let location = place.location(name);
        if !locations.contains(&location) {
            locations.push(location);
        }
    }
    let attached = attached(&locations);
    if args.orphans {
        let mut orphans = attached.iter().map(|attached| attached.is_orphan() == Some(true));
        locations.retain(|_| orphans.next() == Some(true));
    } else {
        // All or none, as far as can be known before.
        for (location, attached) in locations.iter().zip(attached) {
            check(location, attached, args.force)?;
        }
    }
    for location in &locations {
        match LiveMap::remove(location) {
            // Another process was faster: gone is gone.
            Err(LiveError::NotFound { .. }) if args.orphans => {}
            removed => removed?,
        }
        say(&format!("{}: removed", location.name()));
    }
    if args.json {
        let names: Vec<_> = locations.iter().map(Location::name).collect();
        write_json(out, &json!({ "removed": names }))?;
    }
    Ok(())
}

/// Whether a map is there and may be removed.
fn check(location: &Location, attached: Attached, force: bool) -> Result<(), Failure> {
    if !location.exists()? {
        return Err(LiveError::NotFound { path: location.dir()? }.into());
    }
    let who = match (attached.is_orphan(), attached.processes) {
        (Some(true), _) => return Ok(()),
        _ if force => return Ok(()),
        (Some(false), Some(1)) => "1 process has it attached",
        (Some(false), Some(n)) => &format!("{n} processes have it attached"),
        _ if matches!(LiveMap::attach(location, false), Err(LiveError::NotFound { .. })) => {
            "it is no live map, for it has no CTRL"
        }
        _ => "whether a process has it attached cannot be told",
    };
    Err(Failure::Failed(format!("{} was not removed: {who}; --force removes it all the same", location.name())))
}
