//! An in-memory host that runs a module natively, in plain `cargo test`.
//!
//! ```
//! use std::time::Duration;
//!
//! use balsa_sdk::testing::Host;
//! use balsa_sdk::{Code, Context, Map, Status, View};
//!
//! // In a module these are functions of its service's trait, their requests are messages, and a test runs
//! // `host.command(MyLocks::lock, LockRequest { .. })`.
//! const UNTIL_MS: Map<String, u64> = Map::new("until");
//!
//! fn lock(ctx: &mut Context, name: String) -> Result<u64, Status> {
//!     let now_ms = ctx.now_ms();
//!     if UNTIL_MS.get(ctx, &name)?.is_some_and(|until_ms| now_ms < until_ms) {
//!         return Err(Status::failed_precondition("somebody has it"));
//!     }
//!     UNTIL_MS.insert(ctx, &name, &(now_ms + 10_000))?;
//!     Ok(ctx.index())
//! }
//!
//! fn is_free(ctx: &View, name: String) -> Result<bool, Status> {
//!     Ok(!UNTIL_MS.contains(ctx, &name))
//! }
//!
//! let mut host = Host::new();
//! assert_eq!(host.query(is_free, "a".to_owned()), Ok(true));
//! assert_eq!(host.command(lock, "a".to_owned()), Ok(1));
//! assert_eq!(host.command(lock, "a".to_owned()).unwrap_err().code(), Code::FailedPrecondition);
//! host.advance(Duration::from_secs(10));
//! assert_eq!(host.command(lock, "a".to_owned()), Ok(3));
//! assert_eq!(host.dump(), "until\\x01a\\x00 = \\x08\\xa0\\x9c\\x01\n");
//! ```
//!
//! It is faithful in what a module can see: a command that fails or panics leaves no trace, each command has its own index
//! and randomness, and time stands still until the test moves it. What the real host answers with a trap is a panic here:
//! a write in a query, a key, value or response above its limit. It does not bound fuel or memory.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use prost::Message;
use prost::bytes::Bytes;

use crate::context::{Context, View};
use crate::imports::{self, Call, State};
use crate::limits::RESULT_BYTES_MAX;
use crate::log::Level;
use crate::sender::Sender;
use crate::service::{Kind, Reply, Service};
use crate::status::Status;
use crate::version::Version;

/// A replica of one, with an empty log and state.
#[derive(Debug, Default)]
pub struct Host {
    state: State,
    index: u64,
    time_ms: u64,
    random: Option<[u8; 32]>,
    logs: Vec<(Level, String)>,
    writes: usize,
    sent: Vec<Vec<u8>>,
}

impl Host {
    /// Index 0, time 0, nothing stored.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a command at the next index: `host.command(Kv::put, request)`.
    pub fn command<Request, Response: Message>(
        &mut self,
        method: impl FnOnce(&mut Context, Request) -> Result<Response, Status>,
        request: Request,
    ) -> Result<Response, Status> {
        self.index += 1;
        self.run(true, |context| method(context, request).inspect(check_size))
    }

    /// Runs a query on the state as it is: `host.query(Kv::get, request)`.
    pub fn query<Request, Response: Message>(
        &mut self,
        method: impl FnOnce(&View, Request) -> Result<Response, Status>,
        request: Request,
    ) -> Result<Response, Status> {
        self.run(false, |context| method(context, request).inspect(check_size))
    }

    /// Runs a streaming query: `host.stream(Kv::dump, request)`. Gives its messages if it succeeds.
    pub fn stream<Request, Response: Message + Default>(
        &mut self,
        method: impl FnOnce(&View, Request, &mut Sender<Response>) -> Result<(), Status>,
        request: Request,
    ) -> Result<Vec<Response>, Status> {
        let mut messages = Vec::new();
        self.stream_into(&mut messages, method, request)?;
        Ok(messages)
    }

    /// The same, for a stream that is expected to fail: `messages` gets what was sent before.
    pub fn stream_into<Request, Response: Message + Default>(
        &mut self,
        messages: &mut Vec<Response>,
        method: impl FnOnce(&View, Request, &mut Sender<Response>) -> Result<(), Status>,
        request: Request,
    ) -> Result<(), Status> {
        let result = self.run(false, |context| method(context, request, &mut Sender::new()));
        let decode = |sent: Vec<u8>| Response::decode(sent.as_slice()).expect("a Sender encodes what it is given");
        messages.extend(self.sent.drain(..).map(decode));
        result
    }

    /// Runs a command that is not a method, at the next index: `host.change(|ctx| TOTAL.set(ctx, &7))`.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Context) -> Result<T, Status>) -> Result<T, Status> {
        self.index += 1;
        self.run(true, change)
    }

    /// Runs a query that is not a method: `host.read(|ctx| TOTAL.get(ctx))`.
    pub fn read<T>(&mut self, read: impl FnOnce(&View) -> Result<T, Status>) -> Result<T, Status> {
        self.run(false, |context| read(context))
    }

    /// Runs what the module gives to `export!` as `init`, at the next index.
    pub fn init(&mut self, init: impl FnOnce(&mut Context) -> Result<(), Status>) -> Result<(), Status> {
        self.change(init)
    }

    /// Runs what the module gives to `export!` as `migrate`, at the next index, as if a module of version `from` had been here
    /// before. [`writes`](Self::writes) says afterwards what counts against the limit of a migration.
    pub fn migrate(
        &mut self,
        from: &str,
        migrate: impl FnOnce(&mut Context, Version) -> Result<(), Status>,
    ) -> Result<(), Status> {
        self.change(|context| migrate(context, Version::read(from)))
    }

    /// Runs a unary method of a server by its path, on encoded messages: the way that a real call takes.
    ///
    /// # Panics
    /// If the server has no such method, or if that returns a stream.
    pub fn call<S: Service>(&mut self, path: &str, input: &[u8]) -> Result<Vec<u8>, Status> {
        match self.dispatch::<S>(path, input)? {
            Reply::Message(output) => {
                assert!(output.len() <= RESULT_BYTES_MAX, "bad_result: a response of {} bytes", output.len());
                Ok(output)
            }
            Reply::Streamed => panic!("{path} returns a stream: use call_streaming"),
        }
    }

    /// Runs a streaming query of a server by its path, on encoded messages.
    ///
    /// # Panics
    /// If the server has no such method, or if that does not return a stream.
    pub fn call_streaming<S: Service>(&mut self, path: &str, input: &[u8]) -> Result<Vec<Vec<u8>>, Status> {
        match self.dispatch::<S>(path, input)? {
            Reply::Streamed => Ok(std::mem::take(&mut self.sent)),
            Reply::Message(_) => panic!("{path} does not return a stream: use call"),
        }
    }

    fn dispatch<S: Service>(&mut self, path: &str, input: &[u8]) -> Result<Reply, Status> {
        let position = S::METHODS.iter().position(|method| method.path == path);
        let position = position.unwrap_or_else(|| panic!("{} has no method {path}", S::NAME));
        let writable = S::METHODS[position].kind == Kind::Command;
        self.index += u64::from(writable);
        self.run(writable, |context| S::call(context, position as u32, Bytes::copy_from_slice(input)))
    }

    /// Number of puts and deletes of the last call, whether they were kept or undone.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// Index of the last command.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Makes the next command's index `index` + 1, as if others had come before.
    pub fn set_index(&mut self, index: u64) {
        self.index = index;
    }

    /// What `now()` says to the next calls.
    pub fn now(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }

    /// Sets the clock, to whole milliseconds since 1970.
    pub fn set_now(&mut self, now: Duration) {
        self.time_ms = now.as_millis() as u64;
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.set_now(self.now() + by);
    }

    /// Gives this seed to all later calls. Without one each index has its own.
    pub fn set_random(&mut self, seed: [u8; 32]) {
        self.random = Some(seed);
    }

    /// The stored keys and values.
    pub fn state(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.state
    }

    /// The stored keys and values, for a test that starts from a given state.
    pub fn state_mut(&mut self) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        &mut self.state
    }

    /// The state as text, a line `key = value` each, with what is not printable ASCII escaped as in Rust.
    pub fn dump(&self) -> String {
        let mut dump = String::new();
        for (key, value) in &self.state {
            writeln!(dump, "{} = {}", key.escape_ascii(), value.escape_ascii()).expect("a String takes everything");
        }
        dump
    }

    /// The log lines of all calls so far, failed ones included; forgets them.
    pub fn take_logs(&mut self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.logs)
    }

    fn run<T>(&mut self, writable: bool, call: impl FnOnce(&mut Context) -> Result<T, Status>) -> Result<T, Status> {
        let mut entered = Entered::new(self, writable);
        let result = call(&mut Context::new());
        entered.keep = result.is_ok();
        result
    }

    /// Unless the test gave a seed: different for every index, the same in every run.
    fn seed(&self) -> [u8; 32] {
        self.random.unwrap_or_else(|| {
            let mut seed = [0; 32];
            for (word, salt) in seed.chunks_mut(8).zip(1_u64..) {
                word.copy_from_slice(&(self.index + 1).wrapping_mul(salt << 32 | 0x9e37_79b9).to_le_bytes());
            }
            seed
        })
    }
}

/// A call in the middle of which the host is. Ends when dropped, so also when the method panics.
struct Entered<'a> {
    host: &'a mut Host,
    keep: bool,
}

impl<'a> Entered<'a> {
    fn new(host: &'a mut Host, writable: bool) -> Self {
        let call = Call {
            state: std::mem::take(&mut host.state),
            index: host.index,
            time_ms: host.time_ms,
            random: host.seed(),
            writable,
            ..Call::default()
        };
        let outer = imports::replace(Some(call));
        assert!(outer.is_none(), "a method cannot call a host");
        Self { host, keep: false }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut call = imports::replace(None).expect("entered by new");
        self.host.sent = std::mem::take(&mut call.sent);
        self.host.writes = call.undo.len();
        if !self.keep {
            call.roll_back();
        }
        self.host.state = call.state;
        self.host.logs.append(&mut call.logs);
    }
}

fn check_size(response: &impl Message) {
    let len = response.encoded_len();
    assert!(len <= RESULT_BYTES_MAX, "bad_result: a response of {len} bytes");
}

#[cfg(test)]
mod tests;
