//! Traces for OpenTelemetry collectors: a span a call, by OTLP over gRPC.

use std::io;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::logs::LogError;

/// How long the last spans may take to get to the collector when the server ends.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// Sends spans away, in threads of its own; when this is dropped, those that are left.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    /// The connection to the collector lives there.
    _runtime: Runtime,
}

impl Traces {
    /// To the collector at `endpoint`, as `http://host:4317`. The collector need not be there yet.
    pub(crate) fn start(endpoint: &str) -> Result<Self, LogError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pheon-traces")
            .enable_all()
            .build()
            .map_err(|source| LogError::Traces { endpoint: endpoint.to_owned(), source })?;
        let exporter = {
            let _within = runtime.enter();
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()
        };
        let exporter =
            exporter.map_err(|e| LogError::Traces { endpoint: endpoint.to_owned(), source: io::Error::other(e) })?;
        // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before the default.
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("pheon");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        Ok(Self { provider, _runtime: runtime })
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("pheon")
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(e) = self.provider.shutdown_with_timeout(FLUSH_TIME_MAX) {
            tracing::warn!(target: "pheon::server", error = %e, "the last traces have not been sent");
        }
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Makes the client's span, as `traceparent` names it, the parent of this one.
pub(crate) fn continue_from(span: &Span, headers: &HeaderMap) {
    if !span.is_disabled() && headers.contains_key("traceparent") {
        // Without a layer of traces there is nothing to continue.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Headers(headers)));
    }
}
