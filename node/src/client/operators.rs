//! The operators' methods beside status: the life of modules, and backups. All but the history are served where operators call: at a
//! node's socket or port for peers. See [`Client::peers`].
//!
//! None of them needs an idempotency key: a module that is active already is not activated twice, nor is anything else that
//! is asked for here. So they are tried at one node after the other until one carries them out. What takes long is
//! given all of the timeout at the node that took it up; a connection that breaks is noticed by itself.

use bytes::Bytes;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::failure::describe;
use super::{Call, Client, Endpoint, Error, Read, all, attempt_timeout, decode};
use crate::proto::admin::module_push_request::Part;
use crate::proto::admin::module_push_response::Event;
use crate::proto::admin::operator_client::OperatorClient;
use crate::proto::{admin, command};

const HISTORY: &str = "/balsa.admin.v1.Admin/ModuleHistory";
const RETRY: &str = "/balsa.admin.v1.Operator/ModuleRetry";
const DROP: &str = "/balsa.admin.v1.Operator/ModuleDrop";
const MEMBERS: &str = "/balsa.admin.v1.Admin/Members";
const CHANGE_MEMBER: &str = "/balsa.admin.v1.Operator/ChangeMember";
/// Of a module that is pushed, in one message.
const PIECE_BYTES: usize = 1024 * 1024;

impl Client {
    /// The nodes' ports for peers, as the first node that answers knows them.
    pub async fn peers(&self) -> Result<Vec<Endpoint>, Error> {
        let nodes = self.status().await?.nodes;
        Ok(nodes.iter().filter_map(|node| node.peer_addr.parse().ok()).collect())
    }

    /// What became of each module that was ever wanted, or of the one called `name`; oldest first.
    pub async fn module_history(&self, name: &str) -> Result<Vec<command::Activation>, Error> {
        let request = admin::ModuleHistoryRequest { name: name.into() };
        let call = Call::query(HISTORY, request.encode_to_vec(), Read::default());
        let history: admin::ModuleHistoryResponse = decode(HISTORY, self.call(&call).await?)?;
        Ok(history.activations)
    }

    /// Tries again what was refused or waits; returns the names of what is tried.
    pub async fn module_retry(&self, request: &admin::ModuleRetryRequest) -> Result<Vec<String>, Error> {
        let retried: admin::ModuleRetryResponse = self.slow(RETRY, request).await?;
        Ok(retried.retried)
    }

    /// Deletes the state of a module that does not serve; returns the number of rows.
    pub async fn module_drop(&self, name: &str) -> Result<u64, Error> {
        let dropped: admin::ModuleDropResponse =
            self.slow(DROP, &admin::ModuleDropRequest { name: name.into() }).await?;
        Ok(dropped.rows)
    }

    /// Who belongs to the cluster, and who asks to.
    pub async fn members(&self) -> Result<admin::MembersResponse, Error> {
        let call = Call::query(MEMBERS, admin::MembersRequest {}.encode_to_vec(), Read::default());
        decode(MEMBERS, self.call(&call).await?)
    }

    /// Changes who belongs to the cluster, or who leads it; what was done, in words.
    pub async fn change_member(&self, change: &admin::MemberChange) -> Result<String, Error> {
        let changed: admin::MemberChangeResponse = self.slow(CHANGE_MEMBER, change).await?;
        Ok(changed.done)
    }

    /// Makes `file` (wasm, compressed or not) the module that it names. Tells `on_stage` what the cluster does, and returns
    /// what came of it.
    pub async fn module_push(
        &self,
        header: &admin::ModulePush,
        file: &Bytes,
        on_stage: &(dyn Fn(&str) + Sync),
    ) -> Result<command::Activation, Error> {
        let push = |channel: Channel, timeout| async move {
            let mut request = Request::new(tokio_stream::iter(pieces(header, file)));
            request.set_timeout(timeout);
            let mut events = OperatorClient::new(channel).module_push(request).await?.into_inner();
            decided(&mut events, on_stage).await
        };
        self.retry(None, all, push).await
    }

    /// The whole state of one node, as a stream that is handed to `take` in pieces. It is not tried again: what `take` got
    /// already belongs to one state. `take` says when it has enough.
    pub async fn backup(&self, take: &mut (dyn FnMut(Bytes) -> std::ops::ControlFlow<()> + Send)) -> Result<(), Error> {
        let open = |channel: Channel, _| async move {
            Ok(OperatorClient::new(channel).backup(admin::BackupRequest {}).await?.into_inner())
        };
        let mut chunks: Streaming<admin::BackupChunk> = self.retry(None, attempt_timeout, open).await?;
        while let Some(chunk) = chunks.message().await.map_err(|status| Error::Interrupted(describe(&status)))? {
            if take(chunk.data).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A method that may take all of the timeout.
    async fn slow<M: Message + Default>(&self, path: &str, request: &impl Message) -> Result<M, Error> {
        let call = Call::query(path, request.encode_to_vec(), Read::default());
        decode(path, self.unary(None, all, &call).await?)
    }
}

/// The messages of a push.
fn pieces(header: &admin::ModulePush, file: &Bytes) -> Vec<admin::ModulePushRequest> {
    let message = |part| admin::ModulePushRequest { part: Some(part) };
    let starts = (0..file.len()).step_by(PIECE_BYTES);
    let data = starts.map(|start| file.slice(start..file.len().min(start + PIECE_BYTES)));
    [message(Part::Header(header.clone()))].into_iter().chain(data.map(|data| message(Part::Data(data)))).collect()
}

async fn decided(
    events: &mut Streaming<admin::ModulePushResponse>,
    on_stage: &(dyn Fn(&str) + Sync),
) -> Result<command::Activation, Status> {
    while let Some(response) = events.message().await? {
        match response.event {
            Some(Event::Stage(stage)) => on_stage(&stage),
            Some(Event::Done(activation)) => return Ok(activation),
            None => {}
        }
    }
    Err(Status::unavailable("the node ended the push without saying what came of it"))
}
