//! The operators' service, `balsa.admin.v1.Admin`: what the backend knows about the cluster.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::call::Core;
use super::status::status;
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
}
