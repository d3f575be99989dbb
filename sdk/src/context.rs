//! What a method is given: the state, and what the log entry says about time, place and chance.
//!
//! A [`Context`] is a [`View`] that can also write. Both are zero-sized passes: the state is the host's, and each method here
//! is one crossing into it. Natively the host is [`testing::Host`](crate::testing::Host).

use std::ops::Deref;
use std::time::Duration;

use prost::bytes::Bytes;

use crate::imports;
use crate::random::Random;
use crate::scan::{Page, Pages, Range};

/// The state and the log entry, read-only: what a query is given.
#[derive(Debug)]
pub struct View(());

/// The state and the log entry: what a command is given. Derefs to [`View`] for all that reads.
#[derive(Debug)]
pub struct Context(View);

impl View {
    /// The value stored under `key`.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        imports::get(key).map(Bytes::from)
    }

    /// The first `len` bytes of the value stored under `key`, or all of it if it is shorter. For a value with a header in
    /// front of much more: what is not asked for is not copied.
    pub fn get_head(&self, key: &[u8], len: usize) -> Option<Vec<u8>> {
        imports::get_head(key, len)
    }

    /// One page of `range`, as it is now. What is written afterwards does not change the page.
    pub fn scan(&self, range: &Range) -> Page {
        if range.limit == 0 { Page::empty() } else { imports::scan(range) }
    }

    /// All pages of `range`, each read when the iterator gets there. A loop over them may write: the iterator borrows
    /// nothing, and goes on behind the last key it has seen.
    pub fn pages(&self, range: Range) -> Pages {
        Pages::new(range)
    }

    /// Position of this command in the log; for a query, of the last command it sees. Grows from command to command.
    pub fn index(&self) -> u64 {
        imports::index_and_time().0
    }

    /// Time since 1970-01-01 UTC, in whole milliseconds, as the leader stamped it into the log entry: the same on every
    /// replica, and never less than at an earlier command.
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }

    /// The same as a number of milliseconds, which is how times are stored and sent.
    pub fn now_ms(&self) -> u64 {
        imports::index_and_time().1
    }

    /// A generator seeded by the log entry: the same on every replica, not to be guessed by clients beforehand, but not a
    /// secret either. Asked twice in one call it starts again with the same numbers.
    pub fn random(&self) -> Random {
        Random::new(imports::random())
    }
}

impl Context {
    /// Only the SDK makes one, for the call it enters.
    pub(crate) const fn new() -> Self {
        Self(View(()))
    }

    /// Stores `value` under `key`. The limits are those of [`limits`](crate::limits); beyond them the call is stopped.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        imports::put(key, value);
    }

    /// Deletes `key`; whether it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        imports::delete(key)
    }
}

impl Deref for Context {
    type Target = View;

    fn deref(&self) -> &View {
        &self.0
    }
}
