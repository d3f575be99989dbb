//! openraft's way out: what it wants sent to a peer, as our peer protocol.
//!
//! Replication runs over one bidirectional stream as long as openraft's session lasts. openraft waits for each answer for ever, so
//! the stream carries its own deadline: an answer that is overdue ends it with an error and openraft starts the next.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use futures::{Stream, stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use tonic::Streaming;

use super::codec::Malformed;
use super::connection::Connection;
use super::peers::{Peers, Purpose};
use super::snapshot::SnapshotData;
use super::types::{Entry, LogId, Member, TypeConfig, Vote, trace_of};
use crate::ids::NodeId;
use crate::proto::peer as pb;
use crate::proto::peer::peer_client::PeerClient;
use crate::traces::Parent;

/// An append that is not answered for this long is lost. Far above a slow fsync, and of no effect on elections: heartbeats go
/// their own way.
const APPEND_DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts to append to a peer that cannot be reached.
const PAUSE: Duration = Duration::from_millis(200);

/// After a heartbeat that came to nothing: each read that is confirmed wants one, and a peer that is gone would be called a thousand times a
/// second.
const HEARTBEAT_BACKOFF: Duration = Duration::from_millis(50);

/// Makes a [`Link`] for each peer and purpose that openraft asks for.
#[derive(Debug, Clone)]
pub struct Network {
    peers: Peers,
}

impl Network {
    /// Over the connections of `peers`.
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }

    fn link(&self, target: NodeId, member: &Member, purpose: Purpose) -> Link {
        Link {
            peers: self.peers.clone(),
            target,
            made_for: member.peer_addr.clone(),
            purpose,
            heartbeat_failed_at: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Link {
        self.link(target, member, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, member: &Member) -> Link {
        self.link(target, member, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: NodeId, member: &Member) -> Link {
        self.link(target, member, Purpose::Snapshot)
    }
}

/// The way to one peer for one purpose.
#[derive(Debug)]
pub struct Link {
    peers: Peers,
    target: NodeId,
    /// Where the peer was when the link was made.
    made_for: String,
    purpose: Purpose,
    /// If the last one came to nothing.
    heartbeat_failed_at: Option<Instant>,
}

type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

impl Link {
    /// Where the peer is now: openraft keeps its links when only the address of a member changes.
    fn addr(&self) -> String {
        self.peers.place_of(self.target).unwrap_or_else(|| self.made_for.clone())
    }

    fn client(&self) -> Result<PeerClient<Connection>, RPCError<TypeConfig>> {
        self.peers.client(&self.addr(), self.purpose).map_err(|error| Unreachable::new(&error).into())
    }

    /// Runs one call within `limit`.
    async fn call<T, E>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, E>
    where
        E: From<Unreachable<TypeConfig>>,
    {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.unreachable(&status)),
            Err(elapsed) => Err(self.unreachable(&elapsed)),
        }
    }

    fn unreachable<E: From<Unreachable<TypeConfig>>>(&self, error: &(impl std::error::Error + 'static)) -> E {
        tracing::debug!(target = %self.target, addr = self.addr(), %error, "peer does not answer");
        Unreachable::new(error).into()
    }

    /// A heartbeat: a stream of one request is not worth an HTTP/2 stream that lives on.
    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.client()?;
        let message = self.peers.addressed(self.target, pb::AppendRequest::from(&request));
        let response: pb::AppendResponse =
            self.call::<_, RPCError<TypeConfig>>(limit, client.heartbeat(message)).await?;
        response.try_into_result().map_err(|error| NetworkError::new(&error).into())
    }

    async fn replicate<'s, S>(
        &'s self,
        mut input: S,
        limit: Duration,
    ) -> Result<AppendResults<'s>, RPCError<TypeConfig>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // openraft pauses after an error in here (for `PAUSE`, see `backoff`), before it hands out the next request. A call that
        // failed without having asked for one would be made again at once, and so on for as long as the peer is gone.
        let Some(first) = input.next().await else { return Ok(stream::empty().boxed()) };
        let input = stream::iter([first]).chain(input);
        let unanswered = Unanswered::default();
        let noting = unanswered.clone();
        let all_sent = Arc::clone(&unanswered.all_sent);
        let outbound = input
            .map(move |request| {
                noting.sent();
                Some(pb::AppendRequest::from(&request))
            })
            .chain(stream::once(async move {
                all_sent.store(true, Ordering::Relaxed);
                None
            }))
            .filter_map(std::future::ready);
        let mut client = self.client()?;
        let call = client.append(self.peers.addressed(self.target, outbound));
        let inbound = self.call::<_, RPCError<TypeConfig>>(limit, call).await?;
        Ok(answers(self, inbound, unanswered).boxed())
    }
}

/// The peer's answers, ended by the first that is not a success.
fn answers(
    link: &Link,
    inbound: Streaming<pb::AppendResponse>,
    unanswered: Unanswered,
) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> + '_ {
    stream::unfold(Some((inbound, unanswered)), move |state| async move {
        let (mut inbound, unanswered) = state?;
        let result: Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> =
            match unanswered.within_deadline(inbound.message()).await {
                Err(overdue) => Err(link.unreachable(&overdue)),
                Ok(Err(status)) => Err(link.unreachable(&status)),
                Ok(Ok(None)) if unanswered.all_sent.load(Ordering::Relaxed) => return None,
                // A peer whose Raft has stopped ends the stream at once; without an error openraft would start the next at once.
                Ok(Ok(None)) => Err(link.unreachable(&Ended)),
                Ok(Ok(Some(response))) => response.try_into_result().map_err(|error| NetworkError::new(&error).into()),
            };
        if let (Some(sent), Ok(Ok(_))) = (unanswered.answered(), &result) {
            link.peers.meter().append.took(sent.elapsed());
        }
        let goes_on = matches!(result, Ok(Ok(_)));
        Some((result, goes_on.then_some((inbound, unanswered))))
    })
}

/// When each request that has no answer yet was sent.
#[derive(Debug, Clone, Default)]
struct Unanswered {
    sent: Arc<Mutex<VecDeque<Instant>>>,
    /// openraft has nothing more to send in this session.
    all_sent: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("the peer ended the stream of appends")]
struct Ended;

#[derive(Debug, thiserror::Error)]
#[error("the peer did not answer a moment ago")]
struct Failed;

#[derive(Debug, thiserror::Error)]
#[error("no answer to an append within {} s", APPEND_DEADLINE.as_secs())]
struct Overdue;

impl Unanswered {
    fn sent(&self) {
        self.sent.lock().push_back(Instant::now());
    }

    /// When what was answered was sent.
    fn answered(&self) -> Option<Instant> {
        self.sent.lock().pop_front()
    }

    fn is_overdue(&self) -> bool {
        self.sent.lock().front().is_some_and(|sent| sent.elapsed() > APPEND_DEADLINE)
    }

    /// Waits for `answer`, as long as nothing is overdue. With nothing sent there is nothing to be overdue.
    async fn within_deadline<T>(&self, answer: impl Future<Output = T>) -> Result<T, Overdue> {
        let mut answer = std::pin::pin!(answer);
        loop {
            match tokio::time::timeout(APPEND_DEADLINE / 4, &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.is_overdue() => return Err(Overdue),
                Err(_) => {}
            }
        }
    }
}

impl NetStreamAppend<TypeConfig> for Link {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose == Purpose::Replication {
                return self.replicate(input, APPEND_DEADLINE.min(option.soft_ttl() * 8)).await;
            }
            let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
            let result = if self.heartbeat_failed_at.is_some_and(|at| at.elapsed() < HEARTBEAT_BACKOFF) {
                Err(Unreachable::new(&Failed).into())
            } else {
                let result = self.heartbeat(request, option.soft_ttl()).await;
                self.heartbeat_failed_at = result.is_err().then(Instant::now);
                result
            };
            Ok(stream::iter([result]).boxed())
        })
    }
}

impl NetVote<TypeConfig> for Link {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = self.peers.addressed(self.target, pb::VoteRequest::from(&request));
        let mut client = self.client()?;
        self.call::<_, RPCError<TypeConfig>>(option.soft_ttl(), client.vote(message)).await.map(VoteResponse::from)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = self.peers.addressed(self.target, pb::VoteRequest::from(&request));
        let mut client = self.client()?;
        self.call::<_, RPCError<TypeConfig>>(option.soft_ttl(), client.pre_vote(message)).await.map(VoteResponse::from)
    }
}

impl NetTransferLeader<TypeConfig> for Link {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = pb::TransferLeaderRequest {
            from: Some(request.from_leader().into()),
            to: request.to_node_id().0,
            last: request.last_log_id().map(Into::into),
        };
        let mut client = self.client()?;
        let call = client.transfer_leader(self.peers.addressed(self.target, message));
        self.call::<_, RPCError<TypeConfig>>(option.soft_ttl(), call).await?;
        Ok(Ok(()))
    }
}

impl NetBackoff<TypeConfig> for Link {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(PAUSE)))
    }
}

impl NetSnapshot<TypeConfig> for Link {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let header = pb::SnapshotHeader {
            vote: Some((&vote).into()),
            last: snapshot.meta.last_log_id.as_ref().map(Into::into),
            membership: Some((&snapshot.meta.last_membership).into()),
        };
        let (target, last) = (self.target, snapshot.meta.last_log_id.map(|last| last.index));
        let outbound = snapshot.snapshot.into_chunks(header, Arc::clone(&self.peers.meter().sent));
        // Nobody takes it as long as there is no connection; that is tried again and again.
        let outbound = outbound.enumerate().map(move |(at, chunk)| {
            if at == 0 {
                tracing::info!(%target, last, "sending a snapshot");
            }
            chunk
        });
        let mut client = self.peers.client(&self.addr(), self.purpose).map_err(|error| Unreachable::new(&error))?;
        let call = client.snapshot(self.peers.addressed(self.target, outbound));
        // Not `soft_ttl`: a large snapshot takes as long as it takes. A peer that stops reading breaks the keep-alive.
        let limit = option.hard_ttl().max(Duration::from_secs(600));
        let response: pb::SnapshotResponse = tokio::select! {
            response = self.call::<_, StreamingError<TypeConfig>>(limit, call) => response?,
            closed = cancel => return Err(closed.into()),
        };
        Ok(SnapshotResponse::new(response.vote.unwrap_or_default().into()))
    }
}

impl From<&AppendEntriesRequest<TypeConfig>> for pb::AppendRequest {
    fn from(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: Some((&request.vote).into()),
            prev: request.prev_log_id.as_ref().map(Into::into),
            commit: request.leader_commit.as_ref().map(Into::into),
            entries: request.entries.iter().map(Into::into).collect(),
            traced: request.entries.iter().filter_map(traced).collect(),
        }
    }
}

/// What travels beside an entry, if it is traced.
fn traced(entry: &Entry) -> Option<pb::Traced> {
    Some(pb::Traced { index: entry.log_id.index(), parent: trace_of(entry)?.header() })
}

/// Puts it where it was.
fn trace(entries: &mut [Entry], traced: &pb::Traced) -> Option<()> {
    // Entries of one request follow each other.
    let at = traced.index.checked_sub(entries.first()?.log_id.index())?;
    let entry = entries.get_mut(usize::try_from(at).ok()?)?;
    let EntryPayload::Normal(command) = &mut entry.payload else { return None };
    command.trace = Some(Box::new(Parent::parse(&traced.parent)?));
    Some(())
}

impl TryFrom<pb::AppendRequest> for AppendEntriesRequest<TypeConfig> {
    type Error = Malformed;

    fn try_from(request: pb::AppendRequest) -> Result<Self, Malformed> {
        let entries = request.entries.into_iter().map(super::codec::decode_entry);
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        request.traced.iter().for_each(|traced| _ = trace(&mut entries, traced));
        Ok(Self {
            vote: request.vote.unwrap_or_default().into(),
            prev_log_id: request.prev.map(Into::into),
            leader_commit: request.commit.map(Into::into),
            entries,
        })
    }
}

impl From<StreamAppendResult<TypeConfig>> for pb::AppendResponse {
    fn from(result: StreamAppendResult<TypeConfig>) -> Self {
        use pb::append_response::Result as Pb;
        let result = match result {
            Ok(Some(matched)) => Pb::Matched((&matched).into()),
            Ok(None) => Pb::MatchedNone(true),
            Err(StreamAppendError::Conflict(at)) => Pb::Conflict((&at).into()),
            Err(StreamAppendError::HigherVote(vote)) => Pb::HigherVote((&vote).into()),
        };
        Self { result: Some(result) }
    }
}

/// An answer without content.
#[derive(Debug, thiserror::Error)]
#[error("the peer answered an append with nothing that this version understands")]
pub struct EmptyAnswer;

impl pb::AppendResponse {
    fn try_into_result(self) -> Result<StreamAppendResult<TypeConfig>, EmptyAnswer> {
        use pb::append_response::Result as Pb;
        Ok(match self.result.ok_or(EmptyAnswer)? {
            Pb::Matched(id) => Ok(Some(LogId::from(id))),
            Pb::MatchedNone(_) => Ok(None),
            Pb::Conflict(at) => Err(StreamAppendError::Conflict(at.into())),
            Pb::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        })
    }
}

impl From<&VoteRequest<TypeConfig>> for pb::VoteRequest {
    fn from(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: Some((&request.vote).into()),
            last: request.last_log_id.as_ref().map(Into::into),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<pb::VoteRequest> for VoteRequest<TypeConfig> {
    fn from(request: pb::VoteRequest) -> Self {
        let mut into = Self::new(request.vote.unwrap_or_default().into(), request.last.map(Into::into));
        into.leadership_transfer = request.transfer;
        into
    }
}

impl From<VoteResponse<TypeConfig>> for pb::VoteResponse {
    fn from(response: VoteResponse<TypeConfig>) -> Self {
        Self {
            vote: Some((&response.vote).into()),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(Into::into),
        }
    }
}

impl From<pb::VoteResponse> for VoteResponse<TypeConfig> {
    fn from(response: pb::VoteResponse) -> Self {
        let vote = Vote::from(response.vote.unwrap_or_default());
        Self::new(vote, response.last.map(LogId::from), response.granted)
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use prost::Message;

    use super::*;
    use crate::command::Command;
    use crate::raft::codec::log_id;

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let vote = Vote::new_committed(1, NodeId(1));
        AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None }
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn entry(index: u64, trace: Option<&str>) -> Entry {
        let trace = trace.map(|parent| Box::new(Parent::parse(parent).unwrap()));
        Entry::new(log_id(1, index), EntryPayload::Normal(Command { trace, ..Command::encoded("a command") }))
    }

    /// What comes out at the other end, by index.
    fn traces(sent: pb::AppendRequest) -> Vec<(u64, Option<String>)> {
        let sent = pb::AppendRequest::decode(&*sent.encode_to_vec()).unwrap();
        let received = AppendEntriesRequest::<TypeConfig>::try_from(sent).unwrap();
        let of = |entry: &Entry| (entry.log_id.index(), trace_of(entry).map(Parent::header));
        received.entries.iter().map(of).collect()
    }

    #[test]
    fn a_trace_travels_beside_its_entry_and_not_in_it() {
        let blank = Entry::new(log_id(1, 6), EntryPayload::Blank);
        let entries = vec![entry(5, None), blank, entry(7, Some(PARENT)), entry(8, None)];
        let sent = pb::AppendRequest::from(&AppendEntriesRequest { entries, ..request() });
        assert_eq!(traces(sent), [(5, None), (6, None), (7, Some(PARENT.into())), (8, None)]);
        let on_disk = |trace| crate::proto::raft::Entry::from(&entry(7, trace)).encode_to_vec();
        assert_eq!(on_disk(Some(PARENT)), on_disk(None));
    }

    #[test]
    fn a_trace_that_cannot_be_one_is_as_good_as_none() {
        let blank = Entry::new(log_id(1, 6), EntryPayload::Blank);
        let sent = pb::AppendRequest::from(&AppendEntriesRequest { entries: vec![entry(5, None), blank], ..request() });
        for (index, parent) in [(4, PARENT), (5, "nonsense"), (6, PARENT), (7, PARENT), (u64::MAX, PARENT)] {
            let traced = vec![pb::Traced { index, parent: parent.into() }];
            assert_eq!(traces(pb::AppendRequest { traced, ..sent.clone() }), [(5, None), (6, None)]);
        }
        assert!(traces(pb::AppendRequest { traced: vec![pb::Traced::default()], ..Default::default() }).is_empty());
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_called_only_after_openraft_s_pause() {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let peers = Peers::new(NodeId(1), None);
        let member = Member { peer_addr: nobody.to_string(), ..Member::default() };
        let mut link = Network::new(peers).link(NodeId(2), &member, Purpose::Replication);
        let asked = Arc::new(AtomicBool::new(false));
        let pause = {
            let asked = Arc::clone(&asked);
            stream::once(async move {
                asked.store(true, Ordering::Relaxed);
                request()
            })
        };
        let option = RPCOption::new(Duration::from_secs(5));
        assert!(link.stream_append(pause.boxed(), option).await.is_err());
        assert!(asked.load(Ordering::Relaxed));
    }
}
