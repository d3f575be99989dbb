//! Consensus: openraft, its types, and how nodes talk to each other.

pub mod codec;
pub mod types;
