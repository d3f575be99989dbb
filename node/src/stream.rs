//! Messages on their way from the thread that makes them to the connection that takes them.
//!
//! A [`Sender`] belongs to a thread, which may wait; a [`Messages`] belongs to a task, which may not. Between them lies at most
//! [`STREAM_BYTES_MAX`], or one message that is larger: when a client reads slowly, its connection takes nothing more, the thread
//! waits for room, and the query stands still. It does so until the client goes on, goes away, or has let the thread wait
//! for too long.
//!
//! A stream always has an end: the [`Executed`] of its query, or the error that cut it short. A sender that is dropped without a
//! word (its thread panicked) ends it as a shutdown would.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::limits::STREAM_BYTES_MAX;
use crate::service::{Executed, ServiceError};

/// What a message takes up beside its bytes, so that empty ones are not for nothing.
const MESSAGE_BYTES: usize = 64;

/// How a stream ends.
pub type End = Result<Executed, ServiceError>;

/// What comes out of a stream, in this order: messages, then the end, then nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next message, encoded.
    Message(Bytes),
    /// No more messages.
    End(End),
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// Nobody is there any more.
    Gone,
    /// There was no room in time.
    Late,
}

/// Both sides of a new stream.
pub fn channel() -> (Sender, Messages) {
    let shared = Arc::new(Shared::default());
    (Sender { shared: shared.clone() }, Messages { shared })
}

/// The side that makes messages.
pub struct Sender {
    shared: Arc<Shared>,
}

/// The side that takes them.
pub struct Messages {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when there is room, or nobody to take anything.
    room: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Bytes>,
    bytes: usize,
    end: Option<End>,
    ended: bool,
    gone: bool,
    waiting: Option<Waker>,
}

impl State {
    fn has_room(&self, message: &Bytes) -> bool {
        self.messages.is_empty() || self.bytes + size(message) <= STREAM_BYTES_MAX
    }

    fn pop_if(&mut self, wanted: impl FnOnce(&Bytes) -> bool) -> Option<Bytes> {
        let message = self.messages.pop_front_if(|message| wanted(message))?;
        self.bytes -= size(&message);
        Some(message)
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }
}

fn size(message: &Bytes) -> usize {
    message.len() + MESSAGE_BYTES
}

impl Sender {
    /// Hands over a message, waiting for room until `until`.
    pub fn send(&self, message: Bytes, until: Instant) -> Result<(), Undelivered> {
        let mut state = self.shared.state.lock();
        while !state.gone && !state.has_room(&message) {
            if self.shared.room.wait_until(&mut state, until).timed_out() && !state.has_room(&message) {
                return Err(Undelivered::Late);
            }
        }
        if state.gone {
            return Err(Undelivered::Gone);
        }
        state.bytes += size(&message);
        state.messages.push_back(message);
        wake(state);
        Ok(())
    }

    /// Ends the stream. With an error of ours, what is still on its way is forgotten: a client that is told that its time is over
    /// needs it no more, and a slow one would let it lie here.
    pub fn end(&self, end: End) {
        self.shared.end(end);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.end(Err(ServiceError::ShuttingDown));
    }
}

impl Shared {
    /// The first end counts.
    fn end(&self, end: End) {
        let mut state = self.state.lock();
        if mem::replace(&mut state.ended, true) {
            return;
        }
        if end.is_err() {
            state.clear();
        }
        state.end = Some(end);
        wake(state);
    }
}

/// Wakes the task that waits, if one does, after the lock is free.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    let waiting = state.waiting.take();
    drop(state);
    if let Some(waker) = waiting {
        waker.wake();
    }
}

impl Messages {
    /// The next event; `None` behind the end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.shared.state.lock();
        if let Some(message) = state.pop_if(|_| true) {
            self.shared.room.notify_one();
            return Poll::Ready(Some(Event::Message(message)));
        }
        if state.ended {
            return Poll::Ready(state.end.take().map(Event::End));
        }
        state.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    /// The same, to be waited for.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// The next message if it is here already and has at most so many bytes.
    pub fn next_if_small(&mut self, bytes_max: usize) -> Option<Bytes> {
        let mut state = self.shared.state.lock();
        let message = state.pop_if(|message| message.len() <= bytes_max)?;
        self.shared.room.notify_one();
        Some(message)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.gone = true;
        state.clear();
        drop(state);
        self.shared.room.notify_one();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("bytes", &self.shared.state.lock().bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use futures::task::noop_waker;

    use super::*;
    use crate::command::Outcome;

    const LONG: Duration = Duration::from_secs(20);

    fn soon() -> Instant {
        Instant::now() + LONG
    }

    fn poll(messages: &mut Messages) -> Poll<Option<Event>> {
        messages.poll_next(&mut Context::from_waker(&noop_waker()))
    }

    fn well() -> End {
        Ok(Executed { index: 7, outcome: Outcome::Ok(Bytes::new()), replayed: false, trap_detail: None })
    }

    fn message(bytes: usize) -> Bytes {
        vec![7; bytes].into()
    }

    #[test]
    fn messages_come_in_order_then_the_end_then_nothing() {
        let (sender, mut messages) = channel();
        assert!(poll(&mut messages).is_pending());
        sender.send("a".into(), soon()).unwrap();
        sender.send("b".into(), soon()).unwrap();
        sender.end(well());
        assert_eq!(poll(&mut messages), Poll::Ready(Some(Event::Message("a".into()))));
        assert_eq!(poll(&mut messages), Poll::Ready(Some(Event::Message("b".into()))));
        assert_eq!(poll(&mut messages), Poll::Ready(Some(Event::End(well()))));
        assert_eq!(poll(&mut messages), Poll::Ready(None));
    }

    #[test]
    fn without_room_a_sender_waits_and_gives_up_in_time() {
        let (sender, _messages) = channel();
        sender.send(message(STREAM_BYTES_MAX), soon()).unwrap();
        assert_eq!(sender.send(message(1), Instant::now() + Duration::from_millis(1)), Err(Undelivered::Late));
    }

    #[test]
    fn empty_messages_need_room_too() {
        let (sender, _messages) = channel();
        let sent = (0..).take_while(|_| sender.send(Bytes::new(), Instant::now()).is_ok()).count();
        assert_eq!(sent, STREAM_BYTES_MAX / MESSAGE_BYTES);
    }

    #[test]
    fn a_message_above_the_limit_goes_alone() {
        let (sender, mut messages) = channel();
        sender.send(message(3 * STREAM_BYTES_MAX), soon()).unwrap();
        assert_eq!(sender.send(message(1), Instant::now()), Err(Undelivered::Late));
        assert!(poll(&mut messages).is_ready());
        sender.send(message(1), soon()).unwrap();
    }

    #[test]
    fn room_lets_the_sender_go_on() {
        let (sender, mut messages) = channel();
        let thread = thread::spawn(move || {
            (0..100).for_each(|_| sender.send(message(STREAM_BYTES_MAX / 2), soon()).unwrap());
            sender.end(well());
        });
        let mut taken = 0;
        while taken < 100 {
            match poll(&mut messages) {
                Poll::Ready(Some(Event::Message(_))) => taken += 1,
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending => thread::yield_now(),
            }
        }
        thread.join().unwrap();
    }

    #[test]
    fn a_sender_that_waits_learns_at_once_that_nobody_is_there() {
        let (sender, messages) = channel();
        sender.send(message(STREAM_BYTES_MAX), soon()).unwrap();
        let thread = thread::spawn(move || sender.send(message(1), Instant::now() + 100 * LONG));
        drop(messages);
        assert_eq!(thread.join().unwrap(), Err(Undelivered::Gone));
    }

    #[test]
    fn an_error_of_ours_forgets_what_lies_there_and_the_modules_does_not() {
        let (sender, mut messages) = channel();
        sender.send("a".into(), soon()).unwrap();
        sender.end(Err(ServiceError::Deadline));
        assert_eq!(poll(&mut messages), Poll::Ready(Some(Event::End(Err(ServiceError::Deadline)))));
    }

    #[test]
    fn a_sender_that_vanishes_ends_the_stream() {
        let (sender, mut messages) = channel();
        drop(sender);
        assert_eq!(poll(&mut messages), Poll::Ready(Some(Event::End(Err(ServiceError::ShuttingDown)))));
    }

    #[test]
    fn small_messages_that_are_there_can_be_taken_together() {
        let (sender, mut messages) = channel();
        sender.send(message(10), soon()).unwrap();
        sender.send(message(11), soon()).unwrap();
        assert_eq!(messages.next_if_small(10), Some(message(10)));
        assert_eq!(messages.next_if_small(10), None);
    }
}
