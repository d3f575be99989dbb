//! The answer of a query that streams.
//!
//! Until its first message is there, a stream is retried like any other query. After that it is what it is: another attempt might
//! read another state, and begin anew.

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::failure::in_mid_stream;
use super::{Call, Client, Error, attempt_timeout, raw};

/// Messages as they come. Dropping it tells the node to stop.
#[derive(Debug)]
pub struct Stream {
    opened: raw::Opened,
    deadline: Instant,
}

impl Stream {
    pub(super) async fn open(client: &Client, call: &Call) -> Result<Self, Error> {
        let whole = Instant::now() + client.options.timeout;
        let deadline = client.deadline.map_or(whole, |until| until.min(whole));
        let open = async |channel, _| raw::stream(channel, call, deadline.duration_since(Instant::now())).await;
        Ok(Self { opened: client.retry(None, attempt_timeout, open).await?, deadline })
    }

    /// Where in the log the query reads.
    pub fn index(&self) -> Option<u64> {
        self.opened.index
    }

    /// The next message, encoded; `None` at the end, if it ended well. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(first) = self.opened.first.take() {
            return Ok(Some(first));
        }
        match timeout_at(self.deadline, self.opened.rest.message()).await {
            Ok(next) => next.map_err(|status| in_mid_stream(&status)),
            Err(_) => Err(in_mid_stream(&Status::deadline_exceeded("it did not end in time"))),
        }
    }
}
