//! How far what this node shows is behind what the cluster has committed: in time, since that is what a client waits.
//!
//! A number of entries says little: ten thousand are a tenth of a second or a minute, by what they do. So four times a second the
//! node looks how far the log is committed, and how long it takes until that much is applied here.

use std::time::{Duration, Instant};

/// How often the node looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// A client gives an attempt at one node at least a second: behind by more, a node only costs its clients that second.
const LAG_MAX: Duration = Duration::from_secs(1);

/// What was committed at the last look that it has not caught up with yet.
#[derive(Debug, Default)]
pub(super) struct Lag {
    goal: Option<Goal>,
    /// Whether it has ever caught up with what a leader had committed. A node that comes back knows how far behind it is only then.
    has_met: bool,
}

#[derive(Debug, Clone, Copy)]
struct Goal {
    index: u64,
    since: Instant,
}

impl Lag {
    /// Takes a look: `committed`, if a leader says how far that is, and what is applied.
    pub(super) fn look(&mut self, committed: Option<u64>, applied: u64, now: Instant) {
        if self.goal.is_some_and(|goal| applied < goal.index) {
            return;
        }
        self.goal = committed.map(|index| Goal { index, since: now });
        self.has_met |= committed.is_some_and(|index| applied >= index);
    }

    /// How long what is committed has been waiting to be applied here.
    pub(super) fn behind(&self, applied: u64, now: Instant) -> Duration {
        let goal = self.goal.filter(|goal| applied < goal.index);
        goal.map_or(Duration::ZERO, |goal| now.saturating_duration_since(goal.since))
    }

    /// Whether the node has what was committed a second ago; if not, why.
    pub(super) fn check(&self, applied: u64, now: Instant) -> Result<(), String> {
        let goal = self.goal.filter(|goal| applied < goal.index);
        let behind = self.behind(applied, now);
        match goal {
            Some(goal) if !self.has_met => Err(format!("{} entries are still to be applied", goal.index - applied)),
            Some(goal) if behind > LAG_MAX => Err(format!(
                "{} entries that were committed {:.1} s ago are not applied yet",
                goal.index - applied,
                behind.as_secs_f64()
            )),
            None if !self.has_met && self.goal.is_none() => Err("no leader has said yet what is committed".into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_node_that_starts_is_behind_until_it_has_what_its_leader_had() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        assert!(lag.check(9, start).unwrap_err().contains("no leader"));
        lag.look(Some(100), 9, start);
        assert_eq!(lag.check(9, after(start, 10)).unwrap_err(), "91 entries are still to be applied");
        assert_eq!(lag.check(100, after(start, 20)), Ok(()));
        lag.look(Some(200), 100, after(start, 250));
        assert!(lag.check(100, after(start, 260)).is_err(), "it runs after a goal that moves on");
        lag.look(Some(201), 201, after(start, 500));
        lag.look(Some(900), 300, after(start, 750));
        assert_eq!(lag.check(300, after(start, 800)), Ok(()), "it was there, and is behind for no long time");
    }

    #[test]
    fn a_lag_counts_in_seconds_not_in_entries() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        lag.look(Some(1), 1, start);
        lag.look(Some(1_000_000), 1, after(start, 250));
        assert_eq!(lag.check(1, after(start, 1_000)), Ok(()), "many entries, and not long");
        lag.look(Some(1_000_000), 500_000, after(start, 1_000));
        let why = lag.check(999_998, after(start, 2_750)).unwrap_err();
        assert_eq!(why, "2 entries that were committed 2.5 s ago are not applied yet");
        assert_eq!(lag.check(1_000_000, after(start, 2_750)), Ok(()));
    }

    #[test]
    fn under_a_steady_load_the_goal_moves_on_with_it() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        lag.look(Some(0), 0, start);
        for turn in 1..100 {
            lag.look(Some(1_000 * (turn + 1)), 1_000 * turn, after(start, 250 * turn));
            assert_eq!(lag.check(1_000 * turn, after(start, 250 * turn)), Ok(()));
        }
    }

    #[test]
    fn without_a_leader_nothing_new_is_to_be_caught_up_with() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        lag.look(Some(5), 5, start);
        lag.look(None, 5, after(start, 250));
        lag.look(None, 5, after(start, 5_000));
        assert_eq!(lag.check(5, after(start, 9_000)), Ok(()));
    }
}
