//! What a benchmark found, in words and in JSON. It says what was measured, too: figures without it mean nothing.

use std::time::Duration;

use serde::Serialize;

use super::super::{Error, Format, Session};
use super::{Bench, Latencies, Recorder, Swap, Switch};
use crate::client::{Endpoint, Read};

/// The whole result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    setup: Setup,
    #[serde(skip_serializing_if = "Option::is_none")]
    put: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    get: Option<Figures>,
    /// By gRPC code.
    errors: std::collections::BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Swap>,
}

#[derive(Debug, Serialize)]
struct Setup {
    mix: String,
    endpoints: Vec<String>,
    connections: u32,
    in_flight: u32,
    value_size: usize,
    keys: u32,
    idempotency_keys: bool,
    stale_reads: bool,
    warmup_seconds: f64,
    duration_seconds: f64,
}

/// Of one kind of request.
#[derive(Debug, Serialize)]
struct Figures {
    requests: u64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p99_9_ms: f64,
    max_ms: f64,
}

impl Report {
    pub(super) fn new(args: &Bench, endpoints: &[Endpoint], recorder: &Recorder, swap: Option<Swap>) -> Self {
        let figures = |latencies: &Latencies, sent: bool| sent.then(|| Figures::new(latencies, args.duration));
        Self {
            setup: Setup::new(args, endpoints),
            put: figures(&recorder.puts, args.mix.0 > 0),
            get: figures(&recorder.gets, args.mix.0 < 100),
            errors: recorder.errors.clone(),
            swap,
        }
    }

    /// Requests that were answered well.
    pub(super) fn succeeded(&self) -> u64 {
        self.put.iter().chain(&self.get).map(|figures| figures.requests).sum()
    }

    /// `UNAVAILABLE 3, ...`
    pub(super) fn errors(&self) -> String {
        let each: Vec<_> = self.errors.iter().map(|(code, count)| format!("{code} {count}")).collect();
        if each.is_empty() { "none was answered".into() } else { each.join(", ") }
    }

    pub(super) fn print(&self, session: &mut Session<'_>) -> Result<(), Error> {
        if session.format == Format::Json {
            return session.console.json(self);
        }
        session.console.line(self.setup.in_words())?;
        session.console.line("")?;
        session.console.line("        requests      per s    p50 ms    p99 ms  p99.9 ms    max ms")?;
        for (name, figures) in [("put", &self.put), ("get", &self.get)] {
            if let Some(figures) = figures {
                session.console.line(figures.line(name))?;
            }
        }
        for line in self.swap.iter().flat_map(Swap::lines) {
            session.console.line(line)?;
        }
        if !self.errors.is_empty() {
            let line = session.console.paint_bad(&format!("errors: {}", self.errors()));
            session.console.line(line)?;
        }
        Ok(())
    }
}

impl Setup {
    fn new(args: &Bench, endpoints: &[Endpoint]) -> Self {
        let connections = args.connections.min(args.in_flight);
        Self {
            mix: args.mix.to_string(),
            endpoints: endpoints.iter().take(connections as usize).map(ToString::to_string).collect(),
            connections,
            in_flight: args.in_flight,
            value_size: args.value_size,
            keys: args.keys,
            idempotency_keys: args.idempotency_keys == Switch::On,
            stale_reads: args.freshness.read() != Read::Linearizable,
            warmup_seconds: args.warmup.as_secs_f64(),
            duration_seconds: args.duration.as_secs_f64(),
        }
    }

    fn in_words(&self) -> String {
        format!(
            "{} ({} reads, idempotency keys {}); {} in flight on {} connection{} to {}; {} keys, values of {} bytes; \
             {} s after {} s of warm-up",
            self.mix,
            if self.stale_reads { "stale" } else { "linearizable" },
            if self.idempotency_keys { "on" } else { "off" },
            self.in_flight,
            self.connections,
            if self.connections == 1 { "" } else { "s" },
            self.endpoints.join(", "),
            self.keys,
            self.value_size,
            self.duration_seconds,
            self.warmup_seconds,
        )
    }
}

impl Figures {
    fn new(latencies: &Latencies, duration: Duration) -> Self {
        let histogram = &latencies.0;
        let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
        Self {
            requests: histogram.len(),
            per_second: round(histogram.len() as f64 / duration.as_secs_f64()),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p99_9_ms: at(0.999),
            max_ms: milliseconds(histogram.max()),
        }
    }

    fn line(&self, name: &str) -> String {
        let Self { requests, per_second, p50_ms, p99_ms, p99_9_ms, max_ms } = self;
        format!("{name:<5}{requests:>11}{per_second:>11.0}{p50_ms:>10.2}{p99_ms:>10.2}{p99_9_ms:>10.2}{max_ms:>10.2}")
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    round(nanoseconds as f64 / 1e6)
}

/// To a thousandth: more digits than that are noise.
pub(super) fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
