//! `balsa.admin.v1.Admin`: what the backend knows about the cluster. It changes nothing.

use prost::Message;
use tonic::{Request, Response, Status};

use super::status::status;
use crate::limits::RESULT_BYTES_MAX;
use crate::proto::admin as pb;
use crate::proto::admin::admin_server::Admin;
pub(super) use crate::proto::admin::admin_server::{AdminServer, SERVICE_NAME as NAME};
use crate::proto::admin::{DeepCheckRequest, DeepCheckResponse, StatusRequest, StatusResponse};
use crate::proto::command::Activation;
use crate::service::Backend;

/// See the module's documentation.
pub(super) struct Inspector<B>(pub(super) B);

#[tonic::async_trait]
impl<B: Backend> Admin for Inspector<B> {
    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.0.status().await))
    }

    async fn deep_check(&self, request: Request<DeepCheckRequest>) -> Result<Response<DeepCheckResponse>, Status> {
        let checked = self.0.deep_check(request.into_inner().index).await;
        checked.map(Response::new).map_err(|error| status(&error.into()))
    }

    async fn module_history(
        &self,
        request: Request<pb::ModuleHistoryRequest>,
    ) -> Result<Response<pb::ModuleHistoryResponse>, Status> {
        let name = Some(request.into_inner().name).filter(|name| !name.is_empty());
        let activations = self.0.module_history(name).await.map_err(|error| status(&error.into()))?;
        Ok(Response::new(pb::ModuleHistoryResponse { activations: newest(activations) }))
    }

    async fn members(&self, _request: Request<pb::MembersRequest>) -> Result<Response<pb::MembersResponse>, Status> {
        Ok(Response::new(self.0.members().await))
    }
}

/// As many of the last rows as one message holds.
fn newest(mut rows: Vec<Activation>) -> Vec<Activation> {
    /// Tag and length of a row.
    const FRAMING_BYTES: usize = 8;
    let mut room = RESULT_BYTES_MAX;
    let first_left_out = rows.iter().rposition(|row| {
        let fits = room.checked_sub(row.encoded_len() + FRAMING_BYTES);
        room = fits.unwrap_or(0);
        fits.is_none()
    });
    rows.split_off(first_left_out.map_or(0, |at| at + 1))
}
