//! `LiveMap`: a handle of a map.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pheon_os::thread_id;

use crate::changes::{self, Changes, Position};
use crate::chunk::Record;
use crate::error::LiveError;
use crate::keylock::KeyLocks;
use crate::layout::{Address, EMPTY, FREED, hash, tag_bits};
use crate::options::LiveOptions;
use crate::place::Location;
use crate::queue::Queue;
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use crate::user::User;
use crate::view::{Lost, View};
use crate::write::Txn;

/// A dictionary of bytes in shared memory. Cheap to clone; usable from any thread, and after `fork`.
#[derive(Clone, Debug)]
pub struct LiveMap {
    pub(crate) shared: Arc<Shared>,
    pub(crate) location: Location,
    user: User,
}

/// A key's entry, in shared memory. It stays as it is however the map changes.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a>(Record<'a>);

impl<'a> Entry<'a> {
    pub(crate) fn of(record: Record<'a>) -> Self {
        Self(record)
    }

    /// The key's bytes.
    pub fn key(&self) -> &'a [u8] {
        self.0.key()
    }

    /// The value's bytes.
    pub fn value(&self) -> &'a [u8] {
        self.0.value()
    }

    /// The byte that the writer gave with it.
    pub fn meta(&self) -> u8 {
        self.0.meta()
    }

    /// The number of the transaction that wrote it or, if cleaning moved it, moved it.
    pub fn sequence(&self) -> u64 {
        self.0.txn()
    }
}

/// One change of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets a key. `meta` is a byte that belongs to the caller and comes back with the entry.
    Put {
        /// The key.
        key: &'a [u8],
        /// The caller's byte.
        meta: u8,
        /// The value.
        value: &'a [u8],
    },
    /// Takes a key out, if it is there.
    Delete {
        /// The key.
        key: &'a [u8],
    },
}

impl<'a> Change<'a> {
    /// The key that it changes.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }
}

/// Facts about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveInfo {
    /// Entries, those that are too old but not yet evicted among them.
    pub entries: u64,
    /// Bytes of the entries' records: keys, values, 48 bytes each, rounded up to 8.
    pub entry_bytes: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Files of the log.
    pub chunks: usize,
    /// Slots of the hash table.
    pub slots: usize,
    /// Number of the last transaction.
    pub sequence: u64,
    /// The map's identity.
    pub uuid: [u8; 16],
    /// When it was made, milliseconds since 1970.
    pub created_unix_ms: u64,
    /// Whether it was unlinked.
    pub unlinked: bool,
    /// Its limits.
    pub options: LiveOptions,
}

impl LiveMap {
    pub(crate) fn of(shared: Arc<Shared>, location: Location) -> Self {
        let user = User::new(&shared);
        Self { shared, location, user }
    }

    /// Lets go of the memory of the entries unless another handle of this process uses it; what else a handle does can
    /// be done still, and maps them again. Snapshots keep what they show.
    pub fn close(&self) {
        self.user.end();
    }

    // Reading ---------------------------------------------------------------------------------------------------------

    /// Looks a key up and hands its entry to `read`. No lock, no allocation and, unless the map got new files since, no
    /// system call.
    ///
    /// # Errors
    /// When the map's files are damaged or cannot be mapped.
    #[inline]
    pub fn get_with<T>(&self, key: &[u8], read: impl FnOnce(Entry<'_>) -> T) -> Result<Option<T>, LiveError> {
        let hash = hash(key);
        let mut last = None;
        loop {
            let view = self.shared.view()?;
            let commit = self.shared.ctrl.commit();
            // An index that was replaced in the midst of the last transaction does not tell what that committed.
            if self.shared.ctrl.view() != view.number {
                continue;
            }
            match find(&view, commit, hash, key) {
                Ok(Some(record)) if !record.is_deleted() && !self.is_too_old(&record) => {
                    return Ok(Some(read(Entry(record))));
                }
                Ok(_) => return Ok(None),
                Err(Lost::Elsewhere) if self.shared.ctrl.view() != view.number => {
                    // Of an unlinked map there is no newer view to be had than the one that was mapped last.
                    if last.replace(view.number) == Some(view.number) && self.shared.ctrl.is_unlinked() {
                        return Err(LiveError::Unlinked { path: self.shared.dir.clone() });
                    }
                }
                Err(lost) => return Err(self.shared.lost(lost)),
            }
        }
    }

    /// [`get_with`](Self::get_with) for many keys, in their order: several times as fast where entries are not in the cache.
    /// Each is looked up at some moment of its own; take a [`snapshot`](Self::snapshot) for one moment.
    ///
    /// # Errors
    /// As [`get_with`](Self::get_with), and those of `read`, which end it.
    pub fn get_many_with<E: From<LiveError>>(
        &self,
        keys: &[&[u8]],
        mut read: impl FnMut(Option<Entry<'_>>) -> Result<(), E>,
    ) -> Result<(), E> {
        for group in keys.chunks(GROUP) {
            let view = self.shared.view()?;
            fetch(&view, group.iter().copied());
            drop(view);
            for key in group {
                if let Some(done) = self.get_with(key, |entry| read(Some(entry)))? {
                    done?;
                } else {
                    read(None)?;
                }
            }
        }
        Ok(())
    }

    /// A copy of a key's value.
    ///
    /// # Errors
    /// As [`get_with`](Self::get_with).
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LiveError> {
        self.get_with(key, |entry| entry.value().to_vec())
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// As [`get_with`](Self::get_with).
    pub fn contains(&self, key: &[u8]) -> Result<bool, LiveError> {
        Ok(self.get_with(key, |_| ())?.is_some())
    }

    #[inline]
    fn is_too_old(&self, record: &Record<'_>) -> bool {
        record.order() < self.shared.options.order_min()
    }

    /// How many entries there are, those that are too old but not yet evicted among them.
    pub fn len(&self) -> u64 {
        self.shared.ctrl.block().entries
    }

    /// Whether [`len`](Self::len) is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries there are that are not too old. Where entries have a greatest age this looks at each, unless none can
    /// be left.
    ///
    /// # Errors
    /// As [`get_with`](Self::get_with).
    pub fn len_living(&self) -> Result<u64, LiveError> {
        let block = self.shared.ctrl.block();
        if self.shared.options.max_age.is_zero() || block.entries == 0 {
            return Ok(block.entries);
        }
        // Orders are times of writing, and this is one more than the last.
        if block.next_order <= self.shared.options.order_min() {
            return Ok(0);
        }
        self.snapshot()?.len()
    }

    /// The map as it is now, for good. Costs 8 bytes a slot; takes no lock.
    ///
    /// # Errors
    /// As [`get_with`](Self::get_with).
    pub fn snapshot(&self) -> Result<Snapshot, LiveError> {
        Snapshot::take(&self.shared)
    }

    /// The number of the last committed transaction: it grows with each.
    pub fn sequence(&self) -> u64 {
        self.shared.ctrl.commit()
    }

    /// Facts about the map.
    ///
    /// # Errors
    /// As [`get_with`](Self::get_with).
    pub fn info(&self) -> Result<LiveInfo, LiveError> {
        let view = match self.shared.view() {
            Err(LiveError::Unlinked { .. }) => self.shared.mapped_view(),
            other => Arc::clone(&*other?),
        };
        let block = self.shared.ctrl.block();
        let index_bytes = view.index.map().len_bytes() as u64;
        Ok(LiveInfo {
            entries: block.entries,
            entry_bytes: block.live_bytes,
            file_bytes: view.log_bytes() + index_bytes + self.shared.ctrl.map().len_bytes() as u64,
            chunks: view.chunks.len(),
            slots: view.index.slots(),
            sequence: block.txn,
            uuid: self.shared.ctrl.uuid(),
            created_unix_ms: self.shared.ctrl.created_ms(),
            unlinked: self.shared.ctrl.is_unlinked(),
            options: self.shared.options.clone(),
        })
    }

    /// Where the map is.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether it may be changed through this handle.
    pub fn is_writable(&self) -> bool {
        self.shared.writable
    }

    // The lock --------------------------------------------------------------------------------------------------------

    /// Takes the map's lock for the calling thread, which may hold it already: each success needs a [`unlock`](Self::unlock).
    /// Waits as long as `timeout`, for ever with `None`. Other threads and processes can read meanwhile, and not write.
    /// `should_stop` is asked about twenty times a second.
    ///
    /// # Errors
    /// [`LiveError::LockTimeout`], [`LiveError::Stopped`], [`LiveError::ReadOnly`].
    #[inline]
    pub fn lock(&self, timeout: Option<Duration>, should_stop: &dyn Fn() -> bool) -> Result<(), LiveError> {
        if self.shared.try_acquire()? {
            return Ok(());
        }
        let began = Instant::now();
        if self.shared.acquire(timeout, should_stop)? {
            return Ok(());
        }
        Err(LiveError::LockTimeout { path: self.shared.dir.clone(), waited_ms: began.elapsed().as_millis() as u64 })
    }

    /// [`lock`](Self::lock) that gives up after some microseconds; whether it has it.
    ///
    /// # Errors
    /// [`LiveError::ReadOnly`].
    #[inline]
    pub fn try_lock(&self) -> Result<bool, LiveError> {
        self.shared.try_acquire()
    }

    /// Gives the lock back as often as it was taken.
    ///
    /// # Errors
    /// [`LiveError::NotHeld`].
    #[inline]
    pub fn unlock(&self) -> Result<(), LiveError> {
        self.shared.release()
    }

    /// How often the calling thread holds the lock.
    pub fn lock_depth(&self) -> u32 {
        self.shared.lock_depth()
    }

    /// The locks of keys; who makes their file waits for the map's lock.
    fn key_locks(&self, timeout: Option<Duration>, should_stop: &dyn Fn() -> bool) -> Result<&KeyLocks, LiveError> {
        let shared = &self.shared;
        if let Some(locks) = shared.key_locks.get() {
            return Ok(locks);
        }
        if !shared.writable {
            return Err(LiveError::ReadOnly { path: shared.dir.clone() });
        }
        let open = || KeyLocks::open(&*shared.fs, &shared.dir);
        let locks = match open()? {
            Some(locks) => locks,
            None => {
                self.lock(timeout, should_stop)?;
                let made = shared.check_linked().and_then(|()| match open()? {
                    Some(locks) => Ok(locks),
                    None => KeyLocks::create(&*shared.fs, &shared.dir, shared.mode),
                });
                self.unlock()?;
                made?
            }
        };
        // Else the file may be that of another map, which got the name.
        shared.check_linked()?;
        Ok(shared.key_locks.get_or_init(|| locks))
    }

    /// Takes the lock of a key, like [`lock`](Self::lock). Two keys may share one, so who takes several at once should give a
    /// timeout. It stops nobody from writing the key.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub fn lock_key(
        &self,
        key: &[u8],
        timeout: Option<Duration>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<(), LiveError> {
        let began = Instant::now();
        let (mutex, owner) = self.key_locks(timeout, should_stop)?.lock(KeyLocks::number(key));
        let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
        if owner.acquire(mutex, &self.shared.dir, left, should_stop)? {
            return Ok(());
        }
        Err(LiveError::LockTimeout { path: self.shared.dir.clone(), waited_ms: began.elapsed().as_millis() as u64 })
    }

    /// Gives the lock of a key back.
    ///
    /// # Errors
    /// [`LiveError::NotHeld`].
    pub fn unlock_key(&self, key: &[u8]) -> Result<(), LiveError> {
        let locks = self.shared.key_locks.get().ok_or(LiveError::NotHeld)?;
        let (mutex, owner) = locks.lock(KeyLocks::number(key));
        owner.release(mutex)
    }

    // Writing: the calling thread holds the lock -----------------------------------------------------------------------

    /// Runs a transaction; the calling thread must hold the lock.
    #[inline]
    fn transact<T>(&self, body: impl FnOnce(&mut Txn<'_>) -> Result<T, LiveError>) -> Result<T, LiveError> {
        if self.lock_depth() == 0 {
            return Err(LiveError::NotHeld);
        }
        let done = Txn::begin(&self.shared).and_then(|mut txn| {
            let done = body(&mut txn)?;
            txn.commit()?;
            Ok(done)
        });
        done.map_err(|error| match error {
            // Its folder went away meanwhile, and with it the place for new files.
            LiveError::Io { .. } if self.shared.ctrl.is_unlinked() => {
                LiveError::Unlinked { path: self.shared.dir.clone() }
            }
            other => other,
        })
    }

    /// Sets a key, as a transaction of its own.
    ///
    /// # Errors
    /// [`LiveError::NotHeld`] unless this thread holds the lock; [`LiveError::Full`], [`LiveError::Unlinked`],
    /// [`LiveError::TooLarge`]: nothing changed. [`LiveError::NotDurable`] in a durable map: the change is made, but may be gone
    /// after a power cut.
    #[inline]
    pub fn put(&self, key: &[u8], meta: u8, value: &[u8]) -> Result<(), LiveError> {
        self.transact(|txn| txn.put(key, meta, value))
    }

    /// Takes a key out; whether it was there.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn delete(&self, key: &[u8]) -> Result<bool, LiveError> {
        self.transact(|txn| txn.delete(key))
    }

    /// Makes all changes in one transaction, in this order.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn apply<'c>(&self, changes: impl IntoIterator<Item = Change<'c>>) -> Result<(), LiveError> {
        // All of them first: the iterator is the caller's, and may write to the map itself.
        let changes: Vec<_> = changes.into_iter().collect();
        self.transact(|txn| {
            for group in changes.chunks(GROUP) {
                fetch(txn.view(), group.iter().map(Change::key));
                for change in group {
                    match *change {
                        Change::Put { key, meta, value } => txn.put(key, meta, value)?,
                        Change::Delete { key } => drop(txn.delete(key)?),
                    }
                }
            }
            Ok(())
        })
    }

    /// The key of the last entry in the map's order, as it is now, unless that is too old.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn last_key(&self) -> Result<Option<Vec<u8>>, LiveError> {
        self.transact(|txn| {
            let mut queue = Queue::take(&self.shared, txn)?;
            let last = queue.last(txn)?;
            queue.give_back(&self.shared);
            let order_min = self.shared.options.order_min();
            Ok(last.filter(|(order, _)| *order >= order_min).map(|(_, key)| key))
        })
    }

    /// Takes all entries out.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn clear(&self) -> Result<(), LiveError> {
        self.transact(|txn| {
            let all = self.snapshot()?.with_old_ones().ordered()?;
            for entry in (0..all.len()).filter_map(|at| all.get(at)) {
                txn.delete(entry.key())?;
            }
            Ok(())
        })
    }

    /// Makes everything that was committed so far durable. Maps in `/dev/shm` have nothing to make durable.
    ///
    /// # Errors
    /// What the disk says; then nothing is known about what is on it since the last sync.
    pub fn sync(&self) -> Result<(), LiveError> {
        self.transact(|txn| {
            if !self.shared.ctrl.in_store() {
                return Ok(());
            }
            crate::sync::all(&self.shared, txn.view(), txn.committed())
        })
    }

    // Waiting ---------------------------------------------------------------------------------------------------------

    /// The place in the map's history after the last commit.
    pub fn position(&self) -> Position {
        changes::position(&self.shared)
    }

    /// What changed since a position, and the position after it. `others_only` leaves out what the calling thread wrote.
    ///
    /// # Errors
    /// As [`get_with`](Self::get_with).
    pub fn changes_since(&self, from: Position, others_only: bool) -> Result<(Changes, Position), LiveError> {
        changes::since(&self.shared, from, others_only.then(|| thread_id::current().1))
    }

    /// Sleeps until something is committed after `from`, `timeout` is over, or for no reason. A handle that is
    /// read-only cannot ask to be woken: give it short timeouts.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sleep(&self, from: Position, timeout: Duration) -> Result<(), LiveError> {
        self.shared.ctrl.sleep(from.txn, timeout)
    }
}

/// Keys looked up together, so that one's memory is on the way while others' is waited for.
const GROUP: usize = 16;

/// Asks for the slots of keys, then for the records that they name. Changes nothing but the time that it takes to find them.
fn fetch<'k>(view: &View, keys: impl Iterator<Item = &'k [u8]>) {
    let mut homes = [0; GROUP];
    let mut count = 0;
    for (key, home) in keys.zip(&mut homes) {
        *home = view.index.home(hash(key));
        view.index.prefetch(*home);
        count += 1;
    }
    for home in &homes[..count] {
        let address = Address::of_word(view.index.load(*home));
        if let Some(chunk) = view.chunk(address.chunk()).filter(|_| address.is_some()) {
            // Most records lie in two cache lines.
            chunk.map().prefetch(address.offset());
            chunk.map().prefetch(address.offset() + 64);
        }
    }
}

/// The newest record of a key that `commit` covers.
#[inline]
fn find<'v>(view: &'v View, commit: u64, hash: u64, key: &[u8]) -> Result<Option<Record<'v>>, Lost> {
    let tag = tag_bits(hash);
    let index = &view.index;
    let mut slot = index.home(hash);
    for _ in 0..index.slots() {
        let word = index.load(slot);
        if word == EMPTY {
            return Ok(None);
        }
        if word > FREED && tag_bits(word) == tag {
            let record = view.record(Address::of_word(word))?;
            if record.key() == key {
                return if record.txn() <= commit { Ok(Some(record)) } else { view.as_of(record.before(), commit) };
            }
        }
        slot = index.next(slot);
    }
    Ok(None)
}
