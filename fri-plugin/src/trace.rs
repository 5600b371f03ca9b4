//! Traces through one request, sent with OTLP over HTTP to the endpoint of the configuration (nothing at all where there is none); and the
//! daemon's own log.
//!
//! The spans of a request are made when it is over, of the times that its instance told: the clone, the VM and the prefill happen in
//! another process.

use crate::daemon::error::DaemonError;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer as _, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use seedtree::node::Served;
use seedtree::runtime::Reply;
use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime};
use tracing_subscriber::EnvFilter;

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint cannot be used.
    #[error(
        "cannot send traces to {endpoint}: give an http:// address of an OTLP endpoint, such as http://127.0.0.1:4318"
    )]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// Why, where the exporter says so.
        #[source]
        source: Option<opentelemetry_otlp::ExporterBuildError>,
    },
}

/// Form of the daemon's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogForm {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log to stderr. `COPPICE_LOG` says what is in it, as tracing-subscriber's EnvFilter has it; by default `info`.
pub fn log_to_stderr(form: LogForm) {
    let filter = EnvFilter::try_from_env("COPPICE_LOG").unwrap_or_else(|_| "info".into());
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match form {
        LogForm::Text => log.init(),
        LogForm::Json => log.json().flatten_event(true).init(),
    }
}

/// Makes and sends spans.
#[derive(Debug)]
pub struct Tracer {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Times of a request, taken as it goes on.
#[derive(Debug)]
pub struct Marks {
    wall: SystemTime,
    start: Instant,
    received: Option<Instant>,
    answered: Option<Instant>,
    parent: Context,
    origin: Origin,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Gateway,
    Fri,
    /// A try of an asynchronous event.
    Event,
}

impl Origin {
    /// The span until the event is here, or until its turn has come.
    fn first(self) -> &'static str {
        match self {
            Origin::Gateway => "gateway",
            Origin::Fri => "fri",
            Origin::Event => "waiting",
        }
    }

    fn kind(self) -> SpanKind {
        if self == Origin::Event { SpanKind::Consumer } else { SpanKind::Server }
    }
}

impl Marks {
    /// A request has arrived. Its trace is the one that its `traceparent` names, where it has one.
    pub fn begin(headers: &HeaderMap) -> Marks {
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        Marks::new(Origin::Gateway, parent)
    }

    /// The same over the Function Runtime Interface, with what stands for the header.
    pub fn of_call(traceparent: &str) -> Marks {
        let header = HeaderValue::from_str(traceparent).ok();
        let headers =
            header.map(|value| (HeaderName::from_static("traceparent"), value)).into_iter().collect();
        Marks { origin: Origin::Fri, ..Marks::begin(&headers) }
    }

    /// An asynchronous event, accepted with this request, begins to wait for its turn. It belongs to the same trace.
    pub fn of_event(&self) -> Marks {
        Marks::new(Origin::Event, self.parent.clone())
    }

    fn new(origin: Origin, parent: Context) -> Marks {
        Marks {
            wall: SystemTime::now(),
            start: Instant::now(),
            received: None,
            answered: None,
            parent,
            origin,
        }
    }

    /// Its body is here, or its turn.
    pub fn received(&mut self) {
        self.received = Some(Instant::now());
    }

    /// Its answer is here.
    pub fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    fn at(&self, instant: Instant) -> SystemTime {
        self.wall + instant.saturating_duration_since(self.start)
    }
}

impl Tracer {
    /// Begins to send to an endpoint. To be called inside the tokio runtime. `sample` is the share of the traces that begin here.
    pub fn start(endpoint: &str, sample: f64) -> Result<Tracer, TraceError> {
        let refuse = |source| TraceError::Endpoint { endpoint: endpoint.to_owned(), source };
        if !endpoint.starts_with("http://") {
            return Err(refuse(None));
        }
        let base = endpoint.trim_end_matches('/');
        let url = if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") };
        let client = OnRuntime {
            runtime: tokio::runtime::Handle::current(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(url)
            .build()
            .map_err(|e| refuse(Some(e)))?;
        let resource = Resource::builder()
            .with_service_name("coppiced")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
            .with_resource(resource)
            .build();
        Ok(Tracer { tracer: provider.tracer("coppice"), provider })
    }

    /// Tells of a request that is over.
    pub fn invocation(
        &self,
        marks: &Marks,
        function: &str,
        request_id: &str,
        result: &Result<Served, DaemonError>,
    ) {
        let end = Instant::now();
        let root = self
            .tracer
            .span_builder("invoke")
            .with_kind(marks.origin.kind())
            .with_start_time(marks.wall)
            .with_attributes([
                KeyValue::new("faas.name", function.to_owned()),
                KeyValue::new("faas.invocation_id", request_id.to_owned()),
            ]);
        let mut root = self.tracer.build_with_context(root, &marks.parent);
        if !root.is_recording() {
            return;
        }
        match result {
            Ok(served) => {
                root.set_attribute(KeyValue::new("coppice.level", i64::from(served.level)));
                root.set_attribute(KeyValue::new("coppice.spare", served.spare));
                root.set_attribute(KeyValue::new("coppice.kept", served.kept));
                root.set_attribute(KeyValue::new("coppice.instance", served.instance.clone()));
                if matches!(served.reply, Reply::Error(_)) {
                    root.set_status(Status::error("Function.Unhandled"));
                }
            }
            Err(error) => root.set_status(Status::error(error.code())),
        }
        let within = Context::new().with_remote_span_context(root.span_context().clone());
        let child = |name: &'static str, from: SystemTime, to: SystemTime| {
            let builder = self.tracer.span_builder(name).with_start_time(from);
            self.tracer.build_with_context(builder, &within).end_with_timestamp(to.max(from));
        };
        let received = marks.at(marks.received.unwrap_or(marks.start));
        let answered = marks.at(marks.answered.unwrap_or(end));
        let end = marks.at(end);
        child(marks.origin.first(), marks.wall, received);
        match result {
            Ok(served) => {
                let ns = Duration::from_nanos;
                let turn = answered.checked_sub(ns(served.total)).unwrap_or(received).max(received);
                child("queue", turn.checked_sub(ns(served.queued)).unwrap_or(received).max(received), turn);
                // Only the run of an instance that was there before belongs to this request.
                let phases = &served.phases;
                let made = if served.spare || served.kept {
                    [0; 3]
                } else {
                    [phases.clone, phases.vm, phases.prefill]
                };
                let before: u64 = made.iter().sum::<u64>() + phases.run;
                let mut at = answered.checked_sub(ns(before)).unwrap_or(turn).max(turn);
                child("lookup", turn, at);
                let named = ["clone", "vm", "prefill"].into_iter().zip(made).filter(|(_, ns)| *ns > 0);
                for (name, duration) in named.chain([("run", phases.run)]) {
                    let to = (at + ns(duration)).min(answered);
                    child(name, at, to);
                    at = to;
                }
            }
            Err(_) => child("lookup", received, answered),
        }
        child("teardown", answered, end);
        root.end_with_timestamp(end);
    }

    /// Sends what is left. It blocks for some seconds where nobody takes it.
    pub fn finish(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::debug!(%error, "the last traces were not sent");
        }
    }
}

/// The exporter has a thread of its own; the connections belong to the runtime.
#[derive(Debug)]
struct OnRuntime {
    runtime: tokio::runtime::Handle,
    client: Client<HttpConnector, axum::body::Body>,
}

/// Time for one batch.
const LIMIT: Duration = Duration::from_secs(5);

impl HttpClient for OnRuntime {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let exchange = async {
                let response = client.request(request.map(axum::body::Body::from)).await?;
                let (head, body) = response.into_parts();
                let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await?;
                Ok::<_, HttpError>(Response::from_parts(head, body))
            };
            tokio::time::timeout(LIMIT, exchange).await?
        });
        Box::pin(async move { sent.await? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_plain_http_is_an_endpoint() {
        for bad in ["127.0.0.1:4318", "https://x", "http://a b", ""] {
            assert!(matches!(Tracer::start(bad, 1.0), Err(TraceError::Endpoint { .. })), "{bad}");
        }
    }

    #[test]
    fn a_trace_goes_on_from_the_callers() {
        let mut headers = HeaderMap::new();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", parent.parse().unwrap());
        let marks = Marks::begin(&headers);
        assert!(marks.parent.span().span_context().is_remote());
        assert!(!Marks::begin(&HeaderMap::new()).parent.span().span_context().is_valid());
    }
}
