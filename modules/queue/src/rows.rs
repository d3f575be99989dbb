//! What is stored, and in which order.

use balsa_sdk::prost::{self, Message};
use balsa_sdk::{Bytes, Map};

/// By name.
pub(crate) const QUEUES: Map<String, QueueRow> = Map::new("queues");
/// By queue and id: what waits or is in flight.
pub(crate) const MESSAGES: Map<(String, u64), MessageRow> = Map::new("messages");
/// The same by queue, `available_ms` and id.
pub(crate) const SCHEDULE: Map<(String, u64, u64), ()> = Map::new("schedule");
/// By queue and id.
pub(crate) const DEAD: Map<(String, u64), MessageRow> = Map::new("dead");
/// By queue and id, of the dead ones, too. Apart from the rest of a message, which is written at each of its steps.
pub(crate) const BODIES: Map<(String, u64), Bytes> = Map::new("bodies");

#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "prost")]
pub(crate) struct QueueRow {
    #[prost(uint32, tag = "1")]
    pub(crate) max_attempts: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) visibility_ms: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) last_id: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) waiting: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) in_flight: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) dead: u64,
}

#[derive(Clone, PartialEq, Message)]
#[prost(prost_path = "prost")]
pub(crate) struct MessageRow {
    #[prost(uint64, tag = "1")]
    pub(crate) enqueued_ms: u64,
    /// When it is available; for a dead one, when it died.
    #[prost(uint64, tag = "2")]
    pub(crate) since_ms: u64,
    #[prost(bool, tag = "3")]
    pub(crate) in_flight: bool,
    /// How often it was handed out since it was enqueued or requeued.
    #[prost(uint32, tag = "4")]
    pub(crate) attempts: u32,
    /// How often it was handed out at all: the part of a receipt that makes it good for one delivery only.
    #[prost(uint64, tag = "5")]
    pub(crate) deliveries: u64,
    #[prost(string, tag = "6")]
    pub(crate) last_error: String,
}
