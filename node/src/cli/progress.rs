//! How far a long stream of bytes has come, said now and then: by time, since a slow disk is when somebody wonders.

use std::time::{Duration, Instant};

/// Between two lines.
const EVERY: Duration = Duration::from_secs(2);

/// Of one stream.
#[derive(Debug)]
pub(super) struct Progress {
    /// What is done with the bytes: "written".
    done: &'static str,
    bytes: u64,
    /// How many there are, if that is known.
    of: Option<u64>,
    begun: Instant,
    said: Instant,
}

impl Progress {
    pub(super) fn begin(done: &'static str, of: Option<u64>, now: Instant) -> Self {
        Self { done, bytes: 0, of, begun: now, said: now }
    }

    /// Takes in that it has come so far; the line, if it is time for one.
    pub(super) fn at(&mut self, bytes: u64, now: Instant) -> Option<String> {
        self.bytes = bytes;
        if now.saturating_duration_since(self.said) < EVERY {
            return None;
        }
        self.said = now;
        let rate = self.bytes as f64 / now.saturating_duration_since(self.begun).as_secs_f64();
        let of = self.of.map_or_else(String::new, |of| format!(" of {}", mib(of as f64)));
        Some(format!("{}{of} {}, {} a second", mib(self.bytes as f64), self.done, mib(rate)))
    }
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_every_two_seconds_says_how_much_of_what_and_how_fast() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut written = Progress::begin("written", None, start);
        assert_eq!(written.at(1 << 20, after(1_999)), None);
        assert_eq!(written.at(3 << 20, after(2_000)).unwrap(), "3.0 MiB written, 1.5 MiB a second");
        assert_eq!(written.at(9 << 20, after(3_900)), None);
        assert_eq!(written.at(10 << 20, after(4_000)).unwrap(), "10.0 MiB written, 2.5 MiB a second");
        let mut read = Progress::begin("read", Some(64 << 20), start);
        assert_eq!(read.at(32 << 20, after(4_000)).unwrap(), "32.0 MiB of 64.0 MiB read, 8.0 MiB a second");
    }
}
