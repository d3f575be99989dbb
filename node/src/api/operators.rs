//! The back door: what operators are served, on the port for peers and on a Unix socket.
//!
//! There is no authentication yet, so that who may do what follows from which door can be reached: the socket has a file's
//! permissions, and the port for peers is one that a firewall or a NetworkPolicy closes to all but the nodes. What only reads
//! ([`admin`]) is served here too, so that an operator needs one door. Modules' methods are not.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tonic::codegen::Service;

use super::admin::{self, AdminServer, Inspector};
use super::call::{deadline, not_grpc, service, within};
use super::connection::Lifetime;
use super::frame::ReplyBody;
use super::operator::{self, Hand, OperatorServer};
use super::status::{Failure, status};
use super::{DRAIN, connection, drain, http2_settings, pause_after};
use crate::service::Backend;

/// Methods of `Operator` that were `Admin`'s before there were two: who is that old is told the same.
const MOVED: [&str; 4] = ["ModulePush", "ModuleRetry", "ModuleDrop", "Backup"];

/// Whether the method is one that clients are not served.
pub(super) fn is_only_theirs(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    match service(path) {
        operator::NAME => true,
        admin::NAME => MOVED.contains(&method),
        _ => false,
    }
}

/// Answers operators' requests. Clones share the backend.
#[derive(Clone)]
pub struct Operators<B: Backend> {
    admin: AdminServer<Inspector<B>>,
    operator: OperatorServer<Hand<B>>,
}

impl<B: Backend> std::fmt::Debug for Operators<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operators")
    }
}

impl<B: Backend> Operators<B> {
    /// Those of the node behind `backend`.
    pub fn new(backend: B) -> Self {
        Self { admin: AdminServer::new(Inspector(backend.clone())), operator: OperatorServer::new(Hand(backend)) }
    }

    pub(crate) async fn answer(mut self, request: Request<Incoming>) -> Response<ReplyBody> {
        if let Some(response) = not_grpc(&request) {
            return response;
        }
        let deadline = match deadline(request.headers()) {
            Ok(deadline) => deadline,
            Err(invalid) => return refusal(&invalid),
        };
        let answered = match service(request.uri().path()) {
            admin::NAME => within(deadline, self.admin.call(request)).await,
            operator::NAME => within(deadline, self.operator.call(request)).await,
            _ => return refusal(&unknown(request.uri().path())),
        };
        match answered {
            Ok(Ok(response)) => response.map(ReplyBody::Tonic),
            Ok(Err(never)) => match never {},
            Err(failure) => refusal(&failure),
        }
    }
}

fn unknown(path: &str) -> Failure {
    let (admin, operator) = (admin::NAME, operator::NAME);
    Failure::NoSuchMethod(format!(
        "{path} is not served here, where operators call ({admin}, {operator}); clients are served on client_addr"
    ))
}

fn refusal(failure: &Failure) -> Response<ReplyBody> {
    status(failure).into_http()
}

/// Serves operators on `listener` until `shutdown`, then lets running calls end.
pub async fn serve_socket<B: Backend>(
    listener: &UnixListener,
    operators: Operators<B>,
    shutdown: impl Future<Output = ()>,
) {
    let lifetime = Lifetime::default();
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let operators = operators.clone();
                    let answer = move |request| {
                        let operators = operators.clone();
                        async move { Ok::<_, Infallible>(operators.answer(request).await) }
                    };
                    connections.spawn(connection::serve(stream, http2_settings(), answer, lifetime.clone()));
                }
                Err(error) => pause_after(&error).await,
            },
        }
    }
    lifetime.stopping.cancel();
    drain(connections, DRAIN).await;
}
