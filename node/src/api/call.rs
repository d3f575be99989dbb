//! One request, from its headers to its response.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;

use super::Options;
use super::admin::{AdminServer, Inspector};
use super::detach::Detached;
use super::frame::{self, Budget, ReplyBody};
use super::health::{Health, HealthServer};
use super::metadata::{Metadata, is_grpc};
use super::operators;
use super::reflection::{Reflection, v1, v1alpha};
use super::routes::{Route, Routes, Table};
use super::status::{Failure, status};
use super::stream::Begun;
use super::watch::Watch;
use crate::command::Outcome;
use crate::limits::{METHOD_BYTES_MAX, RESULT_BYTES_MAX};
use crate::service::{Backend, Execute, Executed, Query, ServiceError, Streaming};
use crate::traces::{Parent, Traces};
use crate::wasm::MethodKind;

/// How long a request message may take to arrive, whatever the client's deadline: the largest one over a 1 Mbit/s line
/// takes eleven seconds, and until then it holds memory.
const RECEIVE: Duration = Duration::from_secs(30);

const BALSA_INDEX: HeaderName = HeaderName::from_static("balsa-index");
const BALSA_NODE: HeaderName = HeaderName::from_static("balsa-node");
const BALSA_REPLAYED: HeaderName = HeaderName::from_static("balsa-replayed");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The backend and the routes of its current catalog: what all services need.
pub(super) struct Core<B> {
    pub(super) backend: B,
    routes: Routes,
    pub(super) stopping: CancellationToken,
}

impl<B: Backend> Core<B> {
    pub(super) fn table(&self) -> Arc<Table> {
        self.routes.table(&self.backend.catalog())
    }

    fn route(&self, path: &str) -> Option<Arc<Route>> {
        self.routes.route(&self.backend.catalog(), path)
    }
}

/// Answers requests. One for all connections.
pub(super) struct Front<B: Backend> {
    core: Arc<Core<B>>,
    budget: Budget,
    node: HeaderValue,
    unknown_methods: Counter,
    traces: Traces,
    health: HealthServer<Health<B>>,
    reflection: v1::ServerReflectionServer<Reflection<B>>,
    reflection_alpha: v1alpha::ServerReflectionServer<Reflection<B>>,
    admin: AdminServer<Inspector<B>>,
}

impl<B: Backend> Front<B> {
    pub(super) fn new(backend: B, options: &Options, stopping: CancellationToken) -> Self {
        let node = HeaderValue::from_str(backend.node_name()).unwrap_or(HeaderValue::from_static("unnamed"));
        let unknown_methods = options.metrics.unknown_methods.clone();
        let routes = Routes::new(backend.catalog(), Arc::clone(&options.metrics));
        let core = Arc::new(Core { backend, routes, stopping });
        Self {
            health: HealthServer::new(Health(Arc::clone(&core))),
            reflection: v1::ServerReflectionServer::new(Reflection(Arc::clone(&core))),
            reflection_alpha: v1alpha::ServerReflectionServer::new(Reflection(Arc::clone(&core))),
            admin: AdminServer::new(Inspector(core.backend.clone())),
            budget: Budget::default(),
            node,
            unknown_methods,
            traces: options.traces.clone(),
            core,
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        if let Some(response) = not_grpc(&request) {
            return response;
        }
        if let Some(route) = self.core.route(request.uri().path()) {
            return self.call(&route, request).await;
        }
        if request.uri().path().starts_with("/grpc.") || request.uri().path().starts_with("/balsa.") {
            return self.own(request).await;
        }
        self.look_again(request).await
    }

    /// The path may belong to a module that was activated a moment ago, through another node.
    async fn look_again(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let path = request.uri().path();
        if path.len() > METHOD_BYTES_MAX {
            self.unknown_methods.inc();
            return self.refusal(&Failure::NoSuchMethod("the path is longer than a method's can be".to_owned()), None);
        }
        if let Err(error) = self.refresh(request.headers()).await {
            return self.refusal(&error, None);
        }
        match self.core.route(path) {
            Some(route) => self.call(&route, request).await,
            None => self.refusal(&self.unknown(path), None),
        }
    }

    async fn refresh(&self, headers: &HeaderMap) -> Result<(), Failure> {
        Ok(within(deadline(headers)?, self.core.backend.refresh()).await??)
    }

    fn unknown(&self, path: &str) -> Failure {
        self.unknown_methods.inc();
        let table = self.core.table();
        if table.is_empty() { ServiceError::NoModule.into() } else { Failure::NoSuchMethod(table.no_such_method(path)) }
    }

    /// A method of a module.
    async fn call(&self, route: &Arc<Route>, request: Request<Incoming>) -> Response<ReplyBody> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let span = self.traces.call(&route.path, &head.headers, started.into_std());
        let watch = Watch::new(Arc::clone(route), started, span);
        match route.streaming {
            true => self.stream(route, &head.headers, body, started, watch).await,
            false => self.unary(route, &head.headers, body, started, watch).await,
        }
    }

    async fn unary(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Incoming,
        started: Instant,
        mut watch: Watch,
    ) -> Response<ReplyBody> {
        let executed = match self.run(route, headers, body, started, watch.trace()).await {
            Ok(executed) => executed,
            Err(failure) => return self.trailers_only(status_of(&failure, watch), None),
        };
        let told = Told { index: executed.index, replayed: executed.replayed };
        watch.at(told.index, told.replayed);
        match outcome(executed) {
            Ok(message) => {
                watch.ended(tonic::Code::Ok);
                self.success(ReplyBody::Message(message), told)
            }
            Err(failure) => self.trailers_only(status_of(&failure, watch), Some(told)),
        }
    }

    /// A query that answers with a stream. Its headers leave with the first message; a failure before that is trailers only.
    async fn stream(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Incoming,
        started: Instant,
        mut watch: Watch,
    ) -> Response<ReplyBody> {
        let (told, begun) = match self.begin_stream(route, headers, body, started).await {
            Ok(begun) => begun,
            Err(failure) => return self.trailers_only(status_of(&failure, watch), None),
        };
        watch.at(told.index, told.replayed);
        match begun.first(watch, &self.core.stopping).await {
            Ok(body) => self.success(ReplyBody::Stream(Box::new(body)), told),
            Err((failure, watch)) => self.trailers_only(status_of(&failure, watch), Some(told)),
        }
    }

    async fn begin_stream(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Incoming,
        started: Instant,
    ) -> Result<(Told, Begun), Failure> {
        let metadata = Metadata::read(headers)?;
        metadata.check_encoding()?;
        let deadline = metadata.timeout()?.and_then(|timeout| started.checked_add(timeout));
        let consistency = metadata.consistency()?;
        let mut charge = self.budget.charge();
        let request = receive(frame::read(body, &mut charge), started, deadline).await?;
        let query =
            Query { method: route.path.clone(), request, consistency, deadline: deadline.map(Instant::into_std) };
        let Streaming { index, messages } = within(deadline, self.core.backend.query_stream(query)).await??;
        Ok((Told { index, replayed: false }, Begun(messages)))
    }

    async fn run(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Incoming,
        started: Instant,
        trace: Option<Parent>,
    ) -> Result<Executed, Failure> {
        let metadata = Metadata::read(headers)?;
        metadata.check_encoding()?;
        let deadline = metadata.timeout()?.and_then(|timeout| started.checked_add(timeout));
        match route.kind {
            MethodKind::Command => {
                let key = metadata.key()?;
                let mut charge = self.budget.charge();
                let request = receive(frame::read(body, &mut charge), started, deadline).await?;
                let deadline_std = deadline.map(Instant::into_std);
                let command = Execute { method: route.path.clone(), request, key, deadline: deadline_std, trace };
                let backend = self.core.backend.clone();
                within(deadline, Detached::new(async move { backend.execute(command).await })).await?
            }
            MethodKind::Query => {
                let consistency = metadata.consistency()?;
                let mut charge = self.budget.charge();
                let request = receive(frame::read(body, &mut charge), started, deadline).await?;
                let deadline_std = deadline.map(Instant::into_std);
                let query = Query { method: route.path.clone(), request, consistency, deadline: deadline_std };
                within(deadline, self.core.backend.query(query)).await?
            }
        }
        .map_err(Failure::from)
    }

    fn success(&self, body: ReplyBody, told: Told) -> Response<ReplyBody> {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.reserve(4);
        headers.insert(http::header::CONTENT_TYPE, GRPC);
        self.tell(headers, Some(told));
        response
    }

    fn refusal(&self, failure: &Failure, told: Option<Told>) -> Response<ReplyBody> {
        self.trailers_only(status(failure), told)
    }

    /// A response that is its trailers: HTTP/2 sends them as its only headers.
    fn trailers_only(&self, status: tonic::Status, told: Option<Told>) -> Response<ReplyBody> {
        let mut response = status.into_http::<ReplyBody>();
        self.tell(response.headers_mut(), told);
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        response
    }

    fn tell(&self, headers: &mut HeaderMap, told: Option<Told>) {
        headers.insert(BALSA_NODE, self.node.clone());
        let Some(told) = told else { return };
        headers.insert(BALSA_INDEX, HeaderValue::from(told.index));
        if told.replayed {
            headers.insert(BALSA_REPLAYED, HeaderValue::from_static("true"));
        }
    }

    /// Services that every node has, whatever its modules. A module cannot have their names.
    async fn own(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let deadline = match deadline(request.headers()) {
            Ok(deadline) => deadline,
            Err(invalid) => return self.refusal(&invalid, None),
        };
        let path = request.uri().path();
        if operators::is_only_theirs(path) {
            return self.refusal(&Failure::OperatorsOnly, None);
        }
        let answered = match service(path) {
            super::health::NAME => within(deadline, self.health.clone().call(request)).await,
            super::reflection::V1 => within(deadline, self.reflection.clone().call(request)).await,
            super::reflection::V1ALPHA => within(deadline, self.reflection_alpha.clone().call(request)).await,
            super::admin::NAME => within(deadline, self.admin.clone().call(request)).await,
            _ => return self.refusal(&self.unknown(path), None),
        };
        match answered {
            Ok(Ok(response)) => response.map(ReplyBody::Tonic),
            Ok(Err(never)) => match never {},
            Err(failure) => self.refusal(&failure, None),
        }
    }
}

/// The message of a success, or the failure that the outcome is.
pub(super) fn outcome(executed: Executed) -> Result<Bytes, Failure> {
    match executed.outcome {
        Outcome::Ok(message) if message.len() <= RESULT_BYTES_MAX => Ok(message),
        Outcome::Ok(message) => Err(Failure::ResultTooLarge(message.len())),
        Outcome::Status(guest) => Err(Failure::Guest(guest)),
        Outcome::Trap(class) => Err(Failure::Trap { class, detail: executed.trap_detail }),
        Outcome::Refused(refusal) => Err(Failure::Refused(refusal)),
    }
}

/// The status of a call that failed, which is noted.
fn status_of(failure: &Failure, mut watch: Watch) -> tonic::Status {
    let status = status(failure);
    watch.ended(status.code());
    status
}

/// What a reply tells beside its message.
#[derive(Debug, Clone, Copy)]
struct Told {
    index: u64,
    replayed: bool,
}

/// The request message, unless it takes too long.
async fn receive(
    reading: impl Future<Output = Result<Bytes, frame::Fault>>,
    started: Instant,
    deadline: Option<Instant>,
) -> Result<Bytes, Failure> {
    let mut reading = std::pin::pin!(reading);
    // The message of most calls came with their headers: no need for a timer then.
    if let Poll::Ready(message) = futures::poll!(reading.as_mut()) {
        return Ok(message?);
    }
    let patience = started + RECEIVE;
    match timeout_at(deadline.map_or(patience, |deadline| deadline.min(patience)), reading).await {
        Ok(message) => Ok(message?),
        Err(_) => Err(Failure::SlowRequest),
    }
}

/// When the client stops waiting, by what it says in `headers`.
pub(super) fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Failure> {
    Ok(Metadata::read(headers)?.timeout()?.and_then(|timeout| Instant::now().checked_add(timeout)))
}

/// Of `/package.Service/Method`, the service.
pub(super) fn service(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default()
}

/// What `work` comes to, unless the deadline passes first. A deadline that has passed already starts nothing.
pub(super) async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Failure> {
    let Some(deadline) = deadline else { return Ok(work.await) };
    if deadline <= Instant::now() {
        return Err(ServiceError::Deadline.into());
    }
    timeout_at(deadline, work).await.map_err(|_| ServiceError::Deadline.into())
}

/// The answer to what is no call at all.
pub(super) fn not_grpc<T>(request: &Request<T>) -> Option<Response<ReplyBody>> {
    if request.method() != Method::POST {
        return Some(plain(StatusCode::METHOD_NOT_ALLOWED, "This is a gRPC port: every call is a POST.\n"));
    }
    let text = "This is a gRPC port: the content type must be application/grpc or application/grpc+proto.\n";
    (!is_grpc(request.headers())).then(|| plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}

fn plain(code: StatusCode, text: &'static str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Text(text));
    *response.status_mut() = code;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}
