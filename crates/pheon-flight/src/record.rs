//! What is known of a call, from its request to the end of its stream: for the counts, the audit log and the traces.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Code;
use tower::{Layer, Service};
use tracing::{Span, field};

use crate::audit::{self, Ended};
use crate::connection::Peer;
use crate::metrics::{CallGuard, Metrics};

/// Datasets of one call that are told by name.
const DATASETS_MAX: usize = 16;
/// The longest name that is told whole, in bytes: a dataset's may have 128, and what a client made up may have any.
const NAME_BYTES_MAX: usize = 128;
/// The longest message of a status, in bytes as it stands in a header: clients bound their headers, mostly to 8 KiB.
const MESSAGE_BYTES_MAX: usize = 6 << 10;
const MESSAGE_HEADER: &str = "grpc-message";

const FLIGHT_PREFIX: &str = "/arrow.flight.protocol.FlightService/";
const HEALTH_PREFIX: &str = "/grpc.health.";
const REFLECTION_PREFIX: &str = "/grpc.reflection.";
/// What calls of `grpc.health.v1` count as. Load balancers make many: they are not audited.
const HEALTH: &str = "Health";

/// A call's name in counts and logs: none that a client makes up.
fn method_of(path: &str) -> &'static str {
    const FLIGHT: [&str; 10] = [
        "Handshake",
        "ListFlights",
        "GetFlightInfo",
        "PollFlightInfo",
        "GetSchema",
        "DoGet",
        "DoPut",
        "DoExchange",
        "DoAction",
        "ListActions",
    ];
    if let Some(name) = path.strip_prefix(FLIGHT_PREFIX) {
        return FLIGHT.into_iter().find(|known| *known == name).unwrap_or("unknown");
    }
    match path {
        _ if path.starts_with(HEALTH_PREFIX) => HEALTH,
        _ if path.starts_with(REFLECTION_PREFIX) => "Reflection",
        _ => "unknown",
    }
}

/// A running call: an extension of its request, told of what happens by whoever serves it. Cheap to clone. What is told
/// after the call's end is lost.
#[derive(Clone, Default)]
pub struct CallRecord(Option<Arc<Inner>>);

struct Inner {
    method: &'static str,
    peer: Option<SocketAddr>,
    span: Span,
    state: Mutex<State>,
}

struct State {
    /// Until the call has ended.
    guard: Option<CallGuard>,
    principal: Option<String>,
    action: Option<&'static str>,
    datasets: Vec<String>,
}

impl CallRecord {
    fn begin(metrics: &Metrics, method: &'static str, peer: Option<SocketAddr>, span: Span) -> Self {
        let state = State { guard: Some(metrics.call(method)), principal: None, action: None, datasets: Vec::new() };
        Self(Some(Arc::new(Inner { method, peer, span, state: Mutex::new(state) })))
    }

    /// That of a request; where no [`RecordLayer`] stands before the service, one that forgets everything.
    pub fn of(extensions: &http::Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        self.0.as_ref().map(|inner| inner.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who calls: his credentials are good.
    pub fn principal(&self, name: &str) {
        if let Some(mut state) = self.state() {
            state.principal = Some(name.to_owned());
        }
    }

    /// What the call does, where its method alone does not say.
    pub fn action(&self, action: &'static str) {
        if let Some(mut state) = self.state() {
            state.action = Some(action);
        }
    }

    /// A dataset that it is about; of a live map `live/NAME`.
    pub fn dataset(&self, name: &str) {
        let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
        if let Some(mut state) = self.state()
            && state.datasets.len() < DATASETS_MAX
            && !state.datasets.iter().any(|known| known == name)
        {
            state.datasets.push(name.to_owned());
        }
    }

    /// Adds rows that were sent, taken, looked up or changed.
    pub fn rows(&self, n: u64) {
        self.moved(n, 0);
    }

    /// Adds rows, and bytes of Arrow data.
    pub fn moved(&self, rows: u64, bytes: u64) {
        if let Some(guard) = self.state().as_ref().and_then(|state| state.guard.as_ref()) {
            guard.rows(rows);
            guard.bytes(bytes);
        }
    }

    /// `None`: it was cut off.
    fn end(&self, code: Option<Code>) {
        let (Some(inner), Some(mut state)) = (&self.0, self.state()) else { return };
        let Some(mut guard) = state.guard.take() else { return };
        match code {
            Some(Code::Ok) => guard.ok(),
            Some(code) => guard.failed(code),
            None => {}
        }
        let (rows, bytes) = guard.moved();
        let dataset = state.datasets.join(",");
        let action = state.action.unwrap_or_default();
        let outcome = guard.outcome();
        let span = &inner.span;
        // OpenTelemetry has no unsigned numbers.
        span.record("pheon.rows", rows.cast_signed()).record("pheon.bytes", bytes.cast_signed());
        span.record("pheon.outcome", outcome);
        span.record("otel.status_code", if code == Some(Code::Ok) { "ok" } else { "error" });
        for (name, value) in [("pheon.dataset", dataset.as_str()), ("pheon.action", action)] {
            if !value.is_empty() {
                span.record(name, value);
            }
        }
        // Who was not let in is in the log already, with the reason.
        let Some(principal) = state.principal.take().filter(|_| inner.method != HEALTH) else { return };
        span.record("pheon.principal", principal.as_str());
        let (method, peer, elapsed) = (inner.method, inner.peer, guard.elapsed());
        drop(state);
        drop(guard);
        audit::ended(&Ended {
            principal: &principal,
            peer,
            method,
            action,
            dataset: &dataset,
            rows,
            bytes,
            outcome,
            elapsed,
        });
    }
}

impl fmt::Debug for CallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallRecord").field(&self.0.as_ref().map(|inner| inner.method)).finish()
    }
}

/// Ends its call as cut off when it is dropped, if nothing else has ended it.
pub(crate) struct RunningCall(CallRecord);

impl RunningCall {
    /// Of the web page's.
    pub(crate) fn of_page(metrics: &Metrics, peer: Option<SocketAddr>) -> Self {
        Self(CallRecord::begin(metrics, "Page", peer, Span::none()))
    }

    pub(crate) fn record(&self) -> &CallRecord {
        &self.0
    }

    pub(crate) fn end(self, code: Code) {
        self.0.end(Some(code));
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

/// Makes [`RecordService`]s. Stands outside of the layer that asks who calls.
#[derive(Clone, Debug)]
pub struct RecordLayer {
    metrics: Metrics,
}

impl RecordLayer {
    /// Counts there.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for RecordLayer {
    type Service = RecordService<S>;

    fn layer(&self, inner: S) -> RecordService<S> {
        RecordService { metrics: self.metrics.clone(), inner }
    }
}

/// Puts a [`CallRecord`] into the extensions of each request, and ends it when the response's stream ends, or is dropped
/// because the client went away.
#[derive(Clone, Debug)]
pub struct RecordService<S> {
    metrics: Metrics,
    inner: S,
}

fn span_of(method: &'static str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: crate::logs::SPANS,
        "call",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system = "grpc",
        rpc.method = method,
        pheon.principal = field::Empty,
        pheon.action = field::Empty,
        pheon.dataset = field::Empty,
        pheon.rows = field::Empty,
        pheon.bytes = field::Empty,
        pheon.outcome = field::Empty,
    );
    #[cfg(feature = "traces")]
    crate::traces::continue_from(&span, headers);
    #[cfg(not(feature = "traces"))]
    let _ = headers;
    span
}

impl<S, B, R> Service<Request<B>> for RecordService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<RecordedBody<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = method_of(request.uri().path());
        let peer = request.extensions().get::<Peer>().map(Peer::address);
        let span = span_of(method, request.headers());
        let record = CallRecord::begin(&self.metrics, method, peer, span.clone());
        request.extensions_mut().insert(record.clone());
        let running = RunningCall(record);
        let call = span.in_scope(|| self.inner.call(request));
        let call = tracing::Instrument::instrument(call, span);
        Box::pin(async move {
            let mut response = call.await?;
            cut_message(response.headers_mut());
            if let Some(code) = code_in(response.headers()) {
                running.0.end(Some(code));
            }
            Ok(response.map(|inner| RecordedBody { inner, running: Some(running) }))
        })
    }
}

/// The status in headers or trailers.
fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

/// Cuts the message of a status that is longer than clients take: it may quote what they sent.
fn cut_message(headers: &mut HeaderMap) {
    let Some(message) = headers.get(MESSAGE_HEADER) else { return };
    if message.len() <= MESSAGE_BYTES_MAX {
        return;
    }
    let Ok(text) = message.to_str() else { return };
    // Not within a character: one is up to four bytes, each of them `%` and two digits.
    let mut end = MESSAGE_BYTES_MAX;
    while text.as_bytes()[end - 1] == b'%' || text.as_bytes()[end - 2] == b'%' {
        end -= 1;
    }
    let continues = |at: usize| {
        let byte = text.get(at..at + 3).and_then(|escape| u8::from_str_radix(escape.strip_prefix('%')?, 16).ok());
        byte.is_some_and(|byte| byte & 0xC0 == 0x80)
    };
    while continues(end) && end > 3 {
        end -= 3;
    }
    if let Ok(cut) = http::HeaderValue::from_str(&format!("{}...", &text[..end])) {
        headers.insert(MESSAGE_HEADER, cut);
    }
}

/// What a service answers; its end is the end of the call.
pub struct RecordedBody<R> {
    inner: R,
    running: Option<RunningCall>,
}

impl<R: Body + Unpin> Body for RecordedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let this = &mut *self;
        let span = this.running.as_ref().and_then(|running| running.0.0.as_ref()).map(|inner| inner.span.clone());
        let _within = span.as_ref().map(Span::enter);
        let mut frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            cut_message(trailers);
        }
        if let (Some(Ok(frame)), Some(running)) = (&frame, &this.running)
            && let Some(code) = frame.trailers_ref().and_then(code_in)
        {
            running.0.end(Some(code));
        }
        if frame.is_none() {
            this.running = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<R: Default> Default for RecordedBody<R> {
    fn default() -> Self {
        Self { inner: R::default(), running: None }
    }
}

impl<R> fmt::Debug for RecordedBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordedBody(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_ones() {
        assert_eq!(method_of("/arrow.flight.protocol.FlightService/DoGet"), "DoGet");
        assert_eq!(method_of("/arrow.flight.protocol.FlightService/Evil\n"), "unknown");
        assert_eq!(method_of("/grpc.health.v1.Health/Check"), HEALTH);
        assert_eq!(method_of("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"), "Reflection");
        assert_eq!(method_of("/"), "unknown");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        for text in
            ["x".repeat(100_000), format!("x{}", "ä\u{1F600}".repeat(10_000)), "€".repeat(10_000), "%".repeat(9000)]
        {
            let mut headers = HeaderMap::new();
            tonic::Status::not_found(text.as_str()).add_header(&mut headers).unwrap();
            let before = headers[MESSAGE_HEADER].clone();
            cut_message(&mut headers);
            assert!(
                headers[MESSAGE_HEADER].len() < before.len() && headers[MESSAGE_HEADER].len() < MESSAGE_BYTES_MAX + 8
            );
            let status = tonic::Status::from_header_map(&headers).unwrap();
            let cut = status.message().strip_suffix("...").unwrap();
            assert!(text.starts_with(cut) && !cut.is_empty(), "{cut:?}");
        }
        let mut headers = HeaderMap::new();
        tonic::Status::not_found("ä").add_header(&mut headers).unwrap();
        cut_message(&mut headers);
        assert_eq!(tonic::Status::from_header_map(&headers).unwrap().message(), "ä");
    }

    #[test]
    fn a_call_ends_once() {
        let metrics = Metrics::new();
        let record = CallRecord::begin(&metrics, "DoGet", None, Span::none());
        record.moved(3, 100);
        record.end(Some(Code::Ok));
        record.moved(1000, 1000);
        drop(RunningCall(record));
        let text = metrics.render();
        assert!(text.contains("pheon_rows_total{method=\"DoGet\"} 3\n"), "{text}");
        assert!(text.contains("pheon_calls_total{method=\"DoGet\",outcome=\"ok\"} 1\n"), "{text}");
        drop(RunningCall(CallRecord::begin(&metrics, "DoGet", None, Span::none())));
        assert!(metrics.render().contains("pheon_calls_total{method=\"DoGet\",outcome=\"cancelled\"} 1\n"));
        CallRecord::default().end(None);
    }
}
