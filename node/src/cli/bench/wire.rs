//! Unary gRPC on bare HTTP/2: as little work for a request as there can be.
//!
//! A request is a HEADERS frame made from a template and one DATA frame made beforehand. Of a response only the status is
//! looked at; the message is counted for flow control and dropped.

use std::cell::RefCell;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;

use crate::client::{CONNECT_TIMEOUT, Endpoint, Read};
use crate::command::code_name;

/// Room for what 1000 requests in flight may be sent back at once, and for a window that is never what is waited for.
const WINDOW_BYTES: u32 = 16 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said so.
    #[error("{code}: {message}", code = code_name(*.code))]
    Status {
        /// gRPC code.
        code: Code,
        /// In words.
        message: String,
    },
    /// Not gRPC.
    #[error("HTTP status {0}")]
    Http(StatusCode),
    /// No answer.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The connection is gone.
    #[error("the connection broke: {0}")]
    Broken(#[from] h2::Error),
    /// There is no connection.
    #[error("{0}")]
    Connect(#[from] std::io::Error),
}

impl Error {
    /// What to count it under.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Status { code, .. } => code_name(*code),
            Self::Http(_) => "HTTP_ERROR",
            Self::Silent(_) => "NO_ANSWER",
            Self::Broken(_) | Self::Connect(_) => "CONNECTION_LOST",
        }
    }
}

/// A message with gRPC's five bytes before it.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a request is at most about 1 MiB"));
    frame.extend_from_slice(message);
    frame.freeze()
}

/// The head of all requests to one method.
#[derive(Debug, Clone)]
pub(super) struct Template {
    uri: Uri,
    headers: HeaderMap,
}

/// One HTTP/2 connection, shared by several workers of one thread.
pub(super) struct Connection {
    endpoint: Endpoint,
    sender: RefCell<SendRequest<Bytes>>,
}

impl Connection {
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let sender = RefCell::new(handshake(endpoint).await?);
        Ok(Self { endpoint: endpoint.clone(), sender })
    }

    /// Connects again, unless another worker has done so already.
    pub(super) async fn reopen(&self) -> Result<(), Error> {
        let current = self.sender.borrow().clone();
        if current.ready().await.is_err() {
            let fresh = handshake(&self.endpoint).await?;
            *self.sender.borrow_mut() = fresh;
        }
        Ok(())
    }

    pub(super) fn template(&self, path: &str, read: Read) -> Template {
        let uri = format!("{}{path}", self.endpoint.uri()).parse().expect("an endpoint and a path make a URI");
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-timeout", HeaderValue::from_static("10S"));
        if read != Read::Linearizable {
            headers.insert("balsa-consistency", HeaderValue::from_static("stale"));
        }
        Template { uri, headers }
    }

    /// Sends one request and waits for its end.
    pub(super) async fn call(
        &self,
        template: &Template,
        idempotency_key: Option<String>,
        frame: Bytes,
        limit: Duration,
    ) -> Result<(), Error> {
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        *head.version_mut() = Version::HTTP_2;
        *head.uri_mut() = template.uri.clone();
        *head.headers_mut() = template.headers.clone();
        if let Some(key) = idempotency_key {
            let key = HeaderValue::try_from(key).expect("a UUID is printable ASCII");
            head.headers_mut().insert("idempotency-key", key);
        }
        let sender = self.sender.borrow().clone();
        let exchange = async {
            let (response, mut body) = sender.ready().await?.send_request(head, false)?;
            body.send_data(frame, true)?;
            finish(response).await
        };
        timeout(limit, exchange).await.unwrap_or(Err(Error::Silent(limit)))
    }
}

async fn handshake(endpoint: &Endpoint) -> Result<SendRequest<Bytes>, Error> {
    let connect = async {
        let stream = TcpStream::connect(endpoint.to_string()).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
        let (sender, connection) = builder.handshake(stream).await?;
        // Its error reaches every request that is in flight.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    };
    timeout(CONNECT_TIMEOUT, connect).await.unwrap_or(Err(Error::Silent(CONNECT_TIMEOUT)))
}

/// Reads the response to its end, for its status.
async fn finish(response: ResponseFuture) -> Result<(), Error> {
    let (head, mut body) = response.await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Error::Http(head.status));
    }
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    // An error without a message comes in the head.
    match body.trailers().await? {
        Some(trailers) => status(&trailers),
        None => status(&head.headers),
    }
}

fn status(headers: &HeaderMap) -> Result<(), Error> {
    let code = headers.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
    if code == Code::Ok {
        return Ok(());
    }
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok());
    Err(Error::Status { code, message: message.unwrap_or_default().to_owned() })
}
