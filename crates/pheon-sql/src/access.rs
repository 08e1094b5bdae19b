//! What a caller may do.

use std::fmt::Debug;

/// Rights on datasets, asked by name before anything is opened. A name may have a version, as in `prices@3`, taken off
/// before it is asked about.
pub trait Access: Debug + Send + Sync {
    /// Whether its rows may be read, and its existence known.
    fn may_read(&self, dataset: &str) -> bool;
    /// Whether rows may be added, replaced and deleted, and the dataset created.
    fn may_write(&self, dataset: &str) -> bool;
    /// Whether it may be dropped.
    fn may_admin(&self, dataset: &str) -> bool;
    /// Whether it may be named at all: who may only write still names the table that is written to.
    fn may_name(&self, dataset: &str) -> bool {
        self.may_read(dataset) || self.may_write(dataset) || self.may_admin(dataset)
    }
}

/// Everything is allowed: for a caller that can read the store's files anyway.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllAccess;

impl Access for AllAccess {
    fn may_read(&self, _: &str) -> bool {
        true
    }

    fn may_write(&self, _: &str) -> bool {
        true
    }

    fn may_admin(&self, _: &str) -> bool {
        true
    }
}
