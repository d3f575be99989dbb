//! An in-memory host that runs a module natively, in plain `cargo test`.
//!
//! ```ignore
//! let mut host = Host::new();
//! host.command(Kv::put, PutRequest { key: b"a".into(), value: b"1".into(), ..Default::default() })?;
//! let found = host.query(Kv::get, GetRequest { key: b"a".into() })?;
//! assert_eq!(host.dump(), "a = 1\n");
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
use crate::service::{Kind, Service};
use crate::status::Status;

/// A replica of one, with an empty log and state.
#[derive(Debug, Default)]
pub struct Host {
    state: State,
    index: u64,
    time_ms: u64,
    random: Option<[u8; 32]>,
    logs: Vec<(Level, String)>,
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

    /// Runs a command that is not a method, at the next index: `host.change(|ctx| TOTAL.set(ctx, &7))`.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Context) -> Result<T, Status>) -> Result<T, Status> {
        self.index += 1;
        self.run(true, change)
    }

    /// Runs a query that is not a method: `host.read(|ctx| TOTAL.get(ctx))`.
    pub fn read<T>(&mut self, read: impl FnOnce(&View) -> Result<T, Status>) -> Result<T, Status> {
        self.run(false, |context| read(context))
    }

    /// Runs a method of a server by its path, on encoded messages: the way that a real call takes.
    ///
    /// # Panics
    /// If the server has no such method.
    pub fn call<S: Service>(&mut self, path: &str, input: &[u8]) -> Result<Vec<u8>, Status> {
        let position = S::METHODS.iter().position(|method| method.path == path);
        let position = position.unwrap_or_else(|| panic!("{} has no method {path}", S::NAME));
        let writable = S::METHODS[position].kind == Kind::Command;
        self.index += u64::from(writable);
        let output = self.run(writable, |context| S::call(context, position as u32, Bytes::copy_from_slice(input)))?;
        assert!(output.len() <= RESULT_BYTES_MAX, "bad_result: a response of {} bytes", output.len());
        Ok(output)
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
