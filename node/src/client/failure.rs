//! What a failed attempt means: may it be tried again, and may the command have run?
//!
//! The evidence, strongest first: the reason that a node gives in `google.rpc.ErrorInfo` (a closed list, domain `balsa`);
//! a log index in the trailers, which only an outcome that was applied or read has; an error of the transport; the gRPC
//! code. Whatever the evidence does not settle is taken for the worse: the command may have run.

use std::fmt;
use std::time::Duration;

use prost::Message;
use tonic::Status;

pub use tonic::Code;

use super::{Endpoint, raw};
use crate::command::code_name;

/// How a call failed for good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No node served the call in time, and it was surely not run.
    #[error("no node served the call (tried {}); the last one said: {last}", list(tried))]
    Unavailable {
        /// The addresses that were tried.
        tried: Vec<Endpoint>,
        /// Whether any of them ever accepted a connection.
        connected: bool,
        /// The last failure.
        last: String,
    },
    /// The command was sent, and whether it was run is not known.
    #[error(
        "the outcome is not known, so the command may or may not have been run ({last}); its idempotency key was {key}"
    )]
    OutcomeUnknown {
        /// With this key the same command may be sent again, within the window that the cluster remembers keys for.
        key: String,
        /// The last failure.
        last: String,
    },
    /// The module ran and said no, or was stopped.
    #[error("{0}")]
    Rejected(Box<Rejection>),
    /// The cluster will never serve this call as it is.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A stream that had begun did not come to its end.
    #[error("the node stopped sending in the middle: {0}")]
    Interrupted(String),
    /// The reply is not the message it should be.
    #[error("the reply to {path} cannot be decoded; the node's version may differ from this program's: {source}")]
    Undecodable {
        /// Of the method.
        path: String,
        /// Why.
        source: prost::DecodeError,
    },
}

/// The module's own answer, deterministic and the same for a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// gRPC code.
    pub code: Code,
    /// In words.
    pub message: String,
    /// The node's reason where the module was stopped: `TRAP`, `RESULT_TOO_LARGE`.
    pub reason: Option<String>,
    /// What else the module said.
    pub details: Vec<Detail>,
    /// Log index of the outcome.
    pub index: Option<u64>,
    /// Whether this is the stored answer to an earlier attempt.
    pub replayed: bool,
    /// Text of a trap, for the module's author.
    pub trap_detail: Option<String>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected by the module: {}: {}", code_name(self.code), self.message)
    }
}

/// The node's answer to a call that is wrong in itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// gRPC code.
    pub code: Code,
    /// In words.
    pub message: String,
    /// From the closed list of reasons, if the node gave one.
    pub reason: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {} ({})", self.message, self.reason.as_deref().unwrap_or(code_name(self.code)))?;
        match self.reason.as_deref() {
            Some("KEY_FORGOTTEN") => f.write_str("; is this machine's clock behind?"),
            _ => Ok(()),
        }
    }
}

/// One detail of a `google.rpc.Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// `type.googleapis.com/package.Message`
    pub type_url: String,
    /// The encoded message.
    pub value: Vec<u8>,
}

impl Detail {
    /// `package.Message`
    pub fn type_name(&self) -> &str {
        self.type_url.rsplit('/').next().unwrap_or(&self.type_url)
    }
}

/// One attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) at: Endpoint,
    pub(super) verdict: Verdict,
    /// The connection is not to be used again.
    pub(super) broken: bool,
    pub(super) text: String,
}

/// What follows from a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another attempt may succeed.
    Retry {
        /// This attempt may have run the command.
        may_have_run: bool,
        /// The node said how long to wait.
        pushback: Option<Duration>,
        /// The node said who leads.
        leader: Option<Endpoint>,
    },
    /// The module's answer.
    Rejected(Box<Rejection>),
    /// The node's answer: never.
    Refused(Refusal),
}

impl Failure {
    /// The connection could not be made: nothing was sent.
    pub(super) fn not_connected(at: Endpoint, error: &tonic::transport::Error) -> Self {
        let text = format!("{at}: {}", innermost(error));
        Self { at, verdict: Verdict::retry(false), broken: true, text }
    }

    /// No answer within the attempt's share of the timeout.
    pub(super) fn silent(at: Endpoint, timeout: Duration) -> Self {
        let text = format!("{at}: no answer within {}", humantime::format_duration(round(timeout)));
        Self { at, verdict: Verdict::retry(true), broken: true, text }
    }

    /// The attempt ended with `status`.
    pub(super) fn of(at: Endpoint, status: &Status) -> Self {
        let text = format!("{at}: {}", describe(status));
        Self { at, verdict: judge(status), broken: is_transport(status), text }
    }
}

impl Verdict {
    fn retry(may_have_run: bool) -> Self {
        Self::Retry { may_have_run, pushback: None, leader: None }
    }
}

/// What `status` means for the call that got it.
fn judge(status: &Status) -> Verdict {
    let details = details(status);
    if let Some(info) = balsa_info(&details) {
        return by_reason(status, &info);
    }
    if raw::index(status.metadata()).is_some() {
        return rejected(status, None);
    }
    if is_transport(status) {
        return Verdict::retry(!never_connected(status));
    }
    by_code(status)
}

fn by_reason(status: &Status, info: &ErrorInfo) -> Verdict {
    match info.reason.as_str() {
        "NOT_LEADER" => {
            let leader = info.leader().and_then(|leader| leader.parse().ok());
            Verdict::Retry { may_have_run: false, pushback: None, leader }
        }
        "NO_LEADER" | "NOT_READY" | "NO_MODULE" | "FENCED" | "SHUTTING_DOWN" | "OVERLOADED" | "KEYS_FULL"
        | "REPLY_TOO_LARGE" => retry_or_refuse(status, info, false),
        "OUTCOME_UNKNOWN" | "DEADLINE" => retry_or_refuse(status, info, true),
        "TRAP" | "RESULT_TOO_LARGE" => rejected(status, Some(&info.reason)),
        // Final, unless it is the word of a newer node, which says itself what may be done.
        _ => match info.metadata.get("retry").map(String::as_str) {
            Some("safe") => retry_or_refuse(status, info, false),
            Some("same-key") => retry_or_refuse(status, info, true),
            _ => Verdict::Refused(refusal(status, Some(&info.reason))),
        },
    }
}

/// A negative pushback is gRPC's way to say: do not come back.
fn retry_or_refuse(status: &Status, info: &ErrorInfo, may_have_run: bool) -> Verdict {
    match pushback(status) {
        Some(None) if !may_have_run => Verdict::Refused(refusal(status, Some(&info.reason))),
        pushback => Verdict::Retry { may_have_run, pushback: pushback.flatten(), leader: None },
    }
}

/// Somebody who does not speak Balsa's reasons: a proxy, another implementation.
fn by_code(status: &Status) -> Verdict {
    let pushback = pushback(status);
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            Verdict::Retry { may_have_run: true, pushback: pushback.flatten(), leader: None }
        }
        Code::ResourceExhausted if pushback.flatten().is_some() => {
            Verdict::Retry { may_have_run: true, pushback: pushback.flatten(), leader: None }
        }
        Code::Unimplemented => Verdict::Refused(refusal(status, None)),
        _ => rejected(status, None),
    }
}

fn rejected(status: &Status, reason: Option<&str>) -> Verdict {
    let trap_detail = status.metadata().get_bin("balsa-trap-detail-bin").and_then(|value| value.to_bytes().ok());
    Verdict::Rejected(Box::new(Rejection {
        code: status.code(),
        message: status.message().into(),
        reason: reason.map(str::to_owned),
        details: details(status).into_iter().filter(|detail| !is_balsa_info(detail)).collect(),
        index: raw::index(status.metadata()),
        replayed: raw::replayed(status.metadata()),
        trap_detail: trap_detail.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }))
}

fn refusal(status: &Status, reason: Option<&str>) -> Refusal {
    Refusal { code: status.code(), message: status.message().into(), reason: reason.map(str::to_owned) }
}

/// `Some(None)`: the node asks not to be asked again (a negative value, or one that is not a number).
#[allow(clippy::option_option)]
fn pushback(status: &Status) -> Option<Option<Duration>> {
    let value = raw::text(status.metadata(), "grpc-retry-pushback-ms")?;
    Some(value.parse().ok().map(Duration::from_millis))
}

/// `google.rpc.Status`, of which only the details are not in the gRPC status itself.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RichStatus {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub(super) reason: String,
    #[prost(string, tag = "2")]
    pub(super) domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) metadata: std::collections::BTreeMap<String, String>,
}

pub(super) const ERROR_INFO: &str = "google.rpc.ErrorInfo";
pub(super) const DOMAIN: &str = "balsa";

impl ErrorInfo {
    fn leader(&self) -> Option<&String> {
        self.metadata.get("leader")
    }
}

fn details(status: &Status) -> Vec<Detail> {
    let rich = RichStatus::decode(status.details()).unwrap_or_default();
    rich.details.into_iter().map(|any| Detail { type_url: any.type_url, value: any.value }).collect()
}

fn balsa_info(details: &[Detail]) -> Option<ErrorInfo> {
    let infos = details.iter().filter(|detail| detail.type_name() == ERROR_INFO);
    infos.filter_map(|detail| ErrorInfo::decode(&*detail.value).ok()).find(|info| info.domain == DOMAIN)
}

fn is_balsa_info(detail: &Detail) -> bool {
    balsa_info(std::slice::from_ref(detail)).is_some()
}

/// A status that no server sent: it was made here from an error of the connection.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The client library's own clock ran out: it reads `grpc-timeout`, too.
pub(super) fn is_timeout(status: &Status) -> bool {
    chain(status).any(|error| error.is::<tonic::TimeoutExpired>())
}

fn never_connected(status: &Status) -> bool {
    chain(status).any(|error| error.is::<tonic::ConnectError>())
}

/// What becomes of a stream that ended with `status`, when some of it has been passed on: another attempt would begin anew.
pub(super) fn in_mid_stream(status: &Status) -> Error {
    match judge(status) {
        Verdict::Rejected(rejection) => Error::Rejected(rejection),
        Verdict::Refused(refusal) => Error::Refused(Box::new(refusal)),
        Verdict::Retry { .. } => Error::Interrupted(describe(status)),
    }
}

/// What it says, in a line.
pub(super) fn describe(status: &Status) -> String {
    match balsa_info(&details(status)) {
        Some(info) => format!("{} ({})", status.message(), info.reason),
        None if is_transport(status) => innermost(status),
        None if status.message().is_empty() => code_name(status.code()).into(),
        None => format!("{} ({})", status.message(), code_name(status.code())),
    }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The innermost error is the one that says something: "Connection refused", not "transport error".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).expect("a chain of errors begins with the error itself")
}

fn round(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn list(endpoints: &[Endpoint]) -> String {
    endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Reason, Retry};
    use crate::client::fake::refuse;

    #[test]
    fn every_reason_of_a_node_is_judged_as_the_node_means_it() {
        for reason in Reason::ALL {
            let verdict = judge(&refuse(reason.code(), reason.name(), &[]));
            let understood = match verdict {
                Verdict::Retry { may_have_run: false, .. } => Retry::Safe,
                Verdict::Retry { may_have_run: true, .. } => Retry::SameKey,
                Verdict::Rejected(_) | Verdict::Refused(_) => Retry::Never,
            };
            assert_eq!(understood, reason.retry(), "{}", reason.name());
        }
    }

    #[test]
    fn a_reason_of_a_newer_node_says_itself_what_may_be_done() {
        let judged = |retry| judge(&refuse(Code::Unavailable, "NEW_REASON", &[("retry", retry)]));
        assert_eq!(judged("safe"), Verdict::retry(false));
        assert_eq!(judged("same-key"), Verdict::retry(true));
        assert!(matches!(judged("never"), Verdict::Refused(_)));
    }
}
