//! Waiting for a condition, and looking at what must not change.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Nothing takes nearly as long on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(40);
/// Of these, one has to be calm.
const ROUNDS: u32 = 3;

/// Looks until there is something to see.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// The same, for something that may take longer.
pub(crate) async fn until_within<T>(patience: Duration, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    looking_every(POLL, patience, what, look).await
}

/// The same, for something that must not be missed.
pub(crate) async fn until_at_once<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    looking_every(POLL / 20, PATIENCE, what, look).await
}

async fn looking_every<T>(
    pause: Duration,
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(pause).await;
    }
}

/// Looks for a while at what must not change. That something never happens can be shown only so far.
pub(crate) async fn stays(what: &str, duration: Duration, mut look: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        assert!(look().await, "{what}, and no more");
        tokio::time::sleep(POLL).await;
    }
}

/// Has `round` tell a number before and after it that must not grow: the term, since nobody is to stand for election. A machine
/// that stands still for a second or two makes somebody do so; what is wrong with the nodes makes them do so each time.
pub(crate) async fn calm(what: &str, mut round: impl AsyncFnMut() -> (u64, u64)) {
    let mut told = Vec::new();
    for _ in 0..ROUNDS {
        let (before, after) = round().await;
        if before == after {
            return;
        }
        told.push((before, after));
    }
    panic!("{what}; before and after each round it was {told:?}");
}
