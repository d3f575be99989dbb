//! Whether somebody leads, as far as a node can find out.
//!
//! Raft does not say so by itself. A leader that has lost its majority stays one until it hears of a later term, and where nobody may
//! campaign without a majority's leave (the pre-vote), its followers stay followers just as long. So once a second each node asks what a
//! query would ask: has a majority confirmed, just now, that the leader is one? A node that got no yes for a while serves neither
//! commands nor linearizable queries, whoever it holds for the leader.

use std::time::{Duration, Instant};

/// How often the node asks.
pub(super) const ASK: Duration = Duration::from_secs(1);
/// How long a yes is good for. It is longer than an election, at which nobody is to be sent elsewhere, and than a round of
/// confirmations takes under load.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// What a node knows of it.
#[derive(Debug)]
pub(super) struct Leadership {
    /// Since when it holds the present leader, or nobody, for one.
    since: Instant,
    confirmed: Option<Instant>,
}

impl Leadership {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, confirmed: None }
    }

    /// Another leads from now on, or nobody.
    pub(super) fn changes(&mut self, now: Instant) {
        self.since = now;
    }

    /// A majority stands behind the leader.
    pub(super) fn confirm(&mut self, now: Instant) {
        self.confirmed = Some(now);
    }

    /// How long nothing has changed.
    pub(super) fn lasts(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether a majority stands behind `leader`; if not, why not.
    pub(super) fn check(&self, leader: Option<&str>, now: Instant) -> Result<(), String> {
        let Some(leader) = leader else { return Err("no leader is known".into()) };
        match self.confirmed.map(|at| now.saturating_duration_since(at)) {
            Some(age) if age <= GOOD_FOR => Ok(()),
            Some(age) => Err(format!(
                "{leader} was the leader, and for {} s no majority has confirmed that it still is: too few voters are within reach",
                age.as_secs()
            )),
            None => Err(format!("no majority has confirmed yet that {leader} leads")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_counts_only_as_long_as_a_majority_confirms_it() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut leadership = Leadership::new(start);
        assert_eq!(leadership.check(None, start).unwrap_err(), "no leader is known");
        let unconfirmed = "no majority has confirmed yet that balsa-0 leads";
        assert_eq!(leadership.check(Some("balsa-0"), after(1)).unwrap_err(), unconfirmed);
        leadership.confirm(after(2));
        assert_eq!(leadership.check(Some("balsa-0"), after(7)), Ok(()), "an election may pass");
        assert_eq!(leadership.check(None, after(3)).unwrap_err(), "no leader is known", "as soon as that is known");
        let lost = leadership.check(Some("balsa-0"), after(9)).unwrap_err();
        assert!(lost.starts_with("balsa-0 was the leader, and for 7 s no majority has confirmed"), "{lost}");
        leadership.confirm(after(10));
        assert_eq!(leadership.check(Some("balsa-0"), after(11)), Ok(()));
    }

    #[test]
    fn it_lasts_from_the_last_change_on() {
        let start = Instant::now();
        let mut leadership = Leadership::new(start);
        leadership.changes(start + Duration::from_secs(3));
        leadership.confirm(start + Duration::from_secs(4));
        assert_eq!(leadership.lasts(start + Duration::from_secs(8)), Duration::from_secs(5));
    }
}
