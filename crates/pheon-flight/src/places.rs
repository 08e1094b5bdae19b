//! Places for work that keeps a thread while it waits, so that however much of it there is, reads have threads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::limits::Limits;
use crate::status;

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    writers: Arc<Semaphore>,
    writers_max: usize,
    actions: Arc<Semaphore>,
    actions_max: usize,
    locks: Arc<Semaphore>,
}

/// A place, given up when this is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

fn taken(places: &Arc<Semaphore>, max: usize, what: &str, limit: &str) -> Result<Place, Status> {
    let permit = places.clone().try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!("{max} {what}, and no more are allowed ({limit}): try again later"))
    })?;
    Ok(Place { _permit: permit })
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Self {
        let of = |max| Arc::new(Semaphore::new(max));
        Self {
            writers: of(limits.writers_max),
            writers_max: limits.writers_max,
            actions: of(limits.actions_max),
            actions_max: limits.actions_max,
            locks: of(limits.actions_max),
        }
    }

    /// For a stream of rows.
    pub(crate) fn writer(&self) -> Result<Place, Status> {
        taken(&self.writers, self.writers_max, "streams of rows are being written", "writers_max")
    }

    /// For an action that may take long.
    pub(crate) fn action(&self) -> Result<Place, Status> {
        taken(&self.actions, self.actions_max, "long actions are running", "actions_max")
    }

    /// For a change of a live map that has to wait for its lock; waits for a place for as long as for the lock.
    pub(crate) async fn lock(&self, wait: Duration) -> Result<Place, Status> {
        match tokio::time::timeout(wait, self.locks.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            _ => {
                let waited = wait.as_secs();
                let problem = format!(
                    "so many changes wait for locks of live maps (actions_max) that this one waited {waited} s"
                );
                Err(status::with_detail(Status::unavailable(problem), "lock-timeout"))
            }
        }
    }
}
