//! Messages on the wire: one length-prefixed gRPC message in, one out.
//!
//! A unary call's body is five bytes (a compression flag and a big-endian length) and the message. Done here and not by
//! tonic's codecs, because the hot path needs neither decoding nor boxed streams: a request that arrives in one DATA frame
//! is passed on as a slice of that frame's buffer, and a reply is written from the buffer it came in.
//!
//! Limits are checked against the *declared* length as soon as it is known, so nothing that is too large is ever collected,
//! and every collected byte is charged to a [`Budget`] shared by all calls of the node.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::BodyExt;

use super::stream::StreamBody;
use crate::limits::{PENDING_BYTES_MAX, REQUEST_BYTES_MAX};

/// Flag and length before a message.
pub(super) const PREFIX_BYTES: usize = 5;

/// Why a body is not one request message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("the request message is compressed; this server takes identity encoding only")]
    Compressed,
    #[error("the request message starts with flag {0}, which gRPC does not define")]
    BadFlag(u8),
    #[error("the request message has {0} bytes, above the limit of {REQUEST_BYTES_MAX}")]
    TooLarge(usize),
    #[error("the request body ends before its message does")]
    Truncated,
    #[error("the request body holds more than the one message of a unary call")]
    MoreThanOne,
    #[error("the request body could not be read to its end")]
    Broken,
    #[error("too many bytes of requests are being held")]
    Overloaded,
}

/// Bytes of requests that may be held at one time, over all connections.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicUsize);

/// What one call holds of the budget; given back on drop.
#[derive(Debug)]
pub(super) struct Charge<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn charge(&self) -> Charge<'_> {
        Charge { budget: self, bytes: 0 }
    }
}

impl Charge<'_> {
    fn add(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes += bytes;
        let before = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > PENDING_BYTES_MAX { Err(Fault::Overloaded) } else { Ok(()) }
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads the one message of a unary request.
pub(super) async fn read<B: Body<Data = Bytes> + Unpin>(mut body: B, charge: &mut Charge<'_>) -> Result<Bytes, Fault> {
    let mut message = Assembler::default();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        // A frame of trailers has no meaning in a request.
        let Ok(chunk) = frame.map_err(|_| Fault::Broken)?.into_data() else { continue };
        charge.add(chunk.len())?;
        message.push(chunk)?;
    }
    message.finish()
}

/// Puts a message together from the chunks it arrives in. Pure: it never waits.
#[derive(Debug, Default)]
struct Assembler {
    /// Everything so far, prefix included.
    held: Held,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// The first chunk, shared with the connection's read buffer.
    One(Bytes),
    /// Copied together, because there was more than one.
    Many(BytesMut),
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::One(chunk) => chunk,
            Self::Many(buffer) => buffer,
        }
    }
}

impl Assembler {
    fn push(&mut self, chunk: Bytes) -> Result<(), Fault> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.held = match std::mem::take(&mut self.held) {
            Held::Nothing => Held::One(chunk),
            Held::One(first) => {
                let known = declared(&first)?.unwrap_or(0) + PREFIX_BYTES;
                let mut buffer = BytesMut::with_capacity(known.max(first.len() + chunk.len()));
                buffer.put(first);
                buffer.put(chunk);
                Held::Many(buffer)
            }
            Held::Many(mut buffer) => {
                buffer.put(chunk);
                Held::Many(buffer)
            }
        };
        self.check()
    }

    fn check(&self) -> Result<(), Fault> {
        let held = self.held.bytes();
        match declared(held)? {
            Some(length) if held.len() > PREFIX_BYTES + length => Err(Fault::MoreThanOne),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Bytes, Fault> {
        let held = match self.held {
            Held::Nothing => Bytes::new(),
            Held::One(chunk) => chunk,
            Held::Many(buffer) => buffer.freeze(),
        };
        match declared(&held)? {
            Some(length) if held.len() == PREFIX_BYTES + length => Ok(held.slice(PREFIX_BYTES..)),
            _ => Err(Fault::Truncated),
        }
    }
}

/// The length that a prefix declares; `None` as long as the prefix is incomplete.
fn declared(held: &[u8]) -> Result<Option<usize>, Fault> {
    match held.first() {
        None | Some(0) => {}
        Some(1) => return Err(Fault::Compressed),
        Some(&flag) => return Err(Fault::BadFlag(flag)),
    }
    let Some(length) = held.get(1..PREFIX_BYTES) else { return Ok(None) };
    let length = u32::from_be_bytes(length.try_into().expect("a slice of four bytes")) as usize;
    if length > REQUEST_BYTES_MAX { Err(Fault::TooLarge(length)) } else { Ok(Some(length)) }
}

/// A message with its prefix, without copying the message.
#[derive(Debug)]
pub(crate) struct Framed {
    prefix: [u8; PREFIX_BYTES],
    /// How much of the prefix is written.
    at: usize,
    message: Bytes,
}

impl Framed {
    pub(super) fn message(message: Bytes) -> Self {
        Self { prefix: prefix(&message), at: 0, message }
    }

    /// Bytes that carry their framing already.
    pub(super) fn plain(bytes: Bytes) -> Self {
        Self { prefix: [0; PREFIX_BYTES], at: PREFIX_BYTES, message: bytes }
    }
}

/// What goes before `message`.
pub(super) fn prefix(message: &Bytes) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    let length = u32::try_from(message.len()).expect("a result is checked against its limit, which is below 4 GiB");
    prefix[1..].copy_from_slice(&length.to_be_bytes());
    prefix
}

impl Buf for Framed {
    fn remaining(&self) -> usize {
        PREFIX_BYTES - self.at + self.message.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.at < PREFIX_BYTES { &self.prefix[self.at..] } else { &self.message }
    }

    fn advance(&mut self, count: usize) {
        let of_prefix = count.min(PREFIX_BYTES - self.at);
        self.at += of_prefix;
        self.message.advance(count - of_prefix);
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let parts = [&self.prefix[self.at..], &self.message[..]];
        let mut count = 0;
        for (slot, part) in slices.iter_mut().zip(parts.into_iter().filter(|part| !part.is_empty())) {
            *slot = std::io::IoSlice::new(part);
            count += 1;
        }
        count
    }
}

/// The body of a response.
#[derive(Debug, Default)]
pub(crate) enum ReplyBody {
    /// Nothing (any more): a trailers-only response, or the end.
    #[default]
    Empty,
    /// A module's response message, then `grpc-status: 0`.
    Message(Bytes),
    /// The message is out.
    Trailers,
    /// A sentence, for those who do not speak gRPC.
    Text(&'static str),
    /// A module's messages as they come, then how they end; boxed, since every other reply would be as large.
    Stream(Box<StreamBody>),
    /// One of tonic's own services.
    Tonic(tonic::body::Body),
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl Body for ReplyBody {
    type Data = Framed;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Framed>, tonic::Status>>> {
        if let Self::Tonic(body) = &mut *self {
            return Pin::new(body).poll_frame(context).map_ok(|frame| frame.map_data(Framed::plain));
        }
        if let Self::Stream(body) = &mut *self {
            return body.poll_frame(context).map(|frame| frame.map(Ok));
        }
        let (next, frame) = match std::mem::take(&mut *self) {
            Self::Message(message) => (Self::Trailers, Frame::data(Framed::message(message))),
            Self::Trailers => (Self::Empty, Frame::trailers(ok_trailers())),
            Self::Text(text) => (Self::Empty, Frame::data(Framed::plain(Bytes::from_static(text.as_bytes())))),
            Self::Empty | Self::Stream(_) | Self::Tonic(_) => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Tonic(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end(),
            Self::Message(_) | Self::Trailers | Self::Text(_) => false,
        }
    }
}

pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut buffer = Framed::message(Bytes::copy_from_slice(message));
        buffer.copy_to_bytes(buffer.remaining()).to_vec()
    }

    fn assemble<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Bytes, Fault> {
        let mut assembler = Assembler::default();
        for chunk in chunks {
            assembler.push(Bytes::copy_from_slice(chunk))?;
        }
        assembler.finish()
    }

    #[test]
    fn a_message_in_one_chunk_is_not_copied() {
        let chunk = Bytes::from(framed(b"balsa"));
        let mut assembler = Assembler::default();
        assembler.push(chunk.clone()).unwrap();
        let message = assembler.finish().unwrap();
        assert_eq!(message.as_ptr(), chunk[PREFIX_BYTES..].as_ptr());
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        assert_eq!(assemble([]), Err(Fault::Truncated));
        assert_eq!(assemble([&b"\0\0\0"[..]]), Err(Fault::Truncated));
        assert_eq!(assemble([&b"\0\0\0\0\x02a"[..]]), Err(Fault::Truncated));
        assert_eq!(assemble([&b"\0\0\0\0\x01ab"[..]]), Err(Fault::MoreThanOne));
        assert_eq!(assemble([&b"\x01\0\0\0\x01a"[..]]), Err(Fault::Compressed));
        assert_eq!(assemble([&b"\x02"[..]]), Err(Fault::BadFlag(2)));
        assert_eq!(assemble([&b"\0\xff\xff\xff\xff"[..]]), Err(Fault::TooLarge(u32::MAX as usize)));
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_refused_before_it_arrives() {
        let largest = vec![7; REQUEST_BYTES_MAX];
        assert_eq!(assemble([&framed(&largest)[..]]).unwrap(), largest);
        let prefix = &framed(&vec![7; REQUEST_BYTES_MAX + 1])[..PREFIX_BYTES];
        let mut assembler = Assembler::default();
        assert_eq!(
            assembler.push(Bytes::copy_from_slice(prefix)),
            Err(Fault::TooLarge(REQUEST_BYTES_MAX + 1)),
            "five bytes are enough to refuse"
        );
    }

    #[test]
    fn the_budget_refuses_what_is_above_it_and_gets_everything_back() {
        let budget = Budget::default();
        let mut first = budget.charge();
        first.add(PENDING_BYTES_MAX).unwrap();
        assert_eq!(budget.charge().add(1), Err(Fault::Overloaded));
        drop(first);
        assert_eq!(budget.charge().add(PENDING_BYTES_MAX), Ok(()));
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn a_message_survives_any_chunking(message in prop::collection::vec(any::<u8>(), 0..300), cut in 1usize..40) {
            let wire = framed(&message);
            prop_assert_eq!(assemble(wire.chunks(cut)).unwrap(), message);
        }

        #[test]
        fn random_bytes_never_panic(wire in prop::collection::vec(any::<u8>(), 0..64), cut in 1usize..8) {
            let _ = assemble(wire.chunks(cut));
        }

        #[test]
        fn a_frame_can_be_written_in_any_steps(message in prop::collection::vec(any::<u8>(), 0..64), step in 1usize..9) {
            let mut buffer = Framed::message(Bytes::copy_from_slice(&message));
            let mut written = Vec::new();
            while buffer.has_remaining() {
                let count = step.min(buffer.chunk().len());
                written.extend_from_slice(&buffer.chunk()[..count]);
                buffer.advance(count);
            }
            prop_assert_eq!(&written[PREFIX_BYTES..], &message[..]);
        }
    }
}
