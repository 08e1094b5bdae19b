//! What is known of one connection.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::task::AtomicWaker;

use super::lent::Lent;

/// One connection, shared by its task, its calls and the sweep. Times are milliseconds since `opened`, 0 for never.
pub(super) struct Link {
    pub(super) address: SocketAddr,
    pub(super) opened: Instant,
    certificate: OnceLock<Vec<u8>>,
    /// Some call has shown credentials that are good, or none are needed.
    trusted: AtomicBool,
    /// The handshake is over: since when.
    ready_ms: AtomicU64,
    /// It has sent what HTTP/2 begins with.
    greeted: AtomicBool,
    /// The last call has ended, or there was none: since when.
    idle_since_ms: AtomicU64,
    /// The peer takes no bytes: since when.
    write_blocked_since_ms: AtomicU64,
    calls: Mutex<HashMap<u64, Arc<CallWaits>>>,
    next_call: AtomicU64,
    ended: AtomicBool,
    waker: AtomicWaker,
    pub(super) lent: Lent,
}

/// Since when a call has been waiting for its client, for each direction.
#[derive(Debug, Default)]
pub(super) struct CallWaits {
    pub(super) to_send_ms: AtomicU64,
    pub(super) to_read_ms: AtomicU64,
}

/// Which deadline a connection has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Handshake,
    Idle,
    Stalled,
}

/// Milliseconds of each deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    pub(super) handshake_ms: u64,
    pub(super) idle_ms: u64,
    pub(super) stall_ms: u64,
}

impl Link {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            opened: Instant::now(),
            certificate: OnceLock::new(),
            trusted: AtomicBool::new(false),
            ready_ms: AtomicU64::new(0),
            greeted: AtomicBool::new(false),
            idle_since_ms: AtomicU64::new(0),
            write_blocked_since_ms: AtomicU64::new(0),
            calls: Mutex::new(HashMap::new()),
            next_call: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            lent: Lent::default(),
        }
    }

    /// At least 1.
    pub(super) fn now_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64 + 1
    }

    pub(super) fn ready(&self, certificate: Option<Vec<u8>>) {
        if let Some(certificate) = certificate {
            let _ = self.certificate.set(certificate);
        }
        let now = self.now_ms();
        self.ready_ms.store(now, Ordering::Relaxed);
        self.idle_since_ms.store(now, Ordering::Relaxed);
    }

    pub(super) fn greeted(&self) {
        self.greeted.store(true, Ordering::Relaxed);
    }

    pub(super) fn write_blocked(&self, blocked: bool) {
        if !blocked {
            self.write_blocked_since_ms.store(0, Ordering::Relaxed);
        } else if self.write_blocked_since_ms.load(Ordering::Relaxed) == 0 {
            self.write_blocked_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }

    /// Since when it has been without a call; `None` while it has one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let calls = self.calls();
        let since = self.idle_since_ms.load(Ordering::Relaxed);
        calls.is_empty().then(|| self.opened + std::time::Duration::from_millis(since))
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<CallWaits>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn call_begins(&self) -> (u64, Arc<CallWaits>) {
        let id = self.next_call.fetch_add(1, Ordering::Relaxed);
        let waits = Arc::new(CallWaits::default());
        self.calls().insert(id, waits.clone());
        (id, waits)
    }

    pub(super) fn call_ends(&self, id: u64) {
        let mut calls = self.calls();
        calls.remove(&id);
        if calls.is_empty() {
            self.idle_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// The connection's task sees an error as soon as it touches the socket, and is woken to do so.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it has been ended. If not, `waker` is woken when it is.
    pub(super) fn is_ended(&self, waker: &std::task::Waker) -> bool {
        if !self.ended.load(Ordering::Acquire) {
            self.waker.register(waker);
        }
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether it has passed a deadline.
    pub(super) fn overdue(&self, deadlines: Deadlines) -> Option<Overdue> {
        let now = self.now_ms();
        let past = |since: u64, limit: u64| since != 0 && now.saturating_sub(since) > limit;
        let ready = self.ready_ms.load(Ordering::Relaxed);
        if !self.greeted.load(Ordering::Relaxed) && past(ready.max(1), deadlines.handshake_ms) {
            return Some(Overdue::Handshake);
        }
        if past(self.write_blocked_since_ms.load(Ordering::Relaxed), deadlines.stall_ms) {
            return Some(Overdue::Stalled);
        }
        let calls = self.calls();
        if calls.is_empty() {
            return past(self.idle_since_ms.load(Ordering::Relaxed), deadlines.idle_ms).then_some(Overdue::Idle);
        }
        let waits = |call: &Arc<CallWaits>| {
            past(call.to_read_ms.load(Ordering::Relaxed), deadlines.stall_ms)
                || past(call.to_send_ms.load(Ordering::Relaxed), deadlines.stall_ms)
        };
        calls.values().any(waits).then_some(Overdue::Stalled)
    }
}

/// The other end of a connection: an extension of every request.
#[derive(Clone)]
pub struct Peer(pub(super) Arc<Link>);

impl Peer {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The client's certificate (DER), verified, if it has shown one.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.0.certificate.get().map(Vec::as_slice)
    }

    /// Its credentials are good: it is not the first to go when all connections are taken.
    pub fn trust(&self) {
        self.0.trusted.store(true, Ordering::Relaxed);
    }
}

/// A response that lends the pieces of its messages to the connection.
pub(crate) struct Loan {
    link: Arc<Link>,
    response: u64,
}

impl Loan {
    pub(crate) fn new(peer: &Peer) -> Self {
        Self { link: peer.0.clone(), response: peer.0.lent.begin() }
    }

    pub(crate) fn lend(&self, piece: Bytes) {
        self.link.lent.lend(self.response, piece);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.link.lent.end(self.response);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peer").field(&self.0.address).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DEADLINES: Deadlines = Deadlines { handshake_ms: 1000, idle_ms: 10_000, stall_ms: 5000 };

    fn link() -> Link {
        Link::new(([127, 0, 0, 1], 1).into())
    }

    fn pass(link: &mut Link, ms: u64) {
        link.opened -= Duration::from_millis(ms);
    }

    #[test]
    fn a_handshake_and_a_greeting_have_a_deadline_each() {
        let mut link = link();
        pass(&mut link, 900);
        assert_eq!(link.overdue(DEADLINES), None);
        link.ready(None);
        pass(&mut link, 900);
        assert_eq!(link.overdue(DEADLINES), None);
        pass(&mut link, 101);
        assert_eq!(link.overdue(DEADLINES), Some(Overdue::Handshake));
        link.greeted();
        assert_eq!(link.overdue(DEADLINES), None);
        let mut never_ready = self::link();
        pass(&mut never_ready, 1001);
        assert_eq!(never_ready.overdue(DEADLINES), Some(Overdue::Handshake));
    }

    #[test]
    fn idle_is_without_a_call() {
        let mut link = link();
        link.ready(None);
        link.greeted();
        let (id, _) = link.call_begins();
        pass(&mut link, 20_000);
        assert_eq!((link.overdue(DEADLINES), link.idle_since()), (None, None));
        link.call_ends(id);
        pass(&mut link, 9000);
        assert_eq!(link.overdue(DEADLINES), None);
        pass(&mut link, 1001);
        assert_eq!(link.overdue(DEADLINES), Some(Overdue::Idle));
    }

    #[test]
    fn stalled_is_waiting_for_the_client() {
        for direction in 0..3 {
            let mut link = link();
            link.ready(None);
            link.greeted();
            let (_, waits) = link.call_begins();
            let now = link.now_ms();
            [&waits.to_read_ms, &waits.to_send_ms, &link.write_blocked_since_ms][direction]
                .store(now, Ordering::Relaxed);
            pass(&mut link, 4000);
            assert_eq!(link.overdue(DEADLINES), None);
            pass(&mut link, 2000);
            assert_eq!(link.overdue(DEADLINES), Some(Overdue::Stalled));
        }
    }
}
