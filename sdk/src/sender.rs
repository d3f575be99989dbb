//! The messages of a streaming query, on their way to the client.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;

use crate::imports;

/// Takes the messages of a streaming query, `rpc Dump(Request) returns (stream Item)`, one after the other:
///
/// ```
/// use balsa_sdk::{Map, Sender, Status, View};
///
/// const NAMES: Map<u64, String> = Map::new("names");
///
/// fn dump(ctx: &View, from: u64, out: &mut Sender<String>) -> Result<(), Status> {
///     for entry in NAMES.range(ctx, from..) {
///         out.send(entry?.1);
///     }
///     Ok(())
/// }
///
/// let mut host = balsa_sdk::testing::Host::new();
/// host.change(|ctx| (0..5).try_for_each(|n| NAMES.insert(ctx, &n, &format!("name {n}")))).unwrap();
/// assert_eq!(host.stream(dump, 3).unwrap(), ["name 3", "name 4"]);
/// ```
///
/// The whole stream sees one state, however long it takes. A status at its end reaches the client behind the messages that were
/// sent before. A stream is bounded by the fuel and the time of a query.
pub struct Sender<T> {
    /// Each message is encoded here.
    buffer: Vec<u8>,
    message: PhantomData<fn(T)>,
}

impl<T: Message> Sender<T> {
    pub(crate) const fn new() -> Self {
        Self { buffer: Vec::new(), message: PhantomData }
    }

    /// Sends a message, of at most [`RESULT_BYTES_MAX`](crate::limits::RESULT_BYTES_MAX) encoded bytes: a longer one stops the
    /// call. So does a client that has gone away; nothing has to be cleaned up then.
    pub fn send(&mut self, message: T) {
        self.buffer.clear();
        message.encode(&mut self.buffer).expect("a Vec takes everything");
        imports::output(&self.buffer);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}
