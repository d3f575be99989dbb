//! A swap in the middle of a benchmark: what a client notices of it.
//!
//! At half of the measured time a module is pushed, as `balsa module push` does it. What is compared is the longest gap between two
//! answers, whichever requests they belong to: in the time from the beginning of the push until shortly after its end, and in all
//! the rest. The first contains whatever a swap brings with it, from the upload to the first command that the new module
//! runs; the part of it from the activation on is told by itself, since that is when commands have to wait, above all if there
//! is something to migrate.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Error;
use crate::cli::module::{activation, file};
use crate::client::Client;
use crate::proto::admin::ModulePush;
use crate::proto::command::Activation;
use crate::proto::command::activation::Outcome;

/// Below this, what a migration takes cannot be told from the rest of the swap.
const FUEL_MIN: u64 = 10_000_000;

/// After the end of the push, what was held up by it comes through.
const TAIL: Duration = Duration::from_millis(200);

/// The longest times without an answer.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// When the last answer came.
    last: Option<Instant>,
    /// When the push began, when it came to the activation, when it was over.
    begun: Option<Instant>,
    activating: Option<Instant>,
    over: Option<Instant>,
    /// What is being done.
    stage: String,
    /// Before and after the swap.
    quiet: Duration,
    /// In the swap, and what was being done when it began.
    swap: (Duration, String),
    /// The part of it from the activation on.
    activation: Duration,
}

impl Gaps {
    /// An answer has come.
    pub(super) fn answered(&mut self, now: Instant) {
        let Some(last) = self.last.replace(now) else { return };
        let gap = now - last;
        let over = |tail: Duration| self.over.is_some_and(|over| last > over + tail);
        if self.begun.is_none() || over(TAIL) {
            self.quiet = self.quiet.max(gap);
            return;
        }
        if self.activating.is_some() && !over(Duration::ZERO) {
            self.activation = self.activation.max(gap);
        }
        if gap > self.swap.0 {
            self.swap = (gap, self.stage.clone());
        }
    }

    fn is_at(&mut self, stage: &str) {
        let now = Instant::now();
        self.begun.get_or_insert(now);
        match stage {
            "activating" => drop(self.activating.get_or_insert(now)),
            OVER => self.over = Some(now),
            _ => {}
        }
        stage.clone_into(&mut self.stage);
    }
}

/// The stage behind all of the cluster's own.
const OVER: &str = "after it";

/// A module's file.
pub(super) fn read(path: &Path, directory: &Path) -> Result<Bytes, crate::cli::Error> {
    Ok(file::read(path, directory)?.into())
}

/// Pushes `file`, and notes meanwhile what is being done.
pub(super) async fn push(client: &Client, file: &Bytes, gaps: &Mutex<Gaps>) -> Result<Pushed, Error> {
    let begun = Instant::now();
    let on_stage = |stage: &str| gaps.lock().is_at(stage);
    let header = ModulePush { pushed_by: "balsa bench".into(), ..ModulePush::default() };
    on_stage("sending");
    let row = client.module_push(&header, file, &on_stage).await.map_err(|error| Error::Swap(error.to_string()))?;
    on_stage(OVER);
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
    /// The longest time between two answers without the swap.
    quiet_gap_ms: f64,
    /// In it.
    swap_gap_ms: f64,
    /// What was being done when that began.
    swap_gap_while: String,
    /// From its activation on.
    activation_gap_ms: f64,
    migrate_fuel: u64,
    migrate_rows: u64,
    /// Of the gap at the activation.
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
        let per_million = (fuel >= FUEL_MIN).then(|| super::report::round(ms(gaps.activation) * 1e6 / fuel as f64));
        Self {
            module: format!("{} {}", pushed.row.name, pushed.row.version),
            took_ms: ms(pushed.took),
            quiet_gap_ms: ms(gaps.quiet),
            swap_gap_ms: ms(gaps.swap.0),
            swap_gap_while: gaps.swap.1.clone(),
            activation_gap_ms: ms(gaps.activation),
            migrate_fuel: fuel,
            migrate_rows: rows,
            ms_per_million_fuel: per_million,
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let Self { module, took_ms, quiet_gap_ms, swap_gap_ms, swap_gap_while, activation_gap_ms, .. } = self;
        let mut lines = vec![
            format!("swap: {module} was active {took_ms:.0} ms after the push began"),
            format!(
                "longest gap between answers: {swap_gap_ms:.2} ms in the swap ({swap_gap_while}), \
                 {activation_gap_ms:.2} ms from its activation on, {quiet_gap_ms:.2} ms without it"
            ),
        ];
        if let Some(ms) = self.ms_per_million_fuel {
            let (rows, million) = (self.migrate_rows, self.migrate_fuel as f64 / 1e6);
            lines.push(format!("migrate: {rows} rows with {million:.1} million fuel, {ms:.3} ms per million"));
        }
        lines
    }
}
