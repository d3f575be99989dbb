//! The whole state as a stream of bytes.
//!
//! ```text
//! stream  = frame(H) frame(R)* frame(T)
//! frame   = u32le length of payload, u8 kind, payload, u32le CRC-32C of kind and payload
//! H       = protobuf Header: format version, last log id, membership, rolling digest
//! R       = rows, about 1 MiB of them: u32le length, key, u32le length, value; keys strictly ascending over the whole stream
//! T       = protobuf Trailer: number of rows, their bytes, state hash
//! ```
//!
//! It is read from one read transaction, which stands still while writers go on, and cut into chunks of at most [`CHUNK_BYTES_MAX`]
//! without regard to frames, since a row may be larger than a message between nodes. The state hash stands at the end because
//! it is computed while the rows go by; in front it would mean reading everything twice.
//!
//! The receiver writes into a database file of its own in `tmp/`. It accepts the result only if every checksum is right, the
//! trailer came and agrees with what was received, the progress row agrees with the header, and every module in it
//! compiles here. Only then can it be [installed](super::StateMachine::install). A snapshot holds no identity: neither node id
//! nor vote nor fence.

mod code;
mod decoder;

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message;

use super::digest::{StateHash, StateHasher};
use super::machine::load_membership;
use super::{Fault, Progress, Registry, View};
use crate::ids::Digest;
use crate::proto::raft as pb;
use crate::raft::types::{LogId, Membership, StoredMembership};
use crate::storage::keys::Key;
use crate::storage::{self, Incoming, Overlay};
use crate::wasm::{Engine, HostFault};

pub use code::CodeFinder;
pub use decoder::{Contents, SnapshotDecoder};

/// The version of this format.
const FORMAT: u32 = 1;
/// A chunk of the stream: well below the 4 MiB that gRPC takes in one message.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// Rows are gathered into a frame until it has this size.
const FRAME_BYTES: usize = 1024 * 1024;
/// The last row of a frame has at most a remembered reply in it, of 4 MiB; anything much longer is not a snapshot.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + 16 * 1024 * 1024;

const FRAME_HEAD: usize = 5;
const FRAME_TAIL: usize = 4;

#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(message, optional, tag = "2")]
    last_applied: Option<pb::LogId>,
    #[prost(message, optional, tag = "3")]
    membership: Option<pb::StoredMembership>,
    #[prost(bytes = "vec", tag = "4")]
    digest: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Trailer {
    #[prost(uint64, tag = "1")]
    rows: u64,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    #[prost(bytes = "vec", tag = "3")]
    state_hash: Vec<u8>,
}

/// Why a received stream is not a snapshot. The state stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not made by this format.
    #[error("the snapshot is of format {0}, this balsa knows format {FORMAT}; upgrade this node")]
    Format(u32),
    /// Damaged on its way, or never whole.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// It contradicts itself: the sender's state is damaged.
    #[error("the snapshot contradicts itself: {0}; the sender's state may be damaged, run `balsa check --deep`")]
    Contradiction(&'static str),
    /// This node cannot take it.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<storage::Error> for SnapshotError {
    fn from(error: storage::Error) -> Self {
        Self::Fault(error.into())
    }
}

/// A state that can be sent, any number of times. Holding it pins the file's pages.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<View>);

impl Snapshot {
    /// `None` for a state to which nothing was applied.
    pub(super) fn of(view: Arc<View>) -> Option<Self> {
        view.progress.last_applied.is_some().then_some(Self(view))
    }

    /// The last entry in it.
    pub fn last_applied(&self) -> LogId {
        self.0.progress.last_applied.expect("a snapshot is made only of a state that has one")
    }

    /// The last membership in it.
    pub fn membership(&self) -> &StoredMembership {
        &self.0.membership
    }

    /// The rolling digest at `last_applied`.
    pub fn digest(&self) -> Digest {
        self.0.progress.digest
    }

    /// The stream, from its beginning.
    pub fn reader(&self) -> SnapshotReader {
        SnapshotReader {
            view: self.0.clone(),
            hasher: Some(StateHasher::new()),
            next: Vec::new(),
            buffer: frame(b'H', &self.header().encode_to_vec()),
        }
    }

    fn header(&self) -> Header {
        Header {
            format: FORMAT,
            last_applied: Some((&self.last_applied()).into()),
            membership: Some(self.membership().into()),
            digest: self.digest().0.to_vec(),
        }
    }
}

/// The bytes of a snapshot, chunk by chunk.
pub struct SnapshotReader {
    view: Arc<View>,
    /// `None` once the trailer is in the buffer.
    hasher: Option<StateHasher>,
    /// Where the next frame's rows begin.
    next: Vec<u8>,
    buffer: BytesMut,
}

impl SnapshotReader {
    /// The next chunk, never empty; `None` at the end. Reads from disk.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, HostFault> {
        while self.buffer.len() < CHUNK_BYTES_MAX && self.hasher.is_some() {
            self.fill().map_err(Fault::from)?;
        }
        let len = self.buffer.len().min(CHUNK_BYTES_MAX);
        Ok((len > 0).then(|| self.buffer.split_to(len).freeze()))
    }

    /// Adds one frame of rows to the buffer, or the trailer after the last.
    fn fill(&mut self) -> Result<(), storage::Error> {
        let hasher = self.hasher.as_mut().expect("fill is called only before the trailer");
        let (mut rows, mut last) = (Vec::new(), None);
        for row in self.view.state.range(&self.next, None)? {
            let (key, value) = row?;
            hasher.row(key.value(), value.value());
            put_bytes(&mut rows, key.value());
            put_bytes(&mut rows, value.value());
            if rows.len() >= FRAME_BYTES {
                last = Some(key.value().to_vec());
                break;
            }
        }
        if !rows.is_empty() {
            self.buffer.unsplit(frame(b'R', &rows));
        }
        match last {
            // The next key in order is this one with a zero after it.
            Some(last) => self.next = [last.as_slice(), &[0]].concat(),
            None => self.finish(),
        }
        Ok(())
    }

    fn finish(&mut self) {
        if let Some(hasher) = self.hasher.take() {
            let StateHash { hash, keys, bytes } = hasher.finish();
            let trailer = Trailer { rows: keys, bytes, state_hash: hash.to_vec() };
            self.buffer.unsplit(frame(b'T', &trailer.encode_to_vec()));
        }
    }
}

/// Makes writers for snapshots that arrive, beside the thread that owns the state machine.
#[derive(Clone)]
pub struct Receiver {
    engine: Engine,
    incoming: Arc<dyn Fn() -> Result<Incoming, storage::Error> + Send + Sync>,
}

impl Receiver {
    pub(super) fn new(
        engine: Engine,
        incoming: impl Fn() -> Result<Incoming, storage::Error> + Send + Sync + 'static,
    ) -> Self {
        Self { engine, incoming: Arc::new(incoming) }
    }

    /// Begins to receive.
    pub fn begin(&self) -> Result<SnapshotWriter, SnapshotError> {
        Ok(SnapshotWriter {
            engine: self.engine.clone(),
            incoming: (self.incoming)()?,
            decoder: SnapshotDecoder::default(),
        })
    }
}

/// Receives a snapshot into a file of its own. Dropped, it leaves nothing behind.
pub struct SnapshotWriter {
    engine: Engine,
    incoming: Incoming,
    decoder: SnapshotDecoder,
}

impl SnapshotWriter {
    /// Takes the next bytes of the stream, cut anyhow. Writes to disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let incoming = &mut self.incoming;
        self.decoder.write(bytes, &mut |rows| Ok(incoming.insert(rows)?))
    }

    /// Ends the stream: checks all of it, compiles its modules, and makes it durable beside the present state.
    pub fn finish(mut self) -> Result<Received, SnapshotError> {
        let header = self.decoder.finish()?.header;
        let view = self.incoming.finish()?;
        let progress = Progress::load(&view)?;
        let membership = pb::StoredMembership::from(&load_membership(&view)?);
        if progress.last_applied.as_ref().map(pb::LogId::from) != header.last_applied
            || progress.digest.0 != header.digest[..]
            || Some(membership) != header.membership
        {
            return Err(SnapshotError::Contradiction("its header is not that of its rows"));
        }
        let registry = Registry::load(&self.engine, &view, &Registry::default())?;
        Ok(Received { incoming: self.incoming, progress, registry })
    }
}

/// A snapshot that arrived whole, is durable beside the present state, and can be installed.
pub struct Received {
    incoming: Incoming,
    progress: Progress,
    registry: Registry,
}

impl Received {
    /// Has `membership` instead of its own, durably, set by the same entry: for the first node of another cluster.
    pub fn set_membership(&mut self, membership: &Membership) -> Result<(), SnapshotError> {
        let key = Key::Membership.encode();
        let stored = load_membership(&self.incoming.finish()?)?;
        let stored = StoredMembership::new(*stored.log_id(), membership.clone());
        let row = pb::StoredMembership::from(&stored).encode_to_vec();
        self.incoming.insert(&Overlay::from([(key, Some(row))]))?;
        self.incoming.finish()?;
        Ok(())
    }

    /// The last entry in it.
    pub fn last_applied(&self) -> Option<LogId> {
        self.progress.last_applied
    }

    pub(super) fn into_parts(self) -> (Incoming, Registry) {
        (self.incoming, self.registry)
    }
}

fn frame(kind: u8, payload: &[u8]) -> BytesMut {
    let len = u32::try_from(payload.len()).expect("a frame is closed soon after FRAME_BYTES");
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + payload.len() + FRAME_TAIL);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&[kind]);
    frame.extend_from_slice(payload);
    let crc = crc32c::crc32c(&frame[FRAME_HEAD - 1..]);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("limits keep every key and value far below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader").field("view", &self.view).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("progress", &self.progress).finish_non_exhaustive()
    }
}
