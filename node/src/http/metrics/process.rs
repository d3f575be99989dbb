//! What every Prometheus client tells of its process, under the names that all of them use; from `/proc`, at each scrape.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};

/// The kernel's clock tick, in which it tells processor time and start: hundredths of a second on every platform that we build for
/// (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// This process.
#[derive(Debug)]
pub(super) struct Process;

/// What `/proc/self/stat` says (proc(5)).
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    /// Since the machine's start.
    started_seconds: f64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name, in parentheses, with anything in it. The third is the first of these.
        let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
        let number = |place: usize| fields.get(place - 3)?.parse::<u64>().ok();
        #[expect(clippy::cast_precision_loss, reason = "hundredths of a second")]
        let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
        Some(Self {
            cpu_seconds: seconds(number(14)? + number(15)?),
            threads: number(20)?,
            started_seconds: seconds(number(22)?),
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

/// When the machine started, seconds since 1970.
fn machine_started() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<Unit>, value: Option<f64>| match value {
            Some(value) => {
                let metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)
            }
            None => Ok(()),
        };
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory and numbers of files are far below 2^53")]
        let float = |number: u64| number as f64;
        let stat = Stat::read();
        let stat = stat.as_ref();
        let page_bytes = float(rustix::param::page_size() as u64);
        let resident = stat.map(|stat| float(stat.resident_pages) * page_bytes);
        gauge("resident_memory", "Memory that it has.", Some(Unit::Bytes), resident)?;
        let reserved = stat.map(|stat| float(stat.virtual_bytes));
        gauge(
            "virtual_memory",
            "Address space; most of it is set aside for modules and not memory.",
            Some(Unit::Bytes),
            reserved,
        )?;
        gauge("threads", "Its threads.", None, stat.map(|stat| float(stat.threads)))?;
        let started = stat.zip(machine_started()).map(|(stat, machine)| machine + stat.started_seconds);
        gauge("start_time", "When it started, since 1970.", Some(Unit::Seconds), started)?;
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| float(files.count() as u64));
        gauge("open_fds", "File descriptors in use.", None, open)?;
        gauge("max_fds", "File descriptors that it may have.", None, getrlimit(Resource::Nofile).current.map(float))?;
        let Some(stat) = stat else { return Ok(()) };
        let help = "Processor time, its own and the kernel's for it.";
        let metric = encoder.encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(stat.cpu_seconds).encode(metric)
    }
}
