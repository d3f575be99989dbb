//! A snapshot on its way: from this node's state to a peer, or from a peer to this node's disk.
//!
//! The bytes are the state machine's (`state_machine/snapshot.rs`); here they are only cut into messages. Both ends touch
//! files and B-trees, so both run on a thread of their own: writers go on meanwhile.

use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::log_store::Pin;
use crate::measure::SnapshotMeter;
use crate::proto::peer as pb;
use crate::state_machine::{Received, Receiver, Snapshot};

/// Chunks read ahead of the network, or received ahead of the disk; about 1 MiB each.
const CHUNKS_QUEUED: usize = 4;

/// What openraft carries as a snapshot.
#[derive(Debug)]
pub enum SnapshotData {
    /// This node's state, read as it is sent.
    Outgoing {
        /// The state.
        snapshot: Snapshot,
        /// Keeps the log after it, which the peer will need next.
        pin: Pin,
    },
    /// A peer's state, received whole, verified, and not installed yet.
    Incoming(Box<Received>),
}

impl SnapshotData {
    /// The messages that carry this snapshot. Reading ends when the receiver of them is gone; a read that fails ends them
    /// early, and the peer then misses the trailer.
    pub fn into_chunks(
        self,
        header: pb::SnapshotHeader,
        meter: Arc<SnapshotMeter>,
    ) -> ReceiverStream<pb::SnapshotChunk> {
        let (queue, chunks) = mpsc::channel(CHUNKS_QUEUED);
        let part = |part| pb::SnapshotChunk { part: Some(part) };
        queue.try_send(part(pb::snapshot_chunk::Part::Header(header))).expect("the queue is empty");
        if let Self::Outgoing { snapshot, pin } = self {
            let spawned = thread::Builder::new().name("snapshot-out".into()).spawn(move || {
                let _pin = pin;
                let (mut reader, mut sent) = (snapshot.reader(), 0);
                loop {
                    let bytes = match reader.next_chunk() {
                        Ok(Some(bytes)) => bytes,
                        Ok(None) => return meter.whole(sent),
                        Err(fault) => return tracing::error!(%fault, "cannot read the state for a snapshot"),
                    };
                    meter.piece(bytes.len());
                    sent += bytes.len() as u64;
                    if queue.blocking_send(part(pb::snapshot_chunk::Part::Data(bytes))).is_err() {
                        return;
                    }
                }
            });
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread to send a snapshot with");
            }
        }
        ReceiverStream::new(chunks)
    }
}

/// Receives a snapshot whole into a file beside the state, and verifies it. What is not complete or not intact leaves nothing behind.
pub async fn receive(
    receiver: &Receiver,
    mut inbound: Streaming<pb::SnapshotChunk>,
    meter: &SnapshotMeter,
) -> Result<Received, Status> {
    let mut whole = 0;
    let mut writer = receiver.begin().map_err(|error| Status::internal(error.to_string()))?;
    let (queue, mut chunks) = mpsc::channel::<bytes::Bytes>(CHUNKS_QUEUED);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            writer.write(&chunk)?;
        }
        writer.finish()
    });
    while let Some(chunk) = inbound.message().await? {
        let Some(pb::snapshot_chunk::Part::Data(bytes)) = chunk.part else {
            return Err(Status::invalid_argument("a snapshot has one header"));
        };
        meter.piece(bytes.len());
        whole += bytes.len() as u64;
        if queue.send(bytes).await.is_err() {
            break;
        }
    }
    drop(queue);
    let finished = writing.await.map_err(|error| Status::internal(error.to_string()))?;
    let received = finished.map_err(|error| Status::data_loss(error.to_string()))?;
    meter.whole(whole);
    Ok(received)
}
