//! This process and the machine that it may use.

#![allow(clippy::disallowed_methods, reason = "files of the kernel's, not of a store")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How many CPUs this process may use at once, at least 1: the smaller of its affinity mask and its control group's CPU
/// quota (rounded down, at least 1).
pub fn online_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How much memory this process may use, in bytes: the machine's RAM or the smallest limit of its control groups,
/// whichever is less. Swap does not count.
///
/// A machine whose `/proc` cannot be read is taken to have 1 GiB: a small figure makes builds slower, a large one makes
/// them die.
pub fn total_memory_bytes() -> u64 {
    const UNKNOWN_BYTES: u64 = 1 << 30;
    let ram = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_field(&text, "MemTotal:"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = cgroup_limit(&groups, Path::new("/sys/fs/cgroup"));
    ram.unwrap_or(UNKNOWN_BYTES).min(limit.unwrap_or(u64::MAX))
}

/// How much memory this process can get without swapping, in bytes: what the kernel says is available, or what the limit of
/// one of its control groups leaves, whichever is least. Pages of files count as free, since the kernel takes them back:
/// the figure is the same whether a file is in the page cache or not. Some ten file reads, a tenth of a millisecond.
///
/// `None` where `/proc` cannot be read.
pub fn available_memory_bytes() -> Option<u64> {
    let free = kib_field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(cgroup_room(&groups, Path::new("/sys/fs/cgroup"), free))
}

/// How much memory all processes together have locked, in bytes: pages of files among it do not count as available.
/// `None` where `/proc` cannot be read.
pub fn locked_memory_bytes() -> Option<u64> {
    kib_field(&fs::read_to_string("/proc/meminfo").ok()?, "Mlocked:")
}

/// 128 random bits as 32 lower-case hex digits, from the kernel's generator.
///
/// # Panics
/// When the kernel has no randomness to give (no `getrandom` and no `/dev/urandom`): nothing can be named safely then.
pub fn random_id() -> String {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)
        .expect("the kernel's random generator failed, and without it no unique name can be made");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of the boot that this machine is in, 128 bits: shared memory and locks of an earlier one are gone.
///
/// # Errors
/// Without `/proc`.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(id.to_be_bytes())
}

/// The user whose rights this process has.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The id of this process, read anew at each call: a forked child gets its own.
pub fn pid() -> u32 {
    std::process::id()
}

/// How many bytes this process may lock in memory (`RLIMIT_MEMLOCK`); `None`: as many as it likes. Root and holders of
/// `CAP_IPC_LOCK` may lock more.
pub fn lock_limit_bytes() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

/// The bytes of a `Name:   123 kB` line of a `/proc` file.
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest memory limit of the control groups named in `/proc/self/cgroup` and of their ancestors, under `root`.
fn cgroup_limit(groups: &str, root: &Path) -> Option<u64> {
    limits(groups, root).into_iter().map(|(_, limit)| limit).min()
}

/// More than any machine has.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// What is left of the smallest limit, or of `free` if that is less: a group's limit without the memory in it that is no
/// page of a file.
fn cgroup_room(groups: &str, root: &Path, free: u64) -> u64 {
    let limits = limits(groups, root).into_iter();
    // Version 1 says so of a group without a limit; reading its statistics may take long.
    let real = limits.filter(|&(_, limit)| limit < NO_LIMIT_BYTES);
    real.map(|(group, limit)| limit.saturating_sub(held_bytes(&group))).fold(free, u64::min)
}

/// The control groups named in `/proc/self/cgroup` and their ancestors that have a memory limit, under `root`.
fn limits(groups: &str, root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // `0::/path` is version 2; `7:memory:/path` is version 1's memory controller.
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (base, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let mut group = base.join(path.trim_start_matches('/'));
        // In a container the path may be the host's and absent here; its root is then the container's own group.
        while group.starts_with(&base) {
            if let Ok(limit) = read_limit(&group.join(file)) {
                found.push((group.clone(), limit));
            }
            if !group.pop() {
                break;
            }
        }
    }
    found
}

/// Bytes in a control group that the kernel cannot take back by dropping pages of files.
fn held_bytes(group: &Path) -> u64 {
    let text = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok());
    // Version 1 counts a group alone and, as `total_`, with those below it; version 2 always so.
    let anonymous = field("total_rss").or_else(|| field("anon")).unwrap_or(0);
    anonymous + field("total_shmem").or_else(|| field("shmem")).unwrap_or(0)
}

/// The number in a limit file; `max` is an error like any other text.
fn read_limit(path: &Path) -> io::Result<u64> {
    fs::read_to_string(path)?.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_32_hex_digits_and_differ() {
        let (a, b) = (random_id(), random_id());
        assert_eq!(a.len(), 32);
        assert!(a.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)), "{a}");
        assert_ne!(a, b);
    }

    #[test]
    fn machine_figures_are_sane() {
        assert!(online_cpus() >= 1);
        assert!(total_memory_bytes() >= 64 << 20, "{}", total_memory_bytes());
        assert_eq!(pid(), std::process::id());
    }

    #[test]
    fn kib_fields_become_bytes() {
        let text = "MemTotal:       49364832 kB\nMemFree: 1 kB\nHugePages_Total:   3\n";
        assert_eq!(kib_field(text, "MemTotal:"), Some(49_364_832 * 1024));
        assert_eq!(kib_field(text, "HugePages_Total:"), None);
        assert_eq!(kib_field(text, "Absent:"), None);
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_its_ancestors_counts() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("outer/inner");
        fs::create_dir_all(&leaf).unwrap();
        fs::write(leaf.join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroup_limit("0::/outer/inner\n", root.path()), None);
        fs::write(root.path().join("outer/memory.max"), "5000000\n").unwrap();
        assert_eq!(cgroup_limit("0::/outer/inner\n", root.path()), Some(5_000_000));
        fs::write(leaf.join("memory.max"), "4000000\n").unwrap();
        assert_eq!(cgroup_limit("0::/outer/inner\n", root.path()), Some(4_000_000));
        let v1 = root.path().join("memory/job");
        fs::create_dir_all(&v1).unwrap();
        fs::write(v1.join("memory.limit_in_bytes"), "3000000\n").unwrap();
        assert_eq!(cgroup_limit("4:cpu,cpuacct:/job\n3:memory:/job\n", root.path()), Some(3_000_000));
    }

    #[test]
    fn room_is_what_limits_leave_beside_memory_that_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        let (v1, v2) = (root.path().join("memory/job"), root.path().join("job/part"));
        fs::create_dir_all(&v1).unwrap();
        fs::create_dir_all(&v2).unwrap();
        let room = |free| cgroup_room("4:memory:/job\n0::/job/part\n", root.path(), free);
        assert_eq!(room(7_000_000), 7_000_000); // no limits at all
        fs::write(v1.join("memory.limit_in_bytes"), "3000000\n").unwrap();
        fs::write(v1.join("memory.stat"), "rss 1\nshmem 2\ntotal_rss 500000\ntotal_rss_huge 9\ntotal_shmem 40000\n")
            .unwrap();
        assert_eq!(room(7_000_000), 2_460_000);
        assert_eq!(room(2_000_000), 2_000_000);
        fs::write(v2.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("job/memory.max"), "1000000\n").unwrap();
        assert_eq!(room(7_000_000), 1_000_000); // without statistics: all of it
        fs::write(root.path().join("job/memory.stat"), "anon 1200000\nfile 5\n").unwrap();
        assert_eq!(room(7_000_000), 0);
        assert!(available_memory_bytes().unwrap() > 0);
    }
}
