//! How much memory queries may take: each, and all of them together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{Array, ArrayRef, RecordBatch};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

/// What all queries of an engine have taken.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    used: AtomicUsize,
    bytes_max: usize,
}

impl SharedMemory {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: AtomicUsize::new(0), bytes_max }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

fn take(used: &AtomicUsize, bytes: usize, bytes_max: usize) -> std::result::Result<(), usize> {
    let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= bytes_max);
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map(|_| ())
}

/// The memory of one query.
#[derive(Debug)]
pub(crate) struct QueryMemory {
    shared: Arc<SharedMemory>,
    used: AtomicUsize,
    bytes_max: usize,
}

impl QueryMemory {
    pub(crate) fn new(shared: Arc<SharedMemory>, bytes_max: usize) -> Self {
        Self { shared, used: AtomicUsize::new(0), bytes_max }
    }
}

impl fmt::Display for QueryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query memory: {} of {} bytes", self.used.load(Ordering::Relaxed), self.bytes_max)
    }
}

impl MemoryPool for QueryMemory {
    fn name(&self) -> &'static str {
        "query"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.shared.used.fetch_add(additional, Ordering::Relaxed);
        self.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.shared.used.fetch_sub(shrink, Ordering::Relaxed);
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let refused = |whose: &str, used: usize, bytes_max: usize| {
            DataFusionError::ResourcesExhausted(format!(
                "{} asked for {additional} bytes more, {whose} {used} of {bytes_max} bytes in use",
                reservation.consumer().name()
            ))
        };
        take(&self.used, additional, self.bytes_max).map_err(|used| refused("this query has", used, self.bytes_max))?;
        take(&self.shared.used, additional, self.shared.bytes_max).map_err(|used| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            refused("all queries together have", used, self.shared.bytes_max)
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes_max)
    }
}

impl Drop for QueryMemory {
    /// What a query that was cut off has not given back.
    fn drop(&mut self) {
        self.shared.used.fetch_sub(self.used.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What rows take by themselves: a batch may be a small part of large buffers, such as those of a mapping.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    let bytes_of = |c: &ArrayRef| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size());
    batch.columns().iter().map(bytes_of).sum()
}
