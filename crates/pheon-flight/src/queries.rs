//! Queries that are running, and those that were slow.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;

use crate::metrics::Metrics;
use crate::sql_text::without_values;

/// Slow queries that are remembered, the last ones.
const SLOW_MAX: usize = 100;
/// Of a query's text.
const TEXT_CHARS_MAX: usize = 2000;

/// The queries of a server. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct QueryLog(Arc<Log>);

struct Log {
    slow_after: Duration,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    running: BTreeMap<u64, Arc<Query>>,
    slow: VecDeque<QueryFacts>,
}

struct Query {
    principal: String,
    text: String,
    started: Instant,
    rows: AtomicU64,
    cancelled: AtomicBool,
    waker: AtomicWaker,
}

/// What is told about a query.
#[derive(Clone, Debug)]
pub struct QueryFacts {
    /// Its number.
    pub id: u64,
    /// Who asked.
    pub principal: String,
    /// The statement, cut if it is long. Values of parameters are not in it.
    pub text: String,
    /// How long it has run.
    pub elapsed: Duration,
    /// Rows that it has sent.
    pub rows: u64,
}

impl QueryLog {
    /// Without a query.
    pub fn new(slow_after: Duration, metrics: Metrics) -> Self {
        Self(Arc::new(Log { slow_after, metrics, state: Mutex::default() }))
    }

    /// A query begins; it ends when the guard does.
    pub fn begin(&self, principal: &str, text: &str) -> QueryGuard {
        let query = Arc::new(Query {
            principal: principal.to_owned(),
            text: text.chars().take(TEXT_CHARS_MAX).collect(),
            started: Instant::now(),
            rows: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let mut state = self.0.state();
        let id = state.next;
        state.next += 1;
        state.running.insert(id, query.clone());
        self.0.metrics.query_began();
        QueryGuard { log: self.0.clone(), id, query }
    }

    /// Those that are running, the oldest first.
    pub fn running(&self) -> Vec<QueryFacts> {
        self.0.state().running.iter().map(|(id, query)| query.facts(*id)).collect()
    }

    /// Those that were slow, the last first.
    pub fn slow(&self) -> Vec<QueryFacts> {
        self.0.state().slow.iter().rev().cloned().collect()
    }

    /// Asks a query to end. False if it is not running, or `principal` has not asked it.
    pub fn cancel(&self, id: u64, principal: &str) -> bool {
        let query = self.0.state().running.get(&id).filter(|q| q.principal == principal).cloned();
        let Some(query) = query else { return false };
        query.cancelled.store(true, Ordering::Release);
        query.waker.wake();
        true
    }
}

impl fmt::Debug for QueryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueryLog(..)")
    }
}

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Query {
    fn facts(&self, id: u64) -> QueryFacts {
        QueryFacts {
            id,
            principal: self.principal.clone(),
            text: self.text.clone(),
            elapsed: self.started.elapsed(),
            rows: self.rows.load(Ordering::Relaxed),
        }
    }
}

/// A running query.
pub struct QueryGuard {
    log: Arc<Log>,
    id: u64,
    query: Arc<Query>,
}

impl QueryGuard {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Adds rows that were sent.
    pub fn rows(&self, n: u64) {
        self.query.rows.fetch_add(n, Ordering::Relaxed);
    }

    /// Whether it has been asked to end. If not, the task of `context` is woken when it is.
    pub fn poll_cancelled(&self, context: &mut std::task::Context<'_>) -> bool {
        self.query.waker.register(context.waker());
        self.is_cancelled()
    }

    /// Whether it has been asked to end.
    pub fn is_cancelled(&self) -> bool {
        self.query.cancelled.load(Ordering::Acquire)
    }
}

impl Drop for QueryGuard {
    fn drop(&mut self) {
        let facts = self.query.facts(self.id);
        let is_slow = facts.elapsed >= self.log.slow_after;
        self.log.metrics.query_ended(is_slow);
        let mut state = self.log.state();
        state.running.remove(&self.id);
        if is_slow {
            tracing::warn!(
                target: "pheon::slow", principal = facts.principal, query = without_values(&facts.text), rows = facts.rows,
                elapsed_ms = facts.elapsed.as_millis() as u64,
            );
            if state.slow.len() == SLOW_MAX {
                state.slow.pop_front();
            }
            state.slow.push_back(facts);
        }
    }
}

impl fmt::Debug for QueryGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryGuard").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_slow_and_cancelled() {
        let metrics = Metrics::new();
        let log = QueryLog::new(Duration::ZERO, metrics.clone());
        let query = log.begin("alice", "select 1");
        query.rows(3);
        assert_eq!((log.running()[0].text.as_str(), log.running()[0].rows), ("select 1", 3));
        assert!(!log.cancel(query.id(), "bob") && !query.is_cancelled());
        assert!(log.cancel(query.id(), "alice") && query.is_cancelled());
        let id = query.id();
        drop(query);
        assert!(log.running().is_empty() && !log.cancel(id, "alice"));
        assert_eq!((log.slow()[0].principal.as_str(), log.slow()[0].rows), ("alice", 3));
        assert!(metrics.render().contains("pheon_queries_slow_total 1\n"));
        for i in 0..SLOW_MAX {
            drop(log.begin("alice", &i.to_string()));
        }
        assert_eq!((log.slow().len(), log.slow()[0].text.as_str()), (SLOW_MAX, "99"));
        let fast = QueryLog::new(Duration::from_secs(3600), Metrics::new());
        drop(fast.begin("alice", "select 1"));
        assert!(fast.slow().is_empty());
    }
}
