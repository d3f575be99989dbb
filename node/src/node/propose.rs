//! The way of a command: to the leader, into the log, and back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::errors::{ClientWriteError, Fatal as RaftStopped};
use openraft::impls::OneshotResponder;
use opentelemetry::trace::SpanKind;
use prost::Message;

use super::{Leader, Node};
use crate::command::{APPLY_VERSION, Command, Outcome, Reply};
use crate::measure::Stopwatch;
use crate::proto::command as pb;
use crate::proto::peer;
use crate::raft::clock::wall_clock_ms;
use crate::raft::peers::Purpose;
use crate::raft::types::Member;
use crate::service::{Execute, Executed, ServiceError};
use crate::traces::{self, Open, Parent};

/// How long a command without a deadline is tried.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A client's clock may be this far ahead.
const KEY_AHEAD_MAX_MS: u64 = 600_000;
/// How long to wait for news of a leader before looking again.
const LEADER_POLL: Duration = Duration::from_millis(50);

impl Node {
    /// Runs `command` through the log, wherever the leader is; through leader changes, within its deadline.
    ///
    /// What surely did not enter the log is tried again. What may have is tried again only under an idempotency key.
    pub(super) async fn run_command(&self, mut command: Execute) -> Result<Executed, ServiceError> {
        let deadline = command.deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        let mut last = ServiceError::NoLeader;
        loop {
            if let Err(error) = self.serving() {
                return Err(worse(last, error));
            }
            let attempt = match self.leader() {
                Leader::This => self.propose_call(&command, deadline).await,
                Leader::Other(id, member) => {
                    // A reply can be lost on this extra way too, so a client without a key gets one here.
                    command.key.get_or_insert_with(|| self.mint_key());
                    self.forward(id, &member, &command, deadline).await
                }
                Leader::Unknown => Err(ServiceError::NoLeader),
            };
            let error = match attempt {
                Err(error) => error,
                done => return done,
            };
            let again = retries(&error, &command) && Instant::now() + LEADER_POLL < deadline;
            last = worse(last, error);
            if !again {
                return Err(last);
            }
            self.leader_news(LEADER_POLL).await;
        }
    }

    /// A key of the cluster's time: this machine's clock may be outside the window.
    fn mint_key(&self) -> String {
        let time = Duration::from_millis(self.inner.reader.view().progress().time_ms);
        let stamp = uuid::Timestamp::from_unix(uuid::NoContext, time.as_secs(), time.subsec_nanos());
        uuid::Uuid::new_v7(stamp).to_string()
    }

    /// A key from far in the future would hold its row until its own time has come.
    pub(super) fn check_key(&self, key: Option<&str>) -> Result<(), ServiceError> {
        let Some((seconds, _)) = key
            .and_then(|key| uuid::Uuid::parse_str(key).ok())
            .filter(|uuid| uuid.get_version_num() == 7)
            .and_then(|uuid| uuid.get_timestamp())
            .map(|stamp| stamp.to_unix())
        else {
            return Ok(());
        };
        let now_ms = self.inner.clock.lock().now(wall_clock_ms(), Instant::now());
        if seconds.saturating_mul(1000) <= now_ms + KEY_AHEAD_MAX_MS {
            return Ok(());
        }
        Err(ServiceError::KeyInvalid(
            "this UUIDv7 is more than ten minutes in the future; set the client's clock".into(),
        ))
    }

    /// Proposes on this node or says that it does not lead.
    pub(super) async fn propose_call(&self, command: &Execute, deadline: Instant) -> Result<Executed, ServiceError> {
        let mut span = self.inner.traces.begin(command.trace.as_ref(), "propose", SpanKind::Internal);
        let call = pb::Call {
            method: command.method.clone(),
            request: command.request.clone(),
            key: command.key.clone().unwrap_or_default(),
        };
        let (kind, trace) = (pb::command::Kind::Call(call), span.as_ref().map(Open::parent));
        let reply = match self.propose_under(trace, kind, command.request.len(), deadline).await {
            Ok(reply) => reply,
            Err(error) => {
                if let Some(span) = span {
                    span.failed(&error);
                }
                return Err(error);
            }
        };
        if let Some(span) = &mut span {
            span.at(reply.index, reply.replayed);
            // The index of a replayed command is that of its first attempt, which was another's business.
            let flush = if reply.replayed { None } else { self.inner.log.metrics().flushes.of(reply.index) };
            self.inner.traces.applied(&span.parent(), flush, reply.timing);
        }
        executed(reply)
    }

    /// Stamps an entry, has it replicated and applied. Past the deadline it may still be applied.
    pub(super) async fn propose(
        &self,
        kind: pb::command::Kind,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Reply, ServiceError> {
        self.propose_under(None, kind, bytes, deadline).await
    }

    /// The same; what the other nodes do for it belongs under `trace`.
    async fn propose_under(
        &self,
        trace: Option<Parent>,
        kind: pb::command::Kind,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Reply, ServiceError> {
        let permit = self.inner.admission.admit(bytes)?;
        let watch = Stopwatch::start();
        let (responder, mut answered) = OneshotResponder::new_pair();
        let mut command = Command::new(&pb::Command {
            apply_version: APPLY_VERSION,
            time_ms: self.inner.clock.lock().stamp(wall_clock_ms(), Instant::now()),
            random: Bytes::copy_from_slice(&rand::random::<[u8; 32]>()),
            kind: Some(kind),
        });
        command.trace = trace.map(Box::new);
        self.inner.raft.client_write_ff(command, Some(responder)).await.map_err(stopped)?;
        let Ok(answer) = tokio::time::timeout_at(deadline.into(), &mut answered).await else {
            // The entry stays under way, and with it its place.
            tokio::spawn(async move {
                let _ = answered.await;
                drop(permit);
            });
            return Err(ServiceError::OutcomeUnknown);
        };
        match answer {
            Ok(Ok(response)) => {
                self.inner.meters.proposals.took(watch.stop().elapsed());
                Ok(response.data)
            }
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                Err(ServiceError::NotLeader { leader: to.leader_node.map(|member| member.client_addr) })
            }
            // The entry was cut off by another leader's log, or nobody is left to say.
            Ok(Err(_)) | Err(_) => Err(ServiceError::OutcomeUnknown),
        }
    }

    async fn forward(
        &self,
        id: crate::ids::NodeId,
        member: &Member,
        command: &Execute,
        deadline: Instant,
    ) -> Result<Executed, ServiceError> {
        let _permit = self.inner.admission.admit(command.request.len())?;
        let request = peer::ExecuteRequest {
            method: command.method.clone(),
            request: command.request.clone(),
            key: command.key.clone().unwrap_or_default(),
        };
        let peers = &self.inner.peers;
        let mut client = peers
            .client(&member.peer_addr, Purpose::Forward)
            .map_err(|error| ServiceError::NotReady(error.to_string()))?;
        let mut request = peers.addressed(id, request);
        let span = self.inner.traces.begin(command.trace.as_ref(), "forward", SpanKind::Client);
        if let Some(parent) = span.as_ref().map(Open::parent) {
            let header = parent.header().parse().expect("hex digits and hyphens are ASCII");
            request.metadata_mut().insert(traces::HEADER, header);
        }
        let call = client.execute(request);
        let limit = deadline.saturating_duration_since(Instant::now());
        let answer = match tokio::time::timeout(limit, call).await {
            Err(_) => Err(ServiceError::OutcomeUnknown),
            Ok(Err(status)) => Err(lost(&status)),
            Ok(Ok(response)) => answered(response.into_inner()),
        };
        if let (Some(span), Err(error)) = (span, &answer) {
            span.failed(error);
        }
        answer
    }
}

/// What the leader answered.
pub(super) fn answered(response: peer::ExecuteResponse) -> Result<Executed, ServiceError> {
    use peer::execute_response::Result as Pb;
    match response.result {
        Some(Pb::Executed(done)) => forwarded(done),
        Some(Pb::Failure(failure)) => Err(failure.into()),
        None => Err(ServiceError::OutcomeUnknown),
    }
}

/// Whether another attempt is safe and can help.
fn retries(error: &ServiceError, command: &Execute) -> bool {
    match error {
        ServiceError::NotLeader { .. } | ServiceError::NoLeader | ServiceError::NotReady(_) => true,
        ServiceError::OutcomeUnknown => command.key.is_some(),
        _ => false,
    }
}

/// Once an attempt may have been applied, a later "surely not" of another attempt does not undo that.
fn worse(earlier: ServiceError, now: ServiceError) -> ServiceError {
    if earlier == ServiceError::OutcomeUnknown { earlier } else { now }
}

/// A call to the leader that ended without its answer. A peer that refused the connection or the address has surely not run it.
fn lost(status: &tonic::Status) -> ServiceError {
    let refused = status.code() == tonic::Code::FailedPrecondition || is_connect_error(status);
    if refused { ServiceError::NotLeader { leader: None } } else { ServiceError::OutcomeUnknown }
}

/// Whether the connection was never made. tonic keeps hyper's error in the chain of sources.
fn is_connect_error(status: &tonic::Status) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::HostUnreachable);
        }
        source = error.source();
    }
    false
}

fn stopped(_: RaftStopped<crate::raft::types::TypeConfig>) -> ServiceError {
    ServiceError::ShuttingDown
}

pub(super) fn executed(reply: Reply) -> Result<Executed, ServiceError> {
    Ok(Executed {
        index: reply.index,
        outcome: decode(reply.outcome)?,
        replayed: reply.replayed,
        trap_detail: reply.trap_detail,
    })
}

fn forwarded(done: peer::Executed) -> Result<Executed, ServiceError> {
    Ok(Executed {
        index: done.index,
        outcome: decode(done.outcome)?,
        replayed: done.replayed,
        trap_detail: Some(done.trap_detail).filter(|text| !text.is_empty()),
    })
}

/// An outcome that a newer leader wrote and this version cannot read was applied all the same: unknown here, not lost.
pub(super) fn decode(outcome: Bytes) -> Result<Outcome, ServiceError> {
    let decoded = pb::Outcome::decode(outcome).map_err(|_| ServiceError::OutcomeUnknown)?;
    Outcome::try_from(decoded).map_err(|_| ServiceError::OutcomeUnknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_applied_stays_so_when_the_node_stops_meanwhile() {
        let unknown = ServiceError::OutcomeUnknown;
        assert_eq!(worse(unknown.clone(), ServiceError::ShuttingDown), unknown);
        assert_eq!(worse(ServiceError::NoLeader, ServiceError::ShuttingDown), ServiceError::ShuttingDown);
    }
}
