//! What a node answers to other nodes.

use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, VoteRequest};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::peers::Peers;
use super::snapshot::{self, SnapshotData};
use super::types::{LogId, TypeConfig};
use super::{Host, Raft};
use crate::ids::NodeId;
use crate::proto::peer as pb;
use crate::proto::peer::peer_server::Peer;
use crate::service::{Executed, ServiceError};
use crate::traces::{self, Parent};

/// The peer protocol over this node's Raft, with the node itself (`host`) behind what is not Raft's.
#[derive(Debug)]
pub struct PeerService<H> {
    raft: Raft,
    peers: Peers,
    host: H,
}

impl<H: Host> PeerService<H> {
    /// Serves `raft` and `host` to the nodes that `peers` admits.
    pub fn new(raft: Raft, peers: Peers, host: H) -> Self {
        Self { raft, peers, host }
    }

    fn admit<T>(&self, request: Request<T>) -> Result<(NodeId, T), Status> {
        let from = self.peers.admit(request.metadata()).map_err(|status| *status)?;
        Ok((from, request.into_inner()))
    }

    /// The same for what only a node that takes part may answer: one that does not know yet whether it has forgotten something
    /// neither votes nor acknowledges.
    fn admit_to_raft<T>(&self, request: Request<T>) -> Result<(NodeId, T), Status> {
        let admitted = self.admit(request)?;
        match self.host.takes_part() {
            true => Ok(admitted),
            false => Err(Status::unavailable("this node has not heard yet what the others remember of it")),
        }
    }
}

/// This node's Raft has stopped, or a peer sent what no peer sends.
fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn answer(executed: Result<Executed, ServiceError>) -> pb::ExecuteResponse {
    use pb::execute_response::Result as Pb;
    let result = match executed {
        Ok(executed) => Pb::Executed((&executed).into()),
        Err(error) => Pb::Failure((&error).into()),
    };
    pb::ExecuteResponse { result: Some(result) }
}

/// Why a change was not decided. FAILED_PRECONDITION is taken: it is said to whom a call was not meant for.
fn undecided(error: &ServiceError) -> Status {
    match error {
        ServiceError::Module(why) => Status::invalid_argument(why),
        ServiceError::Overloaded(_) => Status::resource_exhausted(error.to_string()),
        other => Status::unavailable(other.to_string()),
    }
}

/// The same for the node that asked: what is the module's fault, what the leader's for the moment, and what another leader may do
/// better.
pub fn why_undecided(status: &Status) -> ServiceError {
    match status.code() {
        Code::InvalidArgument => ServiceError::Module(status.message().to_owned()),
        Code::ResourceExhausted => ServiceError::Overloaded("the leader has too many pushes under way"),
        _ => ServiceError::NotLeader { leader: None },
    }
}

/// Appends on their way to openraft; entries of one stream that were not read yet wait in HTTP/2's window.
const APPENDS_QUEUED: usize = 16;

#[tonic::async_trait]
impl<H: Host> Peer for PeerService<H> {
    type AppendStream = BoxStream<'static, Result<pb::AppendResponse, Status>>;
    type ChangeStream = BoxStream<'static, Result<crate::proto::admin::ModulePushResponse, Status>>;

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Result<Response<pb::ExecuteResponse>, Status> {
        let (_, message) = self.admit(request)?;
        Ok(Response::new(answer(self.host.operate_as_leader(message).await)))
    }

    async fn change(&self, request: Request<pb::ChangeRequest>) -> Result<Response<Self::ChangeStream>, Status> {
        let (_, message) = self.admit(request)?;
        let events = self.host.change_as_leader(message).await.map_err(|error| undecided(&error))?;
        Ok(Response::new(events.map(|event| event.map_err(|error| undecided(&error))).boxed()))
    }

    async fn preflight(
        &self,
        request: Request<pb::PreflightRequest>,
    ) -> Result<Response<pb::PreflightResponse>, Status> {
        let (_, message) = self.admit(request)?;
        Ok(Response::new(self.host.preflight(message).await))
    }

    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Result<Response<pb::FetchResponse>, Status> {
        let (_, message) = self.admit(request)?;
        Ok(Response::new(self.host.fetch(message)))
    }

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (from, mut inbound) = self.admit_to_raft(request)?;
        let (queue, requests) = mpsc::channel(APPENDS_QUEUED);
        tokio::spawn(async move {
            while let Some(Ok(message)) = inbound.next().await {
                let request = match AppendEntriesRequest::<TypeConfig>::try_from(message) {
                    Ok(request) => request,
                    Err(error) => {
                        return tracing::error!(%from, %error, "a peer sent an append that cannot be read");
                    }
                };
                if queue.send(request).await.is_err() {
                    return;
                }
            }
        });
        let answers = self.raft.stream_append(ReceiverStream::new(requests));
        Ok(Response::new(answers.map(|answer| answer.map(pb::AppendResponse::from).map_err(unavailable)).boxed()))
    }

    async fn heartbeat(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let (_, message) = self.admit_to_raft(request)?;
        let request = AppendEntriesRequest::<TypeConfig>::try_from(message).map_err(malformed)?;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let response = self.raft.append_entries(request).await.map_err(unavailable)?;
        let result: StreamAppendResult<TypeConfig> = response.into_stream_result(prev, last);
        Ok(Response::new(result.into()))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (_, message) = self.admit_to_raft(request)?;
        let response = self.raft.vote(VoteRequest::from(message)).await.map_err(unavailable)?;
        Ok(Response::new(response.into()))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let (_, message) = self.admit_to_raft(request)?;
        let response = self.raft.pre_vote(VoteRequest::from(message)).await.map_err(unavailable)?;
        Ok(Response::new(response.into()))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let (from, mut inbound) = self.admit_to_raft(request)?;
        let Some(pb::snapshot_chunk::Part::Header(header)) = inbound.message().await?.and_then(|chunk| chunk.part)
        else {
            return Err(Status::invalid_argument("a snapshot begins with its header"));
        };
        let vote = header.vote.unwrap_or_default().into();
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: header.last.map(LogId::from),
            last_membership: header.membership.unwrap_or_default().try_into().map_err(malformed)?,
        };
        tracing::info!(%from, snapshot = %meta, "receiving a snapshot");
        let received = Box::new(snapshot::receive(self.host.receiver(), inbound, &self.peers.meter().received).await?);
        let snapshot = SnapshotOf::<TypeConfig, SnapshotData> { meta, snapshot: SnapshotData::Incoming(received) };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(unavailable)?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some((&response.vote).into()) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        let (_, message) = self.admit_to_raft(request)?;
        let request = TransferLeaderRequest::new(
            message.from.unwrap_or_default().into(),
            NodeId(message.to),
            message.last.map(Into::into),
        );
        self.raft.handle_transfer_leader(request).await.map_err(unavailable)?.map_err(unavailable)?;
        Ok(Response::new(pb::TransferLeaderResponse {}))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        use pb::read_index_response::Result as Pb;
        self.admit(request)?;
        let result = match self.host.confirm_leadership().await {
            Ok(index) => Pb::Index(index),
            Err(error) => Pb::Failure((&error).into()),
        };
        Ok(Response::new(pb::ReadIndexResponse { result: Some(result) }))
    }

    async fn execute(&self, request: Request<pb::ExecuteRequest>) -> Result<Response<pb::ExecuteResponse>, Status> {
        let sent = request.metadata().get(traces::HEADER).and_then(|value| Parent::parse(value.to_str().ok()?));
        let (_, message) = self.admit(request)?;
        Ok(Response::new(answer(self.host.execute_as_leader(message, sent).await)))
    }

    async fn exchange(&self, request: Request<pb::ExchangeRequest>) -> Result<Response<pb::ExchangeResponse>, Status> {
        let (from, message) = self.admit(request)?;
        Ok(Response::new(self.host.exchange(from, message)))
    }

    async fn digests(&self, request: Request<pb::DigestsRequest>) -> Result<Response<pb::DigestsResponse>, Status> {
        self.admit(request)?;
        Ok(Response::new(self.host.digests()))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        let (_, message) = self.admit(request)?;
        Ok(Response::new(self.host.join(message).await))
    }

    async fn recall(&self, request: Request<pb::RecallRequest>) -> Result<Response<pb::RecallResponse>, Status> {
        self.peers.admit_cluster(request.metadata()).map_err(|status| *status)?;
        Ok(Response::new(self.host.recall(NodeId(request.into_inner().id))))
    }

    async fn standing(&self, request: Request<pb::StandingRequest>) -> Result<Response<pb::StandingResponse>, Status> {
        self.peers.admit_cluster(request.metadata()).map_err(|status| *status)?;
        Ok(Response::new(self.host.standing(request.into_inner()).await))
    }

    async fn members(
        &self,
        request: Request<crate::proto::admin::MemberChange>,
    ) -> Result<Response<pb::MembersResponse>, Status> {
        let (_, message) = self.admit(request)?;
        Ok(Response::new(self.host.members(message).await))
    }

    async fn identify(&self, _: Request<pb::IdentifyRequest>) -> Result<Response<pb::IdentifyResponse>, Status> {
        Ok(Response::new(self.host.identify().await))
    }

    async fn adopt(&self, request: Request<pb::AdoptRequest>) -> Result<Response<pb::AdoptResponse>, Status> {
        self.peers.admit_founder(request.metadata()).map_err(|status| *status)?;
        let id = self.host.adopt(request.into_inner()).await.map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::AdoptResponse { id: id.0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_for_a_change_learns_whether_another_attempt_may_help() {
        let told = |error: ServiceError| why_undecided(&undecided(&error));
        let elsewhere = ServiceError::NotLeader { leader: None };
        let fault = ServiceError::Module("it is no module".into());
        assert_eq!(told(fault.clone()), fault);
        assert!(matches!(told(ServiceError::Overloaded("full")), ServiceError::Overloaded(_)));
        assert_eq!(told(ServiceError::OutcomeUnknown), elsewhere);
        assert_eq!(told(ServiceError::NotReady("it is behind".into())), elsewhere);
        let own = Peers::new(NodeId(1), Some(crate::ids::ClusterId([7; 16])));
        let misled = own.admit(own.addressed(NodeId(2), ()).metadata()).unwrap_err();
        assert_eq!(why_undecided(&misled), elsewhere, "another node has that address by now");
    }
}
