//! CTRL: the one page that is never replaced.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use pheon_os::fs::FileSystem;
use pheon_os::robust::{MUTEX_BYTES, RobustMutex};
use pheon_os::shared::SharedMap;
use pheon_os::{futex, process};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::LiveError;
use crate::layout::{Address, CTRL_MAGIC, FORMAT_VERSION, FORMAT_WITHOUT_SEALS, ctrl};
use crate::options::LiveOptions;
use crate::sync::SYNC_BYTES;

/// The machine words that a mutex in shared memory depends on: the C library, the architecture and the mutex's size.
fn abi(format_version: u64) -> u64 {
    let library: u64 = if cfg!(target_env = "gnu") {
        1
    } else if cfg!(target_env = "musl") {
        2
    } else {
        3
    };
    let architecture: u64 = if cfg!(target_arch = "x86_64") {
        1
    } else if cfg!(target_arch = "aarch64") {
        2
    } else {
        3
    };
    format_version | (library << 8 | architecture) << 16 | (MUTEX_BYTES as u64) << 32
}

/// A checksum of what is written once, when the map is made; never 0.
fn sum(map: &SharedMap) -> u64 {
    let words = [
        ctrl::ABI,
        ctrl::UUID,
        ctrl::UUID + 8,
        ctrl::CREATED_MS,
        ctrl::FLAGS,
        ctrl::ENTRIES_MAX,
        ctrl::AGE_MAX_NS,
        ctrl::BYTES_MAX,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|&at| map.load_relaxed(at).to_le_bytes()).collect();
    xxh3_64(&bytes) | 1
}

/// Values of the sleepers' flag.
const NOBODY: u32 = 0;
const SOMEBODY: u32 = 1;
const BEING_WOKEN: u32 = 2;

/// What a commit says of the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// The transaction.
    pub(crate) txn: u64,
    /// After its last record: bits of an address.
    pub(crate) end: u64,
    /// Up to where old records were looked through: bits of an address.
    pub(crate) clean: u64,
    pub(crate) entries: u64,
    /// Bytes of the entries' records.
    pub(crate) live_bytes: u64,
    pub(crate) next_order: u64,
    /// Slots that are not empty; never less than there are.
    pub(crate) used_slots: u64,
}

impl Block {
    pub(crate) fn end(&self) -> Address {
        Address::of_word(self.end)
    }
}

#[derive(Debug)]
pub(crate) struct Ctrl {
    map: SharedMap,
    path: PathBuf,
    /// SYNC, from when it is first needed.
    sync: OnceLock<SharedMap>,
}

impl Ctrl {
    pub(crate) fn path_in(dir: &Path) -> PathBuf {
        dir.join("CTRL")
    }

    /// A new page, complete but for view and commit block. `boot`: zeros until the map is usable.
    pub(crate) fn create(
        fs: &dyn FileSystem,
        dir: &Path,
        mode: u32,
        options: &LiveOptions,
        in_store: bool,
    ) -> Result<Self, LiveError> {
        let path = Self::path_in(dir);
        let map = crate::files::create(fs, &path, ctrl::BYTES, mode)?;
        let ctrl = Self { map, path, sync: OnceLock::new() };
        ctrl.map.store(ctrl::ABI, abi(FORMAT_VERSION));
        let id = u128::from_str_radix(&process::random_id(), 16).unwrap_or_default();
        ctrl.map.write(ctrl::UUID, &id.to_be_bytes());
        ctrl.map.store(ctrl::CREATED_MS, now_ns() / 1_000_000);
        let in_store = if in_store { ctrl::FLAG_IN_STORE } else { 0 };
        let durable = if options.durable { ctrl::FLAG_DURABLE } else { 0 };
        ctrl.map.store(ctrl::FLAGS, in_store | durable);
        ctrl.map.store(ctrl::ENTRIES_MAX, options.max_entries);
        ctrl.map.store(ctrl::AGE_MAX_NS, options.max_age_ns());
        ctrl.map.store(ctrl::BYTES_MAX, options.max_bytes);
        ctrl.map.store(ctrl::SUM, sum(&ctrl.map));
        ctrl.mutex().init().map_err(|e| LiveError::io("make the lock of", &ctrl.path, e))?;
        ctrl.map.store(ctrl::MAGIC, CTRL_MAGIC);
        Ok(ctrl)
    }

    pub(crate) fn open(fs: &dyn FileSystem, dir: &Path, writable: bool) -> Result<Self, LiveError> {
        let path = Self::path_in(dir);
        let map = fs.map_shared(&path, writable).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => LiveError::NotFound { path: dir.to_owned() },
            _ => LiveError::io("open", &path, e),
        })?;
        if map.len_bytes() as u64 != ctrl::BYTES {
            return Err(LiveError::corrupt(&path, format!("expected 4096 bytes, found {}", map.len_bytes())));
        }
        if map.load(ctrl::MAGIC) != CTRL_MAGIC {
            return Err(LiveError::corrupt(&path, "it does not begin as a live map does"));
        }
        let (expected, found) = (abi(FORMAT_VERSION), map.load_relaxed(ctrl::ABI));
        if ![expected, abi(FORMAT_WITHOUT_SEALS)].contains(&found) {
            let problem = format!(
                "made by another version, C library or architecture: expected {expected:#x}, found {found:#x}; \
                 use the same in all processes"
            );
            return Err(LiveError::corrupt(&path, problem));
        }
        let stored = map.load_relaxed(ctrl::SUM);
        // Maps of the format before may have none.
        if stored != sum(&map) && (stored != 0 || found == expected) {
            return Err(LiveError::corrupt(&path, "its limits and flags are not those that it was made with"));
        }
        Ok(Self { map, path, sync: OnceLock::new() })
    }

    /// Whether the records of this map have seals.
    pub(crate) fn has_seals(&self) -> bool {
        self.map.load_relaxed(ctrl::ABI) != abi(FORMAT_WITHOUT_SEALS)
    }

    pub(crate) fn map(&self) -> &SharedMap {
        &self.map
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sync_path(&self) -> PathBuf {
        self.path.with_file_name("SYNC")
    }

    /// SYNC, mapped; made if it is not there. Like CTRL it is never replaced, so it stays mapped: then it can be written where
    /// no file can be opened any more, and is this map's whatever its name may be by now.
    pub(crate) fn sync_file(&self, fs: &dyn FileSystem, mode: u32) -> Result<&SharedMap, LiveError> {
        if let Some(file) = self.sync.get() {
            return Ok(file);
        }
        let path = self.sync_path();
        let file = match fs.map_shared(&path, true) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => crate::files::create(fs, &path, SYNC_BYTES, mode)?,
            other => other.map_err(|e| LiveError::io("open", &path, e))?,
        };
        if self.is_unlinked() {
            return Err(LiveError::Unlinked { path: path.parent().unwrap_or(&path).to_owned() });
        }
        if file.len_bytes() as u64 != SYNC_BYTES {
            return Err(LiveError::corrupt(&path, format!("expected {SYNC_BYTES} bytes, found {}", file.len_bytes())));
        }
        Ok(self.sync.get_or_init(|| file))
    }

    pub(crate) fn mutex(&self) -> RobustMutex<'_> {
        RobustMutex::at(&self.map, ctrl::MUTEX)
    }

    pub(crate) fn uuid(&self) -> [u8; 16] {
        self.id_at(ctrl::UUID)
    }

    pub(crate) fn boot(&self) -> [u8; 16] {
        self.id_at(ctrl::BOOT)
    }

    fn id_at(&self, offset: usize) -> [u8; 16] {
        let words = [self.map.load(offset), self.map.load(offset + 8)];
        let mut id = [0; 16];
        id[..8].copy_from_slice(&words[0].to_le_bytes());
        id[8..].copy_from_slice(&words[1].to_le_bytes());
        id
    }

    pub(crate) fn set_boot(&self, id: [u8; 16]) {
        let (words, _) = id.as_chunks::<8>();
        self.map.store(ctrl::BOOT, u64::from_le_bytes(words[0]));
        self.map.store(ctrl::BOOT + 8, u64::from_le_bytes(words[1]));
    }

    pub(crate) fn created_ms(&self) -> u64 {
        self.map.load_relaxed(ctrl::CREATED_MS)
    }

    pub(crate) fn options(&self) -> LiveOptions {
        let word = |at| self.map.load_relaxed(at);
        LiveOptions {
            max_entries: word(ctrl::ENTRIES_MAX),
            max_age: std::time::Duration::from_nanos(word(ctrl::AGE_MAX_NS)),
            max_bytes: word(ctrl::BYTES_MAX),
            durable: word(ctrl::FLAGS) & ctrl::FLAG_DURABLE != 0,
        }
    }

    pub(crate) fn in_store(&self) -> bool {
        self.map.load_relaxed(ctrl::FLAGS) & ctrl::FLAG_IN_STORE != 0
    }

    #[inline]
    pub(crate) fn view(&self) -> u64 {
        self.map.load(ctrl::VIEW)
    }

    pub(crate) fn set_view(&self, number: u64) {
        self.map.store(ctrl::VIEW, number);
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        self.says_unlinked(self.map.load(ctrl::STATE) as u32)
    }

    /// Tells everybody that the map is being unlinked; `false` if somebody else did already.
    pub(crate) fn set_unlinked(&self) -> bool {
        !self.says_unlinked(self.map.u32_at(ctrl::STATE).swap(ctrl::STATE_UNLINKED, AcqRel))
    }

    /// Whether a state means that. Maps of before, which have no checksum, were unlinked by a 1.
    fn says_unlinked(&self, state: u32) -> bool {
        state == ctrl::STATE_UNLINKED || state == 1 && self.map.load_relaxed(ctrl::SUM) == 0
    }

    /// Takes that back: the folder could not be removed.
    pub(crate) fn set_linked(&self) {
        self.map.store(ctrl::STATE, 0);
    }

    /// Whether some of the log could not be written to the disk since it was last made durable, be it by another process.
    pub(crate) fn has_sync_failed(&self) -> bool {
        self.map.load(ctrl::SYNC_FAILED) != 0
    }

    pub(crate) fn set_sync_failed(&self, failed: bool) {
        self.map.store(ctrl::SYNC_FAILED, u64::from(failed));
    }

    #[inline]
    pub(crate) fn commit(&self) -> u64 {
        self.map.load(ctrl::COMMIT)
    }

    /// The block of the last commit. For readers, which may be overtaken by writers; the holder of the lock gets its own.
    pub(crate) fn block(&self) -> Block {
        loop {
            let txn = self.commit();
            let block = self.block_of(txn);
            // The half is written again for transaction txn + 2, which cannot begin before txn + 1 is committed.
            fence(Acquire);
            if self.commit() == txn {
                return block;
            }
            std::hint::spin_loop();
        }
    }

    fn block_of(&self, txn: u64) -> Block {
        let at = ctrl::BLOCKS + (txn % 2) as usize * ctrl::BLOCK_BYTES;
        let word = |i: usize| self.map.load_relaxed(at + i * 8);
        Block {
            txn: word(0),
            end: word(1),
            clean: word(2),
            entries: word(3),
            live_bytes: word(4),
            next_order: word(5),
            used_slots: word(6),
        }
    }

    /// Commits: the only moment at which a transaction becomes visible. Wakes who waits for a change.
    pub(crate) fn publish(&self, block: &Block) {
        let at = ctrl::BLOCKS + (block.txn % 2) as usize * ctrl::BLOCK_BYTES;
        let words =
            [block.txn, block.end, block.clean, block.entries, block.live_bytes, block.next_order, block.used_slots];
        for (i, word) in words.into_iter().enumerate() {
            self.map.store(at + i * 8, word);
        }
        self.map.store(ctrl::COMMIT, block.txn);
        self.wake(block.txn);
    }

    /// docs/live.md, "Waiting": a flag of a waiter is never cleared unless its sleep was ended.
    #[inline]
    fn wake(&self, txn: u64) {
        let (change, sleepers) = (self.map.u32_at(ctrl::CHANGE), self.map.u32_at(ctrl::SLEEPERS));
        // Either this sees the flag of a waiter, or the waiter, which sets it before it looks, sees the commit.
        fence(SeqCst);
        let wanted = sleepers.load(Relaxed) != NOBODY;
        if wanted {
            sleepers.swap(BEING_WOKEN, AcqRel);
        }
        change.store(txn as u32, Release);
        if wanted {
            futex::wake_all(change);
            let _ = sleepers.compare_exchange(BEING_WOKEN, NOBODY, AcqRel, Relaxed);
        }
    }

    /// Sleeps until a transaction after `seen` is committed or the time is over; may return early.
    pub(crate) fn sleep(&self, seen: u64, timeout: std::time::Duration) -> Result<(), LiveError> {
        let change = self.map.u32_at(ctrl::CHANGE);
        // Relaxed and a fence: the page may be mapped read-only.
        let value = change.load(Relaxed);
        fence(Acquire);
        if self.map.is_writable() {
            self.map.u32_at(ctrl::SLEEPERS).swap(SOMEBODY, AcqRel);
        }
        fence(SeqCst);
        if self.commit() != seen {
            return Ok(());
        }
        futex::wait(change, value, timeout).map_err(|e| LiveError::io("wait for a change of", &self.path, e))
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
