//! How the files of a version are going to be read, and so what the kernel is told when they are mapped.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use pheon_os::{process, shm};

/// Versions of less are read as if they fitted, without a look at the memory.
const SMALL_BYTES: u64 = 16 << 20;

/// How the files of a version are read: said once for a store ([`crate::Store::with_access`]), decided at each opening.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// As memory if the version's files take at most three quarters of the memory that this process can get, else at
    /// random.
    #[default]
    Auto,
    /// Everything that is read stays in memory: 2 MiB pages are asked for, where the kernel has them for this file system.
    /// A page that is not in memory comes with the 2 MiB around it.
    Memory,
    /// Much of what is read comes from a disk each time: only the pages asked for are read, and batches ask for many at
    /// once.
    Random,
}

impl Access {
    /// What to do with a version of so many bytes in this folder: never [`Access::Auto`].
    pub(crate) fn decide(self, bytes: u64, dir: &Path) -> Self {
        if self != Self::Auto {
            return self;
        }
        let fits = bytes < SMALL_BYTES
            // Files that are memory themselves.
            || shm::is_memory(dir)
            || process::available_memory_bytes().is_none_or(|room| {
                // What somebody has locked in memory may be these very files.
                let locked = process::locked_memory_bytes().unwrap_or(0).min(bytes);
                fits(bytes, room.saturating_add(locked))
            });
        if fits { Self::Memory } else { Self::Random }
    }
}

/// A quarter of the memory is left to other files: the peers of this one in the page cache.
fn fits(bytes: u64, room: u64) -> bool {
    bytes <= room - room / 4
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Memory => "memory",
            Self::Random => "random",
        })
    }
}

impl FromStr for Access {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "memory" => Ok(Self::Memory),
            "random" => Ok(Self::Random),
            _ => Err(format!("expected \"auto\", \"memory\" or \"random\", got {text:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_memory_and_what_does_not_is_read_at_random() {
        assert!(fits(75, 100) && !fits(76, 100) && !fits(1, 0) && fits(0, 0));
        let disk = Path::new(env!("CARGO_MANIFEST_DIR"));
        let more_than_any_machine_has = 1 << 60;
        assert_eq!(Access::Auto.decide(more_than_any_machine_has, disk), Access::Random);
        assert_eq!(Access::Auto.decide(more_than_any_machine_has, Path::new("/dev/shm")), Access::Memory);
        assert_eq!(Access::Auto.decide(SMALL_BYTES - 1, disk), Access::Memory);
        assert_eq!(Access::Random.decide(1, disk), Access::Random);
        assert_eq!(Access::Memory.decide(more_than_any_machine_has, disk), Access::Memory);
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for access in [Access::Auto, Access::Memory, Access::Random] {
            assert_eq!(access.to_string().parse(), Ok(access));
        }
        assert!("Random".parse::<Access>().unwrap_err().contains("\"Random\""));
    }
}
