//! `balsa.admin.v1.Operator`: what changes the cluster, or takes all that it holds.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::status::{Failure, status};
use crate::files::binary;
use crate::limits::{MODULE_BYTES_MAX, PUSHED_BY_BYTES_MAX};
use crate::proto::admin as pb;
use crate::proto::admin::operator_server::Operator;
pub(super) use crate::proto::admin::operator_server::{OperatorServer, SERVICE_NAME as NAME};
use crate::service::{Backend, ServiceError};

/// How long the next piece of a push may take to arrive. Until the last one is there, the push has one of few places.
const PIECE: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub(super) struct Hand<B>(pub(super) B);

#[tonic::async_trait]
impl<B: Backend> Operator for Hand<B> {
    type ModulePushStream = BoxStream<'static, Result<pb::ModulePushResponse, Status>>;
    type BackupStream = BoxStream<'static, Result<pb::BackupChunk, Status>>;

    async fn module_push(
        &self,
        request: Request<Streaming<pb::ModulePushRequest>>,
    ) -> Result<Response<Self::ModulePushStream>, Status> {
        let place = self.0.push_place().map_err(|error| status(&error.into()))?;
        let (header, bytes) = pushed(request.into_inner()).await?;
        let wasm = tokio::task::spawn_blocking(move || binary::module(bytes)).await;
        let wasm = wasm.map_err(|error| Status::internal(error.to_string()))?;
        let wasm = wasm.map_err(|error| status(&ServiceError::Module(format!("what was pushed {error}")).into()))?;
        let events = self.0.module_push(header, wasm, place);
        Ok(Response::new(events.map(|event| event.map_err(|error| status(&error.into()))).boxed()))
    }

    async fn module_retry(
        &self,
        request: Request<pb::ModuleRetryRequest>,
    ) -> Result<Response<pb::ModuleRetryResponse>, Status> {
        let retried = self.0.module_retry(request.into_inner()).await;
        let retried = retried.map_err(|error| status(&error.into()))?;
        Ok(Response::new(pb::ModuleRetryResponse { retried }))
    }

    async fn module_drop(
        &self,
        request: Request<pb::ModuleDropRequest>,
    ) -> Result<Response<pb::ModuleDropResponse>, Status> {
        let rows = self.0.module_drop(request.into_inner().name).await;
        rows.map(|rows| Response::new(pb::ModuleDropResponse { rows })).map_err(|error| status(&error.into()))
    }

    async fn change_member(
        &self,
        request: Request<pb::MemberChange>,
    ) -> Result<Response<pb::MemberChangeResponse>, Status> {
        let done = self.0.change_member(request.into_inner()).await;
        done.map(|done| Response::new(pb::MemberChangeResponse { done })).map_err(|error| status(&error.into()))
    }

    async fn backup(&self, _request: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let chunks = self.0.backup().await.map_err(|error| status(&error.into()))?;
        let chunks = chunks.map(|chunk| match chunk {
            Ok(data) => Ok(pb::BackupChunk { data }),
            Err(fault) => Err(Status::data_loss(fault.to_string())),
        });
        Ok(Response::new(chunks.boxed()))
    }
}

/// The header and the bytes of a push. Nothing is kept of more than a module may have.
async fn pushed(mut parts: Streaming<pb::ModulePushRequest>) -> Result<(pb::ModulePush, Vec<u8>), Status> {
    use pb::module_push_request::Part;
    let refuse = |why: String| status(&ServiceError::Module(why).into());
    let Some(Part::Header(header)) = piece(&mut parts).await?.and_then(|message| message.part) else {
        return Err(refuse("a push begins with its header".to_owned()));
    };
    if header.pushed_by.len() > PUSHED_BY_BYTES_MAX {
        return Err(refuse(format!("who pushes is said in at most {PUSHED_BY_BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    while let Some(message) = piece(&mut parts).await? {
        let Some(Part::Data(data)) = message.part else {
            return Err(refuse("a push is one header, and then data".to_owned()));
        };
        if bytes.len() + data.len() > MODULE_BYTES_MAX {
            return Err(refuse(format!(
                "the module has more than {MODULE_BYTES_MAX} bytes, which is the most there may be"
            )));
        }
        bytes.extend_from_slice(&data);
    }
    Ok((header, bytes))
}

async fn piece(parts: &mut Streaming<pb::ModulePushRequest>) -> Result<Option<pb::ModulePushRequest>, Status> {
    let message = tokio::time::timeout(PIECE, parts.message()).await;
    message.unwrap_or_else(|_| Err(status(&Failure::SlowRequest)))
}
