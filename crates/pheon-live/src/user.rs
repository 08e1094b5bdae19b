//! Who uses a map's memory: its handles in this process that are not closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::shared::{self, Shared};

/// One handle's use of a map. The end of the last one lets go of the entries' memory.
#[derive(Debug)]
pub(crate) struct User {
    shared: Arc<Shared>,
    ended: AtomicBool,
}

impl User {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.users.fetch_add(1, Ordering::AcqRel);
        Self { shared: shared.clone(), ended: AtomicBool::new(false) }
    }

    pub(crate) fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) && self.shared.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.let_go();
        }
    }
}

impl Clone for User {
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Also after its end: the handle may have taken a lock since.
        shared::keep_while_locked(&self.shared);
        self.end();
    }
}
