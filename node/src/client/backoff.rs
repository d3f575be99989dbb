//! How long to pause between rounds of attempts: doubling, capped, and jittered, so that clients which failed
//! together do not come back together.

use std::time::Duration;

/// A pause of up to `first`, then up to twice that, and so on up to `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first pause.
    pub first: Duration,
    /// The longest pause of all. Well below an election (1.5–2 s), so that a new leader is found soon.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(20), cap: Duration::from_millis(500) }
    }
}

impl Backoff {
    /// The pause after round number `round` (from 1): between half of its bound and all of it.
    pub fn delay(&self, round: u32) -> Duration {
        let bound = self.bound(round);
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }

    fn bound(&self, round: u32) -> Duration {
        self.first.saturating_mul(1 << round.saturating_sub(1).min(20)).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_are_jittered() {
        let backoff = Backoff::default();
        let bounds: Vec<_> = (1..=7).map(|round| backoff.bound(round).as_millis()).collect();
        assert_eq!(bounds, [20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(backoff.bound(u32::MAX), backoff.cap);
        for round in 1..100 {
            let delay = backoff.delay(round);
            assert!(delay <= backoff.bound(round) && delay >= backoff.bound(round) / 2);
        }
    }
}
