//! How a call ends: from what wasmtime and the host functions report to the three ways of `mod.rs`.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use wasmtime::Trap;

use crate::command::{GuestStatus, Outcome, TrapClass};
use crate::limits::STATUS_BYTES_MAX;

/// This node cannot go on: its disk, its memory or its stack failed, and nothing about the command is to blame.
///
/// It is not an answer. A node that meets one while it applies the log stops, since going on would let its state differ from
/// that of its peers. The text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HostFault(pub String);

/// Why a host function does not return to the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    /// The guest did what it must not; `detail` says what, for its author.
    #[error("{detail}")]
    Trap { class: TrapClass, detail: String },
    /// The host failed.
    #[error(transparent)]
    Fault(#[from] HostFault),
    /// Nobody waits for this query any more.
    #[error(transparent)]
    Cut(#[from] Cut),
}

/// Why a query was not brought to its end. Not its module's doing, and never the end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// Its deadline passed.
    #[error("the deadline of the query has passed")]
    Deadline,
    /// Whoever took the messages of its stream takes no more.
    #[error("nobody takes the messages of the stream any more")]
    Unwanted,
}

impl Stop {
    /// A trap of `class`. The text is made on this path only, which ends the call.
    pub(super) fn trap(class: TrapClass, detail: impl Into<String>) -> Self {
        Self::Trap { class, detail: detail.into() }
    }
}

/// How a call ended that did not return.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    /// Why.
    pub(super) stop: Stop,
    /// The wasm frames that led to it; empty when there were none.
    pub(super) backtrace: String,
}

/// What the host saw of a call that stopped, beside the error itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Circumstances {
    /// A growth of memory or of a table was denied.
    pub(super) growth_denied: bool,
    /// The counter of `stack.rs` ran out.
    pub(super) stack_spent: bool,
}

/// Classifies an error that came out of wasmtime.
pub(super) fn stopped(error: &wasmtime::Error, circumstances: Circumstances) -> Stopped {
    let backtrace = error.downcast_ref::<wasmtime::WasmBacktrace>().map(|trace| trace.to_string()).unwrap_or_default();
    let stop = if let Some(stop) = error.downcast_ref::<Stop>() {
        stop.clone()
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        from_trap(*trap, circumstances)
    } else if circumstances.growth_denied {
        // Not a trap: the instance could not be made, as its first memory or table is above the limit.
        Stop::trap(TrapClass::OutOfMemory, "the module needs more memory to start than a call may use")
    } else {
        Stop::Fault(HostFault(format!("wasm: {error:#}")))
    };
    Stopped { stop, backtrace }
}

fn from_trap(trap: Trap, circumstances: Circumstances) -> Stop {
    use TrapClass::{Arithmetic, BadCall, OutOfBounds, OutOfFuel, OutOfMemory, StackOverflow, Unreachable};
    let class = match trap {
        // The pass of `stack.rs` stops with `unreachable`, and so does an allocator that got no memory.
        Trap::UnreachableCodeReached if circumstances.stack_spent => StackOverflow,
        Trap::UnreachableCodeReached if circumstances.growth_denied => OutOfMemory,
        Trap::UnreachableCodeReached => Unreachable,
        Trap::OutOfFuel => OutOfFuel,
        Trap::MemoryOutOfBounds | Trap::HeapMisaligned | Trap::TableOutOfBounds => OutOfBounds,
        Trap::IndirectCallToNull | Trap::BadSignature | Trap::NullReference => BadCall,
        Trap::IntegerOverflow | Trap::IntegerDivisionByZero | Trap::BadConversionToInteger => Arithmetic,
        // The native stack is not part of the machine that all nodes agree on: see `stack.rs`. Whatever else wasmtime may
        // report belongs to features that are switched off.
        other => return Stop::Fault(HostFault(format!("wasm: {other}"))),
    };
    Stop::trap(class, trap.to_string())
}

/// What the host runs of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Export {
    Call,
    /// `balsa_call`, of a method that answers with a stream.
    Stream,
    Init,
    Migrate,
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call | Self::Stream => "balsa_call",
            Self::Init => "balsa_init",
            Self::Migrate => "balsa_migrate",
        })
    }
}

/// `google.rpc.Status`, as far as the host looks into it. Details stay in the encoded form that the guest gave.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// What it amounts to that `export` returned `code` and gave `output`.
pub(super) fn returned(export: Export, code: u32, output: Option<Bytes>) -> Result<Outcome, Stop> {
    match (code, output) {
        (0, Some(output)) if export == Export::Call => Ok(Outcome::Ok(output)),
        (0, None) if export == Export::Call => {
            Err(bad_result("balsa_call returned 0 (success) without an output; call output() once"))
        }
        // What there was of a stream has been sent; of a transition nothing is wanted.
        (0, _) => Ok(Outcome::Ok(Bytes::new())),
        (1..=16, output) => status(export, code, output.unwrap_or_default()).map(Outcome::Status),
        (other, _) => {
            Err(bad_result(format!("{export} returned {other}, which is neither 0 nor a gRPC code (1..=16)")))
        }
    }
}

fn status(export: Export, code: u32, details: Bytes) -> Result<GuestStatus, Stop> {
    if details.len() > STATUS_BYTES_MAX {
        let bytes = details.len();
        return Err(bad_result(format!("a status of {bytes} bytes; at most {STATUS_BYTES_MAX} fit gRPC's headers")));
    }
    let status = RpcStatus::decode(details.clone())
        .map_err(|error| bad_result(format!("the output beside code {code} is not a google.rpc.Status: {error}")))?;
    if !details.is_empty() && u32::try_from(status.code) != Ok(code) {
        let inner = status.code;
        return Err(bad_result(format!("{export} returned code {code}, but its google.rpc.Status has code {inner}")));
    }
    Ok(GuestStatus { code, message: status.message, details })
}

fn bad_result(detail: impl Into<String>) -> Stop {
    Stop::trap(TrapClass::BadResult, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(trap: Trap, circumstances: Circumstances) -> Option<TrapClass> {
        match from_trap(trap, circumstances) {
            Stop::Trap { class, .. } => Some(class),
            Stop::Fault(_) | Stop::Cut(_) => None,
        }
    }

    #[test]
    fn the_native_stack_running_over_is_a_host_fault() {
        assert_eq!(class(Trap::StackOverflow, Circumstances::default()), None);
    }

    #[test]
    fn why_a_guest_gave_up_is_told_apart() {
        let (stack_spent, growth_denied) = (true, true);
        let spent = Circumstances { stack_spent, ..Circumstances::default() };
        let denied = Circumstances { growth_denied, ..Circumstances::default() };
        assert_eq!(class(Trap::UnreachableCodeReached, Circumstances::default()), Some(TrapClass::Unreachable));
        assert_eq!(class(Trap::UnreachableCodeReached, spent), Some(TrapClass::StackOverflow));
        assert_eq!(class(Trap::UnreachableCodeReached, denied), Some(TrapClass::OutOfMemory));
        assert_eq!(class(Trap::MemoryOutOfBounds, denied), Some(TrapClass::OutOfBounds));
    }

    #[test]
    fn an_error_that_is_no_trap_is_a_host_fault() {
        let error = wasmtime::Error::msg("no slot is free");
        let fault = HostFault("wasm: no slot is free".into());
        assert_eq!(stopped(&error, Circumstances::default()).stop, Stop::Fault(fault));
    }
}
