//! What this node's files ask for, and every change of it.

pub mod binary;
