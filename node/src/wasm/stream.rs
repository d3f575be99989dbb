//! Answers: one message, or many that leave while the call is still running.
//!
//! A stream's messages go to a [`Sink`], which may wait before it takes one: that is how a slow client slows its query down. So
//! a streaming query has slots of its own, and a deadline. If the sink wants no more, the call ends there.
//!
//! One message is always held back. When the call fails, its last output is the status that says why and not a message, and only
//! the result code tells. After a trap the held one is sent: it was made before.

use std::mem;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::call::{Access, Call, Entry, Finished, Run, State};
use super::module::Module;
use super::outcome::{Cut, HostFault};

/// Takes the messages of a stream, one after the other. Break: nobody wants more.
pub type Sink = Box<dyn FnMut(Bytes) -> ControlFlow<()> + Send>;

/// Where `output` leads.
pub(super) enum Output {
    /// One message.
    Unary(Option<Bytes>),
    /// Many; the last one is held back.
    Stream { held: Option<Bytes>, sink: Sink },
}

impl Default for Output {
    fn default() -> Self {
        Self::Unary(None)
    }
}

impl Output {
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream { .. })
    }

    /// Whether another message would be one too many.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Unary(Some(_)))
    }

    pub(super) fn push(&mut self, message: Bytes) -> Result<(), Cut> {
        self.flush()?;
        match self {
            Self::Unary(held) | Self::Stream { held, .. } => *held = Some(message),
        }
        Ok(())
    }

    /// Sends what is held back.
    pub(super) fn flush(&mut self) -> Result<(), Cut> {
        let Self::Stream { held, sink } = self else { return Ok(()) };
        match mem::take(held).map(sink) {
            Some(ControlFlow::Break(())) => Err(Cut::Unwanted),
            Some(ControlFlow::Continue(())) | None => Ok(()),
        }
    }

    /// What is held back, to be looked at instead of being sent.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        match self {
            Self::Unary(held) | Self::Stream { held, .. } => held.take(),
        }
    }
}

impl Module {
    /// Runs a query that answers with a stream, on a fresh instance; `sink` gets each message as it is made. All of it shares the
    /// call's fuel. A success comes without a message.
    pub fn stream(&self, call: Call<'_>, state: Box<dyn State>, sink: Sink) -> Result<Finished, HostFault> {
        let Call { method, input, context, fuel, memory_bytes, deadline } = call;
        let meter = self.meter(method);
        let (entry, access) = (Entry::Call { method: method.index }, Access::Read { deadline });
        let output = Output::Stream { held: None, sink };
        let finished = self.run(Run { entry, input, context, fuel, memory_bytes, access, output }, state)?;
        finished.measure(meter);
        Ok(finished)
    }
}
