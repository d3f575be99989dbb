//! Log time: the one clock that a module sees, stamped into entries by the leader.
//!
//! It must never go back, must not depend on one machine's wrong clock, and must be near the wall clock, since leases and
//! idempotency windows are measured with it. So a leader stamps the *median* of the voters' wall clocks (each node measures the
//! others' offsets once a second); until it knows a majority's clocks it only adds what its monotonic clock says has passed since
//! the last entry. A median that lies behind log time lets it run at half speed until the two meet. A leader whose own
//! clock is ten years ahead therefore changes nothing, and after a night in which the whole cluster was switched off, log
//! time catches up in one step, because a majority says so.
//!
//! `apply` keeps log time monotone by itself, whatever a leader stamps; this file only makes the stamps good.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A node whose wall clock is further than this from the median does not campaign.
pub const CLOCK_OFFSET_MAX_MS: i64 = 5_000;

/// Milliseconds since 1970 by this machine's clock. The only place outside tests where a node looks at it.
#[allow(clippy::disallowed_methods)]
pub fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Makes stamps. One per node; only the leader's stamps go anywhere.
#[derive(Debug)]
pub struct LogClock {
    /// Last stamp made or seen in an applied entry.
    last_ms: u64,
    /// When that was.
    at: Instant,
    /// Median of the voters' clocks relative to this one, if a majority is known.
    median_offset_ms: Option<i64>,
}

impl LogClock {
    /// A clock that continues after `last_ms`, the log time of the state at start.
    pub fn new(last_ms: u64, now: Instant) -> Self {
        Self { last_ms, at: now, median_offset_ms: None }
    }

    /// Notes the log time of an applied entry.
    pub fn observe(&mut self, time_ms: u64, now: Instant) {
        if time_ms > self.last_ms {
            (self.last_ms, self.at) = (time_ms, now);
        }
    }

    /// Takes in what is known of the other voters' clocks: their offsets from this node's, in milliseconds. `voters` counts
    /// them all, this node included.
    pub fn set_offsets(&mut self, others: &[i64], voters: usize) {
        let mut offsets = others.to_vec();
        offsets.push(0);
        offsets.sort_unstable();
        // Of two middle ones the lower: when half of the clocks are wrong, waiting is safe and jumping ahead is not.
        self.median_offset_ms = (offsets.len() > voters / 2).then(|| offsets[(offsets.len() - 1) / 2]);
    }

    /// Whether a majority's clocks are known.
    pub fn has_median(&self) -> bool {
        self.median_offset_ms.is_some()
    }

    /// Whether this node's own clock is so far off that another should lead.
    pub fn is_off(&self) -> bool {
        self.median_offset_ms.is_some_and(|offset| offset.abs() > CLOCK_OFFSET_MAX_MS)
    }

    /// The stamp for an entry proposed now, at `wall_ms` by this machine's clock.
    pub fn stamp(&mut self, wall_ms: u64, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.at);
        let stamp = match self.median_offset_ms.map(|offset| wall_ms.saturating_add_signed(offset)) {
            Some(median) if median >= self.last_ms => median,
            Some(_) => self.last_ms + whole_ms(elapsed / 2),
            None => self.last_ms.max(self.floor(wall_ms)) + whole_ms(elapsed),
        };
        if stamp > self.last_ms {
            (self.last_ms, self.at) = (stamp, now);
        }
        stamp
    }

    /// A new cluster has no log time yet, and a module should not see 1970; its first entries start from the leader's clock.
    fn floor(&self, wall_ms: u64) -> u64 {
        if self.last_ms == 0 { wall_ms } else { 0 }
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_YEARS_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_leader_ten_years_ahead_does_not_move_log_time() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        let wall = 1_000_000 + TEN_YEARS_MS;
        assert_eq!(clock.stamp(wall, after(start, 10)), 1_000_010, "no majority known: monotonic time only");
        clock.set_offsets(&[-(TEN_YEARS_MS as i64), -(TEN_YEARS_MS as i64)], 3);
        assert_eq!(clock.stamp(wall + 20, after(start, 20)), 1_000_020, "the majority's clocks are taken");
        assert!(clock.is_off());
    }

    #[test]
    fn log_time_catches_up_in_one_step_when_a_majority_says_so() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        clock.set_offsets(&[3], 3);
        assert_eq!(clock.stamp(9_000_000, start), 9_000_000);
        assert!(!clock.is_off());
    }

    #[test]
    fn a_median_behind_log_time_slows_it_down_and_never_turns_it_back() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        clock.set_offsets(&[0, 0], 3);
        assert_eq!(clock.stamp(900_000, after(start, 100)), 1_000_050);
    }

    #[test]
    fn a_minority_of_clocks_is_not_a_median() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        clock.set_offsets(&[50_000], 5);
        assert_eq!(clock.stamp(5_000_000, after(start, 7)), 1_000_007);
    }
}
