//! What an operator asks a node for, as the command line does it: history, push, retry, drop.

use balsa::proto::admin::admin_client::AdminClient;
use balsa::proto::admin::module_push_request::Part;
use balsa::proto::admin::module_push_response::Event;
use balsa::proto::admin::operator_client::OperatorClient;
use balsa::proto::admin::{
    ModuleDropRequest, ModuleHistoryRequest, ModulePush, ModulePushRequest, ModulePushResponse, ModuleRetryRequest,
};
use balsa::proto::command::activation::Outcome;
use balsa::proto::command::{Activated, Activation, Refused};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::abacus::hash;
use crate::harness::{Cluster, Node, PATIENCE, until};

/// Bytes of one message of a push.
const PIECE: usize = 1 << 20;

pub(crate) async fn connect(uri: String) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(uri).unwrap().timeout(2 * PATIENCE);
    endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
}

async fn admin(node: &Node) -> Result<AdminClient<Channel>, Status> {
    Ok(AdminClient::new(connect(node.uri()).await?))
}

/// At the node's socket.
async fn operator(node: &Node) -> Result<OperatorClient<Channel>, Status> {
    Ok(OperatorClient::new(connect(format!("unix:{}", node.socket().display())).await?))
}

/// A push that is under way.
pub(crate) struct Push(Streaming<ModulePushResponse>);

impl Push {
    /// Pushes `wasm` through `node`.
    pub(crate) async fn begin(node: &Node, wasm: &[u8], header: ModulePush) -> Result<Self, Status> {
        let data = wasm.chunks(PIECE).map(|piece| Part::Data(piece.to_vec().into()));
        let parts = std::iter::once(Part::Header(header)).chain(data);
        let parts: Vec<_> = parts.map(|part| ModulePushRequest { part: Some(part) }).collect();
        let stream = operator(node).await?.module_push(tokio_stream::iter(parts)).await?;
        Ok(Self(stream.into_inner()))
    }

    /// Returns once a stage is told that contains `text`, or with what came of it.
    pub(crate) async fn reaches(&mut self, text: &str) -> Result<Option<Activation>, Status> {
        let event = self.event(|stage| stage.contains(text));
        let event = tokio::time::timeout(PATIENCE, event).await;
        match event.unwrap_or_else(|_| panic!("a push comes to {text:?}, or to its end"))? {
            Event::Stage(_) => Ok(None),
            Event::Done(row) => Ok(Some(row)),
        }
    }

    /// What came of it.
    pub(crate) async fn done(mut self) -> Result<Activation, Status> {
        match tokio::time::timeout(PATIENCE, self.event(|_| false)).await.expect("a push ends")? {
            Event::Done(row) => Ok(row),
            Event::Stage(stage) => unreachable!("nobody waits for {stage}"),
        }
    }

    /// The end, or such a stage before it.
    async fn event(&mut self, is: impl Fn(&str) -> bool) -> Result<Event, Status> {
        loop {
            match self.0.message().await?.and_then(|event| event.event) {
                Some(Event::Stage(stage)) if !is(&stage) => {}
                Some(event) => return Ok(event),
                None => panic!("the push ended without a word"),
            }
        }
    }
}

/// Pushes and waits for the end of it.
pub(crate) async fn push(node: &Node, wasm: &[u8]) -> Activation {
    Push::begin(node, wasm, ModulePush::default()).await.unwrap().done().await.unwrap()
}

/// What became of the module, as this node knows it, if it answers.
pub(crate) async fn history(node: &Node, name: &str) -> Option<Vec<Activation>> {
    let request = ModuleHistoryRequest { name: name.into() };
    Some(admin(node).await.ok()?.module_history(request).await.ok()?.into_inner().activations)
}

/// The same, from the first running node that answers.
pub(crate) async fn history_of(cluster: &Cluster, name: &str) -> Vec<Activation> {
    until("a node tells the history", async || {
        for node in cluster.running() {
            if let Some(rows) = history(node, name).await {
                return Some(rows);
            }
        }
        None
    })
    .await
}

/// The last row about these bytes, once there is one after `index`.
pub(crate) async fn decided(cluster: &Cluster, name: &str, wasm: &[u8], index: u64) -> Activation {
    let hash = hash(wasm);
    until(&format!("what {name} shall be is decided"), async || {
        let rows = history_of(cluster, name).await;
        rows.into_iter().rfind(|row| row.hash[..] == hash && row.index > index)
    })
    .await
}

/// Names of what is tried again, once there is a leader to do so.
pub(crate) async fn retry(node: &Node, name: &str, without: &[&str]) -> Vec<String> {
    let without: Vec<_> = without.iter().map(|&name| name.to_owned()).collect();
    until("a leader tries again what was refused", async || {
        let request = ModuleRetryRequest { name: name.into(), without: without.clone() };
        match operator(node).await.unwrap().module_retry(request).await {
            Ok(retried) => Some(retried.into_inner().retried),
            Err(status) if status.code() == Code::Unavailable => None,
            Err(other) => panic!("{other:?}"),
        }
    })
    .await
}

/// Rows that were deleted, once there is a leader to do so.
pub(crate) async fn drop_module(node: &Node, name: &str) -> Result<u64, Status> {
    until("a leader drops it, or refuses to", async || {
        let request = ModuleDropRequest { name: name.into() };
        match operator(node).await.unwrap().module_drop(request).await {
            Err(status) if status.code() == Code::Unavailable => None,
            told => Some(told.map(|dropped| dropped.into_inner().rows)),
        }
    })
    .await
}

/// The row's activation.
#[track_caller]
pub(crate) fn activated(row: &Activation) -> &Activated {
    match &row.outcome {
        Some(Outcome::Activated(activated)) => activated,
        _ => panic!("it was not activated: {row:?}"),
    }
}

/// The row's refusal.
#[track_caller]
pub(crate) fn refused(row: &Activation) -> &Refused {
    match &row.outcome {
        Some(Outcome::Refused(refused)) => refused,
        _ => panic!("it was not refused: {row:?}"),
    }
}
