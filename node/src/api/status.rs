//! From "it did not work" to a gRPC status: one function, [`status`], knows all of it.
//!
//! A status has three readers. A client library reads the **code** (it may retry UNAVAILABLE by itself, so that code is
//! used only where the call surely was not applied). A program reads the **reason**: a `google.rpc.ErrorInfo` in
//! `grpc-status-details-bin`, from the closed list [`Reason`], with the domain `balsa` and, in its metadata, whether and
//! how a retry is safe. A person reads the **message**. `docs/errors.md` is the list for users; a test compares the two.
//!
//! A module's own statuses pass through as the guest made them. Violations of the gRPC protocol itself (a compressed
//! message, a body cut short) carry a code and a message and no reason: they are not Balsa's.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use tonic::metadata::{BinaryMetadataValue, MetadataValue};
use tonic::{Code, Status};

use super::frame::Fault;
use super::metadata::Invalid;
use crate::command::{GuestStatus, Refusal, TrapClass};
use crate::limits::{PUSHBACK_MS, RESULT_BYTES_MAX};
use crate::service::ServiceError;

/// The domain of every [`Reason`].
pub const DOMAIN: &str = "balsa";

/// Most of a message or trap text that is sent in headers, percent-encoded: with a guest's whole status in base64
/// (5.5 KiB) it must stay below the 8 KiB of headers that C-core clients take for granted.
const TEXT_BYTES_MAX: usize = 1024;

/// Why a call failed, for programs. A closed list: a name is never reused or given another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The node cannot propose; the leader can.
    NotLeader,
    /// Nobody is known to lead.
    NoLeader,
    /// The node starts, or lags behind what it must know.
    NotReady,
    /// The cluster has no module yet.
    NoModule,
    /// A queue is full.
    Overloaded,
    /// Proposed, and nobody knows yet what came of it.
    OutcomeUnknown,
    /// The key is older than what is remembered.
    KeyForgotten,
    /// The key belongs to another request.
    KeyReused,
    /// No room for another key.
    KeysFull,
    /// No room for the reply of a keyed command.
    ReplyTooLarge,
    /// The text cannot be a key.
    KeyInvalid,
    /// No active module has the method.
    UnknownMethod,
    /// The module was stopped.
    Trap,
    /// What an operator asked for about a module cannot be done.
    ModuleRefused,
    /// What an operator asked for about a member cannot be done.
    MemberRefused,
    /// The method is not served to clients.
    OperatorsOnly,
    /// The request is above its limit.
    RequestTooLarge,
    /// The result is above its limit.
    ResultTooLarge,
    /// The client's deadline passed.
    Deadline,
    /// The node's state differs from the majority's.
    Fenced,
    /// The node is stopping.
    ShuttingDown,
    /// Request metadata that is Balsa's and malformed.
    InvalidMetadata,
}

/// What a client may do with a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Surely not applied: retry as you like, after a pause.
    Safe,
    /// May have been applied, or will be: retry with the same idempotency key only. (A query is always safe.)
    SameKey,
    /// The same call would fail again, or has had its effect: do not retry.
    Never,
}

impl Retry {
    /// As the metadata of the ErrorInfo spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::SameKey => "same-key",
            Self::Never => "never",
        }
    }
}

impl Reason {
    /// All of them, in the order of `docs/errors.md`.
    pub const ALL: [Self; 22] = [
        Self::NotLeader,
        Self::NoLeader,
        Self::NotReady,
        Self::NoModule,
        Self::Overloaded,
        Self::OutcomeUnknown,
        Self::Deadline,
        Self::KeyForgotten,
        Self::KeyReused,
        Self::KeysFull,
        Self::ReplyTooLarge,
        Self::KeyInvalid,
        Self::InvalidMetadata,
        Self::UnknownMethod,
        Self::Trap,
        Self::RequestTooLarge,
        Self::ResultTooLarge,
        Self::Fenced,
        Self::ShuttingDown,
        Self::ModuleRefused,
        Self::MemberRefused,
        Self::OperatorsOnly,
    ];

    /// As it is on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotLeader => "NOT_LEADER",
            Self::NoLeader => "NO_LEADER",
            Self::NotReady => "NOT_READY",
            Self::NoModule => "NO_MODULE",
            Self::Overloaded => "OVERLOADED",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::KeyForgotten => "KEY_FORGOTTEN",
            Self::KeyReused => "KEY_REUSED",
            Self::KeysFull => "KEYS_FULL",
            Self::ReplyTooLarge => "REPLY_TOO_LARGE",
            Self::KeyInvalid => "KEY_INVALID",
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::Trap => "TRAP",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::ResultTooLarge => "RESULT_TOO_LARGE",
            Self::Deadline => "DEADLINE",
            Self::Fenced => "FENCED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::InvalidMetadata => "INVALID_METADATA",
            Self::ModuleRefused => "MODULE_REFUSED",
            Self::MemberRefused => "MEMBER_REFUSED",
            Self::OperatorsOnly => "OPERATORS_ONLY",
        }
    }

    /// The code it goes with; TRAP has RESOURCE_EXHAUSTED as well, for fuel and memory.
    pub fn code(self) -> Code {
        match self {
            Self::NotLeader | Self::NoLeader | Self::NotReady | Self::NoModule | Self::Fenced | Self::ShuttingDown => {
                Code::Unavailable
            }
            // ABORTED or UNAVAILABLE would be retried by clients that know nothing of idempotency keys.
            Self::OutcomeUnknown => Code::Unknown,
            Self::Deadline => Code::DeadlineExceeded,
            Self::KeyForgotten | Self::ModuleRefused | Self::MemberRefused => Code::FailedPrecondition,
            Self::KeyReused | Self::KeyInvalid | Self::InvalidMetadata => Code::InvalidArgument,
            Self::UnknownMethod => Code::Unimplemented,
            Self::OperatorsOnly => Code::PermissionDenied,
            Self::Trap => Code::Internal,
            Self::Overloaded | Self::KeysFull | Self::ReplyTooLarge | Self::RequestTooLarge | Self::ResultTooLarge => {
                Code::ResourceExhausted
            }
        }
    }

    /// What a client may do next.
    pub fn retry(self) -> Retry {
        match self {
            Self::NotLeader
            | Self::NoLeader
            | Self::NotReady
            | Self::NoModule
            | Self::Overloaded
            | Self::KeysFull
            | Self::ReplyTooLarge
            | Self::Fenced
            | Self::ShuttingDown => Retry::Safe,
            Self::OutcomeUnknown | Self::Deadline => Retry::SameKey,
            Self::KeyForgotten
            | Self::KeyReused
            | Self::KeyInvalid
            | Self::InvalidMetadata
            | Self::UnknownMethod
            | Self::Trap
            | Self::RequestTooLarge
            | Self::ResultTooLarge
            | Self::ModuleRefused
            | Self::MemberRefused
            | Self::OperatorsOnly => Retry::Never,
        }
    }
}

/// Every way in which a call can fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// `UnknownMethod`, with what there is instead.
    #[error("{0}")]
    NoSuchMethod(String),
    #[error(
        "operators' calls are not served on the clients' port, but on each node's Unix socket (where it runs, or \
         `kubectl exec` in its pod, `balsa` finds it; else `balsa --socket PATH`) and on its port for peers \
         (`balsa --peers HOST:PORT,...`)"
    )]
    OperatorsOnly,
    #[error("{}", .0.message)]
    Guest(GuestStatus),
    #[error("{class}")]
    Trap { class: TrapClass, detail: Option<String> },
    #[error(transparent)]
    Refused(Refusal),
    #[error("the result has {0} bytes, above the limit of {RESULT_BYTES_MAX}; a command has been applied nevertheless")]
    ResultTooLarge(usize),
    #[error(transparent)]
    Frame(#[from] Fault),
    #[error(transparent)]
    Metadata(#[from] Invalid),
    #[error("the request message did not arrive in time")]
    SlowRequest,
}

/// The status of a failure. The only place where codes, reasons and details are chosen.
pub(super) fn status(failure: &Failure) -> Status {
    match verdict(failure) {
        Verdict::Reason(reason) => with_reason(reason, reason.code(), failure, []),
        Verdict::Protocol(code) => Status::new(code, failure.to_string()),
        Verdict::Guest(guest) => from_guest(guest),
        Verdict::Trap(class, detail) => from_trap(class, detail, failure),
    }
}

/// How a failure is to be told.
enum Verdict<'a> {
    Reason(Reason),
    /// gRPC's own rules were broken.
    Protocol(Code),
    Guest(&'a GuestStatus),
    Trap(TrapClass, Option<&'a str>),
}

fn verdict(failure: &Failure) -> Verdict<'_> {
    match failure {
        Failure::Service(error) => Verdict::Reason(of_service(error)),
        Failure::NoSuchMethod(_) => Verdict::Reason(Reason::UnknownMethod),
        Failure::OperatorsOnly => Verdict::Reason(Reason::OperatorsOnly),
        Failure::Guest(guest) => Verdict::Guest(guest),
        Failure::Trap { class, detail } => Verdict::Trap(*class, detail.as_deref()),
        // What answers a change of modules does not answer a call.
        Failure::Refused(refusal) => of_refusal(*refusal).map_or(Verdict::Protocol(Code::Internal), Verdict::Reason),
        Failure::ResultTooLarge(_) => Verdict::Reason(Reason::ResultTooLarge),
        Failure::Frame(fault) => of_fault(fault),
        Failure::Metadata(invalid) => of_metadata(invalid),
        Failure::SlowRequest => Verdict::Reason(Reason::Deadline),
    }
}

fn of_service(error: &ServiceError) -> Reason {
    match error {
        ServiceError::NotLeader { .. } => Reason::NotLeader,
        ServiceError::NoLeader => Reason::NoLeader,
        ServiceError::NotReady(_) => Reason::NotReady,
        ServiceError::NoModule => Reason::NoModule,
        ServiceError::Overloaded(_) => Reason::Overloaded,
        ServiceError::OutcomeUnknown => Reason::OutcomeUnknown,
        ServiceError::UnknownMethod => Reason::UnknownMethod,
        ServiceError::Deadline | ServiceError::SlowClient => Reason::Deadline,
        ServiceError::Fenced(_) => Reason::Fenced,
        ServiceError::ShuttingDown => Reason::ShuttingDown,
        ServiceError::KeyInvalid(_) => Reason::KeyInvalid,
        ServiceError::Module(_) => Reason::ModuleRefused,
        ServiceError::Member(_) => Reason::MemberRefused,
    }
}

/// The reason of a refusal that a call can meet.
fn of_refusal(refusal: Refusal) -> Option<Reason> {
    Some(match refusal {
        Refusal::UnknownMethod => Reason::UnknownMethod,
        // The kind of the method changed while the command was on its way; a retry takes the other way.
        Refusal::NotACommand => Reason::NotReady,
        Refusal::KeyForgotten => Reason::KeyForgotten,
        Refusal::KeyReused => Reason::KeyReused,
        Refusal::KeysFull => Reason::KeysFull,
        Refusal::ReplyTooLarge => Reason::ReplyTooLarge,
        Refusal::GenerationMismatch
        | Refusal::InvalidModule
        | Refusal::UploadOutOfPlace
        | Refusal::UploadsFull
        | Refusal::NotUploaded
        | Refusal::ServiceTaken
        | Refusal::MigrationFailed
        | Refusal::ModuleServes
        | Refusal::UnknownModule
        | Refusal::ModuleDropping => return None,
    })
}

fn of_fault(fault: &Fault) -> Verdict<'static> {
    match fault {
        Fault::TooLarge(_) => Verdict::Reason(Reason::RequestTooLarge),
        Fault::Overloaded => Verdict::Reason(Reason::Overloaded),
        Fault::Compressed => Verdict::Protocol(Code::Unimplemented),
        Fault::BadFlag(_) | Fault::Truncated | Fault::MoreThanOne => Verdict::Protocol(Code::Internal),
        Fault::Broken => Verdict::Protocol(Code::Cancelled),
    }
}

fn of_metadata(invalid: &Invalid) -> Verdict<'static> {
    match invalid {
        Invalid::Encoding => Verdict::Protocol(Code::Unimplemented),
        Invalid::KeyEmpty | Invalid::KeyTooLong(_) | Invalid::KeyNotAscii | Invalid::KeyRepeated => {
            Verdict::Reason(Reason::KeyInvalid)
        }
        Invalid::Repeated(_) | Invalid::Timeout | Invalid::Consistency | Invalid::MinIndex => {
            Verdict::Reason(Reason::InvalidMetadata)
        }
    }
}

fn with_reason<const N: usize>(reason: Reason, code: Code, failure: &Failure, more: [(&str, &str); N]) -> Status {
    let message = clip(&failure.to_string());
    let mut facts = HashMap::from([("retry".to_owned(), reason.retry().name().to_owned())]);
    facts.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Failure::Service(ServiceError::NotLeader { leader: Some(leader) }) = failure {
        facts.insert("leader".to_owned(), leader.clone());
    }
    let mut status = Status::with_details(code, message.clone(), details(reason, code, message, facts));
    if reason == Reason::Overloaded {
        status.metadata_mut().insert("grpc-retry-pushback-ms", PUSHBACK_MS.into());
    }
    status
}

fn details(reason: Reason, code: Code, message: String, metadata: HashMap<String, String>) -> Bytes {
    let info = ErrorInfo { reason: reason.name().to_owned(), domain: DOMAIN.to_owned(), metadata };
    let any = Any { type_url: ErrorInfo::TYPE_URL.to_owned(), value: info.encode_to_vec() };
    RpcStatus { code: code as i32, message, details: vec![any] }.encode_to_vec().into()
}

/// A module's own error, with its details as the guest encoded them.
fn from_guest(guest: &GuestStatus) -> Status {
    // Zero would be a success without a message; the wasm host lets neither it nor numbers above 16 through.
    let code = match i32::try_from(guest.code).map(Code::from_i32) {
        Ok(Code::Ok) | Err(_) => Code::Unknown,
        Ok(code) => code,
    };
    Status::with_details(code, clip(&guest.message), guest.details.clone())
}

fn from_trap(class: TrapClass, detail: Option<&str>, failure: &Failure) -> Status {
    let code = match class {
        TrapClass::OutOfFuel | TrapClass::OutOfMemory => Code::ResourceExhausted,
        _ => Reason::Trap.code(),
    };
    let mut status = with_reason(Reason::Trap, code, failure, [("trap", class.name())]);
    if let Some(detail) = detail {
        let value: BinaryMetadataValue = MetadataValue::from_bytes(clip(detail).as_bytes());
        status.metadata_mut().insert_bin("balsa-trap-detail-bin", value);
    }
    status
}

/// As much of `text` as fits [`TEXT_BYTES_MAX`] once it is percent-encoded.
fn clip(text: &str) -> String {
    let mut bytes = 0;
    let too_many = |character: char| {
        let plain = matches!(character, ' '..='~') && character != '%';
        bytes += if plain { 1 } else { 3 * character.len_utf8() };
        bytes > TEXT_BYTES_MAX
    };
    text.find(too_many).map_or_else(|| text.to_owned(), |end| format!("{}...", &text[..end]))
}

/// `google.rpc.Status`, defined here since it is three fields.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

impl ErrorInfo {
    const TYPE_URL: &str = "type.googleapis.com/google.rpc.ErrorInfo";
}

/// The reason and its metadata that a status carries, for tests.
#[cfg(test)]
pub(super) fn reason_of(status: &Status) -> Option<(String, HashMap<String, String>)> {
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let info = details.iter().find(|any| any.type_url == ErrorInfo::TYPE_URL)?;
    let info = ErrorInfo::decode(&info.value[..]).ok()?;
    assert_eq!(info.domain, DOMAIN);
    Some((info.reason, info.metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::code_name;

    #[track_caller]
    fn is(failure: impl Into<Failure>, code: Code, reason: Option<Reason>) -> Status {
        let status = status(&failure.into());
        let told = reason_of(&status);
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(told.as_ref().map(|told| told.0.as_str()), reason.map(Reason::name));
        if let (Some(reason), Some((_, facts))) = (reason, told) {
            assert_eq!(facts["retry"], reason.retry().name());
        }
        assert!(!status.message().is_empty());
        status
    }

    #[test]
    fn every_service_error_has_its_code_and_reason() {
        use ServiceError as E;
        let leader = Some("balsa-1:6000".to_owned());
        let not_leader = is(E::NotLeader { leader }, Code::Unavailable, Some(Reason::NotLeader));
        assert_eq!(reason_of(&not_leader).unwrap().1["leader"], "balsa-1:6000");
        is(E::NotLeader { leader: None }, Code::Unavailable, Some(Reason::NotLeader));
        is(E::NoLeader, Code::Unavailable, Some(Reason::NoLeader));
        is(E::NotReady("replays its log".into()), Code::Unavailable, Some(Reason::NotReady));
        is(E::NoModule, Code::Unavailable, Some(Reason::NoModule));
        is(E::OutcomeUnknown, Code::Unknown, Some(Reason::OutcomeUnknown));
        is(E::UnknownMethod, Code::Unimplemented, Some(Reason::UnknownMethod));
        is(E::Deadline, Code::DeadlineExceeded, Some(Reason::Deadline));
        is(E::SlowClient, Code::DeadlineExceeded, Some(Reason::Deadline));
        is(E::Fenced("differs at 7".into()), Code::Unavailable, Some(Reason::Fenced));
        is(E::ShuttingDown, Code::Unavailable, Some(Reason::ShuttingDown));
        is(E::KeyInvalid("too old".into()), Code::InvalidArgument, Some(Reason::KeyInvalid));
        is(E::Module("it serves".into()), Code::FailedPrecondition, Some(Reason::ModuleRefused));
        is(E::Member("it is the last voter".into()), Code::FailedPrecondition, Some(Reason::MemberRefused));
    }

    #[test]
    fn overload_says_when_to_come_back() {
        for failure in [Failure::from(ServiceError::Overloaded("commands")), Failure::from(Fault::Overloaded)] {
            let status = is(failure, Code::ResourceExhausted, Some(Reason::Overloaded));
            assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), &PUSHBACK_MS.to_string());
        }
    }

    #[test]
    fn every_refusal_has_its_code_and_reason() {
        let of_calls = [
            (Refusal::UnknownMethod, Code::Unimplemented, Reason::UnknownMethod),
            (Refusal::NotACommand, Code::Unavailable, Reason::NotReady),
            (Refusal::KeyForgotten, Code::FailedPrecondition, Reason::KeyForgotten),
            (Refusal::KeyReused, Code::InvalidArgument, Reason::KeyReused),
            (Refusal::KeysFull, Code::ResourceExhausted, Reason::KeysFull),
            (Refusal::ReplyTooLarge, Code::ResourceExhausted, Reason::ReplyTooLarge),
        ];
        let (calls, changes) = Refusal::ALL.split_at(of_calls.len());
        assert_eq!(of_calls.map(|(refusal, ..)| refusal), calls);
        for (refusal, code, reason) in of_calls {
            is(Failure::Refused(refusal), code, Some(reason));
        }
        for refusal in changes {
            is(Failure::Refused(*refusal), Code::Internal, None);
        }
    }

    #[test]
    fn every_trap_names_its_class_and_brings_its_detail() {
        for class in TrapClass::ALL {
            let code = match class {
                TrapClass::OutOfFuel | TrapClass::OutOfMemory => Code::ResourceExhausted,
                _ => Code::Internal,
            };
            let detail = Some("panicked at src/lib.rs:7".to_owned());
            let status = is(Failure::Trap { class, detail }, code, Some(Reason::Trap));
            assert_eq!(reason_of(&status).unwrap().1["trap"], class.name());
            let detail = status.metadata().get_bin("balsa-trap-detail-bin").unwrap().to_bytes().unwrap();
            assert_eq!(detail, "panicked at src/lib.rs:7");
        }
    }

    #[test]
    fn every_bad_request_has_its_code_and_reason() {
        is(Fault::TooLarge(usize::MAX), Code::ResourceExhausted, Some(Reason::RequestTooLarge));
        is(Fault::Compressed, Code::Unimplemented, None);
        for fault in [Fault::BadFlag(9), Fault::Truncated, Fault::MoreThanOne] {
            is(fault, Code::Internal, None);
        }
        is(Fault::Broken, Code::Cancelled, None);
        is(Invalid::Encoding, Code::Unimplemented, None);
        for invalid in [Invalid::KeyEmpty, Invalid::KeyTooLong(129), Invalid::KeyNotAscii, Invalid::KeyRepeated] {
            is(invalid, Code::InvalidArgument, Some(Reason::KeyInvalid));
        }
        for invalid in [Invalid::Repeated("x"), Invalid::Timeout, Invalid::Consistency, Invalid::MinIndex] {
            is(invalid, Code::InvalidArgument, Some(Reason::InvalidMetadata));
        }
        is(Failure::ResultTooLarge(5_000_000), Code::ResourceExhausted, Some(Reason::ResultTooLarge));
        is(Failure::NoSuchMethod("no".into()), Code::Unimplemented, Some(Reason::UnknownMethod));
        is(Failure::SlowRequest, Code::DeadlineExceeded, Some(Reason::Deadline));
    }

    #[test]
    fn a_guests_status_passes_through_with_its_details() {
        for number in 1..=16 {
            let details = Bytes::from_static(b"\x08\x05\x12\x02no");
            let guest = GuestStatus { code: number, message: "no".into(), details: details.clone() };
            let status = status(&Failure::Guest(guest));
            assert_eq!(status.code() as u32, number);
            assert_eq!((status.message(), status.details()), ("no", &details[..]));
        }
        let zero = GuestStatus { code: 0, message: "fine?".into(), details: Bytes::new() };
        assert_eq!(status(&Failure::Guest(zero)).code(), Code::Unknown);
    }

    #[test]
    fn the_largest_status_fits_the_headers_of_a_careful_client() {
        let details = vec![0xff; crate::limits::STATUS_BYTES_MAX].into();
        let guest = GuestStatus { code: 3, message: "\u{1f6f6}".repeat(1000), details };
        let response = status(&Failure::Guest(guest)).into_http::<()>();
        let bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(bytes < 7 * 1024, "{bytes} bytes");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clip("100 % sure"), "100 % sure");
        assert_eq!(clip(&"a".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
        assert_eq!(clip(&"ü".repeat(TEXT_BYTES_MAX)), format!("{}...", "ü".repeat(TEXT_BYTES_MAX / 6)));
    }

    #[test]
    fn the_documentation_lists_exactly_these_reasons() {
        let documented = documented_below("## Reasons").into_iter();
        let documented: Vec<_> =
            documented.map(|[reason, code, _, retry, _]: [String; 5]| [reason, code, retry]).collect();
        let expected = Reason::ALL.map(|reason| {
            let mut code = code_name(reason.code()).to_owned();
            if reason == Reason::Trap {
                code.push_str(" or RESOURCE_EXHAUSTED");
            }
            [reason.name().into(), code, reason.retry().name().into()]
        });
        assert_eq!(documented, expected);
    }

    /// The rows of the table in the documentation that comes after a heading, cell by cell.
    fn documented_below<const N: usize>(heading: &str) -> Vec<[String; N]> {
        let below = include_str!("../../../docs/errors.md").split_once(heading).expect("the heading is there").1;
        let table = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let cells = |line: &str| -> Vec<String> {
            let inside = line.trim_matches('|').split('|');
            inside.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        };
        table.skip(2).map(|line| cells(line).try_into().expect("each row has all columns")).collect()
    }

    #[test]
    fn the_documentation_lists_every_trap_and_every_refusal_of_a_change() {
        let first = |heading| documented_below(heading).into_iter().map(|[first, _]| first).collect::<Vec<_>>();
        assert_eq!(first("## Traps"), TrapClass::ALL.map(TrapClass::name));
        let changes = Refusal::ALL.into_iter().filter(|refusal| of_refusal(*refusal).is_none());
        assert_eq!(first("## A change of modules"), changes.map(|refusal| refusal.to_string()).collect::<Vec<_>>());
    }
}
