//! How a method says no: a gRPC code, a message for a person and details for a program.
//!
//! A status is a result like any other: deterministic, the same on every replica, remembered for a retry. It also means that
//! the command had no effect: the host undoes its writes. What should be kept although the answer is no belongs into the
//! response message.
//!
//! What a program should act on goes into the details, which gRPC has messages for: see [`Status::invalid_field`],
//! [`Status::with_error_info`] and their like.

mod details;

use std::borrow::Cow;
use std::fmt;

use prost::Message;

use crate::limits::STATUS_BYTES_MAX;

pub use details::{
    BadRequest, ErrorInfo, FieldViolation, PreconditionFailure, PreconditionViolation, RetryDelay, RetryInfo,
};

/// The gRPC codes that mean an error. OK is not one of them: a method that succeeds returns its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "gRPC documents its codes")]
pub enum Code {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// A `google.protobuf.Any`: a detail of a [`Status`], of any message type.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Any {
    /// What `value` is, as `type.googleapis.com/package.Message`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.Status`, as it crosses to the host.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// Why a method did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: Cow<'static, str>,
    details: Vec<Any>,
}

impl Status {
    /// A status with this code and message.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// A request that can never be right, whatever the state.
    pub fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// What was asked for does not exist.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// What should be created exists.
    pub fn already_exists(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::AlreadyExists, message)
    }

    /// The caller may not do this.
    pub fn permission_denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::PermissionDenied, message)
    }

    /// A limit is reached.
    pub fn resource_exhausted(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::ResourceExhausted, message)
    }

    /// The state is not one in which this can be done.
    pub fn failed_precondition(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::FailedPrecondition, message)
    }

    /// The caller lost a race and should start again.
    pub fn aborted(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Aborted, message)
    }

    /// A position beyond the end.
    pub fn out_of_range(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::OutOfRange, message)
    }

    /// The module does not do this.
    pub fn unimplemented(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    /// The module is broken.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// It cannot be done now. Clients may try again by themselves; with the same idempotency key they get the same answer.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// The stored state is broken.
    pub fn data_loss(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::DataLoss, message)
    }

    /// The caller did not say who it is.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Unauthenticated, message)
    }

    /// Adds a message that a program can read, such as those of `google/rpc/error_details.proto`.
    pub fn with_detail<M: prost::Name>(self, detail: &M) -> Self {
        self.with_any(Any { type_url: details::type_url::<M>(), value: detail.encode_to_vec() })
    }

    /// Adds a detail that is packed already.
    pub fn with_any(mut self, detail: Any) -> Self {
        self.details.push(detail);
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Its details.
    pub fn details(&self) -> &[Any] {
        &self.details
    }

    /// The same, with the place of what is wrong in front of the message.
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message).into();
        self
    }

    /// The encoded `google.rpc.Status`, made to fit what the host takes: details go first, then the end of the message. A
    /// longer one would be a trap, which tells the client less.
    pub fn encode(self) -> Vec<u8> {
        let mut wire = Wire { code: self.code as i32, message: self.message.into_owned(), details: self.details };
        if wire.encoded_len() > STATUS_BYTES_MAX {
            wire.details.clear();
        }
        // Code and field headers need less than 16 bytes.
        let room = STATUS_BYTES_MAX - 16;
        if wire.message.len() > room {
            wire.message.truncate(wire.message.floor_char_boundary(room));
        }
        wire.encode_to_vec()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_as_google_rpc_status() {
        let detail = Any { type_url: "type.googleapis.com/a.B".into(), value: vec![1] };
        let status = Status::not_found("no such key").with_any(detail.clone());
        let wire = Wire::decode(status.encode().as_slice()).unwrap();
        assert_eq!(wire, Wire { code: 5, message: "no such key".into(), details: vec![detail] });
    }

    #[test]
    fn details_that_do_not_fit_are_dropped_and_the_message_stays() {
        let detail = Any { type_url: "type.googleapis.com/a.B".into(), value: vec![1; STATUS_BYTES_MAX] };
        let wire = Wire::decode(Status::aborted("lost").with_any(detail).encode().as_slice()).unwrap();
        assert_eq!((wire.message.as_str(), wire.details.len()), ("lost", 0));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let encoded = Status::internal("ä".repeat(STATUS_BYTES_MAX)).encode();
        assert!(encoded.len() <= STATUS_BYTES_MAX);
        assert!(Wire::decode(encoded.as_slice()).unwrap().message.ends_with('ä'));
    }
}
