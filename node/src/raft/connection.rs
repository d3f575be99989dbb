//! A connection that is given up when it leads to another node than the one that is meant.
//!
//! An address changes hands: two pods start anew, and each gets the address that the other had. A connection to it does not break, since
//! somebody answers, so it would lead to the wrong node for ever. What tells is the refusal (see [`Peers::admit`]); the next call then
//! makes a new connection, and asks DNS again.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::{Channel, Error};
use tonic::{Code, Status};
use tower::Service;

use super::peers::Peers;

/// A channel to an address, for one client.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(super) channel: Channel,
    pub(super) addr: String,
    pub(super) peers: Peers,
}

/// No method of the peer service but `Adopt` answers FAILED_PRECONDITION for another reason than that the request is for somebody
/// else, or for another cluster; and to ask once more who is there does no harm while a cluster begins.
fn is_for_another(response: &Response<Body>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::FailedPrecondition)
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.channel.call(request);
        let (peers, addr) = (self.peers.clone(), self.addr.clone());
        Box::pin(async move {
            let response = call.await?;
            if is_for_another(&response) {
                peers.forget(&addr);
            }
            Ok(response)
        })
    }
}
