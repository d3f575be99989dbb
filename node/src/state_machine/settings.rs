//! The replicated limits, as a row of the state.
//!
//! They can change the result of a command, so they come from the log and never from a node's file. While the log has set none,
//! the defaults of apply version 1 hold; those must therefore never change under that version.
//!
//! What the log sets is clamped to a range in which every node can work: a memory limit that no instance pool has
//! would be a host fault on every replica at once, and no fuel at all would make the cluster deaf, to the next `SetLimits`
//! alone it would still listen. The clamp is part of the host's semantics (`APPLY_VERSION`).

use prost::Message;

use super::Fault;
use crate::limits::{MEMORY_BYTES_MAX, Replicated};
use crate::proto::command as pb;
use crate::storage::ReadView;
use crate::storage::keys::Key;

/// The limits in force in `view`.
pub(super) fn load(view: &ReadView) -> Result<Replicated, Fault> {
    let Some(bytes) = view.get(&Key::Limits.encode())? else { return Ok(Replicated::default()) };
    let row = pb::Limits::decode(&bytes[..]).map_err(|error| Fault::corrupt(format!("limits row: {error}")))?;
    Ok(row.into())
}

/// The value for [`Key::Limits`].
pub(super) fn encode(limits: Replicated) -> Vec<u8> {
    pb::Limits::from(limits).encode_to_vec()
}

/// `limits` within what every node can do.
pub fn clamp(limits: Replicated) -> Replicated {
    const MIB: u64 = 1024 * 1024;
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    Replicated {
        command_fuel: clamp_command_fuel(limits.command_fuel),
        query_fuel: clamp_query_fuel(limits.query_fuel),
        memory_bytes: limits.memory_bytes.clamp(MIB, MEMORY_BYTES_MAX),
        idempotency_window_ms: limits.idempotency_window_ms.clamp(1_000, DAY_MS),
        idempotency_keys: limits.idempotency_keys.min(100_000_000),
        idempotency_bytes: limits.idempotency_bytes.min(64 * 1024 * MIB),
        migrate_fuel: limits.migrate_fuel.clamp(1_000_000, 60_000_000_000),
        migrate_writes: limits.migrate_writes.clamp(1, 10_000_000),
        migrate_bytes: limits.migrate_bytes.clamp(MIB, 1024 * MIB),
    }
}

/// At about one fuel a nanosecond, the upper bound is a second, in which nothing else is applied.
pub(super) fn clamp_command_fuel(fuel: u64) -> u64 {
    fuel.clamp(10_000, 1_000_000_000)
}

/// The upper bound is a minute, of one query thread.
pub(super) fn clamp_query_fuel(fuel: u64) -> u64 {
    fuel.clamp(10_000, 60_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_the_range() {
        assert_eq!(clamp(Replicated::default()), Replicated::default());
    }
}
