//! The way of a query: an index to read at, that index published here, a thread to run on.

use std::time::{Duration, Instant};

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};

use super::{Leader, Node, streams};
use crate::proto::peer;
use crate::raft::peers::Purpose;
use crate::service::{Consistency, Executed, Query, ServiceError, Streaming};
use crate::state_machine::QueryError;

/// How long a query without a deadline is tried.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one round of confirmation may take. A round that hangs holds up every query behind it; who has time left joins another.
const ROUND: Duration = Duration::from_secs(2);

impl Node {
    /// Runs `query` on this node.
    pub(super) async fn run_query(&self, query: Query) -> Result<Executed, ServiceError> {
        let deadline = query.deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        self.wait_consistent(query.consistency, deadline).await?;
        let reader = self.inner.reader.clone();
        let run = move || match reader.query(&query.method, query.request, Some(deadline)) {
            Ok(executed) => Ok(Ok(executed)),
            Err(QueryError::Fault(fault)) => Err(fault),
            Err(error) => Ok(Err(refused(&error))),
        };
        self.inner.queries.run(Some(deadline), run).await?
    }

    /// Runs `query`, which answers with a stream, on this node.
    pub(super) async fn run_stream(&self, query: Query) -> Result<Streaming, ServiceError> {
        let begun = Instant::now();
        self.wait_consistent(query.consistency, query.deadline.unwrap_or(begun + PATIENCE)).await?;
        let whole = begun + streams::WHOLE;
        let deadline = query.deadline.map_or(whole, |deadline| deadline.min(whole));
        self.inner.streams.start(self.inner.reader.view(), query, deadline)
    }

    /// Returns once this node's state is as fresh as it must be.
    pub(super) async fn wait_consistent(&self, how: Consistency, deadline: Instant) -> Result<(), ServiceError> {
        match how {
            Consistency::Linearizable => self.wait_readable(deadline).await,
            Consistency::Stale { min_index } => self.wait_published(min_index, deadline).await,
        }
    }

    /// Returns once everything that was answered before this call can be read here. While a leader is being elected, and while this
    /// node is behind, it tries again, within the deadline.
    async fn wait_readable(&self, deadline: Instant) -> Result<(), ServiceError> {
        let mut error = ServiceError::NoLeader;
        loop {
            match tokio::time::timeout_at(deadline.into(), self.inner.reads.read_index()).await {
                Err(_) => return Err(error),
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(now)) => error = now,
            }
            // That one does not pass, and what is behind it is never caught up with.
            if let Some(why) = self.fenced() {
                return Err(ServiceError::Fenced(why));
            }
            let passes =
                matches!(error, ServiceError::NoLeader | ServiceError::NotLeader { .. } | ServiceError::NotReady(_));
            if !passes || Instant::now() >= deadline {
                return Err(error);
            }
            self.leader_news(Duration::from_millis(50)).await;
        }
    }

    /// One round for all queries of this node that wait: confirms an index, and waits until it is published.
    pub(super) async fn readable_round(&self) -> Result<u64, ServiceError> {
        let index = self.confirm_leader().await?;
        self.wait_published(index, Instant::now() + ROUND).await?;
        Ok(index)
    }

    /// Has the leader confirm that it leads; the index that is committed then.
    pub(super) async fn confirm_leader(&self) -> Result<u64, ServiceError> {
        match self.leader() {
            Leader::This => self.inner.leadership.read_index().await,
            Leader::Other(id, member) => self.ask_leader(id, &member.peer_addr).await,
            Leader::Unknown => Err(ServiceError::NoLeader),
        }
    }

    /// One round for all who ask this node as the leader.
    pub(super) async fn leadership_round(&self) -> Result<u64, ServiceError> {
        let confirmed = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        match tokio::time::timeout(ROUND, confirmed).await {
            Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to)))) => {
                Err(ServiceError::NotLeader { leader: to.leader_node.map(|member| member.client_addr) })
            }
            Ok(Err(RaftError::APIError(_))) | Err(_) => Err(ServiceError::NoLeader),
            Ok(Err(RaftError::Fatal(_))) => Err(ServiceError::ShuttingDown),
        }
    }

    async fn ask_leader(&self, id: crate::ids::NodeId, addr: &str) -> Result<u64, ServiceError> {
        use peer::read_index_response::Result as Pb;
        let peers = &self.inner.peers;
        let mut client =
            peers.client(addr, Purpose::Heartbeat).map_err(|error| ServiceError::NotReady(error.to_string()))?;
        let call = client.read_index(peers.addressed(id, peer::ReadIndexRequest {}));
        match tokio::time::timeout(ROUND, call).await {
            Ok(Ok(response)) => match response.into_inner().result {
                Some(Pb::Index(index)) => Ok(index),
                Some(Pb::Failure(failure)) => Err(failure.into()),
                None => Err(ServiceError::NoLeader),
            },
            Ok(Err(_)) | Err(_) => Err(ServiceError::NoLeader),
        }
    }
}

/// Why a query has no outcome, to its client. A fault of the host is not among them: it ends the node.
pub(super) fn refused(error: &QueryError) -> ServiceError {
    match error {
        QueryError::NoModule => ServiceError::NoModule,
        // A swap turned it into something else since it was routed; the next look at the catalog knows.
        QueryError::UnknownMethod | QueryError::NotAQuery | QueryError::OtherAnswer => ServiceError::UnknownMethod,
        QueryError::Cut(_) => ServiceError::Deadline,
        QueryError::Fault(_) => ServiceError::ShuttingDown,
    }
}
