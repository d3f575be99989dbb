//! A limit on everything, in one place, with where each number comes from.
//!
//! Limits that can change the result of a command are [`Replicated`]: they live in the log, not in this binary. The constants
//! here bound what enters the log at all, and are the same for every release of one `APPLY_VERSION`.

use crate::proto::command;

/// A state key. Larger keys make page-sized B-tree nodes useless.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// A state value.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// A state key as a module stores it: what a client may send, and room for what the module puts before it.
pub const STORED_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 64;
/// A state value as a module stores it: what a client may send, and room for a version or an index.
pub const STORED_VALUE_BYTES_MAX: usize = VALUE_BYTES_MAX + 64;
/// A client's request message: one value, its key, and room for a transaction's framing.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024 + 256 * 1024;
/// An encoded response: gRPC clients refuse messages above 4 MiB unless told otherwise, and framing needs some of it.
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// The output of a call that ends in a guest's status: headers carry it, and HTTP/2 peers cap headers at 8–16 KiB.
pub const STATUS_BYTES_MAX: usize = 4 * 1024;
/// Items of one page of a scan.
pub const SCAN_ITEMS_MAX: usize = 10_000;
/// Bytes of one page of a scan: what fits a result.
pub const SCAN_BYTES_MAX: usize = RESULT_BYTES_MAX;
/// An idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;
/// A full gRPC method path.
pub const METHOD_BYTES_MAX: usize = 512;
/// A reply that is stored for a retry whatever the table holds; above it the byte cap decides.
pub const SMALL_REPLY_BYTES: usize = 4 * 1024;
/// A module's uncompressed wasm.
pub const MODULE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Part of a module in one log entry: small enough that the commands behind it do not wait for long.
pub const MODULE_PART_BYTES_MAX: usize = 512 * 1024;
/// Bytes of modules that were uploaded and not activated yet; the next upload waits for them to expire.
pub const UPLOADS_BYTES_MAX: u64 = 2 * MODULE_BYTES_MAX as u64;
/// Uploads at once, however small: each is looked at with every entry, for it may have expired.
pub const UPLOADS_MAX: usize = 64;
/// How long an upload may stand still before it is forgotten, milliseconds of log time.
pub const UPLOAD_EXPIRES_MS: u64 = 600_000;
/// Rows of the history that are kept for each module.
pub const HISTORY_ROWS_MAX: usize = 64;
/// Rows of the history that are kept in all: a name costs nothing to make up, and a refusal is a row.
pub const HISTORY_ROWS_ALL_MAX: usize = 1_024;
/// Rows that one `Drop` deletes: some milliseconds.
pub const DROP_ROWS_MAX: usize = 10_000;
/// Bytes of keys and values after which a `Drop` takes no more rows: they are read on the way.
pub const DROP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Modules that operators push through one node at once; each is in its memory, compressed and not, until it is decided.
pub const PUSHES_MAX: usize = 4;
/// Who pushed a module, in words: it is kept in the history.
pub const PUSHED_BY_BYTES_MAX: usize = 256;
/// Why a module was refused, in words.
pub const REASON_BYTES_MAX: usize = 4 * 1024;

/// Linear memory that is set aside (as address space) for one call: what `limits.memory_bytes` can be raised to.
pub const MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Commands proposed and not yet applied, per node; the next one is RESOURCE_EXHAUSTED. Well below openraft's channel to the
/// state machine (1024 batches), so that the Raft core never waits for a slow apply.
pub const PENDING_COMMANDS_MAX: usize = 16 * 1024;
/// Bytes of commands proposed and not yet applied, per node.
pub const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Queries waiting for a thread, per node.
pub const PENDING_QUERIES_MAX: usize = 16 * 1024;
/// Queries that answer with a stream and run at once, per node. Each has a thread, which waits when its client is slow.
pub const STREAMS_MAX: u32 = 8;
/// Messages of a stream that wait for their client, bytes; a single message may be larger.
pub const STREAM_BYTES_MAX: usize = 1024 * 1024;
/// How long a client is told to wait before it retries an overloaded node, milliseconds.
pub const PUSHBACK_MS: u64 = 100;

/// Limits that are part of the replicated state; see `command.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicated {
    /// Fuel of one command. 50 M fuel is about 50 ms here, a twentieth of the default election timeout.
    pub command_fuel: u64,
    /// Fuel of one query.
    pub query_fuel: u64,
    /// Linear memory of one call, bytes.
    pub memory_bytes: u64,
    /// How long a reply is kept for a retry, milliseconds of log time.
    pub idempotency_window_ms: u64,
    /// Idempotency rows kept at most.
    pub idempotency_keys: u64,
    /// Bytes of idempotency rows kept at most.
    pub idempotency_bytes: u64,
    /// Fuel of one `balsa_init` or `balsa_migrate`: it stalls all commands while it runs.
    pub migrate_fuel: u64,
    /// Rows that it may write. They are held in memory until it ends, on the smallest node too.
    pub migrate_writes: u64,
    /// Bytes of keys and values that it may write.
    pub migrate_bytes: u64,
}

/// Fuel of one call of one module; `None`: as [`Replicated`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fuel {
    /// Of a command.
    pub command: Option<u64>,
    /// Of a query.
    pub query: Option<u64>,
}

impl From<Fuel> for command::Fuel {
    fn from(fuel: Fuel) -> Self {
        Self { command: fuel.command.unwrap_or(0), query: fuel.query.unwrap_or(0) }
    }
}

impl From<command::Fuel> for Fuel {
    fn from(fuel: command::Fuel) -> Self {
        let some = |value| Some(value).filter(|value| *value > 0);
        Self { command: some(fuel.command), query: some(fuel.query) }
    }
}

impl Default for Replicated {
    fn default() -> Self {
        Self {
            command_fuel: 50_000_000,
            query_fuel: 200_000_000,
            memory_bytes: 16 * 1024 * 1024,
            idempotency_window_ms: 120_000,
            idempotency_keys: 1_000_000,
            idempotency_bytes: 512 * 1024 * 1024,
            migrate_fuel: 2_000_000_000,
            migrate_writes: 100_000,
            migrate_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Replicated {
    /// All of them, in the order of their declaration: what hashes are made of.
    pub fn in_order(&self) -> [u64; 9] {
        let Self {
            command_fuel,
            query_fuel,
            memory_bytes,
            idempotency_window_ms,
            idempotency_keys,
            idempotency_bytes,
            migrate_fuel,
            migrate_writes,
            migrate_bytes,
        } = *self;
        [
            command_fuel,
            query_fuel,
            memory_bytes,
            idempotency_window_ms,
            idempotency_keys,
            idempotency_bytes,
            migrate_fuel,
            migrate_writes,
            migrate_bytes,
        ]
    }
}

impl From<Replicated> for command::Limits {
    fn from(limits: Replicated) -> Self {
        Self {
            command_fuel: limits.command_fuel,
            query_fuel: limits.query_fuel,
            memory_bytes: limits.memory_bytes,
            idempotency_window_ms: limits.idempotency_window_ms,
            idempotency_keys: limits.idempotency_keys,
            idempotency_bytes: limits.idempotency_bytes,
            migrate_fuel: limits.migrate_fuel,
            migrate_writes: limits.migrate_writes,
            migrate_bytes: limits.migrate_bytes,
        }
    }
}

impl From<command::Limits> for Replicated {
    fn from(limits: command::Limits) -> Self {
        // Entries of before there were migrations do not have these.
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let defaults = Self::default();
        Self {
            command_fuel: limits.command_fuel,
            query_fuel: limits.query_fuel,
            memory_bytes: limits.memory_bytes,
            idempotency_window_ms: limits.idempotency_window_ms,
            idempotency_keys: limits.idempotency_keys,
            idempotency_bytes: limits.idempotency_bytes,
            migrate_fuel: or(limits.migrate_fuel, defaults.migrate_fuel),
            migrate_writes: or(limits.migrate_writes, defaults.migrate_writes),
            migrate_bytes: or(limits.migrate_bytes, defaults.migrate_bytes),
        }
    }
}
