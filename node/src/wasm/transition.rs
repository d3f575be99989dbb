//! What a module does when it takes over a name: `balsa_init` for a new one, `balsa_migrate` for the state of another module.
//!
//! A transition runs at the log index of an activation, on every replica, before the first call of the new module; like a
//! command it writes through host functions, and like a command it ends in one of three ways. What differs is its size: it may
//! take more fuel than a command, and its writes are counted, since they all lie in memory until it ends, on the smallest
//! node too. Counting is part of the outcome (`write_limit`), so it is the host functions' calls that are counted and not the
//! rows that come of them.
//!
//! A refusal is the author's to make: by a status, a trap, or by writing too much. What a refusal means is the caller's business;
//! here it only leaves a state whose writes are to be thrown away.

use bytes::Bytes;

use super::call::{Access, Context, Entry, Finished, Run, State};
use super::module::Module;
use super::outcome::HostFault;
use super::stream::Output;

/// A step from one module to the next.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The version of the module whose state it gets; `None` if the name is new.
    pub from: Option<String>,
    /// Of the entry that activates it.
    pub context: Context,
    /// Fuel for all of it.
    pub fuel: u64,
    /// Linear memory it may grow to, bytes.
    pub memory_bytes: u64,
    /// Puts and deletes it may make.
    pub writes_max: u64,
    /// Bytes of keys and values of those.
    pub bytes_max: u64,
}

impl Module {
    /// Runs `balsa_init` or `balsa_migrate` on a fresh instance. A module that does not export it has nothing to do and succeeds,
    /// without fuel; a success is always without a message.
    pub fn transition(&self, transition: Transition, state: Box<dyn State>) -> Result<Finished, HostFault> {
        let Transition { from, context, fuel, memory_bytes, writes_max, bytes_max } = transition;
        let (entry, there) = match from {
            None => (Entry::Init, self.has_init()),
            Some(_) => (Entry::Migrate, self.has_migrate()),
        };
        if !there {
            return Ok(Finished::nothing(state));
        }
        let input = Bytes::from(from.unwrap_or_default());
        let access = Access::Write { writes_max, bytes_max };
        self.run(Run { entry, input, context, fuel, memory_bytes, access, output: Output::default() }, state)
    }
}
