//! Log time: the one clock that a module sees, stamped into entries by the leader.
//!
//! It must never go back, must not depend on one machine's wrong clock, and must be near the wall clock, since leases and
//! idempotency windows are measured with it. So a leader stamps the *median* of the voters' wall clocks. Nodes tell each other
//! theirs once a second; in between, time goes on by the monotonic clock, and no wall clock is looked at: one that is set while
//! its node leads is one voice among all from the next exchange on, and nothing before. Until a majority's clocks are known,
//! a leader only adds what its monotonic clock says has passed since the last entry. A median that lies behind log time
//! lets it run at half speed until the two meet. A leader whose own clock is ten years ahead therefore changes nothing, and
//! after a night in which the whole cluster was switched off, log time catches up in one step, because a majority says so.
//!
//! Such a node neither campaigns nor leads for long, all the same: should the others' clocks become unknown to it, it would
//! be one voice short of knowing better.
//!
//! `apply` keeps log time monotone by itself, whatever a leader stamps; this file only makes the stamps good.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A node whose wall clock is further than this from the median does not campaign.
pub const CLOCK_OFFSET_MAX_MS: u64 = 5_000;

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
    /// What the voters' clocks say, and when they said so, if a majority's are known.
    median: Option<(u64, Instant)>,
    /// Whether this machine's own was far from that.
    is_off: bool,
}

impl LogClock {
    /// A clock that continues after `last_ms`, the log time of the state at start.
    pub fn new(last_ms: u64, now: Instant) -> Self {
        Self { last_ms, at: now, median: None, is_off: false }
    }

    /// Notes the log time of an applied entry.
    pub fn observe(&mut self, time_ms: u64, now: Instant) {
        if time_ms > self.last_ms {
            (self.last_ms, self.at) = (time_ms, now);
        }
    }

    /// Takes in what the wall clocks say `now`: this machine's, and those of the other voters as far as they are known.
    /// `voters` counts them all, this node included.
    pub fn set_clocks(&mut self, own_ms: u64, others_ms: &[u64], voters: usize, now: Instant) {
        let mut clocks = others_ms.to_vec();
        clocks.push(own_ms);
        clocks.sort_unstable();
        // Of two middle ones the lower: when half of the clocks are wrong, waiting is safe and jumping ahead is not.
        let middle = clocks[(clocks.len() - 1) / 2];
        self.median = (clocks.len() > voters / 2).then_some((middle, now));
        self.is_off = !self.agrees_with(own_ms, now);
    }

    /// Whether a majority's clocks are known.
    pub fn has_median(&self) -> bool {
        self.median.is_some()
    }

    /// Whether this node's own clock is so far off that another should lead.
    pub fn is_off(&self) -> bool {
        self.is_off
    }

    /// How far a clock that says `clock_ms` now is ahead of the majority's, if that is known; negative: behind.
    pub fn offset_ms(&self, clock_ms: u64, now: Instant) -> Option<i64> {
        self.median_at(now).map(|median| clock_ms.cast_signed().saturating_sub(median.cast_signed()))
    }

    /// Whether a clock that says `clock_ms` now is near the majority's, as far as that is known.
    pub fn agrees_with(&self, clock_ms: u64, now: Instant) -> bool {
        self.median_at(now).is_none_or(|median| median.abs_diff(clock_ms) <= CLOCK_OFFSET_MAX_MS)
    }

    fn median_at(&self, now: Instant) -> Option<u64> {
        self.median.map(|(median, at)| median + whole_ms(now.saturating_duration_since(at)))
    }

    /// Log time now. `wall_ms` is what this machine's clock says; it counts only where nothing else is known.
    pub fn now(&self, wall_ms: u64, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.at);
        match self.median_at(now) {
            Some(median) if median >= self.last_ms => median,
            Some(_) => self.last_ms + whole_ms(elapsed / 2),
            None => self.last_ms.max(self.floor(wall_ms)) + whole_ms(elapsed),
        }
    }

    /// The stamp for an entry proposed now.
    pub fn stamp(&mut self, wall_ms: u64, now: Instant) -> u64 {
        let stamp = self.now(wall_ms, now);
        self.observe(stamp, now);
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
        clock.set_clocks(wall + 20, &[1_000_020, 1_000_021], 3, after(start, 20));
        assert_eq!(clock.stamp(wall + 20, after(start, 20)), 1_000_021, "the majority's clocks are taken");
        assert!(clock.is_off());
        assert!(clock.agrees_with(1_000_050, after(start, 50)) && !clock.agrees_with(wall, after(start, 50)));
    }

    #[test]
    fn a_clock_that_is_set_while_its_node_leads_does_not_move_log_time() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        clock.set_clocks(1_000_000, &[1_000_000, 1_000_001], 3, start);
        assert!(!clock.is_off());
        let wall = 1_000_000 + TEN_YEARS_MS;
        assert_eq!(clock.stamp(wall + 900, after(start, 900)), 1_000_900, "it is not looked at");
        clock.set_clocks(wall + 1000, &[1_001_000, 1_001_001], 3, after(start, 1000));
        assert_eq!(clock.stamp(wall + 1000, after(start, 1000)), 1_001_001, "one voice of three");
        assert!(clock.is_off());
        clock.set_clocks(wall + 2000, &[1_002_000], 3, after(start, 2000));
        assert_eq!(clock.stamp(wall + 2500, after(start, 2500)), 1_002_500, "one of two: the lower counts");
        clock.set_clocks(wall + 3000, &[], 3, after(start, 3000));
        assert_eq!(clock.stamp(wall + 3000, after(start, 3000)), 1_003_000, "alone it knows nothing");
    }

    #[test]
    fn log_time_catches_up_in_one_step_when_a_majority_says_so() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        clock.set_clocks(9_000_000, &[9_000_003], 3, start);
        assert_eq!(clock.stamp(9_000_000, start), 9_000_000);
        assert!(!clock.is_off());
    }

    #[test]
    fn a_median_behind_log_time_slows_it_down_and_never_turns_it_back() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        clock.set_clocks(899_900, &[899_900, 899_900], 3, start);
        assert_eq!(clock.stamp(900_000, after(start, 100)), 1_000_050);
    }

    #[test]
    fn a_minority_of_clocks_is_not_a_median() {
        let start = Instant::now();
        let mut clock = LogClock::new(1_000_000, start);
        clock.set_clocks(5_000_000, &[5_050_000], 5, start);
        assert_eq!(clock.stamp(5_000_000, after(start, 7)), 1_000_007);
    }
}
