//! What modules say to people, on its way into this node's log.
//!
//! A module's lines and the texts of its traps come out of calls as plain values ([`Finished`]); here they get the name of the
//! node, the module, the method and the log index, and go to `tracing` under the target `balsa::module`. Every replica that
//! runs a command says them, and says them again when it replays the log.
//!
//! A module that talks a lot must not drown the node's own log or fill its disk, so each has a bucket of lines that refills
//! over time; what is above it is counted and dropped, and how much that was is said with the next line, now and then. Lines at a level that nobody listens to cost nothing.
//!
//! This is the one place behind `apply` that looks at a clock. Nothing of it leads back: whether a line was dropped is not
//! known to anybody but the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::Level;

use crate::command::{Outcome, TrapClass};
use crate::wasm::{Finished, LogLine};

/// The target of all events here.
pub const TARGET: &str = "balsa::module";
/// Lines that a module may log at once.
const BURST: f64 = 500.0;
/// Lines a second that a module may log for long: at 200 bytes a line, some 1.7 GB a day and module.
const LINES_PER_SECOND: f64 = 100.0;
/// How often at most it is said that lines were dropped, while they are.
const REPORT: Duration = Duration::from_secs(10);

/// The log of one node's modules.
#[derive(Debug, Default)]
pub struct GuestLog {
    node: String,
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

/// Which call said something.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The name that the module is active under.
    pub module: &'a str,
    /// A path, or what else it ran for.
    pub method: &'a str,
    /// Log index of the entry, or that a query reads at.
    pub index: u64,
}

impl GuestLog {
    /// For the node called `node`.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), buckets: Mutex::default() }
    }

    /// Logs what `call` had to say, and why it was stopped, if it was.
    pub fn finished(&self, call: Call<'_>, finished: &Finished) {
        for LogLine { level, text } in &finished.logs {
            self.line(call, by_number(*level), text);
        }
        if let Outcome::Trap(class) = finished.outcome {
            self.trap(call, class, finished.trap_detail.as_deref().unwrap_or_default());
        }
    }

    fn trap(&self, call: Call<'_>, class: TrapClass, detail: &str) {
        self.line(call, Level::ERROR, &format!("{class}: {detail}"));
    }

    fn line(&self, call: Call<'_>, level: Level, text: &str) {
        if !enabled(level) {
            return;
        }
        let admitted = self.admit(call.module, Instant::now());
        if let Some(dropped) = admitted.dropped {
            self.emit(
                call,
                Level::WARN,
                &format!("{dropped} lines of this module were not logged, since it logs too much"),
            );
        }
        if admitted.line {
            self.emit(call, level, text);
        }
    }

    fn admit(&self, module: &str, now: Instant) -> Admitted {
        let mut buckets = self.buckets.lock();
        match buckets.get_mut(module) {
            Some(bucket) => bucket.take(now),
            None => buckets.entry(module.to_owned()).or_insert_with(|| Bucket::full(now)).take(now),
        }
    }

    fn emit(&self, call: Call<'_>, level: Level, text: &str) {
        let Call { module, method, index } = call;
        let node = self.node.as_str();
        // The level of an event is part of its place in the program.
        match level {
            Level::ERROR => tracing::error!(target: TARGET, node, module, method, index, "{text}"),
            Level::WARN => tracing::warn!(target: TARGET, node, module, method, index, "{text}"),
            Level::INFO => tracing::info!(target: TARGET, node, module, method, index, "{text}"),
            Level::DEBUG => tracing::debug!(target: TARGET, node, module, method, index, "{text}"),
            Level::TRACE => tracing::trace!(target: TARGET, node, module, method, index, "{text}"),
        }
    }
}

fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: TARGET, Level::ERROR),
        Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
        Level::INFO => tracing::enabled!(target: TARGET, Level::INFO),
        Level::DEBUG => tracing::enabled!(target: TARGET, Level::DEBUG),
        Level::TRACE => tracing::enabled!(target: TARGET, Level::TRACE),
    }
}

/// As ABI 1 numbers them.
fn by_number(level: u32) -> Level {
    match level {
        1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// Lines that a module may still log, and what it was denied.
#[derive(Debug)]
struct Bucket {
    lines: f64,
    filled: Instant,
    /// Not yet told.
    dropped: u64,
    /// When it was last told.
    told: Option<Instant>,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
struct Admitted {
    /// It is logged.
    line: bool,
    /// It is time to say that so many were dropped.
    dropped: Option<u64>,
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { lines: BURST, filled: now, dropped: 0, told: None }
    }

    fn take(&mut self, now: Instant) -> Admitted {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.lines = (self.lines + passed * LINES_PER_SECOND).min(BURST);
        let line = self.lines >= 1.0;
        match line {
            true => self.lines -= 1.0,
            false => self.dropped += 1,
        }
        Admitted { line, dropped: self.report(now) }
    }

    fn report(&mut self, now: Instant) -> Option<u64> {
        let lately = self.told.is_some_and(|told| now.saturating_duration_since(told) < REPORT);
        if self.dropped == 0 || lately {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    fn admitted(dropped: Option<u64>) -> Admitted {
        Admitted { line: true, dropped }
    }

    #[test]
    fn a_burst_passes_and_then_as_much_as_is_refilled() {
        let start = Instant::now();
        let mut bucket = Bucket::full(start);
        for _ in 0..BURST as usize {
            assert_eq!(bucket.take(start), admitted(None));
        }
        assert_eq!(bucket.take(start), Admitted { line: false, dropped: Some(1) });
        for _ in 0..10 {
            assert_eq!(bucket.take(start), Admitted { line: false, dropped: None });
        }
        let later = start + Duration::from_millis(20);
        assert_eq!((0..10).filter(|_| bucket.take(later).line).count(), 2);
        let much_later = start + REPORT;
        assert_eq!(bucket.take(much_later), admitted(Some(18)));
        assert_eq!(bucket.take(much_later), admitted(None));
    }

    #[test]
    fn one_module_does_not_use_up_the_lines_of_another() {
        let (log, now) = (GuestLog::new("balsa-0"), Instant::now());
        while log.admit("loud", now).line {}
        assert!(log.admit("quiet", now).line);
    }

    /// Where a subscriber writes to.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a log at `level` says while `act` runs.
    fn said(level: Level, act: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = kept.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    const CALL: Call<'static> = Call { module: "ledger", method: "/ledger.v1.Ledger/Transfer", index: 7 };

    #[test]
    fn a_line_names_node_module_method_and_index() {
        let said = said(Level::INFO, || {
            let log = GuestLog::new("balsa-1");
            log.line(CALL, Level::WARN, "low on funds");
            log.line(CALL, Level::DEBUG, "nobody listens");
        });
        let fields = r#"node="balsa-1" module="ledger" method="/ledger.v1.Ledger/Transfer" index=7"#;
        assert_eq!(said, format!(" WARN balsa::module: low on funds {fields}\n"));
    }

    #[test]
    fn lines_that_nobody_listens_to_do_not_use_up_the_bucket() {
        let log = GuestLog::new("balsa-1");
        said(Level::INFO, || (0..2 * BURST as usize).for_each(|_| log.line(CALL, Level::TRACE, "")));
        assert!(log.buckets.lock().is_empty());
    }

    #[test]
    fn a_flood_is_cut_and_its_size_is_said() {
        let said = said(Level::INFO, || {
            let log = GuestLog::new("balsa-1");
            (0..1000).for_each(|_| log.line(CALL, Level::INFO, "again"));
        });
        let lines = said.lines().filter(|line| line.contains("again")).count();
        // More than a burst, if the machine takes its time.
        assert!((500..1000).contains(&lines), "{lines}");
        assert!(said.contains("1 lines of this module were not logged, since it logs too much"), "{said}");
    }

    #[test]
    fn a_trap_is_said_with_its_class_and_its_text() {
        let log = GuestLog::new("balsa-1");
        let said = said(Level::INFO, || log.trap(CALL, TrapClass::OutOfFuel, "panicked at src/lib.rs:7"));
        let text = "ERROR balsa::module: the call used up its fuel: panicked at src/lib.rs:7 node=\"balsa-1\" ";
        assert!(said.starts_with(text), "{said}");
    }
}
