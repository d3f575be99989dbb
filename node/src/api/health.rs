//! `grpc.health.v1.Health`: whether clients should send calls to this node.
//!
//! The empty name is the node; every service that is served, the modules' and our own, has the node's health. A node that
//! is not ready is NOT_SERVING, so that load balancers and clients with health checking go elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::time::MissedTickBehavior;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
pub(super) use tonic_health::pb::health_server::{HealthServer, SERVICE_NAME as NAME};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::call::Core;
use crate::service::Backend;

/// How often a watched health is looked at: well below the seconds in which load balancers react.
const LOOK: Duration = Duration::from_millis(250);

/// See the module's documentation.
pub(super) struct Health<B>(pub(super) Arc<Core<B>>);

impl<B: Backend> Core<B> {
    /// `None`: there is no such service.
    fn health(&self, service: &str) -> Option<ServingStatus> {
        let known = service.is_empty() || super::reflection::OURS.contains(&service) || self.table().serves(service);
        known.then(|| if self.backend.ready() { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

#[tonic::async_trait]
impl<B: Backend> health_server::Health for Health<B> {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.0.health(&request.get_ref().service) {
            Some(status) => Ok(Response::new(HealthCheckResponse { status: status.into() })),
            None => Err(Status::not_found("no such service")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch { core: Arc::clone(&self.0), service, ticks, told: None };
        let stream =
            futures::stream::unfold(watch, |mut watch| async move { Some((Ok(watch.change().await?), watch)) });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// One client's watch of one service.
struct Watch<B> {
    core: Arc<Core<B>>,
    service: String,
    ticks: tokio::time::Interval,
    told: Option<ServingStatus>,
}

impl<B: Backend> Watch<B> {
    /// The next status that differs from the one told last; `None` when the server stops.
    async fn change(&mut self) -> Option<HealthCheckResponse> {
        loop {
            tokio::select! {
                _ = self.ticks.tick() => {}
                () = self.core.stopping.cancelled() => return self.farewell(),
            }
            let status = self.core.health(&self.service).unwrap_or(ServingStatus::ServiceUnknown);
            if self.told.replace(status) != Some(status) {
                return Some(HealthCheckResponse { status: status.into() });
            }
        }
    }

    /// A server that stops says so before it ends the stream.
    fn farewell(&mut self) -> Option<HealthCheckResponse> {
        let status = ServingStatus::NotServing;
        let news = self.told.replace(status) != Some(status);
        news.then(|| HealthCheckResponse { status: status.into() })
    }
}
