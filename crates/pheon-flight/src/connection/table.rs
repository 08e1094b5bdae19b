//! All connections that are open.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::link::{Deadlines, Link, Overdue};
use crate::limits::Limits;
use crate::metrics::Metrics;

const SWEEP_MIN: Duration = Duration::from_millis(10);
const SWEEP_MAX: Duration = Duration::from_secs(1);

/// The connections of one listener. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Connections(Arc<Table>);

struct Table {
    connections_max: usize,
    deadlines: Deadlines,
    metrics: Metrics,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    links: HashMap<u64, Arc<Link>>,
}

/// A connection's place in the table, given up when this is dropped.
pub(super) struct Membership {
    table: Arc<Table>,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.table.remove(self.id);
    }
}

impl Connections {
    /// None yet. At most as many as the limits and this process's open files allow: a fifth of those stays for the store.
    pub fn new(limits: &Limits, metrics: Metrics) -> Self {
        let files = crate::files::open_files_max().map_or(usize::MAX, |n| (n - n / 5) as usize);
        let deadlines = Deadlines {
            handshake_ms: limits.handshake_timeout.as_millis() as u64,
            idle_ms: limits.idle_timeout.as_millis() as u64,
            stall_ms: limits.stall_timeout.as_millis() as u64,
        };
        let connections_max = limits.connections_max.min(files).max(1);
        Self(Arc::new(Table { connections_max, deadlines, metrics, open: Mutex::default() }))
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.0.connections_max
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.open().links.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends all of them, whatever they are doing.
    pub fn end_all(&self) {
        for link in self.0.open().links.values() {
            link.end();
            self.0.metrics.connection_ended_by_server("shutdown");
        }
    }

    /// Takes a connection in; if all places are taken, in the place of another. `None`: nobody can go.
    pub(super) fn admit(&self, address: SocketAddr) -> Option<(Arc<Link>, Membership)> {
        let link = Arc::new(Link::new(address));
        let mut open = self.0.open();
        if open.links.len() >= self.0.connections_max {
            let Some(id) = dispensable(&open.links) else {
                self.0.metrics.connection_ended_by_server("refused");
                return None;
            };
            self.0.metrics.connection_ended_by_server("room");
            if let Some(other) = open.links.remove(&id) {
                other.end();
                self.0.metrics.connection_closed();
            }
        }
        let id = open.next;
        open.next += 1;
        open.links.insert(id, link.clone());
        self.0.metrics.connection_opened();
        Some((link, Membership { table: self.0.clone(), id }))
    }

    /// Ends what is overdue, now and then, until the last clone is gone.
    pub(super) fn sweep(&self) -> impl Future<Output = ()> + Send + 'static {
        let table = Arc::downgrade(&self.0);
        let shortest_ms = [self.0.deadlines.handshake_ms, self.0.deadlines.idle_ms, self.0.deadlines.stall_ms];
        let shortest = Duration::from_millis(shortest_ms.into_iter().min().unwrap_or(0));
        sweep(table, (shortest / 4).clamp(SWEEP_MIN, SWEEP_MAX))
    }
}

async fn sweep(table: Weak<Table>, every: Duration) {
    let mut clock = tokio::time::interval(every);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let Some(table) = table.upgrade() else { return };
        for link in table.open().links.values().filter(|link| !link.has_ended()) {
            let reason = match link.overdue(table.deadlines) {
                None => continue,
                Some(Overdue::Handshake) => "handshake",
                Some(Overdue::Idle) => "idle",
                Some(Overdue::Stalled) => "stalled",
            };
            tracing::debug!(target: "pheon::connection", peer = %link.address, reason, "ended");
            table.metrics.connection_ended_by_server(reason);
            link.end();
        }
    }
}

/// Whom nobody will miss: who has never shown good credentials, first those without a call, of them the oldest; then who
/// has been without a call for longest.
fn dispensable(links: &HashMap<u64, Arc<Link>>) -> Option<u64> {
    let rank = |link: &Link| -> Option<(u8, Instant)> {
        match (link.is_trusted(), link.idle_since()) {
            (false, Some(_)) => Some((0, link.opened)),
            (false, None) => Some((1, link.opened)),
            (true, Some(since)) => Some((2, since)),
            (true, None) => None,
        }
    };
    links.iter().filter_map(|(id, link)| Some((rank(link)?, *id))).min().map(|(_, id)| id)
}

impl Table {
    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, id: u64) {
        if self.open().links.remove(&id).is_some() {
            self.metrics.connection_closed();
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.len()).field("max", &self.max()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::Peer;
    use super::*;

    fn connections(max: usize) -> Connections {
        let handshake_timeout = Duration::from_millis(50);
        let limits = Limits { connections_max: max, handshake_timeout, ..Limits::default() };
        Connections::new(&limits, Metrics::new())
    }

    fn admit(connections: &Connections) -> (Arc<Link>, Membership) {
        let admitted = connections.admit(([127, 0, 0, 1], 1).into()).unwrap();
        admitted.0.ready(None);
        admitted
    }

    #[test]
    fn strangers_make_room_first_then_the_idle() {
        let connections = connections(3);
        let (busy, _busy) = admit(&connections);
        Peer(busy.clone()).trust();
        busy.call_begins();
        let (idle, _idle) = admit(&connections);
        Peer(idle.clone()).trust();
        let (stranger, _stranger) = admit(&connections);
        let (other, _other) = admit(&connections);
        assert_eq!([&busy, &idle, &stranger].map(|l| l.has_ended()), [false, false, true]);
        Peer(other.clone()).trust();
        other.call_begins();
        let (last, _last) = admit(&connections);
        assert_eq!([&busy, &idle, &other].map(|l| l.has_ended()), [false, true, false]);
        Peer(last.clone()).trust();
        last.call_begins();
        assert!(connections.admit(([127, 0, 0, 1], 1).into()).is_none(), "everybody is busy");
        assert_eq!(connections.len(), 3);
        drop(_last);
        assert_eq!(connections.len(), 2);
        assert!(connections.admit(([127, 0, 0, 1], 1).into()).is_some());
    }

    #[tokio::test]
    async fn the_sweep_ends_what_is_overdue() {
        let connections = connections(3);
        let task = tokio::spawn(connections.sweep());
        let (silent, _silent) = admit(&connections);
        let (greeted, _greeted) = admit(&connections);
        greeted.greeted();
        while !silent.has_ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!greeted.has_ended());
        connections.end_all();
        assert!(greeted.has_ended());
        drop((connections, _silent, _greeted));
        task.await.unwrap();
    }
}
