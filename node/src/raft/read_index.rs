//! ReadIndex: how a query knows that it sees every command answered before it arrived.
//!
//! The leader confirms, by a round of heartbeats that *starts after* the query arrived, that it still leads; its commit index
//! at that start is then the index to read at. One round serves all queries that were waiting when it started; those that come
//! meanwhile wait for the next. A follower asks the leader, through a gate of its own, so that a follower too has at most one
//! question on its way. Leases would be cheaper and are not safe here: a follower that restarts quickly forgets the lease
//! that it granted.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::service::ServiceError;

type Waiter = oneshot::Sender<Result<u64, ServiceError>>;

/// Joins queries to confirmation rounds.
#[derive(Debug, Clone, Default)]
pub struct ReadGate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Vec<Waiter>>,
    arrived: Notify,
}

impl ReadGate {
    /// The index at which a query that arrives now may read.
    pub async fn read_index(&self) -> Result<u64, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut waiting = self.0.waiting.lock();
            waiting.push(answer);
            waiting.len() == 1
        };
        if first {
            self.0.arrived.notify_one();
        }
        answered.await.unwrap_or(Err(ServiceError::ShuttingDown))
    }

    /// Runs rounds for ever, one at a time, as long as there are queries.
    pub async fn run<Round, Answer>(self, round: Round)
    where
        Round: Fn() -> Answer,
        Answer: Future<Output = Result<u64, ServiceError>>,
    {
        loop {
            self.0.arrived.notified().await;
            let waiting = std::mem::take(&mut *self.0.waiting.lock());
            if waiting.is_empty() {
                continue;
            }
            let result = round().await;
            for waiter in waiting {
                // A client that left does not need its answer.
                let _ = waiter.send(result.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_read_joins_only_a_round_that_starts_after_it() {
        let gate = ReadGate::default();
        let rounds = Arc::new(AtomicU64::new(0));
        let (go_on, may_end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let first_round_runs = Arc::clone(&go_on);
        let (counter, end) = (Arc::clone(&rounds), Arc::clone(&may_end));
        let runner = tokio::spawn(gate.clone().run(move || {
            let (counter, started, end) = (Arc::clone(&counter), Arc::clone(&first_round_runs), Arc::clone(&end));
            async move {
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                started.notify_one();
                end.notified().await;
                Ok(number)
            }
        }));
        let early = tokio::spawn({
            let gate = gate.clone();
            async move { gate.read_index().await }
        });
        go_on.notified().await;
        let late: Vec<_> = (0..3)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.read_index().await })
            })
            .collect();
        tokio::task::yield_now().await;
        may_end.notify_one();
        assert_eq!(early.await.unwrap(), Ok(1));
        go_on.notified().await;
        may_end.notify_one();
        for read in late {
            assert_eq!(read.await.unwrap(), Ok(2), "the later ones share the second round");
        }
        assert_eq!(rounds.load(Ordering::SeqCst), 2);
        runner.abort();
    }
}
