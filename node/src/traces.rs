//! Traces: what became of single calls, on every node that had to do with them.
//!
//! A call is traced if its client says so in the W3C header `traceparent`, or by chance (`sample_ratio`) if the client says nothing;
//! a client that says no is obeyed. A follower hands its span on with the command it forwards, and the leader its own with the entry that
//! it replicates, so that the spans of all nodes are one trace:
//!
//! ```text
//! kvstore.v1.KvStore/Put        on the node that the client called
//! ├ forward                     to the leader, if that is another; each attempt one
//! │ └ propose                   on the leader: from its admission until it is applied there
//! │   ├ log flush               on each node: the group of records that it was written and synced with
//! │   └ apply                   on each node: its turn on the apply thread
//! │     └ wasm                  the module's run, with its fuel
//! ```
//!
//! Between `log flush` and `apply` is what the other nodes needed. A node that applies what another proposed may do so after the call has been
//! answered, and before its own log is flushed, of which it then has no span. What happens on other threads is timed for all commands
//! ([`crate::measure`]) and made into spans afterwards: on the leader by whoever proposed the command, once it comes back with the reply, and
//! elsewhere by the apply thread. So a call that is not traced costs a look at its headers, and nothing at all where `[otlp]` is not set.
//!
//! A trace is no part of an entry ([`crate::command::Command`]), in no log and in no digest. An entry that is read from a disk has none: what
//! is applied once more after a restart was traced before, and a node that is so far behind sends no spans of what it missed.
//!
//! Queries have one span; that of a query that answers with a stream ends behind its last message. A call that its client takes back ends
//! with the code CANCELLED, and what it has begun goes on in spans of its own.
//!
//! Spans are sent in batches by the SDK's own thread, and dropped if the collector does not keep up: tracing never slows a call down.

use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan};
use tonic::Code;

use crate::command::Timing;
use crate::config::Otlp;
use crate::measure::Span;

/// The W3C's name for it.
pub const HEADER: &str = "traceparent";
/// How long the last spans may take to leave when the node stops.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Makes spans, or none. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<On>);

#[derive(Debug, Clone)]
struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The span that others belong under, perhaps on another node.
#[derive(Debug, Clone, PartialEq)]
pub struct Parent(SpanContext);

/// A span that has begun and ends when it is told to, or dropped.
#[derive(Debug)]
pub struct Open(SdkSpan);

impl Traces {
    /// None are made.
    pub fn off() -> Self {
        Self(None)
    }

    /// Sends them to a collector, as the node called `node`. In a tokio runtime.
    pub fn start(otlp: &Otlp, node: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(&otlp.endpoint);
        let exporter = exporter.build().map_err(|error| error.to_string())?;
        let resource = Resource::builder_empty().with_service_name("balsa").with_attributes([
            KeyValue::new("service.instance.id", node.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ]);
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .with_sampler(sampler)
            .build();
        Ok(Self::on(provider))
    }

    /// Hands them to `provider`.
    pub(crate) fn on(provider: SdkTracerProvider) -> Self {
        Self(Some(On { tracer: provider.tracer("balsa"), provider }))
    }

    /// Whether any are made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a client's call of the method at `path`, if the call is to be traced.
    pub fn call(&self, path: &str, headers: &HeaderMap, started: Instant) -> Option<Open> {
        let On { tracer, .. } = self.0.as_ref()?;
        let sent = headers.get(HEADER).and_then(|value| Parent::parse(value.to_str().ok()?));
        let path = path.trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        let attributes = [("rpc.system", "grpc"), ("rpc.service", service), ("rpc.method", method)];
        let builder = SpanBuilder::from_name(path.to_owned())
            .with_kind(SpanKind::Server)
            .with_start_time(wall_clock(started))
            .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value.to_owned())));
        let span = builder.start_with_context(tracer, &context(sent.as_ref()));
        span.is_recording().then_some(Open(span))
    }

    /// A span that begins now, under one that is traced.
    pub fn begin(&self, parent: Option<&Parent>, name: &'static str, kind: SpanKind) -> Option<Open> {
        self.open(parent, name, kind, Instant::now())
    }

    /// One that is over.
    fn past(
        &self,
        parent: Option<&Parent>,
        name: &'static str,
        span: Span,
        attributes: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Option<Parent> {
        let Open(mut open) = self.open(parent, name, SpanKind::Internal, span.from)?;
        for (key, value) in attributes {
            open.set_attribute(number(key, value));
        }
        let own = Parent(open.span_context().clone());
        open.end_with_timestamp(wall_clock(span.to));
        Some(own)
    }

    /// What a node's threads did for a command that is over: the group of records that it was written with, and how many entries that had;
    /// its turn on the apply thread, and the module's run in it.
    pub fn applied(&self, parent: &Parent, flush: Option<(Span, u64)>, timing: Timing) {
        if let Some((span, entries)) = flush {
            self.past(Some(parent), "log flush", span, [("balsa.entries", entries)]);
        }
        let Some(applied) = timing.applied else { return };
        let apply = self.past(Some(parent), "apply", applied, []);
        if let Some((span, fuel)) = timing.ran {
            self.past(apply.as_ref(), "wasm", span, [("balsa.fuel", fuel)]);
        }
    }

    fn open(&self, parent: Option<&Parent>, name: &'static str, kind: SpanKind, from: Instant) -> Option<Open> {
        let (On { tracer, .. }, parent) = (self.0.as_ref()?, parent?);
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_start_time(wall_clock(from));
        let span = builder.start_with_context(tracer, &context(Some(parent)));
        span.is_recording().then_some(Open(span))
    }

    /// Sends what is left. It waits for that, but not for long.
    pub async fn stop(&self) {
        let Some(On { provider, .. }) = self.0.clone() else { return };
        // It waits for its own thread, which waits for the runtime.
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

impl Open {
    /// What belongs under it says so with this.
    pub fn parent(&self) -> Parent {
        Parent(self.0.span_context().clone())
    }

    /// Says at which log index the call took effect, and whether that was an earlier attempt.
    pub fn at(&mut self, index: u64, replayed: bool) {
        self.0.set_attributes([number("balsa.index", index), KeyValue::new("balsa.replayed", replayed)]);
    }

    /// The call came to this.
    pub fn ended(mut self, code: Code) {
        self.0.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(code as i32)));
        // The server's own fault, as OpenTelemetry counts them; what a client does wrong is no error of the server.
        let faults = [
            Code::Unknown,
            Code::DeadlineExceeded,
            Code::Unimplemented,
            Code::Internal,
            Code::Unavailable,
            Code::DataLoss,
        ];
        if faults.contains(&code) {
            self.0.set_status(Status::error(crate::command::code_name(code)));
        }
    }

    /// It did not come to its end.
    pub fn failed(mut self, why: &dyn std::fmt::Display) {
        self.0.set_status(Status::error(why.to_string()));
    }
}

impl Parent {
    /// What a `traceparent` says: `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`. One that is malformed is as good as none, as
    /// the W3C asks.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let well_formed = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
        // Later versions may append more; this one has nothing behind the flags.
        if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let parent = SpanContext::new(trace, span, flags, true, TraceState::NONE);
        parent.is_valid().then_some(Self(parent))
    }

    /// As it travels.
    pub fn header(&self) -> String {
        format!("00-{}-{}-{:02x}", self.0.trace_id(), self.0.span_id(), self.0.trace_flags().to_u8())
    }
}

fn context(parent: Option<&Parent>) -> Context {
    parent.map_or_else(Context::new, |Parent(parent)| Context::new().with_remote_span_context(parent.clone()))
}

fn number(key: &'static str, value: u64) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}

/// What this machine's clock said then.
#[allow(clippy::disallowed_methods)]
fn wall_clock(then: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(then.elapsed()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_comes_back_as_it_went() {
        assert_eq!(Parent::parse(SAMPLED).unwrap().header(), SAMPLED);
        let later = Parent::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more").unwrap();
        assert_eq!(later.header(), SAMPLED, "what this version does not know is not passed on");
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            assert_eq!(Parent::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_client_decides_whether_its_call_is_traced_and_chance_if_it_does_not() {
        let traces = |sample_ratio| {
            let otlp = Otlp { endpoint: "http://127.0.0.1:1".into(), sample_ratio };
            Traces::start(&otlp, "balsa-0").unwrap()
        };
        let headers = |text: &str| HeaderMap::from_iter([(HEADER.parse().unwrap(), text.parse().unwrap())]);
        let (none, all) = (traces(0.0), traces(1.0));
        let is_traced = |traces: &Traces, headers: &HeaderMap| traces.call("/a.B/C", headers, Instant::now()).is_some();
        assert!(!is_traced(&none, &HeaderMap::new()) && is_traced(&all, &HeaderMap::new()));
        assert!(is_traced(&none, &headers(SAMPLED)));
        assert!(!is_traced(&all, &headers(&SAMPLED.replace("-01", "-00"))));
        assert!(!is_traced(&none, &headers("nonsense")));
        assert!(!is_traced(&Traces::off(), &headers(SAMPLED)));
        let open = none.call("/a.B/C", &headers(SAMPLED), Instant::now()).unwrap();
        assert_eq!(open.parent().header().split('-').nth(1), SAMPLED.split('-').nth(1), "it is the client's trace");
    }
}
