//! What goes into the log and what comes out of applying it.
//!
//! A [`Command`] is encoded once, by the node that proposes it, and is carried as those bytes through replication, log and
//! apply. An [`Outcome`] is what the replicated state machine made of it: the same on every replica.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use tonic::Code;

use crate::measure::Span;
use crate::proto::command as pb;
use crate::traces::Parent;

/// Version of the host's semantics: what a given entry means to `apply`. Raised with any change of that meaning.
pub const APPLY_VERSION: u32 = 1;

/// An encoded `balsa.command.v1.Command`.
#[derive(Clone)]
pub struct Command {
    /// All that the command is: what travels, what lies on disk, and what is applied.
    pub bytes: Bytes,
    /// If it is traced: under what. This is no part of the command. It travels beside the entry and lies on no disk, so an entry that is
    /// read from one and applied once more is not traced once more.
    pub trace: Option<Box<Parent>>,
}

impl Command {
    /// Encodes `command`; the only place that does.
    pub fn new(command: &pb::Command) -> Self {
        Self::encoded(command.encode_to_vec())
    }

    /// One that was encoded before.
    pub fn encoded(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), trace: None }
    }

    /// Decodes what a proposer encoded. Bytes fields share the entry's buffer.
    pub fn decode(&self) -> Result<pb::Command, prost::DecodeError> {
        pb::Command::decode(self.bytes.clone())
    }
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Command {}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.bytes.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a guest was stopped. Deterministic: replicated as this number; the text that goes with it is one node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum TrapClass {
    /// `unreachable`: a panic, an abort, an assertion.
    #[error("the module stopped with a trap (a panic or `unreachable`)")]
    Unreachable = 1,
    /// The fuel of the call is spent.
    #[error("the call used up its fuel")]
    OutOfFuel = 2,
    /// Memory or a table would grow beyond its limit and the guest did not cope.
    #[error("the call used up its memory")]
    OutOfMemory = 3,
    /// Calls nested too deep.
    #[error("the call recursed too deep")]
    StackOverflow = 4,
    /// An access outside linear memory or a table, by the guest itself.
    #[error("the module accessed memory out of bounds")]
    OutOfBounds = 5,
    /// Division by zero, overflow of a conversion.
    #[error("the module made an arithmetic error")]
    Arithmetic = 6,
    /// A bad indirect call.
    #[error("the module made a bad indirect call")]
    BadCall = 7,
    /// A host function was called with a pointer, length or handle that is not valid.
    #[error("the module passed a bad pointer or argument to the host")]
    BadHostCall = 8,
    /// A query tried to write.
    #[error("a query tried to write")]
    WriteInQuery = 9,
    /// No output, more than one, or one above the limit; or a result code that means nothing.
    #[error("the module broke the calling convention (output or result code)")]
    BadResult = 10,
    /// A key or a value above its limit.
    #[error("the module wrote a key or value above its limit")]
    TooLarge = 11,
    /// The module called `proc_exit`.
    #[error("the module called exit")]
    Exit = 12,
    /// `balsa_init` or `balsa_migrate` wrote more than its limits.
    #[error("the migration wrote more than its limits")]
    WriteLimit = 13,
}

impl TrapClass {
    /// Every class, in order of its number.
    pub const ALL: [Self; 13] = [
        Self::Unreachable,
        Self::OutOfFuel,
        Self::OutOfMemory,
        Self::StackOverflow,
        Self::OutOfBounds,
        Self::Arithmetic,
        Self::BadCall,
        Self::BadHostCall,
        Self::WriteInQuery,
        Self::BadResult,
        Self::TooLarge,
        Self::Exit,
        Self::WriteLimit,
    ];

    /// The class with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u32 == number)
    }

    /// As golden scripts and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::OutOfFuel => "out_of_fuel",
            Self::OutOfMemory => "out_of_memory",
            Self::StackOverflow => "stack_overflow",
            Self::OutOfBounds => "out_of_bounds",
            Self::Arithmetic => "arithmetic",
            Self::BadCall => "bad_call",
            Self::BadHostCall => "bad_host_call",
            Self::WriteInQuery => "write_in_query",
            Self::BadResult => "bad_result",
            Self::TooLarge => "too_large",
            Self::Exit => "exit",
            Self::WriteLimit => "write_limit",
        }
    }
}

/// The host's deterministic no: decided by `apply` from the log and the state alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum Refusal {
    /// No active module serves the method at this index.
    #[error("no active module serves this method")]
    UnknownMethod = 1,
    /// The method is a query.
    #[error("this method is a query; a query is not a command")]
    NotACommand = 2,
    /// The idempotency key is older than the window: it may have been applied and forgotten.
    #[error("the idempotency key is older than the window, so whether it was applied is not known any more")]
    KeyForgotten = 3,
    /// The key was used with another request.
    #[error("the idempotency key was used before with another request")]
    KeyReused = 4,
    /// The idempotency table is full of keys inside the window.
    #[error("too many idempotency keys are remembered; retry later or without a key")]
    KeysFull = 5,
    /// The entry's reply does not fit what is left of the idempotency table.
    #[error("the reply is too large to be remembered for a retry at present")]
    ReplyTooLarge = 6,
    /// An activation whose expected generation is not the active one.
    #[error("another activation came first")]
    GenerationMismatch = 7,
    /// The module's bytes are not a valid module.
    #[error("the module is not valid")]
    InvalidModule = 8,
    /// A part of an upload that does not follow the last one, or does not belong to it.
    #[error("the part of the upload is not the next one")]
    UploadOutOfPlace = 9,
    /// Too many modules, or bytes of them, are uploaded and not activated.
    #[error(
        "too many other modules, or bytes of them, are on their way; retry when they are activated or have expired"
    )]
    UploadsFull = 10,
    /// An activation of bytes that are not there.
    #[error("the module's bytes were not uploaded, or have expired")]
    NotUploaded = 11,
    /// Another module serves a service that this one claims.
    #[error("another module serves one of the services already")]
    ServiceTaken = 12,
    /// `balsa_init` or `balsa_migrate` did not end well.
    #[error("the module's init or migrate failed")]
    MigrationFailed = 13,
    /// The module serves, and what was asked for needs one that does not.
    #[error("the module serves")]
    ModuleServes = 14,
    /// No module has this name.
    #[error("no module has this name")]
    UnknownModule = 15,
    /// The state of the module that had this name is still being deleted.
    #[error("the state of the module that had this name is still being deleted; drop it again to go on")]
    ModuleDropping = 16,
}

impl Refusal {
    /// Every refusal, in order of its number.
    pub const ALL: [Self; 16] = [
        Self::UnknownMethod,
        Self::NotACommand,
        Self::KeyForgotten,
        Self::KeyReused,
        Self::KeysFull,
        Self::ReplyTooLarge,
        Self::GenerationMismatch,
        Self::InvalidModule,
        Self::UploadOutOfPlace,
        Self::UploadsFull,
        Self::NotUploaded,
        Self::ServiceTaken,
        Self::MigrationFailed,
        Self::ModuleServes,
        Self::UnknownModule,
        Self::ModuleDropping,
    ];

    /// The refusal with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| *refusal as u32 == number)
    }
}

/// A guest's own error: a gRPC code from 1 to 16, a message, and the encoded `google.rpc.Status` it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestStatus {
    /// google.rpc.Code, 1 to 16.
    pub code: u32,
    /// For a person.
    pub message: String,
    /// The encoded google.rpc.Status as the guest gave it; empty when it gave none.
    pub details: Bytes,
}

/// How a call ended; the three deterministic ways. A host fault is not among them: it stops the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The response message.
    Ok(Bytes),
    /// The guest said no.
    Status(GuestStatus),
    /// The guest was stopped.
    Trap(TrapClass),
    /// The host said no.
    Refused(Refusal),
}

impl From<&Outcome> for pb::Outcome {
    fn from(outcome: &Outcome) -> Self {
        use pb::outcome::Kind;
        let kind = match outcome {
            Outcome::Ok(bytes) => Kind::Ok(bytes.clone()),
            Outcome::Status(status) => Kind::Status(pb::Status {
                code: status.code,
                message: status.message.clone(),
                details: status.details.clone(),
            }),
            Outcome::Trap(class) => Kind::Trap(*class as u32),
            Outcome::Refused(refusal) => Kind::Refusal(*refusal as u32),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Outcome> for Outcome {
    type Error = UnknownOutcome;

    fn try_from(outcome: pb::Outcome) -> Result<Self, UnknownOutcome> {
        use pb::outcome::Kind;
        Ok(match outcome.kind.ok_or(UnknownOutcome)? {
            Kind::Ok(bytes) => Self::Ok(bytes),
            Kind::Status(status) => {
                Self::Status(GuestStatus { code: status.code, message: status.message, details: status.details })
            }
            Kind::Trap(number) => Self::Trap(TrapClass::from_number(number).ok_or(UnknownOutcome)?),
            Kind::Refusal(number) => Self::Refused(Refusal::from_number(number).ok_or(UnknownOutcome)?),
        })
    }
}

/// An outcome that this version does not know: written by a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an outcome of a kind that this version of balsa does not know")]
pub struct UnknownOutcome;

/// What a proposer gets back through Raft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Log index at which the command took effect (for a replayed one: the first time).
    pub index: u64,
    /// An encoded `balsa.command.v1.Outcome`; empty for entries that are not commands.
    pub outcome: Bytes,
    /// Whether this is the stored reply to an earlier attempt.
    pub replayed: bool,
    /// Text of a trap, on the node that applied it for its client; never replicated.
    pub trap_detail: Option<String>,
    /// What that took there.
    pub timing: Timing,
}

/// A module's run, with its fuel.
pub type Ran = (Span, u64);

/// How long a node worked on a command. It says nothing about what the command came to: any is equal to any other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// Its turn on the apply thread.
    pub applied: Option<Span>,
    /// The module's run, with its fuel, if there was one.
    pub ran: Option<Ran>,
}

impl PartialEq for Timing {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Timing {}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply at {} ({} bytes)", self.index, self.outcome.len())
    }
}

/// A gRPC code as the specification spells it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replicated_as_a_number_is_read_back_from_it() {
        for (number, class) in (1..).zip(TrapClass::ALL) {
            assert_eq!((class as u32, TrapClass::from_number(number)), (number, Some(class)));
        }
        for (number, refusal) in (1..).zip(Refusal::ALL) {
            assert_eq!((refusal as u32, Refusal::from_number(number)), (number, Some(refusal)));
        }
        assert_eq!((TrapClass::from_number(0), Refusal::from_number(0)), (None, None));
    }
}
