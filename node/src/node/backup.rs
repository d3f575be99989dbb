//! A backup: this node's state as a stream, for an operator.
//!
//! It is what a follower would get, of a state that has all that was acknowledged before it was asked for. Reading it pins the
//! pages of that state, so that the file grows meanwhile; therefore one at a time, and whoever does not take it is given up.

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Node;
use crate::service::{BackupStream, Consistency, ServiceError};
use crate::state_machine::Snapshot;
use crate::wasm::HostFault;

/// Chunks read ahead of the network; about 1 MiB each.
const CHUNKS_QUEUED: usize = 4;
/// How long nobody may take a chunk before the backup is given up.
const STALL: Duration = Duration::from_secs(60);
/// How long it may take until the state can be read.
const PATIENCE: Duration = Duration::from_secs(10);

type Chunks = mpsc::Sender<Result<Bytes, HostFault>>;

impl Node {
    /// The state as of now or later, chunk by chunk.
    pub(super) async fn stream_state(&self) -> Result<BackupStream, ServiceError> {
        self.serving()?;
        let Ok(permit) = self.inner.backups.clone().try_acquire_owned() else {
            return Err(ServiceError::Overloaded("another backup of this node is under way"));
        };
        self.wait_consistent(Consistency::Linearizable, Instant::now() + PATIENCE).await?;
        let snapshot = self.inner.reader.snapshot().ok_or(ServiceError::NoModule)?;
        let (queue, chunks) = mpsc::channel(CHUNKS_QUEUED);
        let runtime = Handle::current();
        let read = move || {
            let _permit = permit;
            read(&snapshot, &queue, &runtime);
        };
        match thread::Builder::new().name("backup".into()).spawn(read) {
            Ok(_) => Ok(ReceiverStream::new(chunks).boxed()),
            Err(_) => Err(ServiceError::Overloaded("the system has no thread to give")),
        }
    }
}

/// Reads until the end, or until nobody listens.
fn read(snapshot: &Snapshot, queue: &Chunks, runtime: &Handle) {
    let mut reader = snapshot.reader();
    loop {
        let chunk = match reader.next_chunk() {
            Ok(None) => return,
            Ok(Some(chunk)) => Ok(chunk),
            Err(fault) => Err(fault),
        };
        let failed = chunk.is_err();
        let sent = runtime.block_on(async { tokio::time::timeout(STALL, queue.send(chunk)).await });
        if failed || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
