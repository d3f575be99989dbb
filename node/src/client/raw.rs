//! Calls of bytes: the messages are encoded and decoded by whoever knows their schema.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::{Call, Kind, Read, Reply};

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends `call` once.
pub(super) async fn unary(channel: Channel, call: &Call, timeout: Duration) -> Result<Reply, Status> {
    let (mut grpc, path) = ready(channel, call).await?;
    grpc.unary(request(call, timeout)?, path, RawCodec).await.map(reply)
}

/// Sends `call`, whose answer is a stream, once; waits for its first message, or for its end. All of it may take `whole`.
pub(super) async fn stream(channel: Channel, call: &Call, whole: Duration) -> Result<Opened, Status> {
    let (mut grpc, path) = ready(channel, call).await?;
    let response = grpc.server_streaming(request(call, whole)?, path, RawCodec).await?;
    let index = index(response.metadata());
    let mut rest = response.into_inner();
    let first = rest.message().await?;
    Ok(Opened { index, first, rest })
}

async fn ready(channel: Channel, call: &Call) -> Result<(Grpc<Channel>, PathAndQuery), Status> {
    let path = PathAndQuery::try_from(&call.path)
        .map_err(|_| Status::unimplemented(format!("'{}' is not a method's path", call.path)))?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    Ok((grpc, path))
}

/// A stream whose first message is here.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) index: Option<u64>,
    pub(super) first: Option<Bytes>,
    pub(super) rest: Streaming<Bytes>,
}

fn request(call: &Call, timeout: Duration) -> Result<Request<Bytes>, Status> {
    let mut request = Request::new(call.request.clone());
    request.set_timeout(timeout);
    let metadata = request.metadata_mut();
    match &call.kind {
        Kind::Command { key } => {
            let key = AsciiMetadataValue::try_from(key)
                .map_err(|_| Status::invalid_argument("an idempotency key is printable ASCII"))?;
            metadata.insert("idempotency-key", key);
        }
        Kind::Query(Read::Linearizable) => {}
        Kind::Query(Read::Stale { min_index }) => {
            metadata.insert("balsa-consistency", AsciiMetadataValue::from_static("stale"));
            if *min_index > 0 {
                metadata.insert("balsa-min-index", AsciiMetadataValue::from(*min_index));
            }
        }
    }
    Ok(request)
}

fn reply(response: Response<Bytes>) -> Reply {
    let metadata = response.metadata();
    Reply {
        index: index(metadata),
        replayed: replayed(metadata),
        node: text(metadata, "balsa-node").map(str::to_owned),
        message: response.into_inner(),
    }
}

/// `balsa-index`: in the initial metadata of a reply, in the trailers of an error.
pub(super) fn index(metadata: &MetadataMap) -> Option<u64> {
    text(metadata, "balsa-index")?.parse().ok()
}

/// `balsa-replayed`, in the same places.
pub(super) fn replayed(metadata: &MetadataMap) -> bool {
    text(metadata, "balsa-replayed") == Some("true")
}

/// A metadata value that is text.
pub(super) fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name)?.to_str().ok()
}
