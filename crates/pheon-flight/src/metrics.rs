//! Counts for Prometheus.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the histogram of durations, in seconds.
const SECONDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    method: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What a server counts. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics(Arc<Counts>);

struct Counts {
    registry: Registry,
    ended: Family<Ended, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    running: Family<Method, Gauge>,
    rows: Family<Method, Counter>,
    bytes: Family<Method, Counter>,
    connections: Gauge,
    accepted: Counter,
    closed: Family<Reason, Counter>,
    queries: Gauge,
    slow: Counter,
    resident: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pheon");
        let make_histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let counts = Counts {
            ended: Family::default(),
            seconds: Family::new_with_constructor(make_histogram),
            running: Family::default(),
            rows: Family::default(),
            bytes: Family::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
            closed: Family::default(),
            queries: Gauge::default(),
            slow: Counter::default(),
            resident: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "calls",
            "Calls that have ended, by outcome: ok, cancelled, or a gRPC status",
            counts.ended.clone(),
        );
        registry.register_with_unit(
            "call_duration",
            "From the request to the end of its stream",
            Unit::Seconds,
            counts.seconds.clone(),
        );
        registry.register("calls_running", "Calls that are running", counts.running.clone());
        registry.register("rows", "Rows that calls have read, written or looked up", counts.rows.clone());
        registry.register_with_unit(
            "moved",
            "Bytes of Arrow data that calls have sent or taken",
            Unit::Bytes,
            counts.bytes.clone(),
        );
        registry.register("connections", "Connections that are open", counts.connections.clone());
        registry.register("connections_accepted", "Connections that clients have made", counts.accepted.clone());
        registry.register(
            "connections_closed",
            "Connections that the server has closed, by reason",
            counts.closed.clone(),
        );
        registry.register("queries_running", "Queries that are running", counts.queries.clone());
        registry.register("queries_slow", "Queries that took longer than the limit slow_query", counts.slow.clone());
        registry.register_with_unit(
            "process_resident_memory",
            "Memory of this process, mapped files included",
            Unit::Bytes,
            counts.resident.clone(),
        );
        Self(Arc::new(Counts { registry, ..counts }))
    }

    /// A call of `method` begins; it ends when the guard does.
    pub fn call(&self, method: &'static str) -> CallGuard {
        self.0.running.get_or_create(&Method { method }).inc();
        CallGuard {
            metrics: self.clone(),
            method,
            started: Instant::now(),
            outcome: None,
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Everything, in the text format of OpenMetrics that Prometheus reads.
    pub fn render(&self) -> String {
        self.0.resident.set(crate::files::resident_bytes().map_or(0, u64::cast_signed));
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.0.registry);
        text
    }

    pub(crate) fn connection_opened(&self) {
        self.0.accepted.inc();
        self.0.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.0.connections.dec();
    }

    pub(crate) fn connection_ended_by_server(&self, reason: &'static str) {
        self.0.closed.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn query_began(&self) {
        self.0.queries.inc();
    }

    pub(crate) fn query_ended(&self, slow: bool) {
        self.0.queries.dec();
        if slow {
            self.0.slow.inc();
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(..)")
    }
}

/// A running call. Without an outcome it counts as `cancelled`: its client went away, or its stream was never read to the
/// end.
#[derive(Debug)]
pub struct CallGuard {
    metrics: Metrics,
    method: &'static str,
    started: Instant,
    outcome: Option<&'static str>,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl CallGuard {
    /// Adds rows that were sent, taken or looked up.
    pub fn rows(&self, n: u64) {
        self.rows.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds bytes of Arrow data.
    pub fn bytes(&self, n: u64) {
        self.bytes.fetch_add(n, Ordering::Relaxed);
    }

    /// Since when.
    pub fn elapsed(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// Rows and bytes until now.
    pub fn moved(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// It went well.
    pub fn ok(&mut self) {
        self.outcome = Some("ok");
    }

    /// It failed.
    pub fn failed(&mut self, code: tonic::Code) {
        self.outcome = Some(code_name(code));
    }

    /// The outcome until now, in one word.
    pub fn outcome(&self) -> &'static str {
        self.outcome.unwrap_or("cancelled")
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let (rows, bytes) = self.moved();
        let method = Method { method: self.method };
        let counts = &self.metrics.0;
        counts.running.get_or_create(&method).dec();
        counts.rows.get_or_create(&method).inc_by(rows);
        counts.bytes.get_or_create(&method).inc_by(bytes);
        counts.seconds.get_or_create(&method).observe(self.started.elapsed().as_secs_f64());
        counts.ended.get_or_create(&Ended { method: self.method, outcome: self.outcome() }).inc();
    }
}

/// The name of a gRPC status in one word.
pub fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code as C;
    match code {
        C::Ok => "ok",
        C::Cancelled => "cancelled",
        C::Unknown => "unknown",
        C::InvalidArgument => "invalid_argument",
        C::DeadlineExceeded => "deadline_exceeded",
        C::NotFound => "not_found",
        C::AlreadyExists => "already_exists",
        C::PermissionDenied => "permission_denied",
        C::ResourceExhausted => "resource_exhausted",
        C::FailedPrecondition => "failed_precondition",
        C::Aborted => "aborted",
        C::OutOfRange => "out_of_range",
        C::Unimplemented => "unimplemented",
        C::Internal => "internal",
        C::Unavailable => "unavailable",
        C::DataLoss => "data_loss",
        C::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_when_they_end() {
        let metrics = Metrics::new();
        let mut call = metrics.call("DoGet");
        call.rows(10);
        call.bytes(1000);
        assert!(metrics.render().contains("pheon_calls_running{method=\"DoGet\"} 1\n"));
        call.ok();
        drop(call);
        metrics.call("DoGet").failed(tonic::Code::NotFound);
        drop(metrics.call("DoGet"));
        let text = metrics.render();
        for line in [
            "pheon_calls_running{method=\"DoGet\"} 0\n",
            "pheon_calls_total{method=\"DoGet\",outcome=\"ok\"} 1\n",
            "pheon_calls_total{method=\"DoGet\",outcome=\"not_found\"} 1\n",
            "pheon_calls_total{method=\"DoGet\",outcome=\"cancelled\"} 1\n",
            "pheon_rows_total{method=\"DoGet\"} 10\n",
            "pheon_moved_bytes_total{method=\"DoGet\"} 1000\n",
            "pheon_call_duration_seconds_count{method=\"DoGet\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("pheon_process_resident_memory_bytes 0\n"));
    }
}
