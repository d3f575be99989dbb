//! The response of a query that answers with a stream.
//!
//! Nothing is sent before the first message is there, or the end: so a stream that fails at once is told like any other failure,
//! and `balsa-index` always comes with the headers. After that the connection asks for more when it has room (HTTP/2's flow
//! control), and what it does not ask for stays with the query's thread, which waits. Small messages that are there already travel
//! in one frame, since a frame costs more than a small message does.
//!
//! The status comes in the trailers, with the same reasons and details as that of a unary call. A client that hangs up drops the
//! body, and with it the query.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::call::outcome;
use super::frame::{Framed, PREFIX_BYTES, ok_trailers, prefix};
use super::status::{Failure, status};
use super::watch::Watch;
use crate::service::ServiceError;
use crate::stream::{End, Event, Messages};

/// Messages are put together up to this: two HTTP/2 frames of the usual size.
const BATCH_BYTES: usize = 32 * 1024;
/// A larger message is not copied.
const SMALL_BYTES: usize = 4 * 1024;

/// A stream of which nothing was looked at yet.
pub(super) struct Begun(pub(super) Messages);

impl Begun {
    /// Waits for the first message, or for the end if that is a success; a failure is not for a stream to tell.
    pub(super) async fn first(
        self,
        watch: Watch,
        stopping: &CancellationToken,
    ) -> Result<StreamBody, (Failure, Watch)> {
        let Self(mut messages) = self;
        let first = tokio::select! {
            first = messages.next() => first,
            () = stopping.cancelled() => return Err((ServiceError::ShuttingDown.into(), watch)),
        };
        let next = match first {
            Some(Event::End(end)) => match failure(end) {
                Some(failure) => return Err((failure, watch)),
                None => Next::Trailers(ok_trailers()),
            },
            Some(Event::Message(message)) => Next::Message(message),
            None => Next::Nothing,
        };
        let code = tonic::Code::Ok;
        let stopping = Box::pin(stopping.clone().cancelled_owned());
        Ok(StreamBody { messages, next, code, watch, stopping })
    }
}

/// A body that is written as its query goes on.
#[derive(Debug)]
pub(crate) struct StreamBody {
    messages: Messages,
    next: Next,
    /// What the trailers say.
    code: tonic::Code,
    watch: Watch,
    /// The node stops: the stream ends then, and its client goes on at another node.
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What is written next.
#[derive(Debug)]
enum Next {
    Message(Bytes),
    Trailers(HeaderMap),
    /// Whatever comes.
    Unknown,
    /// The trailers are out.
    Nothing,
}

impl StreamBody {
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Framed>>> {
        match std::mem::replace(&mut self.next, Next::Unknown) {
            Next::Message(message) => Poll::Ready(Some(Frame::data(self.batch(message)))),
            Next::Trailers(trailers) => {
                self.next = Next::Nothing;
                self.watch.ended(self.code);
                Poll::Ready(Some(Frame::trailers(trailers)))
            }
            Next::Nothing => {
                self.next = Next::Nothing;
                Poll::Ready(None)
            }
            Next::Unknown if self.stopping.as_mut().poll(context).is_ready() => {
                self.next = Next::Trailers(self.trailers(Err(ServiceError::ShuttingDown)));
                self.poll_frame(context)
            }
            Next::Unknown => {
                self.next = match std::task::ready!(self.messages.poll_next(context)) {
                    Some(Event::Message(message)) => Next::Message(message),
                    Some(Event::End(end)) => Next::Trailers(self.trailers(end)),
                    None => Next::Nothing,
                };
                self.poll_frame(context)
            }
        }
    }

    pub(super) fn is_end(&self) -> bool {
        matches!(self.next, Next::Nothing)
    }

    fn trailers(&mut self, end: End) -> HeaderMap {
        let Some(failure) = failure(end) else { return ok_trailers() };
        let status = status(&failure);
        self.code = status.code();
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("`status` makes nothing that a header cannot hold");
        trailers
    }

    /// `message`, with the small ones behind it.
    fn batch(&mut self, message: Bytes) -> Framed {
        let more = if message.len() > SMALL_BYTES { None } else { self.messages.next_if_small(SMALL_BYTES) };
        let Some(more) = more else { return Framed::message(message) };
        let mut batch = BytesMut::with_capacity(BATCH_BYTES);
        put(&mut batch, &message);
        put(&mut batch, &more);
        while batch.len() + PREFIX_BYTES + SMALL_BYTES <= BATCH_BYTES {
            match self.messages.next_if_small(SMALL_BYTES) {
                Some(message) => put(&mut batch, &message),
                None => break,
            }
        }
        Framed::plain(batch.freeze())
    }
}

fn put(batch: &mut BytesMut, message: &Bytes) {
    batch.put_slice(&prefix(message));
    batch.put_slice(message);
}

fn failure(end: End) -> Option<Failure> {
    match end {
        Ok(executed) => outcome(executed).err(),
        Err(error) => Some(error.into()),
    }
}
