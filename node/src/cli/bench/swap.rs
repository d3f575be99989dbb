//! A swap in the middle of a benchmark: what a client notices of it.
//!
//! The first half of the measured time is without a swap; at the half, a module is pushed, as `balsa module push` does it. What
//! is compared is the longest gap between two answers, whichever requests they belong to, in each half: in the second one it
//! contains whatever the push brings with it, from the upload to the first command that the new module runs.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Error;
use crate::cli::module::{activation, file};
use crate::client::Client;
use crate::proto::admin::ModulePush;
use crate::proto::command::Activation;
use crate::proto::command::activation::Outcome;

/// Below this, what a migration takes cannot be told from the rest of the swap.
const FUEL_MIN: u64 = 10_000_000;

/// The longest times without an answer, and where in the swap the one after its beginning was.
#[derive(Debug)]
pub(super) struct Gaps {
    /// When the swap begins; `None`: there is none.
    half: Option<Instant>,
    last: Option<Instant>,
    quiet: Duration,
    swap: Duration,
    /// What is being done.
    stage: String,
    /// What was being done at the end of the longest gap.
    at: String,
}

impl Gaps {
    pub(super) fn new(half: Option<Instant>) -> Self {
        let (quiet, swap) = (Duration::ZERO, Duration::ZERO);
        Self { half, last: None, quiet, swap, stage: String::new(), at: String::new() }
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, now: Instant) {
        let Some(gap) = self.last.replace(now).map(|last| now - last) else { return };
        if self.half.is_none_or(|half| now < half) {
            self.quiet = self.quiet.max(gap);
        } else if gap > self.swap {
            self.swap = gap;
            self.at.clone_from(&self.stage);
        }
    }

    pub(super) fn is_at(&mut self, stage: &str) {
        stage.clone_into(&mut self.stage);
    }
}

/// A module's file.
pub(super) fn read(path: &Path, directory: &Path) -> Result<Bytes, crate::cli::Error> {
    Ok(file::read(path, directory)?.into())
}

/// Pushes `file`, and tells `on_stage` what is being done.
pub(super) async fn push(client: &Client, file: &Bytes, on_stage: &dyn Fn(&str)) -> Result<Pushed, Error> {
    let begun = Instant::now();
    let header = ModulePush { pushed_by: "balsa bench".into(), ..ModulePush::default() };
    on_stage("sending");
    let row = client.module_push(&header, file, on_stage).await.map_err(|error| Error::Swap(error.to_string()))?;
    on_stage("after it");
    match &row.outcome {
        Some(Outcome::Activated(_)) => Ok(Pushed { took: begun.elapsed(), row }),
        _ => Err(Error::Swap(activation::reasons(&row).join("; "))),
    }
}

/// A swap that came to its end.
#[derive(Debug)]
pub(super) struct Pushed {
    took: Duration,
    row: Activation,
}

/// What is told of it.
#[derive(Debug, serde::Serialize)]
pub(super) struct Swap {
    module: String,
    took_ms: f64,
    /// The longest time between two answers, before.
    quiet_gap_ms: f64,
    /// The longest time between two answers, from the beginning of the push on.
    swap_gap_ms: f64,
    /// What was being done then.
    swap_gap_at: String,
    migrate_fuel: u64,
    migrate_rows: u64,
    /// Of the longest gap, if the migration is what it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    ms_per_million_fuel: Option<f64>,
}

impl Swap {
    pub(super) fn new(pushed: &Pushed, gaps: &Gaps) -> Self {
        let (fuel, rows) = match &pushed.row.outcome {
            Some(Outcome::Activated(activated)) => (activated.fuel, activated.writes),
            _ => (0, 0),
        };
        let ms = |duration: Duration| super::report::round(duration.as_secs_f64() * 1e3);
        let per_million = (fuel >= FUEL_MIN).then(|| super::report::round(ms(gaps.swap) * 1e6 / fuel as f64));
        Self {
            module: format!("{} {}", pushed.row.name, pushed.row.version),
            took_ms: ms(pushed.took),
            quiet_gap_ms: ms(gaps.quiet),
            swap_gap_ms: ms(gaps.swap),
            swap_gap_at: gaps.at.clone(),
            migrate_fuel: fuel,
            migrate_rows: rows,
            ms_per_million_fuel: per_million,
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let Self { module, took_ms, quiet_gap_ms, swap_gap_ms, swap_gap_at, migrate_fuel, migrate_rows, .. } = self;
        let mut lines = vec![
            format!("swap: {module} was active {took_ms:.0} ms after the push began"),
            format!(
                "longest gap between answers: {swap_gap_ms:.2} ms ({swap_gap_at}); before the push {quiet_gap_ms:.2} ms"
            ),
        ];
        if let Some(ms) = self.ms_per_million_fuel {
            let million = *migrate_fuel as f64 / 1e6;
            lines.push(format!("migrate: {migrate_rows} rows with {million:.1} million fuel, {ms:.3} ms per million"));
        }
        lines
    }
}
