//! Our own meters in Prometheus' client's terms.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

use super::labels::{CodeLabel, CodeLabels, MethodLabels};
use crate::measure::{CallMeter, Histogram, RunMeter, SnapshotMeter};
use crate::wasm::MethodKind;

/// A histogram whose numbers are shown divided by `per`: a thousand million for nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    histogram: Histogram,
    per: f64,
}

impl Shown {
    pub(super) fn seconds(histogram: &Histogram) -> Self {
        Self { histogram: histogram.clone(), per: 1e9 }
    }

    pub(super) fn plain(histogram: &Histogram) -> Self {
        Self { histogram: histogram.clone(), per: 1.0 }
    }
}

impl EncodeMetric for Shown {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        #[expect(clippy::cast_precision_loss, reason = "a sum that large is not looked at for its last digits")]
        let shown = |number: u64| number as f64 / self.per;
        let sum = shown(self.histogram.sum());
        let buckets = self.histogram.buckets().map(|(bound, count)| (bound.map_or(f64::INFINITY, shown), count));
        let buckets: Vec<_> = buckets.collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// A method that is served, with what is measured of it.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) kind: MethodKind,
    pub(super) labels: MethodLabels,
    pub(super) calls: Arc<CallMeter>,
    pub(super) runs: Arc<RunMeter>,
}

/// The methods of the catalog, and only those: what a client sends makes no series.
#[derive(Debug, Default)]
pub(super) struct Methods(pub(super) ArcSwap<Vec<Served>>);

/// A family about runs: name, help, unit, and where its numbers are.
type OfRuns = (&'static str, &'static str, Option<Unit>, fn(&RunMeter) -> Shown);

/// What the families of a kind are called.
const KINDS: [(MethodKind, [&str; 4]); 2] = [
    (
        MethodKind::Command,
        [
            "commands",
            "Commands answered to clients of this node, by gRPC code.",
            "command_duration",
            "From a command's headers to its reply.",
        ],
    ),
    (
        MethodKind::Query,
        [
            "queries",
            "Queries answered to clients of this node, by gRPC code.",
            "query_duration",
            "From a query's headers to its reply, or to the end of its stream.",
        ],
    ),
];

impl Collector for Methods {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let methods = self.0.load();
        for (kind, [counted, counted_help, timed, timed_help]) in KINDS {
            let of_kind = || methods.iter().filter(move |method| method.kind == kind);
            let mut family = encoder.encode_descriptor(counted, counted_help, None, MetricType::Counter)?;
            for Served { labels, calls, .. } in of_kind() {
                for (code, count) in calls.codes() {
                    let MethodLabels { module, method } = labels.clone();
                    count_of(&mut family, &CodeLabels { module, method, code: CodeLabel(code) }, count)?;
                }
            }
            let unit = Some(&Unit::Seconds);
            let mut family = encoder.encode_descriptor(timed, timed_help, unit, MetricType::Histogram)?;
            for Served { labels, calls, .. } in of_kind() {
                Shown::seconds(calls.latency()).encode(family.encode_family(labels)?)?;
            }
        }
        let help = "Commands answered with the remembered reply of an earlier attempt.";
        let mut family = encoder.encode_descriptor("commands_replayed", help, None, MetricType::Counter)?;
        for Served { labels, calls, .. } in methods.iter().filter(|method| method.kind == MethodKind::Command) {
            count_of(&mut family, labels, calls.replays())?;
        }
        let runs: [OfRuns; 3] = [
            (
                "run",
                "Time in the module: each command on every node, each query on one; streams are left out.",
                Some(Unit::Seconds),
                |meter| Shown::seconds(&meter.time),
            ),
            ("run_fuel", "Fuel of a run in the module.", None, |meter| Shown::plain(&meter.fuel)),
            ("run_memory", "Linear memory at the end of a run in the module.", Some(Unit::Bytes), |meter| {
                Shown::plain(&meter.memory)
            }),
        ];
        for (name, help, unit, shown) in runs {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Histogram)?;
            for Served { labels, runs, .. } in methods.iter() {
                shown(runs).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

fn count_of(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, count: u64) -> Result<(), fmt::Error> {
    ConstCounter::new(count).encode(family.encode_family(labels)?)
}

/// Snapshots of both directions.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) sent: Arc<SnapshotMeter>,
    pub(super) received: Arc<SnapshotMeter>,
}

impl Collector for Snapshots {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let both =
            [("sent", &self.sent), ("received", &self.received)].map(|(way, meter)| ([("direction", way)], meter));
        let help = "Snapshots that passed whole.";
        let mut family = encoder.encode_descriptor("snapshots", help, None, MetricType::Counter)?;
        for (labels, meter) in &both {
            count_of(&mut family, labels, meter.count())?;
        }
        let (help, unit) = ("Bytes of snapshots that passed, also of those that broke off.", Some(&Unit::Bytes));
        let mut family = encoder.encode_descriptor("snapshot_transferred", help, unit, MetricType::Counter)?;
        for (labels, meter) in &both {
            count_of(&mut family, labels, meter.bytes())?;
        }
        let help = "Size of the last snapshot that passed whole.";
        let mut family = encoder.encode_descriptor("snapshot_last", help, unit, MetricType::Gauge)?;
        for (labels, meter) in &both {
            family.encode_family(labels)?.encode_gauge(&meter.last_bytes())?;
        }
        Ok(())
    }
}
