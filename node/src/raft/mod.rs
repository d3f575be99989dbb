//! Consensus: openraft, its types, and how nodes talk to each other.

pub mod clock;
pub mod codec;
pub mod types;
