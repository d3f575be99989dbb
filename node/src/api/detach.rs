//! A future that finishes even if nobody waits for it any more.
//!
//! A command that was proposed is in the log whether or not its client is still there. Dropping the backend's future
//! half-way (the client hung up, its deadline passed) must not leave that work undone, so whoever drops an unfinished
//! [`Detached`] hands the rest to the runtime. In the common case, where the future is waited for, this costs one box and
//! no task.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See the module's documentation.
pub(super) struct Detached<T: Send + 'static> {
    /// Absent once it is finished (or has panicked: then there is nothing to go on with).
    work: Option<Work<T>>,
    /// A future that was never polled has not done anything that must be finished.
    started: bool,
}

impl<T: Send + 'static> Detached<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), started: false }
    }
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.started = true;
        let mut work = self.work.take().expect("a finished future is not polled again");
        let poll = work.as_mut().poll(context);
        if poll.is_pending() {
            self.work = Some(work);
        }
        poll
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        let Some(rest) = self.work.take().filter(|_| self.started) else { return };
        // Without a runtime the process is about to end: the log decides, as after a crash.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                rest.await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn dropped_half_way_it_is_finished_elsewhere() {
        let (go, wait) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel();
        let mut work = Detached::new(async move {
            wait.await.unwrap();
            done.send(()).unwrap();
        });
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        go.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), finished).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn never_polled_it_never_runs() {
        let (done, finished) = oneshot::channel::<()>();
        drop(Detached::new(async move { done.send(()).unwrap() }));
        assert!(finished.await.is_err());
    }
}
