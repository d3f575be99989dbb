//! The operators' service, `balsa.admin.v1.Admin`: what the backend knows about the cluster.

use std::sync::Arc;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::call::Core;
use super::status::status;
use crate::proto::admin as pb;
use crate::proto::admin::admin_server::Admin;
pub(super) use crate::proto::admin::admin_server::{AdminServer, SERVICE_NAME as NAME};
use crate::proto::admin::{DeepCheckRequest, DeepCheckResponse, StatusRequest, StatusResponse};
use crate::service::Backend;

/// See the module's documentation.
pub(super) struct Operators<B>(pub(super) Arc<Core<B>>);

#[tonic::async_trait]
impl<B: Backend> Admin for Operators<B> {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.0.backend.status().await))
    }

    async fn deep_check(&self, request: Request<DeepCheckRequest>) -> Result<Response<DeepCheckResponse>, Status> {
        let checked = self.0.backend.deep_check(request.into_inner().min_index).await;
        checked.map(Response::new).map_err(|error| status(&error.into()))
    }

    type ModulePushStream = BoxStream<'static, Result<pb::ModulePushResponse, Status>>;
    type BackupStream = BoxStream<'static, Result<pb::BackupChunk, Status>>;

    async fn module_history(
        &self,
        _request: Request<pb::ModuleHistoryRequest>,
    ) -> Result<Response<pb::ModuleHistoryResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }

    async fn module_push(
        &self,
        _request: Request<Streaming<pb::ModulePushRequest>>,
    ) -> Result<Response<Self::ModulePushStream>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }

    async fn module_retry(
        &self,
        _request: Request<pb::ModuleRetryRequest>,
    ) -> Result<Response<pb::ModuleRetryResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }

    async fn module_drop(
        &self,
        _request: Request<pb::ModuleDropRequest>,
    ) -> Result<Response<pb::ModuleDropResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }

    async fn backup(&self, _request: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }
}
