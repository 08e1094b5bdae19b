//! Which change is made: copied into each crate that is changed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

const UNKNOWN: u32 = u32::MAX;
const NONE: u32 = UNKNOWN - 1;
static CHOSEN: AtomicU32 = AtomicU32::new(UNKNOWN);
static MET: [AtomicU8; 8192] = [const { AtomicU8::new(0) }; 8192];
static METS_FILE: OnceLock<Option<File>> = OnceLock::new();

/// Whether this change is to be made: the one whose number MUTANT is. Without that, the first time that a change is come by, a 1 is
/// written at its number into the file that MUTANTS_MET names.
pub fn on(number: u32) -> bool {
    let mut chosen = CHOSEN.load(Ordering::Relaxed);
    if chosen == UNKNOWN {
        chosen = std::env::var("MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(NONE);
        METS_FILE.get_or_init(|| {
            let path = std::env::var_os("MUTANTS_MET")?;
            OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()
        });
        CHOSEN.store(chosen, Ordering::Relaxed);
    }
    if chosen == NONE
        && let Some(met) = MET.get(number as usize)
        && met.swap(1, Ordering::Relaxed) == 0
        && let Some(Some(file)) = METS_FILE.get()
    {
        let _ = file.write_at(&[1], u64::from(number));
    }
    chosen == number
}
